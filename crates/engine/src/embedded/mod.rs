//! An engine in memory, for trying things out and for the simulation. It says `embedded` wherever it is asked.
//!
//! It keeps no processes: a container is a record whose life follows from its image's name (see [`behaviour`]). All state
//! is behind an [`Arc`], so it outlives an agent, and an agent that is started again finds its containers. It is
//! deterministic: time is the given clock's, ids and latencies come from the given randomness, and nothing happens on its
//! own: what is due by the clock is done when somebody calls or listens.

pub mod behaviour;
mod containers;
mod execs;
mod faults;
mod files;
mod plugins;

pub use containers::Started;
pub use faults::{Call, Faults};
pub use files::FileThere;
pub use plugins::PLUGINS_MAX;

use crate::{
    ContainerEvent, ContainerPhase, ContainerState, Engine, EngineError, HostFiles, LogChunk, LogOptions, NewContainer,
};
use async_trait::async_trait;
use behaviour::Behaviour;
use containers::Containers;
use futures::stream::{self, BoxStream, StreamExt as _};
use model::{EngineDescription, GenericResource, NodeDescription, Platform, Resources};
use parking_lot::Mutex;
use seams::{Clock, Rand, RandExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a call may take; a call that hangs ends with [`EngineError::Timeout`] after it.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Containers of one engine.
pub const CONTAINERS_MAX: usize = 10_000;
/// Signals that are remembered.
pub const SIGNALS_MAX: usize = 1000;
/// Longest sleep of a listener between two looks at the clock, which may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the engine says of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Host name.
    pub hostname: String,
    /// CPU and memory.
    pub resources: Resources,
    /// Architecture and operating system.
    pub platform: Platform,
    /// What else it has.
    pub generic: Vec<GenericResource>,
    /// Labels of the engine.
    pub labels: BTreeMap<String, String>,
    /// Plugins as (type, name).
    pub plugins: Vec<(String, String)>,
}

/// An engine in memory. Clones share their state.
#[derive(Clone)]
pub struct EmbeddedEngine {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    options: EmbeddedOptions,
    clock: Arc<dyn Clock>,
    rand: Arc<dyn Rand>,
    state: Mutex<State>,
    files: Arc<files::MemoryFiles>,
    /// Rises whenever something may have changed; listeners look again.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct State {
    containers: Containers,
    faults: faults::Plan,
    signals: Vec<(String, String)>,
    execs: execs::Table,
    plugins: plugins::Installed,
}

/// A clock that follows tokio's time from when it is made: for tests with paused time.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    from: tokio::time::Instant,
}

// === impl EmbeddedOptions ===

impl Default for EmbeddedOptions {
    fn default() -> Self {
        EmbeddedOptions {
            hostname: "embedded".into(),
            resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30 },
            platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
            generic: Vec::new(),
            labels: BTreeMap::new(),
            plugins: [("Network", "bridge"), ("Volume", "local"), ("Log", "json-file")]
                .map(|(kind, name)| (kind.to_owned(), name.to_owned()))
                .to_vec(),
        }
    }
}

// === impl TokioClock ===

impl TokioClock {
    /// Its epoch is one day after 1970, so that records look like times.
    pub fn start() -> TokioClock {
        TokioClock { from: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn unix_now(&self) -> Duration {
        Duration::from_secs(24 * 3600) + self.from.elapsed()
    }
}

// === impl EmbeddedEngine ===

impl EmbeddedEngine {
    /// An engine without containers. `clock` drives its containers and should not jump.
    pub fn new(options: EmbeddedOptions, clock: Arc<dyn Clock>, rand: Arc<dyn Rand>) -> EmbeddedEngine {
        let (state, files) = (Mutex::new(State::default()), Arc::default());
        EmbeddedEngine { inner: Arc::new(Inner { options, clock, rand, state, files, changed: watch::Sender::new(0) }) }
    }

    /// The switches with which the simulation makes it misbehave.
    pub fn faults(&self) -> Faults {
        Faults::new(Arc::clone(&self.inner))
    }

    /// All containers as they are, past every fault: for whoever checks the engine from outside.
    pub fn containers(&self) -> Vec<ContainerState> {
        self.inner.with(|s, now| s.containers.all(now))
    }

    /// What a container was made from, by its id or name.
    pub fn created(&self, id_or_name: &str) -> Option<NewContainer> {
        self.inner.with(|s, _| s.containers.created(id_or_name).cloned())
    }

    /// The last starts of containers, oldest first (at most [`CONTAINERS_MAX`]).
    pub fn starts(&self) -> Vec<Started> {
        self.inner.with(|s, _| s.containers.starts())
    }

    /// The files that its containers are given, past every fault.
    pub fn file_contents(&self) -> Vec<FileThere> {
        self.inner.files.all()
    }

    /// The signals that containers were sent, oldest first (at most [`SIGNALS_MAX`]): the container's id and the signal.
    pub fn signals(&self) -> Vec<(String, String)> {
        self.inner.with(|s, _| s.signals.clone())
    }

    /// Lets a call take its time and suffer its fault; then does it; then perhaps loses its answer.
    async fn call<T>(
        &self,
        call: Call,
        latency: Duration,
        work: impl FnOnce(&mut State, Duration) -> Result<T, EngineError> + Send,
    ) -> Result<T, EngineError> {
        let fault = self.inner.with(|s, _| s.faults.next(call));
        let jitter = Duration::from_millis(self.inner.rand.below(5));
        tokio::time::sleep(latency + jitter + fault.slower).await;
        if let Some(error) = fault.fail_before {
            return Err(error);
        }
        if fault.hang {
            tokio::time::sleep(CALL_TIMEOUT).await;
            return Err(EngineError::Timeout { call: call.verb(), after: CALL_TIMEOUT });
        }
        let done = self.inner.with(|s, now| if s.faults.is_down() { Err(down()) } else { work(s, now) });
        if fault.lose_answer {
            return Err(EngineError::Timeout { call: call.verb(), after: CALL_TIMEOUT });
        }
        done
    }
}

fn down() -> EngineError {
    EngineError::Unreachable { endpoint: "embedded".into(), reason: "the engine is stopped".into() }
}

// === impl Inner ===

impl Inner {
    /// Does what is due, then `f`, then tells the listeners.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State, Duration) -> T) -> T {
        let now = self.clock.unix_now();
        let mut state = self.state.lock();
        let before = state.containers.changes();
        state.containers.settle(now);
        let out = f(&mut state, now);
        let changed = state.containers.changes() != before || state.faults.take_changed();
        drop(state);
        if changed {
            self.changed.send_modify(|n| *n += 1);
        }
        out
    }
}

#[async_trait]
impl Engine for EmbeddedEngine {
    async fn describe(&self) -> Result<NodeDescription, EngineError> {
        let options = self.inner.options.clone();
        self.call(Call::Describe, Duration::from_millis(2), |s, _| {
            Ok(NodeDescription {
                hostname: options.hostname,
                platform: options.platform,
                resources: options.resources,
                generic: options.generic,
                engine: EngineDescription {
                    version: "embedded".into(),
                    labels: options.labels,
                    plugins: options.plugins.into_iter().chain(s.plugins.volume_drivers()).collect(),
                },
                tls: None,
            })
        })
        .await
    }

    async fn pull(&self, image: &str, _registry_auth: Option<&str>) -> Result<(), EngineError> {
        let behaviour = Behaviour::of(image);
        self.call(Call::Pull, behaviour.pull_takes, |_, _| {
            if image.is_empty() {
                return Err(EngineError::Refused("invalid reference format: no image was given".into()));
            }
            if behaviour.no_image { Err(EngineError::NotFound(format!("No such image: {image}"))) } else { Ok(()) }
        })
        .await
    }

    async fn create(&self, container: &NewContainer) -> Result<String, EngineError> {
        let mut id = [0; 32];
        self.inner.rand.fill(&mut id);
        let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
        self.call(Call::Create, Duration::from_millis(10), |s, _| s.containers.create(id, container)).await
    }

    async fn start(&self, id: &str) -> Result<(), EngineError> {
        let files = Arc::clone(&self.inner.files);
        self.call(Call::Start, Duration::from_millis(20), move |s, now| {
            if let Some(gone) = files.missing(s.containers.files(id)) {
                return Err(EngineError::Refused(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    gone.source
                )));
            }
            s.containers.start(id, now)
        })
        .await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        // The signal is sent at once; the answer comes when it has ended.
        let ends =
            self.call(Call::Stop, Duration::from_millis(5), |s, now| Ok(s.containers.stop(id, now, grace))).await?;
        while let Some(left) = ends.and_then(|at| at.checked_sub(self.inner.clock.unix_now())).filter(|d| !d.is_zero())
        {
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
        }
        self.inner.with(|s, _| if s.faults.is_down() { Err(down()) } else { Ok(()) })
    }

    async fn remove(&self, id: &str) -> Result<(), EngineError> {
        self.call(Call::Remove, Duration::from_millis(10), |s, now| {
            s.containers.remove(id, now);
            Ok(())
        })
        .await
    }

    async fn inspect(&self, id: &str) -> Result<Option<ContainerState>, EngineError> {
        self.call(Call::Inspect, Duration::from_millis(2), |s, now| Ok(s.containers.get(id, now))).await
    }

    async fn list(&self, label: &str) -> Result<Vec<ContainerState>, EngineError> {
        self.call(Call::List, Duration::from_millis(3), |s, now| {
            let mut all = s.containers.all(now);
            all.retain(|c| has_label(c, label));
            Ok(all)
        })
        .await
    }

    async fn events(&self, label: &str) -> Result<BoxStream<'static, ContainerEvent>, EngineError> {
        let (from, epoch) = self
            .call(Call::Events, Duration::from_millis(2), |s, _| Ok((s.containers.changes(), s.faults.epoch())))
            .await?;
        let listener = Listener { inner: Arc::clone(&self.inner), changed: self.inner.changed.subscribe() };
        let label = label.to_owned();
        let events = stream::unfold((listener, from), move |(mut listener, from)| {
            let label = label.clone();
            async move {
                loop {
                    // Marked before looking, so that what changes after the look wakes the wait.
                    listener.changed.borrow_and_update();
                    let (over, next) = listener.inner.with(|s, now| {
                        (s.faults.is_down() || s.faults.epoch() != epoch, s.containers.events_after(from, &label, now))
                    });
                    if over {
                        return None;
                    }
                    if let Some((at, event)) = next {
                        let lost = listener.inner.with(|s, _| s.faults.loses_event());
                        return Some(((!lost).then_some(event), (listener, at)));
                    }
                    listener.wait().await;
                }
            }
        });
        Ok(events.filter_map(std::future::ready).boxed())
    }

    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogChunk, EngineError>>, EngineError> {
        let id = id.to_owned();
        let (lines, from) = self
            .call(Call::Logs, Duration::from_millis(3), |s, now| {
                let lines = s.containers.log(&id, options, now).ok_or_else(|| containers::no_such_container(&id))?;
                Ok((lines, s.containers.next_line(&id)))
            })
            .await?;
        let past = stream::iter(lines).map(|(_, chunk)| Ok(chunk));
        if !options.follow {
            return Ok(past.boxed());
        }
        let options = LogOptions { tail: None, ..options };
        let listener = Listener { inner: Arc::clone(&self.inner), changed: self.inner.changed.subscribe() };
        let later = stream::unfold((listener, from), move |(mut listener, from)| {
            let id = id.clone();
            async move {
                loop {
                    listener.changed.borrow_and_update();
                    let (down, lines, ended) = listener.inner.with(|s, now| {
                        let lines = s.containers.log(&id, options, now);
                        (s.faults.is_down(), lines, s.containers.has_ended(&id, now))
                    });
                    if down {
                        return None;
                    }
                    if let Some((n, chunk)) = lines?.into_iter().find(|(n, _)| *n >= from) {
                        return Some((Ok(chunk), (listener, n + 1)));
                    }
                    if ended {
                        return None;
                    }
                    listener.wait().await;
                }
            }
        });
        Ok(past.chain(later).boxed())
    }

    async fn log_details(&self, id: &str) -> Result<BTreeMap<String, String>, EngineError> {
        self.call(Call::Inspect, Duration::from_millis(2), |s, _| {
            s.containers.log_details(id).ok_or_else(|| containers::no_such_container(id))
        })
        .await
    }

    async fn signal(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        self.call(Call::Stop, Duration::from_millis(2), |s, now| {
            let container = s.containers.get(id, now).ok_or_else(|| containers::no_such_container(id))?;
            if container.phase != ContainerPhase::Running {
                return Err(EngineError::Conflict(format!("Container {id} is not running")));
            }
            if s.signals.len() < SIGNALS_MAX {
                s.signals.push((container.id, signal.to_owned()));
            }
            Ok(())
        })
        .await
    }

    fn files(&self) -> Arc<dyn HostFiles> {
        self.inner.files.clone()
    }

    fn kind(&self) -> &'static str {
        "embedded"
    }
}

struct Listener {
    inner: Arc<Inner>,
    changed: watch::Receiver<u64>,
}

impl Listener {
    /// Until something changed or is due.
    async fn wait(&mut self) {
        let due = self.inner.with(|s, now| s.containers.next_due(now).map(|at| at.saturating_sub(now)));
        tokio::select! {
            biased;
            // The sender lives as long as `inner`.
            _ = self.changed.changed() => {}
            () = tokio::time::sleep(due.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN).max(Duration::from_millis(1))) => {}
        }
    }
}

pub(crate) fn has_label(container: &ContainerState, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => container.labels.get(key).is_some_and(|v| v == value),
        None => container.labels.contains_key(label),
    }
}
