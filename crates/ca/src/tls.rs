//! TLS settings that follow from an identity. All between nodes: TLS 1.3 only (both ends are ours), *ring*, HTTP/2, validity judged
//! by [`Clock`], and no session resumption, which would carry an old verdict about a certificate into a new connection.

use crate::encoding::{certificates, single};
use crate::grant::Issued;
use crate::identity::Identity;
use crate::peer::{MANAGER_WORD, Peer};
use crate::root::root_certificates;
use model::{ClusterId, GrantKey, NodeId, Role};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use seams::Clock;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whom a client wants to find at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedServer {
    /// Any manager of the cluster.
    AnyManager,
    /// This node, and it must be a manager.
    Manager(NodeId),
}

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key is unreadable.
    #[error("cannot set up TLS: {0}")]
    Material(String),
    /// rustls refused them.
    #[error("cannot set up TLS")]
    Rustls(#[from] rustls::Error),
}

/// A manager's certificate was verified, but it is not the one that was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum WrongServer {
    #[error("the other end is not a manager")]
    NotManager,
    #[error("the other end belongs to cluster {0}, not to ours")]
    Cluster(ClusterId),
    #[error("the other end is node {0}, not the one that was wanted")]
    Node(NodeId),
    #[error("the other end's certificate was signed, but not granted by the swarm")]
    NotGranted,
    #[error("the other end's certificate is {0}")]
    Invalid(#[from] crate::InvalidPeer),
}

/// [`Clock`] for rustls.
pub(crate) struct ClockTime(pub(crate) Arc<dyn Clock>);

/// Verifies the chain and the name with webpki, then what only we know: role, cluster, node.
#[derive(Debug)]
struct ManagerVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    cluster: Option<ClusterId>,
    node: Option<NodeId>,
    /// The key of the marks, where this end knows it.
    marks: Option<GrantKey>,
}

/// Verifies nothing about who is there. Only for fetching the root certificate, which is judged by its digest.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

/// The server name that every manager's certificate carries. Pass it to the TLS connector together with these settings.
pub fn manager_server_name() -> ServerName<'static> {
    // The word is a valid DNS name; the test below holds it to that.
    ServerName::try_from(MANAGER_WORD).unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

/// Settings of a manager's server. A client may come without a certificate (to join); one that it shows must be the
/// root's and valid now, or the handshake fails. What a client without one may call is the authorisation table's matter.
///
/// # Errors
/// [`TlsError`] when the identity cannot be used.
pub fn server_config(identity: &Identity, clock: Arc<dyn Clock>) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&identity.root_pem)?, provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| TlsError::Material(e.to_string()))?;
    let (chain, key) = chain_and_key(identity)?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Settings of a member's client: shows its certificate, accepts only a manager of its own cluster.
///
/// # Errors
/// [`TlsError`] when the identity cannot be used.
pub fn client_config(
    identity: &Identity,
    clock: Arc<dyn Clock>,
    expected: &ExpectedServer,
) -> Result<Arc<ClientConfig>, TlsError> {
    judging_client_config(identity, clock, expected, None)
}

/// As [`client_config`], of a manager, which knows the key of the marks that certificates carry (docs/adr/0009) when there is one.
///
/// # Errors
/// [`TlsError`] when the identity cannot be used.
pub fn judging_client_config(
    identity: &Identity,
    clock: Arc<dyn Clock>,
    expected: &ExpectedServer,
    marks: Option<GrantKey>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let node = match expected {
        ExpectedServer::AnyManager => None,
        ExpectedServer::Manager(node) => Some(node.clone()),
    };
    let webpki = server_verifier(&identity.root_pem)?;
    let verifier = Arc::new(ManagerVerifier { webpki, cluster: Some(identity.cluster_id.clone()), node, marks });
    let (chain, key) = chain_and_key(identity)?;
    let config = client_builder(clock, verifier)?.with_client_auth_cert(chain, key)?;
    Ok(finish_client(config))
}

/// Settings of a joiner's client that has checked the root against its token: shows no certificate, accepts only a manager
/// whose certificate that root signed.
///
/// # Errors
/// [`TlsError`] when the root is unreadable.
pub fn anonymous_client_config(root_pem: &str, clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, TlsError> {
    let webpki = server_verifier(root_pem)?;
    let verifier = Arc::new(ManagerVerifier { webpki, cluster: None, node: None, marks: None });
    Ok(finish_client(client_builder(clock, verifier)?.with_no_client_auth()))
}

/// Settings of a joiner's client that knows nothing yet. Whoever uses it fetches the root certificate with it and nothing
/// else: the other end can be anybody.
///
/// # Errors
/// [`TlsError`] when rustls refuses (it does not).
pub fn unverified_client_config(clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Arc::new(Unverified(provider()));
    Ok(finish_client(client_builder(clock, verifier)?.with_no_client_auth()))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    // Passed everywhere explicitly: no process-wide default that somebody could forget or replace.
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client_builder(
    clock: Arc<dyn Clock>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

fn finish_client(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn roots(roots_pem: &str) -> Result<Arc<RootCertStore>, TlsError> {
    store_of(&root_certificates(roots_pem).map_err(|e| TlsError::Material(e.to_string()))?)
}

fn store_of(certs: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certs {
        roots.add(root.clone())?;
    }
    Ok(Arc::new(roots))
}

/// Whether a node that trusts these roots accepts a chain (leaf first) as a client's.
pub(crate) fn accepts(
    roots: &[CertificateDer<'static>],
    chain: &[CertificateDer<'static>],
    now: Duration,
) -> Result<Result<(), rustls::Error>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(store_of(roots)?, provider())
        .build()
        .map_err(|e| TlsError::Material(e.to_string()))?;
    let Some((leaf, above)) = chain.split_first() else {
        return Ok(Err(rustls::Error::NoCertificatesPresented));
    };
    Ok(verifier.verify_client_cert(leaf, above, UnixTime::since_unix_epoch(now)).map(drop))
}

/// Whether who trusts this root accepts a certificate as a server's of this name.
pub(crate) fn serves(
    root_pem: &str,
    leaf: &CertificateDer<'static>,
    name: &str,
    now: Duration,
) -> Result<Result<(), rustls::Error>, TlsError> {
    let name = ServerName::try_from(name.to_owned()).map_err(|e| TlsError::Material(e.to_string()))?;
    let now = UnixTime::since_unix_epoch(now);
    Ok(server_verifier(root_pem)?.verify_server_cert(leaf, &[], &name, &[], now).map(drop))
}

/// Judges servers by webpki's rules alone: chain, name, time.
pub(crate) fn server_verifier(roots_pem: &str) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(roots(roots_pem)?, provider())
        .build()
        .map_err(|e| TlsError::Material(e.to_string()))
}

/// Settings for a server that is not ours, which may be older than TLS 1.3.
pub(crate) fn versatile_client(
    clock: Arc<dyn Clock>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    Ok(ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?)
}

/// Judges a client's chain (leaf first) again, which a handshake has accepted before: the roots that this node trusts may have
/// changed since.
pub fn still_trusts(identity: &Identity, chain: &[CertificateDer<'static>], now: Duration) -> bool {
    let judged = root_certificates(&identity.root_pem).ok().map(|roots| accepts(&roots, chain, now));
    matches!(judged, Some(Ok(Ok(()))))
}

pub(crate) fn chain_and_key(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let material = |e: crate::encoding::BadPem| TlsError::Material(e.to_string());
    let mut chain = certificates(&identity.cert_chain_pem).map_err(material)?;
    // The other end has the roots; sending them proves nothing and costs bytes.
    let roots = root_certificates(&identity.root_pem).map_err(|e| TlsError::Material(e.to_string()))?;
    chain.retain(|cert| !roots.contains(cert));
    let key = single(&identity.key_pem, "PRIVATE KEY").map_err(material)?;
    Ok((chain, PrivatePkcs8KeyDer::from(key).into()))
}

// === impl ClockTime ===

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.unix_now()))
    }
}

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

// === impl ManagerVerifier ===

impl ManagerVerifier {
    fn check(&self, cert: &CertificateDer<'_>) -> Result<(), WrongServer> {
        let peer = Peer::from_certificate(cert)?;
        if peer.role != Role::Manager {
            return Err(WrongServer::NotManager);
        }
        if self.cluster.as_ref().is_some_and(|ours| *ours != peer.cluster_id) {
            return Err(WrongServer::Cluster(peer.cluster_id));
        }
        if self.node.as_ref().is_some_and(|wanted| *wanted != peer.node_id) {
            return Err(WrongServer::Node(peer.node_id));
        }
        if Issued::of(cert)?.from_state(self.marks.as_ref()).is_none() {
            return Err(WrongServer::NotGranted);
        }
        Ok(())
    }
}

impl ServerCertVerifier for ManagerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        self.check(end_entity).map_err(|wrong| CertificateError::Other(OtherError(Arc::new(wrong))))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

// === impl Unverified ===

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_managers_word_is_a_server_name() {
        assert!(matches!(manager_server_name(), ServerName::DnsName(name) if name.as_ref() == MANAGER_WORD));
    }
}
