//! The node's data keys, and the world as it looks through them: what is written below the data directory is sealed, what is read
//! is opened, and nobody above has to know.

use crate::manager::RaftLogs;
use crate::state::Layout;
use crate::world::World;
use async_trait::async_trait;
use parking_lot::Mutex;
use raft::{LogStore, OpenLogError, Raft, SealedLog};
use seal::{Key, KeyStore, KeyStoreError, Keyring, Loaded, Lock, LockedStore, SealedDisk};
use seams::{Seams, Tasks};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Files below the data directory that stay in the clear: certificates are shown to everybody anyway, and a locked node has to
/// know who it is. The key file is not sealed either: it has a form of its own.
const CLEAR: &[&str] = &[ca::ROOT_CERT_FILE, ca::NODE_CERT_FILE];
/// For the snapshot and the purge that end a change of the data key.
const COMPACT_TIMEOUT: Duration = Duration::from_secs(60);

/// The data keys of a node that is not locked. Clones are the same keys.
#[derive(Clone)]
pub struct DiskKeys {
    store: Arc<KeyStore>,
    disk: Arc<SealedDisk>,
    logs: Arc<SealedLogs>,
    layout: Layout,
}

/// What [`DiskKeys::find`] found.
pub enum FoundKeys {
    /// No key file.
    None,
    /// The unlock key is needed.
    Locked(Arc<LockedStore>),
    /// The keys.
    Open(DiskKeys),
}

/// A change of the data key that could not be brought to its end yet. Nothing is lost: the older keys stay.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// A file could not be sealed anew.
    #[error("a file could not be sealed with the new data key: {0}")]
    Disk(#[from] std::io::Error),
    /// The log still has entries that are sealed with an older key.
    #[error("the Raft log could not be compacted: {0}")]
    Log(#[from] raft::WaitError),
    /// The manager that owns the log does not run.
    #[error("the manager's part of this node does not run")]
    NoManager,
    /// There is a log where a worker has none: it is being promoted, or demoted.
    #[error("this node's role is just changing")]
    RoleChanges,
    /// The node stops.
    #[error("the node stops")]
    Stopped,
    /// The key file.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
}

/// Opens Raft logs sealed, and remembers the open one.
struct SealedLogs {
    inner: Arc<dyn RaftLogs>,
    keyring: Arc<Keyring>,
    /// Not held, as its file has to be let go of when the manager stops.
    open: Mutex<Weak<SealedLog>>,
}

// === impl DiskKeys ===

impl DiskKeys {
    /// Makes a first data key, and writes the key file: locked from its first moment under `unlock_key`, if there is one. `world` is the
    /// unsealed one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn create(
        layout: &Layout,
        world: &World,
        unlock_key: Option<&model::UnlockKey>,
    ) -> Result<DiskKeys, KeyStoreError> {
        let Seams { disk, rand, clock, .. } = world.seams.clone();
        let store = KeyStore::create(disk, rand, layout.key_file(), unlock_key.map(lock), clock.unix_now()).await?;
        Ok(DiskKeys::of(store, layout, world))
    }

    /// Reads the key file. `world` is the unsealed one.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub async fn find(layout: &Layout, world: &World) -> Result<FoundKeys, KeyStoreError> {
        let Seams { disk, rand, .. } = world.seams.clone();
        Ok(match KeyStore::load(disk, rand, layout.key_file()).await? {
            None => FoundKeys::None,
            Some(Loaded::Locked(locked)) => FoundKeys::Locked(locked),
            Some(Loaded::Open(store)) => FoundKeys::Open(DiskKeys::of(store, layout, world)),
        })
    }

    /// The keys in this store, over the unsealed world.
    pub fn of(store: Arc<KeyStore>, layout: &Layout, world: &World) -> DiskKeys {
        let keyring = store.keyring();
        let disk = SealedDisk::new(world.seams.disk.clone(), layout.root(), CLEAR, keyring.clone());
        let logs = SealedLogs { inner: world.raft_logs.clone(), keyring, open: Mutex::default() };
        DiskKeys { store, disk: Arc::new(disk), logs: Arc::new(logs), layout: layout.clone() }
    }

    /// The world with its disk and its Raft logs sealed.
    pub fn world(&self, unsealed: &World) -> World {
        if cfg!(feature = "unsealed") {
            tracing::error!("this build is for measurements only: what it writes to the disk is in the clear");
            return unsealed.clone();
        }
        World {
            seams: Seams { disk: self.disk.clone(), ..unsealed.seams.clone() },
            raft_logs: self.logs.clone(),
            ..unsealed.clone()
        }
    }

    /// The keys themselves.
    pub fn store(&self) -> &Arc<KeyStore> {
        &self.store
    }

    /// Whether the key file is locked as the cluster says.
    pub(crate) async fn follows(&self, unlock_key: Option<&model::UnlockKey>) -> bool {
        self.store.is_locked_under(unlock_key.map(lock).as_ref()).await
    }

    /// Locks the key file as the cluster says. True when that is a change.
    pub(crate) async fn follow(
        &self,
        unlock_key: Option<&model::UnlockKey>,
        now: Duration,
    ) -> Result<bool, KeyStoreError> {
        self.store.relock(unlock_key.map(lock), now).await
    }

    /// Takes the lock off, as this node is no manager any more. The group's log lies on the disk for a while after it was
    /// removed, so the keys that sealed it are dropped while they are locked still, and never lie beside it in the clear.
    pub(crate) async fn unlock_worker(&self, now: Duration, tasks: &Tasks) -> Result<(), RetireError> {
        // There is always room for a new key then, however often this is tried.
        self.retire_older(false, None, tasks).await?;
        self.store.rotate(now).await?;
        self.retire_older(false, None, tasks).await?;
        Ok(self.store.relock(None, now).await.map(drop)?)
    }

    /// Brings everything on the disk under the current data key, and forgets the older ones. A manager needs its Raft for that:
    /// log entries are not rewritten, but covered by a snapshot and purged. That is all that may take long, and it ends when
    /// `tasks` stops.
    pub(crate) async fn retire_older(
        &self,
        is_manager: bool,
        raft: Option<&Raft>,
        tasks: &Tasks,
    ) -> Result<(), RetireError> {
        let keyring = self.store.keyring();
        if !keyring.has_older() {
            return Ok(());
        }
        // Whatever comes meanwhile is sealed with this one or a newer one.
        let keep = keyring.current();
        // A worker needs nothing of what a demotion is about to remove.
        let skip = if is_manager { self.layout.raft_log() } else { self.layout.raft() };
        let files = self.disk.reseal(&[skip]).await?;
        if is_manager {
            let log = self.logs.open.lock().upgrade().ok_or(RetireError::NoManager)?;
            let raft = raft.ok_or(RetireError::NoManager)?;
            log.reseal_records().await?;
            while let Some(through) = log.older_through() {
                tokio::select! {
                    biased;
                    () = tasks.stopped() => return Err(RetireError::Stopped),
                    compacted = raft.compact_through(through, COMPACT_TIMEOUT) => compacted?,
                }
            }
        } else if self.logs.open.lock().strong_count() > 0 {
            // It may have entries under an older key. One that is opened from here on has none.
            return Err(RetireError::RoleChanges);
        }
        self.store.retire_older(keep).await?;
        tracing::info!(key = %keep, files, "everything on this node's disk is sealed with its new data key");
        Ok(())
    }
}

fn lock(unlock_key: &model::UnlockKey) -> Lock {
    Lock { generation: unlock_key.generation, key: Key::from_bytes(unlock_key.key) }
}

// === impl SealedLogs ===

#[async_trait]
impl RaftLogs for SealedLogs {
    async fn open(&self, dir: &Path) -> Result<Arc<dyn LogStore>, OpenLogError> {
        let inner = self.inner.open(dir).await?;
        let log = Arc::new(SealedLog::open(inner, self.keyring.clone(), dir).await?);
        *self.open.lock() = Arc::downgrade(&log);
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn ids(key_file: &[u8]) -> Vec<u64> {
        let json: serde_json::Value = serde_json::from_slice(key_file).unwrap();
        let keys = json["Keys"].as_array().map(|keys| keys.iter().filter_map(|k| k["Id"].as_u64()).collect());
        keys.unwrap_or_default()
    }

    #[tokio::test]
    async fn attack_25_what_sealed_the_log_of_a_demoted_manager_never_lies_in_the_clear() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, world, tasks) = (Layout::new(dir.path()), testing::world(), Tasks::new());
        let unlock_key = model::UnlockKey { generation: 1, key: [5; 32] };
        let keys = DiskKeys::create(&layout, &world, Some(&unlock_key)).await.unwrap();
        let sealed = keys.world(&world);
        let (disk, agent) = (sealed.seams.disk.clone(), layout.agent().join("assignments"));
        disk.write_atomic(&agent, "mine".into(), 0o600).await.unwrap();
        let log = sealed.raft_logs.open(&layout.raft()).await.unwrap();
        assert!(
            matches!(keys.unlock_worker(Duration::ZERO, &tasks).await, Err(RetireError::RoleChanges)),
            "the log is there still"
        );
        assert!(keys.store().is_locked().await);
        drop(log);

        keys.unlock_worker(Duration::ZERO, &tasks).await.unwrap();
        assert!(keys.follows(None).await);
        let file = world.seams.disk.read(&layout.key_file()).await.unwrap().unwrap();
        let ids = ids(&file);
        assert!(ids.len() == 1 && ids[0] > 1, "the first key, which sealed the log, is in the clear: {ids:?}");
        let Ok(FoundKeys::Open(keys)) = DiskKeys::find(&layout, &world).await else { panic!("it is open") };
        let read = keys.world(&world).seams.disk.read(&agent).await.unwrap();
        assert_eq!(read.as_deref(), Some(&b"mine"[..]));
    }
}
