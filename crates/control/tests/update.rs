//! Updates, as scenarios.
mod common;
use common::*;
use model::*;
use std::sync::Arc;
use std::time::Duration;

fn config(f: impl FnOnce(&mut UpdateConfig)) -> Option<UpdateConfig> {
    let mut config = UpdateConfig::default();
    f(&mut config);
    Some(config)
}

fn count(world: &World, id: &ServiceId, image: &str) -> usize {
    world.images(id).iter().filter(|i| *i == image).count()
}

/// Runs everything, and returns the fewest tasks that ran, the most that ran, and the most new ones that were not running.
fn watch(world: &mut World, id: &ServiceId, until: Duration) -> (usize, usize, usize) {
    let end = world.now.plus(until);
    let (mut fewest, mut most, mut in_flight) = (usize::MAX, 0, 0);
    while world.now < end {
        world.control();
        world.agents();
        let running = world.running(id).len();
        let waiting = world.wanted(id).iter().filter(|t| t.status.state != TaskState::Running).count();
        (fewest, most, in_flight) = (fewest.min(running), most.max(running), in_flight.max(waiting));
        world.pass(Duration::from_millis(100));
    }
    (fewest, most, in_flight)
}

#[test]
fn an_update_replaces_one_task_at_a_time_and_says_when_it_is_done() {
    let mut world = World::with_nodes(3);
    let id = world.create_service("web", 4, image("v1"));
    world.settle();
    assert_eq!(world.update_state(&id), None, "creating and scaling is no update");
    world.set_image(&id, "v2");
    world.control();
    assert_eq!(world.update_state(&id), Some((UpdateState::Updating, "update in progress".into())));
    let (fewest, most, in_flight) = watch(&mut world, &id, SECOND * 5);
    assert_eq!((fewest, most, in_flight), (3, 4, 1));
    assert_eq!(count(&world, &id, "v2"), 4);
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Updating, "the last task is still watched");
    world.settle();
    assert_eq!(world.update_state(&id), Some((UpdateState::Completed, "update completed".into())));
    assert!(world.service(&id).update_status.unwrap().completed_at.is_some());
}

#[test]
fn parallelism_and_delay_are_honoured() {
    let mut world = World::with_nodes(3);
    let id = world.create_service_with("web", 6, image("v1"), |s| {
        s.update = config(|c| (c.parallelism, c.delay) = (2, SECOND * 20));
    });
    world.settle();
    world.set_image(&id, "v2");
    assert_eq!(watch(&mut world, &id, SECOND * 10), (4, 6, 2));
    assert_eq!(count(&world, &id, "v2"), 2);
    watch(&mut world, &id, SECOND * 20);
    assert_eq!(count(&world, &id, "v2"), 4);
    watch(&mut world, &id, SECOND * 20);
    assert_eq!(count(&world, &id, "v2"), 6);
    // 0 is all at once.
    world.change_service(&id, |s| {
        s.update = config(|c| c.parallelism = 0);
        Arc::make_mut(&mut s.task).container_mut().unwrap().image = "v3".into();
    });
    assert_eq!(watch(&mut world, &id, SECOND * 2), (0, 6, 6));
    assert_eq!(count(&world, &id, "v3"), 6);
}

#[test]
fn an_equal_spec_is_no_update_but_force_is() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 2, image("v1"));
    world.settle();
    let before = world.running(&id);
    world.change_service(&id, |s| drop(s.labels.insert("colour".into(), "blue".into())));
    world.settle();
    assert_eq!(world.running(&id), before);
    assert_eq!(world.update_state(&id), None);
    world.change_service(&id, |s| Arc::make_mut(&mut s.task).force_update += 1);
    world.settle();
    assert!(world.running(&id).iter().all(|t| before.iter().all(|b| b.id != t.id)));
}

#[test]
fn published_host_ports_are_part_of_what_is_updated() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 2, image("v1"));
    world.settle();
    world.change_service(&id, |s| s.endpoint = Some(host_port(8080)));
    world.settle();
    assert!(world.running(&id).iter().all(|t| t.host_ports.len() == 1));
}

#[test]
fn a_failing_update_pauses() {
    // A task that runs lets the update go on, as in Docker; one that fails then is seen one task later.
    for (bad, left) in [("crash", 2), ("reject", 3), ("done", 2)] {
        let mut world = World::with_nodes(3);
        let id = world.create_service("web", 4, image("v1"));
        world.settle();
        world.set_image(&id, bad);
        world.run_for(SECOND * 60);
        let (state, message) = world.update_state(&id).unwrap();
        assert_eq!(state, UpdateState::Paused, "{bad}");
        let failed = message.strip_prefix("update paused due to failure or early termination of task ").unwrap();
        assert_eq!(failed.len(), 25);
        assert_eq!(count(&world, &id, "v1"), left, "{bad}");
        world.change_leader();
        world.run_for(SECOND * 60);
        assert_eq!(count(&world, &id, "v1"), left, "a new leader leaves it paused");
        // The way out is another change.
        world.set_image(&id, "v3");
        world.settle();
        assert_eq!(world.images(&id), ["v3"; 4]);
        assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Completed);
    }
}

#[test]
fn a_task_that_fails_when_it_is_no_longer_watched_does_not_pause_the_update() {
    let mut world = World::with_nodes(3);
    let id = world.create_service_with("web", 3, image("v1"), |s| s.update = config(|c| c.delay = SECOND * 30));
    world.settle();
    world.set_image(&id, "v2");
    world.run_for(SECOND * 20);
    let new = world.running(&id).into_iter().find(|t| t.spec.origin() == "v2").unwrap();
    world.set_status(&new.id, TaskState::Failed);
    world.settle();
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Completed);
    assert_eq!(world.images(&id), ["v2"; 3]);
}

#[test]
fn failures_up_to_the_ratio_are_borne_and_continue_goes_on() {
    let mut world = World::with_nodes(3);
    let id = world.create_service_with("web", 3, image("v1"), |s| {
        s.update = config(|c| c.failure_action = FailureAction::Continue);
    });
    world.settle();
    world.set_image(&id, "crash");
    world.run_for(SECOND * 60);
    assert!(world.wanted(&id).iter().all(|t| t.spec.origin() == "crash"));
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Completed);

    let mut world = World::with_nodes(3);
    let id = world.create_service_with("web", 4, image("v1"), |s| {
        s.update = config(|c| c.max_failure_ratio_ppm = 250_000);
    });
    world.settle();
    world.set_image(&id, "v2");
    world.run();
    let new = world.running(&id).into_iter().find(|t| t.spec.origin() == "v2").unwrap();
    world.set_status(&new.id, TaskState::Failed);
    world.settle();
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Completed, "one of four is borne");
}

#[test]
fn a_failing_update_rolls_back_where_that_is_asked_for() {
    let mut world = World::with_nodes(3);
    let id = world.create_service_with("web", 4, image("v1"), |s| {
        s.update = config(|c| c.failure_action = FailureAction::Rollback);
    });
    world.settle();
    world.set_image(&id, "crash");
    world.run();
    let (state, message) = world.update_state(&id).unwrap();
    assert_eq!(state, UpdateState::RollbackStarted);
    assert!(message.starts_with("update rolled back due to failure or early termination of task "), "{message}");
    world.settle();
    assert_eq!(world.update_state(&id), Some((UpdateState::RollbackCompleted, "rollback completed".into())));
    assert_eq!(world.images(&id), ["v1"; 4]);
    assert_eq!(world.service(&id).spec.task.origin(), "v1");
}

#[test]
fn a_rollback_does_not_bring_back_what_the_policy_forbids_by_now() {
    let mut world = World::with_nodes(2);
    let mut spec = image("v1");
    spec.container_mut().unwrap().host_access.privileged = true;
    let id = world.create_service_with("web", 2, spec, |s| {
        s.update = config(|c| c.failure_action = FailureAction::Rollback);
    });
    world.settle();
    world.change_service(&id, |s| {
        let container = Arc::make_mut(&mut s.task).container_mut().unwrap();
        (container.image, container.host_access.privileged) = ("crash".into(), false);
    });
    world.run_for(SECOND * 60);
    let (state, message) = world.update_state(&id).unwrap();
    assert_eq!(state, UpdateState::Paused, "{message}");
    assert!(!world.service(&id).spec.task.container().unwrap().host_access.privileged);
}

#[test]
fn an_update_survives_a_new_leader_at_every_step() {
    let mut world = World::with_nodes(3);
    let id = world.create_service("web", 5, image("v1"));
    world.settle();
    world.set_image(&id, "v2");
    let mut made = 0;
    for _ in 0..200 {
        world.change_leader();
        world.control();
        world.agents();
        made = made.max(world.tasks(&id).len());
        assert!(world.running(&id).len() >= 4);
    }
    assert_eq!(world.images(&id), ["v2"; 5]);
    assert_eq!(world.tasks(&id).len(), 10, "each slot was replaced once: no leader started over");
    world.settle();
}

#[test]
fn a_change_on_the_way_is_taken_up() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 4, image("v1"));
    world.settle();
    world.set_image(&id, "v2");
    world.control();
    world.agents();
    world.set_image(&id, "v3");
    world.control();
    world.scale(&id, 6);
    world.settle();
    assert_eq!(world.images(&id), ["v3"; 6]);
    world.set_image(&id, "v4");
    world.control();
    world.set_image(&id, "v3"); // and back, before it got far
    world.settle();
    assert_eq!(world.images(&id), ["v3"; 6]);
}

#[test]
fn tasks_that_found_no_node_are_replaced_by_ones_that_do() {
    let mut world = World::with_nodes(1);
    let id = world.create_service("web", 3, with_reservation(image("v1"), 64_000_000_000, 0));
    world.run();
    assert!(world.running(&id).is_empty());
    world.change_service(&id, |s| Arc::make_mut(&mut s.task).resources = None);
    world.settle();
    assert_eq!(world.running(&id).len(), 3);
    assert_eq!(world.tasks(&id).len(), 3, "what never ran leaves no trace");
}

#[test]
fn start_first_never_runs_fewer() {
    let mut world = World::with_nodes(2);
    let start_first = |s: &mut ServiceSpec| s.update = config(|c| c.order = UpdateOrder::StartFirst);
    let id = world.create_service_with("web", 3, image("v1"), start_first);
    world.settle();
    world.set_image(&id, "v2");
    let (fewest, most, _) = watch(&mut world, &id, SECOND * 10);
    assert_eq!((fewest, most), (3, 4));
    world.settle();
    assert_eq!(world.images(&id), ["v2"; 3]);
    // A new one that fails leaves the old one running.
    world.set_image(&id, "reject");
    world.run_for(SECOND * 60);
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Paused);
    assert_eq!(count(&world, &id, "v2"), 3);
    // Changed twice on the way.
    world.set_image(&id, "v3");
    world.control();
    world.set_image(&id, "v4");
    world.settle();
    assert_eq!(world.images(&id), ["v4"; 3]);
}

#[test]
fn a_node_that_dies_on_the_way_does_not_stop_an_update() {
    let mut world = World::with_nodes(3);
    let id = world.create_service("web", 6, image("v1"));
    world.settle();
    world.set_image(&id, "v2");
    world.control();
    world.agents();
    let node = world.node_ids()[1].clone();
    world.node_down(&node);
    world.settle();
    assert_eq!(world.images(&id), ["v2"; 6]);
    world.node_up(&node);
    world.settle();
}

#[test]
fn a_history_of_nothing_hides_no_failure() {
    // Two of four may fail; with no history the reaper could take the tasks that say so.
    for history in [0, 1, 5] {
        let mut world = World::with_nodes(3);
        world.set_history_limit(history);
        let id = world.create_service_with("web", 4, image("v1"), |s| {
            s.update = config(|c| (c.max_failure_ratio_ppm, c.failure_action) = (500_000, FailureAction::Rollback));
        });
        world.settle();
        world.set_image(&id, "crash");
        world.settle();
        let (state, _) = world.update_state(&id).unwrap();
        assert_eq!((state, count(&world, &id, "v1")), (UpdateState::RollbackCompleted, 4), "history {history}");
    }
}

#[test]
fn the_last_tasks_are_watched_for_longer_than_a_long_delay() {
    // (delay, monitor, how long after the last task runs it fails, whether that counts)
    for (delay, monitor, age, counts) in [
        (0, 5, 4, true),
        (0, 5, 6, false),
        (20, 5, 19, true),
        (20, 5, 20, true),
        (20, 5, 22, false),
        (5, 20, 19, true),
        (5, 20, 21, false),
    ] {
        let seconds = Duration::from_secs;
        let mut world = World::with_nodes(1);
        let id = world.create_service_with("web", 1, image("v1"), |s| {
            s.update = config(|c| (c.delay, c.monitor) = (seconds(delay), Some(seconds(monitor))));
        });
        world.settle();
        world.set_image(&id, &format!("crash/{age}s"));
        world.run_for(seconds(60));
        let expected = if counts { UpdateState::Paused } else { UpdateState::Completed };
        assert_eq!(world.update_state(&id).unwrap().0, expected, "{delay} {monitor} {age}");
    }
}

#[test]
fn every_way_that_an_update_ends_is_the_same_whenever_the_leader_changes() {
    let outcome = |image_after: &str, action, order, change_at: usize| {
        let mut world = World::with_nodes(3);
        let id = world.create_service_with("web", 4, image("v1"), |s| {
            s.update = config(|c| (c.parallelism, c.failure_action, c.order) = (2, action, order));
            s.rollback = config(|c| c.order = order);
        });
        world.settle();
        world.set_image(&id, image_after);
        for step in 0..120 {
            if step == change_at {
                world.change_leader();
                world.pass(Duration::from_millis(300)); // nobody leads
            }
            world.control();
            world.agents();
            world.pass(Duration::from_millis(200));
        }
        let left = |t: &Task| (t.slot, t.spec.origin().to_owned(), t.spec_version);
        let wanted: Vec<_> = world.wanted(&id).iter().map(|t| left(t)).collect();
        let service = world.service(&id);
        (world.update_state(&id).unwrap().0, wanted, service.spec.task.origin().to_owned(), service.spec_version)
    };
    for image_after in ["v2", "reject"] {
        for action in [FailureAction::Pause, FailureAction::Rollback] {
            for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
                let undisturbed = outcome(image_after, action, order, usize::MAX);
                for change_at in 0..60 {
                    let disturbed = outcome(image_after, action, order, change_at);
                    assert_eq!(disturbed, undisturbed, "{image_after} {action:?} {order:?}, at step {change_at}");
                }
            }
        }
    }
}
