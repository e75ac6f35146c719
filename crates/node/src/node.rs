//! A node: in no swarm, or a member of one. Everything it does to the world goes through its [`World`], so the same node
//! runs as a daemon and in the simulation.

mod force_new;

use crate::force_new::{ForceNewError, Intent};
use crate::join::{self, internal};
use crate::keys::{DiskKeys, FoundKeys};
use crate::locked;
use crate::manager::ManagerError;
use crate::member::{Member, MemberError, MemberParts};
use crate::state::{Layout, Membership, StateError};
use crate::world::{NodeConfig, World};
use api::{InitOptions, JoinOptions, LocalState, LocalView, SwarmError};
use ca::{Identity, IdentityError};
use model::NodeId;
use seal::{Key, KeyStoreError, LockedStore};
use seams::Tasks;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// A node that cannot start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its membership file.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its certificates.
    #[error(
        "this node's certificates cannot be used: {0}. Restore them, or move the data directory away and join again as a new node"
    )]
    Identity(#[from] IdentityError),
    /// The certificates are gone.
    #[error(
        "this node is in a swarm, but its certificates are missing in {0}. Restore them, or move the data directory away and join again as a new node"
    )]
    NoIdentity(PathBuf),
    /// Its data keys.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// The data keys are gone.
    #[error(
        "this node is in a swarm, but its data keys are missing ({0}), and without them nothing in the data directory can be read. \
         Restore the file, or move the data directory away and join again as a new node (a data directory from before there was \
         encryption at rest cannot be used any more either)"
    )]
    NoKeys(PathBuf),
    /// A new cluster was to be made of what it holds, and cannot be.
    #[error(transparent)]
    ForceNew(#[from] ForceNewError),
    /// One of its parts.
    #[error(transparent)]
    Member(#[from] MemberError),
}

/// A node. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: NodeConfig,
    world: World,
    layout: Layout,
    tasks: Tasks,
    /// Held by whoever makes or ends a membership.
    changing: tokio::sync::Mutex<()>,
    state: RwLock<State>,
}

#[derive(Clone)]
enum State {
    Inactive,
    /// Joining; the address is the one it will advertise.
    Pending(String),
    /// Nothing on the disk can be read without the unlock key.
    Locked(Arc<LockedStore>),
    Active(Arc<Member>),
    /// A member by its disk that does not run: the text says why, and what to do. Nothing may be made in its place.
    Broken(String),
}

/// How long the API's caller waits for a join (Docker's daemon/cluster `swarmConnectTimeout`).
pub(crate) const JOIN_PATIENCE: Duration = Duration::from_secs(20);
/// How often a daemon looks whether its Raft is still there.
const RAFT_LOOK: Duration = Duration::from_secs(1);
/// How long an unlocked manager may take to be in its Raft group before the caller is answered anyway: other managers may be
/// locked still.
const UNLOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How long a stopping node gives its tasks.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

// === impl Node ===

impl Node {
    /// Starts a node from its disk: a member resumes its membership with no word from anybody.
    ///
    /// # Errors
    /// When what is on the disk cannot be used, or a port is taken.
    pub async fn open(config: NodeConfig, world: World) -> Result<Node, OpenError> {
        let layout = Layout::new(&config.data_dir);
        let node = Node {
            inner: Arc::new(Inner {
                config,
                world,
                layout,
                tasks: Tasks::new(),
                changing: tokio::sync::Mutex::new(()),
                state: RwLock::new(State::Inactive),
            }),
        };
        node.resume().await?;
        Ok(node)
    }

    async fn resume(&self) -> Result<(), OpenError> {
        let (layout, disk) = (&self.inner.layout, &self.inner.world.seams.disk);
        if !Membership::is_there(layout, &**disk).await? {
            // A join that was cut short may have left something; it is nobody's.
            layout.wipe(&**disk).await?;
            return Ok(());
        }
        let state = match DiskKeys::find(layout, &self.inner.world).await? {
            FoundKeys::None => return Err(OpenError::NoKeys(layout.key_file())),
            FoundKeys::Locked(locked) => {
                tracing::warn!("this manager is locked: it needs the swarm's unlock key; its containers keep running");
                State::Locked(locked)
            }
            FoundKeys::Open(keys) => State::Active(self.resume_with(keys).await?),
        };
        self.set(state);
        Ok(())
    }

    async fn resume_with(&self, keys: DiskKeys) -> Result<Arc<Member>, OpenError> {
        let layout = &self.inner.layout;
        let world = keys.world(&self.inner.world);
        let disk = world.seams.disk.clone();
        let membership = Membership::load(layout, &*disk).await?;
        let mut membership = membership.ok_or_else(|| OpenError::NoIdentity(layout.membership()))?;
        if let Some(intent) = Intent::load(layout, &*disk).await? {
            membership = intent.carry_out(layout, &world, membership).await?;
        }
        let identity = Identity::load(&*disk, layout.root()).await?;
        let identity = identity.ok_or_else(|| OpenError::NoIdentity(layout.certificates()))?;
        Ok(Member::start(self.member_parts(membership, identity, keys), &self.inner.tasks).await?)
    }

    fn member_parts(&self, membership: Membership, identity: Identity, keys: DiskKeys) -> MemberParts {
        MemberParts {
            membership,
            identity,
            world: keys.world(&self.inner.world),
            keys,
            data_key_max_age: self.inner.config.data_key_max_age,
            layout: self.inner.layout.clone(),
            hostname: self.inner.config.hostname.clone(),
            raft: self.inner.config.raft.clone(),
            canaries: self.inner.config.canaries,
        }
    }

    /// Stops: hands leadership over, closes everything, leaves containers running and the membership on the disk.
    pub async fn shutdown(&self) {
        if let State::Active(member) = self.state() {
            member.stop().await;
        }
        if !self.inner.tasks.shutdown(STOP_TIMEOUT).await {
            tracing::warn!("some of the node's tasks did not end in time");
        }
    }

    pub(crate) fn world(&self) -> &World {
        &self.inner.world
    }

    /// The membership, when there is one.
    pub fn member(&self) -> Option<Arc<Member>> {
        match self.state() {
            State::Active(member) => Some(member),
            State::Inactive | State::Pending(_) | State::Locked(_) | State::Broken(_) => None,
        }
    }

    /// Resolves when this manager's Raft has broken (its disk is full, say), with the reason: it will not go on by itself.
    pub async fn raft_broken(&self) -> String {
        loop {
            let view = self.member().and_then(|member| member.manager()).map(|manager| manager.raft.view());
            match view.filter(|view| view.broken) {
                Some(view) => return view.stopped.unwrap_or_default(),
                None => tokio::time::sleep(RAFT_LOOK).await,
            }
        }
    }

    /// What this node is in the swarm.
    pub fn local_view(&self) -> LocalView {
        match self.state() {
            State::Inactive => LocalView::default(),
            State::Pending(node_addr) => LocalView { state: LocalState::Pending, node_addr, ..Default::default() },
            State::Locked(_) => LocalView { state: LocalState::Locked, ..Default::default() },
            State::Active(member) => member.local_view(),
            State::Broken(text) => LocalView { state: LocalState::Error(text), ..Default::default() },
        }
    }

    fn state(&self) -> State {
        self.inner.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: State) {
        *self.inner.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Makes a new cluster of this one node.
    pub(crate) async fn init_swarm(&self, options: InitOptions) -> Result<NodeId, SwarmError> {
        if let State::Active(member) = self.state()
            && options.force_new_cluster
        {
            let _changing = self.inner.changing.try_lock().map_err(|_| busy())?;
            return self.force_new_cluster(member, &options).await;
        }
        let _changing = self.begin_change()?;
        let founding = join::found(&self.inner.config, &self.inner.world, options)?;
        let layout = &self.inner.layout;
        let node_id = founding.membership.node_id.clone();
        let started = async {
            let lock = founding.cluster.security.unlock_key.as_ref();
            let keys = DiskKeys::create(layout, &self.inner.world, lock).await.map_err(internal)?;
            let disk = &*keys.world(&self.inner.world).seams.disk;
            founding.identity.save(disk, layout.root()).await.map_err(internal)?;
            let parts = self.member_parts(founding.membership.clone(), founding.identity.clone(), keys);
            let member = Member::start(parts, &self.inner.tasks).await.map_err(member_error)?;
            let founded = match member.found(&founding).await {
                Ok(()) => founding.membership.save(layout, disk).await.map_err(internal),
                Err(e) => Err(e),
            };
            match founded {
                Ok(()) => Ok(member),
                Err(e) => {
                    member.stop().await;
                    Err(e)
                }
            }
        };
        match started.await {
            Ok(member) => {
                self.set(State::Active(member));
                Ok(node_id)
            }
            Err(e) => Err(self.undo(e).await),
        }
    }

    /// Joins a cluster, and waits until it has (at most [`JOIN_PATIENCE`]).
    pub(crate) async fn join_swarm(&self, options: JoinOptions) -> Result<(), SwarmError> {
        let changing = self.begin_change()?;
        let plan = join::plan(&self.inner.config, &self.inner.world, &options).await?;
        self.set(State::Pending(plan.advertise_addr.ip().to_string()));
        let joined = async {
            // Only this waits for others. What follows must not be dropped half-way: its tasks would hold the ports.
            let admitted = tokio::time::timeout(JOIN_PATIENCE, join::admitted(&self.inner.world, &plan)).await;
            let (membership, identity) = admitted.unwrap_or_else(|_| {
                Err(SwarmError::Unavailable(format!("no manager answered within {JOIN_PATIENCE:?}")))
            })?;
            let layout = &self.inner.layout;
            // A manager locks itself as soon as it has heard the swarm's unlock key.
            let keys = DiskKeys::create(layout, &self.inner.world, None).await.map_err(internal)?;
            let disk = &*keys.world(&self.inner.world).seams.disk;
            identity.save(disk, layout.root()).await.map_err(internal)?;
            membership.save(layout, disk).await.map_err(internal)?;
            let parts = self.member_parts(membership, identity, keys);
            Member::start(parts, &self.inner.tasks).await.map_err(member_error)
        };
        let member = match joined.await {
            Ok(member) => member,
            Err(e) => return Err(self.undo(e).await),
        };
        self.set(State::Active(member.clone()));
        drop(changing);
        // The node is a member; from here on it goes on by itself.
        match tokio::time::timeout(JOIN_PATIENCE, member.settled()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(SwarmError::JoinTimeout),
        }
    }

    /// Leaves the cluster and forgets it.
    pub(crate) async fn leave_swarm(&self, force: bool) -> Result<(), SwarmError> {
        let _changing = self.inner.changing.try_lock().map_err(|_| busy())?;
        if let State::Locked(_) = self.state() {
            locked::leave(force, &self.inner.layout, &self.inner.world).await?;
            let wiped = self.inner.layout.wipe(&*self.inner.world.seams.disk).await;
            self.set(State::Inactive);
            return wiped.map_err(internal);
        }
        if let State::Broken(text) = self.state() {
            return Err(SwarmError::Unavailable(text));
        }
        let member = self.member().ok_or(SwarmError::NotInSwarm)?;
        member.leave(force).await?;
        member.stop().await;
        if let Err(e) = member.remove_containers().await {
            tracing::warn!(error = %e, "some containers of the swarm could not be removed; `docker ps` shows them");
        }
        let wiped = self.inner.layout.wipe(&*self.inner.world.seams.disk).await;
        self.set(State::Inactive);
        wiped.map_err(internal)
    }

    /// Opens a locked manager's disk, and starts the manager.
    pub(crate) async fn unlock_swarm(&self, key: &Key) -> Result<(), SwarmError> {
        let changing = self.inner.changing.try_lock().map_err(|_| busy())?;
        let State::Locked(locked) = self.state() else { return Err(SwarmError::NotLocked) };
        let keys = locked::unlock(&locked, key, &self.inner.layout, &self.inner.world)?;
        let started = self.resume_with(keys).await;
        let member = started.map_err(|e| internal(format_args!("swarm component could not be started: {e}")))?;
        self.set(State::Active(member.clone()));
        drop(changing);
        if tokio::time::timeout(UNLOCK_PATIENCE, member.settled()).await.is_err() {
            tracing::info!("this manager is unlocked; it waits for a majority of the managers");
        }
        Ok(())
    }

    fn begin_change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, SwarmError> {
        let guard = self.inner.changing.try_lock().map_err(|_| busy())?;
        match self.state() {
            State::Inactive => Ok(guard),
            State::Pending(_) | State::Locked(_) | State::Active(_) | State::Broken(_) => {
                Err(SwarmError::AlreadyInSwarm)
            }
        }
    }

    /// Back to no membership, after something failed on the way into one.
    async fn undo(&self, error: SwarmError) -> SwarmError {
        if let Err(e) = self.inner.layout.wipe(&*self.inner.world.seams.disk).await {
            tracing::warn!(error = %e, "what is left of a failed join could not be removed");
        }
        self.set(State::Inactive);
        error
    }
}

fn busy() -> SwarmError {
    SwarmError::Unavailable("another init, join or leave is under way on this node; wait for it to end".into())
}

fn member_error(e: MemberError) -> SwarmError {
    match e {
        // The user can mend a taken port.
        MemberError::Manager(ManagerError::Listen { .. }) => SwarmError::Invalid(e.to_string()),
        e => SwarmError::Internal(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{OddDisk, world};
    use api::Swarm as _;
    use seams::Seams;

    /// A membership that is being written when the node leaves must not come back after it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_membership_that_is_written_late_does_not_survive_a_leave() {
        let dir = tempfile::tempdir().unwrap();
        let config = NodeConfig { listen_addr: "127.65.0.3:2377".into(), ..NodeConfig::new(dir.path()) };
        let plain = world();
        let disk = OddDisk::new(plain.seams.disk.clone(), Duration::from_millis(500));
        let slow = World { seams: Seams { disk, ..plain.seams.clone() }, ..plain.clone() };
        let node = Node::open(config.clone(), slow).await.unwrap();
        node.init(InitOptions::default()).await.unwrap();
        let member = node.member().unwrap();
        let dropped = tokio::time::timeout(Duration::from_millis(1), member.save()).await;
        assert!(dropped.is_err(), "it is on its way");
        drop(member);
        node.leave(true).await.unwrap();
        // As long as a late write can take.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(plain.seams.disk.read(&Layout::new(dir.path()).membership()).await.unwrap(), None);
        node.shutdown().await;
        Node::open(config, plain).await.unwrap().shutdown().await;
    }
}
