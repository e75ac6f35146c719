//! What the scheduler knows of the nodes.

use super::Filter;
use model::{
    Availability, Node, NodeId, NodeState, Platform, PortConfig, Protocol, Resources, ServiceId, Task, TaskSpec,
    TaskState, Timestamp, limits,
};
use std::collections::{BTreeMap, BTreeSet};
use store::Snapshot;

/// The nodes, and what tasks hold of each. Kept up to date with what is placed.
#[derive(Debug, Clone)]
pub struct ClusterView {
    nodes: Vec<NodeView>,
    by_id: BTreeMap<NodeId, usize>,
}

#[derive(Debug, Clone)]
struct NodeView {
    id: NodeId,
    available: bool,
    platform: Option<Platform>,
    free: Resources,
    ports: BTreeSet<(Protocol, u16)>,
    /// Tasks that are wanted and not over.
    active: usize,
}

/// What each of several equal tasks asks of a node.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub(super) reserved: Resources,
    platforms: &'a [Platform],
    ports: &'a [PortConfig],
}

/// How the tasks of one service lie, for ranking.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    /// Its active tasks on each node.
    tasks: BTreeMap<NodeId, usize>,
    /// Recent failures of its present version on each node.
    failures: BTreeMap<NodeId, usize>,
}

/// What the tasks of one slot that are being stopped still hold of one node. They run one after another, so it is the
/// most that any of them holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// Where.
    pub node: NodeId,
    reserved: Resources,
    ports: BTreeSet<(Protocol, u16)>,
}

/// Less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Recent failures, once they are many. (SwarmKit compares them as soon as one of two nodes has many; that is the same
    /// order among nodes with many, and puts all others before them.)
    failures: usize,
    of_service: usize,
    active: usize,
    pub(super) node: usize,
}

// === impl Request ===

impl<'a> Request<'a> {
    /// What tasks of this spec with these host-mode ports ask.
    pub fn new(spec: &'a TaskSpec, host_ports: &'a [PortConfig]) -> Self {
        let platforms = spec.placement.as_ref().map_or(&[][..], |p| &p.platforms);
        Request { reserved: spec.reservations(), platforms, ports: host_ports }
    }

    /// The same request with another reservation.
    pub(super) fn reserving(&self, reserved: Resources) -> Self {
        Request { reserved, ..*self }
    }

    fn fixed_ports(&self) -> impl Iterator<Item = (Protocol, u16)> {
        fixed_ports(self.ports)
    }
}

/// Ports that were asked for by number; with 0 the engine finds a free one.
fn fixed_ports(ports: &[PortConfig]) -> impl Iterator<Item = (Protocol, u16)> {
    ports.iter().filter(|p| p.published_port != 0).map(|p| (p.protocol, p.published_port))
}

// === impl Held ===

impl Held {
    /// What these tasks of one slot hold, for each node on which they hold something.
    pub fn by<'a>(stopping: impl IntoIterator<Item = &'a Task>) -> Vec<Held> {
        let mut nodes: BTreeMap<&NodeId, Held> = BTreeMap::new();
        for task in stopping.into_iter().filter(|t| !t.status.state.is_terminal()) {
            let Some(node) = &task.node_id else { continue };
            let new = || Held { node: node.clone(), reserved: Resources::default(), ports: BTreeSet::new() };
            let held = nodes.entry(node).or_insert_with(new);
            held.reserved = most(held.reserved, task.spec.reservations());
            held.ports.extend(fixed_ports(&task.host_ports));
        }
        nodes.into_values().collect()
    }

    /// What a successor needs on this node: nothing that it does not ask for, and no less than is held until it starts.
    pub(super) fn needed_by(&self, request: Resources) -> Resources {
        let needed = |asks: i64, held: i64| if asks > 0 { asks.max(held) } else { 0 };
        Resources {
            nano_cpus: needed(request.nano_cpus, self.reserved.nano_cpus),
            memory_bytes: needed(request.memory_bytes, self.reserved.memory_bytes),
        }
    }
}

fn most(a: Resources, b: Resources) -> Resources {
    Resources { nano_cpus: a.nano_cpus.max(b.nano_cpus), memory_bytes: a.memory_bytes.max(b.memory_bytes) }
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
                *spread.tasks.entry(node.clone()).or_default() += 1;
            } else if failed
                && task.spec_version == spec_version
                && now.since(task.status.at) < limits::NODE_FAILURE_WINDOW
            {
                *spread.failures.entry(node.clone()).or_default() += 1;
            }
        }
        spread
    }
}

// === impl ClusterView ===

impl ClusterView {
    /// The nodes as they are in the snapshot.
    pub fn new(snapshot: &Snapshot) -> ClusterView {
        let nodes: Vec<NodeView> = snapshot.nodes().map(|n| NodeView::new(snapshot, n)).collect();
        let by_id = nodes.iter().enumerate().map(|(i, n)| (n.id.clone(), i)).collect();
        ClusterView { nodes, by_id }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn id(&self, node: usize) -> &NodeId {
        &self.nodes[node].id
    }

    /// The first filter that turns the node away.
    pub(super) fn first_obstacle(&self, node: usize, request: &Request<'_>) -> Option<Filter> {
        let node = &self.nodes[node];
        if !node.available {
            Some(Filter::Ready)
        } else if !node.has_room(request.reserved) {
            Some(Filter::Resources)
        } else if !node.suits(request.platforms) {
            Some(Filter::Platform)
        } else if request.fixed_ports().any(|p| node.ports.contains(&p)) {
            Some(Filter::HostPorts)
        } else {
            None
        }
    }

    pub(super) fn rank(&self, node: usize, spread: &Spread) -> Rank {
        let view = &self.nodes[node];
        let failures = spread.failures.get(&view.id).copied().filter(|f| *f >= limits::NODE_FAILURES_MAX);
        let of_service = spread.tasks.get(&view.id).copied().unwrap_or(0);
        Rank { failures: failures.unwrap_or(0), of_service, active: view.active, node }
    }

    pub(super) fn take(&mut self, node: usize, request: &Request<'_>, spread: &mut Spread) {
        let view = &mut self.nodes[node];
        view.reserve(request.reserved);
        view.ports.extend(request.fixed_ports());
        view.active += 1;
        *spread.tasks.entry(view.id.clone()).or_default() += 1;
    }

    pub(super) fn release(&mut self, held: &Held) {
        if let Some(view) = self.by_id.get(&held.node).and_then(|i| self.nodes.get_mut(*i)) {
            view.unreserve(held.reserved);
            view.ports.retain(|p| !held.ports.contains(p));
        }
    }

    /// Holds what is being stopped; on the node that its successor has taken, the two share.
    pub(super) fn hold(&mut self, held: &Held, shared: Resources) {
        if let Some(view) = self.by_id.get(&held.node).and_then(|i| self.nodes.get_mut(*i)) {
            view.share(held, shared);
        }
    }

    /// A task on the node is no longer wanted. What it holds it holds until it is over.
    pub fn relieve(&mut self, node: &NodeId) {
        if let Some(view) = self.by_id.get(node).and_then(|i| self.nodes.get_mut(*i)) {
            view.active = view.active.saturating_sub(1);
        }
    }
}

// === impl NodeView ===

impl NodeView {
    fn new(snapshot: &Snapshot, node: &Node) -> NodeView {
        let mut view = NodeView {
            id: node.id.clone(),
            available: node.status.state == NodeState::Ready && node.spec.availability == Availability::Active,
            platform: node.description.as_ref().map(|d| d.platform.clone()),
            free: node.description.as_ref().map(|d| d.resources).unwrap_or_default(),
            ports: BTreeSet::new(),
            active: 0,
        };
        if !view.available {
            return view; // nothing is placed there, so what it holds does not matter
        }
        let mut stopping: BTreeMap<(&ServiceId, u64), Vec<&Task>> = BTreeMap::new();
        let mut wanted: BTreeMap<(&ServiceId, u64), Resources> = BTreeMap::new();
        let held = || snapshot.tasks_on_node(&node.id).filter(|t| !t.status.state.is_terminal());
        for task in held().filter(|t| !t.is_wanted()) {
            stopping.entry((&task.service_id, task.slot)).or_default().push(task);
        }
        for task in held().filter(|t| t.is_wanted()) {
            view.active += 1;
            view.reserve(task.spec.reservations());
            view.ports.extend(fixed_ports(&task.host_ports));
            // Only where it matters: mostly nothing is being stopped.
            if stopping.contains_key(&(&task.service_id, task.slot)) {
                let sum = wanted.entry((&task.service_id, task.slot)).or_default();
                sum.nano_cpus = sum.nano_cpus.saturating_add(task.spec.reservations().nano_cpus);
                sum.memory_bytes = sum.memory_bytes.saturating_add(task.spec.reservations().memory_bytes);
            }
        }
        for (slot, tasks) in stopping {
            let shared = wanted.get(&slot).copied().unwrap_or_default();
            Held::by(tasks).iter().for_each(|h| view.share(h, shared));
        }
        view
    }

    /// Holds what is being stopped, beyond what its successor on the same node holds anyway.
    fn share(&mut self, held: &Held, with: Resources) {
        let rest = |held: i64, with: i64| held.saturating_sub(with.max(0)).max(0);
        self.reserve(Resources {
            nano_cpus: rest(held.reserved.nano_cpus, with.nano_cpus),
            memory_bytes: rest(held.reserved.memory_bytes, with.memory_bytes),
        });
        self.ports.extend(&held.ports);
    }

    fn reserve(&mut self, r: Resources) {
        self.free.nano_cpus = self.free.nano_cpus.saturating_sub(r.nano_cpus);
        self.free.memory_bytes = self.free.memory_bytes.saturating_sub(r.memory_bytes);
    }

    fn unreserve(&mut self, r: Resources) {
        self.free.nano_cpus = self.free.nano_cpus.saturating_add(r.nano_cpus);
        self.free.memory_bytes = self.free.memory_bytes.saturating_add(r.memory_bytes);
    }

    /// A task that reserves nothing fits a node that has nothing left.
    fn has_room(&self, r: Resources) -> bool {
        (r.nano_cpus <= 0 || r.nano_cpus <= self.free.nano_cpus)
            && (r.memory_bytes <= 0 || r.memory_bytes <= self.free.memory_bytes)
    }

    fn suits(&self, platforms: &[Platform]) -> bool {
        platforms.is_empty()
            || self.platform.as_ref().is_some_and(|node| platforms.iter().any(|wanted| is_platform(node, wanted)))
    }
}

/// An empty field of what is wanted allows anything.
fn is_platform(node: &Platform, wanted: &Platform) -> bool {
    let os = wanted.os.is_empty() || wanted.os == node.os;
    let arch = wanted.architecture.is_empty() || arch(&wanted.architecture) == arch(&node.architecture);
    os && arch
}

/// Engines say `x86_64`, image manifests `amd64`.
fn arch(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
