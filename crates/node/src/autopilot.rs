//! Autopilot's hands: takes the steps that [`control::autopilot`] advises, for as long as this manager leads and the policy is
//! on.

use crate::manager::Manager;
use control::autopilot::{Group, advise, transaction};
use model::{NodeId, Timestamp};
use raft::RaftView;
use std::collections::BTreeSet;
use std::time::Duration;
use store::StoreClient as _;

/// A voter that has not answered for so long cannot be reached.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Replaces lost managers by spare ones, until dropped.
pub(crate) async fn keep(manager: &Manager) {
    loop {
        // It is about managers that are lost for minutes: nothing has to wake it.
        tokio::time::sleep(LOOK).await;
        let state = manager.client.local();
        if !state.cluster().is_some_and(|c| c.spec.policy.autopilot.on) {
            continue;
        }
        let now = Timestamp::from_unix(manager.seams.clock.unix_now());
        let group = group(&manager.views.borrow());
        let Some(step) = advise(&state, &group, now).step else { continue };
        let Some(tx) = transaction(&state, &step, now) else { continue };
        match manager.client.propose(tx).await {
            Ok(_) => tracing::warn!(?step, "autopilot changes who is a manager"),
            Err(error) => tracing::debug!(?step, %error, "autopilot looks again in a moment"),
        }
    }
}

/// The group as its leader sees it.
fn group(view: &RaftView) -> Group {
    let id = |raft_id: &u64| view.nodes.get(raft_id).and_then(|m| m.node_id.parse::<NodeId>().ok());
    let reached = |raft_id: &&u64| **raft_id == view.raft_id || view.is_reachable(**raft_id, UNREACHABLE_AFTER);
    let reachable: BTreeSet<NodeId> = view.voters.iter().filter(reached).filter_map(id).collect();
    Group { voters: view.voters.iter().filter_map(id).collect(), reachable }
}
