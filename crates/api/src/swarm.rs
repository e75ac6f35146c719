//! What the API needs of the node it runs on, in domain terms. The node implements [`Swarm`]; tests use a fake.

use crate::exec::{ExecAnswer, ExecError, ExecRequest};
use async_trait::async_trait;
use bytes::Bytes;
use docker_api::errors;
use futures::stream::BoxStream;
use model::{Availability, ClusterId, NodeId, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::StoreClient;

/// The node's own part in the swarm, as the API sees it.
#[async_trait]
pub trait Swarm: Send + Sync + 'static {
    /// What this node is at the moment. Cheap: `/_ping` and `/info` ask every time.
    fn local(&self) -> LocalView;
    /// The replicated store, when this node is a manager that can use it.
    fn store(&self) -> Result<Arc<dyn StoreClient>, NotManager>;
    /// The Raft group as this manager knows it; `None` when the node is no manager.
    fn raft(&self) -> Option<RaftView>;
    /// The certificate authority of the cluster this node is in; `None` outside a swarm.
    fn tls_info(&self) -> Option<TlsInfo>;
    /// The cluster as it is with a change to another root begun (or, when it is the present root that is given, ended). The
    /// caller proposes it; the leader finishes the change when every node has moved over.
    ///
    /// # Errors
    /// [`SwarmError::Invalid`] when the given root cannot be used, or no authority elsewhere answers that it needs.
    async fn begin_rotation(
        &self,
        _cluster: &model::Cluster,
        _new_root: NewRoot,
    ) -> Result<model::Cluster, SwarmError> {
        Err(SwarmError::NotInSwarm)
    }
    /// Whether certificates can be signed with the authorities elsewhere that this cluster's spec names: one of them must answer
    /// for each root whose key is not in the swarm.
    ///
    /// # Errors
    /// [`SwarmError::Invalid`] when none does.
    async fn check_external_cas(&self, _cluster: &model::Cluster) -> Result<(), SwarmError> {
        Ok(())
    }
    /// Makes a new cluster of this one node. The id is the node's.
    async fn init(&self, options: InitOptions) -> Result<NodeId, SwarmError>;
    /// Joins a cluster. Returns when the node has its certificate and, as a manager, is in the Raft group;
    /// [`SwarmError::JoinTimeout`] after at most 20 s, while the attempt goes on.
    async fn join(&self, options: JoinOptions) -> Result<(), SwarmError>;
    /// Leaves the cluster and forgets it. The API has already refused a manager without `force` in Docker's words.
    async fn leave(&self, force: bool) -> Result<(), SwarmError>;
    /// Opens a locked manager's disk and starts the manager. It is in the Raft group a moment later.
    async fn unlock(&self, _key: seal::Key) -> Result<(), SwarmError> {
        Err(SwarmError::NotLocked)
    }
    /// The whole state, sealed under a key.
    async fn backup(&self, _key: seal::Key) -> Result<Bytes, SwarmError> {
        Err(SwarmError::NotInSwarm)
    }
    /// This node's gossip; `None` outside a swarm.
    fn gossip(&self) -> Option<crate::GossipView> {
        None
    }
    /// The output of a task, from whichever node runs it. The stream ends when the output does (without `follow`), or
    /// when it is dropped.
    async fn logs(&self, request: LogRequest) -> Result<BoxStream<'static, Result<LogLine, LogError>>, LogError>;
    /// Something that is wanted of a container of a task, on whichever node. That node's agent answers, for containers of
    /// its own tasks only.
    async fn exec(&self, request: ExecRequest) -> Result<ExecAnswer, ExecError> {
        Err(ExecError { status: 503, message: format!("node {} is not available", request.node) })
    }
}

/// What this node is in the swarm.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalView {
    /// Its state.
    pub state: LocalState,
    /// Its id; `None` outside a swarm.
    pub node_id: Option<NodeId>,
    /// The address it advertises, without a port; empty outside a swarm.
    pub node_addr: String,
    /// The cluster it is in.
    pub cluster_id: Option<ClusterId>,
    /// The managers it knows, itself included if it is one: node id and `host:port`.
    pub remote_managers: Vec<(NodeId, String)>,
}

/// The state of this node's membership.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LocalState {
    /// In no swarm.
    #[default]
    Inactive,
    /// On its way into one.
    Pending,
    /// A worker.
    Worker,
    /// A manager.
    Manager,
    /// A manager that cannot read its disk without the unlock key.
    Locked,
    /// In one, but something is wrong: the text says what, and what to do.
    Error(String),
}

/// Why this node has no store to offer, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotManager {
    /// In no swarm.
    #[error("{}", errors::NO_SWARM)]
    NoSwarm,
    /// A worker.
    #[error("{}", errors::WORKER)]
    Worker,
    /// A manager that is not ready.
    #[error("{}", errors::MANAGER_NOT_READY)]
    NotReady,
    /// A manager that needs the unlock key.
    #[error("{}", errors::LOCKED)]
    Locked,
    /// The node's certificate has run out.
    #[error("{}", errors::CERTIFICATES_EXPIRED)]
    CertificatesExpired,
}

/// The Raft group as one manager knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RaftView {
    /// The leader; `None` when there is none, or none is known.
    pub leader: Option<NodeId>,
    /// Every member of the group, by node id.
    pub managers: BTreeMap<NodeId, ManagerView>,
}

/// One manager in the Raft group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerView {
    /// `host:port` at which other managers reach it.
    pub addr: String,
    /// Whether it counts for the quorum; false while it catches up.
    pub voter: bool,
    /// Whether it can be reached.
    pub reachability: Reachability,
}

/// Whether a manager can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reachability {
    /// Nobody knows.
    #[default]
    Unknown,
    /// It answers.
    Reachable,
    /// It does not.
    Unreachable,
}

/// The certificate authority, in the form that Docker shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsInfo {
    /// The root certificate, PEM.
    pub trust_root_pem: String,
    /// The root's subject, DER.
    pub issuer_subject_der: Vec<u8>,
    /// The root's public key (SubjectPublicKeyInfo), DER.
    pub issuer_public_key_der: Vec<u8>,
}

/// Where a cluster's next root comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum NewRoot {
    /// The cluster makes it.
    Generated,
    /// A user brings it.
    Given {
        /// The certificate, PEM.
        cert_pem: String,
        /// Its key, PEM; a secret.
        key_pem: String,
    },
    /// A user brings its certificate; the key is an authority's elsewhere.
    Elsewhere {
        /// The certificate, PEM.
        cert_pem: String,
    },
}

impl std::fmt::Debug for NewRoot {
    // The key is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NewRoot::Generated => "Generated",
            NewRoot::Given { .. } => "Given",
            NewRoot::Elsewhere { .. } => "Elsewhere",
        })
    }
}

/// How a cluster is made. Addresses are as the user typed them; empty when not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InitOptions {
    /// `ip[:port]` or `interface[:port]` to listen on.
    pub listen_addr: String,
    /// `ip[:port]` or `interface[:port]` that other nodes use.
    pub advertise_addr: String,
    /// Address or interface of the data path.
    pub data_path_addr: String,
    /// UDP port of the data path; 0 for the default.
    pub data_path_port: u16,
    /// Start over from this manager's disk, as the only manager.
    pub force_new_cluster: bool,
    /// Whether this node takes tasks.
    pub availability: Availability,
    /// Address pools for overlay networks, CIDR; empty for the default.
    pub default_addr_pool: Vec<String>,
    /// Prefix length of the subnets cut from the pools; 0 for the default.
    pub subnet_size: u32,
    /// What the request says about the cluster, with the defaults filled in.
    pub spec: model::ClusterSpec,
}

/// How a cluster is joined. Addresses are as the user typed them; empty when not given.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct JoinOptions {
    /// `ip[:port]` or `interface[:port]` to listen on.
    pub listen_addr: String,
    /// `ip[:port]` or `interface[:port]` that other nodes use.
    pub advertise_addr: String,
    /// Address or interface of the data path.
    pub data_path_addr: String,
    /// Managers to ask, each `host:port`; never empty.
    pub remote_addrs: Vec<String>,
    /// `SWMTKN-…`; a secret.
    pub join_token: String,
    /// Whether this node takes tasks.
    pub availability: Availability,
}

/// A change of this node's membership that did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwarmError {
    /// It is in a swarm. (503)
    #[error("{}", errors::ALREADY_IN_SWARM)]
    AlreadyInSwarm,
    /// It is in none. (503)
    #[error("{}", errors::NOT_IN_SWARM)]
    NotInSwarm,
    /// Joining took too long and goes on. (503)
    #[error("{}", errors::JOIN_TIMEOUT)]
    JoinTimeout,
    /// It needs no unlock key. (409)
    #[error("{}", docker_api::Failure::not_locked())]
    NotLocked,
    /// The unlock key is another one. (401)
    #[error("{}", errors::WRONG_UNLOCK_KEY)]
    WrongUnlockKey,
    /// What was asked cannot be: the text says what, why, and what works. (400)
    #[error("{0}")]
    Invalid(String),
    /// It could be, but not now: the text says why and what to do. (503)
    #[error("{0}")]
    Unavailable(String),
    /// It may or may not have happened. (500)
    #[error("{0}")]
    Unknown(String),
    /// Something is broken on this node. (500)
    #[error("{0}")]
    Internal(String),
}

/// Which output of which task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// The task.
    pub task: TaskId,
    /// The node that runs it.
    pub node: NodeId,
    /// Which part.
    pub options: engine::LogOptions,
    /// With what the container's log options say of its lines.
    pub details: bool,
}

/// A line of a task's output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogLine {
    /// From standard error rather than output.
    pub stderr: bool,
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_ns: u64,
    /// The line with its end, as the engine gave it.
    pub data: Bytes,
    /// What the container's log options say of it; empty unless it was asked for.
    pub details: Arc<BTreeMap<String, String>>,
}

/// Output that could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The node that runs the task has no session with any manager.
    #[error("node {0} is not available")]
    NodeUnavailable(NodeId),
    /// The node's engine could not give it: its message.
    #[error("{0}")]
    Failed(String),
}

// === impl LocalState ===

impl LocalState {
    /// Docker's word in `/info`.
    pub fn as_str(&self) -> &'static str {
        match self {
            LocalState::Inactive => "inactive",
            LocalState::Pending => "pending",
            LocalState::Worker | LocalState::Manager => "active",
            LocalState::Locked => "locked",
            LocalState::Error(_) => "error",
        }
    }

    /// The value of `/_ping`'s `Swarm` header.
    pub fn ping_header(&self) -> &'static str {
        match self {
            LocalState::Worker => "active/worker",
            LocalState::Manager => "active/manager",
            other => other.as_str(),
        }
    }
}

// === impl RaftView ===

impl RaftView {
    /// How many voters there are, and how many of them can be reached. A voter of which nothing is known counts as
    /// reachable: only a failed contact makes it unreachable.
    pub fn voters(&self) -> (usize, usize) {
        let voters = self.managers.values().filter(|m| m.voter);
        voters.fold((0, 0), |(all, up), m| (all + 1, up + usize::from(m.reachability != Reachability::Unreachable)))
    }

    /// How many more managers may fail before the cluster can decide nothing; `None` when it cannot already.
    pub fn tolerates(&self) -> Option<usize> {
        let (all, up) = self.voters();
        up.checked_sub(all / 2 + 1)
    }

    /// True when the group without this manager still has a quorum of managers that can be reached (SwarmKit
    /// `CanRemoveMember`).
    pub fn can_remove(&self, node: &NodeId) -> bool {
        let rest = self.managers.iter().filter(|(id, m)| *id != node && m.voter);
        let (all, up) = rest
            .fold((0, 0), |(all, up), (_, m)| (all + 1, up + usize::from(m.reachability != Reachability::Unreachable)));
        up > all / 2
    }
}

// === impl JoinOptions ===

impl std::fmt::Debug for JoinOptions {
    // The token is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinOptions")
            .field("listen_addr", &self.listen_addr)
            .field("advertise_addr", &self.advertise_addr)
            .field("data_path_addr", &self.data_path_addr)
            .field("remote_addrs", &self.remote_addrs)
            .field("availability", &self.availability)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> NodeId {
        format!("{n:025}").parse().expect("25 digits are an id")
    }

    fn group(reach: &[Reachability]) -> RaftView {
        let managers = reach
            .iter()
            .enumerate()
            .map(|(n, r)| (id(n), ManagerView { addr: format!("10.0.0.{n}:2377"), voter: true, reachability: *r }));
        RaftView { leader: Some(id(0)), managers: managers.collect() }
    }

    #[test]
    fn a_group_knows_what_it_can_lose() {
        use Reachability::{Reachable as R, Unreachable as U};
        for (reach, tolerates, can_remove_last) in [
            (vec![R], Some(0), false),
            (vec![R, R], Some(0), true),
            (vec![R, U], None, true),
            (vec![R, R, R], Some(1), true),
            (vec![R, R, U], Some(0), true),
            (vec![R, U, R], Some(0), false),
            (vec![R, R, R, R, R], Some(2), true),
            (vec![R, R, U, U, R], Some(0), false),
        ] {
            let view = group(&reach);
            assert_eq!(view.tolerates(), tolerates, "{reach:?}");
            assert_eq!(view.can_remove(&id(reach.len() - 1)), can_remove_last, "{reach:?}");
        }
    }
}
