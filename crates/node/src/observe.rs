//! What may be seen of a node from outside, without changing anything.

use crate::node::Node;
use raft::{RaftConfig, RaftView};
use std::sync::Arc;
use store::StoreClient;
use tokio::sync::watch;

/// A running manager's state as it sees it itself.
#[derive(Clone)]
pub struct ManagerWatch {
    /// The replicated state, as far as it is applied there.
    pub store: Arc<dyn StoreClient>,
    /// Its Raft member's view. The sender is gone when this life of the manager is over.
    pub raft: watch::Receiver<RaftView>,
    /// What its Raft member was started with.
    pub config: RaftConfig,
}

// === impl Node ===

impl Node {
    /// The manager's part, while the node has one.
    pub fn watch_manager(&self) -> Option<ManagerWatch> {
        let manager = self.member()?.manager()?;
        let config = manager.raft.config().clone();
        Some(ManagerWatch { store: manager.client.clone(), raft: manager.views.clone(), config })
    }

    /// What the manager of the node's session says, while it is in a swarm.
    pub fn watch_session(&self) -> Option<watch::Receiver<agent::SessionInfo>> {
        Some(self.member()?.session())
    }

    /// The certificate and the key that the node shows now, while it is in a swarm.
    pub fn watch_identity(&self) -> Option<Arc<ca::Identity>> {
        Some(self.member()?.identity())
    }

    /// The data of secrets and configs that the node's agent has in memory, while it is in a swarm.
    pub fn watch_granted(&self) -> Option<Vec<model::PayloadId>> {
        self.member()?.granted()
    }
}
