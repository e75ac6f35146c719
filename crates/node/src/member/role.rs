//! What a member learns from its sessions: who the managers are, the gossip keys, and the role that it should have.

use super::{ASK_TIMEOUT, Member, RETRY, seeds};
use crate::join::new_raft_id;
use crate::state::KnownManager;
use agent::SessionInfo;
use ca::{Identity, NodeKey};
use model::Role;
use rpc::proto::ca as pb;
use std::collections::BTreeSet;
use std::sync::Arc;

// === impl Member ===

impl Member {
    /// Follows what managers say: who they are, the gossip keys, and the role that this node should have.
    pub(super) async fn take_session_news(self: Arc<Self>) {
        let mut session = self.session.clone();
        loop {
            let news = session.borrow_and_update().clone();
            self.remember(&news).await;
            let settled = match news.desired_role {
                Some(role) if role != self.identity().role => self.change_role(role).await,
                _ => true,
            };
            let changed = async {
                if settled {
                    session.changed().await.is_ok()
                } else {
                    let waited = tokio::time::timeout(RETRY, session.changed()).await;
                    waited.map_or(true, |r| r.is_ok())
                }
            };
            if !changed.await {
                return;
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
            if !news.gossip_keys.is_empty() {
                next.gossip_keys.clone_from(&news.gossip_keys);
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

    async fn save(&self) {
        let membership = self.membership.borrow().clone();
        if let Err(e) = membership.save(&self.layout, &*self.world.seams.disk).await {
            // The node goes on with what it knows; after a restart it starts from older addresses.
            tracing::error!(error = %e, "what this node knows of its swarm could not be saved");
        }
    }

    /// Gets a certificate for the role that this node should have, and becomes that. True when it is done.
    async fn change_role(self: &Arc<Self>, role: Role) -> bool {
        let identity = match self.renewed(role).await {
            Ok(identity) => identity,
            Err(reason) => {
                tracing::debug!(?role, reason, "no certificate for the new role yet");
                return false;
            }
        };
        if let Err(e) = identity.save(&*self.world.seams.disk, self.layout.root()).await {
            tracing::error!(error = %e, "the new certificate could not be saved");
            return false;
        }
        tracing::info!(?role, "this node has a new role");
        let identity = Arc::new(identity);
        match role {
            Role::Manager => {
                self.identity.send_replace(Some(identity));
                if let Err(e) = self.start_manager().await {
                    tracing::error!(error = %e, "this node cannot act as the manager that it should be");
                }
            }
            Role::Worker => {
                self.stop_manager().await;
                self.identity.send_replace(Some(identity));
                self.forget_group().await;
            }
        }
        true
    }

    /// A demoted manager's log and Raft id are of no use to anybody; should it be promoted again, it joins as a new one.
    async fn forget_group(&self) {
        let raft_id = new_raft_id(&*self.world.seams.rand);
        self.membership.send_modify(|m| m.raft_id = raft_id);
        self.save().await;
        if let Err(e) = self.world.seams.disk.remove_dir(&self.layout.raft()).await {
            tracing::warn!(error = %e, "the Raft log of the demoted manager could not be removed");
        }
        self.gossip_members.send_replace(BTreeSet::new());
    }

    async fn renewed(&self, role: Role) -> Result<Identity, String> {
        let key = NodeKey::generate().map_err(|e| e.to_string())?;
        let csr_pem = key.csr_pem().map_err(|e| e.to_string())?;
        let mut last = "no manager is known".to_owned();
        for addr in self.manager_addrs() {
            let Ok(channel) = self.channels.manager(&addr) else { continue };
            let request = pb::RenewNodeCertificateRequest { csr_pem: csr_pem.clone() };
            let mut client = rpc::node_ca_client(channel);
            match tokio::time::timeout(ASK_TIMEOUT, client.renew_node_certificate(request)).await {
                Ok(Ok(answer)) => {
                    let chain = answer.into_inner().certificate_pem;
                    let root_pem = self.identity().root_pem.clone();
                    let identity = Identity::new(chain, key.key_pem(), root_pem).map_err(|e| e.to_string())?;
                    if identity.role == role && identity.node_id == self.identity().node_id {
                        return Ok(identity);
                    }
                    last = format!("the manager at {addr} has not heard of the new role yet");
                }
                Ok(Err(status)) => last = rpc::describe(&status),
                Err(_) => last = format!("the manager at {addr} did not answer in time"),
            }
        }
        Err(last)
    }
}
