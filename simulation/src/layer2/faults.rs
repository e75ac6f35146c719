//! What a seed makes of the world (each draws which faults there are, and how strong), and the faults themselves.

use super::disk::Manners;
use super::manager::Life;
use super::net::{Addr, WORKERS, Weather};
use super::runtime::{sleep, within};
use super::worker::Loss;
use super::world::{Phase, World};
use crate::rng::{PerMille, SeededRand};
use parking_lot::Mutex;
use raft::{Member, MembershipError, RaftView};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// For one step of a change of the group.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);
/// It has two steps at most, and says by itself when they take too long.
const STEP_LIMIT: Duration = Duration::from_secs(7);
/// Steps of a change of the group, at most.
const STEPS_MAX: usize = 40;

/// What a seed makes of the world.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) managers: usize,
    pub(super) workers: usize,
    pub(super) users: usize,
    pub(super) storm: Duration,
    pub(super) snapshot_every: u64,
    pub(super) keep_behind_snapshot: u64,
    pub(super) weather: Weather,
    pub(super) sync: (Duration, Duration),
    /// The chance that a task fails when its node looks at it.
    pub(super) task_failures: PerMille,
    /// The kinds of fault that there are.
    pub(super) kinds: Vec<Kind>,
    /// Milliseconds between two faults.
    pub(super) gap: (u64, u64),
    /// Workers that never come back.
    pub(super) stay_gone: usize,
    /// Services are spread anew when a node comes to take tasks.
    pub(super) spreads_on_join: bool,
}

/// The kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Two managers do not reach each other.
    CutPair,
    /// One manager does not reach another.
    CutOneWay,
    /// The leader reaches no manager.
    IsolateLeader,
    /// The managers fall into two parts.
    Split,
    /// A manager's process is killed.
    Kill,
    /// A manager's machine loses power.
    PowerLoss,
    /// All managers' machines lose power.
    PowerCut,
    /// A manager's process is stopped for a while.
    Pause,
    /// The leader hands over.
    Transfer,
    /// A manager is replaced by a new machine.
    Replace,
    /// A manager's wall clock is set.
    SetClock,
    /// A manager's disk becomes slow.
    SlowDisk,
    /// A manager's disk fails to sync.
    FailSync,
    /// A worker crashes.
    WorkerCrash,
    /// A worker reaches no manager.
    WorkerCut,
    /// Most workers reach no manager.
    Blackout,
}

/// All kinds.
pub const KINDS: [Kind; 16] = [
    Kind::CutPair,
    Kind::CutOneWay,
    Kind::IsolateLeader,
    Kind::Split,
    Kind::Kill,
    Kind::PowerLoss,
    Kind::PowerCut,
    Kind::Pause,
    Kind::Transfer,
    Kind::Replace,
    Kind::SetClock,
    Kind::SlowDisk,
    Kind::FailSync,
    Kind::WorkerCrash,
    Kind::WorkerCut,
    Kind::Blackout,
];

/// The machines that a fault has in hand, so that no other one befalls them meanwhile.
#[derive(Default)]
pub(super) struct Hands(Mutex<BTreeSet<Addr>>);

struct Held<'a>(&'a Hands, Addr);

// === impl Shape ===

impl Shape {
    pub(super) fn draw(seed: u64) -> Shape {
        let rand = SeededRand::new(seed, "shape");
        let one_of = |options: &[u64]| *rand.pick(options).expect("there are some");
        let managers = if rand.chance(650) { 3 } else { 5 };
        let workers = usize::try_from(rand.between(3, 8)).expect("a small number");
        let rough = rand.chance(500);
        let maybe = |chance: PerMille| if rough && rand.chance(600) { rand.between(0, chance) } else { 0 };
        let weather = Weather {
            loss: maybe(150),
            duplicate: maybe(200),
            straggle: maybe(100),
            delay_max: Duration::from_millis(one_of(&[1, 2, 5, 20])),
        };
        let slow_disk = rand.chance(250);
        let sync_max = if slow_disk { rand.millis(20, 120) } else { rand.millis(1, 5) };
        let some = rand.between(200, 800);
        Shape {
            managers,
            workers,
            users: usize::try_from(rand.between(2, 5)).expect("a small number"),
            storm: rand.millis(6_000, 16_000),
            snapshot_every: one_of(&[10, 25, 60, 200, 10_000]),
            keep_behind_snapshot: one_of(&[0, 3, 20, 100]),
            weather,
            sync: (sync_max / 4, sync_max),
            task_failures: if rand.chance(500) { rand.between(1, 20) } else { 0 },
            kinds: KINDS.into_iter().filter(|_| rand.chance(some)).collect(),
            gap: *rand.pick(&[(100, 600), (300, 2000), (1000, 4000)]).expect("there are some"),
            stay_gone: if rand.chance(300) { (workers - 1) / 2 } else { 0 },
            spreads_on_join: rand.chance(300),
        }
    }

    pub(super) fn manners(&self, ack_early: bool) -> Manners {
        Manners { sync_min: self.sync.0, sync_max: self.sync.1, fail_next: false, ack_early }
    }
}

/// Nothing is lost.
pub(super) const CALM: Weather = Weather { loss: 0, duplicate: 0, straggle: 0, delay_max: Duration::from_millis(2) };

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// === impl Hands ===

impl Hands {
    fn take(&self, addr: Addr) -> Option<Held<'_>> {
        let free = self.0.lock().insert(addr);
        free.then(|| Held(self, addr))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

// === the storm ===

/// Lets faults happen until the storm is over.
pub(super) async fn rage(world: Arc<World>, seed: u64) {
    let rand = SeededRand::new(seed, "faults");
    let hands = Arc::new(Hands::default());
    let mut count = 0_u64;
    while world.phase() == Phase::Storm {
        sleep(rand.millis(world.shape.gap.0, world.shape.gap.1)).await;
        let Some(kind) = rand.pick(&world.shape.kinds).copied() else { continue };
        if world.phase() != Phase::Storm {
            break;
        }
        count += 1;
        let fault = Fault {
            rand: SeededRand::new(seed, &format!("fault {count}")),
            world: world.clone(),
            hands: hands.clone(),
        };
        world.desk.lock().raging += 1;
        let world = world.clone();
        world.clone().spawn(async move {
            fault.befall(kind).await;
            world.desk.lock().raging -= 1;
        });
    }
}

/// Brings every manager back into the group, as a new member if it is none any more: what the node crate's leader does.
pub(super) async fn regroup(world: Arc<World>, seed: u64) {
    let rand = SeededRand::new(seed, "regroup");
    let fault = Fault { rand, world: world.clone(), hands: Arc::default() };
    for slot in 0..world.managers.len() {
        let manager = world.manager(slot);
        if fault.until(manager.raft_id(), |view, id| view.nodes.contains_key(&id)).await == Some(false) {
            manager.crash(&world, true);
            manager.renew(world.raft_id());
            manager.start(&world).await;
        }
        let done = fault.until_done(manager.raft_id(), true).await;
        if !done {
            world.violates("L2", format!("{} cannot be brought into the group", manager.name));
        }
    }
    world.desk.lock().raging -= 1;
}

struct Fault {
    rand: SeededRand,
    world: Arc<World>,
    hands: Arc<Hands>,
}

impl Fault {
    async fn befall(&self, kind: Kind) {
        match kind {
            Kind::CutPair => self.cut(&self.pair(), true).await,
            Kind::CutOneWay => self.cut(&self.pair(), false).await,
            Kind::IsolateLeader => self.isolate_leader().await,
            Kind::Split => self.split().await,
            Kind::Kill => self.crash(false).await,
            Kind::PowerLoss => self.crash(true).await,
            Kind::PowerCut => self.power_cut().await,
            Kind::Pause => self.pause().await,
            Kind::Transfer => self.transfer().await,
            Kind::Replace => self.replace().await,
            Kind::SetClock => self.set_clock().await,
            Kind::SlowDisk => self.slow_disk().await,
            Kind::FailSync => self.fail_sync().await,
            Kind::WorkerCrash => self.worker_crash().await,
            Kind::WorkerCut => self.worker_cut().await,
            Kind::Blackout => self.blackout().await,
        }
    }

    fn begins(&self, kind: Kind, what: fmt::Arguments<'_>) {
        *self.world.desk.lock().faults.entry(kind).or_default() += 1;
        self.world.event("world", format_args!("{kind}: {what}"));
    }

    fn some_manager(&self) -> Addr {
        usize::try_from(self.rand.between(0, self.world.managers.len() as u64 - 1)).unwrap_or(0)
    }

    fn some_worker(&self) -> usize {
        usize::try_from(self.rand.between(0, self.world.workers.len() as u64 - 1)).unwrap_or(0)
    }

    /// More often than not the leader: that is where it hurts.
    fn victim(&self) -> Addr {
        let leader = self.world.leader().filter(|_| self.rand.chance(500));
        leader.unwrap_or_else(|| self.some_manager())
    }

    fn pair(&self) -> Vec<(Addr, Addr)> {
        let a = self.victim();
        let b = (a + 1 + self.some_manager() % (self.world.managers.len() - 1)) % self.world.managers.len();
        vec![(a, b)]
    }

    // --- the network ---

    async fn cut(&self, ways: &[(Addr, Addr)], both: bool) {
        self.begins(if both { Kind::CutPair } else { Kind::CutOneWay }, format_args!("{ways:?}"));
        self.cut_for(ways, both, self.rand.millis(200, 4000)).await;
    }

    async fn cut_for(&self, ways: &[(Addr, Addr)], both: bool, how_long: Duration) {
        let net = &self.world.net;
        for (a, b) in ways {
            net.cut(*a, *b);
            if both {
                net.cut(*b, *a);
            }
        }
        sleep(how_long).await;
        for (a, b) in ways {
            net.mend(*a, *b);
            if both {
                net.mend(*b, *a);
            }
        }
        self.world.event("world", format_args!("mended: {ways:?}"));
    }

    async fn isolate_leader(&self) {
        let Some(leader) = self.world.leader() else { return };
        let mut ways: Vec<(Addr, Addr)> =
            (0..self.world.managers.len()).filter(|m| *m != leader).map(|m| (leader, m)).collect();
        if self.rand.chance(300) {
            ways.extend((0..self.world.workers.len()).map(|w| (leader, WORKERS + w)));
        }
        self.begins(Kind::IsolateLeader, format_args!("m{leader}"));
        self.cut_for(&ways, !self.rand.chance(200), self.rand.millis(300, 5000)).await;
    }

    async fn split(&self) {
        let side = self.rand.between(1, (1 << self.world.managers.len()) - 2);
        let on = |m: Addr| side & (1 << m) != 0;
        let all = 0..self.world.managers.len();
        let ways: Vec<(Addr, Addr)> =
            all.clone().filter(|a| on(*a)).flat_map(|a| all.clone().filter(|b| !on(*b)).map(move |b| (a, b))).collect();
        self.begins(Kind::Split, format_args!("{side:b}"));
        self.cut_for(&ways, true, self.rand.millis(300, 4000)).await;
    }

    // --- managers ---

    async fn crash(&self, power: bool) {
        let slot = self.victim();
        let Some(_held) = self.hands.take(slot) else { return };
        self.begins(if power { Kind::PowerLoss } else { Kind::Kill }, format_args!("m{slot}"));
        self.world.manager(slot).crash(&self.world, power);
        sleep(self.rand.millis(50, 4000)).await;
        self.world.manager(slot).start(&self.world).await;
    }

    async fn power_cut(&self) {
        let slots: Vec<(Addr, Held<'_>)> =
            (0..self.world.managers.len()).filter_map(|m| Some((m, self.hands.take(m)?))).collect();
        self.begins(Kind::PowerCut, format_args!("{} managers", slots.len()));
        for (slot, _) in &slots {
            self.world.manager(*slot).crash(&self.world, true);
        }
        for (slot, _) in &slots {
            sleep(self.rand.millis(0, 800)).await;
            self.world.manager(*slot).start(&self.world).await;
        }
    }

    async fn pause(&self) {
        let slot = self.victim();
        let Some(_held) = self.hands.take(slot) else { return };
        let Some(life) = self.world.manager(slot).life() else { return };
        self.begins(Kind::Pause, format_args!("m{slot}"));
        life.group.pause();
        sleep(self.rand.millis(100, 5000)).await;
        self.world.event("world", format_args!("m{slot} goes on"));
        life.group.resume();
    }

    async fn slow_disk(&self) {
        let slot = self.victim();
        let usual = self.world.shape.sync;
        let slow = self.rand.millis(50, 600);
        self.begins(Kind::SlowDisk, format_args!("m{slot}: {slow:?}"));
        self.world.manager(slot).disk.set(|m| (m.sync_min, m.sync_max) = (slow / 2, slow));
        sleep(self.rand.millis(500, 4000)).await;
        self.world.manager(slot).disk.set(|m| (m.sync_min, m.sync_max) = usual);
    }

    async fn fail_sync(&self) {
        let slot = self.victim();
        let Some(_held) = self.hands.take(slot) else { return };
        let manager = self.world.manager(slot);
        if manager.life().is_none() {
            return;
        }
        self.begins(Kind::FailSync, format_args!("m{slot}"));
        manager.disk.set(|m| m.fail_next = true);
        sleep(self.rand.millis(200, 3000)).await;
        // Its supervisor starts the daemon again.
        manager.crash(&self.world, true);
        sleep(self.rand.millis(50, 2000)).await;
        manager.start(&self.world).await;
    }

    async fn set_clock(&self) {
        let slot = self.victim();
        let far = *self.rand.pick(&[500_u64, 5_000, 60_000, 3_600_000]).expect("there are some");
        let error = i64::try_from(self.rand.between(0, 2 * far)).unwrap_or(0) - i64::try_from(far).unwrap_or(0);
        self.begins(Kind::SetClock, format_args!("m{slot}: {error} ms"));
        self.world.manager(slot).clock_error_ms.store(error, Ordering::Relaxed);
        sleep(self.rand.millis(500, 6000)).await;
        self.world.manager(slot).clock_error_ms.store(0, Ordering::Relaxed);
    }

    async fn transfer(&self) {
        let Some(leader) = self.world.leader() else { return };
        let Some(life) = self.world.manager(leader).life() else { return };
        self.begins(Kind::Transfer, format_args!("from m{leader}"));
        let outcome = life.run(|life| async move { life.raft.transfer_leadership(STEP_TIMEOUT).await }).await;
        let outcome = outcome.map(|o| o.map_err(|e| e.to_string()));
        self.world.event("world", format_args!("transfer from m{leader}: {outcome:?}"));
    }

    /// A manager is removed from the group, and a new one takes its place.
    async fn replace(&self) {
        let slot = self.some_manager();
        let Some(_held) = self.hands.take(slot) else { return };
        let manager = self.world.manager(slot);
        let old = manager.raft_id();
        self.begins(Kind::Replace, format_args!("m{slot}, which is {old:x}"));
        if !self.until_done(old, false).await {
            return self.world.event("world", format_args!("m{slot} is not replaced"));
        }
        manager.crash(&self.world, true);
        manager.renew(self.world.raft_id());
        manager.start(&self.world).await;
        let done = self.until_done(manager.raft_id(), true).await;
        self.world.event("world", format_args!("m{slot} is replaced: {done}"));
    }

    /// What a confirmed leader says of a member.
    async fn until(&self, id: u64, what: impl Fn(&RaftView, u64) -> bool) -> Option<bool> {
        for _ in 0..STEPS_MAX {
            if let Some(life) = self.world.leader().and_then(|m| self.world.manager(m).life()) {
                let confirm = life.run(|life| async move { life.raft.read_index(STEP_TIMEOUT).await });
                if matches!(within(STEP_TIMEOUT, confirm).await, Some(Some(Ok(_)))) {
                    return Some(what(&life.raft.view(), id));
                }
            }
            sleep(self.rand.millis(100, 400)).await;
        }
        None
    }

    /// Asks leaders until a member is in the group (as a voter) or out of it.
    async fn until_done(&self, id: u64, wanted: bool) -> bool {
        for step in 0..STEPS_MAX {
            let leader = self.world.leader().and_then(|m| self.world.manager(m).life());
            if let Some(life) = leader {
                let view = life.raft.view();
                let confirm = life.run(|life| async move { life.raft.read_index(STEP_TIMEOUT).await });
                let confirmed = within(STEP_TIMEOUT, confirm).await.flatten();
                let done = if wanted { view.voters.contains(&id) } else { !view.nodes.contains_key(&id) };
                if done && matches!(confirmed, Some(Ok(_))) {
                    return true;
                }
                // To remove is dangerous for as long as others are away; then the manager stays.
                if !wanted && step > STEPS_MAX / 4 {
                    return false;
                }
                let member = self.world.slot_of(id).map(|slot| self.world.manager(slot).member());
                let step = life.run(|life| async move { step_towards(&life, id, member.filter(|_| wanted)).await });
                let outcome = within(STEP_LIMIT, step).await.flatten();
                if !matches!(outcome, Some(Ok(_))) {
                    let outcome = outcome.map(|o| o.map_err(|e| e.to_string()));
                    let what = if wanted { "into" } else { "out of" };
                    self.world.event("world", format_args!("{id:x} {what} the group: {outcome:?}"));
                }
            }
            sleep(self.rand.millis(100, 400)).await;
        }
        false
    }

    // --- workers ---

    async fn worker_crash(&self) {
        let worker = self.some_worker();
        let Some(_held) = self.hands.take(WORKERS + worker) else { return };
        let loss = *self.rand.pick(&[Loss::Agent, Loss::Containers, Loss::Disk]).expect("there are some");
        let worker = &self.world.workers[worker];
        self.begins(Kind::WorkerCrash, format_args!("{}", worker.name));
        if worker.crash(&self.world, loss) {
            sleep(self.rand.millis(100, 9000)).await;
            worker.come_back(&self.world);
        }
    }

    async fn worker_cut(&self) {
        let worker = self.some_worker();
        let ways: Vec<(Addr, Addr)> = (0..self.world.managers.len()).map(|m| (m, WORKERS + worker)).collect();
        self.begins(Kind::WorkerCut, format_args!("w{worker}"));
        self.cut_for(&ways, !self.rand.chance(200), self.rand.millis(500, 8000)).await;
    }

    async fn blackout(&self) {
        let most = self.world.workers.len() / 2 + 1;
        let count = self.rand.between(most as u64, self.world.workers.len() as u64);
        let count = usize::try_from(count).unwrap_or(most);
        let ways: Vec<(Addr, Addr)> =
            (0..self.world.managers.len()).flat_map(|m| (0..count).map(move |w| (m, WORKERS + w))).collect();
        self.begins(Kind::Blackout, format_args!("{count} workers"));
        self.cut_for(&ways, true, self.rand.millis(4000, 12_000)).await;
    }
}

/// Towards a member in the group, or out of it when none is given.
async fn step_towards(life: &Life, id: u64, member: Option<Member>) -> Result<u64, MembershipError> {
    match member {
        Some(member) => {
            life.raft.add_learner(id, member, STEP_TIMEOUT).await?;
            life.raft.promote_to_voter(id, STEP_TIMEOUT).await
        }
        None if life.raft_id == id => life.raft.transfer_leadership(STEP_TIMEOUT).await,
        None => life.raft.remove_member(id, STEP_TIMEOUT).await,
    }
}
