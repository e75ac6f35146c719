//! Changing the root: taking one that a user brings, and making the old root vouch for the new one.

use crate::authority::{Authority, CertificateGrant, InvalidRoot, IssueError, root_certificate, serial};
use crate::csr::{Csr, InvalidCsr, KeyError, NodeKey};
use crate::encoding::{certificates, single};
use crate::external::{Extension, Sign, read_answer};
use crate::peer::{parse, validity};
use crate::root::root_certificates;
use crate::times::clock_text;
use crate::tls::{TlsError, accepts};
use model::{ClusterId, NodeId, Role, RootCa};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SubjectPublicKeyInfo,
};
use seams::Rand;
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::asn1_rs::Tag;
use x509_parser::x509::X509Name;

/// A root that a user brings must be valid for so long (SwarmKit controlapi/ca_rotation.go `minRootExpiration`).
const VALIDITY_MIN: Duration = Duration::from_secs(365 * 24 * 3600);

/// The profile that an authority elsewhere signs other authorities under (SwarmKit `ExternalCrossSignProfile`).
const CROSS_SIGN_PROFILE: &str = "CA";
/// `basicConstraints`: an authority.
const IS_CA: Extension = Extension { id: "2.5.29.19", critical: true, value: "30030101ff" };

/// A root certificate and key that the cluster will not sign with. The texts are SwarmKit's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum RejectedRoot {
    /// The text is more than one certificate.
    #[error("the desired CA certificate cannot contain multiple certificates")]
    Several,
    /// The text is no certificate.
    #[error("could not parse the desired CA certificate: {0}")]
    Certificate(String),
    /// The key cannot be read.
    #[error(
        "the CA key cannot be used: it must be one unencrypted PKCS#8 key (`-----BEGIN PRIVATE KEY-----`), ECDSA P-256 or \
         P-384, Ed25519 or RSA; `openssl pkcs8 -topk8 -nocrypt -in KEY` makes one of other forms"
    )]
    Key,
    /// It ends within a year.
    #[error("CA certificate expires too soon")]
    Expires,
    /// It is not valid yet.
    #[error("the CA certificate is valid from {from} on only; this node's clock shows {now}")]
    NotYet {
        /// Its begin.
        from: String,
        /// The clock.
        now: String,
    },
    /// Certificate and key are no authority together.
    #[error(transparent)]
    Root(#[from] InvalidRoot),
    /// Its subject has a form that cannot be written into other certificates byte by byte.
    #[error(
        "the CA certificate's subject cannot be used: each part of it must be there once, alone, and in UTF-8, printable or \
         IA5 characters"
    )]
    Subject,
    /// A certificate that it signed was not accepted.
    #[error("certificates that the CA signs would not be accepted: {0}")]
    Unusable(String),
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// No key for the trial could be made.
    #[error(transparent)]
    TrialKey(#[from] KeyError),
    /// The trial's request could not be read.
    #[error(transparent)]
    TrialCsr(#[from] InvalidCsr),
    /// TLS could not be set up for the trial.
    #[error(transparent)]
    TrialTls(#[from] TlsError),
}

/// Takes a root certificate and key (PEM) that a user brings, when nodes will accept what they sign. The text around the PEM
/// blocks is left out.
///
/// # Errors
/// [`RejectedRoot`].
pub fn accept_root(cert_pem: &str, key_pem: &str, now: Duration, rand: &dyn Rand) -> Result<RootCa, RejectedRoot> {
    let cert_pem = accept_root_certificate(cert_pem, now)?;
    let key = single(key_pem, "PRIVATE KEY").map_err(|_| RejectedRoot::Key)?;
    let key_pem = pem_text("PRIVATE KEY", &key);
    KeyPair::from_pem(&key_pem).map_err(|_| RejectedRoot::Key)?;
    let root = RootCa { cert_pem, key_pem };
    try_out(&root, None, &root.cert_pem, now, rand)?;
    Ok(root)
}

/// Takes a root certificate (PEM) that a user brings, whose key is an authority's elsewhere.
///
/// # Errors
/// [`RejectedRoot`].
pub fn accept_root_certificate(cert_pem: &str, now: Duration) -> Result<String, RejectedRoot> {
    let found = certificates(cert_pem).map_err(|e| RejectedRoot::Certificate(e.to_string()))?;
    if found.len() > 1 {
        return Err(RejectedRoot::Several);
    }
    let cert_pem = pem_text("CERTIFICATE", &found[0]);
    let cert = parse(&found[0]).map_err(|e| RejectedRoot::Certificate(e.to_string()))?;
    let (from, until) = validity(&cert);
    if until < now.saturating_add(VALIDITY_MIN) {
        return Err(RejectedRoot::Expires);
    }
    if from > now {
        return Err(RejectedRoot::NotYet { from: clock_text(from), now: clock_text(now) });
    }
    root_certificate(&cert_pem)?;
    Ok(cert_pem)
}

/// The new root's name and key in a certificate (PEM) that the old root signed: with it, whoever trusts only the old root
/// accepts what the new one signs.
///
/// # Errors
/// [`RejectedRoot`] when either is unusable.
pub fn cross_sign(new: &RootCa, old: &RootCa, now: Duration, rand: &dyn Rand) -> Result<String, RejectedRoot> {
    let new_der = root_certificate(&new.cert_pem)?;
    let new_cert = parse(&new_der).map_err(|e| RejectedRoot::Certificate(e.to_string()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = same_name(new_cert.subject()).ok_or(RejectedRoot::Subject)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial(rand));
    let at = |t: i64| OffsetDateTime::from_unix_timestamp(t).map_err(|_| IssueError::Clock(now.as_secs()));
    let valid = new_cert.validity();
    (params.not_before, params.not_after) = (at(valid.not_before.timestamp())?, at(valid.not_after.timestamp())?);

    let old_der = root_certificate(&old.cert_pem)?;
    let old_key = KeyPair::from_pem(&old.key_pem).map_err(|_| InvalidRoot("the key cannot be read".into()))?;
    let issuer = Issuer::from_ca_cert_der(&old_der, old_key).map_err(|e| InvalidRoot(e.to_string()))?;
    let key = SubjectPublicKeyInfo::from_der(new_cert.public_key().raw).map_err(IssueError::Signing)?;
    let crossed = params.signed_by(&key, &issuer).map_err(IssueError::Signing)?;
    let crossed_cert = parse(crossed.der()).map_err(|e| RejectedRoot::Certificate(e.to_string()))?;
    if crossed_cert.subject().as_raw() != new_cert.subject().as_raw() {
        return Err(RejectedRoot::Subject);
    }
    let crossed_pem = crossed.pem();
    if new.has_key() {
        try_out(new, Some(&crossed_pem), &old.cert_pem, now, rand)?;
    }
    Ok(crossed_pem)
}

/// What an authority elsewhere is asked that has the old root's key, so that it vouches for the new root (SwarmKit
/// `CrossSignRootCA`): JSON. The new root's key must be here.
///
/// # Errors
/// [`RejectedRoot`] when the new root is unusable.
pub fn cross_sign_request(new: &RootCa) -> Result<String, RejectedRoot> {
    let new_der = root_certificate(&new.cert_pem)?;
    let new_cert = parse(&new_der).map_err(|e| RejectedRoot::Certificate(e.to_string()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = same_name(new_cert.subject()).ok_or(RejectedRoot::Subject)?;
    let key = KeyPair::from_pem(&new.key_pem).map_err(|_| RejectedRoot::Key)?;
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(IssueError::Signing)?;
    let request = Sign {
        hosts: &[],
        certificate_request: &csr,
        // The PKCS#10 request's own.
        subject: None,
        profile: CROSS_SIGN_PROFILE,
        extensions: &[IS_CA],
    };
    serde_json::to_string(&request).map_err(|e| RejectedRoot::Unusable(e.to_string()))
}

/// What [`cross_sign`] gives, from the answer to [`cross_sign_request`].
///
/// # Errors
/// [`RejectedRoot`] when the answer is another one, or the certificate in it does not do what it is for.
pub fn cross_signed(
    new: &RootCa,
    old: &RootCa,
    (status, body): (u16, &[u8]),
    now: Duration,
    rand: &dyn Rand,
) -> Result<String, RejectedRoot> {
    let unusable = |e: &dyn std::fmt::Display| RejectedRoot::Unusable(e.to_string());
    let sent = certificates(&read_answer(status, body).map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
    let new_der = root_certificate(&new.cert_pem)?;
    let new_cert = parse(&new_der).map_err(|e| unusable(&e))?;
    let crossed = parse(&sent[0]).map_err(|e| unusable(&e))?;
    let same = crossed.subject().as_raw() == new_cert.subject().as_raw()
        && crossed.public_key().raw == new_cert.public_key().raw;
    if !same {
        return Err(RejectedRoot::Unusable(
            "the certificate that vouches for the new root has another subject or key".into(),
        ));
    }
    let crossed_pem = pem_text("CERTIFICATE", &sent[0]);
    try_out(new, Some(&crossed_pem), &old.cert_pem, now, rand)?;
    Ok(crossed_pem)
}

/// Lets a root sign a certificate and judges it as a node that trusts `trusted_pem` would.
fn try_out(
    root: &RootCa,
    above_pem: Option<&str>,
    trusted_pem: &str,
    now: Duration,
    rand: &dyn Rand,
) -> Result<(), RejectedRoot> {
    // Any ids: the certificate is thrown away.
    let (cluster, node): (ClusterId, NodeId) = match ("0".repeat(25).parse(), "0".repeat(25).parse()) {
        (Ok(cluster), Ok(node)) => (cluster, node),
        _ => return Err(RejectedRoot::Unusable("no trial is possible".into())),
    };
    let csr = Csr::parse(&NodeKey::generate()?.csr_pem()?)?;
    let grant = CertificateGrant { node_id: node, role: Role::Manager, expiry: crate::NODE_CERT_EXPIRY_MIN };
    let leaf = Authority::new(root, cluster)?.issue(&csr, &grant, now, rand)?;
    let mut chain = certificates(&leaf).map_err(|e| RejectedRoot::Unusable(e.to_string()))?;
    chain.truncate(1);
    if let Some(above) = above_pem {
        chain.extend(certificates(above).map_err(|e| RejectedRoot::Unusable(e.to_string()))?);
    }
    accepts(&root_certificates(trusted_pem)?, &chain, now)?.map_err(|e| RejectedRoot::Unusable(e.to_string()))
}

pub(crate) fn pem_text(tag: &str, der: &[u8]) -> String {
    pem::encode_config(&pem::Pem::new(tag, der), pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

/// A name, to be written again; `None` when it has a form that would come out differently.
fn same_name(name: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut same = DistinguishedName::new();
    for part in name.iter() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else { return None };
        let oid: Vec<u64> = attribute.attr_type().iter()?.collect();
        let text = std::str::from_utf8(attribute.attr_value().data).ok()?;
        let value = match attribute.attr_value().header.tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().ok()?),
            _ => return None,
        };
        same.push(DnType::from_oid(&oid), value);
    }
    Some(same)
}
