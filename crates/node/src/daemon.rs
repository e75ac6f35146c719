//! The real world around a [`Node`]: the data directory's lock, the container engine, the API's socket.

use crate::addr::Interfaces;
use crate::api_listener::{ApiAccess, bind_socket, bind_tcp, remove_socket};
use crate::node::{Node, OpenError};
use crate::state::Layout;
use crate::world::{NodeConfig, SledLogs, World};
use api::{EngineDial, UnixEngine};
use async_trait::async_trait;
use engine::embedded::EmbeddedOptions;
use engine::{DockerEngine, DockerOptions, EmbeddedEngine, Engine, EngineError, InvalidDockerHost};
use model::GenericResource;
use seams::{BoxStream, Tasks};
use std::fs::{File, TryLockError};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Everything `swarmlite daemon` is told.
#[derive(Debug, Clone)]
pub struct DaemonConfig {
    /// Where the node keeps its state.
    pub data_dir: PathBuf,
    /// The API's unix socket.
    pub socket: PathBuf,
    /// Who may open it, and where the API listens besides.
    pub access: ApiAccess,
    /// `ip[:port]` or `interface[:port]` of the control port.
    pub listen_addr: String,
    /// What other nodes use to reach it; empty to find out.
    pub advertise_addr: String,
    /// UDP port of gossip, on the listening address.
    pub gossip_port: u16,
    /// UDP port of the data path, on the listening address.
    pub data_path_port: u16,
    /// The host name that it gives, instead of its engine's: for several nodes on one machine.
    pub hostname: Option<String>,
    /// What the machine has beyond CPU and memory, besides what its engine says of that.
    pub generic: Vec<GenericResource>,
    /// Which engine runs the containers.
    pub engine: EngineChoice,
}

/// Which engine runs the containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineChoice {
    /// The Docker Engine at this endpoint (`unix:///var/run/docker.sock`).
    Docker {
        /// Its endpoint.
        host: String,
        /// Where secrets and configs are put for its containers, in memory.
        run_dir: PathBuf,
    },
    /// None: containers are pretended, in memory.
    Embedded,
}

/// A daemon that cannot start, or had to stop. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}: {source}; it must be writable by the user that runs the daemon")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "another swarmlite daemon{pid} is running on the data directory {path}; stop it first, or start this one with another --data-dir"
    )]
    Locked {
        /// Which.
        path: PathBuf,
        /// ` (process N)`, when known.
        pid: String,
    },
    /// The engine is not there.
    #[error(
        "{source} (start the Docker Engine, say where it is with --docker-host, or try swarmlite without one with --engine embedded)"
    )]
    Engine {
        /// Why not.
        #[source]
        source: EngineError,
    },
    /// The engine's address makes no sense.
    #[error(transparent)]
    DockerHost(#[from] InvalidDockerHost),
    /// The socket is another daemon's.
    #[error(
        "the socket {path} is in use by another process; stop it first, or start this daemon with another --socket"
    )]
    SocketInUse {
        /// Which.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on the socket {path}: {source}")]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The socket's group is not there.
    #[error(
        "there is no group {group} on this machine for the API's socket; make it (`groupadd {group}`), or name another with --socket-group"
    )]
    NoGroup {
        /// Its name.
        group: String,
    },
    /// The socket cannot be given to its group.
    #[error(
        "cannot give the API's socket to the group {group}: {source}; run the daemon as root, or leave --socket-group out"
    )]
    GroupDenied {
        /// Its name.
        group: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The API's TCP port is not to be had.
    #[error("cannot serve the API on {addr}: {source}; choose another --api-addr")]
    ApiAddr {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file of the API's TCP port cannot be read.
    #[error("cannot read {path}, which --api-addr needs: {reason}")]
    ApiTlsFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// They can be read, and are of no use.
    #[error("cannot serve the API over TCP: {0} (--api-tls-ca, --api-tls-cert, --api-tls-key)")]
    ApiTls(#[source] ca::ApiTlsError),
    /// Raft has stopped.
    #[error(
        "this manager cannot go on: {0}. Make room on its disk, or mend it, and start the daemon again; it catches up by itself, \
         and its containers keep running meanwhile"
    )]
    Raft(String),
    /// The node's own state cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// How long open API connections and the node have to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a daemon until `stop` resolves. `ready` is called once, when the API answers.
pub async fn run(
    config: DaemonConfig,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let _lock = lock(&config.data_dir)?;
    let seams = seams::real::seams();
    let (engine, engine_api) = open_engine(&config, &seams).await?;
    let tasks = Tasks::new();
    // What the port needs is looked at first: a daemon that cannot start leaves no socket.
    let port = match &config.access.tcp {
        Some(tcp) => Some(bind_tcp(tcp, &seams).await?),
        None => None,
    };
    let listener = bind_socket(&config.socket, config.access.socket_group.as_deref()).await?;
    let world =
        World { seams, engine, engine_api, interfaces: Arc::new(MachineInterfaces), raft_logs: Arc::new(SledLogs) };
    let node_config = NodeConfig {
        listen_addr: config.listen_addr,
        advertise_addr: config.advertise_addr,
        gossip_port: config.gossip_port,
        data_path_port: config.data_path_port,
        hostname: config.hostname,
        ..NodeConfig::new(config.data_dir)
    };
    let node = Node::open(node_config, world).await.inspect_err(|_| remove_socket(&config.socket))?;
    node.serve_api(Box::new(listener), &tasks);
    if let Some((listener, gate)) = port {
        node.serve_gated_api(listener, gate, &tasks);
    }
    ready();
    let broken = tokio::select! {
        biased;
        () = stop => None,
        reason = node.raft_broken() => Some(reason),
    };
    match &broken {
        None => tracing::info!("stopping: leadership is handed over, containers keep running"),
        Some(reason) => tracing::error!(reason, "Raft has stopped, and so does this daemon; containers keep running"),
    }
    node.shutdown().await;
    if !tasks.shutdown(SHUTDOWN_TIMEOUT).await {
        tracing::warn!("some API connections did not end in time");
    }
    remove_socket(&config.socket);
    broken.map_or(Ok(()), |reason| Err(DaemonError::Raft(reason)))
}

/// Takes the data directory for this process; the lock ends with it, however it ends.
#[allow(clippy::disallowed_methods)] // the lock is held on an open file, which seams::Disk does not have
pub(crate) fn lock(data_dir: &Path) -> Result<File, DaemonError> {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = |source| DaemonError::DataDir { path: data_dir.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    let path = Layout::new(data_dir).lock();
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The other process may be between taking the lock and writing its number: then we do not know it.
            let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
            let pid = if known { format!(" (process {})", pid.trim()) } else { String::new() };
            return Err(DaemonError::Locked { path: data_dir.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

async fn open_engine(
    config: &DaemonConfig,
    seams: &seams::Seams,
) -> Result<(Arc<dyn Engine>, Option<Arc<dyn EngineDial>>), DaemonError> {
    let (engine, engine_api): (Arc<dyn Engine>, Option<Arc<dyn EngineDial>>) = match &config.engine {
        EngineChoice::Docker { host, run_dir } => {
            let prefer_offline_images = std::env::var("DOCKER_SERVICE_PREFER_OFFLINE_IMAGE").is_ok_and(|v| v == "1");
            let (host_of_engine, run_dir, generic) = (host.clone(), run_dir.clone(), config.generic.clone());
            let options = DockerOptions { host: host_of_engine, prefer_offline_images, run_dir, generic };
            (Arc::new(DockerEngine::new(&options)?), Some(engine_dial(host)))
        }
        EngineChoice::Embedded => {
            let generic = config.generic.clone();
            let options = EmbeddedOptions { hostname: hostname(), generic, ..EmbeddedOptions::default() };
            (Arc::new(EmbeddedEngine::new(options, seams.clock.clone(), seams.rand.clone())), None)
        }
    };
    engine.describe().await.map_err(|source| DaemonError::Engine { source })?;
    Ok((engine, engine_api))
}

/// The way to the API of the engine at `host`, which [`DockerEngine::new`] has found to be an address.
fn engine_dial(host: &str) -> Arc<dyn EngineDial> {
    match host.strip_prefix("tcp://") {
        Some(addr) => Arc::new(TcpEngine(addr.to_owned())),
        None => Arc::new(UnixEngine { path: host.strip_prefix("unix://").unwrap_or(host).into() }),
    }
}

/// An engine on a TCP port.
struct TcpEngine(String);

#[async_trait]
impl EngineDial for TcpEngine {
    #[allow(clippy::disallowed_methods)] // the engine may be behind a host name, which seams::Net does not resolve
    async fn connect(&self) -> io::Result<BoxStream> {
        Ok(Box::new(tokio::net::TcpStream::connect(&self.0).await?))
    }

    fn endpoint(&self) -> String {
        format!("tcp://{}", self.0)
    }
}

#[allow(clippy::disallowed_methods)] // the machine's name is asked once, by the shell of the real world
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".into() } else { name.into() }
}

pub(crate) struct MachineInterfaces;

impl Interfaces for MachineInterfaces {
    fn addresses(&self) -> Vec<(String, IpAddr)> {
        let mut found: Vec<(String, IpAddr)> =
            if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|i| (i.name.clone(), i.ip())).collect();
        found.sort();
        found
    }
}
