//! `swarmlite dev` as a user sees it: real processes on loopback addresses, with the engine in memory.

#![allow(clippy::disallowed_methods)] // starts processes of the real machine

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard};

/// Two clusters that come up at once may both find the same addresses free.
static ADDRESSES: Mutex<()> = Mutex::new(());

struct Dev {
    dir: tempdir::Dir,
    /// Held to the end, after the cluster is down.
    _alone: MutexGuard<'static, ()>,
}

/// A directory that is gone afterwards.
mod tempdir {
    use std::path::PathBuf;

    pub(crate) struct Dir(pub(crate) PathBuf);

    impl Dir {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("swarmlite-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("created");
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

impl Dev {
    fn new(name: &str) -> Dev {
        // A test that failed leaves nothing behind that another one could not do with.
        let alone = ADDRESSES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Dev { dir: tempdir::Dir::new(name), _alone: alone }
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmlite"));
        command.args(["dev", "--dir"]).arg(&self.dir.0).args(args).env_remove("DOCKER_HOST");
        command.output().expect("starts")
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "dev {args:?}: {stdout}{stderr}");
        stdout
    }

    fn refused(&self, args: &[&str], says: &str) {
        let output = self.run(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "dev {args:?}: {stderr}");
        assert!(stderr.contains(says), "dev {args:?}: {stderr}");
    }
}

/// What a command gave: its output, what it said besides, and its exit code.
type Said = (String, String, Option<i32>);

impl Dev {
    /// Runs a command against the first manager.
    fn swarmlite(&self, args: &[&str]) -> Said {
        let socket = self.dir.0.join("manager1/swarmlite.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmlite"));
        command.arg("-H").arg(format!("unix://{}", socket.display())).args(args);
        let output = command.output().expect("starts");
        (text(&output.stdout), text(&output.stderr), output.status.code())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn status_of(table: &str, node: &str) -> String {
    table.lines().find(|line| line.starts_with(node)).unwrap_or_default().to_string()
}

#[test]
fn the_life_of_a_cluster() {
    let dev = Dev::new("dev-life");
    dev.refused(&["ls"], "there is no cluster in");
    let printed = dev.ok(&["up", "--managers", "3", "--workers", "1", "--engine", "embedded"]);
    for part in ["manager1", "manager3", "worker1", "Leader", "Reachable", "SWARMLITE_HOST=unix://", "EMBEDDED"] {
        assert!(printed.contains(part), "{part} is missing in:\n{printed}");
    }
    dev.refused(&["up"], "a cluster is in");
    dev.refused(&["kill", "manager9"], "its nodes are manager1, manager2, manager3, worker1");
    assert_eq!(dev.ok(&["ls", "--quiet"]), "manager1\nmanager2\nmanager3\nworker1\n");

    let killed = dev.ok(&["kill", "leader"]).trim().to_string();
    assert!(killed.starts_with("manager"), "{killed}");
    dev.refused(&["kill", &killed], "is not running");
    dev.ok(&["stop", "worker1"]);
    let table = dev.ok(&["ls"]);
    assert!(status_of(&table, &killed).contains("stopped"), "{table}");
    assert!(status_of(&table, "worker1").contains("stopped"), "{table}");

    assert_eq!(dev.ok(&["start", "worker1"]), "worker1\n");
    dev.refused(&["start", "worker1"], "is running already");
    assert_eq!(dev.ok(&["start"]), format!("{killed}\n"));
    let table = dev.ok(&["ls"]);
    assert!(!table.contains("stopped"), "{table}");

    dev.ok(&["down"]);
    dev.refused(&["down"], "there is no cluster in");
    assert!(!Path::new(&dev.dir.0).join("manager1").exists(), "its files are gone");
}

#[test]
fn without_an_engine_nothing_is_started() {
    let dev = Dev::new("dev-engine");
    dev.refused(&["up", "--docker-host", "unix:///nonexistent/docker.sock"], "--engine embedded");
    dev.refused(&["ls"], "there is no cluster in");
    let output = dev.run(&["up", "--managers", "0"]);
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
}

#[test]
fn what_swarm_never_had() {
    let dev = Dev::new("dev-beyond");
    dev.ok(&["up", "--managers", "1", "--workers", "2", "--engine", "embedded"]);
    let create = ["service", "create", "--no-resolve-image", "--quiet", "--name"];
    let created = dev.swarmlite(&[&create[..], &["web", "--replicas", "3", "nginx:1"]].concat());
    assert_eq!(created.2, Some(0), "{created:?}");

    // A plan changes nothing.
    let (plan, _, code) = dev.swarmlite(&["service", "scale", "--plan", "web=6"]);
    assert!(plan.contains("service web: replicas 3 -> 6\n") && plan.contains("web.6") && code == Some(2), "{plan}");
    let (plan, _, code) = dev.swarmlite(&["service", "scale", "--plan", "web=3"]);
    assert!(plan.starts_with("Nothing would change.\n") && code == Some(0), "{plan}");
    let (drained, _, code) =
        dev.swarmlite(&["simulate", "--drain", "worker1", "--kill", "worker2", "--scale", "web=4"]);
    assert!(drained.contains("4 web") && code == Some(2), "{drained}");
    let count = ["service", "ls", "--format", "{{.Name}} {{.Replicas}}"];
    assert_eq!(dev.swarmlite(&count).0, "web 3/3\n");

    // A command runs in the container of any node.
    for slot in 1..=3 {
        let (out, err, code) = dev.swarmlite(&["service", "exec", &format!("web.{slot}"), "echo", "here"]);
        assert_eq!((out.as_str(), code), ("here\n", Some(0)), "{slot}: {err}");
    }
    let exit = dev.swarmlite(&["service", "exec", "web", "sh", "-c", "exit 7"]);
    assert_eq!(exit.2, Some(7), "{exit:?}");

    // What cannot be is explained.
    dev.swarmlite(&[&create[..], &["big", "-d", "--reserve-cpu", "4000", "nginx:1"]].concat());
    let (why, err, code) = dev.swarmlite(&["service", "why", "big"]);
    assert!(why.contains("big.1") && why.contains("worker1") && why.contains("4000") && code == Some(0), "{why}{err}");
    let (_, err, code) = dev.swarmlite(&[&create[..], &["root", "-d", "--privileged", "nginx:1"]].concat());
    assert!(err.contains("swarmlite.policy.privileged=allow") && code == Some(1), "{err}");
    assert_eq!(dev.swarmlite(&["swarm", "update", "--policy", "privileged=allow"]).2, Some(0));
    let (_, err, code) = dev.swarmlite(&[&create[..], &["root", "-d", "--privileged", "nginx:1"]].concat());
    assert_eq!(code, Some(0), "{err}");
    let scheduled = dev
        .swarmlite(&[&create[..], &["nightly", "--mode", "cron-job", "--schedule", "0 3 * * *", "nginx:1"]].concat());
    assert_eq!(scheduled.2, Some(0), "{scheduled:?}");
    let (rebalance, err, code) = dev.swarmlite(&["node", "rebalance", "web"]);
    assert!(rebalance.starts_with("Rebalancing web,") && code == Some(0), "{rebalance}{err}");
    dev.ok(&["down"]);
}
