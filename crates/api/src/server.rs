//! Connections: HTTP/1.1 with upgrades, limits and timeouts.

use crate::Api;
use crate::reply::Reply;
use crate::route;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use seams::{BoxStream, Listener, Tasks};
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Connections served at once. Followed logs and events hold one each; beyond it, new ones wait.
pub(crate) const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head; `X-Registry-Auth` and long filters fit.
const HEAD_BYTES_MAX: usize = 256 << 10;
/// Header lines of a request.
const HEADERS_MAX: usize = 128;
/// How long accepting rests after an error (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
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
    /// finished first.
    pub async fn serve_connection(&self, stream: BoxStream) {
        if let Ok(permit) = self.0.connections.clone().acquire_owned().await {
            self.run_connection(stream, permit).await;
        }
    }

    /// Serves every connection of a listener, until `tasks` is asked to stop.
    pub async fn serve(&self, listener: Box<dyn Listener>, tasks: Tasks) {
        self.serve_door(Door::Net(listener), tasks).await;
    }

    /// Serves every connection of a Unix socket, until `tasks` is asked to stop. Who may open the socket may do
    /// everything: its file mode is the access control, as Docker's.
    pub async fn serve_unix(&self, listener: tokio::net::UnixListener, tasks: Tasks) {
        self.serve_door(Door::Unix(listener), tasks).await;
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
                    let serve = async move { api.run_connection(stream, permit).await };
                    self.deps().tasks.spawn_to_end("api connection", serve);
                }
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept an API connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn run_connection(&self, stream: BoxStream, _permit: OwnedSemaphorePermit) {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX);
        let api = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                Ok::<Reply, Infallible>(route::answer(&api, parts, body.map_err(io::Error::other).boxed()).await)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
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
