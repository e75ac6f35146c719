//! Plans and what-ifs through HTTP: what would come of a change, and that nothing comes of asking.

mod support;

use model::Role;
use serde_json::{Value, json};
use store::{Snapshot, Store, StoreClient as _};
use support::{World, id, manager, minimal};

/// The whole state; a request that only asks must leave it as it is.
fn state(world: &World) -> (u64, Vec<u8>) {
    let snapshot: Snapshot = world.store.local();
    (snapshot.index(), Store::encode(&snapshot))
}

async fn planned(world: &World, method: &str, path: &str, body: Option<&Value>) -> Value {
    let before = state(world);
    let forecast = world.call(method, path, body).await.ok(200).json();
    assert_eq!(state(world), before, "a plan of {method} {path} changes nothing");
    assert!(forecast.get("Changes").is_some() && forecast.get("Ends").is_some(), "{forecast}");
    forecast
}

fn actions(forecast: &Value) -> Vec<String> {
    let steps = forecast["Steps"].as_array().expect("a list");
    steps.iter().map(|s| s["Action"].as_str().expect("an action").to_owned()).collect()
}

#[tokio::test]
async fn a_plan_of_a_creation_says_what_would_run_where() {
    let world = manager().await;
    world.add_node(2, Role::Worker).await;
    let forecast = planned(&world, "POST", "/v1.47/services/create?plan=1", Some(&minimal("web", 2))).await;
    assert_eq!((&forecast["Changes"], &forecast["Ends"]), (&json!(true), &json!("settled")));
    assert!(actions(&forecast).contains(&"create".to_owned()), "{forecast}");
    let landed: u64 =
        forecast["Landing"].as_array().expect("a list").iter().filter_map(|n| n["Tasks"]["web"].as_u64()).sum();
    assert_eq!(landed, 2, "{forecast}");
    assert_eq!(forecast["Services"][0]["WantedAfter"], 2);
    // The same question has the same answer.
    let again = planned(&world, "POST", "/services/create?plan=1", Some(&minimal("web", 2))).await;
    assert_eq!(actions(&again), actions(&forecast));
    world.get("/services/web").await.is(404, "service web not found");
}

#[tokio::test]
async fn what_would_be_refused_is_refused() {
    let world = manager().await;
    world.service("web", 1).await;
    let before = state(&world);
    world.post("/services/create?plan=1", &minimal("web", 1)).await.is(
        409,
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists",
    );
    let stale = "rpc error: code = Unknown desc = update out of sequence";
    world.post("/services/web/update?plan=1&version=1", &minimal("web", 2)).await.is(500, stale);
    world.delete("/services/none?plan=1").await.is(404, "service none not found");
    world.delete(&format!("/nodes/{}?plan=1", id('n', 1))).await.ok(400);
    let mut privileged = minimal("db", 1);
    privileged["Labels"] = json!({"swarmlite.privileged": "true"});
    world.post("/services/create?plan=1", &privileged).await.ok(403);
    assert_eq!(state(&world), before);
}

#[tokio::test]
async fn every_change_of_the_swarms_state_can_be_planned_and_nothing_else() {
    let world = manager().await;
    world.add_node(2, Role::Worker).await;
    world.service("web", 1).await;
    let secret = json!({"Name": "key", "Data": "eA=="});
    world.post("/secrets/create", &secret).await.ok(201);
    world.post("/configs/create", &secret).await.ok(201);
    let worker = format!("/nodes/{}", id('n', 2));
    let version = async |path: &str| world.version_of(path).await;
    let drained = json!({"Role": "worker", "Availability": "drain"});
    let swarm = world.get("/swarm").await.json();
    let other_secret = json!({"Name": "other", "Data": "eA=="});
    let relabelled = json!({"Name": "key", "Labels": {"a": "b"}});
    for (method, path, body) in [
        ("POST", format!("/services/web/update?version={}", version("/services/web").await), Some(minimal("web", 3))),
        ("DELETE", "/services/web?".to_owned(), None),
        ("POST", format!("{worker}/update?version={}", version(&worker).await), Some(drained)),
        ("DELETE", format!("{worker}?force=1"), None),
        ("POST", "/secrets/create?".to_owned(), Some(other_secret.clone())),
        ("POST", "/configs/create?".to_owned(), Some(other_secret)),
        ("POST", format!("/secrets/key/update?version={}", version("/secrets/key").await), Some(relabelled.clone())),
        ("POST", format!("/configs/key/update?version={}", version("/configs/key").await), Some(relabelled)),
        ("DELETE", "/secrets/key?".to_owned(), None),
        ("DELETE", "/configs/key?".to_owned(), None),
        (
            "POST",
            format!("/swarm/update?rotateWorkerToken=1&version={}", swarm["Version"]["Index"]),
            Some(swarm["Spec"].clone()),
        ),
        ("POST", "/swarmlite/rebalance?".to_owned(), Some(json!({}))),
    ] {
        let forecast = planned(&world, method, &format!("{path}&plan=1"), body.as_ref()).await;
        let text = forecast.to_string();
        assert!(!text.contains("eA==") && !text.contains("SWMTKN"), "{text}");
    }
    let before = state(&world);
    for (method, path) in [
        ("POST", "/swarm/init?plan=1"),
        ("POST", "/swarm/leave?plan=1&force=1"),
        ("POST", "/swarmlite/gossip/rotate?plan=1"),
        ("POST", "/swarmlite/tokens?plan=true"),
    ] {
        let reply = world.call(method, path, Some(&json!({}))).await.ok(400);
        assert!(reply.message().starts_with("this request cannot be planned"), "{path}: {}", reply.message());
    }
    assert_eq!(state(&world), before);
    assert!(world.swarm.leaves.lock().is_empty() && world.swarm.inits.lock().is_empty());
    // A list is a list.
    world.get("/services?plan=1").await.ok(200);
}

#[tokio::test]
async fn a_plan_that_changes_nothing_says_so() {
    let world = manager().await;
    world.service("web", 0).await;
    let version = world.version_of("/services/web").await;
    let path = format!("/services/web/update?version={version}&plan=1");
    let forecast = planned(&world, "POST", &path, Some(&minimal("web", 0))).await;
    assert_eq!((&forecast["Changes"], &forecast["Steps"]), (&json!(false), &json!([])), "{forecast}");
}

#[tokio::test]
async fn what_if_nodes_die_is_answered_without_killing_any() {
    let world = manager().await;
    world.add_node(2, Role::Worker).await;
    world.service("web", 2).await;
    let ask = async |body: &Value| planned(&world, "POST", "/swarmlite/simulate", Some(body)).await;
    let forecast = ask(&json!({"Kill": ["host2"], "Scale": {"web": 3}})).await;
    let landing = forecast["Landing"].as_array().expect("a list");
    let on = |host: &str| {
        let node = landing.iter().find(|n| n["Hostname"] == host);
        node.and_then(|n| n["Tasks"]["web"].as_u64()).unwrap_or(0)
    };
    assert_eq!((on("host1"), on("host2")), (3, 0), "{forecast}");
    let nowhere = ask(&json!({"Kill": ["host2"], "Drain": ["host1"]})).await;
    assert_eq!(nowhere["Ends"], "waiting", "{nowhere}");
    for (body, status, text) in [
        (json!({"Kill": ["none"]}), 404, "node none not found"),
        (json!({"Scale": {"none": 3}}), 404, "service none not found"),
        (json!({}), 400, "there is nothing to simulate: name nodes to Kill or Drain, or services to Scale"),
    ] {
        world.post("/swarmlite/simulate", &body).await.is(status, text);
    }
    let too_many = json!({"Scale": {"web": 100_001}});
    world
        .post("/swarmlite/simulate", &too_many)
        .await
        .is(400, "service web cannot have 100001 replicas: at most 100000");
}
