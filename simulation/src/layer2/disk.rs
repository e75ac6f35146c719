//! A manager's disk: writes take time to become durable, and a crash loses what had not.

use super::runtime::{sleep, spawn_outside};
use super::world::World;
use crate::content::{Change, Content};
use crate::rng::SeededRand;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use raft::{LogStore, Meta, Synced};
use seams::Disk;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// How the disk behaves at the moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    /// A sync takes at least so long.
    pub(super) sync_min: Duration,
    /// And at most so long.
    pub(super) sync_max: Duration,
    /// The next sync fails.
    pub(super) fail_next: bool,
    /// A deliberate bug: appends are called durable at once.
    pub(super) ack_early: bool,
}

/// The disk of one manager; clones are the same disk.
#[derive(Clone)]
pub(super) struct ModelDisk(Arc<Mutex<State>>);

struct State {
    who: String,
    world: Weak<World>,
    rand: SeededRand,
    manners: Manners,
    /// What a reader sees.
    seen: Content,
    /// What survives a crash.
    durable: Content,
    unsynced: VecDeque<(Change, Option<Synced>)>,
    flushing: bool,
    /// Rises with every crash: what was under way then has no effect.
    life: u64,
    /// A sync failed in this life.
    failed: bool,
    files: BTreeMap<PathBuf, Bytes>,
}

// === impl ModelDisk ===

impl ModelDisk {
    pub(super) fn new(who: String, world: Weak<World>, rand: SeededRand, manners: Manners) -> ModelDisk {
        ModelDisk(Arc::new(Mutex::new(State {
            who,
            world,
            rand,
            manners,
            seen: Content::default(),
            durable: Content::default(),
            unsynced: VecDeque::new(),
            flushing: false,
            life: 0,
            failed: false,
            files: BTreeMap::new(),
        })))
    }

    /// Changes how it behaves.
    pub(super) fn set(&self, f: impl FnOnce(&mut Manners)) {
        f(&mut self.0.lock().manners);
    }

    /// A sync failed since the process began.
    pub(super) fn has_failed(&self) -> bool {
        self.0.lock().failed
    }

    /// The machine loses power: some of the oldest unsynced writes may have made it, the others are gone. Gives how many.
    pub(super) fn crash(&self) -> usize {
        let mut state = self.0.lock();
        let state = &mut *state;
        let kept = usize::try_from(state.rand.between(0, state.unsynced.len() as u64)).unwrap_or(0);
        let kept = if state.rand.chance(500) { 0 } else { kept };
        let lost = state.unsynced.len() - kept;
        for (op, _) in state.unsynced.drain(..kept) {
            state.durable.apply(&op);
        }
        state.begin_life();
        lost
    }

    /// The process dies and the machine does not: what was written is written.
    pub(super) fn process_ends(&self) {
        let mut state = self.0.lock();
        let state = &mut *state;
        for (op, _) in state.unsynced.drain(..) {
            state.durable.apply(&op);
        }
        state.begin_life();
    }

    /// A new, empty disk.
    pub(super) fn wipe(&self) {
        let mut state = self.0.lock();
        state.durable = Content::default();
        state.files.clear();
        state.begin_life();
    }

    /// Writes, and calls back once it is durable.
    fn write(&self, op: Change, synced: Synced) {
        let mut state = self.0.lock();
        state.seen.apply(&op);
        let mut synced = Some(synced);
        if state.manners.ack_early
            && matches!(op, Change::Append(..))
            && let Some(synced) = synced.take()
        {
            synced(Ok(()));
        }
        state.unsynced.push_back((op, synced));
        if !std::mem::replace(&mut state.flushing, true) {
            let (disk, life, world) = (self.clone(), state.life, state.world.clone());
            spawn_outside(async move { disk.flush(life).await }, move |panic| {
                world.upgrade().into_iter().for_each(|w| w.broken(&panic));
            });
        }
    }

    async fn write_durably(&self, op: Change) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        self.write(
            op,
            Box::new(move |result| {
                let _nobody_waits_any_more = done.send(result);
            }),
        );
        outcome.await.unwrap_or_else(|_| Err(io::Error::other("the disk is gone")))
    }

    /// Syncs what is there, again and again, until nothing is left: what comes meanwhile shares the next sync.
    async fn flush(&self, life: u64) {
        loop {
            let (batch, pause) = {
                let mut state = self.0.lock();
                if state.life != life {
                    return;
                }
                if state.unsynced.is_empty() || state.failed {
                    state.flushing = false;
                    return;
                }
                let (low, high) = (state.manners.sync_min.as_micros(), state.manners.sync_max.as_micros());
                let micros = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
                let pause = Duration::from_micros(state.rand.between(micros(low), micros(high)));
                (state.unsynced.len(), pause)
            };
            sleep(pause).await;
            let synced = self.synced(life, batch);
            for (synced, result) in synced {
                synced(result);
            }
        }
    }

    /// Makes the oldest writes durable, and gives the callbacks to run.
    fn synced(&self, life: u64, batch: usize) -> Vec<(Synced, io::Result<()>)> {
        let mut state = self.0.lock();
        let state = &mut *state;
        if state.life != life {
            return Vec::new();
        }
        let fails = std::mem::take(&mut state.manners.fail_next);
        if fails {
            state.failed = true;
            if let Some(world) = state.world.upgrade() {
                world.event(&state.who, format_args!("its disk fails to sync {batch} writes"));
            }
            // Nothing after a failed sync is ever durable; all who wait are told so.
            let told = state.unsynced.iter_mut().filter_map(|(_, synced)| synced.take());
            return told.map(|s| (s, Err(io::Error::other("the disk failed to sync")))).collect();
        }
        let mut callbacks = Vec::new();
        for (op, synced) in state.unsynced.drain(..batch) {
            state.durable.apply(&op);
            callbacks.extend(synced.map(|s| (s, Ok(()))));
        }
        callbacks
    }

    fn check_append(&self, first: u64) -> Option<String> {
        let state = self.0.lock();
        let last = state.seen.last()?;
        (first != last + 1).then(|| format!("{} appends {first} after {last}", state.who))
    }

    fn check_purge(&self, up_to: u64) -> Option<String> {
        let state = self.0.lock();
        let name = |p: &PathBuf| p.file_name().map(|n| n.to_string_lossy().into_owned());
        let index = |p: &PathBuf| name(p).and_then(|n| n.split('-').next().and_then(|n| n.parse::<u64>().ok()));
        let newest = state.files.keys().filter_map(index).max();
        (newest < Some(up_to)).then(|| format!("{} purges up to {up_to} with a snapshot of {newest:?}", state.who))
    }

    fn violates(&self, invariant: &'static str, what: Option<String>) {
        let world = self.0.lock().world.upgrade();
        if let (Some(what), Some(world)) = (what, world) {
            world.violates(invariant, what);
        }
    }
}

impl State {
    fn begin_life(&mut self) {
        self.unsynced.clear();
        self.seen = self.durable.clone();
        self.flushing = false;
        self.failed = false;
        self.manners.fail_next = false;
        self.life += 1;
    }
}

#[async_trait]
impl LogStore for ModelDisk {
    async fn bounds(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(self.0.lock().seen.bounds())
    }

    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Bytes>> {
        Ok(self.0.lock().seen.read(range, bytes_max))
    }

    async fn append(&self, first: u64, entries: Vec<Bytes>, synced: Synced) -> io::Result<()> {
        self.violates("S2", self.check_append(first));
        self.write(Change::Append(first, entries), synced);
        Ok(())
    }

    async fn truncate(&self, from: u64) -> io::Result<()> {
        self.write_durably(Change::Truncate(from)).await
    }

    async fn purge(&self, up_to: u64, purged: Bytes) -> io::Result<()> {
        self.violates("S7", self.check_purge(up_to));
        self.write_durably(Change::Purge(up_to, purged)).await
    }

    async fn read_meta(&self, key: Meta) -> io::Result<Option<Bytes>> {
        Ok(self.0.lock().seen.meta(key))
    }

    async fn write_meta(&self, key: Meta, value: Bytes) -> io::Result<()> {
        self.write_durably(Change::Record(key, value)).await
    }

    async fn write_meta_lazily(&self, key: Meta, value: Bytes) -> io::Result<()> {
        let mut state = self.0.lock();
        let op = Change::Record(key, value);
        state.seen.apply(&op);
        state.unsynced.push_back((op, None));
        Ok(())
    }
}

#[async_trait]
impl Disk for ModelDisk {
    async fn read(&self, path: &Path) -> io::Result<Option<Bytes>> {
        Ok(self.0.lock().files.get(path).cloned())
    }

    async fn write_atomic(&self, path: &Path, bytes: Bytes, _mode: u32) -> io::Result<()> {
        let pause = self.0.lock().manners.sync_max;
        sleep(pause).await;
        self.0.lock().files.insert(path.to_owned(), bytes);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().files.remove(path);
        Ok(())
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.lock().files.keys().filter(|p| p.parent() == Some(dir)).cloned().collect())
    }

    async fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().files.retain(|p, _| !p.starts_with(dir));
        Ok(())
    }
}
