//! The container engine of one node.
//!
//! **Owns** the [`Engine`] trait and its two implementations: Docker (through bollard) and the in-memory one (`embedded`).
//!
//! **Must never** know what a task is: containers, images, names and labels only. Every call has a timeout, and its error
//! carries the engine's own message.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use model::{ContainerSpec, Limits, LogDriver, NodeDescription, PortConfig, PortStatus};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the agent needs of a container engine.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// What the engine says of its machine and itself. Also the way to ask whether it is reachable.
    async fn describe(&self) -> Result<NodeDescription, EngineError>;
    /// Makes sure that the image is there: pulls it, and is content with a local one when the registry cannot be reached.
    /// `registry_auth` is Docker's `X-Registry-Auth` value.
    async fn pull(&self, image: &str, registry_auth: Option<&str>) -> Result<(), EngineError>;
    /// Creates a container and returns its id.
    async fn create(&self, container: &NewContainer) -> Result<String, EngineError>;
    /// Starts a container; no error when it runs already.
    async fn start(&self, id: &str) -> Result<(), EngineError>;
    /// Asks it to stop, and kills it after `grace`. No error when it does not run, or is not there.
    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError>;
    /// Removes it with its anonymous volumes, running or not. No error when it is not there.
    async fn remove(&self, id: &str) -> Result<(), EngineError>;
    /// Its state; `None` when it is not there.
    async fn inspect(&self, id: &str) -> Result<Option<ContainerState>, EngineError>;
    /// All containers, running or not, that carry this label (with whatever value), by name.
    async fn list(&self, label: &str) -> Result<Vec<ContainerState>, EngineError>;
    /// What happens to containers that carry this label, from now on. The stream ends when the engine is lost; what
    /// happened meanwhile is found by [`Engine::list`].
    async fn events(&self, label: &str) -> Result<BoxStream<'static, ContainerEvent>, EngineError>;
    /// A container's output.
    async fn logs(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogChunk, EngineError>>, EngineError>;
    /// `docker` or `embedded`: for whatever shows a node or its tasks.
    fn kind(&self) -> &'static str;
}

/// A container to be created.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewContainer {
    /// Its name.
    pub name: String,
    /// What it runs. Its labels are the user's.
    pub spec: ContainerSpec,
    /// Our labels, which win over the user's.
    pub labels: BTreeMap<String, String>,
    /// Limits.
    pub limits: Limits,
    /// Memory reservation in bytes, as a hint for the engine; 0 for none.
    pub memory_reservation_bytes: i64,
    /// Where its output goes; the engine's default when `None`.
    pub log_driver: Option<LogDriver>,
    /// Ports to publish on the node.
    pub ports: Vec<PortConfig>,
}

/// A container as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ContainerState {
    /// The engine's id.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// What it does.
    pub phase: ContainerPhase,
    /// Process id on the node; 0 when it does not run.
    pub pid: i64,
    /// Exit code, once it ended.
    pub exit_code: Option<i64>,
    /// What the engine says went wrong with it; empty when nothing did.
    pub error: String,
    /// Killed for want of memory.
    pub oom_killed: bool,
    /// Its health.
    pub health: Health,
    /// Published ports.
    pub ports: Vec<PortStatus>,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContainerPhase {
    /// Never started.
    #[default]
    Created,
    /// Runs (or is paused or restarting).
    Running,
    /// Ended.
    Exited,
}

/// A container's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// It has no health check.
    #[default]
    None,
    /// Not known yet.
    Starting,
    /// Good.
    Healthy,
    /// Bad.
    Unhealthy,
}

/// Something happened to a container: look at it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// Its id.
    pub id: String,
    /// The engine's word: `start`, `die`, `oom`, `destroy`, `health_status: healthy`, …
    pub action: String,
}

/// Which part of a container's output is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on as it comes.
    pub follow: bool,
    /// Lines from the end; `None` for all.
    pub tail: Option<u64>,
    /// Only after this time, nanoseconds since the Unix epoch; 0 for all.
    pub since_unix_ns: u64,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// From standard error rather than output.
    pub stderr: bool,
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_ns: u64,
    /// One line with its end, as the engine gave it.
    pub data: Bytes,
}

/// A call to the engine that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine did not answer (is it running?).
    #[error("cannot reach the container engine at {endpoint}: {reason}; is it running?")]
    Unreachable {
        /// Where it should be.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the container engine did not {call} within {after:?}")]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// No such image, container, network or volume.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken, or the container is in the wrong state.
    #[error("{0}")]
    Conflict(String),
    /// It refused, and would refuse again.
    #[error("{0}")]
    Refused(String),
    /// It failed; another try may succeed.
    #[error("{0}")]
    Failed(String),
}
