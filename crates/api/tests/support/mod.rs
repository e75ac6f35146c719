//! An API over a store without Raft and a swarm that does what the test says.
#![allow(dead_code, missing_docs, unreachable_pub)] // each test binary uses its own part of it

pub mod docker;

use async_trait::async_trait;
use bytes::Bytes;
use engine::embedded::EmbeddedOptions;
use engine::{EmbeddedEngine, Engine, EngineError, ExecIo, Execs as _};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use model::{
    Cluster, ClusterSpec, ContainerStatus, GossipKey, JoinTokens, ManagerStatus, Meta, Node, NodeDescription, NodeId,
    NodeSpec, NodeState, NodeStatus, Role, RootCa, RootRotation, Service, Task, TaskId, TaskState, TaskStatus,
    Timestamp,
};
use parking_lot::Mutex;
use seams::{Clock, Rand, Seams, Tasks};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{LocalStore, Object, StoreClient, Transaction};
use swarmlite_api::{
    Api, ApiDeps, EngineDial, ExecAnswer, ExecCall, ExecError, ExecInput, ExecRequest, ExecTunnel, GossipView,
    InitOptions, JoinOptions, LocalState, LocalView, LogError, LogLine, LogRequest, ManagerView, NewRoot, NotManager,
    RaftView, Reachability, ServerVersion, Swarm, SwarmError, TlsInfo,
};
use tokio::io::AsyncWriteExt as _;

/// A clock that stands still, and dice that always fall the same.
pub struct Fixed(Mutex<u64>);

impl Clock for Fixed {
    fn unix_now(&self) -> Duration {
        Duration::from_secs(1_700_000_000)
    }
}

impl Rand for Fixed {
    fn fill(&self, buf: &mut [u8]) {
        let mut state = self.0.lock();
        for b in buf {
            // xorshift64
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *b = *state as u8;
        }
    }
}

/// A swarm that does what the test says.
pub struct FakeSwarm {
    pub view: Mutex<LocalView>,
    pub store: Mutex<Result<Arc<dyn StoreClient>, NotManager>>,
    pub raft: Mutex<Option<RaftView>>,
    /// What init, join and leave answer.
    pub outcome: Mutex<Result<(), SwarmError>>,
    pub inits: Mutex<Vec<InitOptions>>,
    pub joins: Mutex<Vec<JoinOptions>>,
    pub leaves: Mutex<Vec<bool>>,
    /// In their text form.
    pub unlocks: Mutex<Vec<String>>,
    pub rotations: Mutex<Vec<NewRoot>>,
    /// The root certificate.
    pub trust_root: Mutex<String>,
    /// The URLs of authorities elsewhere, each time that somebody wanted to know whether they are there.
    pub checked_cas: Mutex<Vec<Vec<String>>>,
    pub logs: Mutex<BTreeMap<TaskId, Result<Vec<LogLine>, LogError>>>,
    pub log_requests: Mutex<Vec<LogRequest>>,
    /// The engines of other nodes.
    pub engines: Mutex<BTreeMap<NodeId, EmbeddedEngine>>,
    pub exec_requests: Mutex<Vec<ExecRequest>>,
}

fn refused(e: EngineError) -> ExecError {
    let status = match &e {
        EngineError::NotFound(_) => 404,
        EngineError::Conflict(_) => 409,
        _ => 500,
    };
    ExecError { status, message: e.to_string() }
}

/// The streams of a command, as the way through a node's agent gives them.
fn tunnel(io: ExecIo) -> ExecTunnel {
    let input = futures::sink::unfold(io.input, |mut input, what: ExecInput| async move {
        match what {
            ExecInput::Bytes(bytes) => input.write_all(&bytes).await,
            ExecInput::End => input.shutdown().await,
        }
        .map_err(|e| ExecError { status: 410, message: e.to_string() })?;
        Ok(input)
    });
    let output = io.output.map(|piece| piece.map_err(|e| ExecError { status: 500, message: e.to_string() }));
    ExecTunnel { input: Box::pin(input), output: output.boxed() }
}

#[async_trait]
impl Swarm for FakeSwarm {
    fn local(&self) -> LocalView {
        self.view.lock().clone()
    }
    fn store(&self) -> Result<Arc<dyn StoreClient>, NotManager> {
        self.store.lock().clone()
    }
    fn raft(&self) -> Option<RaftView> {
        self.raft.lock().clone()
    }
    fn tls_info(&self) -> Option<TlsInfo> {
        let trust_root_pem = self.trust_root.lock().clone();
        Some(TlsInfo { trust_root_pem, issuer_subject_der: vec![1, 2], issuer_public_key_der: vec![3] })
    }
    async fn check_external_cas(&self, cluster: &Cluster) -> Result<(), SwarmError> {
        self.checked_cas.lock().push(cluster.spec.external_cas.iter().map(|ca| ca.url.clone()).collect());
        self.outcome.lock().clone()
    }
    async fn begin_rotation(&self, cluster: &Cluster, new_root: NewRoot) -> Result<Cluster, SwarmError> {
        self.outcome.lock().clone()?;
        let mut cluster = cluster.clone();
        let (cert_pem, key_pem) = match &new_root {
            NewRoot::Generated => ("NEXT PEM".to_owned(), "SECRET-NEXT-KEY".to_owned()),
            NewRoot::Given { cert_pem, .. } => (cert_pem.clone(), "SECRET-NEXT-KEY".to_owned()),
            NewRoot::Elsewhere { cert_pem } => (cert_pem.clone(), String::new()),
        };
        let new = RootCa { cert_pem, key_pem };
        let (cross_signed_pem, started_at) = ("CROSSED".into(), Timestamp(1));
        cluster.security.root_rotation = Some(RootRotation { new, cross_signed_pem, started_at });
        self.rotations.lock().push(new_root);
        Ok(cluster)
    }
    async fn init(&self, options: InitOptions) -> Result<NodeId, SwarmError> {
        self.inits.lock().push(options);
        self.outcome.lock().clone().map(|()| node_id(1))
    }
    async fn join(&self, options: JoinOptions) -> Result<(), SwarmError> {
        self.joins.lock().push(options);
        self.outcome.lock().clone()
    }
    async fn leave(&self, force: bool) -> Result<(), SwarmError> {
        self.leaves.lock().push(force);
        self.outcome.lock().clone()
    }
    async fn unlock(&self, key: seal::Key) -> Result<(), SwarmError> {
        self.unlocks.lock().push(key.to_text(seal::KeyForm::Unlock));
        self.outcome.lock().clone()
    }
    async fn backup(&self, key: seal::Key) -> Result<Bytes, SwarmError> {
        self.outcome.lock().clone().map(|()| Bytes::from(key.seal(&Fixed(Mutex::new(1)), b"backup", b"the state")))
    }
    fn gossip(&self) -> Option<GossipView> {
        let counters = BTreeMap::from([("Forged", 3)]);
        let view = GossipView { keys: vec![2, 1], live: vec![node_id(1)], counters, ..GossipView::default() };
        (self.view.lock().state != LocalState::Inactive).then_some(view)
    }
    async fn logs(&self, request: LogRequest) -> Result<BoxStream<'static, Result<LogLine, LogError>>, LogError> {
        self.log_requests.lock().push(request.clone());
        let lines = self.logs.lock().get(&request.task).cloned().unwrap_or(Ok(Vec::new()))?;
        Ok(futures::stream::iter(lines.into_iter().map(Ok)).boxed())
    }
    async fn exec(&self, request: ExecRequest) -> Result<ExecAnswer, ExecError> {
        self.exec_requests.lock().push(request.clone());
        let engine = self.engines.lock().get(&request.node).cloned();
        let away = || ExecError { status: 503, message: format!("node {} is not available", request.node) };
        let engine = engine.ok_or_else(away)?;
        let none = || ExecError { status: 404, message: "none".into() };
        Ok(match request.call {
            ExecCall::Inspect { container } => {
                let found = engine.describe_container(&container, 1 << 20).await.map_err(refused)?;
                ExecAnswer::Container(found.ok_or_else(none)?)
            }
            ExecCall::Create { container, exec } => {
                ExecAnswer::Created(engine.exec_create(&container, &exec).await.map_err(refused)?)
            }
            ExecCall::Start { exec, start } => {
                ExecAnswer::Started(engine.exec_start(&exec, start).await.map_err(refused)?.map(tunnel))
            }
            ExecCall::Look { exec } => {
                ExecAnswer::State(engine.exec_inspect(&exec).await.map_err(refused)?.ok_or_else(none)?)
            }
            ExecCall::Resize { exec, size } => {
                engine.exec_resize(&exec, size).await.map_err(refused)?;
                ExecAnswer::Resized
            }
        })
    }
}

pub struct World {
    pub api: Api,
    pub swarm: Arc<FakeSwarm>,
    pub store: Arc<LocalStore>,
    pub tasks: Tasks,
}

/// A reply, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub fn id(kind: char, n: usize) -> String {
    format!("{kind}{n:024}")
}

pub fn node_id(n: usize) -> NodeId {
    id('n', n).parse().expect("an id")
}

/// A task of a service that runs on the first node; ids and slots are numbered as one likes.
pub fn task(service: &Service, n: usize) -> Task {
    Task {
        id: id('t', n).parse().expect("an id"),
        meta: Meta::default(),
        service_id: service.id.clone(),
        service_name: service.spec.name.clone(),
        slot: n as u64,
        spec: Arc::clone(&service.spec.task),
        spec_version: service.spec_version,
        host_ports: Vec::new(),
        node_id: Some(node_id(1)),
        desired: TaskState::Running,
        run_after: None,
        status: TaskStatus {
            state: TaskState::Running,
            at: model::Timestamp(1_600_000_000_000_000_000),
            message: "started".into(),
            container: Some(ContainerStatus { id: "abc".into(), pid: 7, exit_code: None }),
            ..TaskStatus::default()
        },
        for_node: None,
        job_iteration: None,
        failures: 0,
        inherited: None,
        generic: Vec::new(),
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {:?}", self.body))
    }
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
    #[track_caller]
    pub fn is(&self, status: u16, message: &str) {
        assert_eq!((self.status.as_u16(), self.message().as_str()), (status, message));
    }
    #[track_caller]
    pub fn ok(self, status: u16) -> Answer {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

/// A manager, the only one, with an embedded engine.
pub async fn manager() -> World {
    let world = World::new(None);
    world.put(cluster()).await;
    world.add_node(1, Role::Manager).await;
    *world.swarm.view.lock() = LocalView {
        state: LocalState::Manager,
        node_id: Some(node_id(1)),
        node_addr: "10.0.0.1".into(),
        cluster_id: Some(id('c', 1).parse().expect("an id")),
        remote_managers: vec![(node_id(1), "10.0.0.1:2377".into())],
    };
    world
}

pub fn cluster() -> Cluster {
    Cluster {
        id: id('c', 1).parse().expect("an id"),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        root_ca: RootCa { cert_pem: "PEM".into(), key_pem: "SECRET-KEY".into() },
        join_tokens: JoinTokens {
            worker: format!("SWMTKN-1-digest-{}", id('w', 1)),
            manager: format!("SWMTKN-1-digest-{}", id('m', 1)),
        },
        gossip_keys: vec![GossipKey { id: 1, key: [7; 32] }],
        default_addr_pool: vec!["10.0.0.0/8".into()],
        subnet_size: 24,
        data_path_port: 4789,
        removed_nodes: BTreeMap::new(),
        security: Default::default(),
    }
}

impl World {
    pub fn new(engine_api: Option<Arc<dyn EngineDial>>) -> World {
        let store = Arc::new(LocalStore::default());
        let swarm = Arc::new(FakeSwarm {
            view: Mutex::default(),
            store: Mutex::new(Ok(store.clone() as Arc<dyn StoreClient>)),
            raft: Mutex::new(Some(RaftView::default())),
            outcome: Mutex::new(Ok(())),
            inits: Mutex::default(),
            joins: Mutex::default(),
            leaves: Mutex::default(),
            unlocks: Mutex::default(),
            rotations: Mutex::default(),
            checked_cas: Mutex::default(),
            trust_root: Mutex::new("PEM".into()),
            logs: Mutex::default(),
            log_requests: Mutex::default(),
            engines: Mutex::default(),
            exec_requests: Mutex::default(),
        });
        let fixed = Arc::new(Fixed(Mutex::new(0x1234_5678_9abc_def0)));
        let real = seams::real::seams();
        let engine = EmbeddedEngine::new(EmbeddedOptions::default(), fixed.clone(), fixed.clone());
        let tasks = Tasks::new();
        let api = Api::new(ApiDeps {
            swarm: swarm.clone(),
            seams: Seams { clock: fixed.clone(), rand: fixed, ..real },
            engine: Arc::new(engine) as Arc<dyn Engine>,
            engine_api,
            version: ServerVersion { version: "0.1.0".into(), git_commit: "abc".into(), build_time: String::new() },
            tasks: tasks.clone(),
        });
        World { api, swarm, store, tasks }
    }

    pub async fn put(&self, object: impl Into<Object>) {
        let mut tx = Transaction::new(model::Timestamp(1_600_000_000_000_000_000));
        tx.create(object);
        self.store.propose(tx).await.expect("a new object");
    }

    /// A node that is ready; a manager is also a reachable voter.
    pub async fn add_node(&self, n: usize, role: Role) {
        let addr = format!("10.0.0.{n}:2377");
        let mut description = NodeDescription { hostname: format!("host{n}"), ..NodeDescription::default() };
        description.engine.labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        self.put(Node {
            id: node_id(n),
            meta: Meta::default(),
            spec: NodeSpec { role, ..NodeSpec::default() },
            description: Some(description),
            status: NodeStatus { state: NodeState::Ready, addr: format!("10.0.0.{n}"), ..NodeStatus::default() },
            manager: (role == Role::Manager).then(|| ManagerStatus { raft_id: n as u64, addr: addr.clone() }),
        })
        .await;
        if role == Role::Manager {
            let mut raft = self.swarm.raft.lock();
            let view = raft.get_or_insert_default();
            view.leader.get_or_insert(node_id(n));
            view.managers.insert(node_id(n), ManagerView { addr, voter: true, reachability: Reachability::Reachable });
        }
    }

    /// A task of a service on the first node; ids and slots are numbered as one likes.
    pub async fn add_task(&self, service: &str, n: usize, state: TaskState, desired: TaskState) {
        let snapshot = self.store.local();
        let service = snapshot.services().find(|s| s.spec.name.as_str() == service).expect("a service of that name");
        let mut task = task(service, n);
        (task.desired, task.status.state) = (desired, state);
        self.put(task).await;
    }

    /// A new connection to the API.
    pub fn connect(&self) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let api = self.api.clone();
        self.tasks.spawn("connection", async move { api.serve_connection(Box::new(theirs)).await });
        ours
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect())).await.expect("a connection");
        self.tasks.spawn("client", async move { drop(connection.await) });
        let (parts, body) = sender.send_request(request).await.expect("a reply").into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let method: Method = method.parse().expect("a method");
        let request = Request::builder().method(method).uri(path).header("host", "docker");
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(Full::new(body.to_string().into())),
            None => request.body(Full::default()),
        };
        self.send(request.expect("a request")).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, None).await
    }

    /// Creates a service and returns its id.
    pub async fn service(&self, name: &str, replicas: u64) -> String {
        let reply = self.post("/services/create", &minimal(name, replicas)).await.ok(201);
        reply.json()["ID"].as_str().expect("an id").to_owned()
    }

    pub async fn version_of(&self, path: &str) -> u64 {
        self.get(path).await.ok(200).json()["Version"]["Index"].as_u64().expect("a version")
    }
}

/// What `docker service create --name NAME --replicas N IMAGE` sends.
pub fn minimal(name: &str, replicas: u64) -> Value {
    serde_json::json!({
        "Name": name, "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "nginx:1.25", "Init": false, "DNSConfig": {}},
            "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {}, "ForceUpdate": 0
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
        "EndpointSpec": {"Mode": "vip"}
    })
}

/// A query value.
pub fn escape(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
