//! How `swarmlite dev` fails. Each says what, why, and what to do.

use std::io;
use std::path::PathBuf;

/// A `swarmlite dev` command that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevError {
    #[error("no directory for the cluster: neither XDG_STATE_HOME nor HOME is set; name one with --dir")]
    NoDirectory,
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("another `swarmlite dev` is at work in {0}; try again when it is done")]
    Busy(PathBuf),
    #[error(
        "{0} is no description of a cluster that this version understands ({1}); remove its directory and start over"
    )]
    Damaged(PathBuf, serde_json::Error),
    #[error(
        "a cluster is in {dir} already ({running} of {nodes} nodes running); see it with `swarmlite dev ls`, start its nodes with \
         `swarmlite dev start`, or remove it with `swarmlite dev down`"
    )]
    Exists { dir: PathBuf, running: usize, nodes: usize },
    #[error("there is no cluster in {0}; bring one up with `swarmlite dev up`")]
    None(PathBuf),
    #[error("no node `{name}` in this cluster; its nodes are {nodes}")]
    NoNode { name: String, nodes: String },
    #[error("the cluster has no leader at the moment, or none of its managers answers; name a node instead")]
    NoLeader,
    #[error("{0} is not running; start it with `swarmlite dev start {0}`")]
    NotRunning(String),
    #[error("{0} is running already")]
    Running(String),
    #[error(
        "the socket {0} would have a path of {1} bytes, and a Unix socket's has at most 107; choose a shorter --dir"
    )]
    LongPath(PathBuf, usize),
    #[error(
        "no loopback network is free: something listens on port 2377 of every 127.0.77.1 to 127.0.99.1; stop one of those clusters"
    )]
    NoAddress,
    #[error(
        "no Docker Engine at {host} ({reason}); start it, name another one with --docker-host, or try the cluster without one \
         with --engine embedded (which keeps containers in memory and runs nothing)"
    )]
    NoEngine { host: String, reason: String },
    #[error("cannot start {program}: {source}")]
    Spawn { program: PathBuf, source: io::Error },
    #[error("{name} ended at once ({how}); its log, {log}, ends with:\n{tail}", log = log.display())]
    Ended { name: String, how: String, log: PathBuf, tail: String },
    #[error("{name} did not {what} within {seconds} s{reason}; its log is {log}", log = log.display())]
    Late { name: String, what: &'static str, seconds: u64, reason: String, log: PathBuf },
    #[error("{name}: {what}: {reason}")]
    Refused { name: String, what: &'static str, reason: String },
    #[error("cannot clean up the containers of {name}: {reason}")]
    CleanUp { name: String, reason: String },
    #[error("cannot signal process {pid} of {name}: {source}")]
    Signal { name: String, pid: i32, source: io::Error },
}

// === impl DevError ===

impl DevError {
    /// For `map_err` on what happens to `path`.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
