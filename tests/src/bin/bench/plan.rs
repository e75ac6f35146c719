//! What is measured, and how often.

use std::collections::BTreeSet;
use swarmlite_tests::Outcome;

/// How the table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Rows of the specification.
    pub(crate) rows: BTreeSet<u8>,
    pub(crate) format: Format,
    /// Fewer rounds.
    pub(crate) quick: bool,
    /// Whether Docker Swarm is measured.
    pub(crate) swarm: bool,
    /// Whether Swarmlite is.
    pub(crate) lite: bool,
}

/// How often one product is measured. Docker Swarm is slow to fail over, so that it gets fewer rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rounds {
    pub(crate) kills: usize,
    pub(crate) stops: usize,
    pub(crate) demotions: usize,
    pub(crate) worker_kills: usize,
    pub(crate) leader_changes: usize,
    pub(crate) creates: usize,
    /// For each rate.
    pub(crate) seconds: u64,
    /// For the idle managers.
    pub(crate) idle_seconds: u64,
}

// === impl Plan ===

impl Plan {
    /// Reads `--rows 1,2 --format json --quick --no-swarm --no-lite`.
    pub(crate) fn parse(args: &[String]) -> Outcome<Self> {
        let mut plan = Self { rows: (1..=14).collect(), format: Format::Table, quick: false, swarm: true, lite: true };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let (name, attached) =
                arg.split_once('=').map_or((arg.as_str(), None), |(name, value)| (name, Some(value)));
            let mut value = || attached.map(String::from).or_else(|| rest.next().cloned()).unwrap_or_default();
            match name {
                "--quick" => plan.quick = true,
                "--no-swarm" => plan.swarm = false,
                "--no-lite" => plan.lite = false,
                "--rows" => plan.rows = rows(&value())?,
                "--format" => {
                    plan.format = match value().as_str() {
                        "table" => Format::Table,
                        "json" => Format::Json,
                        other => return Err(format!("--format takes `table` or `json`, not `{other}`")),
                    }
                }
                _ => return Err(format!("unknown argument `{arg}`")),
            }
        }
        Ok(plan)
    }

    /// Those of these rows that were asked for, in the given order.
    pub(crate) fn of(&self, rows: &[u8]) -> Vec<u8> {
        rows.iter().copied().filter(|row| self.rows.contains(row)).collect()
    }

    pub(crate) fn lite_rounds(&self) -> Rounds {
        if self.quick {
            Rounds {
                kills: 5,
                stops: 3,
                demotions: 2,
                worker_kills: 1,
                leader_changes: 1,
                creates: 1,
                seconds: 2,
                idle_seconds: 8,
            }
        } else {
            Rounds {
                kills: 20,
                stops: 10,
                demotions: 5,
                worker_kills: 5,
                leader_changes: 4,
                creates: 3,
                seconds: 4,
                idle_seconds: 15,
            }
        }
    }

    pub(crate) fn swarm_rounds(&self) -> Rounds {
        if self.quick {
            Rounds { kills: 1, stops: 1, demotions: 1, ..self.lite_rounds() }
        } else {
            Rounds { kills: 5, stops: 4, demotions: 2, worker_kills: 3, leader_changes: 2, ..self.lite_rounds() }
        }
    }
}

fn rows(list: &str) -> Outcome<BTreeSet<u8>> {
    list.split(',')
        .map(|word| match word.trim().parse() {
            Ok(row @ 1..=14) => Ok(row),
            _ => Err(format!("--rows takes numbers from 1 to 14 with commas between, not `{list}`")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Outcome<Plan> {
        Plan::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn arguments() {
        let plan = parse("--rows 6,1 --format=json --quick --no-swarm").expect("they are good");
        assert_eq!(plan.of(&[9, 6, 7, 1]), [6, 1]);
        assert_eq!((plan.format, plan.quick, plan.swarm, plan.lite), (Format::Json, true, false, true));
        assert_eq!(parse("").expect("nothing is good").rows.len(), 14);
    }

    #[test]
    fn bad_arguments() {
        for (line, expected) in [
            ("--rows 0", "--rows takes numbers from 1 to 14 with commas between, not `0`"),
            ("--rows", "--rows takes numbers from 1 to 14 with commas between, not ``"),
            ("--format xml", "--format takes `table` or `json`, not `xml`"),
            ("--fast", "unknown argument `--fast`"),
        ] {
            assert_eq!(parse(line), Err(expected.into()), "{line}");
        }
    }
}
