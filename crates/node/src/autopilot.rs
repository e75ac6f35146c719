//! Autopilot's hands: takes the steps that [`control::autopilot`] advises, for as long as this manager leads and the policy is
//! on.

use crate::manager::Manager;
use crate::raft_store::LeaderStore;
use control::autopilot::{Group, advise, transaction};
use model::{NodeId, Timestamp};
use raft::RaftView;
use std::collections::BTreeSet;
use std::time::Duration;
use store::StoreClient as _;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Replaces lost managers by spare ones, until dropped.
pub(crate) async fn keep(manager: &Manager, store: &LeaderStore) {
    loop {
        // It is about managers that are lost for minutes: nothing has to wake it.
        tokio::time::sleep(LOOK).await;
        let state = store.local();
        if !state.cluster().is_some_and(|c| c.spec.policy.autopilot.on) {
            continue;
        }
        let now = Timestamp::from_unix(manager.seams.clock.unix_now());
        let group = group(&manager.views.borrow(), manager.raft.config().unreachable_after);
        let Some(step) = advise(&state, &group, now).step else { continue };
        let Some(tx) = transaction(&state, &step, now) else { continue };
        match store.propose(tx).await {
            Ok(_) => tracing::warn!(?step, "autopilot changes who is a manager"),
            Err(error) => tracing::debug!(?step, %error, "autopilot looks again in a moment"),
        }
    }
}

/// The group as its leader sees it: a voter that has not answered for `unreachable_after` cannot be reached.
fn group(view: &RaftView, unreachable_after: Duration) -> Group {
    let id = |raft_id: &u64| view.nodes.get(raft_id).and_then(|m| m.node_id.parse::<NodeId>().ok());
    let reached = |raft_id: &&u64| **raft_id == view.raft_id || view.is_reachable(**raft_id, unreachable_after);
    let reachable: BTreeSet<NodeId> = view.voters.iter().filter(reached).filter_map(id).collect();
    Group { voters: view.voters.iter().filter_map(id).collect(), reachable }
}
