//! Work on the disk of a member that does not run: reading its state, and making it the founder of a group of its own after
//! the majority of the old one is lost.
//!
//! [`Offline::refound`] writes in an order in which every prefix is a sound disk. A vote in a far term for nobody but
//! itself comes first: the member may still come back into its old group with it. Then the snapshot, whose membership
//! is this member alone: this one atomic write is what decides. Removing the log behind it is tidying up, which openraft
//! does by itself at the next start should it have been missed.

use crate::log::{Log, LogStore};
use crate::machine::StateMachine;
use crate::snapshot_file::SnapshotFiles;
use crate::types::{LogId, Member, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use bytes::Bytes;
use openraft::alias::CommittedLeaderIdOf;
use openraft::storage::RaftLogStorage as _;
use openraft::{EntryPayload, Membership, RaftLogReader as _};
use openraft_rt_tokio::TokioRuntime;
use seams::Disk;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

type RT = TokioRuntime;

/// Terms that a new group is at least ahead of the old one. Members of the old one that this disk has not heard of any more
/// may have held elections; nobody holds a million.
const TERMS_AHEAD: u64 = 1 << 20;
/// Log indexes that a new group is at least ahead of the old one. Whoever compares positions (an agent does) must never take
/// the new group's for older, however long the old one went on after this disk was written: at 1,000 writes a second this is
/// two years.
const INDEXES_AHEAD: u64 = 1 << 36;
/// Terms for each millisecond since 1970: a group that is founded later than another one, from an older copy even, begins ahead
/// of wherever the other one has got by then. Nobody holds a thousand elections a second.
const TERMS_PER_MS: u64 = 1;
/// The same for log indexes: nobody writes a million entries a second. Clients see indexes as JSON numbers, which are exact up
/// to 2^53: enough until the year 2248.
const INDEXES_PER_MS: u64 = 1 << 10;
/// Entries read at a time, by their bytes (the log reader's own limit).
const BATCH: u64 = 4096;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogPosition {
    /// The highest term that is known there, votes included.
    pub term: u64,
    /// The last log index.
    pub index: u64,
}

/// Work on a stopped member's disk that was not done. Nothing was changed, unless [`OfflineError::Write`] says so.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is neither a log nor a snapshot.
    #[error("the disk holds no Raft group: this node has never been a manager, or its Raft directory is gone")]
    Empty,
    /// The log or the snapshot cannot be read.
    #[error("cannot read the Raft state from the disk: {0}")]
    Read(#[source] io::Error),
    /// Entries between the snapshot and the log are missing.
    #[error("the Raft log begins at entry {first}, and the snapshot ends at {snapshot}: what was between them is lost")]
    Gap {
        /// First entry of the log.
        first: u64,
        /// Last entry that the snapshot covers; zero without one.
        snapshot: u64,
    },
    /// The state machine refused what it was given.
    #[error("cannot rebuild the state: {0}")]
    State(String),
    /// The new group would not be ahead of what the disk holds.
    #[error("the new group would begin at {asked:?}, which is not ahead of what the disk holds ({held:?})")]
    NotAhead {
        /// Where it was to begin.
        asked: LogPosition,
        /// What is there.
        held: LogPosition,
    },
    /// The disk refused a write; it holds the old group or the new one. Replay it and try again.
    #[error("cannot write the Raft state to the disk: {0}")]
    Write(#[source] io::Error),
}

/// The disk of a member that does not run. Nobody else may have it open.
pub struct Offline {
    log: Log<RT>,
    store: Arc<dyn LogStore>,
    files: SnapshotFiles,
}

// === impl LogPosition ===

impl LogPosition {
    /// Where a group begins that replaces the one whose last known position this is: ahead of anything that the old one, or
    /// another one that replaced it before `now` (since the Unix epoch), can have reached.
    #[must_use]
    pub fn of_next_group(self, now: Duration) -> LogPosition {
        let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        LogPosition {
            term: self.term.saturating_add(TERMS_AHEAD).max(ms.saturating_mul(TERMS_PER_MS)),
            index: self.index.saturating_add(INDEXES_AHEAD).max(ms.saturating_mul(INDEXES_PER_MS)),
        }
    }
}

// === impl Offline ===

impl Offline {
    /// The disk: the log, and the directory of the snapshot files.
    pub fn new(log: Arc<dyn LogStore>, disk: Arc<dyn Disk>, snapshot_dir: PathBuf) -> Offline {
        Offline { log: Log::new(log.clone()), store: log, files: SnapshotFiles::new(disk, snapshot_dir) }
    }

    /// Brings an empty state machine to the end of what the disk holds: the snapshot, then every entry of the log, also
    /// those that are not known to be committed. A lost majority took that knowledge with it, and some of them may have been
    /// acknowledged; of the others nobody was told that they failed.
    ///
    /// # Errors
    /// When there is nothing, or something is damaged or missing.
    pub async fn replay(&self, machine: &dyn StateMachine) -> Result<LogPosition, OfflineError> {
        let mut at = self.position().await?;
        if at.index == 0 {
            return Err(OfflineError::Empty);
        }
        let applied = self.restore(machine).await?;
        let Some((first, last)) = self.store.bounds().await.map_err(OfflineError::Read)? else { return Ok(at) };
        if first > applied + 1 && first > 0 && last > applied {
            return Err(OfflineError::Gap { first, snapshot: applied });
        }
        // openraft's very first entry, the membership of a founder, has index zero.
        let mut next = if applied == 0 { first } else { applied + 1 };
        let mut log = self.log.clone();
        while next <= last {
            let until = last.saturating_add(1).min(next.saturating_add(BATCH));
            let entries = log.limited_get_log_entries(next, until).await.map_err(OfflineError::Read)?;
            if entries.is_empty() {
                let missing = io::Error::other(format!("log entry {next} is missing"));
                return Err(OfflineError::Read(missing));
            }
            for entry in entries {
                at.term = at.term.max(entry.log_id.leader_id.term);
                match entry.payload {
                    EntryPayload::Normal(command) => {
                        let applied = machine.apply(next, &command.0);
                        applied.map(drop).map_err(|e| OfflineError::State(e.to_string()))?;
                    }
                    EntryPayload::Blank | EntryPayload::Membership(_) => machine.advance(next),
                }
                next += 1;
            }
        }
        Ok(at)
    }

    /// Brings an empty state machine to the newest snapshot; gives the last entry that it covers, zero without one.
    async fn restore(&self, machine: &dyn StateMachine) -> Result<u64, OfflineError> {
        let newest = self.files.newest::<RT>().await.map_err(OfflineError::Read)?;
        let covered = newest.as_ref().and_then(|s| s.meta.last_log_id).map_or(0, |id| id.index);
        // What the log was purged behind is gone, and an older one that was kept beside it must not pass for it; even where no
        // entry is left in the log that would show the hole.
        let purged = self.log.clone().get_log_state().await.map_err(OfflineError::Read)?.last_purged_log_id;
        if let Some(purged) = purged.filter(|purged| purged.index > covered) {
            return Err(OfflineError::Gap { first: purged.index + 1, snapshot: covered });
        }
        if let Some(snapshot) = newest {
            machine.restore(&snapshot.snapshot).map_err(OfflineError::State)?;
        }
        Ok(covered)
    }

    /// Makes the disk that of a group of one: `me`, under a Raft id that was never used, with this state at this position
    /// (see [`LogPosition::of_next_group`]). The log's entries are gone then. When it fails, or is interrupted by a crash, the disk
    /// holds the old group or the new one; replay it again, and try again from where it is then.
    ///
    /// # Errors
    /// When the disk refuses, or holds something that is newer than `at`.
    pub async fn refound(&self, raft_id: u64, me: Member, at: LogPosition, state: &Bytes) -> Result<(), OfflineError> {
        let held = self.position().await?;
        if held.term >= at.term || held.index >= at.index {
            return Err(OfflineError::NotAhead { asked: at, held });
        }
        let leader = CommittedLeaderIdOf::<TypeConfig<RT>>::new(at.term);
        let log_id = LogId::<RT>::new(leader, at.index);
        let nodes = BTreeMap::from([(raft_id, me)]);
        let members = Membership::new(vec![BTreeSet::from([raft_id])], nodes);
        let members = members.map_err(|e| OfflineError::State(e.to_string()))?;
        let meta = SnapshotMeta::<RT> {
            last_log_id: Some(log_id),
            last_membership: StoredMembership::<RT>::new(Some(log_id), members),
        };
        let mut log = self.log.clone();
        log.save_vote(&Vote::<RT>::new(at.term, raft_id)).await.map_err(OfflineError::Write)?;
        // As many old ones as there were: which of them are one too many only the running member knows.
        let keep_old = self.files.old().await.map_err(OfflineError::Write)?;
        self.files.write::<RT>(&meta, state, keep_old).await.map_err(OfflineError::Write)?;
        if let Err(error) = log.purge(log_id).await {
            tracing::warn!(%error, "the log of the former group is still there; the next start removes it");
        }
        Ok(())
    }

    /// The end of what is there, and the highest term.
    async fn position(&self) -> Result<LogPosition, OfflineError> {
        let mut log = self.log.clone();
        let vote = log.read_vote().await.map_err(OfflineError::Read)?;
        let state = log.get_log_state().await.map_err(OfflineError::Read)?;
        let snapshot = self.files.newest::<RT>().await.map_err(OfflineError::Read)?;
        let ids = [state.last_log_id, snapshot.and_then(|s| s.meta.last_log_id)];
        let ids = ids.into_iter().flatten();
        let start = LogPosition { term: vote.map_or(0, |v| v.leader_id.term), index: 0 };
        Ok(ids
            .fold(start, |at, id| LogPosition { term: at.term.max(id.leader_id.term), index: at.index.max(id.index) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_group_is_ahead_of_every_earlier_one() {
        let at = |term, index| LogPosition { term, index };
        let ahead = |a: LogPosition, b: LogPosition| a.term > b.term && a.index > b.index;
        let years = |n: u64| Duration::from_secs(n * 365 * 24 * 3600);
        for now in [Duration::ZERO, years(50), years(200)] {
            // From the old group's end, though it went on for a year after this copy.
            let first = at(3, 42).of_next_group(now);
            assert!(ahead(first, at(100_000, 365 * 86_400 * 1000)), "{first:?}");
            assert!(first.index < 1 << 53);
            // From the first one's end.
            assert!(ahead(at(first.term + 9, first.index + 1_000_000).of_next_group(now), first));
        }
        // From the same old copy again, after the first one went on for a day at full speed.
        let first = at(3, 42).of_next_group(years(57));
        let went_on = at(first.term + 1000, first.index + 86_400 * 10_000);
        assert!(ahead(at(3, 42).of_next_group(years(57) + Duration::from_secs(86_400)), went_on));
    }
}
