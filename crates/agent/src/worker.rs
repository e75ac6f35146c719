//! Holds the assignment set and every task's status; the only one that changes either. What changed is on disk before
//! anything is done about it, and before a manager hears of it.

use crate::files::Granted;
use crate::outbox::Outbox;
use crate::plugin::owned::{Claim, Claimed, OwnedPlugin, OwnedPlugins};
use crate::plugin::{self, PluginRunner};
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
    /// A task wants to install a plugin; the answer comes once it is on disk.
    Claim(Claim, oneshot::Sender<Claimed>),
    /// What a task found of a plugin that it tried to install.
    PluginFound { name: String, task: TaskId, id: Option<String> },
    /// A plugin that no task needs was removed, or could not be.
    PluginLeft { name: String, removed: bool },
}

/// How others reach the worker.
#[derive(Clone)]
pub(crate) struct Handle {
    inputs: mpsc::Sender<Input>,
    pub(crate) outbox: Arc<Outbox>,
    position: Arc<Mutex<Option<Position>>>,
    granted: Arc<Mutex<Vec<PayloadId>>>,
    view: Arc<Mutex<Vec<Task>>>,
    plugins: Arc<Mutex<OwnedPlugins>>,
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
    /// The plugins that were installed for tasks of this node.
    plugins: OwnedPlugins,
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
    claimed: Vec<(oneshot::Sender<Claimed>, Claimed)>,
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

    /// Asks for a plugin; `None` when the agent stops.
    pub(crate) async fn claim(&self, claim: Claim) -> Option<Claimed> {
        let (reply, claimed) = oneshot::channel();
        self.send(Input::Claim(claim, reply)).await;
        claimed.await.ok()
    }

    /// Whose the plugin of that name is.
    pub(crate) fn plugin(&self, name: &str) -> Option<OwnedPlugin> {
        self.plugins.lock().0.get(name).cloned()
    }

    /// True when the other task is active, and newer than this one.
    pub(crate) fn outlives(&self, other: &TaskId, task: &Task) -> bool {
        self.task(other).is_some_and(|other| is_newer(&other, task))
    }

    /// True when another active task of the same service is the plugin of that name.
    pub(crate) fn has_another(&self, task: &Task, name: &str) -> bool {
        let is_one = |t: &Task| t.id != task.id && t.service_id == task.service_id && t.is_active();
        self.view.lock().iter().any(|t| is_one(t) && t.spec.plugin().is_some_and(|p| p.local_name() == name))
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
        let plugins = Arc::new(Mutex::new(saved.plugins.clone()));
        let handle =
            Handle { inputs: sender, outbox: Arc::default(), position, granted: Arc::default(), view, plugins };
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
            plugins: saved.plugins,
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
            Input::Claim(claim, reply) => {
                let claimed = self.claim(claim);
                effects.dirty |= claimed == Claimed::Granted;
                effects.claimed.push((reply, claimed));
            }
            Input::PluginFound { name, task, id } => {
                self.plugins.found(&name, &task, id);
                effects.dirty = true;
            }
            Input::PluginLeft { name, removed: true } => effects.dirty |= self.plugins.0.remove(&name).is_some(),
            // Tried again when the engine is looked at next.
            Input::PluginLeft { name, removed: false } => {
                self.plugins.0.get_mut(&name).into_iter().for_each(|o| o.leaving = false);
            }
        }
    }

    /// Writes the set with the agent's statuses. A disk that fails must not stop tasks: what cannot be written is only
    /// missing after a restart without managers.
    async fn save(&self) {
        let Context { config, seams, .. } = &*self.context;
        let (tasks, plugins) = (self.tasks(), self.plugins.clone());
        if let Err(error) = saved::write(&*seams.disk, &config.state_file, self.set.position, tasks, plugins).await {
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
        self.handle.plugins.lock().clone_from(&self.plugins);
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
        for (reply, claimed) in effects.claimed {
            // A task that is not wanted any more has stopped waiting.
            let _ = reply.send(claimed);
        }
        if effects.set_changed || effects.dirty || effects.listed.is_some() {
            self.sweep_plugins();
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
        let is_plugin = order.task.spec.plugin().is_some();
        let (orders, order_rx) = watch::channel(order);
        let poke = Arc::new(Notify::new());
        if is_plugin {
            let (context, handle) = (Arc::clone(&self.context), self.handle.clone());
            let runner = PluginRunner::new(context, order_rx, Arc::clone(&poke), handle, status.clone());
            self.group.spawn("agent plugin", runner.run());
            return Running { orders, poke, status };
        }
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

// === Plugins ===

impl Worker {
    fn claim(&mut self, claim: Claim) -> Claimed {
        let Some(task) = self.set.tasks.get(&claim.task).cloned() else { return Claimed::Leaving };
        let outlives = |other: &TaskId| {
            let running = self.running.get(other).map(|r| &r.status);
            let other = self.set.tasks.get(other);
            other.zip(running).is_some_and(|(other, status)| !status.state.is_terminal() && is_newer(other, &task))
        };
        self.plugins.claim(claim, outlives)
    }

    /// Removes the plugins that no task of this node needs: none in the set that is to be kept, and none that still has to
    /// disable its own.
    fn sweep_plugins(&mut self) {
        if !self.synced || self.plugins.0.is_empty() {
            return;
        }
        let kept = self.set.tasks.values().filter(|t| t.desired != TaskState::Remove && t.spec.plugin().is_some());
        let ends = self.running.values().filter(|r| !r.status.state.is_terminal());
        let ends = ends.map(|r| Arc::clone(&r.orders.borrow().task)).filter(|t| t.spec.plugin().is_some());
        let needing: Vec<Task> = kept.cloned().chain(ends.map(|t| Task::clone(&t))).collect();
        for name in self.plugins.unneeded(needing.iter()) {
            let Some(owned) = self.plugins.0.get_mut(&name) else { continue };
            owned.leaving = true;
            let (owned, context, handle) = (owned.clone(), Arc::clone(&self.context), self.handle.clone());
            self.group.spawn("agent plugin", async move {
                let _lock = context.plugins.of(&name).await;
                let removed = plugin::remove(&*context.engine, &name, &owned).await;
                if let Err(error) = &removed {
                    tracing::warn!(plugin = name, "cannot remove it yet: {error}");
                }
                handle.send(Input::PluginLeft { name, removed: removed.is_ok() }).await;
            });
        }
    }
}

/// True when `other` is active and was made after `task` of its service. By the clock only where the spec does not tell: leaders
/// have clocks of their own.
fn is_newer(other: &Task, task: &Task) -> bool {
    let age = |t: &Task| (t.spec_version, t.meta.created_at, t.id.clone());
    other.is_active() && age(other) > age(task)
}

fn newer<'a>(a: &'a TaskStatus, b: &'a TaskStatus) -> &'a TaskStatus {
    if b.state > a.state { b } else { a }
}
