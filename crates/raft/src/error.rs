//! What can go wrong, one type for each call.

use crate::Member;
use std::path::PathBuf;
use std::time::Duration;

/// A committed command that this release cannot apply. Skipping it would make this manager differ from the others, so the
/// Raft member stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot apply the committed entry {index}: {reason}; this manager stops rather than differ from the others: upgrade it"
)]
pub struct ApplyError {
    /// Log index of the entry.
    pub index: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// A log that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// Acknowledged entries or votes are missing or damaged. Starting would let this member vote without knowing what it
    /// has promised.
    #[error(
        "the Raft log in {dir} is damaged: {reason}. This manager must not vote from it. Remove it from the swarm on another manager (node demote, node rm), delete {dir} and join again; if it is the only manager, restore the directory from a backup"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another process, or another member in this one, has it open.
    #[error("the Raft log in {dir} is in use: is another daemon running on this data directory?")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("cannot open the Raft log in {dir}: {source}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A member that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting makes no sense.
    #[error("invalid Raft settings: {0}")]
    Config(String),
    /// The log, the snapshot or the state machine refused.
    #[error("cannot start Raft from its disk: {0}")]
    Storage(String),
    /// The log was purged behind a snapshot that is not there.
    #[error(
        "cannot start Raft from its disk: the newest snapshot covers the log up to entry {covered}, and the log lacks everything up to entry {purged}: a snapshot is missing. Put it back; or remove this manager from the swarm on another one (node demote, node rm), delete its Raft directory and join again; if it is the only manager, restore the swarm from a backup (the operator's guide says what is left to do without one, under Disks)"
    )]
    Missing {
        /// The last entry that the log has let go of.
        purged: u64,
        /// The last entry that the newest snapshot covers; zero without one.
        covered: u64,
    },
}

/// A group that cannot be founded here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitializeError {
    /// The disk holds a group already.
    #[error("this manager already belongs to a Raft group")]
    AlreadyInitialized,
    /// The member has stopped.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}

/// A proposal without an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only a leader accepts proposals, and those for a term only in that term. Nothing was appended.
    #[error("this manager is not the Raft leader")]
    NotLeader {
        /// The leader as far as known.
        leader: Option<(u64, Member)>,
    },
    /// It leads and accepts nothing for now: it is handing its leadership over, or has not heard a majority for too long. It may
    /// go on in the same term. Nothing was appended.
    #[error("this manager leads, but takes no proposals just now")]
    NotNow {
        /// Who may lead next, as far as known.
        leader: Option<(u64, Member)>,
    },
    /// It does not fit an entry. Nothing was appended.
    #[error("a command of {bytes} bytes is too large for the Raft log (at most {} bytes)", crate::COMMAND_BYTES_MAX)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The member had stopped before the proposal was made. Nothing was appended.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
    /// It may have been applied, or may yet be.
    #[error("the outcome of the proposal is unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
}

/// A read that could not be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Only a leader can confirm reads.
    #[error("this manager is not the Raft leader")]
    NotLeader {
        /// The leader as far as known.
        leader: Option<(u64, Member)>,
    },
    /// No majority confirmed in time that this manager still leads.
    #[error("no majority of the managers confirmed the leader within {waited:?}")]
    NoQuorum {
        /// How long it waited.
        waited: Duration,
    },
    /// The member has stopped.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}

/// A state that was not reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// Not in time.
    #[error("still waiting for {what} after {waited:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The member has stopped.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}

/// A membership change that was not made, or whose outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only a leader changes the membership.
    #[error("this manager is not the Raft leader")]
    NotLeader {
        /// The leader as far as known.
        leader: Option<(u64, Member)>,
    },
    /// Too few of the voters that would remain are reachable.
    #[error(
        "can't change the managers: it would result in a loss of quorum ({reachable} of {voters} remaining managers are reachable, {needed} are needed)"
    )]
    QuorumWouldBeLost {
        /// Voters after the change.
        voters: usize,
        /// Those of them that answered lately.
        reachable: usize,
        /// A majority.
        needed: usize,
    },
    /// The last voter stays.
    #[error("can't remove the last manager of the swarm")]
    LastVoter,
    /// The learner has not received the log yet.
    #[error(
        "manager {id} has not caught up with the log: {behind} entries behind after {waited:?}; try again when its connection is better"
    )]
    NotCaughtUp {
        /// Its Raft id.
        id: u64,
        /// Entries that it lacks.
        behind: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// No such member.
    #[error("no manager has the Raft id {id}")]
    NotFound {
        /// The id.
        id: u64,
    },
    /// The id belongs to a member at another address or node; ids are never reused.
    #[error("Raft id {id} already belongs to node {node_id} at {addr}")]
    IdTaken {
        /// The id.
        id: u64,
        /// Its owner.
        node_id: String,
        /// The owner's address.
        addr: String,
    },
    /// Another change is under way.
    #[error("another change of the managers is under way: try again")]
    InProgress,
    /// No other voter is fit to take over.
    #[error("no other manager is up to date and reachable, so leadership cannot be handed over")]
    NoSuccessor,
    /// The successor was asked and did not take over in time.
    #[error("manager {id} did not take over the leadership within {waited:?}")]
    TransferTimeout {
        /// The successor.
        id: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It may have been made, or may yet be.
    #[error("the outcome of the membership change is unknown: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// The member has stopped.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}
