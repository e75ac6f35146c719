//! What a manager does for the nodes' agents.
//!
//! **Owns** sessions and their heartbeats, the assignment sets that agents follow, the way of task statuses to the leader,
//! the leader's verdict whether a node is ready or down ([`judge`]), and the ways of task output to whoever reads it
//! and of users' commands to the containers of tasks.
//!
//! **Must never** decide what should run, read another node's tasks or secrets into a set, or take a caller's word for who it is: the
//! node id is that of the caller's certificate. Anything that a follower serves comes from its own applied state, so the
//! leader's load does not grow with the number of nodes and a leader change disturbs none of them.
//!
//! Composition: every manager runs a [`Dispatcher`], a [`LogBroker`] and an [`ExecBroker`]; they are tonic services. The leader, while it is
//! one, also runs [`LeaderReports::lead`], and answers `Cluster.Report` with [`LeaderReports::report`].
#![forbid(unsafe_code)]

mod assign;
mod exec;
mod hub;
mod leader;
mod listeners;
mod liveness;
mod logs;
mod peer;
mod report;
mod server;
mod sessions;
mod status;

pub use exec::{Conversation, ExecBroker, ExecError, OtherExecManagers};
pub use leader::LeaderReports;
pub use liveness::{Brake, Judgement, Seen, SessionsSeen, World, judge};
pub use logs::{LogBroker, LogError, LogStream, OtherManagers};
pub use server::{Dispatcher, DispatcherParts};

use async_trait::async_trait;
use rpc::proto::cluster::{Accepted, ReportRequest};
use std::time::Duration;

/// The way to the leader, wherever it is. The node implements it: [`LeaderReports::report`] when this manager leads,
/// `Cluster.Report` over gRPC otherwise.
#[async_trait]
pub trait Leader: Send + Sync + 'static {
    /// Hands a report over. When it has statuses, returns once they are committed. May be repeated: reports are idempotent.
    async fn report(&self, request: ReportRequest) -> Result<Accepted, ReportError>;
}

/// A report that the leader did not (provably) take. Sending it again is always right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The manager that was asked does not lead.
    #[error("this manager is not the leader (the leader is {})", if leader_addr.is_empty() { "unknown" } else { leader_addr })]
    NotLeader {
        /// Who leads, as far as known; empty when not.
        leader_addr: String,
    },
    /// The leader does not take the reporting manager for one: it was demoted, and may not know it yet.
    #[error("the leader takes no reports of this node: {reason}")]
    Denied {
        /// Its words.
        reason: String,
    },
    /// No leader could be asked, or it could not commit.
    #[error("the leader cannot take reports now: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// Deliberate bugs, for the simulation to catch. All off in production; there is no way to set them from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Canary {
    /// Never finds a node down.
    pub count_down_as_ready: bool,
    /// Puts any number of nodes down at once.
    pub forget_brake: bool,
    /// Serves an agent the whole set from this manager's past, whatever it has seen elsewhere.
    pub serve_from_behind: bool,
    /// Sends every secret and config to every node.
    pub grant_everything: bool,
}

/// A session lapses after so many heartbeat periods of silence (SwarmKit's grace multiplier).
pub const GRACE_PERIODS: u32 = 3;
/// A node is down after so many periods of silence even if gossip still hears it, and a node that the leader has not heard
/// since it leads gets so many before gossip's suspicion counts (SwarmKit doubles the grace after a leader change).
pub const LONG_GRACE_PERIODS: u32 = 6;
/// A manager that has not reached the leader for so many periods sends its agents to other managers: early enough for them
/// to be heard there before [`LONG_GRACE_PERIODS`] are over, and late enough for an ordinary election.
pub const CUT_OFF_PERIODS: u32 = 3;
/// While more than half of the nodes are silent, none is put down before so many periods.
pub const BRAKE_PERIODS: u32 = 30;
/// How long a node that never had a session may take for its first one before it counts as down.
pub const FIRST_SESSION_PATIENCE: Duration = Duration::from_secs(30);
/// Sessions that one node may open in [`REGISTRATION_WINDOW`] on one manager. SwarmKit allows 3 in 8 s; an agent that looks
/// for a manager during a fail-over tries with 100 ms doubling, which is 7 in that time, and must not be locked out by it.
pub const REGISTRATIONS_MAX: usize = 8;
/// The window of [`REGISTRATIONS_MAX`] (SwarmKit manager/dispatcher/nodes.go).
pub const REGISTRATION_WINDOW: Duration = Duration::from_secs(8);
/// Assignment changes are gathered for so long after a message; the first change after a quiet time goes out at once
/// (SwarmKit's batching interval).
pub const BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// So many gathered changes go out before the interval is over (SwarmKit).
pub const BATCH_CHANGES: usize = 100;
/// Statuses that wait for the leader on one manager (SwarmKit's `maxBatchItems`).
pub const STATUSES_PENDING_MAX: usize = 10_000;
/// How long a status report waits for a leader before the agent is told to try again. Below the agent's RPC timeout (5 s).
pub const STATUS_PATIENCE: Duration = Duration::from_secs(4);
/// How long a manager that is behind what the agent has seen waits to catch up before it sends the agent elsewhere.
pub const CATCH_UP_PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of a node description.
pub const DESCRIPTION_BYTES_MAX: usize = 64 << 10;
/// Assignment bytes in one message; a quarter of the gRPC limit leaves room for one large task, or the largest config.
pub const ASSIGNMENT_BYTES: usize = model::limits::RPC_MESSAGE_BYTES_MAX / 4;
/// Secrets and configs that an agent may say it has: as many as its tasks can use.
pub const GRANTED_MAX: usize = 65_536;
