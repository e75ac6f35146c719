//! Whatever users, nodes, tasks, leaders and clocks do, in any order: the invariants hold at every commit, and once it is
//! quiet everything comes to be as it is wanted.
mod common;
use common::*;
use model::*;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::sync::Arc;
use store::Transaction;

#[derive(Debug, Clone)]
enum Op {
    Create {
        replicas: u64,
        kind: u8,
    },
    Scale {
        service: usize,
        replicas: u64,
    },
    Image {
        service: usize,
        image: u8,
    },
    Configure {
        service: usize,
        parallelism: u64,
        action: u8,
        start_first: bool,
    },
    RemoveService {
        service: usize,
    },
    AddNode,
    NodeDown {
        node: usize,
    },
    NodeUp {
        node: usize,
    },
    Hang {
        node: usize,
    },
    Availability {
        node: usize,
        to: u8,
    },
    RemoveNode {
        node: usize,
    },
    EndTask {
        task: usize,
        badly: bool,
    },
    History {
        limit: i64,
    },
    Agents,
    Control,
    Pass {
        seconds: u64,
    },
    ClockJump {
        back: bool,
    },
    ChangeLeader,
    /// An old leader makes a plan of what it sees...
    Overhear,
    /// ...and it reaches the log only now.
    Belated,
}

fn op() -> impl Strategy<Value = Op> {
    let i = 0..8_usize;
    prop_oneof![
        2 => (0..6_u64, 0..7_u8).prop_map(|(replicas, kind)| Op::Create { replicas, kind }),
        3 => (i.clone(), 0..8_u64).prop_map(|(service, replicas)| Op::Scale { service, replicas }),
        3 => (i.clone(), 0..5_u8).prop_map(|(service, image)| Op::Image { service, image }),
        1 => (i.clone(), 0..4_u64, 0..3_u8, any::<bool>()).prop_map(|(service, parallelism, action, start_first)| {
            Op::Configure { service, parallelism, action, start_first }
        }),
        1 => i.clone().prop_map(|service| Op::RemoveService { service }),
        1 => Just(Op::AddNode),
        2 => i.clone().prop_map(|node| Op::NodeDown { node }),
        2 => i.clone().prop_map(|node| Op::NodeUp { node }),
        1 => i.clone().prop_map(|node| Op::Hang { node }),
        2 => (i.clone(), 0..3_u8).prop_map(|(node, to)| Op::Availability { node, to }),
        1 => i.prop_map(|node| Op::RemoveNode { node }),
        4 => (0..64_usize, any::<bool>()).prop_map(|(task, badly)| Op::EndTask { task, badly }),
        1 => (-1..6_i64).prop_map(|limit| Op::History { limit }),
        12 => Just(Op::Agents),
        12 => Just(Op::Control),
        6 => (0..90_u64).prop_map(|seconds| Op::Pass { seconds }),
        1 => any::<bool>().prop_map(|back| Op::ClockJump { back }),
        3 => Just(Op::ChangeLeader),
        4 => Just(Op::Overhear),
        4 => Just(Op::Belated),
    ]
}

#[derive(Default)]
struct Run {
    services: usize,
    belated: Option<Transaction>,
}

fn pick<T>(all: Vec<T>, i: usize) -> Option<T> {
    let n = all.len();
    all.into_iter().nth(i % n.max(1))
}

fn spec(kind: u8) -> TaskSpec {
    let attempts = RestartPolicy { max_attempts: Some(2), ..RestartPolicy::default() };
    let none = RestartPolicy { condition: Some(RestartCondition::None), ..RestartPolicy::default() };
    let soon = RestartPolicy { delay: Some(std::time::Duration::ZERO), ..RestartPolicy::default() };
    match kind {
        0 => with_reservation(image("v1"), 1_500_000_000, 1 << 30),
        1 => with_policy(image("v1"), attempts),
        2 => with_policy(image("v1"), none),
        3 => with_policy(image("v1"), soon),
        _ => image("v1"),
    }
}

impl Run {
    fn step(&mut self, world: &mut World, op: Op) {
        let services: Vec<ServiceId> = world.snapshot().services().map(|s| s.id.clone()).collect();
        let nodes = world.node_ids();
        match op {
            Op::Create { replicas, kind } => {
                self.services += 1;
                world.create_service_with(&format!("s{}", self.services), replicas, spec(kind), |s| {
                    s.endpoint = (kind == 4).then(|| host_port(8080));
                });
            }
            Op::Scale { service, replicas } => _ = pick(services, service).map(|s| world.scale(&s, replicas)),
            Op::Image { service, image } => {
                let image = ["v1", "v2", "crash", "reject", "done"][usize::from(image)];
                _ = pick(services, service).map(|s| world.set_image(&s, image));
            }
            Op::Configure { service, parallelism, action, start_first } => {
                let actions = [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback];
                let order = if start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
                let failure_action = actions[usize::from(action)];
                let update = UpdateConfig { parallelism, failure_action, order, ..UpdateConfig::default() };
                _ = pick(services, service).map(|s| world.change_service(&s, |s| s.update = Some(update)));
            }
            Op::RemoveService { service } => _ = pick(services, service).map(|s| world.remove_service(&s)),
            Op::AddNode if nodes.len() < 8 => _ = world.add_node(),
            Op::NodeDown { node } => _ = pick(nodes, node).map(|n| world.node_down(&n)),
            Op::NodeUp { node } => _ = pick(nodes, node).map(|n| world.node_up(&n)),
            Op::Hang { node } => _ = pick(nodes, node).map(|n| world.off.insert(n)),
            Op::Availability { node, to } => {
                let to = [Availability::Active, Availability::Pause, Availability::Drain][usize::from(to)];
                _ = pick(nodes, node).map(|n| world.set_availability(&n, to));
            }
            Op::RemoveNode { node } if nodes.len() > 1 => _ = pick(nodes, node).map(|n| world.remove_node(&n)),
            Op::AddNode | Op::RemoveNode { .. } => {}
            Op::EndTask { task, badly } => {
                let to = if badly { TaskState::Failed } else { TaskState::Complete };
                let running =
                    world.snapshot().tasks().filter(|t| t.status.state == TaskState::Running).cloned().collect();
                _ = pick(running, task).map(|t: Arc<Task>| world.set_status(&t.id, to));
            }
            Op::History { limit } => world.set_history_limit(limit),
            Op::Agents => _ = world.agents(),
            Op::Control => world.control(),
            Op::Pass { seconds } => world.pass(SECOND * u32::try_from(seconds).unwrap()),
            Op::ClockJump { back: false } => world.pass(SECOND * 3600),
            Op::ClockJump { back: true } => world.now = Timestamp(world.now.0 - 3_600_000_000_000),
            Op::ChangeLeader => world.change_leader(),
            Op::Overhear => self.belated = Some(world.plan()),
            Op::Belated => self.belated(world),
        }
    }

    /// A plan that is out of date is refused, or harmless. (Two plans for *different* services could together overbook a
    /// node; that the log refuses proposals of a leader that is none any more is not the loops' business.)
    fn belated(&mut self, world: &mut World) {
        let Some(transaction) = self.belated.take() else { return };
        let reserves =
            world.snapshot().services().any(|s| s.spec.task.resources.is_some() || s.spec.endpoint.is_some());
        if !transaction.is_empty() && !reserves {
            let _refused_or_harmless = world.apply(&transaction);
        }
    }
}

fn calm_down(world: &mut World) {
    world.all_is_well = true;
    world.off.clear();
    for node in world.node_ids() {
        world.change_node(&node, |n| {
            n.status.state = NodeState::Ready;
            n.spec.availability = Availability::Active;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        max_shrink_iters: 4000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/world.regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn everything_holds_and_comes_to_rest(nodes in 1..5_usize, ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::with_nodes(nodes);
        world.set_history_limit(5);
        let mut run = Run::default();
        for op in ops {
            run.step(&mut world, op);
        }
        calm_down(&mut world);
        world.settle();
    }

    /// A small budget splits every plan, and changes nothing else.
    #[test]
    fn it_comes_to_rest_in_small_steps(nodes in 1..4_usize, ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::with_nodes(nodes);
        world.budget = swarmlite_control::Budget { changes: 3, bytes: 100_000 };
        let mut run = Run::default();
        for op in ops {
            run.step(&mut world, op);
        }
        calm_down(&mut world);
        world.settle();
    }
}
