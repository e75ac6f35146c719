//! A small world around the pure loops: a store, model agents, and a clock that is a variable. Every commit is checked
//! against the invariants.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use model::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, Conflict, Event, Snapshot, Store, Transaction};
use swarmlite_control::{Budget, Key, affected, expand, reconcile_services};

/// One second.
pub const SECOND: Duration = Duration::from_secs(1);

/// The world.
pub struct World {
    pub store: Store,
    changes: Changes,
    index: u64,
    pub now: Timestamp,
    witness: invariants::Witness,
    /// Nodes whose machine is off or cut off: they do nothing, whatever the store says of them.
    pub off: BTreeSet<NodeId>,
    /// What the loops still have to look at.
    touched: BTreeSet<Key>,
    timers: BTreeMap<ServiceId, Timestamp>,
    pub budget: Budget,
    /// Images run well, whatever they are called.
    pub all_is_well: bool,
    /// Transactions of the control loops that were applied.
    pub commits: usize,
    /// Changes that are only planned, while there is a plan in the making.
    pub planned: Option<Vec<Transaction>>,
    next_id: u64,
}

impl World {
    /// A world with so many ready nodes of 4 CPUs and 8 GiB.
    pub fn with_nodes(count: usize) -> World {
        let store = Store::new();
        let changes = store.changes();
        let mut world = World {
            store,
            changes,
            index: 0,
            now: Timestamp::from_unix(Duration::from_secs(1_000_000)),
            witness: invariants::Witness::new(),
            off: BTreeSet::new(),
            touched: BTreeSet::new(),
            timers: BTreeMap::new(),
            budget: Budget::default(),
            all_is_well: false,
            commits: 0,
            planned: None,
            next_id: 0,
        };
        (0..count).for_each(|_| _ = world.add_node());
        world
    }

    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// An id that nothing has yet.
    pub fn id(&mut self) -> String {
        self.next_id += 1;
        format!("{:025}", self.next_id)
    }

    // --- commits ---

    /// Applies a transaction as the log would, with every check that there is.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<(), Conflict> {
        let bytes = transaction.encode().expect("a transaction fits the log");
        let transaction = Transaction::decode(&bytes).expect("what we encode we decode");
        let before = self.store.snapshot();
        self.index += 1;
        let outcome = self.store.apply(self.index, &transaction);
        let after = self.store.snapshot();
        let mut violations = invariants::check_cas(&before, &transaction, &outcome);
        while let Some(event) = self.changes.try_next() {
            let Event::Commit(commit) = event else { panic!("the test reads every commit") };
            violations.extend(self.witness.observe(&commit));
            violations.extend(invariants::check_commit(&before, &commit, &after));
            self.touched.extend(commit.deltas.iter().flat_map(affected));
        }
        violations.extend(invariants::check_state(&after));
        let lists = || format!("before:{}\nchanges:{}", list(before.tasks().cloned()), list(puts(&transaction)));
        assert!(violations.is_empty(), "{violations:#?}\n{}", lists());
        outcome
    }

    /// Commits what a user or a machine does; while it is only planned, writes it down instead.
    pub fn must(&mut self, f: impl FnOnce(&mut Transaction)) {
        let mut transaction = Transaction::new(self.now);
        f(&mut transaction);
        if let Some(planned) = &mut self.planned {
            planned.push(transaction);
            return;
        }
        self.apply(&transaction).expect("nobody else writes");
    }

    // --- nodes ---

    pub fn add_node(&mut self) -> NodeId {
        let id: NodeId = self.id().parse().unwrap();
        let node = Node {
            id: id.clone(),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            description: Some(NodeDescription {
                platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
                resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30 },
                ..NodeDescription::default()
            }),
            status: NodeStatus { state: NodeState::Ready, takes_tasks_since: self.now, ..NodeStatus::default() },
            manager: None,
        };
        self.must(|t| _ = t.create(node));
        id
    }

    pub fn set_history_limit(&mut self, limit: i64) {
        self.change_cluster(|c| c.spec.task_history_retention_limit = limit);
    }

    /// Changes the cluster object, which is made if there is none.
    pub fn change_cluster(&mut self, f: impl FnOnce(&mut Cluster)) {
        let mut cluster = match self.snapshot().cluster() {
            Some(c) => c.as_ref().clone(),
            None => Cluster {
                id: self.id().parse().unwrap(),
                meta: Meta::default(),
                spec: ClusterSpec::default(),
                root_ca: RootCa { cert_pem: String::new(), key_pem: String::new() },
                join_tokens: JoinTokens { worker: String::new(), manager: String::new() },
                gossip_keys: Vec::new(),
                default_addr_pool: Vec::new(),
                subnet_size: 24,
                data_path_port: 4789,
                removed_nodes: Default::default(),
                security: Default::default(),
            },
        };
        f(&mut cluster);
        self.must(|t| t.changes.push(store::Change::Put(cluster.into())));
    }

    pub fn node_ids(&self) -> Vec<NodeId> {
        self.snapshot().nodes().map(|n| n.id.clone()).collect()
    }

    pub fn change_node(&mut self, id: &NodeId, f: impl FnOnce(&mut Node)) {
        let mut node = self.snapshot().node(id).expect("the node is there").as_ref().clone();
        f(&mut node);
        self.must(|t| _ = t.update(node));
    }

    /// The machine dies, and the leader notices.
    pub fn node_down(&mut self, id: &NodeId) {
        self.off.insert(id.clone());
        self.change_node(id, |n| n.status.state = NodeState::Down);
    }

    pub fn node_up(&mut self, id: &NodeId) {
        self.off.remove(id);
        let now = self.now;
        self.change_node(id, |n| {
            if n.status.state != NodeState::Ready {
                (n.status.state, n.status.takes_tasks_since) = (NodeState::Ready, now);
            }
        });
    }

    pub fn set_availability(&mut self, id: &NodeId, availability: Availability) {
        let now = self.now;
        self.change_node(id, |n| {
            if availability == Availability::Active && n.spec.availability != availability {
                n.status.takes_tasks_since = now;
            }
            n.spec.availability = availability;
        });
    }

    pub fn remove_node(&mut self, id: &NodeId) {
        self.off.insert(id.clone());
        let snapshot = self.snapshot();
        let version = snapshot.node(id).unwrap().meta.version;
        let forever = Timestamp(u64::MAX);
        let cluster = snapshot.cluster().map(|c| {
            let mut cluster = c.as_ref().clone();
            cluster.removed_nodes.insert(id.clone(), forever);
            cluster
        });
        self.must(|t| {
            t.remove(id, version);
            cluster.into_iter().for_each(|c| _ = t.update(c));
        });
    }

    // --- services ---

    pub fn create_service(&mut self, name: &str, replicas: u64, task: TaskSpec) -> ServiceId {
        self.create_service_with(name, replicas, task, |_| {})
    }

    pub fn create_service_with(
        &mut self,
        name: &str,
        replicas: u64,
        task: TaskSpec,
        f: impl FnOnce(&mut ServiceSpec),
    ) -> ServiceId {
        let id: ServiceId = self.id().parse().unwrap();
        let mut spec = ServiceSpec {
            name: name.parse().unwrap(),
            labels: BTreeMap::new(),
            task: Arc::new(task),
            mode: Mode::Replicated { replicas },
            update: None,
            rollback: None,
            endpoint: None,
            cron: None,
            backoff: Default::default(),
        };
        f(&mut spec);
        let first_run = JobRun { iteration: 0, last_execution: self.now };
        let progress = Progress { job: spec.mode.is_job().then_some(first_run), ..Progress::default() };
        let service = Service {
            id: id.clone(),
            meta: Meta::default(),
            spec,
            spec_version: 1,
            previous_spec: None,
            update_status: None,
            progress,
        };
        self.must(|t| _ = t.create(service));
        id
    }

    /// What the API does with `service update`.
    pub fn change_service(&mut self, id: &ServiceId, f: impl FnOnce(&mut ServiceSpec)) {
        let mut service = self.service(id);
        service.previous_spec = Some(service.spec.clone());
        f(&mut service.spec);
        service.spec_version += 1;
        service.update_status = None;
        if let Some(job) = &mut service.progress.job {
            *job = JobRun { iteration: job.iteration + 1, last_execution: self.now };
        }
        self.must(|t| _ = t.update(service));
    }

    /// A change of the service that no user made, or a part of one.
    pub fn edit_service(&mut self, id: &ServiceId, f: impl FnOnce(&mut Service)) {
        let mut service = self.service(id);
        f(&mut service);
        self.must(|t| _ = t.update(service));
    }

    pub fn scale(&mut self, id: &ServiceId, n: u64) {
        self.change_service(id, |s| s.mode = Mode::Replicated { replicas: n });
    }

    pub fn set_image(&mut self, id: &ServiceId, image: &str) {
        self.change_service(id, |s| Arc::make_mut(&mut s.task).container_mut().unwrap().image = image.into());
    }

    pub fn remove_service(&mut self, id: &ServiceId) {
        let version = self.service(id).meta.version;
        self.must(|t| _ = t.remove(id, version));
    }

    pub fn service(&self, id: &ServiceId) -> Service {
        self.snapshot().service(id).expect("the service is there").as_ref().clone()
    }

    pub fn update_state(&self, id: &ServiceId) -> Option<(UpdateState, String)> {
        self.service(id).update_status.map(|u| (u.state, u.message))
    }

    // --- tasks ---

    pub fn tasks(&self, id: &ServiceId) -> Vec<Arc<Task>> {
        self.snapshot().tasks_of_service(id).cloned().collect()
    }

    pub fn wanted(&self, id: &ServiceId) -> Vec<Arc<Task>> {
        self.tasks(id).into_iter().filter(|t| t.is_wanted()).collect()
    }

    pub fn running(&self, id: &ServiceId) -> Vec<Arc<Task>> {
        self.wanted(id).into_iter().filter(|t| t.status.state == TaskState::Running).collect()
    }

    pub fn images(&self, id: &ServiceId) -> Vec<String> {
        self.running(id).iter().map(|t| t.spec.origin().to_owned()).collect()
    }

    pub fn set_status(&mut self, id: &TaskId, state: TaskState) {
        self.set_status_with(id, state, |_| {});
    }

    pub fn set_status_with(&mut self, id: &TaskId, state: TaskState, f: impl FnOnce(&mut TaskStatus)) {
        let mut task = self.snapshot().task(id).expect("the task is there").as_ref().clone();
        move_to(&mut task, state, self.now);
        f(&mut task.status);
        self.must(|t| _ = t.update(task));
    }

    /// Every agent takes each of its tasks one step on, in one batch of statuses.
    pub fn agents(&mut self) -> bool {
        let snapshot = self.snapshot();
        let mut transaction = Transaction::new(self.now);
        for node in snapshot.nodes().filter(|n| n.status.state == NodeState::Ready && !self.off.contains(&n.id)) {
            for task in snapshot.tasks_on_node(&node.id) {
                if let Some(state) = next_state(task, self.now, self.all_is_well) {
                    let mut task = task.as_ref().clone();
                    move_to(&mut task, state, self.now);
                    transaction.update(task);
                }
            }
        }
        let any = !transaction.is_empty();
        if any {
            self.apply(&transaction).expect("nobody else writes");
        }
        any
    }

    // --- the loops ---

    /// Runs the loops until they have nothing to do now, as the driver does.
    pub fn control(&mut self) {
        for _ in 0..1_000 {
            let now = self.now;
            let rung: Vec<_> = self.timers.iter().filter(|(_, at)| **at <= now).map(|(s, _)| s.clone()).collect();
            let touched = std::mem::take(&mut self.touched);
            let mut services = expand(&self.snapshot(), &touched);
            rung.iter().for_each(|s| _ = self.timers.remove(s));
            services.extend(rung);
            if services.is_empty() && touched.is_empty() {
                return self.check_places();
            }
            let batch = reconcile_services(&self.snapshot(), services.clone(), self.now, self.budget);
            services.iter().for_each(|s| _ = self.timers.remove(s));
            let idle = batch.transaction.is_empty();
            assert!(!idle || batch.wakes.values().all(|at| *at > now), "an idle loop asks to be run again at once");
            self.timers.extend(batch.wakes);
            if !idle {
                self.apply(&batch.transaction).expect("nobody else writes");
                self.commits += 1;
            }
        }
        panic!("the loops do not come to an end");
    }

    /// The same, and sees that a leader that looks at everything would do no more.
    pub fn control_to_the_end(&mut self) {
        self.control();
        let more = self.plan();
        assert!(more.is_empty() || uses_a_join(&more), "what the changes did not show: {more:#?}");
    }

    /// Once the loops have had their turn, nothing is wanted where it must not be.
    fn check_places(&self) {
        let unsuited = invariants::check_suited(&self.snapshot(), self.now, Duration::ZERO);
        assert!(unsuited.is_empty(), "{unsuited:#?}");
        let end_of_time = Timestamp(u64::MAX);
        let drained = invariants::check_drained(&self.snapshot(), end_of_time, Duration::ZERO, &BTreeMap::new());
        assert!(drained.is_empty(), "{drained:#?}");
        let too_many = too_many(&self.snapshot());
        assert!(too_many.is_empty(), "{too_many:#?}");
    }

    /// A new leader: it knows nothing but the store.
    pub fn change_leader(&mut self) {
        self.timers.clear();
        self.touched = [Key::All].into();
    }

    /// What a leader would propose that saw everything as it is now.
    pub fn plan(&self) -> Transaction {
        swarmlite_control::reconcile(&self.snapshot(), &Key::All, self.now).transaction
    }

    /// Runs loops and agents in turn until nothing moves, without passing time.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            self.control();
            if !self.agents() {
                return;
            }
        }
        panic!("the world does not come to rest: {:#?}", self.snapshot().tasks().collect::<Vec<_>>());
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    /// Lets time pass to each next timer and the world run, until `time` is over.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now.plus(time);
        loop {
            self.run();
            match self.next_event().filter(|at| *at <= end) {
                Some(at) => self.now = at.max(self.now),
                None => break,
            }
        }
        self.now = end;
        self.run();
    }

    /// When the loops or an agent have something to do next, though nothing changes.
    pub fn next_event(&self) -> Option<Timestamp> {
        let snapshot = self.snapshot();
        let on_good_nodes = |t: &&Arc<Task>| {
            let node = t.node_id.as_ref().and_then(|n| snapshot.node(n));
            node.is_some_and(|n| n.status.state == NodeState::Ready && !self.off.contains(&n.id))
        };
        let agents =
            snapshot.tasks().filter(on_good_nodes).filter_map(|t| next_event(t)).filter(|at| *at > self.now).min();
        self.timers.values().copied().min().into_iter().chain(agents).min()
    }

    /// Follows the timers until everything is as it is wanted.
    pub fn settle(&mut self) {
        for _ in 0..2_000 {
            self.run();
            let Err(unsettled) = invariants::settled(&self.snapshot()) else { break };
            if unsettled.iter().all(|u| u.explained) {
                break;
            }
            match self.next_event() {
                Some(at) => self.now = at.max(self.now),
                None => panic!("nothing moves any more, and yet: {unsettled:#?}"),
            }
        }
        if let Err(unsettled) = invariants::settled(&self.snapshot()) {
            assert!(unsettled.iter().all(|u| u.explained), "{unsettled:#?}");
        }
        let history = invariants::check_history(&self.snapshot());
        assert!(history.is_empty(), "{history:#?}");
        let kept = invariants::check_pruned(&self.snapshot());
        assert!(kept.is_empty(), "{kept:#?}");
        let left = self.plan();
        assert!(left.is_empty() || uses_a_join(&left), "a new leader would still do something: {left:#?}");
    }
}

/// Whether a node that joined is of use to a service depends on everything else that runs. It is asked when the node joins and
/// when the service changes; a new leader asks once more, and may find that by now it is.
fn uses_a_join(transaction: &Transaction) -> bool {
    let moves =
        |s: &Service| s.progress.rebalance.as_ref().is_some_and(|r| r.because_of.is_some() && r.moving.is_some());
    let of_moving = |id: &ServiceId| {
        transaction
            .changes
            .iter()
            .any(|c| matches!(c, store::Change::Put(store::Object::Service(s)) if s.id == *id && moves(s)))
    };
    !transaction.is_empty()
        && transaction.changes.iter().all(|c| match c {
            store::Change::Put(store::Object::Service(s)) => moves(s),
            store::Change::Put(store::Object::Task(t)) => of_moving(&t.service_id),
            _ => false,
        })
}

/// What is wanted beyond what the services ask for: slots, not tasks (of which a start-first update has two in one).
fn too_many(snapshot: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    for service in snapshot.services() {
        let wanted: Vec<_> = snapshot.tasks_of_service(&service.id).filter(|t| t.is_wanted()).collect();
        let slots: BTreeSet<SlotKey> = wanted.iter().map(|t| t.slot_key()).collect();
        let goes_on: BTreeSet<SlotKey> =
            wanted.iter().filter(|t| !t.status.state.is_terminal()).map(|t| t.slot_key()).collect();
        let (have, most) = match service.spec.mode {
            Mode::Replicated { replicas } => (slots.len(), replicas),
            Mode::Global => (slots.len(), snapshot.nodes().len() as u64),
            Mode::ReplicatedJob { max_concurrent, total_completions } if service.spec.cron.is_none() => {
                let at_once = if max_concurrent == 0 { total_completions } else { max_concurrent };
                (goes_on.len(), at_once.min(total_completions))
            }
            Mode::GlobalJob if service.spec.cron.is_none() => (goes_on.len(), snapshot.nodes().len() as u64),
            // Runs of a schedule may overlap, and begin with what the service said then.
            Mode::ReplicatedJob { .. } | Mode::GlobalJob => continue,
        };
        if have as u64 > most {
            found.push(format!("{have} places of {} are filled, of {most}", service.spec.name));
        }
    }
    found
}

fn puts(transaction: &Transaction) -> impl Iterator<Item = Arc<Task>> {
    transaction.changes.iter().filter_map(|c| match c {
        store::Change::Put(store::Object::Task(t)) => Some(t.clone()),
        _ => None,
    })
}

/// Tasks, a line each.
pub fn list(tasks: impl Iterator<Item = Arc<Task>>) -> String {
    let short = |id: &str| format!("..{}", &id[21..]);
    let line = |t: Arc<Task>| {
        let node = t.node_id.as_ref().map_or("-".into(), |n| short(n.as_str()));
        let (id, service) = (short(t.id.as_str()), short(t.service_id.as_str()));
        let (state, wanted) = (t.status.state, t.desired);
        format!("\n  {id} service {service} slot {} v{} on {node}: {state}, {wanted} wanted", t.slot, t.spec_version)
    };
    tasks.map(line).collect()
}

/// A task spec of this image. What images do: `crash` fails as soon as it runs, `reject` cannot be prepared, `done` ends
/// well, `slow` takes its time to be prepared, `sick` never becomes healthy, anything else runs. `crash/5s`, `done/5s` and
/// `slow/5s` do it after so long.
pub fn image(name: &str) -> TaskSpec {
    TaskSpec { runtime: ContainerSpec { image: name.into(), ..ContainerSpec::default() }.into(), ..TaskSpec::default() }
}

pub fn with_policy(mut spec: TaskSpec, policy: RestartPolicy) -> TaskSpec {
    spec.restart = Some(policy);
    spec
}

pub fn with_reservation(mut spec: TaskSpec, nano_cpus: i64, memory_bytes: i64) -> TaskSpec {
    let reservations = Some(Resources { nano_cpus, memory_bytes });
    spec.resources = Some(ResourceRequirements { limits: None, reservations, ..ResourceRequirements::default() });
    spec
}

pub fn host_port(port: u16) -> EndpointSpec {
    let port = PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port: port,
        mode: PublishMode::Host,
    };
    EndpointSpec { mode: EndpointMode::Vip, ports: vec![port] }
}

fn move_to(task: &mut Task, state: TaskState, now: Timestamp) {
    task.status.state = state;
    task.status.at = now;
    if state == TaskState::Running {
        task.status.running_at = Some(now);
    }
}

/// What an image does, and how long after it began to run (or to be prepared): `done/5s` ends well after five seconds.
fn behaviour(image: &str) -> (&str, Duration) {
    let Some((what, seconds)) = image.split_once('/') else { return (image, Duration::ZERO) };
    let seconds = seconds.trim_end_matches('s').parse().unwrap_or(0);
    (what, Duration::from_secs(seconds))
}

/// When the agent of a task has something to do though nothing changes.
fn next_event(task: &Task) -> Option<Timestamp> {
    let (what, after) = behaviour(task.spec.origin());
    let waits = match task.status.state {
        TaskState::Running => matches!(what, "crash" | "done"),
        TaskState::Preparing => what == "slow",
        _ => false,
    };
    waits.then(|| task.status.at.plus(after))
}

fn next_state(task: &Task, now: Timestamp, all_is_well: bool) -> Option<TaskState> {
    use TaskState::{Accepted, Assigned, Complete, Failed, Preparing, Ready, Rejected, Running, Shutdown, Starting};
    let state = task.status.state;
    if state.is_terminal() {
        return None;
    }
    if task.desired > Complete {
        return Some(Shutdown);
    }
    if !all_is_well && next_event(task).is_some_and(|at| now < at) {
        return None;
    }
    let (image, _) = if all_is_well { ("", Duration::ZERO) } else { behaviour(task.spec.origin()) };
    match state {
        Assigned => Some(Accepted),
        Accepted => Some(Preparing),
        Preparing if image == "reject" => Some(Rejected),
        Preparing => Some(Ready),
        Ready if task.desired >= Running => Some(Starting),
        Starting if image == "sick" => None,
        Starting => Some(Running),
        Running if image == "crash" => Some(Failed),
        Running if image == "done" || all_is_well && task.job_iteration.is_some() => Some(Complete),
        _ => None,
    }
}
