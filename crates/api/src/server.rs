//! Connections: HTTP/1.1 with upgrades, limits and timeouts.

use crate::Api;
use crate::access::Caller;
use crate::reply::Reply;
use crate::route;
use crate::stall::{Patience, Stalling};
use async_trait::async_trait;
use docker_api::Failure;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use seams::{BoxStream, Listener, Tasks};
use sources::{Slot, Slots};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections served at once from one socket. Followed logs and events hold one each; beyond it, new ones wait.
pub(crate) const CONNECTIONS_MAX: usize = 1024;
/// Event streams, followed logs and tunnels (exec, attach, build) at once: half of the connections, so that there is always
/// room for a question. The port has as many of its own (an [`Api`] for each listener), so that it cannot take the socket's.
pub(crate) const STREAMS_MAX: usize = 512;
/// Connections served at once from a port behind a [`Gate`]; beyond it, new ones are closed.
const GATED_MAX: usize = 512;
/// The same from one source.
const GATED_PER_SOURCE_MAX: usize = 128;
/// Connections that stand at the gate: their TLS handshake is under way.
const AT_THE_GATE_MAX: usize = 64;
/// The same from one source.
const AT_THE_GATE_PER_SOURCE_MAX: usize = 16;
/// For the gate to let a connection in.
const GATE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's head, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head; `X-Registry-Auth` and long filters fit.
const HEAD_BYTES_MAX: usize = 256 << 10;
/// Header lines of a request.
const HEADERS_MAX: usize = 128;
/// How long accepting rests after an error (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a request's connection is.
pub(crate) struct Origin {
    /// Who is at its other end.
    pub(crate) caller: Caller,
    /// How long it waits for a reader that does not read.
    pub(crate) patience: Patience,
}

/// Finds out who is at the other end of a connection, before anything is read of its requests.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Lets a connection in (after its TLS handshake, say), or fails. The caller bounds the time that it takes.
    async fn admit(&self, stream: BoxStream) -> io::Result<(BoxStream, Caller)>;
}

/// Where connections come from that need no gate.
enum Door {
    Net(Box<dyn Listener>),
    Unix(tokio::net::UnixListener),
}

// === impl Door ===

impl Door {
    async fn accept(&self) -> io::Result<BoxStream> {
        match self {
            Door::Net(listener) => listener.accept().await.map(|(stream, _)| stream),
            Door::Unix(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as BoxStream),
        }
    }
}

// === impl Api ===

impl Api {
    /// Serves one connection until it ends, or until the API's tasks are asked to stop: then what is under way is
    /// finished first. Whoever is at its other end may do everything.
    pub async fn serve_connection(&self, stream: BoxStream) {
        if let Ok(permit) = self.0.connections.clone().acquire_owned().await {
            self.run_connection(stream, Caller::local()).await;
            drop(permit);
        }
    }

    /// Serves every connection of a listener, until `tasks` is asked to stop. Who may connect may do everything: it is the
    /// listener's matter that nobody else can.
    pub async fn serve(&self, listener: Box<dyn Listener>, tasks: Tasks) {
        self.serve_door(Door::Net(listener), tasks).await;
    }

    /// Serves every connection of a Unix socket, until `tasks` is asked to stop. Who may open the socket may do
    /// everything: its file mode is the access control, as Docker's.
    pub async fn serve_unix(&self, listener: tokio::net::UnixListener, tasks: Tasks) {
        self.serve_door(Door::Unix(listener), tasks).await;
    }

    /// Serves every connection of a listener that `gate` lets in, with the rights that it gives, until `tasks` is asked to
    /// stop. Its connections are counted apart, so that the network cannot keep anybody from the socket.
    pub async fn serve_gated(&self, listener: Box<dyn Listener>, gate: Arc<dyn Gate>, tasks: Tasks) {
        let inside = Slots::new(GATED_MAX, GATED_PER_SOURCE_MAX);
        let waiting = Slots::new(AT_THE_GATE_MAX, AT_THE_GATE_PER_SOURCE_MAX);
        loop {
            let accepted = tokio::select! {
                biased;
                () = tasks.stopped() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept an API connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Over a bound the connection is closed before it costs anything.
            let (Some(inside), Some(waiting)) = (inside.take(remote.ip()), waiting.take(remote.ip())) else {
                tracing::debug!(%remote, "API connection refused: too many");
                continue;
            };
            let (api, gate) = (self.clone(), gate.clone());
            let serve = async move { api.run_gated(stream, remote, &*gate, waiting, inside).await };
            self.deps().tasks.spawn_to_end("api connection", serve);
        }
    }

    async fn run_gated(&self, stream: BoxStream, remote: SocketAddr, gate: &dyn Gate, waiting: Slot, _inside: Slot) {
        let admitted = tokio::select! {
            biased;
            () = self.deps().tasks.stopped() => return,
            admitted = tokio::time::timeout(GATE_TIMEOUT, gate.admit(stream)) => admitted,
        };
        drop(waiting);
        match admitted {
            Ok(Ok((stream, caller))) => self.run_connection(stream, caller).await,
            Ok(Err(error)) => tracing::debug!(%remote, %error, "API connection refused"),
            Err(_) => tracing::debug!(%remote, "API connection refused: no TLS handshake within {GATE_TIMEOUT:?}"),
        }
    }

    /// Accepts while there is room: a connection too many waits in the kernel, not here.
    async fn serve_door(&self, door: Door, tasks: Tasks) {
        loop {
            let accepted = async {
                let permit = self.0.connections.clone().acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((door.accept().await?, permit))
            };
            let accepted = tokio::select! {
                biased;
                () = tasks.stopped() => return,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let api = self.clone();
                    let serve = async move {
                        api.run_connection(stream, Caller::local()).await;
                        drop(permit);
                    };
                    self.deps().tasks.spawn_to_end("api connection", serve);
                }
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept an API connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A place among the streams, which is free again when it is dropped.
    pub(crate) fn stream(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.0.streams.clone().try_acquire_owned().map_err(|_| {
            let text = format_args!(
                "too many event streams, followed logs and terminals are open on this node (at most {STREAMS_MAX}); close some and try again"
            );
            Failure::new(503, text)
        })
    }

    async fn run_connection(&self, stream: BoxStream, caller: Caller) {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX);
        let patience = Patience::default();
        let now = self.deps().seams.clock.unix_now();
        let life = caller.until.map(|until| until.saturating_sub(now));
        let stream = TokioIo::new(Stalling::new(stream, patience.clone(), life));
        let from = Arc::new(Origin { caller, patience });
        let api = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (api, from) = (api.clone(), from.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.map_err(io::Error::other).boxed();
                Ok::<Reply, Infallible>(route::answer(&api, &from, parts, body).await)
            }
        });
        let mut connection = pin!(builder.serve_connection(stream, service).with_upgrades());
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.deps().tasks.stopped() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!(error = %e, "an API connection ended");
        }
    }
}

/// Room for connections and streams, as an [`Api`] has it.
pub(crate) fn room(places: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(places))
}
