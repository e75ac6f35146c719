//! Names, times and numbers as people say them.

use super::count_equal;
use crate::words::several;
use model::{NodeId, Task, TaskId};
use std::time::Duration;
use store::Snapshot;

/// What nodes and tasks are called.
pub(super) struct Names<'a>(pub(super) &'a Snapshot);

/// Characters of an id that stand for it where there is no name.
const SHORT_ID: usize = 12;

// === impl Names ===

impl Names<'_> {
    /// The host name, or the beginning of its id.
    pub(super) fn node(&self, id: &NodeId) -> String {
        let described = self.0.node(id).and_then(|n| n.description.as_ref());
        let name = described.map(|d| d.hostname.clone()).filter(|n| !n.is_empty());
        name.unwrap_or_else(|| id.as_str()[..SHORT_ID].to_owned())
    }

    /// `web.3`, `agent.node2`.
    pub(super) fn task(&self, task: &Task) -> String {
        match &task.for_node {
            Some(node) => format!("{}.{}", task.service_name, self.node(node)),
            None => format!("{}.{}", task.service_name, task.slot),
        }
    }

    /// `web.3 (8k2hd…)`: two tasks of a slot have one name.
    pub(super) fn exactly(&self, task: &Task) -> String {
        format!("{} ({})", self.task(task), short(&task.id))
    }
}

fn short(id: &TaskId) -> &str {
    &id.as_str()[..SHORT_ID]
}

/// Nodes with equal reasons together: `a, b: paused; c: drained`. Of many, so many are named.
pub(super) fn by_reason(nodes: Vec<(String, String)>, named_max: usize) -> String {
    let reasons = count_equal(nodes.iter().map(|(_, reason)| reason.clone()));
    let said = reasons.into_iter().map(|(reason, count)| {
        let names: Vec<&str> = nodes.iter().filter(|(_, r)| *r == reason).map(|(n, _)| n.as_str()).collect();
        let named = names.iter().take(named_max).copied().collect::<Vec<_>>().join(", ");
        match count.saturating_sub(named_max) {
            0 => format!("{named}: {reason}"),
            more => format!("{named} and {more} more: {reason}"),
        }
    });
    let mut said: Vec<String> = said.collect();
    let more = said.len().saturating_sub(named_max);
    said.truncate(named_max);
    let rest =
        if more == 0 { String::new() } else { format!("; and {}", several(more, "other reason", "other reasons")) };
    format!("{}{rest}", said.join("; "))
}

/// `350 ms`, `4 s`, `12 min`, `23 h`; what is left of a second counts as one.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    match seconds {
        0 | 1 if time < Duration::from_secs(1) => format!("{} ms", time.as_millis()),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

/// `1st`, `2nd`, `11th`.
pub(super) fn ordinal(n: u32) -> String {
    let ending = match (n % 100, n % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_as_people_say_them() {
        for (millis, text) in [
            (0, "0 ms"),
            (350, "350 ms"),
            (1000, "1 s"),
            (3001, "4 s"),
            (119_000, "119 s"),
            (120_000, "2 min"),
            (121_000, "3 min"),
            (7_200_000, "2 h"),
            (86_399_000, "24 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        let said: Vec<String> = [1, 2, 3, 4, 11, 12, 21, 103, 111].into_iter().map(ordinal).collect();
        assert_eq!(said, ["1st", "2nd", "3rd", "4th", "11th", "12th", "21st", "103rd", "111th"]);
    }

    #[test]
    fn nodes_with_equal_reasons_stand_together() {
        let nodes = |all: &[(&str, &str)]| all.iter().map(|(n, r)| ((*n).to_owned(), (*r).to_owned())).collect();
        assert_eq!(
            by_reason(nodes(&[("a", "paused"), ("b", "drained"), ("c", "paused")]), 5),
            "a, c: paused; b: drained"
        );
        assert_eq!(by_reason(nodes(&[("a", "down"), ("b", "down"), ("c", "down")]), 2), "a, b and 1 more: down");
        assert_eq!(by_reason(nodes(&[("a", "x"), ("b", "y"), ("c", "z")]), 1), "a: x; and 2 other reasons");
    }
}
