//! `/nodes`: list, inspect, update (availability, labels, role), remove.

use crate::reply::{Reply, empty, json};
use crate::request::Request;
use crate::{Api, convert, lookup, read};
use docker_api::{Failure, Filters};
use model::{Availability, Cluster, Node, NodeState, Role, limits};
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Check, Conflict, ObjectId, ProposeError, Snapshot, Transaction};

/// How often a change is judged again because something else changed meanwhile.
const ATTEMPTS: usize = 8;
/// A removed node's certificate is refused for this much longer than it can be valid: clocks differ (certificates are
/// backdated by as much).
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// `GET /nodes`
pub(crate) async fn list(api: &Api, request: &Request) -> Result<Reply, Failure> {
    let filters = request.query.filters()?;
    filters.allow_only(&["name", "id", "label", "node.label", "role", "membership"])?;
    for (filter, words) in [("role", ["worker", "manager"]), ("membership", ["accepted", "pending"])] {
        if let Some(bad) = filters.values(filter).find(|v| !words.contains(&v.to_ascii_lowercase().as_str())) {
            return Err(Failure::bad_request(format_args!("invalid {filter} filter: '{bad}'")));
        }
    }
    let snapshot = api.read(request).await?;
    let raft = api.deps().swarm.raft();
    let found = snapshot.nodes().filter(|n| matches(n, &filters));
    Ok(json(&found.map(|n| convert::node(n, raft.as_ref())).collect::<Vec<_>>()))
}

fn matches(n: &Node, filters: &Filters) -> bool {
    let description = n.description.as_ref();
    let role = match n.spec.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    };
    let no_labels = Default::default();
    filters.any("id", |id| n.id.as_str().starts_with(id))
        && filters.any("name", |name| description.is_some_and(|d| d.hostname.starts_with(name)))
        && filters.labels("label", description.map_or(&no_labels, |d| &d.engine.labels))
        && filters.labels("node.label", &n.spec.labels)
        && filters.any("role", |r| r.eq_ignore_ascii_case(role))
        && filters.any("membership", |m| m.eq_ignore_ascii_case("accepted"))
}

/// `GET /nodes/{id}`
pub(crate) async fn inspect(api: &Api, request: &Request, id: &str) -> Result<Reply, Failure> {
    let snapshot = api.read(request).await?;
    let found = lookup::node(&snapshot, id)?;
    Ok(json(&convert::node(found, api.deps().swarm.raft().as_ref())))
}

/// `POST /nodes/{id}/update`
pub(crate) async fn update(api: &Api, mut request: Request, id: &str) -> Result<Reply, Failure> {
    let sent: docker_api::NodeSpec = request.json().await?;
    let version = request.query.version("node")?;
    let spec = convert::node_spec(sent)?;
    attempt(api, |snapshot| {
        let old = lookup::node(snapshot, id)?;
        if version != old.meta.version {
            return Err(Failure::out_of_sequence());
        }
        let mut tx = api.transaction();
        if old.spec.role == Role::Manager && spec.role == Role::Worker {
            check_demotion(api, snapshot, old, &mut tx)?;
        }
        // One that has not left the Raft group yet is the manager that it was.
        if old.spec.role == Role::Worker && spec.role == Role::Manager && old.manager.is_none() {
            forget_former_manager(snapshot, old, &mut tx);
        }
        let mut node = Node { spec: spec.clone(), ..Node::clone(old) };
        if spec.availability == Availability::Active && old.spec.availability != Availability::Active {
            node.status.takes_tasks_since = tx.at;
        }
        tx.update(node);
        Ok((tx, old.id.clone().into()))
    })
    .await
}

/// A certificate that the node may have from an earlier time as a manager opens no door; it gets a new one.
fn forget_former_manager(snapshot: &Snapshot, node: &Node, tx: &mut Transaction) {
    let Some(cluster) = snapshot.cluster() else { return };
    let mut cluster = Cluster::clone(cluster);
    cluster.security.certificates.promoted_after.insert(node.id.clone(), snapshot.index());
    tx.update(cluster);
}

/// Refuses what would leave the swarm without a manager or a quorum, and makes the transaction depend on what it saw:
/// of two demotions at once the second is judged again.
fn check_demotion(api: &Api, snapshot: &Snapshot, node: &Node, tx: &mut Transaction) -> Result<(), Failure> {
    let mut others = snapshot.nodes().filter(|n| n.spec.role == Role::Manager && n.id != node.id).peekable();
    if others.peek().is_none() {
        return Err(Failure::last_manager());
    }
    if api.deps().swarm.raft().is_some_and(|r| r.managers.contains_key(&node.id) && !r.can_remove(&node.id)) {
        return Err(Failure::quorum_loss());
    }
    for other in others {
        tx.check(Check::Unchanged { id: (&other.id).into(), version: other.meta.version });
    }
    Ok(())
}

/// `DELETE /nodes/{id}`
pub(crate) async fn remove(api: &Api, request: &Request, id: &str) -> Result<Reply, Failure> {
    let force = request.query.is_on("force");
    attempt(api, |snapshot| {
        let node = lookup::node(snapshot, id)?;
        let is_member = api.deps().swarm.raft().is_some_and(|r| r.managers.contains_key(&node.id));
        if node.spec.role == Role::Manager || is_member {
            return Err(Failure::node_is_manager(node.id.as_str()));
        }
        if !force && node.status.state == NodeState::Ready {
            return Err(Failure::node_not_down(node.id.as_str()));
        }
        let mut tx = api.transaction();
        // Version and all: a node that came back or was promoted meanwhile is judged again.
        tx.remove(&node.id, node.meta.version);
        if let Some(cluster) = snapshot.cluster() {
            bar(cluster, node, &mut tx);
        }
        // Not the node itself: there is no version that the caller saw, so every conflict is worth another look.
        let caller_saw = ObjectId::Task("0".repeat(25).parse().expect("25 digits are an id"));
        Ok((tx, caller_saw))
    })
    .await
}

/// Its certificate opens no door any more, until it has expired.
fn bar(cluster: &Arc<Cluster>, node: &Node, tx: &mut Transaction) {
    let now = tx.at;
    let mut cluster = Cluster::clone(cluster);
    cluster.removed_nodes.retain(|_, until| *until > now);
    cluster.removed_nodes.insert(node.id.clone(), cluster.certificates_end_by(now).plus(CLOCK_SKEW));
    cluster.security.certificates.promoted_after.remove(&node.id);
    while cluster.removed_nodes.len() > limits::REMOVED_NODES_MAX {
        let first = cluster.removed_nodes.iter().min_by_key(|(_, until)| **until).map(|(id, _)| id.clone());
        first.map(|id| cluster.removed_nodes.remove(&id));
    }
    tx.checks.push(Check::Unchanged { id: (&cluster.id).into(), version: cluster.meta.version });
    tx.changes.push(Change::Put(cluster.into()));
}

/// Judges, proposes, and judges again when something changed meanwhile other than the object whose version the caller
/// named.
async fn attempt(
    api: &Api,
    judge: impl Fn(&Snapshot) -> Result<(Transaction, ObjectId), Failure>,
) -> Result<Reply, Failure> {
    for attempt in 1.. {
        let (store, snapshot) = api.read_to_write().await?;
        let (tx, named) = judge(&snapshot)?;
        match store.propose(tx).await {
            Ok(_) => return Ok(empty()),
            Err(ProposeError::Conflict(Conflict::Changed { id, .. })) if id != named && attempt < ATTEMPTS => {}
            Err(e) => return Err(read::propose_failure(e)),
        }
    }
    unreachable!("the last attempt returns")
}
