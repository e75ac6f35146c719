//! `/swarm`: init, join, leave, inspect, update, tokens.

use crate::reply::{Reply, empty, json};
use crate::request::Request;
use crate::swarm::{InitOptions, JoinOptions, LocalState, SwarmError};
use crate::{Api, convert, lock, read, swarm_ca};
use docker_api::errors::LeaveRisk;
use docker_api::{Failure, InitRequest, JoinRequest, SwarmSpec};
use model::{Availability, Cluster, ClusterSpec};
use seams::RandExt as _;

/// Managers that a join may name; a typo should not make it try for hours.
const REMOTE_ADDRS_MAX: usize = 64;

/// `POST /swarm/init`
pub(crate) async fn init(api: &Api, mut request: Request) -> Result<Reply, Failure> {
    let mut sent: InitRequest = request.json().await?;
    sent.spec.encryption_config.auto_lock_managers |= sent.auto_lock_managers;
    swarm_ca::refuse_at_init(&sent.spec.ca_config)?;
    let spec = convert::apply_swarm_spec(sent.spec, ClusterSpec::default())?;
    let options = InitOptions {
        listen_addr: sent.listen_addr,
        advertise_addr: sent.advertise_addr,
        data_path_addr: sent.data_path_addr,
        data_path_port: data_path_port(sent.data_path_port)?,
        force_new_cluster: sent.force_new_cluster,
        availability: availability(&sent.availability)?,
        default_addr_pool: addr_pools(sent.default_addr_pool.unwrap_or_default())?,
        subnet_size: subnet_size(sent.subnet_size)?,
        spec,
    };
    let node = api.deps().swarm.init(options).await.map_err(swarm_failure)?;
    Ok(json(&node.as_str()))
}

/// The range of moby `daemon/cluster/swarm.go`.
fn data_path_port(port: u32) -> Result<u16, Failure> {
    match u16::try_from(port) {
        Ok(p @ (0 | 1024..=49151)) => Ok(p),
        _ => Err(Failure::bad_request(format_args!(
            "Datapath port number is out of range, use range 1024 to 49151: {port}"
        ))),
    }
}

/// SwarmKit takes prefixes up to 29.
fn subnet_size(bits: u32) -> Result<u32, Failure> {
    if bits > 29 {
        return Err(Failure::bad_request(format_args!("subnet size is out of range: {bits}")));
    }
    Ok(bits)
}

fn addr_pools(pools: Vec<String>) -> Result<Vec<String>, Failure> {
    let is_cidr = |p: &str| {
        p.split_once('/').is_some_and(|(addr, bits)| {
            addr.parse::<std::net::Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|b| b <= 32)
        })
    };
    match pools.iter().find(|p| !is_cidr(p)) {
        Some(bad) => Err(Failure::bad_request(format_args!(
            "invalid CIDR address: {}",
            bad.chars().take(64).collect::<String>()
        ))),
        None => Ok(pools),
    }
}

fn availability(text: &str) -> Result<Availability, Failure> {
    if text.is_empty() { Ok(Availability::Active) } else { convert::availability(text) }
}

/// `POST /swarm/join`
pub(crate) async fn join(api: &Api, mut request: Request) -> Result<Reply, Failure> {
    let sent: JoinRequest = request.json().await?;
    if sent.remote_addrs.is_empty() {
        return Err(Failure::bad_request("at least 1 RemoteAddr is required to join"));
    }
    if sent.remote_addrs.len() > REMOTE_ADDRS_MAX {
        return Err(Failure::bad_request(format_args!("at most {REMOTE_ADDRS_MAX} RemoteAddrs are accepted")));
    }
    let options = JoinOptions {
        listen_addr: sent.listen_addr,
        advertise_addr: sent.advertise_addr,
        data_path_addr: sent.data_path_addr,
        remote_addrs: sent.remote_addrs,
        join_token: sent.join_token.0,
        availability: availability(&sent.availability)?,
    };
    api.deps().swarm.join(options).await.map_err(swarm_failure)?;
    Ok(empty())
}

/// `POST /swarm/leave`
pub(crate) async fn leave(api: &Api, request: &Request) -> Result<Reply, Failure> {
    let force = request.query.is_on("force");
    let swarm = &api.deps().swarm;
    if !force && swarm.local().state == LocalState::Manager {
        return Err(Failure::leave_needs_force(leave_risk(api)));
    }
    swarm.leave(force).await.map_err(swarm_failure)?;
    Ok(empty())
}

/// What the swarm would be without this manager (moby `daemon/cluster/swarm.go`).
fn leave_risk(api: &Api) -> LeaveRisk {
    let Some(raft) = api.deps().swarm.raft() else { return LeaveRisk::Unknown };
    let (all, up) = raft.voters();
    if all <= 1 {
        LeaveRisk::LastManager
    } else if up.saturating_sub(1) < all / 2 + 1 {
        LeaveRisk::LosesQuorum { left: up.saturating_sub(1), of: all }
    } else {
        LeaveRisk::Tolerable
    }
}

pub(crate) fn swarm_failure(e: SwarmError) -> Failure {
    let status = match &e {
        SwarmError::AlreadyInSwarm | SwarmError::NotInSwarm | SwarmError::JoinTimeout | SwarmError::Unavailable(_) => {
            503
        }
        SwarmError::Invalid(_) => 400,
        SwarmError::NotLocked => 409,
        SwarmError::WrongUnlockKey => 401,
        SwarmError::Unknown(_) | SwarmError::Internal(_) => 500,
    };
    Failure::new(status, e)
}

/// `GET /swarm`
pub(crate) async fn inspect(api: &Api, request: &Request) -> Result<Reply, Failure> {
    let snapshot = api.read(request).await?;
    let cluster = snapshot.cluster().ok_or_else(no_cluster)?;
    let mut shown = convert::swarm(cluster, &api.tls());
    if request.caller.is_viewer() {
        // Who has one can make a node of the swarm, a manager even.
        shown.join_tokens = docker_api::JoinTokens::default();
    }
    Ok(json(&shown))
}

pub(crate) fn no_cluster() -> Failure {
    Failure::new(503, docker_api::errors::MANAGER_NOT_READY)
}

/// `POST /swarm/update`
pub(crate) async fn update(api: &Api, mut request: Request) -> Result<Reply, Failure> {
    let sent: SwarmSpec = request.json().await?;
    let version = request.query.version("swarm")?;
    // An update is a whole spec; a nameless one is nobody's intent.
    if sent.name != "default" {
        return Err(Failure::invalid("modification of cluster name is not allowed"));
    }
    let (store, snapshot) = api.read_to_write().await?;
    let mut cluster = Cluster::clone(snapshot.cluster().ok_or_else(no_cluster)?);
    let (ca_config, before) = (sent.ca_config.clone(), cluster.spec.clone());
    cluster.spec = convert::apply_swarm_spec(sent, cluster.spec)?;
    if version != cluster.meta.version {
        return Err(Failure::out_of_sequence());
    }
    let mut cluster = swarm_ca::follow(api, &ca_config, &before, cluster).await?;
    let rand = &api.deps().seams.rand;
    lock::follow_spec(&mut cluster, request.query.is_on("rotateManagerUnlockKey"), &**rand);
    for (rotate, token) in [
        ("rotateWorkerToken", &mut cluster.join_tokens.worker),
        ("rotateManagerToken", &mut cluster.join_tokens.manager),
    ] {
        if request.query.is_on(rotate) {
            // `SWMTKN-1-<digest of the root>-<secret>`: only the secret is new.
            let head = token.rsplit_once('-').map_or("", |(head, _)| head);
            *token = format!("{head}-{}", rand.id25());
        }
    }
    let mut tx = api.transaction();
    cluster.security.forget_old_tokens(tx.at);
    tx.update(cluster);
    store.propose(tx).await.map_err(read::propose_failure)?;
    Ok(empty())
}
