//! Which manager this node's agent talks to.

use crate::state::Membership;
use agent::{Link, LinkError};
use async_trait::async_trait;
use ca::Identity;
use model::Role;
use parking_lot::Mutex;
use rpc::Channels;
use seams::{RandExt as _, Seams};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;

/// For so long a manager that failed is asked only when nobody else is left.
const AVOID: Duration = Duration::from_secs(5);

/// Picks managers for the agent: the node itself when it is one, else one at random, and not one that failed lately.
pub(crate) struct ManagerLink {
    membership: watch::Receiver<Membership>,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    channels: Channels,
    seams: Seams,
    failed: Mutex<BTreeMap<SocketAddr, Instant>>,
    current: Mutex<Option<SocketAddr>>,
}

// === impl ManagerLink ===

impl ManagerLink {
    pub(crate) fn new(
        membership: watch::Receiver<Membership>,
        identity: watch::Receiver<Option<Arc<Identity>>>,
        channels: Channels,
        seams: Seams,
    ) -> ManagerLink {
        ManagerLink { membership, identity, channels, seams, failed: Mutex::default(), current: Mutex::default() }
    }

    fn pick(&self) -> Option<SocketAddr> {
        let membership = self.membership.borrow();
        let known: Vec<SocketAddr> = membership.managers.iter().map(|m| m.addr).collect();
        let mut failed = self.failed.lock();
        failed.retain(|addr, at| at.elapsed() < AVOID && known.contains(addr));
        let mut good: Vec<SocketAddr> = known.iter().filter(|a| !failed.contains_key(a)).copied().collect();
        if good.is_empty() {
            good = known;
        }
        let me = membership.advertise_addr;
        let is_manager = self.identity.borrow().as_ref().is_some_and(|i| i.role == Role::Manager);
        if is_manager && good.contains(&me) {
            return Some(me);
        }
        let n = self.seams.rand.below(good.len() as u64) as usize;
        good.get(n).copied()
    }
}

#[async_trait]
impl Link for ManagerLink {
    async fn channel(&self) -> Result<Channel, LinkError> {
        let addr = self.pick().ok_or_else(|| LinkError("no manager of the swarm is known to this node".into()))?;
        *self.current.lock() = Some(addr);
        self.channels.manager(&addr.to_string()).map_err(|e| LinkError(e.to_string()))
    }

    fn failed(&self, reason: &str) {
        if let Some(addr) = self.current.lock().take() {
            tracing::debug!(%addr, reason, "the session with a manager ended");
            self.failed.lock().insert(addr, Instant::now());
            self.channels.forget(&addr.to_string());
        }
    }
}
