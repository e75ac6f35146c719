//! What only a witness of all commits can tell: S10 (acknowledged writes, versions), and the parts of S12 and S25 that look
//! back.

use crate::Violation;
use model::{NodeId, PayloadId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use store::{Change, Check, Commit, Conflict, Object, Snapshot, Transaction};

/// Sees every commit of a log once, in order.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    index: u64,
    tasks: BTreeSet<TaskId>,
    /// The node that each Raft id was given to.
    raft_ids: BTreeMap<u64, NodeId>,
    /// The data of secrets and configs that tasks of each node were ever made with.
    given: BTreeMap<NodeId, BTreeSet<PayloadId>>,
}

// === impl Witness ===

impl Witness {
    /// One that has seen nothing.
    pub fn new() -> Witness {
        Witness::default()
    }

    /// S12: a task id is never used twice, not even after the task is gone. S25: a Raft id belongs to one node for ever.
    pub fn observe(&mut self, commit: &Commit) -> Vec<Violation> {
        let mut violations = Vec::new();
        if commit.index <= self.index {
            violations.push(Violation::new("S8", format!("commit {} came after commit {}", commit.index, self.index)));
        }
        self.index = commit.index;
        for delta in &commit.deltas {
            if let Some(Object::Node(node)) = &delta.after
                && let Some(manager) = &node.manager
            {
                let owner = self.raft_ids.entry(manager.raft_id).or_insert_with(|| node.id.clone());
                if *owner != node.id {
                    let what = format!("Raft id {:x} of node {owner} was given to node {}", manager.raft_id, node.id);
                    violations.push(Violation::new("S25", what));
                }
            }
        }
        for delta in &commit.deltas {
            if let Some(Object::Task(task)) = &delta.after
                && let Some(node) = &task.node_id
            {
                let mut payloads = task.spec.payloads().peekable();
                if payloads.peek().is_some() {
                    self.given.entry(node.clone()).or_default().extend(payloads);
                }
            }
        }
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

// === S22 ===

impl Witness {
    /// S22: a node has data of secrets and configs only of versions that a task was given there. `held` is what its agent
    /// has in memory, or what was put on its machine; a manager may look into its store.
    pub fn check_held<'a>(&self, node: &NodeId, held: impl IntoIterator<Item = &'a PayloadId>) -> Vec<Violation> {
        let given = self.given.get(node);
        let strange = held.into_iter().filter(|id| given.is_none_or(|g| !g.contains(id)));
        strange
            .map(|id| Violation::new("S22", format!("node {node} has {id}, and no task there was given it")))
            .collect()
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
