//! What an update waits for.

use super::Asking;
use super::task::left;
use super::words::span;
use crate::dirty::is_up_to_date;
use crate::slot::{Item, Slot, Slots};
use crate::words::several;
use model::{TaskState, UpdateConfig, UpdateState, limits};

/// What the update (or rollback) of the service waits for; empty when none is under way and none is paused.
pub(super) fn waits_for(asking: &Asking<'_>, slots: &Slots) -> String {
    let service = asking.service;
    let Some(status) = service.current_update() else { return String::new() };
    let rollback = matches!(status.state, UpdateState::RollbackStarted | UpdateState::RollbackPaused);
    let what = if rollback { "rollback" } else { "update" };
    match status.state {
        UpdateState::Completed | UpdateState::RollbackCompleted => return String::new(),
        // Docker's own words say why.
        UpdateState::Paused | UpdateState::RollbackPaused => {
            return format!("{}; it goes on with the next change of the service", status.message);
        }
        UpdateState::Updating | UpdateState::RollbackStarted => {}
    }
    let config = if rollback { &service.spec.rollback } else { &service.spec.update };
    let config = config.clone().unwrap_or_default();
    let occupied: Vec<&Slot> = slots.values().filter(|s| s.is_occupied()).collect();
    let is_new = |s: &&&Slot| s.newest().is_some_and(|i| is_up_to_date(asking.snapshot, service, &i.task));
    let new: Vec<&Slot> = occupied.iter().filter(is_new).copied().collect();
    let came = format!("{what}: {} of {} updated", new.len(), several(occupied.len(), "task", "tasks"));
    let waits = busy(asking, &new).or_else(|| rests(asking, &new, &config, new.len() < occupied.len()));
    match waits {
        Some(waits) => format!("{came}; {waits}"),
        None => came,
    }
}

/// The first new task that does not run yet. Where one has failed before, the update waits for none any more.
fn busy(asking: &Asking<'_>, new: &[&Slot]) -> Option<String> {
    let runs = |s: &Slot| s.newest().is_some_and(|i| !i.is_wanted() || i.task.status.state == TaskState::Running);
    let waiting: Vec<&&Slot> = new.iter().filter(|s| !runs(s) && first_failed(asking, s).is_none()).collect();
    let first = waiting.first()?.newest()?;
    let more = match waiting.len() - 1 {
        0 => String::new(),
        n => format!(" and {}", several(n, "other", "others")),
    };
    let until = if first.task.desired < TaskState::Running { "start" } else { "run" };
    Some(format!("waits for {}{more} to {until} ({})", asking.names.exactly(&first.task), first.task.status.state))
}

/// All new tasks run: what is left of the delay between two batches, or of the time for which they are watched.
fn rests(asking: &Asking<'_>, new: &[&Slot], config: &UpdateConfig, more: bool) -> Option<String> {
    let monitor = config.monitor.unwrap_or(limits::UPDATE_MONITOR_DEFAULT);
    let of_update = |s: &&&Slot| s.newest().is_some_and(|i| i.task.spec_version == asking.service.spec_version);
    let since = |s: &&Slot| {
        let status = &first_failed(asking, s).or_else(|| s.newest())?.task.status;
        status.running_at.or_else(|| status.state.is_terminal().then_some(status.at))
    };
    let last = new.iter().filter(of_update).filter_map(since).max()?;
    let (time, what) = if more && !config.delay.is_zero() {
        (left(asking, last, config.delay), "of the delay between two tasks")
    } else {
        (left(asking, last, monitor), "in which the last new task is watched")
    };
    (!time.is_zero()).then(|| format!("{} left {what}", span(time)))
}

/// The first task of the update that failed in the slot.
fn first_failed<'s>(asking: &Asking<'_>, slot: &'s Slot) -> Option<&'s Item> {
    slot.present().find(|i| i.ended_by_itself() && i.task.spec_version == asking.service.spec_version)
}
