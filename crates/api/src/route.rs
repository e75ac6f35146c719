//! Which handler a request belongs to. What no handler wants goes to the local engine.

use crate::logs::Whose;
use crate::reply::{Body, Reply, failure, json};
use crate::request::{Path, Query, Request};
use crate::{Api, cluster, events, info, logs, nodes, service_update, services, system, tasks};
use docker_api::Failure;
use docker_api::errors::Code;
use http::{Method, request::Parts};
use serde_json::Value;

/// Answers one request, whatever it is.
pub(crate) async fn answer(api: &Api, parts: Parts, body: Body) -> Reply {
    let mut reply = match Path::parse(parts.uri.path()) {
        Ok(path) => dispatch(api, path, parts, body).await.unwrap_or_else(|e| failure(&e)),
        Err(e) => failure(&e),
    };
    system::common_headers(api, reply.headers_mut()).await;
    reply
}

async fn dispatch(api: &Api, path: Path, parts: Parts, body: Body) -> Result<Reply, Failure> {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    let ours = matches!(
        segments.first(),
        Some(
            &("swarm"
                | "nodes"
                | "services"
                | "tasks"
                | "secrets"
                | "configs"
                | "info"
                | "version"
                | "events"
                | "_ping")
        )
    );
    if ours {
        let query = Query::parse(parts.uri.query());
        let request = Request { method: parts.method, path, query, headers: parts.headers, body };
        if matches!(request.method, Method::GET | Method::HEAD) {
            return handle(api, request, parts.uri.query()).await;
        }
        return to_its_end(api, request).await;
    }
    if segments == ["networks", "create"] && parts.method == Method::POST {
        return create_network(api, path, parts, body).await;
    }
    let request = http::Request::from_parts(parts, body);
    api.proxy(request, &path).await
}

/// A request that changes something goes on to its end even when the client hangs up.
async fn to_its_end(api: &Api, request: Request) -> Result<Reply, Failure> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let api = api.clone();
    api.deps().tasks.clone().spawn_to_end("api request", async move {
        let _client_is_gone = tell.send(handle(&api, request, None).await);
    });
    told.await.unwrap_or_else(|_| {
        let text = "the daemon is stopping; what the request asked for may or may not have been done";
        Err(Failure::new(503, text))
    })
}

async fn handle(api: &Api, request: Request, raw_query: Option<&str>) -> Result<Reply, Failure> {
    let segments = request.path.segments.clone();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (request.method.as_str(), segments.as_slice()) {
        ("GET" | "HEAD", ["_ping"]) => Ok(system::ping(api, &request).await),
        ("GET", ["version"]) => system::version(api).await,
        ("GET", ["info"]) => info::info(api, &request).await,
        ("GET", ["events"]) => events::stream(api, &request, raw_query).await,
        ("GET", ["swarm"]) => cluster::inspect(api, &request).await,
        ("GET", ["swarm", "unlockkey"]) => cluster::unlock_key(api),
        ("POST", ["swarm", "unlock"]) => Err(Failure::not_locked()),
        ("POST", ["swarm", "init"]) => cluster::init(api, request).await,
        ("POST", ["swarm", "join"]) => cluster::join(api, request).await,
        ("POST", ["swarm", "leave"]) => cluster::leave(api, &request).await,
        ("POST", ["swarm", "update"]) => cluster::update(api, request).await,
        ("GET", ["nodes"]) => nodes::list(api, &request).await,
        ("GET", ["nodes", id]) => nodes::inspect(api, &request, id).await,
        ("DELETE", ["nodes", id]) => nodes::remove(api, &request, id).await,
        ("POST", ["nodes", id, "update"]) => nodes::update(api, request, id).await,
        ("GET", ["services"]) => services::list(api, &request).await,
        ("POST", ["services", "create"]) => services::create(api, request).await,
        ("GET", ["services", id]) => services::inspect(api, &request, id).await,
        ("DELETE", ["services", id]) => services::remove(api, id).await,
        ("POST", ["services", id, "update"]) => service_update::update(api, request, id).await,
        ("GET", ["services", id, "logs"]) => logs::logs(api, &request, Whose::Service(id)).await,
        ("GET", ["tasks"]) => tasks::list(api, &request).await,
        ("GET", ["tasks", id]) => tasks::inspect(api, &request, id).await,
        ("GET", ["tasks", id, "logs"]) => logs::logs(api, &request, Whose::Task(id)).await,
        (_, [kind @ ("secrets" | "configs"), rest @ ..]) => secrets_and_configs(api, &request, kind, rest),
        _ => Err(Failure::page_not_found()),
    }
}

/// There are none yet; clients that only look are told so in Docker's way.
fn secrets_and_configs(api: &Api, request: &Request, kind: &str, rest: &[&str]) -> Result<Reply, Failure> {
    let one = kind.trim_end_matches('s');
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            request.query.filters()?.allow_only(&["id", "label", "name", "names"])?;
            api.store()?;
            Ok(json(&Value::Array(Vec::new())))
        }
        ("POST", ["create"]) => {
            api.store()?;
            Err(Failure::rpc(
                Code::Unimplemented,
                format_args!(
                    "{kind} are not supported by this release of Swarmlite; use environment variables or bind mounts"
                ),
            ))
        }
        ("GET" | "DELETE", [id]) | ("POST", [id, "update"]) => {
            api.store()?;
            Err(Failure::not_found(one, &id.chars().take(128).collect::<String>()))
        }
        _ => Err(Failure::page_not_found()),
    }
}

/// Local networks are the engine's; the swarm has none yet, and the engine could only say something misleading.
async fn create_network(api: &Api, path: Path, parts: Parts, body: Body) -> Result<Reply, Failure> {
    let mut request =
        Request { method: parts.method.clone(), path, query: Query::default(), headers: parts.headers.clone(), body };
    let bytes = request.bytes().await?;
    if let Ok(Value::Object(sent)) = serde_json::from_slice::<Value>(&bytes) {
        let text = |name: &str| sent.get(name).and_then(Value::as_str).unwrap_or_default();
        let on = |name: &str| sent.get(name).and_then(Value::as_bool).unwrap_or(false);
        if text("Driver") == "overlay" || text("Scope") == "swarm" || on("Ingress") {
            return Err(Failure::rpc(
                Code::Unimplemented,
                "overlay networks are not supported by this release of Swarmlite; publish ports with mode=host, or use a bridge network on one node",
            ));
        }
    }
    let forwarded = http::Request::from_parts(parts, crate::reply::full(bytes));
    api.proxy(forwarded, &request.path).await
}
