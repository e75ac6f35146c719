//! One run for one service: load its slots, let each loop edit them, place what needs a node, write it down.

use crate::plan::Planner;
use crate::scheduler::{Held, Request, Spread};
use crate::slot::{self, Item, Slots, Stop};
use crate::{grants, reaper, replicated, restart, update};
use model::{Node, NodeId, NodeState, Service, ServiceId, TaskState, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use store::{Check, Snapshot};

/// What the loops of one service see and ask for.
pub(crate) struct Context<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Timestamp,
    pub(crate) service: &'a Service,
    /// Slots that may be opened, closed or updated: more would not fit the transaction.
    pub(crate) room: usize,
    pub(crate) wakes: Vec<Timestamp>,
}

// === impl Context ===

impl Context<'_> {
    /// True when `span` has passed since `start`; otherwise asks to be woken then. A clock that went back by more than the
    /// span counts as passed: better early than never.
    pub(crate) fn passed(&mut self, start: Timestamp, span: Duration) -> bool {
        self.is_due(start.plus(span), span)
    }

    /// The same, when only the end is known.
    pub(crate) fn is_due(&mut self, at: Timestamp, span: Duration) -> bool {
        let due = at <= self.now || at.since(self.now) > span;
        if !due {
            self.wakes.push(at);
        }
        due
    }
}

/// True when nothing on the node runs for us: it is gone, down, or left.
pub(crate) fn is_away(node: Option<&Arc<Node>>) -> bool {
    node.is_none_or(|n| matches!(n.status.state, NodeState::Down | NodeState::Disconnected))
}

/// Plans what the service needs.
pub(crate) fn reconcile(planner: &mut Planner<'_>, id: &ServiceId) {
    if planner.is_full() {
        return planner.wake(id, planner.now);
    }
    let snapshot = planner.snapshot;
    let mut slots = slot::load(snapshot, id);
    let more = match snapshot.service(id) {
        Some(service) => {
            let room = planner.room();
            let pinned = grants::pin(snapshot, service);
            let service = pinned.as_ref().unwrap_or(service);
            let mut context = Context { snapshot, now: planner.now, service, room, wakes: Vec::new() };
            let (more, rolled) = run_loops(&mut context, &mut slots, planner);
            if let Some(service) = rolled.or_else(|| pinned.clone()) {
                grants::check_given(planner, &service);
                planner.update(service);
            }
            context.wakes.into_iter().for_each(|at| planner.wake(id, at));
            more
        }
        None => {
            slots.values_mut().flat_map(|s| &mut s.items).for_each(|i| i.stop(Stop::Remove));
            reaper::reap_removed(snapshot, &mut slots);
            false
        }
    };
    if write_down(planner, id, slots) || more {
        planner.wake(id, planner.now);
    }
}

/// True when there is more to do than fits; and the service, when it changes.
fn run_loops(context: &mut Context<'_>, slots: &mut Slots, planner: &mut Planner<'_>) -> (bool, Option<Service>) {
    grants::refresh(context, slots);
    let more = replicated::scale(context, slots);
    restart::replace(context, slots);
    let rolled = update::advance(context, slots);
    restart::promote(context, slots);
    place(context, slots, planner);
    reaper::orphan(context, slots);
    reaper::reap_removed(context.snapshot, slots);
    reaper::bound_history(context, slots);
    (more, rolled)
}

/// Adds the edits to the transaction, a slot at a time; true when some did not fit.
fn write_down(planner: &mut Planner<'_>, id: &ServiceId, slots: Slots) -> bool {
    let mut groups = slots.into_values().filter_map(slot::Slot::into_group).peekable();
    if groups.peek().is_none() {
        return false;
    }
    planner.check(match planner.snapshot.service(id) {
        Some(service) => Check::Unchanged { id: id.into(), version: service.meta.version },
        None => Check::Absent { id: id.into() },
    });
    groups.any(|group| !planner.add(group))
}

/// Gives nodes to tasks that have none, and says why where it cannot.
fn place(context: &Context<'_>, slots: &mut Slots, planner: &mut Planner<'_>) {
    let was_active = |i: &&Item| context.snapshot.task(&i.task.id).is_some_and(|t| t.is_active());
    let relieved = slots.values().flat_map(|s| &s.items).filter(|i| !i.task.is_wanted()).filter(was_active);
    relieved.filter_map(|i| i.task.node_id.as_ref()).for_each(|n| planner.relieve(n));
    if !slots.values().flat_map(|s| &s.items).any(Item::is_unplaced) {
        return;
    }
    let tasks = slots.values().flat_map(|s| s.present()).map(|i| i.task.as_ref());
    let mut spread = Spread::of(tasks, context.service.spec_version, context.now);
    let mut fresh: Vec<&mut Item> = Vec::new();
    for slot in slots.values_mut() {
        // Beside a task that goes on (start-first) a new one starts at once, and cannot have what is still held.
        let alone = !slot.present().any(|i| i.is_wanted() && i.task.node_id.is_some());
        let old = Held::by(slot.present().filter(|i| alone && !i.is_wanted()).map(|i| i.task.as_ref()));
        for item in slot.present_mut().filter(|i| i.is_unplaced()) {
            if old.is_empty() {
                fresh.push(item);
            } else {
                let (spec, ports) = (item.task.spec.clone(), item.task.host_ports.clone());
                let placed = planner.view().place_successor(&Request::new(&spec, &ports), &mut spread, &old);
                assign(item, placed.nodes.into_iter().next(), placed.unplaced_because.as_deref(), context.now);
            }
        }
    }
    while !fresh.is_empty() {
        let like = fresh[0].task.clone();
        let (equal, others) = fresh.into_iter().partition(|i| {
            let same = Arc::ptr_eq(&i.task.spec, &like.spec) || i.task.spec == like.spec;
            same && i.task.host_ports == like.host_ports
        });
        fresh = others;
        let equal: Vec<&mut Item> = equal;
        let request = Request::new(&like.spec, &like.host_ports);
        let placed = planner.view().place(&request, &mut spread, equal.len());
        let mut nodes = placed.nodes.into_iter();
        for item in equal {
            assign(item, nodes.next(), placed.unplaced_because.as_deref(), context.now);
        }
    }
}

fn assign(item: &mut Item, node: Option<NodeId>, why_not: Option<&str>, now: Timestamp) {
    if let Some(node) = node {
        let task = item.edit();
        task.node_id = Some(node);
        task.status.state = TaskState::Assigned;
        task.status.at = now;
        task.status.message = "scheduler assigned task to node".into();
        task.status.err.clear();
    } else if let Some(err) = why_not.filter(|e| item.task.status.err != **e) {
        let task = item.edit();
        task.status.state = TaskState::Pending;
        task.status.at = now;
        err.clone_into(&mut task.status.err);
    }
}
