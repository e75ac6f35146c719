//! What an engine is told when an image is to be pulled. (With a real engine: `docker.rs`.)

#![allow(clippy::disallowed_methods)] // a server of the test's own

use std::sync::Arc;
use swarmlite_engine::{DockerEngine, DockerOptions, Engine as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// The heads of the requests that came, as they came.
type Heads = Arc<Mutex<Vec<String>>>;

/// An engine that has no image and pulls all that it is asked for.
async fn engine() -> (DockerEngine, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = format!("tcp://{}", listener.local_addr().expect("an address"));
    let heads = Heads::default();
    let seen = heads.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, seen.clone()));
        }
    });
    let options = DockerOptions { host, ..DockerOptions::default() };
    (DockerEngine::new(&options).expect("a Docker host"), heads)
}

async fn answer(mut stream: TcpStream, heads: Heads) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (status, body) = match head.split(' ').nth(1).unwrap_or_default() {
        path if path.contains("/version") => ("200 OK", r#"{"ApiVersion": "1.41", "MinAPIVersion": "1.12"}"#),
        path if path.contains("/images/create") => ("200 OK", r#"{"status": "Download complete"}"#),
        _ => ("404 Not Found", r#"{"message": "No such image"}"#),
    };
    heads.lock().await.push(head);
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    // A client that is gone has its answer in the assertions.
    stream.write_all(answer.as_bytes()).await.ok();
}

#[tokio::test]
async fn credentials_go_to_the_engine_with_the_pull_and_with_nothing_else() {
    let (engine, heads) = engine().await;
    engine.pull("registry.example.org/web:1", Some("eyJ1c2VybmFtZSI6ImEifQ==")).await.expect("it is pulled");
    engine.pull("registry.example.org/open:1", None).await.expect("it is pulled");
    let heads = heads.lock().await;
    let with = |part: &str| heads.iter().filter(|head| head.to_ascii_lowercase().contains(part)).collect::<Vec<_>>();
    let pulls = with("/images/create");
    assert_eq!(pulls.len(), 2, "{heads:?}");
    assert!(pulls[0].contains("fromImage=registry.example.org"), "{}", pulls[0]);
    let told = with("x-registry-auth: eyj1c2vybmftzsi6imeifq==");
    assert_eq!(told, [pulls[0]], "only the pull that was given credentials has them");
}
