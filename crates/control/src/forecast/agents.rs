//! A model of the agents: what they would report of their tasks, and when.
//!
//! | what | takes |
//! |---|---|
//! | a task is made ready (its image, or the plugin, is there) | [`PREPARE`] |
//! | a task that is ready comes to run | [`START`]; with a health check its interval more, as one probe has to pass |
//! | a task that runs and is asked to stop has stopped | [`STOP`], or its stop grace period if that is shorter |
//! | a task of a job ends well | [`JOB`] after it began to run |
//!
//! A task on a node that is not there reports nothing.

use model::{NodeId, NodeState, Task, TaskId, TaskState, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Snapshot, Transaction};

/// Until a task that has a node is ready to start: an image that is there, a container that is made.
pub(super) const PREPARE: Duration = Duration::from_millis(500);
/// From ready to running.
pub(super) const START: Duration = Duration::from_millis(500);
/// Until a container has stopped that heeds its stop signal.
pub(super) const STOP: Duration = Duration::from_secs(1);
/// Until a task of a job has ended. Nobody knows; an order of magnitude that shows which batch comes after which.
pub(super) const JOB: Duration = Duration::from_secs(10);
/// Between two probes of a health check that says nothing of it (the engine's default).
const HEALTH_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);

/// What the agents are about to report.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// In the order in which people count, by time and then by slot.
    due: BTreeSet<Due>,
    next: BTreeMap<TaskId, (Due, TaskState)>,
    /// Nodes that are there.
    alive: BTreeSet<NodeId>,
}

/// When a task's next report comes, and the task, after its slot.
type Due = (Timestamp, u64, TaskId);

// === impl Agents ===

impl Agents {
    /// The agents of the nodes that are there, which have begun just now with whatever they do.
    pub(super) fn new(snapshot: &Snapshot, now: Timestamp) -> Agents {
        let there = snapshot.nodes().filter(|n| n.status.state == NodeState::Ready);
        let mut agents = Agents { alive: there.map(|n| n.id.clone()).collect(), ..Agents::default() };
        snapshot.tasks().for_each(|t| agents.see(t, now));
        agents
    }

    /// True when the task runs as far as anybody can know.
    pub(super) fn runs(&self, task: &Task) -> bool {
        task.is_wanted() && task.status.state == TaskState::Running && self.is_there(task)
    }

    /// True when the task's node is there.
    pub(super) fn is_there(&self, task: &Task) -> bool {
        task.node_id.as_ref().is_some_and(|n| self.alive.contains(n))
    }

    /// Takes note of a task as it is now.
    pub(super) fn see(&mut self, task: &Task, now: Timestamp) {
        let next = if self.is_there(task) { next_state(task) } else { None };
        // What it is about to do goes on, unless it is something else now.
        if self.next.get(&task.id).map(|(_, state)| *state) == next.map(|(state, _)| state) {
            return;
        }
        self.forget(&task.id);
        if let Some((state, after)) = next {
            let due = (now.plus(after), task.slot, task.id.clone());
            self.due.insert(due.clone());
            self.next.insert(task.id.clone(), (due, state));
        }
    }

    /// Takes note that a task is no more.
    pub(super) fn forget(&mut self, task: &TaskId) {
        if let Some((due, _)) = self.next.remove(task) {
            self.due.remove(&due);
        }
    }

    /// When the next report comes.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// The reports that are due.
    pub(super) fn report(&mut self, snapshot: &Snapshot, now: Timestamp) -> Transaction {
        let mut transaction = Transaction::new(now);
        while let Some((_, _, id)) = self.due.first().filter(|(at, ..)| *at <= now).cloned() {
            let state = self.next.get(&id).map(|(_, state)| *state);
            self.forget(&id);
            if let Some((task, state)) = snapshot.task(&id).zip(state) {
                transaction.update(moved(task, state, now));
            }
        }
        transaction
    }
}

fn moved(task: &Arc<Task>, state: TaskState, now: Timestamp) -> Task {
    let mut task = Task::clone(task);
    task.status.state = state;
    task.status.at = now;
    if state == TaskState::Running {
        task.status.running_at = Some(now);
    }
    task
}

/// Where the task goes next, and how long that takes.
fn next_state(task: &Task) -> Option<(TaskState, Duration)> {
    let state = task.status.state;
    if state.is_terminal() || state < TaskState::Assigned {
        return None;
    }
    if !task.is_wanted() {
        let grace = task.spec.stop_grace_period();
        let runs = state >= TaskState::Starting;
        return Some((TaskState::Shutdown, if runs { STOP.min(grace) } else { Duration::ZERO }));
    }
    if state < TaskState::Ready {
        return Some((TaskState::Ready, PREPARE));
    }
    let may_run = task.desired >= TaskState::Running;
    match state {
        TaskState::Running if task.desired == TaskState::Complete => Some((TaskState::Complete, JOB)),
        TaskState::Running => None,
        _ if may_run => Some((TaskState::Running, START + health(task))),
        _ => None,
    }
}

/// How much longer a task with a health check takes to count as running.
fn health(task: &Task) -> Duration {
    let check = task.spec.container().and_then(|c| c.healthcheck.as_ref());
    let test = check.map_or(&[][..], |h| &h.test);
    if test.is_empty() || test[0] == "NONE" {
        return Duration::ZERO;
    }
    check.and_then(|h| h.interval).filter(|i| !i.is_zero()).unwrap_or(HEALTH_INTERVAL_DEFAULT)
}
