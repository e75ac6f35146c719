//! `init --force-new-cluster`: one manager of a lost majority becomes a cluster of its own, with the state that it has.

use super::{Node, State};
use crate::addr;
use crate::force_new::Intent;
use crate::join::{self, internal};
use crate::member::Member;
use api::{InitOptions, SwarmError};
use model::NodeId;
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
            Err(reason) => {
                self.set(State::Inactive);
                format!(
                    "no new cluster could be made: {failed}; and this manager could not be started again ({reason}): restart its daemon"
                )
            }
        };
        Err(SwarmError::Internal(text))
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
    use crate::keys::{DiskKeys, FoundKeys};
    use crate::machine::{StoreCanary, StoreMachine};
    use crate::state::{Layout, Membership};
    use crate::world::{NodeConfig, SledLogs, World};
    use api::Swarm as _;
    use engine::EmbeddedEngine;
    use engine::embedded::EmbeddedOptions;
    use std::net::IpAddr;
    use store::Store;

    struct Loopback;

    impl crate::Interfaces for Loopback {
        fn addresses(&self) -> Vec<(String, IpAddr)> {
            vec![("lo".into(), "127.65.0.1".parse().unwrap())]
        }
    }

    fn world() -> World {
        let seams = seams::real::seams();
        let engine = EmbeddedEngine::new(EmbeddedOptions::default(), seams.clock.clone(), seams.rand.clone());
        World {
            seams,
            engine: Arc::new(engine),
            engine_api: None,
            interfaces: Arc::new(Loopback),
            raft_logs: Arc::new(SledLogs),
        }
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
