//! Exec anywhere: `docker exec` on a container of any node, through any manager. What the local engine knows is the local
//! engine's; a container of a task on another node is found in the store, and its node's agent is asked.
//!
//! A command's id says where it runs, so that no manager has to remember any: `NODE-ID`, where `ID` is the engine's.

mod id;
mod tunnel;

use crate::access::Row;
use crate::proxy::is_upgrade;
use crate::reply::{Body, Reply, empty, full, json, json_bytes, json_with};
use crate::request::{ApiVersion, Path, Query, Request};
use crate::{Api, Caller};
use bytes::Bytes;
use docker_api::{ExecCreateRequest, ExecCreateResponse, ExecInspect, ExecProcess, ExecStartRequest, Failure};
use engine::{ExecStart, ExecState, NewExec, TerminalSize};
use futures::Sink;
use futures::stream::BoxStream;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use id::ExecId;
use model::{NodeId, Task};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use store::Snapshot;
use tokio::sync::OwnedSemaphorePermit;

/// Since this version a terminal has a size from its start, and the content type says whether a stream is in frames.
const SIZED_SINCE: ApiVersion = ApiVersion(1, 42);
/// Bytes of a command with its environment and the rest.
const EXEC_BYTES_MAX: usize = 256 << 10;
/// Routes that may concern a container of another node.
const ROUTES: [&str; 5] =
    ["/containers/{id}/json", "/containers/{id}/exec", "/exec/{id}/start", "/exec/{id}/json", "/exec/{id}/resize"];

/// What is wanted of a container, and on which node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// The node that has it.
    pub node: NodeId,
    /// What is wanted.
    pub call: ExecCall,
}

/// What is wanted of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecCall {
    /// The engine's description of it.
    Inspect {
        /// The container's id.
        container: String,
    },
    /// A command is made ready.
    Create {
        /// The container's id.
        container: String,
        /// The command.
        exec: NewExec,
    },
    /// It is run.
    Start {
        /// The engine's id of the command.
        exec: String,
        /// How.
        start: ExecStart,
    },
    /// What became of it.
    Look {
        /// The engine's id of the command.
        exec: String,
    },
    /// Its terminal has another size.
    Resize {
        /// The engine's id of the command.
        exec: String,
        /// The size.
        size: TerminalSize,
    },
}

/// The answer to each [`ExecCall`].
#[derive(Debug)]
pub enum ExecAnswer {
    /// JSON.
    Container(Bytes),
    /// The engine's id of the command.
    Created(String),
    /// It runs. `None` when it is detached.
    Started(Option<ExecTunnel>),
    /// What became of it.
    State(ExecState),
    /// The terminal has that size.
    Resized,
}

/// The streams of a command on some node. Dropping it leaves the command to itself.
pub struct ExecTunnel {
    /// Its input.
    pub input: Pin<Box<dyn Sink<ExecInput, Error = ExecError> + Send>>,
    /// Its output as the engine sends it: raw with a terminal, in frames otherwise.
    pub output: BoxStream<'static, Result<Bytes, ExecError>>,
}

/// Input for a command.
#[derive(Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes.
    Bytes(Bytes),
    /// There will be no more.
    End,
}

/// What was wanted of a container and did not happen. The text is for the user: the engine's own, where it has spoken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExecError {
    /// An HTTP status.
    pub status: u16,
    /// What, and why.
    pub message: String,
}

// === impl ExecTunnel ===

impl std::fmt::Debug for ExecTunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecTunnel").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ExecInput {
    // What a user types is nobody else's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExecInput::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            ExecInput::End => f.write_str("End"),
        }
    }
}

impl From<ExecError> for Failure {
    fn from(e: ExecError) -> Failure {
        Failure::new(e.status, e.message)
    }
}

/// True for a route that may concern a container of another node.
pub(crate) fn concerns(row: &Row) -> bool {
    ROUTES.contains(&row.path)
}

/// Answers a request of one of these routes.
pub(crate) async fn answer(
    api: &Api,
    caller: &Caller,
    row: &Row,
    path: Path,
    place: Option<OwnedSemaphorePermit>,
    parts: Parts,
    body: Body,
) -> Result<Reply, Failure> {
    let what = path.segments.get(1).cloned().unwrap_or_default();
    match row.path {
        "/containers/{id}/json" => inspect(api, &what, path, parts, body).await,
        "/containers/{id}/exec" => create(api, caller, &what, path, parts, body).await,
        _ => match what.parse::<ExecId>() {
            Err(_) => api.proxy(http::Request::from_parts(parts, body), &path, row.upgrades, place).await,
            Ok(id) => {
                let query = Query::parse(parts.uri.query());
                match row.path {
                    "/exec/{id}/json" => look(api, &id).await,
                    "/exec/{id}/resize" => resize(api, &id, &query).await,
                    _ => start(api, caller, &id, path, place, parts, body).await,
                }
            }
        },
    }
}

/// `GET /containers/{id}/json`: the engine's word, unless it does not know the container.
async fn inspect(api: &Api, what: &str, path: Path, parts: Parts, body: Body) -> Result<Reply, Failure> {
    let here = api.proxy(http::Request::from_parts(parts, body), &path, false, None).await;
    if knows(&here) {
        return here;
    }
    let Some((node, container)) = elsewhere(api, what).await? else { return here };
    match api.exec(node, ExecCall::Inspect { container }).await? {
        ExecAnswer::Container(bytes) => Ok(json_bytes(StatusCode::OK, bytes)),
        _ => Err(nonsense()),
    }
}

/// `POST /containers/{id}/exec`: likewise.
async fn create(
    api: &Api,
    caller: &Caller,
    what: &str,
    path: Path,
    parts: Parts,
    body: Body,
) -> Result<Reply, Failure> {
    let (mut request, parts) = ours(caller, path.clone(), parts, body);
    let bytes = request.bytes().await?;
    let here = api.proxy(http::Request::from_parts(parts, full(bytes.clone())), &path, false, None).await;
    if knows(&here) {
        return here;
    }
    let Some((node, container)) = elsewhere(api, what).await? else { return here };
    request.body = full(bytes);
    let sent: ExecCreateRequest = request.json().await?;
    let exec = new_exec(sent, &container, &path)?;
    if exec.privileged && !may_be_privileged(api) {
        return Err(Failure::new(
            403,
            "privileged commands on other nodes are not allowed by the policy of this swarm: leave out --privileged, or allow it with the swarm label swarmlite.policy.privileged=allow",
        ));
    }
    match api.exec(node.clone(), ExecCall::Create { container, exec }).await? {
        ExecAnswer::Created(exec) => {
            let id = ExecId::new(node, exec).ok_or_else(nonsense)?;
            Ok(json_with(StatusCode::CREATED, &ExecCreateResponse { id: id.to_string() }))
        }
        _ => Err(nonsense()),
    }
}

/// `POST /exec/{id}/start`
async fn start(
    api: &Api,
    caller: &Caller,
    id: &ExecId,
    path: Path,
    place: Option<OwnedSemaphorePermit>,
    mut parts: Parts,
    body: Body,
) -> Result<Reply, Failure> {
    let upgrade = is_upgrade(&parts.headers).then(|| parts.extensions.remove::<hyper::upgrade::OnUpgrade>()).flatten();
    let sized = path.version.is_none_or(|v| v >= SIZED_SINCE);
    let (mut request, _) = ours(caller, path, parts, body);
    let sent: ExecStartRequest = request.json().await?;
    let size = size_of(&sent.console_size, sized && sent.tty)?;
    let start = ExecStart { detach: sent.detach, tty: sent.tty, size };
    let call = ExecCall::Start { exec: id.exec.clone(), start };
    let tunnel = match api.exec(id.node.clone(), call).await.map_err(|e| with_our_id(e, id))? {
        ExecAnswer::Started(tunnel) => tunnel,
        _ => return Err(nonsense()),
    };
    let Some(tunnel) = tunnel else { return Ok(empty()) };
    let mut reply = match upgrade {
        Some(client) => tunnel::hijacked(api, client, tunnel, sent.tty, place),
        None => tunnel::output_only(api, tunnel, sent.tty, place),
    };
    let content_type = if sized && !sent.tty {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    };
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(reply)
}

/// `GET /exec/{id}/json`
async fn look(api: &Api, id: &ExecId) -> Result<Reply, Failure> {
    let call = ExecCall::Look { exec: id.exec.clone() };
    let state = match api.exec(id.node.clone(), call).await.map_err(|e| with_our_id(e, id))? {
        ExecAnswer::State(state) => state,
        _ => return Err(nonsense()),
    };
    let mut command = state.made.command.into_iter();
    Ok(json(&ExecInspect {
        id: id.to_string(),
        running: state.running,
        exit_code: state.exit_code,
        process: ExecProcess {
            tty: state.made.tty,
            entrypoint: command.next().unwrap_or_default(),
            arguments: command.collect(),
            privileged: state.made.privileged,
            user: state.made.user,
        },
        open_stdin: state.made.attach_stdin,
        open_stderr: state.made.attach_stderr,
        open_stdout: state.made.attach_stdout,
        can_remove: false,
        container_id: state.container,
        detach_keys: String::new(),
        pid: state.pid,
    }))
}

/// `POST /exec/{id}/resize`
async fn resize(api: &Api, id: &ExecId, query: &Query) -> Result<Reply, Failure> {
    let number = |name: &str| {
        query.get(name).parse::<u16>().map_err(|_| {
            let shown: String = query.get(name).chars().take(64).collect();
            Failure::bad_request(format_args!("invalid {name} {shown:?}: it must be a number of characters"))
        })
    };
    let size = TerminalSize { height: number("h")?, width: number("w")? };
    let call = ExecCall::Resize { exec: id.exec.clone(), size };
    match api.exec(id.node.clone(), call).await.map_err(|e| with_our_id(e, id))? {
        ExecAnswer::Resized => Ok(empty()),
        _ => Err(nonsense()),
    }
}

// --- what is where ---

/// Whether the local engine knows the container. One that cannot be asked (or is not there) knows none.
fn knows(here: &Result<Reply, Failure>) -> bool {
    match here {
        Ok(reply) => reply.status() != StatusCode::NOT_FOUND,
        Err(failure) => !matches!(failure.status, 501 | 503),
    }
}

/// The node and the id of a container of the swarm; `None` when there is none, or this node is no manager.
async fn elsewhere(api: &Api, what: &str) -> Result<Option<(NodeId, String)>, Failure> {
    let Ok(store) = api.store() else { return Ok(None) };
    // What this manager knows is nearly always enough, and costs the leader nothing.
    if let Some(found) = find(&store.local(), what)? {
        return Ok(Some(found));
    }
    match store.current().await {
        Ok(snapshot) => find(&snapshot, what),
        Err(_) => Ok(None),
    }
}

/// By whole id, else by name, else by the beginning of an id.
fn find(snapshot: &Snapshot, what: &str) -> Result<Option<(NodeId, String)>, Failure> {
    let container = |task: &Arc<Task>| {
        let id = task.status.container.as_ref().map(|c| c.id.clone()).filter(|id| !id.is_empty())?;
        Some((task.node_id.clone()?, id))
    };
    // A task's name, which is its container's, ends with its id.
    let named = what.rsplit_once('.').and_then(|(_, id)| id.parse().ok()).and_then(|id| snapshot.task(&id));
    if let Some(found) = named.filter(|t| t.name() == what).and_then(container) {
        return Ok(Some(found));
    }
    if what.is_empty() || !what.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let begins = |task: &&Arc<Task>| task.status.container.as_ref().is_some_and(|c| c.id.starts_with(what));
    let begun: BTreeSet<_> = snapshot.tasks().filter(begins).filter_map(container).collect();
    // A node alone says what its containers are called: an id that goes on where another one ends must not hide that one.
    let whole: Vec<_> = begun.iter().filter(|(_, id)| id == what).collect();
    let found = if whole.is_empty() { begun.iter().collect() } else { whole };
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => {
            let shown: String = what.chars().take(128).collect();
            Err(Failure::bad_request(format_args!("multiple IDs found with provided prefix: {shown}")))
        }
    }
}

fn may_be_privileged(api: &Api) -> bool {
    let Ok(store) = api.store() else { return false };
    store.local().cluster().is_some_and(|c| c.spec.policy.host.privileged)
}

// --- requests ---

/// The request as our handlers read it, and its head for whom it is passed on to.
fn ours(caller: &Caller, path: Path, parts: Parts, body: Body) -> (Request, Parts) {
    let query = Query::parse(parts.uri.query());
    let (method, headers) = (parts.method.clone(), parts.headers.clone());
    (Request { method, path, query, headers, caller: caller.clone(), body }, parts)
}

fn new_exec(sent: ExecCreateRequest, container: &str, path: &Path) -> Result<NewExec, Failure> {
    if sent.cmd.is_empty() {
        return Err(Failure::bad_request(format_args!("No exec command specified for container {container}")));
    }
    check_texts(&sent)?;
    let sized = path.version.is_none_or(|v| v >= SIZED_SINCE);
    Ok(NewExec {
        size: size_of(&sent.console_size, sized && sent.tty)?,
        command: sent.cmd,
        env: sent.env,
        dir: sent.working_dir,
        user: sent.user,
        tty: sent.tty,
        attach_stdin: sent.attach_stdin,
        attach_stdout: sent.attach_stdout,
        attach_stderr: sent.attach_stderr,
        privileged: sent.privileged,
        detach_keys: sent.detach_keys,
    })
}

fn check_texts(sent: &ExecCreateRequest) -> Result<(), Failure> {
    let texts = sent.cmd.iter().chain(&sent.env).chain([&sent.working_dir, &sent.user, &sent.detach_keys]);
    let bytes: usize = texts.clone().map(|s| s.len() + 1).sum();
    if bytes > EXEC_BYTES_MAX {
        return Err(Failure::bad_request(format_args!(
            "the command with its environment has {bytes} bytes: at most {EXEC_BYTES_MAX} are accepted; send more through its standard input"
        )));
    }
    if texts.clone().any(|s| s.contains('\0')) {
        return Err(Failure::bad_request(
            "the command or its environment contains a NUL byte, which no process can have",
        ));
    }
    Ok(())
}

/// A size as Docker writes it: lines, columns.
fn size_of(size: &[u16], wanted: bool) -> Result<Option<TerminalSize>, Failure> {
    match size {
        _ if !wanted => Ok(None),
        [] | [0, 0] => Ok(None),
        [height, width] => Ok(Some(TerminalSize { height: *height, width: *width })),
        _ => Err(Failure::bad_request("invalid ConsoleSize: it must be two numbers, height and width")),
    }
}

/// An error of the node's engine, which knows the command by its own id.
fn with_our_id(mut e: ExecError, id: &ExecId) -> ExecError {
    e.message = e.message.replace(&id.exec, &id.to_string());
    e
}

fn nonsense() -> Failure {
    Failure::new(500, "the node's answer could not be understood: is it of another release?")
}

// === impl Api ===

impl Api {
    async fn exec(&self, node: NodeId, call: ExecCall) -> Result<ExecAnswer, ExecError> {
        self.deps().swarm.exec(ExecRequest { node, call }).await
    }
}
