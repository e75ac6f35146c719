//! The `NodeCa` service: how a node gets a certificate. Every answer is decided from the store or from a token, by the
//! manager that was asked, whoever leads.

use crate::external_ca::{SignError, Signers};
use crate::tokens::{self, Doorkeeper};
use ca::{CertificateGrant, Csr, JoinGrant, Signer};
use model::{Availability, Cluster, NodeId, Role, Timestamp};
use rpc::proto::ca as pb;
use rpc::proto::ca::node_ca_server::NodeCa;
use seams::{RandExt as _, Seams, Tasks};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::{Conflict, ProposeError, Snapshot, StoreClient};
use tonic::{Request, Response, Status};

/// How long a joiner waits for the newest root, when there may be no leader.
const ROOT_PATIENCE: Duration = Duration::from_secs(2);

/// For the state, at a renewal: a manager that hears nobody says so, and does not let the node wait as long as for an authority
/// elsewhere.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// Serves `NodeCa` on a manager.
pub(crate) struct CaService {
    store: Arc<dyn StoreClient>,
    seams: Seams,
    signers: Signers,
    door: Doorkeeper,
    tasks: Tasks,
}

/// An admission whose node has no certificate yet. Without one it would never show up, and hold up for ever whatever waits for every
/// node: so it is undone, also when nobody waits for the certificate any more (the joiner hung up).
struct Admitted {
    undo: Option<Undo>,
    tasks: Tasks,
}

#[derive(Clone)]
struct Undo {
    store: Arc<dyn StoreClient>,
    seams: Seams,
    grant: JoinGrant,
    id: NodeId,
}

/// Why a joiner got no certificate.
enum NotIssued {
    /// The cluster object was changed between the look at the token and the commit; nothing was done.
    Changed,
    Refused(Status),
}

impl From<Status> for NotIssued {
    fn from(status: Status) -> NotIssued {
        NotIssued::Refused(status)
    }
}

// === impl CaService ===

impl CaService {
    pub(crate) fn new(store: Arc<dyn StoreClient>, seams: Seams, signers: Signers, tasks: Tasks) -> CaService {
        CaService { store, seams, signers, door: Doorkeeper::new(), tasks }
    }

    async fn current(&self) -> Result<Snapshot, Status> {
        self.store.current().await.map_err(|e| Status::unavailable(e.to_string()))
    }

    /// Makes a node of whoever shows a right token, and its certificate.
    async fn issue(
        &self,
        request: &pb::IssueNodeCertificateRequest,
        remote: IpAddr,
    ) -> Result<pb::IssueNodeCertificateResponse, NotIssued> {
        let state = self.current().await?;
        let now = self.now();
        let cluster = state.cluster().ok_or_else(|| Status::unavailable("the swarm is being prepared, try again"))?;
        let grant = self.door.admit(remote, &request.token, cluster, now)?;
        let csr = Csr::parse(&request.csr_pem).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let availability = parse_availability(&request.availability)?;
        let id: NodeId = self.seams.rand.id25().parse().expect("id25 makes ids");
        // What cannot be signed must not make a node.
        Signer::of(cluster).map_err(internal)?;
        let tx = tokens::admission(&state, cluster, &grant, id.clone(), availability, now)?;
        let index = match self.store.propose(tx).await {
            Err(ProposeError::Conflict(Conflict::Changed { .. })) => return Err(NotIssued::Changed),
            outcome => outcome.map_err(not_committed),
        }?;
        let (store, seams) = (self.store.clone(), self.seams.clone());
        let undo = Undo { store, seams, grant: grant.clone(), id: id.clone() };
        let admitted = Admitted { undo: Some(undo), tasks: self.tasks.clone() };
        // From the state that has the node: whoever has that state, or a later one, knows it. The check in the transaction says
        // that the cluster is still the same.
        let certificate_pem = match sign(&self.signers, cluster, index, &csr, &id, grant.role).await {
            Ok(chain) => chain,
            Err(e) => {
                admitted.take_back().await;
                return Err(NotIssued::Refused(e.into()));
            }
        };
        admitted.stands();
        Ok(pb::IssueNodeCertificateResponse {
            node_id: id.to_string(),
            certificate_pem,
            role: role_word(grant.role).into(),
            cluster_id: cluster.id.to_string(),
            gossip_keys: cluster.gossip_keys.iter().map(|k| pb::GossipKey { id: k.id, key: k.key.to_vec() }).collect(),
            managers: managers(&state),
            root_certificate_pem: cluster.trusted_roots_pem(),
            raft_heartbeat_tick: cluster.spec.raft.ticks.heartbeat,
            raft_election_tick: cluster.spec.raft.ticks.election,
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.seams.clock.unix_now())
    }
}

// === impl Admitted ===

impl Admitted {
    /// There is a certificate.
    fn stands(mut self) {
        self.undo = None;
    }

    async fn take_back(mut self) {
        if let Some(undo) = self.undo.clone() {
            undo.run().await;
        }
        self.undo = None;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        // Outside a runtime, or when the manager stops, nothing can be written any more.
        let runs = tokio::runtime::Handle::try_current().is_ok() && !self.tasks.is_stopped();
        if let Some(undo) = self.undo.take().filter(|_| runs) {
            self.tasks.spawn("admission taken back", undo.run());
        }
    }
}

// === impl Undo ===

impl Undo {
    /// As far as it can be done; the node comes again as another one, with the same token.
    async fn run(self) {
        for _ in 0..tokens::ATTEMPTS {
            let Ok(state) = self.store.current().await else { return };
            let now = Timestamp::from_unix(self.seams.clock.unix_now());
            let Some(tx) = tokens::retraction(&state, &self.grant, &self.id, now) else { return };
            match self.store.propose(tx).await {
                Err(ProposeError::Conflict(_)) => {}
                Err(e) => {
                    return tracing::debug!(node = %self.id, error = %e, "a node without a certificate is left behind");
                }
                Ok(_) => return,
            }
        }
    }
}

#[tonic::async_trait]
impl NodeCa for CaService {
    async fn get_root_certificate(
        &self,
        _: Request<pb::GetRootCertificateRequest>,
    ) -> Result<Response<pb::GetRootCertificateResponse>, Status> {
        // The newest root, if that can be had: a joiner may come with a token that was made after the root had changed. Without a
        // leader what this manager knows is good enough: the joiner compares it with its token.
        let newest = tokio::time::timeout(ROOT_PATIENCE, self.store.current()).await;
        let state = newest.ok().and_then(Result::ok).unwrap_or_else(|| self.store.local());
        let cluster = state.cluster().ok_or_else(being_prepared)?;
        Ok(Response::new(pb::GetRootCertificateResponse { certificate_pem: cluster.root_ca.cert_pem.clone() }))
    }

    async fn issue_node_certificate(
        &self,
        request: Request<pb::IssueNodeCertificateRequest>,
    ) -> Result<Response<pb::IssueNodeCertificateResponse>, Status> {
        let remote = tokens::source(&request);
        self.door.check(remote)?;
        let request = request.into_inner();
        for attempt in 0..tokens::ATTEMPTS {
            if attempt > 0 {
                let pause_us = tokens::PAUSE_MAX.as_micros() as u64 * u64::from(attempt) / u64::from(tokens::ATTEMPTS);
                tokio::time::sleep(Duration::from_micros(self.seams.rand.below(pause_us))).await;
            }
            match self.issue(&request, remote).await {
                // Nothing was changed: the token is judged again by what is there now.
                Err(NotIssued::Changed) => {}
                Err(NotIssued::Refused(status)) => return Err(status),
                Ok(response) => return Ok(Response::new(response)),
            }
        }
        Err(Status::aborted("the swarm changed while the node was joining, try again"))
    }

    async fn renew_node_certificate(
        &self,
        request: Request<pb::RenewNodeCertificateRequest>,
    ) -> Result<Response<pb::RenewNodeCertificateResponse>, Status> {
        let peer = rpc::caller(&request)?;
        renew(&*self.store, &self.signers, &peer.node_id, &request.get_ref().csr_pem).await.map(Response::new)
    }
}

/// A new certificate for a node, in the role that the state of now says it should have.
pub(crate) async fn renew(
    store: &dyn StoreClient,
    signers: &Signers,
    node_id: &NodeId,
    csr_pem: &str,
) -> Result<pb::RenewNodeCertificateResponse, Status> {
    let late = |_elapsed| Status::unavailable("this manager hears no majority of the managers, ask another one");
    let state = tokio::time::timeout(READ_PATIENCE, store.current()).await.map_err(late)?;
    let state = state.map_err(|e| Status::unavailable(e.to_string()))?;
    let node = state
        .node(node_id)
        .ok_or_else(|| Status::permission_denied(format!("node {node_id} is not part of this swarm any more")))?;
    // A worker's certificate is the sign for a demoted manager that it may stop: not before it is out of the Raft group.
    if node.spec.role == Role::Worker && node.manager.is_some() {
        return Err(Status::failed_precondition("the node is still being removed from the Raft group, try again"));
    }
    let csr = Csr::parse(csr_pem).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let cluster = state.cluster().ok_or_else(being_prepared)?;
    Ok(pb::RenewNodeCertificateResponse {
        certificate_pem: sign(signers, cluster, state.index(), &csr, &node.id, node.spec.role).await?,
        role: role_word(node.spec.role).into(),
        root_certificate_pem: cluster.trusted_roots_pem(),
        cluster_version: cluster.meta.version,
    })
}

/// A certificate that the state of this log index grants, signed by whoever signs in this cluster.
async fn sign(
    signers: &Signers,
    cluster: &Cluster,
    state_index: u64,
    csr: &Csr,
    node_id: &NodeId,
    role: Role,
) -> Result<String, SignError> {
    let grant = CertificateGrant { node_id: node_id.clone(), role, expiry: cluster.spec.node_cert_expiry };
    signers.sign(cluster, state_index, csr, &grant).await
}

fn being_prepared() -> Status {
    Status::unavailable("the swarm is being prepared, try again")
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
        ProposeError::NoLeader { .. } | ProposeError::NotManager | ProposeError::Deposed { .. } => {
            Status::unavailable(e.to_string())
        }
        // The node object may be there or not; a node that never shows up is harmless, and the joiner gets another id.
        ProposeError::Unknown { .. } => Status::unavailable(e.to_string()),
        ProposeError::TooLarge(_) => Status::internal(e.to_string()),
    }
}
