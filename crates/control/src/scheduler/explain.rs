//! Why a task found no node, in SwarmKit's words (manager/scheduler/filter.go, `Explain`).

/// The filters, in the order in which they are asked; each node counts for the first that turns it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// Ready, and its availability active.
    Ready,
    /// Enough CPU and memory that is not reserved.
    Resources,
    /// A platform that the image exists for.
    Platform,
    /// Host-mode ports that are free.
    HostPorts,
}

// === impl Filter ===

impl Filter {
    const ALL: [Filter; 4] = [Filter::Ready, Filter::Resources, Filter::Platform, Filter::HostPorts];

    fn words(self, nodes: usize) -> String {
        let n = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
        match self {
            Filter::Ready => format!("{n} not available for new tasks"),
            Filter::Resources => format!("insufficient resources on {n}"),
            Filter::Platform => format!("unsupported platform on {n}"),
            Filter::HostPorts => format!("host-mode port already in use on {n}"),
        }
    }
}

/// The task's error, from the filter that turned each node away. The commonest reason comes first.
pub fn explain(obstacles: impl Iterator<Item = Filter>) -> String {
    let mut counts = Filter::ALL.map(|f| (0_usize, f));
    for obstacle in obstacles {
        counts[obstacle as usize].0 += 1;
    }
    counts.sort_by_key(|(n, f)| (std::cmp::Reverse(*n), *f));
    let reasons: Vec<String> = counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, f)| f.words(n)).collect();
    if reasons.is_empty() { "no suitable node".into() } else { format!("no suitable node ({})", reasons.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_swarmkits() {
        use Filter::{HostPorts, Platform, Ready, Resources};
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
        ] {
            assert_eq!(explain(obstacles.into_iter()), words);
        }
    }
}
