//! Plugins of the embedded engine: records, as its containers are. What one does follows from its remote reference (see
//! [`behaviour`](super::behaviour)): `fail:pull` is in no registry, `fail:start` cannot be enabled, `slow:MS` takes so long to come. Each is a volume
//! driver.

use super::behaviour::Behaviour;
use super::faults::Call;
use super::{EmbeddedEngine, State};
use crate::plugins::check_name;
use crate::{EngineError, PluginSource, PluginState, Plugins};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::time::Duration;

/// Plugins of one engine.
pub const PLUGINS_MAX: usize = 100;
/// For each call but a pull.
const TAKES: Duration = Duration::from_millis(10);

/// All plugins by name.
#[derive(Default)]
pub(crate) struct Installed(BTreeMap<String, Record>);

struct Record {
    state: PluginState,
    source: PluginSource,
}

fn no_such_plugin(name: &str) -> EngineError {
    EngineError::NotFound(format!("plugin {name:?} not found"))
}

// === impl Installed ===

impl Installed {
    fn get_mut(&mut self, name: &str) -> Result<&mut Record, EngineError> {
        self.0.get_mut(name).ok_or_else(|| no_such_plugin(name))
    }

    /// The same, when it is not enabled.
    fn idle_mut(&mut self, name: &str) -> Result<&mut Record, EngineError> {
        let record = self.get_mut(name)?;
        if record.state.enabled {
            return Err(EngineError::Failed(format!("plugin {name} is enabled: disable it before")));
        }
        Ok(record)
    }

    fn install(&mut self, id: String, name: &str, source: &PluginSource) -> Result<(), EngineError> {
        if self.0.contains_key(name) {
            return Err(EngineError::Conflict(format!("plugin {name} already exists")));
        }
        if self.0.len() >= PLUGINS_MAX {
            return Err(EngineError::Failed(format!("the embedded engine holds at most {PLUGINS_MAX} plugins")));
        }
        let (name, remote) = (name.to_owned(), source.remote.clone());
        let state = PluginState { id, name: name.clone(), remote, ..PluginState::default() };
        self.0.insert(name, Record { state, source: source.clone() });
        Ok(())
    }

    pub(crate) fn set_enabled(&mut self, name: &str, enabled: bool) -> bool {
        self.0.get_mut(name).is_some_and(|r| std::mem::replace(&mut r.state.enabled, enabled) != enabled)
    }

    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Each that runs is one.
    pub(super) fn volume_drivers(&self) -> impl Iterator<Item = (String, String)> {
        self.0.values().filter(|r| r.state.enabled).map(|r| ("Volume".to_owned(), r.state.name.clone()))
    }

    pub(crate) fn put(&mut self, state: PluginState) {
        self.0.insert(state.name.clone(), Record { state, source: PluginSource::default() });
    }
}

// === impl EmbeddedEngine ===

impl EmbeddedEngine {
    /// All plugins as they are, past every fault: for whoever checks the engine from outside.
    pub fn plugins(&self) -> Vec<PluginState> {
        self.inner.with(|s, _| s.plugins.0.values().map(|r| r.state.clone()).collect())
    }

    /// Where a plugin was pulled from last, and with what.
    pub fn plugin_source(&self, name: &str) -> Option<PluginSource> {
        self.inner.with(|s, _| s.plugins.0.get(name).map(|r| r.source.clone()))
    }

    async fn plugin_call<T>(
        &self,
        call: Call,
        name: &str,
        work: impl FnOnce(&mut Installed) -> Result<T, EngineError> + Send,
    ) -> Result<T, EngineError> {
        check_name(name)?;
        self.call(call, TAKES, |s: &mut State, _| work(&mut s.plugins)).await
    }

    async fn plugin_pull(
        &self,
        name: &str,
        source: &PluginSource,
        work: impl FnOnce(&mut Installed) -> Result<(), EngineError> + Send,
    ) -> Result<(), EngineError> {
        check_name(name)?;
        check_name(&source.remote)?;
        let behaviour = Behaviour::of(&source.remote);
        self.call(Call::PluginPull, behaviour.pull_takes, |s, _| {
            if behaviour.no_image {
                return Err(EngineError::NotFound(format!(
                    "error resolving plugin reference: {}: not found",
                    source.remote
                )));
            }
            work(&mut s.plugins)
        })
        .await
    }
}

#[async_trait]
impl Plugins for EmbeddedEngine {
    async fn plugin(&self, name: &str) -> Result<Option<PluginState>, EngineError> {
        self.plugin_call(Call::PluginLook, name, |p| Ok(p.0.get(name).map(|r| r.state.clone()))).await
    }

    async fn plugin_install(&self, name: &str, source: &PluginSource) -> Result<(), EngineError> {
        let mut id = [0; 32];
        self.inner.rand.fill(&mut id);
        let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
        self.plugin_pull(name, source, |p| p.install(id, name, source)).await
    }

    async fn plugin_upgrade(&self, name: &str, source: &PluginSource) -> Result<(), EngineError> {
        self.plugin_pull(name, source, |p| {
            let record = p.idle_mut(name)?;
            record.source = source.clone();
            record.state.remote.clone_from(&source.remote);
            Ok(())
        })
        .await
    }

    async fn plugin_set(&self, name: &str, env: &[String]) -> Result<(), EngineError> {
        self.plugin_call(Call::PluginSet, name, |p| {
            p.idle_mut(name)?.state.env = env.to_vec();
            Ok(())
        })
        .await
    }

    async fn plugin_enable(&self, name: &str) -> Result<(), EngineError> {
        self.plugin_call(Call::PluginEnable, name, |p| {
            let record = p.get_mut(name)?;
            if record.state.enabled {
                return Err(EngineError::Conflict(format!("already enabled: plugin {name} is enabled")));
            }
            if Behaviour::of(&record.state.remote).no_start {
                return Err(EngineError::Failed(
                    "dial unix /run/docker/plugins/plugin.sock: connect: no such file".into(),
                ));
            }
            record.state.enabled = true;
            Ok(())
        })
        .await
    }

    async fn plugin_disable(&self, name: &str) -> Result<(), EngineError> {
        self.plugin_call(Call::PluginDisable, name, |p| {
            p.set_enabled(name, false);
            Ok(())
        })
        .await
    }

    async fn plugin_remove(&self, name: &str) -> Result<(), EngineError> {
        self.plugin_call(Call::PluginRemove, name, |p| {
            p.remove(name);
            Ok(())
        })
        .await
    }
}
