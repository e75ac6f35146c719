//! The `NodeCa` service: how a node gets a certificate. Every answer is decided from the store or from a token, by the
//! manager that was asked, whoever leads.

use ca::{Authority, CertificateGrant, Csr};
use model::{Availability, Meta, Node, NodeId, NodeSpec, NodeStatus, Role, Timestamp};
use rpc::proto::ca as pb;
use rpc::proto::ca::node_ca_server::NodeCa;
use seams::{RandExt as _, Seams};
use std::sync::Arc;
use store::{ProposeError, Snapshot, StoreClient, Transaction};
use tonic::{Request, Response, Status};

/// Serves `NodeCa` on a manager.
pub(crate) struct CaService {
    store: Arc<dyn StoreClient>,
    seams: Seams,
}

// === impl CaService ===

impl CaService {
    pub(crate) fn new(store: Arc<dyn StoreClient>, seams: Seams) -> CaService {
        CaService { store, seams }
    }

    async fn current(&self) -> Result<Snapshot, Status> {
        self.store.current().await.map_err(|e| Status::unavailable(e.to_string()))
    }

    fn sign(&self, state: &Snapshot, csr: &Csr, node_id: &NodeId, role: Role) -> Result<String, Status> {
        let cluster = state.cluster().ok_or_else(|| Status::unavailable("the swarm is being prepared, try again"))?;
        let authority = Authority::new(&cluster.root_ca, cluster.id.clone()).map_err(internal)?;
        let grant = CertificateGrant { node_id: node_id.clone(), role, expiry: cluster.spec.node_cert_expiry };
        authority.issue(csr, &grant, self.seams.clock.unix_now(), &*self.seams.rand).map_err(internal)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.seams.clock.unix_now())
    }
}

#[tonic::async_trait]
impl NodeCa for CaService {
    async fn get_root_certificate(
        &self,
        _: Request<pb::GetRootCertificateRequest>,
    ) -> Result<Response<pb::GetRootCertificateResponse>, Status> {
        // The root never changes under a joiner's token, so local state is good enough, and there even without a leader.
        let state = self.store.local();
        let cluster = state.cluster().ok_or_else(|| Status::unavailable("the swarm is being prepared, try again"))?;
        Ok(Response::new(pb::GetRootCertificateResponse { certificate_pem: cluster.root_ca.cert_pem.clone() }))
    }

    async fn issue_node_certificate(
        &self,
        request: Request<pb::IssueNodeCertificateRequest>,
    ) -> Result<Response<pb::IssueNodeCertificateResponse>, Status> {
        let request = request.into_inner();
        let state = self.current().await?;
        let cluster = state.cluster().ok_or_else(|| Status::unavailable("the swarm is being prepared, try again"))?;
        let role = ca::admitted_role(&request.token, &cluster.join_tokens)
            .ok_or_else(|| Status::invalid_argument("A valid join token is necessary to join this cluster"))?;
        let csr = Csr::parse(&request.csr_pem).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let availability = parse_availability(&request.availability)?;
        let id: NodeId = self.seams.rand.id25().parse().expect("id25 makes ids");
        let certificate_pem = self.sign(&state, &csr, &id, role)?;
        let node = Node {
            id: id.clone(),
            meta: Meta::default(),
            spec: NodeSpec { role, availability, ..Default::default() },
            description: None,
            status: NodeStatus::default(),
            manager: None,
        };
        let mut tx = Transaction::new(self.now());
        // The tokens may have been rotated since: then the cluster object has changed and the join is refused.
        tx.check(store::Check::Unchanged { id: (&cluster.id).into(), version: cluster.meta.version });
        tx.create(node);
        self.store.propose(tx).await.map_err(not_committed)?;
        Ok(Response::new(pb::IssueNodeCertificateResponse {
            node_id: id.to_string(),
            certificate_pem,
            role: role_word(role).into(),
            cluster_id: cluster.id.to_string(),
            gossip_keys: cluster.gossip_keys.iter().map(|k| pb::GossipKey { id: k.id, key: k.key.to_vec() }).collect(),
            managers: managers(&state),
        }))
    }

    async fn renew_node_certificate(
        &self,
        request: Request<pb::RenewNodeCertificateRequest>,
    ) -> Result<Response<pb::RenewNodeCertificateResponse>, Status> {
        let peer = rpc::caller(&request)?;
        let state = self.current().await?;
        let node = state.node(&peer.node_id).ok_or_else(|| {
            Status::permission_denied(format!("node {} is not part of this swarm any more", peer.node_id))
        })?;
        // A worker's certificate is the sign for a demoted manager that it may stop: not before it is out of the Raft group.
        if node.spec.role == Role::Worker && node.manager.is_some() {
            return Err(Status::failed_precondition("the node is still being removed from the Raft group, try again"));
        }
        let csr = Csr::parse(&request.get_ref().csr_pem).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let certificate_pem = self.sign(&state, &csr, &node.id, node.spec.role)?;
        Ok(Response::new(pb::RenewNodeCertificateResponse { certificate_pem, role: role_word(node.spec.role).into() }))
    }
}

/// The managers that are in the Raft group, as callers should know them.
fn managers(state: &Snapshot) -> Vec<pb::Manager> {
    let in_group = state.nodes().filter_map(|n| Some((n, n.manager.as_ref()?)));
    in_group.map(|(n, m)| pb::Manager { node_id: n.id.to_string(), addr: m.addr.clone() }).collect()
}

/// A role as `proto/` spells it.
pub(crate) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    }
}

fn parse_availability(word: &str) -> Result<Availability, Status> {
    match word {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => Err(Status::invalid_argument(format!(
            "invalid availability `{other}`: must be one of active, pause, drain"
        ))),
    }
}

fn internal(e: impl std::error::Error) -> Status {
    Status::internal(e.to_string())
}

fn not_committed(e: ProposeError) -> Status {
    match e {
        ProposeError::Conflict(_) => Status::aborted("the swarm changed while the node was joining, try again"),
        ProposeError::NoLeader { .. } | ProposeError::NotManager => Status::unavailable(e.to_string()),
        // The node object may be there or not; a node that never shows up is harmless, and the joiner gets another id.
        ProposeError::Unknown { .. } => Status::unavailable(e.to_string()),
        ProposeError::TooLarge(_) => Status::internal(e.to_string()),
    }
}
