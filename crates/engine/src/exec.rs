//! Commands that are run in containers, beside what they run anyway.

use crate::EngineError;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::fmt;
use std::io;
use tokio::io::AsyncWrite;

/// Bytes of output that come in one piece at most, and of input that should.
pub const EXEC_CHUNK_BYTES: usize = 32 << 10;

/// A command that is to be run in a container. (Its words and its environment may be secrets: they are not printed.)
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NewExec {
    /// The command and its arguments; never empty.
    pub command: Vec<String>,
    /// `NAME=value`, beside the container's own.
    pub env: Vec<String>,
    /// Its working directory; the container's when empty.
    pub dir: String,
    /// `user[:group]`, names or numbers; the container's when empty.
    pub user: String,
    /// It gets a terminal: there is one stream of output then.
    pub tty: bool,
    /// Its standard input is connected.
    pub attach_stdin: bool,
    /// Its standard output is.
    pub attach_stdout: bool,
    /// Its standard error is.
    pub attach_stderr: bool,
    /// It has all the rights that the engine can give it.
    pub privileged: bool,
    /// Keys with which a user detaches; the engine's default when empty.
    pub detach_keys: String,
    /// First size of its terminal.
    pub size: Option<TerminalSize>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TerminalSize {
    /// Lines.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// How a command is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecStart {
    /// Nobody is connected to it.
    pub detach: bool,
    /// As in [`NewExec`]: what comes is raw then, and in frames otherwise.
    pub tty: bool,
    /// First size of its terminal.
    pub size: Option<TerminalSize>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecState {
    /// The container's id.
    pub container: String,
    /// It runs.
    pub running: bool,
    /// Exit code, once it ended.
    pub exit_code: Option<i64>,
    /// Process id on the node; 0 when it does not run.
    pub pid: i64,
    /// What it was made with, as far as the engine tells.
    pub made: NewExec,
}

/// The streams of a command that runs.
pub struct ExecIo {
    /// Its standard input; shut it down to end it. Dropping it and the output leaves the command alone.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its output in pieces of at most [`EXEC_CHUNK_BYTES`], as Docker sends it: raw with a terminal, in frames of an 8-byte head
    /// otherwise. Ends when the command has ended.
    pub output: BoxStream<'static, io::Result<Bytes>>,
}

/// What an engine does beside running containers: describing them in full, and running further commands in them.
#[async_trait]
pub trait Execs: Send + Sync + 'static {
    /// The engine's own description of a container as JSON, of at most `bytes_max` bytes; `None` when it is not there.
    async fn describe_container(&self, id: &str, bytes_max: usize) -> Result<Option<Bytes>, EngineError>;
    /// Makes a command ready in a running container, and returns the engine's id of it.
    async fn exec_create(&self, container: &str, exec: &NewExec) -> Result<String, EngineError>;
    /// Runs it, which can be done once; `None` when it was to be detached.
    async fn exec_start(&self, exec: &str, start: ExecStart) -> Result<Option<ExecIo>, EngineError>;
    /// What became of it; `None` when the engine does not know it (any more).
    async fn exec_inspect(&self, exec: &str) -> Result<Option<ExecState>, EngineError>;
    /// Changes the size of its terminal.
    async fn exec_resize(&self, exec: &str, size: TerminalSize) -> Result<(), EngineError>;
}

// === impl NewExec ===

impl fmt::Debug for NewExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewExec").field("tty", &self.tty).field("privileged", &self.privileged).finish_non_exhaustive()
    }
}

// === impl ExecIo ===

impl fmt::Debug for ExecIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecIo").finish_non_exhaustive()
    }
}
