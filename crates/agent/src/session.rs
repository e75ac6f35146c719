//! Talks to a manager: session and heartbeats, assignments down, statuses up. When any part of it breaks, all of it starts
//! again with the next manager; tasks do not notice.

use crate::outbox::BATCH_MAX;
use crate::set::{Outcome, Parts, Update};
use crate::worker::Handle;
use crate::{Context, SessionInfo, exec, logs};
use model::{GossipKey, NodeDescription, NodeTls, RaftTicks, Role};
use parking_lot::Mutex;
use rpc::proto::dispatcher as proto;
use rpc::proto::dispatcher::dispatcher_client::DispatcherClient;
use rpc::proto::dispatcher::session_request::Body;
use seams::{RandExt as _, Tasks};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

/// For a connection and for the first answer of every call (SwarmKit's dispatcher RPC timeout).
const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause before another manager is tried; doubles up to [`BACKOFF_LAST`] (SwarmKit goes on to 8 s; a node that finds a
/// manager sooner is down for less long).
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(2);
/// A session that lasted so long starts the pauses anew.
const GOOD_SESSION: Duration = Duration::from_secs(5);
/// How often the description is compared with what the manager knows (SwarmKit).
const DESCRIBE_EVERY: Duration = Duration::from_secs(20);
/// How long a session waits for the engine to describe itself before it starts without.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a manager may offer older assignments than the agent has, before another manager is asked.
const BEHIND_MAX: Duration = Duration::from_secs(3);
/// Pause before the stream is asked for again after a gap.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Limits of the period that a manager may ask heartbeats for.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);
/// Pause before log subscriptions and calls are asked for again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// For a goodbye to be heard.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Link(#[from] crate::LinkError),
    #[error("the manager did not {0} within {RPC_TIMEOUT:?}")]
    Timeout(&'static str),
    #[error("the manager refused to {0}: {1}")]
    Rpc(&'static str, #[source] Box<tonic::Status>),
    #[error("the manager ended the {0}")]
    Closed(&'static str),
    #[error("{0}")]
    Nonsense(#[from] crate::set::BadUpdate),
    #[error("the manager is behind: what it assigns is older than what this node already has")]
    Behind,
    #[error("the connection is replaced: its certificate was renewed")]
    Outdated,
    #[error("the agent stops")]
    Stopping,
}

struct Session {
    context: Arc<Context>,
    worker: Handle,
    info: watch::Sender<SessionInfo>,
    /// What the managers were last told of this node.
    described: Mutex<NodeDescription>,
}

/// Listens to what a manager may not offer: one without logs or exec is still a manager, and is asked again.
async fn again<F>(what: &str, mut listen: impl FnMut() -> F) -> Infallible
where
    F: Future<Output = Result<(), tonic::Status>>,
{
    loop {
        if let Err(status) = listen().await {
            tracing::debug!("no {what}: {status}");
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

fn rpc(what: &'static str) -> impl Fn(tonic::Status) -> Ended {
    move |status| Ended::Rpc(what, Box::new(status))
}

/// Until the agent stops.
pub(crate) async fn run(context: Arc<Context>, worker: Handle, info: watch::Sender<SessionInfo>, group: Tasks) {
    let mut backoff = BACKOFF_FIRST;
    let session = Session { context, worker, info, described: Mutex::default() };
    while !group.is_stopped() {
        let began = Instant::now();
        let ended = session.one(&group).await;
        if let Err(Ended::Outdated) = ended {
            tracing::debug!("{}", Ended::Outdated);
            continue;
        }
        session.info.send_if_modified(|i| std::mem::take(&mut i.connected));
        let Err(ended) = ended else { return };
        tracing::info!("no session with a manager: {ended}");
        session.context.link.failed(&ended.to_string());
        if began.elapsed() > GOOD_SESSION {
            backoff = BACKOFF_FIRST;
        }
        let pause = Duration::from_micros(
            session.context.seams.rand.below(u64::try_from(backoff.as_micros()).unwrap_or(u64::MAX)),
        );
        tokio::select! {
            biased;
            () = group.stopped() => return,
            () = tokio::time::sleep(pause) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}

// === impl Session ===

impl Session {
    /// One session, from the connection to its end. `Ok` when the agent stops.
    async fn one(&self, group: &Tasks) -> Result<(), Ended> {
        let connecting = async {
            let channel =
                timeout(RPC_TIMEOUT, self.context.link.channel()).await.map_err(|_| Ended::Timeout("connect"))??;
            let (requests, request_rx) = mpsc::channel(16);
            let mut described = self.described.lock().clone();
            // An engine that hangs must not delay the second session: it begins with what is known.
            if is_known(&described) {
                described.tls = self.context.link.tls().and_then(|tls| tls.borrow().clone());
            } else {
                described = self.describe().await;
            }
            self.described.lock().clone_from(&described);
            // The channel is new and has room.
            let _ = requests.try_send(describe_request(&described));
            let mut client = client(&channel);
            let opened = timeout(RPC_TIMEOUT, client.session(ReceiverStream::new(request_rx))).await;
            let mut messages =
                opened.map_err(|_| Ended::Timeout("open a session"))?.map_err(rpc("open a session"))?.into_inner();
            let first = timeout(RPC_TIMEOUT, messages.message()).await;
            let first = first.map_err(|_| Ended::Timeout("greet"))?.map_err(rpc("open a session"))?;
            let first = first.ok_or(Ended::Closed("session"))?;
            Ok::<_, Ended>((channel, requests, messages, first))
        };
        let (channel, requests, mut messages, first) = tokio::select! {
            biased;
            () = group.stopped() => return Ok(()),
            connected = connecting => connected?,
        };
        let session_id = first.session_id.clone();
        self.learn(first);
        // What only this session needs stops with it.
        let own = group.child();
        let (context, worker) = (&self.context, &self.worker);
        let logs = again("log subscriptions", || logs::listen(context, worker, &channel, &session_id, &own));
        let calls = again("calls", || exec::listen(context, worker, &channel, &session_id, group));
        let ended = tokio::select! {
            biased;
            () = group.stopped() => Ended::Stopping,
            ended = self.listen(&mut messages) => ended,
            ended = self.beat(&requests) => ended,
            ended = self.keep_described(&requests) => ended,
            ended = self.follow_assignments(&channel, &session_id) => ended,
            ended = self.report(&channel, &session_id) => ended,
            () = self.context.link.outdated() => Ended::Outdated,
            never = logs => match never {},
            never = calls => match never {},
        };
        own.stop();
        if let Ended::Stopping = ended {
            let goodbye = async {
                let _ = requests.send(request(Body::Goodbye(proto::Goodbye {}))).await;
                drop(requests);
                // The manager closes its side once it has read the goodbye.
                while let Ok(Some(_)) = messages.message().await {}
            };
            let _ = timeout(GOODBYE_TIMEOUT, goodbye).await;
            return Ok(());
        }
        Err(ended)
    }

    /// What this node is. An engine that does not answer must not keep the node out of the cluster.
    async fn describe(&self) -> NodeDescription {
        let mut description = match timeout(DESCRIBE_TIMEOUT, self.context.engine.describe()).await {
            Ok(Ok(description)) => description,
            _ => self.described.lock().clone(),
        };
        if let Some(hostname) = &self.context.config.hostname {
            description.hostname.clone_from(hostname);
        }
        description.tls = self.context.link.tls().and_then(|tls| tls.borrow().clone());
        description
    }

    fn learn(&self, message: proto::SessionMessage) {
        let period = Duration::from_millis(message.heartbeat_period_ms).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
        let keys =
            message.gossip_keys.into_iter().filter_map(|k| Some(GossipKey { id: k.id, key: k.key.try_into().ok()? }));
        let info = SessionInfo {
            connected: true,
            session_id: message.session_id,
            managers: message.managers.into_iter().map(|m| (m.node_id, m.addr)).collect(),
            heartbeat_period: period,
            desired_role: match message.desired_role.as_str() {
                "manager" => Some(Role::Manager),
                "worker" => Some(Role::Worker),
                _ => None,
            },
            gossip_keys: keys.collect(),
            root_certificate_pem: message.root_certificate_pem,
            node_cert_expiry: Duration::from_secs(message.node_cert_expiry_s),
            certificate_after: message.certificate_after,
            cluster_version: message.cluster_version,
            certificate_marked: message.certificate_marked,
            raft_ticks: (message.raft_heartbeat_tick > 0)
                .then(|| RaftTicks::bounded(message.raft_heartbeat_tick, message.raft_election_tick)),
        };
        self.context.link.learned(&info);
        self.info.send_if_modified(|old| std::mem::replace(old, info.clone()) != info);
    }

    /// Takes what the manager says of the cluster, until the session ends.
    async fn listen(&self, messages: &mut tonic::Streaming<proto::SessionMessage>) -> Ended {
        loop {
            match messages.message().await {
                Ok(Some(message)) => self.learn(message),
                Ok(None) => return Ended::Closed("session"),
                Err(status) => return rpc("go on with the session")(status),
            }
        }
    }

    /// Sends heartbeats, the first at once (SwarmKit).
    async fn beat(&self, requests: &mpsc::Sender<proto::SessionRequest>) -> Ended {
        let mut info = self.info.subscribe();
        loop {
            // A manager that does not read them would not notice one that waits here either.
            match timeout(RPC_TIMEOUT, requests.send(request(Body::Heartbeat(proto::Heartbeat {})))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ended::Closed("session"),
                Err(_) => return Ended::Timeout("take a heartbeat"),
            }
            let period = info.borrow_and_update().heartbeat_period;
            tokio::time::sleep(period).await;
        }
    }

    /// Sends the description again when it changed.
    async fn keep_described(&self, requests: &mpsc::Sender<proto::SessionRequest>) -> Ended {
        let mut tls = self.context.link.tls();
        loop {
            let sent = self.described.lock().clone();
            // What changed before this loop listened is sent at once.
            if tls.as_mut().is_none_or(|t| *t.borrow_and_update() == sent.tls) {
                // Without an engine there was nothing to say yet: ask again soon.
                let wait = tokio::time::sleep(if is_known(&sent) { DESCRIBE_EVERY } else { DESCRIBE_TIMEOUT });
                tokio::select! {
                    biased;
                    () = changed(&mut tls) => {}
                    () = wait => {}
                }
            }
            let now = self.describe().await;
            if now != sent {
                self.described.lock().clone_from(&now);
                if requests.send(describe_request(&now)).await.is_err() {
                    return Ended::Closed("session");
                }
            }
        }
    }

    async fn follow_assignments(&self, channel: &Channel, session_id: &str) -> Ended {
        match self.try_follow_assignments(channel, session_id).await {
            Ok(()) => Ended::Stopping,
            Err(ended) => ended,
        }
    }

    /// `Ok` only when the worker is gone.
    async fn try_follow_assignments(&self, channel: &Channel, session_id: &str) -> Result<(), Ended> {
        let mut client = client(channel);
        let mut have = self.worker.position().map(Into::into);
        let mut behind_until = None;
        loop {
            // Plain data always encodes.
            let granted =
                self.worker.granted().iter().map(|id| rmp_serde::to_vec_named(id).unwrap_or_default()).collect();
            let ask = proto::AssignmentsRequest { session_id: session_id.to_owned(), have, granted };
            let stream = timeout(RPC_TIMEOUT, client.assignments(ask)).await;
            let stream = stream.map_err(|_| Ended::Timeout("send assignments"))?.map_err(rpc("send assignments"))?;
            let mut stream = stream.into_inner();
            let mut parts = Parts::default();
            loop {
                let message = match behind_until {
                    None => stream.message().await,
                    Some(until) => tokio::time::timeout_at(until, stream.message()).await.map_err(|_| Ended::Behind)?,
                };
                let message = message.map_err(rpc("send assignments"))?.ok_or(Ended::Closed("assignments"))?;
                let Some(update) = parts.add(Update::parse(message)?)? else { continue };
                match self.worker.update(update).await {
                    None => return Ok(()),
                    Some(Outcome::Applied { .. }) => behind_until = None,
                    Some(Outcome::Stale) => {
                        behind_until.get_or_insert_with(|| Instant::now() + BEHIND_MAX);
                    }
                    Some(Outcome::Gap) => {
                        behind_until.get_or_insert_with(|| Instant::now() + BEHIND_MAX);
                        break;
                    }
                }
            }
            // After a gap the manager has to send everything.
            have = None;
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Sends statuses until the session is no good any more.
    async fn report(&self, channel: &Channel, session_id: &str) -> Ended {
        let mut client = client(channel);
        let (mut backoff, mut at_most) = (BACKOFF_FIRST, BATCH_MAX);
        loop {
            let batch = self.worker.outbox.next(at_most).await;
            let updates = batch.statuses.iter().map(|(task, status)| proto::TaskStatusUpdate {
                task_id: task.to_string(),
                // Plain data always encodes.
                status: rmp_serde::to_vec_named(status).unwrap_or_default(),
            });
            let report =
                proto::UpdateTaskStatusRequest { session_id: session_id.to_owned(), updates: updates.collect() };
            match timeout(RPC_TIMEOUT, client.update_task_status(report)).await {
                Ok(Ok(_)) => {
                    self.worker.outbox.acknowledge(&batch);
                    (backoff, at_most) = (BACKOFF_FIRST, (at_most * 2).clamp(1, BATCH_MAX));
                    continue;
                }
                // One status that will never be taken must not hold up the others: it is found, and left out.
                Ok(Err(status)) if matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied) => {
                    at_most = batch.statuses.len() / 2;
                    if let [(task, _)] = &batch.statuses[..] {
                        tracing::warn!(%task, "the manager will never take this task's status: {status}");
                        self.worker.outbox.acknowledge(&batch);
                    }
                }
                Ok(Err(status)) if ends_session(status.code()) => return rpc("take task statuses")(status),
                // No leader at the moment, or a slow one: the session is still good.
                Ok(Err(status)) => tracing::debug!("task statuses are sent again: {status}"),
                Err(_) => tracing::debug!("task statuses are sent again: no answer within {RPC_TIMEOUT:?}"),
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }
}

/// Resolves when what the node says of its certificate changes.
async fn changed(tls: &mut Option<watch::Receiver<Option<NodeTls>>>) {
    let changed = match tls {
        Some(tls) => tls.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}

/// True once an engine described itself.
fn is_known(description: &NodeDescription) -> bool {
    !description.engine.version.is_empty()
}

/// Codes that say that the manager does not know, or does not want, this session.
fn ends_session(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::FailedPrecondition | Code::Unauthenticated | Code::Unimplemented)
}

fn client(channel: &Channel) -> DispatcherClient<Channel> {
    DispatcherClient::new(channel.clone()).max_decoding_message_size(model::limits::RPC_MESSAGE_BYTES_MAX)
}

fn request(body: Body) -> proto::SessionRequest {
    proto::SessionRequest { body: Some(body) }
}

fn describe_request(description: &NodeDescription) -> proto::SessionRequest {
    // Plain data always encodes.
    request(Body::Description(rmp_serde::to_vec_named(description).unwrap_or_default()))
}
