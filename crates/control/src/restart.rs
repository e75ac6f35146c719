//! The restart supervisor: replaces what ended or lost its node, and lets replacements run when it is their turn.

use crate::enforce;
use crate::service::{Context, is_away};
use crate::slot::{Item, Next, Slot, Slots, Stop};
use model::{Availability, RestartCondition, Service, TaskState, limits};
use std::time::Duration;

/// Replaces tasks that ended (after the policy's delay) and tasks whose node is away or drained (at once).
pub(crate) fn replace(context: &mut Context<'_>, slots: &mut Slots) {
    for slot in slots.values_mut().filter(|s| s.is_occupied()) {
        retire(context, slot);
        // In a start-first update the old task goes on alone; the updater decides about another new one.
        if slot.is_wanted() {
            slot.sort();
            continue;
        }
        let Some(newest) = slot.newest().filter(|_| context.is_open(&slot.key)) else { continue };
        if !may_follow(slot, newest) {
            continue;
        }
        let next = next(context, newest);
        slot.add(context, next);
    }
}

/// Asks for the end of tasks that ended by themselves or cannot go on where they are.
fn retire(context: &mut Context<'_>, slot: &mut Slot) {
    // A job's task that ended well is what was wanted.
    for item in slot.present_mut().filter(|i| i.is_wanted() && !is_done(i)) {
        let over = item.task.status.state.is_terminal() && !is_resting(context, item);
        if over || lost_its_node(context, item) {
            item.stop(Stop::Shutdown);
        } else if enforce::must_leave(context.snapshot, context.service, &item.task) {
            item.stop(Stop::Shutdown);
            enforce::say_why(item);
        }
    }
}

fn is_done(item: &Item) -> bool {
    item.task.job_iteration.is_some() && item.task.status.state == TaskState::Complete
}

/// It ended while it was still waiting for its restart delay (its image cannot be pulled, say). The delay goes on, or such
/// a task would be replaced as fast as it fails.
fn is_resting(context: &mut Context<'_>, item: &Item) -> bool {
    let pause = pause(context.service, item.task.failures);
    item.task.run_after.is_some_and(|at| !context.is_due(at, pause))
}

fn lost_its_node(context: &Context<'_>, item: &Item) -> bool {
    item.task.node_id.as_ref().is_some_and(|id| {
        let node = context.snapshot.node(id);
        is_away(node)
            || !context.canary.keep_drained && node.is_some_and(|n| n.spec.availability == Availability::Drain)
    })
}

/// True when the policy lets another task follow the newest one of the slot. A task that was moved away from its node
/// uses up none of the attempts; the condition `none` means that nothing follows, as in Docker.
pub(crate) fn may_follow(slot: &Slot, newest: &Item) -> bool {
    let policy = newest.task.spec.restart_policy();
    match policy.condition() {
        RestartCondition::None => return false,
        RestartCondition::OnFailure if newest.task.status.state == TaskState::Complete => return false,
        RestartCondition::Any if is_done(newest) => return false,
        RestartCondition::OnFailure | RestartCondition::Any => {}
    }
    let max_attempts = policy.max_attempts.unwrap_or(0);
    if max_attempts == 0 || !newest.ended_by_itself() {
        return true;
    }
    let window = policy.window.filter(|w| !w.is_zero());
    let end = newest.task.status.at;
    let counts = |i: &&Item| {
        let recent = window.is_none_or(|w| end.since(i.task.status.at) <= w);
        i.ended_by_itself() && i.task.spec_version == newest.task.spec_version && recent
    };
    // The first one was no restart.
    slot.present().filter(counts).count() as u64 <= max_attempts
}

/// What the task that follows takes over: when it may run (`None`: as soon as the slot is free), and how many before it failed
/// in a row.
fn next(context: &Context<'_>, newest: &Item) -> Next {
    if !newest.ended_by_itself() {
        // It had not begun yet: its own delay is not cut short by a move to another node.
        return Next { run_after: newest.task.run_after, failures: newest.task.failures };
    }
    // What the user has changed since may be the cure.
    let failures = if newest.is_dirty(context) { 0 } else { failures_with(context.service, newest) };
    let pause = pause(context.service, failures);
    Next { run_after: (!pause.is_zero()).then(|| context.now.plus(pause)), failures }
}

/// How many tasks of a slot have failed in a row once this one has ended. One that ran for long (a minute, and as long as the
/// pause before it) is the first again.
fn failures_with(service: &Service, item: &Item) -> u32 {
    let (task, status) = (&item.task, &item.task.status);
    let ran = status.running_at.map_or(Duration::ZERO, |since| status.at.since(since));
    let long = limits::RESTART_RAN_WELL.max(pause(service, task.failures));
    match status.state {
        TaskState::Failed | TaskState::Rejected if ran >= long => 1,
        TaskState::Failed | TaskState::Rejected => task.failures.saturating_add(1),
        _ => 0,
    }
}

/// The pause before the task that follows so many failures in a row. After the first it is the policy's, as in Docker; it
/// doubles with each further one, up to the service's bound (or the policy's delay, if that is longer). A policy that counts
/// attempts within a window is kept to the letter: with longer pauses it would never count enough of them.
pub(crate) fn pause(service: &Service, failures: u32) -> Duration {
    let policy = service.spec.task.restart_policy();
    let (delay, backoff) = (policy.delay(), &service.spec.backoff);
    let counts = policy.max_attempts.is_some_and(|n| n > 0) && policy.window.is_some_and(|w| !w.is_zero());
    let grows = backoff.on && !counts;
    let Some(doublings) = failures.checked_sub(1).filter(|n| *n > 0 && grows) else { return delay };
    let grown = delay.max(limits::RESTART_BACKOFF_MIN).saturating_mul(1 << doublings.min(20));
    grown.min(backoff.max).max(delay)
}

/// Lets replacements run that have waited for their delay and for the end of what they replace.
pub(crate) fn promote(context: &mut Context<'_>, slots: &mut Slots) {
    for slot in slots.values_mut() {
        let Some(i) = slot.items.iter().rposition(|i| i.is_wanted() && i.task.desired == TaskState::Ready) else {
            continue;
        };
        let waiting = slot.items[i].task.clone();
        let pause = pause(context.service, waiting.failures);
        let rested = waiting.run_after.is_none_or(|at| context.is_due(at, pause));
        let still_stopping = slot.present().any(|o| !o.is_wanted() && is_stopping(context, o));
        if rested && (!still_stopping || context.passed(waiting.meta.created_at, limits::OLD_TASK_TIMEOUT)) {
            let task = slot.items[i].edit();
            task.desired = if task.job_iteration.is_some() { TaskState::Complete } else { TaskState::Running };
            task.run_after = None;
        }
    }
}

fn is_stopping(context: &Context<'_>, item: &Item) -> bool {
    let on_a_node = item.task.node_id.as_ref().is_some_and(|id| !is_away(context.snapshot.node(id)));
    on_a_node && !item.task.status.state.is_terminal()
}
