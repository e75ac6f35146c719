//! What befalls the world during the storm, drawn from the seed: which kinds of fault there are at all in this run (so that
//! each run explores a character of its own), when, whom, and for how long.

use super::machine::{Machine, Order};
use super::net::UdpFaults;
use crate::event;
use crate::rng::SeededRand;
use engine::embedded::Call;
use engine::{ContainerPhase, EngineError};
use seams::RandExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use turmoil::Sim;

/// Kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9`, and a start after a while. Containers go on; the page cache stays.
    Kill,
    /// The power fails: containers die, what was not synced is lost.
    Power,
    /// The power fails on all managers in the same moment.
    PowerAll,
    /// SIGTERM, and a start after a while.
    Stop,
    /// Two groups of nodes do not hear each other.
    Partition,
    /// One group does not hear the other, but is heard.
    OneWay,
    /// More than half of the nodes are cut off from a majority of the managers, for long enough to be missed.
    BigCut,
    /// A manager is cut off from the other managers only: it goes on serving its agents from the past.
    StaleManager,
    /// Nothing comes or goes at one node, and then all at once (a pause, as others see it).
    Hold,
    /// One node does nothing for a while, and then all its timers fire (a pause, as it sees it itself).
    Stall,
    /// The network is slow.
    Latency,
    /// Datagrams are lost, doubled, overtaken.
    Datagrams,
    /// A disk is slow.
    SlowDisk,
    /// A clock is set forward or back, by up to an hour.
    ClockJump,
    /// A container engine's calls fail, hang, or lose their answers, each kind of call.
    EngineCalls,
    /// A container engine loses events, or is stopped, with or without its containers.
    EngineDown,
    /// Containers die or vanish by themselves.
    Containers,
}

/// All kinds.
pub const KINDS: [Kind; 17] = [
    Kind::Kill,
    Kind::Power,
    Kind::PowerAll,
    Kind::Stop,
    Kind::Partition,
    Kind::OneWay,
    Kind::BigCut,
    Kind::StaleManager,
    Kind::Hold,
    Kind::Stall,
    Kind::Latency,
    Kind::Datagrams,
    Kind::SlowDisk,
    Kind::ClockJump,
    Kind::EngineCalls,
    Kind::EngineDown,
    Kind::Containers,
];

/// Latency of a message when nothing is wrong, at most.
pub(super) const USUAL_LATENCY: Duration = Duration::from_millis(4);

/// Directed pairs of machines that do not hear: (speaker, listener).
type Cut = BTreeSet<(usize, usize)>;

/// The weather: what is wrong now, and what comes next.
pub struct Weather {
    machines: Vec<Arc<Machine>>,
    /// The first so many are managers.
    managers: usize,
    rand: SeededRand,
    kinds: Vec<Kind>,
    next: Duration,
    ends: Vec<(Duration, End)>,
    cuts: BTreeMap<u64, Cut>,
    cut_count: u64,
    down: BTreeSet<usize>,
    held: bool,
    /// The side that a big cut cuts off, and the cut's number.
    big_cut: Option<(BTreeSet<usize>, u64)>,
    fired: BTreeMap<Kind, u64>,
}

/// How something ends.
enum End {
    Up(usize),
    Cut(u64),
    Release(usize),
    Latency,
    Datagrams(usize),
    Disk(usize),
    Engine(usize),
}

// === impl Weather ===

impl Weather {
    /// The weather of a seed. `kinds`: those that a deliberate bug needs to show; empty to draw.
    pub fn new(seed: u64, machines: Vec<Arc<Machine>>, managers: usize, kinds: &[Kind]) -> Weather {
        let rand = SeededRand::new(seed, "weather");
        let mut drawn: Vec<Kind> = kinds.to_vec();
        while drawn.is_empty() {
            let share = rand.between(150, 700);
            drawn = KINDS.into_iter().filter(|_| rand.chance(share)).collect();
        }
        Weather {
            machines,
            managers,
            rand,
            kinds: drawn,
            next: Duration::ZERO,
            ends: Vec::new(),
            cuts: BTreeMap::new(),
            cut_count: 0,
            down: BTreeSet::new(),
            held: false,
            big_cut: None,
            fired: BTreeMap::new(),
        }
    }

    /// A kind of fault that this run must not have.
    pub fn never(&mut self, kind: Kind) {
        self.kinds.retain(|k| *k != kind);
        if self.kinds.is_empty() {
            self.kinds.push(Kind::Kill);
        }
    }

    /// The kinds of fault in this run.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// How often each kind came.
    pub fn fired(&self) -> &BTreeMap<Kind, u64> {
        &self.fired
    }

    /// Machines whose node is not running because the weather stopped it.
    pub fn down(&self) -> &BTreeSet<usize> {
        &self.down
    }

    /// The machines that a big cut, and nothing else, cuts off now.
    pub fn big_cut(&self) -> Option<&BTreeSet<usize>> {
        self.big_cut.as_ref().map(|(side, _)| side)
    }

    /// Does what is due.
    pub fn blow(&mut self, sim: &mut Sim<'_>, now: Duration) {
        self.end_what_is_due(sim, now);
        if now < self.next {
            return;
        }
        self.next = now + self.rand.millis(300, 4000);
        let Some(kind) = self.rand.pick(&self.kinds).copied() else { return };
        if self.strike(sim, now, kind) {
            *self.fired.entry(kind).or_default() += 1;
        }
    }

    /// Everything is repaired, but for the nodes that stay down for good.
    pub fn calm(&mut self, sim: &mut Sim<'_>, stay_down: &BTreeSet<usize>) {
        event!("world", "calm; down for good: {:?}", self.names(stay_down));
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end(sim, end, stay_down);
        }
        for i in 0..self.machines.len() {
            let machine = &self.machines[i];
            machine.engine.faults().clear();
            machine.clock.set_right();
            machine.disk.set_slow(1);
            *machine.udp.lock() = UdpFaults::default();
            if stay_down.contains(&i) && self.down.insert(i) {
                self.crash(sim, i, true);
            }
        }
    }

    fn names(&self, of: &BTreeSet<usize>) -> Vec<&str> {
        of.iter().map(|i| self.machines[*i].name.as_str()).collect()
    }

    fn later(&mut self, now: Duration, low_ms: u64, high_ms: u64, end: End) {
        self.ends.push((now + self.rand.millis(low_ms, high_ms), end));
    }

    fn any(&self) -> usize {
        usize::try_from(self.rand.below(self.machines.len() as u64)).unwrap_or(0)
    }

    // --- what begins ---

    fn strike(&mut self, sim: &mut Sim<'_>, now: Duration, kind: Kind) -> bool {
        let i = self.any();
        match kind {
            Kind::Kill | Kind::Power | Kind::Stop => self.take_down(sim, now, &[i], kind),
            Kind::PowerAll => {
                let managers: Vec<usize> = (0..self.managers).collect();
                self.take_down(sim, now, &managers, Kind::Power)
            }
            Kind::Partition | Kind::OneWay | Kind::BigCut | Kind::StaleManager => self.cut(sim, now, kind),
            Kind::Hold => self.hold(sim, now, i),
            Kind::Stall => {
                let by = self.rand.millis(200, 8000);
                event!(self.machines[i].name, "stalls for {by:?}");
                self.machines[i].order(Order::Stall(by))
            }
            Kind::Latency => {
                let latency = self.rand.millis(20, 400);
                event!("world", "messages take up to {latency:?}");
                sim.set_max_message_latency(latency);
                self.later(now, 500, 8000, End::Latency);
                true
            }
            Kind::Datagrams => {
                let up_to = |most| self.rand.below(most);
                let faults = UdpFaults { loss: up_to(500), duplicate: up_to(300), late: up_to(300) };
                event!(self.machines[i].name, "its datagrams: {faults:?}");
                *self.machines[i].udp.lock() = faults;
                self.later(now, 1000, 10_000, End::Datagrams(i));
                true
            }
            Kind::SlowDisk => {
                // One machine's, or those of all managers: what is not synced on a majority can be lost.
                let who = if self.rand.chance(500) { 0..self.managers } else { i..i + 1 };
                for i in who {
                    let times = self.rand.between(5, 100) as u32;
                    event!(self.machines[i].name, "its disk is {times} times slower");
                    self.machines[i].disk.set_slow(times);
                    self.later(now, 1000, 10_000, End::Disk(i));
                }
                true
            }
            Kind::ClockJump => {
                let by = i64::try_from(self.rand.between(0, 7_200_000)).unwrap_or(0) - 3_600_000;
                event!(self.machines[i].name, "its clock jumps by {by} ms");
                self.machines[i].clock.jump(by);
                true
            }
            Kind::EngineCalls => self.engine_calls(i),
            Kind::EngineDown => self.engine_down(now, i),
            Kind::Containers => self.containers(i),
        }
    }

    fn take_down(&mut self, sim: &mut Sim<'_>, now: Duration, who: &[usize], kind: Kind) -> bool {
        let who: Vec<usize> = who.iter().copied().filter(|i| !self.down.contains(i)).collect();
        for i in &who {
            self.down.insert(*i);
            if kind == Kind::Stop {
                event!(self.machines[*i].name, "is told to stop");
                self.machines[*i].order(Order::Stop);
                // Long enough for the stop to be over.
                self.later(now, 16_000, 20_000, End::Up(*i));
            } else {
                self.crash(sim, *i, kind == Kind::Power);
                self.later(now, 50, 12_000, End::Up(*i));
            }
        }
        !who.is_empty()
    }

    fn crash(&self, sim: &mut Sim<'_>, i: usize, power: bool) {
        let machine = &self.machines[i];
        machine.forget_life();
        sim.crash(machine.name.as_str());
        if power {
            machine.engine.faults().stop_engine(true);
            let lost = machine.disk.crash();
            event!(machine.name, "loses its power: {} log calls kept, {} lost", lost.kept, lost.lost);
        } else {
            machine.disk.end_of_process();
            event!(machine.name, "is killed");
        }
    }

    fn cut(&mut self, sim: &mut Sim<'_>, now: Duration, kind: Kind) -> bool {
        // A big cut is alone, so that it is clear what it must and must not do.
        if self.held || self.big_cut.is_some() {
            return false;
        }
        let all = self.machines.len();
        let (side, against): (BTreeSet<usize>, BTreeSet<usize>) = match kind {
            Kind::BigCut => {
                // A majority of the managers keeps together; everybody else is cut off from it.
                let keep = self.managers / 2 + 1;
                let first = self.rand.below(self.managers as u64) as usize;
                let kept: BTreeSet<usize> = (0..keep).map(|n| (first + n) % self.managers).collect();
                let side: BTreeSet<usize> = (0..all).filter(|i| !kept.contains(i)).collect();
                if side.len() * 2 <= all || !self.down.is_empty() || !self.cuts.is_empty() {
                    return false;
                }
                (side, kept)
            }
            Kind::StaleManager => {
                if self.managers < 3 {
                    return false;
                }
                let stale = self.rand.below(self.managers as u64) as usize;
                ([stale].into(), (0..self.managers).filter(|i| *i != stale).collect())
            }
            _ => {
                let side: BTreeSet<usize> = (0..all).filter(|_| self.rand.chance(400)).collect();
                let rest = (0..all).filter(|i| !side.contains(i)).collect();
                (side, rest)
            }
        };
        if side.is_empty() || against.is_empty() {
            return false;
        }
        let one_way = kind == Kind::OneWay;
        event!("world", "{kind:?}: {:?} from {:?}", self.names(&side), self.names(&against));
        let mut cut = Cut::new();
        for a in &side {
            for b in &against {
                cut.insert((*a, *b));
                if !one_way {
                    cut.insert((*b, *a));
                }
            }
        }
        self.cut_count += 1;
        self.cuts.insert(self.cut_count, cut);
        if kind == Kind::BigCut {
            self.big_cut = Some((side, self.cut_count));
        }
        self.apply_cuts(sim);
        let (low, high) = if kind == Kind::BigCut { (7000, 10_000) } else { (200, 12_000) };
        self.later(now, low, high, End::Cut(self.cut_count));
        true
    }

    fn hold(&mut self, sim: &mut Sim<'_>, now: Duration, i: usize) -> bool {
        if self.held || !self.cuts.is_empty() {
            return false;
        }
        event!(self.machines[i].name, "is paused");
        self.held = true;
        for other in self.machines.iter().filter(|m| m.name != self.machines[i].name) {
            sim.hold(self.machines[i].name.as_str(), other.name.as_str());
        }
        self.later(now, 200, 8000, End::Release(i));
        true
    }

    fn engine_calls(&mut self, i: usize) -> bool {
        let machine = &self.machines[i];
        let faults = machine.engine.faults();
        let call = *self.rand.pick(&Call::ALL).expect("there are calls");
        let times = self.rand.between(1, 4) as u32;
        let what = match self.rand.below(5) {
            0 => {
                faults.hang_next(call, times);
                "hangs"
            }
            1 => {
                faults.lose_answer_next(call, times);
                "loses its answer"
            }
            2 => {
                faults.slow(call, self.rand.millis(100, 4000));
                "is slow"
            }
            _ => {
                faults.fail_next(call, times, EngineError::Failed("the simulation made it fail".into()));
                "fails"
            }
        };
        event!(machine.name, "its engine: {call:?} {what}, {times} times");
        true
    }

    fn engine_down(&mut self, now: Duration, i: usize) -> bool {
        let machine = &self.machines[i];
        if self.rand.chance(300) {
            let count = self.rand.between(1, 5);
            event!(machine.name, "its engine loses {count} events");
            machine.engine.faults().lose_events(count);
            return true;
        }
        let kill = self.rand.chance(400);
        event!(machine.name, "its engine stops{}", if kill { " with its containers" } else { "" });
        machine.engine.faults().stop_engine(kill);
        self.later(now, 200, 8000, End::Engine(i));
        true
    }

    fn containers(&mut self, i: usize) -> bool {
        let machine = &self.machines[i];
        let all = machine.engine.containers();
        let ours: Vec<_> =
            all.iter().filter(|c| c.name != super::machine::FOREIGN && c.phase == ContainerPhase::Running).collect();
        let Some(container) = self.rand.pick(&ours) else { return false };
        if self.rand.chance(300) {
            event!(machine.name, "container {} vanishes", container.name);
            machine.engine.faults().vanish(&container.id);
        } else {
            event!(machine.name, "container {} dies", container.name);
            machine.engine.faults().kill(&container.id, 137);
        }
        true
    }

    // --- what ends ---

    fn end_what_is_due(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ends).into_iter().partition(|(at, _)| *at <= now);
        self.ends = later;
        for (_, end) in due {
            self.end(sim, end, &BTreeSet::new());
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, end: End, stay_down: &BTreeSet<usize>) {
        match end {
            End::Up(i) if stay_down.contains(&i) => self.machines[i].engine.faults().stop_engine(true),
            End::Up(i) => {
                self.machines[i].engine.faults().start_engine();
                self.machines[i].forget_life();
                self.down.remove(&i);
                event!(self.machines[i].name, "starts");
                sim.bounce(self.machines[i].name.as_str());
            }
            End::Cut(n) => {
                event!("world", "cut {n} is healed");
                self.cuts.remove(&n);
                self.big_cut.take_if(|(_, big)| *big == n);
                self.apply_cuts(sim);
            }
            End::Release(i) => {
                event!(self.machines[i].name, "goes on");
                self.held = false;
                for other in self.machines.iter().filter(|m| m.name != self.machines[i].name) {
                    sim.release(self.machines[i].name.as_str(), other.name.as_str());
                }
            }
            End::Latency => sim.set_max_message_latency(USUAL_LATENCY),
            End::Datagrams(i) => *self.machines[i].udp.lock() = UdpFaults::default(),
            End::Disk(i) => self.machines[i].disk.set_slow(1),
            End::Engine(i) => {
                event!(self.machines[i].name, "its engine starts");
                self.machines[i].engine.faults().start_engine();
            }
        }
    }

    fn apply_cuts(&self, sim: &mut Sim<'_>) {
        for (a, from) in self.machines.iter().enumerate() {
            for (b, to) in self.machines.iter().enumerate().filter(|(b, _)| *b != a) {
                if self.cuts.values().any(|cut| cut.contains(&(a, b))) {
                    sim.partition_oneway(from.name.as_str(), to.name.as_str());
                } else {
                    sim.repair_oneway(from.name.as_str(), to.name.as_str());
                }
            }
        }
    }
}
