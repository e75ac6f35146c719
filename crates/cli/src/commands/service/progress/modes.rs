//! What the tasks of a service have come to, mode by mode.

use super::{CHARS_MAX, Lines, shortened};
use crate::format::short_id;
use docker_api::{Node, Service, Task};
use std::collections::{BTreeMap, BTreeSet};

/// With more tasks than this there is only the overall line.
const BARS_MAX: u64 = 20;
/// Steps of a task that fill a bar.
const STATES: [&str; 9] =
    ["new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"];
/// Of a job, whose tasks end, this is one step more.
const COMPLETE: &str = "complete";
const TERMINAL_STATES: [&str; 6] = [COMPLETE, "shutdown", "failed", "rejected", "remove", "orphaned"];

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Tally {
    started: bool,
    done: bool,
    bar_of_slot: BTreeMap<u64, u64>,
    /// Of a global job: the nodes it began with. It will run on those that join later too, and they are not waited for.
    nodes: BTreeSet<String>,
    /// Of a job: a task is at its work, however long that takes.
    pub(super) at_work: bool,
}

/// What all tasks of a look have in common.
struct Look<'a> {
    tasks: Vec<&'a Task>,
    active: BTreeSet<&'a str>,
    rolling_back: bool,
}

impl Tally {
    /// Takes a look's tasks in; true when all is as it shall be.
    pub(super) fn take(
        &mut self,
        lines: &mut Lines,
        service: &Service,
        tasks: &[Task],
        nodes: &[Node],
        rolling_back: bool,
    ) -> bool {
        let active = nodes.iter().filter(|n| n.status.state != "down").map(|n| n.id.as_str()).collect();
        let known = tasks.iter().filter(|t| rank(&t.desired_state) > 0 && rank(&t.status.state) > 0);
        let mode = &service.spec.mode;
        let iteration = service.job_status.as_ref().map(|s| s.job_iteration.index).unwrap_or_default();
        let of_run = |t: &&Task| t.job_iteration.as_ref().is_some_and(|i| i.index == iteration);
        match (&mode.replicated, &mode.global, &mode.replicated_job, &mode.global_job) {
            (Some(replicated), ..) => {
                let look = Look { tasks: known.collect(), active, rolling_back };
                self.replicated(lines, replicated.replicas.unwrap_or(1), &look)
            }
            (_, Some(_), ..) => self.global(lines, &Look { tasks: known.collect(), active, rolling_back }),
            (_, _, Some(job), _) => {
                let look = Look { tasks: known.filter(of_run).collect(), active, rolling_back };
                let total = job.total_completions.unwrap_or(1);
                self.replicated_job(lines, total, job.max_concurrent.unwrap_or(total), &look)
            }
            (_, _, _, Some(_)) => {
                self.global_job(lines, &Look { tasks: known.filter(of_run).collect(), active, rolling_back })
            }
            // Nothing is known of it, and so there is nothing to wait for.
            (None, None, None, None) => true,
        }
    }

    fn replicated(&mut self, lines: &mut Lines, replicas: u64, look: &Look<'_>) -> bool {
        if !self.started {
            self.started = true;
            overall(lines, 0, replicas, look.rolling_back);
            if replicas <= BARS_MAX {
                (1..=replicas).for_each(|slot| lines.say(&format!("{slot}/{replicas}"), String::new(), None));
            }
        }
        let on_active = look.tasks.iter().filter(|t| t.node_id.is_empty() || look.active.contains(t.node_id.as_str()));
        let current = current_of_each(on_active.copied(), |t| t.slot);
        self.done &= current.values().all(|t| t.status.state == "running");
        let running = current.values().filter(|t| runs(t)).count() as u64;
        for task in current.values() {
            let next = self.bar_of_slot.len() as u64 + 1;
            let bar = *self.bar_of_slot.entry(task.slot).or_insert(next);
            if !self.done && replicas <= BARS_MAX && bar <= replicas {
                state(lines, &format!("{bar}/{replicas}"), task);
            }
        }
        self.overall_until_done(lines, running, replicas, look.rolling_back)
    }

    /// It is not known here how many nodes may have a task; but all tasks are made at once, so those that are there are all.
    fn global(&mut self, lines: &mut Lines, look: &Look<'_>) -> bool {
        let on_active = look.tasks.iter().filter(|t| t.node_id.is_empty() || look.active.contains(t.node_id.as_str()));
        let current = current_of_each(on_active.copied(), place);
        let count = current.len() as u64;
        if !self.started {
            if count == 0 {
                lines.say("overall progress", "waiting for new tasks".to_owned(), None);
                return false;
            }
            self.started = true;
            overall(lines, 0, count, look.rolling_back);
        }
        self.done &= current.values().all(|t| t.status.state == "running");
        let running = current.values().filter(|t| runs(t)).count() as u64;
        if !self.done && count <= BARS_MAX {
            current.iter().for_each(|(place, task)| state(lines, short_id(place), task));
        }
        self.overall_until_done(lines, running, count, look.rolling_back)
    }

    fn overall_until_done(&mut self, lines: &mut Lines, running: u64, wanted: u64, rolling_back: bool) -> bool {
        if !self.done {
            overall(lines, running, wanted, rolling_back);
            self.done = running == wanted;
        }
        running == wanted
    }

    fn replicated_job(&mut self, lines: &mut Lines, total: u64, concurrent: u64, look: &Look<'_>) -> bool {
        if !self.started {
            self.started = true;
            job_overall(lines, 0, total);
            job_active(lines, 0, concurrent.min(total), concurrent);
            if total <= BARS_MAX {
                (1..=total).for_each(|slot| lines.say(&format!("{slot}/{total}"), String::new(), None));
            }
        }
        let current = behind_of_each(&look.tasks, |t| t.slot);
        self.at_work = current.values().any(|t| t.status.state == "running");
        // Slots of jobs begin at 0.
        if total <= BARS_MAX {
            current.values().for_each(|t| job_state(lines, &format!("{}/{total}", t.slot + 1), t));
        }
        let complete = current.values().filter(|t| t.status.state == COMPLETE).count() as u64;
        let active = current.values().filter(|t| !is_terminal(&t.status.state)).count() as u64;
        job_overall(lines, complete, total);
        job_active(lines, active, concurrent.min(total.saturating_sub(complete)), concurrent);
        complete >= total
    }

    fn global_job(&mut self, lines: &mut Lines, look: &Look<'_>) -> bool {
        if !self.started {
            if look.tasks.is_empty() && !look.active.is_empty() {
                lines.say("job progress", "waiting for tasks".to_owned(), None);
                return false;
            }
            self.started = true;
            self.nodes = look.tasks.iter().map(|t| place(t)).collect();
            job_overall(lines, 0, self.nodes.len() as u64);
        }
        let total = self.nodes.len() as u64;
        let mut current = behind_of_each(&look.tasks, place);
        current.retain(|place, _| self.nodes.contains(place));
        self.at_work = current.values().any(|t| t.status.state == "running");
        if total <= BARS_MAX {
            current.iter().for_each(|(place, task)| job_state(lines, place, task));
        }
        let complete = current.values().filter(|t| t.status.state == COMPLETE).count() as u64;
        job_overall(lines, complete, total);
        complete == total
    }
}

fn overall(lines: &mut Lines, running: u64, wanted: u64, rolling_back: bool) {
    let rollback = if rolling_back { "rolling back update: " } else { "" };
    lines.say("overall progress", format!("{rollback}{running} out of {wanted} tasks"), None);
}

fn job_overall(lines: &mut Lines, complete: u64, total: u64) {
    let width = total.to_string().len();
    lines.say("job progress", format!("{complete:width$} out of {total} complete"), Some((complete, total)));
}

/// Both numbers are padded: towards the end fewer tasks are wanted at once.
fn job_active(lines: &mut Lines, active: u64, wanted: u64, most: u64) {
    let width = most.to_string().len();
    lines.say("active tasks", format!("{active:width$} out of {wanted:width$} tasks"), None);
}

fn state(lines: &mut Lines, name: &str, task: &Task) {
    if !task.status.err.is_empty() {
        lines.say(name, shortened(&task.status.err, CHARS_MAX), None);
    } else if !is_terminal(&task.desired_state) && !is_terminal(&task.status.state) {
        let step = rank(&task.status.state) as u64;
        lines.say(name, task.status.state.clone(), Some((step, STATES.len() as u64)));
    }
}

fn job_state(lines: &mut Lines, name: &str, task: &Task) {
    if task.status.err.is_empty() {
        let of = STATES.len() as u64 + 1;
        lines.say(name, task.status.state.clone(), Some(((rank(&task.status.state) as u64).min(of), of)));
    } else {
        lines.say(name, shortened(&task.status.err, CHARS_MAX), None);
    }
}

/// What tells the tasks of a global service apart: the node. One that has none yet is told by its own id.
fn place(task: &Task) -> String {
    if task.node_id.is_empty() { task.id.clone() } else { task.node_id.clone() }
}

fn runs(task: &Task) -> bool {
    !is_terminal(&task.desired_state) && task.status.state == "running"
}

fn is_terminal(state: &str) -> bool {
    TERMINAL_STATES.contains(&state)
}

/// The order of states, of those that are wanted and those that are; 0 for a word that is none.
fn rank(state: &str) -> usize {
    let at = STATES.iter().chain(&TERMINAL_STATES).position(|s| *s == state);
    at.map_or(0, |at| at + 1)
}

/// Of several tasks of a slot, the one that shall run; of several of those (start-first updates), the one behind.
fn current_of_each<'a, K: Ord>(
    tasks: impl Iterator<Item = &'a Task>,
    key: impl Fn(&Task) -> K,
) -> BTreeMap<K, &'a Task> {
    let order = |t: &Task| (rank(&t.desired_state), rank(&t.status.state));
    first_of_each(tasks, key, order)
}

/// Of several tasks of a job's slot, the one that is least far: the others failed.
fn behind_of_each<'a, K: Ord>(tasks: &[&'a Task], key: impl Fn(&Task) -> K) -> BTreeMap<K, &'a Task> {
    first_of_each(tasks.iter().copied(), key, |t: &Task| rank(&t.status.state))
}

fn first_of_each<'a, K: Ord, O: Ord>(
    tasks: impl Iterator<Item = &'a Task>,
    key: impl Fn(&Task) -> K,
    order: impl Fn(&Task) -> O,
) -> BTreeMap<K, &'a Task> {
    let mut first: BTreeMap<K, &Task> = BTreeMap::new();
    for task in tasks {
        match first.entry(key(task)) {
            std::collections::btree_map::Entry::Vacant(slot) => drop(slot.insert(task)),
            std::collections::btree_map::Entry::Occupied(mut slot) if order(task) < order(slot.get()) => {
                slot.insert(task);
            }
            std::collections::btree_map::Entry::Occupied(_) => {}
        }
    }
    first
}
