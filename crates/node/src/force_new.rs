//! A cluster of one, made of what is left of a larger one: after a lost majority (`init --force-new-cluster`), or from a
//! backup. The state is kept; the Raft group is new, with this node alone in it under a Raft id that nobody had.
//!
//! What is to be done is noted in a file first and then done by whoever starts the node: the call that asked for it, or the
//! next start of the daemon after a crash in between.

use crate::gossip_keys::KEYS_MAX;
use crate::machine::{StoreCanary, StoreMachine};
use crate::state::{KnownManager, Layout, Membership, StateError};
use crate::world::World;
use bytes::Bytes;
use model::{GossipKey, ManagerStatus, Meta, Node, NodeId, NodeSpec, NodeState, NodeStatus, Role, Timestamp};
use raft::{LogPosition, Offline, OfflineError, OpenLogError};
use seams::{Disk, Seams};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use store::{Snapshot, Store, Transaction};

/// Gossip keys of the new cluster are numbered from so far on: the old one may have gone on after this copy of its state
/// was made, and a node must never take the new keys for older ones than it has.
const KEY_IDS_AHEAD: u32 = 1 << 16;

/// What is shown of a manager of the old cluster until it has a session.
const FORMER_MANAGER: &str = "managed the cluster that this one was made of; not heard of since";

/// A new cluster that could not be made of the old one's remains.
#[derive(Debug, thiserror::Error)]
pub enum ForceNewError {
    /// The Raft log.
    #[error(transparent)]
    Log(#[from] OpenLogError),
    /// What is on the disk.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// This node's own files.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no cluster in the state.
    #[error("the Raft log and the snapshot hold no cluster: this manager had not been told of it yet")]
    NoCluster,
    /// The state does not take what has to be changed in it.
    #[error("the state cannot be changed: {0}")]
    Conflict(#[from] store::Conflict),
}

/// What was asked for: written before anything is done, removed when all is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// The Raft id that this node will have.
    pub(crate) raft_id: u64,
    /// Where it will listen.
    pub(crate) listen_addr: SocketAddr,
    /// Where others will reach it.
    pub(crate) advertise_addr: SocketAddr,
}

/// The manager of the new cluster.
#[derive(Debug, Clone)]
pub(crate) struct Founder {
    pub(crate) node_id: NodeId,
    pub(crate) raft_id: u64,
    pub(crate) addr: String,
}

/// What is different in the new cluster: this node is its only manager, the others are workers until somebody promotes them
/// again, and gossip has a new key. `None` when the state holds no cluster. Pure.
pub(crate) fn refounded(state: &Snapshot, founder: &Founder, key: [u8; 32], now: Timestamp) -> Option<Transaction> {
    let mut cluster = model::Cluster::clone(state.cluster()?);
    let newest = cluster.gossip_keys.iter().map(|k| k.id).max().unwrap_or_default();
    // By the clock too, so that what is made later has the higher one, even from an older copy.
    let seconds = u32::try_from(now.since(Timestamp(0)).as_secs()).unwrap_or_default();
    cluster.gossip_keys.insert(0, GossipKey { id: newest.saturating_add(KEY_IDS_AHEAD).max(seconds), key });
    cluster.gossip_keys.truncate(KEYS_MAX);
    cluster.security.gossip_key_since = now;
    cluster.security.gossip_rotation.asked = false;
    cluster.security.forget_old_tokens(now);
    for node in state.nodes() {
        if let Some(manager) = node.manager.as_ref().filter(|m| m.raft_id != founder.raft_id) {
            cluster.retire_raft_id(manager.raft_id, &node.id);
        }
    }
    let mut tx = Transaction::new(now);
    tx.update(cluster);
    for node in state.nodes().filter(|n| n.id != founder.node_id) {
        if node.spec.role == Role::Manager || node.manager.is_some() {
            let mut node = Node::clone(node);
            node.spec.role = Role::Worker;
            node.manager = None;
            // Most likely it is gone, and nothing new should be put there. If it is not, it has the time of a first session
            // to be heard of, and its tasks stay where they are.
            node.status.state = NodeState::Unknown;
            node.status.message = FORMER_MANAGER.to_owned();
            tx.update(node);
        }
    }
    let manager = Some(ManagerStatus { raft_id: founder.raft_id, addr: founder.addr.clone() });
    match state.node(&founder.node_id) {
        Some(node) => {
            let mut node = Node::clone(node);
            node.spec.role = Role::Manager;
            node.manager = manager;
            tx.update(node);
        }
        None => {
            tx.create(Node {
                id: founder.node_id.clone(),
                meta: Meta::default(),
                spec: NodeSpec { role: Role::Manager, ..Default::default() },
                description: None,
                status: NodeStatus::default(),
                manager,
            });
        }
    }
    Some(tx)
}

/// The Raft state of a manager that does not run; the world is the one in which its disk can be read.
pub(crate) async fn raft_of(layout: &Layout, world: &World) -> Result<Offline, OpenLogError> {
    let log = world.raft_logs.open(&layout.raft()).await?;
    Ok(Offline::new(log, world.seams.disk.clone(), layout.raft().join("snapshots")))
}

/// Writes the new group with the state in `store`, which is changed as it has to be; gives the state as it is then.
pub(crate) async fn found(
    raft: &Offline,
    store: &Store,
    last: LogPosition,
    founder: &Founder,
    seams: &Seams,
) -> Result<Snapshot, ForceNewError> {
    let since_epoch = seams.clock.unix_now();
    let at = last.of_next_group(since_epoch);
    let mut key = [0; 32];
    seams.rand.fill(&mut key);
    let now = Timestamp::from_unix(since_epoch);
    let tx = refounded(&store.snapshot(), founder, key, now).ok_or(ForceNewError::NoCluster)?;
    store.apply(at.index, &tx)?;
    let state = store.snapshot();
    let me = raft::Member { addr: founder.addr.clone(), node_id: founder.node_id.to_string() };
    raft.refound(founder.raft_id, me, at, &Bytes::from(Store::encode(&state))).await?;
    Ok(state)
}

// === impl ForceNewError ===

impl ForceNewError {
    /// Whether the disk holds the former group for certain, as nothing that decides was written.
    pub(crate) fn nothing_was_done(&self) -> bool {
        match self {
            ForceNewError::Log(_) | ForceNewError::NoCluster | ForceNewError::Conflict(_) => true,
            ForceNewError::Offline(e) => !matches!(e, OfflineError::Write(_)),
            ForceNewError::State(_) => false,
        }
    }
}

// === impl Intent ===

impl Intent {
    /// Reads it; `None` when nothing is to be done.
    pub(crate) async fn load(layout: &Layout, disk: &dyn Disk) -> Result<Option<Intent>, StateError> {
        let path = layout.force_new();
        let read = disk.read(&path).await;
        let read = read.map_err(|source| StateError::Io { verb: "read", path: path.clone(), source })?;
        let Some(bytes) = read else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|source| StateError::Damaged { path, source })
    }

    /// Writes it.
    pub(crate) async fn save(&self, layout: &Layout, disk: &dyn Disk) -> Result<(), StateError> {
        let path = layout.force_new();
        let bytes = serde_json::to_vec(self).expect("an intent is plain data, which always encodes");
        let written = disk.write_atomic(&path, bytes.into(), 0o600).await;
        written.map_err(|source| StateError::Io { verb: "write", path, source })
    }

    /// Removes it.
    pub(crate) async fn forget(layout: &Layout, disk: &dyn Disk) -> Result<(), StateError> {
        let path = layout.force_new();
        disk.remove(&path).await.map_err(|source| StateError::Io { verb: "remove", path, source })
    }

    /// Does what was asked for with the disk of a node that does not run, and gives its membership as it is then. May be done
    /// again after a crash at any step.
    pub(crate) async fn carry_out(
        self,
        layout: &Layout,
        world: &World,
        mut membership: Membership,
    ) -> Result<Membership, ForceNewError> {
        let store = Arc::new(Store::new());
        let raft = raft_of(layout, world).await?;
        let last = raft.replay(&StoreMachine::new(store.clone(), StoreCanary::default())).await?;
        let addr = self.advertise_addr.to_string();
        let founder = Founder { node_id: membership.node_id.clone(), raft_id: self.raft_id, addr };
        let state = found(&raft, &store, last, &founder, &world.seams).await?;
        tracing::warn!(
            from = ?last,
            services = state.services().count(),
            nodes = state.nodes().count(),
            "this manager is a cluster of its own now, with the state that it had"
        );
        membership.raft_id = self.raft_id;
        membership.listen_addr = self.listen_addr;
        membership.advertise_addr = self.advertise_addr;
        membership.managers = vec![KnownManager { node_id: founder.node_id, addr: self.advertise_addr }];
        if let Some(cluster) = state.cluster() {
            membership.gossip_keys.clone_from(&cluster.gossip_keys);
            membership.raft_ticks = cluster.spec.raft.ticks;
        }
        membership.save(layout, &*world.seams.disk).await?;
        Intent::forget(layout, &*world.seams.disk).await?;
        Ok(membership)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> NodeId {
        format!("{n:025}").parse().unwrap()
    }

    fn node(n: u64, role: Role, raft_id: Option<u64>) -> Node {
        Node {
            id: id(n),
            meta: Meta::default(),
            spec: NodeSpec { role, ..Default::default() },
            description: None,
            status: NodeStatus::default(),
            manager: raft_id.map(|raft_id| ManagerStatus { raft_id, addr: format!("127.0.0.{n}:2377") }),
        }
    }

    fn store(nodes: &[Node]) -> Store {
        let store = Store::new();
        let mut tx = Transaction::new(Timestamp(1));
        tx.create(crate::testing::cluster());
        nodes.iter().for_each(|n| _ = tx.create(n.clone()));
        store.apply(1, &tx).unwrap();
        store
    }

    #[test]
    fn only_the_founder_manages_and_the_rest_is_kept() {
        use Role::{Manager, Worker};
        let nodes =
            [node(1, Manager, Some(11)), node(2, Manager, Some(12)), node(3, Worker, None), node(4, Manager, None)];
        for (founder, count) in [(1, 4), (9, 5)] {
            let store = store(&nodes);
            let before = store.snapshot();
            let me = Founder { node_id: id(founder), raft_id: 99, addr: "127.0.0.9:2377".into() };
            let tx = refounded(&before, &me, [7; 32], Timestamp(5)).unwrap();
            store.apply(1 << 36, &tx).unwrap();
            let after = store.snapshot();
            assert_eq!(after.nodes().count(), count);
            for node in after.nodes() {
                let manages = node.id == id(founder);
                assert_eq!((node.spec.role == Manager, node.manager.is_some()), (manages, manages), "{node:?}");
                let waited_for = node.status.message == FORMER_MANAGER && node.status.state == NodeState::Unknown;
                assert_eq!(waited_for, !manages && node.id != id(3), "{node:?}");
            }
            assert_eq!(after.node(&id(founder)).unwrap().manager, Some(ManagerStatus { raft_id: 99, addr: me.addr }));
            assert_eq!(after.node(&id(3)), before.node(&id(3)), "a worker is left alone");
            let (old, new) = (before.cluster().unwrap(), after.cluster().unwrap());
            assert_eq!(new.security.certificates.retired_raft_ids, [(11, id(1)), (12, id(2))]);
            assert_eq!(
                (&old.root_ca, &old.join_tokens, &old.spec, &old.id),
                (&new.root_ca, &new.join_tokens, &new.spec, &new.id)
            );
            assert!(crate::gossip_keys::may_replace(&old.gossip_keys, &new.gossip_keys));
            assert_eq!(new.gossip_keys[1..], old.gossip_keys[..], "the old key still opens");
        }
        assert!(
            refounded(
                &Store::new().snapshot(),
                &Founder { node_id: id(1), raft_id: 1, addr: String::new() },
                [0; 32],
                Timestamp(1)
            )
            .is_none()
        );
    }
}
