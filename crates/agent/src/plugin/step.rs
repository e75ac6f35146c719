//! What to do next with a task that is a plugin: as [`crate::step`] for containers, and pure like it. The texts are those of
//! Docker Swarm's (moby daemon/cluster/controllers/plugin).

use crate::step::{PREPARE_ATTEMPTS_MAX, RETRY_FIRST, RETRY_LAST, Verdict, Wanted, cut};
use engine::EngineError;
use model::{TaskState, TaskStatus, Timestamp};

/// What is known of a task's plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing: it has to be looked at.
    Unknown,
    /// It is not there.
    Absent,
    /// There is one of its name that is not this service's.
    Foreign,
    /// Another task of the service has it: it is none of this task's business any more.
    Handed,
    /// It is there.
    Here {
        /// It runs.
        enabled: bool,
    },
}

/// Everything that decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) wanted: Wanted,
    pub(crate) status: &'a TaskStatus,
    pub(crate) seen: Seen,
    /// It is installed as this task wants it.
    pub(crate) prepared: bool,
    /// It is not to be enabled.
    pub(crate) disabled: bool,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Move(TaskStatus),
    Do(Action),
}

/// Something to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Look at the plugin.
    Look,
    /// Install it, or put the one that is wanted in its place.
    Prepare,
    /// Enable it, or see that it is not enabled.
    Start,
    /// Disable it.
    Stop,
    /// Nothing, until something changes.
    Wait,
    /// Nothing, ever again.
    Finish,
}

/// What comes next for a task.
pub(crate) fn step(view: View<'_>, now: Timestamp) -> Step {
    match view.seen {
        Seen::Unknown => Step::Do(Action::Look),
        _ if view.wanted.is_live() => live(view, now),
        _ => ending(view, now),
    }
}

fn ending(view: View<'_>, now: Timestamp) -> Step {
    match (view.seen, view.status.state.is_terminal()) {
        (Seen::Here { enabled: true }, _) => Step::Do(Action::Stop),
        (_, false) => Step::Move(moved(view, TaskState::Shutdown, "shutdown", now)),
        // Whether the plugin goes is not the task's to say: others of its service may need it.
        (_, true) if view.wanted == Wanted::Forgotten => Step::Do(Action::Finish),
        (_, true) => Step::Do(Action::Wait),
    }
}

fn live(view: View<'_>, now: Timestamp) -> Step {
    use TaskState::{Accepted, Assigned, Preparing, Ready, Running, Starting};
    match (view.status.state, view.seen) {
        (state, Seen::Here { enabled: true }) if state.is_terminal() => Step::Do(Action::Stop),
        (state, _) if state.is_terminal() => Step::Do(Action::Wait),
        (state, _) if state <= Assigned => Step::Move(moved(view, Accepted, "accepted", now)),
        (Accepted, _) => Step::Move(moved(view, Preparing, "preparing", now)),
        (_, Seen::Handed) => Step::Do(Action::Wait),
        (Preparing, Seen::Here { .. }) if view.prepared => Step::Move(moved(view, Ready, "prepared", now)),
        (Preparing, _) => Step::Do(Action::Prepare),
        // Removed by somebody before it was enabled: nothing is lost by installing it again.
        (Ready, Seen::Absent | Seen::Foreign) => Step::Do(Action::Prepare),
        (Ready, _) if view.wanted == Wanted::Ready => Step::Do(Action::Wait),
        (Ready, _) => Step::Move(moved(view, Starting, "starting", now)),
        (state, Seen::Here { enabled }) => match (enabled != view.disabled, state) {
            (true, Running) => Step::Do(Action::Wait),
            (true, _) => Step::Move(moved(view, Running, "started", now)),
            (false, Starting) => Step::Do(Action::Start),
            (false, _) => Step::Move(failed(view, if enabled { "plugin enabled" } else { "plugin disabled" }, now)),
        },
        (_, _) => Step::Move(failed(view, "plugin removed", now)),
    }
}

fn moved(view: View<'_>, state: TaskState, message: &str, now: Timestamp) -> TaskStatus {
    let running_at = view.status.running_at.or((state == TaskState::Running).then_some(now));
    TaskStatus { state, at: now, message: message.to_owned(), running_at, ..TaskStatus::default() }
}

fn failed(view: View<'_>, err: &str, now: Timestamp) -> TaskStatus {
    let state = if view.status.state < TaskState::Starting { TaskState::Rejected } else { TaskState::Failed };
    TaskStatus { err: cut(err.to_owned()), message: view.status.message.clone(), ..moved(view, state, "", now) }
}

/// What a failed [`Action`] means, when it was tried `attempts` times by now.
pub(crate) fn on_error(view: View<'_>, action: Action, error: &EngineError, attempts: u32, now: Timestamp) -> Verdict {
    let doubled = RETRY_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(10));
    let waits = matches!(action, Action::Prepare | Action::Start);
    let retry = || Verdict::Retry { after: doubled.min(RETRY_LAST), note: waits.then(|| cut(error.to_string())) };
    if error.is_engine_away() {
        return retry();
    }
    match action {
        Action::Prepare if matches!(error, EngineError::Failed(_)) && attempts < PREPARE_ATTEMPTS_MAX => retry(),
        Action::Prepare | Action::Start => Verdict::Move(failed(view, &error.to_string(), now)),
        _ => retry(),
    }
}

/// The error of a plugin whose name is taken.
pub(crate) fn taken(name: &str) -> EngineError {
    EngineError::Refused(format!("plugin already exists: {name}"))
}

#[cfg(test)]
mod tests;
