//! The member's way into the Raft group, and out of it.

use super::{ASK_TIMEOUT, Member, RETRY};
use crate::manager::Manager;
use api::SwarmError;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The leader works on an admission for up to 15 s.
const JOIN_GROUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two questions of a manager whether it still is in the group.
const STILL_IN_PERIOD: Duration = Duration::from_secs(5);

/// A manager did not take this node into the Raft group.
struct NotJoined {
    reason: String,
    /// Who leads, when it named somebody.
    leader_addr: Option<String>,
}

// === impl NotJoined ===

impl From<String> for NotJoined {
    fn from(reason: String) -> NotJoined {
        NotJoined { reason, leader_addr: None }
    }
}

// === impl Member ===

impl Member {
    /// Asks to be taken into the Raft group until it is, and goes on asking now and then: a member that was removed is not
    /// told so, and one that was demoted and promoted again before it noticed would wait for a leader for ever.
    pub(super) async fn stay_in_group(self: Arc<Self>, manager: Arc<Manager>) {
        loop {
            let view = manager.raft.view();
            let asked = if view.role == raft::Role::Leader { Ok(()) } else { self.ask_all_to_join(&view).await };
            let wait = match asked {
                Ok(()) => STILL_IN_PERIOD,
                Err(reason) => {
                    tracing::debug!(reason, "no leader says that this manager is in the Raft group");
                    RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// The leader first, as far as known, then every other manager: one of them knows it. Itself it need not ask.
    async fn ask_all_to_join(&self, view: &raft::RaftView) -> Result<(), String> {
        let me = self.membership.borrow().advertise_addr.to_string();
        let mut asked = BTreeSet::from([me]);
        let mut to_ask = VecDeque::from(self.manager_addrs());
        if let Some((_, leader)) = view.leader_member() {
            to_ask.push_front(leader.addr);
        }
        let mut last = "no other manager is known".to_owned();
        while let Some(addr) = to_ask.pop_front() {
            if !asked.insert(addr.clone()) {
                continue;
            }
            match self.ask_to_join(&addr, view.raft_id).await {
                Ok(()) => return Ok(()),
                Err(NotJoined { reason, leader_addr }) => {
                    last = format!("{addr}: {reason}");
                    // It may be one that this node has not heard of.
                    to_ask.extend(leader_addr);
                }
            }
        }
        Err(last)
    }

    async fn ask_to_join(&self, addr: &str, raft_id: u64) -> Result<(), NotJoined> {
        use rpc::proto::cluster::join_response::Outcome;
        let channel = self.channels.manager(addr).map_err(|e| e.to_string())?;
        let my_addr = self.membership.borrow().advertise_addr.to_string();
        let request = rpc::proto::cluster::JoinRequest { raft_id, addr: my_addr };
        let mut client = rpc::cluster_client(channel);
        let answer = tokio::time::timeout(JOIN_GROUP_TIMEOUT, client.join(request)).await;
        let answer = answer.map_err(|_| "no answer in time".to_owned())?.map_err(|s| rpc::describe(&s))?;
        match answer.into_inner().outcome {
            Some(Outcome::Joined(_)) => Ok(()),
            Some(Outcome::NotLeader(n)) => Err(NotJoined {
                reason: format!("it is not the leader; the leader is `{}`", n.leader_addr),
                leader_addr: Some(n.leader_addr).filter(|addr| !addr.is_empty()),
            }),
            Some(Outcome::Refused(reason)) => Err(reason.into()),
            None => Err("its answer could not be understood".to_owned().into()),
        }
    }

    /// The managers' addresses, other nodes' first: this node may be the one with the trouble.
    pub(super) fn manager_addrs(&self) -> Vec<String> {
        let membership = self.membership.borrow();
        let mut addrs: Vec<SocketAddr> = membership.managers.iter().map(|m| m.addr).collect();
        addrs.sort_by_key(|a| *a == membership.advertise_addr);
        addrs.iter().map(ToString::to_string).collect()
    }

    /// Leaves the Raft group, with the consent of the other managers.
    pub(crate) async fn leave(&self, force: bool) -> Result<(), SwarmError> {
        if let Some(manager) = self.manager()
            && let Err(reason) = self.leave_group(&manager, force).await
        {
            if !force {
                return Err(SwarmError::Unavailable(reason));
            }
            tracing::warn!(reason, "leaving without the consent of the other managers");
        }
        Ok(())
    }

    async fn leave_group(&self, manager: &Manager, force: bool) -> Result<(), String> {
        use rpc::proto::cluster::leave_response::Outcome;
        let view = manager.raft.view();
        if view.voters.iter().all(|v| *v == view.raft_id) {
            return Ok(());
        }
        // The leader has to be another one: this one is about to be gone.
        if view.role == raft::Role::Leader {
            manager.raft.transfer_leadership(ASK_TIMEOUT).await.map_err(|e| e.to_string())?;
        }
        let mut last = "there is no leader".to_owned();
        for _ in 0..3 {
            let Some((_, leader)) = manager.raft.view().leader_member() else { break };
            let channel = self.channels.manager(&leader.addr).map_err(|e| e.to_string())?;
            let mut client = rpc::cluster_client(channel);
            let request = rpc::proto::cluster::LeaveRequest { force };
            match tokio::time::timeout(JOIN_GROUP_TIMEOUT, client.leave(request)).await {
                Ok(Ok(answer)) => match answer.into_inner().outcome {
                    Some(Outcome::Index(_)) => return Ok(()),
                    Some(Outcome::Refused(reason)) => return Err(reason),
                    Some(Outcome::NotLeader(_)) | None => last = "the leader changed".into(),
                },
                Ok(Err(status)) => last = rpc::describe(&status),
                Err(_) => last = format!("the leader at {} did not answer in time", leader.addr),
            }
            tokio::time::sleep(RETRY).await;
        }
        Err(last)
    }
}
