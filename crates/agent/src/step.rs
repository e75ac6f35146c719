//! What to do next with a task: a pure function of what is wanted, what was reached, and what the engine shows.
//!
//! The states and their texts are SwarmKit's (agent/exec/controller.go, moby daemon/cluster/executor/container). A task is
//! `Rejected` when it could not be prepared and `Failed` when it ended badly once it was to be started; the message of the last
//! good state stays, and the error says what went wrong.

use crate::facts;
use engine::{ContainerPhase, ContainerState, EngineError, Health};
use model::{ContainerStatus, Task, TaskState, TaskStatus, Timestamp, limits};
use std::time::Duration;

/// Attempts to prepare a task when the engine itself fails; then another node may do better.
pub const PREPARE_ATTEMPTS_MAX: u32 = 5;
/// Pause before the second attempt of a call; doubles with each.
pub const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between two attempts.
pub const RETRY_LAST: Duration = Duration::from_secs(5);

/// What is wanted of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Prepared, but not started yet.
    Ready,
    /// Running.
    Running,
    /// Stopped; its container is kept for its output.
    Stopped,
    /// Stopped, and its container removed; the agent still answers for its status.
    Removed,
    /// It is not in the set any more: stopped, removed and forgotten.
    Forgotten,
}

/// What is known of a task's container.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// Nothing: it has to be looked at.
    Unknown,
    /// It is not there.
    Absent,
    /// It is there.
    Present(ContainerState),
}

/// Everything that decides.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The task.
    pub task: &'a Task,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// What was reached.
    pub status: &'a TaskStatus,
    /// What the engine showed.
    pub seen: &'a Seen,
    /// Its container was stopped because it was unhealthy (engines differ in what they say of a stopped container's health).
    pub was_unhealthy: bool,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The task has this status now.
    Move(TaskStatus),
    /// Something has to be done.
    Do(Action),
}

/// Something to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Find its container and look at it.
    Look,
    /// Pull the image and create the container.
    Prepare,
    /// Start the container.
    Start,
    /// Stop the container; `unhealthy` when that is why.
    Stop {
        /// Time between the signal and the kill.
        grace: Duration,
        /// It is stopped because it is unhealthy.
        unhealthy: bool,
    },
    /// Remove the container.
    Remove,
    /// Nothing, until something changes.
    Wait,
    /// Nothing, ever again.
    Finish,
}

/// What a failed call means for its task.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Try again after this pause; `note` is what to tell people meanwhile.
    Retry {
        /// The pause.
        after: Duration,
        /// The error, as far as it is the task's business.
        note: Option<String>,
    },
    /// The task has this status now.
    Move(TaskStatus),
}

// === impl Wanted ===

impl Wanted {
    /// What the desired state of a task in the set asks for.
    pub fn of(desired: TaskState) -> Wanted {
        match desired {
            TaskState::Running | TaskState::Complete => Wanted::Running,
            TaskState::Remove => Wanted::Removed,
            d if d < TaskState::Running => Wanted::Ready,
            _ => Wanted::Stopped,
        }
    }

    /// True when the task should run, now or later.
    pub fn is_live(self) -> bool {
        matches!(self, Wanted::Ready | Wanted::Running)
    }
}

/// What comes next for a task. The result is a status that [`TaskState::may_move`] allows the agent, or an action.
pub fn step(view: View<'_>, now: Timestamp) -> Step {
    if *view.seen == Seen::Unknown {
        return Step::Do(Action::Look);
    }
    if view.wanted.is_live() { live(view, now) } else { ending(view, now) }
}

fn ending(view: View<'_>, now: Timestamp) -> Step {
    let Seen::Present(container) = view.seen else {
        return match (view.status.state.is_terminal(), view.wanted) {
            (false, _) => Step::Move(moved(view, TaskState::Shutdown, "shutdown", now)),
            (true, Wanted::Forgotten) => Step::Do(Action::Finish),
            (true, _) => Step::Do(Action::Wait),
        };
    };
    if container.phase == ContainerPhase::Running {
        return stop(view, false);
    }
    match (view.status.state.is_terminal(), view.wanted) {
        (false, _) => Step::Move(moved(view, TaskState::Shutdown, "shutdown", now)),
        (true, Wanted::Removed | Wanted::Forgotten) => Step::Do(Action::Remove),
        (true, _) => Step::Do(Action::Wait),
    }
}

fn live(view: View<'_>, now: Timestamp) -> Step {
    use TaskState::{Accepted, Assigned, Preparing, Ready, Starting};
    match (view.status.state, view.seen) {
        (state, Seen::Present(c)) if state.is_terminal() && c.phase == ContainerPhase::Running => stop(view, false),
        (state, _) if state.is_terminal() => Step::Do(Action::Wait),
        (state, _) if state <= Assigned => Step::Move(match facts::resolve(view.task) {
            Ok(()) => moved(view, Accepted, "accepted", now),
            Err(why) => TaskStatus { message: "resolving controller failed".to_owned(), ..failed(view, why, now) },
        }),
        (Accepted, _) => Step::Move(moved(view, Preparing, "preparing", now)),
        (Preparing, Seen::Present(_)) => Step::Move(moved(view, Ready, "prepared", now)),
        // Ready without a container: somebody removed it before it was started. Nothing is lost by making another.
        (Preparing | Ready, _) => {
            if matches!(view.seen, Seen::Absent) {
                Step::Do(Action::Prepare)
            } else if view.wanted == Wanted::Ready {
                Step::Do(Action::Wait)
            } else {
                Step::Move(moved(view, Starting, "starting", now))
            }
        }
        (_, Seen::Present(container)) => started(view, container, now),
        (_, _) => Step::Move(failed(view, format!("No such container: {}", view.task.name()), now)),
    }
}

/// In `Starting` or `Running`, with a container.
fn started(view: View<'_>, container: &ContainerState, now: Timestamp) -> Step {
    let running = view.status.state == TaskState::Running;
    match container.phase {
        ContainerPhase::Exited => Step::Move(ended(view, container, now)),
        // An engine keeps the error of a failed start with the container.
        ContainerPhase::Created if running || !container.error.is_empty() => {
            let why = match container.error.as_str() {
                "" => "the container was never started".to_owned(),
                why => not_started(why),
            };
            Step::Move(failed(view, why, now))
        }
        ContainerPhase::Created => Step::Do(Action::Start),
        ContainerPhase::Running if container.health == Health::Unhealthy => stop(view, true),
        ContainerPhase::Running if running => {
            let status = moved(view, TaskState::Running, "started", now);
            // Somebody restarted the container by hand: a new process, maybe new ports, the same task.
            let same = status.container == view.status.container && status.ports == view.status.ports;
            if same { Step::Do(Action::Wait) } else { Step::Move(TaskStatus { at: view.status.at, ..status }) }
        }
        ContainerPhase::Running if container.health == Health::Starting => Step::Do(Action::Wait),
        ContainerPhase::Running => Step::Move(moved(view, TaskState::Running, "started", now)),
    }
}

fn ended(view: View<'_>, container: &ContainerState, now: Timestamp) -> TaskStatus {
    let unhealthy = view.was_unhealthy || container.health == Health::Unhealthy;
    // An engine that does not know how a container ended must not make it a success.
    let code = container.exit_code.unwrap_or(-1);
    if code == 0 && !unhealthy && container.error.is_empty() {
        return moved(view, TaskState::Complete, "finished", now);
    }
    let cause = if unhealthy { "dockerexec: unhealthy container" } else { &container.error };
    let cause = if cause.is_empty() { String::new() } else { format!(": {cause}") };
    failed(view, format!("task: non-zero exit ({code}){cause}"), now)
}

fn stop(view: View<'_>, unhealthy: bool) -> Step {
    let grace = view.task.spec.stop_grace_period();
    Step::Do(Action::Stop { grace, unhealthy })
}

fn moved(view: View<'_>, state: TaskState, message: &str, now: Timestamp) -> TaskStatus {
    let (container, ports) = match view.seen {
        Seen::Present(c) => {
            let status = ContainerStatus { id: c.id.clone(), pid: c.pid, exit_code: c.exit_code };
            let ports = if c.phase == ContainerPhase::Running { c.ports.clone() } else { Vec::new() };
            (Some(status), ports)
        }
        // What is known of a container outlives it, for whoever looks at the task later.
        _ => (view.status.container.clone().map(|c| ContainerStatus { pid: 0, ..c }), Vec::new()),
    };
    let running_at = view.status.running_at.or((state == TaskState::Running).then_some(now));
    TaskStatus { state, at: now, message: message.to_owned(), err: String::new(), running_at, container, ports }
}

fn failed(view: View<'_>, err: String, now: Timestamp) -> TaskStatus {
    let state = if view.status.state < TaskState::Starting { TaskState::Rejected } else { TaskState::Failed };
    TaskStatus { err: cut(err), message: view.status.message.clone(), ..moved(view, state, "", now) }
}

/// What a failed [`Action`] means, when it was tried `attempts` times by now.
pub fn on_error(view: View<'_>, action: Action, error: &EngineError, attempts: u32, now: Timestamp) -> Verdict {
    let doubled = RETRY_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(10));
    // A task that waits for its container says why; one that runs does not suffer from an engine that is away.
    let waits = matches!(action, Action::Prepare | Action::Start);
    let retry = || Verdict::Retry { after: doubled.min(RETRY_LAST), note: waits.then(|| cut(error.to_string())) };
    if error.is_engine_away() {
        return retry();
    }
    match action {
        Action::Prepare if matches!(error, EngineError::Failed(_)) && attempts < PREPARE_ATTEMPTS_MAX => retry(),
        Action::Prepare => Verdict::Move(failed(view, error.to_string(), now)),
        Action::Start => Verdict::Move(failed(view, not_started(&error.to_string()), now)),
        // Whatever else fails (looking, stopping, removing) has to be done all the same.
        _ => retry(),
    }
}

/// Docker's words for a container that could not be started (moby daemon/cluster/executor/container/controller.go).
fn not_started(why: &str) -> String {
    format!("starting container failed: {why}")
}

/// Cuts a text at the limit, at a character's end.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > limits::STATUS_TEXT_BYTES_MAX {
        let end =
            (0..=limits::STATUS_TEXT_BYTES_MAX - '…'.len_utf8()).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
