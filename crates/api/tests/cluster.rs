//! `/swarm`, `/nodes`, `/tasks`, `/_ping`, `/info`, `/version` through HTTP.

mod support;

use model::{NodeState, Role, TaskState, Timestamp};
use serde_json::{Value, json};
use store::{StoreClient as _, Transaction};
use support::{World, cluster, escape, id, manager, minimal, node_id};
use swarmlite_api::{LocalState, NotManager, Reachability, SwarmError};

const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
const NOT_READY: &str =
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.";

fn node_spec(role: &str, availability: &str) -> Value {
    json!({"Name": "", "Labels": {"zone": "a"}, "Role": role, "Availability": availability})
}

async fn update_node(world: &World, n: usize, spec: &Value) -> support::Answer {
    let node = node_id(n);
    let version = world.version_of(&format!("/nodes/{node}")).await;
    world.post(&format!("/nodes/{node}/update?version={version}"), spec).await
}

#[tokio::test]
async fn without_a_manager_every_endpoint_says_why_in_dockers_words() {
    let world = manager().await;
    for (why, text) in
        [(NotManager::NoSwarm, NO_SWARM), (NotManager::Worker, WORKER), (NotManager::NotReady, NOT_READY)]
    {
        *world.swarm.store.lock() = Err(why);
        for path in [
            "/swarm",
            "/swarm/unlockkey",
            "/nodes",
            "/nodes/x",
            "/services",
            "/services/x",
            "/tasks",
            "/tasks/x",
            "/secrets",
            "/configs",
            "/services/x/logs?stdout=1",
        ] {
            world.get(path).await.is(503, text);
        }
        world.post("/services/create", &minimal("web", 1)).await.is(503, text);
        world.post("/services/x/update?version=1", &minimal("web", 1)).await.is(503, text);
        world.post("/nodes/x/update?version=1", &node_spec("worker", "active")).await.is(503, text);
        world.post("/swarm/update?version=1", &json!({"Name": "default"})).await.is(503, text);
        world.delete("/services/x").await.is(503, text);
        world.delete("/nodes/x").await.is(503, text);
    }
}

#[tokio::test]
async fn init_passes_on_what_was_asked_and_answers_with_the_node_id() {
    let world = World::new(None);
    let body = json!({
        "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.0.0.1", "DataPathAddr": "", "DataPathPort": 0,
        "ForceNewCluster": false, "Spec": {"Labels": null, "Orchestration": {}, "Raft": {"ElectionTick": 0, "HeartbeatTick": 0}, "Dispatcher": {}, "CAConfig": {}, "TaskDefaults": {}, "EncryptionConfig": {"AutoLockManagers": false}},
        "AutoLockManagers": false, "Availability": "drain", "DefaultAddrPool": null, "SubnetSize": 0
    });
    let reply = world.post("/v1.47/swarm/init", &body).await.ok(200);
    assert_eq!(reply.json(), json!(node_id(1).as_str()));
    let options = world.swarm.inits.lock()[0].clone();
    assert_eq!((options.listen_addr.as_str(), options.advertise_addr.as_str()), ("0.0.0.0:2377", "10.0.0.1"));
    assert_eq!((options.availability, options.spec), (model::Availability::Drain, model::ClusterSpec::default()));
    let with = |key: &str, value: Value| {
        let mut body = body.clone();
        body[key] = value;
        body
    };
    for (body, text) in [
        (with("Spec", json!({"Name": "x"})), "swarm spec must be named \"default\""),
        (with("Availability", json!("x")), "invalid Availability: \"x\""),
        (with("DataPathPort", json!(80)), "Datapath port number is out of range, use range 1024 to 49151: 80"),
        (with("SubnetSize", json!(30)), "subnet size is out of range: 30"),
        (with("DefaultAddrPool", json!(["10.0.0.0"])), "invalid CIDR address: 10.0.0.0"),
        (
            with("Spec", json!({"CAConfig": {"NodeCertExpiry": 60_000_000_000_u64}})),
            "rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s",
        ),
    ] {
        world.post("/swarm/init", &body).await.is(400, text);
    }
    assert_eq!(world.swarm.inits.lock().len(), 1);
    // Whether it can be forced is the node's to say.
    world.post("/swarm/init", &with("ForceNewCluster", json!(true))).await.ok(200);
    assert!(world.swarm.inits.lock()[1].force_new_cluster);
}

#[tokio::test]
async fn what_the_node_refuses_has_dockers_status() {
    let world = World::new(None);
    let join = json!({"RemoteAddrs": ["10.0.0.1:2377"], "JoinToken": "SWMTKN-1-a-b"});
    for (error, status, text) in [
        (
            SwarmError::AlreadyInSwarm,
            503,
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
        ),
        (
            SwarmError::JoinTimeout,
            503,
            "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node.",
        ),
        (SwarmError::NotInSwarm, 503, "This node is not part of a swarm"),
        (SwarmError::Invalid("bad".into()), 400, "bad"),
        (SwarmError::Unknown("who knows".into()), 500, "who knows"),
    ] {
        *world.swarm.outcome.lock() = Err(error);
        world.post("/swarm/init", &json!({})).await.is(status, text);
        world.post("/swarm/join", &join).await.is(status, text);
        world.call("POST", "/swarm/leave", None).await.is(status, text);
    }
    *world.swarm.outcome.lock() = Ok(());
    world.post("/swarm/join", &json!({"RemoteAddrs": []})).await.is(400, "at least 1 RemoteAddr is required to join");
    let reply = world.post("/swarm/join", &join).await.ok(200);
    assert!(reply.body.is_empty());
    let options = world.swarm.joins.lock().last().expect("a join").clone();
    assert_eq!(options.join_token, "SWMTKN-1-a-b");
    assert!(!format!("{options:?}").contains("SWMTKN"));
    world.post("/swarm/unlock", &json!({"UnlockKey": "x"})).await.is(409, "swarm is not locked");
}

#[tokio::test]
async fn a_manager_leaves_only_by_force() {
    let world = manager().await;
    let text = async || world.call("POST", "/swarm/leave", None).await.ok(503).message();
    let start = "You are attempting to leave the swarm on a node that is participating as a manager. ";
    assert_eq!(
        text().await,
        format!(
            "{start}Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
        )
    );
    world.add_node(2, Role::Manager).await;
    assert!(text().await.contains("Removing this node leaves 1 managers out of 2. Without a Raft quorum"));
    world.add_node(3, Role::Manager).await;
    assert!(!text().await.contains("Removing this node"));
    assert!(world.swarm.leaves.lock().is_empty());
    world.call("POST", "/swarm/leave?force=1", None).await.ok(200);
    assert_eq!(*world.swarm.leaves.lock(), [true]);
}

#[tokio::test]
async fn the_swarm_is_shown_updated_and_its_tokens_rotated() {
    let world = manager().await;
    let swarm = world.get("/v1.47/swarm").await.ok(200).json();
    assert_eq!(swarm["JoinTokens"]["Worker"], cluster().join_tokens.worker);
    assert_eq!(
        swarm["TLSInfo"],
        json!({"TrustRoot": "PEM", "CertIssuerSubject": "AQI=", "CertIssuerPublicKey": "Aw=="})
    );
    assert_eq!(swarm["Spec"]["Raft"]["ElectionTick"], 10);
    assert!(!swarm.to_string().contains("SECRET-KEY"));
    let version = swarm["Version"]["Index"].as_u64().expect("a version");
    // What `docker swarm update` sends is what it got, with a change.
    let mut spec = swarm["Spec"].clone();
    spec["Orchestration"]["TaskHistoryRetentionLimit"] = json!(2);
    world
        .post(&format!("/swarm/update?version={}", version + 1), &spec)
        .await
        .is(500, "rpc error: code = Unknown desc = update out of sequence");
    world
        .post("/swarm/update?version=x", &spec)
        .await
        .is(400, "invalid swarm version 'x': strconv.ParseUint: parsing \"x\": invalid syntax");
    world.post(&format!("/swarm/update?version={version}&rotateWorkerToken=true"), &spec).await.ok(200);
    let after = world.get("/swarm").await.json();
    assert_eq!(after["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 2);
    assert_eq!(after["JoinTokens"]["Manager"], swarm["JoinTokens"]["Manager"]);
    let token = after["JoinTokens"]["Worker"].as_str().expect("a token");
    assert_ne!(token, swarm["JoinTokens"]["Worker"]);
    assert!(token.starts_with("SWMTKN-1-digest-") && token.len() == "SWMTKN-1-digest-".len() + 25, "{token}");
    let version = world.version_of("/swarm").await;
    for (field, value, says) in [
        ("HeartbeatTick", 6, "rpc error: code = InvalidArgument desc = Raft.HeartbeatTick is 6: it must be at least 1"),
        ("ElectionTick", -3, "rpc error: code = InvalidArgument desc = Raft.ElectionTick is -3: it must be at least 1"),
        (
            "ElectionTick",
            1,
            "rpc error: code = InvalidArgument desc = Raft.ElectionTick is 1 and Raft.HeartbeatTick is 1: the election tick must be greater",
        ),
        (
            "LogEntriesForSlowFollowers",
            100_001,
            "rpc error: code = InvalidArgument desc = Raft.LogEntriesForSlowFollowers is 100001: a manager keeps at most 100000",
        ),
        (
            "KeepOldSnapshots",
            101,
            "rpc error: code = InvalidArgument desc = Raft.KeepOldSnapshots is 101: a manager keeps at most 100",
        ),
        (
            "SnapshotInterval",
            100_001,
            "rpc error: code = InvalidArgument desc = Raft.SnapshotInterval is 100001: at most",
        ),
    ] {
        let mut spec = spec.clone();
        spec["Raft"][field] = json!(value);
        let reply = world.post(&format!("/swarm/update?version={version}"), &spec).await.ok(400);
        assert!(reply.message().starts_with(says), "{}", reply.message());
    }
    for (sent, shown) in [(3, 3), (0, 3), (100_000, 100_000)] {
        let version = world.version_of("/swarm").await;
        spec["Raft"]["SnapshotInterval"] = json!(sent);
        world.post(&format!("/swarm/update?version={version}"), &spec).await.ok(200);
        assert_eq!(world.get("/swarm").await.json()["Spec"]["Raft"]["SnapshotInterval"], shown, "{sent} was sent");
    }
    assert_eq!(world.get("/swarm/unlockkey").await.ok(200).json(), json!({"UnlockKey": ""}));
}

#[tokio::test]
async fn the_settings_of_raft_are_kept_and_shown() {
    let world = manager().await;
    let spec = world.get("/swarm").await.json()["Spec"].clone();
    let docker = json!({
        "SnapshotInterval": 10_000, "KeepOldSnapshots": 0, "LogEntriesForSlowFollowers": 500, "ElectionTick": 10,
        "HeartbeatTick": 1
    });
    assert_eq!(spec["Raft"], docker, "Docker's defaults");
    for (sent, shown) in [
        // As Docker's documentation has it.
        (json!({"ElectionTick": 3}), json!([0, 500, 3, 1])),
        (json!({"KeepOldSnapshots": 2, "LogEntriesForSlowFollowers": 20}), json!([2, 20, 3, 1])),
        (json!({"ElectionTick": 40, "HeartbeatTick": 4}), json!([2, 20, 40, 4])),
        // Nothing of the old snapshots is a number like any other; the others say nothing.
        (json!({"KeepOldSnapshots": 0, "ElectionTick": 0, "HeartbeatTick": 0}), json!([0, 20, 40, 4])),
    ] {
        let version = world.version_of("/swarm").await;
        let mut spec = spec.clone();
        spec["Raft"] = sent;
        world.post(&format!("/swarm/update?version={version}"), &spec).await.ok(200);
        for raft in [
            world.get("/swarm").await.json()["Spec"]["Raft"].clone(),
            world.get("/info").await.json()["Swarm"]["Cluster"]["Spec"]["Raft"].clone(),
        ] {
            let now =
                ["KeepOldSnapshots", "LogEntriesForSlowFollowers", "ElectionTick", "HeartbeatTick"].map(|f| &raft[f]);
            assert_eq!(json!(now), shown, "{} was sent", spec["Raft"]);
        }
    }
}

#[tokio::test]
async fn nodes_are_listed_filtered_and_inspected() {
    let world = manager().await;
    world.add_node(2, Role::Worker).await;
    let node = world.get("/nodes/host1").await.ok(200).json();
    assert_eq!(node["ID"], node_id(1).as_str());
    assert_eq!(node["ManagerStatus"], json!({"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}));
    assert_eq!(node["Spec"], json!({"Labels": {}, "Role": "manager", "Availability": "active"}));
    assert_eq!(node["Status"], json!({"State": "ready", "Addr": "10.0.0.1"}));
    assert!(world.get("/nodes/host2").await.json().get("ManagerStatus").is_none());
    let found = async |filters: &str| {
        let all = world.get(&format!("/nodes?filters={}", escape(filters))).await.ok(200).json();
        all.as_array().expect("a list").len()
    };
    assert_eq!(found("{}").await, 2);
    assert_eq!(found(r#"{"role":["worker"]}"#).await, 1);
    assert_eq!(found(r#"{"name":["host"]}"#).await, 2);
    assert_eq!(found(r#"{"label":["disk=ssd"]}"#).await, 2);
    assert_eq!(found(r#"{"node.label":["zone"]}"#).await, 0);
    assert_eq!(found(r#"{"membership":["pending"]}"#).await, 0);
    world.get("/nodes?filters=%7B%22role%22%3A%5B%22x%22%5D%7D").await.is(400, "invalid role filter: 'x'");
    world.get("/nodes/none").await.is(404, "node none not found");
    world.get("/nodes/n").await.is(400, "node n is ambiguous (2 matches found)");
}

#[tokio::test]
async fn a_node_is_updated_with_its_version() {
    let world = manager().await;
    world.add_node(2, Role::Worker).await;
    update_node(&world, 2, &node_spec("worker", "drain")).await.ok(200);
    let node = world.get("/nodes/host2").await.json();
    assert_eq!((&node["Spec"]["Availability"], &node["Spec"]["Labels"]["zone"]), (&json!("drain"), &json!("a")));
    let path = format!("/nodes/{}/update?version=1", node_id(2));
    let stale = "rpc error: code = Unknown desc = update out of sequence";
    world.post(&path, &node_spec("worker", "active")).await.is(500, stale);
    update_node(&world, 2, &node_spec("boss", "active")).await.is(400, "invalid Role: \"boss\"");
    update_node(&world, 2, &node_spec("worker", "asleep")).await.is(400, "invalid Availability: \"asleep\"");
    update_node(&world, 2, &node_spec("manager", "active")).await.ok(200);
    assert_eq!(world.get("/nodes/host2").await.json()["Spec"]["Role"], "manager");
}

#[tokio::test]
async fn a_demotion_that_hurts_is_refused() {
    let world = manager().await;
    let last = "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm";
    update_node(&world, 1, &node_spec("worker", "active")).await.is(400, last);
    world.add_node(2, Role::Manager).await;
    world.add_node(3, Role::Manager).await;
    let view = |n: usize, r: Reachability| {
        let mut raft = world.swarm.raft.lock();
        raft.as_mut().expect("a view").managers.get_mut(&node_id(n)).expect("a manager").reachability = r;
    };
    view(2, Reachability::Unreachable);
    let quorum = "rpc error: code = FailedPrecondition desc = can't remove member from the raft: this would result in a loss of quorum";
    update_node(&world, 3, &node_spec("worker", "active")).await.is(400, quorum);
    // The one that is lost anyway may go.
    update_node(&world, 2, &node_spec("worker", "active")).await.ok(200);
}

#[tokio::test]
async fn a_node_is_removed_when_it_is_down_and_no_manager() {
    let world = manager().await;
    world.add_node(2, Role::Worker).await;
    let (one, two) = (node_id(1), node_id(2));
    let text = format!("rpc error: code = FailedPrecondition desc = node {two} is not down and can't be removed");
    world.delete("/nodes/host2").await.is(400, &text);
    let reply = world.delete(&format!("/nodes/{one}?force=1")).await.ok(400);
    assert!(reply.message().ends_with("It must be demoted to worker before removal"), "{}", reply.message());
    let mut node = model::Node::clone(world.store.local().node(&two).expect("the node"));
    node.status.state = NodeState::Down;
    let mut tx = Transaction::new(Timestamp(1));
    tx.update(node);
    world.store.propose(tx).await.expect("an update");
    world.delete("/nodes/host2").await.ok(200);
    world.get(&format!("/nodes/{two}")).await.is(404, &format!("node {two} not found"));
    // Its certificate, which may still be valid, is barred.
    assert!(world.store.local().cluster().expect("the cluster").removed_nodes.contains_key(&two));
    world.add_node(3, Role::Worker).await;
    world.delete("/nodes/host3?force=true").await.ok(200);
}

#[tokio::test]
async fn tasks_are_listed_filtered_and_counted() {
    let world = manager().await;
    world.service("web", 2).await;
    world.add_task("web", 1, TaskState::Running, TaskState::Running).await;
    world.add_task("web", 2, TaskState::Failed, TaskState::Shutdown).await;
    let task = world.get(&format!("/tasks/{}", id('t', 1))).await.ok(200).json();
    assert_eq!(task["Name"], format!("web.1.{}", id('t', 1)));
    assert_eq!(
        task["Status"],
        json!({"Timestamp": "2020-09-13T12:26:40Z", "State": "running", "Message": "started", "ContainerStatus": {"ContainerID": "abc", "PID": 7, "ExitCode": 0}, "PortStatus": {}})
    );
    assert_eq!((&task["Slot"], &task["DesiredState"], &task["Volumes"]), (&json!(1), &json!("running"), &Value::Null));
    let found = async |filters: &str| {
        let all = world.get(&format!("/tasks?filters={}", escape(filters))).await.ok(200).json();
        all.as_array().expect("a list").len()
    };
    assert_eq!(found("{}").await, 2);
    assert_eq!(found(r#"{"desired-state":{"running":true}}"#).await, 1);
    assert_eq!(found(r#"{"service":["web"],"_up-to-date":["true"]}"#).await, 2);
    assert_eq!(found(r#"{"node":["host1"]}"#).await, 2);
    assert_eq!(found(r#"{"name":["web.1"]}"#).await, 1);
    assert_eq!(found(r#"{"runtime":["container"],"id":["t"]}"#).await, 2);
    let get = async |f: &str| world.get(&format!("/tasks?filters={}", escape(f))).await;
    get(r#"{"service":["none"]}"#).await.is(404, "service none not found");
    get(r#"{"node":["none"]}"#).await.is(404, "node none not found");
    get(r#"{"desired-state":["what"]}"#).await.is(400, "invalid desired-state filter: 'what'");
    get(r#"{"what":["x"]}"#).await.is(400, "invalid filter 'what'");
    world.get("/tasks/none").await.is(404, "task none not found");
    // An update makes the tasks that are there out of date; scaling does not.
    for (spec, up_to_date) in [(minimal("web", 5), 2), (changed_image(), 0)] {
        let version = world.version_of("/services/web").await;
        world.post(&format!("/services/web/update?version={version}"), &spec).await.ok(200);
        assert_eq!(found(r#"{"_up-to-date":["true"]}"#).await, up_to_date);
    }
    let status = world.get("/services?status=1").await.json()[0]["ServiceStatus"].clone();
    assert_eq!(status, json!({"RunningTasks": 1, "DesiredTasks": 5, "CompletedTasks": 0}));
}

fn changed_image() -> Value {
    let mut spec = minimal("web", 5);
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("nginx:1.26");
    spec
}

#[tokio::test]
async fn ping_says_what_the_node_is() {
    let world = manager().await;
    let cases = [
        (LocalState::Inactive, "inactive"),
        (LocalState::Pending, "pending"),
        (LocalState::Worker, "active/worker"),
        (LocalState::Manager, "active/manager"),
        (LocalState::Locked, "locked"),
        (LocalState::Error("broken".into()), "error"),
    ];
    for (state, header) in cases {
        world.swarm.view.lock().state = state;
        for (method, body) in [("GET", "OK"), ("HEAD", "")] {
            let reply = world.call(method, "/v1.47/_ping", None).await;
            assert_eq!((reply.status.as_u16(), reply.body.as_ref()), (200, body.as_bytes()));
            let h = |name: &str| reply.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            assert_eq!((h("swarm"), h("api-version"), h("ostype")), (header.into(), "1.56".into(), "linux".into()));
            assert_eq!(h("content-type"), "text/plain; charset=utf-8");
            assert_eq!(h("docker-experimental"), "false");
        }
    }
}

#[tokio::test]
async fn info_and_version_work_without_an_engine_and_say_so() {
    let world = manager().await;
    world.add_node(2, Role::Worker).await;
    let info = world.get("/info").await.ok(200).json();
    let swarm = &info["Swarm"];
    assert_eq!((&swarm["LocalNodeState"], &swarm["ControlAvailable"]), (&json!("active"), &json!(true)));
    assert_eq!((&swarm["Nodes"], &swarm["Managers"], &swarm["ManagersMayFail"]), (&json!(2), &json!(1), &json!(0)));
    assert_eq!(swarm["RemoteManagers"], json!([{"NodeID": node_id(1).as_str(), "Addr": "10.0.0.1:2377"}]));
    assert!(swarm["Cluster"]["ID"].is_string() && swarm["Cluster"].get("JoinTokens").is_none());
    assert!(info["OperatingSystem"].as_str().is_some_and(|s| s.contains("embedded")), "{info}");
    *world.swarm.store.lock() = Err(NotManager::NoSwarm);
    *world.swarm.view.lock() = swarmlite_api::LocalView::default();
    let swarm = world.get("/v1.24/info").await.ok(200).json()["Swarm"].clone();
    assert_eq!(
        swarm,
        json!({"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null})
    );
    let version = world.get("/version").await.ok(200).json();
    assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&json!("1.56"), &json!("1.24")));
    assert_eq!(version["Components"][0]["Name"], "Swarmlite");
}

#[tokio::test]
async fn paths_versions_and_methods_that_are_not_there() {
    let world = manager().await;
    world.get("/v1.23/services").await.is(400, "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version");
    world.get("/v1.57/services").await.is(400, "client version 1.57 is too new. Maximum supported API version is 1.56");
    for version in ["1.24", "1.41", "1.47", "1.56"] {
        world.get(&format!("/v{version}/services")).await.ok(200);
    }
    world.post("/services", &json!({})).await.is(404, "page not found");
    world.get("/services/a/b/c").await.is(404, "page not found");
    world.get("/swarm/what").await.is(404, "page not found");
    let reply = world.get("/containers/json").await.ok(501);
    assert!(reply.message().contains("embedded engine"), "{}", reply.message());
}

#[tokio::test]
async fn overlay_networks_are_refused_clearly() {
    let world = manager().await;
    let reply = world.post("/networks/create", &json!({"Name": "n", "Driver": "overlay"})).await.ok(501);
    assert!(reply.message().contains("overlay networks are not supported"), "{}", reply.message());
}
