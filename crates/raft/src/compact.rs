//! Compacting the log on demand.

use crate::error::WaitError;
use crate::handle::Raft;
use crate::types::TypeConfig;
use openraft::type_config::TypeConfigExt as _;
use openraft_rt::{AsyncRuntime, WatchReceiver as _};
use std::time::Duration;

/// How often the progress is looked at, and what is missing asked for again.
const POLL: Duration = Duration::from_millis(50);

// === impl Raft (compaction) ===

impl<RT: AsyncRuntime> Raft<RT> {
    /// Covers the log up to and including `index` by a snapshot, and purges it up to there, at most `limit`. A follower that is behind
    /// that will need the snapshot.
    ///
    /// # Errors
    /// When it is not done within `limit` (entries may wait for a majority, a follower may still be reading them), or the member
    /// stops. Asking again later goes on from there.
    pub async fn compact_through(&self, index: u64, limit: Duration) -> Result<(), WaitError> {
        let what = || format!("the log to be purged up to entry {index}");
        let compacted = TypeConfig::<RT>::timeout(limit, self.compact(index));
        compacted.await.unwrap_or_else(|_| Err(WaitError::Timeout { what: what(), waited: limit }))
    }

    async fn compact(&self, index: u64) -> Result<(), WaitError> {
        let stopped = |e: String| WaitError::Stopped(e);
        let reached = |id: Option<u64>| id.is_some_and(|id| id >= index);
        loop {
            let (applied, snapshot, purged) = {
                let metrics = self.inner.metrics();
                let m = metrics.borrow_watched();
                let index = |id: Option<crate::types::LogId<RT>>| id.map(|id| id.index);
                (index(m.last_applied), index(m.snapshot), index(m.purged))
            };
            if let Some(reason) = self.stopped() {
                return Err(stopped(reason));
            }
            if reached(purged) {
                return Ok(());
            }
            if reached(snapshot) {
                self.inner.trigger().purge_log(index).await.map_err(|e| stopped(e.to_string()))?;
            } else if reached(applied) {
                self.inner.trigger().snapshot().await.map_err(|e| stopped(e.to_string()))?;
            }
            TypeConfig::<RT>::sleep(POLL).await;
        }
    }
}
