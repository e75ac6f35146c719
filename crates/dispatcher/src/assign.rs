//! The assignment set of one node, and what an agent must be sent to have it. No I/O.

use crate::hub::Removals;
use crate::{ASSIGNMENT_BYTES, Canary, GRANTED_MAX};
use model::{NodeId, Payload, PayloadId, Task, TaskId, TaskState};
use rpc::proto::dispatcher::assignments_message::Kind;
use rpc::proto::dispatcher::{AssignmentsMessage, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::Snapshot;

/// What an agent has been sent.
#[derive(Debug)]
pub(crate) struct Assignments {
    node: NodeId,
    sent: BTreeMap<TaskId, Arc<Task>>,
    /// The data of secrets and configs that it has.
    granted: BTreeSet<PayloadId>,
    /// The last position sent; `None` until the first message.
    position: Option<Position>,
    /// The agent's own position, from which to go on.
    resume: Option<Position>,
    canary: Canary,
}

/// Changes that wait to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    kind: Kind,
    put: Vec<Arc<Task>>,
    remove: Vec<TaskId>,
    grant: Vec<Arc<Payload>>,
    revoke: Vec<PayloadId>,
    position: Position,
}

// === impl Assignments ===

impl Assignments {
    /// `granted` is what the agent says it has; what is no id of data is not data that it has.
    pub(crate) fn new(node: NodeId, have: Option<Position>, granted: &[Vec<u8>], canary: Canary) -> Assignments {
        let granted = granted.iter().take(GRANTED_MAX).filter_map(|id| model::persisted::decode(id).ok()).collect();
        Assignments { node, sent: BTreeMap::new(), granted, position: None, resume: have, canary }
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
        let mut needed = needed(assigned());
        if self.canary.grant_everything {
            needed.extend(snapshot.payloads().map(|p| p.id.clone()));
        }
        let data = |ids: &mut dyn Iterator<Item = &PayloadId>| -> Vec<Arc<Payload>> {
            ids.filter_map(|id| snapshot.payload(id).cloned()).collect()
        };
        let (Removals::Known(gone), true) = (removals, base.is_some()) else {
            return Some(Batch {
                kind: Kind::Complete,
                put: assigned().cloned().collect(),
                remove: Vec::new(),
                grant: data(&mut needed.iter()),
                revoke: Vec::new(),
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
        let grant = data(&mut needed.difference(&self.granted));
        let revoke: Vec<PayloadId> = self.granted.difference(&needed).cloned().collect();
        let nothing = put.is_empty() && remove.is_empty() && grant.is_empty() && revoke.is_empty();
        let silent = nothing && self.position.is_some();
        (!silent).then_some(Batch { kind: Kind::Incremental, put, remove, grant, revoke, position })
    }

    /// The messages of a batch; afterwards the agent is taken to have it.
    pub(crate) fn send(&mut self, snapshot: &Snapshot, batch: Batch) -> Vec<AssignmentsMessage> {
        let base = self.position.or(self.resume);
        if batch.kind == Kind::Complete {
            self.sent.clear();
            self.granted.clear();
        } else if self.position.is_none() {
            let known = snapshot.tasks_on_node(&self.node).filter(|t| t.status.state >= TaskState::Assigned);
            self.sent = known.map(|t| (t.id.clone(), t.clone())).collect();
        }
        self.sent.extend(batch.put.iter().map(|t| (t.id.clone(), t.clone())));
        batch.remove.iter().for_each(|id| drop(self.sent.remove(id)));
        self.granted.extend(batch.grant.iter().map(|p| p.id.clone()));
        batch.revoke.iter().for_each(|id| _ = self.granted.remove(id));
        self.position = Some(batch.position);
        let follows = base.filter(|_| batch.kind == Kind::Incremental);
        split(batch, follows)
    }
}

impl Batch {
    pub(crate) fn changes(&self) -> usize {
        self.put.len() + self.remove.len() + self.grant.len() + self.revoke.len()
    }

    /// True when it must not wait: the agent has nothing yet.
    pub(crate) fn is_first(&self) -> bool {
        self.kind == Kind::Complete
    }
}

/// The data that tasks need which run on the node, or may come to. What a task is asked to stop with it does not need again.
fn needed<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> BTreeSet<PayloadId> {
    tasks.filter(|t| t.is_active()).flat_map(|t| t.spec.payloads()).collect()
}

/// Several messages when one would be too large: data, tasks, and in the last one what goes. An agent that is cut off in
/// between has taken none of them.
fn split(batch: Batch, follows: Option<Position>) -> Vec<AssignmentsMessage> {
    let message = || AssignmentsMessage {
        position: Some(batch.position),
        kind: batch.kind.into(),
        follows,
        more: true,
        ..AssignmentsMessage::default()
    };
    let mut done = Vec::new();
    let (mut last, mut bytes) = (message(), 0);
    let grants = batch.grant.iter().map(|p| (true, encode(&**p)));
    let puts = batch.put.iter().map(|t| (false, encode(&**t)));
    for (is_grant, item) in grants.chain(puts) {
        if bytes > 0 && bytes + item.len() > ASSIGNMENT_BYTES {
            done.push(std::mem::replace(&mut last, message()));
            bytes = 0;
        }
        bytes += item.len();
        if is_grant { &mut last.grant } else { &mut last.put }.push(item);
    }
    last.remove = batch.remove.iter().map(TaskId::to_string).collect();
    last.revoke = batch.revoke.iter().map(encode).collect();
    last.more = false;
    done.push(last);
    done
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("tasks, data and ids are plain data, which always encodes")
}

/// True when the agent must hear of the difference. What the agent itself reported, it knows: the observed state alone is no
/// news, unless somebody else moved it (up to `Assigned`, or given up as orphaned).
fn differs(sent: &Task, now: &Task) -> bool {
    sent.desired != now.desired
        || sent.run_after != now.run_after
        || sent.node_id != now.node_id
        || !Arc::ptr_eq(&sent.spec, &now.spec) && sent.spec != now.spec
        || sent.status.state != now.status.state
            && (now.status.state <= TaskState::Assigned || now.status.state == TaskState::Orphaned)
}
