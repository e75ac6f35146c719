//! Global services and jobs: what scenarios do not show, leaders that change at every step above all.
mod common;
use common::*;
use model::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn global(world: &mut World, name: &str, task: TaskSpec) -> ServiceId {
    world.create_service_with(name, 0, task, |s| s.mode = Mode::Global)
}

fn job(world: &mut World, task: TaskSpec, max_concurrent: u64, total_completions: u64) -> ServiceId {
    world.create_service_with("job", 0, task, |s| s.mode = Mode::ReplicatedJob { max_concurrent, total_completions })
}

fn nodes_of(tasks: &[Arc<Task>]) -> BTreeSet<NodeId> {
    tasks.iter().filter_map(|t| t.node_id.clone()).collect()
}

fn complete(world: &World, id: &ServiceId) -> usize {
    let run = world.service(id).progress.job.map(|j| j.iteration);
    let done = |t: &&Arc<Task>| t.job_iteration == run && t.status.state == TaskState::Complete;
    world.tasks(id).iter().filter(done).count()
}

fn constraint(text: &str) -> Placement {
    Placement { constraints: vec![text.parse().unwrap()], ..Placement::default() }
}

// --- global ---

#[test]
fn a_global_task_is_confirmed_on_its_node_in_the_commit_that_makes_it() {
    let mut world = World::with_nodes(3);
    let id = global(&mut world, "agent", image("v1"));
    world.control();
    assert_eq!(world.commits, 1);
    let tasks = world.tasks(&id);
    assert_eq!(nodes_of(&tasks).len(), 3);
    for task in &tasks {
        assert_eq!((task.slot, &task.for_node), (0, &task.node_id));
        assert_eq!(task.status.message, "scheduler confirmed task can run on preassigned node");
        let node = task.node_id.as_ref().unwrap();
        assert_eq!(task.name(), format!("agent.{node}.{}", task.id));
    }
    world.settle();
}

#[test]
fn a_global_task_that_does_not_fit_waits_on_its_node_and_leaves_no_trace_when_that_is_drained() {
    let mut world = World::with_nodes(1);
    let small = global(&mut world, "small", with_reservation(image("v1"), 3_000_000_000, 0));
    world.settle();
    let large = global(&mut world, "large", with_reservation(image("v1"), 2_000_000_000, 0));
    world.control();
    let waiting = world.tasks(&large)[0].clone();
    assert_eq!((waiting.status.state, &waiting.node_id), (TaskState::Pending, &None));
    assert_eq!(waiting.status.err, "insufficient resources on 1 node");
    let node = world.node_ids()[0].clone();
    // The world's witness sees whether the id of a task that never ran is used again.
    for _ in 0..3 {
        world.set_availability(&node, Availability::Drain);
        world.run();
        assert!(world.tasks(&large).is_empty());
        world.set_availability(&node, Availability::Active);
        world.run();
        assert_eq!(world.wanted(&small).len() + world.wanted(&large).len(), 2);
    }
    world.remove_service(&small);
    world.settle();
    assert_eq!(world.running(&large).len(), 1);
}

#[test]
fn a_global_service_never_has_two_tasks_on_a_node_whatever_happens_to_nodes_and_leaders() {
    let mut world = World::with_nodes(4);
    let id = global(&mut world, "agent", image("v1"));
    world.settle();
    let nodes = world.node_ids();
    for round in 0..40_usize {
        let node = &nodes[round % 4];
        match round % 8 {
            0 => world.node_down(node),
            1 => world.set_availability(node, Availability::Drain),
            2 => world.set_image(&id, &format!("v{round}")),
            3 => world.set_availability(node, Availability::Pause),
            4 => world.node_up(node),
            5 => world.set_availability(node, Availability::Active),
            6 => world.change_node(node, |n| drop(n.spec.labels.insert("round".into(), round.to_string()))),
            _ => world.set_availability(node, Availability::Active),
        }
        world.change_leader();
        world.control();
        world.agents();
        let wanted = world.wanted(&id);
        assert_eq!(nodes_of(&wanted).len(), wanted.len(), "round {round}");
        assert!(wanted.iter().all(|t| t.for_node == t.node_id));
    }
    for node in &nodes {
        world.node_up(node);
        world.set_availability(node, Availability::Active);
    }
    world.settle();
    assert_eq!(world.running(&id).len(), 4);
}

#[test]
fn an_update_of_a_global_service_goes_from_node_to_node_under_any_leader() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut world = World::with_nodes(5);
        let id = world.create_service_with("agent", 0, image("v1"), |s| {
            s.mode = Mode::Global;
            s.update = Some(UpdateConfig { parallelism: 2, order, ..UpdateConfig::default() });
        });
        world.settle();
        world.set_image(&id, "v2");
        for _ in 0..100 {
            world.change_leader();
            world.control();
            world.agents();
            let running = world.running(&id).len();
            let least = if order == UpdateOrder::StartFirst { 5 } else { 3 };
            assert!((least..=7).contains(&running), "{order:?}: {running} run");
        }
        assert_eq!(world.images(&id), ["v2"; 5]);
        assert_eq!(world.tasks(&id).len(), 10, "each node was updated once");
        world.settle();
        assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Completed);
    }
}

#[test]
fn an_update_does_not_wait_for_nodes_that_are_paused_drained_or_away() {
    let mut world = World::with_nodes(4);
    let id = global(&mut world, "agent", image("v1"));
    world.settle();
    let nodes = world.node_ids();
    world.set_availability(&nodes[0], Availability::Pause);
    world.set_availability(&nodes[1], Availability::Drain);
    world.node_down(&nodes[2]);
    world.settle();
    world.set_image(&id, "v2");
    world.settle();
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Completed);
    let running: Vec<_> = world.running(&id).iter().map(|t| (t.node_id.clone(), t.spec.origin().to_owned())).collect();
    assert!(running.contains(&(Some(nodes[0].clone()), "v1".into())), "a paused node keeps what it has");
    assert!(running.contains(&(Some(nodes[3].clone()), "v2".into())));
    assert_eq!(running.len(), 2);
    world.set_availability(&nodes[0], Availability::Active);
    world.set_availability(&nodes[1], Availability::Active);
    world.node_up(&nodes[2]);
    world.settle();
    assert_eq!(world.images(&id), ["v2"; 4]);
}

#[test]
fn a_plan_for_a_node_that_has_changed_is_refused() {
    let mut world = World::with_nodes(2);
    let id = global(&mut world, "agent", with_reservation(image("v1"), 64_000_000_000, 0));
    let belated = world.plan();
    let node = world.node_ids()[0].clone();
    world.set_availability(&node, Availability::Drain);
    assert!(world.apply(&belated).is_err());
    world.settle();
    assert_eq!(world.wanted(&id).len(), 1);
}

#[test]
fn tasks_go_with_their_node_and_a_history_is_kept_for_each() {
    let mut world = World::with_nodes(2);
    world.set_history_limit(3);
    let id = global(&mut world, "agent", image("v0"));
    world.settle();
    for n in 1..6 {
        world.set_image(&id, &format!("v{n}"));
        world.settle();
    }
    assert_eq!(world.tasks(&id).len(), 6, "three for each node");
    let node = world.node_ids()[0].clone();
    world.remove_node(&node);
    world.settle();
    assert_eq!(world.tasks(&id).len(), 3);
}

// --- placement alone ---

#[test]
fn other_constraints_replace_only_tasks_on_nodes_that_do_not_meet_them() {
    for mode in [Mode::Replicated { replicas: 2 }, Mode::Global] {
        let mut world = World::with_nodes(2);
        let id = world.create_service_with("web", 2, image("v1"), |s| s.mode = mode.clone());
        world.settle();
        let nodes = world.node_ids();
        world.change_node(&nodes[0], |n| drop(n.spec.labels.insert("disk".into(), "ssd".into())));
        let before = world.running(&id);
        let stays = before.iter().find(|t| t.node_id.as_ref() == Some(&nodes[0])).unwrap();
        world.change_service(&id, |s| Arc::make_mut(&mut s.task).placement = Some(constraint("node.labels.disk==ssd")));
        world.settle();
        let after = world.running(&id);
        assert!(after.iter().any(|t| t.id == stays.id), "{mode:?}");
        assert_eq!(nodes_of(&after), [nodes[0].clone()].into(), "{mode:?}");
        let expected = if mode == Mode::Global { 1 } else { 2 };
        assert_eq!(after.len(), expected, "{mode:?}");
        assert!(after.iter().all(|t| swarmlite_control::is_up_to_date(&world.snapshot(), &world.service(&id), t)));
    }
}

// --- jobs ---

#[test]
fn a_job_runs_so_many_at_once_until_so_many_are_done_under_any_leader() {
    for (max_concurrent, total, peak) in [(1, 3, 1), (2, 5, 2), (0, 4, 4), (9, 4, 4)] {
        let mut world = World::with_nodes(3);
        let id = job(&mut world, image("done/3s"), max_concurrent, total);
        let mut most = 0;
        for _ in 0..200 {
            world.change_leader();
            world.control();
            world.agents();
            let active = world.tasks(&id).iter().filter(|t| t.is_active()).count();
            most = most.max(active);
            world.pass(Duration::from_millis(500));
        }
        assert_eq!(
            (most, complete(&world, &id)),
            (peak, usize::try_from(total).unwrap()),
            "{max_concurrent} of {total}"
        );
        let slots: Vec<u64> = world.tasks(&id).iter().map(|t| t.slot).collect();
        assert_eq!(slots, (0..total).collect::<Vec<_>>());
        assert!(world.tasks(&id).iter().all(|t| t.desired == TaskState::Complete && t.job_iteration == Some(0)));
        world.settle();
        // What is done stays done when its node goes.
        for node in world.node_ids() {
            world.set_availability(&node, Availability::Drain);
        }
        world.settle();
        assert_eq!(world.tasks(&id).len(), slots.len());
    }
}

#[test]
fn each_update_is_another_run_and_what_goes_on_of_the_last_is_removed() {
    let mut world = World::with_nodes(2);
    let id = job(&mut world, image("done/100s"), 2, 4);
    world.run_for(SECOND * 150); // two are done, two go on
    assert_eq!(complete(&world, &id), 2);
    world.change_service(&id, |s| Arc::make_mut(&mut s.task).force_update += 1);
    world.run();
    let of = |world: &World, run| world.tasks(&id).iter().filter(|t| t.job_iteration == Some(run)).count();
    assert_eq!((of(&world, 0), of(&world, 1)), (2, 2), "what was done is history");
    assert_eq!(world.update_state(&id), None, "a job has no rolling update");
    world.settle();
    assert_eq!(complete(&world, &id), 4);
    // The history has an end.
    world.set_history_limit(2);
    for _ in 0..4 {
        world.set_image(&id, "done");
        world.settle();
    }
    let runs: BTreeSet<_> = world.tasks(&id).iter().filter_map(|t| t.job_iteration).collect();
    assert_eq!(runs, [4, 5].into(), "the last one, and as many as are kept of those that are over");
}

#[test]
fn a_job_is_tried_again_as_its_policy_says_and_then_given_up() {
    let policy = |condition, attempts| RestartPolicy {
        condition,
        delay: Some(SECOND),
        max_attempts: Some(attempts),
        window: None,
    };
    use RestartCondition::{Any, None as Never, OnFailure};
    for (condition, attempts, what, made, done) in [
        (None, 0, "done", 1, 1),
        (Some(Any), 0, "done", 1, 1), // to run it again when it ended well is no job's wish
        (Some(OnFailure), 2, "crash", 3, 0),
        (Some(Any), 2, "reject", 3, 0),
        (Some(Never), 0, "crash", 1, 0),
    ] {
        let mut world = World::with_nodes(2);
        let id = job(&mut world, with_policy(image(what), policy(condition, attempts)), 1, 1);
        world.run_for(SECOND * 100);
        world.settle();
        assert_eq!((world.tasks(&id).len(), complete(&world, &id)), (made, done), "{condition:?} {what}");
        world.change_leader();
        world.run_for(SECOND * 100);
        assert_eq!(world.tasks(&id).len(), made);
    }
    // A place that is given up does not hold up the others.
    let mut world = World::with_nodes(2);
    let id = job(&mut world, with_policy(image("done/10s"), policy(Some(Never), 0)), 1, 3);
    world.run();
    let first = world.tasks(&id)[0].id.clone();
    world.set_status(&first, TaskState::Failed);
    world.run_for(SECOND * 100);
    world.settle();
    assert_eq!(complete(&world, &id), 2);
}

#[test]
fn the_tasks_of_a_job_move_away_from_nodes_that_die_or_are_drained() {
    for down in [true, false] {
        let mut world = World::with_nodes(2);
        let id = job(&mut world, image("done/20s"), 4, 4);
        world.run_for(SECOND * 5);
        let node = world.node_ids()[0].clone();
        if down {
            world.node_down(&node)
        } else {
            world.set_availability(&node, Availability::Drain)
        }
        world.settle();
        assert_eq!(complete(&world, &id), 4);
        let done: Vec<_> = world.tasks(&id).into_iter().filter(|t| t.status.state == TaskState::Complete).collect();
        assert!(!nodes_of(&done).contains(&node));
    }
}

#[test]
fn a_global_job_runs_once_on_each_node_also_on_those_that_come_later() {
    let mut world = World::with_nodes(2);
    let id = world.create_service_with("job", 0, image("done"), |s| s.mode = Mode::GlobalJob);
    world.settle();
    assert_eq!(complete(&world, &id), 2);
    let first = world.node_ids()[0].clone();
    world.set_availability(&first, Availability::Drain);
    world.settle();
    world.set_availability(&first, Availability::Active);
    world.add_node();
    world.settle();
    assert_eq!((complete(&world, &id), world.tasks(&id).len()), (3, 3), "nothing is run twice");
    world.set_image(&id, "done/1s");
    world.settle();
    assert_eq!((complete(&world, &id), world.tasks(&id).len()), (3, 3), "as in Docker, earlier runs are forgotten");
    assert!(world.tasks(&id).iter().all(|t| t.job_iteration == Some(1)));
}
