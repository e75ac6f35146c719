//! Forecasts: what they say, and that it comes true.
mod common;
use common::*;
use model::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Conflict, Store, Transaction};
use swarmlite_control::forecast::{Action, Ends, Forecast, Options, WhatIfError, forecast, what_if};

/// A world of nodes `a`, `b`, `c`…
fn world(nodes: usize) -> World {
    let mut world = World::with_nodes(nodes);
    for (id, name) in world.node_ids().into_iter().zip('a'..) {
        world.change_node(&id, |n| n.description.as_mut().unwrap().hostname = name.into());
    }
    world
}

/// What the API would do with `service update`, not committed.
fn change(world: &World, id: &ServiceId, f: impl FnOnce(&mut ServiceSpec)) -> Transaction {
    let mut service = world.service(id);
    service.previous_spec = Some(service.spec.clone());
    f(&mut service.spec);
    service.spec_version += 1;
    service.update_status = None;
    let mut tx = Transaction::new(world.now);
    tx.update(service);
    tx
}

fn plan(world: &World, transactions: &[Transaction]) -> Forecast {
    let before = world.snapshot();
    let outlook = forecast(&before, transactions, world.now, &Options::default()).unwrap();
    let again = forecast(&before, transactions, world.now, &Options::default()).unwrap();
    assert_eq!(outlook, again, "the same question has the same answer");
    assert_eq!(Store::encode(&before), Store::encode(&world.snapshot()), "a forecast changes nothing");
    outlook
}

/// The steps, a line each.
fn steps(outlook: &Forecast) -> Vec<String> {
    let line = |s: &swarmlite_control::forecast::Step| {
        let node = |n: &Option<String>| n.clone().unwrap_or_else(|| "-".into());
        let (ms, from, to) = (s.at.as_millis(), node(&s.from_node), node(&s.to_node));
        format!("{ms} {} {}.{} {from}>{to} {}", s.action, s.service, s.slot, s.why).trim_end().to_owned()
    };
    outlook.steps.iter().map(line).collect()
}

/// Least running, and milliseconds of dip, of the only service that is concerned.
fn dip(outlook: &Forecast) -> (u64, u128) {
    assert_eq!(outlook.services.len(), 1, "{:?}", outlook.services);
    (outlook.services[0].least_running, outlook.services[0].dip.as_millis())
}

fn landing(outlook: &Forecast) -> Vec<(String, BTreeMap<String, u64>)> {
    outlook.landing.iter().map(|l| (l.hostname.clone(), l.tasks.clone())).collect()
}

/// Where everything is in the world.
fn landed(world: &World) -> Vec<(String, BTreeMap<String, u64>)> {
    let snapshot = world.snapshot();
    let mut landed = Vec::new();
    for node in snapshot.nodes() {
        let mut tasks: BTreeMap<String, u64> = BTreeMap::new();
        for task in snapshot.tasks_on_node(&node.id).filter(|t| t.is_active()) {
            *tasks.entry(task.service_name.to_string()).or_default() += 1;
        }
        if !tasks.is_empty() {
            landed.push((node.description.as_ref().unwrap().hostname.clone(), tasks));
        }
    }
    landed
}

#[test]
fn scaling_up_creates_and_nothing_dips() {
    let mut world = world(2);
    let id = world.create_service("web", 2, image("v1"));
    world.settle();
    let outlook = plan(&world, &[change(&world, &id, |s| s.mode = Mode::Replicated { replicas: 4 })]);
    assert_eq!(outlook.objects, ["service web: replicas 2 -> 4"]);
    assert_eq!(
        steps(&outlook),
        [
            "0 create web.3 ->a replicas 2 -> 4",
            "0 create web.4 ->b replicas 2 -> 4",
            "1000 start web.3 ->a",
            "1000 start web.4 ->b"
        ]
    );
    assert_eq!((outlook.changes, outlook.ends, dip(&outlook)), (true, Ends::Settled, (2, 0)));
    assert_eq!((outlook.services[0].wanted_before, outlook.services[0].wanted_after), (2, 4));
    assert!(outlook.steps.iter().all(|s| s.task.is_none()), "what does not exist has no id");
    assert_eq!(landing(&outlook), [("a".into(), [("web".into(), 2)].into()), ("b".into(), [("web".into(), 2)].into())]);
}

#[test]
fn scaling_down_removes_where_there_are_most() {
    let mut world = world(2);
    let id = world.create_service("web", 3, image("v1"));
    world.settle();
    let outlook = plan(&world, &[change(&world, &id, |s| s.mode = Mode::Replicated { replicas: 1 })]);
    let steps = steps(&outlook);
    assert!(steps.len() == 2 && steps.iter().all(|s| s.starts_with("0 remove web.")), "{steps:?}");
    assert!(outlook.steps.iter().all(|s| s.task.is_some()), "what exists has an id");
    assert_eq!(dip(&outlook), (1, 0));
}

#[test]
fn what_changes_nothing_is_said_to_change_nothing() {
    let mut world = world(2);
    let id = world.create_service("web", 2, image("v1"));
    world.settle();
    for same in [vec![], vec![change(&world, &id, |_| {})], vec![Transaction::new(world.now)]] {
        let outlook = plan(&world, &same);
        assert!(!outlook.changes && outlook.steps.is_empty() && outlook.objects.is_empty(), "{outlook:?}");
        assert_eq!(outlook.ends, Ends::Settled);
    }
    let labelled = change(&world, &id, |s| drop(s.labels.insert("team".into(), "blue".into())));
    let outlook = plan(&world, &[labelled]);
    assert_eq!(outlook.objects, ["service web: label team=blue added"]);
    assert!(outlook.changes && outlook.steps.is_empty());
}

#[test]
fn an_update_shows_its_batches_and_its_dip() {
    let mut world = world(3);
    let id = world.create_service("web", 3, image("v1"));
    world.settle();
    let new_image = |s: &mut ServiceSpec| Arc::make_mut(&mut s.task).container_mut().unwrap().image = "v2".into();
    let outlook = plan(&world, &[change(&world, &id, new_image)]);
    let lines = steps(&outlook);
    assert_eq!(lines[0], "0 update-status web.0 ->- updating: update in progress");
    assert_eq!(lines[1], "0 restart web.1 a>a update: image v1 -> v2");
    let restarts: Vec<&str> = lines.iter().filter(|l| l.contains(" restart ")).map(|l| &l[..1]).collect();
    assert_eq!(restarts, ["0", "1", "3"], "one after the other: {lines:#?}");
    assert!(lines.last().unwrap().ends_with("completed: update completed"), "{lines:#?}");
    let (least, dip) = dip(&outlook);
    assert!(least == 2 && (3000..6000).contains(&dip), "{dip}");

    let start_first = |s: &mut ServiceSpec| {
        s.update = Some(UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() });
        Arc::make_mut(&mut s.task).container_mut().unwrap().image = "v2".into();
    };
    let outlook = plan(&world, &[change(&world, &id, start_first)]);
    assert_eq!((outlook.services[0].least_running, outlook.services[0].dip), (3, Duration::ZERO));
    assert!(steps(&outlook).iter().any(|l| l.contains(" stop web.1 a>- update: image v1 -> v2")));
}

#[test]
fn a_new_service_and_one_that_goes() {
    let mut world = world(2);
    let old = world.create_service("old", 1, image("v1"));
    world.settle();
    let mut tx = Transaction::new(world.now);
    tx.remove(&old, world.service(&old).meta.version);
    let outlook = plan(&world, &[tx]);
    assert_eq!(outlook.objects, ["service old: removed"]);
    assert_eq!(steps(&outlook), ["0 remove old.1 a>- the service is removed"]);
    assert_eq!(dip(&outlook), (0, 0));

    let mut service = world.service(&old);
    service.id = "n".repeat(25).parse().unwrap();
    service.spec.name = "new".parse().unwrap();
    let mut tx = Transaction::new(world.now);
    tx.create(service);
    let outlook = plan(&world, &[tx.clone()]);
    assert_eq!(outlook.objects, ["service new: new: replicated, replicas 1, image v1"]);
    assert_eq!(steps(&outlook), ["0 create new.1 ->b the service is new", "1000 start new.1 ->b"]);
    // Somebody was faster.
    world.apply(&tx).unwrap();
    let refused = forecast(&world.snapshot(), &[tx], world.now, &Options::default());
    assert!(matches!(refused, Err(Conflict::Exists(_))), "{refused:?}");
}

#[test]
fn secrets_of_a_service_are_not_told() {
    let mut world = world(1);
    let id = world.create_service("web", 1, image("v1"));
    world.settle();
    let outlook = plan(
        &world,
        &[change(&world, &id, |s| {
            let container = Arc::make_mut(&mut s.task).container_mut().unwrap();
            container.env = vec!["PASSWORD=hunter2".into()];
            container.registry_auth = Some(RegistryAuth("hunter2".into()));
        })],
    );
    assert_eq!(outlook.objects, ["service web: environment"]);
    assert!(!format!("{outlook:?}").contains("hunter2"));
}

#[test]
fn what_if_a_node_died_or_were_drained() {
    let mut world = world(3);
    let big = with_reservation(image("v1"), 2_500_000_000, 0);
    world.create_service("big", 3, big);
    let web = world.create_service("web", 3, image("v1"));
    world.settle();
    let nodes = world.node_ids();
    let ask = |kill: &[NodeId], drain: &[NodeId], scale: &[(ServiceId, u64)]| {
        let tx = what_if(&world.snapshot(), kill, drain, &scale.iter().cloned().collect(), world.now).unwrap();
        plan(&world, &[tx])
    };
    let killed = ask(&nodes[..1], &[], &[]);
    assert_eq!(killed.objects, ["node a: state ready -> down"]);
    assert_eq!(killed.ends, Ends::Waiting);
    assert_eq!(killed.unplaced.len(), 1, "{:?}", killed.unplaced);
    assert_eq!(killed.unplaced[0].service, "big");
    assert!(killed.unplaced[0].reason.contains("insufficient resources on 2 nodes"), "{:?}", killed.unplaced);
    let moved: Vec<String> = steps(&killed).into_iter().filter(|s| s.contains(" move ")).collect();
    assert!(moved.len() == 1 && moved[0].ends_with("node a is down") && moved[0].contains(" a>"), "{moved:?}");
    let of = |name: &str| killed.services.iter().find(|s| s.service == name).unwrap();
    assert_eq!((of("web").least_running, of("web").dip), (2, Duration::from_secs(1)));
    assert_eq!(of("big").least_running, 2);

    let drained = ask(&[], &nodes[1..2], &[]);
    assert_eq!(drained.objects, ["node b: availability active -> drain"]);
    assert!(steps(&drained).iter().any(|s| s.ends_with("node b is drained")), "{:?}", steps(&drained));

    let scaled = ask(&[], &[], &[(web.clone(), 9)]);
    assert_eq!(scaled.objects, ["service web: replicas 3 -> 9"]);
    assert!(scaled.landing.iter().all(|l| l.tasks["web"] == 3), "{:?}", scaled.landing);

    let gone: NodeId = "x".repeat(25).parse().unwrap();
    for (what, kill, scale) in [
        (WhatIfError::NoNode(gone.clone()), vec![gone.clone()], vec![]),
        (WhatIfError::NoService("y".repeat(25).parse().unwrap()), vec![], vec![("y".repeat(25).parse().unwrap(), 1)]),
        (WhatIfError::TooMany { service: "web".parse().unwrap(), asked: 1 << 40 }, vec![], vec![(web, 1 << 40)]),
    ] {
        let asked = what_if(&world.snapshot(), &kill, &[], &scale.into_iter().collect(), world.now);
        assert_eq!(asked, Err(what));
    }
}

#[test]
fn what_happens_anyway_is_left_out() {
    let mut world = world(3);
    let slow = |s: &mut ServiceSpec| s.update = Some(UpdateConfig { delay: SECOND * 30, ..UpdateConfig::default() });
    let web = world.create_service_with("web", 3, image("v1"), slow);
    let db = world.create_service("db", 1, image("v1"));
    world.settle();
    world.set_image(&web, "v2");
    world.run();
    let outlook = plan(&world, &[]);
    assert!(!outlook.changes && outlook.steps.is_empty(), "{outlook:#?}");
    assert!(outlook.notes.iter().any(|n| n.ends_with("steps of web happen anyway and are left out")), "{outlook:#?}");
    let outlook = plan(&world, &[change(&world, &db, |s| s.mode = Mode::Replicated { replicas: 2 })]);
    assert_eq!(outlook.services.iter().map(|s| s.service.as_str()).collect::<Vec<_>>(), ["db"]);
    assert!(outlook.changes && outlook.ends == Ends::Settled);
}

#[test]
fn a_forecast_has_an_end() {
    let mut world = world(2);
    let slow = |s: &mut ServiceSpec| s.update = Some(UpdateConfig { delay: SECOND * 600, ..UpdateConfig::default() });
    let id = world.create_service_with("web", 10, image("v1"), slow);
    world.settle();
    let new_image = |s: &mut ServiceSpec| Arc::make_mut(&mut s.task).container_mut().unwrap().image = "v2".into();
    let outlook = plan(&world, &[change(&world, &id, new_image)]);
    assert_eq!(outlook.ends.to_string(), "failed to settle within 3600s");
    let ask = |options| {
        let scale = change(&world, &id, |s| s.mode = Mode::Replicated { replicas: 500 });
        forecast(&world.snapshot(), &[scale], world.now, &options).unwrap()
    };
    let outlook = ask(Options { task_changes_max: 100, ..Options::default() });
    assert_eq!(outlook.ends.to_string(), "failed to settle within 100 changes of tasks");
    let outlook = ask(Options { looks_max: 1000, ..Options::default() });
    assert_eq!(outlook.ends.to_string(), "failed to settle within 1000 looks at tasks");
    assert!(outlook.notes.iter().any(|n| n.starts_with("the change is too large")), "{:?}", outlook.notes);
    let outlook = ask(Options { steps_max: 10, ..Options::default() });
    assert_eq!((outlook.steps.len(), outlook.ends), (10, Ends::Settled));
    assert!(outlook.notes.iter().any(|n| n == "970 more steps follow and are left out"), "{:?}", outlook.notes);
}

#[test]
fn a_swarm_without_a_quorum_is_warned_of() {
    let world = {
        let mut world = world(3);
        let nodes = world.node_ids();
        nodes.iter().for_each(|id| world.change_node(id, |n| n.spec.role = Role::Manager));
        world
    };
    let kill = |n: usize| {
        let tx = what_if(&world.snapshot(), &world.node_ids()[..n], &[], &BTreeMap::new(), world.now).unwrap();
        plan(&world, &[tx]).notes.iter().any(|n| n.contains("managers would be left, 2 are needed"))
    };
    assert_eq!((kill(1), kill(2)), (false, true));
}

#[test]
fn a_health_check_takes_its_time() {
    let mut world = world(1);
    let id = world.create_service("web", 1, image("v1"));
    world.settle();
    let outlook = plan(
        &world,
        &[change(&world, &id, |s| {
            let check = Healthcheck { test: vec!["CMD".into(), "true".into()], ..Healthcheck::default() };
            Arc::make_mut(&mut s.task).container_mut().unwrap().healthcheck =
                Some(Healthcheck { interval: Some(SECOND * 7), ..check });
        })],
    );
    let (least, dip) = dip(&outlook);
    assert!(least == 0 && dip >= 8000, "{dip} {:#?}", steps(&outlook));
}

#[test]
fn what_is_forecast_comes_true() {
    type Change = fn(&mut World) -> Transaction;
    let changes: [(&str, Change); 5] = [
        ("scaled up", |w| {
            let id = w.snapshot().services().next().unwrap().id.clone();
            change(w, &id, |s| s.mode = Mode::Replicated { replicas: 11 })
        }),
        ("scaled down", |w| {
            let id = w.snapshot().services().next().unwrap().id.clone();
            change(w, &id, |s| s.mode = Mode::Replicated { replicas: 2 })
        }),
        ("another image", |w| {
            let id = w.snapshot().services().last().unwrap().id.clone();
            change(w, &id, |s| Arc::make_mut(&mut s.task).container_mut().unwrap().image = "v2".into())
        }),
        ("a drained node", |w| what_if(&w.snapshot(), &[], &w.node_ids()[1..2], &BTreeMap::new(), w.now).unwrap()),
        ("two dead nodes", |w| {
            let dead = w.node_ids()[..2].to_vec();
            w.off.extend(dead.clone());
            what_if(&w.snapshot(), &dead, &[], &BTreeMap::new(), w.now).unwrap()
        }),
    ];
    for (what, change) in changes {
        let mut world = world(5);
        world.create_service("one", 7, image("v1"));
        world.create_service("two", 4, with_reservation(image("v1"), 1_000_000_000, 0));
        world.settle();
        let tx = change(&mut world);
        let all = Options { land_all: true, ..Options::default() };
        let outlook = forecast(&world.snapshot(), std::slice::from_ref(&tx), world.now, &all).unwrap();
        world.apply(&tx).unwrap();
        world.settle();
        assert_eq!(landing(&outlook), landed(&world), "{what}");
    }
}

fn created(world: &World, name: &str, f: impl FnOnce(&mut Service)) -> Transaction {
    let mut service = Service {
        id: "n".repeat(25).parse().unwrap(),
        meta: Meta::default(),
        spec: ServiceSpec {
            name: name.parse().unwrap(),
            labels: BTreeMap::new(),
            task: Arc::new(image("v1")),
            mode: Mode::Replicated { replicas: 1 },
            update: None,
            rollback: None,
            endpoint: None,
            cron: None,
            backoff: Backoff::default(),
        },
        spec_version: 1,
        previous_spec: None,
        update_status: None,
        progress: Progress::default(),
    };
    f(&mut service);
    let mut tx = Transaction::new(world.now);
    tx.create(service);
    tx
}

#[test]
fn a_global_service_follows_the_nodes() {
    let mut world = world(3);
    let id = world.create_service_with("agent", 0, image("v1"), |s| s.mode = Mode::Global);
    world.settle();
    let nodes = world.node_ids();
    let drained = what_if(&world.snapshot(), &[], &nodes[..1], &BTreeMap::new(), world.now).unwrap();
    let outlook = plan(&world, &[drained]);
    assert_eq!(steps(&outlook), ["0 stop agent.0 a>- node a is drained"]);
    assert_eq!((outlook.services[0].wanted_before, outlook.services[0].wanted_after, dip(&outlook)), (3, 2, (2, 0)));
    let updated = plan(
        &world,
        &[change(&world, &id, |s| Arc::make_mut(&mut s.task).container_mut().unwrap().image = "v2".into())],
    );
    let restarts: Vec<String> = steps(&updated).into_iter().filter(|s| s.contains(" restart ")).collect();
    assert_eq!(restarts.len(), 3, "{restarts:?}");
    assert!(restarts[0].ends_with("a>a update: image v1 -> v2"), "{restarts:?}");
    let refused = what_if(&world.snapshot(), &[], &[], &[(id, 2)].into(), world.now);
    assert!(matches!(refused, Err(WhatIfError::NotReplicated { mode: "global", .. })), "{refused:?}");
}

#[test]
fn a_job_runs_batch_after_batch() {
    let world = world(2);
    let job = created(&world, "job", |s| {
        s.spec.mode = Mode::ReplicatedJob { max_concurrent: 2, total_completions: 4 };
        s.progress.job = Some(JobRun::default());
    });
    let outlook = plan(&world, &[job]);
    assert_eq!(outlook.objects, ["service job: new: replicated-job, completions 4, image v1"]);
    let created: Vec<u128> =
        outlook.steps.iter().filter(|s| s.action == Action::Create).map(|s| s.at.as_millis()).collect();
    assert_eq!(created.len(), 4, "{:#?}", steps(&outlook));
    assert!(created[1] == 0 && created[2] >= 11_000, "two at a time: {created:?}");
    assert_eq!((outlook.ends, dip(&outlook)), (Ends::Settled, (0, 0)));
    assert_eq!(outlook.services[0].wanted_after, 4);
}

#[test]
fn a_job_with_a_schedule_waits_for_its_time() {
    let world = world(1);
    let job = created(&world, "nightly", |s| {
        s.spec.mode = Mode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
        s.spec.cron = Some(CronSpec {
            schedule: "0 3 * * *".parse().unwrap(),
            timezone: "UTC".parse().unwrap(),
            missed_run_window: SECOND * 60,
            concurrency: Concurrency::Forbid,
            history: 3,
        });
    });
    let outlook = plan(&world, &[job]);
    assert_eq!((steps(&outlook), outlook.ends), (Vec::new(), Ends::Settled));
    assert!(outlook.changes, "there is a service more");
}

#[test]
fn a_label_that_a_constraint_asks_for() {
    let mut world = world(3);
    let nodes = world.node_ids();
    let label = |n: &mut Node| drop(n.spec.labels.insert("disk".into(), "ssd".into()));
    nodes[..2].iter().for_each(|id| world.change_node(id, label));
    world.create_service_with("db", 2, image("v1"), |s| {
        let constraints = vec!["node.labels.disk==ssd".parse().unwrap()];
        Arc::make_mut(&mut s.task).placement = Some(Placement { constraints, ..Placement::default() });
    });
    world.settle();
    let mut node = world.snapshot().node(&nodes[0]).unwrap().as_ref().clone();
    node.spec.labels.clear();
    let mut tx = Transaction::new(world.now);
    tx.update(node);
    let outlook = plan(&world, &[tx]);
    assert_eq!(outlook.objects, ["node a: label disk removed"]);
    let moves: Vec<String> = steps(&outlook).into_iter().filter(|s| s.contains(" move ")).collect();
    assert!(moves.len() == 1 && moves[0].ends_with("a>b node a does not suit it any more"), "{:#?}", steps(&outlook));
    assert_eq!(outlook.services[0].least_running, 1);
}

#[test]
fn a_node_that_is_removed() {
    let mut world = world(2);
    world.create_service("web", 2, image("v1"));
    world.settle();
    let node = world.node_ids()[0].clone();
    let mut tx = Transaction::new(world.now);
    tx.remove(&node, world.snapshot().node(&node).unwrap().meta.version);
    let outlook = plan(&world, &[tx]);
    assert_eq!(outlook.objects, ["node a: removed"]);
    assert!(steps(&outlook)[0].ends_with("a>b node a is gone"), "{:#?}", steps(&outlook));
    assert_eq!(landing(&outlook), [("b".into(), [("web".into(), 2)].into())]);
}

#[test]
fn a_failed_update_that_is_paused_is_told_of() {
    let mut world = world(2);
    let id = world.create_service("web", 4, image("v1"));
    world.settle();
    world.set_image(&id, "crash");
    world.run_for(SECOND * 60);
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Paused);
    let outlook = plan(&world, &[change(&world, &id, |s| s.mode = Mode::Replicated { replicas: 5 })]);
    assert!(
        outlook.notes.iter().any(|n| n.ends_with("tasks of web failed as it is to be: more of them may")),
        "{:?}",
        outlook.notes
    );
}
