//! Services whose tasks are plugins of the nodes' engines. (How they come and go: `scenarios/plugins.txt`.)

mod common;

use common::World;
use model::{Mode, PluginPrivilege, PluginSpec, RegistryAuth, ServiceId, TaskId, TaskSpec};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a change is, how it is made, and whether it replaces the tasks.
type Change = (&'static str, fn(&mut PluginSpec), bool);

fn plugin() -> TaskSpec {
    let plugin = PluginSpec { name: "net".into(), remote: "registry/net:1".into(), ..PluginSpec::default() };
    TaskSpec { runtime: plugin.into(), ..TaskSpec::default() }
}

fn running(world: &World, id: &ServiceId) -> BTreeSet<TaskId> {
    world.running(id).iter().map(|t| t.id.clone()).collect()
}

#[test]
fn whatever_differs_of_a_plugin_replaces_it_but_for_credentials() {
    let mut world = World::with_nodes(2);
    let id = world.create_service_with("net", 0, plugin(), |s| s.mode = Mode::Global);
    world.settle();
    let changes: [Change; 6] = [
        ("credentials", |p| p.registry_auth = Some(RegistryAuth("e30=".into())), false),
        ("its name", |p| p.name = "other".into(), true),
        ("where it comes from", |p| p.remote = "registry/net:2".into(), true),
        ("what it may do", |p| p.privileges.push(PluginPrivilege::default()), true),
        ("its settings", |p| p.env.push("A=1".into()), true),
        ("whether it is enabled", |p| p.disabled = true, true),
    ];
    for (what, change, replaces) in changes {
        let before = running(&world, &id);
        assert_eq!(before.len(), 2, "{what}");
        world.change_service(&id, |s| change(Arc::make_mut(&mut s.task).plugin_mut().expect("a plugin")));
        world.settle();
        let now = running(&world, &id);
        assert_eq!(now.len(), 2, "{what}");
        assert_eq!(now.is_disjoint(&before), replaces, "{what}");
    }
}
