//! `POST /swarmlite/rebalance`: asks for services to be spread anew. The control loops move their tasks, one at a time.

use crate::reply::{Reply, json};
use crate::request::Request;
use crate::{Api, lookup, read};
use docker_api::{Failure, RebalanceRequest};
use model::{Rebalance, Service};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Conflict, ProposeError, Snapshot};

/// How often the wish is put again because a service was changed meanwhile.
const ATTEMPTS: usize = 8;

/// `POST /swarmlite/rebalance`. The answer names the services that it concerns.
pub(crate) async fn rebalance(api: &Api, mut request: Request) -> Result<Reply, Failure> {
    let sent: RebalanceRequest = request.json().await?;
    for attempt in 1.. {
        let (store, snapshot) = api.read_to_write().await?;
        let services = wanted(&snapshot, &sent.services)?;
        let reply = RebalanceRequest { services: services.iter().map(|s| s.spec.name.to_string()).collect() };
        let mut tx = api.transaction();
        for service in services {
            let mut service = Service::clone(service);
            // A move that is under way goes on.
            let moving = service.progress.rebalance.take().and_then(|r| r.moving);
            service.progress.rebalance = Some(Rebalance { asked_at: tx.at, moving, ..Rebalance::default() });
            tx.update(service);
        }
        if tx.is_empty() {
            return Ok(json(&reply));
        }
        match store.propose(tx).await {
            Ok(_) => return Ok(json(&reply)),
            Err(ProposeError::Conflict(Conflict::Changed { .. } | Conflict::Missing(_))) if attempt < ATTEMPTS => {}
            Err(e) => return Err(read::propose_failure(e)),
        }
    }
    unreachable!("the last attempt returns")
}

/// The services that were named, or all that can be spread anew. A task of a job or a global service has nowhere else to go.
fn wanted<'a>(snapshot: &'a Snapshot, names: &[String]) -> Result<Vec<&'a Arc<Service>>, Failure> {
    if names.is_empty() {
        return Ok(snapshot.services().filter(|s| s.spec.replicas().is_some()).collect());
    }
    let mut services = BTreeMap::new();
    for what in names {
        let service = lookup::service(snapshot, what)?;
        if service.spec.replicas().is_none() {
            return Err(Failure::bad_request(format_args!(
                "service {} cannot be rebalanced: its mode is {}; only replicated services can",
                service.spec.name,
                service.spec.mode.as_str()
            )));
        }
        services.insert(service.id.clone(), service);
    }
    Ok(services.into_values().collect())
}
