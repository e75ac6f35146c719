//! What a real cluster does by itself where its policy says so: a spare takes the place of a lost manager, and a node that joins
//! gets its share of the tasks.
mod support;

use api::Swarm as _;
use control::autopilot::{Group, advise};
use model::{Autopilot, Node, NodeId, NodeState, RebalancePolicy, Role, SPARE_MANAGER_LABEL, Timestamp, UpdateConfig};
use std::collections::BTreeSet;
use std::time::Duration;
use store::Transaction;
use support::{Host, cluster, running, service, state, until, until_running};

fn now(host: &Host) -> Timestamp {
    Timestamp::from_unix(host.seams().clock.unix_now())
}

/// Changes what is written of the cluster or of a node, whatever else changes meanwhile.
async fn change(host: &Host, what: &str, make: impl Fn(&store::Snapshot, &mut Transaction) -> Option<()>) {
    until(what, async || {
        let mut tx = Transaction::new(Timestamp(1));
        make(&state(host).await, &mut tx)?;
        host.store().propose(tx).await.ok()
    })
    .await;
}

/// Three managers and two workers, of which the last is a spare; a manager counts as lost after a second.
async fn swarm() -> Vec<Host> {
    let hosts = cluster(3, 2).await;
    let spare = hosts[4].id();
    set(&hosts[0], false).await;
    change(&hosts[0], "the label", |state, tx| {
        let mut node = Node::clone(state.node(&spare)?);
        node.spec.labels.insert(SPARE_MANAGER_LABEL.into(), "true".into());
        tx.update(node);
        Some(())
    })
    .await;
    hosts
}

async fn set(host: &Host, on: bool) {
    change(host, "the policy", |state, tx| {
        let mut cluster = model::Cluster::clone(state.cluster()?);
        cluster.spec.policy.autopilot = Autopilot { on, after: Duration::from_secs(1) };
        tx.update(cluster);
        Some(())
    })
    .await;
}

/// What a node in the swarm should be.
async fn role(host: &Host, id: &NodeId) -> Option<Role> {
    state(host).await.node(id).map(|n| n.spec.role)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_takes_the_place_of_a_lost_manager() {
    let mut hosts = swarm().await;
    let (lost, spare) = (hosts[2].id(), hosts[4].id());
    hosts[2].halt().await;
    until("it to be advised to replace the lost one", async || {
        let found = state(&hosts[0]).await;
        let voters: BTreeSet<NodeId> =
            hosts[..3].iter().map(|h| h.node.as_ref().map_or(lost.clone(), |_| h.id())).collect();
        let reachable = voters.iter().filter(|v| **v != lost).cloned().collect();
        advise(&found, &Group { voters, reachable }, now(&hosts[0])).step
    })
    .await;
    assert_eq!(role(&hosts[0], &spare).await, Some(Role::Worker), "off, it changes nothing");
    set(&hosts[0], true).await;
    let voters = async |hosts: &[Host]| {
        let view = hosts[0].node().raft()?;
        let voters: Vec<_> = view.managers.iter().filter(|(_, m)| m.voter).map(|(id, _)| id.clone()).collect();
        (view.managers.len() == 3 && voters.len() == 3 && voters.contains(&spare)).then_some(())
    };
    until("the spare to vote and the lost one to be out", async || voters(&hosts).await).await;
    assert_eq!(role(&hosts[0], &lost).await, Some(Role::Worker));
    assert_eq!(role(&hosts[0], &spare).await, Some(Role::Manager));
    let found = state(&hosts[0]).await;
    assert!(found.nodes().all(|n| n.status.stands_in_for.is_none()), "nothing is left to do");
    until("the spare to serve reads", async || hosts[4].node().store().ok()?.current().await.ok()).await;
    // It comes back as a worker.
    hosts[2].boot().await;
    until("the lost one to be a worker", async || {
        let found = state(&hosts[0]).await;
        let node = found.node(&lost)?;
        (node.status.state == NodeState::Ready && node.manager.is_none() && hosts[2].node().store().is_err())
            .then_some(())
    })
    .await;
    assert_eq!(role(&hosts[0], &lost).await, Some(Role::Worker));
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_gets_its_share_by_policy() {
    let mut hosts = cluster(1, 1).await;
    let mut web = service("web", 6);
    let monitor = Some(Duration::from_millis(100));
    web.spec.update = Some(UpdateConfig { monitor, ..UpdateConfig::default() });
    let id = web.id.clone();
    change(&hosts[0], "the service and the policy", |state, tx| {
        let mut cluster = model::Cluster::clone(state.cluster()?);
        cluster.spec.policy.rebalance = RebalancePolicy::OnJoin;
        tx.update(cluster);
        tx.create(web.clone());
        Some(())
    })
    .await;
    until_running(&hosts[0], &id, 6).await;
    let token = state(&hosts[0]).await.cluster().expect("a cluster").join_tokens.worker.clone();
    let (net, n) = (hosts[0].ip.rsplit('.').nth(1).and_then(|s| s.parse().ok()).expect("a net"), 3);
    let new = Host::start(net, n).await;
    new.join(&hosts[0], &token).await.expect("join");
    until("the tasks to lie evenly", async || {
        let found = state(&hosts[0]).await;
        let tasks = running(&found, &id);
        let on = |host: &Host| tasks.iter().filter(|(_, node)| *node == host.id()).count();
        let done = found.service(&id)?.progress.rebalance.is_none();
        (done && on(&hosts[0]) == 2 && on(&hosts[1]) == 2 && on(&new) == 2).then_some(())
    })
    .await;
    hosts.push(new);
    for host in &mut hosts {
        host.halt().await;
    }
}
