//! The scheduler, through whole reconciliations.
mod common;
use common::*;
use model::*;

const CPU: i64 = 1_000_000_000;
const GIB: i64 = 1 << 30;

fn err(world: &World, id: &ServiceId) -> String {
    let pending: Vec<_> = world.wanted(id).into_iter().filter(|t| t.node_id.is_none()).collect();
    assert!(!pending.is_empty(), "everything was placed");
    assert!(pending.iter().all(|t| t.status.state == TaskState::Pending));
    pending[0].status.err.clone()
}

#[test]
fn reservations_bound_what_a_node_takes_and_the_rest_says_why_it_waits() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("db", 6, with_reservation(image("postgres"), 2 * CPU, GIB));
    world.run();
    assert_eq!(world.running(&id).len(), 4);
    assert_eq!(err(&world, &id), "no suitable node (insufficient resources on 2 nodes)");
    world.set_availability(&world.node_ids()[0].clone(), Availability::Pause);
    world.run();
    assert_eq!(
        err(&world, &id),
        "no suitable node (1 node not available for new tasks; insufficient resources on 1 node)"
    );
    world.add_node();
    world.settle();
    assert_eq!(world.running(&id).len(), 6, "a new node takes what waits");
}

#[test]
fn what_is_freed_goes_to_whoever_waits() {
    let mut world = World::with_nodes(1);
    let a = world.create_service("a", 4, with_reservation(image("a"), CPU, 0));
    let b = world.create_service("b", 2, with_reservation(image("b"), 2 * CPU, 0));
    world.run();
    assert_eq!((world.running(&a).len(), world.running(&b).len()), (4, 0));
    world.scale(&a, 2);
    world.control();
    assert!(world.wanted(&b).iter().all(|t| t.node_id.is_none()), "what is being stopped still holds its share");
    world.run();
    assert_eq!((world.running(&a).len(), world.running(&b).len()), (2, 1));
    world.remove_service(&a);
    world.run();
    assert_eq!(world.running(&b).len(), 2);
}

#[test]
fn an_update_fits_where_the_old_task_was() {
    let mut world = World::with_nodes(2);
    let id = world.create_service("db", 4, with_reservation(image("v1"), 2 * CPU, 4 * GIB));
    world.settle();
    world.set_image(&id, "v2");
    world.settle();
    assert_eq!(world.images(&id), ["v2"; 4]);
}

#[test]
fn a_node_that_shrinks_keeps_what_still_fits_and_takes_nothing() {
    let mut world = World::with_nodes(1);
    let id = world.create_service("db", 2, with_reservation(image("v1"), 2 * CPU, 0));
    world.settle();
    let node = world.node_ids()[0].clone();
    world.change_node(&node, |n| n.description.as_mut().unwrap().resources.nano_cpus = 3 * CPU);
    world.scale(&id, 3);
    world.run();
    assert_eq!(world.running(&id).len(), 1, "the one that came last has left");
    assert_eq!(err(&world, &id), "no suitable node (insufficient resources on 1 node)");
    let free = world.create_service("free", 1, image("nginx"));
    world.run();
    assert_eq!(world.running(&free).len(), 1, "what reserves nothing still fits");
}

#[test]
fn host_ports_are_published_once_on_a_node() {
    let mut world = World::with_nodes(2);
    let id = world.create_service_with("lb", 3, image("v1"), |s| s.endpoint = Some(host_port(8080)));
    world.run();
    assert_eq!(world.running(&id).len(), 2);
    assert_eq!(err(&world, &id), "no suitable node (host-mode port already in use on 2 nodes)");
    world.scale(&id, 2);
    world.settle();
    world.set_image(&id, "v2");
    world.settle();
    assert_eq!(world.images(&id), ["v2"; 2]);
    // The engine chooses: no conflict.
    let any = world.create_service_with("any", 5, image("v1"), |s| s.endpoint = Some(host_port(0)));
    world.run();
    assert_eq!(world.running(&any).len(), 5);
}

#[test]
fn images_run_on_their_platforms_only() {
    let mut world = World::with_nodes(2);
    let arm = world.node_ids()[1].clone();
    world.change_node(&arm, |n| n.description.as_mut().unwrap().platform.architecture = "aarch64".into());
    let platform = |a: &str| Platform { architecture: a.into(), os: "linux".into() };
    let on = |platforms: Vec<Platform>| TaskSpec {
        placement: Some(Placement { platforms, ..Placement::default() }),
        ..image("nginx")
    };
    let a = world.create_service("a", 2, on(vec![platform("arm64")]));
    let b = world.create_service("b", 2, on(vec![platform("amd64"), platform("arm64")]));
    let c = world.create_service("c", 1, on(vec![platform("s390x")]));
    world.run();
    assert!(world.running(&a).iter().all(|t| t.node_id.as_ref() == Some(&arm)));
    assert_eq!((world.running(&a).len(), world.running(&b).len()), (2, 2));
    assert_eq!(err(&world, &c), "no suitable node (unsupported platform on 2 nodes)");
}

#[test]
fn a_service_is_spread_before_nodes_are_evened_out() {
    let mut world = World::with_nodes(2);
    let nodes = world.node_ids();
    world.set_availability(&nodes[1], Availability::Pause);
    let a = world.create_service("a", 4, image("a"));
    world.settle();
    world.set_availability(&nodes[1], Availability::Active);
    let b = world.create_service("b", 2, image("b"));
    world.settle();
    let of_b = |n: &NodeId| world.running(&b).iter().filter(|t| t.node_id.as_ref() == Some(n)).count();
    assert_eq!((of_b(&nodes[0]), of_b(&nodes[1])), (1, 1), "one each, though the first node has four already");
    assert_eq!(world.running(&a).len(), 4);
}

#[test]
fn a_node_on_which_a_version_keeps_failing_is_avoided() {
    let mut world = World::with_nodes(2);
    let nodes = world.node_ids();
    // The second node is busy, so the first one is preferred.
    world.set_availability(&nodes[0], Availability::Pause);
    let busy = world.create_service("busy", 3, image("nginx"));
    world.settle();
    world.set_availability(&nodes[0], Availability::Active);
    let id = world.create_service_with("web", 1, image("web"), |s| s.backoff.on = false);
    for failures in 0..5 {
        world.run_for(SECOND * 6);
        let task = world.running(&id)[0].clone();
        assert_eq!(task.node_id.as_ref(), Some(&nodes[0]), "after {failures} failures");
        world.set_status(&task.id, TaskState::Failed);
    }
    world.run_for(SECOND * 6);
    assert_eq!(world.running(&id)[0].node_id.as_ref(), Some(&nodes[1]));
    assert_eq!(world.running(&busy).len(), 3);
}

#[test]
fn a_reason_is_written_once() {
    let mut world = World::with_nodes(1);
    let id = world.create_service("db", 3, with_reservation(image("db"), 64 * CPU, 0));
    world.run();
    let commits = world.commits;
    let version = world.tasks(&id)[0].meta.version;
    world.change_leader();
    world.run();
    let other = world.create_service("web", 1, image("nginx"));
    world.settle();
    assert_eq!(world.tasks(&id)[0].meta.version, version);
    assert_eq!((world.commits, world.running(&other).len()), (commits + 1, 1));
}
