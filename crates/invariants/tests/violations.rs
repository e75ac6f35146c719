//! Every invariant notices what it is there for. (That none cries wolf is shown by the simulation and by the control loops'
//! own properties.)

use model::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Commit, Event, Object, Snapshot, Store, Transaction};
use swarmlite_invariants::*;

struct Lab {
    store: Store,
    index: u64,
}

fn id<T: std::str::FromStr<Err = InvalidId>>(c: char) -> T {
    c.to_string().repeat(25).parse().unwrap()
}

impl Lab {
    /// Two nodes `n` and `m` of one CPU, and a service `s` of one replica.
    fn new() -> Lab {
        let mut lab = Lab { store: Store::new(), index: 0 };
        lab.put(node('n'));
        lab.put(node('m'));
        lab.put(service());
        lab
    }

    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    fn commit(&mut self, changes: Vec<Change>) -> (Snapshot, Arc<Commit>, Snapshot) {
        let (before, mut stream) = (self.snapshot(), self.store.changes());
        self.index += 1;
        let at = Timestamp(self.index);
        self.store.apply(self.index, &Transaction { at, checks: Vec::new(), changes }).unwrap();
        let Some(Event::Commit(commit)) = stream.try_next() else { panic!("nothing was changed") };
        (before, commit, self.snapshot())
    }

    fn put(&mut self, object: impl Into<Object>) -> Vec<&'static str> {
        self.change(vec![Change::Put(object.into())])
    }

    /// The numbers of the invariants that the commit broke.
    fn change(&mut self, changes: Vec<Change>) -> Vec<&'static str> {
        let (before, commit, after) = self.commit(changes);
        let mut broken: Vec<_> = check_commit(&before, &commit, &after)
            .into_iter()
            .chain(check_state(&after))
            .map(|v| v.invariant)
            .collect();
        broken.dedup();
        broken
    }

    fn unsettled(&self) -> Vec<String> {
        settled(&self.snapshot()).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }
}

fn node(c: char) -> Node {
    Node {
        id: id(c),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: Some(NodeDescription {
            resources: Resources { nano_cpus: 1_000_000_000, memory_bytes: 1 << 30 },
            ..NodeDescription::default()
        }),
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        manager: None,
    }
}

fn service() -> Service {
    Service {
        id: id('s'),
        meta: Meta::default(),
        spec: ServiceSpec {
            name: "web".parse().unwrap(),
            labels: BTreeMap::new(),
            task: Arc::new(TaskSpec::default()),
            mode: Mode::Replicated { replicas: 1 },
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
    }
}

fn task(c: char, state: TaskState) -> Task {
    Task {
        id: id(c),
        meta: Meta::default(),
        service_id: id('s'),
        service_name: "web".parse().unwrap(),
        slot: 1,
        spec: Arc::new(TaskSpec::default()),
        spec_version: 1,
        host_ports: Vec::new(),
        node_id: (state >= TaskState::Assigned).then(|| id('n')),
        desired: TaskState::Running,
        run_after: None,
        status: TaskStatus { state, ..TaskStatus::default() },
        for_node: None,
        job_iteration: None,
        failures: 0,
        inherited: None,
        generic: Vec::new(),
    }
}

fn with(mut task: Task, f: impl FnOnce(&mut Task)) -> Task {
    f(&mut task);
    task
}

#[test]
fn the_life_of_a_task_breaks_nothing() {
    use TaskState::{Assigned, Complete, Failed, Orphaned, Pending, Preparing, Running};
    for life in [
        vec![Pending, Assigned, Preparing, Running, Failed],
        vec![Assigned, Running, Complete],
        vec![Assigned, Failed, Orphaned],
    ] {
        let mut lab = Lab::new();
        for state in life {
            assert!(lab.put(task('t', state)).is_empty(), "{state}");
        }
        assert!(lab.change(vec![Change::Remove(id::<TaskId>('t').into())]).is_empty());
    }
}

#[test]
fn steps_that_nobody_may_take() {
    use TaskState::{Accepted, Assigned, Failed, Pending, Preparing, Running, Shutdown};
    for (from, to, broken) in [
        (None, Accepted, "S13"),
        (Some(Pending), Running, "S13"),
        (Some(Running), Preparing, "S14"),
        (Some(Shutdown), Failed, "S14"),
        (Some(Assigned), Pending, "S12"),
    ] {
        let mut lab = Lab::new();
        from.map(|s| lab.put(task('t', s)));
        assert!(lab.put(task('t', to)).contains(&broken), "{from:?} -> {to}");
    }
}

#[test]
fn a_live_task_is_not_deleted() {
    let mut lab = Lab::new();
    lab.put(task('t', TaskState::Running));
    let remove = || vec![Change::Remove(id::<TaskId>('t').into())];
    assert_eq!(lab.change(remove()), ["S13"]);
    let mut lab = Lab::new();
    lab.put(task('t', TaskState::Running));
    let mut down = node('n');
    down.status.state = NodeState::Down;
    lab.put(down);
    assert!(lab.change(remove()).is_empty(), "nobody could say that it stopped");
}

#[test]
fn what_a_task_is_never_changes() {
    let changes: [fn(&mut Task); 6] = [
        |t| t.slot = 2,
        |t| t.service_id = id('x'),
        |t| t.spec_version = 2,
        |t| t.node_id = Some(id('m')),
        |t| Arc::make_mut(&mut t.spec).force_update = 1,
        |t| t.host_ports = ports(),
    ];
    for change in changes {
        let mut lab = Lab::new();
        lab.put(task('t', TaskState::Running));
        assert!(lab.put(with(task('t', TaskState::Running), change)).contains(&"S12"));
    }
    let mut lab = Lab::new();
    lab.put(with(task('t', TaskState::Running), |t| t.desired = TaskState::Shutdown));
    assert_eq!(lab.put(task('t', TaskState::Running)), ["S14"], "the desired state only rises");
}

#[test]
fn states_and_nodes_belong_together() {
    let mut lab = Lab::new();
    assert!(lab.put(with(task('t', TaskState::Assigned), |t| t.node_id = None)).contains(&"S15"));
    let mut lab = Lab::new();
    assert!(lab.put(with(task('t', TaskState::Pending), |t| t.node_id = Some(id('n')))).contains(&"S15"));
    let mut lab = Lab::new();
    assert!(lab.put(task('t', TaskState::Remove)).contains(&"S16"));
    let mut lab = Lab::new();
    assert!(lab.put(with(task('t', TaskState::Pending), |t| t.desired = TaskState::Failed)).contains(&"S16"));
}

#[test]
fn a_slot_has_one_wanted_task_or_two_in_a_start_first_update() {
    let mut lab = Lab::new();
    lab.put(task('t', TaskState::Running));
    assert_eq!(lab.put(task('u', TaskState::Pending)), ["S17"]);
    let outdated = |t: &mut Task| t.spec_version = 0;
    let mut lab = Lab::new();
    lab.put(with(task('t', TaskState::Running), outdated));
    assert_eq!(lab.put(task('u', TaskState::Pending)), ["S17"], "stop-first");
    let mut lab = Lab::new();
    let mut start_first = service();
    start_first.spec.update = Some(UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() });
    lab.put(start_first);
    lab.put(with(task('t', TaskState::Running), outdated));
    assert!(lab.put(task('u', TaskState::Pending)).is_empty());
    assert_eq!(lab.put(task('v', TaskState::Pending)), ["S17"], "three");
}

fn ports() -> Vec<PortConfig> {
    vec![PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port: 80,
        mode: PublishMode::Host,
    }]
}

fn reserving(t: &mut Task) {
    let reservations = Some(Resources { nano_cpus: 600_000_000, memory_bytes: 0 });
    Arc::make_mut(&mut t.spec).resources =
        Some(ResourceRequirements { limits: None, reservations, ..ResourceRequirements::default() });
}

#[test]
fn nodes_are_not_overbooked() {
    for (what, broken) in [(reserving as fn(&mut Task), "S19"), (|t: &mut Task| t.host_ports = ports(), "S20")] {
        let second = |t: &mut Task| {
            what(t);
            t.slot = 2;
        };
        let mut lab = Lab::new();
        assert!(lab.put(with(task('t', TaskState::Assigned), what)).is_empty());
        assert_eq!(lab.put(with(task('u', TaskState::Assigned), second)), [broken]);
        // On another node, or when the first is over, it fits.
        let mut lab = Lab::new();
        lab.put(with(task('t', TaskState::Assigned), what));
        let elsewhere = with(task('u', TaskState::Assigned), |t| (second(t), t.node_id = Some(id('m'))).0);
        assert!(lab.put(elsewhere).is_empty());
        lab.put(with(task('t', TaskState::Failed), what));
        let mut third = with(task('v', TaskState::Assigned), second);
        third.slot = 3;
        assert!(lab.put(third).is_empty());
        // One that is being stopped holds its share, but for its own successor.
        let mut lab = Lab::new();
        let stopping = |t: &mut Task| (what(t), t.desired = TaskState::Shutdown).0;
        lab.put(with(task('t', TaskState::Assigned), what));
        lab.put(with(task('t', TaskState::Assigned), stopping));
        assert!(lab.put(with(task('w', TaskState::Assigned), what)).is_empty());
        assert_eq!(lab.put(with(task('u', TaskState::Assigned), second)), [broken]);
    }
}

#[test]
fn tasks_are_placed_on_nodes_that_take_them_and_leave_those_that_are_drained() {
    let drained = || {
        let mut node = node('n');
        node.spec.availability = Availability::Drain;
        node
    };
    let mut lab = Lab::new();
    lab.put(drained());
    assert_eq!(lab.put(task('t', TaskState::Assigned)), ["S18"]);
    let mut lab = Lab::new();
    lab.put(task('t', TaskState::Assigned));
    lab.put(drained());
    let late =
        |lab: &Lab, now| check_drained(&lab.snapshot(), Timestamp(now), Duration::from_nanos(100), &BTreeMap::new());
    assert!(late(&lab, 50).is_empty(), "not yet");
    assert_eq!(late(&lab, 500).len(), 1);
    lab.change(vec![Change::Remove(id::<NodeId>('n').into())]);
    let removed = [(id('n'), Timestamp(1_000))].into();
    let check = |now| check_drained(&lab.snapshot(), Timestamp(now), Duration::from_nanos(100), &removed).len();
    assert_eq!((check(1_050), check(2_000)), (0, 1));
    lab.put(with(task('t', TaskState::Assigned), |t| t.desired = TaskState::Shutdown));
    assert!(late(&lab, 5_000).is_empty());
}

#[test]
fn a_task_is_placed_only_where_its_spec_allows_and_leaves_when_the_node_changes() {
    let asks = |placement: Placement| {
        with(task('t', TaskState::Assigned), |t| Arc::make_mut(&mut t.spec).placement = Some(placement))
    };
    let constraints = |text: &str| Placement { constraints: vec![text.parse().unwrap()], ..Placement::default() };
    let arm = Platform { architecture: "arm64".into(), os: "linux".into() };
    let platforms = Placement { platforms: vec![arm], ..Placement::default() };
    for bad in [constraints("node.labels.disk==ssd"), constraints("node.colour!=red"), platforms] {
        assert_eq!(Lab::new().put(asks(bad.clone())), ["S18"], "{bad:?}");
    }
    assert_eq!(Lab::new().put(with(task('t', TaskState::Assigned), |t| t.for_node = Some(id('m')))), ["S18"]);
    let two = Placement { max_replicas: 2, ..Placement::default() };
    let replica = |c: char, slot| with(asks(two.clone()), |t| (t.id, t.slot) = (id(c), slot));
    let mut lab = Lab::new();
    assert!(lab.put(replica('a', 1)).is_empty() && lab.put(replica('b', 2)).is_empty());
    assert_eq!(lab.put(replica('c', 3)), ["S18"]);
    // The node changes under the task.
    let labelled = |disk: &str| {
        let mut node = node('n');
        node.spec.labels.insert("disk".into(), disk.into());
        node
    };
    let mut lab = Lab::new();
    lab.put(labelled("ssd"));
    assert!(lab.put(asks(constraints("node.labels.disk==ssd"))).is_empty());
    assert!(lab.put(labelled("hdd")).is_empty(), "the loops have not seen it yet");
    let late = |lab: &Lab, now| check_suited(&lab.snapshot(), Timestamp(now), Duration::from_nanos(100)).len();
    assert_eq!(late(&lab, 500), 0, "the service asks for nothing any more");
    let mut wants = service();
    Arc::make_mut(&mut wants.spec.task).placement = Some(constraints("node.labels.disk==ssd"));
    lab.put(wants);
    assert_eq!((late(&lab, 50), late(&lab, 500)), (0, 1));
    let mut paused = labelled("hdd");
    paused.spec.availability = Availability::Pause;
    lab.put(paused);
    assert_eq!(late(&lab, 500), 0);
}

#[test]
fn generic_resources_are_held_once() {
    let gpu = |name: &str| GenericResource::Named { kind: "gpu".into(), value: name.into() };
    let ssd = |amount| GenericResource::Discrete { kind: "ssd".into(), amount };
    let lab = || {
        let mut lab = Lab::new();
        let mut node = node('n');
        node.description.as_mut().unwrap().generic = vec![gpu("a"), gpu("b"), ssd(3)];
        lab.put(node);
        lab
    };
    let holds = |c: char, slot, asked: &[(&str, i64)], given: &[GenericResource]| {
        with(task(c, TaskState::Assigned), |t| {
            (t.id, t.slot, t.generic) = (id(c), slot, given.to_vec());
            let generic = asked.iter().map(|(k, n)| GenericRequest { kind: (*k).into(), amount: *n }).collect();
            let resources = ResourceRequirements { generic, ..ResourceRequirements::default() };
            Arc::make_mut(&mut t.spec).resources = Some(resources);
        })
    };
    let mut good = lab();
    assert!(good.put(holds('t', 1, &[("gpu", 1), ("ssd", 2)], &[gpu("a"), ssd(2)])).is_empty());
    assert!(good.put(holds('u', 2, &[("gpu", 1)], &[gpu("b")])).is_empty());
    assert_eq!(good.put(holds('v', 3, &[("ssd", 2)], &[ssd(2)])), ["S19"], "four of three");
    for (asked, given, why) in [
        (&[("gpu", 2)][..], &[gpu("b")][..], "it was given too little"),
        (&[("gpu", 1)], &[gpu("a")], "it is another's"),
        (&[("gpu", 1)], &[gpu("c")], "there is none"),
    ] {
        let mut lab = lab();
        lab.put(holds('t', 1, &[("gpu", 1)], &[gpu("a")]));
        assert_eq!(lab.put(holds('u', 2, asked, given)), ["S19"], "{why}");
    }
    // What follows in the same slot may have it, once the one before is told to stop.
    let mut lab = lab();
    lab.put(holds('t', 1, &[("gpu", 1)], &[gpu("a")]));
    lab.put(with(holds('t', 1, &[("gpu", 1)], &[gpu("a")]), |t| t.desired = TaskState::Shutdown));
    assert!(lab.put(holds('u', 1, &[("gpu", 1)], &[gpu("a")])).is_empty());
}

#[test]
fn a_task_id_is_not_used_twice() {
    let (mut lab, mut witness) = (Lab::new(), Witness::new());
    let (_, commit, _) = lab.commit(vec![Change::Put(task('t', TaskState::Pending).into())]);
    assert!(witness.observe(&commit).is_empty());
    lab.change(vec![Change::Remove(id::<TaskId>('t').into())]);
    let (_, again, _) = lab.commit(vec![Change::Put(task('t', TaskState::Pending).into())]);
    assert_eq!(witness.observe(&again)[0].invariant, "S12");
    assert_eq!(witness.observe(&commit)[0].invariant, "S8", "commits come in order");
}

#[test]
fn stale_writes_and_lost_writes_are_noticed() {
    let mut lab = Lab::new();
    let mut transaction = Transaction::new(Timestamp(1));
    transaction.update(service()); // read at version 0
    assert_eq!(check_cas(&lab.snapshot(), &transaction, &Ok(()))[0].invariant, "S10");
    let refused = Err(store::Conflict::Missing(id::<ServiceId>('s').into()));
    assert!(check_cas(&lab.snapshot(), &transaction, &refused).is_empty());
    let (_, commit, _) = lab.commit(vec![Change::Put(service().into())]);
    assert!(check_acknowledged(commit.index, &transaction, &commit).is_empty());
    assert_eq!(check_acknowledged(commit.index + 1, &transaction, &commit)[0].invariant, "S10");
    let (_, other, _) = lab.commit(vec![Change::Put(node('m').into())]);
    assert_eq!(check_acknowledged(other.index, &transaction, &other)[0].invariant, "S10");
}

#[test]
fn equal_indexes_mean_equal_states() {
    let (a, mut b) = (Lab::new(), Lab::new());
    assert!(check_same_state(&a.snapshot(), &b.snapshot()).is_empty());
    assert_eq!(state_hash(&a.snapshot()), state_hash(&b.snapshot()));
    b.put(node('x'));
    assert!(check_same_state(&a.snapshot(), &b.snapshot()).is_empty(), "other indexes say nothing");
    let mut c = Lab::new();
    c.put(node('y'));
    let violations = check_same_state(&b.snapshot(), &c.snapshot());
    assert_eq!(violations[0].to_string(), format!("S4: two managers at index 4 differ in node {}", "x".repeat(25)));
}

#[test]
fn settled_says_what_is_missing() {
    let mut lab = Lab::new();
    let has = |lab: &Lab, words: &str| {
        let found = lab.unsettled();
        assert!(found.iter().any(|u| u.contains(words)), "{words}: {found:?}");
    };
    has(&lab, "0 slots are filled of 1");
    lab.put(with(task('t', TaskState::Pending), |t| t.status.err = "no suitable node".into()));
    has(&lab, "is pending, and wanted running (no suitable node)");
    assert!(settled(&lab.snapshot()).unwrap_err()[0].explained);
    lab.put(task('t', TaskState::Assigned));
    has(&lab, "is assigned, and wanted running");
    lab.put(task('t', TaskState::Running));
    assert_eq!(lab.unsettled(), Vec::<String>::new());
    let mut changed = service();
    Arc::make_mut(&mut changed.spec.task).force_update = 1;
    changed.spec_version = 2;
    lab.put(changed.clone());
    has(&lab, "is outdated");
    let status = |state| UpdateStatus {
        state,
        started_at: Timestamp(0),
        completed_at: None,
        message: String::new(),
        spec_version: 2,
    };
    changed.update_status = Some(status(UpdateState::Paused));
    lab.put(changed);
    assert_eq!(lab.unsettled(), Vec::<String>::new(), "paused");
    lab.put(service());
    lab.put(with(task('t', TaskState::Running), |t| t.desired = TaskState::Shutdown));
    has(&lab, "should stop");
    has(&lab, "no task is wanted");
    lab.put(with(task('t', TaskState::Shutdown), |t| t.desired = TaskState::Shutdown));
    lab.change(vec![Change::Remove(id::<ServiceId>('s').into())]);
    has(&lab, "L5: service");
}

#[test]
fn history_is_bounded() {
    let mut lab = Lab::new();
    for c in "abcde".chars() {
        lab.put(with(task(c, TaskState::Failed), |t| t.desired = TaskState::Shutdown));
    }
    assert!(check_history(&lab.snapshot()).is_empty());
    lab.put(with(task('f', TaskState::Failed), |t| t.desired = TaskState::Shutdown));
    assert_eq!(check_history(&lab.snapshot())[0].invariant, "S30");
}
