//! Task statuses: what a manager takes from an agent, and what the leader makes of it. No I/O.

use model::{NodeId, Owner, Task, TaskId, TaskState, TaskStatus, Timestamp, limits};
use rpc::proto::cluster::TaskStatusReport;
use rpc::proto::dispatcher::TaskStatusUpdate;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Snapshot, Transaction};

/// One status, from the agent of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) node: NodeId,
    pub(crate) task: TaskId,
    pub(crate) status: TaskStatus,
}

/// A status that an agent must not send.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("not a task id: {0}")]
    Id(String),
    #[error("cannot read the status of task {task}: {reason}")]
    Unreadable { task: TaskId, reason: String },
    #[error("an agent cannot move task {task} to the state \"{state}\"")]
    State { task: TaskId, state: TaskState },
    #[error("task {task} is not assigned to node {node}")]
    Foreign { task: TaskId, node: NodeId },
}

// === impl Reported ===

impl Reported {
    /// Reads what an agent sent. A task that this manager does not know (yet) is the leader's to judge.
    pub(crate) fn from_agent(update: &TaskStatusUpdate, node: &NodeId, local: &Snapshot) -> Result<Reported, Refused> {
        let task: TaskId =
            update.task_id.parse().map_err(|_| Refused::Id(update.task_id.chars().take(64).collect()))?;
        let mut status = decode(&update.status, &task)?;
        if !TaskState::may_move(Some(TaskState::Assigned), status.state, Owner::Agent) {
            return Err(Refused::State { task, state: status.state });
        }
        if local.task(&task).is_some_and(|t| t.node_id.as_ref() != Some(node)) {
            return Err(Refused::Foreign { task, node: node.clone() });
        }
        tidy(&mut status.message);
        tidy(&mut status.err);
        status.container = status.container.filter(|c| is_engine_id(&c.id));
        Ok(Reported { node: node.clone(), task, status })
    }

    /// Reads what a manager sent on.
    pub(crate) fn from_manager(report: &TaskStatusReport) -> Option<Reported> {
        let task: TaskId = report.task_id.parse().ok()?;
        let status = decode(&report.status, &task).ok()?;
        Some(Reported { node: report.node_id.parse().ok()?, task, status })
    }

    /// The form that a manager sends on.
    pub(crate) fn to_report(&self) -> TaskStatusReport {
        TaskStatusReport {
            node_id: self.node.to_string(),
            task_id: self.task.to_string(),
            status: rmp_serde::to_vec_named(&self.status).expect("a status is plain data, which always encodes"),
        }
    }
}

fn decode(bytes: &[u8], task: &TaskId) -> Result<TaskStatus, Refused> {
    model::persisted::decode(bytes).map_err(|e| Refused::Unreadable { task: task.clone(), reason: e.to_string() })
}

/// Whether an engine can call a container so. Users' clients pass these ids on to the engine of the manager that they talk to,
/// which takes a name as well: no node may name a container of another's there.
fn is_engine_id(id: &str) -> bool {
    id.len() <= limits::CONTAINER_ID_BYTES_MAX && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// An engine's novel does not travel the log, and what a terminal takes for a command (to write into the clipboard, say) does not
/// reach the operator's.
fn tidy(text: &mut String) {
    text.retain(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    if text.len() > limits::STATUS_TEXT_BYTES_MAX {
        let mut end = limits::STATUS_TEXT_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

/// The transaction that writes statuses, and how many were refused (unknown task, not the node's own). Each is put onto the
/// task as it is now, so that a desired state that changed meanwhile stays; one that would move a task backwards is
/// dropped, as an agent whose first answer was lost sends it again.
pub(crate) fn write(snapshot: &Snapshot, reports: &[Reported], at: Timestamp) -> (Transaction, u32) {
    let mut tasks: BTreeMap<&TaskId, Task> = BTreeMap::new();
    let mut refused = 0;
    for report in reports {
        let current = tasks.get(&report.task).or_else(|| snapshot.task(&report.task).map(Arc::as_ref));
        let Some(current) = current.filter(|t| t.node_id.as_ref() == Some(&report.node)) else {
            refused += 1;
            continue;
        };
        let moves = TaskState::may_move(Some(current.status.state), report.status.state, Owner::Agent);
        let status = with_reason(current, &report.status);
        if moves && current.status != status {
            let next = Task { status, ..current.clone() };
            tasks.insert(&report.task, next);
        }
    }
    let mut transaction = Transaction::new(at);
    for task in tasks.into_values() {
        transaction.update(task);
    }
    (transaction, refused)
}

/// The status as the agent reports it. Why the leader told a task to stop (its node no longer meets its constraints, say) stays
/// with it, when the agent has nothing to add.
fn with_reason(current: &Task, reported: &TaskStatus) -> TaskStatus {
    let mut status = reported.clone();
    if current.desired > TaskState::Complete && status.err.is_empty() {
        status.err.clone_from(&current.status.err);
    }
    status
}
