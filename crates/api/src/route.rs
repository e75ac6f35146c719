//! Which handler a request belongs to. What no handler wants goes to the local engine.

use crate::access::{self, Caller, Row, To};
use crate::logs::Whose;
use crate::reply::{Body, Reply, failure, kept_open};
use crate::request::{Path, Query, Request};
use crate::secrets::Which;
use crate::server::Origin;
use crate::{
    Api, backup, cluster, events, exec, info, lock, logs, nodes, plan, rebalance, secrets, service_update, services,
    simulate, system, tasks, tokens, why,
};
use docker_api::Failure;
use docker_api::errors::Code;
use http::{Method, request::Parts};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

/// Answers one request, whatever it is. Nothing of its body is read before the table has let it through.
pub(crate) async fn answer(api: &Api, from: &Origin, parts: Parts, body: Body) -> Reply {
    let answer = match admitted(api, &from.caller, &parts) {
        Ok((row, path, lasting)) => {
            from.patience.set(row.waits_for_its_reader());
            dispatch(api, &from.caller, row, path, lasting, parts, body).await
        }
        Err(e) => Err(e),
    };
    let mut reply = answer.unwrap_or_else(|e| failure(&e));
    system::common_headers(api, reply.headers_mut()).await;
    reply
}

/// The request's row and path, and a place among the streams when it wants one.
fn admitted(
    api: &Api,
    caller: &Caller,
    parts: &Parts,
) -> Result<(&'static Row, Path, Option<OwnedSemaphorePermit>), Failure> {
    let path = Path::parse(parts.uri.path())?;
    let row = access::decide(caller, &parts.method, &path, api.deps().seams.clock.unix_now())?;
    // What becomes a tunnel may change anything, whatever its method.
    if caller.until.is_some() && (row.upgrades || !matches!(parts.method, Method::GET | Method::HEAD)) {
        tracing::info!(caller = caller.name, method = %parts.method, path = path.rest, "a change over the API's TCP port");
    }
    let lasting = row.lasts.then(|| api.stream()).transpose()?;
    Ok((row, path, lasting))
}

async fn dispatch(
    api: &Api,
    caller: &Caller,
    row: &Row,
    path: Path,
    lasting: Option<OwnedSemaphorePermit>,
    parts: Parts,
    body: Body,
) -> Result<Reply, Failure> {
    if row.to == To::Engine {
        if exec::concerns(row) {
            return exec::answer(api, caller, row, path, lasting, parts, body).await;
        }
        if row.path == "/networks/create" {
            return create_network(api, caller, path, parts, body).await;
        }
        return api.proxy(http::Request::from_parts(parts, body), &path, row.upgrades, lasting).await;
    }
    let query = Query::parse(parts.uri.query());
    let request = Request { method: parts.method, path, query, headers: parts.headers, caller: caller.clone(), body };
    if matches!(request.method, Method::GET | Method::HEAD) {
        let reply = handle(api, request, parts.uri.query()).await?;
        return Ok(kept_open(reply, lasting));
    }
    to_its_end(api, request).await
}

/// A request that changes something goes on to its end even when the client hangs up.
async fn to_its_end(api: &Api, request: Request) -> Result<Reply, Failure> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let api = api.clone();
    api.deps().tasks.clone().spawn_to_end("api request", async move {
        let planned = plan::is_asked_for(&request);
        let reply = if planned { plan::answer(&api, request).await } else { change(&api, request).await };
        let _client_is_gone = tell.send(reply);
    });
    told.await.unwrap_or_else(|_| {
        let text = "the daemon is stopping; what the request asked for may or may not have been done";
        Err(Failure::new(503, text))
    })
}

/// Changes something.
pub(crate) async fn change(api: &Api, request: Request) -> Result<Reply, Failure> {
    handle(api, request, None).await
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
        ("GET", ["swarm", "unlockkey"]) => lock::unlock_key(api, &request).await,
        ("POST", ["swarm", "unlock"]) => lock::unlock(api, request).await,
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
        ("GET", ["swarmlite", "tokens"]) => tokens::list(api, &request).await,
        ("POST", ["swarmlite", "tokens"]) => tokens::create(api, request).await,
        ("DELETE", ["swarmlite", "tokens", id]) => tokens::revoke(api, id).await,
        ("GET", ["swarmlite", "gossip"]) => backup::gossip(api),
        ("POST", ["swarmlite", "gossip", "rotate"]) => backup::rotate(api).await,
        ("GET", ["swarmlite", "services", id, "why"]) => why::service(api, &request, id).await,
        ("GET", ["swarmlite", "tasks", id, "why"]) => why::task(api, &request, id).await,
        ("POST", ["swarmlite", "simulate"]) => simulate::simulate(api, request).await,
        ("POST", ["swarmlite", "rebalance"]) => rebalance::rebalance(api, request).await,
        ("POST", ["swarmlite", "backup"]) => backup::create(api, request).await,
        ("GET", ["secrets"]) => secrets::list(api, &request, Which::Secrets).await,
        ("POST", ["secrets", "create"]) => secrets::create(api, request, Which::Secrets).await,
        ("GET", ["secrets", id]) => secrets::inspect(api, &request, Which::Secrets, id).await,
        ("DELETE", ["secrets", id]) => secrets::remove(api, &request, Which::Secrets, id).await,
        ("POST", ["secrets", id, "update"]) => secrets::update(api, request, Which::Secrets, id).await,
        ("GET", ["configs"]) => secrets::list(api, &request, Which::Configs).await,
        ("POST", ["configs", "create"]) => secrets::create(api, request, Which::Configs).await,
        ("GET", ["configs", id]) => secrets::inspect(api, &request, Which::Configs, id).await,
        ("DELETE", ["configs", id]) => secrets::remove(api, &request, Which::Configs, id).await,
        ("POST", ["configs", id, "update"]) => secrets::update(api, request, Which::Configs, id).await,
        _ => Err(Failure::page_not_found()),
    }
}

/// Local networks are the engine's; the swarm has none yet, and the engine could only say something misleading.
async fn create_network(api: &Api, caller: &Caller, path: Path, parts: Parts, body: Body) -> Result<Reply, Failure> {
    let (method, headers) = (parts.method.clone(), parts.headers.clone());
    let mut request = Request { method, path, query: Query::default(), headers, caller: caller.clone(), body };
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
    api.proxy(forwarded, &request.path, false, None).await
}
