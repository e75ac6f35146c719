//! A change of the root, seen from both ends of a connection, and certificates that must not open one.

mod common;

use common::{At, HOUR, NOW, id, issue, root, shake};
use model::{Cluster, ClusterSpec, Meta, Role, RootCa, RootRotation, Timestamp};
use seams::Clock;
use seams::real::OsRand;
use std::sync::Arc;
use std::time::Duration;
use swarmlite_ca::{
    Authority, CertificateGrant, Csr, ExpectedServer, Identity, Issued, NodeKey, accept_root, anonymous_client_config,
    client_config, cross_sign, generate_join_tokens, server_config, still_trusts, time_error,
};

fn cluster(root_ca: RootCa) -> Cluster {
    Cluster {
        id: id('c'),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        join_tokens: generate_join_tokens(&root_ca.cert_pem, &OsRand),
        root_ca,
        gossip_keys: Vec::new(),
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        removed_nodes: Default::default(),
        security: Default::default(),
    }
}

fn rotating(mut cluster: Cluster, new: RootCa) -> Cluster {
    let cross_signed_pem = cross_sign(&new, &cluster.root_ca, NOW, &OsRand).unwrap();
    cluster.security.root_rotation = Some(RootRotation { new, cross_signed_pem, started_at: Timestamp(1) });
    cluster
}

fn identity_of(cluster: &Cluster, node: char, role: Role) -> Identity {
    let key = NodeKey::generate().unwrap();
    let csr = Csr::parse(&key.csr_pem().unwrap()).unwrap();
    let grant = CertificateGrant { node_id: id(node), role, expiry: 2 * HOUR };
    let chain = Authority::of(cluster).unwrap().issue_from(77, &csr, &grant, NOW, &OsRand).unwrap();
    Identity::new(chain, key.key_pem(), cluster.trusted_roots_pem()).unwrap()
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(At(NOW))
}

async fn meet(client: &Identity, server: &Identity) -> bool {
    let client = client_config(client, clock(), &ExpectedServer::AnyManager).unwrap();
    shake(server_config(server, clock()).unwrap(), client).await.is_ok()
}

#[tokio::test]
async fn before_during_and_after_a_change_of_the_root_neighbours_understand_each_other() {
    let before = cluster(root());
    let during = rotating(before.clone(), root());
    let mut after = cluster(during.signing_root().clone());
    after.root_ca = during.signing_root().clone();

    let old = identity_of(&before, 'o', Role::Manager);
    let told = old.with_trust(during.trusted_roots_pem()).unwrap();
    let moved = identity_of(&during, 'n', Role::Manager);
    let done = moved.with_trust(after.trusted_roots_pem()).unwrap();
    let newcomer = identity_of(&after, 'x', Role::Manager);
    for (what, a, b, expected) in [
        ("nobody has heard of it", &old, &old, true),
        ("one has moved before the other has heard of it", &old, &moved, true),
        ("one has moved, the other has been told", &told, &moved, true),
        ("both have moved", &moved, &moved, true),
        ("one has finished", &moved, &done, true),
        ("one came after it", &done, &newcomer, true),
        ("one came after it, the other has not heard of the end", &moved, &newcomer, true),
        ("the old root is not trusted any more", &done, &told, false),
    ] {
        assert_eq!(meet(a, b).await, expected, "{what}");
        assert_eq!(meet(b, a).await, expected, "{what}, the other way");
    }
    // A joiner knows the root of its token only.
    let joiner = |root: &RootCa| anonymous_client_config(&root.cert_pem, clock()).unwrap();
    let served_by = |identity: &Identity| server_config(identity, clock()).unwrap();
    assert!(shake(served_by(&moved), joiner(&before.root_ca)).await.is_ok());
    assert!(shake(served_by(&done), joiner(&after.root_ca)).await.is_ok());
    assert!(shake(served_by(&newcomer), joiner(&before.root_ca)).await.is_err());

    // What a node says of itself.
    assert_eq!(moved.issuer(), &swarmlite_ca::describe_root(&during.signing_root().cert_pem).unwrap());
    assert_eq!(moved.issuer(), done.issuer());
    assert_ne!(moved.issuer(), told.issuer());
    assert_eq!(done.tls().trust_root_pem, after.root_ca.cert_pem);
    assert_eq!(moved.state_index(), 77);
}

#[tokio::test]
async fn attack_08_a_certificate_of_the_old_root_opens_nothing_after_the_change() {
    let before = cluster(root());
    let during = rotating(before.clone(), root());
    let after = cluster(during.signing_root().clone());
    let stale = identity_of(&before, 'o', Role::Manager);
    let server = identity_of(&after, 'm', Role::Manager);
    // Its holder may trust whatever it likes.
    let lenient =
        Identity::new(stale.cert_chain_pem.clone(), stale.key_pem.clone(), during.trusted_roots_pem()).unwrap();
    assert!(!meet(&lenient, &server).await);

    // A connection that stood is judged again.
    let chain = |identity: &Identity| -> Vec<_> {
        let pems = pem::parse_many(&identity.cert_chain_pem).unwrap();
        pems.into_iter().map(|p| rustls_pki_types::CertificateDer::from(p.into_contents())).collect()
    };
    let serving = identity_of(&during, 'm', Role::Manager);
    assert!(still_trusts(&serving, &chain(&stale), NOW));
    let finished = serving.with_trust(after.trusted_roots_pem()).unwrap();
    assert!(!still_trusts(&finished, &chain(&stale), NOW));
    assert!(still_trusts(&finished, &chain(&serving), NOW));
    assert!(!still_trusts(&finished, &[], NOW));
}

#[tokio::test]
async fn attack_08_expired_foreign_and_misplaced_certificates_shake_no_hands() {
    let (root, foreign_root) = (root(), root());
    let server = |identity: &Identity| server_config(identity, clock()).unwrap();
    let client = |identity: &Identity, at: Duration| {
        client_config(identity, Arc::new(At(at)), &ExpectedServer::AnyManager).unwrap()
    };
    let manager = issue(&root, 'c', 'm', Role::Manager);
    let worker = issue(&root, 'c', 'w', Role::Worker);
    assert!(shake(server(&manager), client(&worker, NOW)).await.is_ok(), "the control");
    let late = server_config(&manager, Arc::new(At(NOW + 3 * HOUR))).unwrap();
    for (what, server, client) in [
        ("expired by the server's clock", late, client(&worker, NOW)),
        ("expired by the client's clock", server(&manager), client(&worker, NOW + 3 * HOUR)),
        ("another root's client", server(&manager), client(&issue(&foreign_root, 'c', 'w', Role::Worker), NOW)),
        ("another cluster's server", server(&issue(&root, 'd', 'm', Role::Manager)), client(&worker, NOW)),
        ("a worker as server", server(&worker), client(&manager, NOW)),
    ] {
        assert!(shake(server, client).await.is_err(), "{what}");
    }
}

#[tokio::test]
async fn clocks_that_differ_are_told_with_both_times() {
    let root = root();
    let (manager, worker) = (issue(&root, 'c', 'm', Role::Manager), issue(&root, 'c', 'w', Role::Worker));
    for (at, words) in [
        (
            NOW + 3 * HOUR,
            "the certificate of m has expired at 2027-01-15T10:00:00Z; this node's clock shows 2027-01-15T11:00:00Z",
        ),
        (
            NOW - 2 * HOUR,
            "the certificate of m is not valid before 2027-01-15T07:00:00Z; this node's clock shows 2027-01-15T06:00:00Z",
        ),
    ] {
        let server = server_config(&manager, clock()).unwrap();
        let client = client_config(&worker, Arc::new(At(at)), &ExpectedServer::AnyManager).unwrap();
        let error = shake(server, client).await.unwrap_err();
        let rustls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()).expect("rustls said it");
        let text = time_error(rustls, "m").unwrap();
        assert!(text.starts_with(words), "{text}");
    }
}

#[tokio::test]
async fn attack_09_self_signed_wrongly_named_and_older_handshakes_fail() {
    let root = root();
    let manager = issue(&root, 'c', 'm', Role::Manager);
    let worker = issue(&root, 'c', 'w', Role::Worker);
    let any = ExpectedServer::AnyManager;
    let client = client_config(&worker, clock(), &any).unwrap();

    // Self-signed, with all the right words in it, at either end.
    let own = RootCa { ..common::root() };
    let forged = issue(&own, 'c', 'm', Role::Manager);
    assert!(shake(server_config(&forged, clock()).unwrap(), client.clone()).await.is_err());
    let forged_client = client_config(&forged, clock(), &any).unwrap();
    assert!(shake(server_config(&manager, clock()).unwrap(), forged_client).await.is_err());

    // Signed by the root, but for another name: whoever is no manager has not the manager's name.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let der = pem::parse(&root.cert_pem).unwrap().into_contents();
    roots.add(rustls_pki_types::CertificateDer::from(der)).unwrap();
    let plain = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let config =
            rustls::ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
        Arc::new(config.with_root_certificates(roots.clone()).with_no_client_auth())
    };
    let named = shake(server_config(&worker, clock()).unwrap(), client).await;
    let text = named.unwrap_err().to_string();
    assert!(text.contains("not valid for name \"swarm-manager\""), "the name is what was wrong: {text}");
    let old = shake(server_config(&manager, clock()).unwrap(), plain(&[&rustls::version::TLS12])).await;
    let text = old.unwrap_err().to_string();
    assert!(text.contains("ProtocolVersion") || text.contains("protocol"), "{text}");
}

#[test]
fn attack_13_a_request_gets_nothing_into_the_certificate_but_its_key() {
    let cluster = cluster(root());
    let authority = Authority::of(&cluster).unwrap();
    let grant = CertificateGrant { node_id: id('w'), role: Role::Worker, expiry: 2 * HOUR };
    // A request that wants to be a manager, an authority, and valid for ever.
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut wish = rcgen::CertificateParams::new(vec!["swarm-manager".to_owned()]).unwrap();
    for (kind, value) in [
        (rcgen::DnType::OrganizationalUnitName, "swarm-manager".to_owned()),
        (rcgen::DnType::CommonName, "m".repeat(25)),
        (rcgen::DnType::OrganizationName, "d".repeat(25)),
    ] {
        wish.distinguished_name.push(kind, value);
    }
    wish.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = wish.serialize_request(&key).unwrap().pem().unwrap();
    let chain = authority.issue_from(9, &Csr::parse(&request).unwrap(), &grant, NOW, &OsRand).unwrap();
    let identity = Identity::new(chain, key.serialize_pem(), cluster.trusted_roots_pem()).unwrap();
    let peer = identity.peer();
    assert_eq!((peer.node_id, peer.role, peer.cluster_id), (id('w'), Role::Worker, id('c')));
    assert_eq!((identity.state_index(), identity.expiry()), (9, 2 * HOUR));

    let good = NodeKey::generate().unwrap().csr_pem().unwrap();
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let bigger = rcgen::CertificateParams::default().serialize_request(&p384).unwrap().pem().unwrap();
    for (what, bad) in [
        ("another kind of key", bigger),
        ("two requests", format!("{good}{good}")),
        ("trailing data", format!("{good}more")),
        ("a huge one", format!("{good}{}", "A".repeat(1 << 20))),
        ("nothing", String::new()),
    ] {
        assert!(Csr::parse(&bad).is_err(), "{what}");
    }
}

#[test]
fn the_state_that_granted_a_certificate_is_in_it() {
    let cluster = cluster(root());
    let csr = Csr::parse(&NodeKey::generate().unwrap().csr_pem().unwrap()).unwrap();
    let grant = CertificateGrant { node_id: id('w'), role: Role::Worker, expiry: 2 * HOUR };
    for index in [0, 1, 255, 1 << 40, u64::MAX] {
        let chain = Authority::of(&cluster).unwrap().issue_from(index, &csr, &grant, NOW, &OsRand).unwrap();
        let leaf = pem::parse_many(&chain).unwrap().remove(0).into_contents();
        let issued = Issued::of(&rustls_pki_types::CertificateDer::from(leaf)).unwrap();
        assert_eq!((issued.claimed(), issued.is_marked()), (index, false));
    }
    // A root is no node's certificate.
    let der = rustls_pki_types::CertificateDer::from(pem::parse(&cluster.root_ca.cert_pem).unwrap().into_contents());
    assert!(Issued::of(&der).is_err());
}

/// Roots as operators make them.
fn operators_root(key: &rcgen::KeyPair, subject: &[(rcgen::DnType, &str)], years: i32) -> RootCa {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    subject.iter().for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), *value));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026 + years, 1, 1);
    RootCa { cert_pem: params.self_signed(key).unwrap().pem(), key_pem: key.serialize_pem() }
}

#[tokio::test]
async fn operators_roots_of_all_kinds_sign_and_are_vouched_for() {
    let name = [(rcgen::DnType::OrganizationName, "Example Ltd"), (rcgen::DnType::CommonName, "Example CA")];
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let theirs = operators_root(&key, &name, 10);
        let around = format!("subject=Example\n{}\n", theirs.cert_pem);
        let taken = accept_root(&around, &format!("\n{}", theirs.key_pem), NOW, &OsRand).unwrap();
        assert!(taken.cert_pem.starts_with("-----BEGIN CERTIFICATE-----\n"), "{}", taken.cert_pem);
        let before = cluster(root());
        let during = rotating(before.clone(), taken);
        let (old, moved) = (identity_of(&before, 'o', Role::Manager), identity_of(&during, 'n', Role::Manager));
        assert!(meet(&old, &moved).await && meet(&moved, &old).await);
    }
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let short = operators_root(&key, &name, 1);
    assert_eq!(
        accept_root(&short.cert_pem, &short.key_pem, NOW, &OsRand).unwrap_err().to_string(),
        "CA certificate expires too soon"
    );
    let future = operators_root(&key, &name, 10);
    let early = accept_root(&future.cert_pem, &future.key_pem, Duration::from_secs(1_700_000_000), &OsRand);
    assert!(early.unwrap_err().to_string().contains("is valid from 2026-01-01T00:00:00Z on only"));
    let leaf = issue(&root(), 'c', 'w', Role::Worker);
    let pem = pem::encode(&pem::parse_many(&leaf.cert_chain_pem).unwrap()[0]);
    assert!(accept_root(&pem, &leaf.key_pem, NOW, &OsRand).is_err());
}
