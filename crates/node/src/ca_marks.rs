//! From when on a certificate needs the managers' mark (docs/adr/0009).
//!
//! Marks begin with the first authority elsewhere. Nodes whose certificates have none renew them; when every node has said that
//! its certificate has one, those without are worth nothing any more, whoever signed them. A node that is away is waited for; one
//! that will not come back has to be removed.

use crate::manager::Manager;
use crate::raft_store::{LeaderStore, RaftStore};
use model::{Cluster, Node, NodeState, Timestamp};
use rpc::Channels;
use std::sync::Arc;
use std::time::Duration;
use store::{Event, Object, Snapshot, StoreClient as _, Transaction};
use tokio::time::Instant;

/// After a change that could not be written.
const RETRY: Duration = Duration::from_millis(250);
/// Between two looks at all nodes.
const LOOK_AT_MOST: Duration = Duration::from_millis(250);
/// Nothing is waited for longer than this.
const LOOK_AT_LEAST: Duration = Duration::from_secs(10);
/// Between two words on which nodes are waited for. One that is down may be for weeks.
const WORD_PERIOD: Duration = Duration::from_secs(600);
/// Nodes named in one word.
const NAMED_MAX: usize = 5;

/// The cluster in which marks are needed, when the time has come for it.
fn due(state: &Snapshot) -> Option<Cluster> {
    let cluster = state.cluster()?;
    let grants = cluster.security.grants.as_ref()?;
    if grants.required || !state.nodes().all(|node| says_that_it_has_one(node)) {
        return None;
    }
    let mut cluster = Cluster::clone(cluster);
    cluster.security.grants = Some(model::GrantKey { required: true, ..grants.clone() });
    Some(cluster)
}

fn says_that_it_has_one(node: &Node) -> bool {
    node.description.as_ref().and_then(|d| d.tls.as_ref()).is_some_and(|tls| tls.granted)
}

/// Which nodes are waited for, for people; `None` when none is.
fn waits_for(state: &Snapshot) -> Option<String> {
    state.cluster()?.security.grants.as_ref().filter(|grants| !grants.required)?;
    let waiting: Vec<&Arc<Node>> = state.nodes().filter(|node| !says_that_it_has_one(node)).collect();
    let name = |node: &&Arc<Node>| {
        let hostname = node.description.as_ref().map_or("", |d| d.hostname.as_str());
        let down = if node.status.state == NodeState::Ready { "" } else { ", not there: bring it back or remove it" };
        format!("{hostname} ({}{down})", node.id)
    };
    let named: Vec<String> = waiting.iter().take(NAMED_MAX).map(name).collect();
    let more = if waiting.len() > NAMED_MAX { "; …" } else { "" };
    (!waiting.is_empty()).then(|| format!("{} of the nodes: {}{more}", waiting.len(), named.join("; ")))
}

/// Writes that marks are needed when they are, for as long as this manager leads.
pub(crate) async fn keep(manager: &Manager, store: &LeaderStore) {
    let mut changes = store.changes();
    let mut last_word: Option<Instant> = None;
    loop {
        if let Some(cluster) = due(&store.local()) {
            let mut tx = Transaction::new(Timestamp::from_unix(manager.seams.clock.unix_now()));
            tx.update(cluster);
            match store.propose(tx).await {
                Ok(_) => {
                    tracing::info!("every node's certificate is marked; those without a mark open nothing any more")
                }
                Err(e) => {
                    tracing::debug!(error = %e, "that certificates need a mark is written a moment later");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        let next = tokio::select! {
            biased;
            event = changes.next() => Some(event),
            () = tokio::time::sleep(LOOK_AT_LEAST) => None,
        };
        if matches!(next, Some(Event::Closed)) {
            return;
        }
        let waits = |c: &Cluster| c.security.grants.as_ref().is_some_and(|g| !g.required);
        if store.local().cluster().is_some_and(|c| waits(c)) {
            tokio::time::sleep(LOOK_AT_MOST).await;
            if last_word.is_none_or(|at| at.elapsed() >= WORD_PERIOD)
                && let Some(nodes) = waits_for(&store.local())
            {
                last_word = Some(Instant::now());
                tracing::info!("certificates without a mark still open doors: they are needed by {nodes}");
            }
        }
    }
}

/// Tells this manager's channels the key of the marks: who it calls must have been granted a certificate, too.
pub(crate) async fn tell(client: Arc<RaftStore>, channels: Channels) {
    let mut changes = client.changes();
    loop {
        channels.judge_by(client.local().cluster().and_then(|c| c.security.grants.clone()));
        loop {
            match changes.next().await {
                Event::Commit(commit) => {
                    if commit.deltas.iter().any(|delta| matches!(delta.after, Some(Object::Cluster(_)))) {
                        break;
                    }
                }
                Event::Resync => break,
                Event::Closed => {
                    // A manager no more: the key is none of this node's business.
                    channels.judge_by(None);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Meta, NodeDescription, NodeSpec, NodeStatus, NodeTls};
    use seams::real::OsRand;
    use store::Store;

    fn state(grants: Option<model::GrantKey>, nodes: &[Option<bool>]) -> Snapshot {
        let store = Store::new();
        let mut tx = Transaction::new(Timestamp(1));
        let mut cluster = crate::testing::cluster();
        cluster.security.grants = grants;
        tx.create(cluster);
        for (n, granted) in nodes.iter().enumerate() {
            let tls = granted.map(|granted| NodeTls { granted, ..NodeTls::default() });
            tx.create(Node {
                id: format!("{n:025}").parse().unwrap(),
                meta: Meta::default(),
                spec: NodeSpec::default(),
                description: Some(NodeDescription { tls, ..NodeDescription::default() }),
                status: NodeStatus::default(),
                manager: None,
            });
        }
        store.apply(1, &tx).unwrap();
        store.snapshot()
    }

    #[test]
    fn marks_are_needed_when_every_node_has_one_and_not_before() {
        let key = || ca::generate_grant_key(&OsRand);
        let required = |s: &Snapshot| due(s).and_then(|c| c.security.grants).is_some_and(|g| g.required);
        assert!(!required(&state(None, &[Some(true)])), "nobody signs elsewhere");
        for (nodes, expected) in [
            (vec![Some(true), Some(true)], true),
            (vec![Some(true), Some(false)], false),
            (vec![Some(true), None], false),
        ] {
            let state = state(Some(key()), &nodes);
            assert_eq!(required(&state), expected, "{nodes:?}");
            assert_eq!(waits_for(&state).is_none(), expected, "{nodes:?}");
        }
        let words = waits_for(&state(Some(key()), &[Some(true), None, Some(false)])).expect("two are waited for");
        assert!(words.starts_with("2 of the nodes:  (0000000000000000000000001, not there"), "{words}");
        assert_eq!(waits_for(&state(None, &[None])), None, "nobody signs elsewhere");
        let there = model::GrantKey { required: true, ..key() };
        assert!(due(&state(Some(there), &[Some(false)])).is_none(), "once is enough");
    }
}
