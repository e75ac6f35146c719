//! What tasks ask of a node, what those before them still hold, and how the tasks of a service lie.

use model::{
    GenericRequest, GenericResource, Holding, HostPort, MountKind, NodeId, Placement, PortConfig, Resources, Task,
    TaskSpec, TaskState, Timestamp, limits,
};
use std::collections::BTreeMap;

/// What each of several equal tasks asks of a node.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub(super) reserved: Resources,
    pub(super) generic: &'a [GenericRequest],
    pub(super) placement: Option<&'a Placement>,
    /// Plugins that it needs.
    pub(super) volume_drivers: Vec<&'a str>,
    pub(super) log_driver: Option<&'a str>,
    pub(super) ports: Vec<HostPort>,
}

/// How the tasks of one service lie, for ranking.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    /// Its active tasks on each node.
    tasks: BTreeMap<NodeId, usize>,
    /// Recent failures of its present version on each node.
    failures: BTreeMap<NodeId, usize>,
}

/// What the tasks of one slot that are being stopped still hold of one node.
#[derive(Debug, Clone)]
pub struct Held {
    /// Where.
    pub node: NodeId,
    pub(super) holding: Holding,
}

// === impl Request ===

impl<'a> Request<'a> {
    /// What tasks of this spec with these host-mode ports ask.
    pub fn new(spec: &'a TaskSpec, host_ports: &'a [PortConfig]) -> Self {
        // A plugin needs no other: neither does it mount volumes of a driver, nor is there output of its own.
        let container = spec.container();
        let mounts = container.iter().flat_map(|c| &c.mounts).filter(|m| m.kind == MountKind::Volume);
        // Every engine has local volumes, without a plugin.
        let drivers = mounts.map(|m| m.volume_driver.as_str()).filter(|d| !d.is_empty() && *d != "local");
        let log_driver = container.and(spec.log_driver.as_ref()).map(|d| d.name.as_str());
        let reserved = spec.reservations();
        Request {
            reserved: Resources { nano_cpus: reserved.nano_cpus.max(0), memory_bytes: reserved.memory_bytes.max(0) },
            generic: spec.resources.as_ref().map_or(&[][..], |r| &r.generic),
            placement: spec.placement.as_ref(),
            volume_drivers: drivers.collect(),
            // `none` is no driver, and without a name it is the engine's default with other options.
            log_driver: log_driver.filter(|d| !d.is_empty() && *d != "none"),
            ports: host_ports.iter().filter_map(PortConfig::fixed).collect(),
        }
    }

    /// At most so many tasks of the service on a node; `None` for any number.
    pub(super) fn max_replicas(&self) -> Option<usize> {
        let max = self.placement.map_or(0, |p| p.max_replicas);
        (max > 0).then(|| usize::try_from(max).unwrap_or(usize::MAX))
    }

    /// What one such task holds of its node when it is given these generic resources.
    pub(super) fn holding(&self, generic: &[GenericResource]) -> Holding {
        let mut holding = Holding {
            active: 1,
            resources: self.reserved,
            ports: self.ports.iter().copied().collect(),
            ..Holding::default()
        };
        for resource in generic {
            match resource {
                GenericResource::Named { kind, value } => _ = holding.named.insert((kind.clone(), value.clone())),
                GenericResource::Discrete { kind, amount } => {
                    *holding.discrete.entry(kind.clone()).or_default() += (*amount).max(0);
                }
            }
        }
        holding
    }
}

// === impl Held ===

impl Held {
    /// What these tasks of one slot hold, for each node on which they hold something.
    pub fn by<'a>(stopping: impl IntoIterator<Item = &'a Task>) -> Vec<Held> {
        let mut nodes: BTreeMap<&NodeId, Vec<&Task>> = BTreeMap::new();
        for task in stopping.into_iter().filter(|t| t.holds_its_node()) {
            task.node_id.iter().for_each(|node| nodes.entry(node).or_default().push(task));
        }
        nodes.into_iter().map(|(node, tasks)| Held { node: node.clone(), holding: Holding::of(tasks) }).collect()
    }
}

// === impl Spread ===

impl Spread {
    /// How these tasks of one service lie; failures count when they are of this version, and of the last five minutes.
    pub fn of<'a>(tasks: impl IntoIterator<Item = &'a Task>, spec_version: u64, now: Timestamp) -> Spread {
        let mut spread = Spread::default();
        for task in tasks {
            let Some(node) = &task.node_id else { continue };
            let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
            if task.is_active() {
                *count(&mut spread.tasks, node) += 1;
            } else if failed
                && task.spec_version == spec_version
                && now.since(task.status.at) < limits::NODE_FAILURE_WINDOW
            {
                *count(&mut spread.failures, node) += 1;
            }
        }
        spread
    }

    /// The service's active tasks on the node.
    pub fn tasks_on(&self, node: &NodeId) -> usize {
        self.tasks.get(node).copied().unwrap_or(0)
    }

    /// The nodes on which it has tasks, and how many.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (&NodeId, usize)> {
        self.tasks.iter().map(|(id, n)| (id, *n))
    }

    /// Recent failures on the node, once they are many.
    pub(super) fn many_failures_on(&self, node: &NodeId) -> usize {
        self.failures.get(node).copied().filter(|f| are_many(*f)).unwrap_or(0)
    }

    /// The nodes with many recent failures, and how many.
    pub(super) fn many_failures(&self) -> impl Iterator<Item = (&NodeId, usize)> {
        self.failures.iter().map(|(id, n)| (id, *n)).filter(|(_, n)| are_many(*n))
    }

    pub(super) fn add(&mut self, node: &NodeId) {
        *count(&mut self.tasks, node) += 1;
    }
}

fn are_many(failures: usize) -> bool {
    failures >= limits::NODE_FAILURES_MAX
}

/// Without a copy of the id when it is there already, which it mostly is.
fn count<'m>(counts: &'m mut BTreeMap<NodeId, usize>, node: &NodeId) -> &'m mut usize {
    if !counts.contains_key(node) {
        counts.insert(node.clone(), 0);
    }
    counts.get_mut(node).expect("it was just inserted")
}
