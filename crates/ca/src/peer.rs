//! Who is at the other end of a connection.

use model::{ClusterId, NodeId, Role};
use rustls_pki_types::CertificateDer;
use std::str::FromStr;
use std::time::Duration;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

/// Organisational unit, and one of the names, of a manager's certificate (SwarmKit ca/config.go `ManagerRole`).
pub const MANAGER_WORD: &str = "swarm-manager";
/// Organisational unit, and one of the names, of a worker's certificate (SwarmKit ca/config.go `WorkerRole`).
pub const WORKER_WORD: &str = "swarm-worker";

/// What a node's certificate says. Only worth something when the certificate's chain was verified.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Common name.
    pub node_id: NodeId,
    /// Organisational unit.
    pub role: Role,
    /// Organisation.
    pub cluster_id: ClusterId,
}

/// A certificate that is not a node's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a node certificate: {0}")]
pub struct InvalidPeer(String);

/// The word for a role in certificates.
pub fn role_word(role: Role) -> &'static str {
    match role {
        Role::Manager => MANAGER_WORD,
        Role::Worker => WORKER_WORD,
    }
}

/// The end of a certificate's validity, since the Unix epoch.
///
/// # Errors
/// [`InvalidPeer`] when it is not a certificate.
pub fn expires_at(cert: &CertificateDer<'_>) -> Result<Duration, InvalidPeer> {
    Ok(validity(&parse(cert)?).1)
}

/// Begin and end of validity, since the Unix epoch.
pub(crate) fn validity(cert: &X509Certificate<'_>) -> (Duration, Duration) {
    let at = |t: x509_parser::time::ASN1Time| Duration::from_secs(u64::try_from(t.timestamp()).unwrap_or(0));
    (at(cert.validity().not_before), at(cert.validity().not_after))
}

pub(crate) fn parse<'a>(cert: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, InvalidPeer> {
    match X509Certificate::from_der(cert) {
        Ok(([], cert)) => Ok(cert),
        _ => Err(InvalidPeer("it is not an X.509 certificate".into())),
    }
}

fn only<'a, T: FromStr>(
    what: &'static str,
    mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Result<T, InvalidPeer> {
    match (values.next(), values.next()) {
        (Some(value), None) => {
            let text = value.as_str().map_err(|_| InvalidPeer(format!("its {what} is not a text")))?;
            text.parse().map_err(|_| InvalidPeer(format!("its {what} is not one of ours")))
        }
        _ => Err(InvalidPeer(format!("it has not exactly one {what}"))),
    }
}

struct RoleWord(Role);

impl FromStr for RoleWord {
    type Err = ();
    fn from_str(s: &str) -> Result<RoleWord, ()> {
        match s {
            MANAGER_WORD => Ok(RoleWord(Role::Manager)),
            WORKER_WORD => Ok(RoleWord(Role::Worker)),
            _ => Err(()),
        }
    }
}

// === impl InvalidPeer ===

impl InvalidPeer {
    pub(crate) fn new(why: &str) -> InvalidPeer {
        InvalidPeer(why.to_owned())
    }
}

// === impl Peer ===

impl Peer {
    /// Reads the first certificate of a PEM text: this node's own, say, whose chain nobody has to verify.
    ///
    /// # Errors
    /// [`InvalidPeer`] when there is none, or it does not name exactly one node, role and cluster.
    pub fn from_pem(text: &str) -> Result<Peer, InvalidPeer> {
        let certificates = crate::encoding::certificates(text).map_err(|e| InvalidPeer(e.to_string()))?;
        Peer::from_certificate(&certificates[0])
    }

    /// Reads a node's certificate. The caller has verified its chain.
    ///
    /// # Errors
    /// [`InvalidPeer`] when it does not name exactly one node, role and cluster.
    pub fn from_certificate(cert: &CertificateDer<'_>) -> Result<Peer, InvalidPeer> {
        let cert = parse(cert)?;
        let subject: &X509Name<'_> = cert.subject();
        let RoleWord(role) = only("organisational unit (role)", subject.iter_organizational_unit())?;
        Ok(Peer {
            node_id: only("common name (node id)", subject.iter_common_name())?,
            role,
            cluster_id: only("organisation (cluster id)", subject.iter_organization())?,
        })
    }
}
