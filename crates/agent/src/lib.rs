//! The agent of one node: it makes the node's containers match the tasks that managers assigned to it.
//!
//! **Owns** the way from assignments to containers and plugins of the engine: a session with some manager ([`Link`]), the assignment set and how new it
//! is ([`Position`]), the state machine of each task ([`step`]), adoption and clean-up of containers, status reports that
//! are resent until they are acknowledged, and the output of tasks for whoever asked for it, and the commands that managers
//! run in the containers of its own tasks, and in no others (`exec`).
//!
//! It keeps secrets and configs in memory only, its own and the machine's (`files`): for as long as a task needs them.
//!
//! **Must never** ask a manager for permission to keep running. What was assigned is on disk, so an agent carries on without
//! managers, and after its own restart it adopts its containers instead of restarting them. It never touches a container
//! that does not carry the label of its node ([`NODE_LABEL`]).
//!
//! How it is put together: a `worker` holds the set and every task's status, writes them to disk, and only then acts; one
//! `runner` for each task (for one that is a plugin, that of `plugin`) asks the pure [`step`] function what to do and does it; a `watcher` follows the engine's
//! events; a `session` talks to the managers.

#![forbid(unsafe_code)]

mod exec;
mod facts;
mod files;
mod link;
mod logs;
mod names;
mod outbox;
mod plugin;
mod runner;
mod saved;
mod session;
mod set;
pub mod step;
#[cfg(test)]
mod testing;
mod watcher;
mod worker;

pub use link::{Link, LinkError, SessionInfo};
pub use names::{NODE_LABEL, TASK_LABEL};
pub use saved::SavedError;
pub use set::Position;

use engine::{Engine, EngineError};
use model::{NodeId, PayloadId, Task};
use parking_lot::Mutex;
use seams::{Seams, Tasks};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How an agent is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// The node it works for.
    pub node_id: NodeId,
    /// The file in which it keeps its assignments.
    pub state_file: PathBuf,
    /// The host name that it gives the managers, instead of the engine's. Several nodes on one engine need it.
    pub hostname: Option<String>,
    /// How often it compares the engine's containers with what it believes, in case an event was lost.
    pub resync_period: Duration,
    /// Deliberate bugs. Only the simulation sets any.
    pub canaries: AgentCanaries,
}

/// Deliberate bugs, each of which the simulation must catch. **Simulation only**: all are off unless it turns one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentCanaries {
    /// After a restart, take no notice of the containers that are there.
    pub adopt_nothing: bool,
    /// Let a lower position replace a higher one.
    pub accept_stale_assignments: bool,
}

/// A running agent.
pub struct Agent {
    group: Tasks,
    info: watch::Receiver<SessionInfo>,
    view: Arc<Mutex<Vec<Task>>>,
    handle: worker::Handle,
}

/// What all parts of an agent share.
pub(crate) struct Context {
    pub(crate) config: AgentConfig,
    pub(crate) seams: Seams,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) exec: exec::Room,
    pub(crate) plugins: plugin::Locks,
}

// === impl AgentConfig ===

impl AgentConfig {
    /// The usual settings.
    pub fn new(node_id: NodeId, state_file: PathBuf) -> AgentConfig {
        AgentConfig {
            node_id,
            state_file,
            hostname: None,
            resync_period: Duration::from_secs(20),
            canaries: AgentCanaries::default(),
        }
    }
}

// === impl Agent ===

impl Agent {
    /// Starts an agent: reads what it was assigned before, and carries on with it at once, managers or not. Its tasks run in
    /// a group of their own that also stops with `tasks`.
    ///
    /// # Errors
    /// When the state file cannot be read or is damaged; it says what to do.
    pub async fn start(
        config: AgentConfig,
        seams: Seams,
        engine: Arc<dyn Engine>,
        link: Arc<dyn Link>,
        tasks: &Tasks,
    ) -> Result<Agent, SavedError> {
        let saved = saved::read(&*seams.disk, &config.state_file).await?;
        let (exec, plugins) = (exec::Room::default(), plugin::Locks::default());
        let context = Arc::new(Context { config, seams, engine, link, exec, plugins });
        let group = tasks.child();
        let view = Arc::new(Mutex::new(Vec::new()));
        let (worker, handle) = worker::Worker::new(Arc::clone(&context), saved, group.clone(), Arc::clone(&view));
        let (info, info_rx) = watch::channel(SessionInfo::default());
        let own_handle = handle.clone();
        group.spawn("agent worker", worker.run());
        group.spawn("agent engine watcher", watcher::run(Arc::clone(&context), handle.clone()));
        group.spawn_to_end("agent session", session::run(context, handle, info, group.clone()));
        Ok(Agent { group, info: info_rx, view, handle: own_handle })
    }

    /// What the managers say of the cluster, whenever it changes.
    pub fn session(&self) -> watch::Receiver<SessionInfo> {
        self.info.clone()
    }

    /// The tasks that this node has, with the agent's own idea of their status, by id.
    pub fn tasks(&self) -> Vec<Task> {
        self.view.lock().clone()
    }

    /// The data of secrets and configs that it has in memory, for whoever checks that it has no more than it needs.
    pub fn granted(&self) -> Vec<PayloadId> {
        self.handle.granted()
    }

    /// Says goodbye to the manager and stops, at most after `timeout`; false when something was still running then.
    /// Containers are left running.
    pub async fn stop(self, timeout: Duration) -> bool {
        self.group.shutdown(timeout).await
    }
}

/// Stops and removes every container of this node with the files it was given, removes the plugins that were installed for its
/// tasks, and forgets its assignments: what is left to do once a node has left its
/// cluster. The agent must be stopped before.
///
/// # Errors
/// The first failure of the engine; what could be removed is removed all the same.
pub async fn remove_everything(config: &AgentConfig, seams: &Seams, engine: &dyn Engine) -> Result<(), EngineError> {
    let (disk, file) = (&*seams.disk, config.state_file.as_path());
    // Only the state file knows of them, and does until they are gone: whoever is interrupted does all of this again. One that
    // cannot be read was said so of when the agent was started.
    let plugins = saved::read(disk, file).await.map(|saved| saved.plugins).unwrap_or_default();
    let forgotten = if plugins.0.is_empty() {
        disk.remove(file).await
    } else {
        saved::write(disk, file, None, Vec::new(), plugins.clone()).await
    };
    // One that stays as it was only names tasks that are not there any more.
    if let Err(error) = forgotten {
        tracing::warn!("cannot forget the assignments in {}: {error}", file.display());
    }
    let mut first_error = None;
    for container in engine.list(&names::own_label(&config.node_id)).await? {
        let removed = async {
            engine.stop(&container.id, model::limits::STOP_GRACE_PERIOD_DEFAULT).await?;
            engine.remove(&container.id).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(container = container.name, "cannot remove it: {error}");
            first_error.get_or_insert(error);
        }
    }
    for (name, owned) in &plugins.0 {
        if let Err(error) = plugin::remove(engine, name, owned).await {
            tracing::warn!(plugin = name, "cannot remove it: {error}");
            first_error.get_or_insert(error);
        }
    }
    if first_error.is_none()
        && let Err(error) = disk.remove(file).await
    {
        tracing::warn!("cannot remove {}: {error}", file.display());
    }
    if let Err(error) = engine.files().clear(config.node_id.as_str()).await {
        tracing::warn!("cannot remove the files of this node's containers: {error}");
        first_error.get_or_insert(error);
    }
    first_error.map_or(Ok(()), Err)
}
