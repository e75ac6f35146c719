//! Sealed files and the key file, on a real disk.
#![allow(clippy::disallowed_methods)] // looks at the files behind the disk's back

use bytes::Bytes;
use proptest::prelude::*;
use seams::Disk;
use seams::real::{FileDisk, OsRand};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use swarmlite_seal::{Key, KeyId, KeyStore, Loaded, Lock, SealedDisk};
use tempfile::TempDir;

const CLEAR: &[&str] = &["certificates/public.crt"];
const MARKER: &[u8] = b"a known marker";

struct Place {
    dir: TempDir,
    keys: Arc<KeyStore>,
    disk: SealedDisk,
}

fn lock(generation: u64) -> Lock {
    Lock { generation, key: Key::generate(&OsRand) }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn load(dir: &Path) -> Loaded {
    let loaded = KeyStore::load(Arc::new(FileDisk), Arc::new(OsRand), dir.join("data-keys")).await;
    loaded.expect("a good file").expect("there is one")
}

async fn open(dir: &Path) -> Arc<KeyStore> {
    match load(dir).await {
        Loaded::Open(keys) => keys,
        Loaded::Locked(locked) => panic!("{locked:?}"),
    }
}

async fn place() -> Place {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data-keys");
    let keys = KeyStore::create(Arc::new(FileDisk), Arc::new(OsRand), path, None, at(7)).await.expect("a key file");
    let disk = SealedDisk::new(Arc::new(FileDisk), dir.path(), CLEAR, keys.keyring());
    Place { dir, keys, disk }
}

impl Place {
    async fn write(&self, name: &str, bytes: &'static [u8]) {
        self.disk
            .write_atomic(&self.dir.path().join(name), Bytes::from_static(bytes), 0o600)
            .await
            .expect("it is written");
    }

    async fn read(&self, name: &str) -> std::io::Result<Option<Bytes>> {
        self.disk.read(&self.dir.path().join(name)).await
    }

    fn raw(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).expect("a file")
    }
}

fn shows(bytes: &[u8]) -> bool {
    bytes.windows(MARKER.len()).any(|w| w == MARKER)
}

#[tokio::test]
async fn attack_25_a_file_shows_nothing_and_opens_only_in_its_own_place() {
    let place = place().await;
    place.write("agent/one", MARKER).await;
    place.write("agent/two", b"").await;
    place.write("certificates/public.crt", MARKER).await;
    assert_eq!(place.read("agent/one").await.unwrap().unwrap(), MARKER);
    assert_eq!(place.read("agent/two").await.unwrap().unwrap(), Bytes::new());
    assert_eq!(place.read("agent/none").await.unwrap(), None);
    assert!(!shows(&place.raw("agent/one")), "the marker is on the disk");
    assert!(shows(&place.raw("certificates/public.crt")), "what is public stays in the clear");
    let mode = std::fs::metadata(place.dir.path().join("agent/one")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    std::fs::copy(place.dir.path().join("agent/one"), place.dir.path().join("agent/two")).unwrap();
    let said = place.read("agent/two").await.unwrap_err().to_string();
    assert!(said.contains("its seal is broken"), "{said}");
    std::fs::write(place.dir.path().join("agent/two"), "{}").unwrap();
    let said = place.read("agent/two").await.unwrap_err().to_string();
    assert!(said.contains("it is not sealed"), "{said}");
}

#[tokio::test]
async fn what_lies_elsewhere_is_left_as_it_is() {
    let (place, elsewhere) = (place().await, tempfile::tempdir().unwrap());
    let path = elsewhere.path().join("file");
    place.disk.write_atomic(&path, Bytes::from_static(MARKER), 0o644).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), MARKER);
    assert_eq!(place.disk.read(&path).await.unwrap().unwrap(), MARKER);
}

#[tokio::test]
async fn attack_25_a_key_file_is_the_owners_alone_and_locked_it_needs_the_key() {
    let place = place().await;
    let path = place.dir.path().join("data-keys");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    place.write("file", MARKER).await;

    let (first, second) = (lock(1), lock(2));
    assert!(place.keys.relock(Some(first.clone()), at(8)).await.unwrap());
    assert!(!place.keys.relock(Some(first.clone()), at(9)).await.unwrap(), "it is locked under it already");
    assert!(place.keys.relock(Some(second.clone()), at(10)).await.unwrap());
    let Loaded::Locked(locked) = load(place.dir.path()).await else { panic!("it is locked") };
    assert_eq!(locked.generation(), 2);
    assert_eq!(locked.unlock(&first.key).unwrap().unwrap_err().generation, 2, "yesterday's key opens nothing");
    let keys = locked.unlock(&second.key).unwrap().unwrap();
    assert!(keys.is_locked_under(Some(&second)).await);

    // What was sealed before it was locked still opens: the older keys are there.
    let disk = SealedDisk::new(Arc::new(FileDisk), place.dir.path(), CLEAR, keys.keyring());
    assert_eq!(disk.read(&place.dir.path().join("file")).await.unwrap().unwrap(), MARKER);
    assert!(keys.relock(None, at(11)).await.unwrap());
    assert!(!open(place.dir.path()).await.is_locked().await);
}

#[tokio::test]
async fn a_new_data_key_seals_everything_before_the_older_one_goes() {
    let place = place().await;
    for name in ["node.json", "agent/one", "raft/snapshots/9.snapshot", "raft/log/db", "certificates/public.crt"] {
        place.write(name, MARKER).await;
    }
    std::fs::write(place.dir.path().join("agent/one.tmp"), "left by a crash").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.dir.path().join("api.sock")).unwrap();
    let first = place.keys.keyring().current();
    let second = place.keys.rotate(at(20)).await.unwrap();
    assert!(second > first && place.keys.keyring().has_older());
    assert_eq!(place.keys.current_since().await, at(20));
    // A restart in the middle.
    assert!(open(place.dir.path()).await.keyring().has_older());

    let skip = [place.dir.path().join("raft/log")];
    assert_eq!(place.disk.reseal(&skip).await.unwrap(), 3);
    assert_eq!(place.disk.reseal(&skip).await.unwrap(), 0, "nothing is left to do");
    place.keys.retire_older(second).await.unwrap();
    let keys = open(place.dir.path()).await;
    assert_eq!((keys.keyring().current(), keys.keyring().has_older()), (second, false));
    for name in ["node.json", "agent/one", "raft/snapshots/9.snapshot"] {
        assert_eq!(place.read(name).await.unwrap().unwrap(), MARKER, "{name}");
    }
    let said = place.read("raft/log/db").await.unwrap_err().to_string();
    assert!(said.contains("data key 1, which this node does not have"), "{said}");
}

#[tokio::test]
async fn a_file_that_does_not_open_keeps_its_key() {
    let place = place().await;
    place.write("agent/one", MARKER).await;
    let mut bent = place.raw("agent/one");
    *bent.last_mut().unwrap() ^= 1;
    std::fs::write(place.dir.path().join("agent/one"), bent).unwrap();
    place.keys.rotate(at(20)).await.unwrap();
    assert!(place.disk.reseal(&[]).await.is_err());
}

#[tokio::test]
async fn keys_have_a_limit_and_locking_works_at_it() {
    let place = place().await;
    let mut made = 1;
    let error = loop {
        match place.keys.rotate(at(made)).await {
            Ok(id) => {
                made += 1;
                assert_eq!(id, KeyId(made as u32));
            }
            Err(e) => break e,
        }
    };
    assert_eq!(made, 16);
    assert!(error.to_string().contains("older ones have to be out of use first"), "{error}");
    assert!(place.keys.relock(Some(lock(1)), at(99)).await.unwrap());
    assert!(matches!(load(place.dir.path()).await, Loaded::Locked(_)));
}

#[tokio::test]
async fn a_damaged_key_file_says_what_to_do() {
    let place = place().await;
    std::fs::write(place.keys.path(), "{}").unwrap();
    let said = KeyStore::load(Arc::new(FileDisk), Arc::new(OsRand), place.keys.path().to_owned()).await.err().unwrap();
    let said = said.to_string();
    assert!(said.contains("data-keys") && said.contains("restore it"), "{said}");
}

#[tokio::test]
async fn after_a_failed_write_the_file_is_written_again_whatever_is_asked_for() {
    let place = place().await;
    let lock = lock(1);
    let dying = Dying { left: 0.into(), the_last_reaches_it: true };
    let loaded = KeyStore::load(Arc::new(dying), Arc::new(OsRand), place.dir.path().join("data-keys")).await;
    let Ok(Some(Loaded::Open(keys))) = loaded else { panic!("it is open") };
    keys.relock(Some(lock.clone()), at(8)).await.expect_err("the write fails, and reaches the disk all the same");
    assert!(matches!(load(place.dir.path()).await, Loaded::Locked(_)));
    assert!(!keys.is_locked_under(None).await && !keys.is_locked_under(Some(&lock)).await, "nobody knows");
    assert!(keys.relock(None, at(9)).await.is_err(), "it tries, although it was open before");
}

/// What can happen to the keys.
#[derive(Debug, Clone)]
enum Step {
    Write(u8),
    Rotate,
    Relock(bool),
    Retire,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u8).prop_map(Step::Write),
        Just(Step::Rotate),
        any::<bool>().prop_map(Step::Relock),
        Just(Step::Retire),
        Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever is done to the keys, and wherever a restart comes, what was written last can be read.
    #[test]
    fn no_change_of_keys_loses_a_file(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut place = place().await;
            let mut unlock: Option<Lock> = None;
            let mut written: std::collections::BTreeMap<String, Bytes> = Default::default();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Write(file) => {
                        let (name, bytes) = (format!("agent/{file}"), Bytes::from(format!("content {n}")));
                        place.disk.write_atomic(&place.dir.path().join(&name), bytes.clone(), 0o600).await.unwrap();
                        written.insert(name, bytes);
                    }
                    Step::Rotate => drop(place.keys.rotate(at(n as u64)).await),
                    Step::Relock(on) => {
                        unlock = on.then(|| lock(n as u64));
                        place.keys.relock(unlock.clone(), at(n as u64)).await.unwrap();
                    }
                    Step::Retire => {
                        let keep = place.keys.keyring().current();
                        place.disk.reseal(&[]).await.unwrap();
                        place.keys.retire_older(keep).await.unwrap();
                    }
                    Step::Restart => {
                        place.keys = match (load(place.dir.path()).await, &unlock) {
                            (Loaded::Open(keys), None) => keys,
                            (Loaded::Locked(locked), Some(lock)) => locked.unlock(&lock.key).unwrap().unwrap(),
                            _ => panic!("locked, or not, against what was asked for"),
                        };
                        place.disk = SealedDisk::new(Arc::new(FileDisk), place.dir.path(), CLEAR, place.keys.keyring());
                    }
                }
                for (name, bytes) in &written {
                    assert_eq!(&place.read(name).await.unwrap().unwrap(), bytes);
                }
            }
        });
    }
}

/// A disk that dies at its n-th write, which may or may not have reached it.
struct Dying {
    left: std::sync::atomic::AtomicI64,
    the_last_reaches_it: bool,
}

impl Dying {
    fn spend(&self) -> std::io::Result<bool> {
        match self.left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) {
            n if n > 0 => Ok(true),
            0 if self.the_last_reaches_it => Ok(false),
            _ => Err(std::io::Error::other("the power is cut")),
        }
    }

    async fn write(&self, write: impl Future<Output = std::io::Result<()>>) -> std::io::Result<()> {
        let goes_on = self.spend()?;
        write.await?;
        goes_on.then_some(()).ok_or_else(|| std::io::Error::other("the power is cut"))
    }
}

#[async_trait::async_trait]
impl Disk for Dying {
    async fn read(&self, path: &Path) -> std::io::Result<Option<Bytes>> {
        FileDisk.read(path).await
    }
    async fn write_atomic(&self, path: &Path, bytes: Bytes, mode: u32) -> std::io::Result<()> {
        self.write(FileDisk.write_atomic(path, bytes, mode)).await
    }
    async fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.write(FileDisk.remove(path)).await
    }
    async fn list(&self, dir: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
        FileDisk.list(dir).await
    }
    async fn create_dir(&self, dir: &Path) -> std::io::Result<()> {
        FileDisk.create_dir(dir).await
    }
    async fn remove_dir(&self, dir: &Path) -> std::io::Result<()> {
        FileDisk.remove_dir(dir).await
    }
}

/// Locks, changes the data key, seals everything anew and drops the old key, on a disk that may die meanwhile.
async fn change_everything(dir: &Path, disk: Dying, lock: &Lock) -> Result<(), Box<dyn std::error::Error>> {
    let disk = Arc::new(disk);
    let loaded = KeyStore::load(disk.clone(), Arc::new(OsRand), dir.join("data-keys")).await?;
    let Some(Loaded::Open(keys)) = loaded else { panic!("it is not locked yet") };
    let sealed = SealedDisk::new(disk, dir, CLEAR, keys.keyring());
    keys.relock(Some(lock.clone()), at(50)).await?;
    keys.rotate(at(51)).await?;
    sealed.write_atomic(&dir.join("agent/one"), Bytes::from_static(MARKER), 0o600).await?;
    sealed.reseal(&[]).await?;
    keys.retire_older(keys.keyring().current()).await?;
    Ok(())
}

#[tokio::test]
async fn a_power_cut_at_any_write_of_a_change_of_keys_loses_nothing() {
    let mut ended = false;
    for (n, the_last_reaches_it) in (0..40).flat_map(|n| [(n, false), (n, true)]) {
        let (place, lock) = (place().await, lock(1));
        for name in ["node.json", "agent/one", "raft/snapshots/9.snapshot"] {
            place.write(name, MARKER).await;
        }
        let dying = Dying { left: n.into(), the_last_reaches_it };
        ended |= change_everything(place.dir.path(), dying, &lock).await.is_ok();
        let keys = match load(place.dir.path()).await {
            Loaded::Open(keys) => keys,
            Loaded::Locked(locked) => locked.unlock(&lock.key).unwrap().unwrap(),
        };
        let disk = SealedDisk::new(Arc::new(FileDisk), place.dir.path(), CLEAR, keys.keyring());
        // And whoever starts goes on where it ended.
        for _ in 0..2 {
            for name in ["node.json", "agent/one", "raft/snapshots/9.snapshot"] {
                assert_eq!(disk.read(&place.dir.path().join(name)).await.unwrap().unwrap(), MARKER, "{n} {name}");
            }
            disk.reseal(&[]).await.unwrap();
            keys.retire_older(keys.keyring().current()).await.unwrap();
        }
    }
    assert!(ended, "no run came to its end");
}
