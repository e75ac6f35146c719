//! What goes to the local engine, against a fake one on a Unix socket.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use seams::Tasks;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use support::World;
use swarmlite_api::UnixEngine;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct FakeEngine {
    tasks: Tasks,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn body(text: impl Into<Bytes>) -> Full<Bytes> {
    Full::new(text.into())
}

/// An engine of API 1.41 to 1.44 that says what it was asked, and echoes what it is sent over an upgraded connection.
async fn answer(tasks: Tasks, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().to_string();
    let json = |v: serde_json::Value| {
        Response::builder().header("content-type", "application/json").body(body(v.to_string())).expect("a reply")
    };
    match path.as_str() {
        "/_ping" => Response::builder().header("builder-version", "2").body(body("OK")).expect("a reply"),
        "/version" => json(
            json!({"ApiVersion": "1.44", "MinAPIVersion": "1.41", "Version": "27.0", "Components": [{"Name": "Engine", "Version": "27.0"}]}),
        ),
        p if p.ends_with("/info") => {
            json(json!({"Name": "real", "NCPU": 2, "Asked": p, "Swarm": {"LocalNodeState": "inactive"}}))
        }
        p if p.contains("/exec/") => {
            let upgrade = hyper::upgrade::on(&mut request);
            tasks.spawn("exec", async move {
                let mut io = TokioIo::new(upgrade.await.expect("an upgrade"));
                io.write_all(b"hello\n").await.expect("written");
                // Until the client has closed its side; then an answer, so that a half-closed connection is proven.
                let mut all = Vec::new();
                io.read_to_end(&mut all).await.expect("read");
                all.reverse();
                io.write_all(&all).await.expect("written");
                io.shutdown().await.expect("closed");
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "Upgrade")
                .header("upgrade", "tcp")
                .header("content-type", "application/vnd.docker.raw-stream")
                .body(body(""))
                .expect("a reply")
        }
        "/distribution/nginx:latest/json" | "/distribution/localhost:5000/app:1/json" => {
            let auth = request.headers().get("x-registry-auth").and_then(|v| v.to_str().ok()).unwrap_or_default();
            let digest = if auth.is_empty() { "a".repeat(64) } else { "b".repeat(64) };
            json(json!({"Descriptor": {"digest": format!("sha256:{digest}")}, "Platforms": []}))
        }
        p if p.starts_with("/distribution/") => {
            Response::builder().status(StatusCode::NOT_FOUND).body(body("{}")).expect("a reply")
        }
        p if p.contains("/events") => {
            Response::new(body("{\"Type\":\"container\",\"Action\":\"start\",\"scope\":\"local\"}\n"))
        }
        _ => {
            let method = request.method().to_string();
            let sent = request.into_body().collect().await.expect("a body").to_bytes();
            let mut reply = json(json!({"method": method, "path": path, "bytes": sent.len()}));
            *reply.status_mut() = StatusCode::CREATED;
            reply
        }
    }
}

impl FakeEngine {
    fn start() -> FakeEngine {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("engine.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
        let tasks = Tasks::new();
        let all = tasks.clone();
        tasks.spawn("engine", async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let all = all.clone();
                all.clone().spawn("engine connection", async move {
                    let service = service_fn(move |r| {
                        let all = all.clone();
                        async move { Ok::<_, Infallible>(answer(all, r).await) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .half_close(true)
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    drop(connection.await);
                });
            }
        });
        FakeEngine { tasks, path, _dir: dir }
    }

    fn world(&self) -> World {
        World::new(Some(Arc::new(UnixEngine { path: self.path.clone() })))
    }
}

#[tokio::test]
async fn everything_else_goes_to_the_engine_and_back() {
    let engine = FakeEngine::start();
    let world = engine.world();
    let reply = world.post("/v1.43/containers/create?name=x%2Fy", &json!({"Image": "a"})).await.ok(201);
    assert_eq!(reply.json(), json!({"method": "POST", "path": "/v1.43/containers/create?name=x%2Fy", "bytes": 13}));
    // A version that the engine does not speak becomes the nearest that it does.
    assert_eq!(world.get("/v1.47/images/json").await.json()["path"], "/v1.44/images/json");
    assert_eq!(world.get("/v1.24/images/json").await.json()["path"], "/v1.41/images/json");
    assert_eq!(world.delete("/volumes/v").await.json()["path"], "/volumes/v");
    let networks = world.post("/networks/create", &json!({"Name": "n", "Driver": "bridge"})).await.ok(201);
    assert_eq!(networks.json()["bytes"], 30);
    let big = vec![b'x'; 6 << 20];
    let request = Request::post("/build").header("content-type", "application/x-tar").body(Full::new(big.into()));
    assert_eq!(world.send(request.expect("a request")).await.ok(201).json()["bytes"], 6 << 20);
    engine.tasks.stop();
}

#[tokio::test]
async fn the_engines_version_and_builder_are_told() {
    let engine = FakeEngine::start();
    let world = engine.world();
    let ping = world.get("/_ping").await.ok(200);
    let header = |name: &str| ping.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!(
        (header("api-version"), header("builder-version"), header("swarm")),
        ("1.44".into(), "2".into(), "inactive".into())
    );
    let version = world.get("/version").await.ok(200).json();
    assert_eq!(
        (&version["Version"], &version["ApiVersion"], &version["MinAPIVersion"]),
        (&json!("27.0"), &json!("1.44"), &json!("1.24"))
    );
    let names: Vec<&str> =
        version["Components"].as_array().expect("parts").iter().filter_map(|c| c["Name"].as_str()).collect();
    assert_eq!(names, ["Swarmlite", "Engine"]);
    let info = world.get("/v1.56/info").await.ok(200).json();
    assert_eq!((&info["Name"], &info["Asked"]), (&json!("real"), &json!("/v1.44/info")));
    assert!(info["Swarm"].get("RemoteManagers").is_some(), "our block, not the engine's: {info}");
    engine.tasks.stop();
}

#[tokio::test]
async fn a_hijacked_connection_passes_both_ways_and_closes_one_way() {
    let engine = FakeEngine::start();
    let world = engine.world();
    let mut raw = world.connect();
    let request = "POST /v1.44/exec/abc/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    raw.write_all(request.as_bytes()).await.expect("sent");
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello\n") {
        let mut piece = [0; 1024];
        let n = raw.read(&mut piece).await.expect("read");
        assert!(n > 0, "ended early: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..n]);
    }
    let head = String::from_utf8_lossy(&seen).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: tcp"), "{head}");
    raw.write_all(b"stdin").await.expect("sent");
    raw.shutdown().await.expect("closed one way");
    let mut rest = String::new();
    raw.read_to_string(&mut rest).await.expect("the rest");
    assert_eq!(rest, "nidts");
    engine.tasks.stop();
}

#[tokio::test]
async fn an_engine_that_is_not_there_does_not_take_the_swarm_with_it() {
    let world = World::new(Some(Arc::new(UnixEngine { path: "/nonexistent/engine.sock".into() })));
    let reply = world.get("/containers/json").await.ok(503);
    assert!(
        reply.message().starts_with("cannot reach the container engine at unix:///nonexistent/engine.sock: "),
        "{}",
        reply.message()
    );
    world.get("/_ping").await.ok(200);
    world.get("/version").await.ok(200);
    let info = world.get("/info").await.ok(200).json();
    assert!(info["Warnings"][0].as_str().is_some_and(|w| w.contains("cannot reach the container engine")), "{info}");
    world.get("/services").await.ok(200);
}

#[tokio::test]
async fn the_engines_events_come_between_the_swarms() {
    let engine = FakeEngine::start();
    let world = engine.world();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(world.connect())).await.expect("a connection");
    world.tasks.spawn("client", async move { drop(connection.await) });
    let request = Request::get("/events").body(Full::<Bytes>::default()).expect("a request");
    let mut events = sender.send_request(request).await.expect("a reply").into_body();
    let mut text = String::new();
    let mut created = false;
    while text.lines().count() < 2 || !text.ends_with('\n') {
        if text.contains("container") && !created {
            created = true;
            world.service("web", 1).await;
        }
        let frame = events.frame().await.expect("more").expect("no error");
        text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default()));
    }
    let second: serde_json::Value = serde_json::from_str(text.lines().nth(1).expect("a second line")).expect("JSON");
    assert_eq!(
        (&second["Type"], &second["Action"], &second["scope"]),
        (&json!("service"), &json!("create"), &json!("swarm"))
    );
    assert_eq!(second["Actor"]["Attributes"]["name"], "web");
    engine.tasks.stop();
}

#[tokio::test]
async fn images_are_pinned_for_clients_that_do_not() {
    let engine = FakeEngine::start();
    let world = engine.world();
    let (a, b) = ("a".repeat(64), "b".repeat(64));
    let pinned = format!("nginx:1@sha256:{a}");
    let create = async |version: &str, image: &str, auth: &str| {
        let mut spec = support::minimal("web", 1);
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
        let request = Request::post(format!("{version}/services/create")).header("content-type", "application/json");
        let request = if auth.is_empty() { request } else { request.header("x-registry-auth", auth) };
        let reply = world.send(request.body(Full::from(spec.to_string())).expect("a request")).await.ok(201).json();
        let service = world.get("/services/web").await.json();
        world.delete("/services/web").await.ok(200);
        let image = service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].as_str().expect("an image").to_owned();
        (image, reply["Warnings"].clone())
    };
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::URL_SAFE.encode(r#"{"username":"u"}"#);
    let none = serde_json::Value::Null;
    for (version, image, auth, kept) in [
        ("/v1.29", "nginx", "", format!("nginx:latest@sha256:{a}")),
        ("/v1.29", "localhost:5000/app:1", "", format!("localhost:5000/app:1@sha256:{a}")),
        ("/v1.29", "nginx", &auth, format!("nginx:latest@sha256:{b}")),
        ("/v1.29", &pinned, "", pinned.clone()),
        // Later clients ask the registry themselves.
        ("/v1.30", "nginx", "", "nginx".to_owned()),
        ("", "nginx", "", "nginx".to_owned()),
        ("/v1.47", &pinned, "", pinned.clone()),
    ] {
        assert_eq!(create(version, image, auth).await, (kept, none.clone()), "{version} {image}");
    }
    let warning = "image gone:1 could not be accessed on a registry to record\nits digest. Each node will access gone:1 independently,\npossibly leading to different nodes running different\nversions of the image.\n";
    assert_eq!(create("/v1.29", "gone:1", "").await, ("gone:1".to_owned(), json!([warning])));
    engine.tasks.stop();
}
