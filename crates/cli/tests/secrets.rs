//! `secret`, `config` and what services have of them: the real binary against a scripted daemon.

mod support;

use serde_json::{Value, json};
use std::process::Stdio;
use support::{FakeDaemon, Reply, Run, swarmlite};
use tokio::io::AsyncWriteExt as _;

const ID: &str = "ddddddddddddddddddddddddd";
/// What must never be seen again once it was read.
const MARKER: &str = "hunter2-marker";

fn object(name: &str, more: &Value) -> Value {
    let mut spec = json!({"Name": name, "Labels": {"a": "1", "b": ""}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"ID": ID, "Version": {"Index": 11}, "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-02T00:00:00Z", "Spec": spec})
}

fn created() -> Reply {
    Reply::raw(201, "application/json", json!({"ID": ID}).to_string())
}

async fn with_input(daemon: &FakeDaemon, args: &[&str], input: &[u8]) -> Run {
    let mut command = daemon.command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    Run {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code(),
    }
}

/// A file with these bytes, in a directory that is gone when it is dropped.
async fn file(bytes: &[u8]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("content");
    tokio::fs::File::create(&path).await.unwrap().write_all(bytes).await.unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[tokio::test]
async fn content_comes_from_a_file_or_standard_input_byte_for_byte() {
    let daemon = FakeDaemon::start().on("POST /secrets/create", created()).on("POST /configs/create", created());
    let (_directory, path) = file(&[0, 159, 146, 150, b'\n']).await;
    let run = daemon.run(&["secret", "create", "-l", "a=1", "--label", "b", "db", &path]).await;
    assert_eq!((run.stdout, run.stderr.as_str(), run.code), (format!("{ID}\n"), "", Some(0)));
    assert_eq!(
        daemon.body_of("POST /v1.52/secrets/create"),
        json!({"Name": "db", "Labels": {"a": "1", "b": ""}, "Data": "AJ+Slgo="})
    );
    let run = with_input(&daemon, &["config", "create", "--template-driver", "golang", "site", "-"], b"hello\n").await;
    assert_eq!((run.stdout, run.code), (format!("{ID}\n"), Some(0)), "{}", run.stderr);
    assert_eq!(
        daemon.body_of("POST /v1.52/configs/create"),
        json!({"Name": "site", "Labels": {}, "Data": "aGVsbG8K", "Templating": {"Name": "golang"}})
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_nothing_is_sent() {
    let daemon = FakeDaemon::start();
    for (args, says) in [
        (&["secret", "create", "db"][..], "secret file is required\n"),
        (
            &["secret", "create", "db", "/nonexistent"],
            "error reading from /nonexistent: open /nonexistent: no such file or directory\n",
        ),
        (&["config", "create", "db", "-"], "error reading from STDIN: data is empty\n"),
        (&["secret", "create", "-d", "vault", "db", "/x"], "When using secret driver secret data must be empty\n"),
        (
            &["secret", "update", "db"],
            "nothing to change: name a file with the secret's new content (or - for STDIN), or use --label-add or --label-rm\n",
        ),
    ] {
        let run = with_input(&daemon, args, b"").await;
        assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), ("", says, Some(1)), "{args:?}");
    }
    let run = daemon.run(&["secret", "create"]).await;
    assert!(
        run.stderr.contains("'swarmlite secret create' requires at least 1 and at most 2 arguments"),
        "{}",
        run.stderr
    );
    let run = daemon.run(&["config", "create", "x"]).await;
    assert!(run.stderr.contains("'swarmlite config create' requires 2 arguments"), "{}", run.stderr);
    assert!(daemon.requests().is_empty());
}

#[tokio::test]
async fn content_is_never_shown_again() {
    let refused = Reply::error(409, "rpc error: code = AlreadyExists desc = secret db already exists");
    let daemon = FakeDaemon::start()
        .on("POST /secrets/create", refused)
        .on("GET /secrets/db", Reply::json(object("db", &json!({}))))
        .on(&format!("POST /secrets/{ID}/update"), Reply::raw(200, "text/plain", ""));
    for args in [&["-D", "secret", "create", "db", "-"][..], &["-D", "secret", "update", "db", "-"]] {
        let run = with_input(&daemon, args, MARKER.as_bytes()).await;
        assert!(!format!("{run:?}").contains(MARKER), "{run:?}");
    }
    assert_eq!(daemon.requests().iter().filter(|(_, body)| body.contains("aHVudGVyMi1tYXJrZXI=")).count(), 2);
}

#[tokio::test]
async fn an_update_sends_labels_and_content_only_where_it_is_new() {
    let now = object("site", &json!({"Data": "aGVsbG8K", "Templating": {"Name": "golang"}}));
    let daemon = FakeDaemon::start()
        .on("GET /configs/site", Reply::json(now))
        .on(&format!("POST /configs/{ID}/update"), Reply::raw(200, "text/plain", ""));
    let run = daemon.run(&["config", "update", "--label-add", "c=3", "--label-rm", "a", "site"]).await;
    assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), ("site\n", "", Some(0)));
    let (line, body) = daemon.requests().last().cloned().unwrap();
    assert_eq!(line, format!("POST /v1.52/configs/{ID}/update?version=11"));
    let sent: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(sent, json!({"Name": "site", "Labels": {"b": "", "c": "3"}, "Templating": {"Name": "golang"}}));
    with_input(&daemon, &["config", "update", "site", "-"], b"new").await;
    let (_, body) = daemon.requests().last().cloned().unwrap();
    let sent: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&sent["Data"], &sent["Labels"]), (&json!("bmV3"), &json!({"a": "1", "b": ""})));
}

#[tokio::test]
async fn they_are_listed_and_inspected_as_docker_does() {
    let daemon = FakeDaemon::start()
        .on("GET /secrets", Reply::json(json!([object("db10", &json!({})), object("db2", &json!({}))])))
        .on("GET /configs", Reply::json(json!([object("site", &json!({"Data": "aGVsbG8K"}))])))
        .on("GET /secrets/db", Reply::json(object("db", &json!({}))))
        .on("GET /configs/site", Reply::json(object("site", &json!({"Data": "aGVsbG8K"}))));
    let run = daemon.run(&["secret", "ls"]).await;
    let lines: Vec<Vec<&str>> =
        run.stdout.lines().map(|l| l.split("   ").map(str::trim).filter(|w| !w.is_empty()).collect()).collect();
    assert_eq!(lines[0], ["ID", "NAME", "DRIVER", "CREATED", "UPDATED"]);
    assert_eq!((lines[1][..2].to_vec(), lines[2][..2].to_vec()), (vec![ID, "db2"], vec![ID, "db10"]));
    assert!(lines[1][2].ends_with(" ago"), "{lines:?}");
    let run = daemon.run(&["config", "ls", "-f", "label=a=1", "--format", "{{.Name}} {{.Labels}}"]).await;
    assert_eq!(run.stdout, "site a=1,b=\n");
    assert!(
        daemon.requests().last().unwrap().0.ends_with("/configs?filters=%7B%22label%22%3A%7B%22a%3D1%22%3Atrue%7D%7D")
    );
    let run = daemon.run(&["config", "ls", "-q"]).await;
    assert_eq!(run.stdout, format!("{ID}\n"));
    let run = daemon.run(&["secret", "inspect", "--pretty", "db"]).await;
    let want = format!(
        "ID:              {ID}\nName:              db\nLabels:\n - a=1\n - b\nDriver:            \n\
         Created at:        2026-01-01 00:00:00 +0000 utc\nUpdated at:        2026-01-02 00:00:00 +0000 utc\n"
    );
    assert_eq!((run.stdout, run.code), (want, Some(0)));
    let run = daemon.run(&["config", "inspect", "--pretty", "site"]).await;
    assert!(run.stdout.starts_with(&format!("ID:\t\t\t{ID}\nName:\t\t\tsite\nLabels:\n")), "{}", run.stdout);
    assert!(run.stdout.ends_with("\nData:\nhello\n\n"), "{:?}", run.stdout);
    let run = daemon.run(&["secret", "inspect", "-f", "{{.Spec.Name}}", "db", "nope"]).await;
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str(), run.code),
        ("db\n", "Error response from daemon: GET /secrets/nope not found\n", Some(1))
    );
}

#[tokio::test]
async fn one_that_cannot_be_removed_does_not_keep_the_others() {
    let in_use = "rpc error: code = InvalidArgument desc = secret 'db' is in use by the following service: web";
    let daemon = FakeDaemon::start()
        .on("DELETE /secrets/db", Reply::error(400, in_use))
        .on("DELETE /secrets/other", Reply::raw(204, "text/plain", ""));
    let run = daemon.run(&["secret", "rm", "db", "other"]).await;
    let want = format!("Error response from daemon: {in_use}\n");
    assert_eq!((run.stdout.as_str(), run.stderr, run.code), ("other\n", want, Some(1)));
}

/// A service that uses the secret `old`.
fn service() -> Value {
    let old =
        json!({"SecretID": "o", "SecretName": "old", "File": {"Name": "pw", "UID": "0", "GID": "0", "Mode": 292}});
    json!({"ID": ID, "Version": {"Index": 20}, "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z",
        "Spec": {"Name": "web", "Labels": {}, "Mode": {"Replicated": {"Replicas": 1}},
            "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1", "Secrets": [old]}, "ForceUpdate": 0}}})
}

#[tokio::test]
async fn a_service_names_what_it_uses_by_id() {
    let daemon = FakeDaemon::start()
        .on("POST /services/create", created())
        // The filter is a prefix: more may come than was asked for.
        .on("GET /secrets", Reply::json(json!([object("db2", &json!({})), object("db", &json!({}))])))
        .on("GET /configs", Reply::json(json!([object("site", &json!({}))])))
        .on("GET /services/web", Reply::json(service()))
        .on(&format!("POST /services/{ID}/update"), Reply::json(json!({"Warnings": null})));
    let create = ["service", "create", "-d", "--no-resolve-image"];
    let flags = ["--secret", "db", "--secret", "source=db,target=other,uid=33,gid=44,mode=0400"];
    let config = ["--config", "source=site,target=/etc/site.conf"];
    let run = daemon.run(&[&create[..], &flags, &config, &["nginx"]].concat()).await;
    assert_eq!((run.stdout, run.stderr.as_str(), run.code), (format!("{ID}\n"), "", Some(0)));
    let sent = daemon.body_of("POST /v1.52/services/create");
    let container = &sent["TaskTemplate"]["ContainerSpec"];
    assert_eq!(
        container["Secrets"],
        json!([
            {"File": {"Name": "db", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": ID, "SecretName": "db"},
            {"File": {"Name": "other", "UID": "33", "GID": "44", "Mode": 256}, "SecretID": ID, "SecretName": "db"},
        ])
    );
    assert_eq!(
        container["Configs"],
        json!([{"File": {"Name": "/etc/site.conf", "UID": "0", "GID": "0", "Mode": 292}, "ConfigID": ID, "ConfigName": "site"}])
    );
    for (flags, says) in [
        (["--secret", "none", "--config", "site"], "secret not found: none\n"),
        (["--secret", "db", "--config", "none"], "config not found: none\n"),
        (["--secret", "db", "--secret", "source=x,target=db"], "duplicate secret target for x not allowed\n"),
    ] {
        let run = daemon.run(&[&create[..], &flags, &["nginx"]].concat()).await;
        assert_eq!((run.stderr.as_str(), run.code), (says, Some(1)));
    }
    let update = ["service", "update", "-d", "--secret-rm", "old", "--secret-add", "source=db,target=pw"];
    let run = daemon.run(&[&update[..], &["--config-add", "site", "web"]].concat()).await;
    assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), ("web\n", "", Some(0)));
    let sent = daemon.body_of(&format!("POST /v1.52/services/{ID}/update"));
    let container = &sent["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Secrets"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&container["Secrets"][0]["SecretName"], &container["Secrets"][0]["File"]["Name"]),
        (&json!("db"), &json!("pw"))
    );
    assert_eq!(container["Configs"][0]["ConfigID"], ID);
    let shown = daemon.run(&["service", "inspect", "--pretty", "web"]).await;
    assert!(shown.stdout.contains("Secrets:\n Target:\tpw\n  Source:\told\n"), "{}", shown.stdout);
}

#[tokio::test]
async fn completion_scripts_know_secrets_and_configs() {
    let run = support::finish(swarmlite(&["completion", "bash"])).await;
    for word in ["secret__subcmd__create", "config__subcmd__update", "--secret-add", "--template-driver"] {
        assert!(run.stdout.contains(word), "{word}");
    }
}
