//! What Swarm never had: why, plans, simulations, moves, commands in any container. The real binary against a scripted daemon.

mod support;

use docker_api::stdcopy::{Stream, encode};
use serde_json::{Value, json};
use std::process::Stdio;
use support::{FakeDaemon, Reply, finish};
use tokio::io::AsyncWriteExt as _;

const ID: &str = "sssssssssssssssssssssssss";
const NODE: &str = "nnnnnnnnnnnnnnnnnnnnnnnnn";

fn object(spec: Value) -> Value {
    json!({"ID": ID, "Version": {"Index": 20}, "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z", "Spec": spec})
}

fn service() -> Value {
    object(
        json!({"Name": "web", "Labels": {}, "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1"}, "ForceUpdate": 0},
        "Mode": {"Replicated": {"Replicas": 2}}}),
    )
}

fn node(role: &str) -> Value {
    object(json!({"Role": role, "Availability": "active", "Labels": {}}))
}

fn swarm() -> Value {
    let mut swarm = object(json!({"Name": "default", "Labels": {"a": "b"}}));
    swarm["JoinTokens"] = json!({"Worker": "", "Manager": ""});
    swarm
}

fn forecast(changes: bool) -> Reply {
    let objects = if changes { json!(["service web: replicas 2 -> 5"]) } else { json!([]) };
    Reply::json(
        json!({"Changes": changes, "Objects": objects, "Steps": [], "Services": [], "Unplaced": [], "Landing": [],
        "Ends": "settled", "Notes": []}),
    )
}

const PLANNED: &str =
    "service web: replicas 2 -> 5\n\nIn the end everything is settled. Nothing was changed: this is a plan.\n";

/// A daemon that answers every change with a forecast.
fn planner(changes: bool) -> FakeDaemon {
    let daemon = FakeDaemon::start()
        .on("GET /services/web", Reply::json(service()))
        .on(&format!("GET /nodes/{NODE}"), Reply::json(node("worker")))
        .on("GET /nodes/manager", Reply::json(node("manager")))
        .on("GET /secrets/key", Reply::json(object(json!({"Name": "key", "Labels": {}}))))
        .on("GET /configs/site", Reply::json(object(json!({"Name": "site", "Labels": {}}))))
        .on("GET /swarm", Reply::json(swarm()));
    [
        "POST /services/create".to_owned(),
        format!("POST /services/{ID}/update"),
        "DELETE /services/web".to_owned(),
        format!("POST /nodes/{ID}/update"),
        format!("DELETE /nodes/{NODE}"),
        "POST /secrets/create".to_owned(),
        "POST /configs/create".to_owned(),
        format!("POST /secrets/{ID}/update"),
        "DELETE /secrets/key".to_owned(),
        format!("POST /configs/{ID}/update"),
        "DELETE /configs/site".to_owned(),
        "POST /swarm/update".to_owned(),
        "POST /swarmlite/rebalance".to_owned(),
    ]
    .iter()
    .fold(daemon, |daemon, route| daemon.on(route, forecast(changes)))
}

const CHANGES: [&[&str]; 18] = [
    &["service", "create", "--plan", "--no-resolve-image", "nginx:1"],
    &["service", "update", "--plan", "--replicas", "5", "web"],
    &["service", "update", "--plan", "--rollback", "web"],
    &["service", "scale", "--plan", "web=5"],
    &["service", "rollback", "--plan", "web"],
    &["service", "rm", "--plan", "web"],
    &["node", "update", "--plan", "--availability", "drain", NODE],
    &["node", "promote", "--plan", NODE],
    &["node", "demote", "--plan", "manager"],
    &["node", "rm", "--plan", "--force", NODE],
    &["node", "rebalance", "--plan", "web"],
    &["secret", "create", "--plan", "key", "Cargo.toml"],
    &["config", "create", "--plan", "site", "Cargo.toml"],
    &["secret", "update", "--plan", "--label-add", "x=y", "key"],
    &["secret", "rm", "--plan", "key"],
    &["config", "update", "--plan", "--label-add", "x=y", "site"],
    &["config", "rm", "--plan", "site"],
    &["swarm", "update", "--plan", "--task-history-limit", "3"],
];

#[tokio::test]
async fn every_change_can_be_planned_and_the_exit_code_says_whether_it_is_one() {
    for (changes, text, code) in [(true, PLANNED, 2), (false, "Nothing would change.\n", 0)] {
        for args in CHANGES {
            let daemon = planner(changes);
            let run = daemon.run(args).await;
            assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), (text, "", Some(code)), "{args:?}");
            let requests = daemon.requests();
            let made: Vec<&String> = requests.iter().map(|(line, _)| line).filter(|l| !l.starts_with("GET")).collect();
            assert!(matches!(made.as_slice(), [one] if one.ends_with("plan=1")), "{args:?}: {made:?}");
        }
    }
}

#[tokio::test]
async fn a_failure_wins_over_a_plan_and_an_old_daemon_is_not_asked() {
    let daemon = planner(true).on("DELETE /services/nope", Reply::error(404, "service nope not found"));
    for args in [["service", "rm", "--plan", "web", "nope"], ["service", "rm", "--plan", "nope", "web"]] {
        let run = daemon.run(&args).await;
        assert_eq!((run.stdout.as_str(), run.code), (PLANNED, Some(1)), "{args:?}");
        assert_eq!(run.stderr, "Error response from daemon: service nope not found\n");
    }
    for args in CHANGES {
        let daemon = planner(true).named("Docker/28.2.2 (linux)");
        let run = daemon.run(args).await;
        assert!(
            run.stderr.contains("--plan needs a Swarmlite daemon: this one calls itself \"Docker/28.2.2 (linux)\""),
            "{args:?}: {run:?}"
        );
        assert_eq!((run.stdout.as_str(), run.code), ("", Some(1)), "{args:?}");
        assert!(daemon.requests().iter().all(|(line, _)| line.starts_with("GET")), "{args:?}: {:?}", daemon.requests());
    }
}

#[tokio::test]
async fn simulate_says_where_everything_would_land() {
    let landing = json!({"Changes": true, "Landing": [{"Node": "n", "Hostname": "host2", "Tasks": {"web": 5}}], "Ends": "settled"});
    let daemon = FakeDaemon::start().on("POST /swarmlite/simulate", Reply::json(landing));
    let args =
        ["simulate", "--kill", "host1", "--drain", "host3", "--drain", "host4", "--scale", "web=5", "--scale", "a=b=0"];
    let run = daemon.run(&args).await;
    let want = "NODE      TASKS IN THE END\nhost2     5 web\n\nIn the end everything is settled. Nothing was changed: this is a plan.\n";
    assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), (want, "", Some(2)));
    assert_eq!(
        daemon.body_of("POST"),
        json!({"Kill": ["host1"], "Drain": ["host3", "host4"], "Scale": {"web": 5, "a=b": 0}})
    );
    let run = daemon.run(&["simulate", "--kill", "host1", "--format", "json"]).await;
    let got: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&got["Landing"][0]["Tasks"]["web"], run.code), (&json!(5), Some(2)));
}

#[tokio::test]
async fn rebalancing_is_asked_for() {
    let daemon = FakeDaemon::start().on("POST /swarmlite/rebalance", Reply::json(json!({"Services": ["web", "api"]})));
    let run = daemon.run(&["node", "rebalance", "web", "api"]).await;
    assert!(
        run.stdout.starts_with("Rebalancing web, api, one task of each at a time.\n") && run.code == Some(0),
        "{run:?}"
    );
    assert_eq!(daemon.body_of("POST"), json!({"Services": ["web", "api"]}));
    let daemon = FakeDaemon::start().on("POST /swarmlite/rebalance", Reply::raw(200, "application/json", ""));
    let run = daemon.run(&["node", "rebalance"]).await;
    assert!(run.stdout.starts_with("Rebalancing all services, one task of each at a time.\n"), "{run:?}");
    assert_eq!(daemon.body_of("POST"), json!({}));
}

fn why() -> Value {
    json!({"Service": {"ID": ID, "Name": "web"}, "Lines": ["1 of 2 tasks has no node"], "Update": "", "Tasks": [{
        "ID": "t", "Name": "web.2", "Slot": 2, "NodeID": "", "DesiredState": "running", "State": "pending", "Line": "no suitable node",
        "Rejected": [{"NodeID": NODE, "Hostname": "host1", "Filter": "resources", "Reason": "512 MiB short of 1 GiB"}]}]})
}

#[tokio::test]
async fn why_names_each_node_that_cannot_have_a_task() {
    let daemon = FakeDaemon::start()
        .on("GET /swarmlite/services/web/why", Reply::json(why()))
        .on("GET /swarmlite/tasks/t/why", Reply::json(why()))
        .on("GET /swarmlite/services/old/why", Reply::error(501, "not here"));
    let want = "web (ssssssssssss)\n1 of 2 tasks has no node\n\nweb.2 (t): pending, should be running\n  no suitable node\n  \
        NODE    REJECTED BY   WHY\n  host1   resources     512 MiB short of 1 GiB\n";
    for args in [["service", "why", "web"], ["task", "why", "t"]] {
        let run = daemon.run(&args).await;
        assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), (want, "", Some(0)));
    }
    let run = daemon.run(&["service", "why", "--format", "json", "web"]).await;
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), why());
    let run = daemon.run(&["service", "why", "--format", "{{.Service.Name}}: {{len .Tasks}}", "web"]).await;
    assert_eq!(run.stdout, "web: 1\n");
    let run = daemon.run(&["service", "why", "old"]).await;
    assert_eq!((run.stderr.as_str(), run.code), ("Error response from daemon: not here\n", Some(1)));
}

/// A service with a task that waits until the daemon was asked why; then it runs.
async fn watched(why: Reply) -> (String, Option<i32>) {
    let task = |state: &str| {
        Reply::json(
            json!([{"ID": "t", "Slot": 1, "ServiceID": ID, "NodeID": NODE, "DesiredState": "running", "Status": {"State": state}}]),
        )
    };
    let mut service = service();
    service["Spec"]["Mode"] = json!({"Replicated": {"Replicas": 1}});
    service["Spec"]["UpdateConfig"] =
        json!({"Parallelism": 1, "Monitor": 1_000_000, "MaxFailureRatio": 0, "Order": "stop-first"});
    let daemon = FakeDaemon::start()
        .on(&format!("GET /services/{ID}"), Reply::json(service.clone()))
        .on("GET /services/web", Reply::json(service))
        .on(&format!("POST /services/{ID}/update"), Reply::json(json!({"Warnings": null})))
        .on("GET /nodes", Reply::json(json!([{"ID": NODE, "Status": {"State": "ready"}}])))
        .on("GET /tasks", task("pending"))
        .on(&format!("GET /swarmlite/services/{ID}/why"), why);
    let mut command = daemon.command(&["service", "scale", "web=1"]);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    while !daemon.requests().iter().any(|(line, _)| line.ends_with("/why")) {
        tokio::task::yield_now().await;
    }
    let daemon = daemon.on("GET /tasks", task("running"));
    let output = child.wait_with_output().await.unwrap();
    drop(daemon);
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[tokio::test]
async fn the_progress_says_why_nothing_happens() {
    let (text, code) = watched(Reply::json(why())).await;
    let start = "web scaled to 1\noverall progress: 0 out of 1 tasks\n1/1: pending\nwhy: 1 of 2 tasks has no node\n";
    assert!(text.starts_with(start) && text.ends_with("converged\n"), "{text}");
    assert_eq!(code, Some(0));
    // Docker itself, for example, has no answer.
    let (text, code) = watched(Reply::error(404, "page not found")).await;
    assert!(!text.contains("why") && text.ends_with("converged\n"), "{text}");
    assert_eq!(code, Some(0));
}

fn running(slot: u64, container: &str) -> Value {
    json!({"ID": format!("t{slot}"), "Slot": slot, "ServiceID": ID, "NodeID": NODE, "DesiredState": "running",
        "Status": {"State": "running", "ContainerStatus": {"ContainerID": container}}})
}

fn with_exec(exit: i64, output: Vec<u8>, after_input: bool) -> FakeDaemon {
    FakeDaemon::start()
        .on("GET /services/web", Reply::json(service()))
        .on("GET /tasks", Reply::json(json!([running(2, "c2"), running(1, "c1")])))
        .on("GET /tasks/t2", Reply::json(running(2, "c2")))
        .on("POST /containers/c1/exec", Reply::raw(201, "application/json", json!({"Id": "e"}).to_string()))
        .on("POST /containers/c2/exec", Reply::raw(201, "application/json", json!({"Id": "e"}).to_string()))
        .on("POST /exec/e/resize", Reply::raw(200, "text/plain", ""))
        .on("GET /exec/e/json", Reply::json(json!({"Running": true, "ExitCode": null})))
        .on("GET /exec/e/json", Reply::json(json!({"Running": false, "ExitCode": exit})))
        .hijack("POST /exec/e/start", output, after_input)
}

#[tokio::test]
async fn exec_carries_output_and_exit_code() {
    let output =
        [encode(Stream::Stdout, b"out\n"), encode(Stream::Stderr, b"err\n"), encode(Stream::Stdout, b"end\n")].concat();
    let daemon = with_exec(42, output, false);
    let run =
        daemon.run(&["service", "exec", "-e", "A=1", "-u", "nobody", "-w", "/tmp", "web", "sh", "-c", "exit 42"]).await;
    assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), ("out\nend\n", "err\n", Some(42)));
    assert_eq!(
        daemon.body_of("POST /v1.52/containers/c1/exec"),
        json!({"User": "nobody", "Privileged": false, "Tty": false, "AttachStdin": false, "AttachStderr": true, "AttachStdout": true,
            "Detach": false, "Env": ["A=1"], "WorkingDir": "/tmp", "Cmd": ["sh", "-c", "exit 42"]})
    );
    assert_eq!(daemon.body_of("POST /v1.52/exec/e/start"), json!({"Detach": false, "Tty": false}));
}

#[tokio::test]
async fn exec_passes_on_what_is_piped_into_it() {
    let daemon = with_exec(0, encode(Stream::Stdout, b"got it\n").into(), true);
    let mut command = daemon.command(&["service", "exec", "-i", "web", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello\nworld\n").await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.status.code()), (b"got it\n" as &[u8], Some(0)));
    assert_eq!(daemon.typed(), "hello\nworld\n");
}

#[tokio::test]
async fn exec_takes_a_service_a_slot_or_a_task() {
    for (name, container) in [("web", "c1"), ("web.2", "c2"), ("t2", "c2")] {
        let daemon = with_exec(0, Vec::new(), false);
        let run = daemon.run(&["service", "exec", name, "true"]).await;
        assert_eq!((run.stderr.as_str(), run.code), ("", Some(0)), "{name}");
        let asked = format!("POST /v1.52/containers/{container}/exec");
        assert!(daemon.requests().iter().any(|(line, _)| *line == asked), "{name}: {:?}", daemon.requests());
    }
    let daemon = with_exec(0, Vec::new(), false);
    for (name, want) in [
        ("web.7", "the task web.7 does not run; `swarmlite task why web.7` says why\n"),
        ("nope", "no such task or service: nope\n"),
    ] {
        let run = daemon.run(&["service", "exec", name, "true"]).await;
        assert_eq!((run.stderr.as_str(), run.code), (want, Some(1)));
    }
    let idle =
        FakeDaemon::start().on("GET /services/web", Reply::json(service())).on("GET /tasks", Reply::json(json!([])));
    let run = idle.run(&["service", "exec", "web", "true"]).await;
    let want = "no task of the service web runs; `swarmlite service why web` says what it waits for\n";
    assert_eq!((run.stderr.as_str(), run.code), (want, Some(1)));
}

#[tokio::test]
async fn exec_in_the_background_and_with_a_terminal() {
    let daemon =
        with_exec(0, b"raw \xf0output".to_vec(), false).on("POST /exec/e/start", Reply::raw(200, "text/plain", ""));
    let mut command = daemon.command(&["service", "exec", "-it", "web", "sh"]);
    command.stdin(Stdio::null());
    let run = finish(command).await;
    assert_eq!((run.stderr.as_str(), run.code), ("the input device is not a TTY\n", Some(1)));
    let run = daemon.run(&["service", "exec", "-t", "web", "sh"]).await;
    assert_eq!((run.stdout.as_str(), run.code), ("raw \u{fffd}output", Some(0)));
    let daemon = FakeDaemon::start()
        .on("GET /services/web", Reply::json(service()))
        .on("GET /tasks", Reply::json(json!([running(1, "c1")])))
        .on("POST /containers/c1/exec", Reply::raw(201, "application/json", json!({"Id": "e"}).to_string()))
        .on("POST /exec/e/start", Reply::raw(200, "text/plain", ""));
    let run = daemon.run(&["service", "exec", "-d", "web", "sleep", "9"]).await;
    assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), ("", "", Some(0)));
    assert_eq!(daemon.body_of("POST /v1.52/exec/e/start"), json!({"Detach": true, "Tty": false}));
}

#[tokio::test]
async fn the_swarms_policies_are_labels() {
    let daemon = FakeDaemon::start()
        .on("GET /swarm", Reply::json(swarm()))
        .on("POST /swarm/update", Reply::raw(200, "text/plain", ""));
    let policy =
        ["--policy", "privileged=allow", "--autopilot", "on", "--autopilot-after", "5m", "--rebalance", "on-join"];
    let run = daemon.run(&[&["swarm", "update", "--label-rm", "a"], &policy[..]].concat()).await;
    assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), ("Swarm updated.\n", "", Some(0)));
    assert_eq!(
        daemon.body_of("POST")["Labels"],
        json!({"swarmlite.policy.privileged": "allow", "swarmlite.autopilot": "on", "swarmlite.autopilot.after": "5m",
            "swarmlite.rebalance": "on-join"})
    );
}

#[tokio::test]
async fn credentials_and_networks_are_named_by_id() {
    let config = |name: &str, id: &str| json!({"ID": id, "Version": {"Index": 1}, "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z", "Spec": {"Name": name}});
    let daemon = FakeDaemon::start()
        .on("POST /services/create", Reply::raw(201, "application/json", json!({"ID": ID}).to_string()))
        .on("GET /configs", Reply::json(json!([config("cred", "c1"), config("site", "c2")])))
        .on("GET /networks/back", Reply::json(json!({"Id": "n2", "Name": "back"})))
        .on("GET /networks/front", Reply::json(json!({"Id": "n1", "Name": "front"})));
    let args = [
        "--config",
        "site",
        "--credential-spec",
        "config://cred",
        "--network",
        "back",
        "--network",
        "name=front,alias=f",
        "--network",
        "nope",
    ];
    let run = daemon.run(&[&["service", "create", "-d", "--no-resolve-image"], &args[..], &["nginx"]].concat()).await;
    assert_eq!((run.stderr.as_str(), run.code), ("", Some(0)));
    let task = &daemon.body_of("POST")["TaskTemplate"];
    assert_eq!(task["Networks"], json!([{"Target": "n1", "Aliases": ["f"]}, {"Target": "n2"}, {"Target": "nope"}]));
    let c = &task["ContainerSpec"];
    assert_eq!(c["Privileges"]["CredentialSpec"], json!({"Config": "c1", "File": "", "Registry": ""}));
    assert_eq!(c["Configs"][1], json!({"Runtime": {}, "ConfigID": "c1", "ConfigName": "cred"}));
}
