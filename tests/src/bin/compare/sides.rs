//! The two sides: a real Docker Swarm and Swarmlite, each with one node, on engines of the same build in machines of their
//! own (as far as they can tell), with the same labels and resources.

use crate::judge::Seen;
use crate::mask::mask;
use crate::script::{self, INNER, Step};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use swarmlite_tests::cli::Done;
use swarmlite_tests::engines::PrivateEngine;
use swarmlite_tests::network::{Kind, Network};
use swarmlite_tests::{Api, Cli, Node, Outcome, node, wait};
use tokio::time::Instant;

/// Where Docker's swarm mode listens.
const PORT: u16 = 2377;
/// For `until`: a machine that runs other tests as well starts a container in seconds.
const UNTIL_LIMIT: Duration = Duration::from_secs(40);
/// For `until` once something in the section did not come to pass: what builds on it will not either.
const DOUBTFUL_LIMIT: Duration = Duration::from_secs(2);
/// How often it is looked: each look is a process, and many sections wait at the same time.
const LOOK: Duration = Duration::from_millis(250);
/// For one side to come up.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The newest API that the engine of Debian's `docker.io` speaks. Both sides are asked in it: the command line leaves out
/// what an older server does not know.
const API_VERSION: &str = "1.41";
/// What stands for the name of the node, in commands and answers.
const HOST: &str = "HOST";
/// What both engines say of themselves, for constraints and reservations.
const ENGINE_ARGS: [&str; 6] =
    ["--label", "disk=ssd", "--node-generic-resource", "gpu=gpu-a", "--node-generic-resource", "gpu=gpu-b"];

/// Both. Everything is gone when it is dropped.
pub(crate) struct Sides {
    /// Docker Swarm.
    pub(crate) docker: Side,
    /// Swarmlite.
    pub(crate) lite: Side,
    // In this order: a daemon lives in its engine's machine, which lives in the network.
    _node: Node,
    _engines: [PrivateEngine; 2],
    _network: Network,
    _dir: tempfile::TempDir,
}

/// One side, as the command line sees it.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    /// What it calls itself, for the record.
    pub(crate) version: String,
    host: String,
    cli: Cli,
    hostname: String,
    /// Its own words, and what stands for them.
    known: Vec<(String, String)>,
}

// === impl Sides ===

impl Sides {
    /// Starts both.
    pub(crate) async fn start() -> Outcome<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err("this needs root, for engines in namespaces of their own".into());
        }
        let dir = tempfile::Builder::new().prefix("cmp-").tempdir().map_err(|error| error.to_string())?;
        let network = Network::new(Kind::Namespaces, 2)?;
        let engine =
            |host: usize| PrivateEngine::new(host, dir.path().join(format!("e{host}"))).with_args(&ENGINE_ARGS);
        let (mut one, mut other) = (engine(0), engine(1));
        // Not at the same time: the second finds the images' program compiled… by the first.
        one.up(&network).await?;
        other.up(&network).await?;
        let docker = docker_swarm(&one, &network.address(0)).await?;
        let (node, lite) = swarmlite(&other, &network.address(1), dir.path()).await?;
        Ok(Self { docker, lite, _node: node, _engines: [one, other], _network: network, _dir: dir })
    }
}

async fn docker_swarm(engine: &PrivateEngine, address: &str) -> Outcome<Side> {
    let api = engine.api();
    let remote = format!("{address}:{PORT}");
    api.post("/swarm/init", &json!({ "ListenAddr": remote, "AdvertiseAddr": remote })).await?;
    Side::new(&api, engine.address(), address).await
}

async fn swarmlite(engine: &PrivateEngine, address: &str, dir: &Path) -> Outcome<(Node, Side)> {
    // On the engine's machine: there the files of secrets are where its containers look for them.
    let mut command = Command::new("nsenter");
    command.args(["-t", &engine.dockerd()?.to_string(), "-m", "-u", "-i", "-n", "-p", "--"]).arg(node::binary());
    let mut node = Node::new(0, true, address.to_string(), dir.join("lite"))?;
    node.start(command, &["--engine".into(), "docker".into(), "--docker-host".into(), engine.address()])?;
    node.answers().await?;
    node.init().await?;
    let side = Side::new(&node.api(), node.host(), address).await?;
    Ok((node, side))
}

// === impl Side ===

impl Side {
    async fn new(api: &Api, host: String, address: &str) -> Outcome<Self> {
        let node = wait::until("its node is ready", START_LIMIT, || async {
            let nodes = api.get("/nodes").await?;
            let ready = nodes.as_array().into_iter().flatten().find(|node| node["Status"]["State"] == "ready");
            ready.cloned().ok_or_else(|| nodes.to_string())
        })
        .await?;
        let hostname = node["Description"]["Hostname"].as_str().unwrap_or_default().to_string();
        let tls = &node["Description"]["TLSInfo"];
        let mut known = vec![(hostname.clone(), HOST.into()), (address.to_string(), "ADDRESS".into())];
        for (key, stand_in) in [("TrustRoot", "ROOT"), ("CertIssuerPublicKey", "KEY")] {
            let text = tls[key].as_str().unwrap_or_default().trim();
            known.extend([text.to_string(), text.replace('\n', "\\n")].map(|text| (text, stand_in.to_string())));
        }
        let version = version(&api.get("/version").await?);
        let cli = Cli::docker().with_env("DOCKER_API_VERSION", API_VERSION);
        Ok(Self { version, host, cli, hostname, known })
    }

    /// Runs the commands of a section; nothing comes back from one that waits for something.
    pub(crate) async fn play(&self, steps: &[Step]) -> Vec<Outcome<Option<Seen>>> {
        let mut limit = UNTIL_LIMIT;
        let mut seen = Vec::new();
        for step in steps {
            let outcome = self.run(step, limit).await;
            if outcome.is_err() {
                limit = DOUBTFUL_LIMIT;
            }
            seen.push(outcome);
        }
        seen
    }

    async fn run(&self, step: &Step, limit: Duration) -> Outcome<Option<Seen>> {
        let Some(expected) = &step.until else { return self.once(step).await.map(Some) };
        let expected = expected.replace('|', "\n");
        let deadline = Instant::now() + limit;
        loop {
            let seen = self.once(step).await?;
            let printed = if seen.code == 0 { seen.stdout } else { seen.stderr };
            if expected.split(" or ").any(|expected| crate::judge::matches(expected, &printed)) {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                let line = &step.line;
                return Err(format!("{line}: not within {} s: it prints `{printed}`", limit.as_secs()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn raw(&self, words: &[String], input: &str) -> Outcome<Done> {
        let word = |word: &String| if word == HOST { self.hostname.clone() } else { word.clone() };
        let words: Vec<String> = words.iter().map(word).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.cli.run_at(&self.host, &words, input).await
    }

    async fn once(&self, step: &Step) -> Outcome<Seen> {
        let mut words = Vec::new();
        for word in &step.words {
            words.push(match word.strip_prefix(INNER) {
                Some(inner) => self.raw(&script::words(inner)?[1..], "").await?.stdout.trim().to_string(),
                None => word.clone(),
            });
        }
        let done = self.raw(&words, &step.input).await?;
        let masked = |text: &str| mask(text, &self.known);
        let mut stdout = masked(&done.stdout);
        if step.sorted {
            let mut lines: Vec<&str> = stdout.lines().collect();
            let head = usize::from(lines.first().is_some_and(|first| first.starts_with("ID  NAME")));
            lines[head..].sort_unstable();
            stdout = lines.join("\n");
        }
        Ok(Seen { code: done.code, stdout, stderr: masked(&done.stderr) })
    }
}

/// What a server calls itself.
fn version(answer: &Value) -> String {
    let engine = answer["Components"].as_array().into_iter().flatten().next();
    let of = |key: &str| engine.and_then(|engine| engine[key].as_str()).unwrap_or_default().to_string();
    format!("{} {}", of("Name"), of("Version"))
}
