//! How long the scheduler takes in memory: `cargo bench -p swarmlite-control`. The figure to reach is 100,000 tasks on 1,000
//! nodes within half a second, linear in tasks.
#![allow(clippy::disallowed_methods)] // a benchmark measures real time

use model::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Snapshot, Store, Transaction};
use swarmlite_control::scheduler::{ClusterView, Request, Spread};
use swarmlite_control::{Budget, Key, expand, reconcile_services};

fn main() {
    println!("{:<58} {:>12} {:>14}", "what", "time", "tasks/s");
    for tasks in [1_000, 10_000, 100_000, 200_000] {
        report(&format!("place {tasks} tasks on 1000 nodes"), tasks, || place(1_000, tasks));
    }
    for tasks in [1_000, 10_000] {
        let store = cluster(1_000, tasks);
        report(&format!("orchestrate {tasks} tasks on 1000 nodes, all commits"), tasks, || orchestrate(&store).0);
    }
    let snapshot = orchestrate(&cluster(1_000, 10_000)).1;
    report("look at a settled service of 10000 tasks", 10_000, || {
        let start = Instant::now();
        let batch = reconcile_services(&snapshot, expand(&snapshot, [&Key::All]), Timestamp(1), Budget::default());
        assert!(batch.transaction.is_empty());
        start.elapsed()
    });
}

/// The best of five.
fn report(what: &str, tasks: usize, f: impl Fn() -> Duration) {
    let best = (0..5).map(|_| f()).min().unwrap_or_default();
    let rate = tasks as f64 / best.as_secs_f64();
    println!("{what:<58} {:>9.2} ms {rate:>14.0}", best.as_secs_f64() * 1e3);
}

fn node(i: usize) -> Node {
    Node {
        id: format!("{i:025}").parse().expect("25 digits"),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: Some(NodeDescription {
            resources: Resources { nano_cpus: 1 << 60, memory_bytes: 1 << 60 },
            ..NodeDescription::default()
        }),
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        manager: None,
    }
}

fn spec() -> TaskSpec {
    let reservations = Some(Resources { nano_cpus: 1_000_000, memory_bytes: 4 << 20 });
    TaskSpec {
        container: ContainerSpec { image: "nginx:1.27".into(), ..ContainerSpec::default() },
        resources: Some(ResourceRequirements { limits: None, reservations }),
        ..TaskSpec::default()
    }
}

/// The scheduler alone, as SwarmKit's benchmark: from the nodes to an assignment for each task.
fn place(nodes: usize, tasks: usize) -> Duration {
    let store = cluster(nodes, 0);
    let (snapshot, spec) = (store.snapshot(), spec());
    let start = Instant::now();
    let mut view = ClusterView::new(&snapshot);
    let placed = view.place(&Request::new(&spec, &[]), &mut Spread::default(), tasks);
    let time = start.elapsed();
    assert_eq!(placed.nodes.len(), tasks);
    time
}

/// Everything from the service to the last committed assignment, without Raft.
fn orchestrate(empty: &Store) -> (Duration, Snapshot) {
    let store: Arc<Store> = empty.snapshot().into();
    let start = Instant::now();
    loop {
        let snapshot: Snapshot = store.snapshot();
        let batch = reconcile_services(&snapshot, expand(&snapshot, [&Key::All]), Timestamp(1), Budget::default());
        if batch.transaction.is_empty() {
            return (start.elapsed(), snapshot);
        }
        store.apply(snapshot.index() + 1, &batch.transaction).expect("nobody else writes");
    }
}

fn cluster(nodes: usize, replicas: usize) -> Store {
    let store = Store::new();
    let mut transaction = Transaction::new(Timestamp(1));
    (0..nodes).for_each(|i| _ = transaction.create(node(i)));
    let service = Service {
        id: "0".repeat(25).parse().expect("25 zeros"),
        meta: Meta::default(),
        spec: ServiceSpec {
            name: "web".parse().expect("a name"),
            labels: Default::default(),
            task: Arc::new(spec()),
            mode: Mode::Replicated { replicas: replicas as u64 },
            update: None,
            rollback: None,
            endpoint: None,
        },
        spec_version: 1,
        previous_spec: None,
        update_status: None,
    };
    transaction.create(service);
    store.apply(1, &transaction).expect("the store is empty");
    store
}
