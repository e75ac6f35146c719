//! The real daemon and the real command line over TCP with mutual TLS, and join tokens with an end.

mod support;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use seams::Disk as _;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use support::{FakeDaemon, Reply, Run, finish, swarmlite};
use tokio::io::{AsyncBufReadExt as _, BufReader};

const IP: &str = "127.67.29.1";

/// A daemon with a TCP port, and certificates for its clients.
struct Daemon {
    dir: tempfile::TempDir,
    _process: tokio::process::Child,
}

async fn sign(dir: &tempfile::TempDir, issuer: &Issuer<'_, KeyPair>, name: &str, unit: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![IP.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    let own = dir.path().join(name);
    let disk = seams::real::FileDisk;
    disk.write_atomic(&own.join("cert.pem"), params.signed_by(&key, issuer).unwrap().pem().into(), 0o644)
        .await
        .unwrap();
    disk.write_atomic(&own.join("key.pem"), key.serialize_pem().into(), 0o600).await.unwrap();
    let ca = disk.read(&dir.path().join("ca.pem")).await.unwrap().unwrap();
    disk.write_atomic(&own.join("ca.pem"), ca, 0o644).await.unwrap();
}

impl Daemon {
    async fn start() -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an operator's authority");
        let pem = params.self_signed(&key).unwrap().pem();
        seams::real::FileDisk.write_atomic(&dir.path().join("ca.pem"), pem.into(), 0o644).await.unwrap();
        let issuer = Issuer::new(params, key);
        for (name, unit) in [("server", ""), ("admin", "ops"), ("viewer", "swarmlite-viewer")] {
            sign(&dir, &issuer, name, unit).await;
        }
        let file = |name: &str| dir.path().join(name).display().to_string();
        let mut command = swarmlite(&["daemon", "--engine", "embedded"]);
        command
            .args(["--data-dir", &file("data"), "--socket", &file("api.sock"), "--listen-addr", &format!("{IP}:2377")])
            .args(["--api-addr", &format!("{IP}:2376"), "--api-tls-ca", &file("ca.pem")])
            .args(["--api-tls-cert", &file("server/cert.pem"), "--api-tls-key", &file("server/key.pem")])
            .stderr(std::process::Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                said.push_str(&line);
                if line.contains("the daemon is ready") {
                    return;
                }
            }
            panic!("it ended: {said}");
        };
        tokio::time::timeout(Duration::from_secs(60), ready).await.expect("it is ready in time");
        // It goes on writing, and must not block.
        let tasks = seams::Tasks::new();
        tasks.spawn("the daemon's log", async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Daemon { dir, _process: process }
    }

    fn certificates(&self, who: &str) -> PathBuf {
        self.dir.path().join(who)
    }

    /// The command line as somebody: with flags, or with docker's environment.
    async fn run(&self, who: &str, args: &[&str]) -> Run {
        let (host, dir) = (format!("tcp://{IP}:2376"), self.certificates(who));
        let file = |name: &str| dir.join(name).display().to_string();
        let mut command = swarmlite(&["-H", &host, "--tlsverify", "--tlscacert", &file("ca.pem")]);
        command.args(["--tlscert", &file("cert.pem"), "--tlskey", &file("key.pem")]).args(args);
        finish(command).await
    }
}

#[tokio::test]
async fn the_command_line_speaks_mutual_tls_with_dockers_flags_and_environment() {
    let daemon = Daemon::start().await;
    let good = |run: Run| {
        assert_eq!(run.code, Some(0), "{run:?}");
        run.stdout
    };
    let init = good(daemon.run("admin", &["swarm", "init", "--advertise-addr", IP]).await);
    assert!(init.contains("Swarm initialized"), "{init}");
    let (host, dir) = (format!("tcp://{IP}:2376"), daemon.certificates("admin"));
    let mut by_env = swarmlite(&["node", "ls", "-q"]);
    by_env.env("SWARMLITE_HOST", &host).env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", &dir);
    assert_eq!(good(finish(by_env).await).trim().len(), 25);

    // A token with an end, from making to revoking.
    let create = ["swarm", "join-token", "create", "--ttl", "1h", "--uses", "1", "--label", "zone=a", "worker"];
    let made = good(daemon.run("admin", &create).await);
    assert!(made.contains("swarmlite swarm join --token SWMTKN-1-") && made.contains(&format!("{IP}:2377")), "{made}");
    assert!(
        made.contains("The token is good for 1 node within about an hour. It is not shown again; its id is "),
        "{made}"
    );
    let list = good(daemon.run("viewer", &["swarm", "join-token", "ls"]).await);
    assert!(list.contains("zone=a") && list.contains("worker") && !list.contains("SWMTKN"), "{list}");
    let id = good(daemon.run("admin", &["swarm", "join-token", "ls", "-q"]).await);
    let quiet = good(daemon.run("admin", &["swarm", "join-token", "create", "-q", "manager"]).await);
    assert!(quiet.starts_with("SWMTKN-1-") && quiet.trim().len() == 85, "{quiet}");
    good(daemon.run("admin", &["swarm", "join-token", "revoke", id.trim()]).await);
    let again = daemon.run("admin", &["swarm", "join-token", "revoke", id.trim()]).await;
    assert!(again.code == Some(1) && again.stderr.contains(&format!("token {} not found", id.trim())), "{again:?}");
    // And Docker's own, beside.
    let standing = good(daemon.run("admin", &["swarm", "join-token", "-q", "worker"]).await);
    assert_ne!(standing, good(daemon.run("admin", &["swarm", "join-token", "--rotate", "-q", "worker"]).await));

    for args in [&["swarm", "join-token", "worker"] as &[&str], &["swarm", "join-token", "-q", "manager"]] {
        let unseen = daemon.run("viewer", args).await;
        assert!(unseen.code == Some(1) && unseen.stderr.contains("to a viewer's certificate"), "{unseen:?}");
        assert_eq!(unseen.stdout, "", "no command with an empty token");
    }

    let denied = daemon.run("viewer", &["swarm", "join-token", "revoke", "x"]).await;
    assert!(denied.code == Some(1) && denied.stderr.contains("permission denied"), "{denied:?}");
    // Certificates of somebody else's authority, and none.
    let mut plain = swarmlite(&["-H", &format!("tcp://{IP}:2376"), "node", "ls"]);
    plain.env_remove("DOCKER_TLS_VERIFY");
    let plain = finish(plain).await;
    assert!(plain.code == Some(1) && plain.stdout.is_empty(), "a loopback port without TLS: {plain:?}");
    assert!(plain.stderr.contains("if the port wants TLS, use --tlsverify"), "{plain:?}");
    let mut wrong_name = swarmlite(&["-H", "tcp://localhost:1", "--tlsverify", "node", "ls"]);
    wrong_name.env("DOCKER_CERT_PATH", &dir);
    assert!(finish(wrong_name).await.stderr.contains("Cannot connect to the Swarmlite daemon at tcp://localhost:1"));
}

#[tokio::test]
async fn attack_29_the_daemon_refuses_a_tcp_port_without_certificates_and_says_what_to_do() {
    let run = finish(swarmlite(&["daemon", "--engine", "embedded", "--api-addr", "127.67.29.2:2376"])).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("mutual TLS or not at all") && run.stderr.contains("--api-tls-ca"), "{run:?}");
}

#[tokio::test]
async fn what_join_token_asks_for_is_what_was_said() {
    let node = json!({"ID": "n".repeat(25), "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}});
    let daemon = FakeDaemon::start()
        .on("POST /swarmlite/tokens", Reply::json(json!({"ID": "t".repeat(25), "Token": "SWMTKN-1-d-s"})))
        .on("GET /info", Reply::json(json!({"Swarm": {"NodeID": "n".repeat(25)}})))
        .on(&format!("GET /nodes/{}", "n".repeat(25)), Reply::json(node));
    let run = daemon
        .run(&["swarm", "join-token", "create", "--label", "a=b", "--label", "c", "--uses", "3", "manager"])
        .await;
    assert_eq!(run.code, Some(0), "{run:?}");
    let want = format!(
        "To add a manager to this swarm, run the following command:\n\n    swarmlite swarm join --token SWMTKN-1-d-s 10.0.0.1:2377\n\n\
         The token is good for 3 nodes. It is not shown again; its id is {}.\n",
        "t".repeat(25)
    );
    assert_eq!(run.stdout, want);
    assert_eq!(
        daemon.body_of("POST /v1.52/swarmlite/tokens"),
        json!({"Role": "manager", "Uses": 3, "Labels": {"a": "b", "c": ""}})
    );
    // In no swarm, or locked: the daemon says so.
    let locked = FakeDaemon::start()
        .on("GET /swarm", Reply::raw(503, "application/json", r#"{"message":"unlock it"}"#))
        .on("GET /info", Reply::json(json!({"Swarm": {"NodeID": ""}})));
    let run = locked.run(&["swarm", "join-token", "worker"]).await;
    assert_eq!((run.code, run.stderr.as_str()), (Some(1), "Error response from daemon: unlock it\n"));
    for (args, code, part) in [
        (&["create", "--ttl", "0s", "worker"] as &[&str], 125, "must be more than 0"),
        (&["create", "--uses", "0", "worker"], 125, "must be at least 1"),
        (&["create", "boss"], 1, "unknown role boss: must be worker or manager"),
        (&["boss"], 1, "unknown role boss"),
        (&["create"], 1, ""),
        (&["revoke"], 1, ""),
        (&[], 1, ""),
    ] {
        let run = daemon.run(&[&["swarm", "join-token"], args].concat()).await;
        assert!(run.code == Some(code) && run.stderr.contains(part), "{args:?}: {run:?}");
    }
}
