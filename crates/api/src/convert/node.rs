//! Nodes, both ways.

use super::{time, version};
use crate::swarm::{RaftView, Reachability};
use crate::swarm_ca::node_tls;
use docker_api::{
    DiscreteGenericResource, EngineDescription, Failure, ManagerStatus, NamedGenericResource, Node, NodeDescription,
    NodeSpec, NodeStatus, PluginDescription,
};
use model::{Availability, GenericResource, NodeState, Role, SPARE_MANAGER_LABEL};

/// A node, as this manager knows it.
pub(crate) fn node(n: &model::Node, raft: Option<&RaftView>) -> Node {
    let description = n.description.as_ref().map(|d| NodeDescription {
        hostname: d.hostname.clone(),
        platform: platform(&d.platform),
        resources: resources(d.resources, &d.generic),
        engine: EngineDescription {
            engine_version: d.engine.version.clone(),
            labels: d.engine.labels.clone(),
            plugins: d
                .engine
                .plugins
                .iter()
                .map(|(kind, name)| PluginDescription { kind: kind.clone(), name: name.clone() })
                .collect(),
        },
        tls_info: node_tls(d.tls.as_ref()),
        csi_info: Vec::new(),
    });
    Node {
        id: n.id.to_string(),
        version: version(n.meta.version),
        created_at: time(n.meta.created_at),
        updated_at: time(n.meta.updated_at),
        spec: spec_out(&n.spec),
        description: description.unwrap_or_default(),
        status: NodeStatus {
            state: state(n.status.state).into(),
            message: n.status.message.clone(),
            addr: n.status.addr.clone(),
        },
        manager_status: n.manager.as_ref().map(|m| manager_status(n, m, raft)),
    }
}

fn manager_status(n: &model::Node, m: &model::ManagerStatus, raft: Option<&RaftView>) -> ManagerStatus {
    let view = raft.and_then(|r| r.managers.get(&n.id));
    let reachability = match view.map_or(Reachability::Unknown, |v| v.reachability) {
        Reachability::Unknown => "unknown",
        Reachability::Reachable => "reachable",
        Reachability::Unreachable => "unreachable",
    };
    ManagerStatus {
        leader: raft.is_some_and(|r| r.leader.as_ref() == Some(&n.id)),
        reachability: reachability.into(),
        addr: m.addr.clone(),
    }
}

/// What a user sends for a node.
pub(crate) fn node_spec(s: NodeSpec) -> Result<model::NodeSpec, Failure> {
    let role = match s.role.to_ascii_lowercase().as_str() {
        "worker" => Role::Worker,
        "manager" => Role::Manager,
        _ => return Err(Failure::bad_request(format_args!("invalid Role: {:?}", s.role))),
    };
    if let Some(value) = s.labels.get(SPARE_MANAGER_LABEL).filter(|v| !matches!(v.as_str(), "true" | "false")) {
        let shown: String = value.chars().take(64).collect();
        return Err(Failure::invalid(format_args!(
            "invalid value {shown:?} of the node label {SPARE_MANAGER_LABEL}: give true or false"
        )));
    }
    Ok(model::NodeSpec { name: s.name, labels: s.labels, role, availability: availability(&s.availability)? })
}

/// An availability in Docker's words.
pub(crate) fn availability(text: &str) -> Result<Availability, Failure> {
    match text.to_ascii_lowercase().as_str() {
        "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(Failure::bad_request(format_args!("invalid Availability: {text:?}"))),
    }
}

fn spec_out(s: &model::NodeSpec) -> NodeSpec {
    let role = match s.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    };
    let availability = match s.availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    };
    NodeSpec { name: s.name.clone(), labels: s.labels.clone(), role: role.into(), availability: availability.into() }
}

fn state(s: NodeState) -> &'static str {
    match s {
        NodeState::Unknown => "unknown",
        NodeState::Down => "down",
        NodeState::Ready => "ready",
        NodeState::Disconnected => "disconnected",
    }
}

pub(super) fn platform(p: &model::Platform) -> docker_api::Platform {
    docker_api::Platform { architecture: p.architecture.clone(), os: p.os.clone() }
}

pub(super) fn resources(r: model::Resources, generic: &[GenericResource]) -> docker_api::Resources {
    docker_api::Resources {
        nano_cpus: r.nano_cpus,
        memory_bytes: r.memory_bytes,
        generic_resources: generic.iter().map(generic_out).collect(),
    }
}

pub(super) fn generic_out(g: &GenericResource) -> docker_api::GenericResource {
    let mut shown = docker_api::GenericResource::default();
    match g.clone() {
        GenericResource::Named { kind, value } => shown.named = Some(NamedGenericResource { kind, value }),
        GenericResource::Discrete { kind, amount } => {
            shown.discrete = Some(DiscreteGenericResource { kind, value: amount });
        }
    }
    shown
}
