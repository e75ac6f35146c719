//! The real binary against a scripted daemon: output, requests and exit codes.

mod support;

use docker_api::stdcopy::{Stream, encode};
use serde_json::{Value, json};
use support::{FakeDaemon, Reply, finish, swarmlite};

const SERVICE: &str = "sssssssssssssssssssssssss";
const NODE: &str = "nnnnnnnnnnnnnnnnnnnnnnnnn";

fn node(id: &str, hostname: &str, manager: Value) -> Value {
    json!({"ID": id, "Version": {"Index": 9}, "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z",
        "Spec": {"Labels": {}, "Role": "manager", "Availability": "active"}, "Description": {"Hostname": hostname, "Engine": {"EngineVersion": "28.2.2"}},
        "Status": {"State": "ready", "Addr": "10.0.0.1"}, "ManagerStatus": manager})
}

fn leader() -> Value {
    node(NODE, "host1", json!({"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}))
}

fn info() -> Reply {
    Reply::json(json!({"Swarm": {"NodeID": NODE, "LocalNodeState": "active", "ControlAvailable": true}}))
}

fn service(replicas: u64) -> Value {
    json!({"ID": SERVICE, "Version": {"Index": 20}, "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z",
        "Spec": {"Name": "web", "Labels": {}, "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1"}, "ForceUpdate": 0},
            "Mode": {"Replicated": {"Replicas": replicas}},
            "UpdateConfig": {"Parallelism": 1, "Monitor": 1_000_000, "MaxFailureRatio": 0, "Order": "stop-first"}}})
}

fn task(slot: u64, state: &str, error: &str) -> Value {
    json!({"ID": format!("t{slot:0>24}"), "Slot": slot, "ServiceID": SERVICE, "NodeID": NODE, "DesiredState": "running",
        "CreatedAt": "2026-01-01T00:00:00Z", "Status": {"State": state, "Err": error, "Timestamp": "2026-01-01T00:00:00Z"}})
}

#[tokio::test]
async fn node_ls_keeps_its_advice_out_of_standard_output() {
    let other = node("mmmmmmmmmmmmmmmmmmmmmmmmm", "host10", json!({"Reachability": "reachable"}));
    let third = node("ooooooooooooooooooooooooo", "host2", json!({"Reachability": "reachable"}));
    let daemon =
        FakeDaemon::start().on("GET /nodes", Reply::json(json!([other, leader(), third]))).on("GET /info", info());
    let run = daemon.run(&["node", "ls"]).await;
    let want = "\
ID                            HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
nnnnnnnnnnnnnnnnnnnnnnnnn *   host1      Ready     Active         Leader           28.2.2
ooooooooooooooooooooooooo     host2      Ready     Active         Reachable        28.2.2
mmmmmmmmmmmmmmmmmmmmmmmmm     host10     Ready     Active         Reachable        28.2.2
";
    assert_eq!((run.stdout.as_str(), run.code), (want, Some(0)), "{run:?}");
    assert_eq!(run.stderr.trim(), "3 managers, 3 reachable: the cluster can lose 1 more manager.");
    let quiet = daemon.run(&["node", "ls", "-q", "--filter", "role=manager"]).await;
    assert_eq!((quiet.stdout.lines().count(), quiet.stderr.as_str()), (3, ""));
    assert!(
        daemon.requests().last().unwrap().0.ends_with("/nodes?filters=%7B%22role%22%3A%7B%22manager%22%3Atrue%7D%7D")
    );
}

#[tokio::test]
async fn what_the_daemon_says_is_passed_on() {
    let daemon = FakeDaemon::start()
        .on("GET /nodes", Reply::error(503, "This node is not a swarm manager."))
        .on("GET /services", Reply::raw(200, "application/json", "{not json"))
        .on("GET /tasks", Reply::raw(500, "text/plain", "it broke\n"));
    let run = daemon.run(&["node", "ls"]).await;
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str(), run.code),
        ("", "Error response from daemon: This node is not a swarm manager.\n", Some(1))
    );
    let run = daemon.run(&["service", "ls"]).await;
    assert!(run.stderr.starts_with("the daemon's answer to GET /services cannot be read: "), "{run:?}");
    assert_eq!(run.code, Some(1));
}

#[tokio::test]
async fn without_a_daemon_it_says_what_to_do() {
    let run = finish(swarmlite(&["-H", "unix:///nonexistent/x.sock", "service", "ls"])).await;
    let want =
        "Cannot connect to the Swarmlite daemon at unix:///nonexistent/x.sock. Is the swarmlite daemon running?\n";
    assert_eq!((run.stderr.as_str(), run.code), (want, Some(1)));
    let run = finish(swarmlite(&["-H", "tcp://10.0.0.1:2375", "service", "ls"])).await;
    assert!(run.stderr.contains("tcp:// is for this machine only") && run.code == Some(1), "{run:?}");
}

#[tokio::test]
async fn exit_codes_are_dockers() {
    let daemon = FakeDaemon::start().on("GET /services", Reply::json(json!([])));
    for (args, code) in [
        (&[] as &[&str], 0),
        (&["service"], 0),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["service", "ls"], 0),
        (&["bogus"], 1),
        (&["service", "bogus"], 1),
        (&["service", "create"], 1),
        (&["service", "ls", "extra"], 1),
        (&["service", "create", "--mode", "foo", "nginx"], 1),
        (&["swarm", "unlock-key"], 1),
        (&["service", "ls", "--format", "{{.Foo"], 64),
        (&["service", "ls", "--nope"], 125),
        (&["service", "create", "--replicas", "x", "nginx"], 125),
        (&["service", "create", "--secret", "x=y", "nginx"], 125),
        (&["service", "create", "--generic-resource", "x", "nginx"], 125),
        (&["simulate"], 1),
        (&["simulate", "--scale", "web"], 125),
        (&["service", "exec", "web"], 1),
        (&["task", "bogus"], 1),
        (&["service", "create", "--update-order", "x", "nginx"], 125),
        (&["daemon", "--config", "/nonexistent/daemon.toml"], 1),
        (&["daemon", "--gossip-port", "0"], 1),
        (&["daemon", "--engine", "podman"], 125),
    ] {
        let run = daemon.run(args).await;
        assert_eq!(run.code, Some(code), "{args:?}: {run:?}");
        assert_eq!(run.stderr.is_empty(), code == 0, "{args:?}: {run:?}");
    }
}

#[tokio::test]
async fn a_new_service_is_watched_until_it_has_converged() {
    let daemon = FakeDaemon::start()
        .on(
            "POST /services/create",
            Reply::raw(201, "application/json", json!({"ID": SERVICE, "Warnings": ["mind the gap"]}).to_string()),
        )
        .on(&format!("GET /services/{SERVICE}"), Reply::json(service(2)))
        .on("GET /nodes", Reply::json(json!([leader()])))
        .on("GET /tasks", Reply::json(json!([])))
        .on("GET /tasks", Reply::json(json!([task(1, "running", ""), task(2, "preparing", "")])))
        .on("GET /tasks", Reply::json(json!([task(1, "running", ""), task(2, "running", "")])));
    let run = daemon
        .run(&["service", "create", "--name", "web", "--no-resolve-image", "--replicas", "2", "nginx:1", "sleep", "-x"])
        .await;
    let want = format!(
        "{SERVICE}\noverall progress: 0 out of 2 tasks\noverall progress: 1 out of 2 tasks\n1/2: running\n2/2: preparing\n\
         overall progress: 2 out of 2 tasks\n2/2: running\nverify: Waiting 1 seconds to verify that tasks are stable...\n\
         verify: Service {SERVICE} converged\n"
    );
    assert_eq!((run.stdout, run.stderr.as_str(), run.code), (want, "mind the gap\n", Some(0)));
    let sent = daemon.body_of("POST /v1.52/services/create");
    assert_eq!(sent["TaskTemplate"]["ContainerSpec"]["Args"], json!(["sleep", "-x"]));
    assert_eq!(sent["Mode"], json!({"Replicated": {"Replicas": 2}}));
    let asked = daemon.requests().into_iter().map(|(line, _)| line).find(|l| l.contains("/tasks")).unwrap();
    assert!(asked.contains("_up-to-date") && asked.contains(SERVICE), "{asked}");
}

#[tokio::test]
async fn ctrl_c_leaves_the_service_alone() {
    let daemon = FakeDaemon::start()
        .on(&format!("GET /services/{SERVICE}"), Reply::json(service(1)))
        .on("GET /services/web", Reply::json(service(1)))
        .on(&format!("POST /services/{SERVICE}/update"), Reply::json(json!({"Warnings": null})))
        .on("GET /nodes", Reply::json(json!([leader()])))
        .on("GET /tasks", Reply::json(json!([task(1, "pending", "no suitable node")])));
    let mut command = daemon.command(&["service", "scale", "web=1"]);
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let pid = child.id().unwrap().to_string();
    // Once it has asked for the tasks it is watching.
    while !daemon.requests().iter().any(|(line, _)| line.contains("/tasks")) {
        tokio::task::yield_now().await;
    }
    assert!(tokio::process::Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let output = child.wait_with_output().await.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        stdout.ends_with(&format!(
            "Operation continuing in background.\nUse `swarmlite service ps {SERVICE}` to check progress.\n"
        )),
        "{stdout}"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn an_image_is_pinned_to_its_digest_when_the_registry_answers() {
    let created = || Reply::raw(201, "application/json", json!({"ID": SERVICE}).to_string());
    let found = json!({"Descriptor": {"digest": "sha256:aa"}, "Platforms": [{"architecture": "amd64", "os": "linux"}, {"architecture": "arm", "os": "linux"}]});
    let daemon = FakeDaemon::start()
        .on("POST /services/create", created())
        .on("GET /distribution/registry.example/nginx:latest/json", Reply::json(found));
    let run = daemon.run(&["service", "create", "-d", "registry.example/nginx"]).await;
    assert_eq!((run.stdout, run.stderr.as_str(), run.code), (format!("{SERVICE}\n"), "", Some(0)));
    let task = &daemon.body_of("POST")["TaskTemplate"];
    assert_eq!(task["ContainerSpec"]["Image"], "registry.example/nginx:latest@sha256:aa");
    assert_eq!(task["Placement"]["Platforms"], json!([{"Architecture": "amd64", "OS": "linux"}, {"OS": "linux"}]));

    let daemon = FakeDaemon::start().on("POST /services/create", created());
    let run = daemon.run(&["service", "create", "-d", "nginx"]).await;
    assert!(
        run.stderr.starts_with("image nginx:latest could not be accessed on a registry to record\nits digest."),
        "{run:?}"
    );
    assert_eq!((run.stdout, run.code), (format!("{SERVICE}\n"), Some(0)));
}

#[tokio::test]
async fn a_stored_login_travels_only_when_asked_for() {
    let config = tempfile::tempdir().unwrap();
    let daemon = FakeDaemon::start()
        .on("POST /services/create", Reply::raw(201, "application/json", json!({"ID": SERVICE}).to_string()));
    let login = json!({"auths": {"registry.example": {"auth": "dXNlcjpwYXNz"}}}).to_string();
    tokio::io::copy(
        &mut login.as_bytes(),
        &mut tokio::fs::File::create(config.path().join("config.json")).await.unwrap(),
    )
    .await
    .unwrap();
    for (flags, sent) in [(&["--with-registry-auth"] as &[&str], 1), (&[], 1)] {
        let args = [&["service", "create", "-d", "--no-resolve-image"], flags, &["registry.example/a"]].concat();
        let mut command = daemon.command(&args);
        command.env("DOCKER_CONFIG", config.path());
        let run = finish(command).await;
        assert_eq!((run.code, daemon.registry_auth().len()), (Some(0), sent), "{run:?}");
    }
    // {"password":"pass","serveraddress":"registry.example","username":"user"}
    let want = "eyJwYXNzd29yZCI6InBhc3MiLCJzZXJ2ZXJhZGRyZXNzIjoicmVnaXN0cnkuZXhhbXBsZSIsInVzZXJuYW1lIjoidXNlciJ9";
    assert_eq!(daemon.registry_auth(), [want]);
}

#[tokio::test]
async fn logs_say_which_task_they_are_from() {
    let task_id = "ttttttttttttttttttttttttt";
    let details = format!(
        "com.docker.swarm.node.id={NODE},com.docker.swarm.service.id={SERVICE},com.docker.swarm.task.id={task_id}"
    );
    let out = encode(Stream::Stdout, format!("{details} hello world\n").as_bytes());
    let err = encode(Stream::Stderr, format!("{details} oops\n").as_bytes());
    let logs = Reply::raw(200, "application/vnd.docker.multiplexed-stream", [out, err].concat());
    let mut the_task = task(1, "running", "");
    the_task["ID"] = json!(task_id);
    let daemon = FakeDaemon::start()
        .on("GET /services/web", Reply::json(service(10)))
        .on(&format!("GET /services/{SERVICE}"), Reply::json(service(10)))
        .on(&format!("GET /services/{SERVICE}/logs"), logs)
        .on(&format!("GET /tasks/{task_id}"), Reply::json(the_task))
        .on(&format!("GET /nodes/{NODE}"), Reply::json(leader()));
    let run = daemon.run(&["service", "logs", "--tail", "5", "web"]).await;
    assert_eq!(run.stdout, "web.1.tttttttttttt@host1     | hello world\n");
    assert_eq!((run.stderr.as_str(), run.code), ("web.1.tttttttttttt@host1     | oops\n", Some(0)));
    let asked = daemon.requests().into_iter().map(|(line, _)| line).find(|l| l.contains("/logs")).unwrap();
    assert!(asked.contains("stdout=1&stderr=1&follow=0&timestamps=0&tail=5&details=1"), "{asked}");
    let run = daemon.run(&["service", "logs", "nope"]).await;
    assert_eq!((run.stderr.as_str(), run.code), ("no such task or service: nope\n", Some(1)));
}

#[tokio::test]
async fn events_are_told_one_by_one() {
    let event = |action: &str| json!({"Type": "service", "Action": action, "Actor": {"ID": "abc", "Attributes": {"name": "web"}}, "scope": "swarm", "time": 1_700_000_000, "timeNano": 1_700_000_000_000_000_000_i64});
    let body = format!("{}\n{}", event("create"), event("remove"));
    let daemon = FakeDaemon::start().on("GET /events", Reply::raw(200, "application/json", body));
    let run = daemon.run(&["system", "events", "--filter", "type=service", "--until", "1"]).await;
    let want = "2023-11-14T22:13:20.000000000Z service create abc (name=web)\n2023-11-14T22:13:20.000000000Z service remove abc (name=web)\n";
    assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), (want, "", Some(0)));
    let run = daemon.run(&["events", "--format", "{{.Action}}"]).await;
    assert_eq!(run.stdout, "create\nremove\n");
}

#[tokio::test]
async fn init_prints_a_join_command_to_paste() {
    let daemon = FakeDaemon::start()
        .on("POST /swarm/init", Reply::json(json!(NODE)))
        .on(&format!("GET /nodes/{NODE}"), Reply::json(leader()))
        .on("GET /swarm", Reply::json(json!({"ID": "c", "Version": {"Index": 5}, "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z",
            "JoinTokens": {"Worker": "SWMTKN-1-d-w", "Manager": "SWMTKN-1-d-m"}})))
        .on("GET /info", info());
    let run = daemon.run(&["init", "--advertise-addr", "10.0.0.1"]).await;
    let want = format!(
        "Swarm initialized: current node ({NODE}) is now a manager.\n\nTo add a worker to this swarm, run the following command:\n\n    \
         swarmlite swarm join --token SWMTKN-1-d-w 10.0.0.1:2377\n\n\
         To add a manager to this swarm, run 'swarmlite swarm join-token manager' and follow the instructions.\n"
    );
    assert_eq!((run.stdout, run.stderr.as_str(), run.code), (want, "", Some(0)));
    assert_eq!(daemon.body_of("POST /v1.52/swarm/init")["AdvertiseAddr"], "10.0.0.1");
    let run = daemon.run(&["swarm", "join-token", "-q", "manager"]).await;
    assert_eq!(run.stdout, "SWMTKN-1-d-m\n");
}

#[tokio::test]
async fn join_says_as_what_and_leave_needs_force_only_when_told() {
    let daemon = FakeDaemon::start()
        .on("POST /swarm/join", Reply::raw(200, "text/plain", ""))
        .on("POST /swarm/leave", Reply::raw(200, "text/plain", ""))
        .on("GET /info", info());
    let run = daemon.run(&["join", "--token", "SWMTKN-1-d-m", "10.0.0.1:2377"]).await;
    assert_eq!((run.stdout.as_str(), run.code), ("This node joined a swarm as a manager.\n", Some(0)));
    let sent = daemon.body_of("POST /v1.52/swarm/join");
    assert_eq!((&sent["RemoteAddrs"], &sent["JoinToken"]), (&json!(["10.0.0.1:2377"]), &json!("SWMTKN-1-d-m")));
    let run = daemon.run(&["swarm", "leave", "--force"]).await;
    assert_eq!(run.stdout, "Node left the swarm.\n");
    assert_eq!(daemon.requests().last().unwrap().0, "POST /v1.52/swarm/leave?force=1");
}

#[tokio::test]
async fn one_bad_name_does_not_keep_the_others_from_their_turn() {
    let daemon = FakeDaemon::start()
        .on("DELETE /services/web", Reply::raw(200, "text/plain", ""))
        .on("DELETE /services/nope", Reply::error(404, "service nope not found"));
    let run = daemon.run(&["service", "rm", "nope", "web"]).await;
    assert_eq!((run.stdout.as_str(), run.code), ("web\n", Some(1)));
    assert_eq!(run.stderr, "Error response from daemon: service nope not found\n");
}

#[tokio::test]
async fn inspect_shows_what_the_daemon_said_unknown_fields_included() {
    let raw = r#"{"ID":"x","Zebra":{"b":1,"a":[]},"Spec":{"Name":"web"}}"#;
    let daemon = FakeDaemon::start().on("GET /services/web", Reply::raw(200, "application/json", raw));
    let run = daemon.run(&["service", "inspect", "web", "nope"]).await;
    let want = "[\n    {\n        \"ID\": \"x\",\n        \"Zebra\": {\n            \"b\": 1,\n            \"a\": []\n        },\n        \"Spec\": {\n            \"Name\": \"web\"\n        }\n    }\n]\n";
    assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), (want, "Error: no such service: nope\n", Some(1)));
    let run = daemon.run(&["service", "inspect", "--format", "{{.Spec.Name}} {{json .Zebra}}", "web"]).await;
    assert_eq!(run.stdout, "web {\"a\":[],\"b\":1}\n");
}

#[tokio::test]
async fn an_update_names_the_version_that_it_read() {
    let daemon = FakeDaemon::start()
        .on("GET /services/web", Reply::json(service(1)))
        .on(
            &format!("POST /services/{SERVICE}/update"),
            Reply::error(500, "rpc error: code = Unknown desc = update out of sequence"),
        )
        .on(&format!("GET /nodes/{NODE}"), Reply::json(leader()))
        .on(&format!("POST /nodes/{NODE}/update"), Reply::raw(200, "text/plain", ""));
    let run = daemon.run(&["service", "update", "-d", "--env-add", "A=1", "web"]).await;
    assert_eq!(
        (run.stderr.as_str(), run.code),
        ("Error response from daemon: rpc error: code = Unknown desc = update out of sequence\n", Some(1))
    );
    let (line, body) = daemon.requests().last().cloned().unwrap();
    assert_eq!(line, format!("POST /v1.52/services/{SERVICE}/update?version=20&registryAuthFrom=spec"));
    let sent: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(sent["TaskTemplate"]["ContainerSpec"]["Env"], json!(["A=1"]));
    let run = daemon.run(&["node", "demote", NODE]).await;
    assert_eq!(run.stdout, format!("Manager {NODE} demoted in the swarm.\n"));
    assert_eq!(daemon.body_of("POST /v1.52/nodes")["Role"], "worker");
}

#[tokio::test]
async fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let run = finish(swarmlite(&["completion", shell])).await;
        assert!(run.stdout.contains("join-token") && run.code == Some(0), "{shell}");
    }
}

#[tokio::test]
async fn the_number_of_old_snapshots_is_a_flag_and_what_is_set_of_raft_is_shown() {
    let raft = json!({"SnapshotInterval": 5000, "KeepOldSnapshots": 2, "LogEntriesForSlowFollowers": 20, "ElectionTick": 40, "HeartbeatTick": 4});
    let swarm = json!({"ID": "c", "Version": {"Index": 9}, "Spec": {"Name": "default", "Raft": raft}});
    let info =
        json!({"Swarm": {"NodeID": NODE, "LocalNodeState": "active", "ControlAvailable": true, "Cluster": swarm}});
    let daemon = FakeDaemon::start()
        .on("GET /info", Reply::json(info))
        .on("GET /swarm", Reply::json(swarm))
        .on("POST /swarm/update", Reply::json(json!({})));
    let shown = daemon.run(&["info"]).await.stdout;
    for line in ["Number of Old Snapshots to Retain: 2", "Heartbeat Tick: 4", "Election Tick: 40"] {
        assert!(shown.contains(&format!("   {line}\n")), "{shown}");
    }
    for (flag, expected) in [("--max-snapshots=7", 7), ("--max-snapshots=0", 0), ("--task-history-limit=3", 2)] {
        let run = daemon.run(&["swarm", "update", flag]).await;
        assert_eq!((run.stdout.as_str(), run.code), ("Swarm updated.\n", Some(0)), "{run:?}");
        let sent = daemon.requests().last().cloned().map(|(_, body)| serde_json::from_str::<Value>(&body).unwrap());
        let sent = sent.unwrap()["Raft"].clone();
        assert_eq!((&sent["KeepOldSnapshots"], &sent["ElectionTick"]), (&json!(expected), &json!(40)), "{flag}");
    }
}
