//! `swarmlite dev down`, and what becomes of a node's containers.

use super::state::{Cluster, DevNode, Place};
use super::{DevError, EngineKind};
use crate::format::count;
use engine::{DockerEngine, DockerOptions, Engine as _, EngineError};
use rustix::process::Signal;
use std::time::Duration;

/// The label by which a container is its node's.
const NODE_LABEL: &str = "com.docker.swarm.node.id";
/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// What to do with containers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Kill what runs, and leave it lying there.
    Kill,
    /// Remove all, running or not.
    Remove,
}

/// Kills all nodes, and removes their containers and data.
pub(super) async fn down(place: &Place) -> Result<(), DevError> {
    let cluster = place.cluster()?;
    kill_all(&cluster).await?;
    let mut removed = 0;
    if cluster.engine == EngineKind::Docker {
        for node in &cluster.nodes {
            removed += containers(&cluster, node, Fate::Remove).await?;
        }
    }
    place.clear(&cluster)?;
    eprintln!("removed {} and {}", count(cluster.nodes.len(), "node"), count(removed, "container"));
    Ok(())
}

/// As much of that as can be done, for a cluster that did not come up. Logs and data stay.
pub(super) async fn stop_everything(cluster: &Cluster) {
    // Whatever cannot be cleaned up here is named by the error that brought us here, or found by the next `dev up`.
    let _ = kill_all(cluster).await;
    if cluster.engine == EngineKind::Docker {
        for node in &cluster.nodes {
            let _ = containers(cluster, node, Fate::Remove).await;
        }
    }
}

async fn kill_all(cluster: &Cluster) -> Result<(), DevError> {
    for node in &cluster.nodes {
        if let Some(process) = &node.process {
            process.signal(&node.name, Signal::KILL)?;
        }
    }
    for node in &cluster.nodes {
        if let Some(process) = &node.process
            && !process.ended(KILL_LIMIT).await
        {
            let (name, log) = (node.name.clone(), node.log());
            return Err(DevError::Late {
                name,
                what: "die",
                seconds: KILL_LIMIT.as_secs(),
                reason: String::new(),
                log,
            });
        }
    }
    Ok(())
}

/// Kills or removes the containers of one node; returns how many there were.
pub(super) async fn containers(cluster: &Cluster, node: &DevNode, fate: Fate) -> Result<usize, DevError> {
    if node.node_id.is_empty() {
        return Ok(0);
    }
    let failed = |error: EngineError| DevError::CleanUp { name: node.name.clone(), reason: error.to_string() };
    let engine = engine_at(&cluster.docker_host)?;
    let mut found = engine.list(NODE_LABEL).await.map_err(failed)?;
    found.retain(|container| container.labels.get(NODE_LABEL) == Some(&node.node_id));
    for container in &found {
        match fate {
            Fate::Kill => engine.stop(&container.id, Duration::ZERO).await,
            Fate::Remove => engine.remove(&container.id).await,
        }
        .map_err(failed)?;
    }
    // What was in the machine's memory for them goes with the machine.
    engine.files().clear(&node.node_id).await.map_err(failed)?;
    Ok(found.len())
}

/// The Docker Engine at this address, which need not answer.
pub(super) fn engine_at(host: &str) -> Result<DockerEngine, DevError> {
    let options = DockerOptions { host: host.to_string(), ..DockerOptions::default() };
    DockerEngine::new(&options)
        .map_err(|error| DevError::NoEngine { host: host.to_string(), reason: error.to_string() })
}
