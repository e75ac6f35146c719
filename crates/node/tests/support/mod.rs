//! Whole nodes in one process, on loopback addresses, each with an embedded engine.
#![allow(dead_code, unreachable_pub)] // each test file uses some of it

pub mod cfssl;

use api::{InitOptions, JoinOptions, Swarm as _, SwarmError};
use engine::EmbeddedEngine;
use engine::embedded::EmbeddedOptions;
use model::{
    ContainerSpec, Meta, Mode, NodeId, NodeState, Service, ServiceId, ServiceSpec, TaskSpec, TaskState, Timestamp,
};
use seams::{Clock, RandExt as _, Seams};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;
use store::{Check, Kind, ProposeError, Snapshot, StoreClient, Transaction};
use swarmlite_node::{Interfaces, Node, NodeConfig, OpenError, SledLogs, World};

/// Generous: a busy machine is slow, and every wait is on a condition.
pub const PATIENCE: Duration = Duration::from_secs(60);

struct Loopback(IpAddr);

impl Interfaces for Loopback {
    fn addresses(&self) -> Vec<(String, IpAddr)> {
        vec![("lo".into(), self.0)]
    }
}

/// The machine's clock, ahead of itself by so many seconds.
#[derive(Clone, Default)]
pub struct SetClock(Arc<AtomicU64>);

impl SetClock {
    pub fn ahead(&self, by: Duration) {
        self.0.store(by.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn unix_now(&self) -> Duration {
        seams::real::seams().clock.unix_now() + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// A node that can be stopped and started again on the same disk and engine.
pub struct Host {
    pub ip: String,
    pub dir: tempfile::TempDir,
    pub engine: EmbeddedEngine,
    pub clock: SetClock,
    pub data_key_max_age: Duration,
    pub node: Option<Node>,
}

/// Each test has loopback addresses of its own, so that tests can run at once.
static NEXT_NET: AtomicU8 = AtomicU8::new(10);

pub fn new_net() -> u8 {
    NEXT_NET.fetch_add(1, Ordering::Relaxed)
}

/// An address of this process: several test binaries can run at once, too.
pub fn ip(net: u8, n: u8) -> String {
    format!("127.{}.{net}.{n}", 64 + std::process::id() % 128)
}

impl Host {
    pub async fn start(net: u8, n: u8) -> Host {
        Host::start_with(net, n, &SetClock::default()).await
    }

    pub async fn start_with(net: u8, n: u8, clock: &SetClock) -> Host {
        let mut host = Host { clock: clock.clone(), ..Host::asleep(&ip(net, n)) };
        host.boot().await;
        host
    }

    /// A machine on which no daemon runs yet.
    pub fn asleep(ip: &str) -> Host {
        // RUST_LOG shows what the nodes say when a test fails.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _already_there = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let seams = seams::real::seams();
        let options = EmbeddedOptions { hostname: format!("host-{ip}"), ..EmbeddedOptions::default() };
        let engine = EmbeddedEngine::new(options, seams.clock.clone(), seams.rand.clone());
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data_key_max_age = NodeConfig::new(dir.path()).data_key_max_age;
        Host { ip: ip.to_owned(), dir, engine, clock: SetClock::default(), data_key_max_age, node: None }
    }

    pub fn seams(&self) -> Seams {
        Seams { clock: Arc::new(self.clock.clone()), ..seams::real::seams() }
    }

    pub fn world(&self) -> World {
        World {
            seams: self.seams(),
            engine: Arc::new(self.engine.clone()),
            engine_api: None,
            interfaces: Arc::new(Loopback(self.ip.parse().expect("an address"))),
            raft_logs: Arc::new(SledLogs),
        }
    }

    pub async fn boot(&mut self) {
        self.try_boot().await.expect("the node starts");
    }

    pub async fn try_boot(&mut self) -> Result<(), OpenError> {
        let config = NodeConfig {
            listen_addr: format!("{}:2377", self.ip),
            data_key_max_age: self.data_key_max_age,
            ..NodeConfig::new(self.dir.path())
        };
        self.node = Some(Node::open(config, self.world()).await?);
        Ok(())
    }

    pub async fn halt(&mut self) {
        self.node.take().expect("it runs").shutdown().await;
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }

    pub fn id(&self) -> NodeId {
        self.node().local().node_id.expect("it is in a swarm")
    }

    pub fn store(&self) -> Arc<dyn StoreClient> {
        self.node().store().expect("it is a manager")
    }

    pub async fn join(&self, to: &Host, token: &str) -> Result<(), SwarmError> {
        let remote_addrs = vec![format!("{}:2377", to.ip)];
        self.node().join(JoinOptions { remote_addrs, join_token: token.to_owned(), ..Default::default() }).await
    }
}

pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("still waiting after {PATIENCE:?}: {what}"))
}

pub async fn state(host: &Host) -> Snapshot {
    host.store().current().await.expect("a linearizable read")
}

/// A cluster of so many managers and workers; the first host is the founder.
pub async fn cluster(managers: u8, workers: u8) -> Vec<Host> {
    cluster_with(managers, workers, &SetClock::default(), InitOptions::default()).await
}

/// The same with one clock, which the test sets, and other settings.
pub async fn cluster_with(managers: u8, workers: u8, clock: &SetClock, options: InitOptions) -> Vec<Host> {
    let net = new_net();
    let mut hosts = vec![Host::start_with(net, 1, clock).await];
    hosts[0].node().init(options).await.expect("init");
    let tokens = state(&hosts[0]).await.cluster().expect("a cluster").join_tokens.clone();
    for n in 2..=managers + workers {
        let host = Host::start_with(net, n, clock).await;
        let token = if n <= managers { &tokens.manager } else { &tokens.worker };
        host.join(&hosts[0], token).await.expect("join");
        hosts.push(host);
    }
    all_ready(&hosts[0], hosts.len()).await;
    hosts
}

pub async fn all_ready(host: &Host, count: usize) {
    until("all nodes to be ready", async || {
        let ready = state(host).await.nodes().filter(|n| n.status.state == NodeState::Ready).count();
        (ready == count).then_some(())
    })
    .await;
}

pub fn service(name: &str, replicas: u64) -> Service {
    let spec = ServiceSpec {
        name: name.parse().expect("a name"),
        labels: Default::default(),
        task: Arc::new(TaskSpec {
            runtime: ContainerSpec { image: "web:1".into(), ..Default::default() }.into(),
            ..Default::default()
        }),
        mode: Mode::Replicated { replicas },
        update: None,
        rollback: None,
        endpoint: None,
        cron: None,
        backoff: Default::default(),
    };
    let id: ServiceId = seams::real::OsRand.id25().parse().expect("an id");
    Service {
        id,
        meta: Meta::default(),
        spec,
        spec_version: 1,
        previous_spec: None,
        update_status: None,
        progress: Default::default(),
    }
}

pub async fn create(host: &Host, name: &str, replicas: u64) -> ServiceId {
    try_create(&*host.store(), name, replicas).await.expect("the service is created")
}

pub async fn try_create(store: &dyn StoreClient, name: &str, replicas: u64) -> Result<ServiceId, ProposeError> {
    let service = service(name, replicas);
    let id = service.id.clone();
    let mut tx = Transaction::new(Timestamp(1));
    tx.check(Check::NameFree { kind: Kind::Service, name: name.into() });
    tx.create(service);
    store.propose(tx).await.map(|_| id)
}

/// The running tasks of a service: (task, node).
pub fn running(state: &Snapshot, service: &ServiceId) -> Vec<(String, NodeId)> {
    let tasks = state.tasks_of_service(service);
    let running = tasks.filter(|t| t.is_wanted() && t.status.state == TaskState::Running);
    running.map(|t| (t.id.to_string(), t.node_id.clone().expect("a running task has a node"))).collect()
}

pub async fn until_running(host: &Host, service: &ServiceId, replicas: usize) -> Vec<(String, NodeId)> {
    until("the replicas to run", async || {
        let found = running(&state(host).await, service);
        (found.len() == replicas).then_some(found)
    })
    .await
}
