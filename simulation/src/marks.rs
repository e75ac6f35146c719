//! M3: what the control loops did. A sweep in which something never happened proves nothing about it.

use model::{Service, Task, TaskState, UpdateState};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Commit, Delta, Object, Snapshot};

/// How often each of [`ALL`] happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks(BTreeMap<&'static str, u64>);

/// Everything that is counted.
const ALL: [&str; 21] = [
    "update begins",
    "update completed",
    "update paused",
    "update rolled back",
    "rollback asked for",
    "rollback completed",
    "rollback paused",
    "job runs again",
    "job's task done",
    "scheduled run begins",
    "scheduled run left out",
    "global task made",
    "two tasks in a slot",
    "restart after failure",
    "restart with a longer pause",
    "task leaves a node by its constraints",
    "task finds no node",
    "task orphaned",
    "rebalance asked for",
    "rebalance by a join",
    "task moved",
];

// === impl Marks ===

impl Marks {
    /// Counts what a commit did; `after` is the state that it made.
    pub fn observe(&mut self, commit: &Commit, after: &Snapshot) {
        commit.deltas.iter().for_each(|d| self.observe_delta(d, after));
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Marks) {
        other.0.iter().for_each(|(mark, n)| *self.0.entry(mark).or_default() += n);
    }

    /// What never happened.
    pub fn never(&self) -> Vec<&'static str> {
        ALL.into_iter().filter(|m| !self.0.contains_key(m)).collect()
    }

    fn observe_delta(&mut self, delta: &Delta, state: &Snapshot) {
        let mut hit = |mark: &'static str, happened: bool| {
            debug_assert!(ALL.contains(&mark), "{mark} is not in the list");
            if happened {
                *self.0.entry(mark).or_default() += 1;
            }
        };
        match (&delta.before, &delta.after) {
            (Some(Object::Service(before)), Some(Object::Service(after))) => {
                update(before, after, &mut hit);
                progress(before, after, &mut hit);
            }
            (before, Some(Object::Task(after))) => {
                let before = match before {
                    Some(Object::Task(t)) => Some(t.as_ref()),
                    _ => None,
                };
                task(before, after, &mut hit);
                let beside = |t: &&Arc<Task>| t.is_wanted() && t.id != after.id && t.slot_key() == after.slot_key();
                let is_second = before.is_none() && state.tasks_of_service(&after.service_id).any(|t| beside(&t));
                hit("two tasks in a slot", is_second && after.is_wanted());
            }
            _ => {}
        }
    }
}

impl std::fmt::Display for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.0, f)
    }
}

fn update(before: &Service, after: &Service, hit: &mut impl FnMut(&'static str, bool)) {
    let state = |s: &Service| s.current_update().map(|u| (u.state, u.spec_version));
    if state(before) == state(after) {
        return;
    }
    let Some(status) = after.current_update() else { return };
    let asked = status.message.starts_with("manually");
    hit("update begins", status.state == UpdateState::Updating);
    hit("update completed", status.state == UpdateState::Completed);
    hit("update paused", status.state == UpdateState::Paused);
    hit("update rolled back", status.state == UpdateState::RollbackStarted && !asked);
    hit("rollback asked for", status.state == UpdateState::RollbackStarted && asked);
    hit("rollback completed", status.state == UpdateState::RollbackCompleted);
    hit("rollback paused", status.state == UpdateState::RollbackPaused);
}

fn progress(before: &Service, after: &Service, hit: &mut impl FnMut(&'static str, bool)) {
    let (before, after) = (&before.progress, &after.progress);
    let (started, left_out) = (
        |p: &model::Progress| p.cron.as_ref().and_then(|c| c.started),
        |p: &model::Progress| p.cron.as_ref().map_or(0, |c| c.left_out),
    );
    hit("job runs again", before.job.is_some_and(|b| after.job.is_some_and(|a| a.iteration > b.iteration)));
    hit("scheduled run begins", started(before) != started(after) && started(after).is_some());
    hit("scheduled run left out", left_out(after) > left_out(before));
    let (was, is) = (before.rebalance.as_ref(), after.rebalance.as_ref());
    let asked = was.map(|r| r.asked_at) != is.map(|r| r.asked_at);
    hit("rebalance asked for", asked && is.is_some_and(|r| r.because_of.is_none()));
    hit("rebalance by a join", asked && is.is_some_and(|r| r.because_of.is_some()));
    let moving = is.and_then(|r| r.moving.as_ref());
    hit("task moved", moving.is_some() && moving != was.and_then(|r| r.moving.as_ref()));
}

fn task(before: Option<&Task>, after: &Task, hit: &mut impl FnMut(&'static str, bool)) {
    let came_to = |state| after.status.state == state && before.is_none_or(|b| b.status.state != state);
    let err = |text: &str| {
        let says = |t: &Task| t.status.err.contains(text);
        says(after) && !before.is_some_and(says)
    };
    let is_new = before.is_none();
    hit("job's task done", after.job_iteration.is_some() && came_to(TaskState::Complete));
    hit("global task made", is_new && after.for_node.is_some() && after.job_iteration.is_none());
    hit("restart after failure", is_new && after.run_after.is_some() && after.failures == 1);
    hit("restart with a longer pause", is_new && after.run_after.is_some() && after.failures > 1);
    hit("task leaves a node by its constraints", err("no longer meets constraints"));
    hit("task finds no node", err("no suitable node"));
    hit("task orphaned", came_to(TaskState::Orphaned));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_named() {
        let mut marks = Marks::default();
        assert_eq!(marks.never().len(), ALL.len());
        let mut other = Marks::default();
        other.0.insert("task moved", 2);
        marks.add(&other);
        marks.add(&other);
        assert!(!marks.never().contains(&"task moved") && marks.to_string().contains("\"task moved\": 4"));
    }
}
