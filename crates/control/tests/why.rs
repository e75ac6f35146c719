//! Why a service is not as it should be, in words.
mod common;
use common::*;
use model::*;
use std::sync::Arc;
use swarmlite_control::scheduler::Filter;
use swarmlite_control::why::{self, Why};

const CPU: i64 = 1_000_000_000;
const MIB: i64 = 1 << 20;

/// Nodes with these host names.
fn world(names: &[&str]) -> (World, Vec<NodeId>) {
    let mut world = World::with_nodes(names.len());
    let ids = world.node_ids();
    for (id, name) in ids.iter().zip(names) {
        world.change_node(id, |n| n.description.as_mut().unwrap().hostname = (*name).into());
    }
    (world, ids)
}

fn ask(world: &World, id: &ServiceId) -> Why {
    let why = why::service(&world.snapshot(), &world.service(id), world.now);
    assert_eq!(&why.service, id);
    for task in &why.tasks {
        assert!(!task.line.is_empty());
        let one = why::task(&world.snapshot(), world.snapshot().task(&task.id).unwrap(), world.now).unwrap();
        assert_eq!(one.tasks, std::slice::from_ref(task), "a task says the same when it is asked alone");
    }
    why
}

/// `web.1: line`, of each task.
fn lines(why: &Why) -> Vec<String> {
    why.tasks.iter().map(|t| format!("{}: {}", t.name, t.line)).collect()
}

/// Ids are random to a reader: `(0000abc…)` becomes `(..)`.
fn anonymous(text: &str) -> String {
    let mut said = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('(') {
        said.push_str(before);
        let id =
            after.split_once(')').filter(|(id, _)| id.len() == 12 && id.bytes().all(|b| b.is_ascii_alphanumeric()));
        rest = id.map_or(after, |(_, after)| after);
        said.push_str(if id.is_some() { "(..)" } else { "(" });
    }
    said + rest
}

#[test]
fn a_service_that_is_as_it_should_be_says_so() {
    let (mut world, _) = world(&["a", "b"]);
    let id = world.create_service("web", 3, image("nginx"));
    let agent = world.create_service_with("agent", 0, image("agent"), |s| s.mode = Mode::Global);
    world.settle();
    assert_eq!((ask(&world, &id).lines, ask(&world, &id).tasks), (vec!["all 3 tasks run".to_owned()], vec![]));
    assert_eq!(ask(&world, &agent).lines, ["it runs on 2 of 2 nodes"]);
    let task = world.running(&id)[0].clone();
    let why = why::task(&world.snapshot(), &task, world.now).unwrap();
    assert_eq!((why.tasks[0].state, why.tasks[0].line.as_str()), (TaskState::Running, "runs on node a, as it should"));
    assert_eq!(why.lines, ["web.1: runs on node a, as it should"]);
}

#[test]
fn each_filter_says_what_is_missing_with_the_numbers() {
    type OnNode = fn(&mut Node);
    type OnTask = fn(&mut TaskSpec);
    fn constrained(t: &mut TaskSpec, text: &str) {
        t.placement = Some(Placement { constraints: vec![text.parse().unwrap()], ..Placement::default() });
    }
    let table: [(OnNode, OnTask, Filter, &str); 17] = [
        (|n| n.spec.availability = Availability::Pause, |_| {}, Filter::Ready, "paused"),
        (|n| n.spec.availability = Availability::Drain, |_| {}, Filter::Ready, "drained"),
        (
            |n| {
                n.status.state = NodeState::Down;
                n.status.message = "heartbeat failure".into();
            },
            |_| {},
            Filter::Ready,
            "down (heartbeat failure)",
        ),
        (|n| n.status.state = NodeState::Unknown, |_| {}, Filter::Ready, "not heard of yet"),
        (
            |n| n.description.as_mut().unwrap().resources.memory_bytes = 512 * MIB,
            |t| *t = with_reservation(t.clone(), 0, 1024 * MIB),
            Filter::Resources,
            "512 MiB short of 1 GiB",
        ),
        (
            |n| n.description.as_mut().unwrap().resources = Resources { nano_cpus: CPU / 2, memory_bytes: 0 },
            |t| *t = with_reservation(t.clone(), 2 * CPU, 4 * MIB),
            Filter::Resources,
            "1.5 CPUs short of 2 CPUs, 4 MiB short of 4 MiB",
        ),
        (
            |n| {
                let gpu = GenericResource::Named { kind: "gpu".into(), value: "a".into() };
                n.description.as_mut().unwrap().generic = vec![gpu];
            },
            |t| {
                let generic = vec![GenericRequest { kind: "gpu".into(), amount: 3 }];
                t.resources = Some(ResourceRequirements { generic, ..ResourceRequirements::default() });
            },
            Filter::Resources,
            "2 short of 3 gpu",
        ),
        (
            |_| {},
            |t| t.container_mut().unwrap().mounts.push(Mount { volume_driver: "nfs".into(), ..Mount::default() }),
            Filter::Plugins,
            "volume driver nfs missing",
        ),
        (|_| {}, |t| constrained(t, "node.labels.disk==ssd"), Filter::Constraints, "label disk=ssd missing"),
        (
            |n| _ = n.spec.labels.insert("disk".into(), "hdd".into()),
            |t| constrained(t, "node.labels.disk==ssd"),
            Filter::Constraints,
            "label disk is hdd, not ssd",
        ),
        (
            |n| _ = n.spec.labels.insert("disk".into(), "hdd".into()),
            |t| constrained(t, "node.labels.disk!=hdd"),
            Filter::Constraints,
            "label disk is hdd",
        ),
        (|_| {}, |t| constrained(t, "engine.labels.tier==1"), Filter::Constraints, "engine label tier=1 missing"),
        (|_| {}, |t| constrained(t, "node.role==manager"), Filter::Constraints, "node.role is worker, not manager"),
        (
            |_| {},
            |t| constrained(t, "node.ip==10.0.0.1"),
            Filter::Constraints,
            "node.ip is not known, and not 10.0.0.1",
        ),
        (|_| {}, |t| constrained(t, "node.colour!=red"), Filter::Constraints, "nothing is known as node.colour"),
        (
            |_| {},
            |t| {
                let arm = Platform { architecture: "arm64".into(), os: "linux".into() };
                t.placement = Some(Placement { platforms: vec![arm], ..Placement::default() });
            },
            Filter::Platform,
            "platform linux/x86_64, the image exists for linux/arm64",
        ),
        (|_| {}, |t| t.log_driver = None, Filter::MaxReplicas, "runs 1 of at most 1 replica"),
    ];
    for (on_node, on_task, filter, reason) in table {
        let (mut world, nodes) = world(&["a"]);
        let mut task = image("nginx");
        on_task(&mut task);
        if filter == Filter::MaxReplicas {
            task.placement = Some(Placement { max_replicas: 1, ..Placement::default() });
        }
        let id = world.create_service("web", 2, task);
        world.change_node(&nodes[0], on_node);
        world.run();
        let why = ask(&world, &id);
        let waiting = why.tasks.last().unwrap();
        assert_eq!(waiting.rejected.len(), 1, "{reason}");
        let rejected = &waiting.rejected[0];
        assert_eq!((rejected.filter, rejected.reason.as_str(), rejected.hostname.as_str()), (filter, reason, "a"));
        assert_eq!(waiting.line, format!("no node fits: a: {reason}"));
        assert!(why.lines[0].ends_with(&waiting.line), "{:?}", why.lines);
    }
}

#[test]
fn nodes_with_one_reason_stand_together_and_ports_are_named() {
    let (mut world, nodes) = world(&["a", "b", "c", "d"]);
    let id = world.create_service_with("lb", 3, image("lb"), |s| s.endpoint = Some(host_port(8080)));
    world.set_availability(&nodes[2], Availability::Pause);
    world.set_availability(&nodes[3], Availability::Pause);
    world.run();
    let why = ask(&world, &id);
    assert_eq!(lines(&why), ["lb.3: no node fits: a, b: port 8080/tcp in use; c, d: paused"]);
    assert_eq!(why.lines, ["2 of 3 tasks run; lb.3: no node fits: a, b: port 8080/tcp in use; c, d: paused"]);
}

#[test]
fn a_restart_says_how_long_it_waits_and_what_for() {
    let (mut world, _) = world(&["a"]);
    let id = world.create_service_with("web", 1, image("nginx"), |s| s.backoff.on = false);
    world.settle();
    for failures in ["last error: oops", "2nd failure in a row, last error: oops"] {
        let task = world.running(&id)[0].clone();
        world.set_status_with(&task.id, TaskState::Failed, |s| s.err = "oops".into());
        world.run();
        world.pass(SECOND);
        assert_eq!(lines(&ask(&world, &id)), [format!("web.1: restarts in 4 s: {failures}")]);
        world.run_for(SECOND * 4);
    }
}

#[test]
fn a_slot_that_ended_for_good_says_why_nothing_follows() {
    let policy = |condition, max_attempts| RestartPolicy {
        condition: Some(condition),
        delay: Some(SECOND),
        max_attempts: Some(max_attempts),
        window: None,
    };
    use RestartCondition::{Any, OnFailure};
    for (image_name, policy, line) in [
        ("done", policy(RestartCondition::None, 0), "ended well; its restart condition is none"),
        ("done", policy(OnFailure, 0), "ended well; its restart condition is on-failure"),
        ("crash", policy(Any, 2), "failed; its 2 restart attempts are used up"),
    ] {
        let (mut world, _) = world(&["a"]);
        let id = world.create_service("web", 1, with_policy(image(image_name), policy));
        world.run_for(SECOND * 600);
        assert_eq!(lines(&ask(&world, &id)), [format!("web.1: {line}")]);
        assert_eq!(ask(&world, &id).lines, [format!("0 of 1 task runs; web.1: {line}")]);
    }
}

#[test]
fn a_task_on_its_way_says_where_it_is_since_when() {
    let (mut world, nodes) = world(&["a"]);
    let mut task = image("nginx:1");
    task.container_mut().unwrap().healthcheck = Some(Healthcheck::default());
    let id = world.create_service("web", 1, task);
    world.control();
    let task = world.wanted(&id)[0].clone();
    for (state, line) in [
        (TaskState::Assigned, "(meanwhile assigned on a)"),
        (TaskState::Preparing, "node a prepares it, since 3 s: it pulls nginx:1 or makes the container"),
        (TaskState::Starting, "starts on node a, since 3 s; it counts as running once it is healthy"),
    ] {
        if state > task.status.state {
            world.set_status_with(&task.id, state, |_| {});
            world.control();
        }
        world.pass(SECOND * 3);
        let said = lines(&ask(&world, &id));
        assert!(said[0].ends_with(line) || state == TaskState::Assigned, "{said:?}");
    }
    world.change_node(&nodes[0], |n| n.status.state = NodeState::Unknown);
    let said = lines(&ask(&world, &id));
    assert_eq!(said, ["web.1: node a has not been heard of since a manager took over (starting there)"]);
}

#[test]
fn a_node_that_is_down_and_one_that_no_longer_meets_constraints() {
    let (mut world, nodes) = world(&["a", "b"]);
    for id in &nodes {
        world.change_node(id, |n| _ = n.spec.labels.insert("disk".into(), "ssd".into()));
    }
    let placement = Placement { constraints: vec!["node.labels.disk==ssd".parse().unwrap()], ..Placement::default() };
    let id = world.create_service("db", 2, TaskSpec { placement: Some(placement), ..image("db") });
    world.settle();
    world.change_node(&nodes[0], |n| _ = n.spec.labels.remove("disk"));
    world.control();
    let said: Vec<String> = lines(&ask(&world, &id)).iter().map(|l| anonymous(l)).collect();
    assert!(said.iter().any(|l| l.ends_with("leaves node a, which no longer meets its constraints")), "{said:?}");
    assert!(
        said.iter().any(|l| l.contains("(..) on node a to stop, 60 s more at most (meanwhile assigned on b)")),
        "{said:?}"
    );
    world.settle();
    world.node_down(&nodes[1]);
    world.run();
    world.pass(SECOND * 3600);
    let why = ask(&world, &id);
    let down = why.tasks.iter().filter(|t| t.line.starts_with("node b is down")).count();
    assert_eq!(down, 2);
    assert!(why.tasks[0].line.ends_with("it is given up in 23 h"), "{}", why.tasks[0].line);
    assert!(lines(&why)[1].ends_with("no node fits: a: label disk=ssd missing; b: down"), "{:?}", lines(&why));
}

#[test]
fn an_update_says_what_it_waits_for() {
    let (mut world, nodes) = world(&["a", "b"]);
    let id = world.create_service_with("web", 3, image("v1"), |s| {
        let delay = SECOND * 20;
        s.update = Some(UpdateConfig { delay, monitor: Some(SECOND * 5), ..UpdateConfig::default() });
    });
    world.settle();
    assert_eq!(ask(&world, &id).update, "");
    world.set_image(&id, "v2");
    world.control();
    let why = ask(&world, &id);
    assert_eq!(anonymous(&why.update), "update: 1 of 3 tasks updated; waits for web.1 (..) to start (assigned)");
    assert!(why.tasks.iter().any(|t| t.line.ends_with("waits for its turn in the update")), "{:?}", lines(&why));
    world.run();
    world.pass(SECOND * 8);
    assert_eq!(ask(&world, &id).update, "update: 1 of 3 tasks updated; 12 s left of the delay between two tasks");
    // A task that does not come up.
    nodes.iter().for_each(|n| _ = world.off.insert(n.clone()));
    world.run_for(SECOND * 12);
    world.run_for(SECOND * 61);
    assert_eq!(
        anonymous(&ask(&world, &id).update),
        "update: 2 of 3 tasks updated; waits for web.2 (..) to run (assigned)"
    );
}

#[test]
fn a_paused_update_says_why_and_what_to_do() {
    let (mut world, _) = world(&["a"]);
    let id = world.create_service_with("web", 2, image("v1"), |s| {
        s.update = Some(UpdateConfig { delay: SECOND, ..UpdateConfig::default() });
    });
    world.settle();
    world.set_image(&id, "crash");
    world.run_for(SECOND * 60);
    let why = ask(&world, &id);
    assert!(why.update.starts_with("update paused due to failure or early termination of task "), "{}", why.update);
    assert!(why.update.ends_with("; it goes on with the next change of the service"), "{}", why.update);
    assert!(lines(&why).iter().any(|l| l.ends_with("as the service was before; the update is paused")), "{why:?}");
    assert!(why.lines.contains(&why.update));
}

#[test]
fn a_start_first_update_says_what_goes_on_until_then() {
    let (mut world, nodes) = world(&["a"]);
    let id = world.create_service_with("web", 1, image("v1"), |s| {
        s.update = Some(UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() });
    });
    world.settle();
    world.off.insert(nodes[0].clone());
    world.set_image(&id, "v2");
    world.control();
    let said: Vec<String> = lines(&ask(&world, &id)).iter().map(|l| anonymous(l)).collect();
    let waits = "web.1: waits for node a to take it, since 0 ms; web.1 (..) on node a goes on until then";
    assert!(said.contains(&waits.to_owned()), "{said:?}");
}

#[test]
fn a_global_service_says_which_nodes_are_left_out() {
    let (mut world, nodes) = world(&["a", "b", "c"]);
    world.change_node(&nodes[0], |n| _ = n.spec.labels.insert("disk".into(), "ssd".into()));
    world.change_node(&nodes[1], |n| n.spec.availability = Availability::Drain);
    let placement = Placement { constraints: vec!["node.labels.disk==ssd".parse().unwrap()], ..Placement::default() };
    let spec = with_reservation(TaskSpec { placement: Some(placement), ..image("agent") }, 8 * CPU, 0);
    let id = world.create_service_with("agent", 0, spec, |s| s.mode = Mode::Global);
    world.settle();
    let why = ask(&world, &id);
    assert_eq!(
        why.lines,
        [
            "it runs on 0 of 1 node; agent.a: waits for node a: 4 CPUs short of 8 CPUs",
            "left out: b: drained; c: label disk=ssd missing"
        ]
    );
    assert_eq!(why.tasks[0].rejected.len(), 1);
}

#[test]
fn a_job_says_how_far_it_is() {
    let (mut world, nodes) = world(&["a"]);
    let id = world.create_service_with("job", 0, image("done"), |s| {
        s.mode = Mode::ReplicatedJob { max_concurrent: 1, total_completions: 3 };
    });
    world.settle();
    assert_eq!(ask(&world, &id).lines, ["3 of 3 completions, 0 running"]);
    assert_eq!(ask(&world, &id).tasks, []);
    world.off.insert(nodes[0].clone());
    let other = world.create_service_with("other", 0, image("done"), |s| s.mode = Mode::GlobalJob);
    world.control();
    let why = ask(&world, &other);
    assert!(why.lines[0].starts_with("done on 0 of 1 node, 0 running; other.a: "), "{:?}", why.lines);
}

#[test]
fn a_task_of_a_service_that_is_gone_has_no_reason() {
    let (mut world, nodes) = world(&["a"]);
    let id = world.create_service("web", 1, image("nginx"));
    world.settle();
    world.off.insert(nodes[0].clone());
    world.remove_service(&id);
    world.control();
    let task: Arc<Task> = world.tasks(&id)[0].clone();
    assert_eq!(why::task(&world.snapshot(), &task, world.now), None);
}
