//! S18–S20: where tasks are.

use crate::Violation;
use model::{
    Availability, GenericResource, Node, NodeId, NodeState, Platform, Protocol, ServiceId, SlotKey, Task, TaskSpec,
    TaskState, Timestamp,
};
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

/// S18: no task is wanted on a node that is not what it needs, though the node has been so for `bound`: one that does not meet
/// the task's constraints, is of a platform that its image does not exist for, or is not the one that it is for. A paused node
/// keeps what it has, and what the service has meanwhile dropped nobody needs.
pub fn check_suited(snapshot: &Snapshot, now: Timestamp, bound: Duration) -> Vec<Violation> {
    let late = unsuited_tasks(snapshot).filter(|(_, node, _)| now.since(node.meta.updated_at) >= bound);
    let violation = |(task, node, what): (&Task, &Node, String)| {
        Violation::new("S18", format!("task {} is wanted on node {}, {what}", task.id, node.id))
    };
    late.map(violation).collect()
}

/// The tasks that are wanted on an active node that is not what they need, with the node and why.
pub(crate) fn unsuited_tasks(snapshot: &Snapshot) -> impl Iterator<Item = (&Task, &Node, String)> {
    snapshot.tasks().filter(|t| t.is_active()).filter_map(|t| {
        let node = t.node_id.as_ref().and_then(|id| snapshot.node(id))?;
        let what = unsuited(t, &t.spec, node).filter(|_| node.spec.availability == Availability::Active)?;
        let now = snapshot.service(&t.service_id).map_or(&t.spec, |s| &s.spec.task);
        unsuited(t, now, node)?;
        Some((t.as_ref(), node.as_ref(), what))
    })
}

/// Why the node is none for the task with this spec, whatever else runs there.
fn unsuited(task: &Task, spec: &TaskSpec, node: &Node) -> Option<String> {
    let placement = spec.placement.as_ref();
    let unmet = placement.and_then(|p| p.constraints.iter().find(|c| !c.is_met_by(node)));
    if let Some(constraint) = unmet {
        return Some(format!("which does not meet `{constraint}`"));
    }
    if task.for_node.as_ref().is_some_and(|id| *id != node.id) {
        return Some("which it is not for".into());
    }
    let platforms = placement.map_or(&[][..], |p| &p.platforms);
    let runs = |p: &Platform| node.description.as_ref().is_some_and(|d| p.allows(&d.platform));
    (!platforms.is_empty() && !platforms.iter().any(runs)).then(|| "whose platform its image does not exist for".into())
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
    for task in placed {
        if let Some(what) = unsuited(task, &task.spec, node) {
            out.push(Violation::new("S18", format!("task {} was placed on node {id}, {what}", task.id)));
        }
    }
    check_max_replicas(after, id, placed, out);
    let slots = slots(after, id);
    check_generic(node, &slots, placed, out);
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

/// S18: a service has no more tasks on a node than those allow that were placed there. While its limit is being changed, tasks
/// of two versions may come at once; then the larger of the two holds.
fn check_max_replicas(after: &Snapshot, node: &NodeId, placed: &[&Arc<Task>], out: &mut Vec<Violation>) {
    let mut limits: BTreeMap<&ServiceId, u64> = BTreeMap::new();
    for task in placed {
        let max = task.spec.placement.as_ref().map_or(0, |p| p.max_replicas);
        let limit = limits.entry(&task.service_id).or_default();
        *limit = (*limit).max(if max == 0 { u64::MAX } else { max });
    }
    for (service, max) in limits {
        let there = after.tasks_on_node(node).filter(|t| t.service_id == *service && t.is_active()).count();
        if there as u64 > max {
            let what = format!("service {service} has {there} tasks on node {node}, of {max} allowed");
            out.push(Violation::new("S18", what));
        }
    }
}

/// S19: what was placed was given what it asks for of the node's generic resources, and nobody else holds that.
fn check_generic(
    node: &Node,
    slots: &BTreeMap<(&ServiceId, SlotKey), Slot<'_>>,
    placed: &[&Arc<Task>],
    out: &mut Vec<Violation>,
) {
    let has = node.description.as_ref().map_or(&[][..], |d| &d.generic);
    let mut say = |what: String| out.push(Violation::new("S19", format!("{what} on node {}", node.id)));
    for task in placed {
        for asked in task.spec.resources.iter().flat_map(|r| &r.generic).filter(|a| a.amount > 0) {
            let given: i64 = task.generic.iter().filter(|g| g.kind() == asked.kind).map(amount).sum();
            if given != asked.amount {
                say(format!("task {} was given {given} {} and asked for {}", task.id, asked.kind, asked.amount));
            }
        }
    }
    for resource in placed.iter().flat_map(|t| &t.generic).collect::<BTreeSet<_>>() {
        let kind = resource.kind();
        match resource {
            GenericResource::Named { value, .. } => {
                let holds = |tasks: &[&Arc<Task>]| tasks.iter().filter(|t| t.generic.contains(resource)).count();
                let holders = |s: &Slot<'_>| holds(&s.wanted).max(usize::from(holds(&s.stopping) > 0));
                let holders: usize = slots.values().map(holders).sum();
                if holders > 1 || !has.contains(resource) {
                    say(format!("{holders} tasks hold {kind} {value}"));
                }
            }
            GenericResource::Discrete { .. } => {
                let of_kind = |t: &Arc<Task>| t.generic.iter().filter(|g| g.kind() == kind).map(amount).sum::<i64>();
                let held: i64 = slots.values().map(|s| s.held(|t| of_kind(t))).fold(0, i64::saturating_add);
                let has: i64 = has.iter().filter(|g| g.kind() == kind).map(amount).sum();
                if held > has {
                    say(format!("{held} {kind} are held of {has}"));
                }
            }
        }
    }
}

fn amount(resource: &GenericResource) -> i64 {
    match resource {
        GenericResource::Named { .. } => 1,
        GenericResource::Discrete { amount, .. } => *amount,
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
    fn held(&self, f: impl Fn(&Arc<Task>) -> i64) -> i64 {
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

fn slots<'a>(snapshot: &'a Snapshot, node: &NodeId) -> BTreeMap<(&'a ServiceId, SlotKey), Slot<'a>> {
    let mut slots: BTreeMap<(&ServiceId, SlotKey), Slot<'_>> = BTreeMap::new();
    for task in snapshot.tasks_on_node(node).filter(|t| !t.status.state.is_terminal()) {
        let slot = slots.entry((&task.service_id, task.slot_key())).or_default();
        if task.is_wanted() { &mut slot.wanted } else { &mut slot.stopping }.push(task);
    }
    slots
}
