//! `swarmlite daemon`: its settings from flags, environment, file and defaults (in this order), and the process around a
//! node: logging, signals, systemd.

use clap::{Args, ValueEnum};
use node::{ApiAccess, ApiTcp, DaemonConfig, EngineChoice, GenericResource, InvalidGenericResource};
use seams::Disk as _;
use serde::Deserialize;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the daemon looks for its file when it is not told.
const CONFIG_DEFAULT: &str = "/etc/swarmlite/daemon.toml";
/// The longest configuration file.
const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Where Docker listens unless told otherwise.
const DOCKER_HOST_DEFAULT: &str = "unix:///var/run/docker.sock";

/// What is logged unless told otherwise: of the libraries only what goes wrong. To openraft a manager that is down is worth a
/// warning with every try, several times a second.
const LOG_DEFAULT: &str = "info,openraft=error,chitchat=warn,sled=warn";
/// What `--debug` logs: the libraries' every frame and lock would bury our own words.
const LOG_DEBUG: &str = "debug,openraft=info,chitchat=info,sled=info,h2=info,\
    hyper=info,hyper_util=info,tonic=info,tower=info,rustls=info,bollard=info";

/// `daemon`: where the file is, and what is set on the command line or in the environment.
#[derive(Args, Debug, Default)]
pub(crate) struct DaemonArgs {
    /// Configuration file (TOML, the same names as the flags) [default: /etc/swarmlite/daemon.toml, if it is there]
    #[arg(long, env = "SWARMLITE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// What can be set, each in every place.
#[derive(Args, Debug, Default, Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    /// Directory for the node's state [default: /var/lib/swarmlite]
    #[arg(long, env = "SWARMLITE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Unix socket of the API [default: /run/swarmlite.sock]
    #[arg(long, env = "SWARMLITE_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Group that may use the socket, by name or number [default: swarmlite if there is such a group, else root alone]
    #[arg(long, env = "SWARMLITE_SOCKET_GROUP", value_name = "GROUP")]
    socket_group: Option<String>,
    /// TCP port of the API, as <ip>:<port>; with mutual TLS only: the three --api-tls flags are needed [default: none]
    #[arg(long, env = "SWARMLITE_API_ADDR", value_name = "ADDR")]
    api_addr: Option<String>,
    /// Certificate authority of the API's clients, PEM (not the swarm's own)
    #[arg(long, env = "SWARMLITE_API_TLS_CA", value_name = "FILE")]
    api_tls_ca: Option<PathBuf>,
    /// Certificate of the API's TCP port, PEM
    #[arg(long, env = "SWARMLITE_API_TLS_CERT", value_name = "FILE")]
    api_tls_cert: Option<PathBuf>,
    /// Key of that certificate, PEM
    #[arg(long, env = "SWARMLITE_API_TLS_KEY", value_name = "FILE")]
    api_tls_key: Option<PathBuf>,
    /// Address that other nodes' connections are accepted on, as <ip|interface>[:port] [default: 0.0.0.0:2377]
    #[arg(long, env = "SWARMLITE_LISTEN_ADDR", value_name = "ADDR")]
    listen_addr: Option<String>,
    /// Address that other nodes reach this one at, as <ip|interface>[:port] [default: found out]
    #[arg(long, env = "SWARMLITE_ADVERTISE_ADDR", value_name = "ADDR")]
    advertise_addr: Option<String>,
    /// UDP port of gossip, on the listen address [default: 7946]
    #[arg(long, env = "SWARMLITE_GOSSIP_PORT", value_name = "PORT")]
    gossip_port: Option<u16>,
    /// UDP port of the data path, on the listen address [default: 4789]
    #[arg(long, env = "SWARMLITE_DATA_PATH_PORT", value_name = "PORT")]
    data_path_port: Option<u16>,
    /// Host name that the node gives, instead of its engine's: for several nodes on one machine
    #[arg(long, env = "SWARMLITE_HOSTNAME", value_name = "NAME")]
    hostname: Option<String>,
    /// What the machine has beyond CPU and memory, as KIND=NUMBER or KIND=NAME; once for each [default: what its engine says]
    #[arg(long, env = "SWARMLITE_GENERIC_RESOURCE", value_name = "KIND=VALUE", value_delimiter = ',')]
    generic_resource: Option<Vec<String>>,
    /// What runs the containers: a Docker Engine, or nothing (embedded: containers are pretended, in memory) [default: docker]
    #[arg(long, env = "SWARMLITE_ENGINE", value_enum, hide_possible_values = true, value_name = "docker|embedded")]
    engine: Option<EngineName>,
    /// The Docker Engine's socket [default: unix:///var/run/docker.sock]
    #[arg(long, env = "SWARMLITE_DOCKER_HOST", value_name = "HOST")]
    docker_host: Option<String>,
    /// Directory in which secrets and configs are put for containers, in memory [default: /run/swarmlite]
    #[arg(long, env = "SWARMLITE_RUN_DIR", value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,swarmlite_raft=debug [default: info]
    #[arg(long, env = "SWARMLITE_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
    /// How it is logged [default: text]
    #[arg(long, env = "SWARMLITE_LOG_FORMAT", value_enum, hide_possible_values = true, value_name = "text|json")]
    log_format: Option<LogFormat>,
}

/// What runs the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum EngineName {
    Docker,
    Embedded,
}

/// How it is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LogFormat {
    Text,
    Json,
}

/// Settings that a daemon cannot start with.
#[derive(Debug, thiserror::Error)]
enum SettingsError {
    #[error("cannot read the configuration file {path}: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("the configuration file {path} is wrong: {reason}")]
    Wrong { path: PathBuf, reason: String },
    #[error("the log level {level:?} is none: {reason}; give error, warn, info, debug or trace")]
    LogLevel { level: String, reason: String },
    #[error("{0} must be at least 1")]
    ZeroPort(&'static str),
    #[error("generic-resource: {0}")]
    GenericResource(#[from] InvalidGenericResource),
    #[error("gossip-port and data-path-port are both {0}: they are two UDP ports")]
    SamePort(u16),
    #[error("api-addr {0:?} is no address: give <ip>:<port>, such as 0.0.0.0:2376")]
    ApiAddr(String),
    #[error(
        "api-addr needs {missing} as well: over TCP the API is served with mutual TLS or not at all, since whoever reaches it is \
         root on this machine. Give --api-tls-ca, --api-tls-cert and --api-tls-key (as dockerd's --tlsverify wants them), or \
         leave --api-addr out and forward the socket with ssh"
    )]
    ApiWithoutTls { missing: String },
    #[error("{0} is of no use without --api-addr: the socket needs no certificates")]
    TlsWithoutApi(&'static str),
}

/// Everything, with the defaults filled in.
#[derive(Debug)]
struct Plan {
    node: DaemonConfig,
    log_level: String,
    log_format: LogFormat,
}

// === impl Settings ===

impl Settings {
    /// `self` where it says something, `other` elsewhere.
    fn or(self, other: Settings) -> Settings {
        Settings {
            data_dir: self.data_dir.or(other.data_dir),
            socket: self.socket.or(other.socket),
            socket_group: self.socket_group.or(other.socket_group),
            api_addr: self.api_addr.or(other.api_addr),
            api_tls_ca: self.api_tls_ca.or(other.api_tls_ca),
            api_tls_cert: self.api_tls_cert.or(other.api_tls_cert),
            api_tls_key: self.api_tls_key.or(other.api_tls_key),
            listen_addr: self.listen_addr.or(other.listen_addr),
            advertise_addr: self.advertise_addr.or(other.advertise_addr),
            gossip_port: self.gossip_port.or(other.gossip_port),
            data_path_port: self.data_path_port.or(other.data_path_port),
            hostname: self.hostname.or(other.hostname),
            generic_resource: self.generic_resource.or(other.generic_resource),
            engine: self.engine.or(other.engine),
            docker_host: self.docker_host.or(other.docker_host),
            run_dir: self.run_dir.or(other.run_dir),
            log_level: self.log_level.or(other.log_level),
            log_format: self.log_format.or(other.log_format),
        }
    }

    fn plan(self, debug: bool) -> Result<Plan, SettingsError> {
        let gossip_port = self.gossip_port.unwrap_or(node::GOSSIP_PORT);
        let data_path_port = self.data_path_port.unwrap_or(node::DATA_PATH_PORT);
        for (name, port) in [("gossip-port", gossip_port), ("data-path-port", data_path_port)] {
            if port == 0 {
                return Err(SettingsError::ZeroPort(name));
            }
        }
        if gossip_port == data_path_port {
            return Err(SettingsError::SamePort(gossip_port));
        }
        let access =
            ApiAccess { socket_group: self.socket_group.clone().filter(|g| !g.is_empty()), tcp: self.api_tcp()? };
        let engine = match self.engine.unwrap_or(EngineName::Docker) {
            EngineName::Docker => {
                let host = self.docker_host.unwrap_or_else(|| DOCKER_HOST_DEFAULT.to_owned());
                EngineChoice::Docker { host, run_dir: self.run_dir.unwrap_or_else(|| "/run/swarmlite".into()) }
            }
            EngineName::Embedded => EngineChoice::Embedded,
        };
        Ok(Plan {
            node: DaemonConfig {
                data_dir: self.data_dir.unwrap_or_else(|| "/var/lib/swarmlite".into()),
                socket: self.socket.unwrap_or_else(|| "/run/swarmlite.sock".into()),
                access,
                listen_addr: self.listen_addr.unwrap_or_else(|| format!("0.0.0.0:{}", node::CONTROL_PORT)),
                advertise_addr: self.advertise_addr.unwrap_or_default(),
                gossip_port,
                data_path_port,
                hostname: self.hostname.filter(|h| !h.is_empty()),
                generic: GenericResource::parse_list(&self.generic_resource.unwrap_or_default())?,
                engine,
            },
            log_level: self.log_level.unwrap_or_else(|| if debug { LOG_DEBUG } else { LOG_DEFAULT }.to_owned()),
            log_format: self.log_format.unwrap_or(LogFormat::Text),
        })
    }
}

impl Settings {
    /// The API's TCP port: all of it, or none.
    fn api_tcp(&self) -> Result<Option<ApiTcp>, SettingsError> {
        let files = [
            ("--api-tls-ca", &self.api_tls_ca),
            ("--api-tls-cert", &self.api_tls_cert),
            ("--api-tls-key", &self.api_tls_key),
        ];
        let Some(addr) = self.api_addr.as_deref().filter(|a| !a.is_empty()) else {
            return match files.iter().find(|(_, file)| file.is_some()) {
                Some((flag, _)) => Err(SettingsError::TlsWithoutApi(flag)),
                None => Ok(None),
            };
        };
        let addr: SocketAddr = addr.parse().map_err(|_| SettingsError::ApiAddr(addr.to_owned()))?;
        match (&self.api_tls_ca, &self.api_tls_cert, &self.api_tls_key) {
            (Some(ca), Some(cert), Some(key)) => {
                Ok(Some(ApiTcp { addr, ca: ca.clone(), cert: cert.clone(), key: key.clone() }))
            }
            _ => {
                let missing: Vec<_> = files.iter().filter(|(_, file)| file.is_none()).map(|(flag, _)| *flag).collect();
                Err(SettingsError::ApiWithoutTls { missing: missing.join(" and ") })
            }
        }
    }
}

/// Runs a daemon until it is told to stop (SIGTERM, SIGINT).
pub(crate) async fn run(args: DaemonArgs, debug: bool) -> ExitCode {
    match start(args, debug).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("swarmlite daemon: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn start(args: DaemonArgs, debug: bool) -> Result<(), Box<dyn std::error::Error>> {
    let file = read_file(args.config.as_deref()).await?;
    let plan = args.settings.or(file).plan(debug)?;
    start_logging(&plan)?;
    // Fails only when there is one already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stop = async move {
        let signal = tokio::select! {
            biased;
            _ = terminate.recv() => "SIGTERM",
            _ = tokio::signal::ctrl_c() => "SIGINT",
        };
        tracing::info!(signal, "asked to stop");
        tell_systemd(sd_notify::NotifyState::Stopping);
    };
    let socket = plan.node.socket.clone();
    let ready = move || {
        tracing::info!(socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "the daemon is ready");
        tell_systemd(sd_notify::NotifyState::Ready);
    };
    node::daemon::run(plan.node, ready, stop).await?;
    Ok(())
}

fn tell_systemd(state: sd_notify::NotifyState<'_>) {
    // Nothing happens without systemd; with it, a lost message shows as a start that never ends.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

async fn read_file(path: Option<&Path>) -> Result<Settings, SettingsError> {
    let (path, must_be_there) = match path {
        Some(path) => (path, true),
        None => (Path::new(CONFIG_DEFAULT), false),
    };
    let unreadable = |reason: String| SettingsError::Unreadable { path: path.to_owned(), reason };
    let Some(bytes) = seams::real::FileDisk.read(path).await.map_err(|e| unreadable(e.to_string()))? else {
        return if must_be_there { Err(unreadable("no such file".to_owned())) } else { Ok(Settings::default()) };
    };
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err(unreadable(format!("it is longer than {} MiB", CONFIG_BYTES_MAX >> 20)));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| unreadable("it is not UTF-8 text".to_owned()))?;
    toml::from_str(text)
        .map_err(|e| SettingsError::Wrong { path: path.to_owned(), reason: e.to_string().trim().to_owned() })
}

fn start_logging(plan: &Plan) -> Result<(), SettingsError> {
    let level = |e: String| SettingsError::LogLevel { level: plan.log_level.clone(), reason: e };
    let filter = tracing_subscriber::EnvFilter::builder().parse(&plan.log_level).map_err(|e| level(e.to_string()))?;
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let logging = logging.with_ansi(std::io::stderr().is_terminal());
    match plan.log_format {
        LogFormat::Text => logging.try_init(),
        LogFormat::Json => logging.json().try_init(),
    }
    .map_err(|e| level(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_the_defaults() {
        let flags = Settings { gossip_port: Some(7000), ..Settings::default() };
        let file = settings(
            "gossip-port = 7001\nengine = \"embedded\"\ndata-dir = \"/d\"\nhostname = \"\"\ngeneric-resource = [\"ssd=2\"]",
        );
        let plan = flags.or(file).plan(true).unwrap();
        assert_eq!((plan.node.gossip_port, plan.node.data_path_port), (7000, 4789));
        assert_eq!(
            (plan.node.data_dir.as_path(), plan.node.socket.as_path()),
            (Path::new("/d"), Path::new("/run/swarmlite.sock"))
        );
        assert_eq!((plan.node.engine, plan.node.listen_addr.as_str()), (EngineChoice::Embedded, "0.0.0.0:2377"));
        assert_eq!((plan.log_level.as_str(), plan.node.hostname), (LOG_DEBUG, None));
        assert_eq!(plan.node.generic, [GenericResource::Discrete { kind: "ssd".into(), amount: 2 }]);
    }

    #[test]
    fn wrong_settings_are_told() {
        assert!(toml::from_str::<Settings>("gosip-port = 1").unwrap_err().to_string().contains("unknown field"));
        assert!(toml::from_str::<Settings>("gossip-port = 70000").is_err());
        let plan = |toml| settings(toml).plan(false).unwrap_err().to_string();
        assert_eq!(plan("gossip-port = 0"), "gossip-port must be at least 1");
        assert!(plan("gossip-port = 4789").contains("both 4789"));
        let generic = plan("generic-resource = [\"gpu\"]");
        assert!(
            generic.starts_with("generic-resource: could not parse GenericResource: incorrect term gpu"),
            "{generic}"
        );
    }

    #[test]
    fn attack_29_an_api_over_tcp_without_mutual_tls_is_refused_at_the_start() {
        let plan = |toml: &str| settings(toml).plan(false).map(|p| p.node.access.tcp.map(|t| t.addr.to_string()));
        let refused = |toml: &str| plan(toml).unwrap_err().to_string();
        let text = refused("api-addr = \"0.0.0.0:2376\"");
        assert!(text.starts_with("api-addr needs --api-tls-ca and --api-tls-cert and --api-tls-key as well"), "{text}");
        let one_missing = "api-addr = \"0.0.0.0:2376\"\napi-tls-cert = \"/c\"\napi-tls-key = \"/k\"";
        assert!(refused(one_missing).starts_with("api-addr needs --api-tls-ca as well"), "{}", refused(one_missing));
        assert!(refused("api-tls-key = \"/k\"").starts_with("--api-tls-key is of no use without --api-addr"));
        let all = |addr: &str| {
            let files = "api-tls-ca = \"/a\"\napi-tls-cert = \"/c\"\napi-tls-key = \"/k\"";
            format!("api-addr = \"{addr}\"\n{files}")
        };
        for bad in ["2376", "0.0.0.0", "host:2376", "0.0.0.0:70000"] {
            assert!(refused(all(bad).as_str()).contains("is no address"), "{bad}");
        }
        assert_eq!(plan(all("10.0.0.1:2376").as_str()).unwrap().as_deref(), Some("10.0.0.1:2376"));
        assert_eq!(plan("").unwrap(), None);
    }

    #[tokio::test]
    async fn a_file_that_was_asked_for_must_be_there() {
        let missing = read_file(Some(Path::new("/nonexistent/daemon.toml"))).await;
        assert_eq!(
            missing.unwrap_err().to_string(),
            "cannot read the configuration file /nonexistent/daemon.toml: no such file"
        );
    }
}
