//! A manager's dispatcher over a store without Raft, called in process.
#![allow(dead_code, unreachable_pub)] // each test uses its part

use async_trait::async_trait;
use model::{
    Cluster, ClusterSpec, JoinTokens, Meta, Node, NodeDescription, NodeId, NodeSpec, NodeState, NodeStatus, RootCa,
    ServiceId, Task, TaskId, TaskSpec, TaskState, TaskStatus, Timestamp,
};
use parking_lot::Mutex;
use rpc::proto::cluster::{Accepted, ReportRequest};
use rpc::proto::dispatcher::dispatcher_client::DispatcherClient;
use rpc::proto::dispatcher::dispatcher_server::DispatcherServer;
use rpc::proto::dispatcher::session_request::Body;
use rpc::proto::dispatcher::{Heartbeat, SessionMessage, SessionRequest};
use seams::{Clock, Rand, Tasks};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::{LocalStore, StoreClient, Transaction};
use swarmlite_dispatcher::{Canary, Dispatcher, DispatcherParts, Leader, LeaderReports, ReportError};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status, Streaming};

pub fn id<T: std::str::FromStr<Err = model::InvalidId>>(n: u64) -> T {
    format!("{n:025}").parse().expect("25 digits are an id")
}

pub fn cluster() -> Cluster {
    Cluster {
        id: id(1),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        root_ca: RootCa { cert_pem: "root".into(), key_pem: String::new() },
        join_tokens: JoinTokens { worker: String::new(), manager: String::new() },
        gossip_keys: Vec::new(),
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        removed_nodes: Default::default(),
        security: Default::default(),
    }
}

pub fn node(n: u64, state: NodeState) -> Node {
    Node {
        id: id(n),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: None,
        status: NodeStatus { state, ..Default::default() },
        manager: None,
    }
}

pub fn task(n: u64, on: u64, state: TaskState) -> Task {
    Task {
        id: id(n),
        meta: Meta::default(),
        service_id: id::<ServiceId>(900),
        service_name: "web".parse().expect("a name"),
        slot: n,
        spec: Arc::new(TaskSpec::default()),
        spec_version: 1,
        host_ports: Vec::new(),
        node_id: Some(id(on)),
        desired: TaskState::Running,
        run_after: None,
        status: TaskStatus { state, ..Default::default() },
        for_node: None,
        job_iteration: None,
        failures: 0,
        inherited: None,
        generic: Vec::new(),
    }
}

pub struct FixedClock;

impl Clock for FixedClock {
    fn unix_now(&self) -> Duration {
        Duration::from_secs(1_000_000)
    }
}

#[derive(Default)]
pub struct Counting(AtomicU64);

impl Rand for Counting {
    fn fill(&self, buf: &mut [u8]) {
        let n = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        buf.iter_mut().enumerate().for_each(|(i, b)| *b = n[i % n.len()]);
    }
}

/// The way to the leader: this one, unless it is cut.
pub struct Way {
    pub reports: Arc<LeaderReports>,
    pub cut: Mutex<bool>,
    /// The leader does not take this manager for one.
    pub denied: Mutex<bool>,
    pub seen: Mutex<Vec<ReportRequest>>,
}

#[async_trait]
impl Leader for Way {
    async fn report(&self, request: ReportRequest) -> Result<Accepted, ReportError> {
        if *self.cut.lock() {
            return Err(ReportError::Unavailable { reason: "cut".into() });
        }
        if *self.denied.lock() {
            return Err(ReportError::Denied { reason: "not a manager".into() });
        }
        self.seen.lock().push(request.clone());
        self.reports.report(request).await
    }
}

pub struct Manager {
    pub store: Arc<LocalStore>,
    pub dispatcher: Dispatcher,
    pub way: Arc<Way>,
    pub term: watch::Sender<u64>,
    pub suspects: watch::Sender<BTreeSet<NodeId>>,
    pub tasks: Tasks,
}

type Intercept = Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send + Sync>;
pub type Client = DispatcherClient<InterceptedService<DispatcherServer<Dispatcher>, Intercept>>;

pub fn as_node(n: u64) -> Intercept {
    let peer = ca::Peer { node_id: id(n), role: model::Role::Worker, cluster_id: id(1) };
    Box::new(move |mut request| {
        request.extensions_mut().insert(peer.clone());
        Ok(request)
    })
}

impl Manager {
    /// With nodes 1, 2 and 3.
    pub async fn start() -> Manager {
        let store = Arc::new(LocalStore::default());
        let mut tx = Transaction::new(Timestamp(1));
        tx.create(cluster());
        for n in 1..=3 {
            tx.create(node(n, NodeState::Unknown));
        }
        store.propose(tx).await.expect("an empty store takes it");
        let reports = LeaderReports::new(Arc::new(FixedClock), Canary::default());
        let way = Arc::new(Way {
            reports: reports.clone(),
            cut: Mutex::new(false),
            denied: Mutex::new(false),
            seen: Mutex::default(),
        });
        let (term, term_seen) = watch::channel(1);
        let (suspects, suspects_seen) = watch::channel(BTreeSet::new());
        let tasks = Tasks::new();
        let leads = store.clone();
        tasks.spawn("lead", async move { reports.lead(leads, suspects_seen).await });
        let parts = DispatcherParts {
            store: store.clone(),
            leader: way.clone(),
            term: term_seen,
            rand: Arc::new(Counting::default()),
            canary: Canary::default(),
        };
        let dispatcher = Dispatcher::start(parts, &tasks);
        Manager { store, dispatcher, way, term, suspects, tasks }
    }

    pub fn client(&self, n: u64) -> Client {
        DispatcherClient::new(DispatcherServer::with_interceptor(self.dispatcher.clone(), as_node(n)))
    }

    pub async fn put(&self, tasks: impl IntoIterator<Item = Task>) -> u64 {
        let mut tx = Transaction::new(Timestamp(2));
        for task in tasks {
            tx.changes.push(store::Change::Put(task.into()));
        }
        self.store.propose(tx).await.expect("no checks")
    }

    pub async fn remove(&self, task: u64) -> u64 {
        let mut tx = Transaction::new(Timestamp(2));
        tx.changes.push(store::Change::Remove(id::<TaskId>(task).into()));
        self.store.propose(tx).await.expect("no checks")
    }

    pub fn state(&self, n: u64) -> NodeState {
        self.store.local().node(&id(n)).expect("it is there").status.state
    }

    /// Waits until the store is so.
    pub async fn until(&self, mut so: impl FnMut(&store::Snapshot) -> bool) {
        let mut changes = self.store.changes();
        while !so(&self.store.local()) {
            changes.next().await;
        }
    }
}

/// One agent's session.
pub struct Session {
    pub id: String,
    pub first: SessionMessage,
    pub messages: Streaming<SessionMessage>,
    pub requests: mpsc::Sender<SessionRequest>,
}

pub fn description(hostname: &str) -> SessionRequest {
    let description = NodeDescription { hostname: hostname.into(), ..Default::default() };
    SessionRequest { body: Some(Body::Description(rmp_serde::to_vec_named(&description).expect("encodes"))) }
}

pub fn heartbeat() -> SessionRequest {
    SessionRequest { body: Some(Body::Heartbeat(Heartbeat {})) }
}

impl Session {
    pub async fn open(client: &mut Client) -> Result<Session, Status> {
        let (requests, receiver) = mpsc::channel(16);
        requests.send(description("host")).await.expect("it has room");
        let mut messages = client.session(ReceiverStream::new(receiver)).await?.into_inner();
        let first = messages.message().await?.ok_or_else(|| Status::internal("ended"))?;
        Ok(Session { id: first.session_id.clone(), first, messages, requests })
    }

    /// Keeps it alive in the background.
    pub fn beat(&self, tasks: &Tasks) {
        let requests = self.requests.clone();
        tasks.spawn("heartbeats", async move {
            while requests.send(heartbeat()).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
}
