//! One run for one service: load its slots, let each loop edit them, place what needs a node, write it down.

use crate::Canary;
use crate::plan::{Group, Planner};
use crate::scheduler::{Held, Request, Seat, Spread};
use crate::slot::{self, Item, Slots, Stop};
use crate::{cron, global, grants, inherit, job, reaper, rebalance, replicated, restart, update};
use model::{Inherited, Mode, Node, NodeState, Service, ServiceId, TaskState, Timestamp};
use std::cell::OnceCell;
use std::collections::BTreeSet;
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
    /// Of a job: the runs that go on.
    pub(crate) runs: BTreeSet<u64>,
    /// Simulation only: all off unless it turns one on.
    pub(crate) canary: Canary,
    /// What new tasks take from the service and the cluster besides the task's spec.
    inherited: OnceCell<Option<Arc<Inherited>>>,
}

// === impl Context ===

impl<'a> Context<'a> {
    fn new(planner: &Planner<'a>, service: &'a Service, slots: &Slots) -> Context<'a> {
        let snapshot = planner.snapshot;
        Context {
            snapshot,
            now: planner.now,
            service,
            room: planner.room(),
            wakes: Vec::new(),
            runs: job::runs(snapshot, service, slots),
            canary: planner.canary,
            inherited: OnceCell::new(),
        }
    }

    /// What a new task takes over besides the spec.
    pub(crate) fn inherited(&self) -> Option<Arc<Inherited>> {
        // Most looks make no task.
        self.inherited.get_or_init(|| inherit::inherited(self.snapshot, &self.service.spec)).clone()
    }

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
        Some(service) => reconcile_present(planner, service, &mut slots),
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

/// True when there is more to do than fits.
fn reconcile_present(planner: &mut Planner<'_>, seen: &Service, slots: &mut Slots) -> bool {
    let snapshot = planner.snapshot;
    let mut changed = grants::pin(snapshot, seen, slots);
    let due = cron::advance(snapshot, changed.as_ref().unwrap_or(seen), slots, planner.now);
    changed = due.service.or(changed);
    let mut context = Context::new(planner, changed.as_ref().unwrap_or(seen), slots);
    context.wakes.extend(due.wake_at);
    let (more, updated) = run_loops(&mut context, slots, planner);
    context.wakes.iter().for_each(|at| planner.wake(&seen.id, *at));
    if let Some(service) = updated.or_else(|| changed.clone()) {
        grants::check_given(planner, &service);
        planner.update(service);
    }
    more
}

/// True when there is more to do than fits; and the service, when it changes.
fn run_loops(context: &mut Context<'_>, slots: &mut Slots, planner: &mut Planner<'_>) -> (bool, Option<Service>) {
    grants::refresh(context, slots);
    let more = match context.service.spec.mode {
        Mode::Replicated { .. } => replicated::scale(context, slots),
        Mode::Global => global::follow(context, slots),
        Mode::ReplicatedJob { .. } | Mode::GlobalJob => job::follow(context, slots),
    };
    restart::replace(context, slots);
    // A job is not updated: each change of it is another run.
    let rolled = if context.service.spec.mode.is_job() { None } else { update::advance(context, slots) };
    restart::promote(context, slots);
    let rolled = rolled.or_else(|| rebalance::advance(context, slots, planner));
    place(context, slots, planner);
    reaper::orphan(context, slots);
    reaper::reap_removed(context.snapshot, slots);
    reaper::bound_history(context, slots);
    (more, rolled)
}

/// Adds the edits to the transaction, a slot at a time; true when some did not fit. What only ends goes first, and what
/// only begins goes last: whatever the loops decided, they decided as if what ends were done.
fn write_down(planner: &mut Planner<'_>, id: &ServiceId, slots: Slots) -> bool {
    let mut groups: Vec<Group> = slots.into_values().filter_map(slot::Slot::into_group).collect();
    if groups.is_empty() {
        return false;
    }
    groups.sort_by_key(|g| g.order(planner.snapshot));
    planner.check(match planner.snapshot.service(id) {
        Some(service) => Check::Unchanged { id: id.into(), version: service.meta.version },
        None => Check::Absent { id: id.into() },
    });
    groups.into_iter().any(|group| !planner.add(group))
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
        // Only what is held of a node that takes tasks matters: nothing is placed on the others.
        let view = planner.view();
        let old: Vec<Held> = old.into_iter().filter(|h| view.takes_tasks(&h.node)).collect();
        for item in slot.present_mut().filter(|i| i.is_unplaced()) {
            if old.is_empty() && item.task.for_node.is_none() {
                fresh.push(item);
                continue;
            }
            let (spec, ports) = (item.task.spec.clone(), item.task.host_ports.clone());
            let request = Request::new(&spec, &ports);
            let placed = match item.task.for_node.clone() {
                Some(node) => view.place_on(&node, &request, &mut spread, &old),
                None => view.place_successor(&request, &mut spread, &old),
            };
            assign(item, placed.seats.into_iter().next(), placed.unplaced_because.as_deref(), context.now);
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
        let mut seats = placed.seats.into_iter();
        for item in equal {
            assign(item, seats.next(), placed.unplaced_because.as_deref(), context.now);
        }
    }
}

pub(crate) fn assign(item: &mut Item, seat: Option<Seat>, why_not: Option<&str>, now: Timestamp) {
    if let Some(seat) = seat {
        let task = item.edit();
        task.node_id = Some(seat.node);
        task.generic = seat.generic;
        task.status.state = TaskState::Assigned;
        task.status.at = now;
        task.status.message = match task.for_node {
            Some(_) => "scheduler confirmed task can run on preassigned node".into(),
            None => "scheduler assigned task to node".into(),
        };
        task.status.err.clear();
    } else if let Some(err) = why_not.filter(|e| item.task.status.err != **e) {
        let task = item.edit();
        task.status.state = TaskState::Pending;
        task.status.at = now;
        err.clone_into(&mut task.status.err);
    }
}
