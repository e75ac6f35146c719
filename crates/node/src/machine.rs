//! The store as Raft's state machine, and the answers that travel back to the proposer.

use bytes::Bytes;
use model::limits::OLD_SNAPSHOTS_MAX;
use raft::{ApplyError, SnapshotFn, StateMachine};
use std::sync::Arc;
use store::{Conflict, Store, Transaction};

/// Applies transactions from the log to the store.
pub struct StoreMachine {
    store: Arc<Store>,
    canary: StoreCanary,
}

/// Deliberate bugs, for the simulation to catch. All off in production; there is no way to set them from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreCanary {
    /// Applies a transaction whose version checks failed.
    pub drop_checks: bool,
}

// === impl StoreMachine ===

impl StoreMachine {
    /// Applies to this store.
    pub fn new(store: Arc<Store>, canary: StoreCanary) -> StoreMachine {
        StoreMachine { store, canary }
    }
}

impl StateMachine for StoreMachine {
    fn apply(&self, index: u64, command: &[u8]) -> Result<Bytes, ApplyError> {
        let mut transaction = Transaction::decode(command).map_err(|e| ApplyError { index, reason: e.to_string() })?;
        if self.canary.drop_checks {
            transaction.checks.clear();
        }
        Ok(encode_outcome(&self.store.apply(index, &transaction)))
    }

    fn advance(&self, index: u64) {
        self.store.advance(index);
    }

    fn snapshot(&self) -> SnapshotFn {
        let snapshot = self.store.snapshot();
        Box::new(move || Store::encode(&snapshot))
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), String> {
        self.store.restore(bytes).map_err(|e| e.to_string())
    }

    fn old_snapshots_kept(&self) -> usize {
        let wanted = self.store.snapshot().cluster().map_or(0, |c| c.spec.raft.keep_old_snapshots);
        // A damaged spec must not fill the disk.
        usize::try_from(wanted.min(OLD_SNAPSHOTS_MAX)).unwrap_or_default()
    }
}

fn encode_outcome(outcome: &Result<(), Conflict>) -> Bytes {
    match outcome {
        Ok(()) => Bytes::new(),
        Err(conflict) => encode_conflict(conflict),
    }
}

/// The form of a conflict between managers.
pub(crate) fn encode_conflict(conflict: &Conflict) -> Bytes {
    rmp_serde::to_vec_named(conflict).expect("a conflict is plain data, which always encodes").into()
}

/// Reads the answer of a [`StoreMachine`] to a transaction that was refused; `None` when it is not one of ours.
pub fn decode_conflict(bytes: &[u8]) -> Option<Conflict> {
    model::persisted::decode(bytes).ok()
}
