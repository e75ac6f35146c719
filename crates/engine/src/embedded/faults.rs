//! Switches with which the simulation makes the embedded engine misbehave.

use super::Inner;
use crate::{EngineError, Health, PluginState};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The calls of the [`Engine`](crate::Engine) trait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `describe`
    Describe,
    /// `pull`
    Pull,
    /// `create`
    Create,
    /// `start`
    Start,
    /// `stop`
    Stop,
    /// `remove`
    Remove,
    /// `inspect`
    Inspect,
    /// `list`
    List,
    /// `events`
    Events,
    /// `logs`
    Logs,
    /// The calls of [`Execs`](crate::Execs)
    Exec,
    /// `plugin`
    PluginLook,
    /// `plugin_install` and `plugin_upgrade`
    PluginPull,
    /// `plugin_set`
    PluginSet,
    /// `plugin_enable`
    PluginEnable,
    /// `plugin_disable`
    PluginDisable,
    /// `plugin_remove`
    PluginRemove,
}

/// Makes an [`EmbeddedEngine`](super::EmbeddedEngine) misbehave. Clones act on the same engine.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<Inner>,
}

/// What the next call suffers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault {
    pub(crate) fail_before: Option<EngineError>,
    pub(crate) hang: bool,
    pub(crate) lose_answer: bool,
    pub(crate) slower: Duration,
}

/// What is to go wrong.
#[derive(Default)]
pub(crate) struct Plan {
    next: BTreeMap<Call, VecDeque<Fault>>,
    slower: BTreeMap<Call, Duration>,
    events_to_lose: u64,
    down: bool,
    /// Rises when the engine stops, so that older event streams end.
    epoch: u64,
    changed: bool,
}

/// Faults queued for one call.
const QUEUE_MAX: usize = 10_000;

// === impl Call ===

impl Call {
    /// All calls that an agent makes by itself for containers; what a user asks for is not among them.
    pub const ALL: [Call; 10] = [
        Call::Describe,
        Call::Pull,
        Call::Create,
        Call::Start,
        Call::Stop,
        Call::Remove,
        Call::Inspect,
        Call::List,
        Call::Events,
        Call::Logs,
    ];

    /// All calls that an agent makes for plugins.
    pub const PLUGINS: [Call; 6] = [
        Call::PluginLook,
        Call::PluginPull,
        Call::PluginSet,
        Call::PluginEnable,
        Call::PluginDisable,
        Call::PluginRemove,
    ];

    pub(crate) fn verb(self) -> &'static str {
        match self {
            Call::Describe => "describe itself",
            Call::Pull => "pull an image",
            Call::Create => "create a container",
            Call::Start => "start a container",
            Call::Stop => "stop a container",
            Call::Remove => "remove a container",
            Call::Inspect => "inspect a container",
            Call::List => "list containers",
            Call::Events => "tell its events",
            Call::Logs => "give a container's output",
            Call::Exec => "run a command in a container",
            Call::PluginLook => "look at a plugin",
            Call::PluginPull => "install a plugin",
            Call::PluginSet => "change a plugin's settings",
            Call::PluginEnable => "enable a plugin",
            Call::PluginDisable => "disable a plugin",
            Call::PluginRemove => "remove a plugin",
        }
    }
}

// === impl Plan ===

impl Plan {
    pub(crate) fn next(&mut self, call: Call) -> Fault {
        let mut fault = self.next.get_mut(&call).and_then(VecDeque::pop_front).unwrap_or_default();
        fault.slower = self.slower.get(&call).copied().unwrap_or_default();
        fault
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn loses_event(&mut self) -> bool {
        let lost = self.events_to_lose > 0;
        self.events_to_lose = self.events_to_lose.saturating_sub(1);
        lost
    }

    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn queue(&mut self, call: Call, times: u32, fault: &Fault) {
        let queue = self.next.entry(call).or_default();
        queue.extend((0..times).map(|_| fault.clone()));
        queue.truncate(QUEUE_MAX);
    }
}

// === impl Faults ===

impl Faults {
    pub(crate) fn new(inner: Arc<Inner>) -> Faults {
        Faults { inner }
    }

    /// The next `times` calls fail with this error and do nothing.
    pub fn fail_next(&self, call: Call, times: u32, error: EngineError) {
        let fault = Fault { fail_before: Some(error), ..Fault::default() };
        self.inner.with(|s, _| s.faults.queue(call, times, &fault));
    }

    /// The next `times` calls do nothing and end with a timeout, after [`CALL_TIMEOUT`](super::CALL_TIMEOUT).
    pub fn hang_next(&self, call: Call, times: u32) {
        self.inner.with(|s, _| s.faults.queue(call, times, &Fault { hang: true, ..Fault::default() }));
    }

    /// The next `times` calls do their work, but the caller is told that they timed out.
    pub fn lose_answer_next(&self, call: Call, times: u32) {
        self.inner.with(|s, _| s.faults.queue(call, times, &Fault { lose_answer: true, ..Fault::default() }));
    }

    /// From now on this call takes so much longer.
    pub fn slow(&self, call: Call, by: Duration) {
        self.inner.with(|s, _| s.faults.slower.insert(call, by));
    }

    /// A container ends with this code; false when no such container (id or name) runs.
    pub fn kill(&self, id_or_name: &str, exit_code: i64) -> bool {
        self.inner.with(|s, now| s.containers.kill(id_or_name, now, exit_code))
    }

    /// A container's health changes; false when there is no such container.
    pub fn set_health(&self, id_or_name: &str, health: Health) -> bool {
        self.inner.with(|s, _| s.containers.set_health(id_or_name, health))
    }

    /// A container vanishes, as when somebody removes it by hand.
    pub fn vanish(&self, id_or_name: &str) {
        self.inner.with(|s, now| s.containers.remove(id_or_name, now));
    }

    /// A plugin is enabled or disabled by hand; false when it was so, or is not there.
    pub fn set_plugin(&self, name: &str, enabled: bool) -> bool {
        self.inner.with(|s, _| s.plugins.set_enabled(name, enabled))
    }

    /// A plugin is removed by hand; false when it was not there.
    pub fn vanish_plugin(&self, name: &str) -> bool {
        self.inner.with(|s, _| s.plugins.remove(name))
    }

    /// A plugin is installed by hand.
    pub fn put_plugin(&self, state: PluginState) {
        self.inner.with(|s, _| s.plugins.put(state));
    }

    /// The next events, so many, are never delivered.
    pub fn lose_events(&self, count: u64) {
        self.inner.with(|s, _| s.faults.events_to_lose = count);
    }

    /// The engine stops answering and its event streams end; its containers go on, or are killed with it.
    pub fn stop_engine(&self, kill_containers: bool) {
        self.inner.with(|s, now| {
            s.faults.down = true;
            s.faults.epoch += 1;
            s.faults.changed = true;
            if kill_containers {
                s.containers.kill_all(now);
            }
        });
    }

    /// Everything that was in the machine's memory is gone, as after a reboot.
    pub fn lose_files(&self) {
        self.inner.files.lose_all();
    }

    /// The engine answers again.
    pub fn start_engine(&self) {
        self.inner.with(|s, _| {
            s.faults.down = false;
            s.faults.changed = true;
        });
    }

    /// Nothing goes wrong any more; a stopped engine answers again.
    pub fn clear(&self) {
        self.inner.with(|s, _| {
            let epoch = s.faults.epoch;
            s.faults = Plan { epoch, changed: true, ..Plan::default() };
        });
    }
}
