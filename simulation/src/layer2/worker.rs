//! A worker: a model of a node's agent. It heartbeats to some manager, follows that manager's assignments and never goes
//! backwards, moves its tasks along their states, and reports what they do.

use super::manager::NotTaken;
use super::net::{Addr, CallError, call};
use super::runtime::sleep;
use super::world::World;
use crate::layer3::Bug;
use crate::rng::SeededRand;
use agent::Position;
use model::{NodeId, Task, TaskId, TaskState, TaskStatus, Timestamp};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// For a heartbeat or a look at the assignments.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// For a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(4);
/// The cluster's heartbeat period.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);

/// A worker's machine.
pub(super) struct Worker {
    pub(super) id: NodeId,
    pub(super) name: String,
    pub(super) addr: Addr,
    rand: SeededRand,
    state: Mutex<State>,
}

/// What is lost when a worker crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Only the agent's process.
    Agent,
    /// Its containers, too.
    Containers,
    /// Everything.
    Disk,
}

struct State {
    alive: bool,
    gone_since: Option<Duration>,
    manager: usize,
    position: Option<Position>,
    assigned: BTreeMap<TaskId, Arc<Task>>,
    local: BTreeMap<TaskId, Local>,
}

/// A task as the node knows it.
#[derive(Debug, Clone)]
struct Local {
    status: TaskStatus,
    /// When it takes its next step.
    next: Duration,
    told: Option<TaskState>,
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(id: NodeId, number: usize, addr: Addr, rand: SeededRand) -> Worker {
        let state = State {
            alive: true,
            gone_since: None,
            manager: 0,
            position: None,
            assigned: BTreeMap::new(),
            local: BTreeMap::new(),
        };
        Worker { id, name: format!("w{number}"), addr, rand, state: Mutex::new(state) }
    }

    /// Starts its loops.
    pub(super) fn start(self: &Arc<Self>, world: &Arc<World>) {
        world.spawn(self.clone().beat(world.clone()));
        world.spawn(self.clone().follow(world.clone()));
        world.spawn(self.clone().run(world.clone()));
        world.spawn(self.clone().tell(world.clone()));
    }

    /// Since when it does not run.
    pub(super) fn gone_since(&self) -> Option<Duration> {
        self.state.lock().gone_since
    }

    /// It stops. False when it does not run.
    pub(super) fn crash(&self, world: &World, loss: Loss) -> bool {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.alive, false) {
            return false;
        }
        state.gone_since = Some(world.elapsed());
        world.event(&self.name, format_args!("crashes, and loses {loss:?}"));
        if loss != Loss::Agent {
            let at = world.wall_time();
            for local in state.local.values_mut().filter(|l| !l.status.state.is_terminal()) {
                local.end(TaskState::Failed, "the container is gone", at);
            }
        }
        if loss == Loss::Disk {
            state.local.clear();
            state.assigned.clear();
            if state.position.take().is_some() {
                world.judge.lock().forget_position(&self.id);
            }
        }
        true
    }

    /// It is back.
    pub(super) fn come_back(&self, world: &World) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.alive, true) {
            state.gone_since = None;
            world.event(&self.name, format_args!("is back"));
        }
    }

    /// The tasks whose containers run on it.
    pub(super) fn running(&self) -> Vec<TaskId> {
        let state = self.state.lock();
        let runs = |l: &Local| (TaskState::Starting..=TaskState::Running).contains(&l.status.state);
        state.local.iter().filter(|(_, l)| runs(l)).map(|(id, _)| id.clone()).collect()
    }

    fn alive(&self) -> Option<usize> {
        let state = self.state.lock();
        state.alive.then_some(state.manager)
    }

    fn elsewhere(&self, world: &World) {
        let manager = usize::try_from(self.rand.between(0, world.managers.len() as u64 - 1)).unwrap_or(0);
        self.state.lock().manager = manager;
    }

    /// Sends heartbeats.
    async fn beat(self: Arc<Self>, world: Arc<World>) {
        sleep(self.rand.millis(0, 1000)).await;
        loop {
            let Some(manager) = self.alive() else {
                sleep(Duration::from_millis(200)).await;
                continue;
            };
            let (asked, id) = (world.clone(), self.id.clone());
            let beat = |life: Arc<super::manager::Life>| life.heartbeat(asked, id);
            match call(&world, self.addr, manager, ASK_TIMEOUT, beat).await {
                Ok(Ok(())) => sleep(HEARTBEAT).await,
                Ok(Err(NotTaken)) | Err(CallError::Lost | CallError::NotSent) => {
                    self.elsewhere(&world);
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Follows the assignments.
    async fn follow(self: Arc<Self>, world: Arc<World>) {
        loop {
            sleep(self.rand.millis(80, 300)).await;
            let Some(manager) = self.alive() else { continue };
            let id = self.id.clone();
            let look = |life: Arc<super::manager::Life>| async move { life.assignments(&id) };
            match call(&world, self.addr, manager, ASK_TIMEOUT, look).await {
                Ok((position, tasks)) => self.take(&world, position, tasks),
                Err(_) => self.elsewhere(&world),
            }
            if self.rand.chance(20) {
                self.elsewhere(&world);
            }
        }
    }

    fn take(&self, world: &World, position: Position, tasks: Vec<Arc<Task>>) {
        let mut state = self.state.lock();
        let stale = state.position.is_some_and(|have| !position.may_replace(have));
        if !state.alive || (stale && world.bug != Some(Bug::StaleAssignments)) {
            return;
        }
        world.judge.lock().position(&self.id, position);
        state.position = Some(position);
        state.assigned = tasks.into_iter().map(|t| (t.id.clone(), t)).collect();
        let state = &mut *state;
        // What is no longer assigned is removed.
        state.local.retain(|id, _| state.assigned.contains_key(id));
    }

    /// Moves the tasks along.
    async fn run(self: Arc<Self>, world: Arc<World>) {
        loop {
            sleep(self.rand.millis(40, 120)).await;
            if self.alive().is_none() {
                continue;
            }
            let (now, at) = (world.elapsed(), world.wall_time());
            let failures = world.task_failures();
            let mut state = self.state.lock();
            let state = &mut *state;
            for (id, task) in &state.assigned {
                let local = state.local.entry(id.clone()).or_insert_with(|| Local::found(task, now, at));
                local.step(task, now, at, &self.rand, failures);
            }
        }
    }

    /// Reports, again and again until it is taken.
    async fn tell(self: Arc<Self>, world: Arc<World>) {
        loop {
            sleep(self.rand.millis(40, 160)).await;
            let Some(manager) = self.alive() else { continue };
            let news = self.news();
            if news.is_empty() {
                continue;
            }
            let (asked, id, sent) = (world.clone(), self.id.clone(), news.clone());
            let report = |life: Arc<super::manager::Life>| life.report(asked, id, sent);
            if let Ok(Ok(())) = call(&world, self.addr, manager, REPORT_TIMEOUT, report).await {
                let mut state = self.state.lock();
                for (id, status) in news {
                    if let Some(local) = state.local.get_mut(&id) {
                        local.told = Some(status.state);
                    }
                }
            }
        }
    }

    fn news(&self) -> BTreeMap<TaskId, TaskStatus> {
        let state = self.state.lock();
        let news = state.local.iter().filter(|(_, l)| l.told != Some(l.status.state));
        news.map(|(id, l)| (id.clone(), l.status.clone())).collect()
    }
}

// === impl Local ===

impl Local {
    /// A task that is new here.
    fn found(task: &Task, now: Duration, at: Timestamp) -> Local {
        let told = Some(task.status.state);
        let mut local = Local { status: task.status.clone(), next: now, told };
        let ran = task.status.state >= TaskState::Starting && !task.status.state.is_terminal();
        if ran {
            local.end(TaskState::Failed, "the container is gone", at);
        }
        local
    }

    fn end(&mut self, state: TaskState, err: &str, at: Timestamp) {
        self.status.state = state;
        self.status.at = at;
        self.status.err = err.to_owned();
    }

    fn step(&mut self, task: &Task, now: Duration, at: Timestamp, rand: &SeededRand, failures: u64) {
        use TaskState::{
            Accepted, Assigned, Complete, Failed, Preparing, Ready, Rejected, Running, Shutdown, Starting,
        };
        let state = self.status.state;
        if state.is_terminal() || now < self.next {
            return;
        }
        if task.desired >= Shutdown {
            if state < Starting || self.status.err == "stopping" {
                self.end(Shutdown, "", at);
            } else {
                self.status.err = "stopping".into();
                self.next = now + rand.millis(0, 600);
            }
            return;
        }
        let next = match state {
            s if s < Accepted => Accepted,
            Accepted => Preparing,
            Preparing if rand.chance(failures * 2) => return self.end(Rejected, "no such image", at),
            Preparing => Ready,
            Ready if task.desired < Running => return,
            Ready => Starting,
            Running if rand.chance(failures) => return self.end(Failed, "task: non-zero exit (1)", at),
            Running if task.job_iteration.is_some() => return self.end(Complete, "", at),
            Running if rand.chance(failures / 4) => return self.end(Complete, "", at),
            Running => return,
            _ => Running,
        };
        debug_assert!(next > Assigned);
        self.status.state = next;
        self.status.at = at;
        if next == Running {
            self.status.running_at = Some(at);
        }
        let is_job = task.job_iteration.is_some();
        self.next = now
            + match next {
                Preparing => rand.millis(0, 800),
                Running if is_job => rand.millis(100, 3000),
                _ => rand.millis(0, 100),
            };
    }
}
