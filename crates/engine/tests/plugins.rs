//! What an engine is told when a plugin is to be installed, and what it says meanwhile. (With a real engine: the agent's
//! `docker_plugins`.)

#![allow(clippy::disallowed_methods)] // a server of the test's own

use model::PluginPrivilege;
use std::sync::Arc;
use swarmlite_engine::{DockerEngine, DockerOptions, EngineError, PluginSource, Plugins as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// The requests that came, head and body, as they came.
type Requests = Arc<Mutex<Vec<String>>>;

/// An engine that says this of every pull.
async fn engine(progress: &'static [&'static str]) -> (DockerEngine, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = format!("tcp://{}", listener.local_addr().expect("an address"));
    let requests = Requests::default();
    let seen = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, seen.clone(), progress));
        }
    });
    let options = DockerOptions { host, ..DockerOptions::default() };
    (DockerEngine::new(&options).expect("a Docker host"), requests)
}

async fn answer(mut stream: TcpStream, requests: Requests, progress: &[&str]) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("the body");
    requests.lock().await.push(format!("{head}{}", String::from_utf8_lossy(&body)));
    let answer = match head.split(' ').nth(1).unwrap_or_default() {
        path if path.contains("/version") => whole("200 OK", r#"{"ApiVersion": "1.41", "MinAPIVersion": "1.12"}"#),
        path if path.contains("/plugins/pull") || path.contains("/upgrade") => chunks(progress),
        path if path.contains("/set") => whole("500 Internal Server Error", r#"{"message": "\"C\" is not settable"}"#),
        path if path.contains("/plugins/odd") => whole("200 OK", r#"{"Name": "odd:latest"}"#),
        path if path.contains("/plugins/text") => whole("200 OK", "hello"),
        path if path.contains("/plugins/there") => whole("200 OK", r#"{"Id": "1", "Name": "there:latest"}"#),
        path if path.ends_with("/enable?timeout=30") => whole("200 OK", ""),
        _ => whole("404 Not Found", r#"{"message": "plugin not found"}"#),
    };
    // A client that is gone has its answer in the assertions.
    stream.write_all(answer.as_bytes()).await.ok();
}

fn whole(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn chunks(lines: &[&str]) -> String {
    let chunks: String = lines.iter().map(|line| format!("{:x}\r\n{line}\r\n", line.len())).collect();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
}

fn source() -> PluginSource {
    PluginSource {
        remote: "registry/net:1".into(),
        privileges: vec![PluginPrivilege {
            name: "network".into(),
            description: "d".into(),
            value: vec!["host".into()],
        }],
        registry_auth: Some("e30=".into()),
    }
}

#[tokio::test]
async fn a_pull_says_what_is_wanted_and_is_followed_to_its_end() {
    let progress = &["{\"status\":\"Pulling\"}\r\n{\"sta", "tus\":\"Complete\"}\r\n"];
    let (engine, requests) = engine(progress).await;
    engine.plugin_install("net:latest", &source()).await.expect("it is installed");
    engine.plugin_upgrade("net:latest", &source()).await.expect("it is upgraded");
    let requests = requests.lock().await;
    let pulls: Vec<_> = requests.iter().filter(|r| r.contains("x-registry-auth: e30=")).collect();
    assert_eq!(pulls.len(), 2, "{requests:?}");
    assert!(
        pulls[0].starts_with("post /v1.41/plugins/pull?remote=registry%2fnet%3a1&name=net%3alatest "),
        "{}",
        pulls[0]
    );
    assert!(pulls[1].starts_with("post /v1.41/plugins/net:latest/upgrade?remote=registry%2fnet%3a1 "), "{}", pulls[1]);
    assert!(
        pulls.iter().all(|r| r.ends_with(r#"[{"Description":"d","Name":"network","Value":["host"]}]"#)),
        "{pulls:?}"
    );
}

#[tokio::test]
async fn an_error_in_the_middle_of_it_is_an_error() {
    let failed = async |progress| engine(progress).await.0.plugin_install("net:latest", &source()).await.unwrap_err();
    let error =
        failed(&["{\"status\":\"Pulling\"}\r\n", "{\"errorDetail\":{\"message\":\"boom\"},\"error\":\"boom\"}\r\n"])
            .await;
    assert_eq!(error, EngineError::Failed("boom".into()));
    // Without an end of the line, too; and what the plugin asks for does not change by asking again.
    let error = failed(&["{\"error\":\"incorrect privileges\"}"]).await;
    assert!(matches!(&error, EngineError::Refused(why) if why.starts_with("incorrect privileges: ")), "{error}");
    // The name was free when it began.
    let error = failed(&["{\"error\":\"plugin net:latest already exists\"}"]).await;
    assert_eq!(error, EngineError::Conflict("plugin net:latest already exists".into()));
}

#[tokio::test]
async fn other_calls_have_the_engines_answers() {
    let (engine, _) = engine(&[]).await;
    assert_eq!(engine.plugin("none:latest").await, Ok(None));
    assert_eq!(engine.plugin("there:latest").await.map(|p| p.map(|p| p.name)), Ok(Some("there:latest".to_owned())));
    for odd in ["odd:latest", "text:latest"] {
        let error = engine.plugin(odd).await.unwrap_err();
        assert!(matches!(error, EngineError::Failed(_)), "neither is it there nor is it not: {error}");
    }
    assert_eq!(engine.plugin_enable("there:latest").await, Ok(()));
    assert_eq!(engine.plugin_disable("none:latest").await, Ok(()));
    assert_eq!(engine.plugin_remove("none:latest").await, Ok(()));
    let refused = engine.plugin_set("there:latest", &["C=1".into()]).await;
    assert_eq!(refused, Err(EngineError::Refused("\"C\" is not settable".into())));
    let hostile = engine.plugin("../containers/x").await.unwrap_err();
    assert!(matches!(hostile, EngineError::Refused(_)), "{hostile}");
}
