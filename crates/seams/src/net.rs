//! TCP and UDP.

use async_trait::async_trait;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A [`Stream`] whose kind the caller need not know.
pub type BoxStream = Box<dyn Stream>;

/// Opens sockets.
#[async_trait]
pub trait Net: Send + Sync + 'static {
    /// Opens a TCP connection. Gives no timeout of its own: the caller bounds it.
    async fn connect(&self, to: SocketAddr) -> io::Result<BoxStream>;
    /// Listens on a TCP address.
    async fn listen(&self, on: SocketAddr) -> io::Result<Box<dyn Listener>>;
    /// Binds a UDP address.
    async fn bind_udp(&self, on: SocketAddr) -> io::Result<Box<dyn Datagrams>>;
    /// The addresses of a host name, best first, each with `port`. A network without names knows none.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let _ = port;
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("there are no names in this network, so no `{host}`")))
    }
}

/// Accepts connections.
#[async_trait]
pub trait Listener: Send + Sync + 'static {
    /// The next connection and the peer's address.
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)>;
    /// The address that was bound (with the port the system chose, when 0 was asked for).
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Sends and receives datagrams.
#[async_trait]
pub trait Datagrams: Send + Sync + 'static {
    /// Sends one datagram.
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()>;
    /// Receives one datagram into `buf`; what does not fit is cut off.
    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
    /// The address that was bound.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The machine's network.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioNet;

struct TokioListener(tokio::net::TcpListener);
struct TokioDatagrams(tokio::net::UdpSocket);

// === impl TokioNet ===

#[async_trait]
#[allow(clippy::disallowed_methods)] // this is the seam
impl Net for TokioNet {
    async fn connect(&self, to: SocketAddr) -> io::Result<BoxStream> {
        let stream = tokio::net::TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, on: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TokioListener(tokio::net::TcpListener::bind(on).await?)))
    }

    async fn bind_udp(&self, on: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        Ok(Box::new(TokioDatagrams(tokio::net::UdpSocket::bind(on).await?)))
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

#[async_trait]
impl Listener for TokioListener {
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[async_trait]
impl Datagrams for TokioDatagrams {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.send_to(bytes, to).await.map(drop)
    }

    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buf).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
