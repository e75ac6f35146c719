//! The steps of `cargo xtask test`, in order.

use crate::{deny, docker, everything, fuzz, licences, run, sim, tidy, tools};
use std::process::Command;
use std::time::Duration;

/// One step: a name, what it is for, how long it may take.
pub(crate) struct Step {
    /// For `cargo xtask test NAME` and the log file.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) about: &'static str,
    /// Minutes after which it is killed.
    pub(crate) minutes_max: u64,
    /// What it does.
    pub(crate) work: fn(&mut Context) -> Outcome,
}

/// What lasts from step to step.
pub(crate) struct Context {
    /// The engine, once a step needed one.
    pub(crate) docker: Option<docker::Docker>,
    /// The name of the current step.
    pub(crate) step: &'static str,
    /// How long the current step may take.
    pub(crate) limit: Duration,
    /// Whether everything has been built in this run.
    pub(crate) built: bool,
}

/// How a step ended.
pub(crate) struct Outcome {
    /// Tests that passed; a step that is no set of tests counts as one.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// What to read when it failed, or what is worth saying when it did not.
    pub(crate) report: String,
}

/// Seeds of a run; `cargo xtask sim` takes any others.
const LAYER_2_SEEDS: &str = "0..1000";
const LAYER_3_SEEDS: &str = "0..40";

/// A fleet that is small enough for every run: that it works, not how fast it is.
const FLEET: [&str; 11] =
    ["fleet", "--nodes", "50", "--zones", "5", "--tasks", "500", "--most-tasks", "0", "--managers", "1"];

/// Seconds for each fuzz target. `cargo xtask fuzz --seconds N` takes any other.
const FUZZ_SECONDS: &str = "40";
/// Fuzz targets at a time: on two cores each has half of its time, and the whole of `cargo xtask test` stays below half an hour.
const FUZZ_JOBS: &str = "4";

/// How many times the power-cut test cuts the power.
const POWER_CUTS: &str = "POWER_CUTS";

/// All steps.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "fmt", about: "formatting", minutes_max: 5, work: fmt },
    Step { name: "tidy", about: "house rules", minutes_max: 3, work: |_| Outcome::of(tidy::check()) },
    Step {
        name: "licences",
        about: "permissive licences only",
        minutes_max: 5,
        work: |_| Outcome::of(licences::check()),
    },
    Step { name: "deny", about: "cargo deny: sources, bans, licences, advisories", minutes_max: 20, work: deny_check },
    Step { name: "clippy", about: "lints, all targets", minutes_max: 25, work: clippy },
    Step {
        name: "build",
        about: "all programs and all tests, once",
        minutes_max: 30,
        work: |context| context.build().err().unwrap_or_else(|| Outcome::of(Ok::<_, String>(()))),
    },
    Step { name: "unit", about: "unit and integration tests of all crates", minutes_max: 35, work: unit },
    Step {
        name: "power-cut",
        about: "nothing acknowledged is lost in 20 power cuts",
        minutes_max: 10,
        work: power_cut,
    },
    Step { name: "sim-tests", about: "the simulator's own tests", minutes_max: 12, work: sim_tests },
    Step {
        name: "sim-double-run",
        about: "the same seed twice: the same trace, byte for byte",
        minutes_max: 6,
        work: sim_double_run,
    },
    Step {
        name: "sim-layer-2",
        about: "simulation of Raft, store and control loops",
        minutes_max: 12,
        work: |context| context.seeds("2", LAYER_2_SEEDS),
    },
    Step {
        name: "sim-layer-3",
        about: "simulation of whole nodes",
        minutes_max: 12,
        work: |context| context.seeds("3", LAYER_3_SEEDS),
    },
    Step { name: "sim-canaries", about: "every deliberate bug is caught", minutes_max: 12, work: sim_canaries },
    Step {
        name: "sim-fleet",
        about: "a manager around 50 simulated machines that lose a zone",
        minutes_max: 3,
        work: sim_fleet,
    },
    Step { name: "fuzz", about: "bent inputs at every parser", minutes_max: 12, work: fuzz_targets },
    Step {
        name: "conformance",
        about: "the unmodified docker CLI",
        minutes_max: 18,
        work: |context| context.harness("conformance"),
    },
    Step { name: "compare", about: "the same commands to a real Docker Swarm", minutes_max: 10, work: compare },
    Step {
        name: "chaos",
        about: "real processes, a real Docker Engine, real faults",
        minutes_max: 15,
        work: |context| context.harness("chaos"),
    },
];

fn fmt(context: &mut Context) -> Outcome {
    // -l: the files that `cargo fmt --all` would change, not how.
    context.one(&mut run::cargo(&["fmt", "--all", "--check", "--", "-l"]))
}

/// Advisories need a database that only some machines can reach. Where it cannot be reached that is said aloud, and is no
/// failure of the code.
fn deny_check(_: &mut Context) -> Outcome {
    let first = Outcome::of(deny::check());
    match deny::advisories() {
        Ok(deny::Advisories::Clean) => first.and(Outcome::of(Ok::<_, String>(()))),
        Ok(deny::Advisories::Found(what)) | Err(what) => first.and(Outcome::failed(what)),
        Ok(deny::Advisories::Unknown(_)) => {
            println!(
                "        advisories were NOT CHECKED: their database is out of reach; see `cargo xtask advisories`"
            );
            first
        }
    }
}

fn clippy(context: &mut Context) -> Outcome {
    context.one(&mut run::cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}

fn unit(context: &mut Context) -> Outcome {
    // The engine's and the agent's own tests run against a real one, with an image made from a static busybox.
    let prepared = context.engine().and_then(|host| docker::ensure_busybox().map(|()| host));
    let (host, mut tests) = match prepared.and_then(|host| Ok((host, everything::unit_tests()?))) {
        Ok(prepared) => prepared,
        Err(error) => return Outcome::failed(error),
    };
    let first = context.tests(tests.env("DOCKER_HOST", host));
    context.step = "unit-doc";
    first.and(context.one(&mut everything::doc_tests()))
}

fn power_cut(context: &mut Context) -> Outcome {
    context.tests(everything::test("power_cut", &["--nocapture"]).env(POWER_CUTS, "20"))
}

fn sim_tests(context: &mut Context) -> Outcome {
    context.tests(&mut everything::test("runs", &[]))
}

/// Determinism first: without it a seed proves nothing.
fn sim_double_run(context: &mut Context) -> Outcome {
    context.after_build(same_traces)
}

fn same_traces(context: &mut Context) -> Outcome {
    let mut compared = 0;
    for (layer, seed) in [("2", "1"), ("2", "2"), ("3", "1"), ("3", "2")] {
        let trace = || run::output(Command::new(sim::binary()).args(["--layer", layer, "--seed", seed, "--trace"]));
        match (trace(), trace()) {
            (Ok(first), Ok(second)) if first == second && !first.is_empty() => compared += 1,
            (Ok(first), Ok(second)) => return Outcome::failed(difference(seed, &first, &second)),
            (Err(error), _) | (_, Err(error)) => return Outcome::failed(error),
        }
    }
    context.step = "sim-double-run";
    Outcome { passed: compared, failed: 0, report: String::new() }
}

fn difference(seed: &str, first: &str, second: &str) -> String {
    let at = first.lines().zip(second.lines()).position(|(one, other)| one != other);
    match at {
        None if first.is_empty() => format!("seed {seed} prints no trace"),
        None => format!(
            "seed {seed}: one trace ends after {} lines, the other after {}",
            first.lines().count(),
            second.lines().count()
        ),
        Some(index) => format!(
            "seed {seed}: the traces differ from line {} on:\n  {}\n  {}",
            index + 1,
            first.lines().nth(index).unwrap_or_default(),
            second.lines().nth(index).unwrap_or_default()
        ),
    }
}

fn sim_fleet(context: &mut Context) -> Outcome {
    context.after_build(|context| context.one(Command::new(sim::binary()).args(FLEET)))
}

fn fuzz_targets(context: &mut Context) -> Outcome {
    let args = ["--seconds", FUZZ_SECONDS, "--jobs", FUZZ_JOBS];
    context.after_build(|context| context.tests(Command::new(fuzz::binary()).args(args)))
}

fn compare(context: &mut Context) -> Outcome {
    context.after_build(|context| match tools::compare_command(&[]) {
        Ok(mut compare) => context.tests(&mut compare),
        Err(error) => Outcome::failed(error),
    })
}

/// Every deliberate bug that the simulator knows must be caught.
fn sim_canaries(context: &mut Context) -> Outcome {
    context.after_build(canaries_are_caught)
}

fn canaries_are_caught(context: &mut Context) -> Outcome {
    let help = match run::output(Command::new(sim::binary()).arg("--help")) {
        Ok(help) => help,
        Err(error) => return Outcome::failed(error),
    };
    let names = canaries(&help);
    if names.is_empty() {
        return Outcome::failed(format!("the simulator names no canaries:\n{help}"));
    }
    let mut sum = Outcome { passed: 0, failed: 0, report: String::new() };
    for name in names {
        sum = sum.and(context.one(Command::new(sim::binary()).args(["--canary", &name])));
    }
    sum
}

/// The values that `--canary` takes, from the help text.
fn canaries(help: &str) -> Vec<String> {
    let after = help.split_once("--canary").map_or("", |(_, rest)| rest);
    let values = after
        .split_once("[possible values:")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(values, _)| values);
    values.split(',').map(|value| value.trim().to_string()).filter(|value| !value.is_empty()).collect()
}

// === impl Context ===

impl Context {
    /// A command that counts as one test.
    fn one(&self, command: &mut Command) -> Outcome {
        match run::logged(command, self.step, self.limit) {
            Ok(logged) if logged.ok => Outcome { passed: 1, failed: 0, report: String::new() },
            Ok(logged) => {
                Outcome::failed(format!("{}\n(all of it: {})", run::tail(&logged.log, 60), logged.path.display()))
            }
            Err(error) => Outcome::failed(error),
        }
    }

    /// A command that runs tests and says how many.
    fn tests(&self, command: &mut Command) -> Outcome {
        match run::logged(command, self.step, self.limit) {
            Ok(logged) => {
                let (passed, failed) = count(&logged.log);
                if logged.ok && failed == 0 && passed > 0 {
                    return Outcome { passed, failed, report: String::new() };
                }
                let report = format!("{}\n(all of it: {})", failures(&logged.log), logged.path.display());
                Outcome { passed, failed: failed.max(1), report }
            }
            Err(error) => Outcome::failed(error),
        }
    }

    /// Builds all programs and tests, once in a run.
    fn build(&mut self) -> Result<(), Outcome> {
        if !self.built {
            let step = std::mem::replace(&mut self.step, "build");
            let outcome = self.one(&mut everything::build());
            self.step = step;
            if outcome.failed > 0 {
                return Err(outcome);
            }
            self.built = true;
        }
        Ok(())
    }

    /// A step that runs programs of ours.
    fn after_build(&mut self, work: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        match self.build() {
            Ok(()) => work(self),
            Err(failed) => failed,
        }
    }

    /// A range of seeds of one layer.
    fn seeds(&mut self, layer: &str, seeds: &str) -> Outcome {
        self.after_build(|context| {
            context.tests(Command::new(sim::binary()).args(["--layer", layer, "--seeds", seeds]))
        })
    }

    /// A test on real processes and a real engine.
    fn harness(&mut self, name: &str) -> Outcome {
        self.after_build(|context| match context.engine() {
            Ok(host) => context.tests(tools::equip(&mut tools::test_command(name), Some(&host), false)),
            Err(error) => Outcome::failed(error),
        })
    }

    /// The address of the Docker Engine that all steps share; the first one that asks brings it up.
    fn engine(&mut self) -> Result<String, String> {
        let engine = match self.docker.take() {
            Some(engine) => engine,
            None => docker::ensure()?,
        };
        let host = engine.host.clone();
        self.docker = Some(engine);
        Ok(host)
    }
}

// === impl Outcome ===

impl Outcome {
    fn of<T>(result: Result<T, String>) -> Self {
        match result {
            Ok(_) => Self { passed: 1, failed: 0, report: String::new() },
            Err(report) => Self::failed(report),
        }
    }

    fn failed(report: String) -> Self {
        Self { passed: 0, failed: 1, report }
    }

    fn and(self, other: Self) -> Self {
        let report = [self.report, other.report].into_iter().filter(|report| !report.is_empty()).collect::<Vec<_>>();
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed, report: report.join("\n") }
    }
}

/// Sums up lines like `test result: ok. 3 passed; 0 failed; …` (cargo's), `40 seeds passed` and `2 of 40 seeds FAILED: …`
/// (the simulator's).
fn count(log: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in log.lines() {
        let line = line.trim();
        let counts = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
            .map_or(line, |(_, counts)| counts);
        let words: Vec<&str> = counts.split([' ', ',', ';', ':']).filter(|word| !word.is_empty()).collect();
        let number = |word: &str| word.parse::<u64>().ok();
        let (passed, failed) = match words[..] {
            [passed, "passed", failed, "failed", ..] => (number(passed), number(failed)),
            [passed, "seeds", "passed"] | [passed, "seeds", "of", "layer", _, "passed", ..] => {
                (number(passed), Some(0))
            }
            [failed, "of", all, "seeds", "FAILED", ..]
            | [failed, "of", all, "seeds", "of", "layer", _, "FAILED", ..] => {
                (number(all).zip(number(failed)).map(|(all, failed)| all.saturating_sub(failed)), number(failed))
            }
            _ => continue,
        };
        if let (Some(passed), Some(failed)) = (passed, failed) {
            sums = (sums.0 + passed, sums.1 + failed);
        }
    }
    sums
}

/// The part of a log that says what failed.
fn failures(log: &str) -> String {
    let interesting = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("error")
            || line.contains("panicked at")
            || line.ends_with("FAILED")
            || line.starts_with("---- ")
    };
    let named: Vec<&str> = log.lines().filter(interesting).take(30).collect();
    format!("{}\n…\n{}", named.join("\n"), run::tail(log, 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting() {
        let log = "\
running 3 tests
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
1900 seeds passed
100 seeds of layer 2 passed, 37102 simulated seconds; faults: {Kill: 1411}; never: []
2 of 40 seeds FAILED: [3, 7]; see one with --layer 3 --seed N --trace
1 of 10 seeds of layer 2 FAILED: [7]; see one with --layer 2 --seed N --trace
12 passed the gate
";
        assert_eq!(count(log), (2051, 5));
    }

    #[test]
    fn canaries_are_found_in_the_help() {
        let help = "  --layer <N>  [possible values: 2, 3]\n  --canary <NAME>  Turn it on\n          [possible values: ack-before-sync,\n          forget-brake]\n";
        assert_eq!(canaries(help), ["ack-before-sync", "forget-brake"]);
        assert!(canaries("nothing").is_empty());
    }

    #[test]
    fn differing_traces_are_shown_where_they_part() {
        assert_eq!(difference("7", "a\nb\n", "a\nc\n"), "seed 7: the traces differ from line 2 on:\n  b\n  c");
        assert_eq!(difference("7", "a\n", "a\nc\n"), "seed 7: one trace ends after 1 lines, the other after 2");
        assert_eq!(difference("7", "", ""), "seed 7 prints no trace");
    }
}
