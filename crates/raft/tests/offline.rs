//! A disk without its process: its state is read, and it founds a group of its own.

mod support;

use async_trait::async_trait;
use bytes::Bytes;
use seams::Disk;
use seams::real::FileDisk;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Cluster, LIMIT, List, Plain};
use swarmlite_raft::{
    LogPosition, LogStore, Member, MemoryLog, Meta, Offline, OfflineError, Parts, Raft, RaftConfig, Role, SledLog,
    StateMachine as _, Synced,
};

/// Fails from a given write on, as a disk does under a process that is about to crash.
#[derive(Clone)]
struct Failing {
    log: Arc<dyn LogStore>,
    left: Arc<AtomicUsize>,
}

impl Failing {
    fn write(&self) -> io::Result<()> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        left.map(drop).map_err(|_| io::Error::other("the disk is gone"))
    }
}

#[async_trait]
impl LogStore for Failing {
    async fn bounds(&self) -> io::Result<Option<(u64, u64)>> {
        self.log.bounds().await
    }
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Bytes>> {
        self.log.read(range, bytes_max).await
    }
    async fn append(&self, first: u64, entries: Vec<Bytes>, synced: Synced) -> io::Result<()> {
        self.write()?;
        self.log.append(first, entries, synced).await
    }
    async fn truncate(&self, from: u64) -> io::Result<()> {
        self.write()?;
        self.log.truncate(from).await
    }
    async fn purge(&self, up_to: u64, purged: Bytes) -> io::Result<()> {
        self.write()?;
        self.log.purge(up_to, purged).await
    }
    async fn read_meta(&self, key: Meta) -> io::Result<Option<Bytes>> {
        self.log.read_meta(key).await
    }
    async fn write_meta(&self, key: Meta, value: Bytes) -> io::Result<()> {
        self.write()?;
        self.log.write_meta(key, value).await
    }
    async fn write_meta_lazily(&self, key: Meta, value: Bytes) -> io::Result<()> {
        self.write()?;
        self.log.write_meta_lazily(key, value).await
    }
}

#[async_trait]
impl Disk for Failing {
    async fn read(&self, path: &Path) -> io::Result<Option<Bytes>> {
        FileDisk.read(path).await
    }
    async fn write_atomic(&self, path: &Path, bytes: Bytes, mode: u32) -> io::Result<()> {
        self.write()?;
        FileDisk.write_atomic(path, bytes, mode).await
    }
    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.write()?;
        FileDisk.remove(path).await
    }
    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        FileDisk.list(dir).await
    }
    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        FileDisk.create_dir(dir).await
    }
    async fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        FileDisk.remove_dir(dir).await
    }
}

/// In 2027.
const NOW: Duration = Duration::from_secs(1_800_000_000);

fn me(n: u64) -> Member {
    Member { addr: format!("127.0.0.1:{n}"), node_id: format!("node{n}") }
}

async fn start(raft_id: u64, log: Arc<dyn LogStore>, dir: &Path) -> (Raft, Arc<List>) {
    let list = Arc::new(List::default());
    let (machine, disk) = (list.clone(), Arc::new(FileDisk));
    let parts = Parts { raft_id, config: RaftConfig::default(), log, machine, disk, snapshot_dir: dir.to_owned() };
    (Raft::start(parts, Arc::new(Plain)).await.unwrap(), list)
}

/// A member alone, with so many commands behind it, stopped. Gives its log.
async fn stopped(dir: &Path, commands: usize) -> MemoryLog {
    let log = MemoryLog::new();
    let (raft, _) = start(1, Arc::new(log.clone()), dir).await;
    raft.initialize(me(1)).await.unwrap();
    raft.wait_view("leadership", LIMIT, |v| v.role == Role::Leader).await.unwrap();
    for n in 0..commands {
        raft.propose(format!("command {n}").into(), LIMIT).await.unwrap();
    }
    raft.abort().await;
    log
}

fn commands(list: &List) -> Vec<Bytes> {
    list.0.lock().commands.iter().map(|(_, c)| c.clone()).collect()
}

/// Replays and founds anew; gives where the new group begins.
async fn refound(offline: &Offline, raft_id: u64) -> Result<(LogPosition, Vec<Bytes>), OfflineError> {
    let list = List::default();
    let at = offline.replay(&list).await?.of_next_group(NOW);
    list.advance(at.index);
    let state = Bytes::from((list.snapshot())());
    offline.refound(raft_id, me(raft_id), at, &state).await?;
    Ok((at, commands(&list)))
}

/// The member leads alone, has the commands, and writes and restarts like any other.
async fn is_a_group_of_one(raft_id: u64, log: Arc<dyn LogStore>, dir: &Path, at: LogPosition, expected: &[Bytes]) {
    for life in 0..2 {
        let (raft, list) = start(raft_id, log.clone(), dir).await;
        let view = raft.wait_view("leadership", LIMIT, |v| v.role == Role::Leader).await.unwrap();
        assert!(view.term > at.term, "{view:?}");
        assert_eq!(view.voters, [raft_id].into());
        assert_eq!(view.nodes, [(raft_id, me(raft_id))].into());
        let applied = raft.propose(format!("life {life}").into(), LIMIT).await.unwrap();
        assert!(applied.index > at.index);
        let mut all = expected.to_vec();
        all.extend((0..=life).map(|n| Bytes::from(format!("life {n}"))));
        assert_eq!(commands(&list), all);
        raft.abort().await;
    }
}

#[tokio::test]
async fn a_disk_founds_a_group_of_its_own_with_everything_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let log = stopped(dir.path(), 50).await;
    let offline = Offline::new(Arc::new(log.clone()), Arc::new(FileDisk), dir.path().to_owned());
    let (at, held) = refound(&offline, 7).await.unwrap();
    assert_eq!(held, (0..50).map(|n| Bytes::from(format!("command {n}"))).collect::<Vec<_>>());
    is_a_group_of_one(7, Arc::new(log), dir.path(), at, &held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_survivor_of_three_goes_on_alone() {
    let mut cluster = Cluster::new(3, RaftConfig { snapshot_every: 40, ..RaftConfig::default() }).await;
    for n in 0..100 {
        cluster.write(format!("command {n}")).await;
    }
    let last = cluster.write("last").await;
    cluster.settled(last.index).await;
    let survivor = (cluster.leader().await + 1) % 3;
    let dir = cluster.dir.path().join(format!("node{survivor}"));
    let before = commands(&cluster.node(survivor).list);
    for n in 0..3 {
        cluster.kill(n);
    }
    let log: Arc<dyn LogStore> = Arc::new(SledLog::open(&dir.join("raft")).await.unwrap());
    let offline = Offline::new(log.clone(), Arc::new(FileDisk), dir.join("snapshots"));
    let (at, held) = refound(&offline, 9).await.unwrap();
    assert_eq!(held, before);
    drop(offline);
    is_a_group_of_one(9, log, &dir.join("snapshots"), at, &held).await;
    // And from its own disk, as a new process would.
    let log: Arc<dyn LogStore> = Arc::new(SledLog::open(&dir.join("raft")).await.unwrap());
    let (raft, list) = start(9, log, &dir.join("snapshots")).await;
    raft.wait_view("leadership", LIMIT, |v| v.role == Role::Leader).await.unwrap();
    assert_eq!(commands(&list)[..before.len()], before);
    raft.abort().await;
}

#[tokio::test]
async fn after_a_crash_at_any_step_it_is_the_old_group_or_the_new_one() {
    let mut interrupted = 0;
    for writes in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let log = stopped(dir.path(), 5).await;
        let failing = Failing { log: Arc::new(log.clone()), left: Arc::new(AtomicUsize::new(writes)) };
        let offline = Offline::new(Arc::new(failing.clone()), Arc::new(failing.clone()), dir.path().to_owned());
        let result = refound(&offline, 7).await;
        let expected: Vec<_> = (0..5).map(|n| Bytes::from(format!("command {n}"))).collect();
        let again = Offline::new(Arc::new(log.clone()), Arc::new(FileDisk), dir.path().to_owned());
        let list = List::default();
        again.replay(&list).await.unwrap();
        assert_eq!(commands(&list), expected, "after {writes} writes");
        if let Ok((at, _)) = result {
            // The removal of the log may have been what failed: the next start finishes it.
            is_a_group_of_one(7, Arc::new(log), dir.path(), at, &expected).await;
            if failing.left.load(Ordering::Relaxed) > 0 {
                break;
            }
            continue;
        }
        interrupted += 1;
        assert!(matches!(result, Err(OfflineError::Write(_))), "{result:?}");
        // Given up, it is what it was.
        let (raft, _) = start(1, Arc::new(log.clone()), dir.path()).await;
        raft.wait_view("leadership", LIMIT, |v| v.role == Role::Leader).await.unwrap();
        raft.abort().await;
        // Tried again, it is the new one.
        let (at, held) = refound(&again, 7).await.unwrap();
        is_a_group_of_one(7, Arc::new(log), dir.path(), at, &held).await;
    }
    assert_eq!(interrupted, 2, "the vote and the snapshot");
}

#[tokio::test]
async fn an_empty_disk_takes_a_state_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let log: Arc<dyn LogStore> = Arc::new(SledLog::open(&dir.path().join("raft")).await.unwrap());
    let offline = Offline::new(log.clone(), Arc::new(FileDisk), dir.path().join("snapshots"));
    assert!(matches!(offline.replay(&List::default()).await, Err(OfflineError::Empty)));
    let list = List::default();
    list.apply(41, b"from elsewhere").unwrap();
    let at = LogPosition { term: 3, index: 41 }.of_next_group(NOW);
    list.advance(at.index);
    offline.refound(5, me(5), at, &Bytes::from((list.snapshot())())).await.unwrap();
    let again = offline.refound(6, me(6), at, &Bytes::new()).await;
    assert!(matches!(again, Err(OfflineError::NotAhead { .. })), "{again:?}");
    drop(offline);
    is_a_group_of_one(5, log, &dir.path().join("snapshots"), at, &["from elsewhere".into()]).await;
}

#[tokio::test]
async fn what_is_missing_or_damaged_is_told_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let log = stopped(dir.path(), 5).await;
    // The beginning is gone, and no snapshot has it.
    let purge = async |index| {
        let at = std::collections::BTreeMap::from([("leader_id", 1), ("index", index)]);
        log.purge(index, rmp_serde::to_vec_named(&at).unwrap().into()).await.unwrap();
    };
    purge(3).await;
    let offline = Offline::new(Arc::new(log.clone()), Arc::new(FileDisk), dir.path().to_owned());
    let error = offline.replay(&List::default()).await.unwrap_err();
    assert!(matches!(error, OfflineError::Gap { first: 4, snapshot: 0 }), "{error}");
    // Nor when nothing follows it: what is left would be taken for all there was.
    let (_, last) = log.bounds().await.unwrap().unwrap();
    purge(last).await;
    let error = offline.replay(&List::default()).await.unwrap_err();
    assert!(matches!(error, OfflineError::Gap { first, snapshot: 0 } if first == last + 1), "{error}");
    FileDisk.write_atomic(&dir.path().join("1.snapshot"), Bytes::from_static(b"noise"), 0o600).await.unwrap();
    let error = offline.replay(&List::default()).await.unwrap_err();
    assert!(matches!(error, OfflineError::Read(_)), "{error}");
    assert!(error.to_string().contains("1.snapshot"), "{error}");
}
