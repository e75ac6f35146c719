//! What the store says that tasks hold of nodes follows from the tasks alone, whatever was put and removed in which order.

mod sample;

use model::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use swarmlite_store::*;

/// Few ids, slots, nodes and amounts, so that tasks meet each other.
#[derive(Debug, Clone)]
struct Made {
    id: char,
    service: char,
    slot: u64,
    global: bool,
    node: Option<char>,
    wanted: bool,
    over: bool,
    cpus: i64,
    port: u16,
    gpus: u8,
}

fn made() -> impl Strategy<Value = Made> {
    let of = |ids: &'static str| prop::sample::select(ids.chars().collect::<Vec<_>>());
    let place = (of("abcdefgh"), of("xy"), 0..3_u64, any::<bool>(), prop::option::weighted(0.8, of("mn")));
    let state = (prop::bool::weighted(0.6), prop::bool::weighted(0.2));
    (place, state, (-1..4_i64, 0..3_u16, 0..3_u8)).prop_map(|(place, (wanted, over), (cpus, port, gpus))| {
        let (id, service, slot, global, node) = place;
        Made { id, service, slot, global: global && slot == 0, node, wanted, over, cpus, port, gpus }
    })
}

fn task(m: &Made) -> Task {
    let mut task = sample::task();
    task.id = sample::id(m.id);
    task.service_id = sample::id(m.service);
    task.slot = m.slot;
    task.node_id = m.node.map(sample::id);
    task.for_node = task.node_id.clone().filter(|_| m.global);
    task.desired = if m.wanted { TaskState::Running } else { TaskState::Shutdown };
    task.status.state = if m.over { TaskState::Failed } else { TaskState::Running };
    let spec = Arc::make_mut(&mut task.spec);
    let reservations = Resources { nano_cpus: m.cpus, memory_bytes: m.cpus * 7 };
    spec.resources = Some(ResourceRequirements { reservations: Some(reservations), ..ResourceRequirements::default() });
    task.host_ports[0].published_port = m.port;
    task.generic = match m.gpus {
        0 => Vec::new(),
        1 => vec![GenericResource::Discrete { kind: "ssd".into(), amount: m.cpus }],
        _ => vec![GenericResource::Named { kind: "gpu".into(), value: format!("g{}", m.port) }],
    };
    task
}

/// From all tasks anew.
fn naive(snapshot: &Snapshot, node: &NodeId) -> NodeUsage {
    let mut slots: BTreeMap<_, Vec<&Task>> = BTreeMap::new();
    for task in snapshot.tasks().filter(|t| t.node_id.as_ref() == Some(node)) {
        slots.entry((&task.service_id, task.slot_key())).or_default().push(task);
    }
    let mut usage = NodeUsage::default();
    slots.into_values().for_each(|tasks| usage.add(&Holding::of(tasks)));
    usage
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn usage_follows_from_the_tasks(log in prop::collection::vec((made(), prop::bool::weighted(0.8)), 1..60)) {
        let store = Store::new();
        for (i, (made, put)) in log.iter().enumerate() {
            let task = task(made);
            let change = if *put { Change::Put(task.into()) } else { Change::Remove((&task.id).into()) };
            let transaction = Transaction { changes: vec![change], ..Transaction::default() };
            store.apply(i as u64 + 1, &transaction).unwrap();
            let snapshot = store.snapshot();
            for node in ['m', 'n'].map(sample::id) {
                let usage = snapshot.usage_of(&node).map_or_else(NodeUsage::default, |u| u.as_ref().clone());
                prop_assert_eq!(&usage, &naive(&snapshot, &node));
                prop_assert!(snapshot.usage_of(&node).is_none_or(|u| !u.is_empty()), "nothing is kept for nothing");
            }
        }
        let restored = Store::new();
        restored.restore(&Store::encode(&store.snapshot())).unwrap();
        let (restored, kept) = (restored.snapshot(), store.snapshot());
        for node in ['m', 'n'].map(sample::id) {
            prop_assert_eq!(restored.usage_of(&node), kept.usage_of(&node));
        }
    }
}

#[test]
fn a_slot_holds_what_runs_side_by_side_or_the_most_of_what_runs_in_turn() {
    let of = |cpus: i64, wanted: bool| Made {
        id: 'a',
        service: 'x',
        slot: 1,
        global: false,
        node: Some('m'),
        wanted,
        over: false,
        cpus,
        port: 1,
        gpus: 0,
    };
    // (what is wanted, what is being stopped, CPU that is held)
    for (wanted, stopping, held) in
        [(&[2][..], &[][..], 2), (&[2, 3], &[], 5), (&[2], &[3, 1], 3), (&[], &[3, 1], 3), (&[2, 3], &[4], 5)]
    {
        let tasks = wanted.iter().map(|c| task(&of(*c, true))).chain(stopping.iter().map(|c| task(&of(*c, false))));
        let tasks: Vec<Task> = tasks.collect();
        let holding = Holding::of(&tasks);
        assert_eq!((holding.resources.nano_cpus, holding.active), (held, wanted.len()), "{wanted:?} {stopping:?}");
        assert_eq!(holding.ports.len(), 1);
        let mut usage = NodeUsage::default();
        usage.add(&holding);
        assert_eq!(usage.left_of(Resources { nano_cpus: 4, memory_bytes: 0 }).nano_cpus, 4 - held);
        usage.subtract(&holding);
        assert!(usage.is_empty());
    }
}
