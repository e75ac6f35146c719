//! The cluster object: one in every store.

use crate::{ClusterId, Meta, NodeId, Timestamp};
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
impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipKey").field("id", &self.id).finish_non_exhaustive()
    }
}
