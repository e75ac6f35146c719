//! A Docker Engine for tests, demo and bench: the machine's own when it runs one, else a private one, started by hand
//! (no service manager needed) after installing Debian's `docker.io` when there is no `dockerd`.

use crate::run;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where the private engine keeps its sockets: short, because a Unix socket's path has at most 107 bytes.
const RUN_DIR: &str = "/run/swarmlite-xtask";
/// Where the private engine keeps images and containers.
const DATA_DIR: &str = "/var/lib/swarmlite-xtask";
const MACHINES_SOCKET: &str = "/var/run/docker.sock";
const SOCKET: &str = "/run/swarmlite-xtask/docker.sock";
const PID_FILE: &str = "/run/swarmlite-xtask/docker.pid";
const LOG_FILE: &str = "/run/swarmlite-xtask/dockerd.log";
/// The private engine's bridge and its address: not `docker0`, which another engine on the machine may own.
const BRIDGE: &str = "slxtask0";
const BRIDGE_ADDRESS: &str = "172.31.213.1/24";
/// An engine is up within a second; a slow disk takes longer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A Docker Engine that answers.
pub(crate) struct Docker {
    /// Its address, as `DOCKER_HOST` takes it.
    pub(crate) host: String,
    started_here: bool,
}

impl Docker {
    /// Stops the engine if this process started it.
    pub(crate) fn release(self) {
        if self.started_here {
            let _ = down();
        }
    }
}

/// `cargo xtask docker up|down`.
pub(crate) fn command(args: &[String]) -> Result<(), String> {
    match args.first().map(String::as_str) {
        Some("up") => {
            let docker = ensure()?;
            println!("{}", docker.host);
            Ok(())
        }
        Some("down") => down(),
        _ => Err("usage: cargo xtask docker up|down".into()),
    }
}

/// Finds an engine, or makes one; with what the tests use beside it.
pub(crate) fn ensure() -> Result<Docker, String> {
    let engine = find_or_start()?;
    for_tests();
    Ok(engine)
}

/// Sees that there is what engines of the tests' own are made with, where none has to run before.
pub(crate) fn ensure_programs() -> Result<(), String> {
    if !run::found("dockerd") {
        install("docker.io", &[])?;
    }
    for_tests();
    Ok(())
}

fn for_tests() {
    for (program, package) in [("ip", "iproute2"), ("iptables", "iptables"), ("docker", "docker-cli")] {
        // Without them some tests fail, and say what they miss; everything else goes on.
        if !run::found(program)
            && let Err(reason) = install(package, &[])
        {
            eprintln!("docker: no `{program}`: {reason}");
        }
    }
}

fn find_or_start() -> Result<Docker, String> {
    let named = std::env::var("DOCKER_HOST").ok();
    let usual = [MACHINES_SOCKET, SOCKET].map(|socket| format!("unix://{socket}"));
    for host in named.iter().chain(&usual) {
        if host.strip_prefix("unix://").is_some_and(answers) {
            eprintln!("docker: using the engine at {host}");
            return Ok(Docker { host: host.clone(), started_here: false });
        }
    }
    if let Some(host) = named {
        return Err(format!(
            "DOCKER_HOST={host} does not answer (only unix:// addresses are used); start it or unset the variable"
        ));
    }
    if !run::is_root() {
        return Err("no Docker Engine answers, and starting one needs root: start Docker, or run this as root".into());
    }
    if !run::found("dockerd") {
        install("docker.io", &[])?;
        // Where there is a service manager, the package has started an engine.
        if Path::new("/run/systemd/system").exists() && wait_for(MACHINES_SOCKET) {
            return Ok(Docker { host: format!("unix://{MACHINES_SOCKET}"), started_here: false });
        }
    }
    start()
}

/// Sees that there is a static busybox, from which tests make their image.
pub(crate) fn ensure_busybox() -> Result<(), String> {
    let there = ["/bin/busybox", "/usr/bin/busybox"].iter().any(|path| std::path::Path::new(path).exists());
    if there { Ok(()) } else { install("busybox-static", &[]) }
}

/// Installs Debian packages, saying so.
pub(crate) fn install(package: &str, more: &[&str]) -> Result<(), String> {
    if !run::found("apt-get") {
        return Err(format!("`{package}` is missing, and this is no Debian or Ubuntu: install it and try again"));
    }
    if !run::is_root() {
        return Err(format!("`{package}` is missing, and installing it needs root: apt-get install {package}"));
    }
    eprintln!("docker: installing the Debian package `{package}` (apt-get), which this machine lacks");
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        run::output(&mut command)
    };
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends", package];
    args.extend(more);
    if apt(&args).is_err() {
        apt(&["update", "-q"])?;
        apt(&args)?;
    }
    Ok(())
}

fn start() -> Result<Docker, String> {
    for directory in [RUN_DIR, DATA_DIR] {
        fs::create_dir_all(directory).map_err(|error| format!("cannot create {directory}: {error}"))?;
    }
    make_bridge()?;
    let log = fs::File::create(LOG_FILE).map_err(|error| format!("cannot write {LOG_FILE}: {error}"))?;
    let errors = log.try_clone().map_err(|error| error.to_string())?;
    let mut dockerd = Command::new("dockerd");
    dockerd
        .args(["--data-root", &format!("{DATA_DIR}/docker"), "--exec-root", &format!("{RUN_DIR}/exec")])
        .args(["--pidfile", PID_FILE, "--host", &format!("unix://{SOCKET}")])
        // It leaves the machine's firewall alone: its containers talk to this machine only.
        .args(["--bridge", BRIDGE, "--iptables=false", "--ip-masq=false"])
        .env("PATH", path_with_sbin())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0);
    let mut child = dockerd.spawn().map_err(|error| format!("cannot start dockerd: {error}"))?;
    let started = Instant::now();
    while !answers(SOCKET) {
        let ended = child.try_wait().map_err(|error| error.to_string())?;
        if ended.is_some() || started.elapsed() > START_LIMIT {
            let log = fs::read_to_string(LOG_FILE).unwrap_or_default();
            return Err(format!("dockerd does not come up; its log ({LOG_FILE}) ends with:\n{}", run::tail(&log, 15)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("docker: started a private engine at unix://{SOCKET} ({} ms)", started.elapsed().as_millis());
    Ok(Docker { host: format!("unix://{SOCKET}"), started_here: true })
}

/// Waits until an engine answers; false when it does not come.
fn wait_for(socket: &str) -> bool {
    let started = Instant::now();
    while !answers(socket) {
        if started.elapsed() > START_LIMIT {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

fn make_bridge() -> Result<(), String> {
    if !run::found("ip") {
        install("iproute2", &[])?;
    }
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        return Ok(());
    }
    for args in [
        &["link", "add", BRIDGE, "type", "bridge"][..],
        &["addr", "add", BRIDGE_ADDRESS, "dev", BRIDGE],
        &["link", "set", BRIDGE, "up"],
    ] {
        run::output(Command::new("ip").args(args).env("PATH", path_with_sbin()))?;
    }
    Ok(())
}

/// Stops the private engine, and with it its containers, and removes its files.
fn down() -> Result<(), String> {
    let Ok(pid) = fs::read_to_string(PID_FILE) else {
        return Err("the private engine does not run".into());
    };
    let pid = pid.trim().to_string();
    let _ = Command::new("kill").arg(&pid).status();
    let started = Instant::now();
    while Path::new("/proc").join(&pid).join("exe").exists() && !is_zombie(&pid) {
        if started.elapsed() > START_LIMIT {
            return Err(format!("the private engine (process {pid}) does not stop"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    run::output(Command::new("ip").args(["link", "del", BRIDGE]).env("PATH", path_with_sbin()))?;
    for directory in [RUN_DIR, DATA_DIR] {
        fs::remove_dir_all(directory).map_err(|error| format!("cannot remove {directory}: {error}"))?;
    }
    eprintln!("docker: stopped the private engine");
    Ok(())
}

fn is_zombie(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn answers(socket: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    };
    ask().is_ok_and(|reply| reply.lines().next().is_some_and(|status| status.contains(" 200 ")))
}

/// dockerd looks for containerd, runc and iptables on its path.
fn path_with_sbin() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}
