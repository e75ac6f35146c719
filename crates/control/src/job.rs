//! The jobs: services whose tasks are to end well (SwarmKit orchestrator/jobs). Each update of a job is another run of it;
//! with a schedule, each time is.
//!
//! Nothing is written down of a run but its number and its tasks: a place of it is done when a task there has ended well, given
//! up when its restart policy lets none follow, and goes on otherwise.

use crate::eligible::{Standing, standing};
use crate::restart::may_follow;
use crate::service::Context;
use crate::slot::{self, Next, Slot, Slots, Stop};
use crate::{global, reaper};
use model::{Concurrency, Mode, Place, Service, SlotKey, TaskState, limits};
use std::collections::BTreeSet;
use store::Snapshot;

/// How a place of a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Done,
    GivenUp,
    Goes,
}

/// Opens places of the runs that go on, stops those that do not, forgets those that nobody asks for any more; true when there is
/// more to do than fits.
pub(crate) fn follow(context: &Context<'_>, slots: &mut Slots) -> bool {
    stop_others(context, slots);
    let mut more = false;
    for run in &context.runs {
        let fresh = slots.values().filter(|s| s.items.iter().any(|i| i.is_new())).count();
        let room = context.room.saturating_sub(fresh);
        more |= match context.service.spec.mode {
            Mode::ReplicatedJob { max_concurrent, .. } => {
                fill(context, slots, *run, max_concurrent, context.service.completions_of(*run), room)
            }
            _ => global::follow_run(context, slots, *run, may_begin(context, *run)),
        };
    }
    reaper::bound_runs(context, slots);
    more
}

/// The runs that go on, oldest first: of a plain job the last one that was asked for.
pub(crate) fn runs(snapshot: &Snapshot, service: &Service, slots: &Slots) -> BTreeSet<u64> {
    if !service.spec.mode.is_job() {
        return BTreeSet::new();
    }
    let Some(cron) = &service.spec.cron else {
        return [service.progress.job.map_or(0, |j| j.iteration)].into();
    };
    // An update of a job with a schedule changes the runs to come, not the one that goes on.
    let Some(state) = &service.progress.cron else { return BTreeSet::new() };
    let Some(last) = state.started else { return BTreeSet::new() };
    let mut runs = BTreeSet::from([last]);
    if cron.concurrency != Concurrency::Replace {
        // What was over when a later run began stays so, whatever becomes of nodes and of the service.
        let is_open = |r: &u64| state.open.is_empty() || state.open.contains_key(r);
        let goes_on = |r: &u64| is_open(r) && !is_over(snapshot, service, slots, *r) && !is_being_forgotten(slots, *r);
        runs.extend(runs_of(slots).filter(|r| *r < last && goes_on(r)));
    }
    runs
}

/// The runs that have tasks, some of them several times.
pub(crate) fn runs_of(slots: &Slots) -> impl Iterator<Item = u64> {
    slots.values().filter(|s| s.is_occupied()).filter_map(|s| s.key.run)
}

/// Nothing of the run is left to do.
pub(crate) fn is_over(snapshot: &Snapshot, service: &Service, slots: &Slots, run: u64) -> bool {
    let mut stages = stages(snapshot, service, slots, run);
    match service.spec.mode {
        Mode::ReplicatedJob { .. } => {
            let ended = stages.filter(|s| *s != Stage::Goes).count();
            ended as u64 >= service.completions_of(run)
        }
        _ => stages.all(|s| s != Stage::Goes),
    }
}

/// Some of the run's tasks are history that was given up, and others are yet to be: it was too much for one transaction. The
/// lowest places are opened first, and forgotten first.
fn is_being_forgotten(slots: &Slots, run: u64) -> bool {
    let numbers =
        slots.values().filter(|s| s.key.run == Some(run) && s.is_occupied()).filter_map(|s| match s.key.place {
            Place::Number(n) => Some(n),
            Place::Node(_) => None,
        });
    numbers.min().is_some_and(|lowest| lowest > 0)
}

/// The tasks of a global job's run begin together; with a schedule, a node that joins or comes back later waits for the next one.
fn may_begin(context: &Context<'_>, run: u64) -> bool {
    let (Some(cron), Some(job)) = (&context.service.spec.cron, context.service.progress.job) else { return true };
    run == job.iteration && context.now.since(job.last_execution) <= cron.missed_run_window
}

fn stages(snapshot: &Snapshot, service: &Service, slots: &Slots, run: u64) -> impl Iterator<Item = Stage> {
    let of_run = slots.values().filter(move |s| s.key.run == Some(run) && s.is_occupied());
    of_run.map(move |s| stage(snapshot, service, s))
}

fn stage(snapshot: &Snapshot, service: &Service, slot: &Slot) -> Stage {
    let open = || slot.key.node().is_none_or(|id| standing(snapshot, id, &service.spec.task) == Standing::Open);
    if slot.present().any(|i| i.task.status.state == TaskState::Complete) {
        Stage::Done
    } else if slot.is_wanted() || slot.newest().is_some_and(|newest| may_follow(slot, newest) && open()) {
        Stage::Goes
    } else {
        Stage::GivenUp
    }
}

/// Opens the lowest free places of a replicated job's run: as many as may run at once, and no more than are still needed.
fn fill(context: &Context<'_>, slots: &mut Slots, run: u64, at_once: u64, total: u64, room: usize) -> bool {
    let (mut goes, mut ended) = (0_u64, 0_u64);
    stages(context.snapshot, context.service, slots, run)
        .for_each(|s| *if s == Stage::Goes { &mut goes } else { &mut ended } += 1);
    let at_once = if at_once == 0 { total } else { at_once };
    let missing = at_once.saturating_sub(goes).min(total.saturating_sub(ended).saturating_sub(goes));
    let key = |n| SlotKey { run: Some(run), place: Place::Number(n) };
    let is_free = |n: &u64| slots.get(&key(*n)).is_none_or(|s| !s.is_occupied());
    let opening = usize::try_from(missing).unwrap_or(usize::MAX).min(room);
    let free: Vec<u64> = (0..total).filter(is_free).take(opening).collect();
    for n in free {
        slot::at(slots, key(n)).add(context, Next::default());
    }
    missing > opening as u64
}

/// Stops what goes on of other runs. Docker forgets such tasks; in the history of a schedule they stay.
fn stop_others(context: &Context<'_>, slots: &mut Slots) {
    let how = if context.service.spec.cron.is_some() { Stop::Shutdown } else { Stop::Remove };
    for slot in slots.values_mut().filter(|s| s.key.run.is_none_or(|run| !context.runs.contains(&run))) {
        let goes_on = |i: &&mut slot::Item| i.is_wanted() && !i.task.status.state.is_terminal();
        slot.present_mut().filter(goes_on).for_each(|i| i.stop(how));
    }
}

/// How many runs that are over keep their tasks; `None` for all.
pub(crate) fn runs_kept(snapshot: &Snapshot, service: &Service) -> Option<usize> {
    let limit = snapshot.cluster().map_or(limits::TASK_HISTORY_DEFAULT, |c| c.spec.task_history_retention_limit);
    match (&service.spec.cron, &service.spec.mode) {
        (Some(cron), _) => Some(usize::try_from(cron.history).unwrap_or(usize::MAX)),
        // Docker's global jobs forget their earlier runs, its replicated ones never do.
        (None, Mode::GlobalJob) => Some(0),
        (None, _) => usize::try_from(limit).ok(),
    }
}
