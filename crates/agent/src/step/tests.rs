use super::*;
use crate::testing::a_task;
use model::{Owner, PortStatus};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(7);

fn container(phase: ContainerPhase) -> ContainerState {
    let running = phase == ContainerPhase::Running;
    ContainerState {
        id: "c".into(),
        name: "web.1".into(),
        phase,
        pid: if running { 42 } else { 0 },
        exit_code: (phase == ContainerPhase::Exited).then_some(0),
        ..ContainerState::default()
    }
}

fn created() -> Seen {
    Seen::Present(container(ContainerPhase::Created))
}

fn running(health: Health) -> Seen {
    Seen::Present(ContainerState { health, ..container(ContainerPhase::Running) })
}

fn exited(code: i64) -> Seen {
    Seen::Present(ContainerState { exit_code: Some(code), ..container(ContainerPhase::Exited) })
}

fn status(state: TaskState) -> TaskStatus {
    let container = (state >= TaskState::Ready).then(|| ContainerStatus { id: "c".into(), pid: 0, exit_code: None });
    TaskStatus { state, message: format!("was {state}"), container, ..TaskStatus::default() }
}

fn step_of(wanted: Wanted, state: TaskState, seen: &Seen) -> Step {
    let (task, mut status) = (a_task(1), status(state));
    if state == TaskState::Running
        && let Some(c) = &mut status.container
    {
        c.pid = 42;
    }
    step(View { task: &task, wanted, status: &status, seen, was_unhealthy: false }, NOW)
}

/// `running "started"`, `failed "…" err`, `wait`: one line for a step.
fn line(step: &Step) -> String {
    match step {
        Step::Do(Action::Stop { grace, unhealthy }) => {
            format!("stop {}s{}", grace.as_secs(), if *unhealthy { " unhealthy" } else { "" })
        }
        Step::Do(action) => format!("{action:?}").to_lowercase(),
        Step::Move(s) if s.err.is_empty() => format!("{} `{}`", s.state, s.message),
        Step::Move(s) => format!("{} `{}` err `{}`", s.state, s.message, s.err),
    }
}

#[test]
fn the_life_of_a_task() {
    use TaskState::*;
    use Wanted::{Forgotten, Ready as WReady, Removed, Running as WRunning, Stopped};
    let absent = || Seen::Absent;
    let failed_start =
        || Seen::Present(ContainerState { error: "exec failed".into(), ..container(ContainerPhase::Created) });
    let no_container = "No such container: web.1.0000000000000000000000001";
    let table: Vec<(Wanted, TaskState, Seen, String)> = vec![
        // Nothing is decided without having looked.
        (WRunning, Running, Seen::Unknown, "look".into()),
        (Forgotten, Running, Seen::Unknown, "look".into()),
        // Up.
        (WReady, Assigned, absent(), "accepted `accepted`".into()),
        (WReady, Accepted, absent(), "preparing `preparing`".into()),
        (WReady, Preparing, absent(), "prepare".into()),
        (WReady, Preparing, created(), "ready `prepared`".into()),
        (WReady, Ready, created(), "wait".into()),
        (WRunning, Ready, created(), "starting `starting`".into()),
        (WRunning, Ready, absent(), "prepare".into()),
        (WRunning, Starting, created(), "start".into()),
        (WRunning, Starting, running(Health::None), "running `started`".into()),
        (WRunning, Running, running(Health::None), "wait".into()),
        // With a health check it runs once it is healthy.
        (WRunning, Starting, running(Health::Starting), "wait".into()),
        (WRunning, Starting, running(Health::Healthy), "running `started`".into()),
        (WRunning, Running, running(Health::Starting), "wait".into()),
        (WRunning, Starting, running(Health::Unhealthy), "stop 10s unhealthy".into()),
        (WRunning, Running, running(Health::Unhealthy), "stop 10s unhealthy".into()),
        // Ends.
        (WRunning, Running, exited(0), "complete `finished`".into()),
        (WRunning, Running, exited(1), "failed `was running` err `task: non-zero exit (1)`".into()),
        (WRunning, Starting, exited(3), "failed `was starting` err `task: non-zero exit (3)`".into()),
        (
            WRunning,
            Starting,
            failed_start(),
            "failed `was starting` err `starting container failed: exec failed`".into(),
        ),
        (WRunning, Starting, absent(), format!("failed `was starting` err `{no_container}`")),
        (WRunning, Running, absent(), format!("failed `was running` err `{no_container}`")),
        (WRunning, Running, created(), "failed `was running` err `the container was never started`".into()),
        // After its end nothing runs, and nothing is started again.
        (WRunning, Failed, exited(1), "wait".into()),
        (WRunning, Rejected, absent(), "wait".into()),
        (WRunning, Orphaned, running(Health::None), "stop 10s".into()),
        (WReady, Complete, created(), "wait".into()),
        // Down.
        (Stopped, Running, running(Health::None), "stop 10s".into()),
        (Stopped, Running, exited(0), "shutdown `shutdown`".into()),
        (Stopped, Running, absent(), "shutdown `shutdown`".into()),
        (Stopped, Assigned, absent(), "shutdown `shutdown`".into()),
        (Stopped, Ready, created(), "shutdown `shutdown`".into()),
        (Stopped, Shutdown, exited(0), "wait".into()),
        (Stopped, Failed, running(Health::None), "stop 10s".into()),
        (Removed, Shutdown, exited(0), "remove".into()),
        (Removed, Shutdown, absent(), "wait".into()),
        (Removed, Running, running(Health::None), "stop 10s".into()),
        (Forgotten, Running, running(Health::None), "stop 10s".into()),
        (Forgotten, Running, exited(137), "shutdown `shutdown`".into()),
        (Forgotten, Shutdown, exited(137), "remove".into()),
        (Forgotten, Failed, exited(1), "remove".into()),
        (Forgotten, Shutdown, absent(), "finish".into()),
        (Forgotten, Preparing, absent(), "shutdown `shutdown`".into()),
    ];
    for (wanted, state, seen, expected) in table {
        assert_eq!(line(&step_of(wanted, state, &seen)), expected, "{wanted:?} {state} {seen:?}");
    }
}

#[test]
fn an_unhealthy_container_that_was_stopped_is_a_failure_whatever_its_code() {
    let (task, status) = (a_task(1), status(TaskState::Running));
    let says = |seen: &Seen, was_unhealthy| {
        let step = step(View { task: &task, wanted: Wanted::Running, status: &status, seen, was_unhealthy }, NOW);
        line(&step)
    };
    let text = "failed `was running` err `task: non-zero exit (137): dockerexec: unhealthy container`";
    assert_eq!(says(&exited(137), true), text);
    let still = Seen::Present(ContainerState {
        health: Health::Unhealthy,
        exit_code: Some(0),
        ..container(ContainerPhase::Exited)
    });
    assert_eq!(says(&still, false), text.replace("137", "0"));
}

#[test]
fn the_engines_error_is_part_of_the_text() {
    let seen = Seen::Present(ContainerState {
        exit_code: Some(128),
        error: "disk on fire".into(),
        ..container(ContainerPhase::Exited)
    });
    assert_eq!(
        line(&step_of(Wanted::Running, TaskState::Running, &seen)),
        "failed `was running` err `task: non-zero exit (128): disk on fire`"
    );
}

#[test]
fn a_status_carries_container_and_ports() {
    let ports = vec![PortStatus { protocol: model::Protocol::Tcp, target_port: 80, published_port: 8080 }];
    let seen = Seen::Present(ContainerState { ports: ports.clone(), ..container(ContainerPhase::Running) });
    let Step::Move(status) = step_of(Wanted::Running, TaskState::Starting, &seen) else { panic!() };
    assert_eq!(status.container, Some(ContainerStatus { id: "c".into(), pid: 42, exit_code: None }));
    assert_eq!((status.ports, status.at), (ports, NOW));
    // A container restarted by hand has another process id: the status follows, the time of the start stays.
    let Step::Move(status) = step_of(Wanted::Running, TaskState::Running, &seen) else { panic!() };
    assert_eq!((status.state, status.at), (TaskState::Running, Timestamp::default()));
}

#[test]
fn a_failure_is_retried_or_final() {
    let long = "x".repeat(5000);
    let away = EngineError::Unreachable { endpoint: "e".into(), reason: "r".into() };
    let hung = EngineError::Timeout { call: "c", after: Duration::from_secs(1) };
    let missing = EngineError::NotFound("No such image: web:9".into());
    let fail = EngineError::Failed("boom".into());
    let refused = EngineError::Refused("no".into());
    let stop = Action::Stop { grace: Duration::ZERO, unhealthy: false };
    let says = |action, error: &EngineError, attempts| {
        let state = if action == Action::Prepare { TaskState::Preparing } else { TaskState::Starting };
        let (task, status, seen) = (a_task(1), status(state), Seen::Absent);
        let view = View { task: &task, wanted: Wanted::Running, status: &status, seen: &seen, was_unhealthy: false };
        match on_error(view, action, error, attempts, NOW) {
            Verdict::Move(status) => {
                assert!(status.err.len() <= limits::STATUS_TEXT_BYTES_MAX);
                line(&Step::Move(status))
            }
            Verdict::Retry { after, note } => {
                format!("again after {after:?}{}", if note.is_some() { ", noted" } else { "" })
            }
        }
    };
    assert_eq!(says(Action::Prepare, &missing, 1), "rejected `was preparing` err `No such image: web:9`");
    assert_eq!(says(Action::Prepare, &refused, 1), "rejected `was preparing` err `no`");
    assert_eq!(says(Action::Prepare, &fail, 1), "again after 200ms, noted");
    assert_eq!(says(Action::Prepare, &fail, PREPARE_ATTEMPTS_MAX), "rejected `was preparing` err `boom`");
    assert_eq!(says(Action::Prepare, &away, 1000), "again after 5s, noted");
    assert_eq!(says(Action::Start, &hung, 2), "again after 400ms, noted");
    assert_eq!(says(Action::Start, &fail, 1), "failed `was starting` err `starting container failed: boom`");
    assert_eq!(says(stop, &fail, 100), "again after 5s");
    assert_eq!(says(Action::Look, &fail, 1), "again after 200ms");
    assert!(says(Action::Start, &EngineError::Failed(long), 1).ends_with("x…`"));
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let phase = prop_oneof![Just(ContainerPhase::Created), Just(ContainerPhase::Running), Just(ContainerPhase::Exited)];
    let health =
        prop_oneof![Just(Health::None), Just(Health::Starting), Just(Health::Healthy), Just(Health::Unhealthy)];
    let present =
        (phase, health, proptest::option::of(-2i64..200), any::<bool>()).prop_map(|(phase, health, exit_code, bad)| {
            let error = if bad { "error".into() } else { String::new() };
            Seen::Present(ContainerState { health, exit_code, error, ..container(phase) })
        });
    prop_oneof![Just(Seen::Unknown), Just(Seen::Absent), present]
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![
        Just(Wanted::Ready),
        Just(Wanted::Running),
        Just(Wanted::Stopped),
        Just(Wanted::Removed),
        Just(Wanted::Forgotten)
    ]
}

proptest! {
    /// S13, S14, S16: every move is one that the agent may make, and none leads out of an end.
    #[test]
    fn every_move_is_the_agents_to_make(
        wanted in any_wanted(), state in 2usize..14, seen in any_seen(), was_unhealthy: bool, attempts in 1u32..50,
    ) {
        let state = TaskState::ALL[state];
        prop_assume!(state != TaskState::Remove);
        let (task, status) = (a_task(1), status(state));
        let view = View { task: &task, wanted, status: &status, seen: &seen, was_unhealthy };
        let mut moves = Vec::new();
        match step(view, NOW) {
            Step::Move(next) => moves.push(next),
            Step::Do(action) => {
                let error = EngineError::Failed("x".into());
                if let Verdict::Move(next) = on_error(view, action, &error, attempts, NOW) {
                    moves.push(next);
                }
                // Nothing is started or prepared that should stop, or that has ended.
                if matches!(action, Action::Start | Action::Prepare) {
                    prop_assert!(wanted.is_live() && !state.is_terminal());
                }
                if action == Action::Remove {
                    prop_assert!(!wanted.is_live());
                }
            }
        }
        for next in moves {
            prop_assert!(TaskState::may_move(Some(state), next.state, Owner::Agent), "{} -> {}", state, next.state);
        }
    }

    /// With an engine that does what it is told, every task gets where it should be in a bounded number of steps.
    #[test]
    fn every_task_gets_where_it_should(wanted in any_wanted(), state in 2usize..14, seen in any_seen()) {
        let mut status = status(TaskState::ALL[state]);
        prop_assume!(status.state != TaskState::Remove);
        let task = a_task(1);
        let (mut seen, mut was_unhealthy) = (seen, false);
        for _ in 0..20 {
            match step(View { task: &task, wanted, status: &status, seen: &seen, was_unhealthy }, NOW) {
                Step::Move(next) => status = next,
                Step::Do(Action::Look | Action::Remove) => seen = Seen::Absent,
                Step::Do(Action::Prepare) => seen = created(),
                Step::Do(Action::Start) => seen = running(Health::Healthy),
                Step::Do(Action::Stop { unhealthy, .. }) => (seen, was_unhealthy) = (exited(137), was_unhealthy | unhealthy),
                Step::Do(Action::Finish) => {
                    prop_assert_eq!(wanted, Wanted::Forgotten);
                    return Ok(());
                }
                Step::Do(Action::Wait) => {
                    let is_running = matches!(&seen, Seen::Present(c) if c.phase == ContainerPhase::Running);
                    let says_so = status.state == TaskState::Starting || status.state == TaskState::Running;
                    // A desired state never falls back to `Ready`, so a container that runs then is none of the agent's.
                    prop_assert!(is_running == says_so || is_running && wanted == Wanted::Ready);
                    prop_assert!(status.state >= TaskState::Ready);
                    prop_assert!(!is_running || wanted.is_live());
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it goes round in circles: {:?} {:?}", status, seen);
    }
}
