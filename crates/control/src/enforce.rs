//! The constraint enforcer: which tasks cannot stay on the node that they have, because the node has changed
//! (SwarmKit manager/orchestrator/constraintenforcer).

use crate::slot::Item;
use model::{Availability, GenericResource, Node, Service, Task, TaskSpec, UpdateState, UpdateStatus};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Snapshot;

/// What a task says that has to leave its node, in SwarmKit's words.
pub(crate) const NO_LONGER_MEETS: &str = "assigned node no longer meets constraints";
/// Who made it leave, in SwarmKit's words.
pub(crate) const ENFORCED: &str = "task rejected by constraint enforcer";

/// True when the task runs, or is to run, on a node that is not any more what the task needs. Only active nodes are asked:
/// those that are drained are left anyway, and those that are paused keep what they have.
pub(crate) fn must_leave(snapshot: &Snapshot, service: &Service, task: &Task) -> bool {
    if !task.is_active() {
        return false;
    }
    let node = task.node_id.as_ref().and_then(|id| snapshot.node(id));
    let Some(node) = node.filter(|n| n.spec.availability == Availability::Active) else { return false };
    !is_suited(service, task, node) || !has_room(snapshot, task, node)
}

/// Lets a task that has to leave its node say so.
pub(crate) fn say_why(item: &mut Item) {
    let status = &mut item.edit().status;
    status.message = ENFORCED.into();
    status.err = NO_LONGER_MEETS.into();
}

/// The node is what a task with this spec needs.
fn suits(spec: &TaskSpec, node: &Node) -> bool {
    spec.placement.as_ref().is_none_or(|p| p.is_met_by(node) && p.allows_platform_of(node))
}

/// What the service says now decides (SwarmKit reads no other): what it has dropped holds no task to anything. What it says now,
/// and did not when the task was made, is brought about by the updater, a few tasks at a time; but once that is done, a change of
/// the node counts at once.
fn is_suited(service: &Service, task: &Task, node: &Node) -> bool {
    if suits(&service.spec.task, node) {
        return true;
    }
    let is_over = |u: &UpdateStatus| matches!(u.state, UpdateState::Completed | UpdateState::RollbackCompleted);
    let updating = service.current_update().is_some_and(|u| !is_over(u));
    let node_came_after = node.meta.version > service.meta.version;
    suits(&task.spec, node) && (updating || !node_came_after)
}

/// What the task reserves is there, beside what the tasks reserve that came to the node before it.
fn has_room(snapshot: &Snapshot, task: &Task, node: &Node) -> bool {
    let Some(description) = &node.description else { return true };
    let usage = snapshot.usage_of(&node.id);
    let left = usage.map(|u| u.left_of(description.resources)).unwrap_or_default();
    let is_full = left.nano_cpus < 0 || left.memory_bytes < 0;
    // Mostly nothing is amiss, and that is known without a look at the other tasks.
    if !is_full && task.generic.is_empty() {
        return true;
    }
    let mut tasks: Vec<&Arc<Task>> = snapshot.tasks_on_node(&node.id).filter(|t| t.is_active()).collect();
    tasks.sort_by(|a, b| a.meta.created_at.cmp(&b.meta.created_at).then_with(|| a.id.cmp(&b.id)));
    let mut left = description.resources;
    let mut generic = Generic::of(&description.generic);
    for other in tasks {
        let asks = other.spec.reservations();
        let (cpus, memory) = (asks.nano_cpus.max(0), asks.memory_bytes.max(0));
        let short = cpus > 0 && cpus > left.nano_cpus || memory > 0 && memory > left.memory_bytes;
        let fits = !short && generic.take(&other.generic);
        if other.id == task.id {
            return fits;
        }
        if fits {
            left.nano_cpus -= cpus;
            left.memory_bytes -= memory;
        }
    }
    true
}

/// What a node has left beyond CPU and memory.
struct Generic<'a> {
    discrete: BTreeMap<&'a str, i64>,
    named: Vec<(&'a str, &'a str)>,
}

// === impl Generic ===

impl<'a> Generic<'a> {
    fn of(has: &'a [GenericResource]) -> Generic<'a> {
        let mut all = Generic { discrete: BTreeMap::new(), named: Vec::new() };
        for resource in has {
            match resource {
                GenericResource::Named { kind, value } => all.named.push((kind, value)),
                GenericResource::Discrete { kind, amount } => _ = all.discrete.insert(kind, *amount),
            }
        }
        all
    }

    /// Takes what a task was given; false, and nothing is taken, when some of it is not there any more.
    fn take(&mut self, given: &[GenericResource]) -> bool {
        let there = |resource: &GenericResource| match resource {
            // Two tasks of one slot may have the same, one after the other.
            GenericResource::Named { kind, value } => self.named.contains(&(kind, value)),
            GenericResource::Discrete { kind, amount } => {
                self.discrete.get(kind.as_str()).is_some_and(|left| left >= amount)
            }
        };
        if !given.iter().all(there) {
            return false;
        }
        for resource in given {
            if let GenericResource::Discrete { kind, amount } = resource
                && let Some(left) = self.discrete.get_mut(kind.as_str())
            {
                *left -= amount;
            }
        }
        true
    }
}
