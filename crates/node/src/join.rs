//! Founding a cluster and joining one: what is decided before the node becomes a member.

use crate::addr::{self, AddrError};
use crate::ca_service::role_word;
use crate::state::{FORMAT, KnownManager, Membership};
use crate::world::{NodeConfig, World};
use api::{InitOptions, JoinOptions, SwarmError};
use ca::{Authority, CertificateGrant, Csr, Identity, JoinToken, NodeKey};
use model::{
    Availability, Cluster, ClusterId, ClusterSecurity, GossipKey, GrantKey, ManagerStatus, Meta, Node, NodeId,
    NodeSpec, NodeStatus, RaftTicks, Role, UnlockKey,
};
use rpc::proto::ca as pb;
use rpc::{ChannelTimings, Channels};
use seams::{Rand, RandExt as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::watch;

/// Docker's address pool and the size of the subnets cut from it (SwarmKit node/node.go).
const ADDR_POOL_DEFAULT: &str = "10.0.0.0/8";
const SUBNET_SIZE_DEFAULT: u32 = 24;
/// A subnet needs room for a gateway and some tasks (SwarmKit controlapi).
const SUBNET_SIZE_MAX: u32 = 29;
/// For one manager's answer.
const ADMIT_TIMEOUT: Duration = Duration::from_secs(8);

/// For the addresses of one host name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one host name that are tried.
const ADDRS_OF_NAME_MAX: usize = 8;

/// A cluster that is about to be.
pub(crate) struct Founding {
    pub(crate) membership: Membership,
    pub(crate) identity: Identity,
    pub(crate) cluster: Cluster,
    pub(crate) node: Node,
}

/// A join that is about to be tried.
pub(crate) struct JoinPlan {
    pub(crate) listen_addr: SocketAddr,
    pub(crate) advertise_addr: SocketAddr,
    gossip_port: u16,
    data_path_port: u16,
    data_path_addr: Option<IpAddr>,
    remotes: Vec<SocketAddr>,
    token: JoinToken,
    availability: Availability,
}

/// Something on this node that should have worked.
pub(crate) fn internal(e: impl std::fmt::Display) -> SwarmError {
    SwarmError::Internal(e.to_string())
}

fn invalid(e: AddrError) -> SwarmError {
    SwarmError::Invalid(e.to_string())
}

/// The addresses of a node: what the request says, else what the daemon was told, else what the machine has.
pub(crate) fn addresses(
    config: &NodeConfig,
    world: &World,
    listen: &str,
    advertise: &str,
) -> Result<(SocketAddr, SocketAddr), SwarmError> {
    // Clients send Docker's default when the user said nothing; then the daemon's own setting counts.
    let listen = if addr::is_default_listen(listen) { config.listen_addr.as_str() } else { listen };
    let listen = addr::parse(listen, addr::CONTROL_PORT, &*world.interfaces).map_err(invalid)?;
    let advertise = if advertise.is_empty() { config.advertise_addr.as_str() } else { advertise };
    let advertise = addr::advertise(advertise, listen, &*world.interfaces).map_err(invalid)?;
    Ok((listen, advertise))
}

/// The address of the data path, when the user gave one.
fn data_path_addr(world: &World, text: &str) -> Result<Option<IpAddr>, SwarmError> {
    let given = (!text.is_empty()).then(|| addr::data_path(text, &*world.interfaces));
    given.transpose().map_err(invalid)
}

/// Where the managers are that a join request names: by address, by interface, or by a host name, which may have several.
async fn remotes(world: &World, texts: &[String]) -> Result<Vec<SocketAddr>, SwarmError> {
    let mut found = Vec::new();
    for text in texts {
        if let Ok(addr) = addr::parse(text, addr::CONTROL_PORT, &*world.interfaces) {
            found.push(addr);
            continue;
        }
        let (host, port) = addr::host_name(text, addr::CONTROL_PORT).ok_or_else(|| {
            SwarmError::Invalid(format!("`{text}` is not the address of a manager: give HOST:PORT or IP:PORT"))
        })?;
        let addrs = match tokio::time::timeout(RESOLVE_TIMEOUT, world.seams.net.resolve(host, port)).await {
            Ok(Ok(addrs)) if addrs.is_empty() => Err("it has no address".into()),
            Ok(resolved) => resolved.map_err(|e| e.to_string()),
            Err(_) => Err(format!("no answer within {RESOLVE_TIMEOUT:?}")),
        };
        let addrs = addrs.map_err(|why| {
            SwarmError::Unavailable(format!(
                "cannot find the manager `{host}`: {why}; check the name and this node's resolver, or give IP:PORT"
            ))
        })?;
        found.extend(addrs.into_iter().take(ADDRS_OF_NAME_MAX));
    }
    if found.is_empty() {
        return Err(SwarmError::Invalid("at least one RemoteAddr is required to join".into()));
    }
    Ok(found)
}

/// A new id for a Raft member. Zero means "none" to Raft's callers.
pub(crate) fn new_raft_id(rand: &dyn Rand) -> u64 {
    rand.next_u64().max(1)
}

/// Decides everything about a new cluster of this one node.
pub(crate) fn found(config: &NodeConfig, world: &World, options: InitOptions) -> Result<Founding, SwarmError> {
    let data_path_addr = data_path_addr(world, &options.data_path_addr)?;
    if options.subnet_size > SUBNET_SIZE_MAX {
        return Err(SwarmError::Invalid(format!(
            "invalid CIDR: subnet size {} must be at most {SUBNET_SIZE_MAX}",
            options.subnet_size
        )));
    }
    let (listen_addr, advertise_addr) = addresses(config, world, &options.listen_addr, &options.advertise_addr)?;
    let (rand, now) = (&*world.seams.rand, world.seams.clock.unix_now());
    let cluster_id: ClusterId = rand.id25().parse().expect("id25 makes ids");
    let node_id: NodeId = rand.id25().parse().expect("id25 makes ids");
    let root_ca = ca::generate_root(now, rand).map_err(internal)?;
    // Marks from the first certificate on, so that there is none without.
    let grants = !options.spec.external_cas.is_empty();
    let grants = grants.then(|| GrantKey { required: true, ..ca::generate_grant_key(rand) });
    let authority = Authority::new(&root_ca, cluster_id.clone()).map_err(internal)?.marking(grants.clone());
    let identity = own_identity(&authority, &node_id, options.spec.node_cert_expiry, now, rand)?;
    let mut key = [0; 32];
    rand.fill(&mut key);
    let gossip_keys = vec![GossipKey { id: 1, key }];
    let data_path_port = if options.data_path_port == 0 { config.data_path_port } else { options.data_path_port };
    let membership = Membership {
        format: FORMAT,
        cluster_id: cluster_id.clone(),
        node_id: node_id.clone(),
        raft_id: new_raft_id(rand),
        listen_addr,
        advertise_addr,
        gossip_port: config.gossip_port,
        data_path_port,
        data_path_addr,
        managers: vec![KnownManager { node_id: node_id.clone(), addr: advertise_addr }],
        gossip_keys: gossip_keys.clone(),
        raft_ticks: options.spec.raft.ticks,
    };
    let unlock_key =
        options.spec.autolock.then(|| UnlockKey { generation: 1, key: *seal::Key::generate(rand).as_bytes() });
    let pools = options.default_addr_pool;
    let cluster = Cluster {
        id: cluster_id,
        meta: Meta::default(),
        spec: options.spec,
        join_tokens: ca::generate_join_tokens(&root_ca.cert_pem, rand),
        root_ca,
        gossip_keys,
        default_addr_pool: if pools.is_empty() { vec![ADDR_POOL_DEFAULT.into()] } else { pools },
        subnet_size: if options.subnet_size == 0 { SUBNET_SIZE_DEFAULT } else { options.subnet_size },
        data_path_port,
        removed_nodes: Default::default(),
        security: ClusterSecurity { unlock_key, grants, ..Default::default() },
    };
    let node = Node {
        id: node_id,
        meta: Meta::default(),
        spec: NodeSpec { role: Role::Manager, availability: options.availability, ..Default::default() },
        description: None,
        status: NodeStatus::default(),
        manager: Some(ManagerStatus { raft_id: membership.raft_id, addr: advertise_addr.to_string() }),
    };
    Ok(Founding { membership, identity, cluster, node })
}

fn own_identity(
    authority: &Authority,
    node_id: &NodeId,
    expiry: Duration,
    now: Duration,
    rand: &dyn Rand,
) -> Result<Identity, SwarmError> {
    let key = NodeKey::generate().map_err(internal)?;
    let csr = Csr::parse(&key.csr_pem().map_err(internal)?).map_err(internal)?;
    let grant = CertificateGrant { node_id: node_id.clone(), role: Role::Manager, expiry };
    let chain = authority.issue(&csr, &grant, now, rand).map_err(internal)?;
    Identity::new(chain, key.key_pem(), authority.root_pem().to_owned()).map_err(internal)
}

/// Parses a join request, and finds the managers that it names.
pub(crate) async fn plan(config: &NodeConfig, world: &World, options: &JoinOptions) -> Result<JoinPlan, SwarmError> {
    let data_path_addr = data_path_addr(world, &options.data_path_addr)?;
    let token: JoinToken =
        options.join_token.parse().map_err(|e: ca::InvalidToken| SwarmError::Invalid(e.to_string()))?;
    let (listen_addr, advertise_addr) = addresses(config, world, &options.listen_addr, &options.advertise_addr)?;
    let remotes = remotes(world, &options.remote_addrs).await?;
    Ok(JoinPlan {
        listen_addr,
        advertise_addr,
        gossip_port: config.gossip_port,
        data_path_port: config.data_path_port,
        data_path_addr,
        remotes,
        token,
        availability: options.availability,
    })
}

/// Asks the managers, one after the other, for a certificate.
pub(crate) async fn admitted(world: &World, plan: &JoinPlan) -> Result<(Membership, Identity), SwarmError> {
    let (_no_identity_yet, identity) = watch::channel(None);
    let channels = Channels::new(world.seams.clone(), identity, ChannelTimings::default());
    let mut last = SwarmError::Unavailable("no manager to ask".into());
    for remote in &plan.remotes {
        let asked = tokio::time::timeout(ADMIT_TIMEOUT, admitted_by(world, plan, &channels, *remote)).await;
        match asked {
            Ok(Ok(admitted)) => return Ok(admitted),
            // The manager understood and said no: the others would too.
            Ok(Err(e @ SwarmError::Invalid(_))) => return Err(e),
            Ok(Err(e)) => last = e,
            Err(_) => last = SwarmError::Unavailable(format!("the manager at {remote} did not answer in time")),
        }
    }
    Err(last)
}

async fn admitted_by(
    world: &World,
    plan: &JoinPlan,
    channels: &Channels,
    remote: SocketAddr,
) -> Result<(Membership, Identity), SwarmError> {
    let addr = remote.to_string();
    // Nothing is sent to whoever does not hold the root that the token names.
    let root_pem = channels.fetch_root(&addr, &plan.token).await.map_err(|e| match e {
        rpc::JoinError::WrongRoot(_) | rpc::JoinError::Address(_) => SwarmError::Invalid(e.to_string()),
        rpc::JoinError::NoAnswer { .. } => SwarmError::Unavailable(e.to_string()),
    })?;
    let key = NodeKey::generate().map_err(internal)?;
    let channel = channels.anonymous(&addr, &root_pem).map_err(|e| SwarmError::Invalid(e.to_string()))?;
    let request = pb::IssueNodeCertificateRequest {
        token: plan.token.to_string(),
        csr_pem: key.csr_pem().map_err(internal)?,
        availability: availability_word(plan.availability).into(),
    };
    let answer = rpc::node_ca_client(channel).issue_node_certificate(request).await;
    let answer = answer.map_err(|status| refused(remote, &status))?.into_inner();
    // The manager has shown that it holds the root of the token; while the root is being changed it names the next one, too.
    let roots = if answer.root_certificate_pem.is_empty() { root_pem } else { answer.root_certificate_pem };
    let identity = Identity::new(answer.certificate_pem, key.key_pem(), roots).map_err(internal)?;
    if identity.node_id.as_str() != answer.node_id || role_word(identity.role) != answer.role {
        return Err(internal(format!("the manager at {remote} sent a certificate for somebody else")));
    }
    let managers = answer.managers.into_iter().filter_map(known_manager).collect::<Vec<_>>();
    let membership = Membership {
        format: FORMAT,
        cluster_id: identity.cluster_id.clone(),
        node_id: identity.node_id.clone(),
        raft_id: new_raft_id(&*world.seams.rand),
        listen_addr: plan.listen_addr,
        advertise_addr: plan.advertise_addr,
        gossip_port: plan.gossip_port,
        data_path_port: plan.data_path_port,
        data_path_addr: plan.data_path_addr,
        managers,
        gossip_keys: answer.gossip_keys.into_iter().filter_map(|k| gossip_key(k.id, &k.key)).collect(),
        raft_ticks: RaftTicks::bounded(answer.raft_heartbeat_tick, answer.raft_election_tick),
    };
    Ok((membership, identity))
}

fn refused(remote: SocketAddr, status: &tonic::Status) -> SwarmError {
    match status.code() {
        tonic::Code::InvalidArgument => {
            SwarmError::Invalid(format!("rpc error: code = InvalidArgument desc = {}", status.message()))
        }
        _ => SwarmError::Unavailable(format!(
            "the manager at {remote} could not admit this node: {}",
            rpc::describe(status)
        )),
    }
}

pub(crate) fn known_manager(m: pb::Manager) -> Option<KnownManager> {
    Some(KnownManager { node_id: m.node_id.parse().ok()?, addr: m.addr.parse().ok()? })
}

pub(crate) fn gossip_key(id: u32, key: &[u8]) -> Option<GossipKey> {
    Some(GossipKey { id, key: key.try_into().ok()? })
}

fn availability_word(availability: Availability) -> &'static str {
    match availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}
