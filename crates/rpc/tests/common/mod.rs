//! A network in memory, a clock that is set by hand, and identities.
#![allow(dead_code)] // each test file uses some of it

use async_trait::async_trait;
use ca::{Authority, CertificateGrant, Csr, Identity, NodeKey};
use model::{ClusterId, NodeId, Role, RootCa};
use parking_lot::Mutex;
use seams::real::{FileDisk, OsRand};
use seams::{BoxStream, Clock, Datagrams, Listener, Net, Seams, Tasks};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use swarmlite_rpc::{Admission, ChannelTimings, Channels, ServeConfig, ServerLimits, serve};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, watch};
use tonic::service::Routes;

pub(crate) const START: Duration = Duration::from_secs(1_800_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn id<T: std::str::FromStr>(c: char) -> T
where
    T::Err: std::fmt::Debug,
{
    String::from(c).repeat(25).parse().unwrap()
}

/// Seconds since the epoch, set by hand.
#[derive(Clone)]
pub(crate) struct HandClock(Arc<AtomicU64>);

impl HandClock {
    pub(crate) fn set(&self, to: Duration) {
        self.0.store(to.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn unix_now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

type Incoming = (BoxStream, SocketAddr);

/// Delivers connections; can be told to swallow everything on the wire, as a partition does.
#[derive(Clone, Default)]
pub(crate) struct MemNet {
    listeners: Arc<Mutex<BTreeMap<SocketAddr, mpsc::UnboundedSender<Incoming>>>>,
    pub(crate) cut: Arc<AtomicBool>,
    pub(crate) connections: Arc<AtomicU64>,
}

struct MemListener {
    addr: SocketAddr,
    incoming: tokio::sync::Mutex<mpsc::UnboundedReceiver<Incoming>>,
}

struct Wire {
    inner: DuplexStream,
    cut: Arc<AtomicBool>,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.cut.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Net for MemNet {
    async fn connect(&self, to: SocketAddr) -> io::Result<BoxStream> {
        let n = self.connections.fetch_add(1, Ordering::SeqCst);
        let (near, far) = tokio::io::duplex(256 * 1024);
        let from = SocketAddr::from(([10, 0, 9, 9], 40_000 + n as u16));
        let listeners = self.listeners.lock();
        let listener = listeners.get(&to).ok_or(io::ErrorKind::ConnectionRefused)?;
        // One flag for both directions of a connection; later connections get a fresh one.
        let cut = self.cut.clone();
        listener
            .send((Box::new(Wire { inner: far, cut: cut.clone() }), from))
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(Wire { inner: near, cut }))
    }

    async fn listen(&self, on: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let (tx, rx) = mpsc::unbounded_channel();
        self.listeners.lock().insert(on, tx);
        Ok(Box::new(MemListener { addr: on, incoming: tokio::sync::Mutex::new(rx) }))
    }

    async fn bind_udp(&self, _on: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[async_trait]
impl Listener for MemListener {
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        self.incoming.lock().await.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

/// What the state says, changed by hand.
#[derive(Clone, Default)]
pub(crate) struct State(pub(crate) Arc<Mutex<BTreeMap<NodeId, Role>>>);

impl Admission for State {
    fn current_role(&self, node: &NodeId, _issued: &ca::Issued) -> Option<Role> {
        self.0.lock().get(node).copied()
    }
}

/// A cluster with one manager `m` that listens, and whoever else is asked for.
pub(crate) struct World {
    pub(crate) net: MemNet,
    pub(crate) clock: HandClock,
    pub(crate) state: State,
    pub(crate) root: RootCa,
    pub(crate) tasks: Tasks,
}

pub(crate) const MANAGER_ADDR: &str = "10.0.0.1:2377";

impl World {
    pub(crate) fn new() -> World {
        let clock = HandClock(Arc::default());
        clock.set(START);
        let root = ca::generate_root(START, &OsRand).unwrap();
        World { net: MemNet::default(), clock, state: State::default(), root, tasks: Tasks::new() }
    }

    pub(crate) fn seams(&self) -> Seams {
        let (clock, net) = (Arc::new(self.clock.clone()), Arc::new(self.net.clone()));
        Seams { clock, rand: Arc::new(OsRand), net, disk: Arc::new(FileDisk) }
    }

    /// An identity, and its node in the state.
    pub(crate) fn member(&self, node: char, role: Role) -> Arc<Identity> {
        self.state.0.lock().insert(id(node), role);
        self.identity(node, role, 'c', &self.root, 24 * HOUR)
    }

    pub(crate) fn identity(
        &self,
        node: char,
        role: Role,
        cluster: char,
        root: &RootCa,
        expiry: Duration,
    ) -> Arc<Identity> {
        let key = NodeKey::generate().unwrap();
        let csr = Csr::parse(&key.csr_pem().unwrap()).unwrap();
        let authority = Authority::new(root, id::<ClusterId>(cluster)).unwrap();
        let grant = CertificateGrant { node_id: id(node), role, expiry };
        let chain = authority.issue(&csr, &grant, self.clock.unix_now(), &OsRand).unwrap();
        Arc::new(Identity::new(chain, key.key_pem(), root.cert_pem.clone()).unwrap())
    }

    pub(crate) async fn serve(&self, addr: &str, identity: Arc<Identity>, routes: Routes, limits: ServerLimits) {
        let (_, identity) = watch::channel(Some(identity));
        self.serve_as(addr, identity, routes, limits).await;
    }

    pub(crate) async fn serve_as(
        &self,
        addr: &str,
        identity: watch::Receiver<Option<Arc<Identity>>>,
        routes: Routes,
        limits: ServerLimits,
    ) {
        let listener = self.net.listen(addr.parse().unwrap()).await.unwrap();
        let (admission, clock) = (Arc::new(self.state.clone()), Arc::new(self.clock.clone()));
        serve(listener, ServeConfig { identity, admission, clock, limits }, routes, &self.tasks);
    }

    pub(crate) fn channels(&self, identity: Option<Arc<Identity>>) -> Channels {
        let (_, identity) = watch::channel(identity);
        Channels::new(self.seams(), identity, ChannelTimings::default())
    }
}
