//! The container that each task of a service runs.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A container, in the engine's terms.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Image reference.
    pub image: String,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// The entrypoint.
    pub command: Vec<String>,
    /// Its arguments (the engine's `Cmd`).
    pub args: Vec<String>,
    /// Host name in the container.
    pub hostname: String,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub dir: String,
    /// `user[:group]`.
    pub user: String,
    /// Additional groups.
    pub groups: Vec<String>,
    /// Signal that asks it to stop.
    pub stop_signal: String,
    /// Time between that signal and the kill.
    pub stop_grace_period: Option<Duration>,
    /// A pseudo-terminal.
    pub tty: bool,
    /// Keep standard input open.
    pub open_stdin: bool,
    /// Read-only root file system.
    pub read_only: bool,
    /// An init process in the container.
    pub init: Option<bool>,
    /// File systems.
    pub mounts: Vec<Mount>,
    /// How its health is asked.
    pub healthcheck: Option<Healthcheck>,
    /// `/etc/hosts` lines, each `IP name [name…]`.
    pub hosts: Vec<String>,
    /// Resolver settings.
    pub dns: Option<DnsConfig>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities to add.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// Resource limits of the processes.
    pub ulimits: Vec<Ulimit>,
    /// What the registry asks for before it gives the image.
    pub registry_auth: Option<RegistryAuth>,
    /// Secrets that it is given. [`ContainerSpec::check_targets`] holds.
    pub secrets: Vec<crate::SecretReference>,
    /// Configs that it is given. [`ContainerSpec::check_targets`] holds.
    pub configs: Vec<crate::ConfigReference>,
    /// How likely the kernel ends it when memory is short, -1000 to 1000; 0 when not given.
    pub oom_score_adj: i64,
    /// Security options.
    pub privileges: Option<Privileges>,
    /// What it may use of its node beyond what Docker lets a service have. From service labels, under the cluster's policy.
    pub host_access: HostAccess,
}

/// Security options of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Privileges {
    /// SELinux labels.
    pub selinux: Option<SeLinux>,
    /// System calls that it may make.
    pub seccomp: Option<Seccomp>,
    /// AppArmor's profile.
    pub apparmor: Option<AppArmor>,
    /// Nothing that it runs gains privileges.
    pub no_new_privileges: bool,
}

/// SELinux labels of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SeLinux {
    /// No confinement.
    pub disable: bool,
    /// User.
    pub user: String,
    /// Role.
    pub role: String,
    /// Type.
    pub kind: String,
    /// Level.
    pub level: String,
}

/// The system calls that a container may make.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Seccomp {
    /// The engine's profile.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// What this profile says: JSON in the engine's format.
    Custom(String),
}

/// The AppArmor profile of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AppArmor {
    /// The engine's.
    #[default]
    Default,
    /// None.
    Disabled,
}

/// What a container may use of its node that Docker's services are not given: each comes from a label of the service, and only
/// as far as the cluster's [`HostPolicy`](crate::HostPolicy) allows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostAccess {
    /// All of it.
    pub privileged: bool,
    /// Devices.
    pub devices: Vec<Device>,
    /// Bytes of `/dev/shm`; `None` for the engine's default.
    pub shm_size_bytes: Option<u64>,
    /// GPUs.
    pub gpus: Option<Gpus>,
}

/// A device of the node in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the node, absolute.
    pub on_host: String,
    /// Path in the container, absolute.
    pub in_container: String,
    /// Any of `r`, `w` and `m`.
    pub permissions: String,
}

/// Which GPUs a container is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gpus {
    /// All that the node has.
    All,
    /// So many, whichever.
    Count(u32),
    /// These.
    Ids(Vec<String>),
}

/// Docker's `X-Registry-Auth` value: credentials, as the client encoded them. Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegistryAuth(pub String);

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryAuth(..)")
    }
}

/// A file system in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mount {
    /// What kind.
    pub kind: MountKind,
    /// A path of the node (bind) or a volume's name (volume); empty for tmpfs and anonymous volumes.
    pub source: String,
    /// Where in the container.
    pub target: String,
    /// No writing.
    pub read_only: bool,
    /// `default`, `consistent`, `cached`, `delegated`; empty when not given.
    pub consistency: String,
    /// Options of the kind, kept as given.
    pub bind_propagation: String,
    /// Do not bind sub-mounts.
    pub bind_non_recursive: bool,
    /// Do not copy the image's files into a new volume.
    pub volume_no_copy: bool,
    /// Labels of a new volume.
    pub volume_labels: BTreeMap<String, String>,
    /// Driver name of a new volume; empty for the default.
    pub volume_driver: String,
    /// Options for that driver.
    pub volume_driver_opts: BTreeMap<String, String>,
    /// A path inside the volume.
    pub volume_subpath: String,
    /// Bytes of a tmpfs; 0 for no limit.
    pub tmpfs_size_bytes: i64,
    /// Mode of a tmpfs; 0 for the default.
    pub tmpfs_mode: u32,
    /// Further options of a tmpfs, each `[name]` or `[name, value]`.
    #[serde(default)]
    pub tmpfs_options: Vec<Vec<String>>,
    /// Make the path on the node when it is not there.
    #[serde(default)]
    pub bind_create_mountpoint: bool,
    /// Read-only itself, its sub-mounts as they are.
    #[serde(default)]
    pub bind_read_only_non_recursive: bool,
    /// Fail when the kernel cannot make its sub-mounts read-only.
    #[serde(default)]
    pub bind_read_only_force_recursive: bool,
    /// A path inside the image.
    #[serde(default)]
    pub image_subpath: String,
}

/// The kinds of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the node.
    Bind,
    /// A volume of the engine.
    #[default]
    Volume,
    /// Memory.
    Tmpfs,
    /// The files of an image.
    Image,
}

/// How a container's health is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", …]`, `["NONE"]`; empty inherits the image's.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: Option<Duration>,
    /// For one check.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<i64>,
    /// Failures at the start that do not count.
    pub start_period: Option<Duration>,
    /// Between two checks at the start.
    pub start_interval: Option<Duration>,
}

/// Resolver settings of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Servers.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A process limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Its name, such as `nofile`.
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}
