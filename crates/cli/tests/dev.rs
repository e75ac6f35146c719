//! `swarmlite dev` as a user sees it: real processes on loopback addresses, with the engine in memory.

#![allow(clippy::disallowed_methods)] // starts processes of the real machine

use std::path::Path;
use std::process::{Command, Output};

struct Dev {
    dir: tempdir::Dir,
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
    let dev = Dev { dir: tempdir::Dir::new("dev-life") };
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
    let dev = Dev { dir: tempdir::Dir::new("dev-engine") };
    dev.refused(&["up", "--docker-host", "unix:///nonexistent/docker.sock"], "--engine embedded");
    dev.refused(&["ls"], "there is no cluster in");
    let output = dev.run(&["up", "--managers", "0"]);
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
}
