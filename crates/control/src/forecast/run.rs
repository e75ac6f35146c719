//! One run of the loops on a private copy of the state, from one thing that happens to the next.

use super::agents::Agents;
use super::record::{Recorder, Records};
use super::{Ends, Options};
use crate::{Budget, Key, affected, expand, reconcile_services};
use model::{Service, ServiceId, TaskState, Timestamp, UpdateState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, Conflict, Event, Object, Snapshot, Store, Transaction};

/// What a run came to.
pub(super) struct Course {
    /// The state after the direct changes.
    pub(super) changed: Snapshot,
    /// The state in the end.
    pub(super) end: Snapshot,
    /// How it ended.
    pub(super) ends: Ends,
    /// What happened on the way.
    pub(super) records: Records,
}

/// Rounds of the loops at one point in time. They come to rest in a few; this is for a mistake in them.
const ROUNDS_MAX: usize = 10_000;

struct Run<'a> {
    store: Arc<Store>,
    changes: Changes,
    index: u64,
    start: Timestamp,
    now: Timestamp,
    touched: BTreeSet<Key>,
    timers: BTreeMap<ServiceId, Timestamp>,
    agents: Agents,
    recorder: Recorder,
    task_changes: usize,
    looks: usize,
    options: &'a Options,
}

/// Commits the transactions and lets things take their course.
pub(super) fn run(
    snapshot: &Snapshot,
    transactions: &[Transaction],
    now: Timestamp,
    options: &Options,
) -> Result<Course, Conflict> {
    let store: Arc<Store> = snapshot.clone().into();
    let mut index = snapshot.index();
    for transaction in transactions {
        index += 1;
        store.apply(index, transaction)?;
    }
    let changed = store.snapshot();
    let agents = Agents::new(&changed, now);
    let recorder = Recorder::new(snapshot, &changed, &agents, options.steps_max);
    let changes = store.changes();
    let mut run = Run {
        store,
        changes,
        index,
        start: now,
        now,
        // A leader that saw nothing of what came before: what is waited for is in the state, not in its timers.
        touched: [Key::All].into(),
        timers: BTreeMap::new(),
        agents,
        recorder,
        task_changes: 0,
        looks: 0,
        options,
    };
    let ends = run.follow();
    let end = run.store.snapshot();
    Ok(Course { changed, records: run.recorder.finish(run.now.since(run.start)), end, ends })
}

impl Run<'_> {
    fn follow(&mut self) -> Ends {
        loop {
            if let Err(ends) = self.control() {
                return ends;
            }
            let snapshot = self.store.snapshot();
            if self.agents.next_at().is_none() && !self.waits_for_time(&snapshot) {
                return if self.waits_for_somebody(&snapshot) { Ends::Waiting } else { Ends::Settled };
            }
            let next = self.timers.values().copied().chain(self.agents.next_at()).min();
            let Some(next) = next else { return Ends::Waiting };
            if next.since(self.start) > self.options.horizon {
                return Ends::NotWithin(self.options.horizon);
            }
            self.now = next.max(self.now);
            let reports = self.agents.report(&snapshot, self.now);
            if !reports.is_empty() {
                self.commit(&reports);
            }
        }
    }

    /// Runs the loops until they have nothing to do now, as the driver does.
    fn control(&mut self) -> Result<(), Ends> {
        for _ in 0..ROUNDS_MAX {
            let snapshot = self.store.snapshot();
            let rung: Vec<ServiceId> =
                self.timers.iter().filter(|(_, at)| **at <= self.now).map(|(s, _)| s.clone()).collect();
            let mut services = expand(&snapshot, &std::mem::take(&mut self.touched));
            rung.iter().for_each(|s| _ = self.timers.remove(s));
            services.extend(rung);
            if services.is_empty() {
                return Ok(());
            }
            self.looks += services.iter().map(|s| snapshot.tasks_of_service(s).count() + 1).sum::<usize>();
            if self.looks > self.options.looks_max {
                return Err(Ends::TooMuchWork(self.options.looks_max));
            }
            let batch = reconcile_services(&snapshot, services.clone(), self.now, Budget::default());
            services.iter().for_each(|s| _ = self.timers.remove(s));
            let idle = batch.transaction.is_empty();
            // What did nothing is not asked again at once, whatever it says: time has to pass.
            let soonest = if idle { self.now.plus(Duration::from_millis(100)) } else { self.now };
            self.timers.extend(batch.wakes.into_iter().map(|(s, at)| (s, at.max(soonest))));
            if !idle {
                self.commit(&batch.transaction);
            }
            if self.task_changes > self.options.task_changes_max {
                return Err(Ends::TooLarge(self.options.task_changes_max));
            }
        }
        Err(Ends::TooLarge(self.task_changes))
    }

    fn commit(&mut self, transaction: &Transaction) {
        self.index += 1;
        // Nobody else writes to this copy; a check that failed would be a mistake of the loops, and shows as one that repeats
        // itself until the rounds are over.
        let _no_conflict = self.store.apply(self.index, transaction);
        let snapshot = self.store.snapshot();
        while let Some(event) = self.changes.try_next() {
            let Event::Commit(commit) = event else { continue };
            for delta in &commit.deltas {
                self.touched.extend(affected(delta));
                match (&delta.before, &delta.after) {
                    (_, Some(Object::Task(task))) => self.agents.see(task, self.now),
                    (Some(Object::Task(task)), None) => self.agents.forget(&task.id),
                    _ => continue,
                }
                self.task_changes += 1;
            }
            self.recorder.see(&commit, &snapshot, &self.agents, self.now.since(self.start));
        }
    }

    /// True when a service that asked to be woken is on its way somewhere. Others only look again some day: a schedule's next
    /// time, or tasks of a node that may come back.
    fn waits_for_time(&self, snapshot: &Snapshot) -> bool {
        self.timers.keys().any(|id| is_under_way(snapshot, id, &self.agents))
    }

    /// True when nothing but a change from outside could make everything as it is wanted.
    fn waits_for_somebody(&self, snapshot: &Snapshot) -> bool {
        let paused = |s: &Service| {
            let state = s.current_update().map(|u| u.state);
            state.is_some_and(|s| s.is_in_progress() || matches!(s, UpdateState::Paused | UpdateState::RollbackPaused))
        };
        snapshot.unplaced_tasks().next().is_some() || snapshot.services().any(|s| paused(s))
    }
}

fn is_under_way(snapshot: &Snapshot, id: &ServiceId, agents: &Agents) -> bool {
    let service = snapshot.service(id);
    let updating = service.and_then(|s| s.current_update()).is_some_and(|u| u.state.is_in_progress());
    let spreading = service.is_some_and(|s| crate::rebalance::is_moving(s));
    let moves = |t: &model::Task| {
        let over = t.status.state.is_terminal();
        if t.is_wanted() {
            t.run_after.is_some() || over && t.desired != TaskState::Complete || agents.is_there(t) && is_coming(t)
        } else {
            !over && agents.is_there(t)
        }
    };
    updating || spreading || snapshot.tasks_of_service(id).any(|t| moves(t))
}

fn is_coming(task: &model::Task) -> bool {
    !task.status.state.is_terminal() && task.status.state < TaskState::Running
}
