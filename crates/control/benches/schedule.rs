//! How long the scheduler takes in memory: `cargo bench -p swarmlite-control`. The figures to reach are 100,000 tasks on 1,000
//! nodes within half a second, linear in tasks, and 100 lost nodes of 1,000 with 20,000 tasks replanned within two seconds; each
//! figure is from the change to the last commit, with each plan encoded and decoded as for the log.
#![allow(clippy::disallowed_methods)] // a benchmark measures real time

use model::*;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Event, Snapshot, Store, Transaction};
use swarmlite_control::scheduler::{ClusterView, Request, Spread};
use swarmlite_control::{Budget, Key, affected, expand, reconcile_services};

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
    // A change of one task costs a look at its whole service.
    for tasks in [1_000, 10_000] {
        let running = running(&orchestrate(&cluster(1_000, tasks)).1);
        report(&format!("one of {tasks} tasks of a service runs"), 1, || one_runs(&running));
        report(&format!("one of {tasks} tasks of a service failed"), 1, || one_failed(&running));
    }
    large();
}

/// One of the tasks says that it runs, as after each step of an update: nothing is to be done.
fn one_runs(running: &Snapshot) -> Duration {
    let store: Arc<Store> = running.clone().into();
    let mut task = running.tasks().next().expect("there are tasks").as_ref().clone();
    task.status.state = TaskState::Starting;
    store
        .apply(running.index() + 1, &*Transaction::new(Timestamp(2)).update(task.clone()))
        .expect("nobody else writes");
    task.meta = store.snapshot().task(&task.id).expect("it is there").meta.clone();
    task.status.state = TaskState::Running;
    commit(&store, Transaction::new(Timestamp(2)).update(task))
}

/// What one change costs in a cluster of 1,000 nodes and 100,000 tasks, and what it costs to lose a zone.
fn large() {
    let running = running(&orchestrate(&services(1_000, 1_000, 100)).1);
    assert_eq!(running.tasks().len(), 100_000);
    report("1000 nodes, 100000 tasks: one task failed", 1, || one_failed(&running));
    report("1000 nodes, 100000 tasks: one service scaled by one", 1, || one_scaled(&running));
    report("1000 nodes, 100000 tasks: one node of 100 tasks lost", 100, || lost(&running, 1));
    let few = self::running(&orchestrate(&services(1_000, 200, 100)).1);
    report("1000 nodes, 20000 tasks: 100 nodes of 2000 tasks lost", 2_000, || lost(&few, 100));
    let many = self::running(&orchestrate(&services(1_000, 1_000, 200)).1);
    report("1000 nodes, 200000 tasks: 100 nodes of 20000 tasks lost", 20_000, || lost(&many, 100));
}

/// One of the tasks ends badly: until its successor is committed.
fn one_failed(running: &Snapshot) -> Duration {
    let store: Arc<Store> = running.clone().into();
    let mut task = running.tasks().next().expect("there are tasks").as_ref().clone();
    task.status.state = TaskState::Failed;
    commit(&store, Transaction::new(Timestamp(2)).update(task))
}

fn one_scaled(running: &Snapshot) -> Duration {
    let store: Arc<Store> = running.clone().into();
    let mut service = running.services().next().expect("there are services").as_ref().clone();
    service.spec.mode = Mode::Replicated { replicas: service.spec.replicas().unwrap_or(0) + 1 };
    commit(&store, Transaction::new(Timestamp(2)).update(service))
}

/// The first so many nodes are down: until all that ran there is assigned elsewhere.
fn lost(running: &Snapshot, nodes: usize) -> Duration {
    let store: Arc<Store> = running.clone().into();
    let mut transaction = Transaction::new(Timestamp(2));
    for node in running.nodes().take(nodes) {
        let mut node = node.as_ref().clone();
        node.status.state = NodeState::Down;
        transaction.update(node);
    }
    let time = commit(&store, &transaction);
    let snapshot = store.snapshot();
    let placed = snapshot.tasks().filter(|t| t.is_wanted()).filter(|t| {
        let node = t.node_id.as_ref().and_then(|id| snapshot.node(id));
        node.is_some_and(|n| n.status.state == NodeState::Ready)
    });
    assert_eq!(placed.count(), running.tasks().len());
    time
}

/// Commits a change, and then does what the driver does until the loops have nothing more to do.
fn commit(store: &Store, transaction: &Transaction) -> Duration {
    let mut changes = store.changes();
    let start = Instant::now();
    store.apply(store.snapshot().index() + 1, transaction).expect("nobody else writes");
    let mut due: VecDeque<ServiceId> = VecDeque::new();
    loop {
        let snapshot = store.snapshot();
        let mut touched = BTreeSet::new();
        while let Some(Event::Commit(commit)) = changes.try_next() {
            touched.extend(commit.deltas.iter().flat_map(affected));
        }
        let waiting: BTreeSet<ServiceId> = due.iter().cloned().collect();
        due.extend(expand(&snapshot, &touched).into_iter().filter(|s| !waiting.contains(s)));
        let services: Vec<ServiceId> = due.drain(..due.len().min(64)).collect();
        if services.is_empty() {
            return start.elapsed();
        }
        let batch = reconcile_services(&snapshot, services, Timestamp(3), Budget::default());
        due.extend(batch.wakes.into_iter().filter(|(_, at)| *at <= Timestamp(3)).map(|(id, _)| id));
        if !batch.transaction.is_empty() {
            let bytes = batch.transaction.encode().expect("a plan fits the log");
            let transaction = Transaction::decode(&bytes).expect("what we encode we decode");
            store.apply(snapshot.index() + 1, &transaction).expect("nobody else writes");
        }
    }
}

/// All tasks run.
fn running(snapshot: &Snapshot) -> Snapshot {
    let store: Arc<Store> = snapshot.clone().into();
    let mut transaction = Transaction::new(Timestamp(1));
    for task in snapshot.tasks() {
        let mut task = task.as_ref().clone();
        task.desired = TaskState::Running;
        task.status.state = TaskState::Running;
        task.status.running_at = Some(Timestamp(1));
        transaction.changes.push(store::Change::Put(task.into()));
    }
    store.apply(snapshot.index() + 1, &transaction).expect("nobody else writes");
    store.snapshot()
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
        runtime: ContainerSpec { image: "nginx:1.27".into(), ..ContainerSpec::default() }.into(),
        resources: Some(ResourceRequirements { limits: None, reservations, ..ResourceRequirements::default() }),
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
    assert_eq!(placed.seats.len(), tasks);
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
    services(nodes, 1, replicas)
}

/// So many services of as many replicas each.
fn services(nodes: usize, services: usize, replicas: usize) -> Store {
    let store = Store::new();
    let mut transaction = Transaction::new(Timestamp(1));
    (0..nodes).for_each(|i| _ = transaction.create(node(i)));
    for i in 0..services {
        let service = Service {
            id: format!("{i:025}").parse().expect("25 digits"),
            meta: Meta::default(),
            spec: ServiceSpec {
                name: format!("web{i}").parse().expect("a name"),
                labels: Default::default(),
                task: Arc::new(spec()),
                mode: Mode::Replicated { replicas: replicas as u64 },
                update: None,
                rollback: None,
                endpoint: None,
                cron: None,
                backoff: Default::default(),
            },
            spec_version: 1,
            previous_spec: None,
            update_status: None,
            progress: Default::default(),
        };
        transaction.create(service);
    }
    store.apply(1, &transaction).expect("the store is empty");
    store
}
