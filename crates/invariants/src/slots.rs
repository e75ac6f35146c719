//! S17: at most one task of a slot is wanted; two, one of them outdated, in a start-first update.

use crate::Violation;
use model::{Service, ServiceId, Task, UpdateOrder};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Commit, Object, Snapshot};

pub(crate) fn check_state(snapshot: &Snapshot, out: &mut Vec<Violation>) {
    for service in snapshot.services_with_tasks() {
        for (slot, wanted) in wanted_by_slot(snapshot, service) {
            let versions: BTreeSet<u64> = wanted.iter().map(|t| t.spec_version).collect();
            if wanted.len() > 2 || wanted.len() == 2 && versions.len() < 2 {
                out.push(too_many(service, slot, &wanted));
            }
        }
    }
}

/// A second task of a slot is made only where the service says start-first.
pub(crate) fn check_commit(commit: &Commit, after: &Snapshot, out: &mut Vec<Violation>) {
    let created = commit.deltas.iter().filter(|d| d.before.is_none()).filter_map(|d| match &d.after {
        Some(Object::Task(t)) if t.is_wanted() => Some((t.service_id.clone(), t.slot)),
        _ => None,
    });
    let slots: BTreeSet<(ServiceId, u64)> = created.collect();
    let services: BTreeSet<&ServiceId> = slots.iter().map(|(s, _)| s).collect();
    for service in services {
        let start_first = after.service(service).is_some_and(|s| says_start_first(s));
        for (slot, wanted) in wanted_by_slot(after, service) {
            if wanted.len() > 1 && !start_first && slots.contains(&(service.clone(), slot)) {
                out.push(too_many(service, slot, &wanted));
            }
        }
    }
}

fn says_start_first(service: &Service) -> bool {
    [&service.spec.update, &service.spec.rollback].into_iter().flatten().any(|c| c.order == UpdateOrder::StartFirst)
}

fn wanted_by_slot<'a>(snapshot: &'a Snapshot, service: &ServiceId) -> BTreeMap<u64, Vec<&'a Arc<Task>>> {
    let mut slots: BTreeMap<u64, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in snapshot.tasks_of_service(service).filter(|t| t.is_wanted()) {
        slots.entry(task.slot).or_default().push(task);
    }
    slots
}

fn too_many(service: &ServiceId, slot: u64, wanted: &[&Arc<Task>]) -> Violation {
    let ids: Vec<&str> = wanted.iter().map(|t| t.id.as_str()).collect();
    Violation::new(
        "S17",
        format!("slot {slot} of service {service} has {} wanted tasks: {}", ids.len(), ids.join(", ")),
    )
}
