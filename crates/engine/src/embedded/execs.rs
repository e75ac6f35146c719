//! Commands in containers of the embedded engine: a few that can be tried out, none of which runs anything.
//!
//! | command | behaviour |
//! |---|---|
//! | `cat` | gives back its input until that ends |
//! | `echo WORD…` | prints the words |
//! | `hostname` | prints the first characters of the container's id, as Docker's does |
//! | `exit CODE`, `true`, `false` | ends at once with that code |
//! | `size` | prints lines and columns of its terminal when its input ends |
//! | `stall` | reads nothing, prints nothing and does not end |
//! | `sh -c "COMMAND"` | as the command in it |
//! | anything else | cannot be found: code 127, as in Docker |

use super::containers::no_such_container;
use super::{EmbeddedEngine, Inner, State};
use crate::embedded::faults::Call;
use crate::exec::EXEC_CHUNK_BYTES;
use crate::{ContainerPhase, EngineError, ExecIo, ExecStart, ExecState, Execs, NewExec, TerminalSize};
use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{self, StreamExt as _};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, DuplexStream};

/// Commands that are remembered; the oldest is forgotten.
const EXECS_MAX: usize = 1000;
/// Exit code of a command that cannot be found.
const NOT_FOUND: i64 = 127;
/// For each call.
const TAKES: Duration = Duration::from_millis(3);

/// All commands, oldest first.
#[derive(Default)]
pub(crate) struct Table(VecDeque<Record>);

struct Record {
    id: String,
    state: ExecState,
    started: bool,
    size: Option<TerminalSize>,
}

/// What a command is about to do.
enum Act {
    Print(Vec<u8>, i64),
    Complain(Vec<u8>, i64),
    Echo,
    Size,
    Stall,
}

/// A command that runs.
struct Running {
    inner: Arc<Inner>,
    id: String,
    tty: bool,
    act: Option<Act>,
    input: DuplexStream,
}

fn no_such_exec(id: &str) -> EngineError {
    EngineError::NotFound(format!("No such exec instance: {id}"))
}

// === impl Table ===

impl Table {
    fn get_mut(&mut self, id: &str) -> Option<&mut Record> {
        self.0.iter_mut().find(|r| r.id == id)
    }
}

// === impl Running ===

impl Running {
    /// The next piece of output; `None` at the end, when what became of it is known.
    async fn next(&mut self) -> Option<Bytes> {
        match self.act.take()? {
            Act::Print(text, code) => {
                self.end(code);
                (!text.is_empty()).then(|| self.framed(1, &text))
            }
            Act::Complain(text, code) => {
                self.end(code);
                Some(self.framed(2, &text))
            }
            Act::Echo => {
                let mut piece = BytesMut::with_capacity(EXEC_CHUNK_BYTES / 2);
                match self.input.read_buf(&mut piece).await {
                    Ok(read) if read > 0 => {
                        self.act = Some(Act::Echo);
                        Some(self.framed(1, &piece))
                    }
                    _ => {
                        self.end(0);
                        None
                    }
                }
            }
            Act::Stall => std::future::pending().await,
            Act::Size => {
                let mut sink = [0; 64];
                while self.input.read(&mut sink).await.is_ok_and(|n| n > 0) {}
                let size = self.inner.with(|s, _| s.execs.get_mut(&self.id).and_then(|r| r.size)).unwrap_or_default();
                self.end(0);
                Some(self.framed(1, format!("{} {}\n", size.height, size.width).as_bytes()))
            }
        }
    }

    fn end(&self, code: i64) {
        self.inner.with(|s, _| {
            if let Some(record) = s.execs.get_mut(&self.id) {
                (record.state.running, record.state.pid, record.state.exit_code) = (false, 0, Some(code));
            }
        });
    }

    fn framed(&self, stream: u8, data: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(data.len() + 8);
        if !self.tty {
            out.put_slice(&[stream, 0, 0, 0]);
            out.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
        }
        out.put_slice(data);
        out.freeze()
    }
}

/// What a command does, in a container with this id.
fn act(command: &[String], container: &str) -> Act {
    let words: Vec<&str> = match command {
        [shell, flag, script] if shell == "sh" && flag == "-c" => script.split_whitespace().collect(),
        words => words.iter().map(String::as_str).collect(),
    };
    match words.as_slice() {
        ["cat"] => Act::Echo,
        ["size"] => Act::Size,
        ["stall"] => Act::Stall,
        ["echo", rest @ ..] => Act::Print(format!("{}\n", rest.join(" ")).into_bytes(), 0),
        ["hostname"] => Act::Print(format!("{}\n", &container[..container.len().min(12)]).into_bytes(), 0),
        ["true"] => Act::Print(Vec::new(), 0),
        ["false"] => Act::Print(Vec::new(), 1),
        ["exit", code] => Act::Print(Vec::new(), code.parse().unwrap_or(2)),
        other => {
            let name = other.first().copied().unwrap_or_default();
            let text = format!(
                "OCI runtime exec failed: exec failed: unable to start container process: exec: \"{name}\": executable file \
                 not found in $PATH: unknown\r\n"
            );
            Act::Complain(text.into_bytes(), NOT_FOUND)
        }
    }
}

#[async_trait]
impl Execs for EmbeddedEngine {
    async fn describe_container(&self, id: &str, bytes_max: usize) -> Result<Option<Bytes>, EngineError> {
        let found = self.call(Call::Inspect, TAKES, |s, now| Ok(s.containers.get(id, now))).await?;
        let Some(c) = found else { return Ok(None) };
        let running = c.phase == ContainerPhase::Running;
        let status = match c.phase {
            ContainerPhase::Created => "created",
            ContainerPhase::Running => "running",
            ContainerPhase::Exited => "exited",
        };
        let json = serde_json::json!({
            "Id": c.id,
            "Name": format!("/{}", c.name),
            "State": {
                "Status": status, "Running": running, "Paused": false, "Restarting": false, "OOMKilled": c.oom_killed,
                "Dead": false, "Pid": c.pid, "ExitCode": c.exit_code.unwrap_or(0), "Error": c.error,
            },
            "Config": {"Labels": c.labels, "Tty": false},
        });
        let json = Bytes::from(json.to_string());
        let fits = json.len() <= bytes_max;
        if fits { Ok(Some(json)) } else { Err(EngineError::Failed("the description is too long".into())) }
    }

    async fn exec_create(&self, container: &str, exec: &NewExec) -> Result<String, EngineError> {
        let mut id = [0; 32];
        self.inner.rand.fill(&mut id);
        let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
        self.call(Call::Exec, TAKES, |s, now| {
            let found = s.containers.get(container, now).ok_or_else(|| no_such_container(container))?;
            if found.phase != ContainerPhase::Running {
                return Err(EngineError::Conflict(format!("container {} is not running", found.id)));
            }
            let state = ExecState { container: found.id, made: exec.clone(), ..ExecState::default() };
            s.execs.0.push_back(Record { id: id.clone(), state, started: false, size: exec.size });
            if s.execs.0.len() > EXECS_MAX {
                s.execs.0.pop_front();
            }
            Ok(id)
        })
        .await
    }

    async fn exec_start(&self, exec: &str, start: ExecStart) -> Result<Option<ExecIo>, EngineError> {
        let begun = self.call(Call::Exec, TAKES, |s: &mut State, now| {
            let record = s.execs.get_mut(exec).ok_or_else(|| no_such_exec(exec))?;
            if record.started {
                return Err(EngineError::Conflict(format!("exec command {exec} has already run")));
            }
            let container = record.state.container.clone();
            if s.containers.get(&container, now).is_none_or(|c| c.phase != ContainerPhase::Running) {
                return Err(EngineError::Conflict(format!("container {container} is not running")));
            }
            let record = s.execs.get_mut(exec).ok_or_else(|| no_such_exec(exec))?;
            (record.started, record.state.running, record.state.pid) = (true, true, 1);
            record.size = start.size.or(record.size);
            Ok((act(&record.state.made.command, &container), record.state.made.attach_stdin))
        });
        let (act, has_input) = begun.await?;
        let (input_reader, input) = tokio::io::duplex(EXEC_CHUNK_BYTES);
        let (inner, id) = (Arc::clone(&self.inner), exec.to_owned());
        let mut running = Running { inner, id, tty: start.tty, act: Some(act), input: input_reader };
        if start.detach || !has_input {
            // Nobody types anything.
            running.input = ended();
        }
        if start.detach {
            while !matches!(running.act, Some(Act::Stall)) && running.next().await.is_some() {}
            return Ok(None);
        }
        let output = stream::unfold(running, |mut running| async move {
            let piece = running.next().await?;
            Some((Ok(piece), running))
        });
        Ok(Some(ExecIo { input: Box::new(input), output: output.boxed() }))
    }

    async fn exec_inspect(&self, exec: &str) -> Result<Option<ExecState>, EngineError> {
        self.call(Call::Exec, TAKES, |s, _| Ok(s.execs.get_mut(exec).map(|r| r.state.clone()))).await
    }

    async fn exec_resize(&self, exec: &str, size: TerminalSize) -> Result<(), EngineError> {
        self.call(Call::Exec, TAKES, |s, _| {
            let record = s.execs.get_mut(exec).ok_or_else(|| no_such_exec(exec))?;
            if !record.state.running {
                return Err(EngineError::Conflict(format!("exec process {exec} is not running")));
            }
            record.size = Some(size);
            Ok(())
        })
        .await
    }
}

/// An input at its end.
fn ended() -> DuplexStream {
    let (reader, _writer_is_gone) = tokio::io::duplex(1);
    reader
}
