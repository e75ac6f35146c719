//! Each filter of the scheduler, one case a line: what the nodes are like, what the task asks, where it lands or why not.
mod common;
use common::*;
use model::*;
use std::sync::Arc;

const GIB: i64 = 1 << 30;

type OnNode = fn(&mut Node);
type OnService = fn(&mut TaskSpec);

struct Case {
    what: &'static str,
    /// What is done to the three nodes before.
    nodes: [OnNode; 3],
    replicas: u64,
    asks: OnService,
    /// How many tasks each node runs, and what those say that wait.
    expected: ([usize; 3], &'static str),
}

fn as_it_is(_: &mut Node) {}

fn describe(node: &mut Node) -> &mut NodeDescription {
    node.description.as_mut().unwrap()
}

fn placed_by(placement: Placement) -> Option<Placement> {
    Some(placement)
}

fn constraints(task: &mut TaskSpec, texts: &[&str]) {
    let constraints = texts.iter().map(|t| t.parse().unwrap()).collect();
    task.placement = placed_by(Placement { constraints, ..Placement::default() });
}

fn generic(task: &mut TaskSpec, kind: &str, amount: i64) {
    let generic = vec![GenericRequest { kind: kind.into(), amount }];
    task.resources = Some(ResourceRequirements { generic, ..ResourceRequirements::default() });
}

fn volume(task: &mut TaskSpec, driver: &str) {
    let mount =
        Mount { source: "data".into(), target: "/data".into(), volume_driver: driver.into(), ..Mount::default() };
    task.container_mut().unwrap().mounts.push(mount);
}

fn names(node: &mut Node, kind: &str, names: &[&str]) {
    let named = |n: &&str| GenericResource::Named { kind: kind.into(), value: (*n).into() };
    describe(node).generic = names.iter().map(named).collect();
}

fn amount(node: &mut Node, kind: &str, amount: i64) {
    describe(node).generic = vec![GenericResource::Discrete { kind: kind.into(), amount }];
}

fn plugin(node: &mut Node, kind: &str, name: &str) {
    describe(node).engine.plugins.push((kind.into(), name.into()));
}

fn label(node: &mut Node, key: &str, value: &str) {
    node.spec.labels.insert(key.into(), value.into());
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            what: "a node that is paused, drained or away takes nothing",
            nodes: [|n| n.spec.availability = Availability::Pause, |n| n.status.state = NodeState::Unknown, as_it_is],
            replicas: 2,
            asks: |_| {},
            expected: ([0, 0, 2], ""),
        },
        Case {
            what: "memory is reserved on each node until there is none",
            nodes: [as_it_is, |n| describe(n).resources.memory_bytes = GIB, |n| n.description = None],
            replicas: 4,
            asks: |t| *t = with_reservation(t.clone(), 0, 4 * GIB),
            expected: ([2, 0, 0], "no suitable node (insufficient resources on 3 nodes)"),
        },
        Case {
            what: "generic resources with names are given one by one",
            nodes: [|n| names(n, "gpu", &["a", "b", "c"]), |n| names(n, "gpu", &["x", "y"]), as_it_is],
            replicas: 3,
            asks: |t| generic(t, "gpu", 2),
            expected: ([1, 1, 0], "no suitable node (insufficient resources on 3 nodes)"),
        },
        Case {
            what: "generic resources without names are counted",
            nodes: [|n| amount(n, "ssd", 5), |n| amount(n, "ssd", 1), |n| amount(n, "gpu", 9)],
            replicas: 3,
            asks: |t| generic(t, "ssd", 2),
            expected: ([2, 0, 0], "no suitable node (insufficient resources on 3 nodes)"),
        },
        Case {
            what: "a volume driver has to be there, under its name or its name with a tag",
            nodes: [
                |n| plugin(n, "Volume", "nfs:latest"),
                |n| plugin(n, "Network", "nfs"),
                |n| plugin(n, "Volume", "nfs"),
            ],
            replicas: 4,
            asks: |t| volume(t, "nfs"),
            expected: ([2, 0, 2], ""),
        },
        Case {
            what: "nobody has the driver",
            nodes: [as_it_is, as_it_is, |n| plugin(n, "Volume", "nfs:v2")],
            replicas: 1,
            asks: |t| volume(t, "nfs"),
            expected: ([0, 0, 0], "no suitable node (missing plugin on 3 nodes)"),
        },
        Case {
            what: "local volumes and those without a driver need no plugin",
            nodes: [as_it_is, as_it_is, as_it_is],
            replicas: 3,
            asks: |t| {
                volume(t, "local");
                volume(t, "");
            },
            expected: ([1, 1, 1], ""),
        },
        Case {
            what: "a log driver has to be there where the engine says which it has",
            nodes: [|n| plugin(n, "Log", "json-file"), |n| plugin(n, "Log", "syslog"), as_it_is],
            replicas: 4,
            asks: |t| t.log_driver = Some(LogDriver { name: "syslog".into(), ..LogDriver::default() }),
            expected: ([0, 2, 2], ""),
        },
        Case {
            what: "no log driver is one that every engine has",
            nodes: [|n| plugin(n, "Log", "json-file"), as_it_is, as_it_is],
            replicas: 3,
            asks: |t| t.log_driver = Some(LogDriver { name: "none".into(), ..LogDriver::default() }),
            expected: ([1, 1, 1], ""),
        },
        Case {
            what: "all constraints have to be met",
            nodes: [
                |n| label(n, "disk", "ssd"),
                |n| {
                    label(n, "disk", "SSD");
                    n.spec.role = Role::Manager;
                },
                |n| n.spec.role = Role::Manager,
            ],
            replicas: 1,
            asks: |t| constraints(t, &["node.labels.disk == ssd", "node.role != worker"]),
            expected: ([0, 1, 0], ""),
        },
        Case {
            what: "a key that nobody knows is met by no node",
            nodes: [as_it_is, as_it_is, |n| n.spec.availability = Availability::Drain],
            replicas: 1,
            asks: |t| constraints(t, &["node.color != red"]),
            expected: (
                [0, 0, 0],
                "no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks)",
            ),
        },
        Case {
            what: "platforms",
            nodes: [|n| describe(n).platform.architecture = "aarch64".into(), as_it_is, |n| n.description = None],
            replicas: 1,
            asks: |t| {
                let arm = Platform { architecture: "arm64".into(), os: "linux".into() };
                t.placement = placed_by(Placement { platforms: vec![arm], ..Placement::default() });
            },
            expected: ([1, 0, 0], ""),
        },
        Case {
            what: "at most so many on a node",
            nodes: [as_it_is, as_it_is, |n| n.spec.availability = Availability::Pause],
            replicas: 6,
            asks: |t| t.placement = placed_by(Placement { max_replicas: 2, ..Placement::default() }),
            expected: (
                [2, 2, 0],
                "no suitable node (max replicas per node limit exceed; 1 node not available for new tasks)",
            ),
        },
        Case {
            what: "each node counts for the first filter that turns it away",
            nodes: [
                |n| describe(n).resources.memory_bytes = 0,
                |n| plugin(n, "Log", "json-file"),
                |n| n.spec.availability = Availability::Drain,
            ],
            replicas: 1,
            asks: |t| {
                *t = with_reservation(t.clone(), 0, GIB);
                t.log_driver = Some(LogDriver { name: "syslog".into(), ..LogDriver::default() });
                constraints(t, &["node.labels.none == x"]);
            },
            expected: (
                [0, 0, 0],
                "no suitable node (1 node not available for new tasks; insufficient resources on 1 node; missing plugin on 1 node)",
            ),
        },
    ]
}

#[test]
fn where_tasks_land_and_what_those_say_that_do_not() {
    for case in cases() {
        let mut world = World::with_nodes(3);
        let nodes = world.node_ids();
        for (id, change) in nodes.iter().zip(case.nodes) {
            world.change_node(id, change);
        }
        let mut task = image("nginx");
        (case.asks)(&mut task);
        let id = world.create_service("web", case.replicas, task);
        world.run();
        let tasks = world.wanted(&id);
        let on = |node: &NodeId| tasks.iter().filter(|t| t.node_id.as_ref() == Some(node)).count();
        let waiting: Vec<&Arc<Task>> = tasks.iter().filter(|t| t.node_id.is_none()).collect();
        let says = waiting.first().map_or("", |t| t.status.err.as_str());
        assert_eq!(([on(&nodes[0]), on(&nodes[1]), on(&nodes[2])], says), case.expected, "{}", case.what);
        assert!(waiting.iter().all(|t| t.status.err == says && t.status.state == TaskState::Pending), "{}", case.what);
    }
}

/// The names that the tasks of a service were given, by node.
fn given(world: &World, id: &ServiceId) -> Vec<String> {
    let mut given: Vec<String> = Vec::new();
    for task in world.wanted(id) {
        let names = task.generic.iter().map(|g| match g {
            GenericResource::Named { kind, value } => format!("{kind} {value}"),
            GenericResource::Discrete { kind, amount } => format!("{amount} {kind}"),
        });
        given.push(names.collect::<Vec<_>>().join(", "));
    }
    given.sort();
    given
}

#[test]
fn a_task_says_which_generic_resources_it_was_given_and_they_are_given_again_when_it_is_over() {
    let mut world = World::with_nodes(1);
    let node = world.node_ids()[0].clone();
    world.change_node(&node, |n| {
        names(n, "gpu", &["a", "b", "c"]);
        describe(n).generic.push(GenericResource::Discrete { kind: "ssd".into(), amount: 4 });
    });
    let mut spec = image("v1");
    let generic =
        vec![GenericRequest { kind: "gpu".into(), amount: 1 }, GenericRequest { kind: "ssd".into(), amount: 2 }];
    spec.resources = Some(ResourceRequirements { generic, ..ResourceRequirements::default() });
    let id = world.create_service("train", 3, spec);
    world.run();
    assert_eq!(given(&world, &id), ["", "gpu a, 2 ssd", "gpu b, 2 ssd"], "the third finds no disk");
    // An update takes over what the task before it held.
    world.scale(&id, 2);
    world.settle();
    world.set_image(&id, "v2");
    world.settle();
    assert_eq!(world.images(&id), ["v2", "v2"]);
    assert_eq!(given(&world, &id), ["gpu a, 2 ssd", "gpu b, 2 ssd"]);
    // What another one gives back goes to whoever waits.
    let other = world.create_service("other", 1, {
        let mut spec = image("other");
        spec.resources = Some(ResourceRequirements {
            generic: vec![GenericRequest { kind: "gpu".into(), amount: 2 }],
            ..ResourceRequirements::default()
        });
        spec
    });
    world.run();
    assert_eq!(given(&world, &other), [""]);
    world.scale(&id, 1);
    world.settle();
    assert_eq!(world.running(&other).len(), 1);
}
