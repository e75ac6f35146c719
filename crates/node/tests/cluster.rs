//! Whole nodes in one process, on loopback addresses, each with an embedded engine: membership from the first manager to the
//! last, and what happens to tasks meanwhile.

mod support;

use api::{LocalState, Swarm as _};
use model::{Role, Timestamp};
use store::Transaction;
use support::{Host, cluster, create, state, until, until_running};

fn leader(hosts: &[Host]) -> Option<usize> {
    hosts.iter().position(|h| {
        h.node.as_ref().is_some_and(|n| n.raft().is_some_and(|r| r.leader.is_some() && r.leader == n.local().node_id))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_runs_a_service_and_survives_its_leader() {
    let mut hosts = cluster(3, 2).await;
    let id = create(&hosts[1], "web", 5).await;
    let before = until_running(&hosts[2], &id, 5).await;
    let nodes: std::collections::BTreeSet<_> = before.iter().map(|(_, node)| node.clone()).collect();
    assert_eq!(nodes.len(), 5, "five replicas spread over five nodes");

    let gone = leader(&hosts).expect("a leader");
    // Its containers run on; only the daemon is gone.
    hosts[gone].halt().await;
    let other = (gone + 1) % 3;
    // Back before it counts as down, as after an upgrade: a write in between needs another leader.
    let second = create(&hosts[other], "second", 2).await;
    hosts[gone].boot().await;
    until_running(&hosts[other], &second, 2).await;
    until("the old leader to follow", async || {
        let view = hosts[gone].node().raft()?;
        (view.managers.len() == 3 && view.leader.is_some()).then_some(())
    })
    .await;
    let after = until_running(&hosts[gone], &id, 5).await;
    assert_eq!(before, after, "no task was restarted by a leader change and a daemon's restart");
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_promoted_and_demoted_and_leave() {
    let mut hosts = cluster(1, 2).await;
    let set_role = async |hosts: &[Host], n: usize, role: Role| {
        let id = hosts[n].id();
        until("the role to be written", async || {
            let state = state(&hosts[0]).await;
            let mut node = model::Node::clone(state.node(&id)?);
            node.spec.role = role;
            let mut tx = Transaction::new(Timestamp(1));
            tx.update(node);
            hosts[0].store().propose(tx).await.ok()
        })
        .await;
    };
    let voters = async |hosts: &[Host], count: usize| {
        until("the voters", async || {
            let view = hosts[0].node().raft()?;
            (view.managers.values().filter(|m| m.voter).count() == count && view.managers.len() == count).then_some(())
        })
        .await;
    };
    set_role(&hosts, 1, Role::Manager).await;
    set_role(&hosts, 2, Role::Manager).await;
    voters(&hosts, 3).await;
    until("the promoted node to serve reads", async || hosts[1].node().store().ok()?.current().await.ok()).await;

    set_role(&hosts, 1, Role::Worker).await;
    voters(&hosts, 2).await;
    until("the demoted node to know", async || (hosts[1].node().local().state == LocalState::Worker).then_some(()))
        .await;
    assert!(hosts[1].node().store().is_err(), "a worker has no store");
    // And again: it joins as a new Raft member.
    set_role(&hosts, 1, Role::Manager).await;
    voters(&hosts, 3).await;
    // Out of the group and wanted back before it noticed: it comes back all the same.
    let id = hosts[1].id();
    set_role(&hosts, 1, Role::Worker).await;
    until("it to be out of the group", async || {
        state(&hosts[0]).await.node(&id).is_some_and(|n| n.manager.is_none()).then_some(())
    })
    .await;
    set_role(&hosts, 1, Role::Manager).await;
    voters(&hosts, 3).await;

    hosts[2].node().leave(true).await.expect("it leaves");
    assert_eq!(hosts[2].node().local().state, LocalState::Inactive);
    voters(&hosts, 2).await;
    for host in &mut hosts {
        host.halt().await;
    }
}
