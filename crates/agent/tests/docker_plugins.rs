//! A task that is a plugin, on a real dockerd: installed from a registry (one in this process, on 127.0.0.1, where Docker asks
//! for no TLS), enabled, upgraded, disabled and removed.

#![allow(clippy::disallowed_methods)] // a registry of the test's own

mod common;
#[path = "common/docker.rs"]
mod real;
#[path = "common/registry.rs"]
mod registry;

use common::{World, task, task_id, wanted};
use engine::{DockerEngine, DockerOptions, Engine, Plugins as _};
use model::{PluginPrivilege, PluginSpec, RegistryAuth, Task, TaskSpec, TaskState, Timestamp};
use real::{host, sh};
use registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use swarmlite_agent::remove_everything;
use tokio::time::Instant;

fn plugin(n: u8, name: &str, remote: &str, change: impl FnOnce(&mut PluginSpec)) -> Task {
    let mut plugin = PluginSpec { name: name.into(), remote: remote.into(), ..PluginSpec::default() };
    change(&mut plugin);
    let mut task = task(n, "");
    task.spec = Arc::new(TaskSpec { runtime: plugin.into(), ..TaskSpec::default() });
    task.meta.created_at = Timestamp(u64::from(n));
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_comes_from_a_registry_and_goes_again() {
    let registry = Registry::start().await;
    let engine = Arc::new(DockerEngine::new(&DockerOptions { host: host(), ..DockerOptions::default() }).unwrap());
    let name = format!("swarmlite-test-{}:latest", std::process::id());
    let (first, second) = (registry.reference("1"), registry.reference("2"));
    let mut world = World::new(1);
    world.agent = Some(world.agent_on(world.config.clone(), engine.clone()).await);

    let one = || {
        plugin(1, &name, &first, |p| {
            p.env = vec!["LEVEL=high".into()];
            // {"username":"u","password":"hunter2"}
            p.registry_auth = Some(RegistryAuth("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6Imh1bnRlcjIifQ==".into()));
        })
    };
    world.manager().assign(1, vec![one()]);
    world.until_state(1, TaskState::Running).await;
    let shown = engine.plugin(&name).await.unwrap().unwrap();
    assert_eq!(
        (shown.enabled, shown.remote.as_str(), &shown.env[..]),
        (true, &first[..], &["LEVEL=high".to_owned()][..])
    );
    assert!(registry.was_told_the_password(), "credentials go with the pull");
    let described = engine.describe().await.unwrap().engine.plugins;
    assert!(described.contains(&("Volume".into(), name.clone())), "the node has a volume driver more: {described:?}");

    // The second asks for more than it is granted; the first goes on.
    let greedy = || plugin(2, &name, &second, |_| {});
    world.manager().assign(1, vec![one(), wanted(greedy(), TaskState::Ready)]);
    world.until_state(2, TaskState::Rejected).await;
    let err = world.manager().status(&task_id(2)).err;
    assert!(err.starts_with("incorrect privileges"), "{err}");
    assert!(engine.plugin(&name).await.unwrap().unwrap().enabled);

    // Granted, it takes the place of the first, which stops before it starts.
    let privilege = PluginPrivilege { name: "network".into(), description: String::new(), value: vec!["host".into()] };
    let two = || plugin(3, &name, &second, |p| p.privileges = vec![privilege.clone()]);
    world.manager().assign(1, vec![wanted(one(), TaskState::Shutdown), two()]);
    world.until_state(3, TaskState::Running).await;
    let now = engine.plugin(&name).await.unwrap().unwrap();
    assert_eq!((now.id, now.enabled, now.remote), (shown.id, true, second.clone()));
    assert_eq!(now.env, ["LEVEL=low"], "what nobody sets any more is as the plugin has it");

    // Somebody disables it: the task fails, and says why.
    sh(&format!("docker plugin disable {name}"));
    world.until_state(3, TaskState::Failed).await;
    assert_eq!(world.manager().status(&task_id(3)).err, "plugin disabled");

    // The agent comes back, and removes what nobody needs.
    let four = || Task { id: task_id(4), ..two() };
    world.manager().assign(1, vec![four()]);
    world.until_state(4, TaskState::Running).await;
    world.stop().await;
    world.agent = Some(world.agent_on(world.config.clone(), engine.clone()).await);
    world.manager().assign(1, vec![wanted(four(), TaskState::Shutdown)]);
    world.until_state(4, TaskState::Shutdown).await;
    assert!(!engine.plugin(&name).await.unwrap().unwrap().enabled);
    world.manager().assign(1, vec![]);
    let waited = Instant::now();
    while engine.plugin(&name).await.unwrap().is_some() {
        assert!(waited.elapsed() < Duration::from_secs(30), "the plugin is left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What is not in the registry is an error that names it.
    world.manager().assign(1, vec![plugin(5, &name, &registry.reference("none"), |_| {})]);
    world.until_state(5, TaskState::Rejected).await;
    world.stop().await;
    remove_everything(&world.config, &world.seams, &*engine).await.unwrap();
}
