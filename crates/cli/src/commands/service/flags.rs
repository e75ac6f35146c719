//! The flags of `service create` and `service update`, as one table: most are the same, and what is a list is `--X` in
//! one and `--X-add`, `--X-rm` in the other.

use crate::error::CliError;
use crate::opts;
use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
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
    /// Docker has it, Swarmlite does not yet: it is recognised, and refused.
    Unsupported,
}

/// A flag: name, short form, kind, the name of its value, help.
type Flag = (&'static str, Option<char>, Kind, &'static str, &'static str);

/// Flags with one value, which both commands have.
const SCALARS: &[Flag] = &[
    ("detach", Some('d'), Kind::Switch, "", "Exit immediately instead of waiting for the service to converge"),
    ("quiet", Some('q'), Kind::Switch, "", "Suppress progress output"),
    ("endpoint-mode", None, Kind::Text, "string", "Endpoint mode (vip or dnsrr)"),
    ("entrypoint", None, Kind::Words, "command", "Overwrite the default ENTRYPOINT of the image"),
    ("health-cmd", None, Kind::Text, "string", "Command to run to check health"),
    ("health-interval", None, Kind::HealthDuration, "duration", "Time between running the check (ms|s|m|h)"),
    ("health-retries", None, Kind::Uint, "int", "Consecutive failures needed to report unhealthy"),
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
        Kind::Unsupported,
        "credential-spec",
        "Credential spec for managed service account (Windows only)",
    ),
    ("isolation", None, Kind::Unsupported, "string", "Service container isolation mode (Windows only)"),
];

/// Flags that may be given several times.
const LISTS: &[Flag] = &[
    ("cap-add", None, Kind::Capability, "list", "Add Linux capabilities"),
    ("cap-drop", None, Kind::Capability, "list", "Drop Linux capabilities"),
    ("constraint", None, Kind::Text, "list", "Placement constraint"),
    ("container-label", None, Kind::Label, "list", "Container label"),
    ("dns", None, Kind::Ip, "list", "Custom DNS server"),
    ("dns-option", None, Kind::Text, "list", "DNS option"),
    ("dns-search", None, Kind::Text, "list", "Custom DNS search domain"),
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
    ("network", None, Kind::Unsupported, "network", "Network attachment"),
    ("generic-resource", None, Kind::Unsupported, "list", "User defined resource"),
];

/// Only of `create`.
const CREATE: &[Flag] = &[
    ("name", None, Kind::Text, "string", "Service name"),
    (
        "mode",
        None,
        Kind::Text,
        "string",
        "Service mode (\"replicated\", \"global\", \"replicated-job\", \"global-job\") (default \"replicated\")",
    ),
];

/// Only of `update`.
const UPDATE: &[Flag] = &[
    ("args", None, Kind::Words, "command", "Service command args"),
    ("image", None, Kind::Text, "string", "Service image tag"),
    ("force", None, Kind::Switch, "", "Force update even if no changes require it"),
    ("rollback", None, Kind::Switch, "", "Rollback to previous specification"),
];

/// The values of the flags, by name.
#[derive(Debug, Clone)]
pub(crate) struct Flags(ArgMatches);

/// `service create`: the flags, then image, command and arguments.
#[derive(Debug, Clone)]
pub(crate) struct CreateArgs(pub(crate) Flags);

/// `service update`: the flags and the service.
#[derive(Debug, Clone)]
pub(crate) struct UpdateArgs(pub(crate) Flags);

// === impl Kind ===

impl Kind {
    fn parser(self) -> ValueParser {
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
            Kind::Unsupported => ValueParser::new(|_: &str| -> Result<String, String> {
                Err("Swarmlite does not support this flag yet".to_owned())
            }),
        }
    }
}

fn scalar((name, short, kind, value, help): &Flag) -> Arg {
    let arg = Arg::new(*name).long(*name).help(*help);
    let arg = match short {
        Some(short) => arg.short(*short),
        None => arg,
    };
    match kind {
        Kind::Switch => arg.action(ArgAction::SetTrue),
        Kind::Unsupported => arg.action(ArgAction::Set).value_name(*value).value_parser(kind.parser()).hide(true),
        // A number may be negative, and a word may begin with a dash: Docker takes what follows, whatever it is.
        _ => arg.action(ArgAction::Set).value_name(*value).value_parser(kind.parser()).allow_hyphen_values(true),
    }
}

fn list(flag: &Flag) -> Arg {
    scalar(flag).action(ArgAction::Append)
}

/// The two flags of `update` for one of [`LISTS`].
fn list_add_rm(flag: &Flag) -> Vec<Arg> {
    let (name, _, kind, _, help) = flag;
    // To add and to drop capabilities is what the two flags are called already.
    if *kind == Kind::Capability {
        return vec![list(flag)];
    }
    let names: [&'static str; 2] = match *name {
        "constraint" => ["constraint-add", "constraint-rm"],
        "container-label" => ["container-label-add", "container-label-rm"],
        "dns" => ["dns-add", "dns-rm"],
        "dns-option" => ["dns-option-add", "dns-option-rm"],
        "dns-search" => ["dns-search-add", "dns-search-rm"],
        "env" => ["env-add", "env-rm"],
        "group" => ["group-add", "group-rm"],
        "host" => ["host-add", "host-rm"],
        "label" => ["label-add", "label-rm"],
        "mount" => ["mount-add", "mount-rm"],
        "placement-pref" => ["placement-pref-add", "placement-pref-rm"],
        "publish" => ["publish-add", "publish-rm"],
        "sysctl" => ["sysctl-add", "sysctl-rm"],
        "ulimit" => ["ulimit-add", "ulimit-rm"],
        "config" => ["config-add", "config-rm"],
        "secret" => ["secret-add", "secret-rm"],
        "network" => ["network-add", "network-rm"],
        _ => ["generic-resource-add", "generic-resource-rm"],
    };
    let rm_kind = match kind {
        Kind::Unsupported | Kind::Port | Kind::Preference | Kind::Host => *kind,
        _ => Kind::Text,
    };
    let help = help.to_lowercase();
    vec![
        list(&(names[0], None, *kind, "list", "")).help(format!("Add or update: {help}")),
        list(&(names[1], None, rm_kind, "list", "")).help(format!("Remove: {help}")),
    ]
}

// === impl CreateArgs ===

impl clap::Args for CreateArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let words = Arg::new("words")
            .required(true)
            .num_args(1..)
            .trailing_var_arg(true)
            .value_name("IMAGE [COMMAND] [ARG...]");
        let env_file = Arg::new("env-file").long("env-file").action(ArgAction::Append).value_name("list");
        command
            .args(CREATE.iter().chain(SCALARS).map(scalar))
            .args(LISTS.iter().map(list))
            .arg(env_file.help("Read in a file of environment variables"))
            .arg(list(&("log-opt", None, Kind::Label, "list", "Logging driver options")))
            .arg(words.help("Image, and what to run in it instead of its own command"))
            .override_usage("swarmlite service create [OPTIONS] IMAGE [COMMAND] [ARG...]")
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for CreateArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<CreateArgs, clap::Error> {
        Ok(CreateArgs(Flags(matches.clone())))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = Flags(matches.clone());
        Ok(())
    }
}

// === impl UpdateArgs ===

impl clap::Args for UpdateArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
            .args(UPDATE.iter().chain(SCALARS).map(scalar))
            .args(LISTS.iter().flat_map(list_add_rm))
            .arg(list(&("log-opt", None, Kind::Label, "list", "Logging driver options")))
            .arg(Arg::new("service").required(true).value_name("SERVICE").help("Service to update"))
            .override_usage("swarmlite service update [OPTIONS] SERVICE")
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for UpdateArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<UpdateArgs, clap::Error> {
        Ok(UpdateArgs(Flags(matches.clone())))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = Flags(matches.clone());
        Ok(())
    }
}

// === impl Flags ===

impl Flags {
    /// True when the user gave the flag.
    pub(crate) fn given(&self, name: &str) -> bool {
        matches!(self.0.try_contains_id(name), Ok(true)) && self.0.value_source(name) == Some(ValueSource::CommandLine)
    }

    /// True when the user gave any of the flags.
    pub(crate) fn any_given(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.given(name))
    }

    /// True when the user gave no flag but these.
    pub(crate) fn only(&self, names: &[&str]) -> bool {
        self.0.ids().all(|id| names.contains(&id.as_str()) || !self.given(id.as_str()))
    }

    /// The value of a flag with one, if the command has it and the user gave it. `T` is what the flag's kind parses to.
    pub(crate) fn one<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Option<T> {
        self.0.try_get_one::<T>(name).ok().flatten().cloned()
    }

    /// A text; empty when not given.
    pub(crate) fn text(&self, name: &str) -> String {
        self.one::<String>(name).unwrap_or_default()
    }

    /// A switch.
    pub(crate) fn switch(&self, name: &str) -> bool {
        self.one::<bool>(name).unwrap_or(false)
    }

    /// A switch, if the user gave it.
    pub(crate) fn switch_given(&self, name: &str) -> Option<bool> {
        self.given(name).then(|| self.switch(name))
    }

    /// The values of a flag that may be given several times, in the order in which they were.
    pub(crate) fn many<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Vec<T> {
        self.0.try_get_many::<T>(name).ok().flatten().map(|values| values.cloned().collect()).unwrap_or_default()
    }

    /// A text that must be one of a few.
    pub(crate) fn choice(&self, name: &str, choices: &[&str]) -> Result<Option<String>, CliError> {
        match self.one::<String>(name) {
            Some(text) if !choices.contains(&text.as_str()) => Err(CliError::Argument {
                value: text,
                flag: format!("--{name}"),
                reason: format!("must be one of {}", choices.join(", ")),
            }),
            choice => Ok(choice),
        }
    }
}
