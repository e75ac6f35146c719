//! What users do: they make the cluster, and then create, change, scale and remove services through the API of any manager,
//! and write down what they were told.

use super::http::{Answer, ask};
use crate::event;
use crate::history::{Ask, History, Mark, Operation, Told};
use crate::rng::SeededRand;
use crate::trace;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use seams::RandExt as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Users look for the same few names, so that they meet. Each has a sign that no id has: a short name without one is now and then
/// the beginning of another service's id, by which the API finds a service, too, as Docker does.
const NAMES: [&str; 4] = ["the-web", "the-api", "the-db", "the-job"];
/// Images with the embedded engine's manners: some are slow to pull, some do not stop when asked.
const IMAGES: [&str; 5] = ["web:1", "web:2", "web:3", "slow:800", "stubborn"];
/// Its failed updates are rolled back, and with them the mark that the last user left: what users are told of it is not judged.
const ROLLED_BACK: &str = "the-db";
/// Those of jobs: they end well after a while, or fail now and then.
const JOB_IMAGES: [&str; 2] = ["exit:0:700", "exit:0:2500"];
/// Replicas of a service at most.
const REPLICAS_MAX: u64 = 4;

/// What all users share with the world.
#[derive(Default)]
pub(super) struct Desk {
    /// What was done and told.
    pub history: History,
    /// How far the run is.
    pub phase: Phase,
    /// Users that have nothing under way.
    pub idle: usize,
    /// The operator has nothing under way either.
    pub operator_is_done: bool,
    /// Machines whose nodes were removed.
    pub removed: BTreeSet<usize>,
    /// Secrets that there are, as far as their keeper knows.
    pub secrets: Vec<KnownSecret>,
    marks: Mark,
}

/// A secret that users may give to their services.
#[derive(Debug, Clone)]
pub(super) struct KnownSecret {
    /// Its name.
    pub name: &'static str,
    /// Its id.
    pub id: String,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Phase {
    /// The cluster is being made.
    #[default]
    Founding,
    /// Users work, things break.
    Storm,
    /// Nothing breaks any more; users finish what they do and wait.
    Calm,
    /// They write and read once more.
    Last,
    /// All is done.
    Over,
}

/// One user.
pub(super) struct User {
    /// Its name.
    pub name: String,
    /// The addresses of the nodes that were managers when the cluster was made.
    pub managers: Vec<IpAddr>,
    /// Its luck.
    pub rand: SeededRand,
    /// The desk.
    pub desk: Arc<Mutex<Desk>>,
}

/// What a user saw when it read a service.
struct Seen {
    mark: Mark,
    version: u64,
    spec: Value,
}

// === impl User ===

impl User {
    /// Works until the run is over.
    pub(super) async fn work(self) -> turmoil::Result {
        while self.desk.lock().phase == Phase::Founding {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while self.desk.lock().phase == Phase::Storm {
            let names: Vec<&str> = NAMES.into_iter().filter(|n| self.desk.lock().history.has_room(n)).collect();
            if let Some(name) = self.rand.pick(&names) {
                self.act(name).await;
            }
            tokio::time::sleep(self.pause()).await;
        }
        self.desk.lock().idle += 1;
        while self.desk.lock().phase < Phase::Last {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for name in NAMES {
            // Some manager may be down for good; another one answers.
            while !matches!(self.look(name).await, Answer::Came(StatusCode::OK | StatusCode::NOT_FOUND, _)) {}
        }
        Ok(())
    }

    /// Most of the time a short thought; now and then everybody does something in the same moment.
    fn pause(&self) -> Duration {
        let now = trace::now().as_millis() as u64;
        match self.rand.below(3) {
            0 => Duration::from_millis(1000 - now % 1000),
            1 => self.rand.millis(200, 1500),
            _ => self.rand.millis(20, 200),
        }
    }

    async fn act(&self, name: &str) {
        match self.rand.below(10) {
            0..=2 => self.create(name).await,
            3..=6 => {
                if let Some(seen) = self.read(name).await {
                    self.update(name, seen).await;
                }
            }
            7 => self.remove(name).await,
            _ => drop(self.read(name).await),
        }
    }

    fn manager(&self) -> IpAddr {
        *self.rand.pick(&self.managers).expect("a cluster has a manager")
    }

    fn mark(&self) -> Mark {
        let mut desk = self.desk.lock();
        desk.marks += 1;
        desk.marks
    }

    /// A service keeps its mode; each name has its own.
    fn mode(&self, name: &str) -> Value {
        match name {
            "the-api" => json!({ "Global": {} }),
            "the-job" => json!({ "ReplicatedJob": {
                "MaxConcurrent": self.rand.between(1, 2),
                "TotalCompletions": self.rand.between(1, REPLICAS_MAX),
            } }),
            _ => json!({ "Replicated": { "Replicas": self.rand.between(0, REPLICAS_MAX) } }),
        }
    }

    fn image(&self, name: &str) -> &'static str {
        // A job ends, or it is over with the storm.
        let images = if name == "the-job" { &JOB_IMAGES[..] } else { &IMAGES[..] };
        self.rand.pick(images).expect("there are some")
    }

    async fn create(&self, name: &str) {
        let mark = self.mark();
        let image = self.image(name);
        let mode = self.mode(name);
        let mut spec = json!({
            "Name": name,
            "Labels": { "mark": mark.to_string() },
            "TaskTemplate": {
                "ContainerSpec": { "Image": image, "StopGracePeriod": 2_000_000_000_u64 },
                "RestartPolicy": { "Condition": "any", "Delay": 500_000_000_u64 },
            },
            "Mode": mode,
        });
        if name != "the-job" {
            let action = match self.rand.below(2) {
                _ if name == ROLLED_BACK => "rollback",
                0 => "pause",
                _ => "continue",
            };
            let order = if self.rand.chance(300) { "start-first" } else { "stop-first" };
            spec["UpdateConfig"] = json!({
                "Parallelism": 1, "Monitor": 500_000_000_u64, "Order": order, "FailureAction": action,
            });
        }
        if name == "the-db" {
            spec["TaskTemplate"]["Placement"] = json!({ "MaxReplicas": 2 });
        }
        let secrets = self.desk.lock().secrets.clone();
        if let Some(secret) = self.rand.pick(&secrets) {
            spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([{
                "SecretID": secret.id,
                "SecretName": secret.name,
                "File": { "Name": "site.key", "UID": "0", "GID": "0", "Mode": 0o400 },
            }]);
        }
        self.tell(name, Ask::Create(mark), Method::POST, "/v1.44/services/create".into(), Some(&spec)).await;
    }

    async fn update(&self, name: &str, mut seen: Seen) {
        let new = self.mark();
        seen.spec["Labels"]["mark"] = json!(new.to_string());
        if self.rand.chance(600) {
            seen.spec["Mode"] = self.mode(name);
        }
        if self.rand.chance(400) {
            seen.spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(self.image(name));
        }
        let path = format!("/v1.44/services/{name}/update?version={}", seen.version);
        self.tell(name, Ask::Update { seen: seen.mark, new }, Method::POST, path, Some(&seen.spec)).await;
    }

    async fn remove(&self, name: &str) {
        self.tell(name, Ask::Remove, Method::DELETE, format!("/v1.44/services/{name}"), None).await;
    }

    async fn look(&self, name: &str) -> Answer {
        self.tell(name, Ask::Read, Method::GET, format!("/v1.44/services/{name}"), None).await
    }

    async fn read(&self, name: &str) -> Option<Seen> {
        match self.look(name).await {
            Answer::Came(StatusCode::OK, body) => Some(Seen {
                mark: mark_of(&body)?,
                version: body["Version"]["Index"].as_u64()?,
                spec: body["Spec"].clone(),
            }),
            _ => None,
        }
    }

    /// Does it, and writes down what came of it.
    async fn tell(&self, name: &str, what: Ask, method: Method, path: String, body: Option<&Value>) -> Answer {
        let (to, called) = (self.manager(), trace::now());
        let answer = ask(to, method, &path, body).await;
        let told = told(what, &answer);
        let status = if let Answer::Came(status, _) = &answer { status.as_u16() } else { 0 };
        event!(self.name, "{name} at {to}: {what:?} -> {} ({status} {})", word(told), answer.message());
        if let Some(told) = told {
            let operation = Operation { client: self.name.clone(), ask: what, told, called, answered: trace::now() };
            if name != ROLLED_BACK {
                self.desk.lock().history.add(name, operation);
            }
        }
        answer
    }
}

fn word(told: Option<Told>) -> String {
    told.map_or("not done".into(), |t| format!("{t:?}"))
}

fn mark_of(service: &Value) -> Option<Mark> {
    service["Spec"]["Labels"]["mark"].as_str()?.parse().ok()
}

/// What an answer means; `None` when it was certainly not done. That is trusted: should it be done all the same, its mark
/// comes from nowhere, and no order explains it.
fn told(what: Ask, answer: &Answer) -> Option<Told> {
    let (status, body) = match answer {
        Answer::Came(status, body) => (*status, body),
        Answer::NotSent => return None,
        Answer::Lost => return Some(Told::Unknown),
    };
    let message = answer.message();
    match status {
        s if s.is_success() && what == Ask::Read => Some(mark_of(body).map_or(Told::Unknown, Told::Saw)),
        s if s.is_success() => Some(Told::Done),
        // Of a secret that was removed meanwhile.
        s if s.is_client_error() && message.contains("secret") => None,
        StatusCode::CONFLICT => Some(Told::Refused),
        StatusCode::NOT_FOUND => Some(Told::Absent),
        _ if message.contains("out of sequence") => Some(Told::Refused),
        _ if message.contains("name conflicts with an existing object") => Some(Told::Refused),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_REQUEST => None,
        _ if message.contains("does not have a leader") => None,
        _ => Some(Told::Unknown),
    }
}

// --- making the cluster ---

/// Makes a cluster: `first` founds it, the others join, and all are ready.
///
/// # Errors
/// What went wrong, when it cannot be made though nothing is broken.
pub(super) async fn found(first: IpAddr, managers: &[IpAddr], workers: &[IpAddr]) -> Result<(), String> {
    found_with(None, first, managers, workers).await
}

/// As [`found`], with a spec of the cluster.
///
/// # Errors
/// As [`found`].
pub(super) async fn found_with(
    spec: Option<Value>,
    first: IpAddr,
    managers: &[IpAddr],
    workers: &[IpAddr],
) -> Result<(), String> {
    let addr = |ip: IpAddr| format!("{ip}:2377");
    let mut init = json!({ "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": addr(first) });
    if let Some(spec) = spec {
        init["Spec"] = spec;
    }
    wait_for(first, Method::POST, "/v1.44/swarm/init", Some(&init)).await?;
    let swarm = wait_for(first, Method::GET, "/v1.44/swarm", None).await?;
    for (ip, token) in managers.iter().map(|ip| (ip, "Manager")).chain(workers.iter().map(|ip| (ip, "Worker"))) {
        let join = json!({
            "ListenAddr": "0.0.0.0:2377",
            "AdvertiseAddr": addr(*ip),
            "RemoteAddrs": [addr(first)],
            "JoinToken": swarm["JoinTokens"][token],
        });
        wait_for(*ip, Method::POST, "/v1.44/swarm/join", Some(&join)).await?;
        event!("setup", "{ip} joined as {token}");
    }
    for _ in 0..600 {
        let nodes = ask(first, Method::GET, "/v1.44/nodes", None).await;
        if let Answer::Came(StatusCode::OK, Value::Array(nodes)) = nodes
            && nodes.len() == 1 + managers.len() + workers.len()
            && nodes.iter().all(|n| n["Status"]["State"] == "ready")
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the nodes were not ready within a minute".into())
}

/// Asks until a node answers; an error when the answer is one.
async fn wait_for(to: IpAddr, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
    for _ in 0..300 {
        match ask(to, method.clone(), path, body).await {
            Answer::Came(status, body) if status.is_success() => return Ok(body),
            Answer::Came(status, body) => return Err(format!("{method} {path} at {to}: {status} {}", body["message"])),
            Answer::NotSent | Answer::Lost => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    Err(format!("{method} {path} at {to}: no answer within 30 s"))
}
