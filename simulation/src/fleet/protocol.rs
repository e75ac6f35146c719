//! What the process of the fleet and those of its managers say to each other: a line of JSON each.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a manager is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Order {
    /// Make a swarm.
    Init,
    /// Join one.
    Join { addr: String, token: String },
    /// Make so many nodes, spread over so many zones, and a certificate for each.
    Enrol { nodes: usize, zones: usize },
    /// Wait until so many machines are ready.
    AwaitReady { nodes: usize },
    /// Create so many services, and wait until their tasks run.
    Services { count: u64, replicas: u64 },
    /// Scale them, and wait until their tasks run.
    Scale { count: u64, replicas: u64 },
    /// Wait until a zone is lost and what ran there runs elsewhere.
    AwaitLoss { zone: usize },
    /// Say how much memory this process has.
    Memory,
}

/// What it says then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Token { token: String },
    Enrolled { file: PathBuf },
    Placed { assigned_ms: u64, running_ms: u64 },
    Replanned { lost_tasks: u64, detected_ms: u64, replanned_ms: u64, running_ms: u64 },
    Memory { bytes: u64 },
    Failed { why: String },
}

/// A machine that was enrolled: what it needs to speak to managers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) node_id: String,
    pub(super) cert_chain_pem: String,
    pub(super) key_pem: String,
    pub(super) root_pem: String,
    pub(super) zone: usize,
}

/// A directory that goes when the fleet does.
pub(super) struct Scratch(PathBuf);

// === impl Scratch ===

#[allow(clippy::disallowed_methods)] // a fleet is outside any simulated world
impl Scratch {
    pub(super) fn new() -> Result<Scratch, String> {
        let path = std::env::temp_dir().join(format!("swarmlite-fleet-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        Ok(Scratch(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    #[allow(clippy::disallowed_methods)] // a fleet is outside any simulated world
    fn drop(&mut self) {
        let _nothing_to_do = std::fs::remove_dir_all(&self.0);
    }
}

/// Where the manager with this number listens. Addresses of 127.0.0.0/8 that nothing else here uses.
pub(super) fn manager_addr(n: u8) -> String {
    format!("127.200.{}.{n}:2377", std::process::id() % 250)
}
