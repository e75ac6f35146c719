//! Transactions: what the Raft log carries.

use crate::{Kind, Object, ObjectId};
use bytes::Bytes;
use model::{ServiceId, Timestamp, limits};
use serde::{Deserialize, Serialize};

/// Checks and changes that are applied together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Transaction {
    /// The proposer's clock; becomes the objects' times.
    pub at: Timestamp,
    /// What must hold.
    pub checks: Vec<Check>,
    /// What is done if it does.
    pub changes: Vec<Change>,
}

/// Something that must hold for a transaction to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// The object is there and was last changed at this version.
    Unchanged {
        /// Which.
        id: ObjectId,
        /// The version that the proposer saw.
        version: u64,
    },
    /// The object is there, at whatever version.
    Exists {
        /// Which.
        id: ObjectId,
    },
    /// There is no such object.
    Absent {
        /// Which.
        id: ObjectId,
    },
    /// No object of the kind has this name (kinds without names: always holds).
    NameFree {
        /// Among which.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// No service names the object in its spec (objects that services do not name: always holds). With it goes who uses
    /// something: whoever puts a service checks that what it names exists, whoever removes the thing checks this, and of two
    /// that race the second in the log fails.
    Unreferenced {
        /// Which.
        id: ObjectId,
    },
}

/// A change of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Creates or replaces. The store sets the version and the times, whatever the object says.
    Put(Object),
    /// Removes; nothing happens when it is not there.
    Remove(ObjectId),
}

/// A check that did not hold. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Conflict {
    /// The object was changed since the proposer read it. (SwarmKit's words.)
    #[error("update out of sequence")]
    Changed {
        /// Which.
        id: ObjectId,
        /// The version that the proposer saw.
        expected: u64,
        /// The version it has.
        actual: u64,
    },
    /// The object is not there.
    #[error("{0} not found")]
    Missing(ObjectId),
    /// The object is there already.
    #[error("{0} already exists")]
    Exists(ObjectId),
    /// The name is taken.
    #[error("name conflicts with an existing object: {kind} {name} already exists")]
    NameTaken {
        /// Among which.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// A service names the object.
    #[error("{id} is in use by service {by}")]
    Referenced {
        /// Which.
        id: ObjectId,
        /// The service, or the first of several.
        by: ServiceId,
    },
}

/// A transaction that does not fit the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "transaction of {changes} changes in {bytes} bytes is too large: at most {} changes and {} bytes; split the change",
    limits::TRANSACTION_CHANGES_MAX,
    limits::TRANSACTION_BYTES_MAX
)]
pub struct TransactionTooLarge {
    /// How many changes it has.
    pub changes: usize,
    /// Its encoded size.
    pub bytes: usize,
}

/// Bytes that are no transaction (or no snapshot).
#[derive(Debug, thiserror::Error)]
#[error("cannot decode a {what} of {bytes} bytes: {source}; was it written by a newer release?")]
pub struct DecodeError {
    /// What should have been there.
    pub what: &'static str,
    /// How many bytes there were.
    pub bytes: usize,
    /// Why not.
    #[source]
    pub source: rmp_serde::decode::Error,
}

// === impl Transaction ===

impl Transaction {
    /// An empty transaction, proposed at `at`.
    pub fn new(at: Timestamp) -> Transaction {
        Transaction { at, ..Default::default() }
    }

    /// True when it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds a check.
    pub fn check(&mut self, check: Check) -> &mut Self {
        self.checks.push(check);
        self
    }

    /// Adds a new object that must not exist yet.
    pub fn create(&mut self, object: impl Into<Object>) -> &mut Self {
        let object = object.into();
        self.checks.push(Check::Absent { id: object.id() });
        self.changes.push(Change::Put(object));
        self
    }

    /// Replaces an object that must not have changed since its `meta.version` was read.
    pub fn update(&mut self, object: impl Into<Object>) -> &mut Self {
        let object = object.into();
        self.checks.push(Check::Unchanged { id: object.id(), version: object.meta().version });
        self.changes.push(Change::Put(object));
        self
    }

    /// Removes an object that must not have changed since `version`.
    pub fn remove(&mut self, id: impl Into<ObjectId>, version: u64) -> &mut Self {
        let id = id.into();
        self.checks.push(Check::Unchanged { id: id.clone(), version });
        self.changes.push(Change::Remove(id));
        self
    }

    /// The form that travels and is stored.
    pub fn encode(&self) -> Result<Bytes, TransactionTooLarge> {
        let bytes = rmp_serde::to_vec_named(self).expect("a transaction is plain data, which always encodes");
        if bytes.len() > limits::TRANSACTION_BYTES_MAX || self.changes.len() > limits::TRANSACTION_CHANGES_MAX {
            return Err(TransactionTooLarge { changes: self.changes.len(), bytes: bytes.len() });
        }
        Ok(bytes.into())
    }

    /// Reads [`Transaction::encode`]'s form.
    pub fn decode(bytes: &[u8]) -> Result<Transaction, DecodeError> {
        model::persisted::decode(bytes).map_err(|source| DecodeError {
            what: "transaction",
            bytes: bytes.len(),
            source,
        })
    }
}
