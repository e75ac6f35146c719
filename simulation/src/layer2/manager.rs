//! A manager: production Raft, store and control loops on a model disk and network. What its shell (the node crate's) does
//! with tonic and tokio's clock is done here with the simulated ones.

use super::client::{SimLeaderStore, SimStore};
use super::disk::{Manners, ModelDisk};
use super::net::{Addr, Wire, call};
use super::runtime::{Group, Rt, sleep};
use super::world::World;
use crate::rng::SeededRand;
use bytes::Bytes;
use dispatcher::{Canary, SessionsSeen, World as Judged, judge};
use model::{NodeId, TaskId, TaskState, TaskStatus, Timestamp};
use node::{StoreCanary, StoreMachine, decode_conflict};
use parking_lot::Mutex;
use raft::{ApplyError, Member, Parts, Raft, RaftConfig, Role, SnapshotFn, StateMachine};
use rpc::proto::cluster::SessionReport;
use seams::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use store::{Changes, Event, ProposeError, Store, StoreClient as _, Transaction};
use tokio::sync::oneshot;

/// As good as for ever.
pub(super) const FOREVER: Duration = Duration::from_secs(86_400);
/// For the first confirmation of a new leader by a majority, as in the node crate.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// After a step that failed, as in the node crate.
const STEP_RETRY: Duration = Duration::from_millis(250);
/// Between two looks at the nodes.
const JUDGE_EVERY: Duration = Duration::from_millis(200);
/// How often a commit of statuses is tried again, as in the dispatcher crate.
const CONFLICTS_MAX: usize = 20;
/// For telling the leader of a session.
const TELL_TIMEOUT: Duration = Duration::from_millis(700);

/// A manager's machine; it outlives its processes.
pub(super) struct Manager {
    slot: Addr,
    pub(super) name: String,
    pub(super) disk: ModelDisk,
    raft_id: Mutex<u64>,
    life: Mutex<Option<Arc<Life>>>,
    /// How wrong its wall clock is.
    pub(super) clock_error_ms: Arc<AtomicI64>,
}

/// One process of a manager.
pub(super) struct Life {
    pub(super) slot: Addr,
    pub(super) name: String,
    pub(super) raft_id: u64,
    pub(super) raft: Raft<Rt>,
    pub(super) store: Arc<Store>,
    pub(super) client: Arc<SimStore>,
    pub(super) group: Arc<Group>,
    clock: Arc<SkewedClock>,
    /// The term of the newest leader that it knows: what was elected is not forgotten, as a term on the way may be.
    leader_term: AtomicU64,
    /// Set while it leads.
    reign: Mutex<Option<Arc<Reign>>>,
}

/// What a leader has in memory.
struct Reign {
    since: tokio::time::Instant,
    sessions: Mutex<SessionsSeen>,
    store: Arc<SimLeaderStore>,
}

/// Takes the reign away when it ends, however it ends.
struct Abdicates<'a>(&'a Life);

/// A machine's wall clock.
struct SkewedClock {
    world: std::sync::Weak<World>,
    error_ms: Arc<AtomicI64>,
}

/// The production state machine, watched.
struct Watched {
    inner: StoreMachine,
    store: Arc<Store>,
    changes: Mutex<Changes>,
    world: std::sync::Weak<World>,
    who: String,
}

/// A report that was not (provably) taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotTaken;

// === impl Manager ===

impl Manager {
    pub(super) fn new(
        world: &std::sync::Weak<World>,
        slot: Addr,
        raft_id: u64,
        rand: SeededRand,
        manners: Manners,
    ) -> Manager {
        let name = format!("m{slot}");
        Manager {
            slot,
            disk: ModelDisk::new(name.clone(), world.clone(), rand, manners),
            name,
            raft_id: Mutex::new(raft_id),
            life: Mutex::new(None),
            clock_error_ms: Arc::default(),
        }
    }

    /// Its process, while it runs.
    pub(super) fn life(&self) -> Option<Arc<Life>> {
        self.life.lock().clone()
    }

    /// Its Raft id.
    pub(super) fn raft_id(&self) -> u64 {
        *self.raft_id.lock()
    }

    /// How the others reach it.
    pub(super) fn member(&self) -> Member {
        Member { addr: self.name.clone(), node_id: self.name.clone() }
    }

    /// Starts its process. It is up when this returns.
    pub(super) async fn start(&self, world: &Arc<World>) {
        let group = Group::new();
        let (done, started) = oneshot::channel();
        let parts = (self.slot, self.name.clone(), self.raft_id(), self.disk.clone(), self.clock_error_ms.clone());
        let (begin, own) = (world.clone(), group.clone());
        group.spawn(async move {
            let _nobody_waits = done.send(Life::begin(&begin, own, parts).await);
        });
        match started.await {
            Ok(Ok(life)) => {
                world.event(&self.name, format_args!("is up as {:x}", life.raft_id));
                *self.life.lock() = Some(life);
            }
            Ok(Err(error)) => world.broken(&format!("{} does not start: {error}", self.name)),
            Err(_) => world.broken(&format!("{} does not start", self.name)),
        }
    }

    /// Its process dies. With `power` the machine does, too, and forgets what it had not synced.
    pub(super) fn crash(&self, world: &World, power: bool) {
        let Some(life) = self.life.lock().take() else { return };
        life.group.kill();
        let lost = if power { self.disk.crash() } else { (self.disk.process_ends(), 0).1 };
        world.event(&self.name, format_args!("crashes, and loses {lost} writes"));
        world.judge.lock().forget_life(&self.name);
    }

    /// The run is over.
    pub(super) fn end(&self) {
        if let Some(life) = self.life.lock().take() {
            life.group.kill();
        }
    }

    /// A new machine takes its place.
    pub(super) fn renew(&self, raft_id: u64) {
        self.disk.wipe();
        *self.raft_id.lock() = raft_id;
    }
}

// === impl Life ===

type LifeParts = (Addr, String, u64, ModelDisk, Arc<AtomicI64>);

impl Life {
    async fn begin(world: &Arc<World>, group: Arc<Group>, parts: LifeParts) -> Result<Arc<Life>, String> {
        let (slot, name, raft_id, disk, error_ms) = parts;
        let store = Arc::new(Store::new());
        let weak = Arc::downgrade(world);
        let drop_checks = world.bug == Some(crate::layer3::Bug::DropChecks);
        let machine = Watched {
            inner: StoreMachine::new(store.clone(), StoreCanary { drop_checks }),
            changes: Mutex::new(store.changes()),
            store: store.clone(),
            world: weak.clone(),
            who: name.clone(),
        };
        let parts = Parts {
            raft_id,
            config: RaftConfig {
                snapshot_every: world.shape.snapshot_every,
                keep_behind_snapshot: world.shape.keep_behind_snapshot,
                ..RaftConfig::default()
            },
            log: Arc::new(disk.clone()),
            machine: Arc::new(machine),
            disk: Arc::new(disk),
            snapshot_dir: "/snapshots".into(),
        };
        let wire = Arc::new(Wire { from: slot, world: weak.clone() });
        let raft = Raft::<Rt>::start_with_transport(parts, wire).await.map_err(|e| e.to_string())?;
        let client = Arc::new(SimStore::new(weak.clone(), slot, raft.clone(), store.clone()));
        let clock = Arc::new(SkewedClock { world: weak, error_ms });
        let (leader_term, reign) = (AtomicU64::new(0), Mutex::new(None));
        let life = Arc::new(Life { slot, name, raft_id, raft, store, client, group, clock, leader_term, reign });
        life.group.spawn(life.clone().watch(world.clone()));
        life.group.spawn(life.clone().lead_when_leader(world.clone()));
        Ok(life)
    }

    /// Does something in this process; `None` when the process dies before it is done.
    pub(super) async fn run<R, Fut>(self: &Arc<Self>, work: impl FnOnce(Arc<Life>) -> Fut) -> Option<R>
    where
        R: Send + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        let work = work(self.clone());
        self.group.spawn(async move {
            let _nobody_waits_any_more = done.send(work.await);
        });
        outcome.await.ok()
    }

    /// Shows every view to the judge.
    async fn watch(self: Arc<Self>, world: Arc<World>) {
        let shown = |view: &raft::RaftView| {
            world.sees(&self.name, view);
            if view.leader.is_some() {
                self.leader_term.fetch_max(view.term, Ordering::Relaxed);
            }
            false
        };
        let _ended = self.raft.wait_view("the end", FOREVER, shown).await;
    }

    /// As the node crate's: leads whenever it is the leader.
    async fn lead_when_leader(self: Arc<Self>, world: Arc<World>) {
        loop {
            let Ok(view) = self.raft.wait_view("leadership", FOREVER, |v| v.role == Role::Leader).await else { return };
            let term = view.term;
            world.event(&self.name, format_args!("leads in term {term}"));
            tokio::select! {
                biased;
                lost = self.raft.wait_view("its end", FOREVER, |v| !v.leads_in(term)) => if lost.is_err() { return },
                () = self.lead(&world, term) => {}
            }
            world.event(&self.name, format_args!("leads no more in term {term}"));
        }
    }

    async fn lead(&self, world: &Arc<World>, term: u64) {
        while self.catch_up().await.is_err() {
            sleep(STEP_RETRY).await;
        }
        world.event(&self.name, format_args!("is confirmed"));
        world.begins(term, self.store.snapshot().index());
        let store = Arc::new(SimLeaderStore::new(self.client.clone(), term));
        let canary = world.bug.map(|bug| bug.canaries().control).unwrap_or_default();
        let settings = control::driver::Settings { sleep: |pause| Box::pin(sleep(pause)), canary };
        tokio::join!(
            control::driver::run_with(store.clone(), self.clock.clone(), settings, std::future::pending()),
            self.reign(world, store.clone()),
        );
    }

    async fn catch_up(&self) -> Result<(), String> {
        let index = self.raft.read_index(CONFIRM_TIMEOUT).await.map_err(|e| e.to_string())?;
        self.raft.wait_applied(index, CONFIRM_TIMEOUT).await.map_err(|e| e.to_string())
    }

    /// As the dispatcher's: keeps judging the nodes.
    async fn reign(&self, world: &Arc<World>, store: Arc<SimLeaderStore>) {
        let reign = Arc::new(Reign { since: world.instant(), sessions: Mutex::default(), store });
        *self.reign.lock() = Some(reign.clone());
        let _abdicates = Abdicates(self);
        let canary = Canary {
            count_down_as_ready: world.bug == Some(crate::layer3::Bug::CountDownAsReady),
            forget_brake: world.bug == Some(crate::layer3::Bug::ForgetBrake),
            ..Canary::default()
        };
        loop {
            let snapshot = self.store.snapshot();
            let suspects = world.suspects(self.slot);
            let judgement = {
                let mut sessions = reign.sessions.lock();
                sessions.retain_members(&snapshot);
                let judged = Judged {
                    sessions: &sessions,
                    suspects: &suspects,
                    leader_since: reign.since,
                    now: world.instant(),
                    wall: self.wall(),
                    canary,
                };
                judge(&snapshot, judged)
            };
            if !judgement.transaction.is_empty() {
                let (tx, now) = (&judgement.transaction, world.instant());
                world.judge.lock().verdict(&self.name, &snapshot, tx, reign.since, now);
                let _looked_at_again = reign.store.propose(judgement.transaction).await;
            }
            sleep(JUDGE_EVERY).await;
        }
    }

    /// The wall clock of its machine.
    pub(super) fn wall(&self) -> Timestamp {
        Timestamp::from_unix(self.clock.unix_now())
    }

    // --- what workers ask for ---

    /// Takes a heartbeat, and tells the leader.
    pub(super) async fn heartbeat(self: Arc<Self>, world: Arc<World>, node: NodeId) -> Result<(), NotTaken> {
        let Some(leader) = self.leader(&world) else { return Err(NotTaken) };
        let heard = world.clone();
        let tell = move |life: Arc<Life>| async move { life.record(&heard, &node) };
        call(&world, self.slot, leader, TELL_TIMEOUT, tell).await.unwrap_or(Err(NotTaken))
    }

    fn record(&self, world: &World, node: &NodeId) -> Result<(), NotTaken> {
        let reign = self.reign.lock().clone().ok_or(NotTaken)?;
        let report = SessionReport { node_id: node.to_string(), addr: "10.0.0.1".into(), ..Default::default() };
        let now = world.instant();
        reign.sessions.lock().record(node, &report, None, now);
        world.judge.lock().heard(node, now);
        Ok(())
    }

    /// The tasks of a node as this manager knows them, and how new that is.
    pub(super) fn assignments(&self, node: &NodeId) -> (agent::Position, Vec<Arc<model::Task>>) {
        let snapshot = self.store.snapshot();
        let position = agent::Position { term: self.leader_term.load(Ordering::Relaxed), index: snapshot.index() };
        let assigned = snapshot.tasks_on_node(node).filter(|t| t.status.state >= TaskState::Assigned);
        (position, assigned.cloned().collect())
    }

    /// Hands statuses to the leader, and waits until they are committed.
    pub(super) async fn report(
        self: Arc<Self>,
        world: Arc<World>,
        node: NodeId,
        statuses: BTreeMap<TaskId, TaskStatus>,
    ) -> Result<(), NotTaken> {
        let Some(leader) = self.leader(&world) else { return Err(NotTaken) };
        let write = move |life: Arc<Life>| async move { life.write(&node, &statuses).await };
        call(&world, self.slot, leader, Duration::from_secs(3), write).await.unwrap_or(Err(NotTaken))
    }

    /// As the dispatcher's: puts statuses onto the tasks as they are now; what would move one backwards is dropped.
    async fn write(&self, node: &NodeId, statuses: &BTreeMap<TaskId, TaskStatus>) -> Result<(), NotTaken> {
        for _ in 0..CONFLICTS_MAX {
            let Some(store) = self.reign.lock().as_ref().map(|r| r.store.clone()) else { return Err(NotTaken) };
            let mut snapshot = self.store.snapshot();
            if statuses.keys().any(|id| snapshot.task(id).is_none_or(|t| t.node_id.as_ref() != Some(node))) {
                snapshot = self.client.current().await.map_err(|_| NotTaken)?;
            }
            let mut transaction = Transaction::new(self.wall());
            for (id, status) in statuses {
                let Some(task) = snapshot.task(id).filter(|t| t.node_id.as_ref() == Some(node)) else { continue };
                let moves = TaskState::may_move(Some(task.status.state), status.state, model::Owner::Agent);
                if moves && task.status != *status {
                    transaction.update(model::Task { status: status.clone(), ..model::Task::clone(task) });
                }
            }
            if transaction.is_empty() {
                return Ok(());
            }
            match store.propose(transaction).await {
                Ok(_) => return Ok(()),
                Err(ProposeError::Conflict(_)) => {}
                Err(_) => return Err(NotTaken),
            }
        }
        Err(NotTaken)
    }

    fn leader(&self, world: &World) -> Option<usize> {
        self.raft.view().leader.and_then(|id| world.slot_of(id))
    }
}

impl Drop for Abdicates<'_> {
    fn drop(&mut self) {
        *self.0.reign.lock() = None;
    }
}

impl Clock for SkewedClock {
    fn unix_now(&self) -> Duration {
        let error = self.error_ms.load(Ordering::Relaxed);
        let now = self.world.upgrade().map(|w| w.wall()).unwrap_or_default();
        let by = Duration::from_millis(error.unsigned_abs());
        if error < 0 { now.saturating_sub(by) } else { now + by }
    }
}

// === impl Watched ===

impl StateMachine for Watched {
    fn apply(&self, index: u64, command: &[u8]) -> Result<Bytes, ApplyError> {
        let before = self.store.snapshot();
        let response = self.inner.apply(index, command)?;
        if let Some(world) = self.world.upgrade() {
            let outcome = if response.is_empty() { Ok(()) } else { Err(decode_conflict(&response)) };
            let mut commits = Vec::new();
            while let Some(event) = self.changes.lock().try_next() {
                if let Event::Commit(commit) = event {
                    commits.push(commit);
                }
            }
            world.applies(&self.who, index, command, &before, &outcome, &commits, &self.store.snapshot());
        }
        Ok(response)
    }

    fn advance(&self, index: u64) {
        self.inner.advance(index);
        self.world.upgrade().into_iter().for_each(|w| w.advances(&self.who, index));
    }

    fn snapshot(&self) -> SnapshotFn {
        self.inner.snapshot()
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), String> {
        self.inner.restore(bytes)?;
        self.world.upgrade().into_iter().for_each(|w| w.restores(&self.who, self.store.snapshot().index()));
        Ok(())
    }

    fn old_snapshots_kept(&self) -> usize {
        self.inner.old_snapshots_kept()
    }
}
