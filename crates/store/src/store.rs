//! The state machine.

use crate::changes::{Changes, Commit, Delta, Feed};
use crate::{Change, Check, Conflict, DecodeError, Object, Snapshot, Transaction};
use model::Meta;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The state machine: applies transactions, hands out snapshots and the stream of changes.
#[derive(Debug)]
pub struct Store {
    current: RwLock<Snapshot>,
    /// Held while applying, so that the stream has the order of the log.
    feed: Mutex<Feed>,
}

/// A snapshot file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Not decodable.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Written by a release that we are not compatible with.
    #[error("the snapshot has format {found}, this release reads format {FORMAT}; upgrade this manager")]
    Format {
        /// Its format.
        found: u32,
    },
}

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Persisted {
    format: u32,
    index: u64,
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Header {
    format: u32,
}

// === impl Store ===

impl Default for Store {
    fn default() -> Self {
        Store { current: RwLock::new(Snapshot::default()), feed: Mutex::new(Feed::new()) }
    }
}

impl Store {
    /// An empty store.
    pub fn new() -> Store {
        Store::default()
    }

    /// The state as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every change from now on.
    pub fn changes(&self) -> Changes {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).subscribe()
    }

    /// Applies the transaction at a log index: all of it, or nothing and the first check that failed. The index rises
    /// with every call, conflict or not.
    pub fn apply(&self, index: u64, transaction: &Transaction) -> Result<(), Conflict> {
        let mut feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.snapshot();
        debug_assert!(index > next.index(), "log index {index} applied after {}", next.index());
        next.set_index(index);
        let outcome = transaction.checks.iter().try_for_each(|check| holds(&next, check));
        let deltas = match outcome {
            Ok(()) => {
                transaction.changes.iter().filter_map(|c| apply_change(&mut next, index, transaction, c)).collect()
            }
            Err(_) => Vec::new(),
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        if !deltas.is_empty() {
            feed.publish(Commit { index, at: transaction.at, deltas });
        }
        outcome
    }

    /// Notes that the log has moved on without a transaction (membership entries, a new leader's blank entry).
    pub fn advance(&self, index: u64) {
        let _feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        self.current.write().unwrap_or_else(PoisonError::into_inner).set_index(index);
    }

    /// The whole state as bytes. Equal states give equal bytes.
    pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
        let persisted = Persisted { format: FORMAT, index: snapshot.index(), objects: snapshot.objects().collect() };
        rmp_serde::to_vec_named(&persisted).expect("a snapshot is plain data, which always encodes")
    }

    /// Replaces the state by [`Store::encode`]'s bytes. On an error nothing is changed.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), RestoreError> {
        let broken = |source| DecodeError { what: "snapshot", bytes: bytes.len(), source };
        // The format first: what another release wrote may not decode at all, and should be called by its name.
        let header: Header = model::persisted::decode(bytes).map_err(broken)?;
        if header.format != FORMAT {
            return Err(RestoreError::Format { found: header.format });
        }
        let persisted: Persisted = model::persisted::decode(bytes).map_err(broken)?;
        let mut next = Snapshot::default();
        next.set_index(persisted.index);
        for object in persisted.objects {
            let object = next.share(object);
            next.put(object);
        }
        let mut feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        feed.reset();
        Ok(())
    }
}

fn holds(state: &Snapshot, check: &Check) -> Result<(), Conflict> {
    match check {
        Check::Unchanged { id, version } => match state.get(id) {
            Some(o) if o.meta().version == *version => Ok(()),
            Some(o) => Err(Conflict::Changed { id: id.clone(), expected: *version, actual: o.meta().version }),
            None => Err(Conflict::Missing(id.clone())),
        },
        Check::Exists { id } if state.get(id).is_none() => Err(Conflict::Missing(id.clone())),
        Check::Absent { id } if state.get(id).is_some() => Err(Conflict::Exists(id.clone())),
        Check::NameFree { kind, name } if state.name_taken(*kind, name) => {
            Err(Conflict::NameTaken { kind: *kind, name: name.clone() })
        }
        Check::Unreferenced { id } => match state.services_naming(id).next() {
            Some(by) => Err(Conflict::Referenced { id: id.clone(), by: by.id.clone() }),
            None => Ok(()),
        },
        Check::Exists { .. } | Check::Absent { .. } | Check::NameFree { .. } => Ok(()),
    }
}

fn apply_change(state: &mut Snapshot, index: u64, tx: &Transaction, change: &Change) -> Option<Delta> {
    match change {
        Change::Put(object) => {
            let before = state.get(&object.id());
            let created_at = before.as_ref().map_or(tx.at, |b| b.meta().created_at);
            let after = object.clone().with_meta(Meta { version: index, created_at, updated_at: tx.at });
            let after = state.share(after);
            state.put(after.clone());
            Some(Delta { before, after: Some(after) })
        }
        Change::Remove(id) => state.take(id).map(|before| Delta { before: Some(before), after: None }),
    }
}

/// For tests and tools: a store that is shared.
impl From<Snapshot> for Arc<Store> {
    fn from(snapshot: Snapshot) -> Self {
        Arc::new(Store { current: RwLock::new(snapshot), feed: Mutex::new(Feed::new()) })
    }
}
