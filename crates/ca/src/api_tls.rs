//! TLS of the HTTP API on a TCP port. Its certificates are the operator's, of an authority that has nothing to do with the
//! cluster's own: whoever shows one that this authority signed may use the API.

use crate::encoding::PEM_BYTES_MAX;
use crate::peer::{MANAGER_WORD, WORKER_WORD, parse, validity};
use crate::tls::{ClockTime, provider};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use seams::Clock;
use std::sync::Arc;
use std::time::Duration;

/// The organisational unit of a certificate whose holder may look and not touch.
pub const VIEWER_WORD: &str = "swarmlite-viewer";
/// Certificates in one file: an authority, or a server with its intermediates.
const CERTIFICATES_MAX: usize = 64;

/// What the holder of a client certificate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiRight {
    /// Everything, as root on the API's socket.
    Admin,
    /// Look at what is no secret.
    Viewer,
}

/// What a client certificate says. Only worth something when its chain was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiCertificate {
    /// What its holder may do.
    pub right: ApiRight,
    /// Its common name, for the log; empty when it has none.
    pub name: String,
    /// The end of its validity, since the Unix epoch.
    pub expires_at: Duration,
}

/// Certificates that the API cannot be served with, or that it does not accept.
#[derive(Debug, thiserror::Error)]
pub enum ApiTlsError {
    /// One of the three files.
    #[error("the {what} is of no use: {reason}")]
    File {
        /// `certificate authority`, `certificate` or `key`.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// They do not go together.
    #[error("certificate and key are of no use together: {0}")]
    Together(#[source] rustls::Error),
    /// A certificate of a node of the swarm: it proves a node, not a person.
    #[error(
        "the client certificate is a swarm node's (organisational unit {0}); sign certificates for the API with an authority of its own"
    )]
    NodeCertificate(&'static str),
    /// Not readable.
    #[error("the client certificate is {0}")]
    Client(#[from] crate::InvalidPeer),
}

/// Settings of the API's TCP server: TLS 1.2 or 1.3, HTTP/1.1, and a client certificate that `ca_pem` signed or no connection.
///
/// # Errors
/// [`ApiTlsError`] when a file is unreadable or key and certificate do not belong together.
pub fn api_server_config(
    ca_pem: &str,
    cert_pem: &str,
    key_pem: &str,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ServerConfig>, ApiTlsError> {
    let file = |what, reason: String| ApiTlsError::File { what, reason };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("certificate authority", ca_pem)? {
        roots.add(certificate).map_err(|e| file("certificate authority", e.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| file("certificate authority", e.to_string()))?;
    let chain = certificates("certificate", cert_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| {
        file("key", "it holds no private key in PEM (PKCS#8, PKCS#1 or SEC 1, without a password)".into())
    })?;
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(ApiTlsError::Together)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(ApiTlsError::Together)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // As between nodes: no old verdict about a certificate is carried into a new connection.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, ApiTlsError> {
    let file = |reason: String| ApiTlsError::File { what, reason };
    if pem.len() > PEM_BYTES_MAX * 16 {
        return Err(file(format!("it is longer than {} KiB", PEM_BYTES_MAX * 16 / 1024)));
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).take(CERTIFICATES_MAX + 1).collect();
    let found = found.map_err(|e| file(e.to_string()))?;
    match found.len() {
        0 => Err(file("it holds no certificate in PEM".into())),
        1..=CERTIFICATES_MAX => Ok(found),
        _ => Err(file(format!("it holds more than {CERTIFICATES_MAX} certificates"))),
    }
}

/// Reads a client certificate of the API. The caller has verified its chain.
///
/// # Errors
/// [`ApiTlsError`] when it is unreadable, or a node's.
pub fn api_certificate(leaf: &CertificateDer<'_>) -> Result<ApiCertificate, ApiTlsError> {
    let leaf = parse(leaf)?;
    let mut right = ApiRight::Admin;
    for unit in leaf.subject().iter_organizational_unit() {
        // What is no text might be meant to say anything: the least right.
        match unit.as_str() {
            Ok(MANAGER_WORD) => return Err(ApiTlsError::NodeCertificate(MANAGER_WORD)),
            Ok(WORKER_WORD) => return Err(ApiTlsError::NodeCertificate(WORKER_WORD)),
            Ok(VIEWER_WORD) | Err(_) => right = ApiRight::Viewer,
            Ok(_) => {}
        }
    }
    let name = leaf.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(ApiCertificate {
        right,
        name: name.unwrap_or_default().chars().take(64).collect(),
        expires_at: validity(&leaf).1,
    })
}
