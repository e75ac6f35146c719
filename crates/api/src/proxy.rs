//! What the swarm does not own goes to the local engine: streamed both ways, upgraded connections (exec, attach, build)
//! included.

use crate::Api;
use crate::reply::{Body, Reply, kept_open};
use crate::request::{ApiVersion, Path};
use async_trait::async_trait;
use docker_api::Failure;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use seams::BoxStream;
use serde_json::{Map, Value};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// How long the engine may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the engine may take for an answer that we read ourselves.
const JSON_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of such an answer.
const JSON_BYTES_MAX: usize = 16 << 20;

/// Opens connections to the local engine's API.
#[async_trait]
pub trait EngineDial: Send + Sync + 'static {
    /// A new connection. The caller bounds the time it takes.
    async fn connect(&self) -> io::Result<BoxStream>;
    /// Where the engine is, for people.
    fn endpoint(&self) -> String;
}

/// An engine on a Unix socket.
#[derive(Debug, Clone)]
pub struct UnixEngine {
    /// The socket.
    pub path: PathBuf,
}

// === impl UnixEngine ===

#[async_trait]
impl EngineDial for UnixEngine {
    async fn connect(&self) -> io::Result<BoxStream> {
        Ok(Box::new(tokio::net::UnixStream::connect(&self.path).await?))
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

// === impl Api ===

impl Api {
    /// Sends a client's request on to the engine, and its answer back. Only where `may_upgrade`, the connection may become a
    /// tunnel, which then holds `place` among the streams until it ends.
    pub(crate) async fn proxy(
        &self,
        mut request: Request<Body>,
        path: &Path,
        may_upgrade: bool,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Reply, Failure> {
        let client_side = (may_upgrade && is_upgrade(request.headers())).then(|| hyper::upgrade::on(&mut request));
        let uri = self.engine_uri(&request, path).await?;
        *request.uri_mut() = uri;
        clean_headers(request.headers_mut(), client_side.is_some());
        let mut response = self.send_to_engine(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(client_side) = client_side
        {
            let engine_side = hyper::upgrade::on(&mut response);
            self.deps().tasks.spawn("engine upgrade", async move {
                splice(client_side, engine_side).await;
                drop(place);
            });
            return Ok(response.map(|_| crate::reply::full("")));
        }
        clean_headers(response.headers_mut(), false);
        Ok(kept_open(response.map(|b| b.map_err(io::Error::other).boxed()), place))
    }

    /// The path with a version that the engine speaks: the client's if it does, else the nearest.
    async fn engine_uri<B>(&self, request: &Request<B>, path: &Path) -> Result<Uri, Failure> {
        let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
        let version = match path.version {
            Some(wanted) => Some(self.nearest_engine_version(wanted).await),
            None => None,
        };
        let prefix = version.map(|v| format!("/v{v}")).unwrap_or_default();
        format!("{prefix}{}{query}", path.rest).parse().map_err(|_| Failure::bad_request("the path is not a valid URI"))
    }

    async fn nearest_engine_version(&self, wanted: ApiVersion) -> ApiVersion {
        let facts = self.engine_facts().await;
        facts.filter(|f| f.min <= f.max).map_or(wanted, |f| wanted.clamp(f.min, f.max))
    }

    /// Sends a request over a connection of its own.
    pub(crate) async fn send_to_engine(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let Some(dial) = &self.deps().engine_api else { return Err(no_engine_api()) };
        let unreachable = |reason: &dyn std::fmt::Display| {
            let endpoint = dial.endpoint();
            Failure::new(503, format_args!("cannot reach the container engine at {endpoint}: {reason}; is it running?"))
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, dial.connect()).await;
        let stream = connected
            .map_err(|_| unreachable(&format_args!("no connection within {CONNECT_TIMEOUT:?}")))?
            .map_err(|e| unreachable(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
        self.deps().tasks.spawn("engine connection", async move {
            if let Err(e) = connection.with_upgrades().await {
                tracing::debug!(error = %e, "a connection to the engine ended");
            }
        });
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("docker"));
        sender.send_request(request).await.map_err(|e| unreachable(&e))
    }

    /// A JSON object from the engine.
    pub(crate) async fn engine_json(&self, path: &str) -> Result<Map<String, Value>, Failure> {
        self.engine_json_with(path, &HeaderMap::new()).await
    }

    /// A JSON object from the engine, asked for with these headers.
    pub(crate) async fn engine_json_with(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Map<String, Value>, Failure> {
        let bad = |reason: String| {
            Failure::new(502, format_args!("the container engine's answer to {path} is of no use: {reason}"))
        };
        let mut request = Request::get(path).body(crate::reply::full("")).map_err(|e| bad(e.to_string()))?;
        request.headers_mut().extend(headers.clone());
        let whole = async {
            let response = self.send_to_engine(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), JSON_BYTES_MAX).collect().await;
            let bytes = body.map_err(|e| bad(e.to_string()))?.to_bytes();
            if !status.is_success() {
                return Err(bad(format!("status {status}")));
            }
            serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))
        };
        tokio::time::timeout(JSON_TIMEOUT, whole).await.unwrap_or_else(|_| Err(bad("it did not come in time".into())))
    }
}

/// The reply for what only a real engine can do.
pub(crate) fn no_engine_api() -> Failure {
    Failure::new(
        501,
        "this node runs the embedded engine, which has no API of its own: it only pretends to run containers. Start the daemon with --engine docker for containers, images, volumes, exec and attach",
    )
}

/// Whether a client wants the connection to become a tunnel.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get(header::CONNECTION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    headers.contains_key(header::UPGRADE) && connection.split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade"))
}

/// Takes out what concerns one connection only (RFC 9110 §7.6.1). hyper frames the body itself.
fn clean_headers(headers: &mut HeaderMap, keep_upgrade: bool) {
    for name in
        ["keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "transfer-encoding", "expect"]
    {
        headers.remove(name);
    }
    if !keep_upgrade {
        headers.remove(header::CONNECTION);
        headers.remove(header::UPGRADE);
    }
}

/// Copies between two upgraded connections until both directions have ended; the end of one is passed on alone.
async fn splice(client: OnUpgrade, engine: OnUpgrade) {
    let (client, engine) = match tokio::join!(client, engine) {
        (Ok(client), Ok(engine)) => (client, engine),
        (Err(e), _) | (_, Err(e)) => {
            tracing::debug!(error = %e, "an upgrade was not completed");
            return;
        }
    };
    if let Err(e) = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(engine)).await {
        tracing::debug!(error = %e, "an upgraded connection broke");
    }
}
