//! What must always hold, as pure checks on snapshots and commits.
//!
//! **Owns** the invariants that can be seen in the replicated state, each under the number that the documentation uses:
//! S4, S10, S12–S23, S25–S27 and S30 (safety), L4, L5 and L9 (liveness: [`settled`]). The simulation runs them at every step, the
//! chaos tests at the end.
//!
//! **Must never** know how the control loops do it: it depends on `model` and `store` only, so that a loop's mistake is
//! not repeated in the check.

#![forbid(unsafe_code)]

mod grants;
mod identity;
mod placement;
mod settled;
mod slots;
mod state;
mod tasks;
mod updates;
mod witness;

pub use grants::check_pruned;
pub use identity::{Call, Door, check_call, check_claims};
pub use placement::{check_drained, check_suited};
pub use settled::{Unsettled, check_history, settled};
pub use state::{StateHash, check_same_state, state_hash};
pub use witness::{Witness, check_acknowledged, check_cas};

use std::fmt;
use store::{Commit, Snapshot};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Its number.
    pub invariant: &'static str,
    /// What was found, with the ids of what is concerned.
    pub what: String,
}

// === impl Violation ===

impl Violation {
    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Violation {
        Violation { invariant, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// What one commit must not do: S12 (identity), S13 and S14 (task states), S17 (slots), S19 and S20 (placement), S21
/// (updates), S25 (removed nodes). `before` and `after` are the states around it.
pub fn check_commit(before: &Snapshot, commit: &Commit, after: &Snapshot) -> Vec<Violation> {
    let mut violations = Vec::new();
    tasks::check_commit(before, commit, &mut violations);
    slots::check_commit(commit, after, &mut violations);
    placement::check_commit(commit, after, &mut violations);
    identity::check_commit(before, commit, after, &mut violations);
    updates::check_commit(before, commit, after, &mut violations);
    violations
}

/// What must hold in every state: S15, S16 (task states), S17 (slots) and S23 (secrets and configs in use).
pub fn check_state(snapshot: &Snapshot) -> Vec<Violation> {
    let mut violations = Vec::new();
    tasks::check_state(snapshot, &mut violations);
    slots::check_state(snapshot, &mut violations);
    grants::check_state(snapshot, &mut violations);
    violations
}
