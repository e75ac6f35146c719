//! `swarmlite dev up`: start the daemons, make the first one a swarm, let the others join, wait until all are ready.

use super::state::{Cluster, DevNode, Place};
use super::{Api, DevError, EngineKind, UpArgs, down, process, show};
use crate::format::count;
use engine::Engine as _;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Child;
use std::time::Duration;
use tokio::time::Instant;

/// The control port of every node; they differ in their addresses.
pub(super) const CONTROL_PORT: u16 = 2377;
/// Third byte of the loopback networks that are tried, in order.
const NETWORKS: std::ops::RangeInclusive<u8> = 77..=99;
/// How long a daemon has until its API answers.
pub(super) const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a node has to become an active member.
pub(super) const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Brings a cluster up. What was started is gone again when it fails; the logs stay.
pub(super) async fn up(api: &Api, place: &Place, args: &UpArgs) -> Result<(), DevError> {
    if let Some(cluster) = place.find()? {
        let (running, nodes) = (cluster.running(), cluster.nodes.len());
        return Err(DevError::Exists { dir: place.dir().to_path_buf(), running, nodes });
    }
    if args.engine == EngineKind::Docker {
        check_engine(&args.docker_host).await?;
    }
    let mut cluster = plan(place.dir(), args)?;
    // Left over from a cluster that did not come up.
    place.clear(&cluster)?;
    let began = Instant::now();
    match bring_up(api, place, &mut cluster).await {
        Ok(()) => {
            let (nodes, be) = (cluster.nodes.len(), if cluster.nodes.len() == 1 { "is" } else { "are" });
            eprintln!("{} {be} ready after {:.1} s", count(nodes, "node"), began.elapsed().as_secs_f64());
            show::table(api, &cluster).await;
            show::what_to_try(place, &cluster);
            Ok(())
        }
        Err(error) => {
            down::stop_everything(&cluster).await;
            place.forget()?;
            Err(error)
        }
    }
}

async fn check_engine(host: &str) -> Result<(), DevError> {
    let no_engine =
        |error: engine::EngineError| DevError::NoEngine { host: host.to_string(), reason: error.to_string() };
    down::engine_at(host)?.describe().await.map(drop).map_err(no_engine)
}

fn plan(dir: &Path, args: &UpArgs) -> Result<Cluster, DevError> {
    let total = args.managers + args.workers;
    let network = NETWORKS.into_iter().find(|network| is_free(*network, total)).ok_or(DevError::NoAddress)?;
    let names = (1..=args.managers)
        .map(|i| (format!("manager{i}"), true))
        .chain((1..=args.workers).map(|i| (format!("worker{i}"), false)));
    let nodes = names
        .zip(1u8..)
        .map(|((name, manager), host)| DevNode::new(dir, name, manager, format!("127.0.{network}.{host}")))
        .collect::<Result<Vec<_>, _>>()?;
    let program = std::env::current_exe().map_err(DevError::io("/proc/self/exe"))?;
    Ok(Cluster { engine: args.engine, docker_host: args.docker_host.clone(), program, nodes })
}

/// Whether nobody listens on the control port of the addresses that are needed.
fn is_free(network: u8, nodes: u8) -> bool {
    (1..=nodes).all(|host| TcpListener::bind(SocketAddr::from(([127, 0, network, host], CONTROL_PORT))).is_ok())
}

async fn bring_up(api: &Api, place: &Place, cluster: &mut Cluster) -> Result<(), DevError> {
    eprintln!("starting {} daemons …", cluster.nodes.len());
    let mut children = Vec::new();
    for index in 0..cluster.nodes.len() {
        let (child, process) = process::spawn(cluster, &cluster.nodes[index])?;
        children.push(child);
        cluster.nodes[index].process = Some(process);
        place.save(cluster)?;
    }
    for (node, child) in cluster.nodes.iter().zip(&mut children) {
        answers(api, node, Some(child)).await?;
    }
    let first = cluster.nodes[0].clone();
    api.post(&first, "/swarm/init", &init_request(&first)).await.map_err(refused(&first, "cannot make it a swarm"))?;
    cluster.nodes[0].node_id = member(api, &first).await?;
    let swarm = api.get(&first, "/swarm").await.map_err(refused(&first, "cannot read the join tokens"))?;
    for index in 1..cluster.nodes.len() {
        let node = &cluster.nodes[index];
        eprintln!("{} joins …", node.name);
        let token = &swarm["JoinTokens"][if node.manager { "Manager" } else { "Worker" }];
        api.post(node, "/swarm/join", &join_request(node, &first, token))
            .await
            .map_err(refused(node, "cannot join"))?;
        cluster.nodes[index].node_id = member(api, node).await?;
        place.save(cluster)?;
    }
    place.save(cluster)?;
    all_ready(api, cluster).await
}

/// Waits until a node's API answers. Fails at once when its process has ended.
pub(super) async fn answers(api: &Api, node: &DevNode, child: Option<&mut Child>) -> Result<(), DevError> {
    let mut child = child;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let reason = match api.ping(node).await {
            Ok(_) => return Ok(()),
            Err(reason) => reason,
        };
        let ended = match &mut child {
            Some(child) => child.try_wait().map_err(DevError::io("the daemon"))?.map(|status| status.to_string()),
            None => (!node.is_running()).then(|| "it is gone".to_string()),
        };
        if let Some(how) = ended {
            return Err(DevError::Ended {
                name: node.name.clone(),
                how,
                log: node.log(),
                tail: process::log_tail(node, 10),
            });
        }
        wait_or_give_up(node, deadline, "answer", START_LIMIT, reason).await?;
    }
}

/// Waits until a node is an active member of the swarm; returns its id.
pub(super) async fn member(api: &Api, node: &DevNode) -> Result<String, DevError> {
    let deadline = Instant::now() + JOIN_LIMIT;
    loop {
        let reason = match api.get(node, "/info").await {
            Ok(info) => match (info["Swarm"]["LocalNodeState"].as_str(), info["Swarm"]["NodeID"].as_str()) {
                (Some("active"), Some(id)) if !id.is_empty() => return Ok(id.to_string()),
                (state, _) => {
                    format!("it is {} {}", state.unwrap_or("?"), info["Swarm"]["Error"].as_str().unwrap_or_default())
                }
            },
            Err(reason) => reason,
        };
        wait_or_give_up(node, deadline, "become a member", JOIN_LIMIT, reason).await?;
    }
}

/// Waits until a manager sees every node that runs ready, and every manager reachable.
pub(super) async fn all_ready(api: &Api, cluster: &Cluster) -> Result<(), DevError> {
    let Some(first) = cluster.nodes.iter().find(|node| node.manager && node.is_running()) else { return Ok(()) };
    let deadline = Instant::now() + JOIN_LIMIT;
    loop {
        let reason = match api.get(first, "/nodes").await {
            Ok(nodes) => match not_ready(&nodes, cluster.nodes.iter().filter(|node| node.is_running())) {
                None => return Ok(()),
                Some(name) => format!("{name} is not ready"),
            },
            Err(reason) => reason,
        };
        wait_or_give_up(first, deadline, "see all nodes ready", JOIN_LIMIT, reason).await?;
    }
}

/// The first of these nodes that is not ready yet.
fn not_ready<'a>(nodes: &Value, mut of: impl Iterator<Item = &'a DevNode>) -> Option<&'a str> {
    let ready = |node: &&DevNode| {
        nodes.as_array().into_iter().flatten().any(|seen| {
            let reachable = !node.manager || seen["ManagerStatus"]["Reachability"] == "reachable";
            seen["ID"] == node.node_id.as_str() && seen["Status"]["State"] == "ready" && reachable
        })
    };
    of.find(|node| !ready(node)).map(|node| node.name.as_str())
}

async fn wait_or_give_up(
    node: &DevNode,
    deadline: Instant,
    what: &'static str,
    limit: Duration,
    reason: String,
) -> Result<(), DevError> {
    if Instant::now() >= deadline {
        let (name, log) = (node.name.clone(), node.log());
        return Err(DevError::Late { name, what, seconds: limit.as_secs(), reason: format!(" ({reason})"), log });
    }
    tokio::time::sleep(POLL).await;
    Ok(())
}

fn refused(node: &DevNode, what: &'static str) -> impl FnOnce(String) -> DevError {
    let name = node.name.clone();
    move |reason| DevError::Refused { name, what, reason }
}

fn init_request(node: &DevNode) -> Value {
    json!({ "ListenAddr": node.remote(), "AdvertiseAddr": node.remote() })
}

fn join_request(node: &DevNode, first: &DevNode, token: &Value) -> Value {
    json!({ "ListenAddr": node.remote(), "AdvertiseAddr": node.remote(), "RemoteAddrs": [first.remote()], "JoinToken": token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_nodes() -> Vec<DevNode> {
        let node = |name: &str, manager, id: &str| {
            let mut node = DevNode::new(Path::new("/d"), name.into(), manager, String::new()).expect("short");
            node.node_id = id.into();
            node
        };
        vec![node("manager1", true, "a"), node("worker1", false, "b")]
    }

    #[test]
    fn readiness() {
        let nodes = two_nodes();
        let manager = json!({"ID": "a", "Status": {"State": "ready"}, "ManagerStatus": {"Reachability": "reachable"}});
        let lost = json!({"ID": "a", "Status": {"State": "ready"}, "ManagerStatus": {"Reachability": "unreachable"}});
        let worker = json!({"ID": "b", "Status": {"State": "ready"}});
        let down = json!({"ID": "b", "Status": {"State": "down"}});
        for (seen, expected) in [
            (json!([manager, worker]), None),
            (json!([lost, worker]), Some("manager1")),
            (json!([manager, down]), Some("worker1")),
            (json!([manager]), Some("worker1")),
            (json!(null), Some("manager1")),
        ] {
            assert_eq!(not_ready(&seen, nodes.iter()), expected, "{seen}");
        }
    }

    #[test]
    fn addresses_in_use_are_skipped() {
        // Port 2377 of an address that no plan would pick first.
        let _taken = TcpListener::bind(SocketAddr::from(([127, 0, 98, 2], CONTROL_PORT))).expect("free");
        assert!(!is_free(98, 3));
        assert!(is_free(98, 1));
    }
}
