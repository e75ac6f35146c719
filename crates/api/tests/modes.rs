//! Services of all modes through HTTP: how many tasks run, which run of a job it is, what tasks look like, filters.

mod support;

use model::{GenericResource, Meta, NodeState, Service, Task, TaskState, TaskStatus, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{StoreClient as _, Transaction};
use support::{World, escape, id, manager, minimal, node_id};

fn with_mode(name: &str, mode: Value) -> Value {
    let mut spec = minimal(name, 1);
    spec["Mode"] = mode;
    spec
}

async fn create(world: &World, name: &str, mode: Value) -> Arc<Service> {
    world.post("/services/create", &with_mode(name, mode)).await.ok(201);
    service(world, name)
}

fn service(world: &World, name: &str) -> Arc<Service> {
    world.store.local().service_named(&name.parse().expect("a name")).expect("the service").clone()
}

/// A task of the service on node 1, in its present run.
fn task_of(service: &Service, n: usize, state: TaskState, desired: TaskState) -> Task {
    let is_global = service.spec.mode.is_global();
    Task {
        id: id('t', n).parse().expect("an id"),
        meta: Meta::default(),
        service_id: service.id.clone(),
        service_name: service.spec.name.clone(),
        slot: if is_global { 0 } else { n as u64 },
        for_node: is_global.then(|| node_id(1)),
        job_iteration: service.progress.job.map(|j| j.iteration),
        inherited: None,
        spec: Arc::clone(&service.spec.task),
        spec_version: service.spec_version,
        host_ports: Vec::new(),
        node_id: Some(node_id(1)),
        generic: Vec::new(),
        desired,
        run_after: None,
        failures: 0,
        status: TaskStatus { state, ..TaskStatus::default() },
    }
}

async fn status_of(world: &World, name: &str) -> Value {
    let filters = escape(&json!({"name": [name]}).to_string());
    world.get(&format!("/services?status=true&filters={filters}")).await.ok(200).json()[0]["ServiceStatus"].clone()
}

fn counts(running: u64, desired: u64, completed: u64) -> Value {
    json!({"RunningTasks": running, "DesiredTasks": desired, "CompletedTasks": completed})
}

#[tokio::test]
async fn tasks_are_counted_by_what_the_mode_makes_of_them() {
    use TaskState::{Complete, Failed, Pending, Ready, Running, Shutdown};
    let world = manager().await;
    let job = json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}});
    for (name, mode, tasks, counted) in [
        (
            "replicated",
            json!({"Replicated": {"Replicas": 3}}),
            &[(Running, Running), (Pending, Running), (Failed, Shutdown)][..],
            counts(1, 3, 0),
        ),
        // One on each node that has one; a restart that is not due yet is not wanted yet.
        (
            "global",
            json!({"Global": {}}),
            &[(Running, Running), (Pending, Running), (Ready, Ready), (Failed, Shutdown)],
            counts(1, 2, 0),
        ),
        (
            "job",
            job,
            &[(Running, Complete), (Complete, Complete), (Complete, Complete), (Failed, Shutdown)],
            counts(1, 2, 2),
        ),
        (
            "global-job",
            json!({"GlobalJob": {}}),
            &[(Running, Complete), (Complete, Complete), (Failed, Shutdown)],
            counts(1, 1, 1),
        ),
    ] {
        let service = create(&world, name, mode).await;
        for (n, (state, desired)) in tasks.iter().enumerate() {
            let mut task = task_of(&service, n + 1, *state, *desired);
            task.id = format!("{}{:024}", name.as_bytes()[0] as char, n + 10 * name.len()).parse().expect("an id");
            world.put(task).await;
        }
        assert_eq!(status_of(&world, name).await, counted, "{name}");
    }
}

#[tokio::test]
async fn what_ran_on_a_node_that_is_down_does_not_run() {
    let world = manager().await;
    let service = create(&world, "global", json!({"Global": {}})).await;
    world.put(task_of(&service, 1, TaskState::Running, TaskState::Running)).await;
    assert_eq!(status_of(&world, "global").await, counts(1, 1, 0));
    let mut node = model::Node::clone(world.store.local().node(&node_id(1)).expect("the node"));
    node.status.state = NodeState::Down;
    let mut tx = Transaction::new(Timestamp(1));
    tx.update(node);
    world.store.propose(tx).await.expect("a change");
    assert_eq!(status_of(&world, "global").await, counts(0, 1, 0));
}

#[tokio::test]
async fn an_update_of_a_job_is_another_run_of_it() {
    let world = manager().await;
    let mode = json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 3}});
    create(&world, "job", mode.clone()).await;
    let status = async || world.get("/services/job").await.json()["JobStatus"].clone();
    let now = "2023-11-14T22:13:20Z";
    assert_eq!(status().await, json!({"JobIteration": {}, "LastExecution": now}));
    world.put(task_of(&service(&world, "job"), 1, TaskState::Complete, TaskState::Complete)).await;
    assert_eq!(status_of(&world, "job").await, counts(0, 1, 1));
    let mut forced = with_mode("job", mode.clone());
    forced["TaskTemplate"]["ForceUpdate"] = json!(1);
    for (iteration, query, spec) in
        [(1, "", &forced), (2, "", &forced), (3, "&rollback=previous", &with_mode("job", mode.clone()))]
    {
        let version = world.version_of("/services/job").await;
        world.post(&format!("/services/job/update?version={version}{query}"), spec).await.ok(200);
        assert_eq!(status().await, json!({"JobIteration": {"Index": iteration}, "LastExecution": now}));
    }
    // What the first run completed is not this one's.
    assert_eq!(status_of(&world, "job").await, counts(0, 1, 0));
    assert!(world.get("/services/job").await.json()["UpdateStatus"]["State"] == "rollback_started");
    let plain = create(&world, "web", json!({"Global": {}})).await;
    assert_eq!(plain.progress.job, None);
    assert!(world.get("/services/web").await.json().get("JobStatus").is_none());
}

#[tokio::test]
async fn a_job_with_a_schedule_runs_when_that_says_so() {
    let world = manager().await;
    let mut spec = with_mode("job", json!({"ReplicatedJob": {}}));
    spec["Labels"] = json!({"swarmlite.cron.schedule": "@daily"});
    world.post("/services/create", &spec).await.ok(201);
    let before = service(&world, "job");
    assert!(before.spec.cron.is_some());
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("nginx:1.26");
    let version = world.version_of("/services/job").await;
    world.post(&format!("/services/job/update?version={version}"), &spec).await.ok(200);
    assert_eq!(service(&world, "job").progress, before.progress);
    // Without its schedule it is a job like any other.
    spec["Labels"] = json!({});
    let version = world.version_of("/services/job").await;
    world.post(&format!("/services/job/update?version={version}"), &spec).await.ok(200);
    assert_eq!(service(&world, "job").progress.job.map(|j| j.iteration), Some(1));
    spec["Labels"] = json!({"swarmlite.cron.schedule": "@daily"});
    spec["Mode"] = json!({"Global": {}});
    let reply = world.post("/services/create", &spec).await.ok(400);
    assert!(reply.message().contains("only a job runs by a schedule"), "{}", reply.message());
}

#[tokio::test]
async fn a_mode_stays_what_it_is() {
    let world = manager().await;
    let modes = [
        ("replicated", json!({"Replicated": {"Replicas": 2}})),
        ("global", json!({"Global": {}})),
        ("replicated-job", json!({"ReplicatedJob": {"MaxConcurrent": 2}})),
        ("global-job", json!({"GlobalJob": {}})),
    ];
    for (name, mode) in &modes {
        create(&world, name, mode.clone()).await;
        for (other, to) in &modes {
            let version = world.version_of(&format!("/services/{name}")).await;
            let path = format!("/services/{name}/update?version={version}");
            let reply = world.post(&path, &with_mode(name, to.clone())).await;
            if name == other {
                reply.ok(200);
            } else {
                reply.is(501, "rpc error: code = Unimplemented desc = service mode change is not allowed");
            }
        }
    }
    let found = async |modes: &[&str]| {
        let filters = escape(&json!({"mode": modes}).to_string());
        let all = world.get(&format!("/services?filters={filters}")).await.ok(200).json();
        let mut names: Vec<String> = all
            .as_array()
            .expect("a list")
            .iter()
            .map(|s| s["Spec"]["Name"].as_str().expect("a name").to_owned())
            .collect();
        names.sort();
        names
    };
    for (name, _) in &modes {
        assert_eq!(found(&[name]).await, [*name]);
    }
    assert_eq!(found(&["global", "replicated"]).await, ["global", "replicated"]);
    assert_eq!(found(&["what"]).await, Vec::<String>::new());
}

#[tokio::test]
async fn tasks_show_what_their_mode_gives_them() {
    let world = manager().await;
    let replicated = create(&world, "web", json!({"Replicated": {"Replicas": 1}})).await;
    let global = create(&world, "agent", json!({"Global": {}})).await;
    let job = create(&world, "job", json!({"ReplicatedJob": {}})).await;
    let mut placed = task_of(&replicated, 1, TaskState::Running, TaskState::Running);
    placed.generic = vec![
        GenericResource::Named { kind: "GPU".into(), value: "a".into() },
        GenericResource::Discrete { kind: "SSD".into(), amount: 2 },
    ];
    let mut waiting = task_of(&global, 2, TaskState::Pending, TaskState::Running);
    waiting.node_id = None;
    let mut first = task_of(&job, 3, TaskState::Running, TaskState::Complete);
    (first.slot, first.job_iteration) = (0, Some(4));
    for task in [placed, waiting, first] {
        world.put(task).await;
    }
    let task = async |n| world.get(&format!("/tasks/{}", id('t', n))).await.ok(200).json();
    let (placed, waiting, first) = (task(1).await, task(2).await, task(3).await);
    assert_eq!(
        placed["GenericResources"],
        json!([{"NamedResourceSpec": {"Kind": "GPU", "Value": "a"}}, {"DiscreteResourceSpec": {"Kind": "SSD", "Value": 2}}])
    );
    assert_eq!((&placed["Slot"], placed.get("JobIteration")), (&json!(1), None));
    assert_eq!((waiting.get("Slot"), &waiting["NodeID"]), (None, &json!(node_id(1).as_str())));
    assert_eq!(waiting["Name"], format!("agent.{}.{}", node_id(1), id('t', 2)));
    assert_eq!((first.get("Slot"), &first["JobIteration"]), (None, &json!({"Index": 4})));
    assert_eq!(first["Name"], format!("job.{}.{}", node_id(1), id('t', 3)));
    assert_eq!(first["DesiredState"], "complete");
    let complete = escape(r#"{"desired-state":["complete"],"_up-to-date":["true"]}"#);
    assert_eq!(world.get(&format!("/tasks?filters={complete}")).await.json().as_array().expect("a list").len(), 1);
}

#[tokio::test]
async fn a_node_shows_what_else_it_has() {
    let world = manager().await;
    let mut node = model::Node::clone(world.store.local().node(&node_id(1)).expect("the node"));
    let description = node.description.as_mut().expect("a description");
    description.resources.nano_cpus = 2_000_000_000;
    description.generic = vec![
        GenericResource::Named { kind: "GPU".into(), value: "a".into() },
        GenericResource::Discrete { kind: "SSD".into(), amount: 3 },
    ];
    let mut tx = Transaction::new(Timestamp(1));
    tx.update(node);
    world.store.propose(tx).await.expect("a change");
    let generic = json!([{"NamedResourceSpec": {"Kind": "GPU", "Value": "a"}}, {"DiscreteResourceSpec": {"Kind": "SSD", "Value": 3}}]);
    for (role, found) in [("manager", 1), ("MANAGER", 1), ("worker", 0)] {
        let filters = escape(&json!({"role": [role]}).to_string());
        let nodes = world.get(&format!("/nodes?filters={filters}")).await.ok(200).json();
        assert_eq!(nodes.as_array().expect("a list").len(), found, "{role}");
        if found > 0 {
            let resources = &nodes[0]["Description"]["Resources"];
            assert_eq!(*resources, json!({"NanoCPUs": 2_000_000_000, "GenericResources": generic}));
        }
    }
}

#[tokio::test]
async fn parameters_are_read_as_go_reads_them() {
    let world = manager().await;
    create(&world, "web", json!({"Global": {}})).await;
    let error = |name: &str| format!("invalid value for {name}: x: strconv.ParseBool: parsing \"x\": invalid syntax");
    world.get("/services?status=x").await.is(400, &error("status"));
    world.get("/services/web?insertDefaults=x").await.is(400, &error("insertDefaults"));
    let has_status = async |path: &str| world.get(path).await.ok(200).json()[0].get("ServiceStatus").is_some();
    assert!(has_status("/v1.41/services?status=T").await);
    // Older clients do not know it.
    assert!(!has_status("/v1.40/services?status=x").await);
    assert!(!has_status("/services?status=0").await);
}
