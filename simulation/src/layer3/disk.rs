//! A model disk: what was not synced is lost at a crash, but for a random prefix of it.

use crate::content::{Change, Content};
use crate::rng::SeededRand;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use raft::{LogStore, Meta, Synced};
use seams::{Disk, Tasks};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// One machine's disk. It outlives the node's crashes.
#[derive(Clone)]
pub struct ModelDisk {
    shared: Arc<Shared>,
}

struct Shared {
    rand: SeededRand,
    state: Mutex<State>,
    /// Everything up to this call of a log is on stable storage.
    synced: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Bytes>,
    logs: BTreeMap<PathBuf, LogState>,
    slow_by: u32,
    /// A deliberate bug: a log says that something is durable when it is not.
    acknowledges_before_sync: bool,
    calls: u64,
}

#[derive(Default)]
struct LogState {
    durable: Content,
    current: Content,
    /// Calls that are in `current` and not in `durable`, in order.
    unsynced: Vec<(u64, Change)>,
    /// A sync that is under way ends in the runtime that began it; after a crash none is.
    syncing: bool,
    waiting: Vec<(u64, Synced)>,
}

/// A Raft log on a [`ModelDisk`].
pub struct ModelLog {
    dir: PathBuf,
    disk: ModelDisk,
    tasks: Tasks,
}

/// What a crash cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Log calls that were on stable storage just so, though nobody had been told.
    pub kept: usize,
    /// Log calls that were lost.
    pub lost: usize,
}

// === impl ModelDisk ===

impl ModelDisk {
    /// An empty disk.
    pub fn new(rand: SeededRand) -> ModelDisk {
        let state = Mutex::new(State { slow_by: 1, ..State::default() });
        ModelDisk { shared: Arc::new(Shared { rand, state, synced: watch::Sender::new(0) }) }
    }

    /// From now on every sync takes so many times longer.
    pub fn set_slow(&self, times: u32) {
        self.shared.state.lock().slow_by = times.max(1);
    }

    /// Turns the deliberate bug on.
    pub fn acknowledge_before_sync(&self) {
        self.shared.state.lock().acknowledges_before_sync = true;
    }

    /// The file of this name somewhere below a directory, for whoever checks the disk from outside.
    pub fn file(&self, below: &Path, name: &str) -> Option<Bytes> {
        let state = self.shared.state.lock();
        let is_it = |p: &&PathBuf| p.starts_with(below) && p.file_name().is_some_and(|n| n == name);
        state.files.keys().find(is_it).map(|p| state.files[p].clone())
    }

    /// The power goes: of what was not synced a random prefix is there afterwards.
    pub fn crash(&self) -> Lost {
        let mut lost = Lost::default();
        let mut state = self.shared.state.lock();
        for log in state.logs.values_mut() {
            let kept = self.shared.rand.between(0, log.unsynced.len() as u64) as usize;
            lost.kept += kept;
            lost.lost += log.unsynced.len() - kept;
            for (_, change) in log.unsynced.drain(..).take(kept) {
                log.durable.apply(&change);
            }
            log.current = log.durable.clone();
            log.syncing = false;
            log.waiting.clear();
        }
        lost
    }

    /// The process is killed: what it wrote is in the machine's page cache, and reaches the disk.
    pub fn end_of_process(&self) {
        let mut state = self.shared.state.lock();
        for log in state.logs.values_mut() {
            for (_, change) in log.unsynced.drain(..) {
                log.durable.apply(&change);
            }
            log.syncing = false;
            log.waiting.clear();
        }
    }

    /// Opens a log, empty if there is none. What it does ends with `tasks`.
    pub fn open_log(&self, dir: &Path, tasks: &Tasks) -> Arc<ModelLog> {
        self.shared.state.lock().logs.entry(dir.to_owned()).or_default();
        Arc::new(ModelLog { dir: dir.to_owned(), disk: self.clone(), tasks: tasks.clone() })
    }

    /// How long one sync takes: 0.1 to 3 ms, now and then a stall.
    fn latency(&self) -> Duration {
        let rand = &self.shared.rand;
        let usual = Duration::from_micros(rand.between(100, 3000));
        let stall = if rand.chance(5) { rand.millis(20, 200) } else { Duration::ZERO };
        (usual + stall) * self.shared.state.lock().slow_by
    }
}

#[async_trait]
impl Disk for ModelDisk {
    async fn read(&self, path: &Path) -> io::Result<Option<Bytes>> {
        Ok(self.shared.state.lock().files.get(path).cloned())
    }

    async fn write_atomic(&self, path: &Path, bytes: Bytes, _mode: u32) -> io::Result<()> {
        // A crash before the rename leaves the old file, one after it the new one, acknowledged or not.
        tokio::time::sleep(self.latency()).await;
        self.shared.state.lock().files.insert(path.to_owned(), bytes);
        tokio::time::sleep(self.latency()).await;
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.shared.state.lock().files.remove(path);
        Ok(())
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.shared.state.lock();
        let below = state.files.keys().filter_map(|p| p.strip_prefix(dir).ok());
        let mut entries: Vec<PathBuf> = below.filter_map(|p| p.components().next()).map(|c| dir.join(c)).collect();
        entries.dedup();
        Ok(entries)
    }

    async fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.files.retain(|path, _| !path.starts_with(dir));
        state.logs.retain(|path, _| !path.starts_with(dir));
        Ok(())
    }
}

// === impl ModelLog ===

impl ModelLog {
    fn with<T>(&self, f: impl FnOnce(&mut LogState) -> T) -> T {
        let mut state = self.disk.shared.state.lock();
        f(state.logs.entry(self.dir.clone()).or_default())
    }

    /// Makes a change visible; it is durable when `synced` is called.
    fn change(&self, change: Change, synced: Option<Synced>) -> u64 {
        let mut state = self.disk.shared.state.lock();
        state.calls += 1;
        let (call, early) = (state.calls, state.acknowledges_before_sync);
        let log = state.logs.entry(self.dir.clone()).or_default();
        log.current.apply(&change);
        log.unsynced.push((call, change));
        let now = match synced {
            Some(synced) if early => Some(synced),
            Some(synced) => {
                log.waiting.push((call, synced));
                None
            }
            None => None,
        };
        let start = !std::mem::replace(&mut log.syncing, true);
        drop(state);
        if let Some(synced) = now {
            synced(Ok(()));
        }
        if start {
            self.start_sync();
        }
        call
    }

    async fn durable(&self, change: Change) -> io::Result<()> {
        let mut synced = self.disk.shared.synced.subscribe();
        let call = self.change(change, None);
        if self.disk.shared.state.lock().acknowledges_before_sync {
            return Ok(());
        }
        synced.wait_for(|done| *done >= call).await.map(drop).map_err(io::Error::other)
    }

    /// Syncs until nothing is left to sync: what comes during one sync is the next one's (group commit).
    fn start_sync(&self) {
        let (disk, dir) = (self.disk.clone(), self.dir.clone());
        self.tasks.spawn("model disk sync", async move {
            loop {
                let up_to = disk.shared.state.lock().calls;
                tokio::time::sleep(disk.latency()).await;
                let (done, more) = {
                    let mut state = disk.shared.state.lock();
                    let Some(log) = state.logs.get_mut(&dir) else { return };
                    let count = log.unsynced.partition_point(|(call, _)| *call <= up_to);
                    for (_, change) in log.unsynced.drain(..count) {
                        log.durable.apply(&change);
                    }
                    let count = log.waiting.partition_point(|(call, _)| *call <= up_to);
                    let done: Vec<_> = log.waiting.drain(..count).collect();
                    log.syncing = !log.unsynced.is_empty();
                    (done, log.syncing)
                };
                disk.shared.synced.send_if_modified(|s| std::mem::replace(s, up_to.max(*s)) < up_to);
                for (_, synced) in done {
                    synced(Ok(()));
                }
                if !more {
                    return;
                }
            }
        });
    }
}

#[async_trait]
impl LogStore for ModelLog {
    async fn bounds(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(self.with(|log| log.current.bounds()))
    }

    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Bytes>> {
        Ok(self.with(|log| log.current.read(range, bytes_max)))
    }

    async fn append(&self, first: u64, entries: Vec<Bytes>, synced: Synced) -> io::Result<()> {
        self.change(Change::Append(first, entries), Some(synced));
        Ok(())
    }

    async fn truncate(&self, from: u64) -> io::Result<()> {
        self.durable(Change::Truncate(from)).await
    }

    async fn purge(&self, up_to: u64, purged: Bytes) -> io::Result<()> {
        self.durable(Change::Purge(up_to, purged)).await
    }

    async fn read_meta(&self, key: Meta) -> io::Result<Option<Bytes>> {
        Ok(self.with(|log| log.current.meta(key)))
    }

    async fn write_meta(&self, key: Meta, value: Bytes) -> io::Result<()> {
        self.durable(Change::Record(key, value)).await
    }

    async fn write_meta_lazily(&self, key: Meta, value: Bytes) -> io::Result<()> {
        self.change(Change::Record(key, value), None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn disk(seed: u64) -> ModelDisk {
        ModelDisk::new(SeededRand::new(seed, "disk"))
    }

    async fn append(log: &ModelLog, index: u64, acknowledged: &Arc<AtomicUsize>) {
        let acknowledged = acknowledged.clone();
        let synced: Synced = Box::new(move |result| {
            result.expect("the model's syncs succeed");
            acknowledged.fetch_add(1, Ordering::Relaxed);
        });
        log.append(index, vec![Bytes::from(index.to_string())], synced).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_acknowledged_survives_and_the_rest_is_a_prefix() {
        let mut some_lost = false;
        for seed in 0..50 {
            let (disk, tasks) = (disk(seed), Tasks::new());
            let log = disk.open_log(Path::new("raft"), &tasks);
            let acknowledged = Arc::new(AtomicUsize::new(0));
            log.write_meta(Meta::Vote, Bytes::from("vote")).await.unwrap();
            for index in 1..=20 {
                append(&log, index, &acknowledged).await;
                tokio::time::sleep(Duration::from_micros(700)).await;
            }
            tasks.shutdown(Duration::from_secs(1)).await;
            let safe = acknowledged.load(Ordering::Relaxed) as u64;
            disk.crash();
            let log = disk.open_log(Path::new("raft"), &Tasks::new());
            let last = log.bounds().await.unwrap().map_or(0, |(_, last)| last);
            assert!((safe..=20).contains(&last), "{safe} acknowledged, {last} there");
            assert_eq!(log.read(1..21, usize::MAX).await.unwrap().len() as u64, last);
            assert_eq!(log.read_meta(Meta::Vote).await.unwrap(), Some(Bytes::from("vote")));
            some_lost |= last < 20;
        }
        assert!(some_lost, "the model never lost anything: it tests nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn the_canary_acknowledges_what_is_lost() {
        let lost = |seed| async move {
            let (disk, tasks) = (disk(seed), Tasks::new());
            disk.acknowledge_before_sync();
            let log = disk.open_log(Path::new("raft"), &tasks);
            let acknowledged = Arc::new(AtomicUsize::new(0));
            append(&log, 1, &acknowledged).await;
            disk.crash();
            acknowledged.load(Ordering::Relaxed) == 1 && log.bounds().await.unwrap().is_none()
        };
        assert!(lost(1).await || lost(2).await || lost(3).await || lost(4).await);
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_whole_and_listed_by_directory() {
        let disk = disk(1);
        let path = |p: &str| PathBuf::from(p);
        for file in ["a/x", "a/y", "a/sub/z", "b/x"] {
            disk.write_atomic(&path(file), Bytes::from(file.to_owned()), 0o600).await.unwrap();
        }
        assert_eq!(disk.list(&path("a")).await.unwrap(), [path("a/sub"), path("a/x"), path("a/y")]);
        disk.remove_dir(&path("a")).await.unwrap();
        disk.remove(&path("b/none")).await.unwrap();
        assert_eq!(disk.list(&path("a")).await.unwrap(), Vec::<PathBuf>::new());
        assert_eq!(disk.read(&path("b/x")).await.unwrap(), Some(Bytes::from("b/x")));
    }
}
