//! Tasks that are plugins, through the agent's public surface: a model manager above, the embedded engine below, virtual time.

mod common;

use common::{World, node_id, task, task_id, wanted};
use engine::embedded::Call;
use engine::{EngineError, PluginState, Plugins as _};
use model::{PluginPrivilege, PluginSpec, RegistryAuth, Task, TaskSpec, TaskState, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use swarmlite_agent::{AgentConfig, remove_everything};

const NET: &str = "net:latest";

/// A task of the service `web` that is the plugin `net` from there; a higher number is newer.
fn plugin(n: u8, remote: &str) -> Task {
    plugin_with(n, remote, |_| {})
}

fn plugin_with(n: u8, remote: &str, change: impl FnOnce(&mut PluginSpec)) -> Task {
    let mut plugin = PluginSpec { name: "net".into(), remote: remote.into(), ..PluginSpec::default() };
    change(&mut plugin);
    let mut task = task(n, "");
    task.spec = Arc::new(TaskSpec { runtime: plugin.into(), ..TaskSpec::default() });
    task.meta.created_at = Timestamp(u64::from(n));
    task.for_node = task.node_id.clone();
    Task { slot: 0, ..task }
}

fn of_service(c: char, task: Task) -> Task {
    Task { service_id: c.to_string().repeat(25).parse().unwrap(), ..task }
}

/// The plugin's remote reference and whether it runs; `None` when it is not there.
fn net(world: &World) -> Option<(String, bool)> {
    world.engine.plugins().into_iter().find(|p| p.name == NET).map(|p| (p.remote, p.enabled))
}

fn is(world: &World, remote: &str, enabled: bool) -> bool {
    net(world) == Some((remote.to_owned(), enabled))
}

#[tokio::test(start_paused = true)]
async fn a_plugin_is_installed_enabled_disabled_and_removed() {
    let world = World::started(1).await;
    let privilege =
        PluginPrivilege { name: "network".into(), value: vec!["host".into()], ..PluginPrivilege::default() };
    let new = plugin_with(1, "registry/net:1", |p| {
        p.privileges = vec![privilege.clone()];
        p.env = vec!["DEBUG=1".into()];
        p.registry_auth = Some(RegistryAuth("e30=".into()));
    });
    world.manager().assign(1, vec![wanted(new.clone(), TaskState::Ready)]);
    world.until_state(1, TaskState::Ready).await;
    assert!(is(&world, "registry/net:1", false), "{:?}", net(&world));
    world.manager().assign(1, vec![new.clone()]);
    world.until_state(1, TaskState::Running).await;
    assert!(is(&world, "registry/net:1", true));
    assert_eq!(world.engine.plugins()[0].env, ["DEBUG=1"]);
    let source = world.engine.plugin_source(NET).unwrap();
    assert_eq!((source.privileges, source.registry_auth.as_deref()), (vec![privilege], Some("e30=")));
    let status = world.manager().status(&task_id(1));
    assert_eq!((status.message.as_str(), status.container, status.running_at.is_some()), ("started", None, true));
    assert!(world.engine.containers().is_empty());

    // Stopped, it stays installed, as a container that has stopped is kept.
    world.manager().assign(1, vec![wanted(new.clone(), TaskState::Shutdown)]);
    world.until_state(1, TaskState::Shutdown).await;
    assert!(is(&world, "registry/net:1", false));
    world.manager().assign(1, vec![wanted(new, TaskState::Remove)]);
    world.until("it is removed", |w| net(w).is_none()).await;
    world.manager().assign(1, vec![]);
    world.until("the task is forgotten", |w| w.agent.as_ref().unwrap().tasks().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_to_be_enabled_is_only_installed() {
    let world = World::started(1).await;
    world.manager().assign(1, vec![plugin_with(1, "registry/net:1", |p| p.disabled = true)]);
    world.until_state(1, TaskState::Running).await;
    assert!(is(&world, "registry/net:1", false));
    assert!(world.engine.faults().set_plugin(NET, true));
    world.until_state(1, TaskState::Failed).await;
    assert_eq!(world.manager().status(&task_id(1)).err, "plugin enabled");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_does_by_hand_is_a_failure() {
    let world = World::started(1).await;
    let faults = world.engine.faults();
    world.manager().assign(1, vec![plugin(1, "registry/net:1")]);
    world.until_state(1, TaskState::Running).await;
    assert!(faults.set_plugin(NET, false));
    world.until_state(1, TaskState::Failed).await;
    assert_eq!(world.manager().status(&task_id(1)).err, "plugin disabled");
    // What follows has it again, and removed it comes again.
    let before = wanted(plugin(1, "registry/net:1"), TaskState::Shutdown);
    world.manager().assign(1, vec![before.clone(), plugin(2, "registry/net:1")]);
    world.until_state(2, TaskState::Running).await;
    assert!(faults.vanish_plugin(NET));
    world.until_state(2, TaskState::Failed).await;
    assert_eq!(world.manager().status(&task_id(2)).err, "plugin removed");
    world.manager().assign(1, vec![plugin(3, "registry/net:1")]);
    world.until_state(3, TaskState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_services_is_never_touched() {
    let world = World::started(1).await;
    let by_hand =
        PluginState { id: "1".repeat(64), name: NET.into(), remote: "mine:1".into(), enabled: true, env: vec![] };
    world.engine.faults().put_plugin(by_hand.clone());
    world.manager().assign(1, vec![plugin(1, "registry/net:1")]);
    world.until_state(1, TaskState::Rejected).await;
    assert_eq!(world.manager().status(&task_id(1)).err, format!("plugin already exists: {NET}"));
    // One service has it, another wants it.
    let other = |task: Task| {
        let mut task = of_service('x', task);
        Arc::make_mut(&mut task.spec).plugin_mut().unwrap().name = "log".into();
        task
    };
    world.manager().assign(1, vec![other(plugin(2, "registry/log:1"))]);
    world.until_state(2, TaskState::Running).await;
    let mut thief = other(plugin(3, "registry/log:2"));
    thief.service_id = "z".repeat(25).parse().unwrap();
    world.manager().assign(1, vec![other(plugin(2, "registry/log:1")), thief]);
    world.until_state(3, TaskState::Rejected).await;
    assert_eq!(world.manager().status(&task_id(3)).err, "plugin already exists: log:latest");
    world.manager().assign(1, vec![]);
    world.until("only the one by hand is left", |w| w.engine.plugins() == [by_hand.clone()]).await;
}

#[tokio::test(start_paused = true)]
async fn an_update_puts_the_new_one_in_its_place() {
    let world = World::started(1).await;
    let old = || plugin_with(1, "registry/net:1", |p| p.env = vec!["A=1".into()]);
    world.manager().assign(1, vec![old()]);
    world.until_state(1, TaskState::Running).await;
    let id = world.engine.plugins()[0].id.clone();
    // The next one is made ready while the one before still runs: that has no business with it any more, and does not fail.
    let new = || plugin_with(2, "registry/net:2", |p| p.env = vec!["B=2".into()]);
    world.manager().assign(1, vec![old(), wanted(new(), TaskState::Ready)]);
    world.until_state(2, TaskState::Ready).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.manager().status(&task_id(1)).state, TaskState::Running);
    world.manager().assign(1, vec![wanted(old(), TaskState::Shutdown), wanted(new(), TaskState::Ready)]);
    world.until_state(1, TaskState::Shutdown).await;
    world.manager().assign(1, vec![wanted(old(), TaskState::Shutdown), new()]);
    world.until_state(2, TaskState::Running).await;
    assert!(is(&world, "registry/net:2", true));
    let now = &world.engine.plugins()[0];
    assert_eq!((&now.id, &now.env[..]), (&id, &["B=2".to_owned()][..]), "upgraded, not installed anew");
    // The old one is forgotten, and the plugin stays.
    world.manager().assign(1, vec![new()]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(is(&world, "registry/net:2", true));
    // With a new name, the old one goes with the last task that had it.
    let renamed = || plugin_with(3, "registry/net:2", |p| p.name = "other".into());
    world.manager().assign(1, vec![wanted(new(), TaskState::Shutdown), renamed()]);
    world.until_state(3, TaskState::Running).await;
    world.manager().assign(1, vec![renamed()]);
    world.until("the old name is gone", |w| net(w).is_none()).await;
    assert_eq!(world.engine.plugins().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_fails_leaves_what_was_there() {
    let world = World::started(1).await;
    let old = || plugin(1, "registry/net:1");
    world.manager().assign(1, vec![old()]);
    world.until_state(1, TaskState::Running).await;
    world.manager().assign(1, vec![old(), wanted(plugin(2, "fail:pull"), TaskState::Ready)]);
    world.until_state(2, TaskState::Rejected).await;
    assert!(is(&world, "registry/net:1", true), "{:?}", net(&world));
    assert_eq!(world.manager().status(&task_id(2)).err, "error resolving plugin reference: fail:pull: not found");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.manager().status(&task_id(1)).state, TaskState::Running);
    // The same again, while the registry is away: what is here will do.
    world.engine.faults().fail_next(Call::PluginPull, 100, EngineError::Failed("connection refused".into()));
    world.manager().assign(1, vec![wanted(old(), TaskState::Shutdown), plugin(3, "registry/net:1")]);
    world.until_state(3, TaskState::Running).await;
    world.engine.faults().clear();
    // Where there is none, the registry is asked a few times.
    world.manager().assign(1, vec![]);
    world.until("nothing is there", |w| net(w).is_none()).await;
    world.engine.faults().fail_next(Call::PluginPull, 100, EngineError::Failed("connection refused".into()));
    world.manager().assign(1, vec![plugin(5, "registry/net:1")]);
    world.until_state(5, TaskState::Rejected).await;
    assert_eq!(world.manager().status(&task_id(5)).err, "connection refused");
    world.engine.faults().clear();
    // One that cannot be enabled says so.
    world.manager().assign(1, vec![plugin(4, "fail:start")]);
    world.until_state(4, TaskState::Failed).await;
    assert!(world.manager().status(&task_id(4)).err.starts_with("dial unix /run/docker/plugins/"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_knows_its_plugins_again() {
    let mut world = World::started(1).await;
    world.manager().assign(1, vec![plugin(1, "registry/net:1")]);
    world.until_state(1, TaskState::Running).await;
    world.stop().await;
    // Nothing of it is looked for at the registry, and nothing is done to it.
    world.engine.faults().fail_next(Call::PluginPull, 1, EngineError::Failed("not again".into()));
    world.engine.faults().fail_next(Call::PluginDisable, 1, EngineError::Failed("not again".into()));
    world.start().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.manager().status(&task_id(1)).state, TaskState::Running);
    assert!(is(&world, "registry/net:1", true));
    world.engine.faults().clear();
    world.manager().assign(1, vec![wanted(plugin(1, "registry/net:1"), TaskState::Shutdown)]);
    world.until_state(1, TaskState::Shutdown).await;
    // Its service went while the agent was away.
    world.stop().await;
    world.manager().assign(1, vec![]);
    world.start().await;
    world.until("it is removed", |w| net(w).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_could_not_be_removed_goes_later_also_with_another_agent() {
    let mut world = World::started(1).await;
    world.manager().assign(1, vec![plugin(1, "registry/net:1")]);
    world.until_state(1, TaskState::Running).await;
    world.engine.faults().fail_next(Call::PluginRemove, 2, EngineError::Failed("in use".into()));
    world.manager().assign(1, vec![]);
    world.until("the task is forgotten", |w| w.agent.as_ref().unwrap().tasks().is_empty()).await;
    assert!(net(&world).is_some());
    world.stop().await;
    world.start().await;
    world.until("it is removed", |w| net(w).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_call_fails_hangs_or_loses_its_answer_the_plugin_comes_and_goes() {
    for (n, call) in Call::PLUGINS.into_iter().enumerate() {
        for kind in 0..3 {
            let world = World::started(1).await;
            let faults = world.engine.faults();
            match kind {
                0 => faults.fail_next(call, 1, EngineError::Unreachable { endpoint: "e".into(), reason: "r".into() }),
                1 => faults.hang_next(call, 1),
                _ => faults.lose_answer_next(call, 1),
            }
            let task = plugin_with(1, "registry/net:1", |p| p.env = vec!["A=1".into()]);
            world.manager().assign(1, vec![task.clone()]);
            world.until_state(1, TaskState::Running).await;
            assert!(is(&world, "registry/net:1", true), "{n} {kind}");
            world.manager().assign(1, vec![wanted(task, TaskState::Remove)]);
            world.until_state(1, TaskState::Shutdown).await;
            world.until("it is removed", |w| net(w).is_none()).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_removes_what_it_installed_and_nothing_else() {
    let mut world = World::started(1).await;
    let by_hand = PluginState { id: "1".repeat(64), name: "hand:latest".into(), ..PluginState::default() };
    world.engine.faults().put_plugin(by_hand.clone());
    world.manager().assign(1, vec![plugin(1, "registry/net:1")]);
    world.until_state(1, TaskState::Running).await;
    world.stop().await;
    // Another node on the same engine has nothing to remove.
    let other = AgentConfig::new(node_id(2), "/agent/other".into());
    remove_everything(&other, &world.seams, &world.engine).await.unwrap();
    assert!(world.engine.plugin(NET).await.unwrap().is_some());
    // What is left over is still known.
    world.engine.faults().fail_next(Call::PluginRemove, 1, EngineError::Failed("in use".into()));
    remove_everything(&world.config, &world.seams, &world.engine).await.unwrap_err();
    assert!(world.engine.plugin(NET).await.unwrap().is_some());
    remove_everything(&world.config, &world.seams, &world.engine).await.unwrap();
    assert_eq!(world.engine.plugins(), [by_hand]);
    assert_eq!(world.seams.disk.read(&world.config.state_file).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_installs_while_the_engine_does_not_answer_is_theirs() {
    let world = World::started(1).await;
    let faults = world.engine.faults();
    let away = EngineError::Unreachable { endpoint: "e".into(), reason: "r".into() };
    faults.fail_next(Call::PluginPull, 3, away);
    world.manager().assign(1, vec![plugin(1, "registry/net:1")]);
    world.until("it was tried", |w| !w.manager().status(&task_id(1)).err.is_empty()).await;
    let by_hand =
        PluginState { id: "1".repeat(64), name: NET.into(), remote: "mine:1".into(), enabled: true, env: vec![] };
    faults.put_plugin(by_hand.clone());
    world.until_state(1, TaskState::Rejected).await;
    assert_eq!(world.manager().status(&task_id(1)).err, format!("plugin already exists: {NET}"));
    world.manager().assign(1, vec![]);
    world.until("the task is forgotten", |w| w.agent.as_ref().unwrap().tasks().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.engine.plugins(), [by_hand]);
}

/// The leaders' clocks differ: what came later may have been made earlier by the clock.
#[tokio::test(start_paused = true)]
async fn the_next_task_of_an_update_gets_the_plugin_whatever_the_clocks_say() {
    let world = World::started(1).await;
    let old = || Task { spec_version: 1, ..plugin(9, "registry/net:1") };
    let new = || Task { spec_version: 2, ..plugin(2, "registry/net:2") };
    world.manager().assign(1, vec![old()]);
    world.until_state(9, TaskState::Running).await;
    world.manager().assign(1, vec![old(), new()]);
    world.until_state(2, TaskState::Running).await;
    assert!(is(&world, "registry/net:2", true), "{:?}", net(&world));
    assert_eq!(world.manager().status(&task_id(9)).state, TaskState::Running);
}
