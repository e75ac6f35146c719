//! The flags of `service create` and `service update`, as one table: most are the same, and what is a list is `--X` in
//! one and `--X-add`, `--X-rm` in the other.

use crate::opts;
use clap::builder::ValueParser;

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Switch,
    Uint,
    Int,
    Cpus,
    Bytes,
    Ratio,
    Duration,
    HealthDuration,
    Words,
    Label,
    Env,
    Host,
    Ip,
    Port,
    Mount,
    Ulimit,
    Capability,
    Preference,
    Secret,
    Config,
    DnsSearch,
    Network,
    GenericResource,
    CredentialSpec,
    SwapBytes,
    /// A duration, or nothing, as it was written: it goes into a label.
    DurationText,
    /// As many bytes, or nothing, as it was written.
    BytesText,
    Device,
    Gpus,
}

/// A flag: name, short form, kind, the name of its value, help.
pub(super) type Flag = (&'static str, Option<char>, Kind, &'static str, &'static str);

/// Flags with one value, which both commands have.
pub(super) const SCALARS: &[Flag] = &[
    ("detach", Some('d'), Kind::Switch, "", "Exit immediately instead of waiting for the service to converge"),
    ("quiet", Some('q'), Kind::Switch, "", "Suppress progress output"),
    ("endpoint-mode", None, Kind::Text, "string", "Endpoint mode (vip or dnsrr)"),
    ("entrypoint", None, Kind::Words, "command", "Overwrite the default ENTRYPOINT of the image"),
    ("health-cmd", None, Kind::Text, "string", "Command to run to check health"),
    ("health-interval", None, Kind::HealthDuration, "duration", "Time between running the check (ms|s|m|h)"),
    ("health-retries", None, Kind::Int, "int", "Consecutive failures needed to report unhealthy"),
    (
        "health-start-interval",
        None,
        Kind::HealthDuration,
        "duration",
        "Time between running the check during the start period (ms|s|m|h)",
    ),
    (
        "health-start-period",
        None,
        Kind::HealthDuration,
        "duration",
        "Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)",
    ),
    ("health-timeout", None, Kind::HealthDuration, "duration", "Maximum time to allow one check to run (ms|s|m|h)"),
    ("no-healthcheck", None, Kind::Switch, "", "Disable any container-specified HEALTHCHECK"),
    ("hostname", None, Kind::Text, "string", "Container hostname"),
    ("init", None, Kind::Switch, "", "Use an init inside each service container to forward signals and reap processes"),
    ("limit-cpu", None, Kind::Cpus, "decimal", "Limit CPUs"),
    ("limit-memory", None, Kind::Bytes, "bytes", "Limit Memory"),
    ("limit-pids", None, Kind::Int, "int", "Limit maximum number of processes (default 0 = unlimited)"),
    ("reserve-cpu", None, Kind::Cpus, "decimal", "Reserve CPUs"),
    ("reserve-memory", None, Kind::Bytes, "bytes", "Reserve Memory"),
    ("log-driver", None, Kind::Text, "string", "Logging driver for service"),
    (
        "max-concurrent",
        None,
        Kind::Uint,
        "uint",
        "Number of job tasks to run concurrently (default equal to --replicas)",
    ),
    (
        "no-resolve-image",
        None,
        Kind::Switch,
        "",
        "Do not query the registry to resolve image digest and supported platforms",
    ),
    ("oom-score-adj", None, Kind::Int, "int", "Tune host's OOM preferences (-1000 to 1000)"),
    ("read-only", None, Kind::Switch, "", "Mount the container's root filesystem as read only"),
    ("replicas", None, Kind::Uint, "uint", "Number of tasks"),
    ("replicas-max-per-node", None, Kind::Uint, "uint", "Maximum number of tasks per node (default 0 = unlimited)"),
    (
        "restart-condition",
        None,
        Kind::Text,
        "string",
        "Restart when condition is met (\"none\", \"on-failure\", \"any\") (default \"any\")",
    ),
    ("restart-delay", None, Kind::Duration, "duration", "Delay between restart attempts (ns|us|ms|s|m|h) (default 5s)"),
    ("restart-max-attempts", None, Kind::Uint, "uint", "Maximum number of restarts before giving up"),
    ("restart-window", None, Kind::Duration, "duration", "Window used to evaluate the restart policy (ns|us|ms|s|m|h)"),
    ("rollback-delay", None, Kind::Duration, "duration", "Delay between task rollbacks (ns|us|ms|s|m|h) (default 0s)"),
    (
        "rollback-failure-action",
        None,
        Kind::Text,
        "string",
        "Action on rollback failure (\"pause\", \"continue\") (default \"pause\")",
    ),
    (
        "rollback-max-failure-ratio",
        None,
        Kind::Ratio,
        "float",
        "Failure rate to tolerate during a rollback (default 0)",
    ),
    (
        "rollback-monitor",
        None,
        Kind::Duration,
        "duration",
        "Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h) (default 5s)",
    ),
    (
        "rollback-order",
        None,
        Kind::Text,
        "string",
        "Rollback order (\"start-first\", \"stop-first\") (default \"stop-first\")",
    ),
    (
        "rollback-parallelism",
        None,
        Kind::Uint,
        "uint",
        "Maximum number of tasks rolled back simultaneously (0 to roll back all at once) (default 1)",
    ),
    (
        "stop-grace-period",
        None,
        Kind::Duration,
        "duration",
        "Time to wait before force killing a container (ns|us|ms|s|m|h) (default 10s)",
    ),
    ("stop-signal", None, Kind::Text, "string", "Signal to stop the container"),
    ("tty", Some('t'), Kind::Switch, "", "Allocate a pseudo-TTY"),
    ("update-delay", None, Kind::Duration, "duration", "Delay between updates (ns|us|ms|s|m|h) (default 0s)"),
    (
        "update-failure-action",
        None,
        Kind::Text,
        "string",
        "Action on update failure (\"pause\", \"continue\", \"rollback\") (default \"pause\")",
    ),
    ("update-max-failure-ratio", None, Kind::Ratio, "float", "Failure rate to tolerate during an update (default 0)"),
    (
        "update-monitor",
        None,
        Kind::Duration,
        "duration",
        "Duration after each task update to monitor for failure (ns|us|ms|s|m|h) (default 5s)",
    ),
    (
        "update-order",
        None,
        Kind::Text,
        "string",
        "Update order (\"start-first\", \"stop-first\") (default \"stop-first\")",
    ),
    (
        "update-parallelism",
        None,
        Kind::Uint,
        "uint",
        "Maximum number of tasks updated simultaneously (0 to update all at once) (default 1)",
    ),
    ("user", Some('u'), Kind::Text, "string", "Username or UID (format: <name|uid>[:<group|gid>])"),
    ("with-registry-auth", None, Kind::Switch, "", "Send registry authentication details to swarm agents"),
    ("workdir", Some('w'), Kind::Text, "string", "Working directory inside the container"),
    (
        "credential-spec",
        None,
        Kind::CredentialSpec,
        "credential-spec",
        "Credential spec for managed service account (Windows only)",
    ),
    ("isolation", None, Kind::Text, "string", "Service container isolation mode"),
    ("memory-swap", None, Kind::SwapBytes, "bytes", "Swap Bytes (-1 for unlimited)"),
    ("memory-swappiness", None, Kind::Int, "int", "Tune memory swappiness (0-100), -1 to reset to default"),
    ("plan", None, Kind::Switch, "", "Change nothing; print what would happen (exit code 0: nothing, 2: something)"),
];

/// Flags with one value that Docker does not have: they become labels of the service (`extensions.rs`).
pub(super) const EXTENSIONS: &[Flag] = &[
    (
        "schedule",
        None,
        Kind::Text,
        "cron",
        "When a job runs: five fields (\"0 3 * * *\"), or @hourly, @daily, @weekly, @monthly, @yearly",
    ),
    ("timezone", None, Kind::Text, "zone", "Time zone of --schedule, such as Europe/Berlin (default UTC)"),
    (
        "missed-run-window",
        None,
        Kind::DurationText,
        "duration",
        "How late a scheduled run may still start (ns|us|ms|s|m|h) (default 1m)",
    ),
    (
        "concurrency-policy",
        None,
        Kind::Text,
        "string",
        "What to do when the last run still goes on (\"forbid\", \"allow\", \"replace\") (default \"forbid\")",
    ),
    ("run-history", None, Kind::Uint, "uint", "Scheduled runs whose tasks are kept (default 3)"),
    (
        "restart-backoff",
        None,
        Kind::Text,
        "string",
        "Wait longer before each restart of a task that keeps failing (\"on\", \"off\") (default \"on\")",
    ),
    (
        "restart-backoff-max",
        None,
        Kind::DurationText,
        "duration",
        "The longest wait of --restart-backoff (ns|us|ms|s|m|h) (default 5m)",
    ),
    ("privileged", None, Kind::Switch, "", "Give extended privileges to the tasks (if the swarm's policy allows it)"),
    ("shm-size", None, Kind::BytesText, "bytes", "Size of /dev/shm (if the swarm's policy allows it)"),
    (
        "gpus",
        None,
        Kind::Gpus,
        "gpu-request",
        "GPUs: \"all\", a number, or \"device=ID,ID\" (if the swarm's policy allows it)",
    ),
];

/// Flags that may be given several times.
pub(super) const LISTS: &[Flag] = &[
    ("cap-add", None, Kind::Capability, "list", "Add Linux capabilities"),
    ("cap-drop", None, Kind::Capability, "list", "Drop Linux capabilities"),
    ("constraint", None, Kind::Text, "list", "Placement constraint"),
    ("container-label", None, Kind::Label, "list", "Container label"),
    ("dns", None, Kind::Ip, "list", "Custom DNS server"),
    ("dns-option", None, Kind::Text, "list", "DNS option"),
    ("dns-search", None, Kind::DnsSearch, "list", "Custom DNS search domain"),
    ("env", Some('e'), Kind::Env, "list", "Environment variable"),
    ("group", None, Kind::Text, "list", "Supplementary user group for the container"),
    ("host", None, Kind::Host, "list", "Custom host-to-IP mapping (host:ip)"),
    ("label", Some('l'), Kind::Label, "list", "Service label"),
    ("mount", None, Kind::Mount, "mount", "Filesystem mount of the service"),
    ("placement-pref", None, Kind::Preference, "pref", "Placement preference"),
    ("publish", Some('p'), Kind::Port, "port", "Port to publish as a node port"),
    ("sysctl", None, Kind::Label, "list", "Sysctl option"),
    ("ulimit", None, Kind::Ulimit, "ulimit", "Ulimit option"),
    ("config", None, Kind::Config, "config", "Config file to expose to the service"),
    ("secret", None, Kind::Secret, "secret", "Secret to expose to the service"),
    ("network", None, Kind::Network, "network", "Network attachment"),
    ("generic-resource", None, Kind::GenericResource, "list", "User defined resource"),
    ("device", None, Kind::Device, "list", "Host device (if the swarm's policy allows it)"),
];

/// Only of `create`.
pub(super) const CREATE: &[Flag] = &[
    ("name", None, Kind::Text, "string", "Service name"),
    (
        "mode",
        None,
        Kind::Text,
        "string",
        "Service mode (\"replicated\", \"global\", \"replicated-job\", \"global-job\", \"cron-job\") (default \"replicated\")",
    ),
];

/// Only of `update`.
pub(super) const UPDATE: &[Flag] = &[
    ("args", None, Kind::Words, "command", "Service command args"),
    ("image", None, Kind::Text, "string", "Service image tag"),
    ("force", None, Kind::Switch, "", "Force update even if no changes require it"),
    ("rollback", None, Kind::Switch, "", "Rollback to previous specification"),
];

// === impl Kind ===

impl Kind {
    /// Reads such a value.
    pub(super) fn parser(self) -> ValueParser {
        match self {
            Kind::Text | Kind::Switch => ValueParser::string(),
            Kind::Uint => ValueParser::new(opts::uint),
            Kind::Int => ValueParser::new(opts::int),
            Kind::Cpus => ValueParser::new(opts::cpus),
            Kind::Bytes => ValueParser::new(opts::bytes),
            Kind::Ratio => ValueParser::new(opts::ratio),
            Kind::Duration => ValueParser::new(opts::duration),
            Kind::HealthDuration => ValueParser::new(opts::health_duration),
            Kind::Words => ValueParser::new(|text: &str| opts::words(text).map(opts::Words)),
            Kind::Label => ValueParser::new(opts::label),
            Kind::Env => ValueParser::new(opts::env),
            Kind::Host => ValueParser::new(opts::host),
            Kind::Ip => ValueParser::new(opts::ip),
            Kind::Port => ValueParser::new(opts::port),
            Kind::Mount => ValueParser::new(opts::mount),
            Kind::Ulimit => ValueParser::new(opts::ulimit),
            Kind::Capability => ValueParser::new(opts::capability),
            Kind::Preference => ValueParser::new(opts::preference),
            Kind::Secret => ValueParser::new(opts::secret),
            Kind::Config => ValueParser::new(opts::config),
            Kind::DnsSearch => ValueParser::new(opts::dns_search),
            Kind::Network => ValueParser::new(opts::network),
            Kind::GenericResource => ValueParser::new(opts::generic_resource),
            Kind::CredentialSpec => ValueParser::new(opts::credential_spec),
            Kind::SwapBytes => ValueParser::new(opts::swap_bytes),
            Kind::DurationText => ValueParser::new(|text: &str| as_written(text, opts::duration)),
            Kind::BytesText => ValueParser::new(|text: &str| as_written(text, opts::bytes)),
            Kind::Device => ValueParser::new(opts::device),
            Kind::Gpus => ValueParser::new(|text: &str| as_written(text, opts::gpus)),
        }
    }
}

/// The text itself, when it is empty (which takes the label away) or can be read.
fn as_written<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<String, String> {
    if !text.is_empty() {
        read(text)?;
    }
    Ok(text.to_owned())
}
