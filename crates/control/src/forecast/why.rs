//! Why a step happens, from the task that it concerns, the one before it, and the state.

use super::{Action, describe};
use crate::rebalance;
use model::{Availability, Mode, NodeId, NodeState, Service, Task, TaskState, UpdateState};
use std::collections::BTreeMap;
use store::Snapshot;

type Names = BTreeMap<NodeId, String>;

/// What giving a node to a task is called, and why it happens. `follows` is the task before it in its slot.
pub(super) fn placed(
    base: &Snapshot,
    after: &Snapshot,
    follows: Option<&Task>,
    task: &Task,
    names: &Names,
) -> (Action, String) {
    let service = after.service(&task.service_id);
    let before = follows.filter(|f| f.desired != TaskState::Remove && f.job_iteration == task.job_iteration);
    let Some(before) = before else { return (Action::Create, created(base, service.map(AsRef::as_ref), task)) };
    if let Some(why) = left_node(after, before, names) {
        return (Action::Move, why);
    }
    if let Some(why) = ended(before) {
        return (Action::Restart, why);
    }
    let moves = before.node_id != task.node_id;
    match service {
        Some(s) if is_outdated(s, before) => (Action::Restart, updated(s, before)),
        Some(s) if rebalance::is_asked(&s.progress) && moves => (Action::Move, SPREAD.into()),
        _ if moves => (Action::Move, unsuited(before, names)),
        _ => (Action::Restart, "it is replaced".into()),
    }
}

/// Why a task is stopped that nothing takes the place of at that moment.
pub(super) fn stopped(after: &Snapshot, task: &Task, names: &Names) -> String {
    let service = after.service(&task.service_id);
    left_node(after, task, names).unwrap_or_else(|| match service {
        None => SERVICE_GONE.into(),
        Some(s) if is_outdated(s, task) => updated(s, task),
        Some(s) if rebalance::is_asked(&s.progress) => SPREAD.into(),
        Some(_) => unsuited(task, names),
    })
}

/// Why a task is stopped and forgotten.
pub(super) fn removed(base: &Snapshot, after: &Snapshot, task: &Task, names: &Names) -> String {
    let Some(service) = after.service(&task.service_id) else { return SERVICE_GONE.into() };
    if let Some(scaled) = scaled(base, service) {
        return scaled;
    }
    let run = service.progress.job.map(|j| j.iteration);
    if task.job_iteration.is_some() && task.job_iteration != run {
        return "it belongs to an earlier run of the job".into();
    }
    left_node(after, task, names).unwrap_or_else(|| unsuited(task, names))
}

const SERVICE_GONE: &str = "the service is removed";
const SPREAD: &str = "the tasks are spread anew";

fn created(base: &Snapshot, service: Option<&Service>, task: &Task) -> String {
    let Some(service) = service else { return String::new() };
    if let Some(run) = task.job_iteration {
        return format!("run {} of the job", run.saturating_add(1));
    }
    if base.service(&service.id).is_none() {
        return "the service is new".into();
    }
    scaled(base, service).unwrap_or_else(|| match service.spec.mode {
        Mode::Global | Mode::GlobalJob => "the node may have it now".into(),
        Mode::Replicated { .. } | Mode::ReplicatedJob { .. } => "it is missing".into(),
    })
}

fn scaled(base: &Snapshot, service: &Service) -> Option<String> {
    let before = base.service(&service.id)?.spec.replicas()?;
    let now = service.spec.replicas()?;
    (before != now).then(|| format!("replicas {before} -> {now}"))
}

fn left_node(after: &Snapshot, task: &Task, names: &Names) -> Option<String> {
    let id = task.node_id.as_ref()?;
    let name = names.get(id).map_or(id.as_str(), String::as_str);
    let Some(node) = after.node(id) else { return Some(format!("node {name} is gone")) };
    match (node.status.state, node.spec.availability) {
        (NodeState::Down | NodeState::Disconnected, _) => Some(format!("node {name} is down")),
        (_, Availability::Drain) => Some(format!("node {name} is drained")),
        _ => None,
    }
}

fn ended(task: &Task) -> Option<String> {
    let how = match task.status.state {
        TaskState::Failed => "failed",
        TaskState::Rejected => "was rejected",
        TaskState::Complete => "ended",
        _ => return None,
    };
    let err = if task.status.err.is_empty() { String::new() } else { format!(": {}", task.status.err) };
    Some(format!("the one before it {how}{err}"))
}

/// The task is not what the service says; how little matters to a task, the loops decide.
fn is_outdated(service: &Service, task: &Task) -> bool {
    task.spec_version != service.spec_version
        && (task.spec != service.spec.task || task.host_ports != service.host_ports())
}

fn updated(service: &Service, old: &Task) -> String {
    let back = service.current_update().is_some_and(|u| u.state == UpdateState::RollbackStarted);
    let mut what = describe::task(&old.spec, &service.spec.task);
    if old.host_ports != service.host_ports() {
        what.push("published ports".into());
    }
    let what = if what.is_empty() { String::new() } else { format!(": {}", what.join(", ")) };
    format!("{}{what}", if back { "rollback" } else { "update" })
}

fn unsuited(task: &Task, names: &Names) -> String {
    let name = task.node_id.as_ref().and_then(|id| names.get(id));
    name.map_or_else(String::new, |name| format!("node {name} does not suit it any more"))
}
