//! The same handle on openraft's simulated runtime, with an in-memory network: deterministic, and it survives partitions.

use async_trait::async_trait;
use bytes::Bytes;
use openraft_rt::Instant as _;
use openraft_rt_sim::{SimInstant, SimRuntime};
use parking_lot::Mutex;
use rand::Rng as _;
use seams::MemoryDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use swarmlite_raft::{
    ApplyError, AsyncRuntime as _, Member, MemoryLog, Parts, PeerCall, PeerError, PeerTransport, ProposeError, Raft,
    RaftConfig, Role, SnapshotFn, StateMachine,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Who can talk, and what happened.
#[derive(Default)]
struct World {
    members: Mutex<BTreeMap<u64, Raft<SimRuntime>>>,
    cut_off: Mutex<BTreeSet<u64>>,
    /// From one to the other, beyond what it is in one place.
    way: Mutex<Duration>,
    /// Members have this one, when it is not the usual one.
    config: Option<RaftConfig>,
    begun: Mutex<Option<SimInstant>>,
    trace: Mutex<Vec<String>>,
}

/// The network as one member sees it.
struct Wire {
    from: u64,
    world: Arc<World>,
}

struct Numbers {
    id: u64,
    world: Arc<World>,
    applied: Mutex<Vec<u64>>,
}

impl World {
    fn note(&self, event: String) {
        let now = SimInstant::now();
        let begun = *self.begun.lock().get_or_insert(now);
        self.trace.lock().push(format!("{:?} {event}", now - begun));
    }
}

#[async_trait]
impl PeerTransport for Wire {
    async fn call(&self, target: u64, _: &Member, call: PeerCall) -> Result<Bytes, PeerError> {
        let delay = 1 + SimRuntime::thread_rng().next_u64() % 10;
        let way = *self.world.way.lock();
        SimRuntime::sleep(Duration::from_millis(delay) + way).await;
        let cut_off = |id| self.world.cut_off.lock().contains(&id);
        let peer = self.world.members.lock().get(&target).cloned();
        match peer {
            Some(peer) if !cut_off(target) && !cut_off(self.from) => {
                let answer = peer.handle(call).await;
                if !way.is_zero() {
                    SimRuntime::sleep(way).await;
                }
                answer
            }
            _ => Err(PeerError::Unreachable("cut off".into())),
        }
    }
}

impl StateMachine for Numbers {
    fn apply(&self, index: u64, command: &[u8]) -> Result<Bytes, ApplyError> {
        let number = command.try_into().map(u64::from_le_bytes);
        let number = number.map_err(|_| ApplyError { index, reason: "not a number".into() })?;
        self.world.note(format!("{} applies {number} at {index}", self.id));
        self.applied.lock().push(number);
        Ok(Bytes::new())
    }
    fn advance(&self, index: u64) {
        self.world.note(format!("{} advances to {index}", self.id));
    }
    fn snapshot(&self) -> SnapshotFn {
        let numbers = self.applied.lock().clone();
        Box::new(move || numbers.iter().flat_map(|n| n.to_le_bytes()).collect())
    }
    fn restore(&self, bytes: &[u8]) -> Result<(), String> {
        let numbers = bytes.chunks_exact(8).filter_map(|c| c.try_into().ok()).map(u64::from_le_bytes);
        *self.applied.lock() = numbers.collect();
        Ok(())
    }
}

async fn start(id: u64, world: &Arc<World>) -> Arc<Numbers> {
    let machine = Arc::new(Numbers { id, world: world.clone(), applied: Mutex::default() });
    let usual = RaftConfig { snapshot_every: 40, keep_behind_snapshot: 5, ..RaftConfig::default() };
    let parts = Parts {
        raft_id: id,
        config: world.config.clone().unwrap_or(usual),
        log: Arc::new(MemoryLog::new()),
        machine: machine.clone(),
        disk: Arc::new(MemoryDisk::default()),
        snapshot_dir: PathBuf::from("/snapshots"),
    };
    let raft = Raft::start_with_transport(parts, Arc::new(Wire { from: id, world: world.clone() })).await.unwrap();
    world.members.lock().insert(id, raft);
    machine
}

fn member(world: &World, id: u64) -> Raft<SimRuntime> {
    world.members.lock()[&id].clone()
}

fn node(id: u64) -> Member {
    Member { addr: format!("10.0.0.{id}:2377"), node_id: format!("node{id}") }
}

/// Proposes everywhere until somebody acknowledges; gives how long it took. Unknown outcomes are not tried again.
async fn write(world: &World, number: u64) -> bool {
    for _ in 0..1000 {
        for id in [1, 2, 3] {
            let outcome = member(world, id).propose(number.to_le_bytes().to_vec().into(), Duration::from_secs(1)).await;
            match outcome {
                Ok(_) => return true,
                Err(ProposeError::Unknown { .. }) => return false,
                Err(_) => {}
            }
        }
        SimRuntime::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody acknowledged {number}");
}

/// From the leader that a majority confirms; one that was cut off may still think that it leads.
async fn read_index(world: &World) -> u64 {
    for _ in 0..1000 {
        for id in [1, 2, 3] {
            if let Ok(index) = member(world, id).read_index(Duration::from_secs(1)).await {
                return index;
            }
        }
        SimRuntime::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody leads");
}

/// Three voters.
async fn group(world: &Arc<World>) -> [Arc<Numbers>; 3] {
    let machines = [start(1, world).await, start(2, world).await, start(3, world).await];
    let first = member(world, 1);
    first.initialize(node(1)).await.unwrap();
    first.wait_view("leadership", LIMIT, |v| v.role == Role::Leader).await.unwrap();
    for id in [2, 3] {
        first.add_learner(id, node(id), LIMIT).await.unwrap();
        first.promote_to_voter(id, LIMIT).await.unwrap();
    }
    machines
}

async fn story(world: Arc<World>) {
    let machines = group(&world).await;
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        // One that was cut off before may still think that it leads, in an older term.
        let leader = (1..=3).filter(|id| member(&world, *id).leading_term().is_some());
        let leader = leader.max_by_key(|id| member(&world, *id).leading_term());
        world.cut_off.lock().extend(leader);
        for n in 0..20 {
            let number = round * 100 + n;
            if write(&world, number).await {
                acknowledged.push(number);
            }
        }
        world.cut_off.lock().clear();
    }
    assert!(write(&world, 9999).await);
    let index = read_index(&world).await;
    for (id, machine) in (1..=3).zip(&machines) {
        member(&world, id).wait_applied(index, LIMIT).await.unwrap();
        let applied = machine.applied.lock().clone();
        assert!(acknowledged.iter().all(|n| applied.contains(n)), "{id} lacks an acknowledged number");
        assert_eq!(applied, *machines[0].applied.lock());
    }
    assert!(acknowledged.len() > 60, "{}", acknowledged.len());
    for id in 1..=3 {
        member(&world, id).shutdown(LIMIT).await;
    }
}

fn trace(seed: u64) -> Vec<String> {
    let world = Arc::new(World::default());
    SimRuntime::with_seed(seed).block_on(story(world.clone()));
    // The members refer to the world and the world to the members.
    world.members.lock().clear();
    std::mem::take(&mut *world.trace.lock())
}

/// How often, of a hundred looks in fifty seconds, the leader of before leads still and hears a majority in time.
async fn steadiness(world: Arc<World>) -> usize {
    group(&world).await;
    let leader = member(&world, 1);
    let term = leader.leading_term().expect("it has just led");
    *world.way.lock() = Duration::from_millis(140);
    let mut steady = 0;
    for _ in 0..100 {
        SimRuntime::sleep(Duration::from_millis(500)).await;
        let view = leader.view();
        steady += usize::from(view.leads_in(term) && view.leads_with_quorum(leader.config().quorum_silence_max()));
    }
    for id in 1..=3 {
        member(&world, id).shutdown(LIMIT).await;
    }
    steady
}

#[test]
fn members_on_two_sides_of_the_earth_keep_their_leader_when_they_are_patient() {
    let looks = |config: RaftConfig, seed| {
        let world = Arc::new(World { config: Some(config), ..World::default() });
        let steady = SimRuntime::with_seed(seed).block_on(steadiness(world.clone()));
        world.members.lock().clear();
        steady
    };
    for seed in 0..3 {
        let quick = looks(RaftConfig::default(), seed);
        assert!(quick < 50, "an answer takes 0.28 s, and is waited for 0.15 s: {quick}");
        assert_eq!(looks(RaftConfig::default().slowed(3, 30), seed), 100);
    }
}

#[test]
fn acknowledged_commands_survive_partitions_and_a_seed_repeats_itself() {
    let traces: Vec<_> = (0..5).map(trace).collect();
    assert!(trace(0) == traces[0], "the same seed told another story");
    assert!(traces[0] != traces[1], "two seeds told the same story");
}
