//! `POST /services/{id}/update`: a new spec, or the one before.

use crate::reply::{Reply, json};
use crate::request::Request;
use crate::services::{check_host_access, is_of_the_cluster, registry_auth};
use crate::{Api, convert, digests, lookup, read, secrets};
use docker_api::{Failure, ServiceUpdateResponse};
use model::{JobRun, Progress, RegistryAuth, Service, ServiceSpec, Timestamp, UpdateState, UpdateStatus};
use store::ProposeError;

/// SwarmKit's word for a rollback that a user asked for.
const MANUAL_ROLLBACK: &str = "manually requested rollback";

/// How often an update is judged again because the swarm's policy, on which it depends, was changed meanwhile.
const ATTEMPTS: usize = 4;

/// `POST /services/{id}/update`
pub(crate) async fn update(api: &Api, mut request: Request, id: &str) -> Result<Reply, Failure> {
    let mut sent: docker_api::ServiceSpec = request.json().await?;
    convert::adjust_for_version(request.path.version, &mut sent);
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
    let warnings = digests::pin(api, &request, &mut sent).await;
    let asked = Asked { sent, version, rollback, auth, auth_from: request.query.get("registryAuthFrom").to_owned() };
    let store = api.store()?;
    for attempt in 1.. {
        // What is here may be behind; if it has the version that the caller saw, the commit will check that it still is the
        // last.
        let local = store.local();
        let is_seen = lookup::service_exactly(&local, id).is_some_and(|s| s.meta.version == version);
        let snapshot = if is_seen { local } else { api.read_to_write().await?.1 };
        let mut tx = api.transaction();
        let new = asked.judged(lookup::service(&snapshot, id)?, tx.at)?;
        secrets::check_granted(api, &snapshot, &new.spec, &mut tx).await?;
        check_host_access(api, &new.spec, &mut tx).await?;
        tx.update(new);
        match store.propose(tx).await {
            Ok(_) => return Ok(json(&ServiceUpdateResponse { warnings })),
            Err(ProposeError::Conflict(conflict)) if is_of_the_cluster(&conflict) && attempt < ATTEMPTS => {}
            Err(e) => return Err(read::propose_failure(e)),
        }
    }
    unreachable!("the last attempt returns")
}

/// What a user asks for.
struct Asked {
    sent: docker_api::ServiceSpec,
    version: u64,
    rollback: bool,
    auth: Option<RegistryAuth>,
    auth_from: String,
}

// === impl Asked ===

impl Asked {
    /// What becomes of the service, at a time; or why not.
    fn judged(&self, old: &Service, at: Timestamp) -> Result<Service, Failure> {
        let auth = match &self.auth {
            Some(auth) => Some(auth.clone()),
            None => kept_auth(old, &self.auth_from)?,
        };
        let spec = convert::service_spec(self.sent.clone(), auth)?;
        if !spec.mode.is_same_kind(&old.spec.mode) {
            return Err(Failure::mode_change());
        }
        if spec.name != old.spec.name {
            return Err(Failure::rename());
        }
        if self.version != old.meta.version {
            return Err(Failure::out_of_sequence());
        }
        if self.rollback { rolled_back(old, at) } else { Ok(changed(old, spec, at)) }
    }
}

/// The credentials that stay when the client sends none.
fn kept_auth(old: &Service, from: &str) -> Result<Option<RegistryAuth>, Failure> {
    let of = |spec: &ServiceSpec| spec.task.registry_auth().cloned();
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

fn changed(old: &Service, mut spec: ServiceSpec, at: Timestamp) -> Service {
    spec.keep_data_versions(&old.spec);
    Service {
        progress: progress(old, &spec, at),
        previous_spec: Some(old.spec.clone()),
        spec,
        spec_version: old.spec_version + 1,
        update_status: None,
        ..old.clone()
    }
}

/// Every update of a job is another run of it. One with a schedule runs when that says so, and the control loops see to it.
fn progress(old: &Service, spec: &ServiceSpec, at: Timestamp) -> Progress {
    let mut progress = old.progress.clone();
    if spec.mode.is_job() && spec.cron.is_none() {
        let iteration = progress.job.map_or(0, |job| job.iteration + 1);
        progress.job = Some(JobRun { iteration, last_execution: at });
    }
    progress
}

fn rolled_back(old: &Service, at: Timestamp) -> Result<Service, Failure> {
    let Some(previous) = old.previous_spec.clone() else { return Err(Failure::no_previous_spec(old.id.as_str())) };
    let mut new = changed(old, previous, at);
    new.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: at,
        completed_at: None,
        message: MANUAL_ROLLBACK.into(),
        spec_version: new.spec_version,
    });
    Ok(new)
}
