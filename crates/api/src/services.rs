//! `/services`: list, inspect, create, remove.

use crate::reply::{Reply, empty, json, json_bytes, json_with};
use crate::request::Request;
use crate::{Api, convert, lookup, names, read, render, secrets};
use base64::Engine as _;
use docker_api::{Failure, Filters, ServiceCreateResponse, ServiceStatus};
use http::StatusCode;
use model::{Meta, NodeState, RegistryAuth, Service, ServiceId, TaskState};
use seams::RandExt as _;
use store::{Change, Check, Kind, ObjectId, ProposeError, Snapshot, Transaction};

/// How often a creation without a name tries another one.
const NAME_ATTEMPTS: usize = 4;

/// `GET /services`
pub(crate) async fn list(api: &Api, request: &Request) -> Result<Reply, Failure> {
    let filters = request.query.filters()?;
    filters.allow_only(&["name", "id", "label", "mode", "runtime"])?;
    for mode in filters.values("mode") {
        if !matches!(mode, "replicated" | "global" | "replicated-job" | "global-job") {
            return Err(Failure::bad_request(format_args!("invalid filter 'mode=[{mode}]'")));
        }
    }
    let snapshot = api.read(request).await?;
    let status = request.query.is_on("status");
    if filters.is_empty() && !status {
        return Ok(json_bytes(StatusCode::OK, api.0.rendered.all_services(&snapshot)));
    }
    let found = snapshot.services().filter(|s| matches(s, &filters));
    let rendered = found.map(|s| {
        let plain = api.0.rendered.service(s);
        if status { render::with_field(&plain, "ServiceStatus", &count(&snapshot, s)) } else { plain }
    });
    Ok(json_bytes(StatusCode::OK, render::list(rendered)))
}

fn matches(s: &Service, filters: &Filters) -> bool {
    filters.any("name", |n| s.spec.name.as_str().starts_with(n))
        && filters.any("id", |id| s.id.as_str().starts_with(id))
        && filters.labels("label", &s.spec.labels)
        && filters.any("mode", |m| m == "replicated")
        && filters.any("runtime", |r| r == "container")
}

/// How many of a service's tasks run. What a node did before it went down says nothing.
fn count(snapshot: &Snapshot, s: &Service) -> ServiceStatus {
    let on_node_that_is_down = |id| snapshot.node(id).is_none_or(|n| n.status.state == NodeState::Down);
    let running = snapshot
        .tasks_of_service(&s.id)
        .filter(|t| t.status.state == TaskState::Running)
        .filter(|t| !t.node_id.as_ref().is_some_and(on_node_that_is_down));
    ServiceStatus { running_tasks: running.count() as u64, desired_tasks: s.spec.replicas(), completed_tasks: 0 }
}

/// `GET /services/{id}`
pub(crate) async fn inspect(api: &Api, request: &Request, id: &str) -> Result<Reply, Failure> {
    let snapshot = api.read(request).await?;
    let found = lookup::service(&snapshot, id)?;
    if !request.query.is_on("insertDefaults") {
        return Ok(json_bytes(StatusCode::OK, api.0.rendered.service(found)));
    }
    let mut service = convert::service(found);
    convert::insert_defaults(&mut service.spec);
    Ok(json(&service))
}

/// `POST /services/create`
pub(crate) async fn create(api: &Api, mut request: Request) -> Result<Reply, Failure> {
    let mut sent: docker_api::ServiceSpec = request.json().await?;
    let auth = registry_auth(&request)?;
    let store = api.store()?;
    let unnamed = sent.name.is_empty();
    for attempt in 1.. {
        if unnamed {
            let local = store.local();
            let taken = |name: &str| name.parse().is_ok_and(|n| local.service_named(&n).is_some());
            sent.name = names::generate(&*api.deps().seams.rand, taken);
        }
        let spec = convert::service_spec(sent.clone(), auth.clone())?;
        let id = api.deps().seams.rand.id25().parse().expect("id25 makes ids");
        let mut tx = api.transaction();
        tx.check(Check::NameFree { kind: Kind::Service, name: spec.name.to_string() });
        secrets::check_granted(api, &store.local(), &spec, &mut tx).await?;
        let service =
            Service { id, meta: Meta::default(), spec, spec_version: 1, previous_spec: None, update_status: None };
        let reply = ServiceCreateResponse { id: service.id.to_string(), warnings: None };
        tx.create(service);
        match store.propose(tx).await {
            Ok(_) => return Ok(json_with(StatusCode::CREATED, &reply)),
            Err(ProposeError::Conflict(_)) if unnamed && attempt < NAME_ATTEMPTS => {}
            Err(e) => return Err(read::propose_failure(e)),
        }
    }
    unreachable!("the last attempt returns")
}

/// `DELETE /services/{id}`
pub(crate) async fn remove(api: &Api, what: &str) -> Result<Reply, Failure> {
    let store = api.store()?;
    // What is here may be behind, but the commit checks it: no need to ask the leader first.
    if let Some(found) = lookup::service_exactly(&store.local(), what) {
        match store.propose(removal(api, &found.id)).await {
            Err(ProposeError::Conflict(_)) => {}
            outcome => return outcome.map(|_| empty()).map_err(read::propose_failure),
        }
    }
    let (store, snapshot) = api.read_to_write().await?;
    let removal = removal(api, &lookup::service(&snapshot, what)?.id);
    store.propose(removal).await.map_err(read::propose_failure)?;
    Ok(empty())
}

fn removal(api: &Api, id: &ServiceId) -> Transaction {
    let id = ObjectId::from(id);
    let mut tx = api.transaction();
    tx.check(Check::Exists { id: id.clone() });
    tx.changes.push(Change::Remove(id));
    tx
}

/// The registry's credentials, if the client sent some: base64 of a JSON object that says anything.
pub(crate) fn registry_auth(request: &Request) -> Result<Option<RegistryAuth>, Failure> {
    let encoded = request.header("x-registry-auth");
    if encoded.is_empty() {
        return Ok(None);
    }
    // Clients differ in padding.
    let unpadded = encoded.trim_end_matches('=');
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(unpadded)
        .or_else(|_| base64::engine::general_purpose::STANDARD_NO_PAD.decode(unpadded));
    let object = bytes.ok().and_then(|b| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&b).ok());
    let Some(object) = object else {
        return Err(Failure::bad_request("invalid X-Registry-Auth header: it is not the base64 form of a JSON object"));
    };
    let says_something = object.values().any(|v| !v.is_null() && v.as_str() != Some(""));
    Ok(says_something.then(|| RegistryAuth(encoded.to_owned())))
}
