//! A node's key and its request for a certificate.

use crate::encoding::single;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SubjectPublicKeyInfo};
use std::fmt;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};
use x509_parser::public_key::PublicKey;

/// A request of ours has about 500 bytes.
const CSR_BYTES_MAX: usize = 8 * 1024;

/// A certificate request that proves possession of its key, an ECDSA P-256 one. Nothing else of it counts.
#[derive(Clone, Debug)]
pub struct Csr {
    pub(crate) public_key: SubjectPublicKeyInfo,
    /// The same (SubjectPublicKeyInfo), DER.
    pub(crate) public_key_der: Vec<u8>,
    /// The whole request, DER: for an authority elsewhere, which is told what to read over.
    pub(crate) der: Vec<u8>,
}

/// A certificate request that will not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid certificate request: {0}")]
pub struct InvalidCsr(String);

/// A node's private key, before there is a certificate for it. Never shown by `Debug`.
pub struct NodeKey {
    key: KeyPair,
}

/// No key could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a private key or a certificate request; the system's random source may be broken")]
pub struct KeyError(#[source] rcgen::Error);

// === impl Csr ===

impl Csr {
    /// Reads a certificate request (PEM). Its subject and extensions are read over: they are the issuer's to decide.
    ///
    /// # Errors
    /// [`InvalidCsr`] when it is too long, is not exactly one PEM block, is not a request, has a key of another kind than
    /// ECDSA P-256, or is not signed by that key.
    pub fn parse(csr_pem: &str) -> Result<Csr, InvalidCsr> {
        let refused = |why: &str| InvalidCsr(why.to_owned());
        if csr_pem.len() > CSR_BYTES_MAX {
            return Err(InvalidCsr(format!("it has {} bytes, more than {CSR_BYTES_MAX}", csr_pem.len())));
        }
        let der = single(csr_pem, "CERTIFICATE REQUEST").map_err(|e| InvalidCsr(e.to_string()))?;
        let (rest, csr) =
            X509CertificationRequest::from_der(&der).map_err(|_| refused("it is not a PKCS#10 request"))?;
        if !rest.is_empty() {
            return Err(refused("there are bytes after the request"));
        }
        let spki = &csr.certification_request_info.subject_pki;
        // 65 bytes: an uncompressed point on P-256.
        match spki.parsed() {
            Ok(PublicKey::EC(point)) if point.data().len() == 65 => {}
            _ => return Err(refused("its key is not an ECDSA P-256 key")),
        }
        csr.verify_signature().map_err(|_| refused("it is not signed by its own key"))?;
        let public_key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| refused("its key cannot be read"))?;
        let public_key_der = spki.raw.to_vec();
        Ok(Csr { public_key, public_key_der, der })
    }
}

// === impl NodeKey ===

impl NodeKey {
    /// A new ECDSA P-256 key.
    ///
    /// # Errors
    /// [`KeyError`] when the system gives no randomness.
    pub fn generate() -> Result<NodeKey, KeyError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(|key| NodeKey { key }).map_err(KeyError)
    }

    /// A certificate request for this key. It names nobody: the issuer decides.
    ///
    /// # Errors
    /// [`KeyError`] when it cannot be signed.
    pub fn csr_pem(&self) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "");
        params.serialize_request(&self.key).and_then(|csr| csr.pem()).map_err(KeyError)
    }

    /// The key, PKCS#8 PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::PublicKeyData as _;

    fn pem_of(der: &[u8]) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
    }

    fn der() -> Vec<u8> {
        single(&NodeKey::generate().unwrap().csr_pem().unwrap(), "CERTIFICATE REQUEST").unwrap()
    }

    #[test]
    fn an_honest_request_is_read() {
        let key = NodeKey::generate().unwrap();
        let csr = Csr::parse(&key.csr_pem().unwrap()).unwrap();
        assert_eq!(csr.public_key.der_bytes(), key.key.der_bytes());
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn hostile_requests_are_refused() {
        let good = NodeKey::generate().unwrap().csr_pem().unwrap();
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut trailing = der();
        trailing.push(0);
        let with = |key: &KeyPair| CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
        for (what, csr) in [
            ("empty", String::new()),
            ("two requests", format!("{good}{good}")),
            ("text before", format!("hello\n{good}")),
            ("text after", format!("{good}trailing")),
            ("another kind", good.replace("CERTIFICATE REQUEST", "CERTIFICATE")),
            ("too long", format!("{good}{}", "\n".repeat(CSR_BYTES_MAX))),
            ("bytes after", pem_of(&trailing)),
            ("Ed25519", with(&ed25519)),
            ("P-384", with(&p384)),
        ] {
            let refused = Csr::parse(&csr).expect_err(what);
            assert!(refused.to_string().starts_with("invalid certificate request: "), "{what}: {refused}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        // Damage to the encoding around the signed part may be read over; what counts is that no other key comes out.
        #[test]
        fn a_damaged_request_yields_no_other_key(at in 0..400_usize, flip in 1..=255_u8) {
            let key = NodeKey::generate().unwrap();
            let mut der = single(&key.csr_pem().unwrap(), "CERTIFICATE REQUEST").unwrap();
            let at = at % der.len();
            der[at] ^= flip;
            if let Ok(csr) = Csr::parse(&pem_of(&der)) {
                prop_assert_eq!(csr.public_key.der_bytes(), key.key.der_bytes(), "byte {}", at);
            }
        }

        #[test]
        fn noise_is_no_request_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Csr::parse(&pem_of(&bytes)).is_err());
        }
    }
}
