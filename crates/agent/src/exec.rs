//! What managers want of the containers of this node's own tasks: a look at one, or a command run in it. Containers that do not
//! belong to a task that this node has are not there, whatever the engine knows.
//!
//! Neither commands nor what goes in and out of them is ever written to the log.

use crate::worker::Handle;
use crate::{Context, names};
use engine::{ContainerState, EngineError, ExecIo, ExecStart, ExecState, NewExec, TerminalSize};
use futures::StreamExt as _;
use model::NodeTls;
use parking_lot::Mutex;
use rpc::proto::exec as proto;
use rpc::proto::exec::agent_message::Body;
use rpc::proto::exec::call::What;
use rpc::proto::exec::manager_message;
use seams::Tasks;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Calls answered at once.
const CALLS_MAX: usize = 64;
/// Calls refused at once because there are so many.
const REFUSALS_MAX: usize = 16;
/// Messages between the engine and the manager: a manager that reads slowly slows the engine's stream.
const MESSAGES_AHEAD: usize = 4;
/// A command's streams are closed when nothing has gone through them for so long. (Docker has no such bound; there, a terminal
/// that somebody has forgotten holds nothing of a cluster.)
const IDLE_MAX: Duration = Duration::from_secs(12 * 3600);
/// How long the engine may take to learn that a command has ended whose output has.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Between two looks.
const SETTLE_POLL: Duration = Duration::from_millis(10);
/// Bytes of a container's description; those of real containers have some ten thousand.
const DESCRIPTION_BYTES_MAX: usize = 1 << 20;

/// Room for calls; the same for all sessions of an agent, one after the other.
pub(crate) struct Room {
    calls: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Room { calls: Arc::new(Semaphore::new(CALLS_MAX)), refusals: Arc::new(Semaphore::new(REFUSALS_MAX)) }
    }
}

/// Why a call came to nothing, for the user.
struct Refusal(proto::Failure);

type Messages = mpsc::Sender<proto::AgentMessage>;

/// Answers calls for as long as the manager hands them out.
///
/// What runs when the session is replaced by the next goes on, for as long as its connection is good: a user's terminal should
/// not end because a certificate was renewed. It ends when another root signs certificates: that is how a manager that fell into
/// wrong hands is shut out, and it would never end a terminal of its own accord.
pub(crate) async fn listen(
    context: &Arc<Context>,
    worker: &Handle,
    channel: &Channel,
    session_id: &str,
    group: &Tasks,
) -> Result<(), tonic::Status> {
    let mut client = rpc::exec_client(channel.clone());
    let mut calls = client.listen(proto::ListenRequest { session_id: session_id.to_owned() }).await?.into_inner();
    while let Some(call) = calls.message().await? {
        let place = context.exec.calls.clone().try_acquire_owned();
        let (place, full) = match place {
            Ok(place) => (place, false),
            Err(_) => match context.exec.refusals.clone().try_acquire_owned() {
                Ok(place) => (place, true),
                // Not answered, so that its caller hears that this node did not: even a refusal takes a stream.
                Err(_) => continue,
            },
        };
        let (context, worker, channel) = (Arc::clone(context), worker.clone(), channel.clone());
        group.spawn("agent exec", async move {
            answer(&context, &worker, &channel, call, full).await;
            drop(place);
        });
    }
    Ok(())
}

/// Answers one call, to its end.
async fn answer(context: &Context, worker: &Handle, channel: &Channel, call: proto::Call, full: bool) {
    let (messages, message_rx) = mpsc::channel(MESSAGES_AHEAD);
    // At once: an engine that takes its time must not look like an agent that does not answer.
    let _ = messages.try_send(message(Body::CallId(call.id.clone())));
    let mut client = rpc::exec_client(channel.clone());
    let mut from_manager = match client.answer(ReceiverStream::new(message_rx)).await {
        Ok(from_manager) => from_manager.into_inner(),
        Err(status) => return tracing::debug!(call = call.id, "the caller is gone: {status}"),
    };
    let done = if full {
        Err(refusal(503, &format!("this node runs {CALLS_MAX} commands for managers already; try again later")))
    } else {
        tokio::select! {
            biased;
            () = another_root(context) => Err(refusal(503, "another root signs the swarm's certificates now: begin anew")),
            done = do_it(context, worker, call.what, &mut from_manager, &messages) => done,
        }
    };
    if let Err(Refusal(failure)) = done {
        // When nobody listens any more, nobody needs to know.
        let _ = messages.send(message(Body::Failure(failure))).await;
    }
    drop(messages);
    // To end the call now would take back what is still on its way; the manager ends it when it has read everything.
    let read = async { while let Ok(Some(_)) = from_manager.message().await {} };
    let _ = tokio::time::timeout(IDLE_MAX, read).await;
}

/// Until this node has a certificate of another root than now.
async fn another_root(context: &Context) {
    let Some(mut tls) = context.link.tls() else { return std::future::pending().await };
    let root = |tls: &Option<NodeTls>| tls.as_ref().map(|t| t.issuer_public_key_der.clone());
    let now = tls.wait_for(Option::is_some).await.ok().and_then(|tls| root(&tls));
    if now.is_none() || tls.wait_for(|tls| root(tls) != now).await.is_err() {
        // Nothing tells of certificates any more: the node is stopping.
        std::future::pending().await
    }
}

async fn do_it(
    context: &Context,
    worker: &Handle,
    what: Option<What>,
    from_manager: &mut Streaming<proto::ManagerMessage>,
    messages: &Messages,
) -> Result<(), Refusal> {
    let engine = &context.engine;
    let body = match what {
        None => return Err(refusal(501, "this node does not know such a call: upgrade it")),
        Some(What::Inspect(wanted)) => {
            let container = own_container(context, worker, &wanted.container_id).await?;
            let json = engine.describe_container(&container.id, DESCRIPTION_BYTES_MAX).await?;
            Body::Container(json.ok_or_else(|| no_such_container(&wanted.container_id))?.into())
        }
        Some(What::Create(wanted)) => {
            let container = own_container(context, worker, &wanted.container_id).await?;
            tracing::info!(container = container.name, "a manager runs a command in it");
            Body::Created(engine.exec_create(&container.id, &new_exec(wanted)).await?)
        }
        Some(What::Look(wanted)) => Body::State(shown(own_exec(context, worker, &wanted.exec_id).await?)),
        Some(What::Resize(wanted)) => {
            own_exec(context, worker, &wanted.exec_id).await?;
            engine.exec_resize(&wanted.exec_id, size(wanted.size).unwrap_or_default()).await?;
            Body::Resized(proto::Resized {})
        }
        Some(What::Start(wanted)) => {
            own_exec(context, worker, &wanted.exec_id).await?;
            let start = ExecStart { detach: wanted.detach, tty: wanted.tty, size: size(wanted.size) };
            let io = engine.exec_start(&wanted.exec_id, start).await?;
            let _nobody_reads = messages.send(message(Body::Started(proto::Started {}))).await;
            if let Some(io) = io {
                pass_on(io, from_manager, messages).await?;
                settled(context, &wanted.exec_id).await;
            }
            Body::End(proto::End {})
        }
    };
    let _nobody_reads = messages.send(message(body)).await;
    Ok(())
}

/// A container of this node's, of a task that it has.
async fn own_container(context: &Context, worker: &Handle, id: &str) -> Result<ContainerState, Refusal> {
    let found = context.engine.inspect(id).await?.filter(|c| {
        let task = names::task_of(c, &context.config.node_id);
        task.is_some_and(|task| worker.task(&task).is_some())
    });
    found.ok_or_else(|| no_such_container(id))
}

/// A command in such a container.
async fn own_exec(context: &Context, worker: &Handle, id: &str) -> Result<ExecState, Refusal> {
    let none = || refusal(404, &format!("No such exec instance: {id}"));
    let state = context.engine.exec_inspect(id).await?.ok_or_else(none)?;
    own_container(context, worker, &state.container).await.map_err(|Refusal(failure)| match failure.status {
        404 => none(),
        _ => Refusal(failure),
    })?;
    Ok(state)
}

/// Passes input and output on until the output ends, or the manager has gone.
async fn pass_on(
    mut io: ExecIo,
    from_manager: &mut Streaming<proto::ManagerMessage>,
    messages: &Messages,
) -> Result<(), Refusal> {
    let last = Mutex::new(Instant::now());
    let touch = || *last.lock() = Instant::now();
    let outputs = async {
        while let Some(piece) = io.output.next().await {
            let piece = piece.map_err(|e| refusal(500, &format!("the engine ended the command's output: {e}")))?;
            touch();
            if messages.send(message(Body::Output(piece.into()))).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    };
    let inputs = async {
        let mut wanted = true;
        while let Ok(Some(from_manager)) = from_manager.message().await {
            touch();
            let written = match from_manager.body {
                Some(manager_message::Body::Input(bytes)) if wanted => match io.input.write_all(&bytes).await {
                    Ok(()) => io.input.flush().await,
                    failed => failed,
                },
                Some(manager_message::Body::InputEnd(_)) if wanted => io.input.shutdown().await,
                _ => Ok(()),
            };
            // A command that reads no more may still have something to say.
            wanted &= written.is_ok();
        }
    };
    tokio::select! {
        biased;
        ended = outputs => ended,
        () = inputs => Ok(()),
        // A command that neither reads nor prints would hide it that its user has gone.
        () = messages.closed() => Ok(()),
        () = idle(&last) => Err(refusal(408, &format!("nothing has come or gone for {} h: closed", IDLE_MAX.as_secs() / 3600))),
    }
}

/// Waits until the engine knows how a command ended whose output has: it may learn of it a moment later, and clients ask for the
/// exit code at once. One that runs on (it has closed its output, or its user has detached) is not waited for.
async fn settled(context: &Context, exec: &str) {
    let until = Instant::now() + SETTLE_MAX;
    while Instant::now() < until && context.engine.exec_inspect(exec).await.is_ok_and(|s| s.is_some_and(|s| s.running))
    {
        tokio::time::sleep(SETTLE_POLL).await;
    }
}

async fn idle(last: &Mutex<Instant>) {
    loop {
        let end = *last.lock() + IDLE_MAX;
        if Instant::now() >= end {
            return;
        }
        tokio::time::sleep_until(end).await;
    }
}

// --- messages ---

fn message(body: Body) -> proto::AgentMessage {
    proto::AgentMessage { body: Some(body) }
}

fn refusal(status: u32, message: &str) -> Refusal {
    Refusal(proto::Failure { status, message: message.to_owned() })
}

fn no_such_container(id: &str) -> Refusal {
    refusal(404, &format!("No such container: {id}"))
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Refusal {
        let status = match &error {
            EngineError::NotFound(_) => 404,
            EngineError::Conflict(_) => 409,
            EngineError::Refused(_) => 400,
            EngineError::Failed(_) => 500,
            EngineError::Unreachable { .. } | EngineError::Timeout { .. } => 503,
        };
        refusal(status, &error.to_string())
    }
}

fn size(size: Option<proto::Size>) -> Option<TerminalSize> {
    let number = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    size.map(|s| TerminalSize { height: number(s.height), width: number(s.width) })
}

fn new_exec(wanted: proto::Create) -> NewExec {
    NewExec {
        command: wanted.command,
        env: wanted.env,
        dir: wanted.dir,
        user: wanted.user,
        tty: wanted.tty,
        attach_stdin: wanted.attach_stdin,
        attach_stdout: wanted.attach_stdout,
        attach_stderr: wanted.attach_stderr,
        privileged: wanted.privileged,
        detach_keys: wanted.detach_keys,
        size: size(wanted.size),
    }
}

fn shown(state: ExecState) -> proto::State {
    let made = state.made;
    proto::State {
        container_id: state.container,
        running: state.running,
        exit_code: state.exit_code,
        pid: state.pid,
        made: Some(proto::Create {
            command: made.command,
            user: made.user,
            tty: made.tty,
            attach_stdin: made.attach_stdin,
            attach_stdout: made.attach_stdout,
            attach_stderr: made.attach_stderr,
            privileged: made.privileged,
            detach_keys: made.detach_keys,
            ..proto::Create::default()
        }),
    }
}
