//! A Docker Engine, through bollard.

mod create;
mod describe;
mod exec;
mod logs;
mod observe;
mod plugins;
mod pull;
mod raw;
mod tmpfs;

use crate::{ContainerEvent, ContainerState, Engine, EngineError, HostFiles, LogChunk, LogOptions, NewContainer};
use async_trait::async_trait;
use bollard::errors::Error as Bollard;
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use futures::stream::{self, BoxStream, StreamExt as _};
use model::{GenericResource, NodeDescription};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Oldest API version that has all we need (Docker 20.10).
const API_MIN: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };
/// For calls that only read.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// For calls that change something: creating copies an image's files into volumes, starting sets up networks.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// What the engine gets beyond the grace period to kill a container and answer.
const STOP_MARGIN: Duration = Duration::from_secs(20);
/// Containers inspected at once when listing.
const INSPECTIONS_AT_ONCE: usize = 8;
/// bollard's own timeout is switched off with this: each call has one of ours.
const NO_TIMEOUT_SECS: u64 = 24 * 3600;

/// How to reach a Docker Engine, and how to treat it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerOptions {
    /// `unix:///path`, an absolute path, or `tcp://host:port` (without TLS).
    pub host: String,
    /// Docker's `DOCKER_SERVICE_PREFER_OFFLINE_IMAGE`: an image that is there is not asked for again.
    pub prefer_offline_images: bool,
    /// Where files for containers that must never be on a disk are kept (secrets and configs): a tmpfs is mounted in it for
    /// each node.
    pub run_dir: PathBuf,
    /// What its machine has beyond CPU and memory, besides what the engine itself says of that.
    pub generic: Vec<GenericResource>,
}

/// A Docker Engine. Connects at the first call, and again after the engine was lost; the API version is negotiated with
/// each connection. `describe` asks whether it is reachable.
#[derive(Debug)]
pub struct DockerEngine {
    endpoint: Endpoint,
    prefer_offline_images: bool,
    run_dir: PathBuf,
    generic: Vec<GenericResource>,
    client: Mutex<Option<Docker>>,
    pulls: pull::Pulls,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Endpoint {
    Unix(String),
    Tcp(String),
}

/// A Docker host that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a Docker host: give unix:///path/to/docker.sock, an absolute path, or tcp://host:port")]
pub struct InvalidDockerHost(pub String);

// === impl DockerOptions ===

impl Default for DockerOptions {
    fn default() -> Self {
        DockerOptions {
            host: "unix:///var/run/docker.sock".into(),
            prefer_offline_images: false,
            run_dir: "/run/swarmlite".into(),
            generic: Vec::new(),
        }
    }
}

// === impl Endpoint ===

impl std::str::FromStr for Endpoint {
    type Err = InvalidDockerHost;
    fn from_str(host: &str) -> Result<Self, InvalidDockerHost> {
        let invalid = || InvalidDockerHost(host.chars().take(200).collect());
        if let Some(address) = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")) {
            let (name, port) = address.trim_end_matches('/').rsplit_once(':').ok_or_else(invalid)?;
            let port: u16 = port.parse().map_err(|_| invalid())?;
            let clean = !name.is_empty() && !name.contains(['/', '@', '?', '#', ' ']);
            return if clean { Ok(Endpoint::Tcp(format!("tcp://{name}:{port}"))) } else { Err(invalid()) };
        }
        let path = host.strip_prefix("unix://").unwrap_or(host);
        if path.starts_with('/') && path.len() > 1 { Ok(Endpoint::Unix(path.to_owned())) } else { Err(invalid()) }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{path}"),
            Endpoint::Tcp(address) => f.write_str(address),
        }
    }
}

// === impl DockerEngine ===

impl DockerEngine {
    /// An engine at this host. Does not connect yet.
    pub fn new(options: &DockerOptions) -> Result<DockerEngine, InvalidDockerHost> {
        Ok(DockerEngine {
            endpoint: options.host.parse()?,
            prefer_offline_images: options.prefer_offline_images,
            run_dir: options.run_dir.clone(),
            generic: options.generic.clone(),
            client: Mutex::new(None),
            pulls: pull::Pulls::default(),
        })
    }

    /// Where the engine is, as a URL.
    pub fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }

    async fn client(&self) -> Result<Docker, EngineError> {
        if let Some(client) = self.client.lock().clone() {
            return Ok(client);
        }
        let client = match &self.endpoint {
            Endpoint::Unix(path) => Docker::connect_with_unix(path, NO_TIMEOUT_SECS, API_DEFAULT_VERSION),
            Endpoint::Tcp(address) => Docker::connect_with_http(address, NO_TIMEOUT_SECS, API_DEFAULT_VERSION),
        }
        .map_err(|e| self.error("answer", READ_TIMEOUT, e))?;
        let client = self.bound("say its version", READ_TIMEOUT, client.negotiate_version()).await?;
        let version = client.client_version();
        if version < API_MIN {
            return Err(EngineError::Refused(format!(
                "the Docker Engine at {} speaks API version {version}; {API_MIN} (Docker 20.10) or newer is needed",
                self.endpoint
            )));
        }
        *self.client.lock() = Some(client.clone());
        Ok(client)
    }

    /// Runs one call with a timeout, and its error in our terms.
    async fn bound<T>(
        &self,
        call: &'static str,
        after: Duration,
        future: impl Future<Output = Result<T, Bollard>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(after, future).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(self.error(call, after, e)),
            Err(_) => Err(EngineError::Timeout { call, after }),
        }
    }

    /// An error in our terms, by status code where the engine answered. A lost connection is negotiated anew.
    fn error(&self, call: &'static str, after: Duration, error: Bollard) -> EngineError {
        match error {
            Bollard::DockerResponseServerError { status_code, message } => {
                by_status(status_code, message.trim().to_owned())
            }
            Bollard::DockerStreamError { error } => EngineError::Failed(error.trim().to_owned()),
            Bollard::RequestTimeoutError => EngineError::Timeout { call, after },
            Bollard::SocketNotFoundError(_) => self.unreachable("no such socket".into()),
            e @ (Bollard::HyperLegacyError { .. } | Bollard::HyperResponseError { .. } | Bollard::IOError { .. }) => {
                self.unreachable(root_cause(&e))
            }
            e => EngineError::Failed(format!(
                "cannot understand what the Docker Engine answered when asked to {call}: {e}"
            )),
        }
    }

    fn unreachable(&self, reason: String) -> EngineError {
        *self.client.lock() = None;
        EngineError::Unreachable { endpoint: self.endpoint.to_string(), reason }
    }
}

/// What an error status of the engine's means.
fn by_status(status: u16, message: String) -> EngineError {
    match status {
        404 => EngineError::NotFound(message),
        409 => EngineError::Conflict(message),
        400..=499 | 501 => EngineError::Refused(message),
        _ => EngineError::Failed(message),
    }
}

/// The innermost error: the outer ones of an HTTP client say only that something failed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn label_filters(label: &str) -> BTreeMap<&'static str, Vec<String>> {
    BTreeMap::from([("label", vec![label.to_owned()])])
}

#[async_trait]
impl Engine for DockerEngine {
    async fn describe(&self) -> Result<NodeDescription, EngineError> {
        let client = self.client().await?;
        let info = self.bound("describe itself", READ_TIMEOUT, client.info()).await?;
        Ok(describe::node(info, self.enabled_plugins().await?, &self.generic))
    }

    async fn pull(&self, image: &str, registry_auth: Option<&str>) -> Result<(), EngineError> {
        self.pull_image(image, registry_auth).await
    }

    async fn create(&self, container: &NewContainer) -> Result<String, EngineError> {
        let client = self.client().await?;
        let body = create::body(container, client.client_version())?;
        let options = query::CreateContainerOptionsBuilder::new().name(&container.name).build();
        let made =
            self.bound("create a container", WRITE_TIMEOUT, client.create_container(Some(options), body)).await?;
        for warning in made.warnings {
            tracing::warn!(container = container.name, "the engine warns: {warning}");
        }
        Ok(made.id)
    }

    async fn start(&self, id: &str) -> Result<(), EngineError> {
        let client = self.client().await?;
        // "Not modified" (it runs already) is a success for bollard too.
        self.bound("start a container", WRITE_TIMEOUT, client.start_container(id, None::<query::StartContainerOptions>))
            .await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let client = self.client().await?;
        let secs = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = query::StopContainerOptionsBuilder::new().t(secs).build();
        let call = client.stop_container(id, Some(options));
        match self.bound("stop a container", grace.saturating_add(STOP_MARGIN), call).await {
            Err(EngineError::NotFound(_)) => Ok(()),
            done => done,
        }
    }

    async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let client = self.client().await?;
        let options = query::RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.bound("remove a container", WRITE_TIMEOUT, client.remove_container(id, Some(options))).await {
            Err(EngineError::NotFound(_)) => Ok(()),
            // "removal of container … is already in progress": not done yet, and not refused either.
            Err(EngineError::Conflict(message)) => Err(EngineError::Failed(message)),
            done => done,
        }
    }

    async fn inspect(&self, id: &str) -> Result<Option<ContainerState>, EngineError> {
        let client = self.client().await?;
        let call = client.inspect_container(id, None::<query::InspectContainerOptions>);
        match self.bound("inspect a container", READ_TIMEOUT, call).await {
            Ok(response) => Ok(Some(observe::state(response))),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn list(&self, label: &str) -> Result<Vec<ContainerState>, EngineError> {
        let client = self.client().await?;
        let filters = label_filters(label).into_iter().collect();
        let options = query::ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.bound("list containers", READ_TIMEOUT, client.list_containers(Some(options))).await?;
        let mut inspections = stream::iter(found.into_iter().filter_map(|c| c.id))
            .map(|id| async move { self.inspect(&id).await })
            .buffered(INSPECTIONS_AT_ONCE);
        let mut containers = Vec::new();
        while let Some(inspected) = inspections.next().await {
            // One that went away in the meantime is not in the list.
            containers.extend(inspected?);
        }
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(containers)
    }

    async fn events(&self, label: &str) -> Result<BoxStream<'static, ContainerEvent>, EngineError> {
        let client = self.client().await?;
        // bollard sends the request when the stream is first polled; the engine's own time of now closes the gap.
        let info = self.bound("say its time", READ_TIMEOUT, client.info()).await?;
        let since = info.system_time.as_deref().and_then(observe::unix_seconds);
        Ok(observe::events(&client, label, since))
    }

    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogChunk, EngineError>>, EngineError> {
        let client = self.client().await?;
        // The stream would give its first error only when polled; a container that is not there is known before.
        let call = client.inspect_container(id, None::<query::InspectContainerOptions>);
        self.bound("inspect a container", READ_TIMEOUT, call).await?;
        Ok(logs::stream(&client, self.endpoint.to_string(), id, options))
    }

    async fn log_details(&self, id: &str) -> Result<BTreeMap<String, String>, EngineError> {
        self.details_of_output(id).await
    }

    async fn signal(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        let client = self.client().await?;
        let options = query::KillContainerOptionsBuilder::new().signal(signal).build();
        self.bound("signal a container", READ_TIMEOUT, client.kill_container(id, Some(options))).await
    }

    fn files(&self) -> Arc<dyn HostFiles> {
        match &self.endpoint {
            Endpoint::Unix(_) => Arc::new(tmpfs::TmpfsFiles::new(&self.run_dir)),
            Endpoint::Tcp(_) => Arc::new(tmpfs::NoFiles { endpoint: self.endpoint.to_string() }),
        }
    }

    fn kind(&self) -> &'static str {
        "docker"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(host: &str) -> Result<DockerEngine, InvalidDockerHost> {
        DockerEngine::new(&DockerOptions { host: host.into(), ..DockerOptions::default() })
    }

    #[test]
    fn a_docker_host_is_a_socket_or_a_tcp_address() {
        for (host, endpoint) in [
            ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
            ("/run/d.sock", "unix:///run/d.sock"),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("tcp://[::1]:2375/", "tcp://[::1]:2375"),
        ] {
            assert_eq!(engine(host).unwrap().endpoint(), endpoint);
        }
        for bad in [
            "",
            "/",
            "unix://",
            "docker.sock",
            "tcp://",
            "tcp://host",
            "tcp://:1",
            "tcp://a:b",
            "ssh://x",
            "tcp://a/b:1",
        ] {
            assert_eq!(engine(bad).unwrap_err(), InvalidDockerHost(bad.into()));
        }
    }

    #[test]
    fn the_status_code_says_what_kind_of_failure_it_is() {
        let engine = engine("/nowhere").unwrap();
        let map = |status_code| {
            let message = " text\n".to_owned();
            engine.error("x", READ_TIMEOUT, Bollard::DockerResponseServerError { status_code, message })
        };
        assert_eq!(map(404), EngineError::NotFound("text".into()));
        assert_eq!(map(409), EngineError::Conflict("text".into()));
        assert_eq!(map(400), EngineError::Refused("text".into()));
        assert_eq!(map(403), EngineError::Refused("text".into()));
        assert_eq!(map(500), EngineError::Failed("text".into()));
        assert_eq!(map(503), EngineError::Failed("text".into()));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unreachable_and_says_where() {
        let error = engine("/nowhere/docker.sock").unwrap().describe().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot reach the container engine at unix:///nowhere/docker.sock: no such socket; is it running?"
        );
        assert!(error.is_engine_away());
    }
}
