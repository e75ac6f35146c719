//! What a Raft member knows about its group, as plain data.

use crate::types::{LogId, Member, StoredMembership, TypeConfig};
use openraft::errors::Fatal;
use openraft::{Instant as _, RaftMetrics, ServerState};
use openraft_rt::AsyncRuntime;
use openraft_rt_tokio::TokioRuntime;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What this member is in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It campaigns.
    Candidate,
    /// It votes and follows.
    Follower,
    /// It follows without a vote (it joined and has not caught up, or was removed, or has heard of no group yet).
    Learner,
    /// It has stopped.
    Stopped,
}

/// What a leader knows of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Follower {
    /// The last entry that it is known to have.
    pub matched: Option<u64>,
    /// How long ago the request was sent that it answered last; `None` when it has answered none in this term. As of when
    /// the view was made.
    pub silent_for: Option<Duration>,
}

/// What a member knows about its group at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftView {
    /// This member.
    pub raft_id: u64,
    /// Its term. A leader leads only within one term: a control loop remembers the term in which it began and stops when it changes.
    pub term: u64,
    /// Its role.
    pub role: Role,
    /// The leader of the term, as far as known.
    pub leader: Option<u64>,
    /// The last entry that was applied here.
    pub last_applied: Option<u64>,
    /// The last entry in the log here.
    pub last_log: Option<u64>,
    /// The last entry that the newest snapshot covers.
    pub snapshot: Option<u64>,
    /// The last entry that the log here has let go of.
    pub purged: Option<u64>,
    /// Members with a vote (of both configurations while a change is under way).
    pub voters: BTreeSet<u64>,
    /// Members without.
    pub learners: BTreeSet<u64>,
    /// All members.
    pub nodes: BTreeMap<u64, Member>,
    /// What the leader knows of the others; empty elsewhere.
    pub followers: BTreeMap<u64, Follower>,
    /// How long ago a majority last answered this leader; `None` elsewhere.
    pub quorum_silent_for: Option<Duration>,
    /// Why the member has stopped, when it has.
    pub stopped: Option<String>,
    /// Whether it stopped because something broke (its disk is full, say) and not because it was told to.
    pub broken: bool,
}

/// What a view was made from, without what changes by time alone.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    term: u64,
    state: ServerState,
    leader: Option<u64>,
    last_applied: Option<LogId<TokioRuntime>>,
    last_log: Option<u64>,
    snapshot: Option<LogId<TokioRuntime>>,
    purged: Option<LogId<TokioRuntime>>,
    membership: Arc<StoredMembership<TokioRuntime>>,
    /// The last entry that each follower is known to have.
    matched: Option<BTreeMap<u64, Option<LogId<TokioRuntime>>>>,
    stopped: bool,
}

// === impl Seen ===

impl Seen {
    pub(crate) fn new(m: &RaftMetrics<TypeConfig<TokioRuntime>>) -> Seen {
        Seen {
            term: m.current_term,
            state: m.state,
            leader: m.current_leader,
            last_applied: m.last_applied,
            last_log: m.last_log_index,
            snapshot: m.snapshot,
            purged: m.purged,
            membership: m.membership_config.clone(),
            matched: m.replication.clone(),
            stopped: m.running_state.is_err(),
        }
    }

    /// Takes note of newer metrics; true when they make another view.
    pub(crate) fn update(&mut self, m: &RaftMetrics<TypeConfig<TokioRuntime>>) -> bool {
        let now = Seen::new(m);
        let changed = *self != now;
        *self = now;
        changed
    }
}

// === impl RaftView ===

impl RaftView {
    pub(crate) fn new<RT: AsyncRuntime>(m: &RaftMetrics<TypeConfig<RT>>) -> RaftView {
        let membership = m.membership_config.membership();
        let stopped = m.running_state.as_ref().err().map(ToString::to_string);
        let role = match m.state {
            _ if stopped.is_some() => Role::Stopped,
            ServerState::Leader => Role::Leader,
            ServerState::Candidate => Role::Candidate,
            ServerState::Follower => Role::Follower,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        RaftView {
            raft_id: m.id,
            term: m.current_term,
            role,
            leader: m.current_leader.filter(|_| stopped.is_none()),
            last_applied: m.last_applied.map(|id| id.index),
            last_log: m.last_log_index,
            snapshot: m.snapshot.map(|id| id.index),
            purged: m.purged.map(|id| id.index),
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
            followers: followers(m),
            quorum_silent_for: m.last_quorum_acked.as_ref().map(|at| at.elapsed()),
            stopped,
            broken: m.running_state.as_ref().is_err_and(|e| !matches!(e, Fatal::Stopped)),
        }
    }

    /// True while it leads in `term`.
    pub fn leads_in(&self, term: u64) -> bool {
        self.role == Role::Leader && self.term == term
    }

    /// True while it leads and a majority has answered it within `limit`. A leader that was cut off does not learn of its
    /// successor: it still calls itself leader, but nothing that it proposes is acknowledged.
    pub fn leads_with_quorum(&self, limit: Duration) -> bool {
        let alone = self.voters.len() == 1 && self.voters.contains(&self.raft_id);
        self.role == Role::Leader && (alone || self.quorum_silent_for.is_some_and(|silent| silent <= limit))
    }

    /// The leader and how to reach it, as far as known.
    pub fn leader_member(&self) -> Option<(u64, Member)> {
        let id = self.leader?;
        self.nodes.get(&id).map(|m| (id, m.clone()))
    }

    /// Members of a majority of the voters.
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Whether a member answered within `limit`, as far as this leader knows; the leader itself always did.
    pub fn is_reachable(&self, id: u64, limit: Duration) -> bool {
        id == self.raft_id || self.followers.get(&id).and_then(|f| f.silent_for).is_some_and(|silent| silent <= limit)
    }
}

fn followers<RT: AsyncRuntime>(m: &RaftMetrics<TypeConfig<RT>>) -> BTreeMap<u64, Follower> {
    let mut followers: BTreeMap<u64, Follower> = BTreeMap::new();
    for (id, matched) in m.replication.iter().flatten() {
        followers.entry(*id).or_default().matched = matched.map(|id| id.index);
    }
    for (id, at) in m.heartbeat.iter().flatten() {
        followers.entry(*id).or_default().silent_for = at.as_ref().map(|at| at.elapsed());
    }
    followers.remove(&m.id);
    followers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_time_makes_no_other_view_and_everything_else_does() {
        let mut m = RaftMetrics::<TypeConfig<TokioRuntime>>::new_initial(1);
        let mut seen = Seen::new(&m);
        assert!(!seen.update(&m));
        m.heartbeat = Some(BTreeMap::from([(2, None)]));
        assert!(!seen.update(&m), "silence is told by asking");
        m.replication = Some(BTreeMap::from([(2, None)]));
        assert!(seen.update(&m));
        m.last_log_index = Some(1);
        assert!(seen.update(&m));
        m.current_leader = Some(2);
        assert!(seen.update(&m));
        m.state = ServerState::Follower;
        assert!(seen.update(&m));
        m.running_state = Err(Fatal::Stopped);
        assert!(seen.update(&m) && !seen.update(&m));
    }
}
