//! S17: at most one task of a slot is wanted; two, one of them outdated, in a start-first update, or while the one is moved to
//! another node.

use crate::Violation;
use model::{Service, ServiceId, SlotKey, Task, UpdateOrder};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Commit, Object, Snapshot};

pub(crate) fn check_state(snapshot: &Snapshot, out: &mut Vec<Violation>) {
    for service in snapshot.services_with_tasks() {
        for (slot, wanted) in wanted_by_slot(snapshot, service) {
            let versions: BTreeSet<u64> = wanted.iter().map(|t| t.spec_version).collect();
            // What moves were under way of a service that is gone, nobody knows any more.
            let is_moved = || snapshot.service(service).is_none_or(|s| is_moved(s, &wanted));
            if wanted.len() > 2 || wanted.len() == 2 && versions.len() < 2 && !is_moved() {
                out.push(too_many(service, &slot, &wanted));
            }
        }
    }
}

/// A second task of a slot is made only where the service says start-first, or to be moved to.
pub(crate) fn check_commit(commit: &Commit, after: &Snapshot, out: &mut Vec<Violation>) {
    let created = commit.deltas.iter().filter(|d| d.before.is_none()).filter_map(|d| match &d.after {
        Some(Object::Task(t)) if t.is_wanted() => Some((t.service_id.clone(), t.slot_key())),
        _ => None,
    });
    let slots: BTreeSet<(ServiceId, SlotKey)> = created.collect();
    let services: BTreeSet<&ServiceId> = slots.iter().map(|(s, _)| s).collect();
    for service in services {
        let may_have_two =
            |wanted: &[&Arc<Task>]| after.service(service).is_some_and(|s| says_start_first(s) || is_moved(s, wanted));
        for (slot, wanted) in wanted_by_slot(after, service) {
            if wanted.len() > 1 && !may_have_two(&wanted) && slots.contains(&(service.clone(), slot.clone())) {
                out.push(too_many(service, &slot, &wanted));
            }
        }
    }
}

fn says_start_first(service: &Service) -> bool {
    [&service.spec.update, &service.spec.rollback].into_iter().flatten().any(|c| c.order == UpdateOrder::StartFirst)
}

/// One of the tasks was made to take the place of another on a node with fewer tasks.
fn is_moved(service: &Service, wanted: &[&Arc<Task>]) -> bool {
    let moving = service.progress.rebalance.as_ref().and_then(|r| r.moving.as_ref());
    moving.is_some_and(|m| wanted.iter().any(|t| t.id == m.task))
}

fn wanted_by_slot<'a>(snapshot: &'a Snapshot, service: &ServiceId) -> BTreeMap<SlotKey, Vec<&'a Arc<Task>>> {
    let mut slots: BTreeMap<SlotKey, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in snapshot.tasks_of_service(service).filter(|t| t.is_wanted()) {
        slots.entry(task.slot_key()).or_default().push(task);
    }
    slots
}

fn too_many(service: &ServiceId, slot: &SlotKey, wanted: &[&Arc<Task>]) -> Violation {
    let ids: Vec<&str> = wanted.iter().map(|t| t.id.as_str()).collect();
    Violation::new("S17", format!("{slot} of service {service} has {} wanted tasks: {}", ids.len(), ids.join(", ")))
}
