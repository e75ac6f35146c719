//! Attacks on the HTTP API, named after the points of the attack list.

#[path = "support/log.rs"]
mod log;
mod support;

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use log::Log;
use model::Role;
use parking_lot::Mutex;
use seams::{BoxStream, Listener};
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::StoreClient as _;
use support::{World, manager, minimal};
use swarmlite_api::access::{Row, TABLE, To};
use swarmlite_api::{Caller, Gate, Right};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

const VIEWER: Right = Right::Viewer;

/// Gives everybody the same right, until then; never answers somebody who sends `silent` first.
struct TestGate(Right, Duration);

#[async_trait]
impl Gate for TestGate {
    async fn admit(&self, mut stream: BoxStream) -> io::Result<(BoxStream, Caller)> {
        let mut first = [0];
        stream.read_exact(&mut first).await?;
        match first[0] {
            b'!' => Ok((stream, Caller { right: self.0, name: "ada".into(), until: Some(self.1) })),
            _ => Err(io::Error::other("no certificate")),
        }
    }
}

type Arrivals = mpsc::UnboundedReceiver<(BoxStream, SocketAddr)>;
struct MemListener(tokio::sync::Mutex<Arrivals>);

#[async_trait]
impl Listener for MemListener {
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        match self.0.lock().await.recv().await {
            Some(arrival) => Ok(arrival),
            None => std::future::pending().await,
        }
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 0, 0, 1], 2376)))
    }
}

/// A port behind a gate.
struct Port(mpsc::UnboundedSender<(BoxStream, SocketAddr)>);

impl Port {
    fn open(world: &World, right: Right) -> Port {
        Port::open_until(world, right, Duration::from_secs(1 << 40))
    }

    fn open_until(world: &World, right: Right, until: Duration) -> Port {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (api, tasks) = (world.api.clone(), world.tasks.clone());
        let listener = Box::new(MemListener(tokio::sync::Mutex::new(receiver)));
        let gate = Arc::new(TestGate(right, until));
        world.tasks.spawn("port", async move { api.serve_gated(listener, gate, tasks).await });
        Port(sender)
    }

    fn connect(&self, from: u8) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        self.0.send((Box::new(theirs), SocketAddr::from(([10, 0, 1, from], 999)))).expect("a listener");
        ours
    }

    /// One request on a connection of its own: the status and the body.
    async fn ask(&self, from: u8, method: &str, path: &str) -> (u16, String) {
        let mut raw = self.connect(from);
        raw.write_all(format!("!{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .expect("sent");
        reply(&mut raw).await
    }
}

/// Reads to the end of the connection.
async fn reply(raw: &mut DuplexStream) -> (u16, String) {
    let mut all = Vec::new();
    raw.read_to_end(&mut all).await.expect("the connection's end");
    let text = String::from_utf8_lossy(&all).into_owned();
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, text)
}

/// Sends raw bytes on a local connection and reads to its end.
async fn raw(world: &World, bytes: &[u8]) -> (u16, String) {
    let mut stream = world.connect();
    // The server may hang up before it has read all.
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let mut all = Vec::new();
    let (_, done) = tokio::join!(write.write_all(bytes), read.read_to_end(&mut all));
    done.expect("the connection's end");
    let text = String::from_utf8_lossy(&all).into_owned();
    (text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0), text)
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n{headers}\r\n{body}")
}

/// A row's path with something in its places.
fn filled(row: &Row) -> String {
    let segment = |s: &str| if s.starts_with('{') { "x".to_owned() } else { s.to_owned() };
    row.path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_row_of_ours_has_a_handler() {
    let world = manager().await;
    for row in TABLE.iter().filter(|row| row.to == To::Us && !row.lasts) {
        let body = json!({});
        let answer = world.call(row.method, &filled(row), (row.method == "POST").then_some(&body)).await;
        let not_there = answer.status == 404 && answer.body.starts_with(b"{\"message\":\"page not found\"");
        assert!(!not_there, "{} {}: nobody answers", row.method, row.path);
    }
}

#[tokio::test(start_paused = true)]
async fn attack_14_bodies_that_are_too_large_or_never_end_are_refused() {
    let world = manager().await;
    let before = world.store.local().index();
    // Declared: refused before a byte of it is read.
    let declared = post("/services/create", &format!("Content-Length: {}\r\n", (16 << 20) + 1), "");
    let (status, text) = raw(&world, declared.as_bytes()).await;
    assert_eq!(status, 413, "{text}");
    // Undeclared, in chunks that never end.
    let mut endless = post("/services/create", "Transfer-Encoding: chunked\r\n", "").into_bytes();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    (0..100).for_each(|_| endless.extend_from_slice(chunk.as_bytes()));
    let (status, text) = raw(&world, &endless).await;
    assert_eq!(status, 413, "{}", &text[..text.len().min(500)]);
    // Less than was declared, and then silence.
    let start = Instant::now();
    let (status, _) = raw(&world, post("/services/create", "Content-Length: 100\r\n", "{}").as_bytes()).await;
    assert!(status == 408 && start.elapsed() <= Duration::from_secs(31), "{status} after {:?}", start.elapsed());
    // More than was declared: what is too much is a request of its own, and none of ours.
    let (_, text) =
        raw(&world, post("/services/create", "Content-Length: 2\r\n", "{}{\"Name\":\"x\"}\r\n\r\n").as_bytes()).await;
    assert_eq!(text.matches("HTTP/1.1 400").count(), 2, "{text}");
    // A chunk size that overflows.
    let lie = post("/services/create", "Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n");
    let (status, text) = raw(&world, lie.as_bytes()).await;
    assert!((400..500).contains(&status), "{text}");
    assert_eq!(world.store.local().index(), before, "nothing was done");
}

#[tokio::test]
async fn attack_16_json_bombs_are_refused() {
    let world = manager().await;
    let before = world.store.local().index();
    let send = async |body: String| {
        let headers = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
        raw(&world, post("/services/create", &headers, &body).as_bytes()).await
    };
    let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    let elements =
        |n: usize| format!("{{\"TaskTemplate\":{{\"ContainerSpec\":{{\"Env\":[{}\"x\"]}}}}}}", "\"x\",".repeat(n));
    for (what, body, part) in [
        ("depth", deep(200), "invalid JSON"),
        ("depth below a field", format!("{{\"Labels\":{}}}", deep(90_000)), "invalid JSON"),
        ("depth without an end", "{\"Labels\":".repeat(90_000), "invalid JSON"),
        ("more depth than values", deep(1_000_000), "too many values"),
        ("many elements", elements(1_000_000), "too many values"),
        ("a number too large", "{\"Mode\":{\"Replicated\":{\"Replicas\":1e400}}}".into(), "invalid JSON"),
        ("a negative number", "{\"Mode\":{\"Replicated\":{\"Replicas\":-1}}}".into(), "invalid JSON"),
        ("no number", "{\"Mode\":{\"Replicated\":{\"Replicas\":NaN}}}".into(), "invalid JSON"),
        ("half a surrogate", "{\"Name\":\"\\ud800\"}".into(), "invalid JSON"),
        ("another alphabet", minimal("wеb", 1).to_string(), "name"),
        ("a right-to-left mark", minimal("web\u{202e}", 1).to_string(), "name"),
        ("two of a name, the second of another kind", "{\"Name\":\"web\",\"Name\":{}}".into(), "invalid JSON"),
        ("rubbish", "\u{0}\u{1}{".into(), "invalid JSON"),
    ] {
        let (status, text) = send(body).await;
        assert!(status == 400 && text.contains(part), "{what}: {text}");
    }
    // Where any value may stand, and in the query.
    let any = json!({"Name": "web", "TaskTemplate": {"NetworkAttachmentSpec": "DEEP"}}).to_string();
    let (status, text) = send(any.replace("\"DEEP\"", &deep(200))).await;
    assert!(status == 400 && text.contains("recursion limit exceeded"), "{text}");
    let filters = support::escape(&format!("{{\"name\":{}1{}}}", "[".repeat(200), "]".repeat(200)));
    assert_eq!(world.get(&format!("/services?filters={filters}")).await.status, 400);
    assert_eq!(world.store.local().index(), before, "nothing was done");
}

#[tokio::test]
async fn attack_17_nothing_is_ever_decompressed() {
    let world = manager().await;
    // gzip of 2 bytes; what matters is that it is taken for what it is: no JSON.
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let head = post(
        "/services/create",
        &format!("Content-Encoding: gzip\r\nContent-Length: {}\r\nConnection: close\r\n", gzip.len()),
        "",
    );
    let (status, text) = raw(&world, &[head.as_bytes(), gzip].concat()).await;
    assert!(status == 400 && text.contains("invalid JSON"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn attack_18_slow_and_idle_connections_are_closed_and_counted_by_source() {
    let world = manager().await;
    let port = Port::open(&world, Right::Admin);
    // An idle connection that has asked before.
    let mut idle = world.connect();
    idle.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let start = Instant::now();
    let (status, _) = reply(&mut idle).await;
    assert!(status == 200 && start.elapsed() <= Duration::from_secs(31), "{status} after {:?}", start.elapsed());
    // A thousand that never say a word at the gate, from one address: 16 are let near, for 10 s.
    let start = Instant::now();
    let mut silent: Vec<_> = (0..1000).map(|_| port.connect(1)).collect();
    let (status, _) = port.ask(2, "GET", "/_ping").await;
    assert_eq!(status, 200, "another address is served");
    let (status, _) = port.ask(1, "GET", "/_ping").await;
    assert_eq!(status, 0, "this one is not");
    for stream in &mut silent {
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.expect("closed"), 0);
    }
    assert!(start.elapsed() <= Duration::from_secs(11), "{:?}", start.elapsed());
    // Through the gate and idle, from one address: 128, and the rest is closed at once.
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = port.connect(1);
        // A connection that was refused cannot be written to.
        let _ = stream.write_all(b"!").await;
        idle.push(stream);
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut closed = 0;
    for stream in &mut idle {
        let mut byte = [0];
        if tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await.is_ok() {
            closed += 1;
        }
    }
    assert_eq!(closed, 72, "200 less 128");
    assert_eq!(port.ask(2, "GET", "/_ping").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn attack_18_a_connection_too_many_to_the_socket_waits_for_an_idle_one_to_end() {
    let world = manager().await;
    let (sender, receiver) = mpsc::unbounded_channel();
    let (api, tasks) = (world.api.clone(), world.tasks.clone());
    let listener = Box::new(MemListener(tokio::sync::Mutex::new(receiver)));
    world.tasks.spawn("socket", async move { api.serve(listener, tasks).await });
    let connect = || {
        let (ours, theirs) = tokio::io::duplex(4 << 10);
        sender.send((Box::new(theirs) as BoxStream, SocketAddr::from(([127, 0, 0, 1], 0)))).expect("a listener");
        ours
    };
    let idle: Vec<_> = (0..1024).map(|_| connect()).collect();
    let mut late = connect();
    late.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut first = [0; 12];
    let waited = tokio::time::timeout(Duration::from_secs(20), late.read_exact(&mut first)).await;
    assert!(waited.is_err(), "there is no room yet");
    let start = Instant::now();
    late.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    assert!(start.elapsed() <= Duration::from_secs(11), "{:?}", start.elapsed());
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn attack_08_connections_to_the_api_end_with_their_certificate() {
    let world = manager().await;
    // 100 s after the present time of this world.
    let port = Port::open_until(&world, Right::Admin, Duration::from_secs(1_700_000_100));
    let mut events = port.connect(1);
    events.write_all(b"!GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let mut head = [0; 15];
    events.read_exact(&mut head).await.expect("a head");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    tokio::time::sleep(Duration::from_secs(99)).await;
    let seen = tokio::time::timeout(Duration::from_millis(500), events.read_to_end(&mut Vec::new())).await;
    assert!(seen.is_err(), "it is good until its end");
    tokio::time::timeout(Duration::from_secs(2), events.read_to_end(&mut Vec::new()))
        .await
        .expect("cut")
        .expect("read");
}

#[tokio::test(start_paused = true)]
async fn attack_18_an_event_stream_that_is_not_read_is_cut() {
    let world = manager().await;
    let mut unread = world.connect();
    unread.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let mut head = [0; 15];
    unread.read_exact(&mut head).await.expect("a head");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let id = world.service("web", 1).await;
    let start = Instant::now();
    // More than everything between here and there can hold.
    for n in 0..3000_u64 {
        let version = world.version_of(&format!("/services/{id}")).await;
        world.post(&format!("/services/{id}/update?version={version}"), &minimal("web", n % 7)).await.ok(200);
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    let mut rest = Vec::new();
    unread.read_to_end(&mut rest).await.expect("the end");
    assert!(rest.len() < 300 << 10, "{} bytes were kept for it", rest.len());
    assert!(start.elapsed() < Duration::from_secs(70), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn attack_18_streams_are_counted_and_free_when_their_reader_is_gone() {
    let world = manager().await;
    let open = async || {
        let mut stream = world.connect();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.expect("a head");
        (stream, String::from_utf8_lossy(&head).into_owned())
    };
    let mut held = Vec::new();
    for n in 0..512 {
        let (stream, head) = open().await;
        assert_eq!(head, "HTTP/1.1 200", "stream {n}");
        held.push(stream);
    }
    assert_eq!(open().await.1, "HTTP/1.1 503");
    world.get("/events").await.is(
        503,
        "too many event streams, followed logs and terminals are open on this node (at most 512); close some and try again",
    );
    world.get("/services").await.ok(200);
    // 10,000 come and go, and there is room for 512 again.
    drop(held);
    for _ in 0..10_000 {
        while open().await.1 != "HTTP/1.1 200" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut held = Vec::new();
    while held.len() < 512 {
        match open().await {
            (stream, head) if head == "HTTP/1.1 200" => held.push(stream),
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

#[tokio::test]
async fn attack_19_ten_thousand_nodes_that_come_and_go_leave_the_cluster_object_small() {
    let world = manager().await;
    // As if they had come and gone before: what the object remembers of each until its certificate expires.
    let mut cluster = model::Cluster::clone(world.store.local().cluster().expect("a cluster"));
    let gone = |n: usize| -> model::NodeId { support::id('r', n).parse().expect("an id") };
    for n in 0..10_000 {
        cluster.removed_nodes.insert(gone(n), model::Timestamp(1_700_000_001_000_000_000 + n as u64));
    }
    let mut tx = store::Transaction::new(model::Timestamp(1));
    tx.update(cluster);
    world.store.propose(tx).await.expect("written");
    world.add_node(2, Role::Worker).await;
    world.delete(&format!("/nodes/{}?force=1", support::node_id(2))).await.ok(200);
    let state = world.store.local();
    let cluster = state.cluster().expect("a cluster");
    assert_eq!(cluster.removed_nodes.len(), model::limits::REMOVED_NODES_MAX);
    let remembers = |id: &model::NodeId| cluster.removed_nodes.contains_key(id);
    assert!(
        remembers(&support::node_id(2)) && remembers(&gone(9_999)) && !remembers(&gone(0)),
        "who expires first is forgotten first"
    );
}

/// An engine that notes what it is asked, and sends everybody elsewhere.
struct Redirecting {
    asked: Arc<Mutex<Vec<String>>>,
    world: World,
    _dir: tempfile::TempDir,
}

impl Redirecting {
    fn start() -> Redirecting {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("engine.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let world = World::new(Some(Arc::new(swarmlite_api::UnixEngine { path })));
        let (tasks, notes) = (world.tasks.clone(), asked.clone());
        world.tasks.spawn("engine", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let notes = notes.clone();
                tasks.spawn("engine connection", async move {
                    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let notes = notes.clone();
                        async move {
                            let (parts, body) = request.into_parts();
                            let upgrade = parts.headers.contains_key("upgrade");
                            let host =
                                parts.headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
                            let sent = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                            notes.lock().push(format!(
                                "{} {} host={host} upgrade={upgrade} {}",
                                parts.method,
                                parts.uri,
                                String::from_utf8_lossy(&sent)
                            ));
                            let reply = http::Response::builder()
                                .status(307)
                                .header("location", "http://169.254.169.254/latest/meta-data/")
                                .body(http_body_util::Full::<bytes::Bytes>::default());
                            Ok::<_, std::convert::Infallible>(reply.expect("a reply"))
                        }
                    });
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Redirecting { asked, world, _dir: dir }
    }

    /// What the engine was asked by clients: our own questions to it left out.
    fn asked(&self) -> Vec<String> {
        let own = |line: &String| line.starts_with("GET /_ping ") || line.starts_with("GET /version ");
        self.asked.lock().iter().filter(|line| !own(line)).cloned().collect()
    }
}

#[tokio::test]
async fn attack_27_a_client_cannot_say_where_a_request_goes_and_redirects_are_not_followed() {
    let engine = Redirecting::start();
    // The whole address in the request line, and another host: both mean nothing.
    let request =
        "GET http://169.254.169.254/containers/json HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n";
    let (status, text) = raw(&engine.world, request.as_bytes()).await;
    assert_eq!(status, 307, "the redirect is the client's to follow: {text}");
    assert_eq!(engine.asked(), ["GET /containers/json host=docker upgrade=false "]);
    // A proxy is none.
    let (status, _) =
        raw(&engine.world, b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status, 404);
    assert_eq!(engine.asked().len(), 1);
}

#[tokio::test]
async fn attack_27_a_viewer_makes_the_engine_fetch_nothing() {
    let engine = Redirecting::start();
    let port = Port::open(&engine.world, VIEWER);
    for (method, path) in [
        ("POST", "/build?remote=http://169.254.169.254/"),
        ("POST", "/images/create?fromSrc=http://169.254.169.254/"),
        ("POST", "/images/create?fromImage=169.254.169.254/x"),
        ("GET", "/images/search?term=169.254.169.254/x"),
        ("GET", "/distribution/169.254.169.254/x/json"),
        ("GET", "/plugins/privileges?remote=169.254.169.254/x"),
        ("POST", "/plugins/pull?remote=169.254.169.254/x"),
        ("POST", "/auth"),
    ] {
        let (status, text) = port.ask(1, method, path).await;
        assert_eq!(status, 403, "{method} {path}: {text}");
    }
    assert_eq!(engine.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn attack_28_requests_cannot_be_smuggled() {
    let engine = Redirecting::start();
    let port = Port::open(&engine.world, VIEWER);
    let hidden = "POST /containers/x/kill HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    // Two lengths, in both orders, two of one kind, and framings that there are not: whoever reads them otherwise than we do
    // is not asked. The engine gets one request on each connection, framed anew, or none.
    for headers in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", hidden.len() + 5),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", hidden.len() + 5),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n", hidden.len()),
        "Content-Length: 0\r\n".to_owned(),
        "Content-Length: +0\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "X-A: b\rContent-Length: 0\r\n".to_owned(),
        "X-A: b\r\n Content-Length: 0\r\n".to_owned(),
    ] {
        let mut raw = port.connect(1);
        let request = format!("!GET /containers/json HTTP/1.1\r\nHost: x\r\n{headers}\r\n0\r\n\r\n{hidden}{hidden}");
        // It may hang up before all is written.
        let _ = raw.write_all(request.as_bytes()).await;
        let _ = tokio::time::timeout(Duration::from_millis(300), reply(&mut raw)).await;
        let asked = engine.asked();
        let plain = |line: &String| line.starts_with("GET /containers/json host=docker") && !line.contains("kill");
        assert!(asked.len() <= 1 && asked.iter().all(plain), "{headers:?}: {asked:?}");
        engine.asked.lock().clear();
    }
}

#[tokio::test]
async fn attack_28_only_terminals_and_builds_become_tunnels_and_what_follows_is_judged_again() {
    let engine = Redirecting::start();
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
    // No tunnel here: the wish is taken out, and the second request on the connection is a request.
    let port = Port::open(&engine.world, VIEWER);
    let mut raw = port.connect(1);
    let two = format!(
        "!GET /containers/json HTTP/1.1\r\nHost: x\r\n{upgrade}\r\nPOST /containers/x/kill HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    raw.write_all(two.as_bytes()).await.expect("sent");
    let (first, text) = reply(&mut raw).await;
    assert!(first == 307 && text.contains("HTTP/1.1 403"), "{text}");
    assert_eq!(engine.asked(), ["GET /containers/json host=docker upgrade=false "]);
    engine.asked.lock().clear();
    // A viewer gets none at all, an administrator where there is one.
    for row in TABLE.iter().filter(|row| row.to == To::Engine) {
        let request = format!(
            "!{} {} HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n",
            row.method,
            filled(row)
        );
        for right in [VIEWER, Right::Admin] {
            let port = Port::open(&engine.world, right);
            let mut raw = port.connect(1);
            raw.write_all(request.as_bytes()).await.expect("sent");
            let (status, _) = reply(&mut raw).await;
            assert_eq!(status == 403, right < row.who, "{} {}: {status}", row.method, row.path);
        }
        let upgrades = engine.asked().iter().any(|line| line.contains("upgrade=true"));
        assert_eq!(upgrades, row.upgrades, "{} {}", row.method, row.path);
        engine.asked.lock().clear();
    }
}

#[tokio::test]
async fn attack_28_credentials_and_tokens_never_reach_the_log() {
    let (log, _while_here) = Log::record();
    let engine = Redirecting::start();
    let port = Port::open(&engine.world, Right::Admin);
    for request in
        ["POST /images/create?fromImage=x HTTP/1.1", "POST /services/create HTTP/1.1", "GET /nothing HTTP/1.1"]
    {
        let mut raw = port.connect(1);
        let head = format!(
            "!{request}\r\nHost: x\r\nX-Registry-Auth: c2VjcmV0LW1hcmtlcg\r\nX-Registry-Config: c2VjcmV0LW1hcmtlcg\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        raw.write_all(head.as_bytes()).await.expect("sent");
        reply(&mut raw).await;
    }
    let world = manager().await;
    let made = world.post("/swarmlite/tokens", &json!({"Role": "manager"})).await.ok(201).json();
    let token = made["Token"].as_str().expect("a token").to_owned();
    world.get("/swarmlite/tokens").await.ok(200);
    let text = log.text();
    assert!(text.contains("a change over the API's TCP port"), "the log is there: {text}");
    assert!(!text.contains("c2VjcmV0LW1hcmtlcg") && !text.contains(&token), "{text}");
}

#[tokio::test]
async fn attack_31_a_viewer_changes_nothing_and_reads_no_secret() {
    let world = manager().await;
    world.service("web", 1).await;
    world.post("/swarmlite/tokens", &json!({"Role": "manager"})).await.ok(201);
    let before = world.store.local().index();
    let port = Port::open(&world, VIEWER);
    // (An event stream would not end.)
    for row in TABLE.iter().filter(|row| !row.lasts || row.who == Right::Admin) {
        let (status, text) = port.ask(1, row.method, &filled(row)).await;
        assert_eq!(status == 403, row.who == Right::Admin, "{} {}: {text}", row.method, row.path);
    }
    assert_eq!(world.store.local().index(), before, "nothing was changed");
    let (status, text) = port.ask(1, "GET", "/swarm").await;
    let cluster = world.store.local().cluster().expect("a cluster").clone();
    assert!(status == 200 && !text.contains("SWMTKN"), "{text}");
    assert!(!text.contains(&cluster.root_ca.key_pem), "{text}");
    for path in ["/swarmlite/tokens", "/info", "/nodes", "/services", "/services/web", "/version"] {
        let (status, text) = port.ask(1, "GET", path).await;
        assert!(status == 200 && !text.contains("SWMTKN"), "{path}: {text}");
    }
    // The same route as an administrator.
    let (status, text) = Port::open(&world, Right::Admin).ask(1, "GET", "/swarm").await;
    assert!(status == 200 && text.contains("SWMTKN"), "{text}");
}

#[tokio::test]
async fn attack_31_whoever_the_gate_refuses_gets_no_word() {
    let world = manager().await;
    let mut stranger = Port::open(&world, Right::Admin).connect(1);
    stranger.write_all(b"GET /swarm HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    assert_eq!(reply(&mut stranger).await, (0, String::new()));
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let world = manager().await;
    let cluster = || world.store.local().cluster().expect("a cluster").clone();
    let ttl_ns: i64 = 3_600_000_000_000;
    let wish = json!({"Role": "worker", "TTL": ttl_ns, "Uses": 2, "Labels": {"zone": "a"}});
    let made = world.post("/swarmlite/tokens", &wish).await.ok(201).json();
    let (id, token) = (made["ID"].as_str().expect("an id"), made["Token"].as_str().expect("a token"));
    assert!(token.starts_with("SWMTKN-1-digest-"), "it names the root that the standing tokens name: {token}");
    let kept = cluster().security.tokens[id].clone();
    assert_eq!((kept.role, kept.uses_left, kept.root_digest.as_str()), (Role::Worker, Some(2), "digest"));
    assert!(!format!("{:?}", cluster()).contains(token), "the text is kept nowhere");
    let endless = world.post("/swarmlite/tokens", &json!({"Role": "manager"})).await.ok(201).json();
    let list = world.get("/swarmlite/tokens").await.ok(200).json();
    let of = |wanted: &str| {
        list.as_array().expect("a list").iter().find(|t| t["ID"] == wanted).expect("in the list").clone()
    };
    assert_eq!(
        of(id),
        json!({"ID": id, "Role": "worker", "CreatedAt": "2023-11-14T22:13:20Z", "ExpiresAt": "2023-11-14T23:13:20Z", "UsesLeft": 2, "Labels": {"zone": "a"}, "OldRoot": false})
    );
    let other = of(endless["ID"].as_str().expect("an id"));
    assert_eq!((&other["ExpiresAt"], &other["UsesLeft"]), (&Value::Null, &Value::Null));

    // A new root: the standing tokens name it, the others do not.
    let mut changed = model::Cluster::clone(&cluster());
    changed.join_tokens.worker = changed.join_tokens.worker.replace("digest", "newroot");
    let mut tx = store::Transaction::new(model::Timestamp(1));
    tx.update(changed);
    world.store.propose(tx).await.expect("written");
    let list = world.get("/swarmlite/tokens").await.ok(200).json();
    assert!(list.as_array().expect("a list").iter().all(|t| t["OldRoot"] == true), "{list}");

    world.delete(&format!("/swarmlite/tokens/{}", &id[..20])).await.ok(204);
    world.delete(&format!("/swarmlite/tokens/{id}")).await.is(404, &format!("token {id} not found"));
    world.delete("/swarmlite/tokens/").await.is(404, "page not found");
    assert_eq!(world.get("/swarmlite/tokens").await.ok(200).json().as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn tokens_that_make_no_sense_are_refused_and_their_number_is_bounded() {
    let world = manager().await;
    let labels = |n: usize, len: usize| {
        (0..n).map(|i| (format!("k{i}"), Value::from("v".repeat(len)))).collect::<serde_json::Map<_, _>>()
    };
    for (wish, part) in [
        (json!({}), "unknown role \"\": must be worker or manager"),
        (json!({"Role": "root"}), "unknown role \"root\""),
        (json!({"Role": "worker", "TTL": -1}), "TTL must not be negative"),
        (json!({"Role": "worker", "Uses": 1_u64 << 32}), "Uses must be at most 4294967295"),
        (json!({"Role": "worker", "Labels": {"": "x"}}), "invalid label \"\""),
        (json!({"Role": "worker", "Labels": {"a": "x\ny"}}), "no control characters"),
        (json!({"Role": "worker", "Labels": labels(33, 1)}), "at most 32 labels"),
        (json!({"Role": "worker", "Labels": labels(1, 3000)}), "of 2048 bytes together"),
    ] {
        let answer = world.post("/swarmlite/tokens", &wish).await;
        assert!(answer.status == 400 && answer.message().contains(part), "{wish}: {}", answer.message());
    }
    // One that is over already makes room for the next.
    let last = model::limits::JOIN_TOKENS_MAX;
    for _ in 0..last {
        world.post("/swarmlite/tokens", &json!({"Role": "worker"})).await.ok(201);
    }
    let full = world.post("/swarmlite/tokens", &json!({"Role": "worker"})).await;
    assert!(full.status == 400 && full.message().contains("there are 256 join tokens already"), "{}", full.message());
    let mut cluster = model::Cluster::clone(world.store.local().cluster().expect("a cluster"));
    cluster.security.tokens.values_mut().take(5).for_each(|t| t.uses_left = Some(0));
    let mut tx = store::Transaction::new(model::Timestamp(1));
    tx.update(cluster);
    world.store.propose(tx).await.expect("written");
    assert_eq!(world.get("/swarmlite/tokens").await.ok(200).json().as_array().map(Vec::len), Some(last - 5));
    world.post("/swarmlite/tokens", &json!({"Role": "worker"})).await.ok(201);
    assert_eq!(world.store.local().cluster().expect("a cluster").security.tokens.len(), last - 4);
}
