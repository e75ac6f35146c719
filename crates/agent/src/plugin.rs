//! Tasks that are plugins of the node's engine. One task of a service after the other has the service's plugin; it stays
//! installed from one to the next, and is removed when the service has none left on this node.
//!
//! Plugins have no labels by which an agent would know its own again: [`owned`] keeps that, with the assignments. Nothing
//! that somebody installed by hand is ever touched.

pub(crate) mod owned;
pub(crate) mod step;

use crate::Context;
use crate::runner::Order;
use crate::step::{RETRY_FIRST, Verdict};
use crate::worker::{Handle, Input};
use engine::{EngineError, PluginSource, PluginState};
use model::{PluginSpec, Task, TaskStatus, Timestamp};
use owned::{Claim, Claimed, OwnedPlugin};
use parking_lot::Mutex;
use seams::RandExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use step::{Action, Seen, Step, View, taken};
use tokio::sync::{Notify, OwnedMutexGuard, watch};

/// Between two looks at a plugin that should run: engines tell of plugins only to who follows all that happens to them.
const LOOK_PERIOD: Duration = Duration::from_secs(5);

/// One at a time changes a plugin: a task that disables it, one that upgrades it, or nobody needs it and it goes.
#[derive(Default)]
pub(crate) struct Locks(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// The runner of one task that is a plugin.
pub(crate) struct PluginRunner {
    context: Arc<Context>,
    orders: watch::Receiver<Order>,
    /// Notified when it may be worth while to look.
    poke: Arc<Notify>,
    worker: Handle,
    status: TaskStatus,
    seen: Seen,
    /// It is as this task wants it.
    prepared: bool,
    /// What failed last, and how often in a row. (In between it was looked at the plugin.)
    failing: Option<(Action, u32)>,
}

// === impl Locks ===

impl Locks {
    pub(crate) async fn of(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock();
            // What nobody waits for is made again when it is needed.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(name.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}

// === impl PluginRunner ===

impl PluginRunner {
    pub(crate) fn new(
        context: Arc<Context>,
        orders: watch::Receiver<Order>,
        poke: Arc<Notify>,
        worker: Handle,
        status: TaskStatus,
    ) -> PluginRunner {
        PluginRunner { context, orders, poke, worker, status, seen: Seen::Unknown, prepared: false, failing: None }
    }

    /// Until the task is forgotten.
    pub(crate) async fn run(mut self) {
        loop {
            let order = self.orders.borrow_and_update().clone();
            // The worker gives this runner tasks that are plugins only.
            let Some(spec) = order.task.spec.plugin() else { return };
            let name = spec.local_name();
            if order.task.status.state > self.status.state {
                self.status = order.task.status.clone();
            }
            match step::step(self.view(&order, spec), self.now()) {
                Step::Move(status) => self.moved(&order.task, status).await,
                Step::Do(Action::Wait) => self.wait().await,
                Step::Do(Action::Finish) => {
                    self.worker.send(Input::Finished(order.task.id.clone())).await;
                    return;
                }
                Step::Do(action) => match self.act(&order.task, spec, &name, action).await {
                    Ok(()) => self.failing = self.failing.filter(|(failed, _)| *failed != action),
                    Err(error) => {
                        let attempts = self.failing.filter(|(failed, _)| *failed == action).map_or(1, |(_, n)| n + 1);
                        self.failing = Some((action, attempts));
                        tracing::info!(task = %order.task.id, ?action, attempts, "the engine failed: {error}");
                        let verdict = step::on_error(self.view(&order, spec), action, &error, attempts, self.now());
                        self.failed(&order.task, verdict).await;
                    }
                },
            }
        }
    }

    fn view(&self, order: &Order, spec: &PluginSpec) -> View<'_> {
        let (wanted, seen, prepared) = (order.wanted, self.seen, self.prepared);
        View { wanted, status: &self.status, seen, prepared, disabled: spec.disabled }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.context.seams.clock.unix_now())
    }

    async fn moved(&mut self, task: &Task, status: TaskStatus) {
        tracing::debug!(task = %task.id, state = %status.state, err = status.err, "task moved");
        self.status = status;
        self.worker.send(Input::Status(task.id.clone(), self.status.clone())).await;
    }

    /// Until something else is wanted, or it is time to look again.
    async fn wait(&mut self) {
        let over = self.status.state.is_terminal();
        tokio::select! {
            biased;
            changed = self.orders.changed() => never_when(changed.is_err()).await,
            () = self.poke.notified() => {}
            () = tokio::time::sleep(LOOK_PERIOD), if !over => {}
        }
        self.seen = Seen::Unknown;
    }

    async fn failed(&mut self, task: &Task, verdict: Verdict) {
        // It knows better what became of it.
        self.seen = Seen::Unknown;
        match verdict {
            Verdict::Move(status) => {
                self.failing = None;
                self.moved(task, status).await;
            }
            Verdict::Retry { after, note } => {
                if let Some(err) = note.filter(|n| *n != self.status.err && !self.status.state.is_terminal()) {
                    self.moved(task, TaskStatus { err, ..self.status.clone() }).await;
                }
                self.pause(after + Duration::from_millis(self.context.seams.rand.below(100))).await;
            }
        }
    }

    async fn pause(&mut self, time: Duration) {
        tokio::select! {
            biased;
            changed = self.orders.changed() => never_when(changed.is_err()).await,
            () = self.poke.notified() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    async fn act(&mut self, task: &Task, spec: &PluginSpec, name: &str, action: Action) -> Result<(), EngineError> {
        let context = Arc::clone(&self.context);
        let engine = &context.engine;
        match action {
            Action::Look => {
                let found = engine.plugin(name).await?;
                self.seen = self.judge(task, name, found.as_ref());
            }
            Action::Prepare => self.prepare(task, spec, name).await?,
            Action::Start | Action::Stop => {
                let _lock = context.plugins.of(name).await;
                self.seen = Seen::Unknown;
                // While it waited, a newer task may have taken the plugin over.
                let found = engine.plugin(name).await?;
                match (self.judge(task, name, found.as_ref()), action == Action::Start && !spec.disabled) {
                    (Seen::Here { enabled: false }, true) => engine.plugin_enable(name).await?,
                    (Seen::Here { enabled: true }, false) => engine.plugin_disable(name).await?,
                    // It is so already, and the engine would call that an error.
                    _ => {}
                }
            }
            Action::Wait | Action::Finish => {}
        }
        Ok(())
    }

    /// What the engine's plugin of that name is to the task.
    fn judge(&self, task: &Task, name: &str, found: Option<&PluginState>) -> Seen {
        let owned = self.worker.plugin(name).filter(|o| o.service == task.service_id);
        let over = self.status.state.is_terminal();
        match (owned, found) {
            (Some(owned), _) if owned.task != task.id && self.worker.outlives(&owned.task, task) => Seen::Handed,
            // It could not be made of it what this task wants, and one from before goes on.
            (Some(_), _) if over && self.worker.has_another(task, name) => Seen::Handed,
            (Some(owned), Some(plugin)) if owned.may_be(Some(plugin)) => Seen::Here { enabled: plugin.enabled },
            (_, Some(_)) => Seen::Foreign,
            (_, None) => Seen::Absent,
        }
    }

    async fn prepare(&mut self, task: &Task, spec: &PluginSpec, name: &str) -> Result<(), EngineError> {
        let context = Arc::clone(&self.context);
        let found = context.engine.plugin(name).await?;
        let claim = Claim {
            name: name.to_owned(),
            service: task.service_id.clone(),
            task: task.id.clone(),
            remote: spec.remote.clone(),
            found,
        };
        match self.worker.claim(claim).await {
            Some(Claimed::Granted) => {}
            Some(Claimed::Taken) => return Err(taken(name)),
            Some(Claimed::Handed) => {
                self.seen = Seen::Handed;
                return Ok(());
            }
            Some(Claimed::Leaving) | None => {
                self.pause(RETRY_FIRST).await;
                return Ok(());
            }
        }
        let mut orders = self.orders.clone();
        tokio::select! {
            biased;
            // Not wanted any more: a pull can take an hour. (An error here is a stopping agent.)
            _ = orders.wait_for(|o| !o.wanted.is_live()) => {
                self.seen = Seen::Unknown;
                Ok(())
            }
            done = put(&context, &self.worker, task, spec, name) => {
                done?;
                (self.prepared, self.seen) = (true, Seen::Unknown);
                Ok(())
            }
        }
    }
}

/// Sees that the plugin is installed as the task wants it, and not enabled. Others that want to change it wait until then.
async fn put(
    context: &Context,
    worker: &Handle,
    task: &Task,
    spec: &PluginSpec,
    name: &str,
) -> Result<(), EngineError> {
    let _lock = context.plugins.of(name).await;
    let engine = &context.engine;
    let source = PluginSource {
        remote: spec.remote.clone(),
        privileges: spec.privileges.clone(),
        registry_auth: spec.registry_auth.as_ref().map(|a| a.0.clone()),
    };
    match engine.plugin(name).await? {
        // Another since it was claimed.
        Some(plugin) if !worker.plugin(name).is_some_and(|o| o.may_be(Some(&plugin))) => return Err(taken(name)),
        Some(plugin) => upgrade(context, &plugin, name, &source).await?,
        None => {
            let installed = engine.plugin_install(name, &source).await;
            // A call that took too long may have done it all the same: it stays ours until that is known.
            if !installed.as_ref().is_err_and(EngineError::is_engine_away) {
                // What the engine refuses it has not installed: if there is one now, somebody did it by hand.
                let refused = matches!(installed, Err(EngineError::Refused(_) | EngineError::Conflict(_)));
                let there = if refused { None } else { engine.plugin(name).await? };
                let id = there.filter(|p| p.is_from(&source.remote)).map(|p| p.id);
                worker.send(Input::PluginFound { name: name.to_owned(), task: task.id.clone(), id }).await;
            }
            installed?;
        }
    }
    engine.plugin_set(name, &spec.env).await
}

/// Puts the plugin that is wanted in place of the one that is there; that one goes on when it cannot be had.
async fn upgrade(
    context: &Context,
    plugin: &PluginState,
    name: &str,
    source: &PluginSource,
) -> Result<(), EngineError> {
    let engine = &context.engine;
    engine.plugin_disable(name).await?;
    let same = plugin.is_from(&source.remote);
    if same && source.remote.contains('@') {
        return Ok(());
    }
    match engine.plugin_upgrade(name, source).await {
        // As with images: what is here is used when the registry cannot be reached.
        Err(error @ (EngineError::Failed(_) | EngineError::NotFound(_))) if same => {
            tracing::warn!(plugin = name, "pulling failed, the plugin that is here is used: {error}");
            Ok(())
        }
        Err(error) => {
            if plugin.enabled
                && let Err(again) = engine.plugin_enable(name).await
            {
                tracing::warn!(
                    plugin = name,
                    "it was to be upgraded, which failed, and cannot be enabled again: {again}"
                );
            }
            Err(error)
        }
        done => done,
    }
}

/// Removes a plugin that no task needs, if it is still the one that was installed for one.
///
/// # Errors
/// The engine's.
pub(crate) async fn remove(context: &dyn engine::Engine, name: &str, owned: &OwnedPlugin) -> Result<(), EngineError> {
    match context.plugin(name).await? {
        Some(plugin) if owned.may_be(Some(&plugin)) => {
            tracing::info!(plugin = name, "no task needs this plugin any more: it is removed");
            context.plugin_remove(name).await
        }
        _ => Ok(()),
    }
}

/// Without a worker there is nothing left to do but to be dropped with the agent.
async fn never_when(orphaned: bool) {
    if orphaned {
        std::future::pending::<()>().await;
    }
}
