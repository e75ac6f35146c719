//! The running thing.

use crate::config::{FACTS_MAX, FactError, Facts, GossipConfig, GossipError, GossipTimings, check_fact};
use crate::counters::{Count, GossipCounters, KeyUse};
use crate::transport::SealedTransport;
use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat};
use model::NodeId;
use seams::{Seams, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Between two attempts to start again after chitchat died.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// How long stopping may take; it only closes a socket.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that all nodes may have said together. The usual facts of a node are some hundred.
const STATE_BYTES_MAX: usize = 32 << 20;

/// A node's running gossip. Cheap to clone; it runs until [`Gossip::stop`] or until its tasks are stopped.
#[derive(Clone)]
pub struct Gossip {
    shared: Arc<Shared>,
    /// Only for its stop signal: the work is in the owner's group, so that the owner's shutdown awaits it.
    stop: Tasks,
    ended: watch::Receiver<bool>,
}

struct Shared {
    count: Count,
    /// What this node says of itself.
    own: watch::Sender<BTreeMap<String, String>>,
    seeds: watch::Sender<BTreeSet<SocketAddr>>,
    live: watch::Sender<BTreeSet<NodeId>>,
    facts: watch::Sender<Arc<Facts>>,
}

/// What runs it.
struct Runner {
    shared: Arc<Shared>,
    config: GossipConfig,
    seams: Seams,
    stop: Tasks,
    generation: u64,
    next_seed: usize,
    /// What chitchat was last told of `shared.own`.
    said: BTreeMap<String, String>,
}

type LiveNodes = BTreeMap<ChitchatId, NodeState>;

/// Why a run ended.
enum End {
    Stopped,
    Died(String),
}

// === impl Gossip ===

impl Gossip {
    /// Binds the address and starts.
    ///
    /// # Errors
    /// [`GossipError`] when the address cannot be bound or the timings make no sense.
    pub async fn start(config: GossipConfig, seams: Seams, tasks: &Tasks) -> Result<Gossip, GossipError> {
        check(&config.timings)?;
        let shared = Arc::new(Shared {
            count: Count::default(),
            own: watch::Sender::default(),
            seeds: watch::Sender::new(config.seeds.clone()),
            live: watch::Sender::default(),
            facts: watch::Sender::default(),
        });
        let stop = tasks.child();
        let (over, ended) = watch::channel(false);
        let said = BTreeMap::new();
        let mut runner =
            Runner { shared: shared.clone(), config, seams, stop: stop.clone(), generation: 0, next_seed: 0, said };
        let handle = runner.spawn().await?;
        tasks.spawn_to_end("gossip", async move {
            runner.run(handle).await;
            over.send_replace(true);
        });
        Ok(Gossip { shared, stop, ended })
    }

    /// The nodes that are heard of, this one included. Who is missing is suspected, not known, to be dead.
    pub fn live(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.shared.live.subscribe()
    }

    /// Spreads a fact about this node; replaces the value that it had. Takes effect with the next round.
    ///
    /// # Errors
    /// [`FactError`] when key, value or number exceed their bounds; nothing is changed then.
    pub fn set_fact(&self, key: &str, value: &str) -> Result<(), FactError> {
        check_fact(key, value)?;
        let mut too_many = false;
        self.shared.own.send_if_modified(|own| {
            too_many = own.len() >= FACTS_MAX && !own.contains_key(key);
            !too_many && own.insert(key.to_owned(), value.to_owned()).as_deref() != Some(value)
        });
        if too_many { Err(FactError::TooMany(key.to_owned())) } else { Ok(()) }
    }

    /// Takes a fact about this node back.
    pub fn remove_fact(&self, key: &str) {
        self.shared.own.send_if_modified(|own| own.remove(key).is_some());
    }

    /// What the live nodes say of themselves, as far as heard.
    pub fn facts(&self) -> Arc<Facts> {
        self.shared.facts.borrow().clone()
    }

    /// Tells of every change of [`Gossip::facts`].
    pub fn fact_changes(&self) -> watch::Receiver<Arc<Facts>> {
        self.shared.facts.subscribe()
    }

    /// Replaces the addresses to try while a node is not heard of.
    pub fn set_seeds(&self, seeds: BTreeSet<SocketAddr>) {
        self.shared.seeds.send_if_modified(|old| {
            let changed = *old != seeds;
            *old = seeds;
            changed
        });
    }

    /// What was sent, heard and dropped so far.
    pub fn counters(&self) -> GossipCounters {
        self.shared.count.snapshot()
    }

    /// What this node has sealed under the key that it seals with, since it began to.
    pub fn key_use(&self) -> KeyUse {
        self.shared.count.key_use()
    }

    /// Stops and frees the address.
    pub async fn stop(&self) {
        self.stop.stop();
        if tokio::time::timeout(STOP_TIMEOUT, self.ended.clone().wait_for(|ended| *ended)).await.is_err() {
            tracing::warn!("gossip did not stop in time");
        }
    }
}

fn check(timings: &GossipTimings) -> Result<(), GossipError> {
    if timings.interval < Duration::from_millis(10) || timings.initial_interval < Duration::from_millis(10) {
        return Err(GossipError::Timings("its intervals must be at least 10 ms"));
    }
    if !(timings.phi_threshold.is_finite() && timings.phi_threshold >= 1.0) || timings.sampling_window == 0 {
        return Err(GossipError::Timings("its threshold must be at least 1, and its sampling window too"));
    }
    Ok(())
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

// === impl Runner ===

impl Runner {
    async fn spawn(&mut self) -> Result<ChitchatHandle, GossipError> {
        let now_ms = u64::try_from(self.seams.clock.unix_now().as_millis()).unwrap_or(u64::MAX - 1);
        self.generation = now_ms.max(self.generation.saturating_add(1));
        let (config, timings) = (&self.config, &self.config.timings);
        let transport =
            SealedTransport { config: config.clone(), seams: self.seams.clone(), count: self.shared.count.clone() };
        let chitchat = ChitchatConfig {
            chitchat_id: ChitchatId::new(config.node_id.as_str(), self.generation, config.advertise_addr),
            cluster_id: config.cluster_id.to_string(),
            gossip_interval: timings.interval,
            listen_addr: config.listen_addr,
            // Ours can change at run time, chitchat's cannot.
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig::new(
                timings.phi_threshold,
                timings.sampling_window,
                timings.max_interval,
                timings.initial_interval,
                timings.dead_node_grace,
            ),
            marked_for_deletion_grace_period: timings.removed_fact_grace,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        self.said = self.shared.own.borrow().clone();
        let started = spawn_chitchat(chitchat, self.said.clone().into_iter().collect(), &transport).await;
        started.map_err(|e| GossipError::Bind { addr: config.listen_addr, why: e.to_string() })
    }

    async fn run(mut self, mut handle: ChitchatHandle) {
        loop {
            let end = self.drive(&handle).await;
            handle.abort();
            let why = match end {
                End::Stopped => {
                    // Awaited, so that the address is free when `stop` returns. Aborted is what it should be.
                    let _ = handle.shutdown().await;
                    return;
                }
                End::Died(why) => why,
            };
            let _ = handle.shutdown().await;
            tracing::error!(why, "gossip died and is started again");
            self.shared.count.add(|c| c.restarts += 1);
            handle = loop {
                tokio::select! {
                    biased;
                    () = self.stop.stopped() => return,
                    () = tokio::time::sleep(RESTART_DELAY) => {}
                }
                match self.spawn().await {
                    Ok(handle) => break handle,
                    Err(error) => tracing::error!(%error, "gossip cannot be started again yet"),
                }
            };
        }
    }

    /// Runs one chitchat until it ends.
    async fn drive(&mut self, handle: &ChitchatHandle) -> End {
        let mut live = handle.with_chitchat(|c| c.live_nodes_watcher()).await;
        let mut own = self.shared.own.subscribe();
        // What changed since `spawn` looked.
        own.mark_changed();
        let mut members = self.config.members.clone();
        let mut members_gone = false;
        let mut seed_tick = tokio::time::interval(self.config.timings.interval);
        seed_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut died = std::pin::pin!(handle.termination_watcher());
        loop {
            tokio::select! {
                biased;
                () = self.stop.stopped() => return End::Stopped,
                ended = &mut died => {
                    return End::Died(ended.err().map_or_else(|| "it ended by itself".to_owned(), |e| e.to_string()));
                }
                // The sender lives in `self.shared`, so this does not end.
                _ = own.changed() => {
                    let now = own.borrow_and_update().clone();
                    say(handle, &self.said, &now).await;
                    self.said = now;
                }
                changed = live.changed() => {
                    if changed.is_err() {
                        return End::Died("its watch closed".to_owned());
                    }
                    self.publish(&live.borrow_and_update().clone());
                }
                changed = members.changed(), if !members_gone => {
                    members_gone = changed.is_err();
                    members.borrow_and_update();
                    self.publish(&live.borrow().clone());
                }
                _ = seed_tick.tick() => {
                    if let Some(why) = overfull(handle, self.config.timings.state_entries_max).await {
                        self.shared.count.add(|c| c.overfull += 1);
                        return End::Died(why);
                    }
                    self.try_a_seed(handle, &live.borrow().clone());
                }
            }
        }
    }

    /// Tells the subscribers what chitchat says, as far as it concerns members.
    fn publish(&self, live: &LiveNodes) {
        let members = self.config.members.borrow().clone();
        let mut nodes = BTreeSet::new();
        let mut facts = Facts::new();
        // Sorted by node id, then by generation: the latest life of a node comes last and wins.
        for (id, state) in live {
            let Ok(node) = id.node_id.parse::<NodeId>() else { continue };
            if !members.is_empty() && !members.contains(&node) && node != self.config.node_id {
                continue;
            }
            let said = state.key_values().filter(|(k, v)| check_fact(k, v).is_ok()).take(FACTS_MAX);
            facts.insert(node.clone(), said.map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
            nodes.insert(node);
        }
        self.shared.live.send_if_modified(|old| replace(old, nodes));
        self.shared.facts.send_if_modified(|old| **old != facts && replace(old, Arc::new(facts)));
    }

    /// Speaks to one seed that is not among the live nodes, in turn.
    fn try_a_seed(&mut self, handle: &ChitchatHandle, live: &LiveNodes) {
        let heard: BTreeSet<SocketAddr> = live.keys().map(|id| id.gossip_advertise_addr).collect();
        let seeds = self.shared.seeds.borrow().clone();
        let silent: Vec<SocketAddr> =
            seeds.into_iter().filter(|s| *s != self.config.advertise_addr && !heard.contains(s)).collect();
        if silent.is_empty() {
            return;
        }
        self.next_seed = self.next_seed.wrapping_add(1);
        // Fails only when chitchat has ended, which the caller notices by itself.
        let _ = handle.gossip(silent[self.next_seed % silent.len()]);
    }
}

/// Why chitchat has to begin anew, when a member (who holds the key, so nothing else stops it) has made it keep more than all
/// nodes together should ever say. Removed facts count: each is kept for an hour, lest it come back.
async fn overfull(handle: &ChitchatHandle, entries_max: usize) -> Option<String> {
    let (entries, bytes) = handle
        .with_chitchat(|chitchat| {
            let states = chitchat.node_states().values();
            let said = states.flat_map(|state| state.key_values_including_deleted());
            said.fold((0_usize, 0_usize), |(n, bytes), (key, value)| (n + 1, bytes + key.len() + value.value.len()))
        })
        .await;
    (entries > entries_max || bytes > STATE_BYTES_MAX)
        .then(|| format!("its memory was flooded by a member: {entries} facts of {bytes} bytes"))
}

/// Brings chitchat's copy of this node's facts from `before` to `now`.
async fn say(handle: &ChitchatHandle, before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) {
    handle
        .with_chitchat(|chitchat| {
            let state = chitchat.self_node_state();
            for (key, value) in now {
                if before.get(key) != Some(value) {
                    state.set(key, value);
                }
            }
            for key in before.keys().filter(|k| !now.contains_key(*k)) {
                state.delete(key);
            }
        })
        .await;
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}
