//! The container engine of one node.
//!
//! **Owns** the [`Engine`] trait and its two implementations: Docker (through bollard, [`DockerEngine`]) and the in-memory
//! one ([`EmbeddedEngine`]).
//!
//! **Must never** know what a task is: containers, images, plugins, names and labels only. Every call has a timeout, and its error
//! carries the engine's own message.

#![forbid(unsafe_code)]

mod docker;
pub mod embedded;
mod error;
mod exec;
mod files;
mod plugins;
mod types;

pub use docker::{DockerEngine, DockerOptions, InvalidDockerHost};
pub use embedded::EmbeddedEngine;
pub use error::EngineError;
pub use exec::{EXEC_CHUNK_BYTES, ExecIo, ExecStart, ExecState, Execs, NewExec, TerminalSize};
pub use files::{FileMount, FilePlace, HostFile, HostFiles};
pub use plugins::{PluginSource, PluginState, Plugins};
pub use types::{ContainerEvent, ContainerPhase, ContainerState, Health, LogChunk, LogOptions, NewContainer};

use async_trait::async_trait;
use futures::stream::BoxStream;
use model::NodeDescription;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the agent needs of a container engine.
#[async_trait]
pub trait Engine: Execs + Plugins + Send + Sync + 'static {
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
    /// All containers, running or not, that carry this label, by name. `label` is `key` (with whatever value) or `key=value`.
    async fn list(&self, label: &str) -> Result<Vec<ContainerState>, EngineError>;
    /// What happens to containers that carry this label (`key` or `key=value`), from now on. The stream ends when the engine is lost; what
    /// happened meanwhile is found by [`Engine::list`].
    async fn events(&self, label: &str) -> Result<BoxStream<'static, ContainerEvent>, EngineError>;
    /// A container's output.
    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogChunk, EngineError>>, EngineError>;
    /// The details that go with every line of a container's output, as its log options have it (`env`, `labels`, `tag` …). Known
    /// only once there is output.
    async fn log_details(&self, id: &str) -> Result<BTreeMap<String, String>, EngineError>;
    /// Sends a signal (`SIGHUP`) to its main process. An error when it does not run.
    async fn signal(&self, id: &str, signal: &str) -> Result<(), EngineError>;
    /// Where files for its containers are kept in memory.
    fn files(&self) -> Arc<dyn HostFiles>;
    /// `docker` or `embedded`: for whatever shows a node or its tasks.
    fn kind(&self) -> &'static str;
}
