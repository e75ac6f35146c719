//! `POST /services/{id}/update`: a new spec, or the one before.

use crate::reply::{Reply, json};
use crate::request::Request;
use crate::services::registry_auth;
use crate::{Api, convert, lookup, read, secrets};
use docker_api::{Failure, ServiceUpdateResponse};
use model::{RegistryAuth, Service, ServiceSpec, UpdateState, UpdateStatus};
use std::mem::discriminant;

/// SwarmKit's word for a rollback that a user asked for.
const MANUAL_ROLLBACK: &str = "manually requested rollback";

/// `POST /services/{id}/update`
pub(crate) async fn update(api: &Api, mut request: Request, id: &str) -> Result<Reply, Failure> {
    let sent: docker_api::ServiceSpec = request.json().await?;
    let version = request.query.version("service")?;
    let rollback = match request.query.get("rollback") {
        "" | "none" => false,
        "previous" => true,
        other => {
            return Err(Failure::bad_request(format_args!(
                "unrecognized rollback option {other:?}: use previous or none"
            )));
        }
    };
    let auth = registry_auth(&request)?;
    let store = api.store()?;
    // What is here may be behind; if it has the version that the caller saw, the commit will check that it still is the last.
    let local = store.local();
    let is_seen = lookup::service_exactly(&local, id).is_some_and(|s| s.meta.version == version);
    let snapshot = if is_seen { local } else { api.read_to_write().await?.1 };
    let old = lookup::service(&snapshot, id)?;
    let auth = match auth {
        Some(auth) => Some(auth),
        None => kept_auth(old, request.query.get("registryAuthFrom"))?,
    };
    let spec = convert::service_spec(sent, auth)?;
    if discriminant(&spec.mode) != discriminant(&old.spec.mode) {
        return Err(Failure::mode_change());
    }
    if spec.name != old.spec.name {
        return Err(Failure::rename());
    }
    if version != old.meta.version {
        return Err(Failure::out_of_sequence());
    }
    let new = if rollback { rolled_back(api, old)? } else { changed(old, spec) };
    let mut tx = api.transaction();
    secrets::check_granted(api, &snapshot, &new.spec, &mut tx).await?;
    tx.update(new);
    store.propose(tx).await.map_err(read::propose_failure)?;
    Ok(json(&ServiceUpdateResponse { warnings: None }))
}

/// The credentials that stay when the client sends none.
fn kept_auth(old: &Service, from: &str) -> Result<Option<RegistryAuth>, Failure> {
    let of = |spec: &ServiceSpec| spec.task.container.registry_auth.clone();
    match from {
        "" | "spec" => Ok(of(&old.spec)),
        "previous-spec" => match &old.previous_spec {
            Some(previous) => Ok(of(previous)),
            None => Err(Failure::bad_request("service does not have a previous spec")),
        },
        other => Err(Failure::bad_request(format_args!(
            "unsupported registryAuthFrom value {other:?}: use spec or previous-spec"
        ))),
    }
}

fn changed(old: &Service, mut spec: ServiceSpec) -> Service {
    spec.keep_data_versions(&old.spec);
    Service {
        previous_spec: Some(old.spec.clone()),
        spec,
        spec_version: old.spec_version + 1,
        update_status: None,
        ..old.clone()
    }
}

fn rolled_back(api: &Api, old: &Service) -> Result<Service, Failure> {
    let Some(previous) = old.previous_spec.clone() else { return Err(Failure::no_previous_spec(old.id.as_str())) };
    let mut new = changed(old, previous);
    new.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: api.now(),
        completed_at: None,
        message: MANUAL_ROLLBACK.into(),
        spec_version: new.spec_version,
    });
    Ok(new)
}
