//! The shell that runs the loops on the leader: it follows the changes, runs the loops that they concern, and proposes
//! what comes out. All it remembers is what it still has to look at; a new leader starts by looking at everything.

use crate::{Batch, Budget, Canary, Key, affected, expand, reconcile_with};
use model::{ServiceId, Timestamp};
use seams::Clock;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, Event, ProposeError, ReadError, Snapshot, StoreClient, Transaction};

/// Services that are looked at in one transaction: enough to save commits, few enough that a conflict spoils little.
const SERVICES_AT_ONCE: usize = 64;
/// The first pause after a failed proposal or read; it doubles with each failure.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// The longest pause after a failed proposal or read.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// The longest sleep for a timer: wall-clock times are looked at anew, in case the clock was set.
const TIMER_MAX: Duration = Duration::from_secs(30);
/// A loop that did nothing is not run again sooner than this without a change, whatever it asked for.
const IDLE_MIN: Duration = Duration::from_millis(100);

/// How the driver waits. It sleeps on tokio's clock; a simulation that has no tokio runtime brings its own.
pub type Sleep = fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// What only the simulation sets otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How the driver waits.
    pub sleep: Sleep,
    /// Deliberate bugs.
    pub canary: Canary,
}

/// Runs the control loops until `stop` resolves, the node leads no more, or it is no manager any more. To be started when the
/// node becomes the leader, and stopped when it is not. Stopping is safe at any point.
///
/// The client must take proposals in the term in which the driver was started, and in no other ([`ProposeError::Deposed`], which
/// ends the driver): of two drivers the later one then knows all that the earlier one has brought about, and is not contradicted
/// by it afterwards. Checks alone do not see to that: two plans may replace different tasks, and together too many.
pub async fn run(client: Arc<dyn StoreClient>, clock: Arc<dyn Clock>, stop: impl Future<Output = ()>) {
    run_with(client, clock, Settings::default(), stop).await;
}

/// As [`run`], with other settings.
pub async fn run_with(
    client: Arc<dyn StoreClient>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    stop: impl Future<Output = ()>,
) {
    let mut driver = Driver::new(client, clock, settings);
    tokio::select! {
        biased;
        () = stop => {}
        () = driver.run() => {}
    }
}

struct Driver {
    client: Arc<dyn StoreClient>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    changes: Changes,
    /// Keys that changes have touched.
    touched: BTreeSet<Key>,
    /// Services to look at now, in turn: a large one that needs many transactions does not hold up the others.
    due: VecDeque<ServiceId>,
    /// When to look at which service though nothing changed.
    timers: BTreeMap<ServiceId, Timestamp>,
    /// When the timers were looked at last.
    rung_at: Timestamp,
    /// Failures in a row.
    failures: u32,
    budget: Budget,
}

/// Why the driver ends.
struct Ended;

// === impl Settings ===

impl Default for Settings {
    /// Production's: tokio's clock, and no bugs but our own.
    fn default() -> Self {
        Settings { sleep: |pause| Box::pin(tokio::time::sleep(pause)), canary: Canary::default() }
    }
}

// === impl Driver ===

impl Driver {
    fn new(client: Arc<dyn StoreClient>, clock: Arc<dyn Clock>, settings: Settings) -> Driver {
        let changes = client.changes();
        Driver {
            client,
            clock,
            settings,
            changes,
            touched: [Key::All].into(),
            due: VecDeque::new(),
            timers: BTreeMap::new(),
            rung_at: Timestamp::default(),
            failures: 0,
            budget: Budget::default(),
        }
    }

    async fn run(&mut self) {
        // What the last leader committed has to be applied here first, or its work would be done again (and refused).
        if self.catch_up().await.is_err() {
            return;
        }
        while let Ok(()) = self.turn().await {}
    }

    /// Waits until the local state is as new as any acknowledged write.
    async fn catch_up(&mut self) -> Result<(), Ended> {
        loop {
            match self.client.current().await {
                Ok(_) => return Ok(()),
                Err(ReadError::NotManager) => return Err(Ended),
                Err(ReadError::NoLeader { .. }) => self.back_off().await,
            }
        }
    }

    /// Waits until a proposal whose outcome was unknown can no longer be applied after one that is yet to come: an empty one
    /// that was committed is behind it in the log.
    async fn barrier(&mut self) -> Result<(), Ended> {
        loop {
            match self.client.propose(Transaction::new(self.now())).await {
                Ok(_) => return Ok(()),
                Err(ProposeError::NotManager | ProposeError::Deposed { .. }) => return Err(Ended),
                Err(error) => {
                    tracing::debug!(%error, "waiting until the log moves on");
                    self.back_off().await;
                }
            }
        }
    }

    /// One look at whatever needs one; waits first when nothing does.
    async fn turn(&mut self) -> Result<(), Ended> {
        while let Some(event) = self.changes.try_next() {
            self.note(event)?;
        }
        self.ring();
        if self.touched.is_empty() && self.due.is_empty() {
            return self.wait().await;
        }
        let snapshot = self.client.local();
        let touched = std::mem::take(&mut self.touched);
        self.add_due(expand(&snapshot, &touched));
        let services = self.take_due();
        self.look_at(&snapshot, services).await
    }

    fn note(&mut self, event: Event) -> Result<(), Ended> {
        match event {
            Event::Commit(commit) => self.touched.extend(commit.deltas.iter().flat_map(affected)),
            Event::Resync => drop(self.touched.insert(Key::All)),
            Event::Closed => return Err(Ended),
        }
        Ok(())
    }

    /// Moves the services whose time has come to those that are due. When the clock went back, no timer means what it meant:
    /// all are looked at.
    fn ring(&mut self) {
        let now = self.now();
        let went_back = now < std::mem::replace(&mut self.rung_at, now);
        let due = self.timers.iter().filter(|(_, at)| went_back || **at <= now);
        let rung: Vec<ServiceId> = due.map(|(s, _)| s.clone()).collect();
        rung.iter().for_each(|s| _ = self.timers.remove(s));
        self.add_due(rung);
    }

    fn add_due(&mut self, services: impl IntoIterator<Item = ServiceId>) {
        let waiting: BTreeSet<ServiceId> = self.due.iter().cloned().collect();
        self.due.extend(services.into_iter().filter(|s| !waiting.contains(s)));
    }

    async fn wait(&mut self) -> Result<(), Ended> {
        self.failures = 0;
        let now = self.now();
        let next = self.timers.values().min().map_or(TIMER_MAX, |at| at.since(now).min(TIMER_MAX));
        let event = tokio::select! {
            biased;
            event = self.changes.next() => event,
            () = (self.settings.sleep)(next) => return Ok(()),
        };
        self.note(event)
    }

    /// The next few; after a conflict only one, so that one service under constant change does not hold up the others.
    fn take_due(&mut self) -> Vec<ServiceId> {
        let count = if self.failures == 0 { SERVICES_AT_ONCE } else { 1 };
        self.due.drain(..count.min(self.due.len())).collect()
    }

    async fn look_at(&mut self, snapshot: &Snapshot, services: Vec<ServiceId>) -> Result<(), Ended> {
        let now = self.now();
        let Batch { transaction, wakes } =
            reconcile_with(snapshot, services.clone(), now, self.budget, self.settings.canary);
        services.iter().for_each(|s| _ = self.timers.remove(s));
        let idle = transaction.is_empty();
        let changes = transaction.changes.len();
        let outcome = if idle { Ok(snapshot.index()) } else { self.client.propose(transaction).await };
        match outcome {
            Ok(index) => {
                if !idle {
                    tracing::debug!(index, changes, services = services.len(), "control loops committed");
                    self.failures = 0;
                    self.budget = Budget::default();
                }
                let soonest = if idle { now.plus(IDLE_MIN) } else { now };
                self.timers.extend(wakes.into_iter().map(|(s, at)| (s, at.max(soonest))));
                Ok(())
            }
            Err(error) => self.refused(error, services).await,
        }
    }

    async fn refused(&mut self, error: ProposeError, services: Vec<ServiceId>) -> Result<(), Ended> {
        if services.is_empty() {
            // What concerns no service (data that nobody has any more) is found again with everything else.
            self.touched.insert(Key::All);
        }
        self.add_due(services);
        match error {
            ProposeError::NotManager | ProposeError::Deposed { .. } => return Err(Ended),
            ProposeError::Conflict(conflict) => {
                tracing::debug!(%conflict, "the state changed under a control loop; looking again");
                // Most conflicts are with a change that is applied here already: look again at once.
                if self.failures == 0 {
                    self.failures = 1;
                    return Ok(());
                }
            }
            ProposeError::TooLarge(error) => {
                tracing::warn!(%error, "a plan was larger than estimated; trying a smaller one");
                self.budget = self.budget.halved();
            }
            ProposeError::NoLeader { .. } | ProposeError::Unknown { .. } => {
                tracing::warn!(%error, "a control loop's proposal has no known outcome");
                self.back_off().await;
                return self.barrier().await;
            }
        }
        self.back_off().await;
        Ok(())
    }

    async fn back_off(&mut self) {
        let pause = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        (self.settings.sleep)(pause).await;
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.clock.unix_now())
    }
}
