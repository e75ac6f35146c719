//! Whatever services ask of nodes and whatever becomes of the nodes: every task is where it may be, nothing is held twice, and it
//! comes to rest. (The world checks each commit, and after each turn of the loops that nothing is wanted where it must not be.)
mod common;
use common::*;
use model::*;
use proptest::prelude::*;
use std::sync::Arc;

const CPU: i64 = 1_000_000_000;

/// What a service asks for.
#[derive(Debug, Clone)]
struct Asks {
    replicas: u64,
    global: bool,
    disk: Option<bool>,
    zone: Option<u8>,
    spread: u8,
    max_replicas: u64,
    half_cpus: i64,
    gpus: i64,
    ssds: i64,
    port: bool,
    volume: bool,
    start_first: bool,
}

#[derive(Debug, Clone)]
enum Op {
    Create(Asks),
    Change(usize, Asks),
    Image(usize, u8),
    Disk(usize, bool),
    Zone(usize, u8),
    Cpus(usize, i64),
    Generic(usize, u8, i64),
    Plugin(usize),
    Availability(usize, u8),
    Down(usize),
    Up(usize),
    Add,
    Remove(usize),
    Leader,
    Agents,
    Control,
    Pass(u32),
}

fn asks() -> impl Strategy<Value = Asks> {
    let maybe = |n: f64| prop::bool::weighted(n);
    let place = (prop::option::weighted(0.4, any::<bool>()), prop::option::weighted(0.3, 0..3_u8), 0..3_u8, 0..3_u64);
    let needs = (0..4_i64, 0..3_i64, 0..3_i64);
    (0..6_u64, maybe(0.2), place, needs, maybe(0.2), maybe(0.2), maybe(0.3)).prop_map(
        |(replicas, global, place, needs, port, volume, start_first)| {
            let ((disk, zone, spread, max_replicas), (half_cpus, gpus, ssds)) = (place, needs);
            Asks {
                replicas,
                global,
                disk,
                zone,
                spread,
                max_replicas,
                half_cpus,
                gpus,
                ssds,
                port,
                volume,
                start_first,
            }
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let i = 0..6_usize;
    prop_oneof![
        4 => asks().prop_map(Op::Create),
        3 => (i.clone(), asks()).prop_map(|(i, asks)| Op::Change(i, asks)),
        2 => (i.clone(), 0..3_u8).prop_map(|(i, image)| Op::Image(i, image)),
        3 => (i.clone(), any::<bool>()).prop_map(|(i, ssd)| Op::Disk(i, ssd)),
        2 => (i.clone(), 0..3_u8).prop_map(|(i, zone)| Op::Zone(i, zone)),
        2 => (i.clone(), 0..9_i64).prop_map(|(i, n)| Op::Cpus(i, n)),
        3 => (i.clone(), 0..4_u8, 0..5_i64).prop_map(|(i, gpus, ssds)| Op::Generic(i, gpus, ssds)),
        1 => i.clone().prop_map(Op::Plugin),
        2 => (i.clone(), 0..3_u8).prop_map(|(i, to)| Op::Availability(i, to)),
        1 => i.clone().prop_map(Op::Down),
        1 => i.clone().prop_map(Op::Up),
        1 => Just(Op::Add),
        1 => i.prop_map(Op::Remove),
        1 => Just(Op::Leader),
        8 => Just(Op::Agents),
        8 => Just(Op::Control),
        3 => (0..70_u32).prop_map(Op::Pass),
    ]
}

fn task(asks: &Asks) -> TaskSpec {
    let disk = asks.disk.map(|ssd| if ssd { "node.labels.disk == ssd" } else { "node.labels.disk != ssd" }.to_owned());
    let zone = asks.zone.map(|z| format!("node.labels.zone == z{z}"));
    let preferences = ["node.labels.zone", "node.labels.disk"].into_iter().take(asks.spread.into());
    let placement = Placement {
        constraints: disk.into_iter().chain(zone).map(|c| c.parse().unwrap()).collect(),
        preferences: preferences.map(|p| Preference::Spread(p.into())).collect(),
        max_replicas: asks.max_replicas,
        ..Placement::default()
    };
    let generic = [("gpu", asks.gpus), ("ssd", asks.ssds)].into_iter().filter(|(_, n)| *n > 0);
    let mut task = image("v1");
    task.placement = Some(placement);
    task.resources = Some(ResourceRequirements {
        reservations: Some(Resources { nano_cpus: asks.half_cpus * CPU / 2, memory_bytes: 0 }),
        generic: generic.map(|(kind, amount)| GenericRequest { kind: kind.into(), amount }).collect(),
        ..ResourceRequirements::default()
    });
    if asks.volume {
        task.container_mut().unwrap().mounts = vec![Mount { volume_driver: "nfs".into(), ..Mount::default() }];
    }
    task
}

fn configure(spec: &mut ServiceSpec, asks: &Asks) {
    spec.endpoint = asks.port.then(|| host_port(8080));
    let order = if asks.start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
    spec.update = Some(UpdateConfig { order, ..UpdateConfig::default() });
}

fn pick<T: Clone>(all: &[T], i: usize) -> Option<T> {
    all.get(i % all.len().max(1)).cloned()
}

fn has(node: &mut Node, gpus: u8, ssds: i64) {
    let named = (0..gpus).map(|i| GenericResource::Named { kind: "gpu".into(), value: format!("g{i}") });
    let counted = (ssds > 0).then(|| GenericResource::Discrete { kind: "ssd".into(), amount: ssds });
    node.description.as_mut().unwrap().generic = named.chain(counted).collect();
}

fn change_node(world: &mut World, i: usize, f: impl FnOnce(&mut Node)) {
    if let Some(id) = pick(&world.node_ids(), i) {
        world.change_node(&id, f);
    }
}

fn step(world: &mut World, services: &mut usize, op: Op) {
    let ids: Vec<ServiceId> = world.snapshot().services().map(|s| s.id.clone()).collect();
    match op {
        Op::Create(asks) if ids.len() < 4 => {
            *services += 1;
            world.create_service_with(&format!("s{services}"), asks.replicas, task(&asks), |s| {
                configure(s, &asks);
                if asks.global {
                    s.mode = Mode::Global;
                }
            });
        }
        Op::Create(_) => {}
        Op::Change(i, asks) => {
            let Some(id) = pick(&ids, i) else { return };
            world.change_service(&id, |s| {
                s.task = Arc::new(task(&asks));
                configure(s, &asks);
                if let Mode::Replicated { replicas } = &mut s.mode {
                    *replicas = asks.replicas;
                }
            });
        }
        Op::Image(i, to) => _ = pick(&ids, i).map(|id| world.set_image(&id, ["v2", "crash", "v3"][usize::from(to)])),
        Op::Disk(i, ssd) => change_node(world, i, |n| {
            n.spec.labels.insert("disk".into(), if ssd { "ssd" } else { "hdd" }.into());
        }),
        Op::Zone(i, zone) => change_node(world, i, |n| _ = n.spec.labels.insert("zone".into(), format!("z{zone}"))),
        Op::Cpus(i, n) => change_node(world, i, |node| {
            node.description.as_mut().unwrap().resources.nano_cpus = n * CPU / 2;
        }),
        Op::Generic(i, gpus, ssds) => change_node(world, i, |n| has(n, gpus, ssds)),
        Op::Plugin(i) => change_node(world, i, |n| {
            n.description.as_mut().unwrap().engine.plugins = vec![("Volume".into(), "nfs".into())];
        }),
        Op::Availability(i, to) => {
            let to = [Availability::Active, Availability::Pause, Availability::Drain][usize::from(to)];
            change_node(world, i, |n| n.spec.availability = to);
        }
        Op::Down(i) => _ = pick(&world.node_ids(), i).map(|id| world.node_down(&id)),
        Op::Up(i) => _ = pick(&world.node_ids(), i).map(|id| world.node_up(&id)),
        Op::Add if world.node_ids().len() < 6 => _ = world.add_node(),
        Op::Remove(i) if world.node_ids().len() > 1 => {
            _ = pick(&world.node_ids(), i).map(|id| world.remove_node(&id));
        }
        Op::Add | Op::Remove(_) => {}
        Op::Leader => world.change_leader(),
        Op::Agents => _ = world.agents(),
        Op::Control => world.control(),
        Op::Pass(seconds) => world.pass(SECOND * seconds),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, max_shrink_iters: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_task_is_where_it_may_be(nodes in 1..5_usize, small in any::<bool>(), ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::with_nodes(nodes);
        if small {
            // The smallest that the driver ever takes.
            world.budget = swarmlite_control::Budget { changes: 16, bytes: 64 * 1024 };
        }
        let mut services = 0;
        for op in ops {
            step(&mut world, &mut services, op);
        }
        world.all_is_well = true;
        world.off.clear();
        for id in world.node_ids() {
            world.change_node(&id, |n| {
                n.status.state = NodeState::Ready;
                n.spec.availability = Availability::Active;
            });
        }
        // What a waiting task says of why it waits is not written anew with each task that another service places. A leader
        // that looks at everything does so, and what it places then may change what the ones before it said.
        for _ in 0..4 {
            world.run_for(SECOND * 600);
            world.change_leader();
        }
        world.settle();
    }
}
