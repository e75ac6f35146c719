//! Secrets and configs on a node: there before their container, gone with it, in memory only.

mod common;

use common::{World, node_id, task, task_id, wanted};
use engine::embedded::Call;
use engine::{Engine as _, EngineError};
use model::{
    ConfigReference, ConfigTarget, Data, Dependency, FileMode, FileTarget, Given, Payload, PayloadId, SecretReference,
    Signal, Task, TaskState,
};
use std::sync::Arc;
use std::time::Duration;

const MARKER: &str = "correct horse battery staple";

fn secret(version: u64) -> PayloadId {
    PayloadId { of: Dependency::Secret("s".repeat(25).parse().unwrap()), version }
}

fn config() -> PayloadId {
    PayloadId { of: Dependency::Config("c".repeat(25).parse().unwrap()), version: 1 }
}

fn payload(id: PayloadId) -> Payload {
    let data = Data::of_secret(format!("{MARKER} {id}").into_bytes()).unwrap();
    Payload { id, meta: Default::default(), data }
}

/// The manager has this data from now on, and nothing else.
fn has(world: &World, ids: &[PayloadId]) {
    world.manager().told.lock().payloads = ids.iter().map(|id| (id.clone(), payload(id.clone()))).collect();
}

/// A task with the secret in this version, and the config.
fn using(mut task: Task, version: u64) -> Task {
    let file = |path: &str| FileTarget { path: path.parse().unwrap(), uid: 1, gid: 2, mode: FileMode::DEFAULT };
    let container = Arc::make_mut(&mut task.spec).container_mut().unwrap();
    container.secrets = vec![SecretReference {
        secret_id: "s".repeat(25).parse().unwrap(),
        secret_name: "key".parse().unwrap(),
        target: file("key"),
        given: Given { version: Some(version), signal: Signal::parse("SIGUSR1"), templating: None },
    }];
    container.configs = vec![ConfigReference {
        config_id: "c".repeat(25).parse().unwrap(),
        config_name: "conf".parse().unwrap(),
        target: ConfigTarget::File(file("/etc/conf")),
        given: Given { version: Some(1), ..Given::default() },
    }];
    task
}

/// Path and content of every file on the node.
fn files(world: &World) -> Vec<(String, String)> {
    let all = world.engine.file_contents().into_iter();
    all.map(|f| (f.path, String::from_utf8(f.data.expose().to_vec()).unwrap())).collect()
}

fn expected(version: u64) -> Vec<(String, String)> {
    let of = |id: PayloadId| format!("{MARKER} {id}");
    vec![("/etc/conf".into(), of(config())), ("/run/secrets/key".into(), of(secret(version)))]
}

#[tokio::test(start_paused = true)]
async fn attack_24_data_is_there_with_its_task_and_gone_with_it() {
    let mut world = World::started(1).await;
    has(&world, &[secret(1), config()]);
    world.manager().assign(1, vec![using(task(1, "web"), 1), task(2, "web")]);
    world.until_state(1, TaskState::Running).await;
    world.until_state(2, TaskState::Running).await;
    assert_eq!(files(&world), expected(1));
    let place = world.engine.file_contents()[0].place.clone();
    assert_eq!((place.space(), place.owner()), (node_id(1).as_str(), task_id(1).as_str()));
    // Nothing of it is on the disk, in a report, or in what anybody prints.
    let disk = format!("{:?}", world.disk.files.lock());
    assert!(!disk.contains(MARKER) && !format!("{:?}", world.agent.as_ref().unwrap().tasks()).contains(MARKER));
    assert!(!format!("{:?}", world.manager().told.lock().statuses).contains(MARKER));

    // Started again, without a manager: the task goes on, and its files stay.
    world.stop().await;
    world.manager().set_alive(false);
    world.start().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((files(&world), world.engine.starts().len()), (expected(1), 2));
    world.manager().set_alive(true);
    world.until("the data is back in memory", |w| w.agent.as_ref().unwrap().granted().len() == 2).await;

    // It is stopped: its container is kept for its output, its files are not.
    has(&world, &[]);
    let stop = wanted(using(task(1, "web"), 1), TaskState::Shutdown);
    world.manager().assign(1, vec![stop, task(2, "web")]);
    world.until_state(1, TaskState::Shutdown).await;
    world.until("its files are gone", |w| files(w).is_empty()).await;
    assert_eq!(world.engine.containers().len(), 2);
    assert!(world.agent.as_ref().unwrap().granted().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_by_itself_leaves_no_files() {
    let world = World::started(1).await;
    has(&world, &[secret(1), config()]);
    world
        .manager()
        .assign(1, vec![using(task(1, "exit:1"), 1), using(task(2, "fail:start"), 1), using(task(3, "fail:pull"), 1)]);
    for n in [1, 2] {
        world.until_state(n, TaskState::Failed).await;
    }
    world.until_state(3, TaskState::Rejected).await;
    world.until("their files are gone", |w| files(w).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn data_that_is_updated_in_place_is_there_before_the_signal() {
    let mut world = World::started(1).await;
    has(&world, &[secret(1), config()]);
    world.manager().assign(1, vec![using(task(1, "web"), 1)]);
    world.until_state(1, TaskState::Running).await;
    assert!(world.engine.signals().is_empty());
    has(&world, &[secret(2), config()]);
    world.manager().assign(1, vec![using(task(1, "web"), 2)]);
    world.until("the container is told", |w| !w.engine.signals().is_empty()).await;
    assert_eq!(files(&world), expected(2));
    let container = world.manager().status(&task_id(1)).container.unwrap().id;
    assert_eq!(world.engine.signals(), [(container, "SIGUSR1".to_owned())], "of what changed, and once");
    // Nobody is told twice, not even by an agent that was started again; and what changed meanwhile is made up for.
    world.stop().await;
    world.start().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.engine.signals().len(), 1);
    world.stop().await;
    has(&world, &[secret(3), config()]);
    world.manager().assign(1, vec![using(task(1, "web"), 3)]);
    world.start().await;
    world.until("the container is told again", |w| w.engine.signals().len() == 2).await;
    assert_eq!((files(&world), world.engine.starts().len()), (expected(3), 1));
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_the_engine_refuses_is_not_sent_for_ever() {
    let world = World::started(1).await;
    has(&world, &[secret(1), config()]);
    world.manager().assign(1, vec![using(task(1, "web"), 1)]);
    world.until_state(1, TaskState::Running).await;
    let refused = EngineError::Refused("Invalid signal: SIGUSR1".into());
    world.engine.faults().fail_next(Call::Stop, 1, refused);
    has(&world, &[secret(2), config()]);
    world.manager().assign(1, vec![using(task(1, "web"), 2)]);
    world.until("the file is replaced", |w| files(w) == expected(2)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.engine.signals().is_empty(), "refused once is refused");
    // What comes after it is told as ever.
    has(&world, &[secret(3), config()]);
    world.manager().assign(1, vec![using(task(1, "web"), 3)]);
    world.until("the container is told", |w| w.engine.signals().len() == 1).await;
    assert_eq!(files(&world), expected(3));
}

#[tokio::test(start_paused = true)]
async fn a_task_waits_for_its_data_and_says_so_when_there_is_none() {
    let mut world = World::started(1).await;
    // Prepared but not started, then the machine is rebooted: the files are gone, the data is on no disk.
    has(&world, &[secret(1), config()]);
    world.manager().assign(1, vec![wanted(using(task(1, "web"), 1), TaskState::Ready)]);
    world.until_state(1, TaskState::Ready).await;
    world.stop().await;
    world.engine.faults().lose_files();
    world.manager().set_alive(false);
    world.manager().assign(1, vec![using(task(1, "web"), 1)]);
    world.start().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.engine.starts().is_empty() && files(&world).is_empty());
    world.manager().set_alive(true);
    world.until_state(1, TaskState::Running).await;
    assert_eq!(files(&world), expected(1));
    // A manager that has no such data any more.
    has(&world, &[config()]);
    world.manager().assign(1, vec![using(task(2, "web"), 9)]);
    world.until_state(2, TaskState::Rejected).await;
    let err = world.manager().status(&task_id(2)).err;
    assert_eq!(err, format!("secret key (secret {}) is not there any more", "s".repeat(25)));
}

#[tokio::test(start_paused = true)]
async fn attack_24_files_of_tasks_that_are_not_here_are_removed() {
    let mut world = World::started(1).await;
    has(&world, &[secret(1), config()]);
    world.manager().assign(1, vec![using(task(1, "web"), 1), using(task(2, "web"), 1)]);
    world.until_state(1, TaskState::Running).await;
    world.until_state(2, TaskState::Running).await;
    world.stop().await;
    // Another node on this machine, and the disk of this one is lost while a task goes.
    let other = engine::FilePlace::new(node_id(2).as_str(), task_id(1).as_str()).unwrap();
    world.engine.files().mark(&other, "theirs").await.unwrap();
    world.disk.files.lock().clear();
    world.manager().assign(1, vec![using(task(1, "web"), 1)]);
    world.start().await;
    world.until("only its own are left", |w| files(w) == expected(1)).await;
    assert_eq!(world.engine.files().mark_of(&other).await.unwrap().as_deref(), Some("theirs"));
    // And when the node leaves, nothing is left.
    world.stop().await;
    swarmlite_agent::remove_everything(&world.config, &world.seams, &world.engine).await.unwrap();
    assert!(files(&world).is_empty());
    assert_eq!(world.engine.files().mark_of(&other).await.unwrap().as_deref(), Some("theirs"));
}

#[tokio::test(start_paused = true)]
async fn attack_23_targets_in_each_other_s_way_never_reach_the_engine() {
    let world = World::started(1).await;
    has(&world, &[secret(1), config()]);
    let mut bad = using(task(1, "web"), 1);
    let container = Arc::make_mut(&mut bad.spec).container_mut().unwrap();
    let ConfigTarget::File(target) = &mut container.configs[0].target else { panic!("it is a file") };
    target.path = "/run/secrets/key".parse().unwrap();
    world.manager().assign(1, vec![bad]);
    world.until_state(1, TaskState::Rejected).await;
    assert!(world.manager().status(&task_id(1)).err.contains("conflicts with secret key"));
    assert!(world.engine.containers().is_empty() && files(&world).is_empty());
}
