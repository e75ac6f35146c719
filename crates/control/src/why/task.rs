//! Why one task is not where it should be.

use super::words::{by_reason, ordinal, span};
use super::{Asking, Rejection};
use crate::eligible::{Standing, standing};
use crate::enforce::NO_LONGER_MEETS;
use crate::restart::{may_follow, pause};
use crate::scheduler::{Held, Request};
use crate::service::is_away;
use crate::slot::{Item, Slot};
use model::{NodeId, NodeState, RestartCondition, Runtime, Task, TaskState, Timestamp, UpdateState, limits};
use std::sync::Arc;

/// Nodes that are named for each reason, at most.
const NODES_NAMED_MAX: usize = 3;

/// Of a task that looks for a node: those that cannot have it.
pub(super) fn rejections(asking: &mut Asking<'_>, slot: &Slot, task: &Task) -> Vec<Rejection> {
    if task.node_id.is_some() || !task.is_wanted() {
        return Vec::new();
    }
    // As the loops place it: it may have what those before it hold, unless it runs beside one.
    let alone = !slot.present().any(|i| i.is_wanted() && i.task.node_id.is_some());
    let old = Held::by(slot.present().filter(|i| alone && !i.is_wanted()).map(|i| i.task.as_ref()));
    let request = Request::new(&task.spec, &task.host_ports);
    asking.view.rejections(&request, &asking.spread, task.for_node.as_ref(), &old)
}

/// Why, in one sentence.
pub(super) fn line(asking: &Asking<'_>, slot: &Slot, task: &Task, rejected: &[Rejection]) -> String {
    if !asking.is_amiss(task) && task.is_wanted() {
        return as_it_should(asking, task);
    }
    if task.is_wanted() {
        return wanted(asking, slot, task, rejected);
    }
    if task.holds_its_node() {
        return stopping(asking, task);
    }
    let replaced = slot.newest().filter(|n| n.is_wanted() && n.task.id != task.id);
    match replaced {
        Some(newer) => format!("{}; {} has taken its place", ended(task), asking.names.exactly(&newer.task)),
        None => format!("{}; {}", ended(task), not_followed(slot, task)),
    }
}

fn as_it_should(asking: &Asking<'_>, task: &Task) -> String {
    let node = task.node_id.as_ref().map(|id| asking.names.node(id)).unwrap_or_default();
    match task.status.state {
        TaskState::Complete => format!("is done: it ended well on node {node}"),
        _ => format!("runs on node {node}, as it should"),
    }
}

fn wanted(asking: &Asking<'_>, slot: &Slot, task: &Task, rejected: &[Rejection]) -> String {
    let state = task.status.state;
    let Some(node) = &task.node_id else { return without_node(asking, task, rejected) };
    let name = asking.names.node(node);
    if state.is_terminal() {
        return format!("{}; it is about to be replaced", ended(task));
    }
    if is_away(asking.snapshot.node(node)) {
        return format!("node {name} is gone or down; another task is about to take its place");
    }
    if task.desired < TaskState::Running {
        let prepared = if state < TaskState::Ready { format!(" (meanwhile {state} on {name})") } else { String::new() };
        return format!("{}{prepared}", waits_to_start(asking, slot, task));
    }
    if state == TaskState::Running {
        return outdated(asking, task, &name);
    }
    format!("{}{}{}", on_its_way(asking, task, &name), takes_over(asking, slot, task), said(task))
}

fn without_node(asking: &Asking<'_>, task: &Task, rejected: &[Rejection]) -> String {
    let reason = |r: &Rejection| (asking.names.node(&r.node), r.reason.clone());
    match (&task.for_node, rejected.len()) {
        (Some(_), 0) => "the node fits; it is about to get it".into(),
        (Some(node), _) => format!("waits for node {}: {}", asking.names.node(node), rejected[0].reason),
        (None, 0) if asking.snapshot.nodes().len() == 0 => "there is no node".into(),
        (None, n) if n < asking.snapshot.nodes().len() => "a node fits; it is about to get one".into(),
        (None, _) => format!("no node fits: {}", by_reason(rejected.iter().map(reason).collect(), NODES_NAMED_MAX)),
    }
}

/// It is ready, or will be, and must not run yet.
fn waits_to_start(asking: &Asking<'_>, slot: &Slot, task: &Task) -> String {
    let before: Vec<&Item> = slot.present().filter(|i| i.task.id != task.id && !i.is_wanted()).collect();
    let pause = pause(asking.service, task.failures);
    // As the loops have it: a clock that went back by more than the pause counts as passed.
    if let Some(at) = task.run_after.filter(|at| *at > asking.now && at.since(asking.now) <= pause) {
        let last = before.iter().rev().find(|i| i.ended_by_itself());
        let why = last.map_or_else(String::new, |i| format!(": {}", after(&i.task, task.failures)));
        return format!("restarts in {}{why}", span(at.since(asking.now)));
    }
    let stops = before.iter().rev().find(|i| {
        let node = i.task.node_id.as_ref().map(|id| asking.snapshot.node(id));
        i.task.holds_its_node() && node.is_some_and(|n| !is_away(n))
    });
    match stops {
        Some(old) => {
            let patience = left(asking, task.meta.created_at, limits::OLD_TASK_TIMEOUT);
            format!("waits for {} to stop, {} more at most", on_node(asking, &old.task), span(patience))
        }
        None => "is about to start".into(),
    }
}

/// What the one before came to: `3rd failure in a row, last error: …`.
fn after(before: &Task, failures: u32) -> String {
    let error = match before.status.err.as_str() {
        "" => format!("the last one {}", ended(before)),
        err => format!("last error: {err}"),
    };
    if failures > 1 { format!("{} failure in a row, {error}", ordinal(failures)) } else { error }
}

fn on_its_way(asking: &Asking<'_>, task: &Task, node: &str) -> String {
    let since = span(asking.now.since(task.status.at));
    let unheard = task.node_id.as_ref().and_then(|id| asking.snapshot.node(id));
    if unheard.is_some_and(|n| n.status.state == NodeState::Unknown) {
        return format!("node {node} has not been heard of since a manager took over ({} there)", task.status.state);
    }
    match task.status.state {
        TaskState::Assigned => format!("waits for node {node} to take it, since {since}"),
        TaskState::Accepted => format!("node {node} has taken it and not begun, since {since}"),
        TaskState::Preparing => {
            let what = match &task.spec.runtime {
                Runtime::Container(container) => format!("pulls {} or makes the container", container.image),
                Runtime::Plugin(plugin) => format!("installs the plugin {}", plugin.remote),
            };
            format!("node {node} prepares it, since {since}: it {what}")
        }
        TaskState::Ready => format!("is ready on node {node}, and not started, since {since}"),
        TaskState::Starting if task.spec.container().is_some_and(|c| c.healthcheck.is_some()) => {
            format!("starts on node {node}, since {since}; it counts as running once it is healthy")
        }
        state => format!("is {state} on node {node}, since {since}"),
    }
}

/// In a start-first update: the task that goes on until this one runs.
fn takes_over(asking: &Asking<'_>, slot: &Slot, task: &Task) -> String {
    let old = slot.present().find(|i| i.is_wanted() && i.task.id != task.id);
    old.map_or_else(String::new, |i| format!("; {} goes on until then", on_node(asking, &i.task)))
}

fn said(task: &Task) -> String {
    if task.status.err.is_empty() { String::new() } else { format!(" ({})", task.status.err) }
}

/// It runs, but is not what the service says.
fn outdated(asking: &Asking<'_>, task: &Task, node: &str) -> String {
    let is_kept = |id: &NodeId| standing(asking.snapshot, id, &asking.service.spec.task) == Standing::Kept;
    let waits = match asking.service.current_update().map(|u| u.state) {
        Some(UpdateState::Paused | UpdateState::RollbackPaused) => "the update is paused",
        _ if task.for_node.as_ref().is_some_and(is_kept) => {
            "the node takes no other while it is paused, or not heard of"
        }
        Some(UpdateState::Completed | UpdateState::RollbackCompleted) => {
            "what was to replace it failed, and is tried again from time to time"
        }
        _ => "waits for its turn in the update",
    };
    format!("runs on node {node} as the service was before; {waits}")
}

fn stopping(asking: &Asking<'_>, task: &Task) -> String {
    let Some(node) = &task.node_id else { return "is about to go".into() };
    let name = asking.names.node(node);
    match asking.snapshot.node(node) {
        None => format!("node {name} was removed; the task is about to be given up"),
        Some(n) if is_away(Some(n)) => {
            let left = left(asking, n.meta.updated_at, limits::NODE_ORPHAN_PERIOD);
            format!(
                "node {name} is down; what became of the task is known once it is back, and it is given up in {}",
                span(left)
            )
        }
        Some(_) if task.status.err == NO_LONGER_MEETS => {
            format!("leaves node {name}, which no longer meets its constraints")
        }
        Some(_) => match &task.spec.runtime {
            Runtime::Container(_) => {
                let grace = span(task.spec.stop_grace_period());
                format!("is being stopped on node {name}; it has {grace} until it is killed")
            }
            Runtime::Plugin(_) => format!("is being disabled on node {name}"),
        },
    }
}

/// How it ended.
fn ended(task: &Task) -> String {
    let how = match task.status.state {
        TaskState::Complete => "ended well",
        TaskState::Failed => "failed",
        TaskState::Rejected => "was rejected",
        TaskState::Orphaned => "was given up with its node",
        _ => "was stopped",
    };
    let code = task.status.container.as_ref().and_then(|c| c.exit_code).filter(|c| *c != 0);
    match (&task.status.err, code) {
        (err, _) if !err.is_empty() => format!("{how}: {err}"),
        (_, Some(code)) => format!("{how} with exit code {code}"),
        _ => how.into(),
    }
}

fn not_followed(slot: &Slot, task: &Task) -> String {
    let policy = task.spec.restart_policy();
    let newest = slot.newest().filter(|n| n.task.id == task.id);
    match (policy.condition(), newest) {
        (_, Some(n)) if may_follow(slot, n) => "another is about to follow".into(),
        (RestartCondition::None, _) => "its restart condition is none".into(),
        (RestartCondition::OnFailure, _) if task.status.state == TaskState::Complete => {
            "its restart condition is on-failure".into()
        }
        _ if task.status.state == TaskState::Complete && task.job_iteration.is_some() => "it is done".into(),
        _ => match policy.max_attempts.filter(|n| *n > 0) {
            Some(1) => "its only restart attempt is used up".into(),
            Some(attempts) => format!("its {attempts} restart attempts are used up"),
            None => "nothing follows it".into(),
        },
    }
}

fn on_node(asking: &Asking<'_>, task: &Arc<Task>) -> String {
    let node = task.node_id.as_ref().map(|n| format!(" on node {}", asking.names.node(n)));
    format!("{}{}", asking.names.exactly(task), node.unwrap_or_default())
}

/// What is left of a span that began then.
pub(super) fn left(asking: &Asking<'_>, start: Timestamp, time: std::time::Duration) -> std::time::Duration {
    start.plus(time).since(asking.now).min(time)
}
