//! What `POST /swarm/update` asks of the certificate authority: `Spec.CAConfig`. The rules are SwarmKit's
//! (controlapi/ca_rotation.go).

use crate::swarm::{NewRoot, SwarmError};
use crate::{Api, cluster};
use docker_api::{CaConfig, Failure, TlsInfo};
use model::{Cluster, ClusterSpec, GrantKey, NodeTls};
use seams::Rand;

/// A root certificate or key that is longer than this is none.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// What the sent configuration asks for beyond the validity of certificates.
fn wanted(sent: &CaConfig, cluster: &Cluster) -> Result<Option<NewRoot>, Failure> {
    let (cert_pem, key_pem) = (sent.signing_ca_cert.trim(), sent.signing_ca_key.0.trim());
    if cert_pem.is_empty() && !key_pem.is_empty() {
        return Err(Failure::invalid("if a signing CA key is provided, the signing CA cert must also be provided"));
    }
    if cert_pem.len().max(key_pem.len()) > PEM_BYTES_MAX {
        return Err(Failure::invalid(format_args!("a CA certificate or key has at most {PEM_BYTES_MAX} bytes")));
    }
    match (cert_pem.is_empty(), key_pem.is_empty()) {
        (false, true) => Ok(Some(NewRoot::Elsewhere { cert_pem: cert_pem.to_owned() })),
        (false, false) => Ok(Some(NewRoot::Given { cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() })),
        // What is left out (or zero) stays as it was.
        (true, _) if sent.force_rotate == 0 || sent.force_rotate == cluster.security.force_rotate => Ok(None),
        (true, _) => Ok(Some(NewRoot::Generated)),
    }
}

/// Carries out what `sent` asks of the authority. `cluster` has the new spec already; `before` is the one of before.
pub(crate) async fn follow(
    api: &Api,
    sent: &CaConfig,
    before: &ClusterSpec,
    mut cluster: Cluster,
) -> Result<Cluster, Failure> {
    let expiry = std::mem::replace(&mut cluster.spec.node_cert_expiry, before.node_cert_expiry);
    cluster.set_node_cert_expiry(expiry, api.now());
    if !cluster.spec.external_cas.is_empty() && cluster.security.grants.is_none() {
        cluster.security.grants = Some(grant_key(&*api.deps().seams.rand));
    }
    let refused = |e| match e {
        SwarmError::Invalid(why) => Failure::invalid(why),
        e => cluster::swarm_failure(e),
    };
    let swarm = &api.deps().swarm;
    let Some(new_root) = wanted(sent, &cluster)? else {
        // SwarmKit looks at every update; what is as it was may be unreachable just now.
        if cluster.spec.external_cas != before.external_cas {
            swarm.check_external_cas(&cluster).await.map_err(refused)?;
        }
        return Ok(cluster);
    };
    let mut cluster = swarm.begin_rotation(&cluster, new_root).await.map_err(refused)?;
    if sent.force_rotate != 0 {
        cluster.security.force_rotate = sent.force_rotate;
    }
    Ok(cluster)
}

/// What managers mark certificates with from the first authority elsewhere on.
fn grant_key(rand: &dyn Rand) -> GrantKey {
    let mut key = [0; 32];
    rand.fill(&mut key);
    GrantKey { key, required: false }
}

/// A new cluster makes its own root; another one is a rotation later.
pub(crate) fn refuse_at_init(sent: &CaConfig) -> Result<(), Failure> {
    if sent.signing_ca_cert.is_empty() && sent.signing_ca_key.0.is_empty() && sent.force_rotate == 0 {
        return Ok(());
    }
    Err(Failure::bad_request(
        "CAConfig.SigningCACert, SigningCAKey and ForceRotate are not taken by init: a new swarm makes its own root; rotate it \
         afterwards (`swarm ca --rotate --ca-cert --ca-key`)",
    ))
}

/// What a node said of its certificate, in Docker's form; empty when it said nothing.
pub(crate) fn node_tls(tls: Option<&NodeTls>) -> TlsInfo {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    tls.map_or_else(TlsInfo::default, |t| TlsInfo {
        trust_root: t.trust_root_pem.clone(),
        cert_issuer_subject: base64.encode(&t.issuer_subject_der),
        cert_issuer_public_key: base64.encode(&t.issuer_public_key_der),
    })
}
