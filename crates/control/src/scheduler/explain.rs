//! Why a task found no node, in SwarmKit's words (manager/scheduler/filter.go, `Explain`).

use crate::words::several;

/// The filters, in the order in which they are asked; each node counts for the first that turns it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// Ready, and its availability active.
    Ready,
    /// Enough CPU, memory and generic resources that are not reserved.
    Resources,
    /// The volume drivers and the log driver that are asked for.
    Plugins,
    /// What the constraints ask.
    Constraints,
    /// A platform that the image exists for.
    Platform,
    /// Host-mode ports that are free.
    HostPorts,
    /// Not as many tasks of the service as it may have on a node.
    MaxReplicas,
}

// === impl Filter ===

impl Filter {
    /// All of them, in order.
    pub const ALL: [Filter; 7] = [
        Filter::Ready,
        Filter::Resources,
        Filter::Plugins,
        Filter::Constraints,
        Filter::Platform,
        Filter::HostPorts,
        Filter::MaxReplicas,
    ];

    /// A word for it, as people and programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Filter::Ready => "ready",
            Filter::Resources => "resources",
            Filter::Plugins => "plugins",
            Filter::Constraints => "constraints",
            Filter::Platform => "platform",
            Filter::HostPorts => "host-ports",
            Filter::MaxReplicas => "max-replicas",
        }
    }

    fn words(self, nodes: usize) -> String {
        let n = several(nodes, "node", "nodes");
        match self {
            Filter::Ready => format!("{n} not available for new tasks"),
            Filter::Resources => format!("insufficient resources on {n}"),
            Filter::Plugins => format!("missing plugin on {n}"),
            Filter::Constraints => format!("scheduling constraints not satisfied on {n}"),
            Filter::Platform => format!("unsupported platform on {n}"),
            Filter::HostPorts => format!("host-mode port already in use on {n}"),
            Filter::MaxReplicas => "max replicas per node limit exceed".into(),
        }
    }
}

/// The task's error, from the filter that turned each node away. The commonest reason comes first.
pub fn explain(obstacles: impl Iterator<Item = Filter>) -> String {
    let reasons = reasons(obstacles);
    if reasons.is_empty() { "no suitable node".into() } else { format!("no suitable node ({reasons})") }
}

/// The reasons alone: all that SwarmKit says of a task that is for one node.
pub(super) fn reasons(obstacles: impl Iterator<Item = Filter>) -> String {
    let mut counts = Filter::ALL.map(|f| (0_usize, f));
    for obstacle in obstacles {
        counts[obstacle as usize].0 += 1;
    }
    counts.sort_by_key(|(n, f)| (std::cmp::Reverse(*n), *f));
    let reasons: Vec<String> = counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, f)| f.words(n)).collect();
    reasons.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_swarmkits() {
        use Filter::{Constraints, HostPorts, MaxReplicas, Platform, Plugins, Ready, Resources};
        for (obstacles, words) in [
            (vec![], "no suitable node"),
            (vec![Ready], "no suitable node (1 node not available for new tasks)"),
            (vec![Resources, Resources], "no suitable node (insufficient resources on 2 nodes)"),
            (
                vec![Ready, Resources, Resources],
                "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)",
            ),
            (
                vec![Platform, HostPorts, HostPorts],
                "no suitable node (host-mode port already in use on 2 nodes; unsupported platform on 1 node)",
            ),
            (
                vec![MaxReplicas, MaxReplicas, Constraints],
                "no suitable node (max replicas per node limit exceed; scheduling constraints not satisfied on 1 node)",
            ),
            (
                vec![Plugins, Constraints, Plugins, Constraints],
                "no suitable node (missing plugin on 2 nodes; scheduling constraints not satisfied on 2 nodes)",
            ),
        ] {
            assert_eq!(explain(obstacles.into_iter()), words);
        }
        assert_eq!(reasons([Constraints].into_iter()), "scheduling constraints not satisfied on 1 node");
        assert!(Filter::ALL.into_iter().enumerate().all(|(i, f)| f as usize == i), "they are counted by their number");
    }
}
