//! What everything that has an opinion sees of the store: on a manager it is backed by Raft, in tests by a [`Store`] alone.

use crate::{Changes, Conflict, Snapshot, Store, Transaction, TransactionTooLarge};
use async_trait::async_trait;
use std::sync::Mutex;
use std::time::Duration;

/// Reads snapshots and proposes transactions.
#[async_trait]
pub trait StoreClient: Send + Sync + 'static {
    /// The state as this manager has applied it; may be behind.
    fn local(&self) -> Snapshot;
    /// A state at least as new as every write acknowledged before the call (linearizable), on any manager.
    async fn current(&self) -> Result<Snapshot, ReadError>;
    /// Proposes a transaction to the leader, wherever it is, and waits for the outcome; on success the log index, which
    /// [`StoreClient::local`] has reached by then.
    async fn propose(&self, transaction: Transaction) -> Result<u64, ProposeError>;
    /// Every change from now on, as this manager applies it.
    fn changes(&self) -> Changes;
}

/// A proposal that was not (known to be) applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// A check failed; nothing was changed.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// It does not fit the log; nothing was changed.
    #[error(transparent)]
    TooLarge(#[from] TransactionTooLarge),
    /// There was no leader for so long; nothing was changed. (SwarmKit's words.)
    #[error(
        "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
    )]
    NoLeader {
        /// How long the proposal waited.
        waited: Duration,
    },
    /// The proposal may or may not have been applied, and may yet be: the leader was lost, or did not answer in time.
    #[error(
        "the outcome of the change is unknown: {reason}; it may have been applied or may yet be: look before you try again"
    )]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// This node is no manager (any more); nothing was changed.
    #[error("this node is not a manager")]
    NotManager,
    /// It was a leader's own decision, and its term is over: whoever leads now decides for itself. Nothing was changed.
    #[error("this manager no longer leads in term {term}, in which it decided this; nothing was changed")]
    Deposed {
        /// The term.
        term: u64,
    },
}

/// A linearizable read that could not be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There was no leader for so long. (SwarmKit's words.)
    #[error(
        "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
    )]
    NoLeader {
        /// How long the read waited.
        waited: Duration,
    },
    /// This node is no manager (any more).
    #[error("this node is not a manager")]
    NotManager,
}

/// A single store, without Raft: every proposal is the next log entry. For tests of what sits on top.
#[derive(Debug, Default)]
pub struct LocalStore {
    store: Store,
    proposing: Mutex<()>,
}

// === impl LocalStore ===

#[async_trait]
impl StoreClient for LocalStore {
    fn local(&self) -> Snapshot {
        self.store.snapshot()
    }

    async fn current(&self) -> Result<Snapshot, ReadError> {
        Ok(self.store.snapshot())
    }

    async fn propose(&self, transaction: Transaction) -> Result<u64, ProposeError> {
        // The encoded form is what a real log would carry; a test should notice what does not survive it.
        let transaction = Transaction::decode(&transaction.encode()?).expect("what we encode, we decode");
        let _one_at_a_time = self.proposing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let index = self.store.snapshot().index() + 1;
        self.store.apply(index, &transaction)?;
        Ok(index)
    }

    fn changes(&self) -> Changes {
        self.store.changes()
    }
}
