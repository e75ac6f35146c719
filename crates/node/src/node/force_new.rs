//! `init --force-new-cluster`: one manager of a lost majority becomes a cluster of its own, with the state that it has.

use super::{Node, OpenError, State};
use crate::addr;
use crate::force_new::Intent;
use crate::join::{self, internal};
use crate::keys::DiskKeys;
use crate::member::Member;
use api::{InitOptions, SwarmError};
use model::NodeId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::StoreClient as _;

/// How long a majority may take to show itself. It would be two clusters with the same nodes otherwise.
const LOOK_FOR_OTHERS: Duration = Duration::from_secs(3);
/// How long the only manager waits to lead itself.
const LEAD_TIMEOUT: Duration = Duration::from_secs(10);

// === impl Node (force new cluster) ===

impl Node {
    /// With `changing` held by the caller.
    pub(super) async fn force_new_cluster(
        &self,
        member: Arc<Member>,
        options: &InitOptions,
    ) -> Result<NodeId, SwarmError> {
        refuse_if_needless(&member).await?;
        let intent = self.intent(&member, options)?;
        self.refuse_foreign(intent.listen_addr).await?;
        let (keys, layout) = (member.disk_keys(), &self.inner.layout);
        let disk = keys.world(&self.inner.world).seams.disk;
        intent.save(layout, &*disk).await.map_err(internal)?;
        self.set(State::Pending(intent.advertise_addr.ip().to_string()));
        member.stop().await;
        drop(member);
        // Carries out what it finds.
        let failed = match self.resume_with(keys.clone()).await {
            Ok(member) => {
                self.set(State::Active(member.clone()));
                return leads(&member).await;
            }
            Err(e) => e,
        };
        if !nothing_was_done(&failed) {
            return self.finish(keys, &failed).await;
        }
        // Back to what it was.
        let forgotten = Intent::forget(layout, &*disk).await;
        let again = match forgotten {
            Ok(()) => self.resume_with(keys).await.map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let text = match again {
            Ok(member) => {
                self.set(State::Active(member));
                format!("no new cluster could be made: {failed}; this manager is what it was")
            }
            Err(reason) => self.broken(format!(
                "no new cluster could be made: {failed}; and this manager could not be started again ({reason}): restart its daemon"
            )),
        };
        Err(SwarmError::Internal(text))
    }

    /// The new group is on the disk, or may be, and with it this node has another Raft id: there is no way back, only on. The
    /// intent is still there, or was carried out; either way the next start makes a running cluster of it.
    async fn finish(&self, keys: DiskKeys, failed: &OpenError) -> Result<NodeId, SwarmError> {
        match self.resume_with(keys).await {
            Ok(member) => {
                self.set(State::Active(member.clone()));
                leads(&member).await
            }
            Err(_) => Err(SwarmError::Internal(self.broken(format!(
                "the new cluster was begun, and could not be brought to its end: {failed}. Mend that, and restart this daemon: it goes on from there"
            )))),
        }
    }

    fn broken(&self, text: String) -> String {
        self.set(State::Broken(text.clone()));
        text
    }

    /// An address that this machine does not have would be remembered, and no later start could listen on it. One that is taken
    /// may be taken by this very manager, which is about to let go of it.
    async fn refuse_foreign(&self, listen_addr: SocketAddr) -> Result<(), SwarmError> {
        match self.inner.world.seams.net.listen(listen_addr).await {
            Err(e) if e.kind() != io::ErrorKind::AddrInUse => {
                Err(SwarmError::Invalid(format!("cannot listen on {listen_addr}: {e}; choose another --listen-addr")))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn intent(&self, member: &Member, options: &InitOptions) -> Result<Intent, SwarmError> {
        let now = member.membership();
        let (old_listen, old_advertise) = (now.listen_addr.to_string(), now.advertise_addr.to_string());
        // What is not said stays as it is. Docker's client always says its default to listen on.
        let listen = if addr::is_default_listen(&options.listen_addr) { &old_listen } else { &options.listen_addr };
        let advertise = if options.advertise_addr.is_empty() { &old_advertise } else { &options.advertise_addr };
        let (config, world) = (&self.inner.config, &self.inner.world);
        let (listen_addr, advertise_addr) = join::addresses(config, world, listen, advertise)?;
        let raft_id = join::new_raft_id(&*self.inner.world.seams.rand);
        Ok(Intent { raft_id, listen_addr, advertise_addr })
    }
}

fn nothing_was_done(error: &OpenError) -> bool {
    matches!(error, OpenError::ForceNew(e) if e.nothing_was_done())
}

/// A worker has nothing to make a cluster of, and a majority that is alive needs none.
async fn refuse_if_needless(member: &Member) -> Result<(), SwarmError> {
    let Some(manager) = member.manager() else {
        return Err(SwarmError::Invalid(
            "this node is not a manager, so it has no state to make a new cluster of: run this command on a manager that is left".into(),
        ));
    };
    if manager.raft.view().voters.len() < 2 {
        return Ok(());
    }
    match tokio::time::timeout(LOOK_FOR_OTHERS, manager.client.current()).await {
        Ok(Ok(_)) => Err(SwarmError::Invalid(
            "the swarm has a leader and a majority of its managers: a new cluster would be a second one with the same nodes. --force-new-cluster is for a lost majority; a manager that is gone is taken out with `node demote` and `node rm`".into(),
        )),
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

async fn leads(member: &Member) -> Result<NodeId, SwarmError> {
    let manager = member.manager().ok_or_else(|| internal("the manager's part did not start"))?;
    let leads = manager.raft.wait_view("to lead", LEAD_TIMEOUT, |v| v.role == raft::Role::Leader);
    leads.await.map_err(internal)?;
    Ok(member.identity().node_id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::force_new::{Founder, found, raft_of};
    use crate::keys::FoundKeys;
    use crate::machine::{StoreCanary, StoreMachine};
    use crate::state::{Layout, Membership};
    use crate::testing::{OddDisk, world};
    use crate::world::{NodeConfig, World};
    use api::{LocalState, Swarm as _};
    use seams::Seams;
    use std::sync::atomic::Ordering;
    use store::Store;

    /// When the new group is on the disk and the rest of it cannot be written, there is no way back to the old one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_has_begun_is_finished_once_there_is_room_again() {
        let dir = tempfile::tempdir().unwrap();
        let config = NodeConfig { listen_addr: "127.65.0.2:2377".into(), ..NodeConfig::new(dir.path()) };
        let plain = world();
        let disk = OddDisk::new(plain.seams.disk.clone(), Duration::ZERO);
        let unsealed = World { seams: Seams { disk: disk.clone(), ..plain.seams.clone() }, ..plain };
        let mut node = Node::open(config.clone(), unsealed.clone()).await.unwrap();
        let id = node.init(InitOptions::default()).await.unwrap();
        let force = || InitOptions { force_new_cluster: true, ..Default::default() };

        let elsewhere = InitOptions { listen_addr: "192.0.2.1:2377".into(), ..force() };
        let said = node.init(elsewhere).await.unwrap_err().to_string();
        assert!(said.contains("cannot listen on 192.0.2.1:2377"), "{said}");
        assert_eq!(node.local().state, LocalState::Manager, "nothing has begun");

        // It goes on by itself when that helps.
        disk.refusals.store(1, Ordering::SeqCst);
        assert_eq!(node.init(force()).await, Ok(id.clone()));

        disk.refusals.store(u32::MAX, Ordering::SeqCst);
        let said = node.init(force()).await.unwrap_err().to_string();
        assert!(said.contains("could not be brought to its end") && said.contains("restart this daemon"), "{said}");
        // Nobody can make or join another swarm over what is left of this one, and its state says what is the matter.
        assert_eq!(node.local().state, LocalState::Error(said.clone()));
        assert_eq!(node.init(InitOptions::default()).await, Err(SwarmError::AlreadyInSwarm));
        assert_eq!(node.leave(true).await, Err(SwarmError::Unavailable(said)));
        node.shutdown().await;

        disk.refusals.store(0, Ordering::SeqCst);
        node = Node::open(config, unsealed).await.unwrap();
        let member = node.member().unwrap();
        assert_eq!(leads(&member).await.unwrap(), id);
        drop(member);
        node.shutdown().await;
    }

    /// Wherever the daemon dies on the way, its next start makes the new cluster.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_crash_on_the_way_is_made_good_by_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let config = NodeConfig { listen_addr: "127.65.0.1:2377".into(), ..NodeConfig::new(dir.path()) };
        let (layout, unsealed) = (Layout::new(dir.path()), world());
        let node = Node::open(config.clone(), unsealed.clone()).await.unwrap();
        let id = node.init(InitOptions::default()).await.unwrap();
        node.shutdown().await;
        for written in ["nothing but the intent", "the new group too"] {
            let Ok(FoundKeys::Open(keys)) = DiskKeys::find(&layout, &unsealed).await else { panic!("no keys") };
            let sealed = keys.world(&unsealed);
            let disk = &*sealed.seams.disk;
            let old = Membership::load(&layout, disk).await.unwrap().unwrap();
            let raft_id = join::new_raft_id(&*sealed.seams.rand);
            let (listen_addr, advertise_addr) = (old.listen_addr, old.advertise_addr);
            Intent { raft_id, listen_addr, advertise_addr }.save(&layout, disk).await.unwrap();
            if written == "the new group too" {
                let raft = raft_of(&layout, &sealed).await.unwrap();
                let store = Arc::new(Store::new());
                let last = raft.replay(&StoreMachine::new(store.clone(), StoreCanary::default())).await.unwrap();
                let founder = Founder { node_id: id.clone(), raft_id, addr: advertise_addr.to_string() };
                found(&raft, &store, last, &founder, &sealed.seams).await.unwrap();
            }
            drop((sealed, keys));
            let node = Node::open(config.clone(), unsealed.clone()).await.unwrap();
            let member = node.member().unwrap();
            assert_eq!(leads(&member).await.unwrap(), id, "{written}");
            let view = member.manager().unwrap().raft.view();
            assert_eq!((view.raft_id, view.voters), (raft_id, [raft_id].into()), "{written}");
            assert_eq!(member.membership().raft_id, raft_id);
            assert!(Intent::load(&layout, &*keys_of(&member)).await.unwrap().is_none(), "{written}");
            drop(member);
            node.shutdown().await;
        }
    }

    fn keys_of(member: &Member) -> Arc<dyn seams::Disk> {
        member.disk_keys().world(&world()).seams.disk
    }
}
