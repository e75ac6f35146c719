//! S18–S20: where tasks are.

use crate::Violation;
use model::{Availability, Node, NodeId, NodeState, Protocol, ServiceId, Task, TaskState, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Commit, Object, Snapshot};

/// S18: no task is wanted on a node that was drained or removed longer than `bound` ago. `removed` says when each node
/// that is gone was removed, as far as the caller knows.
pub fn check_drained(
    snapshot: &Snapshot,
    now: Timestamp,
    bound: Duration,
    removed: &BTreeMap<NodeId, Timestamp>,
) -> Vec<Violation> {
    let wanted = snapshot.tasks().filter(|t| t.is_wanted() && t.status.state >= TaskState::Assigned);
    let late = wanted.filter(|t| {
        let Some(id) = &t.node_id else { return false };
        let since = match snapshot.node(id) {
            Some(n) if n.spec.availability == Availability::Drain => Some(&n.meta.updated_at),
            Some(_) => None,
            None => removed.get(id),
        };
        !t.status.state.is_terminal() && since.is_some_and(|s| now.since(*s) > bound)
    });
    late.map(|t| Violation::new("S18", format!("task {} is wanted on a node that is drained or gone", t.id))).collect()
}

/// S19 and S20 for the nodes on which the commit placed something: what is reserved there fits, and no port is there twice.
pub(crate) fn check_commit(commit: &Commit, after: &Snapshot, out: &mut Vec<Violation>) {
    let placed = commit.deltas.iter().filter_map(|d| match (&d.before, &d.after) {
        (None, Some(Object::Task(a))) => a.node_id.as_ref().map(|n| (n, a)),
        (Some(Object::Task(b)), Some(Object::Task(a))) if b.node_id.is_none() => a.node_id.as_ref().map(|n| (n, a)),
        _ => None,
    });
    let mut nodes: BTreeMap<&NodeId, Vec<&Arc<Task>>> = BTreeMap::new();
    placed.for_each(|(n, t)| nodes.entry(n).or_default().push(t));
    for (id, tasks) in nodes {
        match after.node(id) {
            Some(node) => check_node(after, node, &tasks, out),
            None => out.push(Violation::new("S18", format!("a task was placed on node {id}, which is gone"))),
        }
    }
}

fn check_node(after: &Snapshot, node: &Node, placed: &[&Arc<Task>], out: &mut Vec<Violation>) {
    let id = &node.id;
    if node.status.state != NodeState::Ready || node.spec.availability != Availability::Active {
        out.push(Violation::new("S18", format!("a task was placed on node {id}, which takes none")));
    }
    let slots = slots(after, id);
    let capacity = node.description.as_ref().map(|d| d.resources).unwrap_or_default();
    for (what, f, capacity) in [
        ("nano-CPUs", (|t| t.spec.reservations().nano_cpus) as fn(&Arc<Task>) -> i64, capacity.nano_cpus),
        ("bytes of memory", |t| t.spec.reservations().memory_bytes, capacity.memory_bytes),
    ] {
        let held = slots.values().map(|s| s.held(f)).fold(0, i64::saturating_add);
        // A node may have shrunk under what it has; nothing that asks for more is added then.
        if placed.iter().any(|t| f(t) > 0) && held > capacity {
            out.push(Violation::new("S19", format!("{held} {what} are reserved on node {id}, which has {capacity}")));
        }
    }
    let mut ports: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    for port in slots.values().flat_map(Slot::ports) {
        if !ports.insert(port) {
            out.push(Violation::new("S20", format!("port {} is published twice on node {id}", port.1)));
        }
    }
}

/// The tasks of one slot that hold something on one node. Those that are wanted may run side by side; the others run before
/// them, one after another.
#[derive(Default)]
struct Slot<'a> {
    wanted: Vec<&'a Arc<Task>>,
    stopping: Vec<&'a Arc<Task>>,
}

impl Slot<'_> {
    fn held(&self, f: fn(&Arc<Task>) -> i64) -> i64 {
        let wanted = self.wanted.iter().map(|t| f(t)).fold(0, i64::saturating_add);
        self.stopping.iter().map(|t| f(t)).fold(wanted, i64::max)
    }

    fn ports(&self) -> Vec<(Protocol, u16)> {
        let of = |t: &Arc<Task>| -> Vec<(Protocol, u16)> {
            t.host_ports.iter().filter(|p| p.published_port != 0).map(|p| (p.protocol, p.published_port)).collect()
        };
        let mut ports: Vec<_> = self.wanted.iter().flat_map(|t| of(t)).collect();
        let stopping: BTreeSet<_> = self.stopping.iter().flat_map(|t| of(t)).collect();
        ports.extend(stopping.into_iter().filter(|p| !ports.contains(p)).collect::<Vec<_>>());
        ports
    }
}

fn slots<'a>(snapshot: &'a Snapshot, node: &NodeId) -> BTreeMap<(&'a ServiceId, u64), Slot<'a>> {
    let mut slots: BTreeMap<(&ServiceId, u64), Slot<'_>> = BTreeMap::new();
    for task in snapshot.tasks_on_node(node).filter(|t| !t.status.state.is_terminal()) {
        let slot = slots.entry((&task.service_id, task.slot)).or_default();
        if task.is_wanted() { &mut slot.wanted } else { &mut slot.stopping }.push(task);
    }
    slots
}
