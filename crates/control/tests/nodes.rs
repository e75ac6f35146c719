//! Nodes that go down, are drained, paused, removed, and come back; and the restart supervisor.
mod common;
use common::*;
use model::*;
use std::time::Duration;

#[test]
fn tasks_of_a_node_that_is_down_run_elsewhere_at_once() {
    let mut world = World::with_nodes(3);
    let id = world.create_service("web", 3, image("nginx"));
    world.settle();
    let lost = world.running(&id)[0].clone();
    let node = lost.node_id.clone().unwrap();
    world.node_down(&node);
    world.run();
    assert_eq!(world.running(&id).len(), 3, "without any delay");
    assert!(world.running(&id).iter().all(|t| t.node_id.as_ref() != Some(&node)));
    let old = world.snapshot().task(&lost.id).unwrap().clone();
    assert_eq!((old.desired, old.status.state), (TaskState::Shutdown, TaskState::Running));
    // It comes back: what it should no longer run is stopped, and nothing moves back.
    world.node_up(&node);
    world.settle();
    assert_eq!(world.snapshot().task(&lost.id).unwrap().status.state, TaskState::Shutdown);
    assert!(world.running(&id).iter().all(|t| t.node_id.as_ref() != Some(&node)));
}

#[test]
fn tasks_of_a_node_that_stays_down_are_orphaned_after_a_day() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 1, image("nginx"));
    world.settle();
    let lost = world.running(&id)[0].clone();
    world.node_down(lost.node_id.as_ref().unwrap());
    let state = |w: &World| w.snapshot().task(&lost.id).unwrap().status.state;
    world.run_for(SECOND * (24 * 3600 - 1));
    assert_eq!(state(&world), TaskState::Running);
    world.run_for(SECOND * 2);
    assert_eq!(state(&world), TaskState::Orphaned);
}

#[test]
fn a_drained_node_is_left_and_its_tasks_stop_before_their_successors_run() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 2, image("nginx"));
    world.settle();
    let old = world.running(&id)[0].clone();
    let node = old.node_id.clone().unwrap();
    world.set_availability(&node, Availability::Drain);
    world.control();
    let new = world.wanted(&id).into_iter().find(|t| t.slot == old.slot).unwrap();
    assert_eq!((new.desired, new.run_after), (TaskState::Ready, None));
    assert_ne!(new.node_id.as_ref(), Some(&node));
    world.settle();
    assert_eq!(world.running(&id).len(), 2);
    assert_eq!(world.snapshot().tasks_on_node(&node).filter(|t| t.is_active()).count(), 0);
    // Active again: it takes new tasks, and gets none back.
    world.set_availability(&node, Availability::Active);
    world.settle();
    assert_eq!(world.snapshot().tasks_on_node(&node).filter(|t| t.is_active()).count(), 0);
    world.scale(&id, 4);
    world.settle();
    assert_eq!(world.snapshot().tasks_on_node(&node).filter(|t| t.is_active()).count(), 2);
}

#[test]
fn a_successor_does_not_wait_for_ever_for_an_agent_that_does_not_answer() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 1, image("nginx"));
    world.settle();
    let node = world.running(&id)[0].node_id.clone().unwrap();
    world.off.insert(node.clone()); // hangs, but is not down
    world.set_availability(&node, Availability::Drain);
    world.run_for(SECOND * 59);
    assert!(world.running(&id).is_empty());
    world.run_for(SECOND * 2);
    assert_eq!(world.running(&id).len(), 1);
}

#[test]
fn a_paused_node_keeps_its_tasks_and_takes_no_new_ones() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 2, image("nginx"));
    world.settle();
    let node = world.node_ids()[0].clone();
    world.set_availability(&node, Availability::Pause);
    world.scale(&id, 5);
    world.settle();
    assert_eq!(world.snapshot().tasks_on_node(&node).filter(|t| t.is_active()).count(), 1);
    assert_eq!(world.running(&id).len(), 5);
}

#[test]
fn tasks_of_a_removed_node_are_orphaned_and_replaced() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 1, image("nginx"));
    world.settle();
    let lost = world.running(&id)[0].clone();
    world.remove_node(lost.node_id.as_ref().unwrap());
    world.settle();
    assert_eq!(world.snapshot().task(&lost.id).unwrap().status.state, TaskState::Orphaned);
    assert_eq!(world.running(&id).len(), 1);
}

#[test]
fn a_failed_task_is_restarted_after_the_default_delay() {
    let mut world = World::with_nodes(1);
    let id = world.create_service("web", 1, image("nginx"));
    world.settle();
    let old = world.running(&id)[0].clone();
    world.set_status(&old.id, TaskState::Failed);
    world.run();
    let new = world.wanted(&id)[0].clone();
    assert_eq!((new.desired, new.status.state), (TaskState::Ready, TaskState::Ready), "prepared meanwhile");
    assert_eq!(new.run_after, Some(world.now.plus(SECOND * 5)));
    assert_eq!(world.snapshot().task(&old.id).unwrap().desired, TaskState::Shutdown);
    world.run_for(SECOND * 4);
    assert!(world.running(&id).is_empty());
    world.run_for(SECOND);
    assert_eq!(world.running(&id)[0].id, new.id);
}

#[test]
fn restart_policies() {
    let policy = |condition, max_attempts, window: u64| RestartPolicy {
        condition: Some(condition),
        delay: Some(SECOND * 10),
        max_attempts: Some(max_attempts),
        window: Some(Duration::from_secs(window)),
    };
    use RestartCondition::{Any, None, OnFailure};
    // (policy, image, tasks that were made after ten minutes, whether one is still wanted)
    let table = [
        (policy(None, 0, 0), "crash", 1, false),
        (policy(None, 0, 0), "nginx", 1, true),
        (policy(OnFailure, 0, 0), "done", 1, false),
        (policy(OnFailure, 2, 0), "crash", 3, false),
        (policy(Any, 3, 0), "done", 4, false),
        (policy(Any, 3, 0), "reject", 4, false),
        // In a window of 15 seconds there are never more than two failures.
        (policy(Any, 3, 15), "crash", usize::MAX, true),
        (policy(Any, 0, 0), "crash", usize::MAX, true),
    ];
    for (policy, what, made, wanted) in table {
        let mut world = World::with_nodes(1);
        let task = with_policy(image(what), policy.clone());
        let id = world.create_service_with("web", 1, task, |s| s.backoff.on = false); // as in Docker
        world.run_for(SECOND * 600);
        let tasks = world.tasks(&id);
        assert_eq!(tasks.iter().any(|t| t.is_wanted()), wanted, "{policy:?} {what}");
        if made == usize::MAX {
            assert!(tasks.iter().all(|t| world.now.since(t.meta.created_at) < SECOND * 100), "{policy:?} {what}");
        } else {
            assert_eq!(tasks.len(), made, "{policy:?} {what}");
        }
        // And a new leader sees no reason to begin again.
        world.change_leader();
        world.control();
        assert_eq!(world.tasks(&id).len(), tasks.len());
    }
}

#[test]
fn a_delay_survives_a_leader_change_and_a_clock_that_was_set_back() {
    let mut world = World::with_nodes(1);
    let id = world.create_service("web", 1, image("nginx"));
    world.settle();
    let old = world.running(&id)[0].id.clone();
    world.set_status(&old, TaskState::Failed);
    world.run();
    world.pass(SECOND * 3);
    world.change_leader();
    world.run();
    assert!(world.running(&id).is_empty(), "the new leader keeps the delay");
    world.now = Timestamp(world.now.0 - 3_600_000_000_000);
    world.change_leader();
    world.run();
    assert_eq!(world.running(&id).len(), 1, "an hour is not waited for");
}

#[test]
fn a_policy_that_is_changed_brings_a_finished_slot_back() {
    let mut world = World::with_nodes(1);
    let none = RestartPolicy { condition: Some(RestartCondition::None), ..RestartPolicy::default() };
    let id = world.create_service("job", 2, with_policy(image("done"), none));
    world.settle();
    assert!(world.wanted(&id).is_empty());
    world.set_image(&id, "nginx");
    world.settle();
    assert_eq!(world.running(&id).len(), 2);
}

/// The pauses before so many restarts of a task that fails each time, in seconds.
fn pauses(world: &mut World, id: &ServiceId, count: usize) -> Vec<u64> {
    let mut pauses: Vec<(TaskId, u64)> = Vec::new();
    while pauses.len() < count {
        world.change_leader();
        world.run();
        let waiting = world.wanted(id)[0].clone();
        if let Some(at) = waiting.run_after.filter(|_| pauses.iter().all(|(seen, _)| *seen != waiting.id)) {
            pauses.push((waiting.id.clone(), at.since(waiting.meta.created_at).as_secs()));
        }
        world.now = world.next_event().expect("it is restarted at some time").max(world.now);
    }
    pauses.into_iter().map(|(_, pause)| pause).collect()
}

#[test]
fn the_pause_before_a_restart_grows_while_a_task_keeps_failing() {
    let seconds = Duration::from_secs;
    let on = |max| Backoff { on: true, max: seconds(max) };
    let off = Backoff { on: false, ..Backoff::default() };
    for (delay, backoff, expected) in [
        (5, Backoff::default(), [5, 10, 20, 40, 80, 160, 300, 300]),
        (5, on(30), [5, 10, 20, 30, 30, 30, 30, 30]),
        (5, off, [5; 8]),
        (600, Backoff::default(), [600; 8]), // longer than the bound: as the policy says
    ] {
        for what in ["crash", "reject"] {
            let mut world = World::with_nodes(2);
            world.set_history_limit(1); // what is forgotten is counted all the same
            let policy = RestartPolicy { delay: Some(seconds(delay)), ..RestartPolicy::default() };
            let id = world.create_service_with("web", 1, with_policy(image(what), policy), |s| s.backoff = backoff);
            assert_eq!(pauses(&mut world, &id, 8), expected, "{delay} {backoff:?} {what}");
        }
    }
}

#[test]
fn the_pause_is_short_again_once_a_task_ran_well_or_the_user_changed_something() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 1, image("nginx"));
    let fail_after = |world: &mut World, ran: Duration| {
        world.settle();
        world.pass(ran);
        let task = world.running(&id)[0].id.clone();
        world.set_status(&task, TaskState::Failed);
        world.control();
        let next = world.wanted(&id)[0].clone();
        (next.run_after.map_or(0, |at| at.since(world.now).as_secs()), next.failures)
    };
    assert_eq!(fail_after(&mut world, SECOND * 3600), (5, 1));
    assert_eq!(fail_after(&mut world, SECOND), (10, 2));
    assert_eq!(fail_after(&mut world, SECOND * 59), (20, 3));
    assert_eq!(fail_after(&mut world, SECOND * 61), (5, 1));
    assert_eq!(fail_after(&mut world, SECOND), (10, 2));
    // A node that goes is no failure, and no cure.
    let node = world.wanted(&id)[0].node_id.clone().unwrap();
    world.set_availability(&node, Availability::Drain);
    world.control();
    assert_eq!(world.wanted(&id)[0].failures, 2);
    world.settle();
    assert_eq!(fail_after(&mut world, SECOND), (20, 3));
    world.set_image(&id, "v2");
    assert_eq!(fail_after(&mut world, SECOND * 10), (5, 1));
    // What ends well does not fail: it is run again as its policy says.
    world.set_image(&id, "done");
    world.run_for(SECOND * 300);
    assert!(world.tasks(&id).iter().all(|t| t.failures == 0 || t.spec.origin() != "done"));
}
