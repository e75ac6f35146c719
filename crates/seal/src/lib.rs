//! Encryption at rest: what lies on a node's disk is sealed.
//!
//! **Owns** the sealed form (XChaCha20-Poly1305 with random nonces), keys and their texts (`SWMKEY-1-…`), the key file with the
//! node's data keys, in the clear or locked under the cluster's unlock key, and a [`seams::Disk`] that seals whole files.
//!
//! **Must never** know what it seals, decide when a key is to be changed, or show a key in a text, a log or a `Debug` output.
//!
//! # Parts
//!
//! * [`Key`] seals and opens single pieces: a backup, a key file. [`KeyForm`] is how a key is written for people.
//! * [`Keyring`] seals with the newest data key and opens with any that is still there; every sealed piece says which one it
//!   needs. The Raft log's rows are sealed with it one by one.
//! * [`KeyStore`] is the keyring with its file: it changes both so that a crash at any moment leaves a file with every key
//!   that something on the disk needs.
//! * [`SealedDisk`] seals files as they are written.
//!
//! # What it is good for
//!
//! A sealed piece cannot be read or changed without its key, and not be put in another's place: its context (a file's name, a log
//! entry's index) is authenticated with it. What it does not show is age: who can write to the disk can put an *older* sealed
//! piece of the same place back. And with the key file in the clear (autolock off), whoever reads the whole directory reads all.
#![forbid(unsafe_code)]

mod disk;
mod key;
mod key_file;
mod keyring;
mod sealed;
mod store;

pub use disk::SealedDisk;
pub use key::{InvalidKey, KEY_BYTES, Key, KeyForm};
pub use key_file::{KEYS_MAX, KeyFileError};
pub use keyring::{KeyId, Keyring};
pub use sealed::{OVERHEAD_BYTES, OpenError, key_id_of};
pub use store::{KeyStore, KeyStoreError, Loaded, Lock, LockedStore, WrongKey};
