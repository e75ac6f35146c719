//! Opens one connection: TCP through the seam, then TLS.

use bytes::{Bytes, BytesMut};
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
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
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
    /// This node's certificate is not valid now: when it is, and what the clock shows.
    #[error("cannot connect to {to}: {why}")]
    NotValid {
        /// The address.
        to: SocketAddr,
        /// In words.
        why: String,
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

type Io = TokioIo<Opened>;

/// A connection on which the other end has spoken.
pub(crate) struct Opened {
    /// What it said first, and has not been read yet.
    first: Bytes,
    tls: TlsStream<BoxStream>,
}

/// HTTP/2 settings have some tens of bytes.
const FIRST_BYTES_MAX: usize = 1024;

// === impl Opened ===

impl Opened {
    /// Waits for the first bytes of the other end, which speaks first in HTTP/2. In TLS 1.3 a client is through with its side of
    /// the handshake before the server has judged its certificate: only these bytes, or an alert in their place, tell.
    async fn new(mut tls: TlsStream<BoxStream>) -> io::Result<Opened> {
        let mut first = BytesMut::with_capacity(FIRST_BYTES_MAX);
        if tls.read_buf(&mut first).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection without a word"));
        }
        Ok(Opened { first: first.freeze(), tls })
    }
}

impl AsyncRead for Opened {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.tls).poll_read(cx, buf);
        }
        let n = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

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
        let opened = async { Opened::new(connector.connect(ca::manager_server_name(), tcp).await?).await };
        opened.await.map(TokioIo::new).map_err(|e| ConnectError::Tls { to, source: in_words(e, to) })
    }
}

/// rustls prints our verifier's verdict in debug form; this puts the words themselves in its place. Of times it says how far
/// they are apart; this says which they are.
fn in_words(error: io::Error, to: SocketAddr) -> io::Error {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    if let Some(words) = inner.and_then(|e| ca::time_error(e, &format!("the manager at {to}"))) {
        return io::Error::other(words);
    }
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
