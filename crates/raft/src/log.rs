//! The disk under the Raft log, and openraft's storage on top of it.

use crate::recent::Recent;
use crate::types::{Entry, LogId, TypeConfig, Vote, decode, encode};
use async_trait::async_trait;
use bytes::Bytes;
use openraft::alias::LogIdOf;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use openraft_rt::AsyncRuntime;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

/// Called once, from any thread, when what was appended is on stable storage, or could not be brought there.
pub type Synced = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Small records beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meta {
    /// Term and vote: what this member has promised.
    Vote,
    /// How far the log was known to be committed.
    Committed,
    /// Up to where the log was purged.
    Purged,
}

/// An ordered log of byte strings with consecutive indexes, and three small records. Dumb on purpose: what an entry means
/// is decided above, what "synced" takes is decided below.
///
/// An implementation must keep the order: what is called first is on stable storage no later than what is called second,
/// and the callbacks run in the order of the appends. After a crash, a prefix of the calls is there.
#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Indexes of the first and the last entry; `None` when there are none.
    async fn bounds(&self) -> io::Result<Option<(u64, u64)>>;
    /// The entries of a range in order, from its start up to where entries end or `bytes_max` is passed, but at least one
    /// when there is one. An entry whose checksum is wrong is an error.
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Bytes>>;
    /// Appends entries from `first` on; readable when this returns, durable when `synced` is called.
    async fn append(&self, first: u64, entries: Vec<Bytes>, synced: Synced) -> io::Result<()>;
    /// Removes the entries from an index on; durable when this returns.
    async fn truncate(&self, from: u64) -> io::Result<()>;
    /// Writes `purged` durably, then removes the entries up to and including an index when it suits.
    async fn purge(&self, up_to: u64, purged: Bytes) -> io::Result<()>;
    /// Reads a record.
    async fn read_meta(&self, key: Meta) -> io::Result<Option<Bytes>>;
    /// Writes a record; durable when this returns.
    async fn write_meta(&self, key: Meta, value: Bytes) -> io::Result<()>;
    /// Writes a record with the next sync that something else needs; losing it costs work, not correctness.
    async fn write_meta_lazily(&self, key: Meta, value: Bytes) -> io::Result<()>;
}

/// Bytes of entries in one append to a follower: with the largest entry added, it fits a gRPC message.
const READ_BYTES_MAX: usize = 1 << 20;

/// openraft's log storage and reader over a [`LogStore`].
pub(crate) struct Log<RT: AsyncRuntime> {
    store: Arc<dyn LogStore>,
    recent: Recent<RT>,
}

// === impl Log ===

impl<RT: AsyncRuntime> Clone for Log<RT> {
    fn clone(&self) -> Self {
        Log { store: self.store.clone(), recent: self.recent.clone() }
    }
}

impl<RT: AsyncRuntime> Log<RT> {
    pub(crate) fn new(store: Arc<dyn LogStore>) -> Log<RT> {
        Log { store, recent: Recent::new() }
    }

    /// One that reads every entry from the store.
    #[cfg(test)]
    pub(crate) fn forgetful(store: Arc<dyn LogStore>) -> Log<RT> {
        Log { store, recent: Recent::of_at_most(0) }
    }

    async fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry<RT>>> {
        if let Some(entries) = self.recent.read(&range, bytes_max) {
            return Ok(entries);
        }
        let first = range.start;
        let rows = self.store.read(range, bytes_max).await?;
        rows.iter().zip(first..).map(|(row, index)| decode_entry::<RT>(index, row)).collect()
    }

    async fn meta<T: serde::de::DeserializeOwned>(&self, key: Meta, what: &str) -> io::Result<Option<T>> {
        self.store.read_meta(key).await?.map(|bytes| decode(what, &bytes)).transpose()
    }
}

fn decode_entry<RT: AsyncRuntime>(index: u64, row: &[u8]) -> io::Result<Entry<RT>> {
    let entry: Entry<RT> = decode(&format!("Raft log entry {index}"), row)?;
    match entry.log_id.index == index {
        true => Ok(entry),
        false => Err(io::Error::other(format!("Raft log entry {index} claims to be entry {}", entry.log_id.index))),
    }
}

fn half_open(range: impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(i) => i.saturating_add(1),
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    };
    start..end.max(start)
}

impl<RT: AsyncRuntime> RaftLogReader<TypeConfig<RT>> for Log<RT> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<RT>>, io::Error> {
        let Some((first, _)) = self.store.bounds().await? else { return Ok(Vec::new()) };
        let range = half_open(range);
        self.entries(range.start.max(first)..range.end.max(first), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<RT>>, io::Error> {
        self.entries(start..end, READ_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<RT>>, io::Error> {
        self.meta(Meta::Vote, "the Raft vote").await
    }
}

impl<RT: AsyncRuntime> RaftLogStorage<TypeConfig<RT>> for Log<RT> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig<RT>>, io::Error> {
        let purged: Option<LogId<RT>> = self.meta(Meta::Purged, "the end of the purged Raft log").await?;
        let last = match self.store.bounds().await? {
            Some((_, last)) => self.entries(last..last + 1, usize::MAX).await?.pop().map(|e| e.log_id()),
            None => None,
        };
        // Rows behind the purge mark may still wait for their removal.
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.max(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<RT>) -> Result<(), io::Error> {
        self.store.write_meta(Meta::Vote, encode(vote)?.into()).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<TypeConfig<RT>>>) -> Result<(), io::Error> {
        self.store.write_meta_lazily(Meta::Committed, encode(&committed)?.into()).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<RT>>, io::Error> {
        Ok(self.meta::<Option<LogId<RT>>>(Meta::Committed, "the committed index").await?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig<RT>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry<RT>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut kept, mut rows) = (Vec::new(), Vec::new());
        for entry in entries {
            let row = Bytes::from(encode(&entry)?);
            kept.push((entry, row.len()));
            rows.push(row);
        }
        let Some(first) = kept.first().map(|(entry, _)| entry.log_id.index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        // Nobody reads what he was not told of, so they may be here a moment before they are in the store.
        self.recent.append(kept);
        let appended = self.store.append(first, rows, Box::new(move |result| callback.io_completed(result))).await;
        if appended.is_err() {
            self.recent.clear();
        }
        appended
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId<RT>>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |id| id.index + 1);
        self.recent.truncate(from);
        self.store.truncate(from).await
    }

    async fn purge(&mut self, log_id: LogId<RT>) -> Result<(), io::Error> {
        self.recent.purge(log_id.index);
        self.store.purge(log_id.index, encode(&log_id)?.into()).await
    }
}
