//! The one thread that makes writes durable: it drains the queue, syncs once, and answers everybody in order.

use super::Shared;
use super::fence::Fence;
use super::rows;
use crate::log::Synced;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// Entries after which the fence's floor is raised even under load.
const FLOOR_STEP: u64 = 1024;
/// Quiet after which the fence catches up with what is durable. Not at once: an election is a series of votes, and each
/// would wait for the fence of the one before.
const FENCE_QUIET: Duration = Duration::from_millis(250);
/// Rows removed at a time, between two syncs.
const REMOVE_ROWS: usize = 256;

/// What is to be made durable. The writer has put the rows into sled already, except where it says otherwise.
pub(super) enum Op {
    /// Entries up to `last` were put.
    Append { last: u64, synced: Synced },
    /// A record was put.
    Record { synced: Synced },
    /// The vote was put, for the `votes`th time.
    Vote { votes: u64, synced: Synced },
    /// The thread removes the entries from here on, so that the fence is lowered in the order of the queue.
    Truncate { from: u64, synced: Synced },
    /// The purge mark was put; the thread removes the entries up to here when it has nothing else to do.
    Purge { up_to: u64, synced: Synced },
}

pub(super) struct Flusher {
    shared: Arc<Shared>,
    /// Our own descriptor of sled's file: sled's `flush` writes, but asks nobody to make it durable.
    db_file: File,
    fence: Fence,
    /// What is durable by now; the fence follows when there is time. A fence that is behind is only less strict.
    durable: Fence,
    /// False until the fence file is there: it must be before the first acknowledgement.
    fenced: bool,
    /// Entries up to here wait for their removal.
    remove_up_to: Option<u64>,
    /// After a failed sync nobody knows what is durable, and a later success would prove nothing.
    failed: Option<String>,
}

// === impl Flusher ===

impl Flusher {
    pub(super) fn new(shared: Arc<Shared>, db_file: File, fence: Option<Fence>, remove_up_to: Option<u64>) -> Flusher {
        let fenced = fence.is_some();
        let fence = fence.unwrap_or_default();
        Flusher { shared, db_file, fence, durable: fence, fenced, remove_up_to, failed: None }
    }

    pub(super) fn run(mut self, queue: &Receiver<Op>) {
        while let Some(batch) = self.next_batch(queue) {
            self.commit(batch);
        }
        // What was written lazily; nobody waits for it.
        match self.sync() {
            Ok(()) => self.raise_fence(),
            Err(e) => tracing::warn!(error = %e, "the Raft log could not be synced at its end"),
        }
    }

    /// All that is waiting; while nothing is, removes purged rows, or sleeps.
    fn next_batch(&mut self, queue: &Receiver<Op>) -> Option<Vec<Op>> {
        let first = loop {
            match queue.try_recv() {
                Ok(op) => break op,
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if self.remove_up_to.is_some() => self.remove_some(),
                Err(TryRecvError::Empty) if self.fence == self.durable => break queue.recv().ok()?,
                Err(TryRecvError::Empty) => match queue.recv_timeout(FENCE_QUIET) {
                    Ok(op) => break op,
                    Err(RecvTimeoutError::Timeout) => self.raise_fence(),
                    Err(RecvTimeoutError::Disconnected) => return None,
                },
            }
        };
        let mut batch = vec![first];
        while let Ok(op) = queue.try_recv() {
            batch.push(op);
        }
        Some(batch)
    }

    fn commit(&mut self, batch: Vec<Op>) {
        let result = match &self.failed {
            Some(reason) => Err(io::Error::other(reason.clone())),
            None => catch_unwind(AssertUnwindSafe(|| self.make_durable(&batch)))
                .unwrap_or_else(|_| Err(io::Error::other("sled panicked"))),
        };
        if let Err(e) = &result
            && self.failed.is_none()
        {
            tracing::error!(error = %e, "the Raft log cannot be made durable; this manager stops taking part");
            self.failed = Some(format!("the Raft log could not be made durable: {e}"));
        }
        for op in batch {
            op.into_synced()(match &result {
                Ok(()) => Ok(()),
                Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
            });
        }
        // After the acknowledgements, so that nobody waits for it.
        if result.is_ok() && self.durable.floor >= self.fence.floor + FLOOR_STEP {
            self.raise_fence();
        }
    }

    fn make_durable(&mut self, batch: &[Op]) -> io::Result<()> {
        let mut durable = self.durable;
        for op in batch {
            match op {
                Op::Append { last, .. } => durable.floor = *last,
                Op::Truncate { from, .. } => {
                    durable.floor = durable.floor.min(from.saturating_sub(1));
                    self.truncate(*from)?;
                }
                Op::Vote { votes, .. } => durable.votes = *votes,
                Op::Purge { up_to, .. } => self.remove_up_to = self.remove_up_to.max(Some(*up_to)),
                Op::Record { .. } => {}
            }
        }
        self.sync()?;
        self.durable = durable;
        match self.fenced {
            true => Ok(()),
            false => self.write_fence(durable),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.db.flush().map_err(io::Error::other)?;
        self.db_file.sync_data()
    }

    fn write_fence(&mut self, fence: Fence) -> io::Result<()> {
        self.shared.fence_file.write(fence)?;
        self.fence = fence;
        self.fenced = true;
        Ok(())
    }

    /// From the end backwards, so that a crash in between leaves no hole. The fence is lowered before.
    fn truncate(&mut self, from: u64) -> io::Result<()> {
        if self.fence.floor >= from {
            self.write_fence(Fence { floor: from.saturating_sub(1), ..self.fence })?;
        }
        for row in self.shared.log.range(rows::key(from, 0)..).keys().rev() {
            self.shared.log.remove(row.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        self.shared.forget_from(from);
        Ok(())
    }

    fn remove_some(&mut self) {
        let Some(up_to) = self.remove_up_to else { return };
        let rows = self.shared.log.range(..rows::key(up_to.saturating_add(1), 0)).keys().take(REMOVE_ROWS);
        let removed = rows.map(|row| self.shared.log.remove(row?)).collect::<Result<Vec<_>, _>>();
        match removed {
            Ok(rows) if rows.len() == REMOVE_ROWS => {}
            Ok(_) => self.remove_up_to = None,
            Err(e) => {
                // They are dead rows: the purge mark is durable, and the next start tries again.
                tracing::warn!(error = %e, "purged Raft log entries could not be removed");
                self.remove_up_to = None;
            }
        }
    }

    fn raise_fence(&mut self) {
        if self.failed.is_some() || self.fence == self.durable {
            return;
        }
        if let Err(e) = self.write_fence(self.durable) {
            tracing::warn!(error = %e, "the fence of the Raft log could not be raised");
            // Tried again with the next change.
            self.fence = self.durable;
        }
    }
}

// === impl Op ===

impl Op {
    fn into_synced(self) -> Synced {
        match self {
            Op::Append { synced, .. }
            | Op::Record { synced }
            | Op::Vote { synced, .. }
            | Op::Truncate { synced, .. }
            | Op::Purge { synced, .. } => synced,
        }
    }
}
