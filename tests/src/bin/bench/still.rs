//! Rows 8, 10 and 14, for which nothing has to run here.

use crate::plan::Plan;
use crate::table::{Column, Figure, Table};
use serde_json::Value;
use std::path::PathBuf;
use swarmlite_tests::{Outcome, node};

/// What the scheduler's own benchmark printed; `cargo xtask bench` runs it and passes it on.
const ENV_SCHEDULE: &str = "SWARMLITE_BENCH_SCHEDULE";
/// And what `swarmlite-sim fleet --json` printed.
const ENV_FLEET: &str = "SWARMLITE_BENCH_FLEET";

pub(crate) fn measure(plan: &Plan, table: &mut Table) {
    if !plan.of(&[8]).is_empty() {
        if plan.lite {
            let printed = std::env::var(ENV_SCHEDULE)
                .map_err(|_| "only `cargo xtask bench` measures it (cargo bench -p swarmlite-control)".to_string());
            match printed.and_then(|printed| Ok((time(&printed, 10_000)?, time(&printed, 100_000)?))) {
                Ok((small, large)) => {
                    table.put(Column::Lite, "schedule", Figure::of(large));
                    table.put(Column::Lite, "schedule-linear", Figure::of(large / (10.0 * small)));
                }
                Err(reason) => table.miss(Column::Lite, 8, &reason),
            }
        }
        if plan.swarm {
            table.miss(Column::Swarm, 8, "dockerd has no such benchmark");
        }
    }
    if !plan.of(&[14]).is_empty() {
        if plan.lite
            && let Err(reason) = fleet(table)
        {
            table.miss(Column::Lite, 14, &reason);
        }
        if plan.swarm {
            table.miss(Column::Swarm, 14, "nobody simulates a fleet around it");
        }
    }
    if !plan.of(&[10]).is_empty() {
        for (column, wanted, path) in
            [(Column::Lite, plan.lite, Some(node::binary())), (Column::Swarm, plan.swarm, dockerd())]
        {
            if wanted {
                match path.and_then(|path| std::fs::metadata(path).ok()) {
                    Some(file) => table.put(column, "binary", Figure::of(file.len() as f64 / 1e6)),
                    None => table.miss(column, 10, "there is no such binary"),
                }
            }
        }
    }
}

/// The figures of the fleet.
fn fleet(table: &mut Table) -> Outcome<()> {
    let printed = std::env::var(ENV_FLEET)
        .map_err(|_| "only `cargo xtask bench` measures it (swarmlite-sim fleet)".to_string())?;
    let figures: Value = serde_json::from_str(&printed).map_err(|error| format!("swarmlite-sim fleet: {error}"))?;
    let number = |key: &str| figures[key].as_f64().ok_or_else(|| format!("swarmlite-sim fleet does not say {key}"));
    let (lost, detected) = (number("lost_tasks")?, number("detected_ms")? / 1e3);
    let detail = format!("{lost:.0} tasks, detected after {detected:.1} s");
    table.put(Column::Lite, "fleet-lost", Figure::with(number("replanned_ms")? / 1e3, detail));
    let (few, most) = (number("memory_bytes")?, number("memory_most_bytes")?);
    let grown = (most - few) / (number("most_tasks")? - number("tasks")?).max(1.0);
    table.put(Column::Lite, "fleet-memory", Figure::with(most / 1e6, format!("{:.1} kB for each task", grown / 1e3)));
    Ok(())
}

/// Seconds in a line such as `place 10000 tasks on 1000 nodes   1.23 ms   8130081`.
fn time(printed: &str, tasks: u32) -> Outcome<f64> {
    let row = printed.lines().find_map(|line| line.strip_prefix(&format!("place {tasks} tasks on 1000 nodes")));
    match row.unwrap_or_default().split_whitespace().collect::<Vec<_>>()[..] {
        [time, "ms", ..] => time.parse::<f64>().map(|ms| ms / 1e3).map_err(|_| format!("`{time}` is no time")),
        _ => Err(format!("the scheduler's benchmark prints nothing about {tasks} tasks")),
    }
}

fn dockerd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join("dockerd"))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedulers_figures() {
        let printed = "what  time  tasks/s\nplace 10000 tasks on 1000 nodes      3.40 ms   2941176\n";
        assert_eq!(time(printed, 10_000), Ok(0.0034));
        let error = time(printed, 100_000).expect_err("it is not there");
        assert_eq!(error, "the scheduler's benchmark prints nothing about 100000 tasks");
    }
}
