//! The world of a run: machines, network, what users and the judge know.

use super::faults::{Kind, Shape};
use super::judge::Judge;
use super::manager::Manager;
use super::net::{Net, WORKERS};
use super::runtime::{now, spawn_outside};
use super::worker::Worker;
use crate::history::{History, Mark};
use crate::layer3::Bug;
use crate::rng::{PerMille, SeededRand};
use crate::trace;
use invariants::Violation;
use model::{NodeId, Timestamp};
use openraft_rt::Instant as _;
use openraft_rt_sim::SimInstant;
use parking_lot::Mutex;
use seams::RandExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::{Commit, Conflict, Snapshot};

/// Where wall clocks begin, since the Unix epoch.
const WALL_EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// How long a silent worker is before gossip suspects it.
const SUSPICION: Duration = Duration::from_secs(2);

/// Everything.
pub(super) struct World {
    pub(super) shape: Shape,
    pub(super) bug: Option<Bug>,
    begun: SimInstant,
    /// Tokio's instants, which the dispatcher measures with, count from here.
    base: tokio::time::Instant,
    pub(super) net: Net,
    pub(super) managers: Vec<Manager>,
    pub(super) workers: Vec<Arc<Worker>>,
    pub(super) judge: Mutex<Judge>,
    pub(super) desk: Mutex<Desk>,
    failures: AtomicU64,
}

/// What all parts of a run share.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) history: History,
    pub(super) phase: Phase,
    /// Users that have ended.
    pub(super) idle: usize,
    /// Faults that have not ended.
    pub(super) raging: usize,
    /// Faults of each kind.
    pub(super) faults: BTreeMap<Kind, u64>,
    marks: Mark,
    raft_ids: u64,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Phase {
    /// The cluster is being made.
    #[default]
    Founding,
    /// Users work, things break.
    Storm,
    /// Nothing breaks any more.
    Calm,
}

// === impl World ===

impl World {
    pub(super) fn new(seed: u64, shape: Shape, bug: Option<Bug>) -> Arc<World> {
        let rand = |part: &str| SeededRand::new(seed, part);
        let begun = now();
        Arc::new_cyclic(|weak: &Weak<World>| {
            let manners = shape.manners(bug == Some(Bug::AckBeforeSync));
            let manager = |slot| Manager::new(weak, slot, slot as u64 + 1, rand(&format!("disk {slot}")), manners);
            let ids = rand("ids");
            let worker = |n: usize| {
                let id = ids.id25().parse().expect("id25 makes ids");
                Arc::new(Worker::new(id, n, WORKERS + n, rand(&format!("worker {n}"))))
            };
            World {
                bug,
                begun,
                // A day later, so that subtracting from it never depends on how long this machine has been up.
                base: tokio::time::Instant::now() + Duration::from_secs(86_400),
                net: Net::new(rand("net"), shape.weather),
                managers: (0..shape.managers).map(manager).collect(),
                workers: (0..shape.workers).map(worker).collect(),
                judge: Mutex::default(),
                desk: Mutex::new(Desk { raft_ids: shape.managers as u64, ..Desk::default() }),
                failures: AtomicU64::new(shape.task_failures),
                shape,
            }
        })
    }

    // --- time ---

    /// The simulated time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The simulated time as the dispatcher measures it.
    pub(super) fn instant(&self) -> tokio::time::Instant {
        self.base + self.elapsed()
    }

    /// The right wall-clock time, since the Unix epoch.
    pub(super) fn wall(&self) -> Duration {
        WALL_EPOCH + self.elapsed()
    }

    /// The right wall-clock time.
    pub(super) fn wall_time(&self) -> Timestamp {
        Timestamp::from_unix(self.wall())
    }

    // --- who is who ---

    pub(super) fn manager(&self, slot: usize) -> &Manager {
        &self.managers[slot]
    }

    /// The machine of a Raft member.
    pub(super) fn slot_of(&self, raft_id: u64) -> Option<usize> {
        self.managers.iter().position(|m| m.raft_id() == raft_id)
    }

    /// The leader of the newest term, if it runs.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |m: &Manager| m.life().and_then(|l| l.raft.leading_term());
        let leaders = self.managers.iter().enumerate().filter_map(|(slot, m)| Some((leads(m)?, slot)));
        leaders.max().map(|(_, slot)| slot)
    }

    pub(super) fn name_of(&self, id: &NodeId) -> String {
        self.workers.iter().find(|w| w.id == *id).map_or_else(|| id.to_string(), |w| w.name.clone())
    }

    /// The workers that a manager's gossip suspects: they do not run, or no machine that it reaches reaches them.
    pub(super) fn suspects(&self, slot: usize) -> BTreeSet<NodeId> {
        let now = self.elapsed();
        let reaches = |a: usize, w: &Worker| self.net.is_open(a, w.addr);
        let hears = |w: &Worker| {
            let relay = |m: usize| m == slot || (self.manager(m).life().is_some() && self.net.is_open(slot, m));
            (0..self.managers.len()).any(|m| relay(m) && reaches(m, w))
        };
        let gone = |w: &Worker| w.gone_since().is_some_and(|at| now.saturating_sub(at) >= SUSPICION);
        self.workers.iter().filter(|w| gone(w) || !hears(w)).map(|w| w.id.clone()).collect()
    }

    /// A mark that was never used.
    pub(super) fn mark(&self) -> Mark {
        let mut desk = self.desk.lock();
        desk.marks += 1;
        desk.marks
    }

    /// A Raft id that was never used.
    pub(super) fn raft_id(&self) -> u64 {
        let mut desk = self.desk.lock();
        desk.raft_ids += 1;
        desk.raft_ids
    }

    pub(super) fn phase(&self) -> Phase {
        self.desk.lock().phase
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.desk.lock().phase = phase;
        self.event("world", format_args!("{phase:?}"));
    }

    /// The chance that a task fails when it is looked at.
    pub(super) fn task_failures(&self) -> PerMille {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn end_task_failures(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Spawns a task that belongs to no process.
    pub(super) fn spawn(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        let world = self.clone();
        spawn_outside(future, move |panic| world.broken(&panic));
    }

    /// Ends all processes, so that nothing refers to the world any more.
    pub(super) fn end(&self) {
        for manager in &self.managers {
            manager.end();
        }
    }

    // --- what is seen ---

    pub(super) fn event(&self, who: &str, what: fmt::Arguments<'_>) {
        trace::set_now(self.elapsed());
        trace::event(who, what);
    }

    pub(super) fn violates(&self, invariant: &'static str, what: String) {
        trace::set_now(self.elapsed());
        self.judge.lock().add(vec![Violation { invariant, what }]);
    }

    /// The simulation itself went wrong, or what it tests panicked.
    pub(super) fn broken(&self, what: &str) {
        self.violates("panic", what.to_owned());
    }

    pub(super) fn sees(&self, who: &str, view: &raft::RaftView) {
        trace::set_now(self.elapsed());
        if let Some(reason) = &view.stopped {
            let slot = self.managers.iter().find(|m| m.name == who);
            if !slot.is_some_and(|m| m.disk.has_failed()) {
                self.broken(&format!("the Raft of {who} stopped: {reason}"));
            }
        }
        self.judge.lock().view(who, view);
    }

    #[allow(clippy::too_many_arguments)] // one moment, seen from all sides
    pub(super) fn applies(
        &self,
        who: &str,
        index: u64,
        command: &[u8],
        before: &Snapshot,
        outcome: &Result<(), Option<Conflict>>,
        commits: &[Arc<Commit>],
        after: &Snapshot,
    ) {
        trace::set_now(self.elapsed());
        let mut judge = self.judge.lock();
        judge.applies(who, index, Some(command));
        judge.compares(who, before, command, outcome, after);
        for commit in commits {
            judge.commits(who, commit, |id| self.name_of(id));
        }
    }

    pub(super) fn advances(&self, who: &str, index: u64) {
        trace::set_now(self.elapsed());
        self.judge.lock().applies(who, index, None);
    }

    pub(super) fn restores(&self, who: &str, index: u64) {
        self.event(who, format_args!("takes the snapshot of {index}"));
        self.judge.lock().restores(who, index);
    }

    /// A leader proposes what it decided itself.
    pub(super) fn decides(&self, term: u64, command: &[u8]) {
        trace::set_now(self.elapsed());
        self.judge.lock().decides(term, command);
    }

    /// A leader begins to decide, with all that is applied up to an index in mind.
    pub(super) fn begins(&self, term: u64, index: u64) {
        trace::set_now(self.elapsed());
        self.judge.lock().begins(term, index);
    }

    pub(super) fn acknowledged(&self, index: u64, command: &[u8]) {
        trace::set_now(self.elapsed());
        self.judge.lock().acknowledged(index, command);
    }
}
