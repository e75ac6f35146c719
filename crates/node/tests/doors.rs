//! The doors of a node, from outside: join tokens with an end, and the API on a TCP port with the unmodified `docker` CLI.

mod support;

use api::{JoinOptions, Swarm as _, SwarmError};
use model::{ExtraToken, Role, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use seams::Disk as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::Transaction;
use support::{Host, state};
use swarmlite_node::{ApiAccess, ApiTcp, DaemonConfig, EngineChoice, daemon};
use tokio::sync::oneshot;

/// Makes a token as the API does, and gives its text.
async fn token(host: &Host, id: &str, uses: Option<u32>, expires_at: Option<Timestamp>) -> String {
    let mut cluster = model::Cluster::clone(state(host).await.cluster().expect("a cluster"));
    let text = format!("{}-{id:0>25}", cluster.join_tokens.worker.rsplit_once('-').expect("a token").0);
    let made = ExtraToken {
        role: Role::Worker,
        digest: ca::token_digest(&text),
        created_at: Timestamp(1),
        expires_at,
        uses_left: uses,
        labels: [("zone".to_owned(), id.to_owned())].into(),
        root_digest: text.split('-').nth(2).expect("a digest").to_owned(),
    };
    cluster.security.tokens.insert(id.into(), made);
    let mut tx = Transaction::new(Timestamp(1));
    tx.update(cluster);
    host.store().propose(tx).await.expect("written");
    text
}

async fn join(host: &Host, manager: &Host, token: &str) -> Result<(), SwarmError> {
    let options = JoinOptions {
        remote_addrs: vec![format!("{}:2377", manager.ip)],
        join_token: token.to_owned(),
        ..Default::default()
    };
    host.node().join(options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_admits_as_often_as_it_may_and_gives_its_labels() {
    let mut hosts = support::cluster(1, 0).await;
    let manager = hosts.remove(0);
    let (mut one, mut two) = (Host::start(240, 2).await, Host::start(240, 3).await);
    let single = token(&manager, "single", Some(1), None).await;
    join(&one, &manager, &single).await.expect("the first use");
    let node = state(&manager).await.node(&one.id()).expect("the node").spec.clone();
    assert_eq!((node.role, node.labels.get("zone").map(String::as_str)), (Role::Worker, Some("single")));
    let refused = join(&two, &manager, &single).await.expect_err("there is no second use").to_string();
    assert!(refused.contains("the join token has been used as often as it may be"), "{refused}");
    let over = token(&manager, "over", None, Some(Timestamp(2))).await;
    let refused = join(&two, &manager, &over).await.expect_err("its time is over").to_string();
    assert!(refused.contains("the join token has expired"), "{refused}");
    // What a user sees who mistypes it.
    let wrong = single.replace("single", "simple");
    let refused = join(&two, &manager, &wrong).await.expect_err("it is none").to_string();
    assert!(refused.contains("A valid join token is necessary to join this cluster"), "{refused}");
    assert_eq!(state(&manager).await.nodes().len(), 2, "nobody else is in");
    one.halt().await;
    two.halt().await;
}

/// An operator's certificates, in files as dockerd and docker want them.
struct Pki {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    async fn new() -> Pki {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an operator's authority");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let pki = Pki { dir: tempfile::tempdir().expect("a directory"), issuer: Issuer::new(params, key) };
        pki.write("ca.pem", pem).await;
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn write(&self, name: &str, text: String) {
        seams::real::FileDisk.write_atomic(&self.path(name), text.into(), 0o600).await.expect("written");
    }

    /// `NAME.pem` and `NAME.key`.
    async fn sign(&self, name: &str, unit: &str, address: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![address.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        self.write(&format!("{name}.pem"), params.signed_by(&key, &self.issuer).expect("signed").pem()).await;
        self.write(&format!("{name}.key"), key.serialize_pem()).await;
    }
}

/// The `docker` CLI towards the port: whether it worked, and what it said.
async fn docker(pki: &Pki, host: &str, who: &str, args: &str) -> (bool, String) {
    let file = |name: String| pki.path(&name).display().to_string();
    let run = tokio::process::Command::new("docker")
        .args(["-H", host, "--tlsverify", "--tlscacert", &file("ca.pem".into())])
        .args(["--tlscert", &file(format!("{who}.pem")), "--tlskey", &file(format!("{who}.key"))])
        .args(args.split_whitespace())
        .env("DOCKER_CONFIG", "/nonexistent")
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.expect("in time");
    let output = output.expect("this test needs the docker CLI: install Debian's docker.io, or run `cargo xtask test`");
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (output.status.success(), text)
}

fn config(dir: &Path, ip: &str, access: ApiAccess) -> DaemonConfig {
    DaemonConfig {
        data_dir: dir.join("data"),
        socket: dir.join("api.sock"),
        access,
        listen_addr: format!("{ip}:2377"),
        advertise_addr: String::new(),
        gossip_port: 7946,
        data_path_port: 4789,
        hostname: Some("door".into()),
        generic: Vec::new(),
        engine: EngineChoice::Embedded,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_29_the_unmodified_docker_cli_works_over_tcp_with_certificates_and_without_there_is_nothing() {
    let (ip, dir) = (support::ip(251, 1), tempfile::tempdir().expect("a directory"));
    let ip = ip.as_str();
    let (pki, stranger) = (Pki::new().await, Pki::new().await);
    pki.sign("server", "", ip).await;
    pki.sign("admin", "ops", "admin").await;
    pki.sign("viewer", "swarmlite-viewer", "viewer").await;
    stranger.sign("admin", "ops", "admin").await;
    let tcp = ApiTcp {
        addr: format!("{ip}:2376").parse().expect("an address"),
        ca: pki.path("ca.pem"),
        cert: pki.path("server.pem"),
        key: pki.path("server.key"),
    };
    let access = ApiAccess { socket_group: None, tcp: Some(tcp) };
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, ready) = oneshot::channel();
    let when_ready = move || tell.send(()).expect("the test waits");
    let running =
        daemon::run(config(dir.path(), ip, access), when_ready, async { stopped.await.expect("the test goes on") });
    let asking = async {
        ready.await.expect("the daemon runs");
        let host = format!("tcp://{ip}:2376");
        for (who, args, works, part) in [
            ("admin", format!("swarm init --advertise-addr {ip}"), true, "Swarm initialized"),
            ("admin", "service create --detach --no-resolve-image --name web nginx:1".into(), true, ""),
            ("admin", "swarm join-token -q worker".into(), true, "SWMTKN-1-"),
            ("viewer", "node ls".into(), true, "Leader"),
            ("viewer", "service ls".into(), true, "web"),
            ("viewer", "service rm web".into(), false, "permission denied"),
            ("viewer", "service logs web".into(), false, "permission denied"),
            // What it sees of the swarm has no tokens in it.
            ("viewer", "swarm join-token -q manager".into(), true, "\n"),
            ("admin", "service rm web".into(), true, "web"),
        ] {
            let (worked, text) = docker(&pki, &host, who, &args).await;
            assert!(worked == works && text.contains(part), "{who}: {args}: {text}");
            assert!(who == "admin" || !text.contains("SWMTKN"), "{who}: {args}: {text}");
        }
        // Another authority's certificate, and none.
        let foreign = tokio::process::Command::new("docker")
            .args(["-H", &host, "--tlsverify", "--tlscacert", &pki.path("ca.pem").display().to_string()])
            .args(["--tlscert", &stranger.path("admin.pem").display().to_string()])
            .args(["--tlskey", &stranger.path("admin.key").display().to_string(), "node", "ls"])
            .env("DOCKER_CONFIG", "/nonexistent")
            .output();
        let foreign = foreign.await.expect("it runs");
        assert!(!foreign.status.success() && foreign.stdout.is_empty(), "{foreign:?}");
        let plain =
            tokio::process::Command::new("docker").args(["-H", &host, "node", "ls"]).output().await.expect("it runs");
        assert!(!plain.status.success() && plain.stdout.is_empty(), "{plain:?}");
        stop.send(()).expect("the daemon runs");
    };
    let (ran, ()) = tokio::join!(running, asking);
    ran.expect("it stops cleanly");
}

#[tokio::test]
async fn attack_29_a_daemon_whose_certificates_are_of_no_use_does_not_start_and_leaves_no_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = Pki::new().await;
    let ip = support::ip(251, 2);
    pki.sign("server", "", &ip).await;
    pki.sign("other", "", &ip).await;
    for (ca, cert, key, part) in [
        ("none.pem", "server.pem", "server.key", "no such file"),
        ("ca.pem", "server.key", "server.key", "the certificate is of no use"),
        ("ca.pem", "server.pem", "other.key", "of no use together"),
        ("server.key", "server.pem", "server.key", "the certificate authority is of no use"),
    ] {
        let addr = format!("{ip}:2376").parse().expect("an address");
        let tcp = ApiTcp { addr, ca: pki.path(ca), cert: pki.path(cert), key: pki.path(key) };
        let config = config(dir.path(), &ip, ApiAccess { socket_group: None, tcp: Some(tcp) });
        let socket = config.socket.clone();
        let refused =
            daemon::run(config, || panic!("it runs"), std::future::pending()).await.expect_err("refused").to_string();
        assert!(refused.contains(part), "{refused}");
        assert!(!socket.exists(), "{part}");
    }
}

#[tokio::test]
async fn a_daemon_whose_state_is_of_no_use_leaves_no_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), &support::ip(251, 3), ApiAccess::default());
    let socket = config.socket.clone();
    let node_json = config.data_dir.join("node.json");
    seams::real::FileDisk.write_atomic(&node_json, "noise".into(), 0o600).await.expect("written");
    let refused = daemon::run(config, || panic!("it runs"), std::future::pending()).await.expect_err("refused");
    assert!(refused.to_string().contains("data keys are missing"), "{refused}");
    assert!(!socket.exists(), "nobody would answer there");
}
