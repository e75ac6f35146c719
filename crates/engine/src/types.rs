//! Containers, what happens to them, and their output.

use bytes::Bytes;
use model::{ContainerSpec, Limits, LogDriver, PortConfig, PortStatus};
use std::collections::BTreeMap;

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
    /// Bytes of swap besides the memory limit; -1 for any; `None` for the engine's default.
    pub swap_bytes: Option<i64>,
    /// How readily the kernel swaps, 0 to 100; `None` for the engine's default.
    pub memory_swappiness: Option<i64>,
    /// Memory reservation in bytes, as a hint for the engine; 0 for none.
    pub memory_reservation_bytes: i64,
    /// Where its output goes; the engine's default when `None`.
    pub log_driver: Option<LogDriver>,
    /// Ports to publish on the node.
    pub ports: Vec<PortConfig>,
    /// Files of the node's that it sees read-only, beside the mounts of `spec`.
    pub files: Vec<crate::FileMount>,
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
