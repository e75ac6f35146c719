//! Services and what they ask for. Optional fields keep "not given" apart from "given as the default", because the API
//! must echo what the user sent.

use crate::{
    Backoff, CronSpec, GenericRequest, Meta, Mode, Placement, Progress, Runtime, ServiceId, Timestamp, limits,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A service: a desired state in one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Version and times.
    pub meta: Meta,
    /// What the user wants.
    pub spec: ServiceSpec,
    /// Rises with every change of the spec; tasks carry the one they were made from.
    pub spec_version: u64,
    /// What the user wanted before.
    pub previous_spec: Option<ServiceSpec>,
    /// How far the last update has come; `None` when there was none, or the last change needed none (scaling). Whoever
    /// changes the spec sets `None`; one that speaks of another `spec_version` than the service's counts as `None`.
    #[serde(default)]
    pub update_status: Option<UpdateStatus>,
    /// What else has become of it.
    #[serde(default)]
    pub progress: Progress,
}

/// How far an update (or a rollback) has come. Written by the updater; a user's `rollback` starts with one that says
/// [`UpdateState::RollbackStarted`] and `manually requested rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// Where it stands.
    pub state: UpdateState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was done; `None` until then.
    pub completed_at: Option<Timestamp>,
    /// Docker's words for it.
    pub message: String,
    /// The service's `spec_version` that it brings about.
    pub spec_version: u64,
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    /// Tasks are being replaced.
    Updating,
    /// Stopped by a failure; the next change of the service takes it up again.
    Paused,
    /// All tasks are new.
    Completed,
    /// Tasks are being replaced by what was before.
    RollbackStarted,
    /// Stopped by a failure.
    RollbackPaused,
    /// All tasks are as before.
    RollbackCompleted,
}

/// What a user wants of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name, unique in the cluster.
    pub name: ServiceName,
    /// User labels of the service.
    pub labels: BTreeMap<String, String>,
    /// What each task runs.
    pub task: Arc<TaskSpec>,
    /// How many.
    pub mode: Mode,
    /// How it is updated.
    pub update: Option<UpdateConfig>,
    /// How an update is undone.
    pub rollback: Option<UpdateConfig>,
    /// How it is reached.
    pub endpoint: Option<EndpointSpec>,
    /// Of a job: when it runs by itself. From labels.
    #[serde(default)]
    pub cron: Option<CronSpec>,
    /// How the pause before a restart grows. From labels.
    #[serde(default)]
    pub backoff: Backoff,
}

/// A service name: a DNS label, `^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`, at most 63 characters (SwarmKit controlapi).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

/// A string that is not a service name, with SwarmKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServiceName {
    /// Nothing at all.
    #[error("meta: name must be provided")]
    Empty,
    /// Not a DNS label.
    #[error("name must be valid as a DNS name component")]
    NotALabel,
    /// Too long.
    #[error("name must be 63 characters or fewer")]
    TooLong,
}

/// What each task of a service runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "crate::runtime::StoredTaskSpec")]
pub struct TaskSpec {
    /// A container, or a plugin.
    pub runtime: Runtime,
    /// What it needs and may use.
    pub resources: Option<ResourceRequirements>,
    /// What happens when it ends.
    pub restart: Option<RestartPolicy>,
    /// Where it may run.
    pub placement: Option<Placement>,
    /// Where its output goes.
    pub log_driver: Option<LogDriver>,
    /// Raised to replace all tasks though nothing changed.
    pub force_update: u64,
}

/// What a task needs and may use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResourceRequirements {
    /// Enforced by the engine.
    pub limits: Option<Limits>,
    /// Reserved by the scheduler.
    pub reservations: Option<crate::Resources>,
    /// Reserved of what else nodes have.
    #[serde(default)]
    pub generic: Vec<GenericRequest>,
    /// Bytes of swap; -1 for any; `None` when not given.
    #[serde(default)]
    pub swap_bytes: Option<i64>,
    /// How readily the kernel swaps, 0 to 100; `None` when not given.
    #[serde(default)]
    pub memory_swappiness: Option<i64>,
}

/// Limits of a container; zero means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Billionths of a CPU.
    pub nano_cpus: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Processes.
    pub pids: i64,
}

/// What happens when a task ends. Fields that are `None` were not given and have Docker's defaults.
#[derive(Debug, Clone, Eq, Default, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// When it is restarted. Default: any.
    pub condition: Option<RestartCondition>,
    /// After what pause. Default: 5 s.
    pub delay: Option<Duration>,
    /// How often within the window; 0 for ever. Default: 0.
    pub max_attempts: Option<u64>,
    /// The window; zero means since the beginning. Default: 0.
    pub window: Option<Duration>,
}

/// When a task is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    /// Never.
    None,
    /// When it failed.
    OnFailure,
    /// Always.
    Any,
}

/// A logging driver.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogDriver {
    /// Its name; empty for the engine's default.
    pub name: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// How an update (or a rollback) proceeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// Tasks at once; 0 for all.
    pub parallelism: u64,
    /// Between two batches.
    pub delay: Duration,
    /// What a failure does.
    pub failure_action: FailureAction,
    /// How long a new task is watched for failure.
    pub monitor: Option<Duration>,
    /// Share of failures that is tolerated, in millionths.
    pub max_failure_ratio_ppm: u32,
    /// Which first.
    pub order: UpdateOrder,
}

/// What a failed update does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FailureAction {
    /// Stops where it is.
    #[default]
    Pause,
    /// Goes on.
    Continue,
    /// Goes back.
    Rollback,
}

/// Which task goes first in an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UpdateOrder {
    /// The old one stops before the new one starts.
    #[default]
    StopFirst,
    /// The new one runs before the old one stops.
    StartFirst,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// By a virtual address or by names.
    pub mode: EndpointMode,
    /// Published ports.
    pub ports: Vec<PortConfig>,
}

/// How a service's name resolves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EndpointMode {
    /// To a virtual address.
    #[default]
    Vip,
    /// To its tasks' addresses.
    DnsRr,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortConfig {
    /// An optional name.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port in the container.
    pub target_port: u16,
    /// Port outside; 0 lets the engine choose (host mode).
    pub published_port: u16,
    /// Where it is published.
    pub mode: PublishMode,
}

/// Transport protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Where a port is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PublishMode {
    /// On every node (the routing mesh).
    #[default]
    Ingress,
    /// On the node of the task.
    Host,
}

// === impl ServiceName ===

impl ServiceName {
    /// The name's characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ServiceName {
    type Err = InvalidServiceName;
    fn from_str(s: &str) -> Result<Self, InvalidServiceName> {
        if s.is_empty() {
            return Err(InvalidServiceName::Empty);
        }
        // The pattern says: letters, digits, `-`, `_`; the first and the last are letters or digits.
        let inner = s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let ends = [s.as_bytes()[0], s.as_bytes()[s.len() - 1]].iter().all(u8::is_ascii_alphanumeric);
        if !(inner && ends) {
            return Err(InvalidServiceName::NotALabel);
        }
        if s.len() > limits::SERVICE_NAME_CHARS_MAX {
            return Err(InvalidServiceName::TooLong);
        }
        Ok(ServiceName(s.to_owned()))
    }
}

impl TryFrom<String> for ServiceName {
    type Error = InvalidServiceName;
    fn try_from(s: String) -> Result<Self, InvalidServiceName> {
        s.parse()
    }
}

impl From<ServiceName> for String {
    fn from(n: ServiceName) -> String {
        n.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl RestartPolicy ===

impl RestartPolicy {
    /// When, with the default filled in.
    pub fn condition(&self) -> RestartCondition {
        self.condition.unwrap_or(RestartCondition::Any)
    }

    /// The pause, with the default filled in.
    pub fn delay(&self) -> Duration {
        self.delay.unwrap_or(limits::RESTART_DELAY_DEFAULT)
    }
}

impl PartialEq for RestartPolicy {
    /// What is shown alike is equal: `any` and no limit come back from clients that were never told them, and are stored in
    /// both forms. Nothing may be restarted for that.
    fn eq(&self, other: &RestartPolicy) -> bool {
        let shown = |p: &RestartPolicy| (p.condition(), p.delay, p.max_attempts.unwrap_or(0), p.window);
        shown(self) == shown(other)
    }
}

// === impl UpdateConfig ===

impl Default for UpdateConfig {
    fn default() -> Self {
        UpdateConfig {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: None,
            max_failure_ratio_ppm: 0,
            order: UpdateOrder::StopFirst,
        }
    }
}

// === impl UpdateState ===

impl UpdateState {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            UpdateState::Updating => "updating",
            UpdateState::Paused => "paused",
            UpdateState::Completed => "completed",
            UpdateState::RollbackStarted => "rollback_started",
            UpdateState::RollbackPaused => "rollback_paused",
            UpdateState::RollbackCompleted => "rollback_completed",
        }
    }

    /// True while tasks are being replaced.
    pub fn is_in_progress(self) -> bool {
        matches!(self, UpdateState::Updating | UpdateState::RollbackStarted)
    }
}

// === impl Service ===

impl Service {
    /// The update status, if it speaks of the spec that the service has now.
    pub fn current_update(&self) -> Option<&UpdateStatus> {
        self.update_status.as_ref().filter(|u| u.spec_version == self.spec_version)
    }

    /// Of a replicated job's run: how many of its tasks have to end well. With a schedule that is what was asked for when the run
    /// began.
    pub fn completions_of(&self, run: u64) -> u64 {
        let asked_for = self.progress.cron.as_ref().and_then(|c| c.open.get(&run));
        asked_for.copied().unwrap_or_else(|| self.spec.mode.completions())
    }

    /// The host-mode ports that each of its tasks publishes on its node.
    pub fn host_ports(&self) -> Vec<PortConfig> {
        let ports = self.spec.endpoint.iter().flat_map(|e| &e.ports);
        ports.filter(|p| p.mode == PublishMode::Host).cloned().collect()
    }
}

// === impl TaskSpec ===

impl TaskSpec {
    /// True when the two are equal but for the versions of the data of secrets and configs.
    pub fn is_same_but_data(&self, other: &TaskSpec) -> bool {
        if let (Some(own), Some(others)) = (self.container(), other.container())
            && !own.is_same_but_data(others)
        {
            return false;
        }
        let mut with_same_data = other.clone();
        with_same_data.take_data(self);
        *self == with_same_data
    }

    /// Gives every secret and config the version of its data that `from` gives it; nothing where there is none.
    pub fn take_data(&mut self, from: &TaskSpec) {
        if let (Some(container), Some(from)) = (self.container_mut(), from.container()) {
            container.take_data(from);
        }
    }

    /// True when the node is such as the constraints say.
    pub fn is_allowed_on(&self, node: &crate::Node) -> bool {
        self.placement.iter().flat_map(|p| &p.constraints).all(|c| c.is_met_by(node))
    }

    /// What the scheduler must set aside for a task.
    pub fn reservations(&self) -> crate::Resources {
        self.resources.as_ref().and_then(|r| r.reservations).unwrap_or_default()
    }

    /// The restart policy, with the default filled in.
    pub fn restart_policy(&self) -> RestartPolicy {
        self.restart.clone().unwrap_or_default()
    }
}

// === impl ServiceSpec ===

impl ServiceSpec {
    /// Takes over which versions of the data of secrets and configs the service has, when the tasks are to be what they were:
    /// neither scaling nor other credentials for the registry are a reason to replace any. To be called on a spec that came
    /// from outside, which says nothing of versions.
    pub fn keep_data_versions(&mut self, old: &ServiceSpec) {
        if self.task.payloads().next().is_some() {
            return;
        }
        let mut with_same_auth = self.task.as_ref().clone();
        with_same_auth.set_registry_auth(old.task.registry_auth().cloned());
        if !with_same_auth.is_same_but_data(&old.task) {
            return;
        }
        let auth = self.task.registry_auth().cloned();
        self.task = old.task.clone();
        if self.task.registry_auth() != auth.as_ref() {
            Arc::make_mut(&mut self.task).set_registry_auth(auth);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_is_a_dns_label() {
        for good in ["a", "web", "my-web_1", "A9"] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        for bad in ["", "-web", "web-", "_a", "we b", "wéb", "a.b"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
        assert_eq!("x".repeat(64).parse::<ServiceName>(), Err(InvalidServiceName::TooLong));
    }
}
