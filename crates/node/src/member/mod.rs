//! A node as a member of a swarm: identity, gossip and agent always, the manager's part while its certificate says so.

mod certificate;
mod group;
mod keys;
mod role;

use crate::gossip_keys;
use crate::join::{Founding, internal};
use crate::keys::DiskKeys;
use crate::link::ManagerLink;
use crate::manager::{Manager, ManagerError, ManagerParts};
use crate::state::{Layout, Membership};
use crate::world::{Canaries, World};

use agent::{Agent, AgentConfig, SavedError, SessionInfo};
use api::{LocalState, LocalView, SwarmError};
use ca::Identity;
use gossip::{Gossip, GossipConfig, GossipError, GossipTimings, fact};
use model::{NodeId, RaftTicks, Role, Timestamp};
use raft::RaftConfig;
use rpc::{ChannelTimings, Channels};
use seams::Tasks;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use store::{StoreClient as _, Transaction};
use tokio::sync::watch;
use tokio::time::Instant;

/// Between two tries to get a certificate, or to get into the Raft group.
const RETRY: Duration = Duration::from_millis(250);
/// For one question to one manager.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a founder waits to lead itself.
const FOUND_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at the engine for the node's facts (SwarmKit's agent refreshes its description as often).
const FACTS_PERIOD: Duration = Duration::from_secs(20);
/// How long gossip must miss a node until a manager that does not lead calls it unreachable: time to be heard of at first.
const MISSED_AFTER: Duration = Duration::from_secs(3);
/// How long the member's tasks have to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a member is made of.
pub(crate) struct MemberParts {
    pub(crate) membership: Membership,
    pub(crate) identity: Identity,
    /// Sealed.
    pub(crate) world: World,
    pub(crate) keys: DiskKeys,
    pub(crate) data_key_max_age: Duration,
    pub(crate) layout: Layout,
    pub(crate) hostname: Option<String>,
    pub(crate) raft: RaftConfig,
    pub(crate) canaries: Canaries,
}

/// A running member.
pub struct Member {
    /// Sealed: what goes through its disk and its Raft logs lies there encrypted.
    world: World,
    keys: DiskKeys,
    data_key_max_age: Duration,
    layout: Layout,
    raft: RaftConfig,
    canaries: Canaries,
    membership: watch::Sender<Membership>,
    identity: watch::Sender<Option<Arc<Identity>>>,
    channels: Channels,
    gossip: Gossip,
    gossip_members: watch::Sender<BTreeSet<NodeId>>,
    agent: Mutex<Option<Agent>>,
    agent_config: AgentConfig,
    session: watch::Receiver<SessionInfo>,
    manager: RwLock<Option<Arc<Manager>>>,
    /// Since when somebody asked for a node that gossip did not hear.
    missed: Mutex<BTreeMap<NodeId, Instant>>,
    tasks: Tasks,
}

/// A member that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The manager's part.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// Gossip.
    #[error(transparent)]
    Gossip(#[from] GossipError),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] SavedError),
}

// === impl Member ===

impl Member {
    pub(crate) async fn start(parts: MemberParts, tasks: &Tasks) -> Result<Arc<Member>, MemberError> {
        let tasks = tasks.child();
        match Self::start_parts(parts, &tasks).await {
            Ok(member) => Ok(member),
            Err(e) => {
                tasks.shutdown(STOP_TIMEOUT).await;
                Err(e)
            }
        }
    }

    async fn start_parts(parts: MemberParts, tasks: &Tasks) -> Result<Arc<Member>, MemberError> {
        let MemberParts { membership, identity, world, keys, data_key_max_age, layout, hostname, raft, canaries } =
            parts;
        let is_manager = identity.role == Role::Manager;
        let (identity, _) = watch::channel(Some(Arc::new(identity)));
        let channels = Channels::new(world.seams.clone(), identity.subscribe(), ChannelTimings::default());
        let (membership, _) = watch::channel(membership);
        let (gossip_members, members) = watch::channel(BTreeSet::new());
        let gossip = start_gossip(&membership, &world, members, tasks).await?;
        let tls = derive(identity.subscribe(), tasks, "certificate told", |i| i.as_ref().map(|i| i.tls()));
        let link =
            ManagerLink::new(membership.subscribe(), identity.subscribe(), tls, channels.clone(), world.seams.clone());
        let agent_config = AgentConfig {
            hostname,
            canaries: canaries.agent,
            ..AgentConfig::new(membership.borrow().node_id.clone(), layout.agent().join("assignments"))
        };
        let (engine, seams) = (world.engine.clone(), world.seams.clone());
        let agent = Agent::start(agent_config.clone(), seams, engine, Arc::new(link), tasks).await?;
        let member = Arc::new(Member {
            world,
            keys,
            data_key_max_age,
            layout,
            raft,
            canaries,
            membership,
            identity,
            channels,
            gossip,
            gossip_members,
            session: agent.session(),
            agent: Mutex::new(Some(agent)),
            agent_config,
            manager: RwLock::new(None),
            missed: Mutex::default(),
            tasks: tasks.clone(),
        });
        match is_manager {
            true => member.start_manager().await?,
            false => member.finish_demotion().await,
        }
        tasks.spawn("session news", member.clone().take_session_news());
        tasks.spawn_to_end("data keys", member.clone().keep_data_keys());
        tasks.spawn("node facts", member.clone().spread_facts());
        tasks.spawn("gossip keys told", gossip_keys::tell(member.membership.subscribe(), member.gossip.clone()));
        Ok(member)
    }

    // --- what others ask ---

    /// The manager's part, while there is one.
    pub(crate) fn manager(&self) -> Option<Arc<Manager>> {
        self.manager.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn disk_keys(&self) -> DiskKeys {
        self.keys.clone()
    }

    pub(crate) fn membership(&self) -> Membership {
        self.membership.borrow().clone()
    }

    pub(crate) fn gossip(&self) -> &Gossip {
        &self.gossip
    }

    pub(crate) fn session(&self) -> watch::Receiver<SessionInfo> {
        self.session.clone()
    }

    /// What the agent has in memory of secrets and configs; `None` when it has stopped.
    pub(crate) fn granted(&self) -> Option<Vec<model::PayloadId>> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Agent::granted)
    }

    pub(crate) fn identity(&self) -> Arc<Identity> {
        self.identity.borrow().clone().expect("a member has an identity from its first moment")
    }

    /// Whether gossip hears each of these nodes; `None` where that cannot be said yet, because a node that is not heard may
    /// have come a moment ago.
    pub(crate) fn hears<'a>(&self, nodes: impl Iterator<Item = &'a NodeId>) -> BTreeMap<NodeId, Option<bool>> {
        let live = self.gossip.live().borrow().clone();
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *missed);
        let judge = |node: &NodeId| {
            if live.contains(node) {
                return (node.clone(), Some(true));
            }
            let since = before.get(node).copied().unwrap_or_else(Instant::now);
            missed.insert(node.clone(), since);
            (node.clone(), (since.elapsed() >= MISSED_AFTER).then_some(false))
        };
        nodes.map(judge).collect()
    }

    pub(crate) fn local_view(&self) -> LocalView {
        let membership = self.membership.borrow();
        LocalView {
            state: match (self.expired(), self.identity().role) {
                (Some(words), _) => LocalState::Error(words),
                (None, Role::Manager) => LocalState::Manager,
                (None, Role::Worker) => LocalState::Worker,
            },
            node_id: Some(membership.node_id.clone()),
            node_addr: membership.advertise_addr.ip().to_string(),
            cluster_id: Some(membership.cluster_id.clone()),
            remote_managers: membership.managers.iter().map(|m| (m.node_id.clone(), m.addr.to_string())).collect(),
        }
    }

    /// Resolves when the node is what its certificate says: a manager in the Raft group, a worker with a session.
    pub(crate) async fn settled(&self) {
        let mut session = self.session.clone();
        if session.wait_for(|s| s.connected).await.is_err() {
            return std::future::pending().await;
        }
        while let Some(manager) = self.manager() {
            let mut views = manager.views.clone();
            if views.wait_for(|v| v.voters.contains(&v.raft_id)).await.is_ok() {
                return;
            }
        }
    }

    // --- the manager's part ---

    async fn start_manager(self: &Arc<Self>) -> Result<(), ManagerError> {
        let (raft_id, listen_addr, ticks) = {
            let m = self.membership.borrow();
            (m.raft_id, m.listen_addr, RaftTicks::bounded(m.raft_ticks.heartbeat, m.raft_ticks.election))
        };
        let parts = ManagerParts {
            raft_id,
            listen_addr,
            layout: self.layout.clone(),
            seams: self.world.seams.clone(),
            logs: self.world.raft_logs.clone(),
            identity: self.identity.subscribe(),
            channels: self.channels.clone(),
            live: self.gossip.live(),
            facts: self.gossip.fact_changes(),
            members: self.gossip_members.clone(),
            raft: self.raft.clone().slowed(ticks.heartbeat, ticks.election),
            store_canary: self.canaries.store,
            control_canary: self.canaries.control,
            dispatcher_canary: self.canaries.dispatcher,
            accept_removed: self.canaries.accept_removed,
        };
        let manager = Manager::start(parts, &self.tasks).await?;
        *self.manager.write().unwrap_or_else(PoisonError::into_inner) = Some(manager.clone());
        manager.tasks().spawn_to_end("autolock", self.clone().follow_autolock(manager.clone()));
        let asking = self.clone();
        manager.tasks().spawn("into the Raft group", asking.stay_in_group(manager.clone()));
        Ok(())
    }

    async fn stop_manager(&self) {
        let manager = self.manager.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(manager) = manager {
            manager.stop().await;
        }
    }

    /// Makes this manager the founder of a new cluster.
    pub(crate) async fn found(&self, founding: &Founding) -> Result<(), SwarmError> {
        let manager = self.manager().ok_or_else(|| internal("the founder is no manager"))?;
        let me = raft::Member {
            addr: founding.membership.advertise_addr.to_string(),
            node_id: founding.membership.node_id.to_string(),
        };
        manager.raft.initialize(me).await.map_err(internal)?;
        let leads = manager.raft.wait_view("to lead", FOUND_TIMEOUT, |v| v.role == raft::Role::Leader);
        leads.await.map_err(internal)?;
        let mut tx = Transaction::new(Timestamp::from_unix(self.world.seams.clock.unix_now()));
        tx.create(founding.cluster.clone());
        tx.create(founding.node.clone());
        manager.client.propose(tx).await.map(drop).map_err(internal)
    }

    // --- gossip ---

    /// Tells everybody what this node is: addresses, resources, engine, version.
    async fn spread_facts(self: Arc<Self>) {
        let addr = self.membership.borrow().advertise_addr.to_string();
        let mut facts = vec![(fact::ADDR, addr), (fact::VERSION, env!("CARGO_PKG_VERSION").to_owned())];
        let always = facts.len();
        loop {
            if let Ok(d) = self.world.engine.describe().await {
                facts.truncate(always);
                facts.push((fact::HOSTNAME, self.agent_config.hostname.clone().unwrap_or(d.hostname)));
                facts.push((fact::NANO_CPUS, d.resources.nano_cpus.to_string()));
                facts.push((fact::MEMORY_BYTES, d.resources.memory_bytes.to_string()));
                facts.push((fact::ENGINE, d.engine.version));
            }
            for (key, value) in &facts {
                if let Err(e) = self.gossip.set_fact(key, value) {
                    tracing::warn!(error = %e, "a fact of this node is not spread");
                }
            }
            tokio::time::sleep(FACTS_PERIOD).await;
        }
    }

    // --- the end ---

    /// After the member has stopped for good: no container of this node is left.
    pub(crate) async fn remove_containers(&self) -> Result<(), engine::EngineError> {
        agent::remove_everything(&self.agent_config, &self.world.seams, &*self.world.engine).await
    }

    /// Stops: leadership is handed over, containers run on.
    pub(crate) async fn stop(&self) {
        self.stop_manager().await;
        let agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(agent) = agent
            && !agent.stop(STOP_TIMEOUT).await
        {
            tracing::warn!("the agent did not end in time");
        }
        self.gossip.stop().await;
        if !self.tasks.shutdown(STOP_TIMEOUT).await {
            tracing::warn!("some of the member's tasks did not end in time");
        }
    }
}

async fn start_gossip(
    membership: &watch::Sender<Membership>,
    world: &World,
    members: watch::Receiver<BTreeSet<NodeId>>,
    tasks: &Tasks,
) -> Result<Gossip, GossipError> {
    let now = membership.borrow().clone();
    let on = |addr: SocketAddr| SocketAddr::new(addr.ip(), now.gossip_port);
    let config = GossipConfig {
        node_id: now.node_id.clone(),
        cluster_id: now.cluster_id.clone(),
        listen_addr: on(now.listen_addr),
        advertise_addr: on(now.advertise_addr),
        keys: derive(membership.subscribe(), tasks, "gossip keys", |m| m.gossip_keys.clone()),
        members,
        seeds: seeds(&now),
        timings: GossipTimings::default(),
    };
    Gossip::start(config, world.seams.clone(), tasks).await
}

/// Where the managers gossip: on the same port everywhere, as Docker's nodes do.
fn seeds(m: &Membership) -> BTreeSet<SocketAddr> {
    let others = m.managers.iter().filter(|k| k.addr != m.advertise_addr);
    others.map(|k| SocketAddr::new(k.addr.ip(), m.gossip_port)).collect()
}

/// A watch of something that follows from another watch.
fn derive<A: Send + Sync + 'static, B: PartialEq + Send + Sync + 'static>(
    mut source: watch::Receiver<A>,
    tasks: &Tasks,
    name: &'static str,
    of: impl Fn(&A) -> B + Send + 'static,
) -> watch::Receiver<B> {
    let (sender, receiver) = watch::channel(of(&source.borrow_and_update()));
    tasks.spawn(name, async move {
        while source.changed().await.is_ok() {
            let value = of(&source.borrow_and_update());
            sender.send_if_modified(|old| {
                let changed = *old != value;
                *old = value;
                changed
            });
        }
    });
    receiver
}
