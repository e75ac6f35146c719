//! Tasks, their states, and who may move them.

use crate::{
    GenericResource, LogDriver, Meta, NodeId, Place, PortConfig, ServiceId, ServiceName, SlotKey, TaskId, TaskSpec,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One container that should run, on one node, once. A task is never run again: its slot gets a new task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id; never used twice.
    pub id: TaskId,
    /// Version and times.
    pub meta: Meta,
    /// The service it belongs to. Never changes.
    pub service_id: ServiceId,
    /// The service's name when the task was made.
    pub service_name: ServiceName,
    /// Which of the service's replicas it is, from 1; of a job, from 0; 0 for a global task. Never changes.
    pub slot: u64,
    /// The node that a global task is for. Never changes.
    #[serde(default)]
    pub for_node: Option<NodeId>,
    /// Of a job: the run that it belongs to. Never changes.
    #[serde(default)]
    pub job_iteration: Option<u64>,
    /// What it takes from its service and its cluster besides `spec`; `None` for nothing. Never changes.
    #[serde(default)]
    pub inherited: Option<Arc<Inherited>>,
    /// What it runs. Never changes, but for the data of secrets and configs that is updated in place.
    pub spec: Arc<TaskSpec>,
    /// The service's `spec_version` it was made from. Never changes.
    pub spec_version: u64,
    /// Ports to publish on its node (host mode). Never changes.
    pub host_ports: Vec<PortConfig>,
    /// Where it runs; set once, by the scheduler.
    pub node_id: Option<NodeId>,
    /// What it was given of its node beyond CPU and memory; set with the node.
    #[serde(default)]
    pub generic: Vec<GenericResource>,
    /// The state it should reach: `Ready`, `Running` (or `Complete`, of a job), `Shutdown` or `Remove`. Only ever rises.
    pub desired: TaskState,
    /// For a replacement that waits for its restart delay: when its desired state becomes `Running`.
    pub run_after: Option<Timestamp>,
    /// Tasks of its slot that failed in a row just before it, none of which ran for long: the pause before the next one grows
    /// with them. Never changes.
    #[serde(default)]
    pub failures: u32,
    /// The state it is in.
    pub status: TaskStatus,
}

/// What a task takes from its service and its cluster besides the service's task spec, as they were when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Inherited {
    /// Where its output goes, as its spec does not say: the cluster's default.
    pub log_driver: Option<LogDriver>,
    /// The service's labels, when a template may ask for them.
    pub service_labels: BTreeMap<String, String>,
}

/// The state a task is in, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The state. Only ever rises.
    pub state: TaskState,
    /// When it was reached, by the clock of whoever moved it.
    pub at: Timestamp,
    /// What happened, for people.
    pub message: String,
    /// What went wrong; empty when nothing did.
    pub err: String,
    /// When it reached `Running`, by the clock of its node; kept when it ends, so that an update knows whether it failed
    /// while it was still watched. `None` when it never ran.
    #[serde(default)]
    pub running_at: Option<Timestamp>,
    /// Its container, once there is one.
    pub container: Option<ContainerStatus>,
    /// Ports the engine published (host mode).
    pub ports: Vec<PortStatus>,
}

/// A task's container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// The engine's id.
    pub id: String,
    /// Process id on the node; 0 when it does not run.
    pub pid: i64,
    /// Exit code, once it ended.
    pub exit_code: Option<i64>,
}

/// A port that the engine published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Protocol.
    pub protocol: crate::Protocol,
    /// Port in the container.
    pub target_port: u16,
    /// Port on the node.
    pub published_port: u16,
}

/// A task's state. The order is the life of a task, and the numbers are SwarmKit's (api/types.proto).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum TaskState {
    /// Made, not looked at.
    #[default]
    New = 0,
    /// Has what it needs but a node.
    Pending = 64,
    /// Has a node.
    Assigned = 192,
    /// The node knows.
    Accepted = 256,
    /// Image, volumes, container are being made.
    Preparing = 320,
    /// Can be started.
    Ready = 384,
    /// Is being started.
    Starting = 448,
    /// Runs (and is healthy).
    Running = 512,
    /// Ended well.
    Complete = 576,
    /// Was stopped.
    Shutdown = 640,
    /// Ended badly.
    Failed = 704,
    /// Could not be prepared.
    Rejected = 768,
    /// Only as a desired state: should be stopped and forgotten.
    Remove = 800,
    /// Its node was away too long.
    Orphaned = 832,
}

/// Who moves a task from one observed state to the next (SwarmKit design/tla/Tasks.tla).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The orchestrator makes tasks.
    Orchestrator,
    /// The allocator gives them what they need.
    Allocator,
    /// The scheduler gives them a node.
    Scheduler,
    /// The agent of that node runs them.
    Agent,
    /// The leader gives up tasks of nodes that stay away.
    Dispatcher,
}

// === impl TaskState ===

impl TaskState {
    /// All states in order.
    pub const ALL: [TaskState; 14] = [
        TaskState::New,
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Accepted,
        TaskState::Preparing,
        TaskState::Ready,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Complete,
        TaskState::Shutdown,
        TaskState::Failed,
        TaskState::Rejected,
        TaskState::Remove,
        TaskState::Orphaned,
    ];

    /// True when nothing runs any more and nothing will.
    pub fn is_terminal(self) -> bool {
        self > TaskState::Running
    }

    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::New => "new",
            TaskState::Pending => "pending",
            TaskState::Assigned => "assigned",
            TaskState::Accepted => "accepted",
            TaskState::Preparing => "preparing",
            TaskState::Ready => "ready",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Complete => "complete",
            TaskState::Shutdown => "shutdown",
            TaskState::Failed => "failed",
            TaskState::Rejected => "rejected",
            TaskState::Remove => "remove",
            TaskState::Orphaned => "orphaned",
        }
    }

    /// The state with Docker's word.
    pub fn parse(word: &str) -> Option<TaskState> {
        TaskState::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// True when `owner` may move a task's observed state from `from` (`None`: there is no task yet) to `to`.
    pub fn may_move(from: Option<TaskState>, to: TaskState, owner: Owner) -> bool {
        use TaskState::{Assigned, New, Orphaned, Pending, Remove};
        let Some(from) = from else { return owner == Owner::Orchestrator && to == New };
        if to == Remove || to < from || from.is_terminal() && to != from && to != Orphaned {
            return false;
        }
        match owner {
            Owner::Orchestrator => false,
            Owner::Allocator => from == New && to == Pending,
            Owner::Scheduler => from == Pending && to == Assigned,
            Owner::Agent => from >= Assigned && to >= Assigned && to != Orphaned,
            Owner::Dispatcher => from >= Assigned && to == Orphaned,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Task ===

impl Task {
    /// `service.slot.id`, the name Docker Swarm gives the task and its container; `service.node.id` when it has slot 0.
    pub fn name(&self) -> String {
        match self.for_node.as_ref().or(self.node_id.as_ref()).filter(|_| self.slot == 0) {
            Some(node) => format!("{}.{node}.{}", self.service_name, self.id),
            None => format!("{}.{}.{}", self.service_name, self.slot, self.id),
        }
    }

    /// The place of its service that it fills.
    pub fn slot_key(&self) -> SlotKey {
        let place = self.for_node.clone().map_or(Place::Number(self.slot), Place::Node);
        SlotKey { run: self.job_iteration, place }
    }

    /// True when the task should run (now, or after its restart delay), or run to its end.
    pub fn is_wanted(&self) -> bool {
        self.desired <= TaskState::Complete
    }

    /// True when its container runs or may come to run: it counts for the scheduler's spreading.
    pub fn is_active(&self) -> bool {
        self.is_wanted() && !self.status.state.is_terminal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_moves_a_task_backwards_or_out_of_an_end() {
        for owner in [Owner::Orchestrator, Owner::Allocator, Owner::Scheduler, Owner::Agent, Owner::Dispatcher] {
            for from in TaskState::ALL {
                for to in TaskState::ALL {
                    if TaskState::may_move(Some(from), to, owner) {
                        assert!(to >= from, "{from} -> {to}");
                        assert!(!from.is_terminal() || to == from || to == TaskState::Orphaned, "{from} -> {to}");
                        assert_ne!(to, TaskState::Remove);
                    }
                }
            }
        }
    }

    #[test]
    fn words_and_states_match() {
        assert!(TaskState::ALL.into_iter().all(|s| TaskState::parse(s.as_str()) == Some(s)));
        assert_eq!(TaskState::parse("allocated"), None);
    }
}
