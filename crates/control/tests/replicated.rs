//! The replicated orchestrator and the reaper, as scenarios.
mod common;
use common::*;
use model::*;
use std::collections::{BTreeMap, BTreeSet};

fn slots(world: &World, id: &ServiceId) -> Vec<u64> {
    world.running(id).iter().map(|t| t.slot).collect()
}

#[test]
fn a_hundred_replicas_are_placed_in_one_commit() {
    let mut world = World::with_nodes(10);
    let id = world.create_service("web", 100, image("nginx"));
    world.control();
    assert_eq!(world.commits, 1);
    let tasks = world.tasks(&id);
    assert_eq!(tasks.len(), 100);
    let mut per_node: BTreeMap<NodeId, usize> = BTreeMap::new();
    for task in &tasks {
        assert_eq!(task.status.state, TaskState::Assigned);
        assert_eq!(task.desired, TaskState::Running);
        assert_eq!(task.status.message, "scheduler assigned task to node");
        *per_node.entry(task.node_id.clone().unwrap()).or_default() += 1;
    }
    assert!(per_node.values().all(|n| *n == 10), "{per_node:?}");
    world.settle();
}

#[test]
fn a_plan_that_does_not_fit_one_transaction_is_split() {
    let mut world = World::with_nodes(3);
    let id = world.create_service("web", 3_000, image("nginx"));
    world.control();
    assert!(world.commits > 1 && world.commits < 10, "{} commits", world.commits);
    let slots: BTreeSet<u64> = world.tasks(&id).iter().map(|t| t.slot).collect();
    assert_eq!(slots, (1..=3_000).collect());
}

#[test]
fn new_tasks_take_the_lowest_free_slots() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 4, image("nginx"));
    world.settle();
    assert_eq!(slots(&world, &id), [1, 2, 3, 4]);
    // Slots 1 and 2 are on two nodes, 3 and 4 are second copies: they go first.
    world.scale(&id, 2);
    world.settle();
    assert_eq!(slots(&world, &id), [1, 2]);
    world.scale(&id, 3);
    world.settle();
    assert_eq!(slots(&world, &id), [1, 2, 3]);
}

#[test]
fn scaling_down_prefers_what_does_not_run() {
    let mut world = World::with_nodes(3);
    let id = world.create_service("web", 3, image("nginx"));
    world.settle();
    let first = world.tasks(&id)[0].clone();
    world.set_status(&first.id, TaskState::Failed);
    world.control();
    world.scale(&id, 2);
    world.settle();
    assert_eq!(slots(&world, &id), [2, 3]);
}

#[test]
fn scaling_down_takes_from_the_node_with_most_copies() {
    let mut world = World::with_nodes(1);
    let id = world.create_service("web", 3, image("nginx"));
    world.settle();
    world.add_node();
    world.scale(&id, 4);
    world.settle();
    assert_eq!(world.running(&id)[3].node_id.as_ref(), world.node_ids().last());
    world.scale(&id, 2);
    world.settle();
    let nodes: BTreeSet<_> = world.running(&id).iter().map(|t| t.node_id.clone()).collect();
    assert_eq!(nodes.len(), 2, "one copy stays on each node");
}

#[test]
fn a_removed_service_leaves_nothing() {
    let mut world = World::with_nodes(3);
    let id = world.create_service("web", 5, image("nginx"));
    world.settle();
    world.remove_service(&id);
    world.control();
    assert!(world.tasks(&id).iter().all(|t| t.desired == TaskState::Remove));
    assert_eq!(world.tasks(&id).len(), 5, "agents stop them first");
    world.settle();
    assert!(world.tasks(&id).is_empty());
}

#[test]
fn tasks_that_wait_for_a_node_go_with_their_service_at_once() {
    let mut world = World::with_nodes(0);
    let id = world.create_service("web", 2, image("nginx"));
    world.control();
    assert_eq!(world.tasks(&id)[0].status.err, "no suitable node");
    world.remove_service(&id);
    world.control();
    assert!(world.tasks(&id).is_empty());
}

#[test]
fn a_removed_service_does_not_wait_for_a_node_that_is_down() {
    let mut world = World::with_nodes(1);
    let id = world.create_service("web", 1, image("nginx"));
    world.settle();
    let node = world.node_ids()[0].clone();
    world.node_down(&node);
    world.control();
    world.remove_service(&id);
    world.control();
    assert!(world.tasks(&id).is_empty());
}

#[test]
fn history_is_bounded_per_slot() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 2, image("crash"));
    world.run_for(SECOND * 300);
    let mut per_slot: BTreeMap<u64, usize> = BTreeMap::new();
    world.tasks(&id).iter().for_each(|t| *per_slot.entry(t.slot).or_default() += 1);
    assert_eq!(per_slot, [(1, 5), (2, 5)].into());
}

#[test]
fn scaling_to_nothing_and_back_uses_no_id_twice() {
    let mut world = World::with_nodes(2); // the world's witness looks at the ids
    let id = world.create_service("web", 3, image("nginx"));
    for replicas in [0, 3, 0, 2, 0, 3] {
        world.settle();
        world.scale(&id, replicas);
    }
    world.settle();
    assert_eq!(slots(&world, &id), [1, 2, 3]);
}

#[test]
fn a_plan_of_an_old_leader_is_refused_once_anything_it_saw_has_changed() {
    type Change = fn(&mut World, &ServiceId);
    let table: [(&str, Change, Change); 6] = [
        ("the same was done already", |_, _| {}, |w, _| w.control()),
        ("the service was changed", |_, _| {}, |w, id| w.scale(id, 4)),
        (
            "the service was changed, and that was done",
            |_, _| {},
            |w, id| {
                w.set_image(id, "v2");
                w.control();
            },
        ),
        ("the service is gone", |_, _| {}, |w, id| w.remove_service(id)),
        (
            "a node takes no tasks any more",
            |_, _| {},
            |w, _| {
                let node = w.node_ids()[0].clone();
                w.set_availability(&node, Availability::Drain);
            },
        ),
        (
            "a node is back",
            |w, _| {
                w.settle();
                let node = w.node_ids()[0].clone();
                w.node_down(&node);
            },
            |w, _| {
                let node = w.node_ids()[0].clone();
                w.node_up(&node);
            },
        ),
    ];
    for (what, before, between) in table {
        let mut world = World::with_nodes(2);
        let id = world.create_service("web", 2, image("v1"));
        before(&mut world, &id);
        let belated = world.plan();
        assert!(!belated.is_empty(), "{what}");
        between(&mut world, &id);
        assert!(world.apply(&belated).is_err(), "{what}");
    }
}
