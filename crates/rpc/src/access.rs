//! The authorisation table: every RPC, and who may call it. What has no row is denied.

use ca::{Issued, Peer};
use model::{ClusterId, NodeId, Role};

/// Who may call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anybody who can open a connection.
    Anonymous,
    /// A node with a certificate of this cluster that is still a member of it, worker or manager.
    Member,
    /// A node whose certificate says manager and whose current role is manager.
    Manager,
    /// As [`Who::Manager`], but judged by [`Admission::raft_peer`]: Raft has to reach a manager whose copy of the state is
    /// too old to know its caller.
    RaftPeer,
}

/// The shape of an RPC, which decides how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One message each way: the server bounds the whole call.
    Unary,
    /// A stream in either direction: its ends bound it.
    Streaming,
}

/// One RPC's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// `/package.Service/Method`, as in the HTTP/2 request.
    pub path: &'static str,
    /// Who may call it.
    pub who: Who,
    /// Its shape.
    pub shape: Shape,
}

const fn row(path: &'static str, who: Who, shape: Shape) -> Row {
    Row { path, who, shape }
}

/// All rows.
pub const TABLE: &[Row] = &[
    row("/swarmlite.ca.v1.NodeCa/GetRootCertificate", Who::Anonymous, Shape::Unary),
    // Authorised by the join token in the request.
    row("/swarmlite.ca.v1.NodeCa/IssueNodeCertificate", Who::Anonymous, Shape::Unary),
    row("/swarmlite.ca.v1.NodeCa/RenewNodeCertificate", Who::Member, Shape::Unary),
    row("/swarmlite.cluster.v1.Cluster/Propose", Who::Manager, Shape::Unary),
    row("/swarmlite.cluster.v1.Cluster/ReadIndex", Who::Manager, Shape::Unary),
    row("/swarmlite.cluster.v1.Cluster/Join", Who::Manager, Shape::Unary),
    row("/swarmlite.cluster.v1.Cluster/Leave", Who::Manager, Shape::Unary),
    row("/swarmlite.cluster.v1.Cluster/Report", Who::Manager, Shape::Unary),
    row("/swarmlite.dispatcher.v1.Dispatcher/Session", Who::Member, Shape::Streaming),
    row("/swarmlite.dispatcher.v1.Dispatcher/Assignments", Who::Member, Shape::Streaming),
    row("/swarmlite.dispatcher.v1.Dispatcher/UpdateTaskStatus", Who::Member, Shape::Unary),
    row("/swarmlite.logs.v1.Logs/Listen", Who::Member, Shape::Streaming),
    row("/swarmlite.logs.v1.Logs/Publish", Who::Member, Shape::Streaming),
    row("/swarmlite.logs.v1.Logs/Relay", Who::Manager, Shape::Streaming),
    row("/swarmlite.exec.v1.Exec/Listen", Who::Member, Shape::Streaming),
    row("/swarmlite.exec.v1.Exec/Answer", Who::Member, Shape::Streaming),
    row("/swarmlite.exec.v1.Exec/Relay", Who::Manager, Shape::Streaming),
    row("/swarmlite.raft.v1.Raft/StreamAppend", Who::RaftPeer, Shape::Streaming),
    row("/swarmlite.raft.v1.Raft/Vote", Who::RaftPeer, Shape::Unary),
    row("/swarmlite.raft.v1.Raft/PreVote", Who::RaftPeer, Shape::Unary),
    row("/swarmlite.raft.v1.Raft/InstallSnapshot", Who::RaftPeer, Shape::Streaming),
    row("/swarmlite.raft.v1.Raft/TransferLeader", Who::RaftPeer, Shape::Unary),
];

/// What the cluster's state says of a node *now*. A certificate lives for months; this is how removing or demoting a node
/// takes its rights at once.
///
/// `issued` says from which state the caller's certificate was granted. A state of that index or a later one knows at least
/// what the certificate knows; an earlier one may not know the node, or its role, yet. Whether any state granted it is the
/// implementation's to judge ([`Issued::from_state`]).
pub trait Admission: Send + Sync + 'static {
    /// The role that a node with such a certificate has by the applied state; `None` when it is not (or no longer) a node.
    fn current_role(&self, node: &NodeId, issued: &Issued) -> Option<Role>;

    /// Whether a node whose certificate says manager may speak Raft to this one.
    ///
    /// By default what [`Admission::current_role`] says. A manager that has applied nothing yet, or whose copy is behind,
    /// does not know a manager that joined meanwhile; if that one is elected and refused here, this copy can never catch
    /// up. So an implementation should refuse those that it *knows* to be removed or demoted, and accept the unknown
    /// while it cannot know better.
    fn raft_peer(&self, node: &NodeId, issued: &Issued) -> bool {
        self.current_role(node, issued) == Some(Role::Manager)
    }
}

/// A call that was not let through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No row in the table.
    #[error("permission denied: this RPC is not open to anybody")]
    Unlisted,
    /// No certificate was shown.
    #[error("permission denied: this RPC needs a node certificate; join the swarm first")]
    NoCertificate,
    /// The certificate ran out while the connection stood: when, and what the clock shows.
    #[error("permission denied: {0}; renew it and connect again")]
    Expired(String),
    /// The certificate leads to a root that is not trusted any more.
    #[error(
        "permission denied: the certificate of node {0} is of a root that this swarm does not trust any more; renew it"
    )]
    OldRoot(NodeId),
    /// A certificate of another cluster.
    #[error("permission denied: the node certificate belongs to cluster {theirs}, this is cluster {ours}")]
    OtherCluster {
        /// The caller's.
        theirs: ClusterId,
        /// This one.
        ours: ClusterId,
    },
    /// The node was removed.
    #[error("permission denied: node {0} is not a member of this swarm (any more)")]
    NotMember(NodeId),
    /// Worker, or demoted manager.
    #[error("permission denied: node {0} is not a manager")]
    NotManager(NodeId),
}

// === impl Denied ===

impl Denied {
    /// What the caller is told. A certificate that is worth nothing any more makes the caller somebody unknown, who should
    /// come again with another one; who is known and may not do this should not.
    pub fn status(&self) -> tonic::Status {
        match self {
            Denied::Expired(_) | Denied::OldRoot(_) => tonic::Status::unauthenticated(self.to_string()),
            _ => tonic::Status::permission_denied(self.to_string()),
        }
    }
}

/// The row of a path.
pub fn find(path: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.path == path)
}

/// Decides one call. `caller` is what the verified client certificate says, if there was one, and of which state. The answer is who the caller is with the rights that it has now: a manager only when both certificate and
/// state say so.
///
/// # Errors
/// [`Denied`].
pub fn decide(
    who: Who,
    caller: Option<(&Peer, &Issued)>,
    our_cluster: &ClusterId,
    admission: &dyn Admission,
) -> Result<Option<Peer>, Denied> {
    if who == Who::Anonymous {
        return Ok(None);
    }
    let (peer, issued) = caller.ok_or(Denied::NoCertificate)?;
    if peer.cluster_id != *our_cluster {
        return Err(Denied::OtherCluster { theirs: peer.cluster_id.clone(), ours: our_cluster.clone() });
    }
    let node = &peer.node_id;
    let says_manager = peer.role == Role::Manager;
    if who == Who::RaftPeer {
        let admitted = says_manager && admission.raft_peer(node, issued);
        return if admitted { Ok(Some(peer.clone())) } else { Err(Denied::NotManager(node.clone())) };
    }
    let current = admission.current_role(node, issued).ok_or_else(|| Denied::NotMember(node.clone()))?;
    let role = if says_manager && current == Role::Manager { Role::Manager } else { Role::Worker };
    if who == Who::Manager && role != Role::Manager {
        return Err(Denied::NotManager(node.clone()));
    }
    Ok(Some(Peer { role, ..peer.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct State(BTreeMap<NodeId, Role>);

    impl Admission for State {
        fn current_role(&self, node: &NodeId, _issued: &Issued) -> Option<Role> {
            self.0.get(node).copied()
        }
    }

    fn id<T: std::str::FromStr>(c: char) -> T
    where
        T::Err: std::fmt::Debug,
    {
        String::from(c).repeat(25).parse().unwrap()
    }

    /// (path, client streaming, server streaming) of every RPC in the schemas.
    fn all_rpcs() -> Vec<(String, bool)> {
        let schemas =
            ["raft", "ca", "cluster", "dispatcher", "logs", "exec"].map(|name| format!("../../proto/{name}.proto"));
        let set = protox::compile(&schemas, ["../../proto"]).unwrap();
        let mut rpcs = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    rpcs.push((path, method.client_streaming() || method.server_streaming()));
                }
            }
        }
        rpcs
    }

    #[test]
    fn every_rpc_has_one_row_and_every_row_an_rpc() {
        let rpcs = all_rpcs();
        assert!(rpcs.len() > 10);
        for (path, streaming) in &rpcs {
            let rows: Vec<_> = TABLE.iter().filter(|row| row.path == path).collect();
            assert_eq!(rows.len(), 1, "{path} needs one row in the authorisation table");
            assert_eq!(rows[0].shape == Shape::Streaming, *streaming, "{path} has the wrong shape");
        }
        for row in TABLE {
            assert!(rpcs.iter().any(|(path, _)| path == row.path), "{} is no RPC", row.path);
        }
    }

    #[test]
    fn nothing_but_joining_is_anonymous() {
        let open: Vec<_> = TABLE.iter().filter(|r| r.who == Who::Anonymous).map(|r| r.path).collect();
        assert_eq!(
            open,
            ["/swarmlite.ca.v1.NodeCa/GetRootCertificate", "/swarmlite.ca.v1.NodeCa/IssueNodeCertificate"]
        );
    }

    #[test]
    fn what_has_no_row_is_not_found() {
        for path in
            ["", "/", "/swarmlite.raft.v1.Raft/", "/swarmlite.raft.v1.Raft/vote", "/grpc.health.v1.Health/Check"]
        {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn certificate_and_state_must_both_agree() {
        let (ours, at_first): (ClusterId, Issued) = (id('c'), Issued::unmarked(0));
        let state = State(BTreeMap::from([(id('m'), Role::Manager), (id('w'), Role::Worker)]));
        let peer = |node: char, role| Peer { node_id: id(node), role, cluster_id: ours.clone() };
        let stranger = Peer { cluster_id: id('x'), ..peer('m', Role::Manager) };
        let (manager, worker) = (Role::Manager, Role::Worker);
        let (yes, no) = (true, false);
        // (who calls, member RPC, manager RPC, raft RPC)
        for (what, caller, member, managers, raft) in [
            ("nobody", None, no, no, no),
            ("manager", Some(peer('m', manager)), yes, yes, yes),
            ("worker", Some(peer('w', worker)), yes, no, no),
            ("demoted manager", Some(peer('w', manager)), yes, no, no),
            ("promoted worker, old certificate", Some(peer('m', worker)), yes, no, no),
            ("removed manager", Some(peer('r', manager)), no, no, no),
            ("removed worker", Some(peer('r', worker)), no, no, no),
            ("manager of another cluster", Some(stranger), no, no, no),
        ] {
            for (who, allowed) in
                [(Who::Anonymous, yes), (Who::Member, member), (Who::Manager, managers), (Who::RaftPeer, raft)]
            {
                let decision = decide(who, caller.as_ref().map(|c| (c, &at_first)), &ours, &state);
                assert_eq!(decision.is_ok(), allowed, "{what} on {who:?}: {decision:?}");
            }
        }
        let demoted = decide(Who::Member, Some((&peer('w', manager), &at_first)), &ours, &state).unwrap();
        assert_eq!(demoted.map(|p| p.role), Some(Role::Worker), "the handler sees the rights of now");
    }
}
