//! A model manager over in-memory connections, and a node around an agent.

#![allow(dead_code)]

use rpc::proto::dispatcher as proto;
use rpc::proto::dispatcher::dispatcher_server::{Dispatcher, DispatcherServer};
use rpc::proto::dispatcher::session_request::Body;
use rpc::proto::exec::exec_server::{Exec, ExecServer};
use rpc::proto::exec::{self as exec_proto, agent_message};
use rpc::proto::logs::logs_server::{Logs, LogsServer};
use rpc::proto::logs::{self as log_proto, subscription_message};
use swarmlite_agent::{Agent, AgentConfig, Link, LinkError, NODE_LABEL, Position, SessionInfo};

use async_trait::async_trait;
use bytes::Bytes;
use engine::embedded::{EmbeddedEngine, EmbeddedOptions, TokioClock};
use engine::{ContainerPhase, ContainerState};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use model::{
    Meta, NodeDescription, NodeId, NodeTls, Payload, PayloadId, Task, TaskId, TaskSpec, TaskState, TaskStatus,
};
use parking_lot::Mutex;
use seams::{Disk, Rand, Seams, Tasks};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

// === a manager ===

/// What a manager was told, and what it tells.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) position: Position,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) descriptions: Vec<NodeDescription>,
    pub(crate) heartbeats: usize,
    pub(crate) goodbyes: usize,
    pub(crate) asked_with: Vec<Option<Position>>,
    /// The data of secrets and configs that goes with the tasks.
    pub(crate) payloads: BTreeMap<PayloadId, Payload>,
    pub(crate) statuses: Vec<(TaskId, TaskStatus)>,
    pub(crate) reports: usize,
    /// So many reports are refused before one is acknowledged.
    pub(crate) refuse_reports: usize,
    /// A report with a status of this task is refused for good.
    pub(crate) never_take: Option<TaskId>,
    pub(crate) published: Vec<log_proto::PublishRequest>,
}

/// The way to and from an agent that answers a call.
type Way = (mpsc::Receiver<exec_proto::ManagerMessage>, mpsc::Sender<agent_message::Body>);

#[derive(Clone)]
pub(crate) struct Manager {
    pub(crate) told: Arc<Mutex<Told>>,
    name: &'static str,
    updates: broadcast::Sender<proto::AssignmentsMessage>,
    subscriptions: broadcast::Sender<log_proto::SubscriptionMessage>,
    calls: broadcast::Sender<exec_proto::Call>,
    asked: Arc<Mutex<BTreeMap<String, Way>>>,
    connections: mpsc::Sender<io::Result<DuplexStream>>,
    alive: watch::Sender<bool>,
    sessions: Arc<AtomicUsize>,
    calls_made: Arc<AtomicUsize>,
}

impl Manager {
    pub(crate) fn start(name: &'static str, tasks: &Tasks) -> Manager {
        let (connections, incoming) = mpsc::channel(16);
        let manager = Manager {
            told: Arc::default(),
            name,
            updates: broadcast::Sender::new(64),
            subscriptions: broadcast::Sender::new(64),
            calls: broadcast::Sender::new(256),
            asked: Arc::default(),
            connections,
            alive: watch::Sender::new(true),
            sessions: Arc::default(),
            calls_made: Arc::default(),
        };
        let server = Server::builder()
            .add_service(DispatcherServer::new(manager.clone()))
            .add_service(LogsServer::new(manager.clone()))
            .add_service(ExecServer::new(manager.clone()))
            .serve_with_incoming(ReceiverStream::new(incoming));
        tasks.spawn("manager", async move { server.await.unwrap() });
        manager
    }

    /// Cuts all its sessions, and refuses new ones until it is alive again.
    pub(crate) fn set_alive(&self, alive: bool) {
        self.alive.send_replace(alive);
    }

    /// Assigns exactly these, at the next index of this term.
    pub(crate) fn assign(&self, term: u64, tasks: Vec<Task>) {
        let message = {
            let mut told = self.told.lock();
            told.position = Position { term, index: told.position.index + 1 };
            told.tasks = tasks.into_iter().map(|t| (t.id.clone(), t)).collect();
            complete(&told)
        };
        // Without a stream there is nobody to tell; the next one begins with everything.
        let _ = self.updates.send(message);
    }

    pub(crate) fn send(&self, message: proto::AssignmentsMessage) {
        self.updates.send(message).unwrap();
    }

    pub(crate) fn subscribe(&self, message: subscription_message::Body) {
        self.subscriptions.send(log_proto::SubscriptionMessage { body: Some(message) }).unwrap();
    }

    /// Gives the agent a call: where its input goes, and what it says.
    pub(crate) async fn ask(&self, what: exec_proto::call::What) -> Asked {
        let (input, input_rx) = mpsc::channel(8);
        let (say, said) = mpsc::channel(8);
        let id = {
            let mut asked = self.asked.lock();
            let id = format!("call-{}", self.calls_made.fetch_add(1, Ordering::SeqCst));
            asked.insert(id.clone(), (input_rx, say));
            id
        };
        // Without a listener there is nobody to ask yet.
        let call = exec_proto::Call { id, what: Some(what) };
        while self.calls.receiver_count() == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.calls.send(call).unwrap();
        Asked { input, said }
    }

    /// The newest status of a task.
    pub(crate) fn status(&self, id: &TaskId) -> TaskStatus {
        let told = self.told.lock();
        told.statuses.iter().rev().find(|(t, _)| t == id).map(|(_, s)| s.clone()).unwrap_or_default()
    }

    pub(crate) fn states(&self, id: &TaskId) -> Vec<TaskState> {
        let mut states: Vec<_> =
            self.told.lock().statuses.iter().filter(|(t, _)| t == id).map(|(_, s)| s.state).collect();
        states.dedup();
        states
    }

    fn check(&self) -> Result<(), Status> {
        if *self.alive.borrow() { Ok(()) } else { Err(Status::unavailable("dead")) }
    }

    /// A stream that breaks when the manager dies.
    fn mortal<T: Send + 'static>(
        &self,
        stream: BoxStream<'static, Result<T, Status>>,
    ) -> BoxStream<'static, Result<T, Status>> {
        let mut alive = self.alive.subscribe();
        let death = async move {
            let _ = alive.wait_for(|a| !*a).await;
            Err(Status::unavailable("died"))
        };
        futures::stream::select(stream, futures::stream::once(death))
            .scan(false, |over, item| {
                let before = std::mem::replace(over, item.is_err());
                std::future::ready((!before).then_some(item))
            })
            .boxed()
    }
}

pub(crate) fn complete(told: &Told) -> proto::AssignmentsMessage {
    proto::AssignmentsMessage {
        position: Some(told.position.into()),
        kind: proto::assignments_message::Kind::Complete.into(),
        put: told.tasks.values().map(|t| rmp_serde::to_vec_named(t).unwrap()).collect(),
        grant: told.payloads.values().map(|p| rmp_serde::to_vec_named(p).unwrap()).collect(),
        ..proto::AssignmentsMessage::default()
    }
}

#[async_trait]
impl Dispatcher for Manager {
    type SessionStream = BoxStream<'static, Result<proto::SessionMessage, Status>>;
    type AssignmentsStream = BoxStream<'static, Result<proto::AssignmentsMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<proto::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        self.check()?;
        let number = self.sessions.fetch_add(1, Ordering::SeqCst);
        let told = Arc::clone(&self.told);
        let requests = request.into_inner().filter_map(move |request| {
            let mut told = told.lock();
            match request.map(|r| r.body) {
                Ok(Some(Body::Description(d))) => told.descriptions.push(rmp_serde::from_slice(&d).unwrap()),
                Ok(Some(Body::Heartbeat(_))) => told.heartbeats += 1,
                Ok(Some(Body::Goodbye(_))) => told.goodbyes += 1,
                Ok(None) | Err(_) => {}
            }
            std::future::ready(None)
        });
        let hello = proto::SessionMessage {
            session_id: format!("{}-{number}", self.name),
            managers: vec![proto::Manager { node_id: self.name.into(), addr: "10.0.0.1:2377".into() }],
            heartbeat_period_ms: 500,
            desired_role: "worker".into(),
            gossip_keys: vec![proto::GossipKey { id: 1, key: vec![7; 32] }, proto::GossipKey { id: 2, key: vec![1] }],
            root_certificate_pem: "PEM".into(),
            node_cert_expiry_s: 3600,
            certificate_after: 0,
            cluster_version: 1,
            certificate_marked: false,
            raft_heartbeat_tick: 2,
            raft_election_tick: 30,
        };
        let stream = futures::stream::once(async { Ok(hello) }).chain(requests);
        Ok(Response::new(self.mortal(stream.boxed())))
    }

    async fn assignments(
        &self,
        request: Request<proto::AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        self.check()?;
        let updates = BroadcastStream::new(self.updates.subscribe()).filter_map(|m| std::future::ready(m.ok().map(Ok)));
        let mut told = self.told.lock();
        let request = request.into_inner();
        let have = request.have.map(Into::into);
        told.asked_with.push(have);
        let now = complete(&told);
        let first = if have == Some(told.position) {
            use proto::assignments_message::Kind::Incremental;
            let kind = Incremental.into();
            let has = |p: &&Payload| request.granted.contains(&rmp_serde::to_vec_named(&p.id).unwrap());
            let lacks = told.payloads.values().filter(|p| !has(p));
            let grant = lacks.map(|p| rmp_serde::to_vec_named(p).unwrap()).collect();
            proto::AssignmentsMessage { kind, follows: now.position, put: Vec::new(), grant, ..now }
        } else {
            now
        };
        Ok(Response::new(self.mortal(futures::stream::once(async { Ok(first) }).chain(updates).boxed())))
    }

    async fn update_task_status(
        &self,
        request: Request<proto::UpdateTaskStatusRequest>,
    ) -> Result<Response<proto::UpdateTaskStatusResponse>, Status> {
        self.check()?;
        let mut told = self.told.lock();
        told.reports += 1;
        if told.refuse_reports > 0 {
            told.refuse_reports -= 1;
            return Err(Status::unavailable("no leader"));
        }
        let updates = request.into_inner().updates;
        if updates.iter().any(|u| told.never_take.as_ref().is_some_and(|t| t.as_str() == u.task_id)) {
            return Err(Status::permission_denied("not the node's"));
        }
        for update in updates {
            told.statuses.push((update.task_id.parse().unwrap(), rmp_serde::from_slice(&update.status).unwrap()));
        }
        Ok(Response::new(proto::UpdateTaskStatusResponse {}))
    }
}

#[async_trait]
impl Logs for Manager {
    type ListenStream = BoxStream<'static, Result<log_proto::SubscriptionMessage, Status>>;
    type RelayStream = BoxStream<'static, Result<log_proto::LogBatch, Status>>;

    async fn listen(&self, _: Request<log_proto::ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        self.check()?;
        let stream =
            BroadcastStream::new(self.subscriptions.subscribe()).filter_map(|m| std::future::ready(m.ok().map(Ok)));
        Ok(Response::new(self.mortal(stream.boxed())))
    }

    async fn publish(
        &self,
        request: Request<Streaming<log_proto::PublishRequest>>,
    ) -> Result<Response<log_proto::PublishResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(batch) = stream.message().await? {
            self.told.lock().published.push(batch);
        }
        Ok(Response::new(log_proto::PublishResponse {}))
    }

    async fn relay(&self, _: Request<log_proto::Subscription>) -> Result<Response<Self::RelayStream>, Status> {
        Err(Status::unimplemented("agents do not call this"))
    }
}

/// A call that a manager has made.
pub(crate) struct Asked {
    pub(crate) input: mpsc::Sender<exec_proto::ManagerMessage>,
    pub(crate) said: mpsc::Receiver<agent_message::Body>,
}

#[async_trait]
impl Exec for Manager {
    type ListenStream = BoxStream<'static, Result<exec_proto::Call, Status>>;
    type AnswerStream = BoxStream<'static, Result<exec_proto::ManagerMessage, Status>>;
    type RelayStream = BoxStream<'static, Result<exec_proto::AgentMessage, Status>>;

    async fn listen(&self, _: Request<exec_proto::ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        self.check()?;
        let stream = BroadcastStream::new(self.calls.subscribe()).filter_map(|m| std::future::ready(m.ok().map(Ok)));
        Ok(Response::new(self.mortal(stream.boxed())))
    }

    async fn answer(
        &self,
        request: Request<Streaming<exec_proto::AgentMessage>>,
    ) -> Result<Response<Self::AnswerStream>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|m| m.body);
        let Some(agent_message::Body::CallId(id)) = first else { return Err(Status::invalid_argument("no call")) };
        let (input, say) = self.asked.lock().remove(&id).ok_or_else(|| Status::not_found("no such call"))?;
        let heard = messages.filter_map(move |message| {
            let say = say.clone();
            async move {
                if let Some(body) = message.ok().and_then(|m| m.body) {
                    let _the_test_has_heard_enough = say.send(body).await;
                }
                None
            }
        });
        // It is over when the caller has gone.
        let inputs = ReceiverStream::new(input).map(Some).chain(futures::stream::once(async { None }));
        let stream = futures::stream::select(inputs, heard).take_while(|m| std::future::ready(m.is_some()));
        Ok(Response::new(stream.filter_map(|m| std::future::ready(m.map(Ok))).boxed()))
    }

    async fn relay(
        &self,
        _: Request<Streaming<exec_proto::ManagerMessage>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        Err(Status::unimplemented("agents do not call this"))
    }
}

// === the way to it ===

/// Goes round the managers: after a failure, the next.
pub(crate) struct RoundRobin {
    managers: Vec<Manager>,
    at: AtomicUsize,
    pub(crate) learned: Mutex<Vec<SessionInfo>>,
    pub(crate) failures: Mutex<Vec<String>>,
    /// Of this node's certificate.
    pub(crate) tls: watch::Sender<Option<NodeTls>>,
}

#[async_trait]
impl Link for RoundRobin {
    async fn channel(&self) -> Result<Channel, LinkError> {
        let at = self.at.load(Ordering::SeqCst);
        let manager =
            self.managers.get(at % self.managers.len().max(1)).ok_or_else(|| LinkError("there is none".into()))?;
        if !*manager.alive.borrow() {
            return Err(LinkError(format!("{} is dead", manager.name)));
        }
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        manager.connections.send(Ok(theirs)).await.map_err(|e| LinkError(e.to_string()))?;
        let ours = Mutex::new(Some(ours));
        let connector = tower::service_fn(move |_| {
            let ours = ours.lock().take();
            async move { ours.map(TokioIo::new).ok_or_else(|| io::Error::other("used up")) }
        });
        let endpoint = Endpoint::from_static("http://manager.test");
        endpoint.connect_with_connector(connector).await.map_err(|e| LinkError(e.to_string()))
    }

    fn tls(&self) -> Option<watch::Receiver<Option<NodeTls>>> {
        Some(self.tls.subscribe())
    }

    fn failed(&self, reason: &str) {
        self.at.fetch_add(1, Ordering::SeqCst);
        self.failures.lock().push(reason.to_owned());
    }

    fn learned(&self, info: &SessionInfo) {
        self.learned.lock().push(info.clone());
    }
}

// === the world ===

/// A disk in memory; `broken` makes every write fail.
#[derive(Default)]
pub(crate) struct MemoryDisk {
    pub(crate) files: Mutex<BTreeMap<PathBuf, Bytes>>,
    pub(crate) broken: Mutex<bool>,
}

#[async_trait]
impl Disk for MemoryDisk {
    async fn read(&self, path: &Path) -> io::Result<Option<Bytes>> {
        Ok(self.files.lock().get(path).cloned())
    }
    async fn write_atomic(&self, path: &Path, bytes: Bytes, mode: u32) -> io::Result<()> {
        assert_eq!(mode, 0o600, "assignments may hold passwords");
        if *self.broken.lock() {
            return Err(io::Error::other("disk full"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.files.lock().insert(path.to_owned(), bytes);
        Ok(())
    }
    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().remove(path);
        Ok(())
    }
    async fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    async fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    async fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// xorshift64: the same numbers in every run.
pub(crate) struct Seeded(Mutex<u64>);

impl Rand for Seeded {
    fn fill(&self, buf: &mut [u8]) {
        let mut state = self.0.lock();
        for byte in buf {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *byte = state.to_le_bytes()[3];
        }
    }
}

/// Managers, an engine and a disk, and perhaps an agent between them.
pub(crate) struct World {
    pub(crate) tasks: Tasks,
    pub(crate) engine: EmbeddedEngine,
    pub(crate) disk: Arc<MemoryDisk>,
    pub(crate) managers: Vec<Manager>,
    pub(crate) link: Arc<RoundRobin>,
    pub(crate) config: AgentConfig,
    pub(crate) agent: Option<Agent>,
    pub(crate) seams: Seams,
}

impl World {
    /// With so many managers, and no agent yet.
    pub(crate) fn new(managers: usize) -> World {
        let tasks = Tasks::new();
        let rand: Arc<dyn Rand> = Arc::new(Seeded(Mutex::new(0x1234_5678_9abc_def1)));
        let clock = Arc::new(TokioClock::start());
        let disk = Arc::new(MemoryDisk::default());
        let managers: Vec<_> =
            ["m0", "m1", "m2"].into_iter().take(managers).map(|n| Manager::start(n, &tasks)).collect();
        let seams =
            Seams { clock: clock.clone(), rand: Arc::clone(&rand), net: seams::real::seams().net, disk: disk.clone() };
        World {
            engine: EmbeddedEngine::new(EmbeddedOptions::default(), clock, rand),
            disk,
            link: Arc::new(RoundRobin {
                managers: managers.clone(),
                at: AtomicUsize::new(0),
                learned: Mutex::default(),
                failures: Mutex::default(),
                tls: watch::Sender::default(),
            }),
            managers,
            config: AgentConfig::new(node_id(1), "/agent/state".into()),
            agent: None,
            seams,
            tasks,
        }
    }

    pub(crate) async fn started(managers: usize) -> World {
        let mut world = World::new(managers);
        world.start().await;
        world
    }

    pub(crate) async fn start(&mut self) {
        self.agent = Some(self.agent(self.config.clone()).await);
    }

    pub(crate) async fn agent(&self, config: AgentConfig) -> Agent {
        self.agent_on(config, Arc::new(self.engine.clone())).await
    }

    /// An agent on another engine.
    pub(crate) async fn agent_on(&self, config: AgentConfig, engine: Arc<dyn engine::Engine>) -> Agent {
        Agent::start(config, self.seams.clone(), engine, self.link.clone(), &self.tasks).await.unwrap()
    }

    /// Stops the agent gently.
    pub(crate) async fn stop(&mut self) {
        assert!(self.agent.take().unwrap().stop(Duration::from_secs(5)).await, "the agent did not stop in time");
    }

    pub(crate) fn manager(&self) -> &Manager {
        &self.managers[0]
    }

    /// Waits until it is so, at most a minute of virtual time.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&World) -> bool) {
        let from = Instant::now();
        while !is_so(self) {
            assert!(
                from.elapsed() < Duration::from_secs(60),
                "waited in vain until {what}\n{:#?}\n{:?}\n{:?}",
                self.managers.iter().map(|m| m.told.lock().statuses.clone()).collect::<Vec<_>>(),
                self.engine.containers(),
                self.link.failures.lock(),
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn until_state(&self, n: u8, state: TaskState) {
        self.until(&format!("task {n} is {state}"), |w| {
            w.managers.iter().any(|m| m.status(&task_id(n)).state == state)
        })
        .await;
    }

    /// Names of the running containers.
    pub(crate) fn running(&self) -> Vec<String> {
        let running = |c: &ContainerState| c.phase == ContainerPhase::Running;
        self.engine.containers().into_iter().filter(running).map(|c| c.name).collect()
    }
}

pub(crate) fn node_id(n: u8) -> NodeId {
    format!("n{n:024}").parse().unwrap()
}

pub(crate) fn task_id(n: u8) -> TaskId {
    format!("{n:025}").parse().unwrap()
}

/// A task of the service `web` that should run this image.
pub(crate) fn task(n: u8, image: &str) -> Task {
    let mut spec = TaskSpec::default();
    spec.container_mut().unwrap().image = image.into();
    Task {
        id: task_id(n),
        meta: Meta::default(),
        service_id: format!("s{:024}", 1).parse().unwrap(),
        service_name: "web".parse().unwrap(),
        slot: u64::from(n),
        spec: Arc::new(spec),
        spec_version: 1,
        host_ports: Vec::new(),
        node_id: Some(node_id(1)),
        desired: TaskState::Running,
        run_after: None,
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
        for_node: None,
        job_iteration: None,
        failures: 0,
        inherited: None,
        generic: Vec::new(),
    }
}

pub(crate) fn wanted(task: Task, desired: TaskState) -> Task {
    Task { desired, ..task }
}

pub(crate) fn label_of(n: u8) -> (String, String) {
    (NODE_LABEL.to_owned(), node_id(n).to_string())
}
