//! Certificates from root to peer, identities on disk, and TLS handshakes between honest and dishonest ends.
#![allow(clippy::disallowed_methods)] // a test may look at real files

mod common;

use common::{At, HOUR, NOW, id, issue, root, shake};
use model::{NodeId, Role, RootCa};
use seams::real::{FileDisk, OsRand};
use seams::{Clock, Disk};
use std::sync::Arc;
use std::time::Duration;
use swarmlite_ca::{
    Authority, CertificateGrant, Csr, ExpectedServer, Identity, IdentityError, IssueError, KEY_FILE, NEXT_FILE,
    NODE_CERT_FILE, NodeKey, Peer, ROOT_CERT_FILE, anonymous_client_config, client_config, describe_root,
    generate_root, server_config, unverified_client_config,
};

#[test]
fn a_certificate_says_what_was_granted_and_nothing_that_was_asked() {
    let root = root();
    // A request that asks for everything.
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut wish = rcgen::CertificateParams::new(vec!["swarm-manager".to_owned()]).unwrap();
    wish.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, "swarm-manager");
    wish.distinguished_name.push(rcgen::DnType::CommonName, id::<NodeId>('m').as_str());
    wish.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = Csr::parse(&wish.serialize_request(&key).unwrap().pem().unwrap()).unwrap();
    let grant = CertificateGrant { node_id: id('w'), role: Role::Worker, expiry: 2 * HOUR };
    let chain = Authority::new(&root, id('c')).unwrap().issue(&csr, &grant, NOW, &OsRand).unwrap();

    let identity = Identity::new(chain.clone(), key.serialize_pem(), root.cert_pem.clone()).unwrap();
    assert_eq!(identity.peer(), Peer { node_id: id('w'), role: Role::Worker, cluster_id: id('c') });
    assert_eq!(identity.validity(), (NOW - HOUR, NOW + 2 * HOUR), "backdated by an hour");
    let (_, leaf) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
    let leaf = leaf.parse_x509().unwrap();
    assert!(!leaf.is_ca());
    let names = format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value.general_names);
    assert!(names.contains("swarm-worker") && names.contains(id::<NodeId>('w').as_str()), "{names}");
    assert!(!names.contains("swarm-manager"), "{names}");
    let renew = identity.renew_at(&OsRand);
    assert!(renew >= NOW + HOUR && renew <= NOW + 2 * HOUR * 8 / 10, "50-80 % of the time from issue to end");
    assert_eq!((identity.expiry(), identity.state_index()), (2 * HOUR, 0));
    assert!(!format!("{identity:?}").contains("PRIVATE"));
}

#[test]
fn the_root_lasts_twenty_years_under_its_name() {
    let pem = root().cert_pem;
    let (_, cert) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let cert = cert.parse_x509().unwrap();
    assert_eq!(cert.subject().to_string(), "CN=swarm-ca");
    assert!(cert.is_ca());
    let lasts = cert.validity().not_after.timestamp() - NOW.as_secs() as i64;
    assert_eq!(lasts, 630_720_000);

    let described = describe_root(&pem).unwrap();
    assert_eq!(described.subject_der, cert.subject().as_raw());
    assert_eq!(described.public_key_der, cert.public_key().raw);
    assert_eq!(describe_root("no root"), None);
}

#[test]
fn bad_grants_clocks_and_roots_are_refused() {
    let root = root();
    let authority = Authority::new(&root, id('c')).unwrap();
    let csr = Csr::parse(&NodeKey::generate().unwrap().csr_pem().unwrap()).unwrap();
    let grant = |expiry| CertificateGrant { node_id: id('w'), role: Role::Worker, expiry };
    let short = authority.issue(&csr, &grant(HOUR - Duration::from_secs(1)), NOW, &OsRand);
    assert!(matches!(short, Err(IssueError::Expiry(_))));
    let absurd = authority.issue(&csr, &grant(HOUR), Duration::MAX, &OsRand);
    assert!(matches!(absurd, Err(IssueError::Clock(_))));

    let other = generate_root(NOW, &OsRand).unwrap();
    let mixed = RootCa { cert_pem: root.cert_pem.clone(), key_pem: other.key_pem.clone() };
    assert!(Authority::new(&mixed, id('c')).unwrap_err().to_string().contains("not the certificate's"));
    let leaf = issue(&root, 'c', 'w', Role::Worker);
    for cert_pem in [String::new(), leaf.cert_chain_pem.clone(), format!("{0}{0}", root.cert_pem)] {
        assert!(Authority::new(&RootCa { cert_pem, key_pem: root.key_pem.clone() }, id('c')).is_err());
    }
    assert!(Identity::new(leaf.cert_chain_pem.clone(), leaf.key_pem.clone(), other.cert_pem).is_err(), "other root");
    let stranger = issue(&root, 'c', 'x', Role::Worker);
    assert!(Identity::new(leaf.cert_chain_pem, stranger.key_pem, root.cert_pem).is_err(), "other key");
}

#[tokio::test]
async fn an_identity_survives_the_disk_and_a_crash_at_any_step_of_a_renewal() {
    let dir = tempfile::tempdir().unwrap();
    let root = root();
    assert_eq!(Identity::load(&FileDisk, dir.path()).await.unwrap(), None);
    let old = issue(&root, 'c', 'w', Role::Worker);
    old.save(&FileDisk, dir.path()).await.unwrap();
    assert_eq!(Identity::load(&FileDisk, dir.path()).await.unwrap(), Some(old.clone()));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // A renewal during a change of the root: all three files are others. Wherever the crash comes, it is one or the other.
    let next_root = generate_root(NOW, &OsRand).unwrap();
    let new = issue(&next_root, 'c', 'w', Role::Manager);
    let whole = {
        let log = Writes::default();
        new.save(&log, dir.path()).await.unwrap();
        log.0.into_inner().unwrap()
    };
    assert_eq!(whole.len(), 5, "four writes, and the last step removes what the first one wrote");
    for done in 0..=whole.len() {
        let dir = tempfile::tempdir().unwrap();
        old.save(&FileDisk, dir.path()).await.unwrap();
        for write in &whole[..done] {
            let path = dir.path().join("certificates").join(write.path.file_name().unwrap());
            match &write.bytes {
                Some((bytes, mode)) => FileDisk.write_atomic(&path, bytes.clone(), *mode).await.unwrap(),
                None => FileDisk.remove(&path).await.unwrap(),
            }
        }
        let expected = if done == 0 { &old } else { &new };
        assert_eq!(Identity::load(&FileDisk, dir.path()).await.unwrap().as_ref(), Some(expected), "after {done} steps");
        assert_eq!(Identity::load(&FileDisk, dir.path()).await.unwrap().as_ref(), Some(expected), "and again");
        assert!(!dir.path().join(NEXT_FILE).exists(), "the renewal was finished");
    }
}

/// Writes nothing, and remembers what would have been written.
#[derive(Default)]
struct Writes(std::sync::Mutex<Vec<Write>>);

struct Write {
    path: std::path::PathBuf,
    bytes: Option<(bytes::Bytes, u32)>,
}

#[async_trait::async_trait]
impl Disk for Writes {
    async fn read(&self, _: &std::path::Path) -> std::io::Result<Option<bytes::Bytes>> {
        Ok(None)
    }
    async fn write_atomic(&self, path: &std::path::Path, bytes: bytes::Bytes, mode: u32) -> std::io::Result<()> {
        self.0.lock().unwrap().push(Write { path: path.into(), bytes: Some((bytes, mode)) });
        Ok(())
    }
    async fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
        self.0.lock().unwrap().push(Write { path: path.into(), bytes: None });
        Ok(())
    }
    async fn list(&self, _: &std::path::Path) -> std::io::Result<Vec<std::path::PathBuf>> {
        Ok(Vec::new())
    }
    async fn create_dir(&self, _: &std::path::Path) -> std::io::Result<()> {
        Ok(())
    }
    async fn remove_dir(&self, _: &std::path::Path) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn damaged_or_missing_files_are_errors_that_say_which() {
    let root = root();
    for (file, damage) in [
        (NODE_CERT_FILE, None),
        (ROOT_CERT_FILE, None),
        (KEY_FILE, None),
        (KEY_FILE, Some("junk")),
        (NODE_CERT_FILE, Some("")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        issue(&root, 'c', 'w', Role::Worker).save(&FileDisk, dir.path()).await.unwrap();
        let path = dir.path().join(file);
        match damage {
            None => FileDisk.remove(&path).await.unwrap(),
            Some(text) => FileDisk.write_atomic(&path, text.into(), 0o600).await.unwrap(),
        }
        match (damage, Identity::load(&FileDisk, dir.path()).await) {
            (None, Err(IdentityError::Incomplete { missing })) => assert_eq!(missing, path),
            (Some(_), Err(IdentityError::Invalid(_))) => {}
            (_, other) => panic!("{file}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn handshakes_succeed_for_the_right_ends_only() {
    let (root, foreign_root) = (root(), root());
    let now: Arc<dyn Clock> = Arc::new(At(NOW));
    let later: Arc<dyn Clock> = Arc::new(At(NOW + 3 * HOUR));
    let earlier: Arc<dyn Clock> = Arc::new(At(NOW - 2 * HOUR));
    let manager = issue(&root, 'c', 'm', Role::Manager);
    let worker = issue(&root, 'c', 'w', Role::Worker);
    let foreign = issue(&foreign_root, 'c', 'm', Role::Manager);
    // The same root under another cluster id cannot happen by itself, but must not open anything either.
    let other_cluster = issue(&root, 'd', 'm', Role::Manager);
    let any = ExpectedServer::AnyManager;
    let server = |identity: &Identity| server_config(identity, now.clone()).unwrap();
    let client =
        |identity: &Identity, expected: &ExpectedServer| client_config(identity, now.clone(), expected).unwrap();

    let seen = shake(server(&manager), client(&worker, &any)).await.unwrap();
    assert_eq!(seen, Some(worker.peer()));
    let seen = shake(server(&manager), client(&worker, &ExpectedServer::Manager(id('m')))).await.unwrap();
    assert_eq!(seen, Some(worker.peer()));
    let anonymous = anonymous_client_config(&root.cert_pem, now.clone()).unwrap();
    assert_eq!(shake(server(&manager), anonymous.clone()).await.unwrap(), None);
    let unverified = unverified_client_config(now.clone()).unwrap();
    assert_eq!(shake(server(&foreign), unverified).await.unwrap(), None);

    for (what, server, client) in [
        ("another node than wanted", server(&manager), client(&worker, &ExpectedServer::Manager(id('x')))),
        ("a worker as server", server(&worker), client(&manager, &any)),
        ("a server of another root", server(&foreign), client(&worker, &any)),
        ("a joiner at another root's", server(&foreign), anonymous),
        ("a client of another root", server(&manager), client(&foreign, &any)),
        ("a server of another cluster", server(&other_cluster), client(&worker, &any)),
        ("expired at the server", server_config(&manager, later.clone()).unwrap(), client(&worker, &any)),
        ("expired at the client", server(&manager), client_config(&worker, later, &any).unwrap()),
        ("not valid yet at the client", server(&manager), client_config(&worker, earlier, &any).unwrap()),
    ] {
        assert!(shake(server, client).await.is_err(), "{what}");
    }
}

#[tokio::test]
async fn tls_before_1_3_is_refused() {
    let root = root();
    let manager = issue(&root, 'c', 'm', Role::Manager);
    let server = server_config(&manager, Arc::new(At(NOW))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let der = rustls_pki_types::CertificateDer::from(pem::parse(&root.cert_pem).unwrap().into_contents());
    roots.add(der).unwrap();
    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert!(shake(server, Arc::new(old)).await.is_err());
}
