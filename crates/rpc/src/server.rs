//! Accepts connections and serves HTTP/2 on them.

use crate::access::Admission;
use crate::authorise::{Authorise, Connection, Shown};
use ca::Identity;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use seams::{BoxStream, Clock, Listener, Tasks};
use sources::{Slot, Slots};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::service::Routes;

/// What a server needs besides its routes.
#[derive(Clone)]
pub struct ServeConfig {
    /// Its certificate; the latest value is used for each new connection. While there is none, connections are closed.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// What the state says of a caller.
    pub admission: Arc<dyn Admission>,
    /// Judges certificates.
    pub clock: Arc<dyn Clock>,
    /// Bounds.
    pub limits: ServerLimits,
}

/// Bounds on what others can take from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections in all. A worker has one or two to one manager.
    pub connections_max: usize,
    /// Connections that have not shown a certificate (handshakes under way included).
    pub anonymous_max: usize,
    /// The same, from one IP address.
    pub anonymous_per_source_max: usize,
    /// How long a connection without a certificate may stand. Joining takes a second.
    pub anonymous_lifetime: Duration,
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    /// Requests at once on one connection.
    pub streams_max: u32,
    /// For the whole of a call that has one message each way.
    pub unary_timeout: Duration,
    /// Between HTTP/2 pings, so that vanished clients free their connections.
    pub keep_alive_interval: Duration,
    /// For the answer to a ping.
    pub keep_alive_timeout: Duration,
    /// For calls under way when the server stops.
    pub drain: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            connections_max: 8192,
            anonymous_max: 512,
            anonymous_per_source_max: 64,
            anonymous_lifetime: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(5),
            streams_max: 256,
            unary_timeout: Duration::from_secs(60),
            keep_alive_interval: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(5),
            drain: Duration::from_secs(1),
        }
    }
}

/// Streams at once on a connection without a certificate.
const ANONYMOUS_STREAMS_MAX: u32 = 8;
/// Bytes on their way on one stream of a member whose reader does not read ...
pub(crate) const STREAM_WINDOW: u32 = 512 << 10;
/// ... and on all streams of its connection: room for all the logs and terminals that a node serves at once (64 of each), should
/// somebody have paused every one, so that they never keep heartbeats and assignments waiting, which share the connection.
pub(crate) const CONNECTION_WINDOW: u32 = 72 << 20;
/// Bytes on their way on a connection without a certificate.
const ANONYMOUS_WINDOW: u32 = 256 << 10;
/// Between two warnings that a certificate's time is over, or has not come.
const COMPLAIN_PERIOD: Duration = Duration::from_secs(10);
/// After an accept that failed (usually for want of file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves `routes` on `listener` until `tasks` stops: TLS, then the authorisation table, then the handler, which finds the
/// [`ca::Peer`] and the [`crate::RemoteAddr`] in the request's extensions. Returns at once; the work is done in `tasks`.
pub fn serve(listener: Box<dyn Listener>, config: ServeConfig, routes: Routes, tasks: &Tasks) {
    let limits = config.limits;
    let server = Arc::new(Server {
        routes: routes.prepare(),
        connections: Arc::new(Semaphore::new(limits.connections_max)),
        anonymous: Slots::new(limits.anonymous_max, limits.anonymous_per_source_max),
        settings: Mutex::new(None),
        complained: Mutex::new(None),
        tasks: tasks.clone(),
        config,
    });
    tasks.spawn("rpc accept", server.accept(listener));
}

struct Server {
    config: ServeConfig,
    routes: Routes,
    connections: Arc<Semaphore>,
    anonymous: Slots,
    /// TLS settings, and the identity that they were made from.
    settings: Mutex<Option<(Arc<Identity>, TlsAcceptor)>>,
    /// When the last warning about a certificate's time was given.
    complained: Mutex<Option<tokio::time::Instant>>,
    tasks: Tasks,
}

/// Spawns a connection's streams into a group that ends with the connection.
#[derive(Clone)]
struct StreamExecutor(Tasks);

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("this node has no certificate")]
    NoIdentity,
    #[error(transparent)]
    Settings(#[from] ca::TlsError),
    #[error("no TLS handshake within {} s", .0.as_secs())]
    HandshakeTimeout(Duration),
    #[error("TLS handshake failed: {0}")]
    Handshake(#[from] std::io::Error),
    #[error(transparent)]
    Peer(#[from] ca::InvalidPeer),
}

// === impl Server ===

impl Server {
    async fn accept(self: Arc<Self>, listener: Box<dyn Listener>) {
        loop {
            let (tcp, remote) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            // Over a bound the connection is closed before it costs anything.
            let Ok(permit) = self.connections.clone().try_acquire_owned() else {
                tracing::warn!(%remote, max = self.config.limits.connections_max, "connection refused: too many");
                continue;
            };
            let Some(slot) = self.anonymous.take(remote.ip()) else {
                tracing::warn!(%remote, "connection refused: too many without a certificate");
                continue;
            };
            let server = self.clone();
            self.tasks.spawn_to_end("rpc connection", async move {
                if let Err(refused) = server.connection(tcp, remote, permit, slot).await {
                    server.complain(remote, &refused);
                }
            });
        }
    }

    async fn connection(
        &self,
        tcp: BoxStream,
        remote: SocketAddr,
        _permit: OwnedSemaphorePermit,
        slot: Slot,
    ) -> Result<(), Refused> {
        let (identity, acceptor) = self.settings()?;
        let bound = self.config.limits.handshake_timeout;
        let tls = tokio::select! {
            biased;
            () = self.tasks.stopped() => return Ok(()),
            done = tokio::time::timeout(bound, acceptor.accept(tcp)) =>
                done.map_err(|_elapsed| Refused::HandshakeTimeout(bound))??,
        };
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = Shown::new(chain, identity.clone())?;
        let (slot, lifetime) = match shown {
            // Who has shown a certificate is in nobody's way any more. (Not moved out of here it would live as long as the
            // connection does.)
            Some(_) => {
                drop(slot);
                (None, None)
            }
            None => (Some(slot), Some(self.config.limits.anonymous_lifetime)),
        };
        let connection = Connection {
            remote,
            shown,
            our_cluster: identity.cluster_id.clone(),
            admission: self.config.admission.clone(),
            clock: self.config.clock.clone(),
            identity: self.config.identity.clone(),
            unary_timeout: self.config.limits.unary_timeout,
        };
        self.serve_http2(tls, connection, lifetime).await;
        drop(slot);
        Ok(())
    }

    async fn serve_http2(&self, tls: TlsStream<BoxStream>, connection: Connection, lifetime: Option<Duration>) {
        let limits = &self.config.limits;
        let streams = Tasks::new();
        let remote = connection.remote;
        let (streams_max, window) = match connection.shown {
            Some(_) => (limits.streams_max, CONNECTION_WINDOW),
            None => (ANONYMOUS_STREAMS_MAX, ANONYMOUS_WINDOW),
        };
        let service = Authorise { inner: self.routes.clone(), connection: Arc::new(connection) };
        let mut served = pin!(
            http2::Builder::new(StreamExecutor(streams.clone()))
                .timer(TokioTimer::new())
                // It would read the machine's clock, and nobody reads it.
                .auto_date_header(false)
                .max_concurrent_streams(streams_max)
                .initial_stream_window_size(STREAM_WINDOW.min(window))
                .initial_connection_window_size(window)
                .keep_alive_interval(limits.keep_alive_interval)
                .keep_alive_timeout(limits.keep_alive_timeout)
                .serve_connection(TokioIo::new(tls), TowerToHyperService::new(service))
        );
        let over = async {
            match lifetime {
                None => std::future::pending().await,
                Some(lifetime) => tokio::time::sleep(lifetime).await,
            }
        };
        tokio::select! {
            biased;
            () = self.tasks.stopped() => {
                served.as_mut().graceful_shutdown();
                // What is not done by then is cut off; its caller sees an unknown outcome.
                let _ = tokio::time::timeout(limits.drain, served).await;
            }
            done = &mut served => {
                if let Err(error) = done {
                    tracing::debug!(%remote, %error, "connection ended");
                }
            }
            () = over => tracing::debug!(%remote, "connection without a certificate closed: too long open"),
        }
        streams.stop();
    }

    /// Says why a connection came to nothing: aloud when it is about time, since that is for a person to mend, but not more
    /// often than a person reads.
    fn complain(&self, remote: SocketAddr, refused: &Refused) {
        let why = match refused {
            Refused::Handshake(e) => time_error(e, remote),
            _ => None,
        };
        let Some(why) = why else {
            tracing::debug!(%remote, %refused, "connection refused");
            return;
        };
        let mut last = self.complained.lock();
        if last.is_none_or(|at| at.elapsed() >= COMPLAIN_PERIOD) {
            *last = Some(tokio::time::Instant::now());
            tracing::warn!(%remote, "connection refused: {why}");
        } else {
            tracing::debug!(%remote, "connection refused: {why}");
        }
    }

    /// The TLS settings for the identity of now.
    fn settings(&self) -> Result<(Arc<Identity>, TlsAcceptor), Refused> {
        let identity = self.config.identity.borrow().clone().ok_or(Refused::NoIdentity)?;
        let mut settings = self.settings.lock();
        if let Some((of, acceptor)) = settings.as_ref()
            && Arc::ptr_eq(of, &identity)
        {
            return Ok((identity, acceptor.clone()));
        }
        let acceptor = TlsAcceptor::from(ca::server_config(&identity, self.config.clock.clone())?);
        *settings = Some((identity.clone(), acceptor.clone()));
        Ok((identity, acceptor))
    }
}

/// What is wrong with the time of a client's certificate, in words.
fn time_error(error: &std::io::Error, remote: SocketAddr) -> Option<String> {
    let rustls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>())?;
    ca::time_error(rustls, &format!("the node at {remote}"))
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("rpc stream", stream);
    }
}

impl fmt::Debug for ServeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}
