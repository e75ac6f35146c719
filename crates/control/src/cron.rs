//! Jobs with a schedule: when their runs begin.
//!
//! Up to when the schedule was followed stands in the service, and rises in the commit that begins a run. So no time is run
//! twice, whoever leads, and a leader that comes late finds the times that nobody has looked at.

use crate::job;
use crate::slot::Slots;
use model::{Concurrency, CronSpec, CronState, JobRun, Service, Timestamp, limits};
use std::collections::BTreeMap;
use std::time::Duration;
use store::Snapshot;

/// Times that are counted one by one when they were missed. Of a longer gap not every minute matters.
const MISSED_MAX: usize = 1000;
/// A schedule cannot have been followed further ahead than this: the clock that said so was wrong, and is right again. Managers'
/// clocks differ by less; and a job that is run twice is better than one that is silent for as long as a clock was wrong.
const AHEAD_MAX: Duration = Duration::from_secs(600);

/// What the schedule asks for now.
pub(crate) struct Due {
    /// The service with another run, or with times that were left out; `None` when it stays.
    pub(crate) service: Option<Service>,
    /// When to look at the schedule again; `now` when there is more already.
    pub(crate) wake_at: Option<Timestamp>,
}

/// Follows the service's schedule by at most one run.
pub(crate) fn advance(snapshot: &Snapshot, service: &Service, slots: &Slots, now: Timestamp) -> Due {
    let Some(cron) = service.spec.cron.as_ref().filter(|_| service.spec.mode.is_job()) else {
        let stale = service.progress.cron.is_some().then(|| {
            let mut service = service.clone();
            service.progress.cron = None;
            service
        });
        return Due { service: stale, wake_at: None };
    };
    let mut state = state(service, cron, now);
    let oldest = Timestamp(now.0.saturating_sub(u64::try_from(cron.missed_run_window.as_nanos()).unwrap_or(u64::MAX)));
    skip_missed(cron, &mut state, oldest);
    let forced = service.spec.task.force_update > state.forced;
    state.forced = service.spec.task.force_update;
    let next = cron.next_after(state.considered_until);
    let due = next.filter(|at| *at <= now);
    let mut begins = forced;
    if let Some(at) = due {
        state.considered_until = at;
        begins |= may_begin(snapshot, service, cron, &state, slots);
        state.left_out += u64::from(!begins);
    }
    let wake_at = if due.is_some() { Some(now) } else { next };
    if !begins && service.progress.cron.as_ref() == Some(&state) {
        return Due { service: None, wake_at };
    }
    let mut service = service.clone();
    if begins {
        let iteration = next_iteration(&service, slots);
        state.open = match cron.concurrency {
            Concurrency::Replace => BTreeMap::new(),
            Concurrency::Allow | Concurrency::Forbid => still_open(snapshot, &service, slots),
        };
        state.open.insert(iteration, service.spec.mode.completions());
        state.started = Some(iteration);
        service.progress.job = Some(JobRun { iteration, last_execution: now });
    }
    service.progress.cron = Some(state);
    Due { service: Some(service), wake_at }
}

/// How far the schedule was followed. A new one begins with the change that brought it.
fn state(service: &Service, cron: &CronSpec, now: Timestamp) -> CronState {
    let followed = format!("{} {}", cron.schedule, cron.timezone);
    let began = service.meta.updated_at.min(now);
    let mut state = match &service.progress.cron {
        Some(state) => state.clone(),
        None => CronState { forced: service.spec.task.force_update, ..CronState::default() },
    };
    if state.followed != followed {
        state.considered_until = state.considered_until.max(began);
        state.followed = followed;
    }
    if state.considered_until.since(now) > AHEAD_MAX {
        state.considered_until = now;
    }
    state
}

/// Leaves out what is too late.
fn skip_missed(cron: &CronSpec, state: &mut CronState, oldest: Timestamp) {
    for _ in 0..MISSED_MAX {
        let Some(at) = cron.next_after(state.considered_until).filter(|at| *at < oldest) else { return };
        state.considered_until = at;
        state.left_out += 1;
    }
    let before_oldest = Timestamp(oldest.0.saturating_sub(1));
    state.considered_until = state.considered_until.max(before_oldest);
}

fn may_begin(snapshot: &Snapshot, service: &Service, cron: &CronSpec, state: &CronState, slots: &Slots) -> bool {
    let goes_on = |run: &u64| !job::is_over(snapshot, service, slots, *run);
    match cron.concurrency {
        Concurrency::Forbid => !state.started.is_some_and(|run| goes_on(&run)),
        Concurrency::Allow => {
            job::runs(snapshot, service, slots).iter().filter(|r| goes_on(r)).count() < limits::CRON_RUNS_MAX
        }
        Concurrency::Replace => true,
    }
}

/// The runs that are not over, and how many of their tasks have to end well.
fn still_open(snapshot: &Snapshot, service: &Service, slots: &Slots) -> BTreeMap<u64, u64> {
    let runs = job::runs(snapshot, service, slots).into_iter();
    let goes_on = runs.filter(|run| !job::is_over(snapshot, service, slots, *run));
    goes_on.map(|run| (run, service.completions_of(run))).collect()
}

/// The number of the next run. An update of the service has raised it already when no run has it.
fn next_iteration(service: &Service, slots: &Slots) -> u64 {
    let Some(job) = service.progress.job else { return 0 };
    let started = service.progress.cron.as_ref().and_then(|c| c.started);
    let used = started == Some(job.iteration) || job::runs_of(slots).any(|run| run >= job.iteration);
    if used { job.iteration + 1 } else { job.iteration }
}
