//! Why tasks are not where they should be, through HTTP.

mod support;

use control::{Budget, Key};
use model::Role;
use serde_json::{Value, json};
use store::StoreClient as _;
use support::{World, manager, minimal};

/// Does once what the leader's control loops do.
async fn reconcile(world: &World) {
    let snapshot = world.store.local();
    let services =
        control::expand(&snapshot, &snapshot.services().map(|s| Key::Service(s.id.clone())).collect::<Vec<_>>());
    let batch = control::reconcile_services(&snapshot, services, snapshot_time(), Budget::default());
    world.store.propose(batch.transaction).await.expect("a plan that fits the state");
}

fn snapshot_time() -> model::Timestamp {
    model::Timestamp(1_700_000_000_000_000_000)
}

#[tokio::test]
async fn a_task_without_a_node_says_which_nodes_turned_it_away() {
    let world = manager().await;
    world.add_node(2, Role::Worker).await;
    let mut spec = minimal("web", 2);
    spec["TaskTemplate"]["Placement"] = json!({"Constraints": ["node.labels.disk==ssd", "node.role==worker"]});
    world.post("/services/create", &spec).await.ok(201);
    reconcile(&world).await;
    let why = world.get("/swarmlite/services/web/why").await.ok(200).json();
    assert_eq!(why["Service"]["Name"], "web");
    assert_eq!(why["Update"], "");
    let tasks = why["Tasks"].as_array().expect("a list");
    assert_eq!(tasks.len(), 2, "{why}");
    let (first, id) = (&tasks[0], tasks[0]["ID"].as_str().expect("an id"));
    assert_eq!((&first["Slot"], &first["DesiredState"], &first["NodeID"]), (&json!(1), &json!("running"), &json!("")));
    let rejected: Vec<(&str, &str)> = first["Rejected"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| (r["Hostname"].as_str().expect("a name"), r["Filter"].as_str().expect("a filter")))
        .collect();
    assert_eq!(rejected, [("host1", "constraints"), ("host2", "constraints")]);
    assert!(why["Lines"][0].as_str().expect("a line").starts_with("0 of 2 tasks run; web.1: "), "{why}");
    // By its id, by its name, and by the beginning of its id.
    let task = world.get(&format!("/tasks/{id}")).await.ok(200).json();
    for what in [id, task["Name"].as_str().expect("a name"), &id[..20]] {
        let one = world.get(&format!("/v1.47/swarmlite/tasks/{what}/why")).await.ok(200).json();
        assert_eq!(one["Tasks"][0], *first, "{what}");
    }
    world.get("/swarmlite/services/none/why").await.is(404, "service none not found");
    world.get("/swarmlite/tasks/none/why").await.is(404, "task none not found");
}

#[tokio::test]
async fn a_task_whose_service_is_gone_says_so() {
    let world = manager().await;
    world.service("web", 1).await;
    reconcile(&world).await;
    let id = world.store.local().tasks().next().expect("a task").id.clone();
    world.delete("/services/web").await.ok(200);
    let why = world.get(&format!("/swarmlite/tasks/{id}/why")).await.ok(200).json();
    assert_eq!(why["Lines"], json!(["its service is gone: it is stopped and forgotten"]));
    assert_eq!((&why["Service"]["Name"], &why["Tasks"]), (&json!("web"), &json!([])));
}

#[tokio::test]
async fn an_answer_names_so_many_tasks_and_counts_the_rest() {
    let world = manager().await;
    let mut spec = minimal("web", 250);
    spec["TaskTemplate"]["Placement"] = json!({"Constraints": ["node.role==worker"]});
    world.post("/services/create", &spec).await.ok(201);
    reconcile(&world).await;
    let made = world.store.local().tasks().len();
    assert_eq!(made, 250);
    let why = world.get("/swarmlite/services/web/why").await.ok(200).json();
    assert_eq!(why["Tasks"].as_array().expect("a list").len(), 200);
    let last = why["Lines"].as_array().and_then(|l| l.last()).and_then(Value::as_str).expect("a line");
    assert_eq!(last, "and 50 more tasks are not where they should be");
}
