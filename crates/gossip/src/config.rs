//! What gossip needs to start, and how it can fail.

use model::{ClusterId, GossipKey, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;

/// What each live node says of itself, as text under keys. This node's own facts are among them.
pub type Facts = BTreeMap<NodeId, BTreeMap<String, String>>;

/// The keys of what every node says of itself.
pub mod fact {
    /// Its `host:port` for gRPC when it is a manager, else its host.
    pub const ADDR: &str = "node.addr";
    /// Its host name.
    pub const HOSTNAME: &str = "node.hostname";
    /// Billionths of a CPU that it has.
    pub const NANO_CPUS: &str = "node.nano-cpus";
    /// Bytes of memory that it has.
    pub const MEMORY_BYTES: &str = "node.memory-bytes";
    /// The version of its container engine.
    pub const ENGINE: &str = "engine.version";
    /// The version of Swarmlite that it runs.
    pub const VERSION: &str = "swarmlite.version";
    /// Ids of the gossip keys that it can open, the one that it seals with first (`7,6`).
    pub const GOSSIP_KEYS: &str = "gossip.keys";
    /// Id of the gossip key under which it has sealed so much that another one is due.
    pub const GOSSIP_KEY_WORN: &str = "gossip.key-worn";
}

/// Facts of one node.
pub const FACTS_MAX: usize = 64;
/// Bytes of a fact's key.
pub const FACT_KEY_BYTES_MAX: usize = 64;
/// Bytes of a fact's value: all facts of a node have to fit a few chitchat messages of 64 KiB.
pub const FACT_VALUE_BYTES_MAX: usize = 2048;

/// What a node's gossip needs.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// This node.
    pub node_id: NodeId,
    /// Its cluster; datagrams of another one do not open, even under the same key.
    pub cluster_id: ClusterId,
    /// UDP address to bind.
    pub listen_addr: SocketAddr,
    /// UDP address at which others reach this node.
    pub advertise_addr: SocketAddr,
    /// The cluster keys: the first seals, all open. To rotate without loss, hand a new key to everybody behind the old one
    /// first, and only then move it to the front. While empty, nothing is sent and nothing opens.
    pub keys: watch::Receiver<Vec<GossipKey>>,
    /// The nodes of the cluster. Datagrams that name another sender are dropped. Empty means not known yet: all pass.
    pub members: watch::Receiver<BTreeSet<NodeId>>,
    /// Gossip addresses to try while a node is not heard of, managers' usually. [`crate::Gossip::set_seeds`] replaces them.
    pub seeds: BTreeSet<SocketAddr>,
    /// Periods and thresholds.
    pub timings: GossipTimings,
}

/// Periods and thresholds. With the defaults a killed node is suspected after 2–3.5 s in clusters of 3 to 5 nodes, by all
/// within 4.5 s in one of 30 (measured in virtual time by this crate's tests).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GossipTimings {
    /// Between rounds; each round speaks to three live nodes.
    pub interval: Duration,
    /// A node is suspected when it has been silent for this many times its usual interval.
    pub phi_threshold: f64,
    /// The usual interval before any was measured; counts as five measurements.
    pub initial_interval: Duration,
    /// Measurements kept per node. A short memory keeps `initial_interval` in the mean, and so a floor under it: in a small
    /// cluster a node is heard many times a round, and the bare mean would suspect it after a hiccup of half a second.
    pub sampling_window: usize,
    /// Longer intervals are not counted as usual.
    pub max_interval: Duration,
    /// After this a dead node's state is forgotten.
    pub dead_node_grace: Duration,
    /// How long the trace of a removed fact is kept. A node that was cut off for longer gets the whole state anew.
    pub removed_fact_grace: Duration,
    /// Facts of all nodes together, removed ones included. More come from a member that means harm, or from a mistake: gossip
    /// then begins anew, with an empty memory.
    pub state_entries_max: usize,
}

impl Default for GossipTimings {
    fn default() -> Self {
        GossipTimings {
            interval: Duration::from_millis(500),
            phi_threshold: 6.0,
            initial_interval: Duration::from_millis(500),
            sampling_window: 5,
            max_interval: Duration::from_secs(10),
            // Each one kept costs 71 bytes in every message, and a message has room for about 900 nodes.
            dead_node_grace: Duration::from_secs(600),
            removed_fact_grace: Duration::from_secs(3600),
            // As many nodes as a message has room for, with all the facts that a node may have.
            state_entries_max: 60_000,
        }
    }
}

/// Gossip could not start.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The UDP address.
    #[error("cannot bind the gossip address {addr}/udp ({why}); is another node running on it?")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// The timings make no sense.
    #[error("gossip cannot start: {0}")]
    Timings(&'static str),
}

/// A fact that will not be spread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactError {
    /// The key.
    #[error("gossip fact key `{0}` must be 1 to {FACT_KEY_BYTES_MAX} characters of a-z 0-9 . _ - / :")]
    Key(String),
    /// The value.
    #[error("gossip fact `{key}` has {bytes} bytes, more than {FACT_VALUE_BYTES_MAX}")]
    Value {
        /// Which.
        key: String,
        /// Its size.
        bytes: usize,
    },
    /// Their number.
    #[error("gossip fact `{0}` is one too many: a node has at most {FACTS_MAX}")]
    TooMany(String),
}

/// Checks a fact's key and value.
pub(crate) fn check_fact(key: &str, value: &str) -> Result<(), FactError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/:".contains(&b);
    if key.is_empty() || key.len() > FACT_KEY_BYTES_MAX || !key.bytes().all(allowed) {
        return Err(FactError::Key(key.chars().take(FACT_KEY_BYTES_MAX).collect()));
    }
    if value.len() > FACT_VALUE_BYTES_MAX {
        return Err(FactError::Value { key: key.to_owned(), bytes: value.len() });
    }
    Ok(())
}
