//! The restart supervisor: replaces what ended or lost its node, and lets replacements run when it is their turn.

use crate::service::{Context, is_away};
use crate::slot::{Item, Slot, Slots, Stop};
use model::{Availability, RestartCondition, TaskState, Timestamp, limits};

/// Replaces tasks that ended (after the policy's delay) and tasks whose node is away or drained (at once).
pub(crate) fn replace(context: &mut Context<'_>, slots: &mut Slots) {
    for (number, slot) in slots.iter_mut().filter(|(_, s)| s.is_occupied()) {
        retire(context, slot);
        // In a start-first update the old task goes on alone; the updater decides about another new one.
        if slot.present().any(Item::is_wanted) {
            slot.sort();
            continue;
        }
        let Some(newest) = slot.newest() else { continue };
        if !may_follow(slot, newest) {
            continue;
        }
        let run_after = delay(context, newest);
        slot.add(context.service, *number, run_after, context.now);
    }
}

/// Asks for the end of tasks that ended by themselves or cannot go on where they are.
fn retire(context: &mut Context<'_>, slot: &mut Slot) {
    for item in slot.present_mut().filter(|i| i.is_wanted()) {
        let over = item.task.status.state.is_terminal() && !is_resting(context, item);
        if over || lost_its_node(context, item) {
            item.stop(Stop::Shutdown);
        }
    }
}

/// It ended while it was still waiting for its restart delay (its image cannot be pulled, say). The delay goes on, or such
/// a task would be replaced as fast as it fails.
fn is_resting(context: &mut Context<'_>, item: &Item) -> bool {
    let delay = context.service.spec.task.restart_policy().delay();
    item.task.run_after.is_some_and(|at| !context.is_due(at, delay))
}

fn lost_its_node(context: &Context<'_>, item: &Item) -> bool {
    item.task.node_id.as_ref().is_some_and(|id| {
        let node = context.snapshot.node(id);
        is_away(node) || node.is_some_and(|n| n.spec.availability == Availability::Drain)
    })
}

/// True when the policy lets another task follow the newest one of the slot. A task that was moved away from its node
/// uses up none of the attempts; the condition `none` means that nothing follows, as in Docker.
pub(crate) fn may_follow(slot: &Slot, newest: &Item) -> bool {
    let policy = newest.task.spec.restart_policy();
    match policy.condition() {
        RestartCondition::None => return false,
        RestartCondition::OnFailure if newest.task.status.state == TaskState::Complete => return false,
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

/// When the task that follows may run; `None`: as soon as the slot is free.
fn delay(context: &Context<'_>, newest: &Item) -> Option<Timestamp> {
    if newest.ended_by_itself() {
        let delay = context.service.spec.task.restart_policy().delay();
        (!delay.is_zero()).then(|| context.now.plus(delay))
    } else {
        // It had not begun yet: its own delay is not cut short by a move to another node.
        newest.task.run_after
    }
}

/// Lets replacements run that have waited for their delay and for the end of what they replace.
pub(crate) fn promote(context: &mut Context<'_>, slots: &mut Slots) {
    for slot in slots.values_mut() {
        let Some(i) = slot.items.iter().rposition(|i| i.is_wanted() && i.task.desired == TaskState::Ready) else {
            continue;
        };
        let waiting = slot.items[i].task.clone();
        let delay = context.service.spec.task.restart_policy().delay();
        let rested = waiting.run_after.is_none_or(|at| context.is_due(at, delay));
        let still_stopping = slot.present().any(|o| !o.is_wanted() && is_stopping(context, o));
        if rested && (!still_stopping || context.passed(waiting.meta.created_at, limits::OLD_TASK_TIMEOUT)) {
            let task = slot.items[i].edit();
            task.desired = TaskState::Running;
            task.run_after = None;
        }
    }
}

fn is_stopping(context: &Context<'_>, item: &Item) -> bool {
    let on_a_node = item.task.node_id.as_ref().is_some_and(|id| !is_away(context.snapshot.node(id)));
    on_a_node && !item.task.status.state.is_terminal()
}
