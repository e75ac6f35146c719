//! The way to a manager.

use async_trait::async_trait;
use model::{GossipKey, NodeTls, RaftTicks, Role};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;

/// Picks a manager and connects to it. The node implements it; it knows the addresses and holds the certificate.
///
/// The channel should have HTTP/2 keep-alive on, also while idle, with a period and a timeout of a second or so: that is how
/// an agent notices a manager whose machine vanished without a word.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// A connection to some manager, another one than the last if that one [`failed`](Link::failed).
    async fn channel(&self) -> Result<Channel, LinkError>;
    /// The session over the last channel ended; `reason` is for people.
    fn failed(&self, reason: &str);
    /// What the manager said of the cluster: the addresses to remember, for one.
    fn learned(&self, _info: &SessionInfo) {}
    /// What this node says of its certificate; managers are told of a change at once. `None` when it has nothing to say.
    fn tls(&self) -> Option<watch::Receiver<Option<NodeTls>>> {
        None
    }
    /// Resolves when the connection behind the last channel should be replaced though nothing failed: the certificate that
    /// it was made with is about to be worth nothing. The agent opens its next session on a new channel at once.
    async fn outdated(&self) {
        std::future::pending().await
    }
}

/// No manager can be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot reach a manager: {0}")]
pub struct LinkError(pub String);

/// What the manager of the current session, or of the last one, said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionInfo {
    /// True while there is a session.
    pub connected: bool,
    /// Its id; empty before the first.
    pub session_id: String,
    /// The managers as (node id, `host:port`).
    pub managers: Vec<(String, String)>,
    /// How often the manager wants a heartbeat.
    pub heartbeat_period: Duration,
    /// The role the node should have; `None` before the first session.
    pub desired_role: Option<Role>,
    /// Keys that seal gossip, the one to use first.
    pub gossip_keys: Vec<GossipKey>,
    /// The certificate authorities to trust, PEM, of which the last signs; empty when the manager named none.
    pub root_certificate_pem: String,
    /// How long a certificate is valid from its issue; zero when the manager did not say.
    pub node_cert_expiry: Duration,
    /// A certificate that was granted from a state of this log index, or of an older one, should be renewed.
    pub certificate_after: u64,
    /// Log index of the cluster's last change, as of all this: what an older one says is out of date.
    pub cluster_version: u64,
    /// Managers mark certificates that they grant: one without a mark should be renewed.
    pub certificate_marked: bool,
    /// How patient managers are with each other, for when this node starts as one; `None` when the manager did not say.
    pub raft_ticks: Option<RaftTicks>,
}
