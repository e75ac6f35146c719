//! How many tasks a service has, and how its runs go when it is a job.

use crate::{CronState, NodeId, ServiceSpec, TaskId, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How many tasks a service has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// So many, wherever they fit.
    Replicated {
        /// How many.
        replicas: u64,
    },
    /// One on each node that may run it.
    Global,
    /// So many that have to end well, a few at a time.
    ReplicatedJob {
        /// At most so many at once; 0 means as many as are needed.
        max_concurrent: u64,
        /// So many have to end well.
        total_completions: u64,
    },
    /// One on each node that may run it, until it has ended well there.
    GlobalJob,
}

/// Names a place of a service that one task at a time fills.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotKey {
    /// Of a job: the run.
    pub run: Option<u64>,
    /// Which of the service, or of the run.
    pub place: Place,
}

/// A place among those of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A number: of a replicated service.
    Number(u64),
    /// A node: of a global service.
    Node(NodeId),
}

/// What has become of a service, apart from its tasks: written by whoever changes the service and by the control loops, never
/// by a user directly.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Of a job: its present run.
    pub job: Option<JobRun>,
    /// Of a job with a schedule: how far the schedule was followed.
    pub cron: Option<CronState>,
    /// A user or a policy asked for the tasks to be spread anew.
    pub rebalance: Option<Rebalance>,
    /// Nodes that came to take tasks until then are no reason any more to spread the tasks anew.
    pub joins_considered: Timestamp,
}

/// A run of a job. Every update of the service starts another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobRun {
    /// Which run it is: 0 for the first.
    pub iteration: u64,
    /// When it was asked for.
    pub last_execution: Timestamp,
}

/// A wish that a service's tasks be spread anew, until they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rebalance {
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// The node that joined and is why; `None` when a user asked.
    pub because_of: Option<NodeId>,
    /// The move that is under way, or still watched.
    pub moving: Option<Move>,
    /// The task of a move that failed: no more are made until somebody asks again.
    pub given_up: Option<TaskId>,
}

/// A task that is moved to another node: started there before it is stopped here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The new task.
    pub task: TaskId,
    /// The node that the slot's old task leaves.
    pub from: NodeId,
}

// === impl Progress ===

impl Progress {
    /// True while a task is being moved to another node, or watched there.
    pub fn is_moving(&self) -> bool {
        self.rebalance.as_ref().is_some_and(|r| r.moving.is_some())
    }
}

// === impl SlotKey ===

impl SlotKey {
    /// The node whose place it is; `None` for a number.
    pub fn node(&self) -> Option<&NodeId> {
        match &self.place {
            Place::Node(id) => Some(id),
            Place::Number(_) => None,
        }
    }
}

impl fmt::Display for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Number(n) => write!(f, "slot {n}")?,
            Place::Node(id) => write!(f, "node {id}")?,
        }
        self.run.iter().try_for_each(|run| write!(f, " of run {run}"))
    }
}

// === impl Mode ===

impl Mode {
    /// Docker's word for it, as in the filter `mode`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Mode::Replicated { .. } => "replicated",
            Mode::Global => "global",
            Mode::ReplicatedJob { .. } => "replicated-job",
            Mode::GlobalJob => "global-job",
        }
    }

    /// Of a replicated job: how many of its tasks have to end well; 0 of anything else.
    pub fn completions(&self) -> u64 {
        match self {
            Mode::ReplicatedJob { total_completions, .. } => *total_completions,
            Mode::Replicated { .. } | Mode::Global | Mode::GlobalJob => 0,
        }
    }

    /// Its tasks are to end.
    pub fn is_job(&self) -> bool {
        matches!(self, Mode::ReplicatedJob { .. } | Mode::GlobalJob)
    }

    /// Its tasks belong to nodes, not to numbers.
    pub fn is_global(&self) -> bool {
        matches!(self, Mode::Global | Mode::GlobalJob)
    }

    /// True when the two differ in numbers at most: a service keeps its mode.
    pub fn is_same_kind(&self, other: &Mode) -> bool {
        self.as_str() == other.as_str()
    }
}

impl ServiceSpec {
    /// How many tasks are wanted of a replicated service; `None` for other modes.
    pub fn replicas(&self) -> Option<u64> {
        match self.mode {
            Mode::Replicated { replicas } => Some(replicas),
            Mode::Global | Mode::ReplicatedJob { .. } | Mode::GlobalJob => None,
        }
    }
}
