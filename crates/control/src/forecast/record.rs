//! What a run of the loops amounts to: its commits as steps, how many tasks run at each time, and the report of it all.

use super::agents::{self, Agents};
use super::run::Course;
use super::{Action, Ends, Forecast, Landing, Options, ServiceForecast, Step, Unplaced, describe, why};
use crate::words::several;
use model::{Mode, NodeId, NodeState, Role, Service, ServiceId, Task, TaskId, TaskState, UpdateState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Commit, Delta, Object, Snapshot, Transaction};

/// What happened in a run.
pub(super) struct Records {
    steps: Vec<Step>,
    /// Steps beyond those that are kept.
    omitted: usize,
    /// How many tasks of each service ran from which time on; the first entry is from the start.
    running: BTreeMap<ServiceId, Vec<(Duration, u64)>>,
    /// When the run was over.
    over: Duration,
}

/// Takes note of each commit of a run.
pub(super) struct Recorder {
    base: Snapshot,
    names: BTreeMap<NodeId, String>,
    /// The newest task of each slot.
    newest: BTreeMap<Place, Arc<Task>>,
    /// What each task that waits for a node follows.
    follows: BTreeMap<TaskId, Option<Arc<Task>>>,
    records: Records,
    steps_max: usize,
}

/// A slot of a service, whatever its mode.
type Place = (ServiceId, u64, Option<NodeId>);

fn place(task: &Task) -> Place {
    (task.service_id.clone(), task.slot, task.for_node.clone())
}

// === impl Recorder ===

impl Recorder {
    /// For a run from `changed`, which is `base` with the direct changes.
    pub(super) fn new(base: &Snapshot, changed: &Snapshot, agents: &Agents, steps_max: usize) -> Recorder {
        let nodes = base.nodes().chain(changed.nodes());
        let mut recorder = Recorder {
            base: base.clone(),
            names: nodes.map(|n| (n.id.clone(), describe::node_name(n))).collect(),
            newest: BTreeMap::new(),
            follows: BTreeMap::new(),
            records: Records { steps: Vec::new(), omitted: 0, running: BTreeMap::new(), over: Duration::ZERO },
            steps_max,
        };
        let age = |t: &Task| (t.is_wanted(), t.spec_version, t.meta.created_at, t.id.clone());
        for task in changed.tasks() {
            let newest = recorder.newest.entry(place(task)).or_insert_with(|| task.clone());
            if age(newest) < age(task) {
                *newest = task.clone();
            }
        }
        for task in changed.tasks().filter(|t| agents.runs(t)) {
            let runs =
                recorder.records.running.entry(task.service_id.clone()).or_insert_with(|| vec![(Duration::ZERO, 0)]);
            runs[0].1 += 1;
        }
        recorder
    }

    /// Takes note of a commit that led to `after`.
    pub(super) fn see(&mut self, commit: &Commit, after: &Snapshot, agents: &Agents, at: Duration) {
        let created = commit.deltas.iter().filter(|d| d.before.is_none());
        let succeeded: BTreeSet<Place> = created.filter_map(|d| task_of(&d.after)).map(|t| place(t)).collect();
        for delta in &commit.deltas {
            if let (Some(Object::Service(b)), Some(Object::Service(a))) = (&delta.before, &delta.after) {
                self.see_service(b, a, at);
            } else {
                self.see_task(delta, &succeeded, after, agents, at);
            }
        }
    }

    fn see_service(&mut self, before: &Service, after: &Service, at: Duration) {
        let state = |s: &Service| s.current_update().map(|u| (u.state, u.message.clone()));
        if let Some((now, message)) = state(after).filter(|a| state(before).as_ref() != Some(a)) {
            let why = format!("{}: {message}", now.as_str());
            self.step(at, Action::UpdateStatus, after.spec.name.to_string(), 0, None, (None, None), why);
        }
    }

    fn see_task(
        &mut self,
        delta: &Delta,
        succeeded: &BTreeSet<Place>,
        after: &Snapshot,
        agents: &Agents,
        at: Duration,
    ) {
        let (before, task) = (task_of(&delta.before), task_of(&delta.after));
        let Some(any) = task.or(before) else { return };
        let runs = |t: Option<&Arc<Task>>| t.is_some_and(|t| agents.runs(t));
        if runs(before) != runs(task) {
            self.count(&any.service_id, runs(task), at);
        }
        if before.is_none() {
            let follows = self.newest.get(&place(any)).cloned();
            self.follows.insert(any.id.clone(), follows);
        }
        let was_placed = before.is_some_and(|t| t.node_id.is_some());
        if let Some(task) = task.filter(|t| t.node_id.is_some() && !was_placed) {
            let follows = self.follows.remove(&task.id).flatten().or_else(|| self.predecessor(task));
            let (action, why) = why::placed(&self.base, after, follows.as_deref(), task, &self.names);
            let from = follows.filter(|_| action != Action::Create).and_then(|f| f.node_id.clone());
            self.task_step(at, action, task, (from, task.node_id.clone()), why);
        }
        if let Some(before) = before.filter(|b| b.is_wanted() && task.is_none_or(|t| !t.is_wanted())) {
            self.see_end(before, task, succeeded, after, agents, at);
        }
        let state = |t: Option<&Arc<Task>>| t.map(|t| t.status.state);
        if let Some(task) = task.filter(|t| runs(Some(t)) && state(before) != Some(TaskState::Running)) {
            self.task_step(at, Action::Start, task, (None, task.node_id.clone()), String::new());
        }
        self.note_newest(task, before);
    }

    /// A task is not wanted any more.
    fn see_end(
        &mut self,
        before: &Arc<Task>,
        task: Option<&Arc<Task>>,
        succeeded: &BTreeSet<Place>,
        after: &Snapshot,
        agents: &Agents,
        at: Duration,
    ) {
        let from = before.node_id.clone();
        if task.is_none_or(|t| t.desired == TaskState::Remove) {
            let why = why::removed(&self.base, after, before, &self.names);
            self.task_step(at, Action::Remove, before, (from, None), why);
        } else if !succeeded.contains(&place(before)) && agents.is_there(before) && !before.status.state.is_terminal() {
            let why = why::stopped(after, before, &self.names);
            self.task_step(at, Action::Stop, before, (from, None), why);
        }
    }

    fn predecessor(&self, task: &Task) -> Option<Arc<Task>> {
        self.newest.get(&place(task)).filter(|n| n.id != task.id).cloned()
    }

    fn note_newest(&mut self, task: Option<&Arc<Task>>, before: Option<&Arc<Task>>) {
        if let Some(task) = task {
            let known = self.newest.get(&place(task));
            if before.is_none() || known.is_none_or(|n| n.id == task.id) {
                self.newest.insert(place(task), task.clone());
            }
        } else if let Some(gone) = before
            && self.newest.get(&place(gone)).is_some_and(|n| n.id == gone.id)
        {
            self.newest.remove(&place(gone));
        }
    }

    fn count(&mut self, service: &ServiceId, one_more: bool, at: Duration) {
        let runs = self.records.running.entry(service.clone()).or_insert_with(|| vec![(Duration::ZERO, 0)]);
        let now = runs.last().map_or(0, |(_, n)| *n);
        let now = if one_more { now + 1 } else { now.saturating_sub(1) };
        // What is over within the same instant is not worth telling.
        match runs.last_mut().filter(|(then, _)| *then == at) {
            Some(last) => last.1 = now,
            None => runs.push((at, now)),
        }
    }

    fn task_step(
        &mut self,
        at: Duration,
        action: Action,
        task: &Task,
        nodes: (Option<NodeId>, Option<NodeId>),
        why: String,
    ) {
        let id = self.base.task(&task.id).map(|t| t.id.clone());
        self.step(at, action, task.service_name.to_string(), task.slot, id, nodes, why);
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of a step, in its order")]
    fn step(
        &mut self,
        at: Duration,
        action: Action,
        service: String,
        slot: u64,
        task: Option<TaskId>,
        (from, to): (Option<NodeId>, Option<NodeId>),
        why: String,
    ) {
        if self.records.steps.len() >= self.steps_max {
            self.records.omitted += 1;
            return;
        }
        let name = |id: Option<NodeId>| id.map(|id| self.names.get(&id).cloned().unwrap_or_else(|| id.to_string()));
        let (from_node, to_node) = (name(from), name(to));
        self.records.steps.push(Step { at, action, service, slot, task, from_node, to_node, why });
    }

    /// What was noted, at the end of the run.
    pub(super) fn finish(mut self, over: Duration) -> Records {
        self.records.over = over;
        self.records
    }
}

fn task_of(object: &Option<Object>) -> Option<&Arc<Task>> {
    match object {
        Some(Object::Task(task)) => Some(task),
        _ => None,
    }
}

// === the report ===

/// The report of a course, without what would happen anyway.
pub(super) fn compare(
    base: &Snapshot,
    transactions: &[Transaction],
    anyway: &Course,
    mut course: Course,
    options: &Options,
) -> Forecast {
    let (steps, left_out) = without(std::mem::take(&mut course.records.steps), &anyway.records.steps);
    let moves = |s: &Service| {
        let waits = || course.end.service(&s.id).is_some_and(|s| s.progress.rebalance.is_some());
        steps.iter().any(|step| step.action == Action::Move && step.service == s.spec.name.as_str()) || waits()
    };
    let objects = describe::objects(base, &course.changed, transactions, moves);
    let concerned = concerned(base, anyway, &course, &steps, transactions);
    let known = unplaced(&anyway.end);
    let unplaced: Vec<Unplaced> = unplaced(&course.end).into_iter().filter(|u| !known.contains(u)).collect();
    let services: Vec<ServiceForecast> =
        concerned.iter().map(|(id, name)| of_service(base, &course, id, name.clone())).collect();
    let mut notes = Notes::default();
    notes.assumptions(&steps);
    notes.left_out(&left_out);
    notes.limits(&course, &steps, known.len());
    notes.services(&course.end, &concerned, &services);
    notes.managers(base, &course.changed);
    Forecast {
        changes: !objects.is_empty() || !steps.is_empty(),
        objects,
        unplaced,
        landing: landing(&course.end, (!options.land_all).then_some(&concerned)),
        ends: course.ends,
        steps,
        services,
        notes: notes.0,
    }
}

/// The steps that are not in `anyway`, and those that are.
fn without(steps: Vec<Step>, anyway: &[Step]) -> (Vec<Step>, Vec<Step>) {
    let mut left: BTreeMap<&Step, usize> = BTreeMap::new();
    anyway.iter().for_each(|s| *left.entry(s).or_default() += 1);
    let is_new = |step: &Step| match left.get_mut(step).filter(|n| **n > 0) {
        Some(n) => {
            *n -= 1;
            false
        }
        None => true,
    };
    let mut is_new = is_new;
    steps.into_iter().partition(|s| is_new(s))
}

/// The services that something happens to, and their names.
fn concerned(
    base: &Snapshot,
    anyway: &Course,
    course: &Course,
    steps: &[Step],
    transactions: &[Transaction],
) -> BTreeMap<ServiceId, String> {
    let named: BTreeSet<&str> = steps.iter().map(|s| s.service.as_str()).collect();
    let changed: BTreeSet<ServiceId> = transactions
        .iter()
        .flat_map(|t| &t.changes)
        .filter_map(|c| match c {
            store::Change::Put(Object::Service(s)) => Some(s.id.clone()),
            store::Change::Remove(store::ObjectId::Service(id)) => Some(id.clone()),
            _ => None,
        })
        .collect();
    let all = base.services().chain(course.end.services());
    // One that loses a task for which there is no other node takes no step at all.
    let is_concerned = |s: &&Arc<Service>| {
        let runs = |c: &Course| c.records.running.get(&s.id).cloned();
        named.contains(s.spec.name.as_str()) || changed.contains(&s.id) || runs(anyway) != runs(course)
    };
    all.filter(is_concerned).map(|s| (s.id.clone(), s.spec.name.to_string())).collect()
}

fn of_service(base: &Snapshot, course: &Course, id: &ServiceId, name: String) -> ServiceForecast {
    let (wanted_before, wanted_after) = (wanted(base, id), wanted(&course.end, id));
    let is_job = [base, &course.end].iter().filter_map(|s| s.service(id)).any(|s| s.spec.mode.is_job());
    let promised = if is_job { 0 } else { wanted_before.min(wanted_after) };
    let nothing = vec![(Duration::ZERO, 0)];
    let running = course.records.running.get(id).unwrap_or(&nothing);
    let ends = running.iter().skip(1).map(|(at, _)| *at).chain([course.records.over]);
    let dips = running.iter().zip(ends).filter(|((_, n), _)| *n < promised);
    ServiceForecast {
        service: name,
        wanted_before,
        wanted_after,
        least_running: running.iter().map(|(_, n)| *n).min().unwrap_or(0),
        dip: dips.map(|((from, _), to)| to.saturating_sub(*from)).sum(),
    }
}

fn wanted(snapshot: &Snapshot, id: &ServiceId) -> u64 {
    match snapshot.service(id).map(|s| &s.spec.mode) {
        None => 0,
        Some(Mode::Replicated { replicas }) => *replicas,
        Some(Mode::ReplicatedJob { total_completions, .. }) => *total_completions,
        Some(Mode::Global | Mode::GlobalJob) => {
            let mut nodes: BTreeSet<&NodeId> = BTreeSet::new();
            let wanted = snapshot.tasks_of_service(id).filter(|t| t.is_wanted());
            nodes.extend(wanted.filter_map(|t| t.for_node.as_ref().or(t.node_id.as_ref())));
            nodes.len() as u64
        }
    }
}

fn unplaced(snapshot: &Snapshot) -> BTreeSet<Unplaced> {
    let unplaced = snapshot.unplaced_tasks();
    unplaced
        .map(|t| Unplaced { service: t.service_name.to_string(), slot: t.slot, reason: t.status.err.clone() })
        .collect()
}

/// What runs (or is to run) where, of these services or of all.
fn landing(end: &Snapshot, of: Option<&BTreeMap<ServiceId, String>>) -> Vec<Landing> {
    let mut landing: Vec<Landing> = end
        .nodes()
        .filter_map(|node| {
            let mut tasks: BTreeMap<String, u64> = BTreeMap::new();
            for task in end.tasks_on_node(&node.id) {
                if task.is_active() && of.is_none_or(|of| of.contains_key(&task.service_id)) {
                    *tasks.entry(task.service_name.to_string()).or_default() += 1;
                }
            }
            let land = Landing { node: node.id.clone(), hostname: describe::node_name(node), tasks };
            (!land.tasks.is_empty()).then_some(land)
        })
        .collect();
    landing.sort_by(|a, b| (&a.hostname, &a.node).cmp(&(&b.hostname, &b.node)));
    landing
}

/// What else is worth knowing.
#[derive(Default)]
struct Notes(Vec<String>);

// === impl Notes ===

impl Notes {
    fn assumptions(&mut self, steps: &[Step]) {
        if steps.iter().any(|s| s.action != Action::UpdateStatus) {
            self.0.push(format!(
                "it is taken that images are there and that what is started runs well: a task runs {:?} after it was given \
                 to its node (with a health check: an interval later), stops within {:?}, and one of a job ends {:?} \
                 after it began",
                agents::PREPARE + agents::START,
                agents::STOP,
                agents::JOB
            ));
        }
    }

    fn left_out(&mut self, steps: &[Step]) {
        if steps.is_empty() {
            return;
        }
        let services: BTreeSet<&str> = steps.iter().map(|s| s.service.as_str()).collect();
        let services: Vec<&str> = services.into_iter().collect();
        let services = services.join(", ");
        self.0.push(match steps.len() {
            1 => format!("1 step of {services} happens anyway and is left out"),
            n => format!("{n} steps of {services} happen anyway and are left out"),
        });
    }

    fn limits(&mut self, course: &Course, steps: &[Step], unplaced: usize) {
        match course.records.omitted {
            0 => {}
            1 => self.0.push("1 more step follows and is left out".into()),
            n => self.0.push(format!("{n} more steps follow and are left out")),
        }
        match unplaced {
            _ if steps.is_empty() => {}
            0 => {}
            1 => self.0.push("1 task has no node as it is".into()),
            n => self.0.push(format!("{n} tasks have no node as it is")),
        }
        if matches!(course.ends, Ends::TooLarge(_) | Ends::TooMuchWork(_)) {
            self.0.push("the change is too large to be followed to its end; what is shown is its beginning".into());
        }
    }

    fn services(&mut self, end: &Snapshot, concerned: &BTreeMap<ServiceId, String>, of: &[ServiceForecast]) {
        for (id, forecast) in concerned.keys().zip(of) {
            let Some(service) = end.service(id) else { continue };
            let name = &forecast.service;
            let state = service.current_update().map(|u| u.state);
            if matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused)) {
                self.0.push(format!("the update of {name} is paused: nothing replaces its tasks until it is updated"));
            }
            let failed = end
                .tasks_of_service(id)
                .filter(|t| matches!(t.status.state, TaskState::Failed | TaskState::Rejected))
                .filter(|t| t.spec == service.spec.task)
                .count();
            if failed > 0 {
                let tasks = several(failed, "task", "tasks");
                self.0.push(format!("{tasks} of {name} failed as it is to be: more of them may"));
            }
        }
    }

    /// A swarm that has lost its quorum cannot do what is forecast.
    fn managers(&mut self, base: &Snapshot, changed: &Snapshot) {
        let managers = |s: &Snapshot| s.nodes().filter(|n| n.spec.role == Role::Manager).count();
        let up = |s: &Snapshot| {
            let ready = |n: &&Arc<model::Node>| n.spec.role == Role::Manager && n.status.state == NodeState::Ready;
            s.nodes().filter(ready).count()
        };
        let (all, left) = (managers(changed), up(changed));
        if left < up(base) && left < all / 2 + 1 {
            let (all, needed) = (several(all, "manager", "managers"), several(all / 2 + 1, "is", "are"));
            self.0.push(format!(
                "{left} of {all} would be left, {needed} needed: nothing of this would happen before enough of them are back"
            ));
        }
    }
}
