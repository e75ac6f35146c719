//! `/services`: list, inspect, create, remove.

use crate::cluster::no_cluster;
use crate::reply::{Reply, empty, json, json_bytes, json_with};
use crate::request::{ApiVersion, Request};
use crate::{Api, convert, digests, lookup, names, read, render, secrets};
use base64::Engine as _;
use docker_api::{Failure, Filters, ServiceCreateResponse, ServiceStatus};
use http::StatusCode;
use model::{
    HostAccess, JobRun, Meta, Mode, NodeState, Progress, RegistryAuth, Service, ServiceId, ServiceSpec, TaskState,
    Timestamp,
};
use seams::RandExt as _;
use store::{Change, Check, Conflict, Kind, ObjectId, ProposeError, Snapshot, Transaction};

/// How often a creation is tried again: with another name when it has none of its own, and when the swarm's policy, on which
/// it depends, was changed meanwhile.
const ATTEMPTS: usize = 4;
/// `GET /services?status=` is there from this version on.
const STATUS_SINCE: ApiVersion = ApiVersion(1, 41);

/// `GET /services`
pub(crate) async fn list(api: &Api, request: &Request) -> Result<Reply, Failure> {
    let filters = request.query.filters()?;
    filters.allow_only(&["name", "id", "label", "mode", "runtime"])?;
    let snapshot = api.read(request).await?;
    // Older clients do not know the parameter.
    let knows_status = request.path.version.is_none_or(|v| v >= STATUS_SINCE);
    let status = knows_status && request.query.parsed_bool("status")?.unwrap_or(false);
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
        && filters.any("mode", |m| m == s.spec.mode.as_str())
        && convert::is_of_runtime(filters, &s.spec.task)
}

/// How many of a service's tasks run, as SwarmKit counts (manager/controlapi, `ListServiceStatuses`); but what a node did
/// before it went down says nothing.
fn count(snapshot: &Snapshot, s: &Service) -> ServiceStatus {
    let on_node_that_is_down = |id| snapshot.node(id).is_none_or(|n| n.status.state == NodeState::Down);
    let iteration = s.progress.job.map(|job| job.iteration);
    let mut count = ServiceStatus::default();
    match s.spec.mode {
        Mode::Replicated { replicas } => count.desired_tasks = replicas,
        // So many at once, though fewer may be left to do.
        Mode::ReplicatedJob { max_concurrent, .. } => count.desired_tasks = max_concurrent,
        Mode::Global | Mode::GlobalJob => {}
    }
    // Of a job, those of its present run.
    for task in snapshot.tasks_of_service(&s.id).filter(|t| !s.spec.mode.is_job() || t.job_iteration == iteration) {
        let state = task.status.state;
        if state == TaskState::Running && !task.node_id.as_ref().is_some_and(on_node_that_is_down) {
            count.running_tasks += 1;
        }
        if s.spec.mode.is_job() && state == TaskState::Complete {
            count.completed_tasks += 1;
        }
        let is_desired = match task.desired {
            TaskState::Running => true,
            TaskState::Complete => state != TaskState::Complete,
            _ => false,
        };
        if s.spec.mode.is_global() && is_desired {
            count.desired_tasks += 1;
        }
    }
    count
}

/// `GET /services/{id}`
pub(crate) async fn inspect(api: &Api, request: &Request, id: &str) -> Result<Reply, Failure> {
    let snapshot = api.read(request).await?;
    let found = lookup::service(&snapshot, id)?;
    if !request.query.parsed_bool("insertDefaults")?.unwrap_or(false) {
        return Ok(json_bytes(StatusCode::OK, api.0.rendered.service(found)));
    }
    let mut service = convert::service(found);
    convert::insert_defaults(&mut service.spec);
    Ok(json(&service))
}

/// `POST /services/create`
pub(crate) async fn create(api: &Api, mut request: Request) -> Result<Reply, Failure> {
    let mut sent: docker_api::ServiceSpec = request.json().await?;
    convert::adjust_for_version(request.path.version, &mut sent);
    let auth = registry_auth(&request)?;
    let warnings = digests::pin(api, &request, &mut sent).await;
    let store = api.store()?;
    let unnamed = sent.name.is_empty();
    for attempt in 1.. {
        if unnamed {
            let local = store.local();
            let taken = |name: &str| name.parse().is_ok_and(|n| local.service_named(&n).is_some());
            sent.name = names::generate(&*api.deps().seams.rand, taken);
        }
        let spec = convert::service_spec(sent.clone(), auth.clone())?;
        let mut tx = api.transaction();
        tx.check(Check::NameFree { kind: Kind::Service, name: spec.name.to_string() });
        secrets::check_granted(api, &store.local(), &spec, &mut tx).await?;
        check_host_access(api, &spec, &mut tx).await?;
        let service = new_service(api, spec, tx.at);
        let reply = ServiceCreateResponse { id: service.id.to_string(), warnings: warnings.clone() };
        tx.create(service);
        match store.propose(tx).await {
            Ok(_) => return Ok(json_with(StatusCode::CREATED, &reply)),
            Err(ProposeError::Conflict(conflict))
                if (unnamed || is_of_the_cluster(&conflict)) && attempt < ATTEMPTS => {}
            Err(e) => return Err(read::propose_failure(e)),
        }
    }
    unreachable!("the last attempt returns")
}

fn new_service(api: &Api, spec: ServiceSpec, at: Timestamp) -> Service {
    let job = spec.mode.is_job().then_some(JobRun { iteration: 0, last_execution: at });
    Service {
        id: api.deps().seams.rand.id25().parse().expect("id25 makes ids"),
        meta: Meta::default(),
        spec,
        spec_version: 1,
        previous_spec: None,
        update_status: None,
        progress: Progress { job, ..Progress::default() },
    }
}

/// Refuses a service that wants more of its nodes than the swarm's policy lets it have, and makes the transaction depend on
/// that policy.
pub(crate) async fn check_host_access(api: &Api, spec: &ServiceSpec, tx: &mut Transaction) -> Result<(), Failure> {
    let wanted = spec.task.container().map(|c| &c.host_access).filter(|h| **h != HostAccess::default());
    let Some(wanted) = wanted else { return Ok(()) };
    let (_, snapshot) = api.read_to_write().await?;
    let cluster = snapshot.cluster().ok_or_else(no_cluster)?;
    cluster.spec.policy.host.check(wanted).map_err(Failure::denied)?;
    tx.check(Check::Unchanged { id: (&cluster.id).into(), version: cluster.meta.version });
    Ok(())
}

/// True when the cluster object was changed since it was looked at: its policy has to be looked at again.
pub(crate) fn is_of_the_cluster(conflict: &Conflict) -> bool {
    matches!(conflict, Conflict::Changed { id, .. } if id.kind() == Kind::Cluster)
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
