//! Credentials for a registry are kept with the service, and are in nothing that anybody is shown.

#[path = "support/log.rs"]
mod log;
mod support;

use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use log::Log;
use model::{RegistryAuth, TaskState};
use serde_json::{Value, json};
use store::StoreClient as _;
use support::{World, manager, minimal};

async fn send(world: &World, path: &str, spec: &Value, auth: &str) -> support::Answer {
    let request = http::Request::post(path).header("content-type", "application/json").header("x-registry-auth", auth);
    world.send(request.body(Full::from(spec.to_string())).expect("a request")).await
}

/// The event stream up to the last change that was made.
async fn events(world: &World, until: &str) -> String {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(world.connect())).await.expect("a connection");
    world.tasks.spawn("client", async move { drop(connection.await) });
    let request = http::Request::get("/events").body(Full::<bytes::Bytes>::default()).expect("a request");
    let mut body = sender.send_request(request).await.expect("a reply").into_body();
    world.service(until, 1).await;
    let mut text = String::new();
    while !text.contains(until) {
        let frame = body.frame().await.expect("more").expect("no error");
        text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default()));
    }
    text
}

#[tokio::test]
async fn they_are_in_no_answer_no_event_no_plan_and_no_log() {
    let (log, _while_here) = Log::record();
    let world = manager().await;
    let secrets = ["hunter2", "correct-horse"];
    let auth = secrets
        .map(|s| base64::engine::general_purpose::URL_SAFE.encode(json!({"username": "u", "password": s}).to_string()));
    let mut seen = Vec::new();
    seen.push(send(&world, "/services/create?plan=1", &minimal("web", 1), &auth[0]).await.ok(200).body);
    seen.push(send(&world, "/services/create", &minimal("web", 1), &auth[0]).await.ok(201).body);
    let service = || world.store.local().services().find(|s| s.spec.name.as_str() == "web").expect("it").clone();
    let kept = service();
    assert_eq!(kept.spec.task.container().unwrap().registry_auth, Some(RegistryAuth(auth[0].clone())));
    world.add_task("web", 1, TaskState::Running, TaskState::Running).await;
    for query in ["plan=1", "x=1"] {
        let version = world.version_of("/services/web").await;
        let path = format!("/services/web/update?version={version}&{query}");
        seen.push(send(&world, &path, &minimal("web", 2), &auth[1]).await.ok(200).body);
    }
    // The ones before are the former spec's, and a rollback brings them back with it.
    assert_eq!(service().spec.task.container().unwrap().registry_auth, Some(RegistryAuth(auth[1].clone())));
    let version = world.version_of("/services/web").await;
    let path = format!("/services/web/update?version={version}&registryAuthFrom=previous-spec");
    seen.push(world.post(&path, &minimal("web", 3)).await.ok(200).body);
    assert_eq!(service().spec.task.container().unwrap().registry_auth, Some(RegistryAuth(auth[0].clone())));
    for path in [
        "/services",
        "/services?status=1",
        "/services/web",
        "/services/web?insertDefaults=1",
        "/tasks",
        "/info",
        "/swarm",
        "/nodes",
    ] {
        seen.push(world.get(path).await.ok(200).body);
    }
    seen.push(world.post("/swarmlite/simulate", &json!({"Scale": {"web": 9}})).await.ok(200).body);
    // A body that is refused is not repeated.
    seen.push(send(&world, "/services/create", &minimal("a b", 1), &auth[0]).await.ok(400).body);
    seen.push(send(&world, "/services/create", &minimal("x", 1), "aHVudGVyMg").await.ok(400).body);
    seen.push(events(&world, "last").await.into());
    seen.push(format!("{:?}", service()).into());
    seen.push(log.text().into());
    for bytes in seen {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for secret in auth.iter().map(String::as_str).chain(secrets) {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert!(!text.contains("aHVudGVyMg"), "{text}");
    }
}
