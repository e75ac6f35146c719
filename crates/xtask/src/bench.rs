//! `cargo xtask bench`: builds the product and the harness for release, and lets the harness measure.

use crate::{docker, run, tools};
use std::path::PathBuf;
use std::process::Command;

const USAGE: &str = "\
cargo xtask bench [OPTION…]     speed and size, beside Docker Swarm's in the same run

--rows 1,2,…       these rows only:
                    1 leader killed → next write              6 committed writes per second
                    2 leader stopped or demoted → next write  7 GET /services per second
                    3 worker killed → its replicas elsewhere  8 the scheduler, in memory
                    4 tasks restarted by a leader change      9 an idle manager's memory and CPU
                    5 service create until running           10 size of the binary
                    11 what encryption at rest costs         12 a rolling update
                    13 scale 10 → 60 until running           14 a fleet of 1,000 nodes, simulated
--quick            fewer rounds
--no-swarm         Swarmlite only
--no-lite          Docker Swarm only
--format FORMAT    `table` (default) or `json`
--binary PATH      measure this binary instead of building one

Docker Swarm, and rows 3 to 5, 12 and 13, need root: engines of their own are started in network namespaces, and are gone
afterwards. Without root, rows 3 to 5, 12 and 13 use the engine of DOCKER_HOST or /var/run/docker.sock.
";

/// What the harness takes from us: the lines of the scheduler's own benchmark.
const ENV_SCHEDULE: &str = "SWARMLITE_BENCH_SCHEDULE";

/// And what the simulator says of a fleet.
const ENV_FLEET: &str = "SWARMLITE_BENCH_FLEET";

/// And a build that does not seal what it writes to the disk.
const ENV_UNSEALED: &str = "SWARMLITE_BENCH_UNSEALED";

/// Our part of the arguments.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    /// Measured instead of a fresh build.
    binary: Option<PathBuf>,
    /// Whether these rows need the scheduler's benchmark, which is no business of the harness.
    schedule: bool,
    /// Whether these rows need the simulator's fleet.
    fleet: bool,
    /// Whether these rows need a build without sealing.
    unsealed: bool,
    /// Whether anything needs a Docker Engine.
    engines: bool,
    /// For the harness.
    rest: Vec<String>,
}

pub(crate) fn command(args: &[String]) -> Result<(), String> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return Ok(());
    }
    let request = Request::parse(args)?;
    eprintln!("building for release (minutes the first time) …");
    let unsealed = if request.unsealed { Some(without_sealing()?) } else { None };
    let mut build = match &request.binary {
        None => tools::build(true),
        Some(_) => run::cargo(&["build", "--release", "--package", "swarmlite-tests", "--bin", "swarmlite-bench"]),
    };
    run::show(&mut build)?;
    if request.engines && run::is_root() && !run::found("dockerd") {
        // Going on without: the harness says in the table what it could not measure.
        if let Err(reason) = docker::install("docker.io", &[]) {
            eprintln!("{reason}");
        }
    }
    let mut bench = Command::new(run::target().join("release/swarmlite-bench"));
    tools::equip(bench.args(&request.rest), std::env::var("DOCKER_HOST").ok().as_deref(), true);
    if let Some(binary) = &request.binary {
        bench.env(tools::ENV_BINARY, binary);
    }
    if let Some(binary) = unsealed {
        bench.env(ENV_UNSEALED, binary);
    }
    if request.schedule {
        bench.env(ENV_SCHEDULE, schedule_figures()?);
    }
    if request.fleet {
        bench.env(ENV_FLEET, fleet_figures()?);
    }
    run::show(&mut bench)
}

/// Builds the product without sealing, and keeps it beside the real one.
fn without_sealing() -> Result<PathBuf, String> {
    run::show(&mut run::cargo(&["build", "--release", "--package", "swarmlite", "--features", "unsealed"]))?;
    let (built, kept) = (run::target().join("release/swarmlite"), run::target().join("release/swarmlite-unsealed"));
    std::fs::copy(&built, &kept).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(kept)
}

/// What the scheduler's own benchmark prints.
fn schedule_figures() -> Result<String, String> {
    eprintln!("the scheduler's benchmark …");
    run::output(&mut run::cargo(&["bench", "--quiet", "--package", "swarmlite-control", "--bench", "schedule"]))
}

/// What the simulator measures on a fleet of a thousand machines.
fn fleet_figures() -> Result<String, String> {
    eprintln!("the fleet (some minutes) …");
    run::show(&mut run::cargo(&["build", "--quiet", "--release", "--package", "swarmlite-simulation", "--bins"]))?;
    run::output(Command::new(run::target().join("release/swarmlite-sim")).args(["fleet", "--json"]))
}

// === impl Request ===

impl Request {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut request = Self { schedule: true, fleet: true, unsealed: true, engines: true, ..Self::default() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, attached) =
                arg.split_once('=').map_or((arg.as_str(), None), |(name, value)| (name, Some(value)));
            if !["--binary", "--rows", "--format"].contains(&name) {
                request.schedule &= name != "--no-lite";
                request.fleet &= name != "--no-lite";
                request.unsealed &= name != "--no-lite";
                request.rest.push(arg.clone());
                continue;
            }
            let value = attached.map(String::from).or_else(|| args.next().cloned());
            let value = value.ok_or_else(|| format!("{name} needs a value\n\n{USAGE}"))?;
            match name {
                "--binary" => request.binary = Some(existing(&value)?),
                "--rows" => {
                    let rows: Vec<&str> = value.split(',').map(str::trim).collect();
                    request.schedule &= rows.contains(&"8");
                    request.fleet &= rows.contains(&"14");
                    request.unsealed &= rows.contains(&"11");
                    request.engines = rows.iter().any(|row| !["8", "10", "11", "14"].contains(row));
                    request.rest.extend([name.to_string(), value]);
                }
                _ => request.rest.extend([name.to_string(), value]),
            }
        }
        Ok(request)
    }
}

/// The harness runs daemons from elsewhere: an absolute path.
fn existing(path: &str) -> Result<PathBuf, String> {
    std::fs::canonicalize(path).map_err(|error| format!("--binary {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, String> {
        Request::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_ours_and_what_the_harness_gets() {
        let request = parse("--quick --rows=1,8 --format json").expect("they are good");
        assert_eq!(request.rest, ["--quick", "--rows", "1,8", "--format", "json"]);
        assert!(request.schedule && request.engines && request.binary.is_none());
        let request = parse("--rows 10 --binary /bin/sh").expect("they are good");
        assert_eq!(request.rest, ["--rows", "10"]);
        assert!(!request.schedule && !request.unsealed && !request.engines && request.binary.is_some());
        assert!(parse("--rows 11").expect("it is good").unsealed && parse("").expect("it is good").unsealed);
        assert!(!parse("--no-lite").expect("it is good").schedule);
        assert!(parse("--rows 12,14").expect("it is good").fleet && !parse("--rows 8").expect("it is good").fleet);
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(parse("--rows").expect_err("no value").starts_with("--rows needs a value"));
        assert!(parse("--binary /nonexistent/x").expect_err("no file").contains("/nonexistent/x"));
    }
}
