//! Processes that outlive the command that started them.

use super::DevError;
use super::state::{Cluster, DevNode};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// How often a process that should end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A process, told from a later one with the same number by the time it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pub(super) pid: i32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat`.
    started: u64,
}

/// Starts a node's daemon, in a process group of its own so that Ctrl-C at the terminal does not reach it.
pub(super) fn spawn(cluster: &Cluster, node: &DevNode) -> Result<(Child, ProcessId), DevError> {
    fs::create_dir_all(&node.dir).map_err(DevError::io(&node.dir))?;
    let path = node.log();
    let log = File::options().create(true).append(true).open(&path).map_err(DevError::io(&path))?;
    let errors = log.try_clone().map_err(DevError::io(&path))?;
    let mut command = Command::new(&cluster.program);
    command
        .arg("daemon")
        .arg("--data-dir")
        .arg(node.data_dir())
        .arg("--socket")
        .arg(node.socket())
        .args(["--listen-addr", &node.remote(), "--advertise-addr", &node.address, "--hostname", &node.name])
        .args(["--engine", cluster.engine.as_str(), "--docker-host", &cluster.docker_host])
        // Service managers' variables are meant for another process.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0);
    let child = command.spawn().map_err(|source| DevError::Spawn { program: cluster.program.clone(), source })?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    Ok((child, ProcessId { pid, started: start_time(pid).unwrap_or_default() }))
}

/// The end of a node's log.
pub(super) fn log_tail(node: &DevNode, lines: usize) -> String {
    let text = fs::read(node.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

// === impl ProcessId ===

impl ProcessId {
    /// Whether it is there, and no zombie.
    pub(super) fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|started| started == self.started)
    }

    /// Sends a signal; no error when it is gone.
    pub(super) fn signal(&self, name: &str, signal: Signal) -> Result<(), DevError> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_alive()) else { return Ok(()) };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(DevError::Signal { name: name.to_string(), pid: self.pid, source: error.into() }),
        }
    }

    /// Waits until it is gone; false when it is still there after `limit`.
    pub(super) async fn ended(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}

/// When a living process started; `None` when there is none, or only its zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows the last one is fields from the third on.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_known_until_it_ends() {
        let mut child = Command::new("sleep").arg("600").spawn().expect("starts");
        let pid = i32::try_from(child.id()).expect("small");
        let process = ProcessId { pid, started: start_time(pid).expect("lives") };
        assert!(process.is_alive());
        assert!(!ProcessId { pid, started: 1 }.is_alive(), "another process with the same number is not ours");
        process.signal("it", Signal::KILL).expect("signals");
        assert!(process.ended(Duration::from_secs(10)).await, "a zombie counts as ended");
        child.wait().expect("reaped");
        process.signal("it", Signal::KILL).expect("no error when it is gone");
    }
}
