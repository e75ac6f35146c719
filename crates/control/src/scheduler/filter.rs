//! The filters: whether a node can take a task (SwarmKit manager/scheduler/filter.go, in the order of its pipeline).

use super::request::{Request, Spread};
use super::view::NodeView;
use super::{Filter, Held};
use model::{GenericRequest, GenericResource, Node, Resources};

/// The first filter that turns the node away. `held` is what the task's predecessors on the node leave to it, if it has any
/// there; it was taken out of the view.
pub(super) fn first_obstacle(
    node: &NodeView,
    request: &Request<'_>,
    spread: &Spread,
    held: Option<&Held>,
) -> Option<Filter> {
    let placement = request.placement;
    if !node.available {
        Some(Filter::Ready)
    } else if !has_room(node, request, held) {
        Some(Filter::Resources)
    } else if missing_plugins(&node.node, request).next().is_some() {
        Some(Filter::Plugins)
    } else if placement.is_some_and(|p| !p.is_met_by(&node.node)) {
        Some(Filter::Constraints)
    } else if placement.is_some_and(|p| !p.allows_platform_of(&node.node)) {
        Some(Filter::Platform)
    } else if request.ports.iter().any(|p| node.usage.has_port(p)) {
        Some(Filter::HostPorts)
    } else if request.max_replicas().is_some_and(|max| spread.tasks_on(&node.node.id) >= max) {
        Some(Filter::MaxReplicas)
    } else {
        None
    }
}

/// A task that reserves nothing fits a node that has nothing left.
fn has_room(node: &NodeView, request: &Request<'_>, held: Option<&Held>) -> bool {
    let (free, needs) = (node.free(), needs(request, held));
    (needs.nano_cpus <= 0 || needs.nano_cpus <= free.nano_cpus)
        && (needs.memory_bytes <= 0 || needs.memory_bytes <= free.memory_bytes)
        && request.generic.iter().all(|asked| asked.amount <= 0 || free_generic(node, &asked.kind) >= asked.amount)
}

/// What the task needs on this node: nothing that it does not ask for, and no less than is held until it starts.
pub(super) fn needs(request: &Request<'_>, held: Option<&Held>) -> Resources {
    let held = held.map(|h| h.holding.resources).unwrap_or_default();
    let needed = |asks: i64, held: i64| if asks > 0 { asks.max(held) } else { 0 };
    Resources {
        nano_cpus: needed(request.reserved.nano_cpus, held.nano_cpus),
        memory_bytes: needed(request.reserved.memory_bytes, held.memory_bytes),
    }
}

/// How many of this kind of generic resource are free. What a node says of a kind first decides whether they are counted or
/// have names.
pub(super) fn free_generic(node: &NodeView, kind: &str) -> i64 {
    let has = node.node.description.as_ref().map_or(&[][..], |d| &d.generic);
    let mut of_kind = has.iter().filter(|g| g.kind() == kind).peekable();
    match of_kind.peek() {
        None => 0,
        Some(GenericResource::Discrete { amount, .. }) => amount.saturating_sub(node.usage.discrete(kind)),
        Some(GenericResource::Named { .. }) => {
            let free = of_kind.filter(|g| is_free_name(node, g)).count();
            i64::try_from(free).unwrap_or(i64::MAX)
        }
    }
}

fn is_free_name(node: &NodeView, resource: &GenericResource) -> bool {
    matches!(resource, GenericResource::Named { kind, value } if !node.usage.has_named(kind, value))
}

/// The generic resources that a task is given on a node that fits it: the first free names, in the order in which the node
/// has them.
pub(super) fn claim(node: &NodeView, asked: &[GenericRequest]) -> Vec<GenericResource> {
    let has = node.node.description.as_ref().map_or(&[][..], |d| &d.generic);
    let mut given = Vec::new();
    for GenericRequest { kind, amount } in asked.iter().filter(|a| a.amount > 0) {
        let mut of_kind = has.iter().filter(|g| g.kind() == kind).peekable();
        match of_kind.peek() {
            None => {}
            Some(GenericResource::Discrete { .. }) => {
                given.push(GenericResource::Discrete { kind: kind.clone(), amount: *amount });
            }
            Some(GenericResource::Named { .. }) => {
                let count = usize::try_from(*amount).unwrap_or(usize::MAX);
                given.extend(of_kind.filter(|g| is_free_name(node, g)).take(count).cloned());
            }
        }
    }
    given
}

/// Plugins that the task needs and the node does not have, as (type, name).
pub(super) fn missing_plugins<'a>(
    node: &'a Node,
    request: &'a Request<'_>,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    // A node that has not described itself is not asked.
    let plugins = node.description.as_ref().map(|d| &d.engine.plugins);
    let has = move |kind: &str, name: &str| {
        plugins
            .is_none_or(|p| p.iter().any(|(k, n)| k == kind && (n == name || n.strip_suffix(":latest") == Some(name))))
    };
    // An engine that names no log driver at all is one that does not say.
    let says_logs = plugins.is_some_and(|p| p.iter().any(|(kind, _)| kind == "Log"));
    let volumes = request.volume_drivers.iter().map(|d| ("Volume", *d));
    let logs = request.log_driver.into_iter().filter(move |_| says_logs).map(|d| ("Log", d));
    volumes.chain(logs).filter(move |(kind, name)| !has(kind, name))
}
