//! The cluster's certificate authority.

use crate::csr::Csr;
use crate::encoding::single;
use crate::grant::{self, Granted};
use crate::peer::role_word;
use model::{Cluster, ClusterId, GrantKey, NodeId, Role, RootCa};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use seams::Rand;
use std::fmt;
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Common name of every root (SwarmKit ca/certificates.go).
const ROOT_NAME: &str = "swarm-ca";
/// Validity of a root: 20 years, as SwarmKit counts them (630720000 s).
const ROOT_VALIDITY: Duration = Duration::from_secs(630_720_000);
/// Certificates begin this long before now, for nodes whose clock is behind (SwarmKit `CertBackdate`).
pub(crate) const BACKDATE: Duration = Duration::from_secs(3600);
/// First byte of a node certificate's serial number: positive, and none that a root of ours begins with by itself (theirs are
/// shorter, too).
const INDEXED_SERIAL: u8 = 0x01;
/// Shortest validity of a node certificate (SwarmKit `MinNodeCertExpiration`).
pub const NODE_CERT_EXPIRY_MIN: Duration = Duration::from_secs(3600);

/// Signs node certificates. Only managers have one. Never shown by `Debug`.
pub struct Authority {
    root_pem: String,
    /// What follows the leaf in a chain.
    above_pem: String,
    cluster_id: ClusterId,
    issuer: Issuer<'static, KeyPair>,
    /// Marks what it signs.
    grants: Option<GrantKey>,
}

/// What a certificate will say. The caller has decided all of it from the store or a token, none of it from the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateGrant {
    /// Common name.
    pub node_id: NodeId,
    /// Organisational unit.
    pub role: Role,
    /// Validity from now on; the cluster spec's `node_cert_expiry`. At least [`NODE_CERT_EXPIRY_MIN`].
    pub expiry: Duration,
}

/// A stored root that cannot sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cluster's root certificate or its key cannot be used: {0}")]
pub struct InvalidRoot(pub(crate) String);

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The clock shows a time that a certificate cannot express.
    #[error("cannot make a certificate: the system clock shows {0} seconds since 1970; set it right")]
    Clock(u64),
    /// The validity is too short.
    #[error("a node certificate must be valid for at least 1h, not {} s", .0.as_secs())]
    Expiry(Duration),
    /// Signing failed.
    #[error("cannot make a certificate")]
    Signing(#[source] rcgen::Error),
}

/// A new root certificate and key: ECDSA P-256, self-signed.
///
/// # Errors
/// [`IssueError`] when the clock is absurd or the system gives no randomness.
pub fn generate_root(now: Duration, rand: &dyn Rand) -> Result<RootCa, IssueError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IssueError::Signing)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // As Go writes it: an authority elsewhere that vouches for this root must come to the same bytes.
    let name = ROOT_NAME.try_into().map_err(IssueError::Signing)?;
    params.distinguished_name.push(DnType::CommonName, DnValue::PrintableString(name));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial(rand));
    (params.not_before, params.not_after) = validity(now, ROOT_VALIDITY)?;
    let cert = params.self_signed(&key).map_err(IssueError::Signing)?;
    Ok(RootCa { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// The one certificate of a root PEM.
pub(crate) fn root_certificate(root_pem: &str) -> Result<CertificateDer<'static>, InvalidRoot> {
    root_from_der(single(root_pem, "CERTIFICATE").map_err(|e| InvalidRoot(e.to_string()))?)
}

/// What follows a leaf in a chain: the root, or what leads to the old root while there are two.
pub(crate) fn above(cluster: &Cluster) -> &str {
    let rotation = cluster.security.root_rotation.as_ref();
    rotation.map_or(&cluster.root_ca.cert_pem, |rotation| &rotation.cross_signed_pem)
}

/// A certificate that may be a root.
pub(crate) fn root_from_der(der: Vec<u8>) -> Result<CertificateDer<'static>, InvalidRoot> {
    match X509Certificate::from_der(&der) {
        Ok(([], cert)) if cert.is_ca() => {}
        Ok(_) => return Err(InvalidRoot("it is not a certificate authority".into())),
        Err(_) => return Err(InvalidRoot("it is not a certificate".into())),
    }
    Ok(CertificateDer::from(der))
}

/// The serial number of a root.
pub(crate) fn serial(rand: &dyn Rand) -> SerialNumber {
    let mut bytes = [0; 16];
    rand.fill(&mut bytes);
    // Positive and not zero, as RFC 5280 wants it.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// The serial number of a node's certificate: the log index of the state that granted it, among random bytes. RFC 5280 allows
/// 20 bytes.
fn indexed_serial(index: u64, rand: &dyn Rand) -> SerialNumber {
    let mut bytes = [0; 20];
    rand.fill(&mut bytes);
    bytes[0] = INDEXED_SERIAL;
    bytes[1..9].copy_from_slice(&index.to_be_bytes());
    SerialNumber::from_slice(&bytes)
}

/// The log index in a serial number of [`indexed_serial`]'s form; zero for any other.
pub(crate) fn index_of(serial: &[u8]) -> u64 {
    match serial {
        [INDEXED_SERIAL, index @ ..] if serial.len() == 20 => {
            index.first_chunk().map_or(0, |index| u64::from_be_bytes(*index))
        }
        _ => 0,
    }
}

pub(crate) fn validity(now: Duration, lasts: Duration) -> Result<(OffsetDateTime, OffsetDateTime), IssueError> {
    let at = |t: Duration| {
        i64::try_from(t.as_secs())
            .ok()
            .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
            .ok_or(IssueError::Clock(now.as_secs()))
    };
    Ok((at(now.saturating_sub(BACKDATE))?, at(now.saturating_add(lasts))?))
}

// === impl Authority ===

impl Authority {
    /// The authority of a cluster.
    ///
    /// # Errors
    /// [`InvalidRoot`] when certificate and key cannot be read or do not belong together.
    pub fn new(root: &RootCa, cluster_id: ClusterId) -> Result<Authority, InvalidRoot> {
        let cert = root_certificate(&root.cert_pem)?;
        if !root.has_key() {
            return Err(InvalidRoot("its key is not in this swarm: an authority elsewhere signs with it".into()));
        }
        let key = KeyPair::from_pem(&root.key_pem).map_err(|_| InvalidRoot("the key cannot be read".into()))?;
        let (_, parsed) =
            X509Certificate::from_der(&cert).map_err(|_| InvalidRoot("it is not a certificate".into()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(InvalidRoot("the key is not the certificate's".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&cert, key).map_err(|e| InvalidRoot(e.to_string()))?;
        let root_pem = root.cert_pem.clone();
        Ok(Authority { above_pem: root_pem.clone(), root_pem, cluster_id, issuer, grants: None })
    }

    /// The authority of a cluster as its state says: while the root is being changed, the new one signs, and chains lead to
    /// the old one as well.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn of(cluster: &Cluster) -> Result<Authority, InvalidRoot> {
        let mut authority = Authority::new(cluster.signing_root(), cluster.id.clone())?;
        authority.above_pem = above(cluster).to_owned();
        Ok(authority.marking(cluster.security.grants.clone()))
    }

    /// The same authority, which marks the certificates that it signs with this key, if there is one.
    pub fn marking(self, grants: Option<GrantKey>) -> Authority {
        Authority { grants, ..self }
    }

    /// The root certificate, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// As [`Authority::issue_from`], for a grant that no state has decided: a founder's own.
    ///
    /// # Errors
    /// As [`Authority::issue_from`].
    pub fn issue(
        &self,
        csr: &Csr,
        grant: &CertificateGrant,
        now: Duration,
        rand: &dyn Rand,
    ) -> Result<String, IssueError> {
        self.issue_from(0, csr, grant, now, rand)
    }

    /// Signs a certificate for the key of `csr` that says what `grant` says. Answers the chain: the leaf, then what leads from
    /// it to the roots that nodes trust (or the root itself).
    ///
    /// `state_index` is the log index of the state that the grant was read from. It is in the certificate (in its serial
    /// number), so that whoever sees it can tell whether what *its* state says of the node is newer than the certificate.
    ///
    /// # Errors
    /// [`IssueError`] when the validity is too short, the clock is absurd, or signing fails.
    pub fn issue_from(
        &self,
        state_index: u64,
        csr: &Csr,
        grant: &CertificateGrant,
        now: Duration,
        rand: &dyn Rand,
    ) -> Result<String, IssueError> {
        if grant.expiry < NODE_CERT_EXPIRY_MIN {
            return Err(IssueError::Expiry(grant.expiry));
        }
        let word = role_word(grant.role);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, self.cluster_id.as_str());
        params.distinguished_name.push(DnType::OrganizationalUnitName, word);
        params.distinguished_name.push(DnType::CommonName, grant.node_id.as_str());
        let mark = self.grants.as_ref().map(|key| {
            let granted = Granted {
                cluster_id: &self.cluster_id,
                node_id: &grant.node_id,
                role: grant.role,
                public_key_der: &csr.public_key_der,
                state_index,
            };
            grant::name(key, &granted)
        });
        for name in [Some(word), Some(grant.node_id.as_str()), mark.as_deref()].into_iter().flatten() {
            let name = name.try_into().map_err(IssueError::Signing)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(indexed_serial(state_index, rand));
        (params.not_before, params.not_after) = validity(now, grant.expiry)?;
        let leaf = params.signed_by(&csr.public_key, &self.issuer).map_err(IssueError::Signing)?;
        Ok(format!("{}{}", leaf.pem(), self.above_pem))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}
