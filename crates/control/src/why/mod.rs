//! Why a task is not where it should be: from the state alone, in words for people.
//!
//! It asks the scheduler's own filters, and the clocks that the loops themselves ask, so that what it says is what they do.

mod task;
mod update;
mod words;

pub use crate::scheduler::Rejection;

use crate::dirty::is_up_to_date;
use crate::eligible::{Standing, standing};
use crate::rebalance;
use crate::scheduler::{ClusterView, Spread};
use crate::slot::{self, Slot, Slots};
use crate::words::several;
use model::{Mode, NodeId, Service, ServiceId, Task, TaskId, TaskState, Timestamp};
use std::collections::BTreeMap;
use store::Snapshot;
use words::Names;

/// Why a service is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The service.
    pub service: ServiceId,
    /// Its name.
    pub name: String,
    /// What holds for all of it, a sentence each. The first is the one to show where there is room for one.
    pub lines: Vec<String>,
    /// What its update waits for; empty when none is under way.
    pub update: String,
    /// The tasks that are not where they should be, by their place in the service.
    pub tasks: Vec<TaskWhy>,
}

/// Why a task is not where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskWhy {
    /// The task.
    pub id: TaskId,
    /// Its place in its service: `web.3`, or `agent.node2` for one that is for a node.
    pub name: String,
    /// Which of the replicas it is; 0 for a global task.
    pub slot: u64,
    /// The node that it has.
    pub node: Option<NodeId>,
    /// The state that it should reach.
    pub desired: TaskState,
    /// The state that it is in.
    pub state: TaskState,
    /// Why, in one sentence.
    pub line: String,
    /// Of a task without a node: each node that cannot have it.
    pub rejected: Vec<Rejection>,
}

/// What all tasks of one service are asked with.
struct Asking<'a> {
    snapshot: &'a Snapshot,
    service: &'a Service,
    now: Timestamp,
    names: Names<'a>,
    view: ClusterView,
    spread: Spread,
}

/// Nodes that have no task of a global service and are named, at most: after them, their number.
const NODES_NAMED_MAX: usize = 5;

/// Why the service is not as it should be, at this time; says so when it is.
pub fn service(snapshot: &Snapshot, service: &Service, now: Timestamp) -> Why {
    let slots = slot::load(snapshot, &service.id);
    let mut asking = Asking::new(snapshot, service, now);
    let tasks: Vec<TaskWhy> = slots.values().flat_map(|s| asking.of_slot(s)).collect();
    let update = update::waits_for(&asking, &slots);
    let lines = asking.lines(&slots, &tasks, &update);
    Why { service: service.id.clone(), name: service.spec.name.to_string(), lines, update, tasks }
}

/// Why the task is not where it should be, at this time; says where it is when it is there. `None` when its service is gone: then
/// it is being removed, and nothing else.
pub fn task(snapshot: &Snapshot, task: &Task, now: Timestamp) -> Option<Why> {
    let service = snapshot.service(&task.service_id)?;
    let slots = slot::load(snapshot, &service.id);
    let mut asking = Asking::new(snapshot, service, now);
    let slot = slots.get(&task.slot_key())?;
    let why = asking.of_task(slot, task);
    let update = update::waits_for(&asking, &slots);
    let lines = vec![format!("{}: {}", why.name, why.line)];
    Some(Why { service: service.id.clone(), name: service.spec.name.to_string(), lines, update, tasks: vec![why] })
}

// === impl Asking ===

impl<'a> Asking<'a> {
    fn new(snapshot: &'a Snapshot, service: &'a Service, now: Timestamp) -> Asking<'a> {
        let tasks = snapshot.tasks_of_service(&service.id).map(AsRef::as_ref);
        let spread = Spread::of(tasks, service.spec_version, now);
        Asking { snapshot, service, now, names: Names(snapshot), view: ClusterView::new(snapshot), spread }
    }

    /// The tasks of a slot that are not where they should be: those that are wanted and do not run, those that should not run
    /// any more and do, and the last one of a slot for which none is wanted.
    fn of_slot(&mut self, slot: &Slot) -> Vec<TaskWhy> {
        if !slot.is_occupied() && !slot.present().any(|i| i.task.holds_its_node()) {
            return Vec::new();
        }
        let none_wanted = !slot.is_wanted() && slot.is_occupied();
        let newest = slot.newest().map(|i| i.task.id.clone()).filter(|_| none_wanted);
        let is_asked = |t: &Task| Some(&t.id) == newest.as_ref() || self.is_amiss(t);
        let asked: Vec<_> = slot.present().filter(|i| is_asked(&i.task)).collect();
        asked.into_iter().map(|i| self.of_task(slot, &i.task)).collect()
    }

    fn is_amiss(&self, task: &Task) -> bool {
        if !task.is_wanted() {
            return task.holds_its_node();
        }
        let done = task.job_iteration.is_some() && task.status.state == TaskState::Complete;
        let runs = task.desired >= TaskState::Running && task.status.state == TaskState::Running;
        !(done || runs && is_up_to_date(self.snapshot, self.service, task))
    }

    fn of_task(&mut self, slot: &Slot, task: &Task) -> TaskWhy {
        let rejected = task::rejections(self, slot, task);
        TaskWhy {
            id: task.id.clone(),
            name: self.names.task(task),
            slot: task.slot,
            node: task.node_id.clone(),
            desired: task.desired,
            state: task.status.state,
            line: task::line(self, slot, task, &rejected),
            rejected,
        }
    }

    fn lines(&self, slots: &Slots, tasks: &[TaskWhy], update: &str) -> Vec<String> {
        let counted = self.counted(slots);
        let worst = tasks.iter().find(|t| t.node.is_none()).or(tasks.first());
        let first = match (worst, update) {
            (Some(t), _) => format!("{counted}; {}: {}", t.name, t.line),
            (None, "") => counted,
            (None, update) => format!("{counted}; {update}"),
        };
        let mut lines = vec![first];
        lines.extend((!update.is_empty()).then(|| update.to_owned()));
        lines.extend(rebalance::line(self.service));
        if let Some(left_out) = self.nodes_left_out() {
            lines.push(left_out);
        }
        lines
    }

    /// How many tasks do what they should.
    fn counted(&self, slots: &Slots) -> String {
        let of = |state: TaskState| {
            let is = |s: &&Slot| s.present().any(|i| i.is_wanted() && i.task.status.state == state);
            slots.values().filter(is).count()
        };
        let (running, open) = (of(TaskState::Running), self.open_nodes());
        match self.service.spec.mode {
            Mode::Replicated { replicas: 1 } if running == 1 => "its task runs".into(),
            Mode::Replicated { replicas } if running as u64 == replicas => format!("all {replicas} tasks run"),
            Mode::Replicated { replicas } => {
                let run = if replicas == 1 || running == 1 { "runs" } else { "run" };
                format!("{running} of {} {run}", several(replicas, "task", "tasks"))
            }
            Mode::Global => format!("it runs on {running} of {}", several(open, "node", "nodes")),
            Mode::ReplicatedJob { .. } => {
                let wanted =
                    last_run(slots).map_or(self.service.spec.mode.completions(), |r| self.service.completions_of(r));
                format!(
                    "{} of {}, {running} running",
                    self.completed(slots),
                    several(wanted, "completion", "completions")
                )
            }
            Mode::GlobalJob => {
                let done = self.completed(slots);
                format!("done on {done} of {}, {running} running", several(open, "node", "nodes"))
            }
        }
    }

    /// The slots of the job's last run whose task has ended well.
    fn completed(&self, slots: &Slots) -> usize {
        let last = last_run(slots);
        let of_last = slots.values().filter(|s| s.key.run == last);
        of_last.filter(|s| s.present().any(|i| i.task.status.state == TaskState::Complete)).count()
    }

    fn open_nodes(&self) -> usize {
        let stands = |id: &NodeId| standing(self.snapshot, id, &self.service.spec.task);
        self.snapshot.nodes().filter(|n| matches!(stands(&n.id), Standing::Open | Standing::Kept)).count()
    }

    /// Of a global service: the nodes that have no task, and why.
    fn nodes_left_out(&self) -> Option<String> {
        if !self.service.spec.mode.is_global() {
            return None;
        }
        let spec = &self.service.spec.task;
        let closed = self.snapshot.nodes().filter(|n| standing(self.snapshot, &n.id, spec) == Standing::Closed);
        let reason = |n: &model::Node| {
            let unmet = spec.placement.as_ref().and_then(|p| p.unmet(n).next().map(|c| crate::scheduler::unmet(c, n)));
            unmet.filter(|_| self.view.takes_tasks(&n.id)).unwrap_or_else(|| crate::scheduler::unavailable(n))
        };
        let reasons: Vec<(String, String)> = closed.map(|n| (self.names.node(&n.id), reason(n))).collect();
        (!reasons.is_empty()).then(|| format!("left out: {}", words::by_reason(reasons, NODES_NAMED_MAX)))
    }
}

/// The last run of a job that has tasks.
fn last_run(slots: &Slots) -> Option<u64> {
    slots.keys().filter_map(|k| k.run).max()
}

/// Counts what is equal, in the order in which it comes first.
fn count_equal<T: Ord + Clone>(all: impl IntoIterator<Item = T>) -> Vec<(T, usize)> {
    let (mut order, mut counts) = (Vec::new(), BTreeMap::new());
    for one in all {
        let count = counts.entry(one.clone()).or_insert(0_usize);
        if *count == 0 {
            order.push(one);
        }
        *count += 1;
    }
    order.into_iter().map(|one| (one.clone(), counts[&one])).collect()
}
