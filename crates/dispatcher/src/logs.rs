//! The way of task output: from the node's agent, which dials out, to whoever reads it on any manager.

use crate::Dispatcher;
use crate::listeners::Listeners;
use crate::peer::Caller;
use async_trait::async_trait;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{Stream, StreamExt as _};
use model::{NodeId, TaskId};
use parking_lot::Mutex;
use rpc::proto::logs::logs_server::Logs;
use rpc::proto::logs::subscription_message::Body;
use rpc::proto::logs::{
    ListenRequest, LogBatch, LogLine, LogOptions, PublishRequest, PublishResponse, Subscription, SubscriptionMessage,
};
use seams::{Rand, RandExt as _, Tasks};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Batches that wait for a slow reader; then the agent waits too.
const BATCHES_BUFFER: usize = 16;
/// Subscriptions that wait for an agent.
const LISTENER_BUFFER: usize = 256;
/// Subscriptions on one manager at once.
const SUBSCRIPTIONS_MAX: usize = 1_000;
/// How long a reader waits for the node's agent to be found.
const FIND_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for it.
const FIND_RETRY: Duration = Duration::from_millis(200);
/// How long another manager may take to say whether it has the agent.
const RELAY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the agent may take to begin.
const BEGIN_PATIENCE: Duration = Duration::from_secs(10);

/// The other managers, for output whose agent has its session there. The node implements it.
#[async_trait]
pub trait OtherManagers: Send + Sync + 'static {
    /// Their addresses.
    fn addrs(&self) -> Vec<String>;
    /// Calls `Logs.Relay` on one of them.
    async fn relay(
        &self,
        addr: &str,
        what: Subscription,
    ) -> Result<BoxStream<'static, Result<LogBatch, Status>>, Status>;
}

/// Output that could not be had, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No manager has a session of the node's agent. (SwarmKit's words.)
    #[error("node {0} is not available")]
    NodeUnavailable(NodeId),
    /// Too many readers.
    #[error("{SUBSCRIPTIONS_MAX} readers follow task output on this manager already; try again later")]
    TooMany,
    /// It ended early.
    #[error("log stream of task {task} ended early: {reason}")]
    Incomplete {
        /// Which task.
        task: TaskId,
        /// Why.
        reason: String,
    },
}

/// A task's output, line by line as the agent sends it, in batches. It ends after the last line or after an error. Dropping
/// it ends the subscription.
pub struct LogStream(ReceiverStream<Result<Vec<LogLine>, LogError>>);

/// Connects readers and agents. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct LogBroker {
    dispatcher: Dispatcher,
    others: Arc<dyn OtherManagers>,
    rand: Arc<dyn Rand>,
    tasks: Tasks,
    listeners: Listeners<SubscriptionMessage>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    subscriptions: BTreeMap<String, Local>,
}

struct Local {
    node: NodeId,
    out: mpsc::Sender<LogBatch>,
}

/// An agent that publishes for a subscription. However its call ends, the reader does not wait for it any longer.
struct Publisher {
    id: String,
    out: mpsc::Sender<LogBatch>,
    state: Arc<Mutex<State>>,
}

/// A subscription of this manager's; ends when dropped.
struct LocalStream {
    id: String,
    node: NodeId,
    batches: mpsc::Receiver<LogBatch>,
    listeners: Listeners<SubscriptionMessage>,
    state: Arc<Mutex<State>>,
}

// === impl LogStream ===

impl Stream for LogStream {
    type Item = Result<Vec<LogLine>, LogError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

// === impl LogBroker ===

impl LogBroker {
    /// A broker; its loops and streams stop with `tasks`.
    pub fn new(
        dispatcher: Dispatcher,
        others: Arc<dyn OtherManagers>,
        rand: Arc<dyn Rand>,
        tasks: &Tasks,
    ) -> LogBroker {
        LogBroker {
            dispatcher,
            others,
            rand,
            tasks: tasks.child(),
            listeners: Listeners::default(),
            state: Arc::default(),
        }
    }

    /// The output of a task that has this node, wherever the node's session is.
    pub fn subscribe(&self, task: TaskId, node: NodeId, options: LogOptions) -> LogStream {
        let (sender, receiver) = mpsc::channel(BATCHES_BUFFER);
        let broker = self.clone();
        self.tasks.spawn("task output", async move {
            let reader = sender.clone();
            tokio::select! {
                biased;
                () = reader.closed() => {}
                () = broker.serve_reader(task, node, options, sender) => {}
            }
        });
        LogStream(ReceiverStream::new(receiver))
    }

    async fn serve_reader(
        &self,
        task: TaskId,
        node: NodeId,
        options: LogOptions,
        sender: mpsc::Sender<Result<Vec<LogLine>, LogError>>,
    ) {
        let incomplete = |reason: String| LogError::Incomplete { task: task.clone(), reason };
        let mut batches = match self.find(&task, &node, options).await {
            Ok(batches) => batches,
            Err(error) => {
                let _nobody_reads = sender.send(Err(error)).await;
                return;
            }
        };
        loop {
            let batch = match batches.next().await {
                Some(Ok(batch)) => batch,
                Some(Err(status)) => LogBatch { error: status.message().to_owned(), end: true, ..Default::default() },
                None => LogBatch { error: "the connection was lost".into(), end: true, ..Default::default() },
            };
            if !batch.lines.is_empty() && sender.send(Ok(batch.lines)).await.is_err() {
                return;
            }
            if batch.end {
                if !batch.error.is_empty() {
                    let _nobody_reads = sender.send(Err(incomplete(batch.error))).await;
                }
                return;
            }
        }
    }

    /// Looks for the node's agent here and on the other managers until it is found: it may be between two sessions.
    async fn find(
        &self,
        task: &TaskId,
        node: &NodeId,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogBatch, Status>>, LogError> {
        let deadline = Instant::now() + FIND_PATIENCE;
        let what = || Subscription {
            id: self.rand.id25(),
            task_id: task.to_string(),
            node_id: node.to_string(),
            options: Some(options),
        };
        loop {
            if let Some(local) = self.subscribe_here(what(), node.clone())? {
                return Ok(local.into_stream());
            }
            let addrs = self.others.addrs();
            let mut asked: FuturesUnordered<_> =
                addrs.iter().map(|addr| tokio::time::timeout(RELAY_TIMEOUT, self.others.relay(addr, what()))).collect();
            while let Some(answer) = asked.next().await {
                if let Ok(Ok(stream)) = answer {
                    return Ok(stream);
                }
            }
            if Instant::now() >= deadline {
                return Err(LogError::NodeUnavailable(node.clone()));
            }
            tokio::time::sleep(FIND_RETRY).await;
        }
    }

    /// Subscribes to an agent that listens here; `None` when it does not.
    fn subscribe_here(&self, what: Subscription, node: NodeId) -> Result<Option<LocalStream>, LogError> {
        if !self.listeners.has(&node) {
            return Ok(None);
        }
        let mut state = self.state.lock();
        if state.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(LogError::TooMany);
        }
        let id = what.id.clone();
        // Still locked: the agent answers, and finds the subscription there.
        if !self.listeners.tell(&node, SubscriptionMessage { body: Some(Body::Open(what)) }) {
            return Ok(None);
        }
        let (out, batches) = mpsc::channel(BATCHES_BUFFER);
        state.subscriptions.insert(id.clone(), Local { node: node.clone(), out });
        let (listeners, state) = (self.listeners.clone(), self.state.clone());
        Ok(Some(LocalStream { id, node, batches, listeners, state }))
    }
}

impl LocalStream {
    fn into_stream(self) -> BoxStream<'static, Result<LogBatch, Status>> {
        let begin = Some(Instant::now() + BEGIN_PATIENCE);
        futures::stream::unfold((self, begin), |(mut local, begin)| async move {
            let batch = match begin {
                None => local.batches.recv().await?,
                Some(at) => match tokio::time::timeout_at(at, local.batches.recv()).await {
                    Ok(batch) => batch?,
                    Err(_elapsed) => {
                        let error = format!("node {} did not begin to send", local.node);
                        LogBatch { error, end: true, ..Default::default() }
                    }
                },
            };
            Some((Ok(batch), (local, None)))
        })
        .boxed()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.state.lock().subscriptions.remove(&self.id);
    }
}

impl Drop for LocalStream {
    fn drop(&mut self) {
        self.state.lock().subscriptions.remove(&self.id);
        let close = SubscriptionMessage { body: Some(Body::Close(self.id.clone())) };
        let _the_agent_notices_when_it_publishes = self.listeners.tell(&self.node, close);
    }
}

type Reply<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Logs for LogBroker {
    type ListenStream = Reply<SubscriptionMessage>;
    type RelayStream = Reply<LogBatch>;

    async fn listen(&self, request: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        let session_of = |r: ListenRequest| r.session_id;
        let listening =
            self.listeners.listen(&self.dispatcher, &self.tasks, "log listener", LISTENER_BUFFER, request, session_of);
        Ok(Response::new(Box::pin(listening.await?)))
    }

    async fn publish(&self, request: Request<Streaming<PublishRequest>>) -> Result<Response<PublishResponse>, Status> {
        let node = Caller::of(&request)?.node;
        let mut requests = request.into_inner();
        let mut current: Option<Publisher> = None;
        let lost = |error: String| LogBatch { error, end: true, ..Default::default() };
        loop {
            let message = tokio::select! {
                biased;
                () = self.tasks.stopped() => Err(Status::unavailable("this manager is stopping")),
                () = closed(current.as_ref().map(|p| &p.out)) => return Ok(Response::new(PublishResponse {})),
                message = requests.message() => message,
            };
            let request = match (message, &current) {
                (Ok(Some(request)), _) => request,
                (Ok(None), None) => return Ok(Response::new(PublishResponse {})),
                (Ok(None), Some(publisher)) => {
                    let _nobody_reads = publisher.out.send(lost(format!("node {node} stopped sending"))).await;
                    return Ok(Response::new(PublishResponse {}));
                }
                (Err(status), current) => {
                    if let Some(publisher) = current {
                        let _nobody_reads =
                            publisher.out.send(lost(format!("node {node}: {}", status.message()))).await;
                    }
                    return Err(status);
                }
            };
            let publisher = match &mut current {
                Some(current) => &*current,
                None => &*current.insert(self.publisher(&request.subscription_id, &node)?),
            };
            if publisher.id != request.subscription_id {
                return Err(Status::invalid_argument("one stream publishes for one subscription"));
            }
            let batch = request.batch.unwrap_or_default();
            let end = batch.end;
            if publisher.out.send(batch).await.is_err() || end {
                return Ok(Response::new(PublishResponse {}));
            }
        }
    }

    async fn relay(&self, request: Request<Subscription>) -> Result<Response<Self::RelayStream>, Status> {
        let what = request.into_inner();
        let node: NodeId = what.node_id.parse().map_err(|_| Status::invalid_argument("not a node id"))?;
        match self.subscribe_here(what, node.clone()) {
            Ok(Some(local)) => Ok(Response::new(local.into_stream())),
            Ok(None) => Err(Status::not_found(LogError::NodeUnavailable(node).to_string())),
            Err(error) => Err(Status::resource_exhausted(error.to_string())),
        }
    }
}

impl LogBroker {
    /// Where the batches of a subscription go; only its node's agent may send them.
    fn publisher(&self, id: &str, node: &NodeId) -> Result<Publisher, Status> {
        match self.state.lock().subscriptions.get(id) {
            Some(local) if local.node == *node => {
                Ok(Publisher { id: id.to_owned(), out: local.out.clone(), state: self.state.clone() })
            }
            Some(_) => Err(Status::permission_denied("this subscription is another node's")),
            None => Err(Status::not_found("no such subscription: its reader is gone")),
        }
    }
}

async fn closed(out: Option<&mpsc::Sender<LogBatch>>) {
    match out {
        Some(out) => out.closed().await,
        None => std::future::pending().await,
    }
}
