//! What tasks hold of their nodes: the arithmetic behind reservations, host-mode ports and generic resources.

use crate::{GenericResource, PortConfig, Protocol, Resources, Task};
use std::collections::{BTreeMap, BTreeSet};

/// A port on a node.
pub type HostPort = (Protocol, u16);

/// What the tasks of one slot hold of one node. Those that are wanted may run side by side, and hold what each of them asks
/// for. Those that are being stopped run before them, one after another, so they hold the most that any of them asks for, and
/// what follows them shares it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holding {
    /// Tasks that are wanted and not over.
    pub active: usize,
    /// CPU and memory.
    pub resources: Resources,
    /// Ports that were asked for by number.
    pub ports: BTreeSet<HostPort>,
    /// Generic resources that have names, as (kind, name).
    pub named: BTreeSet<(String, String)>,
    /// How many of each kind of the other generic resources.
    pub discrete: BTreeMap<String, i64>,
}

/// What all tasks hold of one node: the sum of the [`Holding`]s of its slots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeUsage {
    active: usize,
    nano_cpus: i128,
    memory_bytes: i128,
    /// By how many slots; so for all that follows.
    ports: BTreeMap<HostPort, usize>,
    named: BTreeMap<(String, String), usize>,
    discrete: BTreeMap<String, i128>,
}

// === impl PortConfig ===

impl PortConfig {
    /// The port on the node that was asked for by number; `None` when the engine finds a free one.
    pub fn fixed(&self) -> Option<HostPort> {
        (self.published_port != 0).then_some((self.protocol, self.published_port))
    }
}

// === impl Task ===

impl Task {
    /// True when it has a node and is not over: what it asked for there is not free.
    pub fn holds_its_node(&self) -> bool {
        self.node_id.is_some() && !self.status.state.is_terminal()
    }

    /// True when both hold the same of the same node.
    pub fn holds_as(&self, other: &Task) -> bool {
        match (self.holds_its_node(), other.holds_its_node()) {
            (true, true) => {
                self.node_id == other.node_id
                    && self.is_wanted() == other.is_wanted()
                    && self.spec.reservations() == other.spec.reservations()
                    && self.generic == other.generic
                    && self.host_ports == other.host_ports
            }
            (a, b) => a == b,
        }
    }
}

// === impl Holding ===

impl Holding {
    /// What these tasks of one slot, on one node, hold there. A task that is over holds nothing.
    pub fn of<'a>(tasks: impl IntoIterator<Item = &'a Task>) -> Holding {
        let (mut wanted, mut stopping) = (Holding::default(), Holding::default());
        for task in tasks.into_iter().filter(|t| t.holds_its_node()) {
            let into = if task.is_wanted() { &mut wanted } else { &mut stopping };
            let combine: fn(i64, i64) -> i64 = if task.is_wanted() { i64::saturating_add } else { i64::max };
            into.active += usize::from(task.is_wanted());
            let asks = task.spec.reservations();
            into.resources.nano_cpus = combine(into.resources.nano_cpus, asks.nano_cpus.max(0));
            into.resources.memory_bytes = combine(into.resources.memory_bytes, asks.memory_bytes.max(0));
            into.ports.extend(task.host_ports.iter().filter_map(PortConfig::fixed));
            for resource in &task.generic {
                match resource {
                    GenericResource::Named { kind, value } => {
                        into.named.insert((kind.clone(), value.clone()));
                    }
                    GenericResource::Discrete { kind, amount } if *amount > 0 => {
                        let held = into.discrete.entry(kind.clone()).or_default();
                        *held = combine(*held, *amount);
                    }
                    GenericResource::Discrete { .. } => {}
                }
            }
        }
        wanted.shared_with(stopping)
    }

    /// What is held when what holds `self` begins after what holds `stopping`: the larger of the two, in everything.
    pub fn shared_with(mut self, stopping: Holding) -> Holding {
        self.resources.nano_cpus = self.resources.nano_cpus.max(stopping.resources.nano_cpus);
        self.resources.memory_bytes = self.resources.memory_bytes.max(stopping.resources.memory_bytes);
        self.ports.extend(stopping.ports);
        self.named.extend(stopping.named);
        for (kind, amount) in stopping.discrete {
            let held = self.discrete.entry(kind).or_default();
            *held = (*held).max(amount);
        }
        self
    }
}

// === impl NodeUsage ===

impl NodeUsage {
    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        *self == NodeUsage::default()
    }

    /// Tasks that are wanted and not over.
    pub fn active(&self) -> usize {
        self.active
    }

    /// What is left of a node that has this much; less than nothing when it has shrunk under what it runs.
    pub fn left_of(&self, has: Resources) -> Resources {
        let left = |has: i64, held: i128| {
            let left = i128::from(has) - held;
            i64::try_from(left).unwrap_or(if left < 0 { i64::MIN } else { i64::MAX })
        };
        Resources {
            nano_cpus: left(has.nano_cpus, self.nano_cpus),
            memory_bytes: left(has.memory_bytes, self.memory_bytes),
        }
    }

    /// True when the port is taken.
    pub fn has_port(&self, port: &HostPort) -> bool {
        self.ports.contains_key(port)
    }

    /// True when the generic resource with this name is taken.
    pub fn has_named(&self, kind: &str, name: &str) -> bool {
        !self.named.is_empty() && self.named.contains_key(&(kind.to_owned(), name.to_owned()))
    }

    /// How many of a kind of generic resources without names are taken.
    pub fn discrete(&self, kind: &str) -> i64 {
        self.discrete.get(kind).map_or(0, |n| i64::try_from(*n).unwrap_or(i64::MAX))
    }

    /// A task less is wanted, though it still holds what it holds.
    pub fn relieve(&mut self) {
        self.active = self.active.saturating_sub(1);
    }

    /// Adds what a slot holds.
    pub fn add(&mut self, holding: &Holding) {
        self.active += holding.active;
        self.nano_cpus += i128::from(holding.resources.nano_cpus);
        self.memory_bytes += i128::from(holding.resources.memory_bytes);
        holding.ports.iter().for_each(|p| *self.ports.entry(*p).or_default() += 1);
        holding.named.iter().for_each(|n| *self.named.entry(n.clone()).or_default() += 1);
        for (kind, amount) in &holding.discrete {
            *self.discrete.entry(kind.clone()).or_default() += i128::from(*amount);
        }
    }

    /// Takes back what was added.
    pub fn subtract(&mut self, holding: &Holding) {
        self.active = self.active.saturating_sub(holding.active);
        self.nano_cpus = (self.nano_cpus - i128::from(holding.resources.nano_cpus)).max(0);
        self.memory_bytes = (self.memory_bytes - i128::from(holding.resources.memory_bytes)).max(0);
        holding.ports.iter().for_each(|p| drop_one(&mut self.ports, p));
        holding.named.iter().for_each(|n| drop_one(&mut self.named, n));
        for (kind, amount) in &holding.discrete {
            if let Some(held) = self.discrete.get_mut(kind) {
                *held -= i128::from(*amount);
                if *held <= 0 {
                    self.discrete.remove(kind);
                }
            }
        }
    }
}

fn drop_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
