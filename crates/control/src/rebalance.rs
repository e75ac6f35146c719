//! Spreading a service's tasks anew, one move at a time.
//!
//! Somebody asks for it, or the cluster's policy does when a node comes to take tasks; the wish stands in the service's
//! [`Progress::rebalance`](model::Progress) until it is fulfilled. A move starts a task's successor on the node where the
//! scheduler would put it today, and stops the task when the successor runs, whatever the order of the service's updates is:
//! nothing is missing meanwhile. The successor is watched as one of an update, and the next move waits for that, and for the
//! delay between two batches of an update. A move that fails is the last one.
//!
//! A move is made only if it makes the cluster more even: at the first level at which the two nodes differ (the branches of
//! the placement preferences, the tasks of the service, all tasks), the old one has more even without the task. So moves come
//! to an end: with each, the sum of the squares of the tasks in each place gets smaller at one level, and no larger at those
//! above it.

use crate::plan::Planner;
use crate::scheduler::{ClusterView, Request, Seat, Spread};
use crate::service::{self, Context};
use crate::slot::{Item, Next, Slot, Slots};
use model::{
    Mode, Move, NodeId, Preference, Progress, Rebalance, RebalancePolicy, Service, SlotKey, Task, TaskState, Timestamp,
    limits,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::Snapshot;

/// A node that came to take tasks is a reason to spread services anew for so long. It bounds what a join can set off, without
/// a write to each service that had no use for it.
const JOIN_WINDOW: Duration = Duration::from_secs(600);

/// True when the service's tasks are to be spread anew, and that was not given up.
pub(crate) fn is_asked(progress: &Progress) -> bool {
    progress.rebalance.as_ref().is_some_and(|r| r.given_up.is_none())
}

/// True while a move of the service is under way, or watched.
pub(crate) fn is_moving(service: &Service) -> bool {
    service.progress.is_moving()
}

/// How far it has come, for people; `None` when nobody asked.
pub(crate) fn line(service: &Service) -> Option<String> {
    let rebalance = service.progress.rebalance.as_ref()?;
    Some(match (&rebalance.given_up, &rebalance.moving) {
        (Some(task), _) => format!(
            "its tasks are not spread anew any further: task {task}, which was to take the place of another, failed; ask for \
             it again when that is mended"
        ),
        (None, Some(step)) => {
            format!("its tasks are being spread anew, one at a time; task {} is on its way, or watched", step.task)
        }
        (None, None) => {
            "its tasks are to be spread anew; that waits until all of them run and no update goes on".to_owned()
        }
    })
}

/// The task of the slot that is to stay when two are wanted: the newest, or the one that a move has made, whatever the clocks
/// said when it did. One that an update has made since is newer still: otherwise the two would put an end to each other's for
/// as long as the move is watched.
pub(crate) fn newest<'s>(service: &Service, slot: &'s Slot) -> Option<&'s Item> {
    let made = service.progress.rebalance.as_ref().and_then(|r| r.moving.as_ref()).map(|m| &m.task);
    let newest = slot.newest();
    let is_latest = |i: &&Item| newest.is_none_or(|n| n.task.spec_version <= i.task.spec_version);
    slot.present().filter(is_latest).find(|i| i.is_wanted() && Some(&i.task.id) == made).or(newest)
}

/// The nodes that are relieved as soon as the moves are through that are under way.
pub(crate) fn leaving(snapshot: &Snapshot) -> Vec<NodeId> {
    let moves = snapshot.moving_services().filter_map(|s| s.progress.rebalance.as_ref()?.moving.as_ref());
    // Once the new task runs, the old one is not wanted any more.
    let under_way =
        |m: &&Move| snapshot.task(&m.task).is_some_and(|t| t.is_active() && t.status.state < TaskState::Running);
    moves.filter(under_way).map(|m| m.from.clone()).collect()
}

/// Takes spreading one step on. The service is returned when what is noted of it changes.
pub(crate) fn advance(context: &mut Context<'_>, slots: &mut Slots, planner: &mut Planner<'_>) -> Option<Service> {
    let service = context.service;
    if !matches!(service.spec.mode, Mode::Replicated { .. }) {
        return None;
    }
    let mut progress = service.progress.clone();
    if let Some(rebalance) = progress.rebalance.as_mut().filter(|r| r.moving.is_some()) {
        watch(context, slots, rebalance)?;
    }
    // What was made later was placed with that node in view.
    let known = progress.joins_considered.max(service.meta.created_at);
    let join = planner.recent_join().filter(|(_, at)| *at > known);
    let mut helps = || !is_at_rest(context, slots) || best(context, slots, planner).is_some();
    if let Some((node, at)) = join.filter(|_| !is_asked(&progress) && helps()) {
        progress.rebalance = Some(Rebalance { asked_at: context.now, because_of: Some(node), ..Rebalance::default() });
        progress.joins_considered = at;
    }
    if is_asked(&progress) && is_at_rest(context, slots) {
        let moving = best(context, slots, planner).map(|step| make(context, slots, planner, step));
        progress.rebalance = progress.rebalance.filter(|_| moving.is_some()).map(|r| Rebalance { moving, ..r });
    }
    (progress != service.progress).then(|| Service { progress, ..service.clone() })
}

/// The node that came to take tasks last, if that was lately and the cluster's policy is to make use of it.
pub(crate) fn recent_join(snapshot: &Snapshot, now: Timestamp) -> Option<(NodeId, Timestamp)> {
    snapshot.cluster().filter(|c| c.spec.policy.rebalance == RebalancePolicy::OnJoin)?;
    let last = snapshot.newest_taker()?;
    let at = last.status.takes_tasks_since;
    (at != Timestamp::default() && now.since(at) <= JOIN_WINDOW).then(|| (last.id.clone(), at))
}

/// Looks after the move that was made. `None` while it is under way or watched; otherwise it is noted how it ended.
fn watch(context: &mut Context<'_>, slots: &Slots, rebalance: &mut Rebalance) -> Option<()> {
    let made = rebalance.moving.as_ref()?;
    let config = context.service.spec.update.clone().unwrap_or_default();
    let monitor = config.monitor.unwrap_or(limits::UPDATE_MONITOR_DEFAULT);
    let slot = slots.values().find(|s| s.items.iter().any(|i| i.task.id == made.task));
    let was_wanted = |i: &&Item| context.snapshot.task(&i.task.id).is_some_and(|t| t.is_wanted());
    // What this plan does to the two tasks may not fit its transaction. Until it is done, the move is why there are two.
    if slot.is_some_and(|s| s.items.iter().filter(was_wanted).count() > 1) {
        return None;
    }
    let item = slot.into_iter().flat_map(Slot::present).find(|i| i.task.id == made.task);
    if let Some(item) = item {
        let status = &item.task.status;
        if item.ended_by_itself() {
            let soon = status.running_at.is_none_or(|ran| status.at.since(ran) <= monitor);
            rebalance.given_up = soon.then(|| made.task.clone());
        } else if item.is_wanted() {
            let since = status.running_at.filter(|_| status.state == TaskState::Running)?;
            // Both are asked, so that a wake-up is set for each.
            let (rested, watched) = (context.passed(since, config.delay), context.passed(since, monitor));
            if !(rested && watched) {
                return None;
            }
        }
    }
    rebalance.moving = None;
    Some(())
}

/// All is as it is wanted: no update goes on, and in each slot one task runs, or none is to follow.
fn is_at_rest(context: &Context<'_>, slots: &Slots) -> bool {
    let updating = context.service.current_update().is_some_and(|u| u.state.is_in_progress());
    let runs = |i: &Item| {
        let is_good = i.task.status.state == TaskState::Running && i.task.desired == TaskState::Running;
        is_good && !i.is_dirty(context)
    };
    let rests = |slot: &Slot| {
        let mut wanted = slot.present().filter(|i| i.is_wanted());
        let first = wanted.next();
        first.is_none_or(runs) && wanted.next().is_none()
    };
    !updating && slots.values().filter(|s| s.is_occupied()).all(rests)
}

/// A move that makes things more even.
struct Step {
    slot: SlotKey,
    from: NodeId,
}

/// The first move that helps, those from the fullest nodes first.
fn best(context: &Context<'_>, slots: &Slots, planner: &mut Planner<'_>) -> Option<Step> {
    let view = planner.relieved_view();
    let tasks = active(slots);
    let levels = Levels::of(context.snapshot, context.service, &tasks);
    // In each branch only the fullest: if no move from there helps, none does.
    let mut fullest: BTreeMap<Vec<&str>, (usize, usize, &NodeId)> = BTreeMap::new();
    let nodes: BTreeSet<&NodeId> = tasks.iter().filter_map(|t| t.node_id.as_ref()).collect();
    for node in nodes {
        let Some(path) = levels.path(node) else { continue };
        let fill = (levels.on(node), view.active_on(node), node);
        let most = fullest.entry(path).or_insert(fill);
        *most = (*most).max(fill);
    }
    let mut sources: Vec<_> = fullest.into_values().collect();
    sources.sort_unstable_by(|a, b| b.cmp(a));
    for (_, _, from) in sources {
        let Some(task) = tasks.iter().filter(|t| t.node_id.as_ref() == Some(from)).max_by_key(|t| t.slot_key()) else {
            continue;
        };
        let mut trial = view.clone();
        let Some(seat) = seat(context, slots, &mut trial, task) else { continue };
        // As it would be without the task, on either side.
        let mut without = view.clone();
        without.relieve(from);
        if seat.node != *from && levels.helps(&without, from, &seat.node) {
            return Some(Step { slot: task.slot_key(), from: from.clone() });
        }
    }
    None
}

/// Starts the successor; its predecessor goes on until it runs.
fn make(context: &Context<'_>, slots: &mut Slots, planner: &mut Planner<'_>, step: Step) -> Move {
    let old = slots.get(&step.slot).and_then(|s| s.newest()).map(|i| i.task.clone());
    let seat = old.and_then(|task| seat(context, slots, planner.relieved_view(), &task));
    let slot = crate::slot::at(slots, step.slot);
    slot.add(context, Next::default());
    let new = slot.items.last_mut().expect("it was just added");
    service::assign(new, seat, None, context.now);
    new.edit().desired = TaskState::Running;
    Move { task: new.task.id.clone(), from: step.from }
}

/// Where the scheduler would put the task today, if it were not there yet.
fn seat(context: &Context<'_>, slots: &Slots, view: &mut ClusterView, task: &Task) -> Option<Seat> {
    task.node_id.iter().for_each(|from| view.relieve(from));
    let others = slots.values().flat_map(Slot::present).map(|i| i.task.as_ref()).filter(|t| t.id != task.id);
    let mut spread = Spread::of(others, context.service.spec_version, context.now);
    let (spec, ports) = (&context.service.spec.task, context.service.host_ports());
    view.place(&Request::new(spec, &ports), &mut spread, 1).seats.into_iter().next()
}

fn active(slots: &Slots) -> Vec<&Arc<Task>> {
    let items = slots.values().flat_map(Slot::present);
    items.map(|i| &i.task).filter(|t| t.is_active() && t.node_id.is_some()).collect()
}

/// How the tasks of a service lie, from the outermost preference down to the nodes.
struct Levels<'a> {
    snapshot: &'a Snapshot,
    preferences: &'a [Preference],
    /// Tasks in each branch, by the way to it.
    branches: BTreeMap<Vec<&'a str>, usize>,
    /// Tasks on each node.
    nodes: BTreeMap<NodeId, usize>,
}

// === impl Levels ===

impl<'a> Levels<'a> {
    fn of(snapshot: &'a Snapshot, service: &'a Service, tasks: &[&Arc<Task>]) -> Levels<'a> {
        let preferences = service.spec.task.placement.as_ref().map_or(&[][..], |p| &p.preferences);
        let mut levels = Levels { snapshot, preferences, branches: BTreeMap::new(), nodes: BTreeMap::new() };
        for node in tasks.iter().filter_map(|t| t.node_id.as_ref()) {
            *levels.nodes.entry(node.clone()).or_default() += 1;
            let Some(path) = levels.path(node) else { continue };
            for depth in 1..=path.len() {
                *levels.branches.entry(path[..depth].to_vec()).or_default() += 1;
            }
        }
        levels
    }

    /// What the node has of what the tasks are spread over.
    fn path(&self, node: &NodeId) -> Option<Vec<&'a str>> {
        let node = self.snapshot.node(node)?;
        Some(self.preferences.iter().filter_map(|p| p.value_on(node)).collect())
    }

    fn on(&self, node: &NodeId) -> usize {
        self.nodes.get(node).copied().unwrap_or(0)
    }

    /// A task less on `from` and one more on `to` is more even. `view` is without the task.
    fn helps(&self, view: &ClusterView, from: &NodeId, to: &NodeId) -> bool {
        let (Some(old), Some(new)) = (self.path(from), self.path(to)) else { return false };
        let count = |path: &[&str]| self.branches.get(path).copied().unwrap_or(0);
        for depth in 1..=old.len().min(new.len()) {
            let (a, b) = (&old[..depth], &new[..depth]);
            // In a branch that both are in, nothing changes.
            if a != b && count(a).saturating_sub(1) != count(b) {
                return count(a).saturating_sub(1) > count(b);
            }
        }
        let (here, there) = (self.on(from).saturating_sub(1), self.on(to));
        if here == there { view.active_on(from) > view.active_on(to) } else { here > there }
    }
}
