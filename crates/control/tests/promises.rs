//! What an update promises while nothing else goes wrong: so many replicas are there at each moment, and tasks lie evenly. (That
//! no commit does more than the update allows, whatever goes wrong, is S21, which the world checks at each commit.)
mod common;
use common::*;
use model::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Op {
    /// Another image: a good one, a slow one, one that cannot be pulled.
    Image(u8),
    /// Nothing but a new version.
    Force,
    /// One step of all agents, or one look of the leader.
    Agents,
    Control,
    Pass(u64),
    ChangeLeader,
    /// A node joins, and the service is spread anew.
    Join,
    /// A plan is made, and made again later: it must be refused, or do no harm.
    Overhear,
    Belated,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..4_u8).prop_map(Op::Image),
        1 => Just(Op::Force),
        12 => Just(Op::Agents),
        12 => Just(Op::Control),
        5 => (1..8_u64).prop_map(Op::Pass),
        2 => Just(Op::ChangeLeader),
        1 => Just(Op::Join),
        2 => Just(Op::Overhear),
        2 => Just(Op::Belated),
    ]
}

fn config() -> impl Strategy<Value = UpdateConfig> {
    (0..4_u64, any::<bool>(), 0..3_u64, 0..6_u64).prop_map(|(parallelism, start_first, delay, monitor)| UpdateConfig {
        parallelism,
        order: if start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
        delay: SECOND * u32::try_from(delay).unwrap(),
        monitor: Some(SECOND * u32::try_from(monitor).unwrap()),
        failure_action: FailureAction::Pause,
        ..UpdateConfig::default()
    })
}

fn force(world: &mut World, id: &ServiceId) {
    world.change_service(id, |s| std::sync::Arc::make_mut(&mut s.task).force_update += 1);
}

fn spread_anew(world: &mut World, id: &ServiceId) {
    let asked_at = world.now;
    world.edit_service(id, |s| {
        let moving = s.progress.rebalance.take().and_then(|r| r.moving);
        s.progress.rebalance = Some(Rebalance { asked_at, moving, ..Rebalance::default() });
    });
}

/// Tasks of the service on each ready node.
fn lie(world: &World, id: &ServiceId) -> BTreeMap<NodeId, usize> {
    let mut on: BTreeMap<NodeId, usize> = world.node_ids().into_iter().map(|n| (n, 0)).collect();
    for task in world.running(id) {
        *on.entry(task.node_id.clone().expect("what runs has a node")).or_default() += 1;
    }
    on
}

fn is_even(world: &World, id: &ServiceId) -> bool {
    let on = lie(world, id);
    on.values().max().unwrap_or(&0) - on.values().min().unwrap_or(&0) <= 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A stop-first update takes away no more than its parallelism, a start-first one and a move to another node nothing.
    #[test]
    fn replicas_are_there_while_they_are_replaced(
        nodes in 1..4_usize,
        replicas in 1..8_u64,
        config in config(),
        small in any::<bool>(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut world = World::with_nodes(nodes);
        if small {
            world.budget = swarmlite_control::Budget { changes: 3, bytes: 100_000 };
        }
        let missing = match (config.order, config.parallelism) {
            (UpdateOrder::StartFirst, _) => 0,
            (UpdateOrder::StopFirst, 0) => replicas,
            (UpdateOrder::StopFirst, n) => n,
        };
        let id = world.create_service_with("web", replicas, image("v1"), |s| s.update = Some(config));
        world.settle();
        let mut belated = None;
        for op in ops {
            match &op {
                Op::Image(n) => world.set_image(&id, ["v1", "v2", "slow/3s", "reject"][usize::from(*n)]),
                Op::Force => force(&mut world, &id),
                Op::Agents => _ = world.agents(),
                Op::Control => world.control_to_the_end(),
                Op::Pass(n) => world.pass(SECOND * u32::try_from(*n).unwrap()),
                Op::ChangeLeader => world.change_leader(),
                Op::Join if world.node_ids().len() < 6 => {
                    world.add_node();
                    spread_anew(&mut world, &id);
                }
                Op::Join => {}
                Op::Overhear => belated = Some(world.plan()),
                Op::Belated => {
                    if let Some(transaction) = belated.take().filter(|t| !t.is_empty()) {
                        let _refused_or_harmless = world.apply(&transaction);
                    }
                }
            }
            let there = world.running(&id).len() as u64;
            prop_assert!(there + missing >= replicas, "{there} of {replicas} are there after {op:?}");
            // No more than one for each that is being replaced.
            let wanted = world.wanted(&id).len() as u64;
            prop_assert!(wanted <= 2 * replicas, "{wanted} tasks are wanted for {replicas} replicas");
        }
        world.all_is_well = true;
        world.settle();
    }

}

proptest! {
    // Each case is many updates to the end.
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// On nodes that are equal no two differ by more than one task of a service, however often it was scaled and updated; when
    /// nodes have joined, after it was spread anew.
    #[test]
    fn tasks_lie_evenly_on_equal_nodes(
        nodes in 1..6_usize,
        first in 0..8_u64,
        config in config(),
        steps in prop::collection::vec((0..5_u8, 0..9_u64, 0..2_usize), 1..6),
    ) {
        let mut world = World::with_nodes(nodes);
        let ids = ["web", "api"].map(|name| {
            world.create_service_with(name, first, image("v1"), |s| s.update = Some(config.clone()))
        });
        world.settle();
        for (what, n, service) in steps {
            let id = &ids[service];
            match what {
                0 | 1 => world.scale(id, n),
                2 => world.set_image(id, if n % 2 == 0 { "v2" } else { "v3" }),
                3 => force(&mut world, id),
                _ if world.node_ids().len() < 8 => {
                    world.add_node();
                    ids.iter().for_each(|id| spread_anew(&mut world, id));
                }
                _ => {}
            }
            // In a start-first update the old task counts, as in Docker, though it goes: the new one may lie unevenly.
            if config.order == UpdateOrder::StartFirst {
                world.settle();
                ids.iter().for_each(|id| spread_anew(&mut world, id));
            }
            world.settle();
            // What is spread anew is not a matter of the state alone: it comes to an end.
            world.run_for(SECOND * 600);
            for id in &ids {
                prop_assert!(is_even(&world, id), "{what}: {:?}", lie(&world, id));
            }
        }
    }
}
