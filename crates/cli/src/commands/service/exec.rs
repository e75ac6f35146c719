//! `service exec`: a command in a container of a service, wherever that container is. The daemon finds the node; to this
//! side it is Docker's own `exec`.

use super::{get, list::find_task};
use crate::client::{ClientError, decode, escape};
use crate::context::Context;
use crate::error::CliError;
use crate::opts;
use crate::terminal::{self, Raw};
use clap::Args;
use docker_api::stdcopy::{Decoder, Stream as From};
use docker_api::{ExecCreateRequest, ExecCreateResponse, ExecInspect, ExecStartRequest, Service, Task};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

/// How often, and after what pause each, the engine is asked for the exit code of a command whose output has ended.
const EXIT_TRIES: u32 = 20;
const EXIT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;

/// `service exec`.
#[derive(Args, Debug)]
#[command(override_usage = "swarmlite service exec [OPTIONS] SERVICE|TASK COMMAND [ARG...]")]
pub(crate) struct ExecArgs {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Set environment variables
    #[arg(short, long, value_name = "list", value_parser = opts::env)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command (on another node: if the swarm's policy allows it)
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long, value_name = "string", default_value = "", hide_default_value = true)]
    user: String,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string", default_value = "", hide_default_value = true)]
    workdir: String,
    /// A service (the first of its tasks that runs), a task such as web.2, or a task's id; then the command
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, allow_hyphen_values = true, value_names = ["SERVICE|TASK", "COMMAND"])]
    words: Vec<String>,
}

/// Runs a command, and ends with its exit code.
pub(crate) async fn run(ctx: &Context, args: ExecArgs) -> Result<(), CliError> {
    let Some((name, command)) = args.words.split_first() else {
        return Err(CliError::text("a service or task and a command are required"));
    };
    let attached = !args.detach;
    if args.tty && args.interactive && attached && !terminal::is_input() {
        return Err(CliError::text("the input device is not a TTY"));
    }
    let env = environment(ctx, &args).await?;
    let container = container(ctx, name).await?;
    let console_size = terminal::size().filter(|_| args.tty && attached).map(Vec::from).unwrap_or_default();
    let create = ExecCreateRequest {
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        privileged: args.privileged,
        tty: args.tty,
        console_size: console_size.clone(),
        attach_stdin: args.interactive && attached,
        attach_stdout: attached,
        attach_stderr: attached,
        env,
        cmd: command.to_vec(),
        ..ExecCreateRequest::default()
    };
    let path = format!("/containers/{}/exec", escape(&container));
    let created: ExecCreateResponse = decode(&format!("POST {path}"), &ctx.client.post(&path, &[], &create).await?)?;
    let start = ExecStartRequest { detach: args.detach, tty: args.tty, console_size };
    let path = format!("/exec/{}", escape(&created.id));
    if args.detach {
        ctx.client.post(&format!("{path}/start"), &[], &start).await?;
        return Ok(());
    }
    attach(ctx, &path, &start, args.interactive).await?;
    match exit_code(ctx, &path).await? {
        0 => Ok(()),
        code => Err(CliError::Silent(u8::try_from(code).unwrap_or(1))),
    }
}

async fn environment(ctx: &Context, args: &ExecArgs) -> Result<Vec<String>, CliError> {
    let mut env = Vec::new();
    for path in &args.env_file {
        let text = ctx.read_text(Path::new(path)).await?;
        env.extend(opts::env_file(&text).map_err(|e| CliError::text(format!("invalid env file {path}: {e}")))?);
    }
    env.extend(args.env.iter().cloned());
    Ok(env)
}

/// The container of the task that is meant.
async fn container(ctx: &Context, name: &str) -> Result<String, CliError> {
    if let Some(service) = service(ctx, name).await? {
        let tasks = tasks_of(ctx, &service).await?;
        let running = first_running(&tasks, None);
        return running.ok_or_else(|| {
            CliError::text(format!(
                "no task of the service {name} runs; `swarmlite service why {name}` says what it waits for"
            ))
        });
    }
    let not_running = || CliError::text(format!("the task {name} does not run; `swarmlite task why {name}` says why"));
    // `web.2`, as `service ps` shows it; a service may have a dot in its name, so that comes second.
    if let Some((service_name, slot)) = name.rsplit_once('.')
        && let Some(service) = service(ctx, service_name).await?
    {
        let tasks = tasks_of(ctx, &service).await?;
        return first_running(&tasks, Some(slot)).ok_or_else(not_running);
    }
    match find_task(ctx, name).await? {
        Some(task) => container_of(&task).map(str::to_owned).ok_or_else(not_running),
        None => Err(CliError::text(format!("no such task or service: {name}"))),
    }
}

async fn service(ctx: &Context, name: &str) -> Result<Option<Service>, CliError> {
    match get(ctx, name).await {
        Ok(service) => Ok(Some(service)),
        Err(CliError::Client(ClientError::Daemon { status: 404, .. })) => Ok(None),
        Err(e) => Err(e),
    }
}

async fn tasks_of(ctx: &Context, service: &Service) -> Result<Vec<Task>, CliError> {
    let filters = [("service".to_owned(), service.id.clone()), ("desired-state".to_owned(), "running".to_owned())];
    Ok(ctx.client.get("/tasks", &opts::filters_query(&filters)).await?)
}

/// The container of the running task with the lowest slot (or node, of a global service); of those of one slot, or of the
/// node whose id begins so, when `which` says.
fn first_running(tasks: &[Task], which: Option<&str>) -> Option<String> {
    let meant = |t: &Task| match which {
        None => true,
        Some(which) if t.slot == 0 => t.node_id.starts_with(which),
        Some(which) => t.slot.to_string() == which,
    };
    let mut running: Vec<&Task> = tasks.iter().filter(|t| meant(t) && container_of(t).is_some()).collect();
    running.sort_by(|a, b| (a.slot, &a.node_id, &a.id).cmp(&(b.slot, &b.node_id, &b.id)));
    running.first().and_then(|t| container_of(t)).map(str::to_owned)
}

fn container_of(task: &Task) -> Option<&str> {
    let id = task.status.container_status.as_ref().map(|c| c.container_id.as_str());
    id.filter(|id| task.status.state == "running" && !id.is_empty())
}

/// Passes on what is typed and what is printed, until the command has ended.
async fn attach(ctx: &Context, path: &str, start: &ExecStartRequest, interactive: bool) -> Result<(), CliError> {
    let cannot = |e: std::io::Error| CliError::text(format!("cannot prepare the terminal: {e}"));
    // Before the raw mode begins, and so before there is something to miss.
    let mut resized = signal(SignalKind::window_change()).map_err(cannot)?;
    let stream = ctx.client.hijack(&format!("{path}/start"), start).await?;
    let raw = if start.tty && interactive { Some(Raw::begin().map_err(cannot)?) } else { None };
    let (mut from, mut to) = tokio::io::split(stream);
    let input = async {
        if interactive {
            // The command may end before it has read all.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut to).await;
            let _ = to.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let sizes = async {
        while start.tty && resized.recv().await.is_some() {
            if let Some([rows, columns]) = terminal::size() {
                let query = [("h", rows.to_string()), ("w", columns.to_string())];
                // The command may have ended.
                let _ = ctx.client.post(&format!("{path}/resize"), &query, &serde_json::json!({})).await;
            }
        }
        std::future::pending::<()>().await;
    };
    let output = async {
        let (mut decoder, mut chunk) = (Decoder::new(), vec![0; CHUNK]);
        loop {
            let n = from.read(&mut chunk).await.map_err(|e| CliError::text(format!("the connection broke: {e}")))?;
            if n == 0 {
                return Ok(());
            }
            print(ctx, start.tty, &mut decoder, &chunk[..n])?;
        }
    };
    let result = tokio::select! {
        biased;
        result = output => result,
        () = input => Ok(()),
        () = sizes => Ok(()),
    };
    drop(raw);
    result
}

/// A terminal's output is as it is; otherwise each frame says whether it is of standard output or error.
fn print(ctx: &Context, tty: bool, decoder: &mut Decoder, bytes: &[u8]) -> Result<(), CliError> {
    if tty {
        return ctx.out_bytes(bytes);
    }
    decoder.feed(bytes);
    while let Some(frame) = decoder.next_frame().map_err(|e| CliError::text(e.to_string()))? {
        match frame.stream {
            From::Stderr | From::SystemErr => ctx.err_bytes(&frame.data)?,
            _ => ctx.out_bytes(&frame.data)?,
        }
    }
    Ok(())
}

/// The engine may learn a moment after us that the command has ended.
async fn exit_code(ctx: &Context, path: &str) -> Result<i64, CliError> {
    for _ in 0..EXIT_TRIES {
        let state: ExecInspect = ctx.client.get(&format!("{path}/json"), &[]).await?;
        if let Some(code) = state.exit_code.filter(|_| !state.running) {
            return Ok(code);
        }
        tokio::time::sleep(EXIT_PAUSE).await;
    }
    Err(CliError::text("the output ended, but the command goes on: its exit code is not known"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(slot: u64, node: &str, state: &str) -> Task {
        serde_json::from_value(json!({"ID": format!("t{slot}{node}"), "Slot": slot, "NodeID": node,
            "Status": {"State": state, "ContainerStatus": {"ContainerID": format!("c{slot}{node}")}}}))
        .unwrap()
    }

    #[test]
    fn the_first_task_that_runs_is_meant_unless_one_is_named() {
        let tasks = [task(3, "a", "running"), task(1, "a", "failed"), task(2, "b", "running")];
        assert_eq!(first_running(&tasks, None).as_deref(), Some("c2b"));
        assert_eq!(first_running(&tasks, Some("3")).as_deref(), Some("c3a"));
        assert_eq!(first_running(&tasks, Some("1")), None);
        let global = [task(0, "node2", "running"), task(0, "node1", "running")];
        assert_eq!(first_running(&global, None).as_deref(), Some("c0node1"));
        assert_eq!(first_running(&global, Some("node2")).as_deref(), Some("c0node2"));
        assert_eq!(first_running(&[], None), None);
    }
}
