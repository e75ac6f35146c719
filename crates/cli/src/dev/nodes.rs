//! `swarmlite dev kill|stop|start`.

use super::state::{Cluster, DevNode, Place};
use super::{Api, DevError, EngineKind, down, process, show, up};
use crate::format::count;
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::Instant;

/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long a started node's surroundings have to notice it.
const CALM_LIMIT: Duration = Duration::from_secs(10);
/// How long a daemon has to stop in good order, handing over leadership.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Kills a node at once.
pub(super) async fn kill(api: &Api, place: &Place, name: &str, containers: bool) -> Result<(), DevError> {
    let node = end(api, place, name, Signal::KILL, "die", KILL_LIMIT).await?;
    if containers {
        let cluster = place.cluster()?;
        if cluster.engine == EngineKind::Docker {
            let killed = down::containers(&cluster, &node, down::Fate::Kill).await?;
            eprintln!("killed {} of {}", count(killed, "container"), node.name);
        }
    }
    println!("{}", node.name);
    Ok(())
}

/// Stops a node in good order.
pub(super) async fn stop(api: &Api, place: &Place, name: &str) -> Result<(), DevError> {
    let node = end(api, place, name, Signal::TERM, "stop", STOP_LIMIT).await?;
    println!("{}", node.name);
    Ok(())
}

async fn end(
    api: &Api,
    place: &Place,
    name: &str,
    signal: Signal,
    what: &'static str,
    limit: Duration,
) -> Result<DevNode, DevError> {
    let mut cluster = place.cluster()?;
    let index = find(api, &cluster, name).await?;
    let node = cluster.nodes[index].clone();
    let Some(process) = node.process.as_ref().filter(|process| process.is_alive()) else {
        return Err(DevError::NotRunning(node.name));
    };
    let began = Instant::now();
    process.signal(&node.name, signal)?;
    if !process.ended(limit).await {
        return Err(DevError::Late {
            log: node.log(),
            name: node.name,
            what,
            seconds: limit.as_secs(),
            reason: String::new(),
        });
    }
    eprintln!("{} ended after {} ms", node.name, began.elapsed().as_millis());
    cluster.nodes[index].process = None;
    place.save(&cluster)?;
    Ok(node)
}

async fn find(api: &Api, cluster: &Cluster, name: &str) -> Result<usize, DevError> {
    if name == "leader" {
        let leader = show::seen(api, cluster).await.leader().ok_or(DevError::NoLeader)?;
        return cluster.nodes.iter().position(|node| node.node_id == leader).ok_or(DevError::NoLeader);
    }
    cluster.position(name)
}

/// Starts one node, or all that do not run.
pub(super) async fn start(api: &Api, place: &Place, name: Option<&str>) -> Result<(), DevError> {
    let mut cluster = place.cluster()?;
    let chosen = match name {
        Some(name) => {
            let index = cluster.position(name)?;
            if cluster.nodes[index].is_running() {
                return Err(DevError::Running(name.to_string()));
            }
            vec![index]
        }
        None => (0..cluster.nodes.len()).filter(|index| !cluster.nodes[*index].is_running()).collect(),
    };
    let mut children = Vec::new();
    for index in &chosen {
        let (child, process) = process::spawn(&cluster, &cluster.nodes[*index])?;
        cluster.nodes[*index].process = Some(process);
        place.save(&cluster)?;
        children.push(child);
    }
    for (index, child) in chosen.iter().zip(&mut children) {
        up::answers(api, &cluster.nodes[*index], Some(child)).await?;
    }
    for index in &chosen {
        up::member(api, &cluster.nodes[*index]).await?;
    }
    // What other nodes think of it takes a moment longer, and may have other reasons: no ground to fail.
    let _ = tokio::time::timeout(CALM_LIMIT, up::all_ready(api, &cluster)).await;
    for index in chosen {
        println!("{}", cluster.nodes[index].name);
    }
    Ok(())
}
