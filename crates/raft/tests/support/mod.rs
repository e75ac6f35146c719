//! Members with a disk and a port of their own, each on a runtime of its own, so that one can be killed like a process.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::disallowed_types)] // the real world: sockets and files of the test itself

use bytes::Bytes;
use parking_lot::Mutex;
use seal::{KeyStore, Loaded, SealedDisk};
use seams::Disk;
use seams::real::FileDisk;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmlite_raft::{
    Applied, ApplyError, Dial, LogStore, Member, Parts, ProposeError, Raft, RaftConfig, Role, SealedLog, SledLog,
    SnapshotFn, StateMachine,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};

pub const LIMIT: Duration = Duration::from_secs(20);

/// A list of what was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub index: u64,
    pub commands: Vec<(u64, Bytes)>,
    pub restored: u64,
}

#[derive(Debug, Default)]
pub struct List(pub Mutex<State>);

/// Plaintext channels.
pub struct Plain;

pub struct Node {
    pub id: u64,
    pub member: Member,
    pub raft: Raft,
    pub list: Arc<List>,
    /// When its disk is sealed.
    pub sealed: Option<Sealed>,
    runtime: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Not by dropping it, which would wait, and may not in a test's own runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How a member's disk is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtRest {
    Plain,
    Sealed,
}

/// Keys, log and disk of a sealed member.
pub type Sealed = (Arc<KeyStore>, Arc<SealedLog>, Arc<SealedDisk>);

/// What a member keeps on its disk.
pub struct Stores {
    pub log: Arc<dyn LogStore>,
    pub disk: Arc<dyn Disk>,
    /// When it is sealed.
    pub sealed: Option<Sealed>,
}

pub struct Cluster {
    pub at_rest: AtRest,
    pub dir: TempDir,
    pub config: RaftConfig,
    pub nodes: Vec<Option<Node>>,
}

impl StateMachine for List {
    fn apply(&self, index: u64, command: &[u8]) -> Result<Bytes, ApplyError> {
        if command == b"poison" {
            return Err(ApplyError { index, reason: "unknown command".into() });
        }
        let mut state = self.0.lock();
        assert!(index > state.index, "entry {index} applied after {}", state.index);
        state.index = index;
        state.commands.push((index, Bytes::copy_from_slice(command)));
        Ok(Bytes::from(format!("applied {index}")))
    }

    fn advance(&self, index: u64) {
        self.0.lock().index = index;
    }

    fn snapshot(&self) -> SnapshotFn {
        let state = self.0.lock().clone();
        Box::new(move || {
            let commands: Vec<(u64, Vec<u8>)> = state.commands.iter().map(|(i, c)| (*i, c.to_vec())).collect();
            rmp_serde::to_vec(&(state.index, commands)).unwrap()
        })
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), String> {
        let (index, commands): (u64, Vec<(u64, Vec<u8>)>) = rmp_serde::from_slice(bytes).map_err(|e| e.to_string())?;
        let commands = commands.into_iter().map(|(i, c)| (i, c.into())).collect();
        let restored = self.0.lock().restored + 1;
        *self.0.lock() = State { index, commands, restored };
        Ok(())
    }
}

impl Dial for Plain {
    fn channel(&self, _: u64, member: &Member) -> io::Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", member.addr)).map_err(io::Error::other)?;
        Ok(endpoint
            .connect_timeout(Duration::from_secs(1))
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(1))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_lazy())
    }
}

impl Stores {
    /// Opens what lies in a member's directory.
    pub async fn open(dir: &Path, at_rest: AtRest) -> Stores {
        let log: Arc<dyn LogStore> = Arc::new(SledLog::open(&dir.join("raft")).await.unwrap());
        let disk: Arc<dyn Disk> = Arc::new(FileDisk);
        if at_rest == AtRest::Plain {
            return Stores { log, disk, sealed: None };
        }
        let rand = Arc::new(seams::real::OsRand);
        let file = dir.join("data-keys");
        let keys = match KeyStore::load(disk.clone(), rand.clone(), file.clone()).await.unwrap() {
            Some(Loaded::Open(keys)) => keys,
            Some(Loaded::Locked(locked)) => panic!("{locked:?}"),
            None => KeyStore::create(disk.clone(), rand, file, None, Duration::ZERO).await.unwrap(),
        };
        let log = Arc::new(SealedLog::open(log, keys.keyring(), dir).await.unwrap());
        let disk = Arc::new(SealedDisk::new(disk, dir, &[], keys.keyring()));
        Stores { log: log.clone(), disk: disk.clone(), sealed: Some((keys, log, disk)) }
    }
}

impl Node {
    /// Starts a member on what its directory holds.
    pub async fn start(id: u64, dir: PathBuf, addr: SocketAddr, config: RaftConfig, at_rest: AtRest) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let list = Arc::new(List::default());
        let machine = list.clone();
        let started = runtime.spawn(async move {
            let Stores { log, disk, sealed } = Stores::open(&dir, at_rest).await;
            let snapshot_dir = dir.join("snapshots");
            let parts = Parts { raft_id: id, config, log, machine, disk, snapshot_dir };
            let raft = Raft::start(parts, Arc::new(Plain)).await.unwrap();
            let listener = TcpListener::bind(addr).await.unwrap();
            let addr = listener.local_addr().unwrap();
            let server = Server::builder().add_service(raft.service());
            let incoming = TcpListenerStream::new(listener).map(|stream| {
                // As the real listener does; without it every answer waits 40 ms for a delayed acknowledgement.
                stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            });
            tokio::spawn(server.serve_with_incoming(incoming));
            (raft, addr, sealed)
        });
        let (raft, addr, sealed) = started.await.unwrap();
        let member = Member { addr: addr.to_string(), node_id: format!("node{id}") };
        Node { id, member, raft, list, sealed, runtime: Some(runtime) }
    }

    /// Everything of it ends at once, connections included.
    pub fn kill(self) {
        drop(self);
    }

    pub fn state(&self) -> State {
        self.list.0.lock().clone()
    }
}

impl Cluster {
    /// `n` voters.
    pub async fn new(n: usize, config: RaftConfig) -> Cluster {
        Cluster::with(n, config, AtRest::Plain).await
    }

    /// `n` voters, whose disks are kept so.
    pub async fn with(n: usize, config: RaftConfig, at_rest: AtRest) -> Cluster {
        let mut cluster = Cluster { at_rest, dir: tempfile::tempdir().unwrap(), config, nodes: Vec::new() };
        for i in 0..n {
            cluster.add(i as u64 + 1).await;
        }
        let first = cluster.node(0);
        first.raft.initialize(first.member.clone()).await.unwrap();
        first.raft.wait_view("leadership", LIMIT, |v| v.role == Role::Leader).await.unwrap();
        for i in 1..n {
            let node = cluster.node(i);
            first.raft.add_learner(node.id, node.member.clone(), LIMIT).await.unwrap();
            first.raft.promote_to_voter(node.id, LIMIT).await.unwrap();
        }
        cluster
    }

    /// Starts a member that belongs to no group yet.
    pub async fn add(&mut self, id: u64) -> usize {
        let at = self.nodes.len();
        let addr = "127.0.0.1:0".parse().unwrap();
        self.nodes.push(Some(Node::start(id, self.path(at), addr, self.config.clone(), self.at_rest).await));
        at
    }

    fn path(&self, at: usize) -> PathBuf {
        Path::new(self.dir.path()).join(format!("node{at}"))
    }

    pub fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().expect("it runs")
    }

    pub fn alive(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    pub fn kill(&mut self, at: usize) -> (u64, Member) {
        let node = self.nodes[at].take().expect("it runs");
        let who = (node.id, node.member.clone());
        node.kill();
        who
    }

    pub async fn restart(&mut self, at: usize, (id, member): (u64, Member)) {
        let addr = member.addr.parse().unwrap();
        self.nodes[at] = Some(Node::start(id, self.path(at), addr, self.config.clone(), self.at_rest).await);
    }

    /// The place of a leader that can write.
    pub async fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            assert!(
                begun.elapsed() < LIMIT,
                "no leader: {:#?}",
                self.alive().map(|n| n.raft.view()).collect::<Vec<_>>()
            );
            for (at, node) in self.nodes.iter().enumerate() {
                if let Some(node) = node
                    && node.raft.leading_term().is_some()
                    && node.raft.read_index(Duration::from_secs(1)).await.is_ok()
                {
                    return at;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Writes through whoever leads, and tries again while nobody does. An unknown outcome is tried again too: the tests
    /// that use this do not mind a command that is there twice.
    pub async fn write(&self, command: impl Into<Bytes>) -> Applied {
        let (command, begun) = (command.into(), Instant::now());
        loop {
            assert!(begun.elapsed() < LIMIT, "no write within {LIMIT:?}");
            for node in self.alive() {
                match node.raft.propose(command.clone(), Duration::from_secs(2)).await {
                    Ok(applied) => return applied,
                    Err(
                        ProposeError::NotLeader { .. } | ProposeError::NotNow { .. } | ProposeError::Unknown { .. },
                    ) => {}
                    Err(e) => panic!("{e}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until every member has applied an index.
    pub async fn settled(&self, index: u64) {
        for node in self.alive() {
            node.raft.wait_applied(index, LIMIT).await.unwrap();
        }
    }

    pub async fn same_everywhere(&self) {
        let last = self.write("last").await;
        self.settled(last.index).await;
        let states: Vec<_> = self.alive().map(|n| n.state().commands).collect();
        assert!(states.windows(2).all(|w| w[0] == w[1]), "members differ");
    }
}
