//! A manager in a process of its own, and the end of the line to it.

use super::protocol::{Answer, Machine, Order, Scratch, manager_addr};
use api::{InitOptions, JoinOptions, Swarm as _};
use ca::{Authority, CertificateGrant, Csr, NodeKey};
use clap::Args;
use engine::EmbeddedEngine;
use engine::embedded::EmbeddedOptions;
use model::{
    Availability, ContainerSpec, Meta, Mode, Node as NodeObject, NodeId, NodeSpec, NodeState, NodeStatus, Role,
    Service, ServiceSpec, Task, TaskSpec, TaskState,
};
use node::{Interfaces, Node, NodeConfig, SledLogs, World};
use seams::{RandExt as _, Seams};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use store::{Delta, Event, Object, StoreClient, Transaction};

/// The process of a manager of a fleet; started by `fleet`.
#[derive(Debug, Clone, Args)]
pub struct ManagerArgs {
    /// `ip:port` to listen on.
    #[arg(long)]
    addr: String,
    /// Where it keeps its state.
    #[arg(long)]
    dir: PathBuf,
}

/// The other end of the line to a manager's process. The process ends with it.
pub(super) struct Child {
    process: std::process::Child,
    orders: std::process::ChildStdin,
    answers: Receiver<String>,
}

struct Only(IpAddr);

impl Interfaces for Only {
    fn addresses(&self) -> Vec<(String, IpAddr)> {
        vec![("lo".into(), self.0)]
    }
}

/// What a manager counts as changes go by.
#[derive(Default)]
struct Counts {
    /// Wanted tasks that have a node which is not down.
    assigned: u64,
    /// Those of them that run.
    running: u64,
    down: BTreeSet<NodeId>,
    by_node: BTreeMap<NodeId, (u64, u64)>,
}

// === impl Child ===

#[allow(clippy::disallowed_methods)] // a fleet is outside any simulated world
impl Child {
    pub(super) fn start(n: u8, dir: &Scratch) -> Result<Child, String> {
        let program = std::env::current_exe().map_err(|e| format!("cannot find this program's own file: {e}"))?;
        let own_dir = dir.path().join(n.to_string());
        let mut command = Command::new(program);
        command.args(["fleet-manager", "--addr", &manager_addr(n), "--dir"]).arg(own_dir);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start a manager: {e}"))?;
        let (Some(orders), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("a manager's process has no line to it".into());
        };
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let lines = std::io::BufReader::new(output).lines();
            lines.map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Ok(Child { process, orders, answers })
    }

    pub(super) fn send(&mut self, order: &Order) -> Result<(), String> {
        let line = serde_json::to_string(order).expect("an order is plain data");
        writeln!(self.orders, "{line}").map_err(|e| format!("a manager's process is gone: {e}"))
    }

    pub(super) fn answer(&mut self, patience: Duration) -> Result<Answer, String> {
        let line =
            self.answers.recv_timeout(patience).map_err(|_| format!("a manager did not answer within {patience:?}"))?;
        match serde_json::from_str(&line).map_err(|e| format!("a manager said {line:?}: {e}"))? {
            Answer::Failed { why } => Err(why),
            answer => Ok(answer),
        }
    }

    pub(super) fn ask(&mut self, order: &Order, patience: Duration) -> Result<Answer, String> {
        self.send(order)?;
        self.answer(patience).map_err(|e| format!("{order:?}: {e}"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _it_may_be_gone = self.process.kill();
        let _nothing_to_do = self.process.wait();
    }
}

// === the process ===

/// Reads orders from standard input until it ends.
#[allow(clippy::disallowed_methods)] // a fleet is outside any simulated world
pub(super) fn main(args: &ManagerArgs) -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _already_set = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
    let node = match runtime.block_on(open(args)) {
        Ok(node) => node,
        Err(why) => {
            eprintln!("a manager cannot start: {why}");
            return ExitCode::FAILURE;
        }
    };
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let answer = match serde_json::from_str::<Order>(&line) {
            Ok(order) => runtime.block_on(obey(&node, &order, args)).unwrap_or_else(|why| Answer::Failed { why }),
            Err(e) => Answer::Failed { why: e.to_string() },
        };
        println!("{}", serde_json::to_string(&answer).expect("an answer is plain data"));
    }
    ExitCode::SUCCESS
}

async fn open(args: &ManagerArgs) -> Result<Node, String> {
    let seams = seams::real::seams();
    let ip: IpAddr = args.addr.rsplit_once(':').and_then(|(ip, _)| ip.parse().ok()).ok_or("the address has no IP")?;
    let options = EmbeddedOptions { hostname: format!("manager-{ip}"), ..EmbeddedOptions::default() };
    let engine = EmbeddedEngine::new(options, seams.clock.clone(), seams.rand.clone());
    let world = World {
        seams,
        engine: Arc::new(engine),
        engine_api: None,
        interfaces: Arc::new(Only(ip)),
        raft_logs: Arc::new(SledLogs),
    };
    let config = NodeConfig { listen_addr: args.addr.clone(), ..NodeConfig::new(&args.dir) };
    Node::open(config, world).await.map_err(|e| e.to_string())
}

async fn obey(node: &Node, order: &Order, args: &ManagerArgs) -> Result<Answer, String> {
    let store = || node.store().map_err(|e| e.to_string());
    match order {
        Order::Init => {
            // Managers run no tasks: they are what is measured.
            let options = InitOptions { availability: Availability::Drain, ..InitOptions::default() };
            node.init(options).await.map_err(|e| e.to_string())?;
            let snapshot = store()?.current().await.map_err(|e| e.to_string())?;
            let cluster = snapshot.cluster().ok_or("there is no cluster")?;
            Ok(Answer::Token { token: cluster.join_tokens.manager.clone() })
        }
        Order::Join { addr, token } => {
            let options = JoinOptions {
                remote_addrs: vec![addr.clone()],
                join_token: token.clone(),
                availability: Availability::Drain,
                ..JoinOptions::default()
            };
            node.join(options).await.map_err(|e| e.to_string())?;
            Ok(Answer::Done)
        }
        Order::Enrol { nodes, zones } => enrol(&*store()?, *nodes, *zones, args).await,
        Order::AwaitReady { nodes } => {
            // The managers are ready as well.
            let ready = |s: &store::Snapshot| {
                let workers = s.nodes().filter(|n| n.spec.role == Role::Worker);
                workers.filter(|n| n.status.state == NodeState::Ready).count() >= *nodes
            };
            let store = store()?;
            let mut changes = store.changes();
            while !ready(&store.local()) {
                changes.next().await;
            }
            Ok(Answer::Done)
        }
        Order::Services { count, replicas } => services(&*store()?, *count, *replicas, true).await,
        Order::Scale { count, replicas } => services(&*store()?, *count, *replicas, false).await,
        Order::AwaitLoss { zone } => await_loss(&*store()?, *zone).await,
        Order::Memory => Ok(Answer::Memory { bytes: resident_bytes()? }),
    }
}

/// Makes the nodes with their certificates, and writes those to a file.
#[allow(clippy::disallowed_methods)] // a fleet is outside any simulated world
async fn enrol(store: &dyn StoreClient, nodes: usize, zones: usize, args: &ManagerArgs) -> Result<Answer, String> {
    let Seams { rand, clock, .. } = seams::real::seams();
    let snapshot = store.current().await.map_err(|e| e.to_string())?;
    let cluster = snapshot.cluster().ok_or("there is no cluster")?.clone();
    let authority = Authority::of(&cluster).map_err(|e| e.to_string())?;
    let mut machines = Vec::with_capacity(nodes);
    let mut objects = Vec::with_capacity(nodes);
    for n in 0..nodes {
        let id: NodeId = rand.id25().parse().expect("id25 makes ids");
        let key = NodeKey::generate().map_err(|e| e.to_string())?;
        let csr = Csr::parse(&key.csr_pem().map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        let grant = CertificateGrant { node_id: id.clone(), role: Role::Worker, expiry: cluster.spec.node_cert_expiry };
        let chain = authority.issue_from(snapshot.index(), &csr, &grant, clock.unix_now(), &*rand);
        machines.push(Machine {
            node_id: id.to_string(),
            cert_chain_pem: chain.map_err(|e| e.to_string())?,
            key_pem: key.key_pem(),
            root_pem: authority.root_pem().to_owned(),
            zone: n % zones,
        });
        objects.push(NodeObject {
            id,
            meta: Meta::default(),
            spec: NodeSpec { labels: [("zone".to_owned(), zone_name(n % zones))].into(), ..NodeSpec::default() },
            description: None,
            status: NodeStatus::default(),
            manager: None,
        });
    }
    let file = args.dir.join("fleet.json");
    let text = serde_json::to_vec(&machines).expect("machines are plain data");
    std::fs::write(&file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    for some in objects.chunks(500) {
        let mut transaction = Transaction::new(now());
        some.iter().for_each(|n| _ = transaction.create(n.clone()));
        store.propose(transaction).await.map_err(|e| e.to_string())?;
    }
    Ok(Answer::Enrolled { file })
}

fn zone_name(zone: usize) -> String {
    format!("zone-{zone}")
}

fn now() -> model::Timestamp {
    model::Timestamp::from_unix(seams::real::seams().clock.unix_now())
}

/// Creates the services, or scales them, and waits for their tasks.
#[allow(clippy::disallowed_methods)] // it measures by the machine's own clock
async fn services(store: &dyn StoreClient, count: u64, replicas: u64, create: bool) -> Result<Answer, String> {
    let mut changes = store.changes();
    let mut counts = Counts::of(&store.local());
    let began = Instant::now();
    let wanted = count * replicas;
    for n in 0..count {
        let mut transaction = Transaction::new(now());
        let name: model::ServiceName = format!("service-{n}").parse().expect("it is a name");
        if create {
            transaction.create(service(name, replicas));
        } else {
            let snapshot = store.local();
            let mut service = Service::clone(snapshot.service_named(&name).ok_or("a service is gone")?);
            service.spec.mode = Mode::Replicated { replicas };
            service.spec_version += 1;
            transaction.update(service);
        }
        store.propose(transaction).await.map_err(|e| e.to_string())?;
    }
    let mut assigned_ms = None;
    while counts.running < wanted {
        counts.follow(changes.next().await)?;
        if counts.assigned >= wanted {
            assigned_ms.get_or_insert_with(|| millis(began));
        }
    }
    Ok(Answer::Placed { assigned_ms: assigned_ms.unwrap_or_default(), running_ms: millis(began) })
}

fn service(name: model::ServiceName, replicas: u64) -> Service {
    let container = ContainerSpec { image: "app:1".into(), ..ContainerSpec::default() };
    let spec = ServiceSpec {
        name,
        labels: BTreeMap::new(),
        task: Arc::new(TaskSpec { runtime: container.into(), ..TaskSpec::default() }),
        mode: Mode::Replicated { replicas },
        update: None,
        rollback: None,
        endpoint: None,
        cron: None,
        backoff: model::Backoff::default(),
    };
    Service {
        id: seams::real::seams().rand.id25().parse().expect("id25 makes ids"),
        meta: Meta::default(),
        spec,
        spec_version: 1,
        previous_spec: None,
        update_status: None,
        progress: model::Progress::default(),
    }
}

/// Waits until all machines of a zone are down, and all that was wanted before is assigned and runs again.
#[allow(clippy::disallowed_methods)] // it measures by the machine's own clock
async fn await_loss(store: &dyn StoreClient, zone: usize) -> Result<Answer, String> {
    let mut changes = store.changes();
    let snapshot = store.local();
    let name = zone_name(zone);
    let in_zone = |n: &&Arc<NodeObject>| n.spec.labels.get("zone") == Some(&name);
    let machines: BTreeSet<NodeId> = snapshot.nodes().filter(in_zone).map(|n| n.id.clone()).collect();
    let mut counts = Counts::of(&snapshot);
    let (wanted, began) = (counts.assigned, Instant::now());
    let lost_tasks = machines.iter().filter_map(|n| counts.by_node.get(n)).map(|(assigned, _)| assigned).sum();
    let (mut detected, mut replanned_ms) = (None, None);
    loop {
        counts.follow(changes.next().await)?;
        if !counts.down.is_empty() {
            detected.get_or_insert_with(Instant::now);
        }
        let Some(detected) = detected.filter(|_| machines.is_subset(&counts.down)) else { continue };
        if counts.assigned >= wanted {
            replanned_ms.get_or_insert_with(|| millis(detected));
        }
        if counts.running >= wanted {
            let detected_ms = (detected - began).as_millis() as u64;
            let replanned_ms = replanned_ms.unwrap_or_default();
            return Ok(Answer::Replanned { lost_tasks, detected_ms, replanned_ms, running_ms: millis(detected) });
        }
    }
}

#[allow(clippy::disallowed_methods)] // it measures by the machine's own clock
fn millis(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

/// What this process holds in memory.
#[allow(clippy::disallowed_methods)] // it measures the machine
fn resident_bytes() -> Result<u64, String> {
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(|e| format!("cannot read /proc/self/status: {e}"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("/proc/self/status has no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().map_err(|_| "VmRSS is no number")?;
    Ok(kib * 1024)
}

// === impl Counts ===

impl Counts {
    fn of(snapshot: &store::Snapshot) -> Counts {
        let mut counts = Counts::default();
        snapshot
            .nodes()
            .filter(|n| n.status.state == NodeState::Down)
            .for_each(|n| _ = counts.down.insert(n.id.clone()));
        snapshot.tasks().for_each(|t| counts.add(t, 1));
        counts
    }

    fn follow(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Commit(commit) => commit.deltas.iter().for_each(|d| self.apply(d)),
            Event::Resync => return Err("the manager could not keep up with its own changes".into()),
            Event::Closed => return Err("the manager stopped".into()),
        }
        Ok(())
    }

    fn apply(&mut self, delta: &Delta) {
        if let Some(Object::Task(task)) = &delta.before {
            self.add(task, -1);
        }
        match &delta.after {
            Some(Object::Task(task)) => self.add(task, 1),
            Some(Object::Node(node)) if node.status.state == NodeState::Down && self.down.insert(node.id.clone()) => {
                let (assigned, running) = self.by_node.get(&node.id).copied().unwrap_or_default();
                self.assigned -= assigned;
                self.running -= running;
            }
            Some(Object::Node(node)) if node.status.state == NodeState::Ready && self.down.remove(&node.id) => {
                let (assigned, running) = self.by_node.get(&node.id).copied().unwrap_or_default();
                self.assigned += assigned;
                self.running += running;
            }
            _ => {}
        }
    }

    fn add(&mut self, task: &Task, by: i64) {
        let Some(node) = task.node_id.as_ref().filter(|_| task.is_active()) else { return };
        let running = if task.status.state == TaskState::Running { by } else { 0 };
        let of_node = self.by_node.entry(node.clone()).or_default();
        of_node.0 = of_node.0.saturating_add_signed(by);
        of_node.1 = of_node.1.saturating_add_signed(running);
        if !self.down.contains(node) {
            self.assigned = self.assigned.saturating_add_signed(by);
            self.running = self.running.saturating_add_signed(running);
        }
    }
}
