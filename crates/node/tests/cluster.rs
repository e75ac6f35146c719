//! Whole nodes in one process, on loopback addresses, each with an embedded engine: membership from the first manager to the
//! last, and what happens to tasks meanwhile.

use api::{InitOptions, JoinOptions, LocalState, Swarm as _};
use engine::EmbeddedEngine;
use engine::embedded::EmbeddedOptions;
use model::{
    ContainerSpec, Meta, Mode, NodeId, NodeState, Role, Service, ServiceId, ServiceSpec, TaskSpec, TaskState, Timestamp,
};
use seams::RandExt as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use store::{Check, Kind, Snapshot, StoreClient, Transaction};
use swarmlite_node::{Interfaces, Node, NodeConfig, SledLogs, World};

/// Generous: a busy machine is slow, and every wait is on a condition.
const PATIENCE: Duration = Duration::from_secs(30);

struct Loopback(IpAddr);

impl Interfaces for Loopback {
    fn addresses(&self) -> Vec<(String, IpAddr)> {
        vec![("lo".into(), self.0)]
    }
}

/// A node that can be stopped and started again on the same disk and engine.
struct Host {
    ip: String,
    dir: tempfile::TempDir,
    engine: EmbeddedEngine,
    node: Option<Node>,
}

/// Each test has loopback addresses of its own, so that tests can run at once.
static NEXT_NET: AtomicU8 = AtomicU8::new(10);

impl Host {
    async fn start(net: u8, n: u8) -> Host {
        // RUST_LOG shows what the nodes say when a test fails.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _already_there = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let seams = seams::real::seams();
        let options = EmbeddedOptions { hostname: format!("host{n}"), ..EmbeddedOptions::default() };
        let engine = EmbeddedEngine::new(options, seams.clock.clone(), seams.rand.clone());
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut host = Host { ip: format!("127.61.{net}.{n}"), dir, engine, node: None };
        host.boot().await;
        host
    }

    async fn boot(&mut self) {
        let world = World {
            seams: seams::real::seams(),
            engine: Arc::new(self.engine.clone()),
            engine_api: None,
            interfaces: Arc::new(Loopback(self.ip.parse().expect("an address"))),
            raft_logs: Arc::new(SledLogs),
        };
        let config = NodeConfig { listen_addr: format!("{}:2377", self.ip), ..NodeConfig::new(self.dir.path()) };
        self.node = Some(Node::open(config, world).await.expect("the node starts"));
    }

    async fn halt(&mut self) {
        self.node.take().expect("it runs").shutdown().await;
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }

    fn id(&self) -> NodeId {
        self.node().local().node_id.expect("it is in a swarm")
    }

    fn store(&self) -> Arc<dyn StoreClient> {
        self.node().store().expect("it is a manager")
    }
}

async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
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

async fn state(host: &Host) -> Snapshot {
    host.store().current().await.expect("a linearizable read")
}

/// A cluster of so many managers and workers; the first host is the founder.
async fn cluster(managers: u8, workers: u8) -> Vec<Host> {
    let net = NEXT_NET.fetch_add(1, Ordering::Relaxed);
    let mut hosts = vec![Host::start(net, 1).await];
    hosts[0].node().init(InitOptions::default()).await.expect("init");
    let tokens = state(&hosts[0]).await.cluster().expect("a cluster").join_tokens.clone();
    for n in 2..=managers + workers {
        let host = Host::start(net, n).await;
        let token = if n <= managers { &tokens.manager } else { &tokens.worker };
        let options = JoinOptions {
            remote_addrs: vec![format!("{}:2377", hosts[0].ip)],
            join_token: token.clone(),
            ..Default::default()
        };
        host.node().join(options).await.expect("join");
        hosts.push(host);
    }
    let total = hosts.len();
    until("all nodes to be ready", async || {
        let ready = state(&hosts[0]).await.nodes().filter(|n| n.status.state == NodeState::Ready).count();
        (ready == total).then_some(())
    })
    .await;
    hosts
}

fn service(name: &str, replicas: u64) -> Service {
    let spec = ServiceSpec {
        name: name.parse().expect("a name"),
        labels: Default::default(),
        task: Arc::new(TaskSpec {
            container: ContainerSpec { image: "web:1".into(), ..Default::default() },
            ..Default::default()
        }),
        mode: Mode::Replicated { replicas },
        update: None,
        rollback: None,
        endpoint: None,
    };
    let id: ServiceId = seams::real::OsRand.id25().parse().expect("an id");
    Service { id, meta: Meta::default(), spec, spec_version: 1, previous_spec: None, update_status: None }
}

async fn create(host: &Host, name: &str, replicas: u64) -> ServiceId {
    let service = service(name, replicas);
    let id = service.id.clone();
    let mut tx = Transaction::new(Timestamp(1));
    tx.check(Check::NameFree { kind: Kind::Service, name: name.into() });
    tx.create(service);
    host.store().propose(tx).await.expect("the service is created");
    id
}

/// The running tasks of a service: (task, node).
fn running(state: &Snapshot, service: &ServiceId) -> Vec<(String, NodeId)> {
    let tasks = state.tasks_of_service(service);
    let running = tasks.filter(|t| t.is_wanted() && t.status.state == TaskState::Running);
    running.map(|t| (t.id.to_string(), t.node_id.clone().expect("a running task has a node"))).collect()
}

async fn until_running(host: &Host, service: &ServiceId, replicas: usize) -> Vec<(String, NodeId)> {
    until("the replicas to run", async || {
        let found = running(&state(host).await, service);
        (found.len() == replicas).then_some(found)
    })
    .await
}

fn leader(hosts: &[Host]) -> Option<usize> {
    hosts.iter().position(|h| {
        h.node.as_ref().is_some_and(|n| n.raft().is_some_and(|r| r.leader.is_some() && r.leader == n.local().node_id))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_runs_a_service_and_survives_its_leader() {
    let mut hosts = cluster(3, 2).await;
    let id = create(&hosts[1], "web", 5).await;
    let before = until_running(&hosts[2], &id, 5).await;
    let nodes: std::collections::BTreeSet<_> = before.iter().map(|(_, node)| node.clone()).collect();
    assert_eq!(nodes.len(), 5, "five replicas spread over five nodes");

    let gone = leader(&hosts).expect("a leader");
    // Its containers run on; only the daemon is gone.
    hosts[gone].halt().await;
    let other = (gone + 1) % 3;
    // Back before it counts as down, as after an upgrade: a write in between needs another leader.
    let second = create(&hosts[other], "second", 2).await;
    hosts[gone].boot().await;
    until_running(&hosts[other], &second, 2).await;
    until("the old leader to follow", async || {
        let view = hosts[gone].node().raft()?;
        (view.managers.len() == 3 && view.leader.is_some()).then_some(())
    })
    .await;
    let after = until_running(&hosts[gone], &id, 5).await;
    assert_eq!(before, after, "no task was restarted by a leader change and a daemon's restart");
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_promoted_and_demoted_and_leave() {
    let mut hosts = cluster(1, 2).await;
    let set_role = async |hosts: &[Host], n: usize, role: Role| {
        let id = hosts[n].id();
        until("the role to be written", async || {
            let state = state(&hosts[0]).await;
            let mut node = model::Node::clone(state.node(&id)?);
            node.spec.role = role;
            let mut tx = Transaction::new(Timestamp(1));
            tx.update(node);
            hosts[0].store().propose(tx).await.ok()
        })
        .await;
    };
    let voters = async |hosts: &[Host], count: usize| {
        until("the voters", async || {
            let view = hosts[0].node().raft()?;
            (view.managers.values().filter(|m| m.voter).count() == count && view.managers.len() == count).then_some(())
        })
        .await;
    };
    set_role(&hosts, 1, Role::Manager).await;
    set_role(&hosts, 2, Role::Manager).await;
    voters(&hosts, 3).await;
    until("the promoted node to serve reads", async || hosts[1].node().store().ok()?.current().await.ok()).await;

    set_role(&hosts, 1, Role::Worker).await;
    voters(&hosts, 2).await;
    until("the demoted node to know", async || (hosts[1].node().local().state == LocalState::Worker).then_some(()))
        .await;
    assert!(hosts[1].node().store().is_err(), "a worker has no store");
    // And again: it joins as a new Raft member.
    set_role(&hosts, 1, Role::Manager).await;
    voters(&hosts, 3).await;
    // Out of the group and wanted back before it noticed: it comes back all the same.
    let id = hosts[1].id();
    set_role(&hosts, 1, Role::Worker).await;
    until("it to be out of the group", async || {
        state(&hosts[0]).await.node(&id).is_some_and(|n| n.manager.is_none()).then_some(())
    })
    .await;
    set_role(&hosts, 1, Role::Manager).await;
    voters(&hosts, 3).await;

    hosts[2].node().leave(true).await.expect("it leaves");
    assert_eq!(hosts[2].node().local().state, LocalState::Inactive);
    voters(&hosts, 2).await;
    for host in &mut hosts {
        host.halt().await;
    }
}
