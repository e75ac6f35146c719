use super::*;
use model::Owner;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(7);
const ON: Seen = Seen::Here { enabled: true };
const OFF: Seen = Seen::Here { enabled: false };

fn status(state: TaskState) -> TaskStatus {
    TaskStatus { state, message: format!("was {state}"), ..TaskStatus::default() }
}

fn view(wanted: Wanted, status: &TaskStatus, seen: Seen) -> View<'_> {
    View { wanted, status, seen, prepared: false, disabled: false }
}

/// `running "started"`, `failed "…" err`, `wait`: one line for a step.
fn line(step: &Step) -> String {
    match step {
        Step::Do(action) => format!("{action:?}").to_lowercase(),
        Step::Move(s) if s.err.is_empty() => format!("{} `{}`", s.state, s.message),
        Step::Move(s) => format!("{} `{}` err `{}`", s.state, s.message, s.err),
    }
}

#[test]
fn the_life_of_a_plugin() {
    use TaskState::{Accepted, Assigned, Failed, Orphaned, Preparing, Ready, Running, Shutdown, Starting};
    use Wanted::{Forgotten, Ready as WReady, Removed, Running as WRunning, Stopped};
    for (wanted, state, seen, expected) in [
        // Nothing is decided without having looked.
        (WRunning, Running, Seen::Unknown, "look"),
        (Forgotten, Running, Seen::Unknown, "look"),
        // Up.
        (WReady, Assigned, Seen::Absent, "accepted `accepted`"),
        (WReady, Accepted, Seen::Absent, "preparing `preparing`"),
        (WReady, Preparing, Seen::Absent, "prepare"),
        (WReady, Preparing, ON, "prepare"),
        (WReady, Preparing, Seen::Foreign, "prepare"),
        (WReady, Ready, OFF, "wait"),
        (WReady, Ready, Seen::Absent, "prepare"),
        (WRunning, Ready, OFF, "starting `starting`"),
        (WRunning, Starting, OFF, "start"),
        (WRunning, Starting, ON, "running `started`"),
        (WRunning, Running, ON, "wait"),
        // Somebody does something by hand.
        (WRunning, Running, OFF, "failed `was running` err `plugin disabled`"),
        (WRunning, Running, Seen::Absent, "failed `was running` err `plugin removed`"),
        (WRunning, Running, Seen::Foreign, "failed `was running` err `plugin removed`"),
        (WRunning, Starting, Seen::Absent, "failed `was starting` err `plugin removed`"),
        (WRunning, Failed, OFF, "wait"),
        (WRunning, Orphaned, ON, "stop"),
        // A newer task has it: this one does nothing of its own any more.
        (WRunning, Running, Seen::Handed, "wait"),
        (WRunning, Preparing, Seen::Handed, "wait"),
        (Stopped, Running, Seen::Handed, "shutdown `shutdown`"),
        // Down.
        (Stopped, Running, ON, "stop"),
        (Stopped, Running, OFF, "shutdown `shutdown`"),
        (Stopped, Running, Seen::Foreign, "shutdown `shutdown`"),
        (Stopped, Assigned, Seen::Absent, "shutdown `shutdown`"),
        (Stopped, Shutdown, OFF, "wait"),
        (Removed, Shutdown, OFF, "wait"),
        (Forgotten, Shutdown, OFF, "finish"),
        (Forgotten, Failed, Seen::Foreign, "finish"),
    ] {
        let status = status(state);
        assert_eq!(line(&step(view(wanted, &status, seen), NOW)), expected, "{wanted:?} {state} {seen:?}");
    }
}

#[test]
fn a_plugin_that_is_not_to_be_enabled_runs_when_it_is_not() {
    let says = |state, seen| {
        let status = status(state);
        line(&step(View { disabled: true, ..view(Wanted::Running, &status, seen) }, NOW))
    };
    assert_eq!(says(TaskState::Starting, ON), "start");
    assert_eq!(says(TaskState::Starting, OFF), "running `started`");
    assert_eq!(says(TaskState::Running, OFF), "wait");
    assert_eq!(says(TaskState::Running, ON), "failed `was running` err `plugin enabled`");
}

#[test]
fn a_failure_is_retried_or_final() {
    let says = |action, error: EngineError, attempts| {
        let state = if action == Action::Prepare { TaskState::Preparing } else { TaskState::Starting };
        let status = status(state);
        match on_error(view(Wanted::Running, &status, Seen::Absent), action, &error, attempts, NOW) {
            Verdict::Move(status) => line(&Step::Move(status)),
            Verdict::Retry { after, note } => {
                format!("again after {after:?}{}", if note.is_some() { ", noted" } else { "" })
            }
        }
    };
    let away = || EngineError::Unreachable { endpoint: "e".into(), reason: "r".into() };
    let fail = || EngineError::Failed("boom".into());
    let exists = "rejected `was preparing` err `plugin already exists: net:latest`";
    assert_eq!(says(Action::Prepare, taken("net:latest"), 1), exists);
    assert_eq!(says(Action::Prepare, fail(), 1), "again after 200ms, noted");
    assert_eq!(says(Action::Prepare, fail(), PREPARE_ATTEMPTS_MAX), "rejected `was preparing` err `boom`");
    assert_eq!(says(Action::Prepare, away(), 1000), "again after 5s, noted");
    assert_eq!(says(Action::Start, fail(), 1), "failed `was starting` err `boom`");
    assert_eq!(says(Action::Stop, fail(), 100), "again after 5s");
}

proptest! {
    /// S13, S14, S16: every move is one that the agent may make; and with an engine that does what it is told, every task gets
    /// where it should be in a bounded number of steps.
    #[test]
    fn every_task_gets_where_it_should(
        wanted in prop_oneof![
            Just(Wanted::Ready), Just(Wanted::Running), Just(Wanted::Stopped), Just(Wanted::Removed), Just(Wanted::Forgotten)
        ],
        state in 2usize..14,
        seen in prop_oneof![
            Just(Seen::Unknown), Just(Seen::Absent), Just(Seen::Foreign), Just(Seen::Handed), Just(ON), Just(OFF)
        ],
        disabled: bool,
    ) {
        let mut status = status(TaskState::ALL[state]);
        prop_assume!(status.state != TaskState::Remove);
        let (mut seen, mut prepared) = (seen, false);
        for _ in 0..20 {
            match step(View { disabled, prepared, ..view(wanted, &status, seen) }, NOW) {
                Step::Move(next) => {
                    prop_assert!(TaskState::may_move(Some(status.state), next.state, Owner::Agent));
                    status = next;
                }
                Step::Do(Action::Look) => seen = Seen::Absent,
                Step::Do(Action::Prepare) => {
                    prop_assert!(wanted.is_live() && !status.state.is_terminal());
                    (seen, prepared) = (OFF, true);
                }
                Step::Do(Action::Start) => {
                    prop_assert!(wanted.is_live() && !status.state.is_terminal());
                    seen = Seen::Here { enabled: !disabled };
                }
                Step::Do(Action::Stop) => seen = OFF,
                Step::Do(Action::Finish) => {
                    prop_assert_eq!(wanted, Wanted::Forgotten);
                    return Ok(());
                }
                Step::Do(Action::Wait) => {
                    prop_assert!(wanted != Wanted::Forgotten);
                    let settled = status.state.is_terminal() || wanted.is_live();
                    prop_assert!(settled && (seen != ON || wanted.is_live() && !status.state.is_terminal()));
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it goes round in circles: {:?} {:?}", status, seen);
    }
}
