//! S12–S16: the life of a task.

use crate::Violation;
use model::{NodeState, PayloadId, Task, TaskState};
use store::{Commit, Object, Snapshot};

pub(crate) fn check_commit(before: &Snapshot, commit: &Commit, out: &mut Vec<Violation>) {
    for delta in &commit.deltas {
        match (&delta.before, &delta.after) {
            (None, Some(Object::Task(t))) => created(t, out),
            (Some(Object::Task(b)), Some(Object::Task(a))) => changed(b, a, out),
            (Some(Object::Task(t)), None) => removed(before, t, out),
            _ => {}
        }
    }
}

/// S13: the leader makes tasks, and may prepare and place them in the same commit; nobody else may have moved them yet.
fn created(task: &Task, out: &mut Vec<Violation>) {
    let state = task.status.state;
    if state > TaskState::Assigned {
        out.push(Violation::new("S13", format!("task {} was made in state {state}", task.id)));
    }
}

fn changed(before: &Task, after: &Task, out: &mut Vec<Violation>) {
    let id = &before.id;
    let same_identity = before.service_id == after.service_id
        && before.slot_key() == after.slot_key()
        && before.failures == after.failures
        && (before.spec == after.spec || is_updated_in_place(before, after))
        && before.spec_version == after.spec_version
        && before.host_ports == after.host_ports
        && (before.node_id.is_none() || before.node_id == after.node_id);
    if !same_identity {
        out.push(Violation::new("S12", format!("task {id} changed its service, slot, spec, ports or node")));
    }
    let (from, to) = (before.status.state, after.status.state);
    if to < from || from.is_terminal() && to != from && to != TaskState::Orphaned {
        out.push(Violation::new("S14", format!("task {id} went from {from} back to {to}")));
    } else if !may_step(from, to) {
        out.push(Violation::new("S13", format!("task {id} went from {from} to {to} in one commit")));
    }
    if after.desired < before.desired {
        let (from, to) = (before.desired, after.desired);
        out.push(Violation::new("S14", format!("the desired state of task {id} went from {from} back to {to}")));
    }
}

/// The data of secrets and configs is the one thing of a task's spec that may change, when the new version says how the
/// container is told.
fn is_updated_in_place(before: &Task, after: &Task) -> bool {
    let (Some(had), Some(has)) = (before.spec.container(), after.spec.container()) else { return false };
    let had: Vec<_> = had.payloads().collect();
    let secrets = has.secrets.iter().map(|r| &r.given);
    let mut givens = secrets.chain(has.configs.iter().map(|r| &r.given)).zip(has.dependencies());
    before.spec.is_same_but_data(&after.spec)
        && givens.all(|(given, of)| {
            given.signal.is_some() || given.version.is_none_or(|version| had.contains(&PayloadId { of, version }))
        })
}

/// S13: the leader's steps end at `Assigned`, the agent's begin there; several of the agent's may arrive in one commit.
fn may_step(from: TaskState, to: TaskState) -> bool {
    from == to || from >= TaskState::Assigned || to <= TaskState::Assigned
}

/// S13: only the reaper deletes, and only what nothing runs of.
fn removed(before: &Snapshot, task: &Task, out: &mut Vec<Violation>) {
    let node = task.node_id.as_ref().map(|id| before.node(id));
    let nobody_runs_it = match node {
        None | Some(None) => true,
        Some(Some(n)) => matches!(n.status.state, NodeState::Down | NodeState::Disconnected),
    };
    if !nobody_runs_it && !task.status.state.is_terminal() {
        let state = task.status.state;
        out.push(Violation::new("S13", format!("task {} was deleted in state {state}", task.id)));
    }
}

pub(crate) fn check_state(snapshot: &Snapshot, out: &mut Vec<Violation>) {
    for task in snapshot.tasks() {
        let (id, state) = (&task.id, task.status.state);
        if state >= TaskState::Assigned && task.node_id.is_none() {
            out.push(Violation::new("S15", format!("task {id} is {state} and has no node")));
        }
        if state < TaskState::Assigned && task.node_id.is_some() {
            out.push(Violation::new("S15", format!("task {id} has a node and is {state}")));
        }
        if state == TaskState::Remove {
            out.push(Violation::new("S16", format!("task {id} is observed as `remove`")));
        }
        let desired = task.desired;
        let goal = if task.job_iteration.is_some() { TaskState::Complete } else { TaskState::Running };
        if ![TaskState::Ready, goal, TaskState::Shutdown, TaskState::Remove].contains(&desired) {
            out.push(Violation::new("S16", format!("task {id} has the desired state {desired}")));
        }
    }
}
