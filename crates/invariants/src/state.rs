//! S4: managers that applied the same log are in the same state.

use crate::Violation;
use sha2::{Digest as _, Sha256};
use std::fmt;
use store::{Snapshot, Store};

/// Says whether two states are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateHash(pub [u8; 32]);

// === impl StateHash ===

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The hash of the state's persisted form, its index included.
pub fn state_hash(snapshot: &Snapshot) -> StateHash {
    StateHash(Sha256::digest(Store::encode(snapshot)).into())
}

/// S4: states at the same index are equal. States at different indexes cannot be compared.
pub fn check_same_state(a: &Snapshot, b: &Snapshot) -> Vec<Violation> {
    if a.index() != b.index() || state_hash(a) == state_hash(b) {
        return Vec::new();
    }
    let differs = a.objects().find(|o| b.get(&o.id()).as_ref() != Some(o));
    let what = differs.or_else(|| b.objects().find(|o| a.get(&o.id()).is_none())).map(|o| o.id().to_string());
    let what = what.unwrap_or_else(|| "their encoding".into());
    vec![Violation::new("S4", format!("two managers at index {} differ in {what}", a.index()))]
}
