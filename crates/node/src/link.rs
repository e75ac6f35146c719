//! Which manager this node's agent talks to.

use crate::state::Membership;
use agent::{Link, LinkError};
use async_trait::async_trait;
use ca::Identity;
use model::{NodeTls, Role};
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

/// Between two looks at a clock that somebody may set.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

/// Picks managers for the agent: the node itself when it is one, else one at random, and not one that failed lately.
pub(crate) struct ManagerLink {
    membership: watch::Receiver<Membership>,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    /// What the node says of its certificate.
    tls: watch::Receiver<Option<NodeTls>>,
    channels: Channels,
    seams: Seams,
    /// The identity of the last channel.
    used: Mutex<Option<Arc<Identity>>>,
    failed: Mutex<BTreeMap<SocketAddr, Instant>>,
    current: Mutex<Option<SocketAddr>>,
}

// === impl ManagerLink ===

impl ManagerLink {
    pub(crate) fn new(
        membership: watch::Receiver<Membership>,
        identity: watch::Receiver<Option<Arc<Identity>>>,
        tls: watch::Receiver<Option<NodeTls>>,
        channels: Channels,
        seams: Seams,
    ) -> ManagerLink {
        ManagerLink {
            membership,
            identity,
            tls,
            channels,
            seams,
            used: Mutex::default(),
            failed: Mutex::default(),
            current: Mutex::default(),
        }
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
        *self.used.lock() = self.identity.borrow().clone();
        self.channels.manager(&addr.to_string()).map_err(|e| LinkError(e.to_string()))
    }

    fn failed(&self, reason: &str) {
        if let Some(addr) = self.current.lock().take() {
            tracing::debug!(%addr, reason, "the session with a manager ended");
            self.failed.lock().insert(addr, Instant::now());
            self.channels.forget(&addr.to_string());
        }
    }

    fn tls(&self) -> Option<watch::Receiver<Option<NodeTls>>> {
        Some(self.tls.clone())
    }

    /// At once when another root signs now, since the old one is about to be trusted no more. After an ordinary renewal the
    /// session goes on for as long as the old certificate does, less a margin of which each node takes another part.
    async fn outdated(&self) {
        let Some(used) = self.used.lock().clone() else { return std::future::pending().await };
        let margin = used.expiry() / 20;
        let early = margin + Duration::from_secs(self.seams.rand.below(margin.as_secs()));
        let leave_at = used.validity().1.saturating_sub(early);
        let mut identity = self.identity.clone();
        loop {
            let wait = match identity.borrow_and_update().as_ref() {
                Some(now) if now.issuer() != used.issuer() => return,
                Some(now) if now.cert_chain_pem != used.cert_chain_pem => {
                    let left = leave_at.saturating_sub(self.seams.clock.unix_now());
                    if left.is_zero() {
                        return;
                    }
                    left.min(LOOK_AT_CLOCK)
                }
                _ => LOOK_AT_CLOCK,
            };
            tokio::select! {
                biased;
                changed = identity.changed() => if changed.is_err() { return std::future::pending().await },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ca::{Authority, CertificateGrant, Csr, NodeKey};
    use model::Cluster;
    use rpc::ChannelTimings;
    use seams::Clock;
    use seams::real::OsRand;

    const START: Duration = Duration::from_secs(1_800_000_000);

    /// Goes with the runtime's time.
    struct RuntimeClock(Instant);

    impl Clock for RuntimeClock {
        fn unix_now(&self) -> Duration {
            START + self.0.elapsed()
        }
    }

    fn identity(cluster: &Cluster, now: Duration) -> Arc<Identity> {
        let key = NodeKey::generate().unwrap();
        let csr = Csr::parse(&key.csr_pem().unwrap()).unwrap();
        let expiry = Duration::from_secs(3600);
        let grant = CertificateGrant { node_id: "n".repeat(25).parse().unwrap(), role: Role::Worker, expiry };
        let chain = Authority::of(cluster).unwrap().issue_from(1, &csr, &grant, now, &OsRand).unwrap();
        Arc::new(Identity::new(chain, key.key_pem(), cluster.trusted_roots_pem()).unwrap())
    }

    fn membership(cluster: &Cluster) -> Membership {
        let node_id = "m".repeat(25).parse().unwrap();
        let addr = "127.0.0.1:2377".parse().unwrap();
        Membership {
            format: crate::state::FORMAT,
            cluster_id: cluster.id.clone(),
            node_id: "n".repeat(25).parse().unwrap(),
            raft_id: 1,
            listen_addr: "127.0.0.2:2377".parse().unwrap(),
            advertise_addr: "127.0.0.2:2377".parse().unwrap(),
            gossip_port: 7946,
            data_path_port: 4789,
            data_path_addr: None,
            managers: vec![crate::state::KnownManager { node_id, addr }],
            gossip_keys: Vec::new(),
            raft_ticks: Default::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_moves_shortly_before_its_certificate_ends_and_at_once_when_another_root_signs() {
        let cluster = crate::testing::cluster();
        let seams = Seams { clock: Arc::new(RuntimeClock(Instant::now())), ..seams::real::seams() };
        let (identities, identity_rx) = watch::channel(Some(identity(&cluster, START)));
        let (_membership, membership) = watch::channel(membership(&cluster));
        let (_tls, tls) = watch::channel(None);
        let channels = Channels::new(seams.clone(), identity_rx.clone(), ChannelTimings::default());
        let link = ManagerLink::new(membership, identity_rx, tls, channels, seams.clone());
        let minutes = |n: u64| Duration::from_secs(n * 60);

        // Never renewed: there is nothing better to move to.
        link.channel().await.unwrap();
        assert!(tokio::time::timeout(minutes(30), link.outdated()).await.is_err());
        // Renewed: the session stays for as long as the old certificate is good, less a margin.
        identities.send_replace(Some(identity(&cluster, seams.clock.unix_now())));
        assert!(tokio::time::timeout(minutes(23), link.outdated()).await.is_err());
        tokio::time::timeout(minutes(5), link.outdated()).await.expect("before the hour is over");
        // The next session is on the new certificate.
        link.channel().await.unwrap();
        assert!(tokio::time::timeout(minutes(20), link.outdated()).await.is_err());
        // Trust alone changes nothing; another root does, at once.
        let rotating = crate::ca_rotation::begin(&cluster, api::NewRoot::Generated, START, &OsRand).unwrap();
        let now = identities.borrow().clone().unwrap();
        identities.send_replace(Some(Arc::new(now.with_trust(rotating.trusted_roots_pem()).unwrap())));
        assert!(tokio::time::timeout(minutes(1), link.outdated()).await.is_err());
        let before = Instant::now();
        identities.send_replace(Some(identity(&rotating, seams.clock.unix_now())));
        link.outdated().await;
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}
