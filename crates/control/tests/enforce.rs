//! The constraint enforcer: what happens to tasks whose node is not any more what they need.
mod common;
use common::*;
use model::*;

const CPU: i64 = 1_000_000_000;

fn constrained(image_name: &str, texts: &[&str]) -> TaskSpec {
    let constraints = texts.iter().map(|t| t.parse().unwrap()).collect();
    TaskSpec { placement: Some(Placement { constraints, ..Placement::default() }), ..image(image_name) }
}

fn set_label(world: &mut World, node: &NodeId, key: &str, value: &str) {
    world.change_node(node, |n| _ = n.spec.labels.insert(key.into(), value.into()));
}

#[test]
fn a_task_leaves_a_node_that_is_no_longer_what_it_needs() {
    // (what is done to the node, what the task asks of it)
    type Change = fn(&mut Node);
    let table: [(&str, Change, Change); 5] = [
        (
            "node.labels.disk==ssd",
            |n| _ = n.spec.labels.insert("disk".into(), "ssd".into()),
            |n| _ = n.spec.labels.remove("disk"),
        ),
        ("node.role==manager", |n| n.spec.role = Role::Manager, |n| n.spec.role = Role::Worker),
        ("node.ip==10.0.0.0/8", |n| n.status.addr = "10.1.2.3".into(), |n| n.status.addr = "192.168.1.1".into()),
        (
            "node.hostname==alpha",
            |n| n.description.as_mut().unwrap().hostname = "alpha".into(),
            |n| n.description.as_mut().unwrap().hostname = "beta".into(),
        ),
        (
            "engine.labels.tier!=test",
            |n| n.description.as_mut().unwrap().engine.labels.clear(),
            |n| _ = n.description.as_mut().unwrap().engine.labels.insert("tier".into(), "test".into()),
        ),
    ];
    for (constraint, fit, unfit) in table {
        let mut world = World::with_nodes(2);
        let nodes = world.node_ids();
        nodes.iter().for_each(|n| world.change_node(n, fit));
        let id = world.create_service("web", 2, constrained("nginx", &[constraint]));
        let free = world.create_service("free", 2, image("nginx"));
        world.settle();
        let old = world.running(&id).into_iter().find(|t| t.node_id.as_ref() == Some(&nodes[0])).unwrap();
        world.change_node(&nodes[0], unfit);
        world.control();
        let told = world.snapshot().task(&old.id).unwrap().clone();
        assert_eq!((told.desired, told.status.state), (TaskState::Shutdown, TaskState::Running), "{constraint}");
        assert_eq!(told.status.err, "assigned node no longer meets constraints");
        let new = world.wanted(&id).into_iter().find(|t| t.slot == old.slot).unwrap();
        assert_eq!((new.desired, new.run_after), (TaskState::Ready, None), "it runs once the old one has stopped");
        world.settle();
        assert!(world.running(&id).iter().all(|t| t.node_id.as_ref() == Some(&nodes[1])), "{constraint}");
        assert_eq!(world.running(&id).len(), 2);
        assert_eq!(world.tasks(&free).len(), 2, "what asks for nothing stays: {constraint}");
    }
}

#[test]
fn when_no_other_node_will_do_the_task_waits_and_comes_back() {
    let mut world = World::with_nodes(2);
    let nodes = world.node_ids();
    set_label(&mut world, &nodes[0], "disk", "ssd");
    let id = world.create_service("db", 1, constrained("db", &["node.labels.disk==ssd"]));
    world.settle();
    set_label(&mut world, &nodes[0], "disk", "hdd");
    world.settle();
    assert_eq!(world.running(&id).len(), 0);
    let waiting = world.wanted(&id);
    assert_eq!(waiting[0].status.err, "no suitable node (scheduling constraints not satisfied on 2 nodes)");
    set_label(&mut world, &nodes[1], "disk", "ssd");
    world.settle();
    assert_eq!(world.running(&id)[0].node_id.as_ref(), Some(&nodes[1]));
}

#[test]
fn a_paused_node_keeps_what_it_has_until_it_is_active() {
    let mut world = World::with_nodes(2);
    let nodes = world.node_ids();
    nodes.iter().for_each(|n| set_label(&mut world, n, "disk", "ssd"));
    let id = world.create_service("db", 2, constrained("db", &["node.labels.disk==ssd"]));
    world.settle();
    world.set_availability(&nodes[0], Availability::Pause);
    set_label(&mut world, &nodes[0], "disk", "hdd");
    world.settle();
    let on_first = |w: &World| w.running(&id).iter().filter(|t| t.node_id.as_ref() == Some(&nodes[0])).count();
    assert_eq!(on_first(&world), 1);
    world.set_availability(&nodes[0], Availability::Active);
    world.settle();
    assert_eq!((on_first(&world), world.running(&id).len()), (0, 2));
}

#[test]
fn a_new_leader_enforces_what_the_old_one_did_not_see() {
    let mut world = World::with_nodes(2);
    let nodes = world.node_ids();
    nodes.iter().for_each(|n| set_label(&mut world, n, "disk", "ssd"));
    let id = world.create_service("db", 2, constrained("db", &["node.labels.disk==ssd"]));
    world.settle();
    set_label(&mut world, &nodes[0], "disk", "hdd");
    world.change_leader();
    world.settle();
    assert!(world.running(&id).iter().all(|t| t.node_id.as_ref() == Some(&nodes[1])));
}

#[test]
fn what_came_last_leaves_a_node_that_has_shrunk() {
    let mut world = World::with_nodes(1);
    let node = world.node_ids()[0].clone();
    world.change_node(&node, |n| {
        let named = |v: &str| GenericResource::Named { kind: "gpu".into(), value: v.into() };
        n.description.as_mut().unwrap().generic = vec![named("a"), named("b")];
    });
    let first = world.create_service("first", 1, with_reservation(image("v1"), CPU, 0));
    world.settle();
    world.pass(SECOND);
    let second = world.create_service("second", 2, with_reservation(image("v1"), CPU, 0));
    world.settle();
    world.change_node(&node, |n| n.description.as_mut().unwrap().resources.nano_cpus = 2 * CPU);
    world.run();
    assert_eq!((world.running(&first).len(), world.running(&second).len()), (1, 1));
    let gpu = world.create_service("gpu", 2, {
        let generic = vec![GenericRequest { kind: "gpu".into(), amount: 1 }];
        TaskSpec { resources: Some(ResourceRequirements { generic, ..Default::default() }), ..image("gpu") }
    });
    world.run();
    assert_eq!(world.running(&gpu).len(), 2);
    world.change_node(&node, |n| n.description.as_mut().unwrap().generic.truncate(1));
    world.run();
    let left = world.running(&gpu);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].generic, [GenericResource::Named { kind: "gpu".into(), value: "a".into() }]);
    world.change_node(&node, |n| n.description.as_mut().unwrap().resources.nano_cpus = 4 * CPU);
    world.run();
    assert_eq!(world.running(&second).len(), 2, "it grows again, and takes what waits");
}

/// A change of the service goes through the updater, however it came that the nodes do not suit; a change of the node is
/// enforced at once, also on tasks that were made before the service asked for what the node had.
#[test]
fn a_constraint_that_came_later_is_held_against_the_node_too() {
    let mut world = World::with_nodes(2);
    let nodes = world.node_ids();
    nodes.iter().for_each(|n| set_label(&mut world, n, "disk", "ssd"));
    let id = world.create_service("db", 2, image("db"));
    world.settle();
    let before: Vec<TaskId> = world.running(&id).iter().map(|t| t.id.clone()).collect();
    let placement = constrained("db", &["node.labels.disk==ssd"]).placement;
    world.change_service(&id, |s| std::sync::Arc::make_mut(&mut s.task).placement = placement);
    world.settle();
    let after: Vec<TaskId> = world.running(&id).iter().map(|t| t.id.clone()).collect();
    assert_eq!(before, after, "the nodes are what it asks for: nothing is replaced");
    set_label(&mut world, &nodes[0], "disk", "hdd");
    world.settle();
    assert!(world.running(&id).iter().all(|t| t.node_id.as_ref() == Some(&nodes[1])));
    assert_eq!(world.running(&id).len(), 2);
}

/// SwarmKit asks what the service says now, and nothing else (swarmkit#2857). A task that was made with a constraint stayed when
/// that was dropped, and then holds it against nobody.
#[test]
fn a_constraint_that_the_service_has_dropped_drives_nobody_away() {
    let mut world = World::with_nodes(2);
    let nodes = world.node_ids();
    nodes.iter().for_each(|n| set_label(&mut world, n, "disk", "ssd"));
    let id = world.create_service_with("db", 2, constrained("db", &["node.labels.disk==ssd"]), |_| {});
    world.settle();
    let before: Vec<TaskId> = world.running(&id).iter().map(|t| t.id.clone()).collect();
    let placement = constrained("db", &["node.role==worker"]).placement;
    world.change_service(&id, |s| std::sync::Arc::make_mut(&mut s.task).placement = placement);
    world.settle();
    nodes.iter().for_each(|n| set_label(&mut world, n, "disk", "hdd"));
    world.settle();
    let after: Vec<TaskId> = world.running(&id).iter().map(|t| t.id.clone()).collect();
    assert_eq!(before, after, "nobody asks for an ssd any more");
}

#[test]
fn a_constraint_that_the_nodes_do_not_meet_is_rolled_out_a_few_tasks_at_a_time() {
    let mut world = World::with_nodes(2);
    let nodes = world.node_ids();
    let id = world.create_service("web", 4, image("web"));
    world.settle();
    set_label(&mut world, &nodes[1], "disk", "ssd");
    let placement = constrained("web", &["node.labels.disk==ssd"]).placement;
    world.change_service(&id, |s| std::sync::Arc::make_mut(&mut s.task).placement = placement);
    world.run();
    assert!(world.running(&id).len() >= 3, "one at a time");
    world.settle();
    assert!(world.running(&id).iter().all(|t| t.node_id.as_ref() == Some(&nodes[1])));
    assert_eq!(world.running(&id).len(), 4);
}

#[test]
fn a_global_service_leaves_a_node_that_its_constraints_leave_out_and_returns() {
    let mut world = World::with_nodes(3);
    let nodes = world.node_ids();
    nodes.iter().for_each(|n| set_label(&mut world, n, "disk", "ssd"));
    let spec = constrained("agent", &["node.labels.disk==ssd"]);
    let id = world.create_service_with("agent", 0, spec, |s| s.mode = Mode::Global);
    world.settle();
    assert_eq!(world.running(&id).len(), 3);
    assert!(world.running(&id).iter().all(|t| t.for_node == t.node_id));
    set_label(&mut world, &nodes[1], "disk", "hdd");
    world.settle();
    let on: Vec<NodeId> = world.running(&id).iter().filter_map(|t| t.node_id.clone()).collect();
    assert_eq!(on, [nodes[0].clone(), nodes[2].clone()], "it is not made up for elsewhere");
    set_label(&mut world, &nodes[1], "disk", "ssd");
    world.settle();
    assert_eq!(world.running(&id).len(), 3);
}

#[test]
fn a_global_task_that_does_not_fit_its_node_waits_there_and_says_why() {
    let mut world = World::with_nodes(2);
    let nodes = world.node_ids();
    world.change_node(&nodes[0], |n| n.description.as_mut().unwrap().resources.nano_cpus = CPU / 2);
    let spec = with_reservation(image("agent"), CPU, 0);
    let id = world.create_service_with("agent", 0, spec, |s| s.mode = Mode::Global);
    world.settle();
    let tasks = world.wanted(&id);
    let waiting: Vec<_> = tasks.iter().filter(|t| t.node_id.is_none()).collect();
    assert_eq!((waiting.len(), waiting[0].for_node.as_ref()), (1, Some(&nodes[0])));
    assert_eq!(waiting[0].status.err, "insufficient resources on 1 node");
    let running = world.running(&id);
    assert_eq!(running.len(), 1);
    world.change_node(&nodes[0], |n| n.description.as_mut().unwrap().resources.nano_cpus = CPU);
    world.control();
    let placed = world.wanted(&id).into_iter().find(|t| t.node_id.as_ref() == Some(&nodes[0])).unwrap();
    assert_eq!(placed.status.message, "scheduler confirmed task can run on preassigned node");
    world.settle();
    assert_eq!(world.running(&id).len(), 2);
}
