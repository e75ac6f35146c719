//! The log on sled, made durable by hand.
//!
//! sled's own `flush` starts the write-back and returns; after a power cut the database can open empty, without an error.
//! So (1) one thread syncs: drain the queue, `flush`, `fdatasync` on a descriptor of our own, then the callbacks in order;
//! (2) sled's periodic flush is off; (3) every file and directory is synced after opening; (4) rows stay below 7 KiB, so
//! that sled never writes a blob file; (5) every entry has a checksum, verified when it is read and at every start; (6) a
//! fence outside sled says what must be there; (7) a panic of sled at opening is damage, not a crash.
#![allow(clippy::disallowed_methods)] // this is a seam: the log's disk. The simulation has a `LogStore` of its own.

mod fence;
mod flush;
mod open;
mod rows;
#[cfg(test)]
mod tests;

use crate::error::OpenLogError;
use crate::log::{LogStore, Meta, Synced};
use async_trait::async_trait;
use bytes::Bytes;
use fence::FenceFile;
use flush::Op;
use parking_lot::Mutex;
use rows::Assembly;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// The durable log of production: see the module's comment for what makes it so.
pub struct SledLog {
    shared: Arc<Shared>,
    /// Taken when it is dropped, which ends the thread.
    queue: Option<SyncSender<Op>>,
    thread: Option<JoinHandle<()>>,
}

/// What callers and the flush thread share.
struct Shared {
    db: sled::Db,
    log: sled::Tree,
    meta: sled::Tree,
    fence_file: FenceFile,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// First and last entry that is not purged.
    bounds: Option<(u64, u64)>,
    /// Votes written.
    votes: u64,
}

/// Operations that wait for the flush thread at most. A caller beyond that blocks its thread: the disk has stalled, and
/// there is nothing better to do with a Raft member then.
const QUEUE_MAX: usize = 4096;

// === impl Shared ===

impl Shared {
    fn forget_from(&self, from: u64) {
        let mut state = self.state.lock();
        state.bounds = state.bounds.filter(|(first, _)| *first < from).map(|(first, last)| (first, last.min(from - 1)));
    }

    /// Reads a record with the number in front of it.
    fn record(&self, key: Meta) -> io::Result<Option<(u64, Bytes)>> {
        let Some(row) = self.meta.get(meta_key(key)).map_err(io::Error::other)? else { return Ok(None) };
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, format!("the record {key:?} of the Raft log is damaged"));
        let (head, value) = row.split_at_checked(12).ok_or_else(damaged)?;
        let number = u64::from_le_bytes(head[..8].try_into().map_err(|_| damaged())?);
        let crc = u32::from_le_bytes(head[8..].try_into().map_err(|_| damaged())?);
        match crc == record_checksum(number, value) {
            true => Ok(Some((number, Bytes::copy_from_slice(value)))),
            false => Err(damaged()),
        }
    }

    fn put_record(&self, key: Meta, number: u64, value: &[u8]) -> io::Result<()> {
        let mut row = Vec::with_capacity(12 + value.len());
        row.extend_from_slice(&number.to_le_bytes());
        row.extend_from_slice(&record_checksum(number, value).to_le_bytes());
        row.extend_from_slice(value);
        if row.len() > rows::PIECE_BYTES {
            return Err(io::Error::other(format!("a record of {} bytes is too large", row.len())));
        }
        self.meta.insert(meta_key(key), row).map(drop).map_err(io::Error::other)
    }

    /// Hands the entries of a range to `take`, in order, until it says enough.
    fn scan(
        &self,
        range: Range<u64>,
        mut take: impl FnMut(u64, Result<Bytes, rows::RowError>) -> bool,
    ) -> io::Result<()> {
        let mut open: Option<Result<Assembly, rows::RowError>> = None;
        let mut open_index = 0;
        for row in self.log.range(rows::key(range.start, 0)..rows::key(range.end, 0)) {
            let (key, value) = row.map_err(io::Error::other)?;
            let Some((index, piece)) = rows::parse_key(&key) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a row of the Raft log has no valid key"));
            };
            if open.is_none() || index != open_index {
                if let Some(done) = open.take()
                    && !take(open_index, done.and_then(Assembly::finish))
                {
                    return Ok(());
                }
                open = Some(Ok(Assembly::new(index)));
                open_index = index;
            }
            open = open.map(|entry| entry.and_then(|mut a| a.push(piece, &value).map(|()| a)));
        }
        if let Some(done) = open {
            take(open_index, done.and_then(Assembly::finish));
        }
        Ok(())
    }
}

fn meta_key(key: Meta) -> &'static [u8] {
    match key {
        Meta::Vote => b"vote",
        Meta::Committed => b"committed",
        Meta::Purged => b"purged",
    }
}

fn record_checksum(number: u64, value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), value)
}

// === impl SledLog ===

impl SledLog {
    /// Opens the log in a directory of its own, and creates both if needed.
    ///
    /// # Errors
    /// [`OpenLogError::Damaged`] when the log lacks what it must have, or anything in it is damaged: this member must then
    /// join anew, with a new id. [`OpenLogError::InUse`] when somebody else has it open.
    pub async fn open(dir: &Path) -> Result<SledLog, OpenLogError> {
        open::open(dir).await
    }

    fn submit(&self, op: Op) -> io::Result<()> {
        let sent = self.queue.as_ref().is_some_and(|queue| queue.send(op).is_ok());
        sent.then_some(()).ok_or_else(|| io::Error::other("the flush thread of the Raft log has ended"))
    }

    async fn durably(&self, op: impl FnOnce(Synced) -> Op) -> io::Result<()> {
        let (done, synced) = oneshot::channel();
        self.submit(op(Box::new(move |result| {
            // Nobody waits any more when the caller was dropped; the write is durable all the same.
            done.send(result).ok();
        })))?;
        synced.await.unwrap_or_else(|_| Err(io::Error::other("the flush thread of the Raft log has ended")))
    }

    /// Puts the rows of entries, replacing what is there from `first` on.
    fn put(&self, first: u64, entries: &[Bytes]) -> io::Result<Option<u64>> {
        let mut state = self.shared.state.lock();
        let begin = match state.bounds {
            Some((_, last)) if first > last + 1 => {
                return Err(io::Error::other(format!("entry {first} would leave a hole in the Raft log after {last}")));
            }
            Some((_, last)) if first <= last => {
                return Err(io::Error::other(format!("entry {first} is in the Raft log already (it ends at {last})")));
            }
            Some((begin, _)) => begin,
            None => first,
        };
        for (entry, index) in entries.iter().zip(first..) {
            for (key, row) in rows::rows(index, entry) {
                self.shared.log.insert(key, row).map_err(io::Error::other)?;
            }
            state.bounds = Some((begin, index));
        }
        Ok(state.bounds.map(|(_, last)| last).filter(|_| !entries.is_empty()))
    }
}

impl Drop for SledLog {
    /// Waits for the flush thread to finish its queue, so that the log can be opened again at once.
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the flush thread of the Raft log has panicked");
        }
    }
}

#[async_trait]
impl LogStore for SledLog {
    async fn bounds(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(self.shared.state.lock().bounds)
    }

    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Bytes>> {
        let Some((first, last)) = self.shared.state.lock().bounds else { return Ok(Vec::new()) };
        if range.start < first || range.start > last {
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        let (mut bytes, mut bad) = (0_usize, None);
        let start = range.start;
        self.shared.scan(range, |index, entry| match entry {
            Ok(entry) if index == start + entries.len() as u64 => {
                bytes = bytes.saturating_add(entry.len());
                let fits = bytes <= bytes_max || entries.is_empty();
                if fits {
                    entries.push(entry);
                }
                fits && bytes < bytes_max
            }
            Ok(_) => {
                bad = Some(format!("log entry {} is missing", start + entries.len() as u64));
                false
            }
            Err(e) => {
                bad = Some(e.to_string());
                false
            }
        })?;
        match bad {
            None => Ok(entries),
            Some(reason) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("the Raft log is damaged: {reason}")))
            }
        }
    }

    async fn append(&self, first: u64, entries: Vec<Bytes>, synced: Synced) -> io::Result<()> {
        match self.put(first, &entries)? {
            Some(last) => self.submit(Op::Append { last, synced }),
            None => self.submit(Op::Record { synced }),
        }
    }

    async fn truncate(&self, from: u64) -> io::Result<()> {
        if self.shared.state.lock().bounds.is_none_or(|(_, last)| last < from) {
            return Ok(());
        }
        self.durably(|synced| Op::Truncate { from, synced }).await
    }

    async fn purge(&self, up_to: u64, purged: Bytes) -> io::Result<()> {
        self.shared.put_record(Meta::Purged, up_to, &purged)?;
        {
            let mut state = self.shared.state.lock();
            let kept = state.bounds.filter(|(_, last)| *last > up_to);
            state.bounds = kept.map(|(first, last)| (first.max(up_to + 1), last));
        }
        self.durably(|synced| Op::Purge { up_to, synced }).await
    }

    async fn read_meta(&self, key: Meta) -> io::Result<Option<Bytes>> {
        Ok(self.shared.record(key)?.map(|(_, value)| value))
    }

    async fn write_meta(&self, key: Meta, value: Bytes) -> io::Result<()> {
        if key != Meta::Vote {
            self.write_meta_lazily(key, value).await?;
            return self.durably(|synced| Op::Record { synced }).await;
        }
        let votes = {
            let mut state = self.shared.state.lock();
            state.votes += 1;
            state.votes
        };
        self.shared.put_record(key, votes, &value)?;
        self.durably(|synced| Op::Vote { votes, synced }).await
    }

    async fn write_meta_lazily(&self, key: Meta, value: Bytes) -> io::Result<()> {
        self.shared.put_record(key, 0, &value)
    }
}
