//! `swarm unlock`, `swarm unlock-key` and `--autolock`, with the real binary against a scripted daemon.

mod support;

use serde_json::{Value, json};
use std::process::Stdio;
use support::{FakeDaemon, Reply, Run};
use tokio::io::AsyncWriteExt as _;

const NODE: &str = "nnnnnnnnnnnnnnnnnnnnnnnnn";
const KEY: &str = "SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

fn info(state: &str) -> Reply {
    Reply::json(json!({"Swarm": {"NodeID": NODE, "LocalNodeState": state, "ControlAvailable": state == "active"}}))
}

fn swarm(autolock: bool) -> Reply {
    Reply::json(
        json!({"ID": "x", "Version": {"Index": 9}, "JoinTokens": {"Worker": "SWMTKN-1-a-b", "Manager": "SWMTKN-1-a-c"},
        "Spec": {"Name": "default", "EncryptionConfig": {"AutoLockManagers": autolock}}}),
    )
}

fn key() -> Reply {
    Reply::json(json!({"UnlockKey": KEY}))
}

fn done() -> Reply {
    Reply::raw(200, "application/json", "")
}

/// Runs `swarm unlock` with a key on its standard input.
async fn unlock(daemon: &FakeDaemon, input: &str) -> Run {
    let mut command = daemon.command(&["swarm", "unlock"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may have ended without reading.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
}

#[tokio::test]
async fn unlock_reads_the_key_from_a_pipe() {
    let daemon = FakeDaemon::start().on("GET /info", info("locked")).on("POST /swarm/unlock", done());
    let run = unlock(&daemon, &format!("{KEY}\nwhatever follows")).await;
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", ""), "{run:?}");
    assert_eq!(daemon.body_of("POST /v1.52/swarm/unlock"), json!({"UnlockKey": KEY}));
}

#[tokio::test]
async fn unlock_asks_for_no_key_where_none_is_needed_and_shows_what_the_daemon_says() {
    for (state, said) in
        [("inactive", "Error: This node is not part of a swarm"), ("active", "Error: swarm is not locked")]
    {
        let daemon = FakeDaemon::start().on("GET /info", info(state));
        let run = unlock(&daemon, KEY).await;
        assert_eq!((run.code, run.stderr.trim()), (Some(1), said));
    }
    let text = "swarm could not be unlocked: invalid key provided";
    let daemon = FakeDaemon::start().on("GET /info", info("locked")).on("POST /swarm/unlock", Reply::error(401, text));
    let run = unlock(&daemon, KEY).await;
    assert_eq!((run.code, run.stderr.trim()), (Some(1), format!("Error response from daemon: {text}").as_str()));
    assert!(!run.stderr.contains(KEY));
}

#[tokio::test]
async fn unlock_key_is_shown_and_rotated() {
    let daemon = FakeDaemon::start()
        .on("GET /swarm", swarm(true))
        .on("GET /swarm/unlockkey", key())
        .on("POST /swarm/update", done());
    let quiet = daemon.run(&["swarm", "unlock-key", "-q"]).await;
    assert_eq!((quiet.code, quiet.stdout), (Some(0), format!("{KEY}\n")));
    let told = daemon.run(&["swarm", "unlock-key"]).await;
    assert!(
        told.stdout.contains("run the `swarmlite swarm unlock`") && told.stdout.contains(&format!("\n    {KEY}\n"))
    );
    assert!(daemon.requests().iter().all(|(line, _)| !line.starts_with("POST")));

    let rotated = daemon.run(&["swarm", "unlock-key", "--rotate"]).await;
    assert!(rotated.stdout.starts_with("Successfully rotated manager unlock key.\n"), "{rotated:?}");
    let asked = daemon.requests();
    let (line, _) = asked.iter().find(|(line, _)| line.starts_with("POST")).expect("an update");
    assert!(line.contains("version=9") && line.contains("rotateManagerUnlockKey=true"), "{line}");
}

#[tokio::test]
async fn without_autolock_there_is_no_key_to_show_or_rotate() {
    let daemon = FakeDaemon::start()
        .on("GET /swarm", swarm(false))
        .on("GET /swarm/unlockkey", Reply::json(json!({"UnlockKey": ""})));
    let run = daemon.run(&["swarm", "unlock-key"]).await;
    assert_eq!((run.code, run.stderr.trim()), (Some(1), "no unlock key is set"));
    let run = daemon.run(&["swarm", "unlock-key", "--rotate"]).await;
    assert_eq!((run.code, run.stderr.trim()), (Some(1), "cannot rotate because autolock is not turned on"));
}

#[tokio::test]
async fn autolock_is_a_flag_of_update_and_init() {
    let autolock = |body: &Value| body["EncryptionConfig"]["AutoLockManagers"].clone();
    for (args, before, wanted, shows) in [
        (&["swarm", "update", "--autolock"] as &[&str], false, json!(true), true),
        (&["swarm", "update", "--autolock=true"], true, json!(true), false),
        (&["swarm", "update", "--autolock=false"], true, json!(false), false),
        (&["swarm", "update", "--task-history-limit", "3"], true, json!(true), false),
    ] {
        let daemon = FakeDaemon::start()
            .on("GET /swarm", swarm(before))
            .on("GET /swarm/unlockkey", key())
            .on("POST /swarm/update", done());
        let run = daemon.run(args).await;
        assert_eq!((run.code, run.stdout.contains(KEY)), (Some(0), shows), "{args:?}: {run:?}");
        assert!(run.stdout.starts_with("Swarm updated.\n"));
        assert_eq!(autolock(&daemon.body_of("POST /v1.52/swarm/update")), wanted, "{args:?}");
    }
    let node = json!({"ID": NODE, "Spec": {}, "ManagerStatus": {"Addr": "10.0.0.1:2377"}});
    let daemon = FakeDaemon::start()
        .on("POST /swarm/init", Reply::json(json!(NODE)))
        .on(&format!("GET /nodes/{NODE}"), Reply::json(node))
        .on("GET /swarm", swarm(true))
        .on("GET /swarm/unlockkey", key());
    let run = daemon.run(&["swarm", "init", "--autolock"]).await;
    assert!(run.stdout.contains(KEY), "{run:?}");
    let sent = daemon.body_of("POST /v1.52/swarm/init");
    assert_eq!((autolock(&sent["Spec"]), &sent["AutoLockManagers"]), (json!(true), &json!(true)));
}
