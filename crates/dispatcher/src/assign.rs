//! The assignment set of one node, and what an agent must be sent to have it. No I/O.

use crate::ASSIGNMENT_BYTES;
use crate::hub::Removals;
use model::{NodeId, Task, TaskId, TaskState};
use rpc::proto::dispatcher::assignments_message::Kind;
use rpc::proto::dispatcher::{AssignmentsMessage, Position};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Snapshot;

/// What an agent has been sent.
#[derive(Debug)]
pub(crate) struct Assignments {
    node: NodeId,
    sent: BTreeMap<TaskId, Arc<Task>>,
    /// The last position sent; `None` until the first message.
    position: Option<Position>,
    /// The agent's own position, from which to go on.
    resume: Option<Position>,
}

/// Changes that wait to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    kind: Kind,
    put: Vec<Arc<Task>>,
    remove: Vec<TaskId>,
    position: Position,
}

// === impl Assignments ===

impl Assignments {
    pub(crate) fn new(node: NodeId, have: Option<Position>) -> Assignments {
        Assignments { node, sent: BTreeMap::new(), position: None, resume: have }
    }

    /// The log index after which removals are needed.
    pub(crate) fn since(&self) -> u64 {
        self.position.as_ref().or(self.resume.as_ref()).map_or(0, |p| p.index)
    }

    /// What the agent lacks. `snapshot` is at least as new as `position`; `removals` are those after [`Assignments::since`].
    /// `None` when there is nothing to send.
    pub(crate) fn diff(&self, snapshot: &Snapshot, removals: Removals, mut position: Position) -> Option<Batch> {
        let base = self.position.or(self.resume);
        if let Some(base) = base {
            position.term = position.term.max(base.term);
            position.index = position.index.max(base.index);
        }
        let assigned = || snapshot.tasks_on_node(&self.node).filter(|t| t.status.state >= TaskState::Assigned);
        let (Removals::Known(gone), true) = (removals, base.is_some()) else {
            return Some(Batch {
                kind: Kind::Complete,
                put: assigned().cloned().collect(),
                remove: Vec::new(),
                position,
            });
        };
        // Until its first message a resumed stream knows what the agent has by version alone.
        let fresh = |task: &Arc<Task>| match (self.sent.get(&task.id), &self.position, &self.resume) {
            (Some(sent), ..) => differs(sent, task),
            (None, None, Some(resume)) => task.meta.version > resume.index,
            (None, ..) => true,
        };
        let put: Vec<Arc<Task>> = assigned().filter(|t| fresh(t)).cloned().collect();
        let mut remove = gone;
        remove.retain(|id| snapshot.task(id).is_none_or(|t| t.node_id.as_ref() != Some(&self.node)));
        let silent = put.is_empty() && remove.is_empty() && self.position.is_some();
        (!silent).then_some(Batch { kind: Kind::Incremental, put, remove, position })
    }

    /// The messages of a batch; afterwards the agent is taken to have it.
    pub(crate) fn send(&mut self, snapshot: &Snapshot, batch: Batch) -> Vec<AssignmentsMessage> {
        let base = self.position.or(self.resume);
        if batch.kind == Kind::Complete {
            self.sent.clear();
        } else if self.position.is_none() {
            let known = snapshot.tasks_on_node(&self.node).filter(|t| t.status.state >= TaskState::Assigned);
            self.sent = known.map(|t| (t.id.clone(), t.clone())).collect();
        }
        self.sent.extend(batch.put.iter().map(|t| (t.id.clone(), t.clone())));
        batch.remove.iter().for_each(|id| drop(self.sent.remove(id)));
        self.position = Some(batch.position);
        let put = batch
            .put
            .iter()
            .map(|t| rmp_serde::to_vec_named(&**t).expect("a task is plain data, which always encodes"));
        let remove = batch.remove.iter().map(TaskId::to_string).collect();
        match (batch.kind, base) {
            (Kind::Incremental, Some(base)) => incremental(put, remove, base, batch.position),
            _ => vec![AssignmentsMessage {
                position: Some(batch.position),
                kind: Kind::Complete.into(),
                follows: None,
                put: put.collect(),
                remove: Vec::new(),
            }],
        }
    }
}

impl Batch {
    pub(crate) fn changes(&self) -> usize {
        self.put.len() + self.remove.len()
    }

    /// True when it must not wait: the agent has nothing yet.
    pub(crate) fn is_first(&self) -> bool {
        self.kind == Kind::Complete
    }
}

/// Several messages when one would be too large. All but the last keep the old position: an agent that is cut off in between
/// asks for all of it again.
fn incremental(
    put: impl Iterator<Item = Vec<u8>>,
    remove: Vec<String>,
    base: Position,
    to: Position,
) -> Vec<AssignmentsMessage> {
    let message = |put| AssignmentsMessage {
        position: Some(base),
        kind: Kind::Incremental.into(),
        follows: Some(base),
        put,
        remove: Vec::new(),
    };
    let mut messages = vec![message(Vec::new())];
    let mut bytes = 0;
    for task in put {
        if bytes > 0 && bytes + task.len() > ASSIGNMENT_BYTES {
            messages.push(message(Vec::new()));
            bytes = 0;
        }
        bytes += task.len();
        messages.last_mut().expect("never empty").put.push(task);
    }
    let last = messages.last_mut().expect("never empty");
    last.position = Some(to);
    last.remove = remove;
    messages
}

/// True when the agent must hear of the difference. What the agent itself reported, it knows: the observed state alone is no
/// news, unless somebody else moved it (up to `Assigned`, or given up as orphaned).
fn differs(sent: &Task, now: &Task) -> bool {
    sent.desired != now.desired
        || sent.run_after != now.run_after
        || sent.node_id != now.node_id
        || sent.status.state != now.status.state
            && (now.status.state <= TaskState::Assigned || now.status.state == TaskState::Orphaned)
}
