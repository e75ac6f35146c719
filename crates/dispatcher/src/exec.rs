//! The way of a call to the containers of a node, and back: from any manager to the node's agent, which dials out.

use crate::Dispatcher;
use crate::listeners::Listeners;
use crate::peer::Caller;
use async_trait::async_trait;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{Stream, StreamExt as _};
use model::NodeId;
use parking_lot::Mutex;
use rpc::proto::exec::exec_server::Exec;
use rpc::proto::exec::{AgentMessage, Call, Failure, ListenRequest, ManagerMessage, agent_message, manager_message};
use seams::{Rand, RandExt as _, Tasks};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Messages that wait for a slow reader, in each direction; a piece of input or output has 32 KiB.
const MESSAGES_BUFFER: usize = 8;
/// Calls that wait for an agent to hear of them.
const LISTENER_BUFFER: usize = 64;
/// Calls under way on one manager: those of its own users, and those that other managers relay to agents here.
const CALLS_MAX: usize = 256;
/// How long a caller waits for the node's agent to be found.
const FIND_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for it.
const FIND_RETRY: Duration = Duration::from_millis(200);
/// How long another manager may take to say whether it has the agent.
const RELAY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the agent may take to answer a call for the first time: it asks its engine before.
const BEGIN_PATIENCE: Duration = Duration::from_secs(90);
/// How long it may take to show that it has heard of it.
const HEAR_PATIENCE: Duration = Duration::from_secs(5);
/// For the first message of a stream.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// The other managers, for calls to agents that have their session there. The node implements it.
#[async_trait]
pub trait OtherExecManagers: Send + Sync + 'static {
    /// Their addresses.
    fn addrs(&self) -> Vec<String>;
    /// Calls `Exec.Relay` on one of them.
    async fn relay(
        &self,
        addr: &str,
        messages: ReceiverStream<ManagerMessage>,
    ) -> Result<BoxStream<'static, Result<AgentMessage, Status>>, Status>;
}

/// A call that did not reach the node's agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// No manager has a session of the node's agent. (SwarmKit's words.)
    #[error("node {0} is not available")]
    NodeUnavailable(NodeId),
    /// Too many calls.
    #[error("{CALLS_MAX} commands run through this manager already; try again later, or on another manager")]
    TooMany,
}

/// A call under way. Dropping it ends the call; a command that was begun may go on without.
pub struct Conversation {
    /// Input for the agent.
    pub input: mpsc::Sender<ManagerMessage>,
    /// What it answers. It ends after the last message, or with the error that ended it early.
    pub output: BoxStream<'static, Result<AgentMessage, Status>>,
}

/// Connects managers' users and agents. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct ExecBroker {
    dispatcher: Dispatcher,
    others: Arc<dyn OtherExecManagers>,
    rand: Arc<dyn Rand>,
    tasks: Tasks,
    listeners: Listeners<Call>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Calls that no agent has taken yet.
    waiting: BTreeMap<String, Waiting>,
    under_way: usize,
}

struct Waiting {
    node: NodeId,
    from_manager: mpsc::Receiver<ManagerMessage>,
    to_manager: mpsc::Sender<Result<AgentMessage, Status>>,
}

/// A place among the calls of this manager.
struct Place {
    id: String,
    state: Arc<Mutex<State>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.under_way -= 1;
        state.waiting.remove(&self.id);
    }
}

// === impl ExecBroker ===

impl ExecBroker {
    /// A broker; its loops and streams stop with `tasks`.
    pub fn new(
        dispatcher: Dispatcher,
        others: Arc<dyn OtherExecManagers>,
        rand: Arc<dyn Rand>,
        tasks: &Tasks,
    ) -> ExecBroker {
        ExecBroker {
            dispatcher,
            others,
            rand,
            tasks: tasks.child(),
            listeners: Listeners::default(),
            state: Arc::default(),
        }
    }

    /// Gives a call to the agent of a node, wherever its session is. The call's id is chosen here.
    ///
    /// # Errors
    /// [`ExecError`] when it reached nobody. Whatever goes wrong later is in the conversation.
    pub async fn call(&self, node: &NodeId, mut call: Call) -> Result<Conversation, ExecError> {
        call.id = self.rand.id25();
        // The agent may be between two sessions.
        let deadline = Instant::now() + FIND_PATIENCE;
        loop {
            if let Some(conversation) = self.call_here(node, call.clone())? {
                return Ok(conversation);
            }
            if let Some(conversation) = self.call_elsewhere(node, &call).await {
                return Ok(conversation);
            }
            if Instant::now() >= deadline {
                return Err(ExecError::NodeUnavailable(node.clone()));
            }
            tokio::time::sleep(FIND_RETRY).await;
        }
    }

    /// Gives it to an agent that listens here; `None` when it does not.
    fn call_here(&self, node: &NodeId, call: Call) -> Result<Option<Conversation>, ExecError> {
        if !self.listeners.has(node) {
            return Ok(None);
        }
        let mut state = self.state.lock();
        if state.under_way >= CALLS_MAX {
            return Err(ExecError::TooMany);
        }
        let id = call.id.clone();
        // Still locked: the agent answers, and finds the call waiting.
        if !self.listeners.tell(node, call) {
            return Ok(None);
        }
        let (input, from_manager) = mpsc::channel(MESSAGES_BUFFER);
        let (to_manager, messages) = mpsc::channel(MESSAGES_BUFFER);
        state.waiting.insert(id.clone(), Waiting { node: node.clone(), from_manager, to_manager });
        state.under_way += 1;
        let place = Place { id, state: self.state.clone() };
        let output = answers(place, node.clone(), messages);
        Ok(Some(Conversation { input, output }))
    }

    /// Asks all other managers at once whether they have the agent, and gives the call to one that has.
    async fn call_elsewhere(&self, node: &NodeId, call: &Call) -> Option<Conversation> {
        let addrs = self.others.addrs();
        let mut asked: FuturesUnordered<_> = addrs
            .iter()
            .map(|addr| async move {
                let (input, messages) = mpsc::channel(MESSAGES_BUFFER);
                // The channel is new and has room.
                let _ = input.try_send(to_agent(manager_message::Body::NodeId(node.to_string())));
                let output = self.others.relay(addr, ReceiverStream::new(messages));
                let output = timeout(RELAY_TIMEOUT, output).await.ok()?.ok()?;
                Some(Conversation { input, output })
            })
            .collect();
        while let Some(answer) = asked.next().await {
            let Some(conversation) = answer else { continue };
            let message = to_agent(manager_message::Body::Call(call.clone()));
            if conversation.input.send(message).await.is_ok() {
                return Some(conversation);
            }
        }
        None
    }

    /// Takes the call that an agent answers; only its node's agent may.
    fn take(&self, id: &str, node: &NodeId) -> Result<Waiting, Status> {
        let mut state = self.state.lock();
        match state.waiting.get(id) {
            Some(waiting) if waiting.node == *node => {}
            Some(_) => return Err(Status::permission_denied("this call is for another node")),
            None => return Err(Status::not_found("no such call: its caller is gone, or it is answered already")),
        }
        state.waiting.remove(id).ok_or_else(|| Status::not_found("no such call"))
    }
}

/// What an agent answers to a call of this manager, with the call's place among the others.
fn answers(
    place: Place,
    node: NodeId,
    messages: mpsc::Receiver<Result<AgentMessage, Status>>,
) -> BoxStream<'static, Result<AgentMessage, Status>> {
    let hear = Some(Instant::now() + HEAR_PATIENCE);
    futures::stream::unfold(Some((place, messages, hear, false)), move |state| {
        let node = node.clone();
        async move {
            let (place, mut messages, mut hear, mut begun) = state?;
            loop {
                let message = match (hear, begun) {
                    (Some(at), _) => tokio::time::timeout_at(at, messages.recv()).await,
                    (None, false) => timeout(BEGIN_PATIENCE, messages.recv()).await,
                    (None, true) => Ok(messages.recv().await),
                };
                let message = match message {
                    Ok(Some(Ok(message))) => message,
                    Ok(Some(Err(status))) => return Some((Err(status), None)),
                    Ok(None) => return Some((Err(lost(&node)), None)),
                    Err(_elapsed) => {
                        let text = format!("node {node} did not answer in time");
                        return Some((Err(Status::deadline_exceeded(text)), None));
                    }
                };
                hear = None;
                // That it has heard of the call is all that the first message says.
                if let Some(agent_message::Body::CallId(_)) = message.body {
                    continue;
                }
                begun = true;
                let last = is_last(&message);
                return Some((Ok(message), (!last).then_some((place, messages, hear, begun))));
            }
        }
    })
    .boxed()
}

fn lost(node: &NodeId) -> Status {
    Status::unavailable(format!("the connection to node {node} was lost"))
}

fn is_last(message: &AgentMessage) -> bool {
    use agent_message::Body;
    !matches!(message.body, Some(Body::CallId(_) | Body::Started(_) | Body::Output(_)))
}

fn to_agent(body: manager_message::Body) -> ManagerMessage {
    ManagerMessage { body: Some(body) }
}

type Reply<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Exec for ExecBroker {
    type ListenStream = Reply<Call>;
    type AnswerStream = Reply<ManagerMessage>;
    type RelayStream = Reply<AgentMessage>;

    async fn listen(&self, request: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        let session_of = |r: ListenRequest| r.session_id;
        let listening =
            self.listeners.listen(&self.dispatcher, &self.tasks, "exec listener", LISTENER_BUFFER, request, session_of);
        Ok(Response::new(Box::pin(listening.await?)))
    }

    async fn answer(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::AnswerStream>, Status> {
        let node = Caller::of(&request)?.node;
        let mut messages = request.into_inner();
        let first = first(&mut messages).await?;
        let Some(agent_message::Body::CallId(id)) = &first.body else {
            return Err(Status::invalid_argument("an answer begins with the id of its call"));
        };
        let Waiting { from_manager, to_manager, .. } = self.take(id, &node)?;
        let stopped = self.tasks.clone();
        self.tasks.spawn("exec answer", async move {
            let passed_on = async {
                if to_manager.send(Ok(first)).await.is_err() {
                    return;
                }
                while let Some(message) = messages.next().await {
                    let over = message.as_ref().map_or(true, is_last);
                    if to_manager.send(message).await.is_err() || over {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = stopped.stopped() => {
                    let _nobody_reads = to_manager.try_send(Err(Status::unavailable("this manager is stopping")));
                }
                () = to_manager.closed() => {}
                () = passed_on => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(from_manager).map(Ok))))
    }

    async fn relay(&self, request: Request<Streaming<ManagerMessage>>) -> Result<Response<Self::RelayStream>, Status> {
        let mut messages = request.into_inner();
        let Some(manager_message::Body::NodeId(node)) = first(&mut messages).await?.body else {
            return Err(Status::invalid_argument("a relayed call begins with the id of its node"));
        };
        let node: NodeId = node.parse().map_err(|_| Status::invalid_argument("not a node id"))?;
        let not_here = || Status::not_found(ExecError::NodeUnavailable(node.clone()).to_string());
        if !self.listeners.has(&node) {
            return Err(not_here());
        }
        let (out, answers) = mpsc::channel(MESSAGES_BUFFER);
        let (broker, stopped) = (self.clone(), self.tasks.clone());
        self.tasks.spawn("exec relay", async move {
            tokio::select! {
                biased;
                () = stopped.stopped() => {}
                () = out.closed() => {}
                () = broker.serve_relay(&node, messages, &out) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

impl ExecBroker {
    /// Passes messages both ways between another manager and an agent that listens here.
    async fn serve_relay(
        &self,
        node: &NodeId,
        mut messages: Streaming<ManagerMessage>,
        out: &mpsc::Sender<Result<AgentMessage, Status>>,
    ) {
        // A manager that has found the agent elsewhere sends nothing more.
        let Ok(ManagerMessage { body: Some(manager_message::Body::Call(call)) }) = first(&mut messages).await else {
            return;
        };
        let begun = self.call_here(node, call);
        let Conversation { input, mut output } = match begun {
            Ok(Some(conversation)) => conversation,
            Ok(None) => {
                let _nobody_reads = out.send(Ok(failure(&ExecError::NodeUnavailable(node.clone())))).await;
                return;
            }
            Err(error) => {
                let _nobody_reads = out.send(Ok(failure(&error))).await;
                return;
            }
        };
        let inputs = async {
            while let Some(Ok(message)) = messages.next().await {
                if input.send(message).await.is_err() {
                    // The agent wants no more input. What it has answered may still be on its way.
                    std::future::pending::<()>().await;
                }
            }
        };
        let outputs = async {
            while let Some(message) = output.next().await {
                if out.send(message).await.is_err() {
                    return;
                }
            }
        };
        // The caller's side stays open until it has had enough; without it there is nobody to answer.
        tokio::select! {
            biased;
            () = outputs => {}
            () = inputs => {}
        }
    }
}

fn failure(error: &ExecError) -> AgentMessage {
    let failure = Failure { status: 503, message: error.to_string() };
    AgentMessage { body: Some(agent_message::Body::Failure(failure)) }
}

async fn first<T>(messages: &mut Streaming<T>) -> Result<T, Status> {
    let first = timeout(FIRST_PATIENCE, messages.message()).await;
    first
        .map_err(|_| Status::deadline_exceeded("the first message did not come"))??
        .ok_or_else(|| Status::invalid_argument("the first message did not come"))
}
