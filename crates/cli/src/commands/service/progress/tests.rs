//! What a log would show of services that converge, or do not.

use super::*;
use serde_json::{Value, json};

fn service(mode: Value, more: Value) -> Service {
    let mut service = json!({"ID": "svc", "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z", "Spec": {"Mode": mode}});
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(service).unwrap()
}

fn replicated(replicas: u64, status: Value) -> Service {
    service(json!({"Replicated": {"Replicas": replicas}}), json!({"UpdateStatus": status}))
}

fn on(node: &str, slot: u64, state: &str, error: &str) -> Task {
    serde_json::from_value(json!({"ID": format!("t{slot}"), "Slot": slot, "NodeID": node, "DesiredState": "running",
        "Status": {"State": state, "Err": error}}))
    .unwrap()
}

fn task(slot: u64, state: &str, error: &str) -> Task {
    on("n", slot, state, error)
}

fn of_job(iteration: u64, node: &str, slot: u64, state: &str) -> Task {
    serde_json::from_value(
        json!({"ID": format!("t{slot}{state}"), "Slot": slot, "NodeID": node, "DesiredState": "complete",
        "JobIteration": {"Index": iteration}, "Status": {"State": state}}),
    )
    .unwrap()
}

fn nodes() -> Vec<Node> {
    let node = |id: &str, state: &str| json!({"ID": id, "Status": {"State": state}});
    serde_json::from_value(json!([node("n", "ready"), node("m", "ready"), node("gone", "down")])).unwrap()
}

/// Looks at each of the states, a second apart, and returns what a log would show.
fn told(looks: &[(Service, Vec<Task>)]) -> (String, Outcome) {
    let (mut watcher, mut painter) = (Watcher::default(), Painter::new(false));
    let (mut text, mut outcome) = (String::new(), Outcome::Watch);
    for (second, (service, tasks)) in looks.iter().enumerate() {
        outcome = watcher.look(service, tasks, &nodes(), Duration::from_secs(second as u64));
        text += &painter.paint(&mut watcher.lines);
    }
    (text, outcome)
}

#[test]
fn a_service_converges_line_by_line() {
    let up = || (replicated(2, json!(null)), vec![task(1, "running", ""), task(2, "running", "")]);
    let mut looks = vec![
        (replicated(2, json!(null)), vec![]),
        (replicated(2, json!(null)), vec![task(1, "preparing", ""), task(2, "running", "")]),
    ];
    looks.extend((0..6).map(|_| up()));
    let want = "overall progress: 0 out of 2 tasks\n\
        overall progress: 1 out of 2 tasks\n1/2: preparing\n2/2: running\n\
        overall progress: 2 out of 2 tasks\n1/2: running\nverify: Waiting 5 seconds to verify that tasks are stable...\n\
        verify: Waiting 4 seconds to verify that tasks are stable...\n\
        verify: Waiting 3 seconds to verify that tasks are stable...\n\
        verify: Waiting 2 seconds to verify that tasks are stable...\n\
        verify: Waiting 1 seconds to verify that tasks are stable...\n\
        verify: Service svc converged\n";
    assert_eq!(told(&looks), (want.to_owned(), Outcome::Converged));
}

#[test]
fn a_failing_task_says_why_and_stops_the_wait() {
    let looks = [
        (replicated(1, json!(null)), vec![task(1, "running", "")]),
        (replicated(1, json!(null)), vec![task(1, "pending", "no suitable node (insufficient resources on 3 nodes)")]),
    ];
    let (text, outcome) = told(&looks);
    assert!(
        text.ends_with("1/1: no suitable node (insufficient resources on 3 nodes)\nverify: Detected task failure\n"),
        "{text}"
    );
    assert_eq!(outcome, Outcome::Watch);
}

#[test]
fn an_update_that_stops_is_an_error_and_one_that_ends_is_the_end() {
    for (state, message, want) in [
        (
            "paused",
            "update paused due to failure",
            Outcome::Failed("service update paused: update paused due to failure".to_owned()),
        ),
        ("rollback_paused", "x", Outcome::Failed("service rollback paused: x".to_owned())),
        ("completed", "update completed", Outcome::Converged),
        ("updating", "update in progress", Outcome::Watch),
    ] {
        let status = replicated(1, json!({"State": state, "Message": message}));
        assert_eq!(told(&[(status, vec![])]).1, want, "{state}");
    }
}

#[test]
fn a_rollback_is_told_as_one() {
    let back = |state: &str| replicated(1, json!({"State": state, "Message": format!("{state} it is")}));
    let mut looks = vec![
        (replicated(1, json!({"State": "updating"})), vec![task(1, "failed", "task: non-zero exit (1)")]),
        (back("rollback_started"), vec![task(1, "ready", "")]),
    ];
    looks.extend((0..7).map(|_| (back("rollback_completed"), vec![task(1, "running", "")])));
    let (text, outcome) = told(&looks);
    let want = "overall progress: 0 out of 1 tasks\n1/1: task: non-zero exit (1)\n\
        overall progress: rolling back update: 0 out of 1 tasks\n1/1: ready\nrollback: rollback_started it is\n\
        overall progress: rolling back update: 1 out of 1 tasks\n1/1: running\nverify: Waiting 5 seconds";
    assert!(text.starts_with(want), "{text}");
    assert!(
        text.ends_with("verify: Service svc converged\n") || text.contains("rollback: rollback_completed it is\n"),
        "{text}"
    );
    assert_eq!(outcome, Outcome::Converged);
}

#[test]
fn nothing_to_run_is_converged_at_once() {
    let looks: Vec<_> = (0..7).map(|_| (replicated(0, json!(null)), vec![])).collect();
    assert_eq!(told(&looks).1, Outcome::Converged);
}

#[test]
fn a_global_service_has_a_line_for_each_node_that_is_up() {
    let global = || service(json!({"Global": {}}), json!({}));
    let mut looks = vec![
        (global(), vec![]),
        (global(), vec![on("n", 0, "running", ""), on("m", 0, "starting", ""), on("gone", 0, "running", "")]),
    ];
    looks.extend((0..6).map(|_| (global(), vec![on("n", 0, "running", ""), on("m", 0, "running", "")])));
    let (text, outcome) = told(&looks);
    let want = "overall progress: waiting for new tasks\n\
        overall progress: 1 out of 2 tasks\nm: starting\nn: running\n\
        overall progress: 2 out of 2 tasks\nm: running\nverify: Waiting 5 seconds to verify that tasks are stable...\n";
    assert!(text.starts_with(want), "{text}");
    assert_eq!(outcome, Outcome::Converged);
}

#[test]
fn a_replicated_job_ends_with_its_last_task() {
    let job = || {
        let mode = json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 3}});
        service(mode, json!({"JobStatus": {"JobIteration": {"Index": 7}, "LastExecution": "2026-01-01T00:00:00Z"}}))
    };
    let looks = [
        (job(), vec![of_job(6, "n", 0, "complete")]),
        (job(), vec![of_job(7, "n", 0, "running"), of_job(7, "n", 1, "failed"), of_job(7, "n", 1, "preparing")]),
        (job(), vec![of_job(7, "n", 0, "complete"), of_job(7, "n", 1, "complete"), of_job(7, "n", 2, "running")]),
        (job(), (0..3).map(|slot| of_job(7, "n", slot, "complete")).collect()),
    ];
    let want = "job progress: 0 out of 3 complete\nactive tasks: 0 out of 2 tasks\n\
        active tasks: 2 out of 2 tasks\n1/3: running\n2/3: preparing\n\
        job progress: 2 out of 3 complete\nactive tasks: 1 out of 1 tasks\n1/3: complete\n2/3: complete\n3/3: running\n\
        job progress: 3 out of 3 complete\nactive tasks: 0 out of 0 tasks\n3/3: complete\njob complete\n";
    assert_eq!(told(&looks), (want.to_owned(), Outcome::Converged));
}

#[test]
fn a_global_job_waits_for_the_nodes_it_began_with() {
    let job = || service(json!({"GlobalJob": {}}), json!({"JobStatus": {"JobIteration": {"Index": 1}}}));
    let looks = [
        (job(), vec![]),
        (job(), vec![of_job(1, "n", 0, "running"), of_job(1, "m", 0, "complete")]),
        (job(), vec![of_job(1, "n", 0, "complete"), of_job(1, "m", 0, "complete"), of_job(1, "later", 0, "running")]),
    ];
    let want = "job progress: waiting for tasks\n\
        job progress: 1 out of 2 complete\nm: complete\nn: running\n\
        job progress: 2 out of 2 complete\nn: complete\njob complete\n";
    assert_eq!(told(&looks), (want.to_owned(), Outcome::Converged));
}

#[test]
fn a_scheduled_job_is_not_waited_for_unless_it_was_told_to_run() {
    let mut job = service(json!({"ReplicatedJob": {}}), json!({}));
    job.spec.labels.insert(SCHEDULE.to_owned(), "0 3 * * *".to_owned());
    let mut forced = Watcher { runs_now: true, ..Watcher::default() };
    assert_eq!(forced.look(&job, &[], &nodes(), Duration::ZERO), Outcome::Watch);
    let not_now = "schedule: runs at \"0 3 * * *\" (UTC), not now\n";
    assert_eq!(told(&[(job, vec![])]), (not_now.to_owned(), Outcome::Converged));
}

#[test]
fn the_reason_stands_there_only_while_nothing_happens() {
    let mut watcher = Watcher { columns: Some(20), ..Watcher::default() };
    let mut painter = Painter::new(true);
    let look = |watcher: &mut Watcher, state: &str, second: u64| {
        let now = Duration::from_secs(second);
        watcher.look(&replicated(1, json!(null)), &[task(1, state, "")], &nodes(), now);
        watcher.is_stuck()
    };
    assert_eq!([look(&mut watcher, "pending", 0), look(&mut watcher, "pending", 1)], [false, false]);
    assert!(look(&mut watcher, "pending", 2));
    watcher.explain(Some("no node has 1 GiB\nto spare".to_owned()));
    assert!(painter.paint(&mut watcher.lines).contains("why: no node has 1…\n"));
    watcher.columns = None;
    watcher.explain(Some("no node has 1 GiB\nto spare".to_owned()));
    assert!(painter.paint(&mut watcher.lines).contains("why: no node has 1 GiB to spare\n"));
    // To say why is not to move.
    assert!(look(&mut watcher, "pending", 3));
    assert!(!look(&mut watcher, "running", 4));
    let text = painter.paint(&mut watcher.lines);
    assert!(!text.contains("why") && text.contains("1/1: running") && text.ends_with("\x1b[J"), "{text}");
}

#[test]
fn a_job_at_its_work_is_not_stuck() {
    let job = service(json!({"ReplicatedJob": {}}), json!({"JobStatus": {"JobIteration": {"Index": 1}}}));
    for (state, stuck) in [("running", false), ("pending", true)] {
        let mut watcher = Watcher::default();
        for second in [0, 9] {
            watcher.look(&job, &[of_job(1, "n", 0, state)], &nodes(), Duration::from_secs(second));
        }
        assert_eq!(watcher.is_stuck(), stuck, "{state}");
    }
}

#[test]
fn a_terminal_is_painted_in_place() {
    let (mut watcher, mut painter) = (Watcher::default(), Painter::new(true));
    watcher.look(&replicated(1, json!(null)), &[task(1, "ready", "")], &nodes(), Duration::ZERO);
    let first = painter.paint(&mut watcher.lines);
    assert!(first.contains("1/1: ready     [======================================>           ]\n"), "{first}");
    watcher.look(&replicated(1, json!(null)), &[task(1, "running", "")], &nodes(), Duration::from_secs(1));
    let second = painter.paint(&mut watcher.lines);
    assert!(second.starts_with("\x1b[2A") && second.contains(&"=".repeat(50)), "{second}");
}
