//! Opening: everything that could be wrong is found here, before the member votes.

use super::fence::{Fence, FenceFile};
use super::flush::Flusher;
use super::rows::RowError;
use super::{QUEUE_MAX, Shared, SledLog, State};
use crate::error::OpenLogError;
use crate::log::Meta;
use bytes::Bytes;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// sled's pages in memory. The live log is a few MiB; what a lagging follower needs beyond that is read again.
const CACHE_BYTES: u64 = 16 << 20;
/// How often a log that is in use is tried again: a member that was just stopped in this process lets go of it shortly after.
const LOCK_TRIES: u32 = 40;
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// Where the parts lie.
struct Place {
    dir: PathBuf,
    sled: PathBuf,
}

/// First and last entry.
type Bounds = Option<(u64, u64)>;

/// The entries seen so far: consecutive, whole, checksums right.
#[derive(Default)]
struct Seen {
    /// The index that must come next; any when nothing was purged.
    next: Option<u64>,
    bounds: Bounds,
    /// An entry that lacks its end; none may follow it.
    cut_off: Option<u64>,
}

pub(super) async fn open(dir: &Path) -> Result<SledLog, OpenLogError> {
    let place = Place { dir: dir.to_owned(), sled: dir.join("log") };
    let mut tries = 0;
    let db = loop {
        match place.open_sled() {
            Err(OpenLogError::InUse { .. }) if tries < LOCK_TRIES => {
                tries += 1;
                tokio::time::sleep(LOCK_WAIT).await;
            }
            result => break result?,
        }
    };
    place.finish(db)
}

// === impl Place ===

impl Place {
    fn io(&self, source: io::Error) -> OpenLogError {
        OpenLogError::Io { dir: self.dir.clone(), source }
    }

    fn damaged(&self, reason: impl ToString) -> OpenLogError {
        OpenLogError::Damaged { dir: self.dir.clone(), reason: reason.to_string() }
    }

    fn open_sled(&self) -> Result<sled::Db, OpenLogError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.sled).map_err(|e| self.io(e))?;
        let config = sled::Config::new()
            .path(&self.sled)
            .flush_every_ms(None)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::HighThroughput);
        // sled panics on some damage.
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => Ok(db),
            Ok(Err(e)) if e.to_string().contains("could not acquire lock") => {
                Err(OpenLogError::InUse { dir: self.dir.clone() })
            }
            Ok(Err(sled::Error::Io(e))) => Err(self.io(e)),
            Ok(Err(e)) => Err(self.damaged(e)),
            Err(_) => Err(self.damaged("sled cannot read its files")),
        }
    }

    fn finish(&self, db: sled::Db) -> Result<SledLog, OpenLogError> {
        let tree = |name: &str| db.open_tree(name).map_err(|e| self.damaged(e));
        let (log, meta) = (tree("log")?, tree("meta")?);
        db.flush().map_err(|e| self.damaged(e))?;
        self.sync_files().map_err(|e| self.io(e))?;
        let fence_file = FenceFile::new(&self.dir);
        let fence = fence_file.read().map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => self.damaged(e),
            _ => self.io(e),
        })?;
        let shared = Shared { db, log, meta, fence_file, state: Mutex::default() };
        let purged = shared.record(Meta::Purged).map_err(|e| self.damaged(e))?.map(|(up_to, _)| up_to);
        let votes = shared.record(Meta::Vote).map_err(|e| self.damaged(e))?.map_or(0, |(votes, _)| votes);
        let bounds = self.verify(&shared, purged, fence.unwrap_or_default())?;
        if let Some(fence) = fence {
            self.check_fence(fence, votes, bounds, purged)?;
        }
        *shared.state.lock() = State { bounds, votes };
        self.start(shared, fence, purged)
    }

    /// All that sled has created, and the directories that lead to it.
    fn sync_files(&self) -> io::Result<()> {
        let mut dirs = vec![self.sled.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir)? {
                let path = entry?.path();
                match path.is_dir() {
                    true => dirs.push(path),
                    false => File::open(&path)?.sync_all()?,
                }
            }
            File::open(&dir)?.sync_all()?;
        }
        File::open(&self.dir)?.sync_all()?;
        self.dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    /// Reads every entry. A cut-off one at the very end was never acknowledged, unless the fence says so, and is removed.
    fn verify(&self, shared: &Shared, purged: Option<u64>, fence: Fence) -> Result<Bounds, OpenLogError> {
        let mut seen = Seen { next: purged.map(|p| p.saturating_add(1)), ..Seen::default() };
        let mut bad = None;
        let scanned = shared.scan(seen.next.unwrap_or_default()..u64::MAX, |index, entry| {
            bad = seen.take(index, entry).err();
            bad.is_none()
        });
        scanned.map_err(|e| self.damaged(e))?;
        if let Some(reason) = bad {
            return Err(self.damaged(reason));
        }
        if let Some(index) = seen.cut_off {
            if index <= fence.floor {
                return Err(self.damaged(RowError::CutOff(index)));
            }
            tracing::info!(index, "removed an unacknowledged Raft log entry that a crash had cut off");
            for key in shared.log.range(super::rows::key(index, 0)..).keys().rev() {
                key.and_then(|key| shared.log.remove(key)).map_err(|e| self.damaged(e))?;
            }
        }
        Ok(seen.bounds)
    }

    fn check_fence(&self, fence: Fence, votes: u64, bounds: Bounds, purged: Option<u64>) -> Result<(), OpenLogError> {
        let last = bounds.map(|(_, last)| last).max(purged).unwrap_or_default();
        if votes == 0 && bounds.is_none() && purged.is_none() {
            return Err(self.damaged("it is empty, and was not"));
        }
        if votes < fence.votes {
            return Err(self.damaged(format!("it has {votes} of the {} votes that were written", fence.votes)));
        }
        if last < fence.floor {
            return Err(self.damaged(format!("it ends at entry {last}, and had reached {}", fence.floor)));
        }
        Ok(())
    }

    fn start(&self, shared: Shared, fence: Option<Fence>, purged: Option<u64>) -> Result<SledLog, OpenLogError> {
        let db_file = File::open(self.sled.join("db")).map_err(|e| self.io(e))?;
        let shared = Arc::new(shared);
        let (queue, operations) = std::sync::mpsc::sync_channel(QUEUE_MAX);
        let flusher = Flusher::new(shared.clone(), db_file, fence, purged);
        let thread = std::thread::Builder::new()
            .name("raft-flush".into())
            .spawn(move || flusher.run(&operations))
            .map_err(|e| self.io(e))?;
        Ok(SledLog { shared, queue: Some(queue), thread: Some(thread) })
    }
}

// === impl Seen ===

impl Seen {
    fn take(&mut self, index: u64, entry: Result<Bytes, RowError>) -> Result<(), String> {
        if let Some(before) = self.cut_off {
            return Err(RowError::CutOff(before).to_string());
        }
        if let Some(missing) = self.next.filter(|next| *next != index) {
            return Err(format!("entry {missing} is missing"));
        }
        match entry {
            Ok(_) => self.bounds = Some((self.bounds.map_or(index, |(first, _)| first), index)),
            Err(RowError::CutOff(index)) => self.cut_off = Some(index),
            Err(e @ RowError::Checksum(_)) => return Err(e.to_string()),
        }
        self.next = Some(index.saturating_add(1));
        Ok(())
    }
}
