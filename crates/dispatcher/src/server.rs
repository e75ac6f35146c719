//! The gRPC service that agents call.

use crate::assign::Assignments;
use crate::hub::Hub;
use crate::peer::Caller;
use crate::report::{StatusQueue, send_sessions};
use crate::sessions::{NotOpened, Sessions};
use crate::status::{Refused, Reported};
use crate::{BATCH_CHANGES, BATCH_INTERVAL, CATCH_UP_PATIENCE, Canary, DESCRIPTION_BYTES_MAX, GRACE_PERIODS, Leader};
use model::{NodeDescription, NodeId, Role};
use parking_lot::Mutex;
use rpc::proto::dispatcher::dispatcher_server::Dispatcher as Service;
use rpc::proto::dispatcher::session_request::Body;
use rpc::proto::dispatcher::{
    AssignmentsMessage, AssignmentsRequest, GossipKey, Manager, Position, SessionMessage, SessionRequest,
    UpdateTaskStatusRequest, UpdateTaskStatusResponse,
};
use seams::{Rand, RandExt as _, Tasks};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use store::{Snapshot, StoreClient};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Messages that wait for a slow agent; then the stream waits too.
const STREAM_BUFFER: usize = 16;
/// How long an agent may take to send its description after it opened a session.
const DESCRIPTION_PATIENCE: Duration = Duration::from_secs(5);
/// How long a caller that this manager does not know waits for a linearizable answer whether it is a member.
const MEMBER_PATIENCE: Duration = Duration::from_secs(3);

type Reply<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;
type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// Serves the agents whose sessions are with this manager. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

/// What a dispatcher is made of.
pub struct DispatcherParts {
    /// The replicated state; sets are served from [`StoreClient::local`].
    pub store: Arc<dyn StoreClient>,
    /// The way to the leader.
    pub leader: Arc<dyn Leader>,
    /// The Raft term for [`Position`]s: that of the newest leader that this manager knows. It never falls. A change of it
    /// also means that there is a new leader to be told of all sessions.
    pub term: watch::Receiver<u64>,
    /// For session ids.
    pub rand: Arc<dyn Rand>,
    /// Deliberate bugs.
    pub canary: Canary,
}

pub(crate) struct Shared {
    store: Arc<dyn StoreClient>,
    term: watch::Receiver<u64>,
    rand: Arc<dyn Rand>,
    canary: Canary,
    pub(crate) sessions: Arc<Mutex<Sessions>>,
    /// Somebody came, left or changed.
    news: Arc<Notify>,
    hub: Arc<Hub>,
    statuses: StatusQueue,
    pub(crate) tasks: Tasks,
}

// === impl Dispatcher ===

impl Dispatcher {
    /// Starts to serve; its loops and streams stop with `tasks`.
    pub fn start(parts: DispatcherParts, tasks: &Tasks) -> Dispatcher {
        let DispatcherParts { store, leader, term, rand, canary } = parts;
        let tasks = tasks.child();
        let (hub, changes) = Hub::new(store.clone());
        tasks.spawn("dispatcher changes", hub.clone().run(changes));
        let (statuses, send_statuses) = StatusQueue::new(leader.clone());
        tasks.spawn("dispatcher statuses", send_statuses);
        let sessions: Arc<Mutex<Sessions>> = Arc::default();
        let news: Arc<Notify> = Arc::default();
        let (for_period, of_sessions) = (store.clone(), sessions.clone());
        let period = move || heartbeat_period(&for_period.local());
        tasks.spawn("dispatcher sessions", send_sessions(leader, of_sessions, news.clone(), term.clone(), period));
        Dispatcher { shared: Arc::new(Shared { store, term, rand, canary, sessions, news, hub, statuses, tasks }) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

fn heartbeat_period(snapshot: &Snapshot) -> Duration {
    // A zero would make every loop spin; the API refuses it, an old store might still have it.
    snapshot.cluster().map_or(Duration::from_secs(1), |c| c.spec.heartbeat_period.max(Duration::from_millis(10)))
}

fn removed(node: &NodeId) -> Status {
    Status::permission_denied(format!("node {node} is not (or no longer) a member of this swarm"))
}

pub(crate) fn session_invalid() -> Status {
    Status::failed_precondition("session invalid: open a new one")
}

#[tonic::async_trait]
impl Service for Dispatcher {
    type SessionStream = Reply<SessionMessage>;
    type AssignmentsStream = Reply<AssignmentsMessage>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = Caller::of(&request)?;
        self.shared.check_member(&caller.node).await?;
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let shared = self.shared.clone();
        self.shared.tasks.spawn("session", async move {
            if let Err(status) = shared.serve_session(caller, request.into_inner(), &sender).await {
                let _the_agent_is_gone = sender.try_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn assignments(
        &self,
        request: Request<AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        let node = Caller::of(&request)?.node;
        self.shared.check_member(&node).await?;
        let request = request.into_inner();
        let ended = self.shared.sessions.lock().ended(&node, &request.session_id).ok_or_else(session_invalid)?;
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let shared = self.shared.clone();
        self.shared.tasks.spawn("assignments", async move {
            let status = shared.serve_assignments(node, request, ended, &sender).await;
            let _the_agent_is_gone = sender.try_send(Err(status));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusRequest>,
    ) -> Result<Response<UpdateTaskStatusResponse>, Status> {
        let node = Caller::of(&request)?.node;
        self.shared.check_member(&node).await?;
        let request = request.into_inner();
        if !self.shared.sessions.lock().heartbeat(&node, &request.session_id, Instant::now()) {
            return Err(session_invalid());
        }
        let local = self.shared.store.local();
        let reports: Result<Vec<Reported>, Refused> =
            request.updates.iter().map(|u| Reported::from_agent(u, &node, &local)).collect();
        let reports = reports.map_err(|refused| match refused {
            Refused::Foreign { .. } => Status::permission_denied(refused.to_string()),
            _ => Status::invalid_argument(refused.to_string()),
        })?;
        if !reports.is_empty() {
            self.shared.statuses.commit(reports).await?;
        }
        Ok(Response::new(UpdateTaskStatusResponse {}))
    }
}

// === impl Shared ===

impl Shared {
    /// A node that joined a moment ago may be unknown here only because this manager is behind; only a linearizable read may
    /// tell it that it is no member.
    pub(crate) async fn check_member(&self, node: &NodeId) -> Result<(), Status> {
        if self.store.local().node(node).is_some() {
            return Ok(());
        }
        match tokio::time::timeout(MEMBER_PATIENCE, self.store.current()).await {
            Ok(Ok(snapshot)) if snapshot.node(node).is_some() => Ok(()),
            Ok(Ok(_)) => Err(removed(node)),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_elapsed) => {
                Err(Status::unavailable("cannot tell whether this node is a member: the leader does not answer"))
            }
        }
    }

    // --- sessions ---

    async fn serve_session(
        &self,
        caller: Caller,
        mut requests: Streaming<SessionRequest>,
        sender: &Sender<SessionMessage>,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(DESCRIPTION_PATIENCE, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no node description came"))??;
        let Some(Body::Description(bytes)) = first.and_then(|r| r.body) else {
            return Err(Status::invalid_argument("a session begins with the node's description"));
        };
        let description = description(&bytes)?;
        let id = self.rand.id25();
        let node = caller.node;
        let ended = self.sessions.lock().open(&node, id.clone(), caller.addr, description, Instant::now());
        let ended = ended.map_err(|e| match e {
            NotOpened::TooMany(_) => Status::resource_exhausted(e.to_string()),
            NotOpened::CutOff => Status::unavailable(e.to_string()),
        })?;
        self.news.notify_one();
        let mut goodbye = false;
        let outcome = self.keep_session(&node, &id, &mut requests, sender, &ended, &mut goodbye).await;
        self.sessions.lock().close(&node, &id, goodbye, Instant::now());
        if goodbye {
            self.news.notify_one();
        }
        outcome
    }

    async fn keep_session(
        &self,
        node: &NodeId,
        id: &str,
        requests: &mut Streaming<SessionRequest>,
        sender: &Sender<SessionMessage>,
        ended: &CancellationToken,
        goodbye: &mut bool,
    ) -> Result<(), Status> {
        let mut cluster = self.hub.cluster();
        let mut told = None;
        loop {
            cluster.borrow_and_update();
            let snapshot = self.store.local();
            let message = session_message(&snapshot, node, id).ok_or_else(|| removed(node));
            let message = match message {
                Ok(message) => message,
                // Opened by a node that this manager does not know yet: `check_member` has asked the leader.
                Err(_) if told.is_none() => first_message(&snapshot, id),
                Err(removed) => return Err(removed),
            };
            if told.as_ref() != Some(&message) {
                sender.send(Ok(message.clone())).await.map_err(|_| Status::cancelled("the agent is gone"))?;
                told = Some(message);
            }
            let last = self.sessions.lock().last(node, id).ok_or_else(session_invalid)?;
            let grace = heartbeat_period(&snapshot) * GRACE_PERIODS;
            tokio::select! {
                biased;
                () = ended.cancelled() => return Err(Status::aborted("the node opened another session, or this manager cannot reach the leader")),
                () = sender.closed() => return Ok(()),
                request = requests.message() => match request? {
                    None => return Ok(()),
                    Some(request) => if self.heard(node, id, request)? {
                        *goodbye = true;
                        return Ok(());
                    },
                },
                changed = cluster.changed() => if changed.is_err() { return Err(Status::unavailable("this manager is stopping")) },
                () = tokio::time::sleep_until(last + grace) => return Err(Status::aborted("heartbeat failure")),
            }
        }
    }

    /// Takes one message of the agent; true when it says goodbye.
    fn heard(&self, node: &NodeId, id: &str, request: SessionRequest) -> Result<bool, Status> {
        let now = Instant::now();
        match request.body {
            Some(Body::Heartbeat(_)) => {
                self.sessions.lock().heartbeat(node, id, now);
            }
            Some(Body::Description(bytes)) => {
                let description = description(&bytes)?;
                let mut sessions = self.sessions.lock();
                sessions.describe(node, id, description, now);
                if sessions.has_news() {
                    self.news.notify_one();
                }
            }
            Some(Body::Goodbye(_)) => return Ok(true),
            // A newer agent's message.
            None => {}
        }
        Ok(false)
    }

    // --- assignments ---

    async fn serve_assignments(
        &self,
        node: NodeId,
        request: AssignmentsRequest,
        ended: CancellationToken,
        sender: &Sender<AssignmentsMessage>,
    ) -> Status {
        let have = request.have.filter(|_| !self.canary.serve_from_behind);
        if let Some(have) = &have
            && let Err(status) = self.catch_up(have).await
        {
            return status;
        }
        let mut wake = self.hub.node(&node);
        let mut assignments = Assignments::new(node.clone(), have, &request.granted, self.canary);
        let mut last_sent: Option<Instant> = None;
        loop {
            wake.borrow_and_update();
            if let Some(at) = self.send_changes(&node, &mut assignments, last_sent, sender).await {
                match at {
                    Ok(at) => last_sent = Some(at),
                    Err(status) => return status,
                }
            }
            // A batch that waits for its time; without one only a change or an end wakes.
            let due = last_sent.map(|at| at + BATCH_INTERVAL).filter(|at| *at > Instant::now());
            tokio::select! {
                biased;
                () = ended.cancelled() => return session_invalid(),
                () = sender.closed() => return Status::cancelled("the agent is gone"),
                changed = wake.changed() => if changed.is_err() { return Status::unavailable("this manager is stopping") },
                () = sleep_until(due) => {}
            }
        }
    }

    /// Sends what the agent lacks, unless it can wait for more. Returns when it was sent.
    async fn send_changes(
        &self,
        node: &NodeId,
        assignments: &mut Assignments,
        last_sent: Option<Instant>,
        sender: &Sender<AssignmentsMessage>,
    ) -> Option<Result<Instant, Status>> {
        // In this order each is at most as new as the next, so that a position never promises what was not looked at.
        let position = Position { term: *self.term.borrow(), index: *self.hub.seen().borrow() };
        let removals = self.hub.removals(node, assignments.since());
        let snapshot = self.store.local();
        let batch = assignments.diff(&snapshot, removals, position)?;
        let quiet = last_sent.is_none_or(|at| at.elapsed() >= BATCH_INTERVAL);
        if !quiet && !batch.is_first() && batch.changes() < BATCH_CHANGES {
            return None;
        }
        for message in assignments.send(&snapshot, batch) {
            let bytes: usize = message.put.iter().chain(&message.grant).map(Vec::len).sum();
            if bytes > model::limits::RPC_MESSAGE_BYTES_MAX {
                return Some(Err(Status::resource_exhausted(format!(
                    "the tasks of node {node} take {bytes} bytes, more than a message may have; remove some of them"
                ))));
            }
            if sender.send(Ok(message)).await.is_err() {
                return Some(Err(Status::cancelled("the agent is gone")));
            }
        }
        Some(Ok(Instant::now()))
    }

    /// Waits until this manager has applied what the agent has seen elsewhere; sends it elsewhere again if that takes long.
    async fn catch_up(&self, have: &Position) -> Result<(), Status> {
        let mut seen = self.hub.seen();
        let mut term = self.term.clone();
        let caught_up = async {
            while *seen.borrow_and_update() < have.index || *term.borrow_and_update() < have.term {
                self.hub.poke();
                tokio::select! {
                    biased;
                    changed = seen.changed() => if changed.is_err() { return },
                    changed = term.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(BATCH_INTERVAL) => {}
                }
            }
        };
        if tokio::time::timeout(CATCH_UP_PATIENCE, caught_up).await.is_ok() && *self.hub.seen().borrow() >= have.index {
            return Ok(());
        }
        Err(Status::unavailable(format!(
            "this manager is behind: it has applied the log up to {}, the agent has seen {}; ask another one",
            *self.hub.seen().borrow(),
            have.index
        )))
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn description(bytes: &[u8]) -> Result<NodeDescription, Status> {
    if bytes.len() > DESCRIPTION_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "a node description of {} bytes is too large: at most {DESCRIPTION_BYTES_MAX}",
            bytes.len()
        )));
    }
    let mut description: NodeDescription = model::persisted::decode(bytes)
        .map_err(|e| Status::invalid_argument(format!("cannot read the node description: {e}")))?;
    // It is shown on operators' terminals, which would take some of them for commands.
    description.hostname.retain(|c| !c.is_control());
    Ok(description)
}

/// What a node should know; `None` when it is no member.
fn session_message(snapshot: &Snapshot, node: &NodeId, id: &str) -> Option<SessionMessage> {
    let role = match snapshot.node(node)?.spec.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    };
    let promoted = snapshot.cluster().and_then(|c| c.security.certificates.promoted_after.get(node).copied());
    Some(SessionMessage {
        desired_role: role.to_owned(),
        certificate_after: promoted.unwrap_or_default(),
        ..first_message(snapshot, id)
    })
}

/// What any member should know.
fn first_message(snapshot: &Snapshot, id: &str) -> SessionMessage {
    let managers = snapshot.nodes().filter_map(|n| {
        let manager = n.manager.as_ref()?;
        Some(Manager { node_id: n.id.to_string(), addr: manager.addr.clone() })
    });
    let cluster = snapshot.cluster();
    let ticks = cluster.map(|c| c.spec.raft.ticks);
    let keys = cluster.map(|c| c.gossip_keys.iter().map(|k| GossipKey { id: k.id, key: k.key.to_vec() }).collect());
    SessionMessage {
        session_id: id.to_owned(),
        managers: managers.collect(),
        heartbeat_period_ms: u64::try_from(heartbeat_period(snapshot).as_millis()).unwrap_or(u64::MAX),
        desired_role: String::new(),
        gossip_keys: keys.unwrap_or_default(),
        root_certificate_pem: cluster.map(|c| c.trusted_roots_pem()).unwrap_or_default(),
        // What an authority elsewhere gives is right, whatever it is.
        node_cert_expiry_s: cluster.filter(|c| !c.signs_elsewhere()).map_or(0, |c| c.spec.node_cert_expiry.as_secs()),
        certificate_after: 0,
        cluster_version: cluster.map_or(0, |c| c.meta.version),
        certificate_marked: cluster.is_some_and(|c| c.security.grants.is_some()),
        raft_heartbeat_tick: ticks.map_or(0, |t| t.heartbeat),
        raft_election_tick: ticks.map_or(0, |t| t.election),
    }
}
