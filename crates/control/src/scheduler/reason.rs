//! Why each node was turned away, with the numbers.

use super::filter::{free_generic, missing_plugins, needs};
use super::request::{Held, Request, Spread};
use super::view::NodeView;
use super::{ClusterView, Filter};
use crate::words::several;
use model::{Availability, Constraint, Node, NodeId, NodeState, Platform, Protocol};

/// A node that cannot take a task, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The node.
    pub node: NodeId,
    /// Its host name; empty when it has not said it.
    pub hostname: String,
    /// The first filter that turned it away.
    pub filter: Filter,
    /// Why, for people: `512 MiB short of 1 GiB`.
    pub reason: String,
}

// === impl ClusterView ===

impl ClusterView {
    /// The nodes that cannot take the task, by id; of one that is for a node, that node alone. `old` is what its
    /// predecessors still hold, and leave to it.
    pub fn rejections(
        &mut self,
        request: &Request<'_>,
        spread: &Spread,
        only: Option<&NodeId>,
        old: &[Held],
    ) -> Vec<Rejection> {
        old.iter().for_each(|h| self.release(h));
        let asked = (0..self.nodes().len()).filter(|i| only.is_none_or(|id| self.nodes()[*i].node.id == *id));
        let rejected = asked.filter_map(|i| {
            let view = &self.nodes()[i];
            let filter = self.obstacle_for_successor(i, request, spread, old)?;
            let held = old.iter().find(|h| h.node == view.node.id);
            let hostname = view.node.description.as_ref().map(|d| d.hostname.clone()).unwrap_or_default();
            let reason = reason(filter, view, request, spread, held);
            Some(Rejection { node: view.node.id.clone(), hostname, filter, reason })
        });
        let rejected = rejected.collect();
        old.iter().for_each(|h| self.hold(h));
        rejected
    }
}

fn reason(filter: Filter, view: &NodeView, request: &Request<'_>, spread: &Spread, held: Option<&Held>) -> String {
    let node = &view.node;
    match filter {
        Filter::Ready => unavailable(node),
        Filter::Resources => short_of(view, request, held),
        Filter::Plugins => {
            let missing: Vec<String> = missing_plugins(node, request)
                .map(|(kind, name)| format!("{} driver {name} missing", kind.to_lowercase()))
                .collect();
            missing.join(", ")
        }
        Filter::Constraints => {
            let unmet: Vec<String> =
                request.placement.into_iter().flat_map(|p| p.unmet(node)).map(|c| unmet(c, node)).collect();
            unmet.join(", ")
        }
        Filter::Platform => {
            let platforms = request.placement.map_or(&[][..], |p| &p.platforms);
            let wanted: Vec<String> = platforms.iter().map(platform).collect();
            let has = node.description.as_ref().map_or_else(|| "unknown".into(), |d| platform(&d.platform));
            format!("platform {has}, the image exists for {}", wanted.join(", "))
        }
        Filter::HostPorts => {
            let taken = request.ports.iter().filter(|p| view.usage.has_port(p));
            let taken: Vec<String> = taken.map(|(protocol, port)| format!("{port}/{}", word(*protocol))).collect();
            format!("port {} in use", taken.join(", "))
        }
        Filter::MaxReplicas => {
            let max = request.max_replicas().unwrap_or(0);
            format!("runs {} of at most {}", spread.tasks_on(&node.id), several(max, "replica", "replicas"))
        }
    }
}

/// Why a node takes no tasks.
pub(crate) fn unavailable(node: &Node) -> String {
    let because = if node.status.message.is_empty() { String::new() } else { format!(" ({})", node.status.message) };
    match (node.status.state, node.spec.availability) {
        (NodeState::Ready, Availability::Pause) => "paused".into(),
        (NodeState::Ready, _) => "drained".into(),
        (NodeState::Down, _) => format!("down{because}"),
        (NodeState::Disconnected, _) => "has left".into(),
        (NodeState::Unknown, _) => format!("not heard of yet{because}"),
    }
}

fn short_of(view: &NodeView, request: &Request<'_>, held: Option<&Held>) -> String {
    let (free, needs) = (view.free(), needs(request, held));
    let mut short = Vec::new();
    if needs.nano_cpus > free.nano_cpus && needs.nano_cpus > 0 {
        let lacks = needs.nano_cpus.saturating_sub(free.nano_cpus.max(0));
        short.push(format!("{} short of {}", cpus(lacks), cpus(needs.nano_cpus)));
    }
    if needs.memory_bytes > free.memory_bytes && needs.memory_bytes > 0 {
        let lacks = needs.memory_bytes.saturating_sub(free.memory_bytes.max(0));
        short.push(format!("{} short of {}", bytes(lacks), bytes(needs.memory_bytes)));
    }
    for asked in request.generic {
        let free = free_generic(view, &asked.kind).max(0);
        if asked.amount > free {
            short.push(format!("{} short of {} {}", asked.amount - free, asked.amount, asked.kind));
        }
    }
    short.join(", ")
}

/// What a constraint asks, and what the node has.
pub(crate) fn unmet(constraint: &Constraint, node: &Node) -> String {
    let (key, value) = (constraint.key(), constraint.value());
    let label = key.to_ascii_lowercase();
    let label = label.strip_prefix("node.labels.").or(label.strip_prefix("engine.labels.")).map(str::len);
    let name = match label.map(|len| &key[key.len() - len..]) {
        Some(label) if key.len() > label.len() && key.starts_with(['e', 'E']) => format!("engine label {label}"),
        Some(label) => format!("label {label}"),
        None => key.to_owned(),
    };
    match (constraint.found_on(node), constraint.is_equal()) {
        (None, _) => format!("nothing is known as {key}"),
        (Some(""), true) if label.is_some() => format!("{name}={value} missing"),
        (Some(""), true) => format!("{name} is not known, and not {value}"),
        (Some(found), true) => format!("{name} is {found}, not {value}"),
        (Some(found), false) => format!("{name} is {found}"),
    }
}

fn platform(platform: &Platform) -> String {
    match (platform.os.as_str(), platform.architecture.as_str()) {
        ("", "") => "any".into(),
        ("", arch) => arch.into(),
        (os, "") => os.into(),
        (os, arch) => format!("{os}/{arch}"),
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// `0.5 CPU`, `2 CPUs`; at most three digits after the point, rounded up, so that nothing is short of nothing.
fn cpus(nano: i64) -> String {
    let thousandths = nano.saturating_add(999_999) / 1_000_000;
    let unit = if thousandths > 1000 { "CPUs" } else { "CPU" };
    format!("{} {unit}", decimal(thousandths))
}

/// `512 MiB`, `1.5 GiB`.
fn bytes(n: i64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let power = (n.max(1).ilog2() / 10).min(5);
    let unit = 1_i64 << (10 * power);
    let thousandths = (i128::from(n) * 1000 + i128::from(unit) - 1) / i128::from(unit);
    format!("{} {}", decimal(i64::try_from(thousandths).unwrap_or(i64::MAX)), units[power as usize])
}

fn decimal(thousandths: i64) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_readable() {
        for (n, text) in [(512 << 20, "512 MiB"), (3 << 29, "1.5 GiB"), (1, "1 B"), (1025, "1.001 KiB"), (0, "0 B")] {
            assert_eq!(bytes(n), text);
        }
        for (n, text) in [
            (500_000_000, "0.5 CPU"),
            (1_000_000_000, "1 CPU"),
            (2_000_000_000, "2 CPUs"),
            (1, "0.001 CPU"),
            (1_250_000_000, "1.25 CPUs"),
        ] {
            assert_eq!(cpus(n), text);
        }
    }
}
