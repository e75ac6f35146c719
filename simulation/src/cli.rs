//! The command line of the simulator: one seed in this process, or many, each in a process of its own.

use crate::fleet::{self, FleetArgs, ManagerArgs};
use crate::layer3::{self, Bug, Options};
use crate::trace;
use clap::{Parser, ValueEnum};
use std::ops::Range;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Exit code of a run that found something wrong.
const WRONG: u8 = 1;
/// Exit code of a canary that was not caught.
const NOT_CAUGHT: u8 = 3;
/// A step of the simulation that takes so long will never end. One takes a few milliseconds.
const STANDSTILL_S: u32 = 60;
/// Seeds that a canary may take.
const CANARY_SEEDS: u64 = 60;

/// Seeds of layer 2 that a canary may take.
const CANARY_SEEDS_2: u64 = 200;

/// Runs the cluster in a simulated world.
#[derive(Debug, Parser)]
#[command(name = "swarmlite-sim", args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Other>,
    /// The layer: 2 (Raft, store and control loops) or 3 (whole nodes).
    /// Unless given it is 3, or the one that a canary is for.
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=3))]
    layer: Option<u8>,
    /// Run one seed in this process.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run a range of seeds, `A..B` (B excluded), each in a process of its own.
    #[arg(long, value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// With --seed: print the trace, a line an event, and nothing else on standard output.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Turn a deliberate bug on; without a seed: run seeds until one catches it.
    #[arg(long, value_name = "NAME")]
    canary: Option<Bug>,
    /// Run the scenario in which a node is cut off until its certificate has expired.
    #[arg(long, conflicts_with_all = ["seeds", "canary"])]
    expiry: bool,
    /// Processes at once; the number of processors unless given.
    #[arg(long)]
    jobs: Option<usize>,
}

/// What the program does besides simulating.
#[derive(Debug, clap::Subcommand)]
enum Other {
    Fleet(FleetArgs),
    #[command(hide = true)]
    FleetManager(ManagerArgs),
}

impl ValueEnum for Bug {
    fn value_variants<'a>() -> &'a [Bug] {
        &Bug::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("`{text}` is not a range of seeds: write A..B, as in 0..100");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let range = from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?;
    if range.is_empty() { Err(format!("`{text}` is an empty range: B must be above A")) } else { Ok(range) }
}

// === impl Args ===

impl Args {
    fn layer(&self) -> u8 {
        self.layer.unwrap_or_else(|| self.canary.map_or(3, Bug::layer))
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match &args.command {
        Some(Other::Fleet(args)) => return fleet::main(args),
        Some(Other::FleetManager(args)) => return fleet::manager_main(args),
        None => {}
    }
    match (args.seed, args.seeds.clone()) {
        (Some(seed), _) => one(seed, &args),
        (None, Some(seeds)) => many(seeds, &args),
        (None, None) if args.expiry => one(1, &args),
        (None, None) => match args.canary {
            Some(_) if args.layer() == 2 => many(0..CANARY_SEEDS_2, &args),
            Some(_) => many(0..CANARY_SEEDS, &args),
            None => many(0..20, &args),
        },
    }
}

/// With `RUST_LOG` set, what the nodes log goes to standard error, each line under its machine's name.
fn log_to_stderr() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let format = tracing_subscriber::fmt().without_time().with_writer(std::io::stderr).with_ansi(false);
        let _already_set = format.with_env_filter(filter).try_init();
    }
}

/// A node that never waits stops the time of the simulation. Then there is no other way out than to end the process.
#[allow(clippy::disallowed_methods)] // outside the simulation, by the machine's own clock
fn watch_for_standstill(seed: u64) {
    std::thread::spawn(move || {
        let (mut seen, mut same) = (0, 0);
        while same < STANDSTILL_S {
            std::thread::sleep(std::time::Duration::from_secs(1));
            let steps = layer3::steps();
            same = if steps == seen { same + 1 } else { 0 };
            seen = steps;
        }
        eprintln!(
            "seed {seed} FAILED: a node does something without end and never waits: step {seen} takes more than {STANDSTILL_S} s"
        );
        std::process::exit(i32::from(WRONG));
    });
}

/// A panic in one of a node's tasks would only end that task. It is always a bug: it ends the run.
fn end_at_panic(seed: u64) {
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("seed {seed} FAILED: {panic}\n{}", std::backtrace::Backtrace::capture());
        std::process::exit(i32::from(WRONG));
    }));
}

fn one(seed: u64, args: &Args) -> ExitCode {
    log_to_stderr();
    end_at_panic(seed);
    watch_for_standstill(seed);
    if args.expiry {
        return match layer3::expiry(seed, args.trace) {
            Ok(fingerprint) => {
                eprintln!(
                    "seed {seed}: {fingerprint}: the others renewed in time, and who was cut off too long is down"
                );
                ExitCode::SUCCESS
            }
            Err(failure) => {
                eprint!("{}", trace::tail());
                eprintln!("seed {seed} FAILED {failure}");
                ExitCode::from(WRONG)
            }
        };
    }
    if args.layer() == 2 {
        return crate::layer2::one(seed, Options { print: args.trace, bug: args.canary });
    }
    match layer3::run(seed, Options { print: args.trace, bug: args.canary }) {
        Ok(summary) => {
            eprintln!(
                "seed {seed}: {} after {:.1} s, {} operations, {} leader changes, {:?}",
                summary.fingerprint,
                summary.elapsed.as_secs_f64(),
                summary.operations,
                summary.leader_changes,
                summary.faults
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            if !args.trace {
                eprint!("{}", trace::tail());
            }
            eprintln!("seed {seed} FAILED {failure}\nits trace: {}", trace::fingerprint());
            ExitCode::from(WRONG)
        }
    }
}

/// Runs each seed in a process of its own, some at once. With a canary it ends at the first seed that catches it.
fn many(seeds: Range<u64>, args: &Args) -> ExitCode {
    if args.layer() == 2 {
        let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        return crate::layer2::many(seeds, jobs, args.canary);
    }
    let Ok(program) = std::env::current_exe() else {
        eprintln!("cannot find this program's own file to run it again");
        return ExitCode::from(WRONG);
    };
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicU64::new(seeds.start);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let stop = |failed: &[u64]| args.canary.is_some() && !failed.is_empty();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || stop(&failed.lock().unwrap_or_else(PoisonError::into_inner)) {
                        return;
                    }
                    let mut command = Command::new(&program);
                    command.args(["--layer", &args.layer().to_string(), "--seed", &seed.to_string()]);
                    if let Some(bug) = args.canary {
                        command.args(["--canary", bug.name()]);
                    }
                    let output = command.stdin(Stdio::null()).output();
                    let (well, text) = match output {
                        Ok(o) => (o.status.success(), String::from_utf8_lossy(&o.stderr).into_owned()),
                        Err(e) => (false, format!("seed {seed}: cannot be run: {e}\n")),
                    };
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    eprint!("{text}");
                    if !well {
                        failed.push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    verdict(&seeds, &failed, args)
}

fn verdict(seeds: &Range<u64>, failed: &[u64], args: &Args) -> ExitCode {
    match (args.canary, failed) {
        (Some(bug), []) => {
            eprintln!("canary {} was NOT CAUGHT by {} seeds", bug.name(), seeds.end - seeds.start);
            ExitCode::from(NOT_CAUGHT)
        }
        (Some(bug), _) => {
            eprintln!("canary {} was caught by seed {}", bug.name(), failed[0]);
            ExitCode::SUCCESS
        }
        (None, []) => {
            eprintln!("{} seeds passed", seeds.end - seeds.start);
            ExitCode::SUCCESS
        }
        (None, _) => {
            eprintln!(
                "{} of {} seeds FAILED: {failed:?}; see one with --layer {} --seed N --trace",
                failed.len(),
                seeds.end - seeds.start,
                args.layer()
            );
            ExitCode::from(WRONG)
        }
    }
}
