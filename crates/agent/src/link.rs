//! The way to a manager.

use async_trait::async_trait;
use model::{GossipKey, Role};
use std::time::Duration;
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
    /// A certificate authority to trust, PEM; empty when the manager named none.
    pub root_certificate_pem: String,
}
