//! What if nodes died or were drained, or services were scaled: the transaction to ask a forecast about.

use model::{Availability, Mode, NodeId, NodeState, ServiceId, ServiceName, Timestamp, limits};
use std::collections::BTreeMap;
use store::{Snapshot, Transaction};

/// A question that cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhatIfError {
    /// No such node.
    #[error("node {0} is not part of this swarm")]
    NoNode(NodeId),
    /// No such service.
    #[error("service {0} not found")]
    NoService(ServiceId),
    /// It has no number of replicas.
    #[error("service {service} cannot be scaled: its mode is {mode}; scale can only be used with replicated services")]
    NotReplicated {
        /// Which.
        service: ServiceName,
        /// Its mode.
        mode: &'static str,
    },
    /// More than there may be.
    #[error("service {service} cannot have {asked} replicas: at most {}", limits::REPLICAS_MAX)]
    TooMany {
        /// Which.
        service: ServiceName,
        /// How many were asked for.
        asked: u64,
    },
}

/// The changes of these nodes and services, as a transaction that nobody ever commits. A node that is both killed and drained
/// is both.
///
/// # Errors
/// A node or service is not there, or the service cannot be scaled so.
pub fn what_if(
    snapshot: &Snapshot,
    kill: &[NodeId],
    drain: &[NodeId],
    scale: &BTreeMap<ServiceId, u64>,
    now: Timestamp,
) -> Result<Transaction, WhatIfError> {
    let mut transaction = Transaction::new(now);
    let mut nodes = BTreeMap::new();
    for id in kill.iter().chain(drain) {
        let node = snapshot.node(id).ok_or_else(|| WhatIfError::NoNode(id.clone()))?;
        nodes.insert(id.clone(), model::Node::clone(node));
    }
    for (id, node) in &mut nodes {
        if kill.contains(id) {
            node.status.state = NodeState::Down;
            node.status.message = "what if it were down".into();
        }
        if drain.contains(id) {
            node.spec.availability = Availability::Drain;
        }
    }
    nodes.into_values().for_each(|n| _ = transaction.update(n));
    for (id, replicas) in scale {
        transaction.update(scaled(snapshot, id, *replicas)?);
    }
    Ok(transaction)
}

fn scaled(snapshot: &Snapshot, id: &ServiceId, replicas: u64) -> Result<model::Service, WhatIfError> {
    let service = snapshot.service(id).ok_or_else(|| WhatIfError::NoService(id.clone()))?;
    let name = || service.spec.name.clone();
    if service.spec.replicas().is_none() {
        return Err(WhatIfError::NotReplicated { service: name(), mode: service.spec.mode.as_str() });
    }
    if replicas > limits::REPLICAS_MAX {
        return Err(WhatIfError::TooMany { service: name(), asked: replicas });
    }
    let mut service = model::Service::clone(service);
    service.spec.mode = Mode::Replicated { replicas };
    service.spec_version += 1;
    service.update_status = None;
    Ok(service)
}
