//! The machines: agents with engines in memory, hundreds in one process.

use super::protocol::Machine;
use agent::{Agent, AgentConfig, Link, LinkError};
use async_trait::async_trait;
use ca::Identity;
use engine::EmbeddedEngine;
use engine::embedded::EmbeddedOptions;
use rpc::{ChannelTimings, Channels};
use seams::{MemoryDisk, RandExt as _, Seams, Tasks};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::transport::Channel;

/// All machines that are on.
pub(super) struct Fleet {
    zones: Vec<Zone>,
}

/// Machines that are lost together.
struct Zone {
    /// `None` once they are lost. Its threads are all that the machines have: without them they say nothing any more.
    runtime: Option<Runtime>,
    machines: usize,
}

/// A way to some manager.
struct ToManagers {
    channels: Channels,
    addrs: Vec<String>,
    next: AtomicUsize,
}

// === impl Fleet ===

impl Fleet {
    /// Switches on all machines of a file that a manager wrote.
    #[allow(clippy::disallowed_methods)] // a fleet is outside any simulated world
    pub(super) fn start(file: &Path, zones: usize, addrs: Vec<String>) -> Result<Fleet, String> {
        let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        let machines: Vec<Machine> = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut fleet = Fleet { zones: Vec::new() };
        for number in 0..zones {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.map_err(|e| format!("cannot start threads: {e}"))?;
            let of_zone: Vec<&Machine> = machines.iter().filter(|m| m.zone == number).collect();
            for machine in &of_zone {
                runtime.block_on(start(machine, &addrs))?;
            }
            fleet.zones.push(Zone { runtime: Some(runtime), machines: of_zone.len() });
        }
        Ok(fleet)
    }

    /// Switches a zone off, as a power cut does: nobody says goodbye. Returns how many machines it had.
    pub(super) fn lose(&mut self, zone: usize) -> usize {
        let Some(zone) = self.zones.get_mut(zone) else { return 0 };
        zone.runtime.take().into_iter().for_each(Runtime::shutdown_background);
        zone.machines
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        (0..self.zones.len()).for_each(|n| _ = self.lose(n));
    }
}

async fn start(machine: &Machine, addrs: &[String]) -> Result<(), String> {
    let Machine { node_id, cert_chain_pem, key_pem, root_pem, .. } = machine.clone();
    let identity = Identity::new(cert_chain_pem, key_pem, root_pem).map_err(|e| e.to_string())?;
    let (sender, identity) = watch::channel(Some(Arc::new(identity)));
    // What an agent writes down is not what a fleet measures.
    let seams = Seams { disk: Arc::new(MemoryDisk::default()), ..seams::real::seams() };
    let channels = Channels::new(seams.clone(), identity, ChannelTimings::default());
    let first = seams.rand.below(addrs.len() as u64) as usize;
    let link = ToManagers { channels, addrs: addrs.to_vec(), next: AtomicUsize::new(first) };
    let options = EmbeddedOptions {
        hostname: node_id.clone(),
        resources: model::Resources { nano_cpus: 64_000_000_000, memory_bytes: 256 << 30 },
        ..EmbeddedOptions::default()
    };
    let engine = EmbeddedEngine::new(options, seams.clock.clone(), seams.rand.clone());
    let id = node_id.parse().map_err(|e| format!("{node_id}: {e}"))?;
    let tasks = Tasks::new();
    let config = AgentConfig::new(id, PathBuf::from("/agent"));
    let agent =
        Agent::start(config, seams, Arc::new(engine), Arc::new(link), &tasks).await.map_err(|e| e.to_string())?;
    // It lives as long as the threads of its zone.
    tasks.clone().spawn("machine", async move {
        let _kept = (agent, sender, tasks);
        std::future::pending::<()>().await;
    });
    Ok(())
}

// === impl ToManagers ===

#[async_trait]
impl Link for ToManagers {
    async fn channel(&self) -> Result<Channel, LinkError> {
        let n = self.next.load(Ordering::Relaxed) % self.addrs.len();
        self.channels.manager(&self.addrs[n]).map_err(|e| LinkError(e.to_string()))
    }

    fn failed(&self, _reason: &str) {
        self.next.fetch_add(1, Ordering::Relaxed);
    }
}
