//! One node: a `swarmlite daemon` process, its socket, its directory.

use crate::http::Api;
use crate::{Outcome, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where nodes listen for each other.
pub const CONTROL_PORT: u16 = 2377;
/// Names the binary under test; `cargo xtask` sets it.
pub const ENV_BINARY: &str = "SWARMLITE_TEST_BINARY";
/// Where nodes keep the files of their tasks, each in a directory that is called by its id.
pub const RUN_DIR: &str = "/run/swarmlite";
/// How long a daemon has until its API answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a daemon has to stop in good order.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long a node has to become an active member.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// For questions whose answer is no use later.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// A node of a test cluster.
#[derive(Debug)]
pub struct Node {
    /// Its place in the cluster.
    pub index: usize,
    /// Brought up as a manager.
    pub manager: bool,
    /// Its address.
    pub address: String,
    /// Its id in the swarm, once it is a member.
    pub id: String,
    dir: PathBuf,
    child: Option<Child>,
}

/// The binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os(ENV_BINARY)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/swarmlite"), PathBuf::from)
}

// === impl Node ===

impl Node {
    /// A node that is not started yet.
    pub fn new(index: usize, manager: bool, address: String, dir: PathBuf) -> Outcome<Self> {
        std::fs::create_dir_all(dir.join("data"))
            .map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
        Ok(Self { index, manager, address, id: String::new(), dir, child: None })
    }

    /// `manager1`, `worker2`: for messages.
    pub fn name(&self) -> String {
        format!("{}{}", if self.manager { "manager" } else { "worker" }, self.index + 1)
    }

    /// Its API.
    pub fn api(&self) -> Api {
        Api::new(self.socket())
    }

    /// Its API, for a quick look.
    pub fn look(&self) -> Api {
        self.api().within(LOOK_LIMIT)
    }

    /// Its API's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("s.sock")
    }

    /// Its API's address, as `docker -H` takes it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Everything it said so far.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// Its control address.
    pub fn remote(&self) -> String {
        format!("{}:{CONTROL_PORT}", self.address)
    }

    /// Starts its daemon: `command` runs the binary where the node is.
    pub fn start(&mut self, mut command: Command, engine_args: &[String]) -> Outcome<()> {
        let open =
            || File::options().create(true).append(true).open(self.log_path()).map_err(|error| error.to_string());
        let (log, errors) = (open()?, open()?);
        command
            .arg("daemon")
            .args(["--listen-addr", &self.remote(), "--advertise-addr", &self.address, "--hostname", &self.name()])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--socket")
            .arg(self.socket())
            .args(engine_args)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        self.child = Some(command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?);
        Ok(())
    }

    /// Waits until its API answers; fails at once when the process ended.
    pub async fn answers(&mut self) -> Outcome<()> {
        let (api, name) = (self.look(), self.name());
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        loop {
            let Err(error) = api.get("/_ping").await else { return Ok(()) };
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return Err(format!("{name} ended with {status}:\n{}", self.log_tail(15)));
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(format!("{name} does not answer: {error}\n{}", self.log_tail(15)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes it the first manager of a swarm.
    pub async fn init(&mut self) -> Outcome<()> {
        let request = json!({ "ListenAddr": self.remote(), "AdvertiseAddr": self.remote() });
        self.api()
            .post("/swarm/init", &request)
            .await
            .map_err(|error| format!("{} cannot init: {error}", self.name()))?;
        self.member().await
    }

    /// Makes it join.
    pub async fn join(&mut self, remote: &str, token: &str) -> Outcome<()> {
        let request = json!({ "ListenAddr": self.remote(), "AdvertiseAddr": self.remote(), "RemoteAddrs": [remote], "JoinToken": token });
        self.api()
            .post("/swarm/join", &request)
            .await
            .map_err(|error| format!("{} cannot join: {error}", self.name()))?;
        self.member().await
    }

    /// Waits until it is an active member, and learns its id.
    pub async fn member(&mut self) -> Outcome<()> {
        let (api, name) = (self.look(), self.name());
        self.id = wait::until(&format!("{name} is a member"), JOIN_LIMIT, || async {
            let info = api.get("/info").await?;
            match (info["Swarm"]["LocalNodeState"].as_str(), info["Swarm"]["NodeID"].as_str()) {
                (Some("active"), Some(id)) if !id.is_empty() => Ok(id.to_string()),
                _ => Err(info["Swarm"].to_string()),
            }
        })
        .await?;
        Ok(())
    }

    /// The nodes as it sees them.
    pub async fn nodes(&self) -> Outcome<Vec<Value>> {
        match self.look().get("/nodes").await? {
            Value::Array(nodes) => Ok(nodes),
            other => Err(format!("/nodes is {other}")),
        }
    }

    /// Its process, while it has not been waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether its process lives.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) -> Outcome<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).ok_or("it does not run")?;
        kill_process(pid, signal).map_err(|error| format!("cannot signal {}: {error}", self.name()))
    }

    /// Kills it at once.
    pub fn kill(&mut self) -> Outcome<()> {
        self.signal(Signal::KILL)?;
        self.child.take().map_or(Ok(()), |mut child| child.wait().map(drop).map_err(|error| error.to_string()))
    }

    /// Stops it in good order.
    pub async fn terminate(&mut self) -> Outcome<()> {
        self.signal(Signal::TERM)?;
        let name = self.name();
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let ended = wait::until_now(&format!("{name} stops"), STOP_LIMIT, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            _ => Err("it is still there".into()),
        })
        .await;
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{name} stopped with {status}:\n{}", self.log_tail(15))),
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(error)
            }
        }
    }

    /// The last lines of its log, indented.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
        // What a node that is killed leaves behind of its tasks' files: a file system in memory.
        let files = Path::new(RUN_DIR).join(&self.id);
        if !self.id.is_empty() && files.is_dir() {
            let _ = Command::new("umount").arg("--lazy").arg(&files).stderr(Stdio::null()).status();
            let _ = std::fs::remove_dir(&files);
        }
    }
}
