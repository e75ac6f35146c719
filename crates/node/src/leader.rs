//! What a manager does only while it leads: the control loops, the judgement of nodes, and the Raft group's membership.

use crate::manager::Manager;
use crate::membership::{Group, Step, next_step};
use crate::raft_store::LeaderStore;
use model::{NodeId, Timestamp};
use raft::{Member, MembershipError, RaftView};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::{ProposeError, StoreClient as _, Transaction};
use tokio::sync::watch;

/// For one step of the Raft group's membership.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// After a step that failed.
const STEP_RETRY: Duration = Duration::from_millis(250);
/// The membership is looked at again at least this often.
const LOOK_AT_LEAST: Duration = Duration::from_secs(2);
/// For the first confirmation of a new leader by a majority.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// Leads whenever this manager is the leader, for its whole life.
pub(crate) async fn lead_when_leader(manager: Arc<Manager>, suspects: watch::Receiver<BTreeSet<NodeId>>) {
    let mut views = manager.views.clone();
    loop {
        let Ok(view) = views.wait_for(|v| v.role == raft::Role::Leader).await.map(|v| v.clone()) else { return };
        let term = view.term;
        tracing::info!(term, "this manager leads");
        let mut until = views.clone();
        tokio::select! {
            biased;
            lost = until.wait_for(|v| !v.leads_in(term)) => if lost.is_err() { return },
            () = lead(&manager, term, suspects.clone()) => {}
        }
        tracing::info!(term, "this manager leads no more");
    }
}

/// Leads in a term, until dropped. That its end is noticed here takes a moment, so what is decided here is proposed in this
/// term or not at all ([`LeaderStore`]).
async fn lead(manager: &Manager, term: u64, suspects: watch::Receiver<BTreeSet<NodeId>>) {
    // What earlier leaders have committed must be applied here before anything is decided from it: all of it stands before the
    // first entry of this term, which a read index covers.
    while let Err(reason) = catch_up(manager).await {
        tracing::debug!(reason, "the new leader is not confirmed yet");
        tokio::time::sleep(STEP_RETRY).await;
    }
    let store = Arc::new(LeaderStore::new(manager.client.clone(), term));
    let settings = control::driver::Settings { canary: manager.control_canary, ..Default::default() };
    tokio::join!(
        control::driver::run_with(store.clone(), manager.seams.clock.clone(), settings, std::future::pending()),
        manager.reports.lead(store.clone(), suspects),
        keep_group(manager, &store, term),
        crate::ca_rotation::keep(manager, &store),
        crate::ca_marks::keep(manager, &store),
        crate::gossip_keys::keep(manager, &store),
        crate::autopilot::keep(manager, &store),
    );
}

async fn catch_up(manager: &Manager) -> Result<(), String> {
    let index = manager.raft.read_index(CONFIRM_TIMEOUT).await.map_err(|e| e.to_string())?;
    manager.raft.wait_applied(index, CONFIRM_TIMEOUT).await.map_err(|e| e.to_string())
}

/// Keeps the Raft group as the store says it should be.
async fn keep_group(manager: &Manager, store: &LeaderStore, term: u64) {
    let mut changes = store.changes();
    let mut views = manager.views.clone();
    // Learners that were not ready; forgotten when there is nothing else to do.
    let mut not_now = BTreeSet::new();
    loop {
        let group = group(&views.borrow_and_update());
        let Some(step) = next_step(&store.local(), &group, &not_now) else {
            let wait = if not_now.is_empty() { LOOK_AT_LEAST } else { STEP_RETRY };
            not_now.clear();
            tokio::select! {
                biased;
                _ = changes.next() => {}
                _ = views.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
            continue;
        };
        tracing::info!(?step, "changing the Raft group");
        if let Err(reason) = take(manager, store, term, &step).await {
            tracing::warn!(?step, reason, "the Raft group could not be changed; trying again");
            if let Step::Promote { raft_id } = step {
                not_now.insert(raft_id);
            }
            tokio::time::sleep(STEP_RETRY).await;
        }
    }
}

fn group(view: &RaftView) -> Group {
    Group { me: view.raft_id, voters: view.voters.clone(), learners: view.learners.clone() }
}

async fn take(manager: &Manager, store: &LeaderStore, term: u64, step: &Step) -> Result<(), String> {
    let failed = |e: MembershipError| e.to_string();
    // Raft makes a change in the term in which it was asked for; the step was worked out in this one.
    if !manager.raft.view().leads_in(term) {
        return Err(format!("term {term} is over"));
    }
    match step {
        Step::HandOver => manager.raft.transfer_leadership(STEP_TIMEOUT).await.map(drop).map_err(failed),
        Step::Remove { raft_id } => manager.raft.remove_member(*raft_id, STEP_TIMEOUT).await.map(drop).map_err(failed),
        Step::AddLearner { raft_id, addr, node_id } => {
            let member = Member { addr: addr.clone(), node_id: node_id.to_string() };
            manager.raft.add_learner(*raft_id, member, STEP_TIMEOUT).await.map(drop).map_err(failed)
        }
        Step::Promote { raft_id } => {
            manager.raft.promote_to_voter(*raft_id, STEP_TIMEOUT).await.map(drop).map_err(failed)
        }
        Step::ClearManager { node_id } => clear_manager(manager, store, node_id).await.map_err(|e| e.to_string()),
    }
}

async fn clear_manager(manager: &Manager, store: &LeaderStore, node_id: &NodeId) -> Result<(), ProposeError> {
    let state = store.local();
    let Some(node) = state.node(node_id) else { return Ok(()) };
    let mut node = model::Node::clone(node);
    let mut tx = Transaction::new(Timestamp::from_unix(manager.seams.clock.unix_now()));
    if let (Some(out), Some(cluster)) = (node.manager.take(), state.cluster()) {
        let mut cluster = model::Cluster::clone(cluster);
        cluster.retire_raft_id(out.raft_id, node_id);
        tx.update(cluster);
    }
    tx.update(node);
    store.propose(tx).await.map(drop)
}
