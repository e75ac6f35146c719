//! L4, L5, L9 and S30: what is true once the cluster has come to rest.

use crate::Violation;
use crate::placement::unsuited_tasks;
use model::{
    Availability, Mode, Node, NodeState, Place, RestartCondition, Service, ServiceId, SlotKey, Task, TaskState,
    UpdateState, limits,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use store::Snapshot;

/// Something that is not as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unsettled {
    /// Of which service.
    pub service: ServiceId,
    /// In which slot; `None`: of the whole service.
    pub slot: Option<SlotKey>,
    /// What is not as wanted.
    pub what: String,
    /// The user can see why it cannot be otherwise (L9): the task has found no node, and says so.
    pub explained: bool,
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = if self.slot.is_some() { "L4" } else { "L5" };
        write!(f, "{number}: service {}", self.service)?;
        self.slot.iter().try_for_each(|s| write!(f, ", {s}"))?;
        write!(f, ": {}", self.what)
    }
}

/// L4: every service has as many running, up-to-date tasks as it wants, and nothing else, and no run of a job goes on; L5:
/// nothing is left of services that are gone. S18: nothing is wanted on a node that is not what it needs. Slots that have ended for good by their restart policy count as settled, and so does what a paused
/// update left. Tasks on nodes that are down are not counted.
pub fn settled(snapshot: &Snapshot) -> Result<(), Vec<Unsettled>> {
    let mut unsettled = Vec::new();
    for service in snapshot.services() {
        check_service(snapshot, service, &mut unsettled);
    }
    for gone in snapshot.services_with_tasks().filter(|s| snapshot.service(s).is_none()) {
        unsettled.push(Unsettled {
            service: gone.clone(),
            slot: None,
            what: "it is gone and has tasks".into(),
            explained: false,
        });
    }
    for (task, node, what) in unsuited_tasks(snapshot) {
        unsettled.push(Unsettled {
            service: task.service_id.clone(),
            slot: Some(task.slot_key()),
            what: format!("task {} is wanted on node {}, {what}", task.id, node.id),
            explained: false,
        });
    }
    if unsettled.is_empty() { Ok(()) } else { Err(unsettled) }
}

fn check_service(snapshot: &Snapshot, service: &Service, out: &mut Vec<Unsettled>) {
    let before = out.len();
    check_slots(snapshot, service, out);
    let of_service = &mut out[before..];
    // An update waits for a new task that waits for a node; everything else about it follows from that.
    let updating = service.current_update().is_some_and(|u| u.state.is_in_progress());
    if updating && of_service.iter().any(|u| u.explained) {
        let follows = |u: &&mut Unsettled| u.what.ends_with("is outdated") || u.what == UPDATE_GOES_ON;
        of_service.iter_mut().filter(follows).for_each(|u| u.explained = true);
    }
    // So does a job that runs no more at once than those that wait.
    if service.spec.mode.is_job() && of_service.iter().any(|u| u.explained) {
        of_service.iter_mut().filter(|u| u.slot.is_none()).for_each(|u| u.explained = true);
    }
}

const UPDATE_GOES_ON: &str = "its update goes on";

fn check_slots(snapshot: &Snapshot, service: &Service, out: &mut Vec<Unsettled>) {
    let mut slots: BTreeMap<SlotKey, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in snapshot.tasks_of_service(&service.id) {
        slots.entry(task.slot_key()).or_default().push(task);
    }
    let update = service.current_update().map(|u| u.state);
    let paused = matches!(update, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    let mut filled = Vec::new();
    for (slot, tasks) in &slots {
        let mut say = |what: String, explained| {
            out.push(Unsettled { service: service.id.clone(), slot: Some(slot.clone()), what, explained });
        };
        let stopping = tasks.iter().find(|t| !t.is_wanted() && runs_somewhere(snapshot, t));
        if let Some(task) = stopping {
            say(format!("task {} is {} and should stop", task.id, task.status.state), false);
        }
        let wanted: Vec<_> = tasks.iter().filter(|t| t.is_wanted()).collect();
        match wanted[..] {
            [] if tasks.iter().all(|t| t.desired == TaskState::Remove) => continue,
            // Of a run before the present one only history is left.
            [] if slot.run.is_some_and(|run| service.progress.job.is_some_and(|j| run < j.iteration)) => {}
            // A job's task may have ended well though it had been told to stop.
            [] if slot.run.is_some() && tasks.iter().any(|t| t.status.state == TaskState::Complete) => {}
            [] if may_end(tasks) || !takes_tasks(snapshot, service, slot) => {}
            [] => say("no task is wanted".into(), false),
            [task] if slot.run.is_some() => {
                if task.status.state != TaskState::Complete {
                    say(
                        format!("task {} is {}, of a job ({})", task.id, task.status.state, task.status.err),
                        is_explained(task),
                    );
                }
            }
            [task] => {
                let paused = paused || !takes_tasks(snapshot, service, slot);
                if let Some(what) = not_as_wanted(snapshot, service, task, paused) {
                    say(what, is_explained(task));
                }
            }
            // A start-first update goes no further when there is no room for two.
            _ => say(format!("{} tasks are wanted", wanted.len()), wanted.iter().any(|t| is_explained(t))),
        }
        filled.push(slot);
    }
    let what = match (missing(snapshot, service, &filled), update) {
        (Some(missing), _) => missing,
        (None, Some(u)) if u.is_in_progress() => UPDATE_GOES_ON.into(),
        _ => return,
    };
    out.push(Unsettled { service: service.id.clone(), slot: None, what, explained: false });
}

/// What the service's slots lack, or have too much of.
fn missing(snapshot: &Snapshot, service: &Service, filled: &[&SlotKey]) -> Option<String> {
    // Of a job with a schedule, no run but one that began lacks anything.
    let run = match (&service.spec.cron, service.spec.mode.is_job()) {
        (_, false) => None,
        (None, true) => Some(service.progress.job.map_or(0, |j| j.iteration)),
        (Some(_), true) => Some(service.progress.cron.as_ref().and_then(|c| c.started)?),
    };
    let of_run = filled.iter().filter(|s| s.run == run);
    match service.spec.mode {
        Mode::Replicated { .. } | Mode::ReplicatedJob { .. } => {
            let wanted = match service.spec.mode {
                Mode::Replicated { replicas } => replicas,
                _ => service.completions_of(run.unwrap_or_default()),
            };
            let filled = of_run.count() as u64;
            (filled != wanted).then(|| format!("{filled} slots are filled of {wanted}"))
        }
        // Later nodes wait for the next time.
        Mode::GlobalJob if service.spec.cron.is_some() => None,
        Mode::Global | Mode::GlobalJob => {
            let mut open = snapshot.nodes().filter(|n| is_open(service, n));
            let lacks = open.find(|n| !filled.iter().any(|s| s.run == run && s.place == Place::Node(n.id.clone())));
            lacks.map(|n| format!("node {} has no task", n.id))
        }
    }
}

/// Another task may come to the slot: it is not that of a node which gets none.
fn takes_tasks(snapshot: &Snapshot, service: &Service, slot: &SlotKey) -> bool {
    slot.node().is_none_or(|id| snapshot.node(id).is_some_and(|n| is_open(service, n)))
}

/// The node is to run a task of the global service.
fn is_open(service: &Service, node: &Node) -> bool {
    let ready = node.status.state == NodeState::Ready && node.spec.availability == Availability::Active;
    ready && service.spec.task.is_allowed_on(node)
}

/// It waits for a node, and says why it finds none.
fn is_explained(task: &Task) -> bool {
    task.node_id.is_none() && !task.status.err.is_empty()
}

fn not_as_wanted(snapshot: &Snapshot, service: &Service, task: &Task, paused: bool) -> Option<String> {
    let mut spec = task.spec.as_ref().clone();
    let wanted = &service.spec.task;
    spec.set_registry_auth(wanted.registry_auth().cloned()); // no reason to replace what runs
    let node = task.node_id.as_ref().and_then(|n| snapshot.node(n));
    if node.is_some_and(|n| wanted.is_allowed_on(n)) {
        spec.placement.clone_from(&wanted.placement); // nor is placement, where it is well placed
    }
    let current = spec == **wanted && task.host_ports == service.host_ports();
    let (state, desired) = (task.status.state, task.desired);
    if (state, desired) != (TaskState::Running, TaskState::Running) {
        Some(format!("task {} is {state}, and wanted {desired} ({})", task.id, task.status.err))
    } else if !current && !paused {
        Some(format!("task {} is outdated", task.id))
    } else {
        None
    }
}

fn runs_somewhere(snapshot: &Snapshot, task: &Task) -> bool {
    let node = task.node_id.as_ref().and_then(|n| snapshot.node(n));
    let up = node.is_some_and(|n| !matches!(n.status.state, NodeState::Down | NodeState::Disconnected));
    up && !task.status.state.is_terminal()
}

/// The restart policy of some task of the slot allows that none follows.
fn may_end(tasks: &[&Arc<Task>]) -> bool {
    tasks.iter().any(|t| {
        let policy = t.spec.restart_policy();
        let done = t.status.state == TaskState::Complete;
        match policy.condition() {
            RestartCondition::None => true,
            RestartCondition::OnFailure => done || policy.max_attempts.unwrap_or(0) > 0,
            RestartCondition::Any => policy.max_attempts.unwrap_or(0) > 0,
        }
    })
}

/// S30: no slot keeps more dead tasks than the cluster's history limit, or what its restart policy needs to count. Holds
/// once the reaper had its turn, not at every commit.
pub fn check_history(snapshot: &Snapshot) -> Vec<Violation> {
    let limit = snapshot.cluster().map_or(limits::TASK_HISTORY_DEFAULT, |c| c.spec.task_history_retention_limit);
    let Ok(limit) = u64::try_from(limit) else { return Vec::new() };
    let mut violations = Vec::new();
    for service in snapshot.services() {
        let attempts = service.spec.task.restart_policy().max_attempts.unwrap_or(0);
        let keep = limit.max(if attempts == 0 { 0 } else { attempts.saturating_add(1) }).max(1);
        let mut dead: BTreeMap<SlotKey, u64> = BTreeMap::new();
        for task in snapshot.tasks_of_service(&service.id) {
            *dead.entry(task.slot_key()).or_default() +=
                u64::from(!task.is_wanted() && task.status.state.is_terminal());
        }
        for (slot, dead) in dead.into_iter().filter(|(_, d)| *d > keep) {
            let what = format!("{slot} of service {} keeps {dead} dead tasks, of {keep} allowed", service.id);
            violations.push(Violation::new("S30", what));
        }
    }
    violations
}
