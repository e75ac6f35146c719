//! One task: asks [`step`] what to do, and does it.

use crate::Context;
use crate::files::{Files, Granted};
use crate::names;
use crate::step::{self, Action, Seen, Step, Verdict, View, Wanted};
use crate::worker::Input;
use engine::{ContainerPhase, ContainerState, EngineError};
use model::{Task, TaskId, TaskState, TaskStatus, Timestamp};
use seams::RandExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

/// Containers created or started at once on one node: an engine serialises much of that work, and a hundred calls in a queue
/// would time out.
pub(crate) const CHANGES_AT_ONCE: usize = 16;

/// What the worker tells a runner.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) task: Arc<Task>,
    pub(crate) wanted: Wanted,
    /// What it needs of secrets and configs, as far as it is here.
    pub(crate) granted: Granted,
}

/// One task's runner.
pub(crate) struct Runner {
    pub(crate) context: Arc<Context>,
    pub(crate) orders: watch::Receiver<Order>,
    /// Notified when the engine says that something happened to the container.
    pub(crate) poke: Arc<Notify>,
    pub(crate) worker: mpsc::Sender<Input>,
    pub(crate) changes: Arc<Semaphore>,
    pub(crate) status: TaskStatus,
    pub(crate) seen: Seen,
    /// The container, once it is known.
    pub(crate) container: Option<String>,
    pub(crate) was_unhealthy: bool,
    /// Attempts of the current action that failed.
    pub(crate) attempts: u32,
    pub(crate) files: Files,
}

// === impl Runner ===

impl Runner {
    /// A runner for a task. A task that was never begun has no container, so that none is looked for; neither is one with the
    /// deliberate bug of the simulation.
    pub(crate) fn new(
        context: Arc<Context>,
        orders: watch::Receiver<Order>,
        poke: Arc<Notify>,
        worker: mpsc::Sender<Input>,
        changes: Arc<Semaphore>,
        status: TaskStatus,
    ) -> Runner {
        let look = status.state > TaskState::Assigned && !context.config.canaries.adopt_nothing;
        let container = status.container.as_ref().filter(|_| look).map(|c| c.id.clone());
        let seen = if look { Seen::Unknown } else { Seen::Absent };
        let files = Files::default();
        let (was_unhealthy, attempts) = (false, 0);
        Runner { context, orders, poke, worker, changes, status, seen, container, was_unhealthy, attempts, files }
    }

    /// Until the task is forgotten.
    pub(crate) async fn run(mut self) {
        loop {
            let order = self.orders.borrow_and_update().clone();
            // The managers may know more: they gave the task up as orphaned, or this agent's disk was lost.
            if order.task.status.state > self.status.state {
                self.status = order.task.status.clone();
            }
            match step::step(self.view(&order), self.now()) {
                Step::Move(status) => self.moved(&order, status).await,
                Step::Do(Action::Wait) => match self.keep_files(&order).await {
                    Ok(()) => self.wait().await,
                    Err(error) => {
                        // Perhaps it runs no more, and that is why it cannot be told.
                        self.seen = Seen::Unknown;
                        self.failed(&order, Action::Wait, error).await;
                    }
                },
                Step::Do(Action::Finish) => {
                    if let Err(error) = self.remove_files(&order).await {
                        self.failed(&order, Action::Finish, error).await;
                        continue;
                    }
                    // The worker is gone only when the agent stops.
                    let _ = self.worker.send(Input::Finished(order.task.id.clone())).await;
                    return;
                }
                Step::Do(action) => match self.act(&order, action).await {
                    Ok(()) => self.attempts = 0,
                    Err(error) => self.failed(&order, action, error).await,
                },
            }
        }
    }

    fn view<'a>(&'a self, order: &'a Order) -> View<'a> {
        View {
            task: &order.task,
            wanted: order.wanted,
            status: &self.status,
            seen: &self.seen,
            was_unhealthy: self.was_unhealthy,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.context.seams.clock.unix_now())
    }

    async fn moved(&mut self, order: &Order, status: TaskStatus) {
        tracing::debug!(task = %order.task.id, state = %status.state, err = status.err, "task moved");
        self.status = status;
        let _ = self.worker.send(Input::Status(order.task.id.clone(), self.status.clone())).await;
    }

    /// Until the engine reports something of the container, or something else is wanted.
    async fn wait(&mut self) {
        tokio::select! {
            biased;
            changed = self.orders.changed() => self.stop_if_orphaned(changed.is_err()).await,
            () = self.poke.notified() => self.seen = Seen::Unknown,
        }
    }

    /// Without a worker there is nothing left to do but to be dropped with the agent.
    async fn stop_if_orphaned(&self, orphaned: bool) {
        if orphaned {
            std::future::pending::<()>().await;
        }
    }

    async fn act(&mut self, order: &Order, action: Action) -> Result<(), EngineError> {
        match action {
            Action::Look => self.seen = self.look(&order.task).await?,
            Action::Prepare => self.prepare(order).await?,
            Action::Start => {
                let _slot = self.slot().await;
                let Some(id) = self.container.clone() else { return Ok(()) };
                // After a reboot they are gone, and the engine would refuse.
                if self.place_files(order).await?.is_none() {
                    self.wait().await;
                    return Ok(());
                }
                // Whatever the answer, the engine knows better what became of it.
                self.seen = Seen::Unknown;
                self.context.engine.start(&id).await?;
            }
            Action::Stop { grace, unhealthy } => {
                self.was_unhealthy |= unhealthy;
                let Some(id) = self.container.clone() else { return Ok(()) };
                self.seen = Seen::Unknown;
                self.context.engine.stop(&id, grace).await?;
            }
            Action::Remove => {
                let Some(id) = self.container.clone() else { return Ok(()) };
                self.seen = Seen::Unknown;
                self.context.engine.remove(&id).await?;
                self.seen = Seen::Absent;
            }
            Action::Wait | Action::Finish => {}
        }
        Ok(())
    }

    async fn slot(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.changes).acquire_owned().await.ok()
    }

    /// Finds the task's container: by its id when that is known, by its labels otherwise.
    async fn look(&mut self, task: &Task) -> Result<Seen, EngineError> {
        if let Some(id) = &self.container {
            return Ok(self.context.engine.inspect(id).await?.map_or(Seen::Absent, Seen::Present));
        }
        let found = self.find(task).await?;
        self.container = found.as_ref().map(|c| c.id.clone());
        Ok(found.map_or(Seen::Absent, Seen::Present))
    }

    /// The container with this task's labels and name, if it is this node's.
    async fn find(&self, task: &Task) -> Result<Option<ContainerState>, EngineError> {
        let label = format!("{}={}", names::TASK_ID_LABEL, task.id);
        let node = &self.context.config.node_id;
        let is_ours = |c: &ContainerState| names::task_of(c, node).as_ref() == Some(&task.id) && c.name == task.name();
        Ok(self.context.engine.list(&label).await?.into_iter().find(is_ours))
    }

    async fn prepare(&mut self, order: &Order) -> Result<(), EngineError> {
        let context = Arc::clone(&self.context);
        let Context { engine, config, .. } = &*context;
        let Some(spec) = order.task.spec.container() else {
            return Err(EngineError::Refused("the task is no container".into()));
        };
        let node = self.node_facts(order).await?;
        let spec = node.filled(&order.task, spec).map_err(|e| EngineError::Refused(e.to_string()))?;
        let mut container = names::new_container(&order.task, &config.node_id, spec.into_owned());
        let auth = container.spec.registry_auth.as_ref().map(|a| a.0.as_str());
        let mut orders = self.orders.clone();
        tokio::select! {
            biased;
            // Not wanted any more: a pull can take an hour. (An error here is a stopping agent.)
            _ = orders.wait_for(|o| !o.wanted.is_live()) => return Ok(()),
            pulled = engine.pull(&container.spec.image, auth) => pulled?,
        }
        let Some(files) = self.place_files(order).await? else {
            self.wait().await;
            return Ok(());
        };
        container.files = files;
        let _slot = self.slot().await;
        if !self.orders.borrow().wanted.is_live() {
            return Ok(());
        }
        let made = match engine.create(&container).await {
            Ok(id) => {
                let (name, phase) = (container.name, ContainerPhase::Created);
                ContainerState { id, name, phase, ..ContainerState::default() }
            }
            // Made by an attempt whose answer was lost, or before this agent lost its disk.
            Err(conflict @ EngineError::Conflict(_)) => self.find(&order.task).await?.ok_or(conflict)?,
            Err(e) => return Err(e),
        };
        self.container = Some(made.id.clone());
        self.seen = Seen::Present(made);
        Ok(())
    }

    async fn failed(&mut self, order: &Order, action: Action, error: EngineError) {
        self.attempts += 1;
        tracing::info!(task = %order.task.id, ?action, attempts = self.attempts, "the engine failed: {error}");
        match step::on_error(self.view(order), action, &error, self.attempts, self.now()) {
            Verdict::Move(status) => {
                self.attempts = 0;
                self.moved(order, status).await;
            }
            Verdict::Retry { after, note } => {
                if let Some(err) = note.filter(|n| *n != self.status.err && !self.status.state.is_terminal()) {
                    self.moved(order, TaskStatus { err, ..self.status.clone() }).await;
                }
                let jitter = Duration::from_millis(self.context.seams.rand.below(100));
                tokio::select! {
                    biased;
                    changed = self.orders.changed() => self.stop_if_orphaned(changed.is_err()).await,
                    // The engine is back, for one.
                    () = self.poke.notified() => {}
                    () = tokio::time::sleep(after + jitter) => {}
                }
            }
        }
    }
}

/// The id of the container that a status names.
pub(crate) fn container_of(status: &TaskStatus) -> Option<&str> {
    status.container.as_ref().map(|c| c.id.as_str())
}

/// True when what the engine lists does not agree with what is believed of a task.
pub(crate) fn disagrees(
    id: &TaskId,
    status: &TaskStatus,
    listed: &std::collections::BTreeMap<TaskId, &ContainerState>,
) -> bool {
    let container = listed.get(id);
    let running = container.is_some_and(|c| c.phase == ContainerPhase::Running);
    match status.state {
        TaskState::Starting => true,
        TaskState::Running => {
            !running
                || container.is_some_and(|c| {
                    c.health == engine::Health::Unhealthy || status.container.as_ref().is_none_or(|s| s.pid != c.pid)
                })
        }
        TaskState::Ready => container.is_none(),
        state => state.is_terminal() && running,
    }
}
