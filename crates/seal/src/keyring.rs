//! A node's data keys: one to seal with, older ones to open with.

use crate::sealed::{self, Around, Cipher, OpenError};
use crate::{Key, key_file::DataKey};
use bytes::Bytes;
use parking_lot::RwLock;
use seams::Rand;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Which of a node's data keys. They count from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub u32);

/// The data keys that are in use. Cheap to share; sealing and opening wait for nobody but a change of keys.
pub struct Keyring {
    ring: RwLock<Ring>,
    rand: Arc<dyn Rand>,
}

struct Ring {
    current: KeyId,
    ciphers: BTreeMap<KeyId, Arc<Cipher>>,
}

// === impl KeyId ===

impl KeyId {
    /// The id of a key that is no data key.
    pub(crate) const NONE: KeyId = KeyId(0);
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Keyring ===

impl Keyring {
    /// A ring of one new key that nobody else knows and no file holds: for tests and measurements.
    pub fn ephemeral(rand: Arc<dyn Rand>) -> Arc<Keyring> {
        let first = DataKey { id: KeyId(1), created_unix_s: 0, key: Key::generate(&*rand) };
        Keyring::of(std::slice::from_ref(&first), rand)
    }

    /// The ring of these keys; the newest seals.
    pub(crate) fn of(keys: &[DataKey], rand: Arc<dyn Rand>) -> Arc<Keyring> {
        Arc::new(Keyring { ring: RwLock::new(Ring::of(keys)), rand })
    }

    /// Takes these keys in place of what there was; the newest seals from now on.
    pub(crate) fn replace(&self, keys: &[DataKey]) {
        *self.ring.write() = Ring::of(keys);
    }

    /// The key that seals.
    pub fn current(&self) -> KeyId {
        self.ring.read().current
    }

    /// Whether there are keys that only open.
    pub fn has_older(&self) -> bool {
        self.ring.read().ciphers.len() > 1
    }

    /// Seals a piece with the current key. It opens only with the same context: say there what it is and where it belongs.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> (KeyId, Bytes) {
        self.seal_around(Around { prefix: b"", context }, plain)
    }

    pub(crate) fn seal_around(&self, around: Around<'_>, plain: &[u8]) -> (KeyId, Bytes) {
        let (id, cipher) = {
            let ring = self.ring.read();
            (ring.current, ring.ciphers[&ring.current].clone())
        };
        (id, sealed::seal(&cipher, id, &*self.rand, around, plain).into())
    }

    /// Opens a piece, in place when nobody else holds its bytes.
    ///
    /// # Errors
    /// [`OpenError`] when it is damaged, belongs elsewhere, or needs a key that is not here.
    pub fn open(&self, context: &[u8], sealed: Bytes) -> Result<Bytes, OpenError> {
        let id = sealed::key_id(&sealed)?;
        let cipher = self.ring.read().ciphers.get(&id).cloned().ok_or(OpenError::UnknownKey(id))?;
        sealed::open(&cipher, context, sealed)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("current", &self.current()).finish_non_exhaustive()
    }
}

// === impl Ring ===

impl Ring {
    fn of(keys: &[DataKey]) -> Ring {
        let ciphers: BTreeMap<_, _> = keys.iter().map(|k| (k.id, Arc::new(k.key.cipher()))).collect();
        let current = ciphers.last_key_value().map(|(id, _)| *id).expect("a key file holds at least one key");
        Ring { current, ciphers }
    }
}
