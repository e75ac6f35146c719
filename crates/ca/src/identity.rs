//! What a node keeps of its identity.

use crate::authority::BACKDATE;
use crate::encoding::{certificates, single};
use crate::grant::Issued;
use crate::peer::{Peer, parse, validity};
use crate::root::{RootDescription, root_certificates};
use bytes::Bytes;
use model::{ClusterId, NodeId, NodeTls, Role};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use seams::{Disk, Rand, RandExt as _};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use x509_parser::prelude::X509Certificate;

/// The root certificates that the node trusts, below the data directory. Docker's name.
pub const ROOT_CERT_FILE: &str = "certificates/swarm-root-ca.crt";
/// The node's certificate chain, below the data directory. Docker's name.
pub const NODE_CERT_FILE: &str = "certificates/swarm-node.crt";
/// The node's private key (mode 0600), below the data directory. Docker's name.
pub const KEY_FILE: &str = "certificates/swarm-node.key";
/// A new identity on its way (mode 0600), whole in one file: it is three files in the end, and a crash between them must not
/// leave parts of two. There only while [`Identity::save`] runs, or after a crash in it.
pub const NEXT_FILE: &str = "certificates/swarm-node.key.next";
/// Between the chain and the roots in [`NEXT_FILE`].
const TRUST_LINE: &str = "# trusted roots\n";

/// A node's certificate, its key, and the roots that it trusts; checked to belong together. Never shows its key in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Common name of the certificate.
    pub node_id: NodeId,
    /// The role that the certificate gives.
    pub role: Role,
    /// The cluster that it is good for.
    pub cluster_id: ClusterId,
    /// The certificate, then what leads from it to a root (or the root), PEM.
    pub cert_chain_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
    /// The root certificates that the node trusts, PEM: one, or two while the root is being changed.
    pub root_pem: String,
    not_before: Duration,
    not_after: Duration,
    issued: Issued,
    issuer: RootDescription,
}

/// An identity that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Certificate, key or root are unreadable or do not belong together.
    #[error("the node's identity cannot be used: {0}")]
    Invalid(String),
    /// Some of the files are there, others are not.
    #[error("the node's identity is incomplete: {missing} is missing; restore it, or leave the swarm and join again")]
    Incomplete {
        /// The missing file.
        missing: PathBuf,
    },
    /// The disk.
    #[error("cannot {doing} {path}")]
    Disk {
        /// `read` or `write`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

// === impl Identity ===

impl Identity {
    /// Puts an identity together. Its times of validity are not judged here: an expired one is still this node's.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] when a part is unreadable, the key is not the certificate's, or the root did not sign it.
    pub fn new(cert_chain_pem: String, key_pem: String, root_pem: String) -> Result<Identity, IdentityError> {
        let invalid = |what: &str, why: &dyn fmt::Display| IdentityError::Invalid(format!("{what}: {why}"));
        let chain = certificates(&cert_chain_pem).map_err(|e| invalid("certificate", &e))?;
        let roots = root_certificates(&root_pem).map_err(|e| invalid("root certificate", &e))?;
        let peer = Peer::from_certificate(&chain[0]).map_err(|e| invalid("certificate", &e))?;
        let leaf = parse(&chain[0]).map_err(|e| invalid("certificate", &e))?;
        single(&key_pem, "PRIVATE KEY").map_err(|e| invalid("key", &e))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|_| invalid("key", &"it is not a PKCS#8 key"))?;
        if leaf.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(invalid("key", &"it is not the certificate's"));
        }
        let issuer = issuer_of(&leaf, &chain[1..], &roots)
            .ok_or_else(|| invalid("certificate", &"it was not signed by the root certificate"))?;
        let (not_before, not_after) = validity(&leaf);
        let issued = Issued::of(&chain[0]).map_err(|e| invalid("certificate", &e))?;
        let Peer { node_id, role, cluster_id } = peer;
        Ok(Identity {
            node_id,
            role,
            cluster_id,
            cert_chain_pem,
            key_pem,
            root_pem,
            not_before,
            not_after,
            issued,
            issuer,
        })
    }

    /// The same identity with other roots to trust.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] when its certificate does not lead to one of them: it has to be renewed first.
    pub fn with_trust(&self, roots_pem: String) -> Result<Identity, IdentityError> {
        Identity::new(self.cert_chain_pem.clone(), self.key_pem.clone(), roots_pem)
    }

    /// The root that signed the certificate. Of a root that is not trusted itself yet, another one vouches for it.
    pub fn issuer(&self) -> &RootDescription {
        &self.issuer
    }

    /// The log index of the state that granted the certificate; zero when none did.
    pub fn state_index(&self) -> u64 {
        self.issued.claimed()
    }

    /// What the certificate says of the state that granted it, as managers judge it.
    pub fn issued(&self) -> &Issued {
        &self.issued
    }

    /// How long the certificate is valid from its issue: what the authority was asked for.
    pub fn expiry(&self) -> Duration {
        self.not_after.saturating_sub(self.issued_at())
    }

    /// What the node says of its certificate to managers.
    pub fn tls(&self) -> NodeTls {
        NodeTls {
            trust_root_pem: self.root_pem.clone(),
            issuer_subject_der: self.issuer.subject_der.clone(),
            issuer_public_key_der: self.issuer.public_key_der.clone(),
            granted: self.issued.is_marked(),
        }
    }

    /// Certificates begin before they are issued. (Other authorities may begin them later than ours does: of a short one half
    /// is left at least.)
    fn issued_at(&self) -> Duration {
        let whole = self.not_after.saturating_sub(self.not_before);
        self.not_before.saturating_add(BACKDATE.min(whole / 2))
    }

    /// Begin and end of the certificate's validity, since the Unix epoch.
    pub fn validity(&self) -> (Duration, Duration) {
        (self.not_before, self.not_after)
    }

    /// When to renew, since the Unix epoch: a random point in 50–80 % of the time between issue and end (SwarmKit
    /// ca/renewer.go), so that nodes that joined together do not renew together.
    pub fn renew_at(&self, rand: &dyn Rand) -> Duration {
        let whole_s = self.expiry().as_secs();
        let (from, span) = (whole_s / 2, whole_s / 10 * 3);
        self.issued_at().saturating_add(Duration::from_secs(from + rand.below(span)))
    }

    /// Who this node is, as others see it.
    pub fn peer(&self) -> Peer {
        Peer { node_id: self.node_id.clone(), role: self.role, cluster_id: self.cluster_id.clone() }
    }

    /// Writes the identity below the data directory. A crash in between leaves either the old one or the new one.
    ///
    /// # Errors
    /// [`IdentityError::Disk`].
    pub async fn save(&self, disk: &dyn Disk, data_dir: &Path) -> Result<(), IdentityError> {
        let whole = format!("{}{}{TRUST_LINE}{}", self.key_pem, self.cert_chain_pem, self.root_pem);
        for (file, text, mode) in [
            (NEXT_FILE, whole, 0o600),
            (ROOT_CERT_FILE, self.root_pem.clone(), 0o644),
            (NODE_CERT_FILE, self.cert_chain_pem.clone(), 0o644),
            (KEY_FILE, self.key_pem.clone(), 0o600),
        ] {
            let path = data_dir.join(file);
            let written = disk.write_atomic(&path, Bytes::from(text), mode).await;
            written.map_err(|source| IdentityError::Disk { doing: "write", path, source })?;
        }
        let path = data_dir.join(NEXT_FILE);
        disk.remove(&path).await.map_err(|source| IdentityError::Disk { doing: "remove", path, source })
    }

    /// Reads the identity from below the data directory; `None` when there is none.
    ///
    /// # Errors
    /// [`IdentityError`] when a file is missing, unreadable, or does not belong to the others.
    pub async fn load(disk: &dyn Disk, data_dir: &Path) -> Result<Option<Identity>, IdentityError> {
        // It is written first and whole, so it is what the other files were about to become.
        if let Some(identity) = read(disk, data_dir, NEXT_FILE).await?.as_deref().and_then(whole_identity) {
            identity.save(disk, data_dir).await?;
            return Ok(Some(identity));
        }
        let cert = read(disk, data_dir, NODE_CERT_FILE).await?;
        let root = read(disk, data_dir, ROOT_CERT_FILE).await?;
        let key = read(disk, data_dir, KEY_FILE).await?;
        let missing = |file: &str| IdentityError::Incomplete { missing: data_dir.join(file) };
        let Some(cert) = cert else {
            return if key.is_none() { Ok(None) } else { Err(missing(NODE_CERT_FILE)) };
        };
        let root = root.ok_or_else(|| missing(ROOT_CERT_FILE))?;
        Identity::new(cert, key.ok_or_else(|| missing(KEY_FILE))?, root).map(Some)
    }
}

/// Reads the form of [`NEXT_FILE`].
fn whole_identity(text: &str) -> Option<Identity> {
    let (key_and_chain, roots) = text.split_once(TRUST_LINE)?;
    let (key, chain) = key_and_chain.split_at(key_and_chain.find("-----BEGIN CERTIFICATE-----")?);
    Identity::new(chain.to_owned(), key.to_owned(), roots.to_owned()).ok()
}

/// Who signed a certificate: one of the roots, or an authority that came with it and that one of the roots vouches for.
fn issuer_of(
    leaf: &X509Certificate<'_>,
    above: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Option<RootDescription> {
    let signed_by = |cert: &X509Certificate<'_>, by: &CertificateDer<'static>| {
        parse(by).is_ok_and(|by| {
            by.is_ca() && cert.issuer() == by.subject() && cert.verify_signature(Some(by.public_key())).is_ok()
        })
    };
    let by_root = |cert: &X509Certificate<'_>| roots.iter().any(|root| signed_by(cert, root));
    let vouched = |der: &&CertificateDer<'static>| parse(der).is_ok_and(|cert| by_root(&cert));
    let issuer = roots.iter().find(|root| signed_by(leaf, root));
    let issuer = issuer.or_else(|| above.iter().filter(vouched).find(|der| signed_by(leaf, der)))?;
    parse(issuer).ok().map(|cert| RootDescription::of(&cert))
}

async fn read(disk: &dyn Disk, data_dir: &Path, file: &str) -> Result<Option<String>, IdentityError> {
    let path = data_dir.join(file);
    match disk.read(&path).await {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => String::from_utf8(bytes.to_vec())
            .map(Some)
            .map_err(|_| IdentityError::Invalid(format!("{} is not a text", path.display()))),
        Err(source) => Err(IdentityError::Disk { doing: "read", path, source }),
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node_id", &self.node_id)
            .field("role", &self.role)
            .field("cluster_id", &self.cluster_id)
            .finish_non_exhaustive()
    }
}
