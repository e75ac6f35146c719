//! The reaper: forgets tasks that nobody needs to know of any more.

use crate::service::{Context, is_away};
use crate::slot::{Item, Slot, Slots, Stop};
use crate::{job, update};
use model::{TaskId, TaskState, UpdateState, limits};
use std::collections::BTreeSet;
use store::Snapshot;

/// Gives up tasks whose node was removed, or was away for a day.
pub(crate) fn orphan(context: &mut Context<'_>, slots: &mut Slots) {
    for item in slots.values_mut().flat_map(|s| &mut s.items).filter(|i| i.is_present() && !i.is_wanted()) {
        let Some(id) = item.task.node_id.as_ref().filter(|_| !item.task.status.state.is_terminal()) else { continue };
        let lost = match context.snapshot.node(id) {
            None => true,
            // The node's last change is when it went down, or later.
            node @ Some(n) => is_away(node) && context.passed(n.meta.updated_at, limits::NODE_ORPHAN_PERIOD),
        };
        if lost {
            let now = context.now;
            let status = &mut item.edit().status;
            status.state = TaskState::Orphaned;
            status.at = now;
            status.message = "node is gone: what became of the task is not known".into();
        }
    }
}

/// Deletes tasks of slots that are gone, once they are over, or when there is nobody who could say so.
pub(crate) fn reap_removed(snapshot: &Snapshot, slots: &mut Slots) {
    for item in slots.values_mut().flat_map(|s| &mut s.items).filter(|i| i.is_present()) {
        let nobody = item.task.node_id.as_ref().is_none_or(|n| is_away(snapshot.node(n)));
        if item.task.desired == TaskState::Remove && (nobody || item.task.status.state.is_terminal()) {
            item.remove();
        }
    }
}

/// Deletes the oldest dead tasks of each slot beyond what the cluster keeps: so many with the present one, and enough to
/// count the attempts of a restart policy.
pub(crate) fn bound_history(context: &Context<'_>, slots: &mut Slots) {
    let limit =
        context.snapshot.cluster().map_or(limits::TASK_HISTORY_DEFAULT, |c| c.spec.task_history_retention_limit);
    let Ok(limit) = usize::try_from(limit) else { return };
    let attempts = context.service.spec.task.restart_policy().max_attempts.unwrap_or(0);
    let attempts = if attempts == 0 { 0 } else { usize::try_from(attempts).unwrap_or(usize::MAX).saturating_add(1) };
    let keep = limit.max(attempts);
    let update = context.service.current_update().map(|u| u.state);
    let updating = update.is_some_and(UpdateState::is_in_progress);
    for slot in slots.values_mut() {
        // Also an update that is over goes on trying where it has failed.
        let tries = updating || update.is_some() && update::keeps_old(context, slot);
        let evidence = if tries { evidence(context, slot) } else { BTreeSet::new() };
        bound(slot, keep, &evidence);
    }
}

/// What an update that goes on is judged by: that the slot was something else before, that a task of the update failed there,
/// and since when the update has been there: the first one that failed says so. The last one, by its time and by the log, is
/// what the next one follows ([`Slot::add`]), though the slot's old task may go on beside them. Without it the outcome would depend on when the reaper comes by.
fn evidence(context: &Context<'_>, slot: &Slot) -> BTreeSet<TaskId> {
    let of_update = |i: &Item| i.task.spec_version == context.service.spec_version;
    let before = slot.present().rev().find(|i| !of_update(i) && i.is_dirty(context));
    let mut failed = slot.present().filter(|i| of_update(i) && i.ended_by_itself());
    let (first, last) = (failed.next(), failed.next_back());
    let of_update = || slot.present().filter(|i| of_update(i));
    let (youngest, changed) =
        (of_update().max_by_key(|i| i.task.meta.created_at), of_update().max_by_key(|i| i.task.meta.version));
    [before, first, last, youngest, changed].into_iter().flatten().map(|i| i.task.id.clone()).collect()
}

/// Gives up the tasks of runs of a job beyond what is kept of those that are over.
pub(crate) fn bound_runs(context: &Context<'_>, slots: &mut Slots) {
    let Some(keep) = job::runs_kept(context.snapshot, context.service) else { return };
    let runs: BTreeSet<u64> = job::runs_of(slots).collect();
    let over = runs.into_iter().rev().filter(|r| !context.runs.contains(r) || is_over(context, slots, *r));
    // The last run says that it was: without its tasks it would begin again.
    let last = context.runs.last().copied();
    let gone: Vec<u64> = over.skip(keep).filter(|r| Some(*r) != last).collect();
    for slot in slots.values_mut().filter(|s| s.key.run.is_some_and(|run| gone.contains(&run))) {
        slot.present_mut().for_each(|i| i.stop(Stop::Remove));
    }
}

fn is_over(context: &Context<'_>, slots: &Slots, run: u64) -> bool {
    job::is_over(context.snapshot, context.service, slots, run)
}

fn bound(slot: &mut Slot, keep: usize, evidence: &BTreeSet<TaskId>) {
    let present = slot.present().count();
    // The newest one speaks for the slot, even if it is dead and nothing is to be kept.
    let excess = present.saturating_sub(keep).min(present.saturating_sub(1));
    if excess == 0 {
        return;
    }
    let newest = slot.newest().map(|i| i.task.id.clone());
    let dead = |i: &&mut Item| {
        let spoken_for = Some(&i.task.id) == newest.as_ref() || evidence.contains(&i.task.id);
        !i.task.is_wanted() && i.task.status.state.is_terminal() && !spoken_for
    };
    slot.present_mut().filter(dead).take(excess).for_each(Item::remove);
}
