//! `/info`: the local engine's, with our `Swarm` block; ours alone when there is no engine to ask.

use crate::reply::{Reply, json};
use crate::request::Request;
use crate::swarm::{LocalState, RaftView, Reachability};
use crate::{Api, convert};
use control::autopilot;
use docker_api::{Failure, Peer, SwarmInfo};
use model::{NodeDescription, Role, Timestamp};
use serde_json::{Map, Value, json as value};

const TWO_MANAGERS: &str = "WARNING: Running Swarm in a two-manager configuration. This configuration provides no fault tolerance, and poses a high risk to lose control over the cluster.";

/// `GET /info`
pub(crate) async fn info(api: &Api, request: &Request) -> Result<Reply, Failure> {
    let path = request.path.version.map_or_else(|| "/info".to_owned(), |v| format!("/v{v}/info"));
    let mut info = match &api.deps().engine_api {
        None => without_engine(api, None).await,
        Some(_) => match api.engine_json(&engine_path(api, &path, request).await).await {
            Ok(info) => info,
            Err(failure) => without_engine(api, Some(failure.message)).await,
        },
    };
    info.insert("Swarm".into(), value!(swarm_block(api)));
    Ok(json(&info))
}

async fn engine_path(api: &Api, path: &str, request: &Request) -> String {
    match (request.path.version, api.engine_facts().await) {
        (Some(v), Some(f)) if f.min <= f.max => format!("/v{}/info", v.clamp(f.min, f.max)),
        _ => path.to_owned(),
    }
}

/// This node's part in the swarm.
pub(crate) fn swarm_block(api: &Api) -> SwarmInfo {
    let swarm = &api.deps().swarm;
    let local = swarm.local();
    let store = swarm.store().ok().filter(|_| local.state == LocalState::Manager);
    let mut block = SwarmInfo {
        node_id: local.node_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        node_addr: local.node_addr.clone(),
        local_node_state: local.state.as_str().into(),
        control_available: store.is_some(),
        ..SwarmInfo::default()
    };
    if let LocalState::Error(error) = &local.state {
        block.error = error.clone();
    }
    if local.state != LocalState::Inactive {
        let peers = local.remote_managers.iter();
        block.remote_managers =
            Some(peers.map(|(id, addr)| Peer { node_id: id.to_string(), addr: addr.clone() }).collect());
    }
    let Some(store) = store else { return block };
    let snapshot = store.local();
    block.nodes = snapshot.nodes().len() as u64;
    block.managers = snapshot.nodes().filter(|n| n.spec.role == Role::Manager).count() as u64;
    block.cluster = snapshot.cluster().map(|c| convert::cluster_info(c, &api.tls()));
    let raft = swarm.raft();
    block.managers_may_fail = raft.as_ref().and_then(RaftView::tolerates).map(|n| n as u64);
    let now = Timestamp::from_unix(api.deps().seams.clock.unix_now());
    block.autopilot = autopilot::advise(&snapshot, &group(raft.unwrap_or_default()), now).lines;
    if block.managers == 2 {
        block.warnings.push(TWO_MANAGERS.into());
    }
    block
}

/// The Raft group as this manager sees it.
fn group(raft: RaftView) -> autopilot::Group {
    let voters = || raft.managers.iter().filter(|(_, m)| m.voter);
    let reachable = voters().filter(|(_, m)| m.reachability == Reachability::Reachable);
    autopilot::Group {
        voters: voters().map(|(id, _)| id.clone()).collect(),
        reachable: reachable.map(|(id, _)| id.clone()).collect(),
    }
}

/// What can be said without the engine's API: `lost` is why it did not answer, if there should be one.
async fn without_engine(api: &Api, lost: Option<String>) -> Map<String, Value> {
    let described = if lost.is_none() { api.deps().engine.describe().await.ok() } else { None };
    let NodeDescription { hostname, platform, resources, engine, .. } = described.unwrap_or_default();
    let (system, warning) = match &lost {
        None => (
            "embedded engine: no real containers".to_owned(),
            "WARNING: this node runs the embedded engine, which only pretends to run containers".to_owned(),
        ),
        Some(why) => (String::new(), format!("WARNING: {why}")),
    };
    let whole = value!({
        "ID": "", "Name": hostname, "ServerVersion": engine.version, "OperatingSystem": system,
        "OSType": platform.os, "Architecture": platform.architecture, "NCPU": resources.nano_cpus / 1_000_000_000,
        "MemTotal": resources.memory_bytes, "Driver": api.deps().engine.kind(), "Containers": 0, "Images": 0,
        "Plugins": {}, "RegistryConfig": Value::Null, "Warnings": [warning], "Labels": [],
    });
    match whole {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
