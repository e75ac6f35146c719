//! Holds the assignment set and every task's status; the only one that changes either. What changed is on disk before
//! anything is done about it, and before a manager hears of it.

use crate::files::Granted;
use crate::outbox::Outbox;
use crate::runner::{self, Order, Runner};
use crate::saved::{self, Saved};
use crate::set::{AssignmentSet, Outcome, Position, Update};
use crate::step::Wanted;
use crate::{Context, names};
use engine::{ContainerEvent, ContainerState, FilePlace};
use model::{PayloadId, Task, TaskId, TaskState, TaskStatus};
use parking_lot::Mutex;
use seams::Tasks;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

/// Inputs waiting for the worker; senders wait when it is full.
const INPUTS_MAX: usize = 1024;

/// What the worker is told.
pub(crate) enum Input {
    /// A message of the assignment stream; the outcome goes back once it is on disk.
    Update(Update, oneshot::Sender<Outcome>),
    /// A task has a new status.
    Status(TaskId, TaskStatus),
    /// A task was stopped, removed and can be forgotten.
    Finished(TaskId),
    /// Something happened to a container.
    Event(ContainerEvent),
    /// All containers of this node.
    Listed {
        containers: Vec<ContainerState>,
        /// The engine was lost, or never seen, before.
        engine_is_back: bool,
    },
    /// An orphan was removed, or could not be.
    OrphanDone(String),
    /// The tasks whose files are on this machine.
    FilesListed(Vec<String>),
}

/// How others reach the worker.
#[derive(Clone)]
pub(crate) struct Handle {
    inputs: mpsc::Sender<Input>,
    pub(crate) outbox: Arc<Outbox>,
    position: Arc<Mutex<Option<Position>>>,
    granted: Arc<Mutex<Vec<PayloadId>>>,
    view: Arc<Mutex<Vec<Task>>>,
}

pub(crate) struct Worker {
    context: Arc<Context>,
    group: Tasks,
    handle: Handle,
    inputs: mpsc::Receiver<Input>,
    set: AssignmentSet,
    /// Every task that has a runner.
    running: BTreeMap<TaskId, Running>,
    /// A manager confirmed the set since the start: what it does not contain really should not be here.
    synced: bool,
    /// Files of tasks that are not here any more were looked for.
    files_swept: bool,
    /// Containers being removed because no task explains them.
    orphans: BTreeSet<String>,
    changes: Arc<Semaphore>,
}

struct Running {
    orders: watch::Sender<Order>,
    poke: Arc<Notify>,
    status: TaskStatus,
}

/// What a batch of inputs asks for once it is on disk.
#[derive(Default)]
struct Effects {
    dirty: bool,
    replies: Vec<(oneshot::Sender<Outcome>, Outcome)>,
    reports: Vec<(TaskId, TaskStatus)>,
    /// Tasks that a manager sent.
    put: Vec<TaskId>,
    set_changed: bool,
    listed: Option<Vec<ContainerState>>,
}

// === impl Handle ===

impl Handle {
    pub(crate) async fn send(&self, input: Input) {
        // The worker is gone only when the agent stops.
        let _ = self.inputs.send(input).await;
    }

    /// Gives an update to the worker; `None` when the agent stops.
    pub(crate) async fn update(&self, update: Update) -> Option<Outcome> {
        let (reply, outcome) = oneshot::channel();
        self.send(Input::Update(update, reply)).await;
        outcome.await.ok()
    }

    /// The newest position that was taken.
    pub(crate) fn position(&self) -> Option<Position> {
        *self.position.lock()
    }

    /// The data of secrets and configs that is here.
    pub(crate) fn granted(&self) -> Vec<PayloadId> {
        self.granted.lock().clone()
    }

    /// A task of this node with the agent's status.
    pub(crate) fn task(&self, id: &TaskId) -> Option<Task> {
        let view = self.view.lock();
        view.binary_search_by(|t| t.id.cmp(id)).ok().map(|i| view[i].clone())
    }
}

// === impl Worker ===

impl Worker {
    pub(crate) fn new(
        context: Arc<Context>,
        saved: Saved,
        group: Tasks,
        view: Arc<Mutex<Vec<Task>>>,
    ) -> (Worker, Handle) {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let position = Arc::new(Mutex::new(saved.position));
        let handle = Handle { inputs: sender, outbox: Arc::default(), position, granted: Arc::default(), view };
        let tasks = saved.tasks.into_iter().map(|t| (t.id.clone(), t)).collect();
        let worker = Worker {
            context,
            group,
            handle: handle.clone(),
            inputs,
            set: AssignmentSet { position: saved.position, tasks, data: BTreeMap::new() },
            running: BTreeMap::new(),
            synced: false,
            files_swept: false,
            orphans: BTreeSet::new(),
            changes: Arc::new(Semaphore::new(runner::CHANGES_AT_ONCE)),
        };
        (worker, handle)
    }

    /// Never ends.
    pub(crate) async fn run(mut self) {
        // What was on disk may not have been reported. (Who gave a task up as orphaned knows it.)
        let ours = |t: &&Task| t.status.state > TaskState::Assigned && t.status.state != TaskState::Orphaned;
        for task in self.set.tasks.values().filter(ours) {
            self.handle.outbox.push(task.id.clone(), task.status.clone());
        }
        self.give_orders();
        self.publish_view();
        while let Some(first) = self.inputs.recv().await {
            let mut effects = Effects::default();
            self.take(first, &mut effects);
            while let Ok(more) = self.inputs.try_recv() {
                self.take(more, &mut effects);
            }
            if effects.dirty {
                self.save().await;
            }
            self.act(effects);
        }
    }

    fn take(&mut self, input: Input, effects: &mut Effects) {
        match input {
            Input::Update(update, reply) => {
                let put: Vec<TaskId> = update.put.iter().map(|t| t.id.clone()).collect();
                let outcome = self.set.apply(update, self.context.config.canaries.accept_stale_assignments);
                if let Outcome::Applied { changed } = outcome {
                    self.synced = true;
                    effects.set_changed |= changed;
                    effects.dirty |= changed;
                    effects.put.extend(put);
                }
                effects.replies.push((reply, outcome));
            }
            Input::Status(id, status) => {
                if let Some(running) = self.running.get_mut(&id) {
                    running.status = status.clone();
                    effects.dirty = true;
                    effects.reports.push((id, status));
                }
            }
            Input::Finished(id) => {
                // Put back into the set in the meantime (only a stale set does that): the runner has ended, so the task gets
                // another one, which finds a task that has ended.
                if let Some(ended) = self.running.remove(&id)
                    && let Some(task) = self.set.tasks.get_mut(&id)
                {
                    task.status = ended.status;
                    effects.set_changed = true;
                }
            }
            Input::Event(event) => {
                let of = |r: &&Running| runner::container_of(&r.status) == Some(event.id.as_str());
                if let Some(running) = self.running.values().find(of) {
                    running.poke.notify_one();
                }
            }
            Input::Listed { containers, engine_is_back } => {
                let node = &self.context.config.node_id;
                let by_task: BTreeMap<TaskId, &ContainerState> =
                    containers.iter().filter_map(|c| Some((names::task_of(c, node)?, c))).collect();
                for (id, running) in &self.running {
                    if engine_is_back || runner::disagrees(id, &running.status, &by_task) {
                        running.poke.notify_one();
                    }
                }
                effects.listed = Some(containers);
            }
            Input::OrphanDone(id) => {
                self.orphans.remove(&id);
            }
            Input::FilesListed(tasks) => self.sweep_files(tasks),
        }
    }

    /// Writes the set with the agent's statuses. A disk that fails must not stop tasks: what cannot be written is only
    /// missing after a restart without managers.
    async fn save(&self) {
        let Context { config, seams, .. } = &*self.context;
        if let Err(error) = saved::write(&*seams.disk, &config.state_file, self.set.position, self.tasks()).await {
            tracing::error!("cannot write the agent's state file {}: {error}", config.state_file.display());
        }
    }

    /// The set's tasks with the agent's statuses, by id.
    fn tasks(&self) -> Vec<Task> {
        let own = |task: &Task| {
            let status = self.running.get(&task.id).map_or(&task.status, |r| newer(&r.status, &task.status));
            Task { status: status.clone(), ..task.clone() }
        };
        self.set.tasks.values().map(own).collect()
    }

    fn act(&mut self, effects: Effects) {
        // In this order: a session that asks from this position must not say that it has what was revoked before it.
        *self.handle.granted.lock() = self.set.data.keys().cloned().collect();
        *self.handle.position.lock() = self.set.position;
        if effects.set_changed {
            self.give_orders();
        }
        self.report_what_is_newer(effects.put);
        if effects.set_changed || effects.dirty {
            self.publish_view();
        }
        for (id, status) in effects.reports {
            self.handle.outbox.push(id, status);
        }
        for (reply, outcome) in effects.replies {
            // A session that ended meanwhile does not need it.
            let _ = reply.send(outcome);
        }
        if let Some(containers) = effects.listed {
            self.sweep(containers);
        }
    }

    fn publish_view(&self) {
        *self.handle.view.lock() = self.tasks();
    }

    /// Tells every runner what is wanted, starts those that are missing, and lets go of tasks that are not in the set.
    fn give_orders(&mut self) {
        for (id, running) in &self.running {
            if !self.set.tasks.contains_key(id) {
                running
                    .orders
                    .send_if_modified(|o| std::mem::replace(&mut o.wanted, Wanted::Forgotten) != Wanted::Forgotten);
            }
        }
        for task in self.set.tasks.values() {
            let wanted = Wanted::of(task.desired);
            let granted = Granted::of(task, &self.set.data, self.synced);
            let order = Order { task: Arc::new(task.clone()), wanted, granted };
            match self.running.get(&task.id) {
                Some(running) => {
                    running.orders.send_if_modified(|o| std::mem::replace(o, order.clone()) != order);
                }
                None => {
                    let running = self.start_runner(order);
                    self.running.insert(task.id.clone(), running);
                }
            }
        }
    }

    fn start_runner(&self, order: Order) -> Running {
        let status = order.task.status.clone();
        let (orders, order_rx) = watch::channel(order);
        let poke = Arc::new(Notify::new());
        let runner = Runner::new(
            Arc::clone(&self.context),
            order_rx,
            Arc::clone(&poke),
            self.handle.inputs.clone(),
            Arc::clone(&self.changes),
            status.clone(),
        );
        self.group.spawn("agent task", runner.run());
        Running { orders, poke, status }
    }

    /// A manager that sent a task and knows less of it than this agent missed a report.
    fn report_what_is_newer(&self, put: Vec<TaskId>) {
        for id in put {
            let (Some(running), Some(task)) = (self.running.get(&id), self.set.tasks.get(&id)) else { continue };
            if running.status.state > task.status.state && !self.handle.outbox.has(&id) {
                self.handle.outbox.push(id, running.status.clone());
            }
        }
    }

    /// Removes this node's containers that no task explains. Only once a manager confirmed the set: an agent that lost its
    /// disk must not take its tasks' containers for orphans.
    fn sweep(&mut self, containers: Vec<ContainerState>) {
        if !self.synced || self.context.config.canaries.adopt_nothing {
            return;
        }
        if !std::mem::replace(&mut self.files_swept, true) {
            let (context, handle) = (Arc::clone(&self.context), self.handle.clone());
            self.group.spawn("agent files", async move {
                match context.engine.files().list(context.config.node_id.as_str()).await {
                    Ok(tasks) if tasks.is_empty() => {}
                    Ok(tasks) => handle.send(Input::FilesListed(tasks)).await,
                    Err(error) => tracing::warn!("cannot look for files that no task needs: {error}"),
                }
            });
        }
        for container in containers {
            let node = &self.context.config.node_id;
            let Some(task) = names::task_of(&container, node) else { continue };
            if self.running.contains_key(&task) || !self.orphans.insert(container.id.clone()) {
                continue;
            }
            tracing::info!(container = container.name, "no task explains this container: it is stopped and removed");
            let (context, handle) = (Arc::clone(&self.context), self.handle.clone());
            self.group.spawn("agent orphan", async move {
                let grace = model::limits::STOP_GRACE_PERIOD_DEFAULT;
                let removed = async {
                    context.engine.stop(&container.id, grace).await?;
                    context.engine.remove(&container.id).await
                };
                if let Err(error) = removed.await {
                    tracing::warn!(container = container.name, "cannot remove it yet: {error}");
                }
                handle.send(Input::OrphanDone(container.id)).await;
            });
        }
    }
}

// === Files that no task needs ===

impl Worker {
    /// Removes files of tasks that are not here: this agent did not run when they went.
    fn sweep_files(&self, tasks: Vec<String>) {
        let node = self.context.config.node_id.as_str();
        let known = |task: &String| self.running.keys().any(|id| id.as_str() == task);
        let places = tasks.iter().filter(|t| !known(t)).filter_map(|task| FilePlace::new(node, task).ok());
        let places: Vec<FilePlace> = places.collect();
        let context = Arc::clone(&self.context);
        self.group.spawn("agent files", async move {
            for place in places {
                match context.engine.files().remove(&place).await {
                    Ok(()) => tracing::info!(task = place.owner(), "files that no task needs were removed"),
                    Err(error) => tracing::warn!(task = place.owner(), "cannot remove files no task needs: {error}"),
                }
            }
        });
    }
}

fn newer<'a>(a: &'a TaskStatus, b: &'a TaskStatus) -> &'a TaskStatus {
    if b.state > a.state { b } else { a }
}
