//! A stream of writes that remembers what was acknowledged, so that it can be checked that none of it is lost.

use crate::cluster::service_spec;
use crate::{Api, ApiError, Outcome, image};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pause of a writer between two writes: a stream, not a flood.
const BETWEEN: Duration = Duration::from_millis(15);
/// A writer's patience: it goes on to another manager when one is frozen.
const PATIENCE: Duration = Duration::from_secs(4);
/// The label that a register is kept in.
const REGISTER: &str = "register";

/// Writers at work.
pub struct Writers {
    stop: Arc<AtomicBool>,
    handles: Vec<JoinHandle<Log>>,
}

/// What is known of the writes of one writer, and what must therefore hold.
#[derive(Debug, Default)]
struct Log {
    /// Services that this writer created, each with its fate.
    services: BTreeMap<String, Fate>,
    /// The register's name, its last acknowledged value, and the highest that was tried.
    register: Option<(String, u64, u64)>,
    /// When a write was acknowledged.
    acks: Vec<Instant>,
    /// Writes whose outcome is unknown.
    unknown: usize,
    /// Promises that were broken while it wrote.
    violations: Vec<String>,
}

/// What must be true of a service that a writer created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was acknowledged: it must be there.
    There,
    /// Its removal was acknowledged: it must not be there.
    Gone,
    /// Either.
    Unknown,
}

/// What all writers together saw.
pub struct History {
    logs: Vec<Log>,
}

/// Starts so many writers that go round the given managers.
pub fn write(managers: Vec<Api>, writers: usize) -> Writers {
    let managers: Vec<Api> = managers.into_iter().map(|api| api.within(PATIENCE)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let handles = (0..writers)
        .map(|number| {
            tokio::spawn(
                Writer { number, managers: managers.clone(), turn: number, log: Log::default() }.run(stop.clone()),
            )
        })
        .collect();
    Writers { stop, handles }
}

struct Writer {
    number: usize,
    managers: Vec<Api>,
    turn: usize,
    log: Log,
}

// === impl Writers ===

impl Writers {
    /// Lets them finish what they are at, and returns what they saw.
    pub async fn stop(self) -> Outcome<History> {
        self.stop.store(true, Ordering::Relaxed);
        let mut logs = Vec::new();
        for handle in self.handles {
            logs.push(handle.await.map_err(|error| format!("a writer failed: {error}"))?);
        }
        Ok(History { logs })
    }
}

// === impl Writer ===

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Log {
        let mut count = 0u64;
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            self.turn += 1;
            let api = self.managers[self.turn % self.managers.len()].clone();
            match count % 4 {
                0 => self.remove(&api).await,
                1 | 3 => self.create(&api, count).await,
                _ => self.advance(&api).await,
            }
            tokio::time::sleep(BETWEEN).await;
        }
        self.log
    }

    async fn create(&mut self, api: &Api, count: u64) {
        let name = format!("history-{}-{count}", self.number);
        let outcome = api.post("/services/create", &service_spec(&name, image::WEB_1, 0)).await;
        match self.judge(outcome) {
            Some(true) => drop(self.log.services.insert(name, Fate::There)),
            Some(false) => {}
            None => drop(self.log.services.insert(name, Fate::Unknown)),
        }
    }

    async fn remove(&mut self, api: &Api) {
        let Some(name) = self.log.services.iter().find(|(_, fate)| **fate == Fate::There).map(|(name, _)| name.clone())
        else {
            return;
        };
        let outcome = api.delete(&format!("/services/{name}")).await;
        if outcome.as_ref().is_err_and(ApiError::is_not_found) {
            self.log.violations.push(format!("{name} was acknowledged, and then not found"));
        }
        let fate = match self.judge(outcome) {
            Some(true) => Fate::Gone,
            Some(false) => return,
            None => Fate::Unknown,
        };
        self.log.services.insert(name, fate);
    }

    /// Adds one to the register, which nobody else writes: what is read is never older than what was acknowledged.
    async fn advance(&mut self, api: &Api) {
        let Some((name, acknowledged, tried)) = self.log.register.clone() else {
            return self.create_register(api).await;
        };
        let Ok(service) = api.get(&format!("/services/{name}")).await else { return };
        let value = register_value(&service);
        if value < acknowledged || value > tried {
            self.log
                .violations
                .push(format!("{name} reads {value}, with {acknowledged} acknowledged and {tried} tried"));
        }
        let mut spec = service["Spec"].clone();
        spec["Labels"][REGISTER] = Value::from((value + 1).to_string());
        self.log.register = Some((name.clone(), acknowledged, tried.max(value + 1)));
        let outcome =
            api.post(&format!("/services/{name}/update?version={}", service["Version"]["Index"]), &spec).await;
        if self.judge(outcome) == Some(true) {
            self.log.register = Some((name, value + 1, tried.max(value + 1)));
        }
    }

    async fn create_register(&mut self, api: &Api) {
        let name = format!("register-{}", self.number);
        let mut spec = service_spec(&name, image::WEB_1, 0);
        spec["Labels"][REGISTER] = Value::from("0");
        let outcome = api.post("/services/create", &spec).await;
        let exists = matches!(&outcome, Err(ApiError::Refused { status: 409, .. }));
        if self.judge(outcome) == Some(true) || exists {
            self.log.register = Some((name, 0, 0));
        }
    }

    /// Whether a write happened; none when that is not known.
    fn judge<T>(&mut self, outcome: Result<T, ApiError>) -> Option<bool> {
        match outcome {
            Ok(_) => {
                self.log.acks.push(Instant::now());
                Some(true)
            }
            Err(error) if error.is_unknown() => {
                self.log.unknown += 1;
                None
            }
            Err(_) => Some(false),
        }
    }
}

// === impl History ===

impl History {
    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.logs.iter().map(|log| log.acks.len()).sum()
    }

    /// How many had an unknown outcome.
    pub fn unknown(&self) -> usize {
        self.logs.iter().map(|log| log.unknown).sum()
    }

    /// The longest time in which nobody's write was acknowledged, after `since`.
    pub fn longest_pause(&self, since: Instant) -> Duration {
        let mut acks: Vec<Instant> =
            self.logs.iter().flat_map(|log| log.acks.iter().copied()).filter(|ack| *ack >= since).collect();
        acks.push(since);
        acks.sort_unstable();
        acks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// From `since` to the next acknowledgement.
    pub fn first_ack_after(&self, since: Instant) -> Option<Duration> {
        self.logs.iter().flat_map(|log| &log.acks).filter(|ack| **ack > since).min().map(|ack| *ack - since)
    }

    /// Checks that the cluster, asked through this manager, has everything that was acknowledged.
    pub async fn check(&self, api: &Api) -> Outcome<()> {
        let services = api.get("/services").await?;
        let present: BTreeMap<&str, &Value> = services
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|service| Some((service["Spec"]["Name"].as_str()?, service)))
            .collect();
        let mut broken = Vec::new();
        for log in &self.logs {
            broken.extend(log.violations.iter().cloned());
            for (name, fate) in &log.services {
                match (fate, present.contains_key(name.as_str())) {
                    (Fate::There, false) => broken.push(format!("{name} was acknowledged and is lost")),
                    (Fate::Gone, true) => broken.push(format!("{name} was removed, acknowledged, and is back")),
                    _ => {}
                }
            }
            if let Some((name, acknowledged, tried)) = &log.register {
                match present.get(name.as_str()).map(|service| register_value(service)) {
                    Some(value) if (*acknowledged..=*tried).contains(&value) => {}
                    value => {
                        broken.push(format!("{name} is {value:?}, with {acknowledged} acknowledged and {tried} tried"))
                    }
                }
            }
        }
        if broken.is_empty() {
            Ok(())
        } else {
            Err(format!("{} broken promises:\n  {}", broken.len(), broken.join("\n  ")))
        }
    }
}

fn register_value(service: &Value) -> u64 {
    service["Spec"]["Labels"][REGISTER].as_str().and_then(|value| value.parse().ok()).unwrap_or_default()
}
