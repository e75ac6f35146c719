//! Nodes.

use crate::{GenericResource, Meta, NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id; the common name of its certificate.
    pub id: NodeId,
    /// Version and times.
    pub meta: Meta,
    /// What a user can change.
    pub spec: NodeSpec,
    /// What the node says of itself; `None` until its first session.
    pub description: Option<NodeDescription>,
    /// What the leader thinks of it.
    pub status: NodeStatus,
    /// Set once the node has joined the Raft group.
    pub manager: Option<ManagerStatus>,
}

/// What a user can change about a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeSpec {
    /// An optional name.
    pub name: String,
    /// User labels.
    pub labels: BTreeMap<String, String>,
    /// The role it should have. The role it *has* is in its certificate.
    pub role: Role,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Role {
    /// Runs tasks.
    #[default]
    Worker,
    /// Runs tasks and keeps the cluster's state.
    Manager,
}

/// Whether a node takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Availability {
    /// It does.
    #[default]
    Active,
    /// No new ones.
    Pause,
    /// None; those it has move elsewhere.
    Drain,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// Architecture and operating system.
    pub platform: Platform,
    /// What it has.
    pub resources: Resources,
    /// What else it has.
    #[serde(default)]
    pub generic: Vec<GenericResource>,
    /// Its container engine.
    pub engine: EngineDescription,
    /// The certificate that it has and the root that it trusts, by its own word; `None` from a node that did not say.
    #[serde(default)]
    pub tls: Option<NodeTls>,
}

/// What a node says of its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeTls {
    /// The root certificates that it trusts, PEM.
    pub trust_root_pem: String,
    /// Subject of the root that signed its certificate, DER.
    pub issuer_subject_der: Vec<u8>,
    /// Public key of that root, DER (SubjectPublicKeyInfo).
    pub issuer_public_key_der: Vec<u8>,
    /// Whether its certificate has a mark of the managers that granted it.
    #[serde(default)]
    pub granted: bool,
}

/// Architecture and operating system, in the engine's words (`x86_64`, `linux`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture.
    pub architecture: String,
    /// Operating system.
    pub os: String,
}

/// CPU and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Billionths of a CPU.
    pub nano_cpus: i64,
    /// Bytes.
    pub memory_bytes: i64,
}

/// A node's container engine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EngineDescription {
    /// Its version; the embedded engine says `embedded` here, so that nobody takes it for Docker.
    pub version: String,
    /// Labels of the engine.
    pub labels: BTreeMap<String, String>,
    /// Plugins as (type, name): `("Network", "bridge")`.
    pub plugins: Vec<(String, String)>,
}

/// What the leader thinks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its state.
    pub state: NodeState,
    /// Why, for people.
    pub message: String,
    /// The address its session came from.
    pub addr: String,
    /// Since when it is in this state, by the clock of the leader that wrote it; zero when nobody noted it.
    #[serde(default)]
    pub since: Timestamp,
    /// When it came to take tasks last: it became ready, or active again. Zero when nobody noted it.
    #[serde(default)]
    pub takes_tasks_since: Timestamp,
    /// The lost manager in whose place autopilot made this node one; `None` again once that one is a manager no more.
    #[serde(default)]
    pub stands_in_for: Option<NodeId>,
}

/// A node's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NodeState {
    /// Not heard of yet.
    #[default]
    Unknown,
    /// Its session lapsed; its tasks run elsewhere.
    Down,
    /// It has a session.
    Ready,
    /// It left on its own.
    Disconnected,
}

/// A node's part in the Raft group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// Its Raft member id. Never used again after the node is removed.
    pub raft_id: u64,
    /// `host:port` at which other managers reach it.
    pub addr: String,
}

// === impl Node ===

impl Node {
    /// True when new tasks may come to it: it is ready and active.
    pub fn takes_tasks(&self) -> bool {
        self.status.state == NodeState::Ready && self.spec.availability == Availability::Active
    }
}
