//! UDP in memory, a clock in step with tokio's, and nodes on it.
#![allow(dead_code)] // each test file uses some of it

use async_trait::async_trait;
use model::{ClusterId, GossipKey, NodeId};
use parking_lot::Mutex;
use seams::real::{FileDisk, OsRand};
use seams::{BoxStream, Clock, Datagrams, Listener, Net, Seams, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use swarmlite_gossip::{Gossip, GossipConfig, GossipTimings};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub(crate) fn id<T: std::str::FromStr>(c: char) -> T
where
    T::Err: std::fmt::Debug,
{
    String::from(c).repeat(25).parse().unwrap()
}

pub(crate) fn key(id: u32) -> GossipKey {
    GossipKey { id, key: [id as u8; 32] }
}

/// 2027 and on, in step with the paused clock; each node's may be off by some seconds.
struct StepClock {
    start: Instant,
    off: Duration,
}

impl Clock for StepClock {
    fn unix_now(&self) -> Duration {
        Duration::from_secs(1_800_000_000) + self.off + self.start.elapsed()
    }
}

type Packet = (Vec<u8>, SocketAddr);

#[derive(Default)]
struct Wires {
    sockets: BTreeMap<SocketAddr, mpsc::UnboundedSender<Packet>>,
    /// (from, to, bytes) of everything sent.
    seen: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Packets to or from these are lost.
    down: BTreeSet<SocketAddr>,
    /// Every so manieth packet is lost; zero for none.
    lose_one_in: usize,
    sent: usize,
}

/// Delivers datagrams, remembers them, and can inject.
#[derive(Clone, Default)]
pub(crate) struct UdpNet(Arc<Mutex<Wires>>);

struct MemUdp {
    addr: SocketAddr,
    net: UdpNet,
    incoming: tokio::sync::Mutex<mpsc::UnboundedReceiver<Packet>>,
}

impl UdpNet {
    pub(crate) fn inject(&self, bytes: &[u8], from: SocketAddr, to: SocketAddr) {
        if let Some(socket) = self.0.lock().sockets.get(&to) {
            let _ = socket.send((bytes.to_vec(), from));
        }
    }

    pub(crate) fn seen(&self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        self.0.lock().seen.clone()
    }

    pub(crate) fn forget_seen(&self) {
        self.0.lock().seen.clear();
    }

    pub(crate) fn lose_one_in(&self, n: usize) {
        self.0.lock().lose_one_in = n;
    }

    pub(crate) fn cut(&self, addr: SocketAddr, down: bool) {
        let mut wires = self.0.lock();
        if down {
            wires.down.insert(addr)
        } else {
            wires.down.remove(&addr)
        };
    }
}

#[async_trait]
impl Net for UdpNet {
    async fn connect(&self, _to: SocketAddr) -> io::Result<BoxStream> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn listen(&self, _on: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn bind_udp(&self, on: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        let (tx, rx) = mpsc::unbounded_channel();
        let mut wires = self.0.lock();
        if wires.sockets.contains_key(&on) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        wires.sockets.insert(on, tx);
        Ok(Box::new(MemUdp { addr: on, net: self.clone(), incoming: tokio::sync::Mutex::new(rx) }))
    }
}

#[async_trait]
impl Datagrams for MemUdp {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let mut wires = self.net.0.lock();
        if wires.down.contains(&self.addr) || wires.down.contains(&to) {
            return Ok(());
        }
        wires.sent += 1;
        if wires.lose_one_in > 0 && wires.sent.is_multiple_of(wires.lose_one_in) {
            return Ok(());
        }
        wires.seen.push((self.addr, to, bytes.to_vec()));
        if let Some(socket) = wires.sockets.get(&to) {
            let _ = socket.send((bytes.to_vec(), self.addr));
        }
        Ok(())
    }
    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (bytes, from) = self.incoming.lock().await.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
        let n = bytes.len().min(buf.len());
        buf[..n].copy_from_slice(&bytes[..n]);
        Ok((n, from))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

impl Drop for MemUdp {
    fn drop(&mut self) {
        self.net.0.lock().sockets.remove(&self.addr);
    }
}

/// Nodes on one network. The first is everybody's seed.
pub(crate) struct World {
    pub(crate) net: UdpNet,
    pub(crate) start: Instant,
    pub(crate) members: watch::Sender<BTreeSet<NodeId>>,
    pub(crate) tasks: Tasks,
    pub(crate) timings: GossipTimings,
}

pub(crate) struct TestNode {
    pub(crate) gossip: Gossip,
    pub(crate) keys: watch::Sender<Vec<GossipKey>>,
    pub(crate) addr: SocketAddr,
}

pub(crate) fn addr(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 7946).into()
}

/// Node `n`'s id: its letter, 25 times (digits after `z`).
pub(crate) fn node_id(n: u8) -> NodeId {
    let letter = b"abcdefghijklmnopqrstuvwxyz0123456789"[usize::from(n)];
    id(char::from(letter))
}

impl World {
    pub(crate) fn new() -> World {
        World {
            net: UdpNet::default(),
            start: Instant::now(),
            members: watch::Sender::default(),
            tasks: Tasks::new(),
            timings: GossipTimings::default(),
        }
    }

    pub(crate) async fn node(&self, n: u8) -> TestNode {
        self.node_in(n, id('c'), vec![key(1)], Duration::ZERO).await
    }

    pub(crate) async fn node_in(&self, n: u8, cluster_id: ClusterId, keys: Vec<GossipKey>, off: Duration) -> TestNode {
        let (net, clock) = (Arc::new(self.net.clone()), Arc::new(StepClock { start: self.start, off }));
        let seams = Seams { clock, rand: Arc::new(OsRand), net, disk: Arc::new(FileDisk) };
        let keys = watch::Sender::new(keys);
        let config = GossipConfig {
            node_id: node_id(n),
            cluster_id,
            listen_addr: addr(n),
            advertise_addr: addr(n),
            keys: keys.subscribe(),
            members: self.members.subscribe(),
            seeds: [addr(0)].into(),
            timings: self.timings,
        };
        TestNode { gossip: Gossip::start(config, seams, &self.tasks).await.unwrap(), keys, addr: addr(n) }
    }

    pub(crate) async fn nodes(&self, count: u8) -> Vec<TestNode> {
        let mut nodes = Vec::new();
        for n in 0..count {
            nodes.push(self.node(n).await);
        }
        nodes
    }
}

/// Waits until a node's live set is this one; the time that it took.
pub(crate) async fn live_is(node: &TestNode, expected: impl IntoIterator<Item = u8>) -> Duration {
    let expected: BTreeSet<NodeId> = expected.into_iter().map(node_id).collect();
    let (mut live, since) = (node.gossip.live(), Instant::now());
    let reached =
        tokio::time::timeout(Duration::from_secs(60), live.wait_for(|l| *l == expected)).await.map(|r| r.map(|_| ()));
    match reached {
        Ok(Ok(())) => since.elapsed(),
        other => panic!(
            "{other:?}: live is {:?}, not {expected:?}; {:?}",
            node.gossip.live().borrow(),
            node.gossip.counters()
        ),
    }
}

/// Waits until a condition holds, looking every 50 ms of virtual time.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within 60 s: {what}");
}
