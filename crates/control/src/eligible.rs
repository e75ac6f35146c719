//! Which places of a service are open: for tasks of global services, and of runs of jobs.

use crate::service::{Context, is_away};
use model::{Availability, NodeId, NodeState, SlotKey, TaskSpec};
use store::Snapshot;

/// How a node stands to a global service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is to run a task.
    Open,
    /// It goes on with what it has and gets nothing new: it is paused, or has not been heard of since it joined.
    Kept,
    /// It is to run nothing: it is away, drained, or not what the constraints say.
    Closed,
    /// There is no such node any more.
    Gone,
}

/// How the node stands to a global service with this spec. Whether the node has room for the task is for the scheduler to say:
/// a task that does not fit waits there, and says so.
pub(crate) fn standing(snapshot: &Snapshot, id: &NodeId, spec: &TaskSpec) -> Standing {
    let Some(node) = snapshot.node(id) else { return Standing::Gone };
    let drained = node.spec.availability == Availability::Drain;
    if drained || is_away(Some(node)) || !spec.is_allowed_on(node) {
        Standing::Closed
    } else if node.spec.availability == Availability::Active && node.status.state == NodeState::Ready {
        Standing::Open
    } else {
        Standing::Kept
    }
}

// === impl Context ===

impl Context<'_> {
    /// Another task may come to this place: it is of a run that goes on, and not of a node that gets none.
    pub(crate) fn is_open(&self, key: &SlotKey) -> bool {
        let of_run = key.run.is_none_or(|run| self.runs.contains(&run));
        of_run && key.node().is_none_or(|id| standing(self.snapshot, id, &self.service.spec.task) == Standing::Open)
    }
}
