//! Reading the store, and what a proposal's outcome is called.

use crate::Api;
use crate::request::Request;
use docker_api::errors::Code;
use docker_api::{Failure, TlsInfo, errors};
use std::sync::Arc;
use store::{Conflict, Kind, ObjectId, ProposeError, ReadError, Snapshot, StoreClient, Transaction};

// === impl Api ===

impl Api {
    /// The store, or Docker's 503 that says why there is none here.
    pub(crate) fn store(&self) -> Result<Arc<dyn StoreClient>, Failure> {
        if let Some(rehearsal) = &self.0.rehearsal {
            return Ok(rehearsal.clone());
        }
        self.deps().swarm.store().map_err(|e| Failure::new(503, e))
    }

    /// The state for a request that only reads.
    pub(crate) async fn read(&self, request: &Request) -> Result<Snapshot, Failure> {
        let store = self.store()?;
        if request.wants_stale() {
            return Ok(store.local());
        }
        store.current().await.map_err(read_failure)
    }

    /// The state for a request that changes something, and where to propose it.
    pub(crate) async fn read_to_write(&self) -> Result<(Arc<dyn StoreClient>, Snapshot), Failure> {
        let store = self.store()?;
        if self.0.rehearsal.is_none() {
            self.0.record.begun().await;
        }
        let snapshot = store.current().await.map_err(read_failure)?;
        Ok((store, snapshot))
    }

    /// A transaction at the present time.
    pub(crate) fn transaction(&self) -> Transaction {
        Transaction::new(self.now())
    }

    /// The certificate authority in Docker's form.
    pub(crate) fn tls(&self) -> TlsInfo {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        self.deps().swarm.tls_info().map_or_else(TlsInfo::default, |t| TlsInfo {
            trust_root: t.trust_root_pem,
            cert_issuer_subject: base64.encode(t.issuer_subject_der),
            cert_issuer_public_key: base64.encode(t.issuer_public_key_der),
        })
    }
}

/// Why a read was not served. The status is that of SwarmKit's `Unknown`, which the texts say.
pub(crate) fn read_failure(e: ReadError) -> Failure {
    match e {
        ReadError::NoLeader { .. } => Failure::new(500, e),
        ReadError::NotManager => Failure::new(503, errors::MANAGER_NOT_READY),
    }
}

/// Why a change was not made, or not known to be.
pub(crate) fn propose_failure(e: ProposeError) -> Failure {
    match e {
        ProposeError::Conflict(conflict) => conflict_failure(conflict),
        ProposeError::TooLarge(too_large) => Failure::rpc(Code::InvalidArgument, too_large),
        ProposeError::NoLeader { .. } | ProposeError::Unknown { .. } | ProposeError::Deposed { .. } => {
            Failure::new(500, e)
        }
        ProposeError::NotManager => Failure::new(503, errors::MANAGER_NOT_READY),
    }
}

fn conflict_failure(conflict: Conflict) -> Failure {
    match conflict {
        Conflict::Changed { .. } => Failure::out_of_sequence(),
        Conflict::Missing(id) => Failure::not_found(kind_word(&id), id.as_str()),
        Conflict::NameTaken { kind: Kind::Service, name } => Failure::service_exists(&name),
        Conflict::NameTaken { kind: kind @ (Kind::Secret | Kind::Config), name } => {
            Failure::secret_or_config_exists(&kind.to_string(), &name)
        }
        // Whoever removes something says which services use it; here one came in between.
        other @ Conflict::Referenced { .. } => Failure::rpc(Code::InvalidArgument, other),
        other @ (Conflict::Exists(_) | Conflict::NameTaken { .. }) => Failure::rpc(Code::AlreadyExists, other),
    }
}

fn kind_word(id: &ObjectId) -> &'static str {
    match id.kind() {
        Kind::Cluster => "swarm",
        Kind::Node => "node",
        Kind::Service => "service",
        Kind::Task => "task",
        Kind::Secret => "secret",
        Kind::Config => "config",
        Kind::Payload => "data",
    }
}
