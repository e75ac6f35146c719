//! The `Cluster` service: what managers ask of the leader. It never forwards: a call that reaches a manager which does not
//! lead is answered with who does, as far as known.

use crate::raft_store::{not_leader, propose_here};
use bytes::Bytes;
use dispatcher::{LeaderReports, ReportError};
use model::{ManagerStatus, NodeId, Role, Timestamp};
use raft::{Raft, RaftView, TokioRuntime};
use rpc::proto::cluster as pb;
use rpc::proto::cluster::cluster_server::Cluster;
use seams::Clock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::{ProposeError, Snapshot, StoreClient, Transaction};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// How long a leader works on a node's admission or removal before the caller has to ask again.
const MEMBERSHIP_PATIENCE: Duration = Duration::from_secs(15);
/// For one confirmation with a majority.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves `Cluster` on a manager.
pub(crate) struct ClusterService {
    pub(crate) raft: Raft<TokioRuntime>,
    pub(crate) views: watch::Receiver<RaftView>,
    pub(crate) store: Arc<dyn StoreClient>,
    pub(crate) reports: Arc<LeaderReports>,
    pub(crate) clock: Arc<dyn Clock>,
}

// === impl ClusterService ===

impl ClusterService {
    fn leads(&self) -> Result<(), pb::NotLeader> {
        let view = self.raft.view();
        if view.role == raft::Role::Leader { Ok(()) } else { Err(not_leader(view.leader_member())) }
    }

    /// Writes into the store what a node is in the Raft group; the leader's membership loop does the rest.
    async fn set_manager(
        &self,
        node_id: &NodeId,
        change: impl Fn(&mut model::Node) -> Result<bool, String>,
    ) -> Result<(), String> {
        loop {
            let state = self.store.current().await.map_err(|e| e.to_string())?;
            let node = state.node(node_id).ok_or_else(|| format!("node {node_id} is not part of this swarm"))?;
            let mut node = model::Node::clone(node);
            if !change(&mut node)? {
                return Ok(());
            }
            let mut tx = Transaction::new(Timestamp::from_unix(self.clock.unix_now()));
            tx.update(node);
            match self.store.propose(tx).await {
                Ok(_) => return Ok(()),
                Err(ProposeError::Conflict(_)) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    /// Waits until a condition on the group holds here; `Ok(None)` when this manager leads no more.
    async fn wait_group(&self, met: impl Fn(&RaftView) -> bool) -> Result<Option<u64>, String> {
        let mut views = self.views.clone();
        let waited =
            tokio::time::timeout(MEMBERSHIP_PATIENCE, views.wait_for(|v| met(v) || v.role != raft::Role::Leader));
        match waited.await {
            Ok(Ok(view)) if met(&view) => Ok(Some(view.last_applied.unwrap_or_default())),
            Ok(Ok(_)) => Ok(None),
            Ok(Err(_)) => Err("this manager is stopping".into()),
            Err(_) => Err(format!("the change of the Raft group is still under way after {MEMBERSHIP_PATIENCE:?}")),
        }
    }

    async fn join_group(&self, node_id: &NodeId, raft_id: u64, addr: &str) -> Result<Option<u64>, String> {
        let state = self.store.current().await.map_err(|e| e.to_string())?;
        let member = self.raft.view().nodes.get(&raft_id).map(|m| m.node_id.clone());
        if is_anothers(&state, member.as_deref(), node_id, raft_id) {
            return Err(format!("Raft id {raft_id} is, or was, another node's; an id is never used again"));
        }
        self.set_manager(node_id, |node| {
            if node.spec.role != Role::Manager {
                return Err(format!("node {} is a worker; promote it first", node.id));
            }
            let manager = Some(ManagerStatus { raft_id, addr: addr.to_owned() });
            let changed = node.manager != manager;
            node.manager = manager;
            Ok(changed)
        })
        .await?;
        self.wait_group(|v| v.voters.contains(&raft_id)).await
    }

    async fn leave_group(&self, node_id: &NodeId, force: bool) -> Result<Option<u64>, String> {
        let state = self.store.current().await.map_err(|e| e.to_string())?;
        let Some(raft_id) = state.node(node_id).and_then(|n| n.manager.as_ref()).map(|m| m.raft_id) else {
            return Ok(Some(state.index()));
        };
        if self.raft.view().voters.iter().all(|v| *v == raft_id) {
            return Err("it is the last manager of the swarm".into());
        }
        if !force && self.raft.failures_tolerated() == 0 && self.raft.view().voters.len() > 2 {
            return Err("can't remove member from the raft: this would result in a loss of quorum".into());
        }
        self.set_manager(node_id, |node| {
            let changed = node.spec.role != Role::Worker;
            node.spec.role = Role::Worker;
            Ok(changed)
        })
        .await?;
        self.wait_group(|v| !v.nodes.contains_key(&raft_id)).await
    }
}

/// Whether a Raft id belongs, or belonged, to another node. A member that came back under another's id would be taken for one
/// that has promised what it never did. `member` is the node that has it in the Raft group.
fn is_anothers(state: &Snapshot, member: Option<&str>, node_id: &NodeId, raft_id: u64) -> bool {
    let of_another =
        |node: &model::Node| node.id != *node_id && node.manager.as_ref().is_some_and(|m| m.raft_id == raft_id);
    let retired = state.cluster().map_or(&[][..], |c| &c.security.certificates.retired_raft_ids);
    member.is_some_and(|member| member != node_id.as_str())
        || state.nodes().any(|node| of_another(node))
        || retired.iter().any(|(id, node)| *id == raft_id && node != node_id)
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeResponse>, Status> {
        let transaction = Bytes::from(request.into_inner().transaction);
        // What cannot be read must not reach the log, where it would stop every manager.
        Transaction::decode(&transaction).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(Response::new(propose_here(&self.raft, transaction).await))
    }

    async fn read_index(&self, _: Request<pb::ReadIndexRequest>) -> Result<Response<pb::ReadIndexResponse>, Status> {
        use pb::read_index_response::Outcome;
        let outcome = match self.raft.read_index(READ_TIMEOUT).await {
            Ok(index) => Outcome::Index(index),
            Err(raft::ReadError::NotLeader { leader }) => Outcome::NotLeader(not_leader(leader)),
            Err(e @ (raft::ReadError::NoQuorum { .. } | raft::ReadError::Stopped(_))) => {
                return Err(Status::unavailable(e.to_string()));
            }
        };
        Ok(Response::new(pb::ReadIndexResponse { outcome: Some(outcome) }))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        use pb::join_response::Outcome;
        let peer = rpc::caller(&request)?;
        let pb::JoinRequest { raft_id, addr } = request.into_inner();
        if raft_id == 0 || addr.parse::<SocketAddr>().is_err() {
            return Err(Status::invalid_argument(format!("`{addr}` is not an address, or the Raft id is zero")));
        }
        let outcome = match self.leads() {
            Err(other) => Outcome::NotLeader(other),
            Ok(()) => match self.join_group(&peer.node_id, raft_id, &addr).await {
                Ok(Some(index)) => Outcome::Joined(pb::Joined { index }),
                Ok(None) => Outcome::NotLeader(not_leader(self.raft.view().leader_member())),
                Err(reason) => Outcome::Refused(reason),
            },
        };
        Ok(Response::new(pb::JoinResponse { outcome: Some(outcome) }))
    }

    async fn leave(&self, request: Request<pb::LeaveRequest>) -> Result<Response<pb::LeaveResponse>, Status> {
        use pb::leave_response::Outcome;
        let peer = rpc::caller(&request)?;
        let outcome = match self.leads() {
            Err(other) => Outcome::NotLeader(other),
            Ok(()) => match self.leave_group(&peer.node_id, request.into_inner().force).await {
                Ok(Some(index)) => Outcome::Index(index),
                Ok(None) => Outcome::NotLeader(not_leader(self.raft.view().leader_member())),
                Err(reason) => Outcome::Refused(reason),
            },
        };
        Ok(Response::new(pb::LeaveResponse { outcome: Some(outcome) }))
    }

    async fn report(&self, request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportResponse>, Status> {
        use pb::report_response::Outcome;
        let outcome = match report_here(&self.raft, &self.reports, request.into_inner()).await {
            Ok(accepted) => Outcome::Accepted(accepted),
            Err(ReportError::NotLeader { .. }) => Outcome::NotLeader(not_leader(self.raft.view().leader_member())),
            Err(e @ (ReportError::Unavailable { .. } | ReportError::Denied { .. })) => {
                return Err(Status::unavailable(e.to_string()));
            }
        };
        Ok(Response::new(pb::ReportResponse { outcome: Some(outcome) }))
    }
}

/// Takes a report as the leader. One that was cut off still calls itself leader, but what it takes note of reaches nobody: it
/// refuses, so that agents, its own and those of managers on its side, go to a manager that is heard.
pub(crate) async fn report_here(
    raft: &Raft<TokioRuntime>,
    reports: &LeaderReports,
    request: pb::ReportRequest,
) -> Result<pb::Accepted, ReportError> {
    let view = raft.view();
    if view.role == raft::Role::Leader && !view.leads_with_quorum(raft.config().quorum_silence_max()) {
        return Err(ReportError::Unavailable { reason: "this manager leads, but hears no majority".into() });
    }
    reports.report(request).await
}
