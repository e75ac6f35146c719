//! A node's data keys with their file.

use crate::key_file::{self, DataKey, KEYS_MAX, KeyFile, KeyFileError, LockedKeys};
use crate::{Key, KeyId, Keyring};
use bytes::Bytes;
use seams::{Disk, Rand};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// What a key file is locked under: the cluster's unlock key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Which one: it rises with every rotation.
    pub generation: u64,
    /// The key.
    pub key: Key,
}

/// The data keys of a node that is not locked, and their file.
///
/// Every change is written before it takes effect, and a key leaves the file only when nothing needs it any more. So whenever a
/// crash comes, the file has every key that the disk needs.
pub struct KeyStore {
    place: Place,
    keyring: Arc<Keyring>,
    /// Held while the file is written.
    state: Mutex<State>,
    /// Counts changes of the keys.
    changes: watch::Sender<u64>,
}

/// A key file that needs the unlock key.
pub struct LockedStore {
    place: Place,
    keys: LockedKeys,
}

/// What [`KeyStore::load`] found.
pub enum Loaded {
    /// Keys in the clear.
    Open(Arc<KeyStore>),
    /// Locked keys.
    Locked(Arc<LockedStore>),
}

#[derive(Clone)]
struct Place {
    disk: Arc<dyn Disk>,
    rand: Arc<dyn Rand>,
    path: PathBuf,
}

#[derive(Clone)]
struct State {
    keys: Vec<DataKey>,
    lock: Option<Lock>,
    /// A write has failed, or its caller went away before its end: the file may say this, or what was to be.
    in_doubt: bool,
}

/// The unlock key is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key does not fit: the data keys are locked under another one (generation {generation})")]
pub struct WrongKey {
    /// Of the key that would fit.
    pub generation: u64,
}

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The disk said no.
    #[error("cannot {verb} the key file {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        verb: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is damaged, or a newer release's.
    #[error("the key file {} cannot be used: {reason}. Without it nothing in the data directory can be read: restore it, or move the data directory away and join again as a new node", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: KeyFileError,
    },
    /// Too many keys wait for their end.
    #[error("the key file {} holds {KEYS_MAX} data keys already: older ones have to be out of use first", .0.display())]
    TooMany(PathBuf),
}

// === impl KeyStore ===

impl KeyStore {
    /// Makes a first data key, and writes the file: locked from its first moment when there is a lock.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn create(
        disk: Arc<dyn Disk>,
        rand: Arc<dyn Rand>,
        path: PathBuf,
        lock: Option<Lock>,
        now: Duration,
    ) -> Result<Arc<KeyStore>, KeyStoreError> {
        let place = Place { disk, rand, path };
        let first = DataKey { id: KeyId(1), created_unix_s: now.as_secs(), key: Key::generate(&*place.rand) };
        let state = State { keys: vec![first], lock, in_doubt: false };
        place.write(&state).await?;
        Ok(KeyStore::new(place, state))
    }

    /// Reads the file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or has a newer form.
    pub async fn load(
        disk: Arc<dyn Disk>,
        rand: Arc<dyn Rand>,
        path: PathBuf,
    ) -> Result<Option<Loaded>, KeyStoreError> {
        let place = Place { disk, rand, path };
        let read = place.disk.read(&place.path).await;
        let bytes = read.map_err(|source| KeyStoreError::Io { verb: "read", path: place.path.clone(), source })?;
        let Some(bytes) = bytes else { return Ok(None) };
        Ok(Some(match key_file::parse(&bytes).map_err(|reason| place.unusable(reason))? {
            KeyFile::Open(keys) => Loaded::Open(KeyStore::new(place, State { keys, lock: None, in_doubt: false })),
            KeyFile::Locked(keys) => Loaded::Locked(Arc::new(LockedStore { place, keys })),
        }))
    }

    fn new(place: Place, state: State) -> Arc<KeyStore> {
        let keyring = Keyring::of(&state.keys, place.rand.clone());
        let (changes, _) = watch::channel(0);
        Arc::new(KeyStore { place, keyring, state: Mutex::new(state), changes })
    }

    /// The keys, to seal and open with; it follows every change.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring.clone()
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Counts the changes of the keys: wakes whoever has to bring the disk up to the newest one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether a restart needs the unlock key.
    pub async fn is_locked(&self) -> bool {
        self.state.lock().await.lock.is_some()
    }

    /// Whether the file is known to be locked under exactly this (`None`: in the clear).
    pub async fn is_locked_under(&self, lock: Option<&Lock>) -> bool {
        let state = self.state.lock().await;
        !state.in_doubt && state.lock.as_ref() == lock
    }

    /// When the current data key was made, since the Unix epoch.
    pub async fn current_since(&self) -> Duration {
        let state = self.state.lock().await;
        Duration::from_secs(state.keys.last().map_or(0, |k| k.created_unix_s))
    }

    /// Locks the file under another key, or unlocks it (`None`). True when that is a change.
    ///
    /// A new lock comes with a new data key in the same write: who could read the file before could know the old one. It seals
    /// from now on; the older ones only open, until [`KeyStore::retire_older`].
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed, or all of it has after a restart.
    pub async fn relock(&self, lock: Option<Lock>, now: Duration) -> Result<bool, KeyStoreError> {
        let mut state = self.state.lock().await;
        if state.lock == lock && !state.in_doubt {
            return Ok(false);
        }
        let mut next = State { lock, ..state.clone() };
        // With too many keys already, the lock is what matters more; the caller is busy retiring them.
        if next.lock.is_some() && next.keys.len() < KEYS_MAX {
            next.keys.push(next.new_key(&*self.place.rand, now));
        }
        self.take(&mut state, next).await.map(|()| true)
    }

    /// Makes a new data key. It seals from now on; the older ones only open, until [`KeyStore::retire_older`].
    ///
    /// # Errors
    /// When the file cannot be written, or [`KEYS_MAX`] keys are in it.
    pub async fn rotate(&self, now: Duration) -> Result<KeyId, KeyStoreError> {
        let mut state = self.state.lock().await;
        if state.keys.len() >= KEYS_MAX {
            return Err(KeyStoreError::TooMany(self.place.path.clone()));
        }
        let mut next = state.clone();
        next.keys.push(next.new_key(&*self.place.rand, now));
        self.take(&mut state, next).await?;
        Ok(self.keyring.current())
    }

    /// Drops every data key older than `keep`. Only when nothing on the disk is sealed with one: what is will never be read again.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn retire_older(&self, keep: KeyId) -> Result<(), KeyStoreError> {
        let mut state = self.state.lock().await;
        let mut next = state.clone();
        next.keys.retain(|k| k.id >= keep);
        if next.keys.is_empty() || (next.keys.len() == state.keys.len() && !state.in_doubt) {
            return Ok(());
        }
        self.take(&mut state, next).await
    }

    /// The file first: what is sealed with a key that it lacks would be lost.
    async fn take(&self, state: &mut State, next: State) -> Result<(), KeyStoreError> {
        state.in_doubt = true;
        self.place.write(&next).await?;
        self.keyring.replace(&next.keys);
        *state = State { in_doubt: false, ..next };
        self.changes.send_modify(|n| *n += 1);
        Ok(())
    }
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore")
            .field("path", &self.place.path)
            .field("keyring", &self.keyring)
            .finish_non_exhaustive()
    }
}

// === impl LockedStore ===

impl LockedStore {
    /// Which unlock key it takes.
    pub fn generation(&self) -> u64 {
        self.keys.generation
    }

    /// Opens the keys. The file stays locked as it is.
    ///
    /// # Errors
    /// [`WrongKey`]; the outer error when the key fits, and what it opens is damaged.
    pub fn unlock(&self, key: &Key) -> Result<Result<Arc<KeyStore>, WrongKey>, KeyStoreError> {
        let generation = self.keys.generation;
        match self.keys.unlock(key) {
            None => Ok(Err(WrongKey { generation })),
            Some(Err(reason)) => Err(self.place.unusable(reason)),
            Some(Ok(keys)) => {
                let lock = Some(Lock { generation, key: key.clone() });
                Ok(Ok(KeyStore::new(self.place.clone(), State { keys, lock, in_doubt: false })))
            }
        }
    }
}

impl fmt::Debug for LockedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedStore").field("path", &self.place.path).field("generation", &self.generation()).finish()
    }
}

// === impl State ===

impl State {
    fn new_key(&self, rand: &dyn Rand, now: Duration) -> DataKey {
        let id = KeyId(self.keys.last().map_or(1, |k| k.id.0.saturating_add(1)));
        DataKey { id, created_unix_s: now.as_secs(), key: Key::generate(rand) }
    }
}

// === impl Place ===

impl Place {
    async fn write(&self, state: &State) -> Result<(), KeyStoreError> {
        let lock = state.lock.as_ref().map(|l| (l.generation, &l.key));
        let bytes = key_file::encode(&state.keys, lock, &*self.rand);
        let written = self.disk.write_atomic(&self.path, Bytes::copy_from_slice(&bytes), 0o600).await;
        written.map_err(|source| KeyStoreError::Io { verb: "write", path: self.path.clone(), source })
    }

    fn unusable(&self, reason: KeyFileError) -> KeyStoreError {
        KeyStoreError::Unusable { path: self.path.clone(), reason }
    }
}
