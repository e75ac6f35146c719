//! S21: a rolling update keeps its promises.

use crate::Violation;
use model::{
    Availability, NodeState, Service, ServiceId, SlotKey, Task, TaskState, UpdateConfig, UpdateState, UpdateStatus,
};
use std::collections::{BTreeMap, BTreeSet};
use store::{Commit, Object, Snapshot};

/// In each commit: no more tasks are on their way than the update's parallelism allows, a paused update replaces nothing, and
/// what is rolled back to is what was before.
pub(crate) fn check_commit(before: &Snapshot, commit: &Commit, after: &Snapshot, out: &mut Vec<Violation>) {
    let mut begun: BTreeMap<ServiceId, BTreeSet<SlotKey>> = BTreeMap::new();
    for delta in &commit.deltas {
        match (&delta.before, &delta.after) {
            (Some(Object::Service(b)), Some(Object::Service(a))) => rolled_back(b, a, out),
            (None, Some(Object::Task(t))) if t.is_wanted() && replaces(before, after, t) => {
                begun.entry(t.service_id.clone()).or_default().insert(t.slot_key());
            }
            _ => {}
        }
    }
    for (id, slots) in begun {
        // What was planned was planned for the service as it was; the commit checked that it still was.
        let Some(service) = before.service(&id).filter(|b| is_same_version(after.service(&id).map(AsRef::as_ref), b))
        else {
            continue;
        };
        replacing(after, service, slots.len(), out);
    }
}

fn is_same_version(after: Option<&Service>, before: &Service) -> bool {
    after.is_some_and(|a| a.spec_version == before.spec_version)
}

/// The task takes the place of one that runs well where it is, for no other reason than that it is not what the service says.
fn replaces(before: &Snapshot, after: &Snapshot, new: &Task) -> bool {
    let Some(service) = before.service(&new.service_id).filter(|s| s.spec_version == new.spec_version) else {
        return false;
    };
    let key = new.slot_key();
    let mut old = before.tasks_of_service(&service.id).filter(|t| t.slot_key() == key);
    let outdated = |t: &Task| is_wanted_and_runs(t) && is_outdated(service, t);
    old.any(|t| outdated(t) && is_well_placed(before, service, t) && !had_to_leave(after, t))
}

/// Its node is not any more what it needs (it has shrunk, say), as the task says itself.
fn had_to_leave(after: &Snapshot, task: &Task) -> bool {
    let told = after.task(&task.id).filter(|t| !t.is_wanted());
    told.is_some_and(|t| t.status.err == "assigned node no longer meets constraints")
}

fn is_wanted_and_runs(task: &Task) -> bool {
    task.is_wanted() && task.status.state == TaskState::Running
}

fn is_outdated(service: &Service, task: &Task) -> bool {
    task.spec_version < service.spec_version
        && (task.spec != service.spec.task || task.host_ports != service.host_ports())
}

fn is_well_placed(snapshot: &Snapshot, service: &Service, task: &Task) -> bool {
    let node = task.node_id.as_ref().and_then(|n| snapshot.node(n));
    node.is_some_and(|n| {
        n.status.state == NodeState::Ready
            && n.spec.availability != Availability::Drain
            && service.spec.task.is_allowed_on(n)
    })
}

fn replacing(after: &Snapshot, service: &Service, begun: usize, out: &mut Vec<Violation>) {
    let update = service.current_update();
    if update.is_some_and(|u| matches!(u.state, UpdateState::Paused | UpdateState::RollbackPaused)) {
        let what = format!("the update of service {} is paused, and replaces {begun} tasks", service.id);
        out.push(Violation::new("S21", what));
    }
    let parallelism = config(service, update).parallelism;
    let busy = on_their_way(after, service);
    if parallelism != 0 && busy > parallelism {
        let what = format!("{busy} tasks of service {} are on their way, and {parallelism} may be", service.id);
        out.push(Violation::new("S21", what));
    }
}

fn config(service: &Service, update: Option<&UpdateStatus>) -> UpdateConfig {
    let back = update.is_some_and(|u| u.state == UpdateState::RollbackStarted);
    let given = if back { &service.spec.rollback } else { &service.spec.update };
    given.clone().unwrap_or_default()
}

/// Slots that the update has begun with and that have not run since. One that ran and failed is a matter of restarts.
fn on_their_way(after: &Snapshot, service: &Service) -> u64 {
    let mut new = BTreeSet::new();
    let mut old = BTreeSet::new();
    let mut ran = BTreeSet::new();
    for task in after.tasks_of_service(&service.id) {
        let key = task.slot_key();
        if is_outdated(service, task) {
            old.insert(key);
        } else if task.is_active() && task.status.state < TaskState::Running && task.status.running_at.is_none() {
            new.insert(key);
        } else {
            ran.insert(key);
        }
    }
    new.into_iter().filter(|k| old.contains(k) && !ran.contains(k)).count() as u64
}

fn rolled_back(before: &Service, after: &Service, out: &mut Vec<Violation>) {
    let state = |s: &Service| s.current_update().map(|u| (u.state, u.spec_version));
    let begins = state(after).is_some_and(|(u, _)| u == UpdateState::RollbackStarted) && state(after) != state(before);
    let is_previous = before.previous_spec.as_ref().is_some_and(|p| {
        // The marks of a user's own change may differ, and so may the versions of secrets' data.
        p.mode == after.spec.mode && p.task.is_same_but_data(&after.spec.task) && p.endpoint == after.spec.endpoint
    });
    if begins && !is_previous {
        let what = format!("service {} was rolled back to something else than it was before", after.id);
        out.push(Violation::new("S21", what));
    }
}
