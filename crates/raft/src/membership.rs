//! Who belongs to the group, and who leads it.

use crate::error::{MembershipError, WaitError};
use crate::handle::Raft;
use crate::types::{Member, NodeId, TypeConfig};
use crate::view::{RaftView, Role};
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::type_config::TypeConfigExt as _;
use openraft::{ChangeMembers, Precondition, RaftMetrics};
use openraft_rt::{AsyncRuntime, WatchReceiver as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

type Changed<RT> =
    Result<ClientWriteResponse<TypeConfig<RT>>, RaftError<TypeConfig<RT>, ClientWriteError<TypeConfig<RT>>>>;

/// How often the progress of a learner, or of another change, is looked at.
const POLL: Duration = Duration::from_millis(20);
/// A member that has stopped publishes nothing more; the change is committed all the same.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

// === impl Raft (membership) ===

impl<RT: AsyncRuntime> Raft<RT> {
    /// Adds a member without a vote; it receives the log from now on. Adding the same one again does nothing. Gives the log
    /// index of the membership that has it.
    ///
    /// # Errors
    /// When the id belongs to somebody else, or this member does not lead.
    pub async fn add_learner(&self, id: u64, member: Member, limit: Duration) -> Result<u64, MembershipError> {
        let view = self.leading()?;
        match view.nodes.get(&id) {
            Some(known) if known.node_id != member.node_id => {
                Err(MembershipError::IdTaken { id, node_id: known.node_id.clone(), addr: known.addr.clone() })
            }
            Some(known) if *known == member => Ok(view.last_log.unwrap_or_default()),
            // It came back at another address.
            Some(_) => self.change(&view, ChangeMembers::SetNodes(BTreeMap::from([(id, member)])), true, limit).await,
            None => self.change(&view, ChangeMembers::AddNodes(BTreeMap::from([(id, member)])), true, limit).await,
        }
    }

    /// Gives a learner its vote, once it has caught up with the log. Gives the log index of the membership.
    ///
    /// # Errors
    /// [`MembershipError::NotCaughtUp`] when it has not within `limit`; [`MembershipError::QuorumWouldBeLost`] when the
    /// larger group would have no reachable majority.
    pub async fn promote_to_voter(&self, id: u64, limit: Duration) -> Result<u64, MembershipError> {
        let view = self.leading()?;
        if view.voters.contains(&id) {
            return Ok(view.last_log.unwrap_or_default());
        }
        if !view.nodes.contains_key(&id) {
            return Err(MembershipError::NotFound { id });
        }
        let begun = TypeConfig::<RT>::now();
        let view = self.wait_caught_up(id, limit).await?;
        let voters: BTreeSet<u64> = view.voters.iter().copied().chain([id]).collect();
        self.keep_quorum(&view, &voters)?;
        let left = limit.saturating_sub(openraft::Instant::elapsed(&begun)).max(Duration::from_secs(1));
        self.change(&view, ChangeMembers::AddVoterIds(BTreeSet::from([id])), true, left).await
    }

    /// Removes a member; one that is none already is fine. A leader that removes itself hands the leadership over when the
    /// removal is committed; hand it over before ([`Raft::transfer_leadership`]) for the shortest pause. Gives the log index.
    ///
    /// # Errors
    /// [`MembershipError::QuorumWouldBeLost`] when the voters that would remain have no reachable majority.
    pub async fn remove_member(&self, id: u64, limit: Duration) -> Result<u64, MembershipError> {
        let view = self.leading()?;
        if view.voters.contains(&id) {
            let left: BTreeSet<u64> = view.voters.iter().copied().filter(|v| *v != id).collect();
            if left.is_empty() {
                return Err(MembershipError::LastVoter);
            }
            self.keep_quorum(&view, &left)?;
            return self.change(&view, ChangeMembers::RemoveVoters(BTreeSet::from([id])), false, limit).await;
        }
        if !view.nodes.contains_key(&id) {
            return Ok(view.last_log.unwrap_or_default());
        }
        self.change(&view, ChangeMembers::RemoveNodes(BTreeSet::from([id])), true, limit).await
    }

    /// Records that a member is reached at another address. Gives the log index.
    ///
    /// # Errors
    /// When there is no such member, or this one does not lead.
    pub async fn set_addr(&self, id: u64, addr: String, limit: Duration) -> Result<u64, MembershipError> {
        let view = self.leading()?;
        let Some(known) = view.nodes.get(&id) else { return Err(MembershipError::NotFound { id }) };
        if known.addr == addr {
            return Ok(view.last_log.unwrap_or_default());
        }
        let member = Member { addr, node_id: known.node_id.clone() };
        self.change(&view, ChangeMembers::SetNodes(BTreeMap::from([(id, member)])), true, limit).await
    }

    /// Hands the leadership to the reachable voter that is most up to date, and waits until it leads. Gives its id.
    ///
    /// # Errors
    /// When nobody is fit, or the successor does not take over within `limit`.
    pub async fn transfer_leadership(&self, limit: Duration) -> Result<u64, MembershipError> {
        let view = self.leading()?;
        let Some(to) = successor(&view, self.config.unreachable_after) else {
            return Err(MembershipError::NoSuccessor);
        };
        let asked = self.inner.trigger().transfer_leader(to).await;
        asked.map_err(|e| MembershipError::Stopped(e.to_string()))?;
        let over = |v: &RaftView| v.term > view.term && v.leader.is_some_and(|l| l != v.raft_id);
        match self.wait_view("another leader", limit, over).await {
            Ok(v) => Ok(v.leader.unwrap_or(to)),
            Err(WaitError::Timeout { waited, .. }) => Err(MembershipError::TransferTimeout { id: to, waited }),
            Err(WaitError::Stopped(reason)) => Err(MembershipError::Stopped(reason)),
        }
    }

    /// How many more voters may become unreachable before the group can no longer write, as this leader sees it.
    pub fn failures_tolerated(&self) -> usize {
        let view = self.view();
        let reachable = view.voters.iter().filter(|v| view.is_reachable(**v, self.config.unreachable_after)).count();
        reachable.saturating_sub(view.quorum())
    }

    fn leading(&self) -> Result<RaftView, MembershipError> {
        let view = self.view();
        match (view.role, &view.stopped) {
            (Role::Leader, _) => Ok(view),
            (_, Some(reason)) => Err(MembershipError::Stopped(reason.clone())),
            _ => Err(MembershipError::NotLeader { leader: view.leader_member() }),
        }
    }

    fn keep_quorum(&self, view: &RaftView, voters: &BTreeSet<u64>) -> Result<(), MembershipError> {
        let reachable = voters.iter().filter(|v| view.is_reachable(**v, self.config.unreachable_after)).count();
        let needed = voters.len() / 2 + 1;
        match reachable >= needed {
            true => Ok(()),
            false => Err(MembershipError::QuorumWouldBeLost { voters: voters.len(), reachable, needed }),
        }
    }

    async fn wait_caught_up(&self, id: u64, limit: Duration) -> Result<RaftView, MembershipError> {
        let begun = TypeConfig::<RT>::now();
        loop {
            let view = self.leading()?;
            let matched = view.followers.get(&id).and_then(|f| f.matched).unwrap_or_default();
            let behind = view.last_log.unwrap_or_default().saturating_sub(matched);
            let reachable = view.is_reachable(id, self.config.unreachable_after);
            if matched > 0 && reachable && behind <= self.config.promote_lag_max {
                return Ok(view);
            }
            let waited = openraft::Instant::elapsed(&begun);
            if waited >= limit {
                return Err(MembershipError::NotCaughtUp { id, behind, waited });
            }
            // The heartbeat's answer does not change the watched metrics at once, so this looks at intervals.
            TypeConfig::<RT>::sleep(POLL).await;
        }
    }

    /// Makes one change; while another one is under way it waits, as long as `limit` allows. What it was judged by (who can be
    /// reached, who has caught up) is what the leader of the view's term knew, so it is begun in that term or not at all.
    async fn change(
        &self,
        judged_by: &RaftView,
        change: ChangeMembers<NodeId, Member>,
        retain: bool,
        limit: Duration,
    ) -> Result<u64, MembershipError> {
        let begun = TypeConfig::<RT>::now();
        loop {
            let left = limit.saturating_sub(openraft::Instant::elapsed(&begun));
            match self.try_change(judged_by.term, change.clone(), retain, left).await {
                Err(MembershipError::InProgress) if openraft::Instant::elapsed(&begun) < limit => {
                    TypeConfig::<RT>::sleep(POLL).await;
                }
                Ok(index) => {
                    self.seen(index).await;
                    return Ok(index);
                }
                outcome => return outcome,
            }
        }
    }

    /// Waits until the view shows the membership of an entry that is committed. It is published a moment after the answer, and whoever
    /// makes one change after another judges the next one by it.
    async fn seen(&self, index: u64) {
        let begun = TypeConfig::<RT>::now();
        let shown = || {
            let metrics = self.inner.metrics();
            let m: &RaftMetrics<TypeConfig<RT>> = &metrics.borrow_watched();
            m.membership_config.log_id().as_ref().is_some_and(|id| id.index >= index)
        };
        while !shown() && openraft::Instant::elapsed(&begun) < SEEN_WITHIN {
            TypeConfig::<RT>::sleep(POLL).await;
        }
    }

    async fn try_change(
        &self,
        term: u64,
        change: ChangeMembers<NodeId, Member>,
        retain: bool,
        limit: Duration,
    ) -> Result<u64, MembershipError> {
        // A leader that is on its way out makes no more changes: openraft does not expect them of one without a vote. Its
        // successor will.
        if !self.view().voters.contains(&self.raft_id()) {
            return Err(MembershipError::InProgress);
        }
        // An earlier leader was lost half-way through a change. That one is finished first, or this one might begin by
        // leaving out its own leader.
        if self.is_joint() {
            let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
            let _looked_at_again = TypeConfig::<RT>::timeout(limit, self.inner.change_membership(nothing, false)).await;
            return Err(MembershipError::InProgress);
        }
        let in_term = Precondition::CommittedLeaderId { committed_leader_id: term.into() };
        let changed: Result<Changed<RT>, _> =
            TypeConfig::<RT>::timeout(limit, self.inner.change_membership_if(change, retain, [in_term])).await;
        match changed {
            Ok(Ok(done)) => Ok(done.log_id.index),
            Ok(Err(RaftError::APIError(e))) => Err(self.change_error(e)),
            Ok(Err(RaftError::Fatal(e))) => Err(MembershipError::Unknown { reason: format!("Raft stopped: {e}") }),
            Err(_) => Err(MembershipError::Unknown { reason: format!("no acknowledgement within {limit:?}") }),
        }
    }

    fn is_joint(&self) -> bool {
        let metrics = self.inner.metrics();
        let m: &RaftMetrics<TypeConfig<RT>> = &metrics.borrow_watched();
        m.membership_config.membership().get_joint_config().len() > 1
    }

    fn change_error(&self, error: ClientWriteError<TypeConfig<RT>>) -> MembershipError {
        match error {
            ClientWriteError::ForwardToLeader(to) => MembershipError::NotLeader { leader: self.forward(&to) },
            ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
            ) => MembershipError::InProgress,
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::LearnerNotFound(e)) => {
                MembershipError::NotFound { id: e.node_id }
            }
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::EmptyMembership(_)) => {
                MembershipError::LastVoter
            }
            e => MembershipError::Unknown { reason: e.to_string() },
        }
    }
}

/// The voter with the longest matching log among those that answered lately; the smallest id among equals.
fn successor(view: &RaftView, unreachable_after: Duration) -> Option<u64> {
    let fit = |id: &&u64| **id != view.raft_id && view.is_reachable(**id, unreachable_after);
    let matched = |id: &u64| view.followers.get(id).and_then(|f| f.matched);
    view.voters.iter().filter(fit).max_by_key(|id| (matched(id), std::cmp::Reverse(**id))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Follower;

    fn view(followers: &[(u64, u64, u64)]) -> RaftView {
        let follower = |(id, matched, silent): &(u64, u64, u64)| {
            (*id, Follower { matched: Some(*matched), silent_for: Some(Duration::from_millis(*silent)) })
        };
        RaftView {
            raft_id: 1,
            term: 1,
            role: Role::Leader,
            leader: Some(1),
            last_applied: None,
            last_log: Some(10),
            snapshot: None,
            purged: None,
            voters: std::iter::once(1).chain(followers.iter().map(|f| f.0)).collect(),
            learners: BTreeSet::new(),
            nodes: BTreeMap::new(),
            followers: followers.iter().map(follower).collect(),
            quorum_silent_for: None,
            stopped: None,
            broken: false,
        }
    }

    #[test]
    fn the_successor_is_reachable_and_most_up_to_date() {
        let limit = Duration::from_millis(500);
        for (followers, expected) in [
            (vec![], None),
            (vec![(2, 9, 10), (3, 10, 10)], Some(3)),
            (vec![(2, 10, 10), (3, 10, 10)], Some(2)),
            (vec![(2, 9, 10), (3, 10, 900)], Some(2)),
            (vec![(2, 9, 900), (3, 10, 900)], None),
        ] {
            assert_eq!(successor(&view(&followers), limit), expected, "{followers:?}");
        }
    }
}
