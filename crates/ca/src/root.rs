//! What people and clients are shown of a root certificate.

use crate::peer::parse;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// A root certificate's parts, in the form that Docker shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDescription {
    /// Its subject, DER.
    pub subject_der: Vec<u8>,
    /// Its public key (SubjectPublicKeyInfo), DER.
    pub public_key_der: Vec<u8>,
}

/// Takes a root certificate (PEM) apart; `None` when it is none.
pub fn describe_root(root_pem: &str) -> Option<RootDescription> {
    let der = CertificateDer::from_pem_slice(root_pem.as_bytes()).ok()?;
    let cert = parse(&der).ok()?;
    Some(RootDescription {
        subject_der: cert.subject().as_raw().to_vec(),
        public_key_der: cert.public_key().raw.to_vec(),
    })
}
