//! One simulated machine, and the life of the node on it.

use super::clock::SimClock;
use super::disk::ModelDisk;
use super::net::{SimNet, UdpFaults};
use crate::event;
use crate::rng::SeededRand;
use async_trait::async_trait;
use engine::Engine as _;
use engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use model::Resources;
use node::{Canaries, Interfaces, Node, NodeConfig, RaftLogs, World};
use parking_lot::Mutex;
use seams::{Net as _, Seams, Tasks};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Where each node serves the Docker Engine HTTP API (in the real world: a unix socket).
pub const API_PORT: u16 = 2375;
/// A service manager starts a daemon that could not start again after so long.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// In one of so many seeds the nodes change their data keys all the time, under whatever befalls their disks.
const DATA_KEY_SEEDS: u64 = 3;
/// And so old they get there: each change makes a manager compact its log.
const DATA_KEY_MAX_AGE: Duration = Duration::from_secs(8);
/// The name of the container on every machine that is nobody's business.
pub(super) const FOREIGN: &str = "foreign";

/// A machine: what outlives its node's crashes.
pub struct Machine {
    /// Its name, `n1` and so on.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its disk.
    pub disk: ModelDisk,
    /// Its container engine.
    pub engine: EmbeddedEngine,
    /// Its clock.
    pub clock: Arc<SimClock>,
    /// What befalls its datagrams.
    pub udp: Arc<Mutex<UdpFaults>>,
    rand: Arc<SeededRand>,
    canaries: Canaries,
    /// `None` for production's.
    data_key_max_age: Option<Duration>,
    life: Mutex<Life>,
}

/// What lives between two crashes.
#[derive(Default)]
struct Life {
    node: Option<Node>,
    orders: Option<mpsc::UnboundedSender<Order>>,
}

/// What the world tells a running node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stop as on SIGTERM.
    Stop,
    /// Be stopped by the scheduler for so long: all timers that were due meanwhile fire at once.
    Stall(Duration),
}

struct OneInterface(IpAddr);

impl Interfaces for OneInterface {
    fn addresses(&self) -> Vec<(String, IpAddr)> {
        vec![("lo".into(), Ipv4Addr::LOCALHOST.into()), ("eth0".into(), self.0)]
    }
}

struct Logs {
    disk: ModelDisk,
    tasks: Tasks,
}

#[async_trait]
impl RaftLogs for Logs {
    async fn open(&self, dir: &Path) -> Result<Arc<dyn raft::LogStore>, raft::OpenLogError> {
        Ok(self.disk.open_log(dir, &self.tasks))
    }
}

// === impl Machine ===

impl Machine {
    /// A machine with an empty disk.
    pub fn new(seed: u64, name: &str, ip: IpAddr, canaries: Canaries) -> Arc<Machine> {
        let rand = |part: &str| SeededRand::new(seed, &format!("{name} {part}"));
        let options = EmbeddedOptions {
            hostname: name.to_owned(),
            resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30 },
            ..EmbeddedOptions::default()
        };
        // The engine's containers live by a clock that nobody sets.
        let engine = EmbeddedEngine::new(options, Arc::new(SimClock::default()), Arc::new(rand("engine")));
        Arc::new(Machine {
            name: name.to_owned(),
            ip,
            disk: ModelDisk::new(rand("disk")),
            engine,
            clock: Arc::default(),
            udp: Arc::default(),
            rand: Arc::new(rand("node")),
            canaries,
            data_key_max_age: (seed % DATA_KEY_SEEDS == 1).then_some(DATA_KEY_MAX_AGE),
            life: Mutex::default(),
        })
    }

    /// The node, while it runs.
    pub fn node(&self) -> Option<Node> {
        self.life.lock().node.clone()
    }

    /// Tells the running node something; false when none runs.
    pub fn order(&self, order: Order) -> bool {
        self.life.lock().orders.as_ref().is_some_and(|orders| orders.send(order).is_ok())
    }

    /// Before the host's runtime is thrown away: nobody may hold a part of the node any more.
    pub fn forget_life(&self) {
        *self.life.lock() = Life::default();
    }

    /// One life of the node: from its start to a crash (then the future is dropped) or an ordered stop.
    pub async fn live(self: Arc<Self>) -> turmoil::Result {
        let tasks = Tasks::new();
        let (orders, mut ordered) = mpsc::unbounded_channel();
        self.life.lock().orders = Some(orders);
        self.make_foreign_container().await;
        let node = self.open(&tasks).await;
        let api = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), API_PORT);
        node.serve_api(self.net(&tasks).listen(api).await?, &tasks);
        self.life.lock().node = Some(node.clone());
        event!(self.name, "runs");
        while let Some(order) = ordered.recv().await {
            match order {
                Order::Stall(by) => tokio::time::advance(by).await,
                Order::Stop => break,
            }
        }
        node.shutdown().await;
        tasks.shutdown(Duration::from_secs(5)).await;
        self.life.lock().node = None;
        event!(self.name, "stopped");
        Ok(())
    }

    async fn open(&self, tasks: &Tasks) -> Node {
        loop {
            let mut config = NodeConfig { canaries: self.canaries, ..NodeConfig::new("/var/lib/swarmlite") };
            config.data_key_max_age = self.data_key_max_age.unwrap_or(config.data_key_max_age);
            let world = World {
                seams: Seams {
                    clock: self.clock.clone(),
                    rand: self.rand.clone(),
                    net: Arc::new(self.net(tasks)),
                    disk: Arc::new(self.disk.clone()),
                },
                engine: Arc::new(self.engine.clone()),
                engine_api: None,
                interfaces: Arc::new(OneInterface(self.ip)),
                raft_logs: Arc::new(Logs { disk: self.disk.clone(), tasks: tasks.clone() }),
            };
            match Node::open(config, world).await {
                Ok(node) => return node,
                Err(error) => event!(self.name, "cannot start: {error}"),
            }
            tokio::time::sleep(RESTART_AFTER).await;
        }
    }

    fn net(&self, tasks: &Tasks) -> SimNet {
        SimNet::new(self.ip, self.rand.clone(), self.udp.clone(), tasks.clone())
    }

    /// Every machine has a container that is not ours. It must never be touched.
    async fn make_foreign_container(&self) {
        if self.engine.containers().iter().any(|c| c.name == FOREIGN) {
            return;
        }
        let mut container = engine::NewContainer { name: FOREIGN.into(), ..Default::default() };
        container.spec.image = "postgres".into();
        let created = self.engine.create(&container).await;
        let started = match created {
            Ok(id) => self.engine.start(&id).await,
            Err(error) => Err(error),
        };
        started.expect("the engine has no faults before its node's first life");
    }
}
