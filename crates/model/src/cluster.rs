//! The cluster object: one in every store.

use crate::{ClusterId, Meta, NodeId, Role, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The cluster itself: what all managers share beyond nodes and services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Version and times.
    pub meta: Meta,
    /// What a user can change.
    pub spec: ClusterSpec,
    /// The certificate authority.
    pub root_ca: RootCa,
    /// The secrets of the join tokens.
    pub join_tokens: JoinTokens,
    /// Gossip keys, the one to seal with first; older ones still open.
    pub gossip_keys: Vec<GossipKey>,
    /// Address pools for overlay networks, in CIDR form (`10.0.0.0/8` unless given at init).
    pub default_addr_pool: Vec<String>,
    /// Prefix length of the subnets cut from the pools.
    pub subnet_size: u32,
    /// UDP port of the data path.
    pub data_path_port: u16,
    /// Nodes that were removed, each until its last certificate has expired: such a certificate opens no door.
    #[serde(default)]
    pub removed_nodes: BTreeMap<NodeId, Timestamp>,
    /// What guards it beyond the root and the two tokens.
    #[serde(default)]
    pub security: ClusterSecurity,
}

/// What guards a cluster beyond its root and its two standing join tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterSecurity {
    /// The change of the root that is under way; `None` when the nodes all trust [`Cluster::root_ca`] alone.
    pub root_rotation: Option<RootRotation>,
    /// Docker's `ForceRotate`: a spec with another value asks for a new root.
    pub force_rotate: u64,
    /// Join tokens that a user made, with an end of their own.
    pub tokens: BTreeMap<String, ExtraToken>,
    /// What unlocks a manager's disk. `None` when autolock is off.
    pub unlock_key: Option<UnlockKey>,
    /// When the gossip key to seal with was put first; `Timestamp(0)` counts from the cluster's creation.
    pub gossip_key_since: Timestamp,
}

/// A change from one root to another. Until it is finished, nodes trust both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRotation {
    /// The root that will be.
    pub new: RootCa,
    /// The new root's key and name, signed by the old root: who trusts only the old one can verify certificates of the new.
    pub cross_signed_pem: String,
    /// When it began.
    pub started_at: Timestamp,
}

/// A join token with an end: by time, by uses, or by being revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraToken {
    /// The role that it admits to.
    pub role: Role,
    /// SHA-256 of the token's whole text. The text itself is shown once, when it is made, and kept nowhere.
    pub digest: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// How often it may still be used; `None` for any number.
    pub uses_left: Option<u32>,
    /// Labels that a node is born with.
    pub labels: BTreeMap<String, String>,
}

/// The key that managers' data keys are locked under, `SWMKEY-1-<base64>` at the API.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockKey {
    /// Rises with every rotation.
    pub generation: u64,
    /// 32 bytes.
    pub key: [u8; 32],
}

/// What a user can change about a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Always `default`, as Docker's.
    pub name: String,
    /// User labels.
    pub labels: BTreeMap<String, String>,
    /// Dead tasks kept for each slot; negative keeps all.
    pub task_history_retention_limit: i64,
    /// Log entries between snapshots.
    pub snapshot_interval: u64,
    /// How often a node's agent sends a heartbeat. Docker's default is 5 s; ours is shorter, see `Default`.
    pub heartbeat_period: Duration,
    /// Validity of a node certificate.
    pub node_cert_expiry: Duration,
    /// Managers' disks cannot be read without the unlock key.
    #[serde(default)]
    pub autolock: bool,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        ClusterSpec {
            name: "default".into(),
            labels: BTreeMap::new(),
            task_history_retention_limit: crate::limits::TASK_HISTORY_DEFAULT,
            snapshot_interval: 10_000,
            // With Docker's 5 s a dead worker is seen after 13-16 s. One heartbeat a second from a few thousand nodes is
            // spread over all managers, so it costs little.
            heartbeat_period: Duration::from_secs(1),
            node_cert_expiry: Duration::from_secs(2160 * 3600),
            autolock: false,
        }
    }
}

/// The cluster's certificate authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCa {
    /// The root certificate, PEM.
    pub cert_pem: String,
    /// The root key, PEM. Only managers hold it.
    pub key_pem: String,
}

/// The secrets of the two join tokens, in their whole form `SWMTKN-1-<digest>-<secret>`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokens {
    /// Admits workers.
    pub worker: String,
    /// Admits managers.
    pub manager: String,
}

/// A key that seals gossip.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Rises with every rotation; travels in clear in each datagram.
    pub id: u32,
    /// 32 bytes.
    pub key: [u8; 32],
}

// Secrets never reach a log or an error through a derived `Debug`.
impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCa").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}
impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokens").finish_non_exhaustive()
    }
}
impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnlockKey").field("generation", &self.generation).finish_non_exhaustive()
    }
}
impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipKey").field("id", &self.id).finish_non_exhaustive()
    }
}
