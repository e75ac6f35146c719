//! Root certificates: reading one or several, and what people and clients are shown of them.

use crate::authority::{InvalidRoot, root_from_der};
use crate::encoding::blocks;
use crate::peer::parse;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::X509Certificate;

/// Roots trusted at once: the old one and the new one. Twice as many leave room for what a later release may do.
const ROOTS_MAX: usize = 4;

/// A root certificate's parts, in the form that Docker shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDescription {
    /// Its subject, DER.
    pub subject_der: Vec<u8>,
    /// Its public key (SubjectPublicKeyInfo), DER.
    pub public_key_der: Vec<u8>,
}

// === impl RootDescription ===

impl RootDescription {
    pub(crate) fn of(cert: &X509Certificate<'_>) -> RootDescription {
        RootDescription {
            subject_der: cert.subject().as_raw().to_vec(),
            public_key_der: cert.public_key().raw.to_vec(),
        }
    }
}

/// Takes a root certificate (PEM) apart; of several the last, which is the one that signs. `None` when there is none.
pub fn describe_root(roots_pem: &str) -> Option<RootDescription> {
    let der = root_certificates(roots_pem).ok()?.pop()?;
    parse(&der).ok().map(|cert| RootDescription::of(&cert))
}

/// The root certificates of a PEM text, at least one.
pub(crate) fn root_certificates(roots_pem: &str) -> Result<Vec<CertificateDer<'static>>, InvalidRoot> {
    let found = blocks(roots_pem, "CERTIFICATE").map_err(|e| InvalidRoot(e.to_string()))?;
    if found.is_empty() || found.len() > ROOTS_MAX {
        return Err(InvalidRoot(format!("there are {} root certificates, not 1 to {ROOTS_MAX}", found.len())));
    }
    found.into_iter().map(root_from_der).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::generate_root;
    use seams::real::OsRand;
    use std::time::Duration;

    #[test]
    fn of_several_roots_the_last_one_signs() {
        let root = || generate_root(Duration::from_secs(1_800_000_000), &OsRand).unwrap().cert_pem;
        let (old, new) = (root(), root());
        assert_eq!(describe_root(&format!("{old}{new}")), describe_root(&new));
        assert_ne!(describe_root(&old), describe_root(&new));
        assert_eq!(root_certificates(&format!("{old}{new}")).unwrap().len(), 2);
        for bad in [String::new(), "junk".to_owned(), old.repeat(5)] {
            assert!(root_certificates(&bad).is_err());
            assert_eq!(describe_root(&bad), None);
        }
    }
}
