//! What a node is handed by its composition root: its world, its settings, and the deliberate bugs of the simulation.

use crate::addr::{CONTROL_PORT, DATA_PATH_PORT, GOSSIP_PORT, Interfaces};
use crate::machine::StoreCanary;
use crate::manager::RaftLogs;
use api::EngineDial;
use engine::Engine;
use raft::{LogStore, OpenLogError, RaftConfig, SledLog};
use seams::Seams;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Nothing wears out in a month (random nonces of 192 bits); it bounds how much an old copy of the key file opens.
const DATA_KEY_MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The world of one node.
#[derive(Clone)]
pub struct World {
    /// Clock, randomness, network, files.
    pub seams: Seams,
    /// The container engine.
    pub engine: Arc<dyn Engine>,
    /// The way to the engine's own API, to which the node's API hands what the swarm does not own; `None` when it has none.
    pub engine_api: Option<Arc<dyn EngineDial>>,
    /// The machine's addresses.
    pub interfaces: Arc<dyn Interfaces>,
    /// The Raft log.
    pub raft_logs: Arc<dyn RaftLogs>,
}

/// What a node is told when it starts.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where it keeps its state.
    pub data_dir: PathBuf,
    /// `ip[:port]` or `interface[:port]` of the control port.
    pub listen_addr: String,
    /// What other nodes use to reach it; empty to find out.
    pub advertise_addr: String,
    /// UDP port of gossip.
    pub gossip_port: u16,
    /// UDP port of the data path.
    pub data_path_port: u16,
    /// The host name that it gives, instead of its engine's: for several nodes on one machine.
    pub hostname: Option<String>,
    /// Raft's timings.
    pub raft: RaftConfig,
    /// The age at which the data key that seals this node's disk is replaced.
    pub data_key_max_age: Duration,
    /// Deliberate bugs; the simulation's only.
    pub canaries: Canaries,
}

/// Deliberate bugs, for the simulation to catch. All off in production; nothing outside the simulation sets them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Canaries {
    /// In the state machine.
    pub store: StoreCanary,
    /// In the control loops.
    pub control: control::Canary,
    /// In the dispatcher.
    pub dispatcher: dispatcher::Canary,
    /// In the agent.
    pub agent: agent::AgentCanaries,
    /// Managers let removed nodes in.
    pub accept_removed: bool,
}

/// The production Raft log.
pub struct SledLogs;

#[async_trait::async_trait]
impl RaftLogs for SledLogs {
    async fn open(&self, dir: &Path) -> Result<Arc<dyn LogStore>, OpenLogError> {
        Ok(Arc::new(SledLog::open(&dir.join("log")).await?))
    }
}

// === impl NodeConfig ===

impl NodeConfig {
    /// Docker's defaults, on this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> NodeConfig {
        NodeConfig {
            data_dir: data_dir.into(),
            listen_addr: format!("0.0.0.0:{}", CONTROL_PORT),
            advertise_addr: String::new(),
            gossip_port: GOSSIP_PORT,
            data_path_port: DATA_PATH_PORT,
            hostname: None,
            raft: RaftConfig::default(),
            data_key_max_age: DATA_KEY_MAX_AGE,
            canaries: Canaries::default(),
        }
    }
}
