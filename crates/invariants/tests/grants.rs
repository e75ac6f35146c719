//! S12, S22 and S23: what must be noticed about secrets and configs is noticed.

use model::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Change, Event, Snapshot, Store, Transaction};
use swarmlite_invariants::{Witness, check_commit, check_pruned, check_state};

fn id<T: std::str::FromStr<Err = InvalidId>>(c: char) -> T {
    c.to_string().repeat(25).parse().unwrap()
}

fn secret(data_version: u64) -> Secret {
    let spec = SecretSpec { name: "key".parse().unwrap(), labels: BTreeMap::new(), templating: None };
    Secret { id: id('k'), meta: Meta::default(), spec, data_version }
}

fn version(version: u64) -> PayloadId {
    PayloadId { of: Dependency::Secret(id('k')), version }
}

fn payload(n: u64) -> Payload {
    Payload { id: version(n), meta: Meta::default(), data: Data::of_secret(b"x".as_slice()).unwrap() }
}

fn spec(version: Option<u64>, signal: Option<&str>) -> Arc<TaskSpec> {
    let mut spec = TaskSpec::default();
    spec.container_mut().unwrap().secrets = vec![SecretReference {
        secret_id: id('k'),
        secret_name: "key".parse().unwrap(),
        target: FileTarget { path: "key".parse().unwrap(), uid: 0, gid: 0, mode: FileMode::DEFAULT },
        given: Given { version, signal: signal.and_then(Signal::parse), templating: None },
    }];
    Arc::new(spec)
}

fn service(task: Arc<TaskSpec>) -> Service {
    Service {
        id: id('s'),
        meta: Meta::default(),
        spec: ServiceSpec {
            name: "web".parse().unwrap(),
            labels: BTreeMap::new(),
            task,
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

fn task(spec: Arc<TaskSpec>, desired: TaskState) -> Task {
    Task {
        id: id('t'),
        meta: Meta::default(),
        service_id: id('s'),
        service_name: "web".parse().unwrap(),
        slot: 1,
        spec,
        spec_version: 1,
        host_ports: Vec::new(),
        node_id: Some(id('n')),
        desired,
        run_after: None,
        status: TaskStatus { state: TaskState::Running, ..TaskStatus::default() },
        for_node: None,
        job_iteration: None,
        failures: 0,
        inherited: None,
        generic: Vec::new(),
    }
}

/// Applies the changes, one commit after the other; the last state, and the invariants that the last commit broke.
fn after(commits: Vec<Vec<Change>>) -> (Snapshot, Vec<&'static str>) {
    let store = Store::new();
    let mut changes = store.changes();
    let mut broken = Vec::new();
    for (n, commit) in commits.into_iter().enumerate() {
        let before = store.snapshot();
        let transaction = Transaction { changes: commit, ..Transaction::default() };
        store.apply(n as u64 + 1, &transaction).unwrap();
        let Some(Event::Commit(commit)) = changes.try_next() else { panic!("it changes something") };
        broken = check_commit(&before, &commit, &store.snapshot()).iter().map(|v| v.invariant).collect();
    }
    (store.snapshot(), broken)
}

fn put(object: impl Into<store::Object>) -> Change {
    Change::Put(object.into())
}

#[test]
fn s23_what_a_service_names_is_there_and_its_data_too() {
    let broken = |changes| check_state(&after(vec![changes]).0).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(broken(vec![put(secret(1)), put(payload(1)), put(service(spec(None, None)))]).is_empty());
    let gone = broken(vec![put(service(spec(None, None)))]);
    assert_eq!(gone, [format!("S23: service web uses secret {}, which is not there", "k".repeat(25))]);
    let empty = broken(vec![put(secret(2)), put(payload(1))]);
    assert_eq!(empty, [format!("S23: secret {} version 2 is current, and its data is not there", "k".repeat(25))]);
}

#[test]
fn s22_data_that_nobody_has_is_not_kept() {
    let kept = |changes| check_pruned(&after(vec![changes]).0).len();
    let base = || vec![put(secret(2)), put(payload(1)), put(payload(2))];
    assert_eq!(kept(base()), 1, "version 1");
    let with = |change| base().into_iter().chain([change]).collect();
    assert_eq!(kept(with(put(service(spec(Some(1), None))))), 0);
    assert_eq!(kept(with(put(service(spec(Some(2), None))))), 1);
    let rolled = Service { previous_spec: Some(service(spec(Some(1), None)).spec), ..service(spec(Some(2), None)) };
    assert_eq!(kept(with(put(rolled))), 0, "one may want to go back");
    assert_eq!(kept(with(put(task(spec(Some(1), None), TaskState::Running)))), 0);
    assert_eq!(kept(with(put(task(spec(Some(1), None), TaskState::Shutdown)))), 1);
    assert_eq!(kept(vec![put(payload(1))]), 1, "its secret is gone");
}

#[test]
fn s22_a_node_has_only_what_a_task_was_given_there() {
    let store = Store::new();
    let mut changes = store.changes();
    let mut witness = Witness::new();
    let change = put(task(spec(Some(1), None), TaskState::Running));
    store.apply(1, &Transaction { changes: vec![change], ..Transaction::default() }).unwrap();
    let Some(Event::Commit(commit)) = changes.try_next() else { panic!("it changes something") };
    assert!(witness.observe(&commit).is_empty());
    assert!(witness.check_held(&id('n'), &[version(1)]).is_empty());
    assert_eq!(witness.check_held(&id('n'), &[version(1), version(2)]).len(), 1, "another version");
    let elsewhere = witness.check_held(&id('m'), &[version(1)]);
    assert!(elsewhere[0].to_string().starts_with("S22: node mmm"), "{elsewhere:?}");
}

#[test]
fn s12_only_data_that_is_told_changes_under_a_task() {
    let change = |from: Arc<TaskSpec>, to: Arc<TaskSpec>| {
        let task = |spec| vec![put(task(spec, TaskState::Running))];
        after(vec![task(from), task(to)]).1
    };
    assert!(change(spec(Some(1), None), spec(Some(2), Some("HUP"))).is_empty());
    assert_eq!(change(spec(Some(1), None), spec(Some(2), None)), ["S12"]);
    let mut other = spec(Some(2), Some("HUP")).as_ref().clone();
    other.container_mut().unwrap().image = "other".into();
    assert_eq!(change(spec(Some(1), None), Arc::new(other)), ["S12"]);
}
