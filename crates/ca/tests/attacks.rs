//! Attacks on join tokens and on the API's TLS, named after the points of the attack list.

use model::{Cluster, ExtraToken, JoinTokens, Meta, Role, RootCa, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use seams::Clock;
use seams::real::OsRand;
use std::sync::Arc;
use std::time::Duration;
use swarmlite_ca::{
    ApiCertificate, ApiRight, Authority, CertificateGrant, Csr, JoinToken, NodeKey, NotAdmitted, admit,
    api_certificate, api_server_config, generate_join_tokens, generate_root, token_digest,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// November 2023; what rcgen makes is valid from 1975 on.
const NOW: Duration = Duration::from_secs(1_700_000_000);

struct At(Duration);

impl Clock for At {
    fn unix_now(&self) -> Duration {
        self.0
    }
}

// --- tokens ---

fn cluster(root: &RootCa, tokens: JoinTokens) -> Cluster {
    Cluster {
        id: "c".repeat(25).parse().unwrap(),
        meta: Meta::default(),
        spec: Default::default(),
        root_ca: root.clone(),
        join_tokens: tokens,
        gossip_keys: Vec::new(),
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        removed_nodes: Default::default(),
        security: Default::default(),
    }
}

fn extra(text: &str, role: Role) -> ExtraToken {
    ExtraToken {
        role,
        digest: token_digest(text),
        created_at: Timestamp(1),
        expires_at: None,
        uses_left: None,
        labels: Default::default(),
        root_digest: String::new(),
    }
}

#[test]
fn attack_01_no_part_of_a_token_admits_and_every_wrong_one_is_refused_alike() {
    let root = generate_root(NOW, &OsRand).unwrap();
    let tokens = generate_join_tokens(&root.cert_pem, &OsRand);
    let mut cluster = cluster(&root, tokens.clone());
    let made = JoinToken::generate(&root.cert_pem, &OsRand).to_string();
    cluster.security.tokens.insert("made".into(), extra(&made, Role::Worker));
    for whole in [&tokens.worker, &tokens.manager, &made] {
        for end in 0..whole.len() {
            assert_eq!(admit(&whole[..end], &cluster, Timestamp(2)), Err(NotAdmitted::Wrong));
            let flipped: String = whole.char_indices().map(|(i, c)| if i == end { '~' } else { c }).collect();
            assert_eq!(admit(&flipped, &cluster, Timestamp(2)), Err(NotAdmitted::Wrong));
        }
        admit(whole, &cluster, Timestamp(2)).unwrap();
    }
    // What is stored of a token is no token.
    let stored: String = token_digest(&made).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(admit(&stored, &cluster, Timestamp(2)), Err(NotAdmitted::Wrong));
}

#[test]
fn attack_02_a_token_gives_its_own_role_and_labels() {
    let root = generate_root(NOW, &OsRand).unwrap();
    let tokens = generate_join_tokens(&root.cert_pem, &OsRand);
    let mut cluster = cluster(&root, tokens.clone());
    let made = JoinToken::generate(&root.cert_pem, &OsRand).to_string();
    let labels = [("zone".to_owned(), "a".to_owned())].into();
    cluster.security.tokens.insert("made".into(), ExtraToken { labels, ..extra(&made, Role::Worker) });
    let role = |token: &str| admit(token, &cluster, Timestamp(2)).unwrap().role;
    assert_eq!((role(&tokens.worker), role(&tokens.manager), role(&made)), (Role::Worker, Role::Manager, Role::Worker));
    let grant = admit(&made, &cluster, Timestamp(2)).unwrap();
    assert_eq!((grant.token_id.as_deref(), grant.labels["zone"].as_str()), (Some("made"), "a"));
}

#[test]
fn attack_03_an_end_is_an_end() {
    let root = generate_root(NOW, &OsRand).unwrap();
    let mut cluster = cluster(&root, generate_join_tokens(&root.cert_pem, &OsRand));
    let made = JoinToken::generate(&root.cert_pem, &OsRand).to_string();
    let token = ExtraToken { expires_at: Some(Timestamp(10)), uses_left: Some(1), ..extra(&made, Role::Worker) };
    cluster.security.tokens.insert("made".into(), token);
    let at = |cluster: &Cluster, now| admit(&made, cluster, Timestamp(now)).map(|grant| grant.role);
    assert_eq!((at(&cluster, 9), at(&cluster, 10)), (Ok(Role::Worker), Err(NotAdmitted::Expired)));
    cluster.security.tokens.get_mut("made").unwrap().uses_left = Some(0);
    assert_eq!(at(&cluster, 9), Err(NotAdmitted::UsedUp));
    cluster.security.forget_old_tokens(Timestamp(9));
    assert_eq!(at(&cluster, 9), Err(NotAdmitted::Wrong));
}

#[test]
fn attack_05_a_token_of_another_cluster_stops_the_joiner() {
    let (ours, theirs) = (generate_root(NOW, &OsRand).unwrap(), generate_root(NOW, &OsRand).unwrap());
    let token: JoinToken = generate_join_tokens(&ours.cert_pem, &OsRand).worker.parse().unwrap();
    token.check_root(&ours.cert_pem).unwrap();
    for root in [theirs.cert_pem.as_str(), "", &format!("{} ", ours.cert_pem), ours.cert_pem.trim_end()] {
        let refused = token.check_root(root).unwrap_err().to_string();
        assert!(refused.starts_with("remote CA does not match fingerprint") && refused.contains("nothing was sent"));
    }
}

// --- the API's TLS ---

/// An authority of an operator's.
struct Operator {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, PEM.
struct Credentials {
    cert: String,
    key: String,
}

impl Operator {
    fn new() -> Operator {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an operator's authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Operator { pem, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str, units: &[&str], until_year: i32) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        units.iter().for_each(|unit| params.distinguished_name.push(DnType::OrganizationalUnitName, *unit));
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        Credentials { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// A handshake: what the server makes of the client's certificate, or which side said what.
async fn handshake(
    operator: &Operator,
    client: Option<&Credentials>,
    version: &'static SupportedProtocolVersion,
) -> Result<ApiCertificate, String> {
    let own = operator.sign("api.example", &[], 2100);
    let config = api_server_config(&operator.pem, &own.cert, &own.key, Arc::new(At(NOW))).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(operator.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let builder = builder.with_root_certificates(roots);
    let config_of_client = match client {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let chain = CertificateDer::pem_slice_iter(shown.cert.as_bytes()).map(Result::unwrap).collect();
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap()).unwrap()
        }
    };
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("api.example").unwrap();
    let connector = TlsConnector::from(Arc::new(config_of_client));
    let (server, _client) = tokio::join!(TlsAcceptor::from(config).accept(near), connector.connect(name, far));
    let server = server.map_err(|e| e.to_string())?;
    let leaf = server.get_ref().1.peer_certificates().and_then(|chain| chain.first()).expect("a certificate");
    api_certificate(leaf).map_err(|e| e.to_string())
}

#[tokio::test]
async fn attack_29_without_a_certificate_of_the_right_authority_there_is_no_connection() {
    let (operator, stranger) = (Operator::new(), Operator::new());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let admin = handshake(&operator, Some(&operator.sign("ada", &["ops"], 2100)), version).await.unwrap();
        assert_eq!((admin.right, admin.name.as_str()), (ApiRight::Admin, "ada"));
        assert!(admin.expires_at > NOW);
        let viewer = handshake(&operator, Some(&operator.sign("bob", &["ops", "swarmlite-viewer"], 2100)), version)
            .await
            .unwrap();
        assert_eq!(viewer.right, ApiRight::Viewer);
        for (what, shown) in [
            ("none", None),
            ("another authority's", Some(stranger.sign("ada", &[], 2100))),
            ("expired", Some(operator.sign("ada", &[], 2020))),
        ] {
            let refused = handshake(&operator, shown.as_ref(), version).await;
            assert!(refused.is_err(), "{what}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn attack_29_a_nodes_certificate_is_no_key_to_the_api_even_where_the_swarms_root_is_its_authority() {
    // The mistake of an operator: the swarm's root as --api-tls-ca.
    let root = generate_root(NOW, &OsRand).unwrap();
    let key = NodeKey::generate().unwrap();
    let csr = Csr::parse(&key.csr_pem().unwrap()).unwrap();
    let authority = Authority::new(&root, "c".repeat(25).parse().unwrap()).unwrap();
    for role in [Role::Worker, Role::Manager] {
        let grant =
            CertificateGrant { node_id: "n".repeat(25).parse().unwrap(), role, expiry: Duration::from_secs(7200) };
        let chain = authority.issue(&csr, &grant, NOW, &OsRand).unwrap();
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        let refused = api_certificate(&leaf).unwrap_err().to_string();
        assert!(refused.contains("is a swarm node's"), "{refused}");
    }
}

#[test]
fn files_that_the_api_cannot_be_served_with_say_which_and_why() {
    let operator = Operator::new();
    let own = operator.sign("api.example", &[], 2100);
    let other = operator.sign("other.example", &[], 2100);
    let config = |ca: &str, cert: &str, key: &str| {
        api_server_config(ca, cert, key, Arc::new(At(NOW))).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(config(&operator.pem, &own.cert, &own.key), Ok(()));
    for (bad, part) in [
        (config("", &own.cert, &own.key), "the certificate authority is of no use: it holds no certificate"),
        (config(&own.key, &own.cert, &own.key), "the certificate authority is of no use"),
        (config(&operator.pem, "", &own.key), "the certificate is of no use"),
        (config(&operator.pem, &own.cert, &own.cert), "the key is of no use"),
        (config(&operator.pem, &own.cert, &other.key), "certificate and key are of no use together"),
        (config(&"x".repeat(2 << 20), &own.cert, &own.key), "it is longer than 1024 KiB"),
    ] {
        let text = bad.unwrap_err();
        assert!(text.starts_with(part) || text.contains(part), "{text}");
        assert!(!text.contains("PRIVATE"), "{text}");
    }
}
