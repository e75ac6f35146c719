//! Spreading services anew: one move at a time, and only moves that help.
mod common;
use common::*;
use model::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use swarmlite_control::forecast::{Action, Options, forecast};

/// Asks for the service to be spread anew, as the API does.
fn ask(world: &mut World, id: &ServiceId) {
    let asked_at = world.now;
    world.edit_service(id, |s| s.progress.rebalance = Some(Rebalance { asked_at, ..Rebalance::default() }));
}

/// How many running tasks of the service are on each node, in the order of the nodes.
fn lie(world: &World, id: &ServiceId) -> Vec<usize> {
    let running = world.running(id);
    let on = |node: &NodeId| running.iter().filter(|t| t.node_id.as_ref() == Some(node)).count();
    world.node_ids().iter().map(on).collect()
}

fn is_asked(world: &World, id: &ServiceId) -> bool {
    world.service(id).progress.rebalance.is_some_and(|r| r.given_up.is_none())
}

/// A world in which all tasks of the services are on the first node, and the others are empty.
fn lopsided(nodes: usize, services: &[(&str, u64)]) -> (World, Vec<ServiceId>) {
    let mut world = World::with_nodes(1);
    let ids: Vec<ServiceId> = services.iter().map(|(name, n)| world.create_service(name, *n, image("v1"))).collect();
    world.settle();
    (1..nodes).for_each(|_| drop(world.add_node()));
    world.settle();
    (world, ids)
}

/// Lets things go on for so long; never may the service have fewer running tasks than `wanted`, nor more than one that is
/// being moved. Returns how many tasks were made.
fn watch(world: &mut World, id: &ServiceId, wanted: usize, time: Duration) -> usize {
    let end = world.now.plus(time);
    let before: BTreeSet<TaskId> = world.tasks(id).iter().map(|t| t.id.clone()).collect();
    let mut made = BTreeSet::new();
    while world.now < end {
        world.control();
        world.agents();
        assert!(world.running(id).len() >= wanted, "start first");
        assert!(world.wanted(id).len() <= wanted + 1, "one move at a time");
        made.extend(world.tasks(id).iter().map(|t| t.id.clone()).filter(|t| !before.contains(t)));
        world.pass(Duration::from_millis(250));
    }
    made.len()
}

#[test]
fn nothing_moves_by_itself() {
    let (mut world, ids) = lopsided(3, &[("web", 6)]);
    watch(&mut world, &ids[0], 6, SECOND * 60);
    assert_eq!(lie(&world, &ids[0]), [6, 0, 0]);
}

#[test]
fn tasks_move_one_at_a_time_until_they_lie_evenly() {
    let (mut world, ids) = lopsided(3, &[("web", 6)]);
    ask(&mut world, &ids[0]);
    let made = watch(&mut world, &ids[0], 6, SECOND * 60);
    assert_eq!((lie(&world, &ids[0]), made), (vec![2, 2, 2], 4));
    assert_eq!(world.service(&ids[0]).progress.rebalance, None, "it is done");
    world.settle();
    ask(&mut world, &ids[0]);
    assert_eq!(watch(&mut world, &ids[0], 6, SECOND * 20), 0, "what lies evenly stays");
    assert!(!is_asked(&world, &ids[0]));
    world.settle();
}

#[test]
fn it_goes_no_faster_than_an_update() {
    for (delay, monitor, moved) in [(0, None, 2), (0, Some(1), 5), (20, Some(1), 1), (0, Some(60), 1)] {
        let (mut world, ids) = lopsided(4, &[("web", 8)]);
        world.edit_service(&ids[0], |s| {
            let (delay, monitor) = (SECOND * delay, monitor.map(|m| SECOND * m));
            s.spec.update = Some(UpdateConfig { delay, monitor, ..UpdateConfig::default() });
        });
        ask(&mut world, &ids[0]);
        let made = watch(&mut world, &ids[0], 8, SECOND * 9);
        assert_eq!(made, moved, "delay {delay}, monitor {monitor:?}");
    }
}

#[test]
fn another_leader_goes_on_with_it() {
    let (mut world, ids) = lopsided(3, &[("web", 6)]);
    ask(&mut world, &ids[0]);
    let mut most = 0;
    for _ in 0..400 {
        world.change_leader();
        world.control();
        world.agents();
        most = most.max(world.wanted(&ids[0]).len());
        world.pass(Duration::from_millis(250));
    }
    assert_eq!((lie(&world, &ids[0]), most), (vec![2, 2, 2], 7));
    assert_eq!(world.tasks(&ids[0]).len(), 10, "each of four tasks was moved once");
}

#[test]
fn a_move_that_fails_is_the_last() {
    for (bad, after) in [("reject", 0), ("crash", 0), ("crash", 3)] {
        let (mut world, ids) = lopsided(3, &[("web", 6)]);
        ask(&mut world, &ids[0]);
        world.control();
        let new = world.wanted(&ids[0]).into_iter().find(|t| t.status.state == TaskState::Assigned).unwrap();
        if bad == "crash" {
            world.run();
            world.pass(SECOND * after);
            world.set_status(&new.id, TaskState::Failed);
        } else {
            world.set_status(&new.id, TaskState::Rejected);
        }
        world.run_for(SECOND * 60);
        let rebalance = world.service(&ids[0]).progress.rebalance.unwrap();
        assert_eq!(rebalance.given_up, Some(new.id.clone()), "{bad} after {after} s");
        assert_eq!(rebalance.moving, None);
        assert_eq!(world.running(&ids[0]).len(), 6);
        let moved = lie(&world, &ids[0]).iter().skip(1).sum::<usize>();
        assert!(moved <= 1, "{bad} after {after} s: {:?}", lie(&world, &ids[0]));
        world.settle();
        // Asking again is another try.
        ask(&mut world, &ids[0]);
        world.run_for(SECOND * 120);
        assert_eq!(lie(&world, &ids[0]), [2, 2, 2], "{bad} after {after} s");
    }
}

#[test]
fn an_update_goes_first() {
    let (mut world, ids) = lopsided(3, &[("web", 6)]);
    world.set_image(&ids[0], "v2");
    ask(&mut world, &ids[0]);
    world.control();
    let updating = |w: &World| w.update_state(&ids[0]).is_some_and(|(s, _)| s == UpdateState::Updating);
    assert!(updating(&world));
    while updating(&world) {
        assert_eq!(world.service(&ids[0]).progress.rebalance.and_then(|r| r.moving), None);
        world.run();
        world.pass(SECOND);
        world.control();
    }
    world.run_for(SECOND * 120);
    assert_eq!(world.images(&ids[0]), ["v2"; 6]);
    assert_eq!(lie(&world, &ids[0]), [2, 2, 2]);

    // One that begins on the way is not held up.
    let (mut world, ids) = lopsided(3, &[("web", 6)]);
    ask(&mut world, &ids[0]);
    world.control();
    world.set_image(&ids[0], "v2");
    world.run_for(SECOND * 180);
    assert_eq!((world.images(&ids[0]), lie(&world, &ids[0])), (vec!["v2".to_owned(); 6], vec![2, 2, 2]));
    world.settle();
}

#[test]
fn what_happens_on_the_way_does_no_harm() {
    type Happens = fn(&mut World, &ServiceId);
    let cases: [(&str, Happens, usize); 6] = [
        (
            "the node it comes to dies",
            |w, id| {
                let to =
                    w.wanted(id).into_iter().find(|t| t.status.state < TaskState::Running).unwrap().node_id.clone();
                w.node_down(&to.unwrap());
            },
            6,
        ),
        (
            "the node it leaves dies",
            |w, _| {
                let from = w.node_ids()[0].clone();
                w.node_down(&from);
            },
            6,
        ),
        (
            "the node it leaves is drained",
            |w, _| {
                let from = w.node_ids()[0].clone();
                w.set_availability(&from, Availability::Drain);
            },
            6,
        ),
        ("scaled down", |w, id| w.scale(id, 3), 3),
        ("scaled up", |w, id| w.scale(id, 9), 9),
        (
            "asked again",
            |w, id| {
                let moving = w.service(id).progress.rebalance.and_then(|r| r.moving);
                let asked_at = w.now;
                w.edit_service(id, |s| {
                    s.progress.rebalance = Some(Rebalance { asked_at, moving, ..Rebalance::default() })
                });
            },
            6,
        ),
    ];
    for (what, happens, wanted) in cases {
        let (mut world, ids) = lopsided(4, &[("web", 6)]);
        ask(&mut world, &ids[0]);
        world.control();
        happens(&mut world, &ids[0]);
        world.run_for(SECOND * 300);
        assert_eq!(world.running(&ids[0]).len(), wanted, "{what}");
        let usable = |id: &NodeId| {
            let node = world.snapshot().node(id).unwrap().clone();
            node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
        };
        let lie = lie(&world, &ids[0]);
        let on: Vec<usize> = world.node_ids().iter().zip(&lie).filter(|(id, _)| usable(id)).map(|(_, n)| *n).collect();
        assert!(on.iter().max().unwrap() - on.iter().min().unwrap() <= 1, "{what}: {lie:?}");
        assert!(!is_asked(&world, &ids[0]), "{what}");
        world.settle();
    }
}

#[test]
fn services_of_one_task_even_out_the_nodes() {
    let names: Vec<String> = (0..9).map(|n| format!("s{n}")).collect();
    let services: Vec<(&str, u64)> = names.iter().map(|n| (n.as_str(), 1)).collect();
    let (mut world, ids) = lopsided(3, &services);
    ids.iter().for_each(|id| ask(&mut world, id));
    world.run_for(SECOND * 300);
    let mut on: BTreeMap<NodeId, usize> = BTreeMap::new();
    ids.iter().flat_map(|id| world.running(id)).for_each(|t| *on.entry(t.node_id.clone().unwrap()).or_default() += 1);
    assert_eq!(on.into_values().collect::<Vec<_>>(), [3, 3, 3]);
    let made: usize = ids.iter().map(|id| world.tasks(id).len()).sum();
    assert_eq!(made, 9 + 6, "no task moved twice");
    assert!(ids.iter().all(|id| !is_asked(&world, id)));
}

#[test]
fn preferences_and_filters_are_kept() {
    // Two zones, all tasks in one of them; and one node too small for any.
    let mut world = World::with_nodes(2);
    let zone = |world: &mut World, node: usize, zone: &str| {
        let id = world.node_ids()[node].clone();
        world.change_node(&id, |n| drop(n.spec.labels.insert("zone".into(), zone.into())));
    };
    (0..2).for_each(|n| zone(&mut world, n, "x"));
    let spread = Preference::Spread("node.labels.zone".into());
    let id = world.create_service_with("web", 6, with_reservation(image("v1"), 100_000_000, 0), |s| {
        let placement = Placement { preferences: vec![spread], ..Placement::default() };
        Arc::make_mut(&mut s.task).placement = Some(placement);
    });
    world.settle();
    (0..2).for_each(|_| drop(world.add_node()));
    (2..4).for_each(|n| zone(&mut world, n, "y"));
    let small = world.node_ids()[3].clone();
    world.change_node(&small, |n| n.description.as_mut().unwrap().resources.nano_cpus = 1_000_000);
    world.settle();
    ask(&mut world, &id);
    world.run_for(SECOND * 120);
    let lie = lie(&world, &id);
    assert_eq!((lie[0] + lie[1], lie[2], lie[3]), (3, 3, 0), "even over the zones: {lie:?}");
    assert!(lie[0].abs_diff(lie[1]) <= 1, "and within them: {lie:?}");
}

#[test]
fn global_services_and_jobs_have_nothing_to_spread() {
    let mut world = World::with_nodes(2);
    let id = world.create_service_with("agent", 0, image("v1"), |s| s.mode = Mode::Global);
    world.settle();
    let before = world.tasks(&id);
    ask(&mut world, &id);
    world.run_for(SECOND * 30);
    assert_eq!(world.tasks(&id), before);
}

fn on_join(world: &mut World) {
    world.set_history_limit(5);
    let mut cluster = world.snapshot().cluster().unwrap().as_ref().clone();
    cluster.spec.policy.rebalance = RebalancePolicy::OnJoin;
    let mut tx = store::Transaction::new(world.now);
    tx.update(cluster);
    world.apply(&tx).unwrap();
}

#[test]
fn by_policy_a_node_that_joins_or_comes_back_gets_its_share() {
    let mut world = World::with_nodes(2);
    on_join(&mut world);
    let id = world.create_service("web", 6, image("v1"));
    let bound: Constraint = format!("node.id=={}", world.node_ids()[0]).parse().unwrap();
    let other = world.create_service_with("bound", 4, image("v1"), |s| {
        let placement = Placement { constraints: vec![bound], ..Placement::default() };
        Arc::make_mut(&mut s.task).placement = Some(placement);
    });
    world.settle();
    let version = world.service(&other).meta.version;
    world.pass(SECOND);
    let new = world.add_node();
    world.control();
    assert_eq!(world.service(&id).progress.rebalance.unwrap().because_of, Some(new.clone()));
    world.run_for(SECOND * 120);
    assert_eq!((lie(&world, &id), lie(&world, &other)), (vec![2, 2, 2], vec![4, 0, 0]));
    assert_eq!(world.service(&other).meta.version, version, "what has no use for the node is not written to");
    // Down and back, and drained and back.
    world.node_down(&new);
    world.run_for(SECOND * 60);
    assert_eq!(lie(&world, &id), [3, 3, 0]);
    world.node_up(&new);
    world.run_for(SECOND * 120);
    assert_eq!(lie(&world, &id), [2, 2, 2]);
    world.set_availability(&new, Availability::Drain);
    world.run_for(SECOND * 60);
    world.set_availability(&new, Availability::Active);
    world.run_for(SECOND * 120);
    assert_eq!(lie(&world, &id), [2, 2, 2]);
    world.settle();
}

#[test]
fn by_policy_a_join_is_used_once_and_not_for_ever() {
    // A move fails: the same join is no reason for another try.
    let mut world = World::with_nodes(2);
    on_join(&mut world);
    let id = world.create_service("web", 6, image("v1"));
    world.settle();
    world.pass(SECOND);
    world.add_node();
    world.control();
    let new = world.wanted(&id).into_iter().find(|t| t.status.state == TaskState::Assigned).unwrap();
    world.set_status(&new.id, TaskState::Rejected);
    world.run_for(SECOND * 120);
    assert_eq!(lie(&world, &id), [3, 3, 0]);
    assert_eq!(world.service(&id).progress.rebalance.unwrap().given_up, Some(new.id.clone()));
    world.add_node();
    world.run_for(SECOND * 120);
    assert_eq!(lie(&world, &id).iter().max(), Some(&2), "another join is");

    // What joined long ago is no reason either.
    let mut world = World::with_nodes(2);
    let id = world.create_service("web", 6, image("v1"));
    world.settle();
    world.add_node();
    world.run_for(SECOND * 3600);
    on_join(&mut world);
    world.run_for(SECOND * 60);
    assert_eq!(lie(&world, &id), [3, 3, 0]);
}

#[test]
fn it_can_be_planned() {
    let (mut world, ids) = lopsided(3, &[("web", 6)]);
    let plan = |world: &World| {
        let mut service = world.service(&ids[0]);
        service.progress.rebalance = Some(Rebalance { asked_at: world.now, ..Rebalance::default() });
        let mut tx = store::Transaction::new(world.now);
        tx.update(service);
        forecast(&world.snapshot(), &[tx], world.now, &Options::default()).unwrap()
    };
    let outlook = plan(&world);
    assert_eq!(outlook.objects, ["service web: to be spread anew"]);
    let moves: Vec<&str> = outlook.steps.iter().filter(|s| s.action == Action::Move).map(|s| s.why.as_str()).collect();
    assert_eq!(moves, ["the tasks are spread anew"; 4]);
    assert_eq!((outlook.services[0].least_running, outlook.services[0].dip), (6, Duration::ZERO));
    assert!(outlook.landing.iter().all(|l| l.tasks["web"] == 2));
    ask(&mut world, &ids[0]);
    world.run_for(SECOND * 120);
    let outlook = plan(&world);
    assert!(!outlook.changes && outlook.objects.is_empty(), "it is done: {outlook:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever lies how, asking all services at once comes to an end, evenly, and with few moves.
    #[test]
    fn all_at_once_comes_to_an_even_end(
        replicas in proptest::collection::vec(1_u64..9, 1..6),
        nodes in 2_usize..6,
        zones in 1_usize..3,
        first in 1_usize..3,
    ) {
        let mut world = World::with_nodes(first);
        let spread = Preference::Spread("node.labels.zone".into());
        let mut ids = Vec::new();
        for (i, n) in replicas.iter().enumerate() {
            ids.push(world.create_service_with(&format!("s{i}"), *n, image("v1"), |s| {
                let placement = Placement { preferences: vec![spread.clone()], ..Placement::default() };
                Arc::make_mut(&mut s.task).placement = (i % 2 == 0).then_some(placement);
            }));
        }
        world.settle();
        (first..nodes).for_each(|_| drop(world.add_node()));
        for (n, id) in world.node_ids().into_iter().enumerate() {
            world.change_node(&id, |node| drop(node.spec.labels.insert("zone".into(), (n % zones).to_string())));
        }
        world.settle();
        ids.iter().for_each(|id| ask(&mut world, id));
        world.run_for(SECOND * 1200);
        for (i, id) in ids.iter().enumerate() {
            prop_assert!(!is_asked(&world, id), "it comes to an end");
            let lie = lie(&world, id);
            let mut by_zone = vec![0; if i % 2 == 0 { zones } else { 1 }];
            let parts = by_zone.len();
            lie.iter().enumerate().for_each(|(n, on)| by_zone[n % parts] += on);
            prop_assert!(by_zone.iter().max().unwrap() - by_zone.iter().min().unwrap() <= 1, "zones {:?}", by_zone);
            for zone in 0..parts {
                let on: Vec<usize> = lie.iter().skip(zone).step_by(parts).copied().collect();
                prop_assert!(on.iter().max().unwrap() - on.iter().min().unwrap() <= 1, "nodes {:?}", lie);
            }
        }
        // A service may make way for another twice, where there are few tasks; on the whole there are not more moves than tasks.
        let (all, made) = (replicas.iter().sum::<u64>(), ids.iter().map(|id| world.tasks(id).len() as u64).sum::<u64>());
        prop_assert!(made <= 2 * all, "{} tasks were made of {}", made, all);
        world.settle();
    }
}
