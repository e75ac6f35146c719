//! The lines of the table: what is measured, in which unit, and what is to be reached.

use std::fmt;

/// One line.
#[derive(Debug)]
pub(crate) struct Line {
    /// The row of the specification that it belongs to.
    pub(crate) row: u8,
    /// For programs.
    pub(crate) id: &'static str,
    /// For people.
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) target: Target,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    PerSecond,
    Count,
    /// A multiple of something.
    Times,
    Megabytes,
    /// Of a core.
    Percent,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    AtMost(Unit, f64),
    /// So many times Docker Swarm's figure.
    TimesSwarm(f64),
    /// The figure is for the reader.
    None,
}

const fn line(row: u8, id: &'static str, what: &'static str, unit: Unit, target: Target) -> Line {
    Line { row, id, what, unit, target }
}

const fn at_most(row: u8, id: &'static str, what: &'static str, unit: Unit, limit: f64) -> Line {
    line(row, id, what, unit, Target::AtMost(unit, limit))
}

const fn rate(row: u8, id: &'static str, what: &'static str, times: f64) -> Line {
    line(row, id, what, Unit::PerSecond, Target::TimesSwarm(times))
}

/// All lines, in order.
pub(crate) const LINES: &[Line] = &[
    at_most(1, "killed", "leader killed → next acknowledged write, median", Unit::Seconds, 1.0),
    at_most(1, "killed-worst", "leader killed → next acknowledged write, worst", Unit::Seconds, 2.0),
    at_most(2, "stopped", "leader stopped gracefully → next write, median", Unit::Seconds, 0.2),
    at_most(2, "stopped-worst", "leader stopped gracefully → next write, worst", Unit::Seconds, 0.2),
    at_most(2, "demoted", "leader demoted → next write, median", Unit::Seconds, 0.2),
    at_most(2, "demoted-worst", "leader demoted → next write, worst", Unit::Seconds, 0.2),
    at_most(3, "worker", "worker killed → its replicas running elsewhere, median", Unit::Seconds, 6.0),
    at_most(4, "restarted", "healthy tasks restarted by leader changes", Unit::Count, 0.0),
    at_most(5, "create-3", "service create until running, 3 replicas", Unit::Seconds, 0.5),
    line(5, "create-100", "service create until running, 100 replicas", Unit::Seconds, Target::None),
    line(5, "run-100", "100 parallel `docker run -d` on the same engines", Unit::Seconds, Target::None),
    at_most(5, "create-ratio", "100 replicas against 100 `docker run -d`", Unit::Times, 1.2),
    rate(6, "writes-1", "committed writes, 1 client, leader", 2.0),
    rate(6, "writes-16", "committed writes, 16 clients, leader", 10.0),
    line(6, "writes-1-follower", "committed writes, 1 client, follower", Unit::PerSecond, Target::None),
    line(6, "writes-16-follower", "committed writes, 16 clients, follower", Unit::PerSecond, Target::None),
    rate(7, "reads-1", "GET /services, 100 services, 1 client, leader", 4.0),
    rate(7, "reads-16", "GET /services, 100 services, 16 clients, leader", 4.0),
    rate(7, "reads-1-follower", "GET /services, 100 services, 1 client, follower", 4.0),
    rate(7, "reads-16-follower", "GET /services, 100 services, 16 clients, follower", 4.0),
    at_most(8, "schedule", "schedule 100,000 tasks on 1,000 nodes, in memory", Unit::Seconds, 0.5),
    // A tenfold would be quadratic; the smaller size fits the caches better.
    at_most(8, "schedule-linear", "time a task, of 100,000 against of 10,000", Unit::Times, 2.0),
    at_most(9, "memory", "idle manager, 100 tasks in the cluster: resident memory", Unit::Megabytes, 40.0),
    at_most(9, "cpu", "idle manager, 100 tasks in the cluster: CPU", Unit::Percent, 0.5),
    at_most(10, "binary", "release binary (dockerd alone)", Unit::Megabytes, 30.0),
    at_most(11, "sealed-writes-1", "writes a second, 1 client: unsealed against sealed", Unit::Times, 1.1),
    at_most(11, "sealed-writes-16", "writes a second, 16 clients: unsealed against sealed", Unit::Times, 1.1),
    at_most(11, "sealed-killed", "leader killed → next write, median: sealed against unsealed", Unit::Times, 1.1),
    line(
        12,
        "update",
        "rolling update, 10 replicas, parallelism 2, monitor 1 s",
        Unit::Seconds,
        Target::TimesSwarm(1.0),
    ),
    at_most(12, "update-missing", "replicas missing in it at the worst moment", Unit::Count, 2.0),
    line(13, "scale", "scale 10 → 60 until running", Unit::Seconds, Target::None),
    line(13, "run-50", "50 parallel `docker run -d` on the same engines", Unit::Seconds, Target::None),
    at_most(13, "scale-ratio", "50 more replicas against 50 `docker run -d`", Unit::Times, 1.2),
    at_most(14, "fleet-lost", "1,000 nodes, 20,000 tasks, 100 nodes lost: replanned", Unit::Seconds, 2.0),
    at_most(14, "fleet-memory", "manager with 1,000 nodes, 100,000 tasks: memory", Unit::Megabytes, 1000.0),
];

// === impl Unit ===

impl Unit {
    /// A figure as people read it.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 0.01 => format!("{:.2} ms", value * 1e3),
            Self::Seconds if value < 1.0 => format!("{:.0} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::PerSecond => format!("{value:.0} /s"),
            Self::Count => format!("{value:.0}"),
            Self::Times => format!("{value:.2} ×"),
            Self::Megabytes => format!("{value:.1} MB"),
            Self::Percent => format!("{value:.2} %"),
        }
    }

    /// As other programs know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::PerSecond => "1/s",
            Self::Count => "1",
            Self::Times => "ratio",
            Self::Megabytes => "MB",
            Self::Percent => "%",
        }
    }

    pub(crate) fn more_is_better(self) -> bool {
        self == Self::PerSecond
    }
}

// === impl Target ===

impl Target {
    /// Whether a figure, so many times as good as Docker Swarm's, reaches it.
    pub(crate) fn reached(self, value: f64, advantage: Option<f64>) -> Option<bool> {
        match self {
            Self::AtMost(_, limit) => Some(value <= limit),
            Self::TimesSwarm(times) => advantage.map(|advantage| advantage >= times),
            Self::None => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(unit, limit) => write!(f, "≤ {}", unit.show(*limit)),
            Self::TimesSwarm(times) => write!(f, "≥ {times} × Swarm's"),
            Self::None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_has_a_line_and_every_line_a_name() {
        let ids: BTreeSet<&str> = LINES.iter().map(|line| line.id).collect();
        assert_eq!(ids.len(), LINES.len());
        let rows: BTreeSet<u8> = LINES.iter().map(|line| line.row).collect();
        assert_eq!(rows.into_iter().collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>());
    }

    #[test]
    fn figures_as_people_read_them() {
        assert_eq!(Unit::Seconds.show(0.1234), "123 ms");
        assert_eq!(Unit::Seconds.show(12.345), "12.35 s");
        assert_eq!(Unit::Seconds.show(0.00123), "1.23 ms");
        assert_eq!(Target::AtMost(Unit::Seconds, 0.2).to_string(), "≤ 200 ms");
    }

    #[test]
    fn reached_or_not() {
        assert_eq!(Target::AtMost(Unit::Seconds, 1.0).reached(1.0, None), Some(true));
        assert_eq!(Target::AtMost(Unit::Count, 0.0).reached(1.0, None), Some(false));
        assert_eq!(Target::TimesSwarm(2.0).reached(100.0, Some(2.1)), Some(true));
        assert_eq!(Target::TimesSwarm(2.0).reached(100.0, None), None);
        assert_eq!(Target::None.reached(1.0, Some(1.0)), None);
    }
}
