//! `POST /swarmlite/simulate`: what if nodes died or were drained, or services were scaled. Nothing is changed.

use crate::reply::Reply;
use crate::request::Request;
use crate::{Api, lookup, plan};
use control::forecast::{Options, WhatIfError, what_if};
use docker_api::{Failure, SimulateRequest};
use model::NodeId;
use std::collections::BTreeMap;
use store::Snapshot;

/// `POST /swarmlite/simulate`
pub(crate) async fn simulate(api: &Api, mut request: Request) -> Result<Reply, Failure> {
    let sent: SimulateRequest = request.json().await?;
    if sent.kill.is_empty() && sent.drain.is_empty() && sent.scale.is_empty() {
        return Err(Failure::bad_request(
            "there is nothing to simulate: name nodes to Kill or Drain, or services to Scale",
        ));
    }
    let snapshot = api.read(&request).await?;
    let (kill, drain) = (nodes(&snapshot, &sent.kill)?, nodes(&snapshot, &sent.drain)?);
    let mut scale = BTreeMap::new();
    for (what, replicas) in &sent.scale {
        scale.insert(lookup::service(&snapshot, what)?.id.clone(), *replicas);
    }
    let change = what_if(&snapshot, &kill, &drain, &scale, api.now()).map_err(failure)?;
    let options = Options { land_all: true, ..Options::default() };
    plan::answer_with(api, snapshot, vec![change], options).await
}

fn nodes(snapshot: &Snapshot, names: &[String]) -> Result<Vec<NodeId>, Failure> {
    names.iter().map(|what| lookup::node(snapshot, what).map(|n| n.id.clone())).collect()
}

fn failure(e: WhatIfError) -> Failure {
    match e {
        WhatIfError::NoNode(_) | WhatIfError::NoService(_) => Failure::new(404, e),
        WhatIfError::NotReplicated { .. } | WhatIfError::TooMany { .. } => Failure::bad_request(e),
    }
}
