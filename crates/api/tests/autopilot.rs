//! What managers do by themselves, as `/info` tells it, and what is noted of nodes for it.

mod support;

use model::{Availability, Node, NodeId, NodeState, Role, SPARE_MANAGER_LABEL};
use serde_json::json;
use store::{StoreClient as _, Transaction};
use support::{World, manager, node_id};

async fn change(world: &World, id: &NodeId, f: impl FnOnce(&mut Node)) {
    let mut node = Node::clone(world.store.local().node(id).expect("the node"));
    f(&mut node);
    let mut tx = Transaction::default();
    tx.update(node);
    world.store.propose(tx).await.expect("nobody else writes");
}

#[tokio::test]
async fn info_says_what_autopilot_would_do() {
    let world = manager().await;
    for n in 2..=3 {
        world.add_node(n, Role::Manager).await;
    }
    world.add_node(4, Role::Worker).await;
    let said = async || world.get("/info").await.ok(200).json()["Swarm"]["Autopilot"].clone();
    assert!(said().await.is_null(), "nobody has anything to do with it");
    change(&world, &node_id(4), |n| drop(n.spec.labels.insert(SPARE_MANAGER_LABEL.into(), "true".into()))).await;
    // Down since 1970.
    change(&world, &node_id(3), |n| n.status.state = NodeState::Down).await;
    assert_eq!(
        said().await,
        json!([
            "autopilot is off: nothing of this happens by itself",
            "manager host3 is lost; would promote host4, and demote host3 then"
        ])
    );
    let swarm = world.get("/swarm").await.ok(200).json();
    let mut spec = swarm["Spec"].clone();
    spec["Labels"] = json!({"swarmlite.autopilot": "on"});
    world.post(&format!("/swarm/update?version={}", swarm["Version"]["Index"]), &spec).await.ok(200);
    assert_eq!(said().await, json!(["manager host3 is lost; promotes host4, and demotes host3 then"]));
}

#[tokio::test]
async fn it_is_noted_when_a_node_takes_tasks_again() {
    let world = manager().await;
    world.add_node(2, Role::Worker).await;
    let since = |world: &World| world.store.local().node(&node_id(2)).expect("the node").status.takes_tasks_since;
    let set = async |availability: &str| {
        let path = format!("/nodes/{}", node_id(2));
        let version = world.version_of(&path).await;
        let spec = json!({"Role": "worker", "Availability": availability});
        world.post(&format!("{path}/update?version={version}"), &spec).await.ok(200);
    };
    let before = since(&world);
    for availability in ["active", "pause", "drain"] {
        set(availability).await;
        assert_eq!(since(&world), before, "{availability}");
    }
    set("active").await;
    assert!(since(&world) > before);
    let node = world.store.local().node(&node_id(2)).expect("the node").clone();
    assert_eq!(node.spec.availability, Availability::Active);
}
