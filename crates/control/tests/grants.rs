//! Secrets and configs, as scenarios: who is given which version of their data, and when a version is forgotten.
mod common;
use common::*;
use model::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Conflict, Snapshot, Transaction};
use swarmlite_control::{Budget, grants};

fn labels(update: &str) -> BTreeMap<String, String> {
    if update.is_empty() { BTreeMap::new() } else { [(UpdateBy::LABEL.to_owned(), update.to_owned())].into() }
}

fn data(text: &str) -> Data {
    Data::of_secret(text.as_bytes()).unwrap()
}

/// The secret with this number, if there is one; ids are never used twice.
fn existing(snapshot: &Snapshot, n: u8) -> Option<SecretId> {
    snapshot.secret_named(&format!("s{n}").parse().unwrap()).map(|s| s.id.clone())
}

fn commit(world: &mut World, f: impl FnOnce(&mut Transaction)) {
    let mut tx = Transaction::new(world.now);
    f(&mut tx);
    world.apply(&tx).unwrap();
}

fn create(world: &mut World, n: u8, update: &str) -> SecretId {
    let spec = SecretSpec { name: format!("s{n}").parse().unwrap(), labels: labels(update), templating: None };
    let id: SecretId = format!("secret{:019}", world.snapshot().index()).parse().unwrap();
    commit(world, |tx| grants::create_secret(tx, id.clone(), spec, data("one")));
    id
}

/// New data, as the API would put it; false when it would refuse.
fn update(world: &mut World, id: &SecretId, text: &str) -> bool {
    let snapshot = world.snapshot();
    let secret = snapshot.secret(id).unwrap();
    let mut tx = Transaction::new(world.now);
    let labels = secret.spec.labels.clone();
    let Ok(is_new) = grants::update_secret(&mut tx, &snapshot, secret, labels, Some(data(text))) else { return false };
    assert!(is_new);
    world.apply(&tx).unwrap();
    true
}

fn remove(world: &mut World, id: &SecretId) -> Result<(), String> {
    let snapshot = world.snapshot();
    let mut tx = Transaction::new(world.now);
    grants::remove_secret(&mut tx, &snapshot, snapshot.secret(id).unwrap()).map_err(|e| e.to_string())?;
    world.apply(&tx).map_err(|e| e.to_string())
}

fn reference(id: &SecretId) -> SecretReference {
    SecretReference {
        secret_id: id.clone(),
        secret_name: "s".parse().unwrap(),
        target: FileTarget { path: id.as_str().parse().unwrap(), uid: 0, gid: 0, mode: FileMode::DEFAULT },
        given: Given::default(),
    }
}

fn using(ids: &[&SecretId]) -> TaskSpec {
    let mut task = image("v1");
    task.container_mut().unwrap().secrets = ids.iter().map(|id| reference(id)).collect();
    task
}

/// The versions of the first secret that running tasks have.
fn versions(world: &World, id: &ServiceId) -> Vec<u64> {
    let version = |t: &Arc<Task>| t.spec.container().unwrap().secrets[0].given.version.unwrap();
    world.running(id).iter().map(version).collect()
}

fn kept(world: &World, id: &SecretId) -> Vec<u64> {
    world.snapshot().payloads_of(&Dependency::Secret(id.clone())).map(|p| p.id.version).collect()
}

fn force(world: &mut World, id: &ServiceId) {
    world.change_service(id, |s| {
        let task = Arc::make_mut(&mut s.task);
        task.force_update += 1;
        // What comes from outside says nothing of versions.
        task.container_mut().unwrap().secrets.iter_mut().for_each(|r| r.given = Given::default());
    });
}

fn ids(tasks: &[Arc<Task>]) -> Vec<TaskId> {
    tasks.iter().map(|t| t.id.clone()).collect()
}

#[test]
fn tasks_are_made_with_the_version_of_their_time_and_new_data_rolls_out_like_any_update() {
    let mut world = World::with_nodes(3);
    let secret = create(&mut world, 1, "");
    let id = world.create_service("web", 3, using(&[&secret]));
    world.settle();
    assert_eq!(versions(&world, &id), [1, 1, 1]);
    let service = world.service(&id);
    assert_eq!((service.spec_version, service.update_status, service.previous_spec), (1, None, None), "no update");
    // Scaling from outside says nothing of versions, and replaces nothing.
    let before = ids(&world.running(&id));
    let old = world.service(&id).spec;
    world.change_service(&id, |s| {
        s.mode = Mode::Replicated { replicas: 4 };
        Arc::make_mut(&mut s.task).container_mut().unwrap().secrets[0].given = Given::default();
        s.keep_data_versions(&old);
    });
    world.settle();
    assert!(before.iter().all(|t| ids(&world.running(&id)).contains(t)));
    assert_eq!(world.update_state(&id), None);

    assert!(update(&mut world, &secret, "two"));
    world.control();
    assert_eq!(world.update_state(&id), Some((UpdateState::Updating, "update in progress".into())));
    assert_eq!(world.wanted(&id).iter().filter(|t| t.status.state != TaskState::Running).count(), 1, "one at a time");
    assert_eq!(kept(&world, &secret), [1, 2], "the old version is kept while it is in use");
    world.settle();
    assert_eq!(versions(&world, &id), [2; 4]);
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Completed);
    assert_eq!(kept(&world, &secret), [1, 2], "the user may want to roll back");
    assert!(update(&mut world, &secret, "three"));
    world.settle();
    assert_eq!((versions(&world, &id), kept(&world, &secret)), (vec![3; 4], vec![2, 3]));
}

#[test]
fn equal_data_is_no_new_version_and_labels_alone_replace_nothing() {
    let mut world = World::with_nodes(1);
    let secret = create(&mut world, 1, "");
    let id = world.create_service("web", 1, using(&[&secret]));
    world.settle();
    let before = ids(&world.running(&id));
    let snapshot = world.snapshot();
    let mut tx = Transaction::new(world.now);
    let old = snapshot.secret(&secret).unwrap();
    assert_eq!(grants::update_secret(&mut tx, &snapshot, old, labels("keep"), Some(data("one"))), Ok(false));
    world.apply(&tx).unwrap();
    world.settle();
    assert_eq!(ids(&world.running(&id)), before);
    assert_eq!(world.snapshot().secret(&secret).unwrap().spec.labels, labels("keep"));
}

#[test]
fn keep_keeps_until_the_service_itself_is_changed() {
    let mut world = World::with_nodes(2);
    let secret = create(&mut world, 1, "keep");
    let id = world.create_service("web", 2, using(&[&secret]));
    let rolls = world.create_service_with("rolls", 1, using(&[&secret]), |s| s.labels = labels("roll"));
    world.settle();
    let before = ids(&world.running(&id));
    assert!(update(&mut world, &secret, "two"));
    world.settle();
    assert_eq!(
        (ids(&world.running(&id)), versions(&world, &rolls)),
        (before, vec![2]),
        "the service's label goes first"
    );
    world.scale(&id, 3);
    world.settle();
    assert_eq!(versions(&world, &id), [1, 1, 1], "a service is of one piece");
    force(&mut world, &id);
    world.settle();
    assert_eq!(versions(&world, &id), [2, 2, 2]);
}

#[test]
fn signal_gives_new_data_to_the_tasks_that_run() {
    let mut world = World::with_nodes(2);
    let secret = create(&mut world, 1, "signal:SIGUSR1");
    let id = world.create_service("web", 3, using(&[&secret]));
    world.settle();
    let before = ids(&world.running(&id));
    assert!(update(&mut world, &secret, "two"));
    world.settle();
    assert_eq!((ids(&world.running(&id)), versions(&world, &id)), (before, vec![2, 2, 2]));
    let usr1 = Signal::parse("SIGUSR1");
    assert!(world.running(&id).iter().all(|t| t.spec.container().unwrap().secrets[0].given.signal == usr1));
    assert_eq!((world.service(&id).spec_version, world.update_state(&id)), (1, None), "no update");
    assert_eq!(kept(&world, &secret), [2]);
    // Beside one that rolls, all is rolled.
    let other = create(&mut world, 2, "roll");
    let both = world.create_service("both", 1, using(&[&secret, &other]));
    world.settle();
    let before = ids(&world.running(&both));
    commit(&mut world, |_| {});
    assert!(update(&mut world, &secret, "three"));
    assert!(update(&mut world, &other, "two"));
    world.settle();
    let now = world.running(&both);
    assert_ne!(ids(&now), before);
    assert_eq!(now[0].spec.payloads().map(|p| p.version).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn other_credentials_for_the_registry_replace_no_task_that_was_updated_in_place() {
    let mut world = World::with_nodes(3);
    let secret = create(&mut world, 1, "signal");
    let id = world.create_service("web", 2, using(&[&secret]));
    world.settle();
    assert!(update(&mut world, &secret, "two"));
    world.settle();
    let before = ids(&world.running(&id));
    // What `service update --with-registry-auth --replicas 3` sends.
    let old = world.service(&id).spec;
    world.change_service(&id, |s| {
        s.mode = Mode::Replicated { replicas: 3 };
        let container = Arc::make_mut(&mut s.task).container_mut().unwrap();
        container.registry_auth = Some(RegistryAuth("new".into()));
        container.secrets[0].given = Given::default();
        s.keep_data_versions(&old);
    });
    world.settle();
    assert!(before.iter().all(|t| ids(&world.running(&id)).contains(t)));
    assert_eq!(versions(&world, &id), [2; 3]);
    let auth = world.service(&id).spec.task.container().unwrap().registry_auth.clone();
    assert_eq!(auth, Some(RegistryAuth("new".into())), "the next pull needs them");
    // And they are still told of new data, not replaced.
    let before = ids(&world.running(&id));
    assert!(update(&mut world, &secret, "three"));
    world.settle();
    assert_eq!((ids(&world.running(&id)), versions(&world, &id)), (before, vec![3; 3]));
}

#[test]
fn data_that_makes_tasks_fail_pauses_the_update_and_better_data_takes_it_up_again() {
    let mut world = World::with_nodes(3);
    let secret = create(&mut world, 1, "");
    let id = world.create_service("web", 3, using(&[&secret]));
    world.settle();
    assert!(update(&mut world, &secret, "bad"));
    world.control();
    let new = world.wanted(&id).into_iter().find(|t| t.spec_version == 2).unwrap();
    world.set_status(&new.id, TaskState::Rejected);
    world.run_for(SECOND);
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Paused);
    assert_eq!(versions(&world, &id), [1, 1]);
    world.change_leader();
    world.run_for(SECOND * 3);
    assert_eq!(versions(&world, &id), [1, 1], "a new leader leaves it paused");
    assert!(update(&mut world, &secret, "good"));
    world.settle();
    assert_eq!(versions(&world, &id), [3, 3, 3]);
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Completed);
}

#[test]
fn data_that_was_rolled_back_is_not_rolled_out_again_and_newer_data_is() {
    let mut world = World::with_nodes(3);
    let secret = create(&mut world, 1, "");
    let id = world.create_service_with("web", 3, using(&[&secret]), |s| {
        s.update = Some(UpdateConfig { failure_action: FailureAction::Rollback, ..UpdateConfig::default() });
    });
    world.settle();
    assert!(update(&mut world, &secret, "bad"));
    world.control();
    let new = world.wanted(&id).into_iter().find(|t| t.spec_version == 2).unwrap();
    world.set_status(&new.id, TaskState::Rejected);
    world.settle();
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::RollbackCompleted);
    assert_eq!((versions(&world, &id), kept(&world, &secret)), (vec![1, 1, 1], vec![1, 2]));
    world.change_leader();
    world.run_for(SECOND * 600);
    assert_eq!(versions(&world, &id), [1, 1, 1]);
    assert!(update(&mut world, &secret, "good"));
    world.settle();
    assert_eq!(versions(&world, &id), [3, 3, 3]);
}

#[test]
fn a_rollback_to_what_is_not_there_any_more_pauses() {
    let mut world = World::with_nodes(3);
    let secret = create(&mut world, 1, "");
    let id = world.create_service_with("web", 3, using(&[&secret]), |s| {
        s.update = Some(UpdateConfig { failure_action: FailureAction::Rollback, ..UpdateConfig::default() });
    });
    world.settle();
    world.change_service(&id, |s| s.task = Arc::new(image("crash")));
    assert_eq!(remove(&mut world, &secret), Ok(()), "no spec names it");
    world.run_for(SECOND * 60);
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Paused);
    // The tasks that run with it still have it.
    assert!(!versions_left(&world, &id).is_empty() && kept(&world, &secret) == [1]);
    world.set_image(&id, "v2");
    world.settle();
    assert!(kept(&world, &secret).is_empty());
}

#[test]
fn an_update_that_drops_a_secret_is_rolled_back_though_the_secret_was_updated_meanwhile() {
    let mut world = World::with_nodes(3);
    let secret = create(&mut world, 1, "keep");
    let id = world.create_service_with("web", 1, using(&[&secret]), |s| {
        s.update = Some(UpdateConfig { failure_action: FailureAction::Rollback, ..UpdateConfig::default() });
    });
    world.settle();
    world.change_service(&id, |s| s.task = Arc::new(image("crash")));
    assert!(update(&mut world, &secret, "two"));
    // The only task with the first version is stopped for the one that will fail.
    world.run_for(SECOND * 60);
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::RollbackCompleted);
    assert_eq!((versions(&world, &id), kept(&world, &secret)), (vec![2], vec![2]), "what there is has to do");
}

#[test]
fn new_data_of_a_secret_that_many_large_services_use_fits_the_log() {
    let mut world = World::with_nodes(3);
    let secret = create(&mut world, 1, "");
    let mut task = using(&[&secret]);
    task.container_mut().unwrap().env = (0..200).map(|n| format!("VARIABLE_{n}={}", "x".repeat(100))).collect();
    let services: Vec<ServiceId> = (0..64).map(|n| world.create_service(&format!("web{n}"), 1, task.clone())).collect();
    world.control();
    assert!(update(&mut world, &secret, "two"));
    let batch =
        swarmlite_control::reconcile_services(&world.snapshot(), services.clone(), world.now, Budget::default());
    assert_eq!(batch.transaction.encode().map(|_| ()), Ok(()));
    // What did not fit is not forgotten.
    assert!(!batch.transaction.is_empty() && batch.wakes.values().any(|at| *at == world.now));
    world.control();
    let given = |id| world.service(id).spec.task.container().unwrap().secrets[0].given.version;
    assert!(services.iter().all(|id| given(id) == Some(2)));
}

fn versions_left(world: &World, id: &ServiceId) -> Vec<PayloadId> {
    world.running(id).iter().flat_map(|t| t.spec.payloads().collect::<Vec<_>>()).collect()
}

#[test]
fn what_is_in_use_is_not_removed_and_says_who_uses_it() {
    let mut world = World::with_nodes(1);
    let secret = create(&mut world, 1, "");
    let web = world.create_service("web", 1, using(&[&secret]));
    assert_eq!(remove(&mut world, &secret).unwrap_err(), "secret 's1' is in use by the following service: web");
    let api = world.create_service("api", 1, using(&[&secret]));
    assert_eq!(remove(&mut world, &secret).unwrap_err(), "secret 's1' is in use by the following services: web, api");
    world.settle();
    let spec = world.service(&web).spec;
    // A service that comes in between.
    world.remove_service(&api);
    world.remove_service(&web);
    let (snapshot, mut tx) = (world.snapshot(), Transaction::new(world.now));
    grants::remove_secret(&mut tx, &snapshot, snapshot.secret(&secret).unwrap()).unwrap();
    let between = world.create_service("between", 1, using(&[&secret]));
    assert!(matches!(world.apply(&tx), Err(Conflict::Referenced { by, .. }) if by == between));
    world.remove_service(&between);
    assert_eq!(remove(&mut world, &secret), Ok(()));
    let mut late = Transaction::new(world.now);
    grants::check_granted(&mut late, &spec);
    assert!(matches!(world.apply(&late), Err(Conflict::Missing(_))));
    world.settle();
    assert!(kept(&world, &secret).is_empty(), "no bytes are left");
}

#[test]
fn a_removed_secret_that_nobody_used_leaves_nothing() {
    let mut world = World::with_nodes(1);
    let secret = create(&mut world, 1, "");
    world.settle();
    assert_eq!(kept(&world, &secret), [1]);
    assert_eq!(remove(&mut world, &secret), Ok(()));
    world.control();
    assert!(kept(&world, &secret).is_empty());
}

#[test]
fn so_many_versions_can_be_in_use_and_not_more() {
    let mut world = World::with_nodes(1);
    let secret = create(&mut world, 1, "keep");
    for n in 1..limits::DATA_VERSIONS_MAX {
        world.create_service(&format!("user{n}"), 1, using(&[&secret]));
        world.settle();
        assert!(update(&mut world, &secret, &format!("version {n}")));
    }
    world.settle();
    assert_eq!(kept(&world, &secret).len(), limits::DATA_VERSIONS_MAX);
    assert!(!update(&mut world, &secret, "one too many"));
    let (snapshot, mut tx) = (world.snapshot(), Transaction::new(world.now));
    let old = snapshot.secret(&secret).unwrap();
    let error = grants::update_secret(&mut tx, &snapshot, old, BTreeMap::new(), Some(data("x"))).unwrap_err();
    assert!(error.to_string().starts_with("secret s1 has 16 versions of its data in use"), "{error}");
    let first = world.snapshot().services().next().unwrap().id.clone();
    world.remove_service(&first);
    world.settle();
    assert!(update(&mut world, &secret, "now it fits"));
}

#[derive(Debug, Clone)]
enum Op {
    Create(u8, &'static str),
    Update(u8, u8),
    Remove(u8),
    Service(u8, Vec<u8>),
    Change(u8, Vec<u8>),
    Scale(u8, u64),
    RemoveService(u8),
    Fail(u8),
    Pass(u8),
    Leader,
}

fn op() -> impl Strategy<Value = Op> {
    let some = || prop::collection::vec(0..3_u8, 0..3);
    let how = prop::sample::select(vec!["", "roll", "keep", "signal", "nonsense"]);
    prop_oneof![
        3 => (0..3_u8, how).prop_map(|(n, how)| Op::Create(n, how)),
        4 => (0..3_u8, any::<u8>()).prop_map(|(n, v)| Op::Update(n, v)),
        2 => (0..3_u8).prop_map(Op::Remove),
        3 => (0..3_u8, some()).prop_map(|(n, s)| Op::Service(n, s)),
        2 => (0..3_u8, some()).prop_map(|(n, s)| Op::Change(n, s)),
        1 => (0..3_u8, 0..4_u64).prop_map(|(n, r)| Op::Scale(n, r)),
        1 => (0..3_u8).prop_map(Op::RemoveService),
        2 => (0..3_u8).prop_map(Op::Fail),
        3 => (0..40_u8).prop_map(Op::Pass),
        1 => Just(Op::Leader),
    ]
}

fn do_op(world: &mut World, op: Op) {
    let snapshot = world.snapshot();
    let service = |n: u8| snapshot.service_named(&format!("web{n}").parse().unwrap()).map(|s| s.id.clone());
    let spec = |which: &[u8]| {
        let ids: Vec<SecretId> = which.iter().filter_map(|n| existing(&snapshot, *n)).collect();
        let mut once: Vec<&SecretId> = ids.iter().collect();
        once.sort();
        once.dedup();
        using(&once)
    };
    match op {
        Op::Create(n, how) if existing(&snapshot, n).is_none() => _ = create(world, n, how),
        Op::Update(n, v) => {
            if let Some(id) = existing(&snapshot, n) {
                let text = format!("{v} {}", snapshot.index());
                update(world, &id, &text);
            }
        }
        Op::Remove(n) => {
            if let Some(id) = existing(&snapshot, n) {
                let _refused_when_it_is_in_use = remove(world, &id);
            }
        }
        Op::Service(n, which) if service(n).is_none() => _ = world.create_service(&format!("web{n}"), 2, spec(&which)),
        Op::Change(n, which) => {
            if let Some(id) = service(n) {
                let task = Arc::new(spec(&which));
                world.change_service(&id, |s| s.task = task);
            }
        }
        Op::Scale(n, replicas) => {
            if let Some(id) = service(n) {
                world.scale(&id, replicas);
            }
        }
        Op::RemoveService(n) => {
            if let Some(id) = service(n) {
                world.remove_service(&id);
            }
        }
        Op::Fail(n) => {
            if let Some(task) = service(n).and_then(|id| world.running(&id).pop()) {
                world.set_status(&task.id, TaskState::Failed);
            }
        }
        Op::Pass(seconds) => world.run_for(SECOND * seconds.into()),
        Op::Leader => world.change_leader(),
        Op::Create(..) | Op::Service(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever happens (each commit is checked), it comes to rest, every task then has the data that its service has, and
    /// nothing is kept that nobody has.
    #[test]
    fn it_comes_to_rest_and_nothing_is_left_over(ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::with_nodes(2);
        for op in ops {
            do_op(&mut world, op);
            world.control();
        }
        // A paused update rests as it is; a change takes it up.
        let paused: Vec<ServiceId> = world.snapshot().services().map(|s| s.id.clone()).collect();
        world.run_for(SECOND * 100);
        paused.iter().for_each(|id| force(&mut world, id));
        world.settle();
        let snapshot = world.snapshot();
        for service in snapshot.services() {
            for task in world.running(&service.id) {
                let has: Vec<PayloadId> = task.spec.payloads().collect();
                prop_assert_eq!(&has, &service.spec.task.payloads().collect::<Vec<_>>());
                prop_assert!(has.iter().all(|id| snapshot.payload(id).is_some()));
            }
        }
    }
}

#[test]
fn new_data_waits_for_an_update_of_something_else_and_takes_up_none_that_is_paused() {
    let mut world = World::with_nodes(3);
    let secret = create(&mut world, 1, "");
    let id = world.create_service("web", 3, using(&[&secret]));
    world.settle();
    let good = world.service(&id).spec;
    world.set_image(&id, "reject");
    world.run_for(SECOND);
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Paused);
    assert!(update(&mut world, &secret, "two"));
    world.run_for(SECOND * 60);
    assert_eq!(world.update_state(&id).unwrap().0, UpdateState::Paused, "nobody asked for it to go on");
    assert_eq!(world.service(&id).previous_spec, Some(good), "that is what a rollback goes back to");
    assert_eq!(versions(&world, &id), [1, 1]);
    // Once the user has changed the service, the data comes, too.
    world.set_image(&id, "v3");
    world.settle();
    assert_eq!(versions(&world, &id), [2; 3]);
    assert_eq!(world.images(&id), ["v3"; 3]);
    // And an update that goes on is not interrupted: what a rollback would go back to is still what was before it.
    let before = world.service(&id).spec;
    world.set_image(&id, "v4");
    world.control();
    assert!(update(&mut world, &secret, "three"));
    world.control();
    assert_eq!(world.service(&id).previous_spec, Some(before));
    world.settle();
    assert_eq!((versions(&world, &id), world.images(&id)), (vec![3; 3], vec!["v4".to_owned(); 3]));
}
