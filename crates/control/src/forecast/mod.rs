//! What would come of a change: the same loops that run on the leader, run on a private copy of the state, with a model of
//! the agents and a clock that jumps from one thing to the next.
//!
//! Nothing here changes anything, and the same question has the same answer. It is a forecast: it knows the cluster and
//! what the loops do, and it takes it that tasks come to run ([`agents`] says how fast), that nodes stay as they are, and
//! that nobody changes anything else meanwhile.

mod agents;
mod describe;
mod record;
mod run;
mod what_if;
mod why;

pub use what_if::{WhatIfError, what_if};

use model::{TaskId, Timestamp};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use store::{Conflict, Snapshot, Transaction};

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Something would be different afterwards.
    pub changes: bool,
    /// Changes of objects themselves, one text each. No secret is ever in them.
    pub objects: Vec<String>,
    /// What would happen to tasks and updates, in order of time.
    pub steps: Vec<Step>,
    /// The services that it would happen to, by name.
    pub services: Vec<ServiceForecast>,
    /// Tasks that would find no node, and have one (or do not exist) without the change.
    pub unplaced: Vec<Unplaced>,
    /// What would run where in the end.
    pub landing: Vec<Landing>,
    /// How it ends.
    pub ends: Ends,
    /// What limits the forecast and what else is worth knowing, a sentence each.
    pub notes: Vec<String>,
}

/// One thing that would happen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// When, after the change.
    pub at: Duration,
    /// What.
    pub action: Action,
    /// The service's name.
    pub service: String,
    /// Which of the replicas; 0 for a task of a global service, and for what concerns the service as a whole.
    pub slot: u64,
    /// The task, when it exists already.
    pub task: Option<TaskId>,
    /// The host name of the node that it leaves.
    pub from_node: Option<String>,
    /// The host name of the node that it comes to.
    pub to_node: Option<String>,
    /// Why.
    pub why: String,
}

/// What happens to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// A new one is made where there was none.
    Create,
    /// It comes to run.
    Start,
    /// Another takes its place: it ended, or is not what the service says any more.
    Restart,
    /// Another takes its place on another node, because it cannot (or should not) stay where it is.
    Move,
    /// It is stopped, and nothing takes its place at that moment.
    Stop,
    /// It is stopped and forgotten: its slot, or its service, is gone.
    Remove,
    /// The service's update begins, ends, or is stopped.
    UpdateStatus,
}

/// What a change would mean to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceForecast {
    /// The service's name.
    pub service: String,
    /// Tasks that should run now; of a job, completions.
    pub wanted_before: u64,
    /// Tasks that should run afterwards; of a job, completions.
    pub wanted_after: u64,
    /// The fewest that would run at any time.
    pub least_running: u64,
    /// For how long fewer would run than are wanted both before and afterwards. Always zero for a job.
    pub dip: Duration,
}

/// A task that would find no node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unplaced {
    /// The service's name.
    pub service: String,
    /// Which of the replicas.
    pub slot: u64,
    /// Why no node can have it.
    pub reason: String,
}

/// What would run on a node in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    /// The node.
    pub node: model::NodeId,
    /// Its host name.
    pub hostname: String,
    /// How many tasks of each service, by the service's name.
    pub tasks: BTreeMap<String, u64>,
}

/// How a forecast ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Everything is as it is wanted.
    Settled,
    /// Nothing moves any more, but something is still waited for: room for a task, or somebody who looks after an update
    /// that is paused.
    Waiting,
    /// Things still moved when the time was over that the forecast looks ahead.
    NotWithin(Duration),
    /// So many tasks changed that the forecast was given up.
    TooLarge(usize),
    /// The loops had to look at so many tasks that the forecast was given up.
    TooMuchWork(usize),
}

/// How far a forecast goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How far it looks ahead.
    pub horizon: Duration,
    /// Changes of tasks after which it is given up: it runs beside the real loops, and must not starve them.
    pub task_changes_max: usize,
    /// Tasks that the loops look at, again and again, after which it is given up: a large service that is updated a task at a
    /// time changes little and takes long.
    pub looks_max: usize,
    /// Steps that are listed.
    pub steps_max: usize,
    /// Show where the tasks of all services are in the end, not only those of the services that something happens to.
    pub land_all: bool,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Options {
            horizon: Duration::from_secs(3600),
            task_changes_max: 200_000,
            looks_max: 20_000_000, // some seconds
            steps_max: 10_000,
            land_all: false,
        }
    }
}

// === impl Ends ===

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ends::Settled => f.write_str("settled"),
            Ends::Waiting => f.write_str("waiting"),
            Ends::NotWithin(time) => write!(f, "failed to settle within {time:?}"),
            Ends::TooLarge(changes) => write!(f, "failed to settle within {changes} changes of tasks"),
            Ends::TooMuchWork(looks) => write!(f, "failed to settle within {looks} looks at tasks"),
        }
    }
}

// === impl Action ===

impl Action {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Start => "start",
            Action::Restart => "restart",
            Action::Move => "move",
            Action::Stop => "stop",
            Action::Remove => "remove",
            Action::UpdateStatus => "update-status",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === the forecast ===

/// What would happen if these transactions were committed now, one after the other. What would happen anyway (an update
/// that is under way, say) is left out of the steps, and a note says so.
///
/// It is as much work as the loops have with the change, and a look at every task: not to be called on a thread that
/// serves others.
///
/// # Errors
/// A transaction cannot be committed to this state.
pub fn forecast(
    snapshot: &Snapshot,
    changes: &[Transaction],
    now: Timestamp,
    options: &Options,
) -> Result<Forecast, Conflict> {
    let anyway = run::run(snapshot, &[], now, options)?;
    let course = run::run(snapshot, changes, now, options)?;
    Ok(record::compare(snapshot, changes, &anyway, course, options))
}
