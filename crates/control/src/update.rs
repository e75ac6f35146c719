//! The updater: replaces tasks that are not what the service says, a few at a time. How far it has come is read from the
//! tasks; only its outcome (paused, completed, rolled back) is written down, in the service's update status.

use crate::rebalance;
use crate::restart::{may_follow, pause};
use crate::service::Context;
use crate::slot::{Item, Next, Slot, Slots, Stop};
use model::{
    Dependency, FailureAction, Service, SlotKey, TaskId, TaskState, Timestamp, UpdateConfig, UpdateOrder, UpdateState,
    UpdateStatus, limits,
};
use std::time::Duration;

/// What an update has come to.
struct Progress {
    /// Slots that the update has not come to; those whose old task runs last.
    outdated: Vec<SlotKey>,
    /// Slots that were updated and do not run (and rest) yet.
    busy: usize,
    /// Slots whose old task goes on, as the new one failed before it could take over, and that have waited for the next try like
    /// for any restart.
    tried: Vec<SlotKey>,
    /// All slots that the update is about.
    slots: usize,
    /// A task that failed while it was watched, for each slot that has one.
    failed: Vec<TaskId>,
    /// All tasks that were updated are watched no longer.
    watched: bool,
}

/// For how long new tasks are watched for failure.
#[derive(Debug, Clone, Copy)]
struct Watch {
    /// Each, from when it runs.
    each: Duration,
    /// Once the last one has begun to run: since when, and how long each is watched then. As in Docker, that is longer than the
    /// delay, or a task could fail in the last delay and nobody would look.
    last: Option<(Timestamp, Duration)>,
}

/// Takes the update one step on. The service is returned when its update status (or, in a rollback, its spec) changes.
pub(crate) fn advance(context: &mut Context<'_>, slots: &mut Slots) -> Option<Service> {
    finish_start_first(context, slots);
    let service = context.service;
    let status = service.current_update();
    let state = status.map(|u| u.state);
    let any_outdated = slots.values().any(|s| is_outdated(context, s) && context.is_open(&s.key));
    match state {
        Some(UpdateState::Paused | UpdateState::RollbackPaused) => return None,
        None | Some(UpdateState::Completed | UpdateState::RollbackCompleted) if !any_outdated => return None,
        _ => {}
    }
    let config = config(service);
    let progress = look(context, slots, &config);
    if !progress.failed.is_empty() && state.is_some_and(UpdateState::is_in_progress) && too_many(&progress, &config) {
        match config.failure_action {
            FailureAction::Pause => return Some(paused(context, &progress.failed[0])),
            FailureAction::Rollback if rolling_back(service) => return Some(paused(context, &progress.failed[0])),
            FailureAction::Rollback => {
                let back = roll_back(context, &progress.failed[0]);
                return Some(back.unwrap_or_else(|| paused(context, &progress.failed[0])));
            }
            FailureAction::Continue => {}
        }
    }
    let all_at_once = config.parallelism == 0 || context.canary.ignore_parallelism;
    let width = if all_at_once { usize::MAX } else { usize::try_from(config.parallelism).unwrap_or(usize::MAX) };
    let free = width.saturating_sub(progress.busy).min(context.room);
    // What a new task has failed to take over comes last, or it would hold up all others.
    for key in progress.outdated.iter().chain(&progress.tried).take(free) {
        if let Some(slot) = slots.get_mut(key) {
            replace(context, slot, config.order);
        }
    }
    // As in Docker, an update is over when each slot was tried: a failure that is borne is a matter of restarts from then on.
    let done = progress.outdated.is_empty() && progress.busy == 0 && progress.watched;
    let goes_on = state.is_some_and(UpdateState::is_in_progress);
    match state {
        Some(_) if goes_on => done.then(|| complete(context, slots)),
        Some(_) if progress.outdated.is_empty() => None,
        _ => Some(with_status(context, UpdateState::Updating, "update in progress".into())),
    }
}

/// A rollback is never rolled back, and has a configuration of its own. That still counts for what is tried again when it is over:
/// with another order the old task would be stopped for a new one that has failed, with another watch nobody would know of that.
fn config(service: &Service) -> UpdateConfig {
    let state = service.current_update().map(|u| u.state);
    let back = matches!(state, Some(UpdateState::RollbackStarted | UpdateState::RollbackCompleted));
    let given = if back { &service.spec.rollback } else { &service.spec.update };
    given.clone().unwrap_or_default()
}

fn rolling_back(service: &Service) -> bool {
    service.current_update().is_some_and(|u| u.state == UpdateState::RollbackStarted)
}

/// The slot's present task is not what the service says.
fn is_outdated(context: &Context<'_>, slot: &Slot) -> bool {
    slot.is_occupied() && slot.newest().is_some_and(|i| i.is_dirty(context))
}

/// A task that is not what the service says goes on in the slot, whatever else is tried there.
pub(crate) fn keeps_old(context: &Context<'_>, slot: &Slot) -> bool {
    slot.present().any(|i| i.is_wanted() && i.is_dirty(context))
}

fn look(context: &mut Context<'_>, slots: &Slots, config: &UpdateConfig) -> Progress {
    let service = context.service;
    let watch = watch(context, slots, config);
    let (outdated, failed) = (Vec::new(), Vec::new());
    let mut progress = Progress { outdated, busy: 0, tried: Vec::new(), slots: 0, failed, watched: true };
    let mut running_outdated = Vec::new();
    for slot in slots.values() {
        let Some(newest) = slot.newest().filter(|_| is_concerned(context, slot)) else { continue };
        progress.slots += 1;
        let failed = slot.present().rev().find(|i| failed_while_watched(service, i, watch));
        progress.failed.extend(failed.map(|i| i.task.id.clone()));
        if newest.is_dirty(context) {
            let Some(failed) = failed else {
                let runs = newest.is_wanted() && newest.task.status.state == TaskState::Running;
                if runs { &mut running_outdated } else { &mut progress.outdated }.push(slot.key.clone());
                continue;
            };
            let pause = pause(service, failures(context, slot));
            // Both are asked, so that a wake-up is set for each.
            match (has_rested(context, slot, newest, config.delay), context.passed(failed.task.status.at, pause)) {
                (false, _) => progress.busy += 1,
                (true, false) => {}
                (true, true) => progress.tried.push(slot.key.clone()),
            }
            continue;
        }
        // A failure that is borne is a matter of restarts from then on, as in Docker: the update does not wait for those.
        let over = !newest.is_wanted() && !may_follow(slot, newest);
        if failed.is_some() || over {
            progress.busy += usize::from(!has_rested(context, slot, newest, config.delay));
            continue;
        }
        let since = newest.task.status.running_at.unwrap_or(newest.task.status.at);
        if newest.task.status.state != TaskState::Running || !context.passed(since, config.delay) {
            progress.busy += 1;
        } else if !context.passed(since, watch.last.map_or(watch.each, |(_, longer)| longer)) {
            progress.watched = false;
        }
    }
    progress.outdated.append(&mut running_outdated);
    progress
}

/// The delay has passed since the update was in the slot: since its first new task there ran, or failed before. Those that
/// follow a failed one are restarts, and begin no delay of their own.
fn has_rested(context: &mut Context<'_>, slot: &Slot, newest: &Item, delay: Duration) -> bool {
    let of_update = |i: &&Item| i.ended_by_itself() && i.task.spec_version == context.service.spec_version;
    let status = &slot.present().find(of_update).unwrap_or(newest).task.status;
    context.passed(status.running_at.unwrap_or(status.at), delay)
}

/// The update is about this slot, which had a task that was not what the service says: either it takes another, or the update
/// has been here. (A node may have been paused meanwhile; what has come to it goes on.)
fn is_concerned(context: &Context<'_>, slot: &Slot) -> bool {
    let goes_on = || slot.newest().is_some_and(|i| i.is_wanted() && !i.is_dirty(context));
    let dirty = slot.is_occupied() && slot.present().any(|i| i.is_dirty(context));
    dirty && (context.is_open(&slot.key) || goes_on())
}

fn watch(context: &Context<'_>, slots: &Slots, config: &UpdateConfig) -> Watch {
    let each = config.monitor.unwrap_or(limits::UPDATE_MONITOR_DEFAULT);
    let longer = if config.delay >= each { config.delay + limits::UPDATE_MONITOR_BEYOND_DELAY } else { each };
    let is_new = |i: &&Item| i.task.spec_version == context.service.spec_version;
    let began = |slot: &Slot| {
        let times = slot.present().filter(is_new).filter_map(|i| {
            let status = &i.task.status;
            status.running_at.or_else(|| status.state.is_terminal().then_some(status.at))
        });
        times.min()
    };
    let mut last = Some(Timestamp::default());
    for slot in slots.values().filter(|s| is_concerned(context, s)) {
        last = last.and_then(|at| Some(began(slot)?.max(at)));
    }
    Watch { each, last: last.map(|at| (at, longer)) }
}

/// A task of this very update that ended before it ran, or soon after.
fn failed_while_watched(service: &Service, item: &Item, watch: Watch) -> bool {
    let status = &item.task.status;
    let soon = |ran: Timestamp| {
        let age = status.at.since(ran);
        age <= watch.each || watch.last.is_some_and(|(began, longer)| status.at >= began && age <= longer)
    };
    item.ended_by_itself() && item.task.spec_version == service.spec_version && status.running_at.is_none_or(soon)
}

/// How many tasks of this update have failed in the slot.
fn failures(context: &Context<'_>, slot: &Slot) -> u32 {
    let of_update = |i: &&Item| i.ended_by_itself() && i.task.spec_version == context.service.spec_version;
    u32::try_from(slot.present().filter(of_update).count()).unwrap_or(u32::MAX)
}

fn too_many(progress: &Progress, config: &UpdateConfig) -> bool {
    progress.failed.len() as u128 * 1_000_000 > progress.slots as u128 * u128::from(config.max_failure_ratio_ppm)
}

fn replace(context: &Context<'_>, slot: &mut Slot, order: UpdateOrder) {
    let start_first = order == UpdateOrder::StartFirst;
    let running = |i: &Item| i.is_wanted() && i.task.status.state == TaskState::Running;
    let keep = start_first && slot.present().any(running);
    let mut kept = false;
    for item in slot.present_mut().filter(|i| i.is_wanted()) {
        if keep && !kept && running(item) {
            kept = true;
        } else {
            item.stop(Stop::Shutdown);
        }
    }
    let failures = failures(context, slot);
    slot.add(context, Next { failures, ..Next::default() });
    if kept && let Some(new) = slot.items.last_mut() {
        new.edit().desired = TaskState::Running;
    }
}

/// In a start-first update, and when a task is moved: the old task goes once the new one runs. A slot never has more than two.
fn finish_start_first(context: &Context<'_>, slots: &mut Slots) {
    for slot in slots.values_mut() {
        let wanted = slot.present().filter(|i| i.is_wanted()).count();
        if wanted < 2 {
            continue;
        }
        let newest = rebalance::newest(context.service, slot);
        let newest_is_good = newest.is_some_and(|i| i.task.status.state == TaskState::Running);
        let newest = newest.map(|i| i.task.id.clone());
        let outdated = is_outdated(context, slot);
        for item in slot.present_mut().filter(|i| i.is_wanted()) {
            let is_newest = Some(&item.task.id) == newest.as_ref();
            // Either the new one has made it, or it is outdated itself before it did.
            if newest_is_good && !is_newest || !newest_is_good && outdated && is_newest {
                item.stop(Stop::Shutdown);
            }
        }
        slot.sort();
    }
}

fn with_status(context: &Context<'_>, state: UpdateState, message: String) -> Service {
    let mut service = context.service.clone();
    let started_at = service.current_update().map_or(context.now, |u| u.started_at);
    let spec_version = service.spec_version;
    service.update_status = Some(UpdateStatus { state, started_at, completed_at: None, message, spec_version });
    service
}

fn complete(context: &Context<'_>, slots: &Slots) -> Service {
    let (state, message) = if rolling_back(context.service) {
        (UpdateState::RollbackCompleted, "rollback completed")
    } else {
        (UpdateState::Completed, "update completed")
    };
    // A node that takes no tasks keeps what it has, and nothing has failed there.
    let borne = slots.values().filter(|s| is_concerned(context, s) && keeps_old(context, s));
    let message = match borne.count() {
        0 => message.to_owned(),
        1 => format!("{message}, but for 1 old task that goes on, as what was to replace it failed"),
        n => format!("{message}, but for {n} old tasks that go on, as what was to replace them failed"),
    };
    let mut service = with_status(context, state, message);
    if let Some(status) = &mut service.update_status {
        status.completed_at = Some(context.now);
    }
    service
}

fn paused(context: &Context<'_>, failed: &TaskId) -> Service {
    let (state, what) = if rolling_back(context.service) {
        (UpdateState::RollbackPaused, "rollback")
    } else {
        (UpdateState::Paused, "update")
    };
    with_status(context, state, format!("{what} paused due to failure or early termination of task {failed}"))
}

/// The service as it was before; `None` when there is no before, when a secret or config that it used is gone, or when the
/// cluster's policy allows no more what it had of its nodes.
fn roll_back(context: &Context<'_>, failed: &TaskId) -> Option<Service> {
    let mut service = context.service.clone();
    let previous = service.previous_spec.take()?;
    let is_gone = |of: &Dependency| context.snapshot.get(&of.into()).is_none();
    if previous.task.dependencies().any(|of| is_gone(&of)) {
        return None;
    }
    // What the cluster's policy allowed then it may not allow now.
    let policy = context.snapshot.cluster().map(|c| c.spec.policy.host.clone()).unwrap_or_default();
    if previous.task.container().is_some_and(|c| policy.check(&c.host_access).is_err()) {
        return None;
    }
    let refused = std::mem::replace(&mut service.spec, previous);
    crate::grants::replace_forgotten(context.snapshot, &mut service.spec);
    if !refused.task.payloads().eq(service.spec.task.payloads()) {
        // Says which data was taken back, so that it is not rolled out again.
        service.previous_spec = Some(refused);
    }
    service.spec_version += 1;
    service.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: context.now,
        completed_at: None,
        message: format!("update rolled back due to failure or early termination of task {failed}"),
        spec_version: service.spec_version,
    });
    Some(service)
}
