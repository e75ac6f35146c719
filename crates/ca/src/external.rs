//! Authorities elsewhere: what they are asked, and whether what they answer is what was asked for.
//!
//! The protocol is the `sign` call of cfssl, as SwarmKit uses it (`ca/external.go`). An authority elsewhere is trusted to sign, and
//! with nothing more: whatever it sends back must be the certificate that was asked for, or it is refused.

use crate::authority::{Authority, CertificateGrant, InvalidRoot, above, root_certificate};
use crate::csr::Csr;
use crate::encoding::certificates;
use crate::grant::{self, Granted, dns_names, names};
use crate::identity::Identity;
use crate::peer::{Peer, parse, role_word, validity};
use crate::rotation::pem_text;
use crate::tls::{TlsError, accepts, chain_and_key, server_verifier, serves, versatile_client};
use crate::{NODE_CERT_EXPIRY_MIN, clock_text};
use model::{Cluster, ClusterId, GrantKey};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use seams::Clock;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Of what an authority says when it refuses.
const WORDS_MAX: usize = 300;
/// A clock that is a little behind takes a certificate for one of the future.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Who signs a cluster's certificates.
#[derive(Debug)]
pub enum Signer {
    /// Any manager.
    Here(Box<Authority>),
    /// An authority elsewhere.
    Elsewhere(ExternalAuthority),
}

/// Authorities elsewhere that sign under the cluster's root.
#[derive(Debug)]
pub struct ExternalAuthority {
    urls: Vec<String>,
    cluster_id: ClusterId,
    /// The root that it signs under.
    root_pem: String,
    /// What follows the leaf in a chain.
    above_pem: String,
    grants: GrantKey,
}

/// A certificate that is asked for.
#[derive(Debug)]
pub struct SigningRequest<'a> {
    authority: &'a ExternalAuthority,
    public_key_der: &'a [u8],
    grant: &'a CertificateGrant,
    /// The names that it must have.
    names: [String; 3],
    body: String,
}

/// No certificate, or none that is what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// It said no.
    #[error("it refused: {0}")]
    Refused(String),
    /// It did not answer as a certificate authority.
    #[error("its answer (HTTP status {status}) is none of cfssl's signing service: {why}; is the URL right?")]
    Answer {
        /// The HTTP status.
        status: u16,
        /// What is wrong.
        why: String,
    },
    /// It signed something else.
    #[error("the certificate that it sent is not used: {0}")]
    Certificate(String),
}

/// cfssl's signing request.
#[derive(Serialize)]
pub(crate) struct Sign<'a> {
    pub(crate) hosts: &'a [String],
    pub(crate) certificate_request: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Subject<'a>>,
    pub(crate) profile: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) extensions: &'a [Extension],
}

#[derive(Serialize)]
pub(crate) struct Subject<'a> {
    #[serde(rename = "CN")]
    common_name: &'a str,
    names: [Name<'a>; 1],
}

#[derive(Serialize)]
struct Name<'a> {
    #[serde(rename = "OU")]
    unit: &'a str,
    #[serde(rename = "O")]
    organisation: &'a str,
}

/// An extension, which cfssl takes from the request around the PKCS#10 request only.
#[derive(Serialize)]
pub(crate) struct Extension {
    pub(crate) id: &'static str,
    pub(crate) critical: bool,
    /// DER, in hexadecimal digits.
    pub(crate) value: &'static str,
}

/// cfssl's answer.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    result: Option<Signed>,
    errors: Option<Vec<Complaint>>,
}

#[derive(Deserialize)]
struct Signed {
    certificate: String,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// Settings of a manager's client to an authority elsewhere: shows the manager's certificate if there is one, and accepts only a
/// server whose certificate the root signed under which the authority signs.
///
/// # Errors
/// [`TlsError`] when root or identity cannot be used.
pub fn external_client_config(
    root_pem: &str,
    identity: Option<&Identity>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = versatile_client(clock)?.with_webpki_verifier(server_verifier(root_pem)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = chain_and_key(identity)?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The certificate (PEM) in an answer.
pub(crate) fn read_answer(status: u16, body: &[u8]) -> Result<String, NotSigned> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| NotSigned::Answer { status, why: "it is not the JSON of such an answer".into() })?;
    match answer.result {
        Some(signed) if answer.success && status == 200 => Ok(signed.certificate),
        _ => Err(NotSigned::Refused(complaints(answer.errors.unwrap_or_default(), status))),
    }
}

/// What it complains of, without what a terminal would take for commands.
fn complaints(errors: Vec<Complaint>, status: u16) -> String {
    let words: Vec<String> = errors.iter().map(|e| format!("{} (code {})", e.message, e.code)).collect();
    let words: String = words.join("; ").chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    if words.is_empty() { format!("it does not say why (HTTP status {status})") } else { words }
}

fn unusable(why: impl Into<String>) -> NotSigned {
    NotSigned::Certificate(why.into())
}

// === impl Signer ===

impl Signer {
    /// Who signs in this cluster now.
    ///
    /// # Errors
    /// [`InvalidRoot`] when nobody can: the key is not here, and no authority elsewhere is named.
    pub fn of(cluster: &Cluster) -> Result<Signer, InvalidRoot> {
        match ExternalAuthority::of(cluster)? {
            Some(elsewhere) => Ok(Signer::Elsewhere(elsewhere)),
            None => Authority::of(cluster).map(|authority| Signer::Here(Box::new(authority))),
        }
    }
}

// === impl ExternalAuthority ===

impl ExternalAuthority {
    /// The authorities elsewhere that sign in this cluster now, if any do.
    ///
    /// # Errors
    /// [`InvalidRoot`] when the root is none, or certificates could not be marked.
    pub fn of(cluster: &Cluster) -> Result<Option<ExternalAuthority>, InvalidRoot> {
        let root = cluster.signing_root();
        let urls: Vec<String> = cluster.external_cas_of(root).into_iter().map(|ca| ca.url.clone()).collect();
        if urls.is_empty() {
            return Ok(None);
        }
        root_certificate(&root.cert_pem)?;
        let grants = cluster.security.grants.clone();
        Ok(Some(ExternalAuthority {
            urls,
            cluster_id: cluster.id.clone(),
            root_pem: root.cert_pem.clone(),
            above_pem: above(cluster).to_owned(),
            grants: grants.ok_or_else(|| InvalidRoot("there is no key to mark certificates with".into()))?,
        }))
    }

    /// Where to ask, one after the other.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The root that it signs under, and that its own certificate must be of.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// What is asked for the key of a certificate request, which says what `grant` says. `state_index` is the log index of the
    /// state that the grant was read from. How long the certificate is valid is the authority's to decide.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn request<'a>(
        &'a self,
        state_index: u64,
        csr: &'a Csr,
        grant: &'a CertificateGrant,
    ) -> Result<SigningRequest<'a>, serde_json::Error> {
        let granted = Granted {
            cluster_id: &self.cluster_id,
            node_id: &grant.node_id,
            role: grant.role,
            public_key_der: &csr.public_key_der,
            state_index,
        };
        let word = role_word(grant.role);
        let names = [word.to_owned(), grant.node_id.to_string(), grant::name(&self.grants, &granted)];
        let body = serde_json::to_string(&Sign {
            hosts: &names,
            certificate_request: &pem_text("CERTIFICATE REQUEST", &csr.der),
            subject: Some(Subject {
                common_name: grant.node_id.as_str(),
                names: [Name { unit: word, organisation: self.cluster_id.as_str() }],
            }),
            profile: "",
            extensions: &[],
        })?;
        Ok(SigningRequest { authority: self, public_key_der: &csr.public_key_der, grant, names, body })
    }
}

// === impl SigningRequest ===

impl SigningRequest<'_> {
    /// What to send, JSON.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The chain (PEM) that the node gets, when the answer holds the certificate that was asked for: the leaf, then what leads
    /// from it to the roots that nodes trust.
    ///
    /// # Errors
    /// [`NotSigned`].
    pub fn judge(&self, status: u16, body: &[u8], now: Duration) -> Result<String, NotSigned> {
        let sent = certificates(&read_answer(status, body)?).map_err(|e| unusable(e.to_string()))?;
        // What it may send along is not used: a node's certificate is the root's own work, or it would be renewed for ever.
        let leaf = &sent[0];
        self.judge_leaf(leaf, now)?;
        Ok(format!("{}{}", pem_text("CERTIFICATE", leaf), self.authority.above_pem))
    }

    fn judge_leaf(&self, leaf: &CertificateDer<'static>, now: Duration) -> Result<(), NotSigned> {
        let cert = parse(leaf).map_err(|e| unusable(e.to_string()))?;
        if cert.public_key().raw != self.public_key_der {
            return Err(unusable("it is for another key than the one that was sent"));
        }
        let wanted = Peer {
            node_id: self.grant.node_id.clone(),
            role: self.grant.role,
            cluster_id: self.authority.cluster_id.clone(),
        };
        let said = Peer::from_certificate(leaf).map_err(|e| unusable(e.to_string()))?;
        if said != wanted {
            return Err(unusable("it names another node, role or swarm than the one that was asked for"));
        }
        let dns = dns_names(&cert).map_err(|e| unusable(e.to_string()))?;
        // Addresses, too: the request is a joiner's, and an authority may copy into the certificate what that one would like to be.
        let all = names(&cert).map_err(|e| unusable(e.to_string()))?.len();
        if all != self.names.len() || !self.names.iter().all(|name| dns.contains(&name.as_str())) {
            return Err(unusable(format!(
                "its names are not the ones that were asked for ({}); the authority's policy must allow them",
                self.names.join(", ")
            )));
        }
        judge_times(validity(&cert), now)?;
        let root = root_certificate(&self.authority.root_pem).map_err(|e| unusable(e.to_string()))?;
        let internal = |e: TlsError| unusable(e.to_string());
        let verified = match accepts(std::slice::from_ref(&root), std::slice::from_ref(leaf), now).map_err(internal)? {
            Ok(()) => serves(&self.authority.root_pem, leaf, &self.names[0], now).map_err(internal)?,
            refused => refused,
        };
        verified.map_err(|e| {
            unusable(format!("it is none that the swarm's root signed for clients and servers of its own kind: {e}"))
        })
    }
}

fn judge_times((from, until): (Duration, Duration), now: Duration) -> Result<(), NotSigned> {
    if from > now + AHEAD_MAX {
        return Err(unusable(format!(
            "it is not valid before {}; this node's clock shows {}",
            clock_text(from),
            clock_text(now)
        )));
    }
    if until < now + NODE_CERT_EXPIRY_MIN {
        return Err(unusable(format!(
            "it is valid until {} only, for less than an hour; this node's clock shows {}",
            clock_text(until),
            clock_text(now)
        )));
    }
    Ok(())
}
