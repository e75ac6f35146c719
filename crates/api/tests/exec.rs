//! Exec anywhere: what Docker's client does on a container of another node.

mod support;

use bytes::Bytes;
use docker_api::stdcopy::{Decoder, Stream};
use engine::embedded::{EmbeddedOptions, TokioClock};
use engine::{EmbeddedEngine, Engine as _, NewContainer};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use model::{ContainerStatus, Meta, Task, TaskState, TaskStatus};
use seams::{Rand, Tasks};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use store::StoreClient as _;
use support::{World, id, manager, node_id};
use swarmlite_api::{ExecCall, UnixEngine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Counting(AtomicU8);

impl Rand for Counting {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(self.0.fetch_add(1, Ordering::SeqCst));
    }
}

/// A container of a task of the service `web`, on this node's own engine.
async fn container(world: &World, n: usize, node: usize) -> (String, String) {
    let engine = {
        let mut engines = world.swarm.engines.lock();
        let first = u8::try_from(node * 16).expect("few nodes");
        let rand = Arc::new(Counting(AtomicU8::new(first)));
        let fresh = || EmbeddedEngine::new(EmbeddedOptions::default(), Arc::new(TokioClock::start()), rand);
        engines.entry(node_id(node)).or_insert_with(fresh).clone()
    };
    let service = world.store.local().services().next().cloned().expect("a service");
    let mut task = Task {
        id: id('t', n).parse().expect("an id"),
        meta: Meta::default(),
        service_id: service.id.clone(),
        service_name: service.spec.name.clone(),
        slot: n as u64,
        for_node: None,
        job_iteration: None,
        inherited: None,
        spec: Arc::clone(&service.spec.task),
        spec_version: service.spec_version,
        host_ports: Vec::new(),
        node_id: Some(node_id(node)),
        generic: Vec::new(),
        desired: TaskState::Running,
        run_after: None,
        failures: 0,
        status: TaskStatus::default(),
    };
    let new = NewContainer { name: task.name(), ..NewContainer::default() };
    let container = engine.create(&new).await.expect("a new name");
    engine.start(&container).await.expect("it starts");
    task.status = TaskStatus {
        state: TaskState::Running,
        container: Some(ContainerStatus { id: container.clone(), pid: 7, exit_code: None }),
        ..TaskStatus::default()
    };
    world.put(task).await;
    (container, new.name)
}

async fn create(world: &World, container: &str, sent: &Value) -> String {
    let reply = world.post(&format!("/v1.47/containers/{container}/exec"), sent).await.ok(201);
    reply.json()["Id"].as_str().expect("an id").to_owned()
}

fn attached(words: &[&str]) -> Value {
    json!({"Cmd": words, "AttachStdin": true, "AttachStdout": true, "AttachStderr": true})
}

/// What Docker's client sends to be connected, and everything that comes back.
async fn hijack(world: &World, exec: &str, tty: bool, input: &[u8]) -> (String, Vec<u8>) {
    let mut io = world.connect();
    let body = json!({"Detach": false, "Tty": tty}).to_string();
    let head = format!(
        "POST /v1.47/exec/{exec}/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: \
         tcp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    io.write_all(head.as_bytes()).await.expect("sent");
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\n") {
        reply.push(io.read_u8().await.expect("a head"));
    }
    let (mut from, mut to) = tokio::io::split(io);
    let send = async {
        to.write_all(input).await.expect("sent");
        to.shutdown().await.expect("closed");
    };
    let mut output = Vec::new();
    let (read, ()) = tokio::join!(from.read_to_end(&mut output), send);
    read.expect("read to the end");
    (String::from_utf8(reply).expect("text"), output)
}

fn frames(bytes: &[u8]) -> Vec<(Stream, Vec<u8>)> {
    let mut decoder = Decoder::new();
    decoder.feed(bytes);
    let mut all = Vec::new();
    while let Some(frame) = decoder.next_frame().expect("good frames") {
        all.push((frame.stream, frame.data.to_vec()));
    }
    assert_eq!(decoder.pending(), 0);
    all
}

#[tokio::test]
async fn a_command_runs_on_another_node_with_its_input_and_its_exit_code() {
    let world = manager().await;
    world.service("web", 2).await;
    let (container, name) = container(&world, 1, 2).await;
    for what in [container.as_str(), &container[..12], &name] {
        let found = world.get(&format!("/v1.47/containers/{what}/json")).await.ok(200);
        assert_eq!(found.json()["Id"], json!(container), "{what}");
    }
    let exec = create(&world, &container[..12], &attached(&["cat"])).await;
    let large: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let (head, output) = hijack(&world, &exec, false, &large).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for header in ["connection: upgrade", "upgrade: tcp", "content-type: application/vnd.docker.multiplexed-stream"] {
        assert!(head.to_lowercase().contains(header), "{head}");
    }
    let echoed: Vec<u8> = frames(&output).into_iter().flat_map(|(_, data)| data).collect();
    assert!(echoed == large, "{} bytes came back", echoed.len());
    let shown = world.get(&format!("/exec/{exec}/json")).await.ok(200).json();
    assert_eq!(
        (&shown["ID"], &shown["Running"], &shown["ExitCode"], &shown["ContainerID"]),
        (&json!(exec), &json!(false), &json!(0), &json!(container))
    );
    assert_eq!(shown["ProcessConfig"]["entrypoint"], "cat");

    let exec = create(&world, &name, &attached(&["sh", "-c", "exit 7"])).await;
    assert_eq!(world.get(&format!("/exec/{exec}/json")).await.json()["ExitCode"], Value::Null);
    assert_eq!(hijack(&world, &exec, false, b"").await.1, b"");
    assert_eq!(world.get(&format!("/exec/{exec}/json")).await.json()["ExitCode"], 7);
}

#[tokio::test]
async fn terminals_detached_commands_and_clients_without_a_tunnel() {
    let world = manager().await;
    world.service("web", 2).await;
    let (container, _) = container(&world, 1, 2).await;
    let tty = json!({"Cmd": ["size"], "Tty": true, "AttachStdin": true, "AttachStdout": true, "ConsoleSize": [24, 80]});
    let exec = create(&world, &container, &tty).await;
    let (head, output) = hijack(&world, &exec, true, b"").await;
    assert!(head.contains("application/vnd.docker.raw-stream"), "{head}");
    assert_eq!(output, b"24 80\n");

    let exec = create(&world, &container, &tty).await;
    let mut io = world.connect();
    let head = format!(
        "POST /exec/{exec}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Length: 12\r\n\r\n{{\"Tty\":true}}"
    );
    io.write_all(head.as_bytes()).await.expect("sent");
    let mut first = [0; 12];
    io.read_exact(&mut first).await.expect("a head");
    world.post(&format!("/exec/{exec}/resize?h=33&w=99"), &json!({})).await.ok(200);
    io.shutdown().await.expect("closed");
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.expect("read");
    assert!(rest.ends_with(b"33 99\n"), "{}", String::from_utf8_lossy(&rest));
    world
        .post(&format!("/exec/{exec}/resize?h=x&w=99"), &json!({}))
        .await
        .is(400, "invalid h \"x\": it must be a number of characters");

    let exec = create(&world, &container, &attached(&["false"])).await;
    let reply = world.post(&format!("/exec/{exec}/start"), &json!({"Detach": true})).await.ok(200);
    assert!(reply.body.is_empty());
    assert_eq!(world.get(&format!("/exec/{exec}/json")).await.json()["ExitCode"], 1);

    let exec = create(&world, &container, &attached(&["echo", "x"])).await;
    let reply = world.post(&format!("/exec/{exec}/start"), &json!({})).await.ok(200);
    assert_eq!(frames(&reply.body), [(Stream::Stdout, b"x\n".to_vec())]);
    let again = world.post(&format!("/exec/{exec}/start"), &json!({})).await;
    assert_eq!((again.status.as_u16(), again.message()), (409, format!("exec command {exec} has already run")));
}

#[tokio::test]
async fn what_cannot_be_is_said_in_dockers_words() {
    let world = manager().await;
    world.service("web", 2).await;
    let (one, name) = container(&world, 1, 2).await;
    let (two, _) = container(&world, 2, 3).await;
    let path = |what: &str| format!("/containers/{what}/exec");
    // Without an engine of its own this node knows no container by itself.
    let none = "this node runs the embedded engine, which has no API of its own";
    for what in ["0000", "nosuch", "web.1", &format!("x{name}")] {
        let reply = world.post(&path(what), &attached(&["true"])).await;
        assert!(reply.status == 501 && reply.message().starts_with(none), "{what}: {}", reply.message());
    }
    world
        .post(&path(&one), &json!({"Cmd": []}))
        .await
        .is(400, &format!("No exec command specified for container {one}"));
    let long = json!({"Cmd": ["x".repeat(300_000)]});
    assert_eq!(world.post(&path(&one), &long).await.status, 400);
    let nul = json!({"Cmd": ["a\u{0}b"]});
    assert!(world.post(&path(&one), &nul).await.message().contains("NUL byte"));
    let privileged = json!({"Cmd": ["true"], "Privileged": true});
    let denied = world.post(&path(&one), &privileged).await;
    assert!(denied.status == 403 && denied.message().contains("swarmlite.policy.privileged=allow"), "{denied:?}");
    let exec = format!("{}-{}", node_id(2), "0".repeat(64));
    world.get(&format!("/exec/{exec}/json")).await.is(404, "none");
    world.swarm.engines.lock().remove(&node_id(3));
    let away = format!("node {} is not available", node_id(3));
    world.post(&path(&two), &attached(&["true"])).await.is(503, &away);
    // Engine ids begin with the node's number times 16: 20… and 30…; two of one node begin alike.
    let (other, _) = container(&world, 3, 2).await;
    let shared: String = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    world
        .get(&format!("/containers/{shared}/json"))
        .await
        .is(400, &format!("multiple IDs found with provided prefix: {shared}"));
    let asked = world.swarm.exec_requests.lock().clone();
    assert!(asked.iter().all(|r| !matches!(&r.call, ExecCall::Create { exec, .. } if exec.privileged)));
}

#[tokio::test]
async fn attack_07_a_node_cannot_hide_a_container_of_another_behind_a_longer_id() {
    let world = manager().await;
    world.service("web", 2).await;
    let (container, _) = container(&world, 1, 2).await;
    let mut forged = world.store.local().tasks().next().map(|t| Task::clone(t)).expect("the task");
    forged.id = id('t', 9).parse().expect("an id");
    forged.slot = 9;
    forged.node_id = Some(node_id(3));
    forged.meta = Meta::default();
    let claimed = ContainerStatus { id: format!("{container}00"), pid: 7, exit_code: None };
    forged.status.container = Some(claimed);
    world.put(forged).await;
    let found = world.get(&format!("/v1.47/containers/{container}/json")).await.ok(200);
    assert_eq!(found.json()["Id"], json!(container));
    // A beginning that both share is nobody's.
    world
        .get(&format!("/v1.47/containers/{}/json", &container[..12]))
        .await
        .is(400, &format!("multiple IDs found with provided prefix: {}", &container[..12]));
}

/// An engine that knows one container, and answers 404 to everything else.
fn local_engine(tasks: &Tasks, path: &std::path::Path, known: &'static str) {
    let listener = tokio::net::UnixListener::bind(path).expect("a socket");
    let all = tasks.clone();
    tasks.spawn("engine", async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| async move {
                let path = request.uri().path().to_owned();
                let sent = request.into_body().collect().await.expect("a body").to_bytes();
                let (status, text) = match path.contains(known) {
                    true => (StatusCode::CREATED, json!({"Id": "local", "Sent": sent.len()})),
                    false => (StatusCode::NOT_FOUND, json!({"message": "No such container: from the local engine"})),
                };
                let reply = http::Response::builder().status(status).header("content-type", "application/json");
                reply.body(Full::new(Bytes::from(text.to_string())))
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            all.spawn("engine connection", async move { drop(connection.await) });
        }
    });
}

#[tokio::test]
async fn the_local_engine_is_asked_first_and_its_word_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, tasks) = (dir.path().join("engine.sock"), Tasks::new());
    local_engine(&tasks, &path, "abc");
    let world = World::new(Some(Arc::new(UnixEngine { path })));
    world.put(support::cluster()).await;
    world.service("web", 2).await;
    let (remote, _) = container(&world, 1, 2).await;
    let sent = attached(&["true"]);
    let local = world.post("/containers/abc/exec", &sent).await.ok(201).json();
    assert_eq!((&local["Id"], &local["Sent"]), (&json!("local"), &json!(sent.to_string().len())));
    assert_eq!(world.get("/containers/abc/json").await.json()["Id"], "local");
    assert_eq!(world.get("/exec/abc/json").await.json()["Id"], "local");
    assert!(world.swarm.exec_requests.lock().is_empty());
    assert!(create(&world, &remote, &sent).await.starts_with(node_id(2).as_str()));
    world.get("/containers/nosuch/json").await.is(404, "No such container: from the local engine");
    // On a worker there is nobody else to ask.
    *world.swarm.store.lock() = Err(swarmlite_api::NotManager::Worker);
    world.get(&format!("/containers/{remote}/json")).await.is(404, "No such container: from the local engine");
    tasks.stop();
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_nothing_behind() {
    let world = manager().await;
    world.service("web", 2).await;
    let (container, _) = container(&world, 1, 2).await;
    let exec = create(&world, &container, &attached(&["cat"])).await;
    let mut io = world.connect();
    let head = format!(
        "POST /exec/{exec}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Length: 2\r\n\r\n{{}}"
    );
    io.write_all(head.as_bytes()).await.expect("sent");
    io.read_exact(&mut [0; 12]).await.expect("a head");
    drop(io);
    // Every task of the API ends soon after it is asked to, which it would not were a stream left over.
    assert!(world.tasks.shutdown(std::time::Duration::from_secs(5)).await);
}
