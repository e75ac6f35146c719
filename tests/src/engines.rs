//! Docker Engines of our own, each in namespaces of its own: a machine as far as it can tell. Killing the first process of
//! its PID namespace ends it with all its containers, as when the power is cut.

use crate::network::Network;
use crate::{Api, Outcome, image, wait};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// For an engine to come up.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Each engine's containers are under a control group of their own, which has to be removed afterwards.
const CGROUP: &str = "slt-engine";

/// An engine. It is gone when it is dropped, with its containers.
pub struct PrivateEngine {
    /// Its host in the network.
    host: usize,
    dir: PathBuf,
    cgroup: String,
    /// More of its arguments.
    args: Vec<String>,
    /// `unshare`, which takes the whole PID namespace with it when it dies.
    child: Option<Child>,
}

// === impl PrivateEngine ===

impl PrivateEngine {
    /// One that does not run yet.
    pub fn new(host: usize, dir: PathBuf) -> Self {
        Self { host, dir, cgroup: format!("{CGROUP}-{}-{host}", std::process::id()), args: Vec::new(), child: None }
    }

    /// The same with more arguments for `dockerd`.
    pub fn with_args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Its API.
    pub fn api(&self) -> Api {
        Api::new(self.socket())
    }

    /// Its address, as `docker -H` takes it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Starts it (again), and waits until it answers and has the test images.
    pub async fn up(&mut self, network: &Network) -> Outcome<()> {
        self.start(network)?;
        self.answers().await?;
        image::ensure(&self.api()).await
    }

    fn start(&mut self, network: &Network) -> Outcome<()> {
        fs::create_dir_all(&self.dir).map_err(|error| error.to_string())?;
        // What a machine that lost power left behind in its run directory.
        let _ = fs::remove_dir_all(self.dir.join("exec"));
        let _ = fs::remove_file(self.dir.join("docker.pid"));
        let _ = fs::remove_file(self.socket());
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log"));
        let log = log.map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = network.command(self.host, Path::new("unshare"));
        // Namespaces of mounts, host name, IPC and processes; docker-init is the first process and takes in orphans.
        command
            .args(["-m", "-u", "-i", "-p", "--fork", "--kill-child=SIGKILL", "--mount-proc"])
            .args(["--propagation", "private", "--", "sh", "-c"])
            .arg(format!("hostname h{}; exec docker-init -- \"$@\"", self.host + 1))
            .args(["sh", "dockerd", "--data-root"])
            .arg(self.dir.join("data"))
            .arg("--exec-root")
            .arg(self.dir.join("exec"))
            .arg("--pidfile")
            .arg(self.dir.join("docker.pid"))
            .args(["--host", &self.address(), &format!("--cgroup-parent=/{}", self.cgroup)])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        self.child = Some(command.spawn().map_err(|error| format!("cannot start an engine: {error}"))?);
        Ok(())
    }

    async fn answers(&self) -> Outcome<()> {
        let api = self.api();
        let up = wait::until("an engine answers", START_LIMIT, || async { Ok(api.get("/_ping").await.map(drop)?) });
        up.await.map_err(|error| {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("{error}\n{}", lines[lines.len().saturating_sub(10)..].join("\n"))
        })
    }

    /// Cuts its power.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }

    /// Tells it to stop; it is not waited for.
    pub fn ask_to_stop(&self) -> Outcome<()> {
        let pid = i32::try_from(self.dockerd()?).ok().and_then(Pid::from_raw).ok_or("no process")?;
        kill_process(pid, Signal::TERM).map_err(|error| error.to_string())
    }

    /// Waits until it has ended.
    pub async fn gone(&mut self) -> Outcome<()> {
        wait::until_now("the engine is gone", START_LIMIT, || {
            let running = self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
            if running { Err("it is still there".into()) } else { Ok(()) }
        })
        .await
    }

    /// Its process in this machine's numbers: below `unshare`, below `docker-init`.
    pub fn dockerd(&self) -> Outcome<u32> {
        let mut pid = self.child.as_ref().map(Child::id).ok_or("it does not run")?;
        for _ in 0..4 {
            if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "dockerd") {
                return Ok(pid);
            }
            let children =
                fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).map_err(|error| error.to_string())?;
            let first = children.split_whitespace().next().ok_or("no dockerd below it")?;
            pid = first.parse().map_err(|_| "no process number".to_string())?;
        }
        Err("no dockerd below it".into())
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.kill();
        // The kernel lets go of the mounts of a namespace a moment after its last process.
        let _ = Command::new("umount").arg("--recursive").arg(&self.dir).stderr(Stdio::null()).status();
        let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for root in roots.chain([PathBuf::from("/sys/fs/cgroup")]) {
            remove_cgroup(&root.join(&self.cgroup));
        }
    }
}

/// Control groups are removed one by one, the innermost first.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}
