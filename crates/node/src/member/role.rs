//! What a member learns from its sessions: who the managers are, the gossip keys, and the certificate that it should have.

use super::certificate::Keeper;
use super::{Member, seeds};
use crate::gossip_keys;
use crate::state::KnownManager;
use agent::SessionInfo;
use std::sync::Arc;

// === impl Member ===

impl Member {
    /// Follows what managers say: who they are, the gossip keys, and the certificate that this node should have.
    pub(super) async fn take_session_news(self: Arc<Self>) {
        let mut session = self.session.clone();
        let mut keeper = Keeper::new(&self.identity(), &*self.world.seams.rand);
        loop {
            let news = session.borrow_and_update().clone();
            self.remember(&news).await;
            let wait = self.keep_certificate(&news, &mut keeper).await;
            tokio::select! {
                biased;
                changed = session.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn remember(&self, news: &SessionInfo) {
        let managers: Vec<KnownManager> = news
            .managers
            .iter()
            .filter_map(|(id, addr)| Some(KnownManager { node_id: id.parse().ok()?, addr: addr.parse().ok()? }))
            .collect();
        let changed = self.membership.send_if_modified(|m| {
            let mut next = m.clone();
            if !managers.is_empty() {
                next.managers = managers;
            }
            if gossip_keys::may_replace(&next.gossip_keys, &news.gossip_keys) {
                next.gossip_keys.clone_from(&news.gossip_keys);
            }
            if let Some(ticks) = news.raft_ticks {
                next.raft_ticks = ticks;
            }
            let changed = next != *m;
            *m = next;
            changed
        });
        if changed {
            self.gossip.set_seeds(seeds(&self.membership.borrow()));
            self.save().await;
        }
    }

    /// Goes on to its end when the caller is dropped, and whoever stops the member awaits it: a file that comes back after a
    /// `leave` has removed it would be a membership without its keys.
    pub(crate) async fn save(&self) {
        let (layout, disk) = (self.layout.clone(), self.world.seams.disk.clone());
        let membership = self.membership.borrow().clone();
        let saved = self.tasks.spawn_to_end("save membership", async move {
            if let Err(e) = membership.save(&layout, &*disk).await {
                // The node goes on with what it knows; after a restart it starts from older addresses.
                tracing::error!(error = %e, "what this node knows of its swarm could not be saved");
            }
        });
        if let Err(e) = saved.await {
            tracing::error!(error = %e, "saving what this node knows of its swarm ended badly");
        }
    }
}
