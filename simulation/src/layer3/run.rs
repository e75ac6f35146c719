//! One run from its seed to its verdict.

use super::clock::{EPOCH, set_elapsed};
use super::faults::{Kind, USUAL_LATENCY, Weather};
use super::http::{Answer, ask};
use super::intruder::Intruder;
use super::keeper::Keeper;
use super::machine::Machine;
use super::operator::{Operator, Plan};
use super::user::{Desk, Phase, User, found};
use super::watch::{Outlook, Watch};
use crate::event;
use crate::rng::SeededRand;
use crate::trace::{self, Fingerprint};
use invariants::Violation;
use node::Canaries;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use turmoil::Sim;

/// How long the cluster may take to be made.
const FOUNDING_MAX: Duration = Duration::from_secs(120);
/// How long users may take to finish once nothing breaks any more, and everything to be as it is wanted. The longest single
/// wait is a hanging engine call (15 s), then come restart delays and the patience of connections that a cut left half dead.
const SETTLE_MAX: Duration = Duration::from_secs(90);
/// How long it must stay as it is wanted.
const SETTLED_FOR: Duration = Duration::from_secs(2);
/// How long the last round of writes and reads may take.
const LAST_MAX: Duration = Duration::from_secs(60);
/// Between two costly looks.
const CLOSE_LOOK_EVERY: Duration = Duration::from_millis(500);

/// For a watchdog in another thread.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// How many steps the run in this process has made.
pub fn steps() -> u64 {
    STEPS.load(Ordering::Relaxed)
}

/// One more step was made.
pub(super) fn count_step() {
    STEPS.fetch_add(1, Ordering::Relaxed);
}

/// A deliberate bug, to see whether it is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// The Raft log says that an entry is durable before it is.
    AckBeforeSync,
    /// The state machine applies a transaction whose checks fail.
    DropChecks,
    /// An agent takes an older assignment set for a newer one, and a dispatcher sends it.
    StaleAssignments,
    /// A restarted agent takes no notice of its containers.
    AdoptNothing,
    /// The leader never finds a node down.
    CountDownAsReady,
    /// The leader puts any number of nodes down at once.
    ForgetBrake,
    /// Managers let a removed node in.
    AcceptRemoved,
    /// Dispatchers send every node every secret.
    GrantEverything,
    /// The updater replaces everything at once.
    IgnoreParallelism,
    /// The restart supervisor leaves tasks on drained nodes.
    KeepDrained,
    /// What a leader decides is handed to its successor when it leads no more.
    PlansTravel,
}

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Print the trace.
    pub print: bool,
    /// Turn a bug on.
    pub bug: Option<Bug>,
}

/// A run that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The trace.
    pub fingerprint: Fingerprint,
    /// Simulated time.
    pub elapsed: Duration,
    /// What users did.
    pub operations: usize,
    /// Leader changes.
    pub leader_changes: u64,
    /// Faults of each kind.
    pub faults: Vec<(Kind, u64)>,
}

/// A run that did not.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something happened that must not.
    #[error("at {:.3} s: {}", at.as_secs_f64(), what.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Safety {
        /// What.
        what: Vec<Violation>,
        /// When.
        at: Duration,
    },
    /// Something did not happen in time.
    #[error("at {:.3} s, {} s after the last fault: {}", at.as_secs_f64(), after.as_secs(), what.join("; "))]
    Liveness {
        /// What is not as it should be.
        what: Vec<String>,
        /// When.
        at: Duration,
        /// How long it had.
        after: Duration,
    },
    /// What users were told does not fit together.
    #[error(transparent)]
    History(#[from] crate::history::NotLinearizable),
    /// The simulation itself.
    #[error("the simulation failed: {0}")]
    Broken(String),
}

/// What a seed makes of the cluster.
struct Shape {
    managers: usize,
    workers: usize,
    users: usize,
    storm: Duration,
    stay_down: BTreeSet<usize>,
    plan: Plan,
}

// === impl Bug ===

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 11] = [
        Bug::AckBeforeSync,
        Bug::DropChecks,
        Bug::StaleAssignments,
        Bug::AdoptNothing,
        Bug::CountDownAsReady,
        Bug::ForgetBrake,
        Bug::AcceptRemoved,
        Bug::GrantEverything,
        Bug::IgnoreParallelism,
        Bug::KeepDrained,
        Bug::PlansTravel,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Bug::AckBeforeSync => "ack-before-sync",
            Bug::DropChecks => "drop-checks",
            Bug::StaleAssignments => "stale-assignments",
            Bug::AdoptNothing => "adopt-nothing",
            Bug::CountDownAsReady => "count-down-as-ready",
            Bug::ForgetBrake => "forget-brake",
            Bug::AcceptRemoved => "accept-removed",
            Bug::GrantEverything => "grant-everything",
            Bug::IgnoreParallelism => "ignore-parallelism",
            Bug::KeepDrained => "keep-drained",
            Bug::PlansTravel => "plans-travel",
        }
    }

    /// The layer whose users and machines give it an occasion: whole nodes, unless it is the control loops' alone.
    pub fn layer(self) -> u8 {
        match self {
            Bug::IgnoreParallelism | Bug::KeepDrained | Bug::PlansTravel => 2,
            _ => 3,
        }
    }

    /// The weather in which the bug shows. The usual one has it too, but not in every run.
    fn weather(self) -> &'static [Kind] {
        match self {
            Bug::AckBeforeSync => &[Kind::SlowDisk, Kind::SlowDisk, Kind::PowerAll],
            Bug::ForgetBrake => &[Kind::BigCut],
            Bug::DropChecks
            | Bug::StaleAssignments
            | Bug::AdoptNothing
            | Bug::CountDownAsReady
            | Bug::AcceptRemoved
            | Bug::GrantEverything
            | Bug::IgnoreParallelism
            | Bug::KeepDrained
            | Bug::PlansTravel => &[],
        }
    }

    /// What it turns on in a node.
    pub(crate) fn canaries(self) -> Canaries {
        let mut canaries = Canaries::default();
        match self {
            // In the model disk, and in layer 2's own way to the log.
            Bug::AckBeforeSync | Bug::PlansTravel => {}
            Bug::DropChecks => canaries.store.drop_checks = true,
            Bug::StaleAssignments => {
                canaries.agent.accept_stale_assignments = true;
                canaries.dispatcher.serve_from_behind = true;
            }
            Bug::AdoptNothing => canaries.agent.adopt_nothing = true,
            Bug::CountDownAsReady => canaries.dispatcher.count_down_as_ready = true,
            Bug::ForgetBrake => canaries.dispatcher.forget_brake = true,
            Bug::AcceptRemoved => canaries.accept_removed = true,
            Bug::GrantEverything => canaries.dispatcher.grant_everything = true,
            Bug::IgnoreParallelism => canaries.control.ignore_parallelism = true,
            Bug::KeepDrained => canaries.control.keep_drained = true,
        }
        canaries
    }
}

// === impl Shape ===

impl Shape {
    fn of(seed: u64, bug: Option<Bug>) -> Shape {
        let rand = SeededRand::new(seed, "shape");
        let managers = if rand.chance(150) { 1 } else { 3 };
        let workers = rand.between(if managers == 1 { 2 } else { 1 }, 2) as usize;
        let mut stay_down = BTreeSet::new();
        if rand.chance(400) {
            // A worker, or a manager that the others can do without.
            let first = if managers == 3 { 0 } else { 1 };
            stay_down.insert(rand.between(first, (managers + workers - 1) as u64) as usize);
        }
        let (users, storm) = (rand.between(2, 3) as usize, rand.millis(15_000, 35_000));
        // Two of three managers must be left, and one of them may stay down.
        let spare = managers == 3 && stay_down.iter().all(|i| *i >= managers);
        let demoted = (spare && rand.chance(300)).then(|| rand.between(0, 2) as usize);
        let outcast = rand.chance(500) || bug == Some(Bug::AcceptRemoved);
        let plan = Plan {
            demoted,
            outcast: outcast.then_some(managers + workers),
            rotates_root: rand.chance(350),
            rotates_gossip: rand.chance(350),
        };
        Shape { managers, workers, users, storm, stay_down, plan }
    }

    /// How many machines there are, the outcast included.
    fn machines(&self) -> usize {
        self.managers + self.workers + usize::from(self.plan.outcast.is_some())
    }
}

// === the run ===

/// Everything of a run but the network.
struct Run {
    machines: Vec<Arc<Machine>>,
    shape: Shape,
    desk: Arc<Mutex<Desk>>,
    weather: Weather,
    watch: Watch,
    /// When the present phase began.
    since: Duration,
    settled_since: Option<Duration>,
    looked: Duration,
    /// What the intruder found open.
    intruded: Arc<Mutex<Vec<Violation>>>,
}

/// Runs a seed. Call it once in a process.
///
/// # Errors
/// [`Failure`] says what is wrong; the trace has the way there.
pub fn run(seed: u64, options: Options) -> Result<Summary, Failure> {
    interpose::arm(seed);
    trace::begin(options.print);
    set_elapsed(Duration::ZERO);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(USUAL_LATENCY)
        .tcp_capacity(65_536)
        .udp_capacity(4096)
        .enable_random_order()
        .build();
    let mut run = Run::new(seed, options, &mut sim);
    let outcome = run.drive(&mut sim);
    let summary = Summary {
        fingerprint: trace::fingerprint(),
        elapsed: sim.elapsed(),
        operations: run.desk.lock().history.len(),
        leader_changes: run.watch.leader_changes(),
        faults: run.weather.fired().iter().map(|(k, n)| (*k, *n)).collect(),
    };
    outcome.map(|()| summary)
}

impl Run {
    fn new(seed: u64, options: Options, sim: &mut Sim<'_>) -> Run {
        let shape = Shape::of(seed, options.bug);
        let canaries = options.bug.map(Bug::canaries).unwrap_or_default();
        let desk: Arc<Mutex<Desk>> = Arc::default();
        let mut machines = Vec::new();
        for n in 1..=shape.machines() {
            let name = format!("n{n}");
            let ip = sim.lookup(name.as_str());
            let machine = Machine::new(seed, &name, ip, canaries);
            if options.bug == Some(Bug::AckBeforeSync) {
                machine.disk.acknowledge_before_sync();
            }
            let lives = machine.clone();
            sim.host(name.as_str(), move || lives.clone().live());
            machines.push(machine);
        }
        let ips: Vec<IpAddr> = machines.iter().map(|m| m.ip).collect();
        for n in 1..=shape.users {
            let name = format!("u{n}");
            let user = User {
                rand: SeededRand::new(seed, &name),
                name: name.clone(),
                managers: ips[..shape.managers].to_vec(),
                desk: desk.clone(),
            };
            sim.client(name.as_str(), user.work());
        }
        sim.client("setup", set_up(ips.clone(), shape.managers, desk.clone()));
        let operator = Operator {
            rand: SeededRand::new(seed, "operator"),
            plan: shape.plan,
            machines: machines.clone(),
            managers: ips[..shape.managers].to_vec(),
            desk: desk.clone(),
        };
        sim.client("operator", operator.work());
        let keeper = Keeper {
            rand: SeededRand::new(seed, "keeper"),
            managers: ips[..shape.managers].to_vec(),
            desk: desk.clone(),
        };
        sim.client("keeper", keeper.work());
        let intruded: Arc<Mutex<Vec<Violation>>> = Arc::default();
        let intruder = Intruder {
            rand: SeededRand::new(seed, "intruder"),
            ip: sim.lookup("intruder"),
            machines: machines.clone(),
            desk: desk.clone(),
            found: intruded.clone(),
        };
        sim.client("intruder", intruder.work());
        let kinds = options.bug.map_or(&[][..], Bug::weather);
        let mut weather = Weather::new(seed, machines.clone(), shape.managers, kinds);
        if shape.plan.outcast.is_some() || shape.plan.demoted.is_some() {
            // Who counts the machines that a cut cuts off must know that each of them is a node, and that managers are managers.
            weather.never(Kind::BigCut);
        }
        event!(
            "world",
            "seed {seed}: {} managers, {} workers, {} users, faults {:?}",
            shape.managers,
            shape.workers,
            shape.users,
            weather.kinds()
        );
        let watch = Watch::new(machines.clone());
        Run {
            machines,
            shape,
            desk,
            weather,
            watch,
            since: Duration::ZERO,
            settled_since: None,
            looked: Duration::ZERO,
            intruded,
        }
    }

    fn drive(&mut self, sim: &mut Sim<'_>) -> Result<(), Failure> {
        loop {
            let now = sim.elapsed();
            set_elapsed(now);
            let phase = self.desk.lock().phase;
            match phase {
                Phase::Founding => {
                    self.bound(now, FOUNDING_MAX, || vec!["L3: the cluster could not be made".into()])?
                }
                Phase::Storm => self.storm(sim, now),
                Phase::Calm => self.calm(now)?,
                Phase::Last => {
                    self.bound(now, LAST_MAX, || vec!["L3: the last writes and reads take too long".into()])?
                }
                Phase::Over => {}
            }
            count_step();
            let over = sim.step().map_err(|e| Failure::Broken(e.to_string()))?;
            self.look(now)?;
            if self.desk.lock().phase != phase {
                self.since = now;
            }
            if over {
                break;
            }
        }
        event!("world", "over");
        self.desk.lock().history.check()?;
        Ok(())
    }

    fn storm(&mut self, sim: &mut Sim<'_>, now: Duration) {
        if now < self.since + self.shape.storm {
            self.weather.blow(sim, now);
            return;
        }
        self.weather.calm(sim, &self.shape.stay_down);
        self.desk.lock().phase = Phase::Calm;
    }

    fn calm(&mut self, now: Duration) -> Result<(), Failure> {
        if !now.as_millis().is_multiple_of(100) {
            return Ok(());
        }
        let removed = self.desk.lock().removed.clone();
        let mut unsettled = self.watch.unsettled(&self.shape.stay_down, &removed);
        if !self.desk.lock().operator_is_done {
            unsettled.push("L3: the operator still waits for answers".into());
        }
        if self.desk.lock().idle < self.shape.users {
            unsettled.push("L3: users still wait for answers".into());
        }
        if !unsettled.is_empty() {
            self.settled_since = None;
            return self.bound(now, SETTLE_MAX, || unsettled);
        }
        let since = *self.settled_since.get_or_insert(now);
        if now >= since + SETTLED_FOR {
            event!("world", "all is as it is wanted");
            self.desk.lock().phase = Phase::Last;
        }
        Ok(())
    }

    fn bound(&self, now: Duration, bound: Duration, what: impl FnOnce() -> Vec<String>) -> Result<(), Failure> {
        let after = now.saturating_sub(self.since);
        if after <= bound { Ok(()) } else { Err(Failure::Liveness { what: what(), at: now, after }) }
    }

    fn look(&mut self, now: Duration) -> Result<(), Failure> {
        let outlook = Outlook { down: self.weather.down(), big_cut: self.weather.big_cut() };
        let mut what = self.watch.look(&outlook);
        what.append(&mut self.intruded.lock());
        if now >= self.looked + CLOSE_LOOK_EVERY {
            self.looked = now;
            what.extend(self.watch.look_closely());
            debug_assert_eq!(self.machines.len(), self.shape.machines());
        }
        if what.is_empty() { Ok(()) } else { Err(Failure::Safety { what, at: now }) }
    }
}

/// Makes the cluster; at the end, writes and reads once more.
async fn set_up(ips: Vec<IpAddr>, managers: usize, desk: Arc<Mutex<Desk>>) -> turmoil::Result {
    found(ips[0], &ips[1..managers], &ips[managers..]).await?;
    event!("setup", "the cluster is made");
    desk.lock().phase = Phase::Storm;
    while desk.lock().phase < Phase::Last {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let spec = serde_json::json!({
        "Name": "fresh",
        "TaskTemplate": { "ContainerSpec": { "Image": "web:1" } },
        "Mode": { "Replicated": { "Replicas": 1 } },
    });
    // Some manager may be down for good; another one answers.
    for ip in ips[..managers].iter().cycle().take(3 * managers) {
        let answer = ask(*ip, ::http::Method::POST, "/v1.44/services/create", Some(&spec)).await;
        event!("setup", "a fresh write at {ip}: {}", answer.message());
        if matches!(&answer, Answer::Came(status, _) if status.is_success()) {
            desk.lock().phase = Phase::Over;
            return Ok(());
        }
    }
    Err("L3: no manager takes a fresh write though nothing is broken".into())
}
