//! Opens one connection: TCP through the seam, then TLS.

use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig, OtherError};
use seams::{BoxStream, Net};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection that could not be made. No byte of the call was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP.
    #[error("cannot connect to {to}")]
    Tcp {
        /// The address.
        to: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// TLS: the other end is not who it should be, or does not accept our certificate.
    #[error("cannot secure the connection to {to}")]
    Tls {
        /// The address.
        to: SocketAddr,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// Neither succeeded in time.
    #[error("cannot connect to {to}: no answer within {} ms", .after.as_millis())]
    Timeout {
        /// The address.
        to: SocketAddr,
        /// The bound.
        after: Duration,
    },
    /// This node has no certificate (yet, or any more).
    #[error("cannot connect to {to}: this node has no certificate; it is not part of a swarm")]
    NoIdentity {
        /// The address.
        to: SocketAddr,
    },
    /// This node's certificate is unusable.
    #[error("cannot connect to {to}")]
    Settings {
        /// The address.
        to: SocketAddr,
        /// Why.
        #[source]
        source: ca::TlsError,
    },
}

/// Where the TLS settings of the next connection come from: asked anew each time, so that a renewed certificate is used.
pub(crate) type TlsSource = Arc<dyn Fn() -> Result<Arc<ClientConfig>, ConnectError> + Send + Sync>;

/// The connector of one channel.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) net: Arc<dyn Net>,
    pub(crate) to: SocketAddr,
    pub(crate) timeout: Duration,
    pub(crate) tls: TlsSource,
}

type Io = TokioIo<TlsStream<BoxStream>>;

// === impl Connector ===

impl Connector {
    async fn connect(self) -> Result<Io, ConnectError> {
        let (to, after) = (self.to, self.timeout);
        match tokio::time::timeout(after, self.tcp_then_tls()).await {
            Ok(done) => done,
            Err(_elapsed) => Err(ConnectError::Timeout { to, after }),
        }
    }

    async fn tcp_then_tls(self) -> Result<Io, ConnectError> {
        let to = self.to;
        let config = (self.tls)()?;
        let tcp = self.net.connect(to).await.map_err(|source| ConnectError::Tcp { to, source })?;
        let connector = TlsConnector::from(config);
        let tls = connector.connect(ca::manager_server_name(), tcp).await;
        tls.map(TokioIo::new).map_err(|e| ConnectError::Tls { to, source: in_words(e) })
    }
}

/// rustls prints our verifier's verdict in debug form; this puts the words themselves in its place.
fn in_words(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(ours)))) => {
            io::Error::other(ours.to_string())
        }
        _ => error,
    }
}

impl tower::Service<http::Uri> for Connector {
    type Response = Io;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Io, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: http::Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}
