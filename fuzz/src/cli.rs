//! The command line.

use crate::run::{self, ROUND, Until};
use crate::targets::{self, Target};
use clap::Parser;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How long each target is tried unless said otherwise.
const SECONDS: u64 = 20;

/// Tries the parsers with bent inputs.
#[derive(Debug, Parser)]
#[command(name = "swarmlite-fuzz")]
struct Args {
    /// These targets only.
    #[arg(long = "target", value_name = "NAME", value_parser = parse_target)]
    targets: Vec<&'static Target>,
    /// Try each for so many seconds.
    #[arg(long, conflicts_with = "iterations")]
    seconds: Option<u64>,
    /// Try each with so many inputs.
    #[arg(long)]
    iterations: Option<u64>,
    /// The seed that all inputs follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Processes at once; the number of processors unless given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Try one input again, with those before it in its round, in this process.
    #[arg(long, value_name = "ITERATION", requires = "targets")]
    replay: Option<u64>,
    /// Try one input from a file, in this process.
    #[arg(long, value_name = "FILE", requires = "targets", conflicts_with = "replay")]
    file: Option<PathBuf>,
    /// Say which targets there are.
    #[arg(long)]
    list: bool,
    #[arg(long, hide = true)]
    child: bool,
    #[arg(long, hide = true)]
    progress: Option<PathBuf>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn parse_target(name: &str) -> Result<&'static Target, String> {
    let names = || targets::all().iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
    targets::find(name).ok_or_else(|| format!("no such target; there are {}", names()))
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        targets::all().iter().for_each(|t| println!("{:<8} {}", t.name, t.about));
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<&'static Target> =
        if args.targets.is_empty() { targets::all().iter().collect() } else { args.targets.clone() };
    match (args.child, args.replay, &args.file) {
        (true, ..) => child(chosen[0], &args),
        (_, Some(iteration), _) => replay(chosen[0], args.seed, iteration),
        (_, _, Some(file)) => {
            let (target, file) = (chosen[0], file.clone());
            said(run::confined(move || run::take_file(target, &file)).and_then(|outcome| outcome))
        }
        _ => many(&chosen, &args),
    }
}

fn until(args: &Args) -> Until {
    match (args.iterations, args.seconds) {
        (Some(n), _) => Until::Iterations(n),
        (None, n) => Until::Seconds(n.unwrap_or(SECONDS)),
    }
}

fn said(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => {
            println!("nothing breaks");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn child(target: &'static Target, args: &Args) -> ExitCode {
    let progress = args.progress.as_ref().and_then(|path| OpenOptions::new().write(true).open(path).ok());
    let (seed, until) = (args.seed, until(args));
    match run::confined(move || run::take_many(target, seed, 0, until, progress.as_ref())) {
        Ok(Ok(count)) => {
            println!("done {count}");
            ExitCode::SUCCESS
        }
        Ok(Err((iteration, why))) => {
            println!("iteration {iteration}: {why}");
            ExitCode::FAILURE
        }
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn replay(target: &'static Target, seed: u64, iteration: u64) -> ExitCode {
    let from = iteration - iteration % ROUND;
    let count = Until::Iterations(iteration - from + 1);
    let outcome = run::confined(move || run::take_many(target, seed, from, count, None));
    said(outcome.and_then(|taken| taken.map(drop).map_err(|(i, why)| format!("iteration {i}: {why}"))))
}

/// Each target in a process of its own, some at once.
fn many(chosen: &[&'static Target], args: &Args) -> ExitCode {
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicUsize::new(0);
    let failures: Mutex<usize> = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(target) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match run::watch(target, args.seed, until(args)) {
                        Ok(count) => println!("{}: {count} inputs broke nothing ({})", target.name, target.about),
                        Err(failure) => {
                            *failures.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                            println!("{failure}");
                        }
                    }
                }
            });
        }
    });
    let failed = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{} passed, {failed} failed", chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
