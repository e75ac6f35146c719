//! What only a witness of all commits can tell: S10 (acknowledged writes, versions) and the part of S12 that looks back.

use crate::Violation;
use model::TaskId;
use std::collections::BTreeSet;
use store::{Change, Check, Commit, Conflict, Object, Snapshot, Transaction};

/// Sees every commit of a log once, in order.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    index: u64,
    tasks: BTreeSet<TaskId>,
}

// === impl Witness ===

impl Witness {
    /// One that has seen nothing.
    pub fn new() -> Witness {
        Witness::default()
    }

    /// S12: a task id is never used twice, not even after the task is gone.
    pub fn observe(&mut self, commit: &Commit) -> Vec<Violation> {
        let mut violations = Vec::new();
        if commit.index <= self.index {
            violations.push(Violation::new("S8", format!("commit {} came after commit {}", commit.index, self.index)));
        }
        self.index = commit.index;
        for delta in commit.deltas.iter().filter(|d| d.before.is_none()) {
            if let Some(Object::Task(t)) = &delta.after
                && !self.tasks.insert(t.id.clone())
            {
                violations.push(Violation::new("S12", format!("task id {} was used twice", t.id)));
            }
        }
        violations
    }
}

/// S10: a transaction that was applied found every object at the version it had read, and one that was refused had a
/// reason. `before` is the state that it met.
pub fn check_cas(before: &Snapshot, transaction: &Transaction, outcome: &Result<(), Conflict>) -> Vec<Violation> {
    let stale = transaction.checks.iter().find_map(|c| match c {
        Check::Unchanged { id, version } => {
            let actual = before.get(id).map(|o| o.meta().version);
            (actual != Some(*version)).then(|| format!("{id} was read at version {version} and had {actual:?}"))
        }
        _ => None,
    });
    match (stale, outcome) {
        (Some(stale), Ok(())) => vec![Violation::new("S10", format!("a stale transaction was applied: {stale}"))],
        _ => Vec::new(),
    }
}

/// S10: a write that was acknowledged at an index is what the log has there. To be called with the commit of that index.
pub fn check_acknowledged(index: u64, transaction: &Transaction, commit: &Commit) -> Vec<Violation> {
    let missing = transaction.changes.iter().find(|change| {
        let (id, put) = match change {
            Change::Put(o) => (o.id(), true),
            Change::Remove(id) => (id.clone(), false),
        };
        put && !commit.deltas.iter().any(|d| d.id() == id && d.after.is_some() == put)
    });
    let mut violations = Vec::new();
    if commit.index != index {
        let found = commit.index;
        violations.push(Violation::new("S10", format!("the write acknowledged at {index} was committed at {found}")));
    }
    if let Some(Change::Put(object)) = missing {
        violations
            .push(Violation::new("S10", format!("the write of {} at {index} was acknowledged and lost", object.id())));
    }
    violations
}
