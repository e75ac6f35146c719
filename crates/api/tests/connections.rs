//! Connections: slow and greedy clients, and the end of the daemon.

mod support;

use std::time::Duration;
use support::manager;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn rest(mut raw: tokio::io::DuplexStream) -> String {
    let mut all = Vec::new();
    raw.read_to_end(&mut all).await.expect("the connection's end");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_finishes_its_head_is_hung_up_on() {
    let world = manager().await;
    let mut raw = world.connect();
    raw.write_all(b"GET /services HTTP/1.1\r\nHost: do").await.expect("sent");
    let start = tokio::time::Instant::now();
    rest(raw).await;
    assert!(start.elapsed() <= Duration::from_secs(31), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_finishes_its_body_is_told_so() {
    let world = manager().await;
    let mut raw = world.connect();
    let head = "POST /services/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
    raw.write_all(head.as_bytes()).await.expect("sent");
    let reply = rest(raw).await;
    assert!(reply.starts_with("HTTP/1.1 408") && reply.contains("did not come within 30s"), "{reply}");
}

#[tokio::test]
async fn too_much_head_is_refused() {
    let world = manager().await;
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "y".repeat(300 << 10));
    for headers in [many, long] {
        let mut raw = world.connect();
        let head = format!("GET /services HTTP/1.1\r\nHost: docker\r\n{headers}\r\n");
        // The server may hang up before it has read all.
        let (mut read, mut write) = tokio::io::split(&mut raw);
        let mut reply = Vec::new();
        let (_, read) = tokio::join!(write.write_all(head.as_bytes()), read.read_to_end(&mut reply));
        read.expect("a reply");
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.starts_with("HTTP/1.1 431"), "{reply}");
    }
}

#[tokio::test]
async fn noise_instead_of_http_is_refused() {
    let world = manager().await;
    let mut raw = world.connect();
    raw.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await.expect("sent");
    let reply = rest(raw).await;
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
}

#[tokio::test]
async fn a_socket_is_served_until_the_daemon_stops() {
    let world = manager().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let (api, tasks) = (world.api.clone(), world.tasks.clone());
    world.tasks.spawn("serve", async move { api.serve_unix(listener, tasks).await });
    let mut raw = tokio::net::UnixStream::connect(&path).await.expect("a connection");
    raw.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n").await.expect("sent");
    let mut reply = vec![0; 4096];
    let n = raw.read(&mut reply).await.expect("a reply");
    assert!(reply[..n].starts_with(b"HTTP/1.1 200"));
    assert!(world.tasks.shutdown(Duration::from_secs(5)).await, "an idle connection holds nothing up");
    assert!(matches!(raw.read(&mut reply).await, Ok(0) | Err(_)));
    assert!(tokio::net::UnixStream::connect(&path).await.is_err());
}
