//! One run from its seed to its verdict.

use super::faults::{CALM, Kind, Shape, rage, regroup};
use super::manager::Manager;
use super::runtime::{panic_text, sleep, within};
use super::user::{LABEL, LABEL_VALUES, NAMES, User};
use super::worker::{HEARTBEAT, Loss};
use super::world::{Phase, World};
use crate::layer3::{Bug, Options};
use crate::marks::Marks;
use crate::rng::SeededRand;
use crate::trace::{self, Fingerprint};
use invariants::{Violation, check_drained, check_suited, settled};
use model::{
    Cluster, ClusterSpec, JoinTokens, Meta, Node, NodeDescription, NodeSpec, NodeStatus, Platform, RebalancePolicy,
    Resources, RootCa, TaskId, Timestamp,
};
use openraft_rt::AsyncRuntime as _;
use openraft_rt_sim::SimRuntime;
use raft::Role;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Snapshot, Store, StoreClient as _, Transaction};

/// How long founding the cluster may take.
const FOUNDING_MAX: Duration = Duration::from_secs(20);
/// How long what was under way when the storm ended may take to end.
const FINISH_MAX: Duration = Duration::from_secs(60);
/// L1: how long a healed cluster may take to have a leader.
const ELECTION_MAX: Duration = Duration::from_secs(5);
/// L2, L4, L5, L7: how long it may take until all is as it is wanted.
const SETTLE_MAX: Duration = Duration::from_secs(90);
/// L3: for a fresh write.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A run that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The trace.
    pub fingerprint: Fingerprint,
    /// Simulated time.
    pub elapsed: Duration,
    /// What users did.
    pub operations: usize,
    /// Commits.
    pub commits: u64,
    /// Leader changes.
    pub leader_changes: u64,
    /// Faults of each kind.
    pub faults: BTreeMap<Kind, u64>,
    /// What the control loops did (M3).
    pub marks: Marks,
}

/// A run that did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at {:.3} s: {}", at.as_secs_f64(), what.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Failure {
    /// When.
    pub at: Duration,
    /// What was found.
    pub what: Vec<Violation>,
}

/// Runs a seed, and leaves its trace in [`trace`].
///
/// # Errors
/// What was wrong.
pub fn run(seed: u64, options: Options) -> Result<Summary, Failure> {
    trace::begin(options.print);
    let shape = Shape::draw(seed);
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
        SimRuntime::with_seed(seed).block_on(async {
            let world = World::new(seed, shape, options.bug);
            let outcome = story(&world, seed).await;
            world.end();
            outcome
        })
    }));
    ran.unwrap_or_else(|payload| {
        let what = Violation { invariant: "panic", what: panic_text(&*payload) };
        Err(Failure { at: trace::now(), what: vec![what] })
    })
}

async fn story(world: &Arc<World>, seed: u64) -> Result<Summary, Failure> {
    let shape = &world.shape;
    world.event("world", format_args!("{} managers, {} workers, {:?}", shape.managers, shape.workers, shape.kinds));
    if within(FOUNDING_MAX, found(world)).await.is_none() {
        world.broken("the cluster was not founded in time");
    }
    verdict(world)?;
    storm(world, seed).await?;
    calm(world, seed).await?;
    last_words(world, seed).await?;
    let desk = world.desk.lock();
    if let Err(e) = desk.history.check() {
        let what = vec![Violation { invariant: "S9", what: e.to_string() }];
        return Err(Failure { at: world.elapsed(), what });
    }
    let judge = world.judge.lock();
    Ok(Summary {
        fingerprint: trace::fingerprint(),
        elapsed: world.elapsed(),
        operations: desk.history.len(),
        commits: judge.commits,
        leader_changes: judge.leader_changes,
        faults: desk.faults.clone(),
        marks: judge.marks.clone(),
    })
}

/// What the judge has found so far, and what panicked.
fn verdict(world: &World) -> Result<(), Failure> {
    let panics = world.managers.iter().filter_map(Manager::life).filter_map(|l| l.group.panic());
    let mut what: Vec<Violation> = panics.map(|what| Violation { invariant: "panic", what }).collect();
    what.extend_from_slice(world.judge.lock().violations());
    if what.is_empty() { Ok(()) } else { Err(Failure { at: world.elapsed(), what }) }
}

fn late(world: &World, invariant: &'static str, what: &str) -> Failure {
    let what = Violation { invariant, what: what.to_owned() };
    world.event("judge", format_args!("{what}"));
    Failure { at: world.elapsed(), what: vec![what] }
}

// --- founding ---

async fn found(world: &Arc<World>) {
    world.net.set_weather(CALM);
    for manager in &world.managers {
        manager.start(world).await;
    }
    let Some(first) = world.manager(0).life() else { return };
    let found = async {
        first.raft.initialize(world.manager(0).member()).await.map_err(|e| e.to_string())?;
        let leads = first.raft.wait_view("leadership", FOUNDING_MAX, |v| v.role == Role::Leader).await;
        leads.map_err(|e| e.to_string())?;
        for manager in &world.managers[1..] {
            let (id, member) = (manager.raft_id(), manager.member());
            first.raft.add_learner(id, member, FOUNDING_MAX).await.map_err(|e| e.to_string())?;
            first.raft.promote_to_voter(id, FOUNDING_MAX).await.map_err(|e| e.to_string())?;
        }
        first.client.propose(inventory(world)).await.map_err(|e| e.to_string())
    };
    if let Err(error) = found.await {
        return world.broken(&format!("the cluster cannot be founded: {error}"));
    }
    for worker in &world.workers {
        worker.start(world);
    }
    loop {
        let state = world.judge.lock().state();
        if wrong_nodes(world, &state).is_empty() {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The cluster object and a node for each worker.
fn inventory(world: &World) -> Transaction {
    let mut tx = Transaction::new(world.wall_time());
    let mut spec = ClusterSpec { heartbeat_period: HEARTBEAT, ..ClusterSpec::default() };
    if world.shape.spreads_on_join {
        spec.policy.rebalance = RebalancePolicy::OnJoin;
    }
    tx.create(Cluster {
        id: "c".repeat(25).parse().expect("25 letters are an id"),
        meta: Meta::default(),
        spec,
        root_ca: RootCa { cert_pem: String::new(), key_pem: String::new() },
        join_tokens: JoinTokens { worker: String::new(), manager: String::new() },
        gossip_keys: Vec::new(),
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        removed_nodes: BTreeMap::new(),
        security: Default::default(),
    });
    for (n, worker) in world.workers.iter().enumerate() {
        tx.create(Node {
            id: worker.id.clone(),
            meta: Meta::default(),
            spec: NodeSpec {
                labels: [(LABEL.to_owned(), LABEL_VALUES[n % LABEL_VALUES.len()].to_owned())].into(),
                ..NodeSpec::default()
            },
            description: Some(NodeDescription {
                hostname: worker.name.clone(),
                platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
                resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30 },
                ..NodeDescription::default()
            }),
            status: NodeStatus::default(),
            manager: None,
        });
    }
    tx
}

// --- the storm ---

async fn storm(world: &Arc<World>, seed: u64) -> Result<(), Failure> {
    world.net.set_weather(world.shape.weather);
    world.enter(Phase::Storm);
    for n in 0..world.shape.users {
        let rand = SeededRand::new(seed, &format!("user {n}"));
        world.spawn(Arc::new(User { name: format!("u{n}"), rand }).work(world.clone()));
    }
    world.spawn(rage(world.clone(), seed));
    let begun = world.elapsed();
    while world.elapsed() - begun < world.shape.storm {
        sleep(LOOK_EVERY).await;
        verdict(world)?;
    }
    world.enter(Phase::Calm);
    world.net.set_weather(CALM);
    let begun = world.elapsed();
    loop {
        let (raging, idle) = {
            let desk = world.desk.lock();
            (desk.raging, desk.idle)
        };
        if raging == 0 && idle == world.shape.users {
            return Ok(());
        }
        if world.elapsed() - begun > FINISH_MAX {
            return Err(late(
                world,
                "L3",
                &format!("{raging} faults and {} users have not ended", world.shape.users - idle),
            ));
        }
        sleep(LOOK_EVERY).await;
        verdict(world)?;
    }
}

// --- the calm after it ---

async fn calm(world: &Arc<World>, seed: u64) -> Result<(), Failure> {
    world.end_task_failures();
    let manners = world.shape.manners(world.bug == Some(Bug::AckBeforeSync));
    for manager in &world.managers {
        manager.disk.set(|m| (m.sync_min, m.sync_max) = (manners.sync_min, manners.sync_max));
        if manager.life().is_none() {
            manager.start(world).await;
        }
    }
    for (n, worker) in world.workers.iter().enumerate() {
        if n < world.shape.stay_gone {
            let _was_gone_already = worker.crash(world, Loss::Containers);
        } else {
            worker.come_back(world);
        }
    }
    world.desk.lock().raging += 1;
    world.spawn(regroup(world.clone(), seed));
    let begun = world.elapsed();
    loop {
        sleep(LOOK_EVERY).await;
        verdict(world)?;
        let waited = world.elapsed() - begun;
        if world.leader().is_none() && waited > ELECTION_MAX {
            return Err(late(world, "L1", "there is no leader"));
        }
        match unsettled(world) {
            None => return Ok(()),
            Some((invariant, what)) if waited > SETTLE_MAX => return Err(late(world, invariant, &what)),
            Some(_) => {}
        }
    }
}

/// The first thing that is not as it should be in the end.
fn unsettled(world: &World) -> Option<(&'static str, String)> {
    let Some(leader) = world.leader() else { return Some(("L1", "there is no leader".into())) };
    if world.desk.lock().raging > 0 {
        return Some(("L2", "the group is not whole".into()));
    }
    let state = world.manager(leader).life()?.store.snapshot();
    let wrong = wrong_nodes(world, &state);
    if !wrong.is_empty() {
        return Some(("L7", format!("these nodes' state is not what it should be: {wrong:?}")));
    }
    if let Err(all) = settled(&state)
        && let Some(first) = all.iter().find(|u| !u.explained)
    {
        return Some(("L4", first.to_string()));
    }
    if let Some(misplaced) = misplaced(&state) {
        return Some((misplaced.invariant, misplaced.what));
    }
    if let Some(what) = orphans(world, &state) {
        return Some(("S29", what));
    }
    // S4, L2.
    let states = world.managers.iter().map(|m| m.life().map(|l| l.store.snapshot()));
    for (manager, other) in world.managers.iter().zip(states) {
        let same = other.is_some_and(|o| o.index() == state.index() && Store::encode(&o) == Store::encode(&state));
        if !same {
            return Some(("L2", format!("{} is not in the leader's state", manager.name)));
        }
    }
    None
}

fn wrong_nodes(world: &World, state: &Snapshot) -> Vec<String> {
    if state.nodes().len() < world.workers.len() {
        return vec!["all".into()];
    }
    let gone: BTreeSet<_> = world.workers.iter().filter(|w| w.gone_since().is_some()).map(|w| w.id.clone()).collect();
    let judge = world.judge.lock();
    judge.wrong_nodes(state, |id| gone.contains(id)).into_iter().map(|id| world.name_of(id)).collect()
}

/// S18: a task that is where it must not be, since whenever.
fn misplaced(state: &Snapshot) -> Option<Violation> {
    let end_of_time = Timestamp(u64::MAX);
    let mut found = check_drained(state, end_of_time, Duration::ZERO, &BTreeMap::new());
    found.extend(check_suited(state, end_of_time, Duration::ZERO));
    found.into_iter().next()
}

/// Containers that run on a node and should not.
fn orphans(world: &World, state: &Snapshot) -> Option<String> {
    let wanted = |id: &TaskId| state.task(id).is_some_and(|t| t.is_wanted());
    let here = world.workers.iter().filter(|w| w.gone_since().is_none());
    here.flat_map(|w| w.running().into_iter().map(move |t| (w, t)))
        .find(|(_, t)| !wanted(t))
        .map(|(w, t)| format!("{} runs task {t}, which is not wanted", w.name))
}

/// L3, and the end of the history: a write through every manager is acknowledged, and everything is read once more.
async fn last_words(world: &Arc<World>, seed: u64) -> Result<(), Failure> {
    for (n, manager) in world.managers.iter().enumerate() {
        let Some(life) = manager.life() else { continue };
        let written = life.run(|life| async move { write(&life.client.current().await, &life, n).await });
        match within(WRITE_MAX, written).await {
            Some(Some(Ok(()))) => {}
            outcome => return Err(late(world, "L3", &format!("a write through {}: {outcome:?}", manager.name))),
        }
        verdict(world)?;
    }
    let user = User { name: "last".into(), rand: SeededRand::new(seed, "last") };
    for name in NAMES {
        let _noted = user.read(world, name).await;
    }
    verdict(world)
}

async fn write(
    current: &Result<Snapshot, store::ReadError>,
    life: &super::manager::Life,
    n: usize,
) -> Result<(), String> {
    let current = current.as_ref().map_err(ToString::to_string)?;
    let mut cluster = Cluster::clone(current.cluster().ok_or("the cluster object is gone")?);
    cluster.spec.labels.insert("fresh".into(), n.to_string());
    let mut tx = Transaction::new(Timestamp::default());
    tx.changes.push(Change::Put(cluster.into()));
    life.client.propose(tx).await.map(drop).map_err(|e| e.to_string())
}
