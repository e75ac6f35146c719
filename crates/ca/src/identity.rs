//! What a node keeps of its identity.

use crate::authority::root_certificate;
use crate::encoding::{certificates, single};
use crate::peer::{Peer, parse, validity};
use bytes::Bytes;
use model::{ClusterId, NodeId, Role};
use rcgen::{KeyPair, PublicKeyData as _};
use seams::{Disk, Rand, RandExt as _};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The root certificate, below the data directory. Docker's name.
pub const ROOT_CERT_FILE: &str = "certificates/swarm-root-ca.crt";
/// The node's certificate chain, below the data directory. Docker's name.
pub const NODE_CERT_FILE: &str = "certificates/swarm-node.crt";
/// The node's private key (mode 0600), below the data directory. Docker's name.
pub const KEY_FILE: &str = "certificates/swarm-node.key";
/// A renewed key on its way: certificate and key are two files, and a crash between them must not cost the identity.
const NEXT_KEY_FILE: &str = "certificates/swarm-node.key.next";

/// A node's certificate, its key, and the root that signed it; checked to belong together. Never shows its key in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Common name of the certificate.
    pub node_id: NodeId,
    /// The role that the certificate gives.
    pub role: Role,
    /// The cluster that it is good for.
    pub cluster_id: ClusterId,
    /// The certificate, then the root, PEM.
    pub cert_chain_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
    /// The root certificate, PEM.
    pub root_pem: String,
    not_before: Duration,
    not_after: Duration,
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
        let root = root_certificate(&root_pem).map_err(|e| invalid("root certificate", &e))?;
        let peer = Peer::from_certificate(&chain[0]).map_err(|e| invalid("certificate", &e))?;
        let leaf = parse(&chain[0]).map_err(|e| invalid("certificate", &e))?;
        let authority = parse(&root).map_err(|e| invalid("root certificate", &e))?;
        single(&key_pem, "PRIVATE KEY").map_err(|e| invalid("key", &e))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|_| invalid("key", &"it is not a PKCS#8 key"))?;
        if leaf.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(invalid("key", &"it is not the certificate's"));
        }
        if leaf.verify_signature(Some(authority.public_key())).is_err() {
            return Err(invalid("certificate", &"it was not signed by the root certificate"));
        }
        let (not_before, not_after) = validity(&leaf);
        let Peer { node_id, role, cluster_id } = peer;
        Ok(Identity { node_id, role, cluster_id, cert_chain_pem, key_pem, root_pem, not_before, not_after })
    }

    /// Begin and end of the certificate's validity, since the Unix epoch.
    pub fn validity(&self) -> (Duration, Duration) {
        (self.not_before, self.not_after)
    }

    /// When to renew, since the Unix epoch: a random point in 50–80 % of the validity (SwarmKit ca/renewer.go), so that
    /// nodes that joined together do not renew together.
    pub fn renew_at(&self, rand: &dyn Rand) -> Duration {
        let whole_s = self.not_after.saturating_sub(self.not_before).as_secs();
        let (from, span) = (whole_s / 2, whole_s / 10 * 3);
        self.not_before.saturating_add(Duration::from_secs(from + rand.below(span)))
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
        let key = || Bytes::from(self.key_pem.clone());
        for (file, bytes, mode) in [
            (ROOT_CERT_FILE, Bytes::from(self.root_pem.clone()), 0o644),
            (NEXT_KEY_FILE, key(), 0o600),
            (NODE_CERT_FILE, Bytes::from(self.cert_chain_pem.clone()), 0o644),
            (KEY_FILE, key(), 0o600),
        ] {
            let path = data_dir.join(file);
            let written = disk.write_atomic(&path, bytes, mode).await;
            written.map_err(|source| IdentityError::Disk { doing: "write", path, source })?;
        }
        let path = data_dir.join(NEXT_KEY_FILE);
        disk.remove(&path).await.map_err(|source| IdentityError::Disk { doing: "remove", path, source })
    }

    /// Reads the identity from below the data directory; `None` when there is none.
    ///
    /// # Errors
    /// [`IdentityError`] when a file is missing, unreadable, or does not belong to the others.
    pub async fn load(disk: &dyn Disk, data_dir: &Path) -> Result<Option<Identity>, IdentityError> {
        let cert = read(disk, data_dir, NODE_CERT_FILE).await?;
        let root = read(disk, data_dir, ROOT_CERT_FILE).await?;
        let key = read(disk, data_dir, KEY_FILE).await?;
        let next_key = read(disk, data_dir, NEXT_KEY_FILE).await?;
        let missing = |file: &str| IdentityError::Incomplete { missing: data_dir.join(file) };
        let Some(cert) = cert else {
            // A crash in the first save: nothing was promised to anybody yet.
            return if key.is_none() { Ok(None) } else { Err(missing(NODE_CERT_FILE)) };
        };
        let root = root.ok_or_else(|| missing(ROOT_CERT_FILE))?;
        // The certificate says which of the two keys is the current one.
        if let Some(next) = next_key
            && let Ok(identity) = Identity::new(cert.clone(), next, root.clone())
        {
            identity.save(disk, data_dir).await?;
            return Ok(Some(identity));
        }
        Identity::new(cert, key.ok_or_else(|| missing(KEY_FILE))?, root).map(Some)
    }
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
