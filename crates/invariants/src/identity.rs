//! S25–S27: who may do what.

use crate::Violation;
use model::{Node, NodeId, Role};
use store::{Commit, Object, Snapshot};

/// What kind of call somebody made of a manager, as the authorisation table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// Open to anybody who can connect.
    Anybody,
    /// For members of the cluster.
    Members,
    /// For managers.
    Managers,
    /// For managers' Raft.
    Raft,
    /// Without a row in the table.
    Unlisted,
}

/// A call that somebody made of a manager, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The node whose certificate was shown.
    pub caller: NodeId,
    /// The role that the certificate says.
    pub certificate: Role,
    /// The log index of the state that it was granted from.
    pub issued_from: u64,
    /// What was called.
    pub door: Door,
    /// The path, for people.
    pub path: String,
    /// Whether it was let in: any answer but a denial.
    pub admitted: bool,
}

/// S25 and S27, for one call: `before` is the state that the called manager had applied when the call was sent. What it was
/// told until then, it must have acted on.
pub fn check_call(before: &Snapshot, call: &Call) -> Vec<Violation> {
    if !call.admitted || call.door == Door::Anybody {
        return Vec::new();
    }
    let (node, id) = (before.node(&call.caller), &call.caller);
    let wrong = |number, why: &str| vec![Violation::new(number, format!("{} was open to node {id}, {why}", call.path))];
    if call.door == Door::Unlisted {
        return wrong("S27", "though it has no row in the table");
    }
    if was_removed(before, id) {
        return wrong("S25", "which was removed");
    }
    let for_managers = matches!(call.door, Door::Managers | Door::Raft);
    match (for_managers, call.certificate) {
        (true, Role::Worker) => wrong("S25", "whose certificate says worker"),
        // Raft has to let in whom this copy of the state is too old to know.
        (true, Role::Manager)
            if (call.door == Door::Managers || call.issued_from <= before.index())
                && node.is_none_or(|n| !acts_as_manager(n)) =>
        {
            wrong("S25", "which is no manager")
        }
        _ => Vec::new(),
    }
}

/// S26: what somebody wrote into the metadata of his call about who he is changes nothing. `alone` and `with_claims` say
/// whether the same call was let in without and with them.
pub fn check_claims(call: &Call, alone: bool, with_claims: bool) -> Vec<Violation> {
    if alone == with_claims {
        return Vec::new();
    }
    let what =
        format!("{} by node {}: let in {alone}, with claims about the caller {with_claims}", call.path, call.caller);
    vec![Violation::new("S26", what)]
}

fn was_removed(state: &Snapshot, id: &NodeId) -> bool {
    state.cluster().is_some_and(|c| c.removed_nodes.contains_key(id))
}

/// A demoted manager takes part in its own removal from the Raft group.
fn acts_as_manager(node: &Node) -> bool {
    node.spec.role == Role::Manager || node.manager.is_some()
}

/// S25: a node that was removed has no rights from the very commit on that removed it, and never comes back under its id.
pub(crate) fn check_commit(before: &Snapshot, commit: &Commit, after: &Snapshot, out: &mut Vec<Violation>) {
    for delta in &commit.deltas {
        match (&delta.before, &delta.after) {
            (Some(Object::Node(node)), None) if after.cluster().is_some() && !was_removed(after, &node.id) => {
                out.push(Violation::new("S25", format!("node {} was removed and keeps its rights", node.id)));
            }
            (None, Some(Object::Node(node))) if was_removed(before, &node.id) => {
                out.push(Violation::new("S25", format!("node {} was removed and is back", node.id)));
            }
            _ => {}
        }
    }
}
