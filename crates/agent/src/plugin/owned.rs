//! Which plugins of the node's engine are whose. Plugins have no labels: that one was installed for a service is known here
//! only, and is on disk before it is installed. Pure.

use engine::PluginState;
use model::{ServiceId, Task, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A plugin that was installed for a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnedPlugin {
    /// Its service.
    pub(crate) service: ServiceId,
    /// The last of the service's tasks that installed or upgraded it.
    pub(crate) task: TaskId,
    /// The engine's id; `None` while nobody knows whether it was installed.
    pub(crate) id: Option<String>,
    /// From where it was wanted when it was claimed last; empty as agents wrote it that did not say.
    #[serde(default)]
    pub(crate) remote: String,
    /// It is being removed.
    #[serde(skip)]
    pub(crate) leaving: bool,
}

/// All of them, by their names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct OwnedPlugins(pub(crate) BTreeMap<String, OwnedPlugin>);

/// A task that wants to install or upgrade a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) name: String,
    pub(crate) service: ServiceId,
    pub(crate) task: TaskId,
    /// From where it wants it.
    pub(crate) remote: String,
    /// The plugin that has the name.
    pub(crate) found: Option<PluginState>,
}

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// It is the task's.
    Granted,
    /// A newer task of the service has it.
    Handed,
    /// The name is somebody else's.
    Taken,
    /// It is just being removed: ask again.
    Leaving,
}

// === impl OwnedPlugins ===

impl OwnedPlugins {
    /// Gives the plugin to a task, if it may have it. `outlives` says whether a task is active and newer than the one that asks.
    pub(crate) fn claim(&mut self, claim: Claim, outlives: impl Fn(&TaskId) -> bool) -> Claimed {
        let Claim { name, service, task, remote, found } = claim;
        match self.0.get(&name) {
            Some(owned) if owned.leaving => return Claimed::Leaving,
            Some(owned) if owned.service != service => return Claimed::Taken,
            Some(owned) if owned.task != task && outlives(&owned.task) => return Claimed::Handed,
            // Somebody removed ours and installed another by hand.
            Some(owned) if !owned.may_be(found.as_ref()) => return Claimed::Taken,
            None if found.is_some() => return Claimed::Taken,
            _ => {}
        }
        let id = found.map(|plugin| plugin.id);
        self.0.insert(name, OwnedPlugin { service, task, id, remote, leaving: false });
        Claimed::Granted
    }

    /// What a task that has claimed it found in the engine afterwards: it was installed with this id, or was not.
    pub(crate) fn found(&mut self, name: &str, task: &TaskId, id: Option<String>) {
        let Some(owned) = self.0.get_mut(name).filter(|o| o.task == *task) else { return };
        if id.is_some() || owned.id.is_some() {
            owned.id = id;
        } else {
            self.0.remove(name);
        }
    }

    /// Those that none of these tasks needs any more.
    pub(crate) fn unneeded<'a>(&self, needing: impl Iterator<Item = &'a Task> + Clone) -> Vec<String> {
        let needed = |name: &str, owned: &OwnedPlugin| {
            let is_of =
                |t: &Task| t.service_id == owned.service && t.spec.plugin().is_some_and(|p| p.local_name() == name);
            needing.clone().any(is_of)
        };
        let idle = self.0.iter().filter(|(name, owned)| !owned.leaving && !needed(name, owned));
        idle.map(|(name, _)| name.clone()).collect()
    }
}

// === impl OwnedPlugin ===

impl OwnedPlugin {
    /// True when this plugin can be it; `None`: there is none of its name.
    pub(crate) fn may_be(&self, found: Option<&PluginState>) -> bool {
        match (&self.id, found) {
            (Some(own), Some(found)) => *own == found.id,
            // Installed by a call whose answer was lost; what came from elsewhere was not.
            (None, Some(found)) => self.remote.is_empty() || found.is_from(&self.remote),
            (_, None) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{a_plugin_task, task_id};

    fn service(c: char) -> ServiceId {
        c.to_string().repeat(25).parse().unwrap()
    }

    fn claim(owned: &mut OwnedPlugins, service_name: char, task: u8, found: Option<&str>) -> Claimed {
        let claim = Claim {
            name: "net:latest".into(),
            service: service(service_name),
            task: task_id(task),
            remote: "registry/net:1".into(),
            found: found.map(|id| installed(id, "registry/net:1")),
        };
        // A task with a higher number is newer, and those above 100 are over.
        owned.claim(claim, |other| *other > task_id(task) && *other < task_id(100))
    }

    fn installed(id: &str, remote: &str) -> PluginState {
        PluginState { id: id.into(), remote: remote.into(), ..PluginState::default() }
    }

    #[test]
    fn while_nobody_knows_whether_it_was_installed_one_from_elsewhere_is_somebody_elses() {
        let mut owned = OwnedPlugins::default();
        assert_eq!(claim(&mut owned, 'a', 1, None), Claimed::Granted);
        let it = &owned.0["net:latest"];
        assert!(it.may_be(Some(&installed("x", "registry/net:1"))) && it.may_be(None));
        assert!(!it.may_be(Some(&installed("x", "registry/net:2"))));
        owned.found("net:latest", &task_id(1), Some("x".into()));
        assert!(owned.0["net:latest"].may_be(Some(&installed("x", "registry/net:2"))), "an upgrade of it");
    }

    #[test]
    fn a_plugin_is_its_services_and_nobody_elses() {
        let mut owned = OwnedPlugins::default();
        assert_eq!(claim(&mut owned, 'a', 1, Some("hand")), Claimed::Taken, "somebody installed it by hand");
        assert_eq!(claim(&mut owned, 'a', 1, None), Claimed::Granted);
        assert_eq!(claim(&mut owned, 'b', 2, None), Claimed::Taken, "of another service, which is about to install it");
        owned.found("net:latest", &task_id(1), Some("x".into()));
        assert_eq!(claim(&mut owned, 'a', 3, Some("x")), Claimed::Granted, "a newer task takes it over");
        assert_eq!(claim(&mut owned, 'a', 1, Some("x")), Claimed::Handed, "and the older does not get it back");
        assert_eq!(claim(&mut owned, 'a', 3, Some("y")), Claimed::Taken, "another was installed by hand in its place");
        assert_eq!(claim(&mut owned, 'a', 3, None), Claimed::Granted, "it was removed by hand");
        owned.0.get_mut("net:latest").unwrap().leaving = true;
        assert_eq!(claim(&mut owned, 'a', 3, None), Claimed::Leaving);
    }

    #[test]
    fn a_task_that_is_over_does_not_keep_it() {
        let mut owned = OwnedPlugins::default();
        assert_eq!(claim(&mut owned, 'a', 101, None), Claimed::Granted);
        assert_eq!(claim(&mut owned, 'a', 1, Some("x")), Claimed::Granted);
    }

    #[test]
    fn what_could_not_be_installed_is_nobodys() {
        let mut owned = OwnedPlugins::default();
        claim(&mut owned, 'a', 1, None);
        owned.found("net:latest", &task_id(2), None);
        assert_eq!(owned.0.len(), 1, "that was not the task that has it");
        owned.found("net:latest", &task_id(1), None);
        assert_eq!(owned, OwnedPlugins::default());
        assert_eq!(claim(&mut owned, 'a', 1, Some("hand")), Claimed::Taken);
    }

    #[test]
    fn a_plugin_goes_when_no_task_of_its_service_needs_it() {
        let mut owned = OwnedPlugins::default();
        let task = a_plugin_task(1, "net", "registry/net:1");
        let id = task.service_id.clone();
        let (name, remote) = ("net:latest".into(), "registry/net:1".into());
        owned.claim(Claim { name, service: id, task: task.id.clone(), remote, found: None }, |_| false);
        assert_eq!(owned.unneeded([&task].into_iter()), Vec::<String>::new());
        let other = Task { service_id: service('z'), ..task.clone() };
        let renamed = Task { spec: a_plugin_task(1, "other", "registry/net:1").spec, ..task };
        assert_eq!(owned.unneeded([&other, &renamed].into_iter()), ["net:latest"]);
        owned.0.get_mut("net:latest").unwrap().leaving = true;
        assert_eq!(owned.unneeded(std::iter::empty()), Vec::<String>::new(), "once is enough");
    }
}
