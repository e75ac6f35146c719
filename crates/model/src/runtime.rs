//! What a task is: a container, or a plugin of its node's engine.

use crate::{
    ContainerSpec, Dependency, GrantedFile, LogDriver, PayloadId, Placement, RegistryAuth, ResourceRequirements,
    RestartPolicy, TaskSpec, limits,
};
use serde::{Deserialize, Serialize, Serializer};
use std::time::Duration;

/// What each task of a service is. One of several, so that no task can be both or none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // nearly all are containers, and one spec is shared by all tasks that have it
pub enum Runtime {
    /// A container.
    Container(ContainerSpec),
    /// A plugin that is installed in the engine of the task's node.
    Plugin(PluginSpec),
}

/// A plugin, in the engine's terms.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginSpec {
    /// The name that it gets on the node; that of `remote` when empty.
    pub name: String,
    /// Where it comes from: a reference in a registry.
    pub remote: String,
    /// What it is allowed. The engine installs it only when that is just what it asks for.
    pub privileges: Vec<PluginPrivilege>,
    /// Installed, and not to be enabled.
    pub disabled: bool,
    /// `KEY=value` settings.
    pub env: Vec<String>,
    /// What the registry asks for before it gives the plugin.
    pub registry_auth: Option<RegistryAuth>,
}

/// Something that a plugin is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginPrivilege {
    /// What kind: `network`, `mount`, `device`, `capabilities` …
    pub name: String,
    /// The engine's words for it.
    pub description: String,
    /// Which.
    pub value: Vec<String>,
}

// === impl Runtime ===

impl Runtime {
    /// Docker's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Runtime::Container(_) => "container",
            Runtime::Plugin(_) => "plugin",
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime::Container(ContainerSpec::default())
    }
}

impl From<ContainerSpec> for Runtime {
    fn from(container: ContainerSpec) -> Runtime {
        Runtime::Container(container)
    }
}

impl From<PluginSpec> for Runtime {
    fn from(plugin: PluginSpec) -> Runtime {
        Runtime::Plugin(plugin)
    }
}

// === impl PluginSpec ===

impl PluginSpec {
    /// The name that the engine gives it: without what every name has (`docker.io/library/`), and with the tag that it means.
    pub fn local_name(&self) -> String {
        let given = if self.name.is_empty() { &self.remote } else { &self.name };
        let given = given.split('@').next().unwrap_or(given);
        let hub = given.strip_prefix("docker.io/").or_else(|| given.strip_prefix("index.docker.io/"));
        let given = hub.unwrap_or(given);
        let given = given.strip_prefix("library/").unwrap_or(given);
        let last = given.rsplit('/').next().unwrap_or(given);
        if last.contains(':') { given.to_owned() } else { format!("{given}:latest") }
    }
}

// === impl TaskSpec ===

impl TaskSpec {
    /// The container, when it is one.
    pub fn container(&self) -> Option<&ContainerSpec> {
        match &self.runtime {
            Runtime::Container(container) => Some(container),
            Runtime::Plugin(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn container_mut(&mut self) -> Option<&mut ContainerSpec> {
        match &mut self.runtime {
            Runtime::Container(container) => Some(container),
            Runtime::Plugin(_) => None,
        }
    }

    /// The plugin, when it is one.
    pub fn plugin(&self) -> Option<&PluginSpec> {
        match &self.runtime {
            Runtime::Plugin(plugin) => Some(plugin),
            Runtime::Container(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn plugin_mut(&mut self) -> Option<&mut PluginSpec> {
        match &mut self.runtime {
            Runtime::Plugin(plugin) => Some(plugin),
            Runtime::Container(_) => None,
        }
    }

    /// Where what it runs comes from: the container's image, or the plugin's remote reference.
    pub fn origin(&self) -> &str {
        match &self.runtime {
            Runtime::Container(container) => &container.image,
            Runtime::Plugin(plugin) => &plugin.remote,
        }
    }

    /// What the registry asks for before it gives the image or the plugin.
    pub fn registry_auth(&self) -> Option<&RegistryAuth> {
        match &self.runtime {
            Runtime::Container(container) => container.registry_auth.as_ref(),
            Runtime::Plugin(plugin) => plugin.registry_auth.as_ref(),
        }
    }

    /// Puts other credentials in their place.
    pub fn set_registry_auth(&mut self, auth: Option<RegistryAuth>) {
        match &mut self.runtime {
            Runtime::Container(container) => container.registry_auth = auth,
            Runtime::Plugin(plugin) => plugin.registry_auth = auth,
        }
    }

    /// The secrets and configs that it is given. (A plugin is given none, nor are any of the following.)
    pub fn dependencies(&self) -> impl Iterator<Item = Dependency> + '_ {
        self.container().into_iter().flat_map(ContainerSpec::dependencies)
    }

    /// The versions of their data.
    pub fn payloads(&self) -> impl Iterator<Item = PayloadId> + '_ {
        self.container().into_iter().flat_map(ContainerSpec::payloads)
    }

    /// The files that it is given of them.
    pub fn granted_files(&self) -> impl Iterator<Item = GrantedFile<'_>> {
        self.container().into_iter().flat_map(ContainerSpec::granted_files)
    }

    /// Time between the signal that asks it to stop and the kill, with the default filled in.
    pub fn stop_grace_period(&self) -> Duration {
        self.container().and_then(|c| c.stop_grace_period).unwrap_or(limits::STOP_GRACE_PERIOD_DEFAULT)
    }
}

// === the persisted form ===

/// A task spec as it is persisted. It was so before there were plugins: a container is written as ever, and a plugin beside a
/// container that is empty, which a release that knows no plugins refuses to run (it has no image).
#[derive(Deserialize)]
pub(crate) struct StoredTaskSpec {
    container: ContainerSpec,
    #[serde(default)]
    plugin: Option<PluginSpec>,
    resources: Option<ResourceRequirements>,
    restart: Option<RestartPolicy>,
    placement: Option<Placement>,
    log_driver: Option<LogDriver>,
    force_update: u64,
}

/// The same, of a spec that stays where it is.
#[derive(Serialize)]
struct StoringTaskSpec<'a> {
    container: &'a ContainerSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a PluginSpec>,
    resources: &'a Option<ResourceRequirements>,
    restart: &'a Option<RestartPolicy>,
    placement: &'a Option<Placement>,
    log_driver: &'a Option<LogDriver>,
    force_update: u64,
}

impl From<StoredTaskSpec> for TaskSpec {
    fn from(stored: StoredTaskSpec) -> TaskSpec {
        let StoredTaskSpec { container, plugin, resources, restart, placement, log_driver, force_update } = stored;
        let runtime = plugin.map_or(Runtime::Container(container), Runtime::Plugin);
        TaskSpec { runtime, resources, restart, placement, log_driver, force_update }
    }
}

impl Serialize for TaskSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let TaskSpec { runtime, resources, restart, placement, log_driver, force_update } = self;
        let empty;
        let (container, plugin) = match runtime {
            Runtime::Container(container) => (container, None),
            Runtime::Plugin(plugin) => {
                empty = ContainerSpec::default();
                (&empty, Some(plugin))
            }
        };
        let force_update = *force_update;
        StoringTaskSpec { container, plugin, resources, restart, placement, log_driver, force_update }
            .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persisted;

    /// The form of a task spec before there were plugins.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Before {
        container: ContainerSpec,
        resources: Option<ResourceRequirements>,
        restart: Option<RestartPolicy>,
        placement: Option<Placement>,
        log_driver: Option<LogDriver>,
        force_update: u64,
    }

    fn before(container: ContainerSpec) -> Before {
        Before { container, resources: None, restart: None, placement: None, log_driver: None, force_update: 3 }
    }

    fn bytes(value: &impl Serialize) -> Vec<u8> {
        rmp_serde::to_vec_named(value).expect("plain data encodes")
    }

    #[test]
    fn a_container_is_persisted_as_it_was_before_there_were_plugins() {
        let container = ContainerSpec { image: "web:1".into(), ..ContainerSpec::default() };
        let spec = TaskSpec { runtime: container.clone().into(), force_update: 3, ..TaskSpec::default() };
        assert_eq!(bytes(&spec), bytes(&before(container)));
        assert_eq!(persisted::decode::<TaskSpec>(&bytes(&spec)).expect("it is ours"), spec);
    }

    #[test]
    fn a_plugin_is_a_container_without_an_image_to_who_knows_no_plugins() {
        let plugin = PluginSpec {
            name: "net".into(),
            remote: "registry/net:1".into(),
            privileges: vec![PluginPrivilege {
                name: "network".into(),
                value: vec!["host".into()],
                ..Default::default()
            }],
            disabled: true,
            env: vec!["A=1".into()],
            registry_auth: Some(RegistryAuth("x".into())),
        };
        let spec = TaskSpec { runtime: plugin.into(), force_update: 3, ..TaskSpec::default() };
        assert_eq!(persisted::decode::<TaskSpec>(&bytes(&spec)).expect("it is ours"), spec);
        let older: Before = persisted::decode(&bytes(&spec)).expect("it reads what it knows");
        assert_eq!(older, before(ContainerSpec::default()));
    }

    #[test]
    fn a_plugin_has_the_name_that_the_engine_gives_it() {
        for (name, remote, local) in [
            ("net", "registry:5000/a/net:1", "net:latest"),
            ("net:2", "registry:5000/a/net:1", "net:2"),
            ("", "registry:5000/a/net", "registry:5000/a/net:latest"),
            ("", "docker.io/library/net:1", "net:1"),
            ("", "docker.io/vieux/sshfs", "vieux/sshfs:latest"),
            ("", "index.docker.io/vieux/sshfs:1", "vieux/sshfs:1"),
            ("", "a/net:1@sha256:00", "a/net:1"),
        ] {
            let spec = PluginSpec { name: name.into(), remote: remote.into(), ..PluginSpec::default() };
            assert_eq!(spec.local_name(), local, "{name} {remote}");
        }
    }
}
