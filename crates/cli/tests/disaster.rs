//! `swarmlite backup`, `restore` and `init --force-new-cluster` as a user calls them: real processes, the engine in memory.

#![allow(clippy::disallowed_methods)] // starts processes of the real machine, and waits for them

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a cluster in it; both are gone afterwards.
struct Place {
    dir: PathBuf,
    daemon: Option<Child>,
}

impl Place {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmlite"));
        command
            .args(args)
            .current_dir(&self.dir)
            .env_remove("DOCKER_HOST")
            .env("SWARMLITE_DEV_DIR", self.dir.join("dev"));
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("starts")
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn refused(&self, args: &[&str], says: &str) {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stdout));
        assert!(text(&output.stderr).contains(says), "{args:?}: {}", text(&output.stderr));
    }

    fn until(&self, what: &str, mut met: impl FnMut(&Place) -> bool) {
        let begun = Instant::now();
        while !met(self) {
            assert!(begun.elapsed() < PATIENCE, "still waiting: {what}\n{}", text(&self.run(&["node", "ls"]).stdout));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = self.run(&["dev", "down"]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_wiped_cluster_is_restored_from_a_backup_with_its_services_and_secrets() {
    let dir = std::env::temp_dir().join(format!("swarmlite-disaster-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("created");
    let mut place = Place { dir, daemon: None };
    place.ok(&["dev", "up", "--managers", "1", "--workers", "1", "--engine", "embedded"]);
    let socket = place.dir.join("dev/manager1/swarmlite.sock");
    let host = format!("unix://{}", socket.display());
    let at =
        |host: &str, args: &[&str]| [&["-H", host], args].concat().iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let on = |place: &Place, host: &str, args: &[&str]| {
        let args = at(host, args);
        place.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    // All tasks on the worker, which outlives the manager: nobody has to wait until the manager counts as lost.
    on(&place, &host, &["node", "update", "--availability", "drain", "manager1"]);
    on(&place, &host, &["service", "create", "--detach", "--name", "web", "--replicas", "4", "web:1"]);
    let mut create = place.command(&["-H", &host, "secret", "create", "password", "-"]);
    let mut create = create.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
    create.stdin.take().expect("piped").write_all(b"swordfish").expect("written");
    assert!(create.wait().expect("ends").success());

    // The backup, and what is wrong with others.
    let said = on(&place, &host, &["backup", "create", "b.bak"]);
    assert!(said.contains("1 secret,") && said.contains("verified"), "{said}");
    let key = said.split_whitespace().find(|w| w.starts_with("SWMBAK-1-")).expect("the key is shown").to_owned();
    place.refused(&["-H", &host, "backup", "create", "b.bak"], "is there already");
    std::fs::write(place.dir.join("key"), &key).expect("written");
    std::fs::write(place.dir.join("other"), "SWMBAK-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").expect("written");
    let file = std::fs::read(place.dir.join("b.bak")).expect("a file");
    assert!(!file.windows(9).any(|w| w == b"swordfish"));
    place.ok(&["backup", "verify", "--key-file", "key", "b.bak"]);
    place.refused(&["backup", "verify", "--key-file", "other", "b.bak"], "the key does not fit this backup");
    place.refused(&["backup", "verify", "b.bak"], "the backup's key is needed");
    // The environment counts where there is no flag, and is in no flag's way.
    for (variable, args) in [
        (key.as_str(), &["backup", "verify", "b.bak"] as &[_]),
        ("of another backup", &["backup", "verify", "--key-file", "key", "b.bak"]),
    ] {
        let verified = place.command(args).env("SWARMLITE_BACKUP_KEY", variable).output().expect("starts");
        assert!(verified.status.success(), "{args:?}: {}", text(&verified.stderr));
    }
    place.refused(&["restore", "--key-file", "other", "--data-dir", "new", "b.bak"], "the key does not fit");
    place.refused(&["restore", "--key-file", "key", "--data-dir", "dev", "b.bak"], "is not empty");
    place.refused(&["restore", "--key-file", "key", "--data-dir", "new", "key"], "this is no backup");
    let running = place.dir.join("dev/manager1/data");
    place.refused(
        &["restore", "--key-file", "key", "--data-dir", running.to_str().expect("a path"), "b.bak"],
        "is running on",
    );
    assert!(!place.dir.join("new").exists(), "a refused restore leaves nothing");

    // The manager is lost with its disk; the worker goes on.
    let listed = place.ok(&["dev", "ls"]);
    let address = listed.lines().find(|l| l.starts_with("manager1")).and_then(|l| l.split_whitespace().nth(2));
    let address = address.expect("its address").to_owned();
    place.ok(&["dev", "kill", "manager1"]);
    std::fs::remove_dir_all(&running).expect("wiped");
    let said = place.ok(&["restore", "--key", &key, "--data-dir", "new", "--listen-addr", &address, "b.bak"]);
    assert!(said.contains("its only manager") && said.contains("swarmlite daemon --data-dir"), "{said}");
    let new = place.dir.join("new.sock");
    let args = ["daemon", "--data-dir", "new", "--engine", "embedded", "--listen-addr", &address, "--socket"];
    let daemon = place.command(&args).arg(&new).stderr(Stdio::null()).spawn().expect("starts");
    place.daemon = Some(daemon);
    let new = format!("unix://{}", new.display());
    place.until("the worker is back, and the service whole", |place| {
        let nodes = text(&place.run(&["-H", &new, "node", "ls"]).stdout);
        let worker = nodes.lines().find(|l| l.contains("worker1")).unwrap_or_default();
        worker.contains("Ready") && text(&place.run(&["-H", &new, "service", "ls"]).stdout).contains("4/4")
    });
    let moved = on(&place, &new, &["service", "scale", "--detach", "web=5"]);
    assert!(moved.contains("web"), "{moved}");
    place.until("the new task runs", |place| text(&place.run(&["-H", &new, "service", "ls"]).stdout).contains("5/5"));
    assert!(on(&place, &new, &["secret", "ls"]).contains("password"));

    // A cluster of one can always be forced anew.
    let said = on(&place, &new, &["init", "--force-new-cluster"]);
    assert!(said.contains("is now a manager"), "{said}");
    place.until("it goes on", |place| text(&place.run(&["-H", &new, "service", "ls"]).stdout).contains("5/5"));
}
