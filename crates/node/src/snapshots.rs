//! When a manager compacts its log into a snapshot, and how much of the log it keeps behind it: as the cluster's spec says.

use crate::raft_store::RaftStore;
use model::limits::{KEPT_FOR_SLOW_FOLLOWERS_DEFAULT, SNAPSHOT_INTERVAL_DEFAULT};
use raft::{Raft, RaftView};
use std::sync::Arc;
use store::StoreClient as _;
use tokio::sync::watch;

/// Asks for a snapshot whenever one is due, and purges what of the log is not wanted behind one, for the manager's whole life.
/// Every manager does it for itself: its log is its own.
pub(crate) async fn keep(raft: Raft, mut views: watch::Receiver<RaftView>, store: Arc<RaftStore>) {
    // The last entry that a snapshot was asked for at: it takes a while to be there.
    let mut asked = 0;
    // The last entry whose removal was asked for.
    let mut purged = 0;
    loop {
        let (applied, snapshot) = {
            let view = views.borrow_and_update();
            (view.last_applied.unwrap_or(0), view.snapshot.unwrap_or(0))
        };
        // Without a cluster, this manager has heard of none yet.
        let (every, behind) =
            store.local().cluster().map_or((SNAPSHOT_INTERVAL_DEFAULT, KEPT_FOR_SLOW_FOLLOWERS_DEFAULT), |c| {
                (c.spec.snapshot_interval, c.spec.raft.log_entries_for_slow_followers)
            });
        if is_due(every, applied, snapshot.max(asked)) {
            asked = applied;
            if let Err(error) = raft.trigger_snapshot().await {
                tracing::debug!(%error, "no more snapshots");
                return;
            }
        }
        let through = snapshot.saturating_sub(behind);
        if through > purged {
            purged = through;
            if let Err(error) = raft.purge_log(through).await {
                tracing::debug!(%error, "the log is purged no more");
                return;
            }
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// Whether so many entries were applied since the last snapshot that another one is wanted.
fn is_due(every: u64, applied: u64, last: u64) -> bool {
    // Nobody can store 0, and a damaged spec must not make a snapshot of each entry.
    let every = if every == 0 { SNAPSHOT_INTERVAL_DEFAULT } else { every };
    applied.saturating_sub(last) >= every
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_after_so_many_entries() {
        for (every, applied, last, expected) in [
            (10, 0, 0, false),
            (10, 9, 0, false),
            (10, 10, 0, true),
            (10, 19, 10, false),
            (10, 20, 10, true),
            // A snapshot that came from the leader covers more than was applied when one was asked for here.
            (10, 20, 25, false),
            (0, 9_999, 0, false),
            (0, 10_000, 0, true),
        ] {
            assert_eq!(is_due(every, applied, last), expected, "every {every}, {applied} applied, last at {last}");
        }
    }
}
