//! The replicated state: a small versioned object store, driven by transactions from the Raft log.
//!
//! **Owns** [`Transaction`]s (checks and changes), their deterministic application, immutable [`Snapshot`]s with indexes,
//! the stream of changes, and the persisted form of all of it.
//!
//! **Must never** know what a service means. Apply has no opinion: everything that has one reads a snapshot and proposes a
//! transaction, and a failed check is a clean [`Conflict`]. What apply does with given bytes never changes between
//! releases, or managers of two releases would diverge.

#![forbid(unsafe_code)]

mod changes;
mod client;
mod object;
mod snapshot;
mod store;
mod transaction;

pub use changes::{Changes, Commit, Delta, Event};
pub use client::{LocalStore, ProposeError, ReadError, StoreClient};
pub use object::{Kind, Object, ObjectId};
pub use snapshot::Snapshot;
pub use store::{RestoreError, Store};
pub use transaction::{Change, Check, Conflict, DecodeError, Transaction, TransactionTooLarge};
