//! S21 sees each way in which an update breaks its word, and none of what looks like it.

use model::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Change, Event, Object, Store, Transaction};
use swarmlite_invariants::check_commit;

/// A service of four replicas that run well, of which two may be replaced at a time, on one node; then another image.
struct Lab {
    store: Store,
    index: u64,
}

fn id<T: std::str::FromStr<Err = InvalidId>>(c: char) -> T {
    c.to_string().repeat(25).parse().expect("a letter many times is an id")
}

fn image(name: &str) -> Arc<TaskSpec> {
    Arc::new(TaskSpec {
        runtime: ContainerSpec { image: name.into(), ..ContainerSpec::default() }.into(),
        ..TaskSpec::default()
    })
}

fn node() -> Node {
    Node {
        id: id('n'),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: Some(NodeDescription::default()),
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        manager: None,
    }
}

fn service(version: u64) -> Service {
    let spec = |name| ServiceSpec {
        name: "web".parse().expect("it is a name"),
        labels: BTreeMap::new(),
        task: image(name),
        mode: Mode::Replicated { replicas: 4 },
        update: Some(UpdateConfig { parallelism: 2, ..UpdateConfig::default() }),
        rollback: Some(UpdateConfig { parallelism: 1, ..UpdateConfig::default() }),
        endpoint: None,
        cron: None,
        backoff: Default::default(),
    };
    Service {
        id: id('s'),
        meta: Meta::default(),
        spec: spec(if version == 1 { "v1" } else { "v2" }),
        spec_version: version,
        previous_spec: (version > 1).then(|| spec("v1")),
        update_status: None,
        progress: Default::default(),
    }
}

fn in_state(state: UpdateState) -> Service {
    let service = service(2);
    let update_status = Some(UpdateStatus {
        state,
        started_at: Timestamp(1),
        completed_at: None,
        message: String::new(),
        spec_version: service.spec_version,
    });
    Service { update_status, ..service }
}

/// The task of a slot and a version: `1` of version 1, `a` of version 2.
fn task(slot: u64, version: u64, state: TaskState) -> Task {
    let names = if version == 1 { ['1', '2', '3', '4'] } else { ['a', 'b', 'c', 'd'] };
    Task {
        id: id(names[slot as usize - 1]),
        meta: Meta::default(),
        service_id: id('s'),
        service_name: "web".parse().expect("it is a name"),
        slot,
        spec: image(if version == 1 { "v1" } else { "v2" }),
        spec_version: version,
        host_ports: Vec::new(),
        node_id: Some(id('n')),
        desired: if version == 1 { TaskState::Running } else { TaskState::Ready },
        run_after: None,
        status: TaskStatus { state, ..TaskStatus::default() },
        for_node: None,
        job_iteration: None,
        failures: 0,
        inherited: None,
        generic: Vec::new(),
    }
}

/// The slots' tasks are replaced: the old ones are told to stop, the new ones are there.
fn replace(slots: std::ops::RangeInclusive<u64>) -> Vec<Change> {
    let stopped = |slot| Task { desired: TaskState::Shutdown, ..task(slot, 1, TaskState::Running) };
    slots.flat_map(|slot| [put(stopped(slot)), put(task(slot, 2, TaskState::Assigned))]).collect()
}

fn put(object: impl Into<Object>) -> Change {
    Change::Put(object.into())
}

impl Lab {
    fn new(service: Service) -> Lab {
        let mut lab = Lab { store: Store::new(), index: 0 };
        let tasks = (1..=4).map(|slot| put(task(slot, 1, TaskState::Running)));
        lab.commit([put(node()), put(service)].into_iter().chain(tasks).collect());
        lab
    }

    fn commit(&mut self, changes: Vec<Change>) -> Vec<String> {
        let (before, mut stream) = (self.store.snapshot(), self.store.changes());
        self.index += 1;
        let transaction = Transaction { at: Timestamp(self.index), checks: Vec::new(), changes };
        self.store.apply(self.index, &transaction).expect("nothing is checked");
        let Some(Event::Commit(commit)) = stream.try_next() else { panic!("nothing was changed") };
        let all = check_commit(&before, &commit, &self.store.snapshot());
        all.into_iter().filter(|v| v.invariant == "S21").map(|v| v.what).collect()
    }
}

#[test]
fn no_more_are_on_their_way_than_the_update_allows() {
    let mut lab = Lab::new(service(2));
    assert_eq!(lab.commit(replace(1..=2)), [""; 0], "two at once");
    let third = lab.commit(replace(3..=3));
    assert!(third[0].starts_with("3 tasks of service") && third[0].ends_with("and 2 may be"), "{third:?}");
    let mut lab = Lab::new(service(2));
    assert_eq!(lab.commit(replace(1..=4)).len(), 1, "all at once");
}

#[test]
fn those_that_run_make_room_for_the_next() {
    let mut lab = Lab::new(service(2));
    assert_eq!(lab.commit(replace(1..=2)), [""; 0]);
    let runs = |slot| put(task(slot, 2, TaskState::Running));
    assert_eq!(lab.commit(vec![runs(1), runs(2)]), [""; 0]);
    assert_eq!(lab.commit(replace(3..=4)), [""; 0]);
}

#[test]
fn without_a_bound_all_may_go_at_once() {
    let mut unbounded = service(2);
    unbounded.spec.update = Some(UpdateConfig { parallelism: 0, ..UpdateConfig::default() });
    assert_eq!(Lab::new(unbounded).commit(replace(1..=4)), [""; 0]);
}

#[test]
fn an_update_that_says_nothing_replaces_one_at_a_time() {
    let mut silent = service(2);
    silent.spec.update = None;
    assert_eq!(Lab::new(silent.clone()).commit(replace(1..=1)), [""; 0]);
    assert_eq!(Lab::new(silent).commit(replace(1..=2)).len(), 1);
}

#[test]
fn a_rollback_has_a_bound_of_its_own() {
    let mut lab = Lab::new(in_state(UpdateState::RollbackStarted));
    assert_eq!(lab.commit(replace(1..=1)), [""; 0]);
    assert_eq!(lab.commit(replace(2..=2)).len(), 1);
}

#[test]
fn a_paused_update_replaces_nothing() {
    for state in [UpdateState::Paused, UpdateState::RollbackPaused] {
        let found = Lab::new(in_state(state)).commit(replace(1..=1));
        assert!(found[0].contains("is paused, and replaces 1 tasks"), "{found:?}");
    }
}

/// What has to be replaced whatever the update says is no matter of the update.
#[test]
fn what_cannot_stay_is_replaced_at_once() {
    let replaced_after = |change: &dyn Fn(&mut Lab)| {
        let mut lab = Lab::new(in_state(UpdateState::Paused));
        change(&mut lab);
        lab.commit(replace(1..=4))
    };
    let on = |f: fn(&mut Node)| {
        let mut node = node();
        f(&mut node);
        replaced_after(&|lab| _ = lab.commit(vec![put(node.clone())]))
    };
    assert_eq!(on(|n| n.spec.availability = Availability::Drain), [""; 0], "drained");
    assert_eq!(on(|n| n.status.state = NodeState::Down), [""; 0], "down");
    assert!(!on(|n| n.spec.availability = Availability::Pause).is_empty(), "a paused node keeps what it has");
    let failed = replaced_after(&|lab| {
        let failed = (1..=4).map(|slot| put(task(slot, 1, TaskState::Failed)));
        assert_eq!(lab.commit(failed.collect()), [""; 0]);
    });
    assert_eq!(failed, [""; 0], "what failed is restarted");
}

#[test]
fn a_task_that_says_that_it_had_to_leave_is_no_matter_of_the_update() {
    let mut lab = Lab::new(in_state(UpdateState::Paused));
    let mut changes = replace(1..=1);
    let mut left = Task { desired: TaskState::Shutdown, ..task(1, 1, TaskState::Running) };
    left.status.err = "assigned node no longer meets constraints".into();
    changes[0] = put(left);
    assert_eq!(lab.commit(changes), [""; 0]);
}

/// A task of the same spec is not outdated, whatever its version; one that the plan did not know of is not its doing.
#[test]
fn only_what_is_outdated_counts() {
    let mut same = service(2);
    same.spec.task = image("v1");
    let mut lab = Lab::new(same);
    let mut changes = replace(1..=4);
    changes.retain(|c| !matches!(c, Change::Put(Object::Task(t)) if t.spec_version == 1));
    assert_eq!(lab.commit(changes), [""; 0]);
    let mut lab = Lab::new(service(1));
    let mut changes = vec![put(service(2))];
    changes.extend(replace(1..=4));
    assert_eq!(lab.commit(changes), [""; 0], "the service changed in the same commit");
}

#[test]
fn a_rollback_goes_back_to_what_was_before() {
    let rolled_back = |to: Arc<TaskSpec>, mode: Mode| {
        let mut lab = Lab::new(service(2));
        let mut back = in_state(UpdateState::RollbackStarted);
        back.spec_version = 3;
        back.update_status.as_mut().expect("it has one").spec_version = 3;
        (back.spec.task, back.spec.mode, back.previous_spec) = (to, mode, None);
        lab.commit(vec![put(back)])
    };
    let four = Mode::Replicated { replicas: 4 };
    assert_eq!(rolled_back(image("v1"), four.clone()), [""; 0]);
    assert!(rolled_back(image("v0"), four)[0].contains("to something else than it was before"));
    assert_eq!(rolled_back(image("v1"), Mode::Replicated { replicas: 5 }).len(), 1, "another number of replicas");
}
