//! Runs a target: in a process of its own that may die, watched by one that must not.

use crate::dice::Dice;
use crate::mutate::{self, Material};
use crate::targets::{Taker, Target};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A target begins anew after so many inputs, so that a failure is replayed from a short history.
pub const ROUND: u64 = 64;
/// One input may take so long.
const INPUT_MAX: Duration = Duration::from_secs(2);
/// A slow input is tried so often before it is called slow: the machine may have been busy.
const SLOW_TRIES: usize = 3;
/// An input that takes so long never ends.
const STANDSTILL: Duration = Duration::from_secs(30);
/// Address space of a process that takes inputs: a length that lies must not be believed.
const MEMORY_MAX: u64 = 1 << 30;
/// The stack that tokio gives its threads, on which the product parses.
const STACK_BYTES: usize = 2 << 20;
/// Panics inside these libraries are caught on purpose by who calls them.
const CAUGHT_ON_PURPOSE: [&str; 1] = ["/chitchat-"];
/// Between two looks at a child.
const POLL: Duration = Duration::from_millis(50);

/// When a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After so many inputs.
    Iterations(u64),
    /// After so many seconds.
    Seconds(u64),
}

/// An input that broke something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Of which target.
    pub target: &'static str,
    /// Of which seed.
    pub seed: u64,
    /// Which one.
    pub iteration: u64,
    /// What it broke.
    pub why: String,
    /// Where the input was written.
    pub file: Option<PathBuf>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { target, seed, iteration, why, .. } = self;
        write!(
            f,
            "{target} FAILED: {why}\n  again: cargo xtask fuzz --target {target} --seed {seed} --replay {iteration}"
        )?;
        match &self.file {
            Some(file) => {
                write!(f, "\n  the input alone: cargo xtask fuzz --target {target} --file {}", file.display())
            }
            None => Ok(()),
        }
    }
}

/// The input of an iteration: a function of target, seed and number.
pub fn input(target: &Target, corpus: &[Vec<u8>], seed: u64, iteration: u64) -> Vec<u8> {
    let material = Material { corpus, words: target.words, bytes_max: target.bytes_max };
    mutate::input(&mut Dice::new(target.name, seed, iteration), material)
}

// === the process that takes inputs ===

/// What the first panic said, in whatever task.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

fn watch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if CAUGHT_ON_PURPOSE.iter().any(|library| place.contains(library)) {
            return;
        }
        let backtrace = std::backtrace::Backtrace::capture();
        let mut first = PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first.get_or_insert_with(|| format!("a panic: {panic}\n{backtrace}"));
    }));
}

fn take_panic() -> Option<String> {
    PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}

/// One input; what it broke, if it did.
fn try_one(take: &mut Taker, input: &[u8]) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| take(input)));
    if let Some(panic) = take_panic() {
        return Err(panic);
    }
    outcome.unwrap_or_else(|_| Err("a panic".into()))
}

/// Takes inputs until the run is over, noting in `progress` which one is under way. The first failure is the answer.
pub fn take_many(
    target: &'static Target,
    seed: u64,
    from: u64,
    until: Until,
    progress: Option<&File>,
) -> Result<u64, (u64, String)> {
    watch_panics();
    let corpus = (target.corpus)();
    let begun = Instant::now();
    let mut take = (target.start)();
    let mut iteration = from;
    loop {
        let over = match until {
            Until::Iterations(count) => iteration - from >= count,
            Until::Seconds(seconds) => begun.elapsed() >= Duration::from_secs(seconds),
        };
        if over {
            return Ok(iteration - from);
        }
        if iteration.is_multiple_of(ROUND) {
            take = (target.start)();
        }
        if let Some(file) = progress {
            // Read by the watching process when this one dies. A page of the cache: no disk is waited for.
            let _best_effort = file.write_at(&iteration.to_le_bytes(), 0);
        }
        let bytes = input(target, &corpus, seed, iteration);
        let started = Instant::now();
        try_one(&mut take, &bytes).map_err(|why| (iteration, why))?;
        if started.elapsed() > INPUT_MAX {
            let fastest = (0..SLOW_TRIES).map(|_| time_alone(target, &bytes)).min().unwrap_or_default();
            if fastest > INPUT_MAX {
                return Err((iteration, format!("it takes {:.1} s", fastest.as_secs_f64())));
            }
        }
        iteration += 1;
    }
}

fn time_alone(target: &Target, bytes: &[u8]) -> Duration {
    let mut take = (target.start)();
    let started = Instant::now();
    let _failed_before = try_one(&mut take, bytes);
    started.elapsed()
}

/// One input from a file.
pub fn take_file(target: &'static Target, file: &Path) -> Result<(), String> {
    let bytes = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    watch_panics();
    try_one(&mut (target.start)(), &bytes)
}

/// Does something on a stack as small as production's, with memory bounded.
pub fn confined<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let limit = rustix::process::Rlimit { current: Some(MEMORY_MAX), maximum: Some(MEMORY_MAX) };
    rustix::process::setrlimit(rustix::process::Resource::As, limit)
        .map_err(|e| format!("cannot bound this process's memory: {e}"))?;
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work);
    let thread = thread.map_err(|e| format!("cannot start a thread: {e}"))?;
    thread.join().map_err(|_| "the fuzzer itself panicked".to_owned())
}

// === the process that watches ===

/// Where inputs that broke something are put.
fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("fuzz")
}

/// Runs a target in a process of its own. Gives the number of inputs.
pub fn watch(target: &'static Target, seed: u64, until: Until) -> Result<u64, Failure> {
    let failed = |iteration, why: String| Failure { target: target.name, seed, iteration, why, file: None };
    let dir = directory();
    std::fs::create_dir_all(&dir).map_err(|e| failed(0, format!("cannot create {}: {e}", dir.display())))?;
    let progress = dir.join(format!("{}-{seed}.progress", target.name));
    let said = dir.join(format!("{}-{seed}.log", target.name));
    let child = start(target, seed, until, &progress, &said).map_err(|e| failed(0, format!("cannot be run: {e}")))?;
    let end = wait(child, &progress);
    let log = std::fs::read_to_string(&said).unwrap_or_default();
    if let End::Exited(status) = &end
        && status.success()
    {
        let count = log.lines().rev().find_map(|line| line.strip_prefix("done ")?.parse().ok());
        return count.ok_or_else(|| failed(0, format!("it did not say how many inputs it took: {log}")));
    }
    let iteration = read_progress(&progress).unwrap_or_default();
    let mut failure = failed(iteration, end.why(&log));
    let bytes = input(target, &(target.corpus)(), seed, iteration);
    let file = dir.join(format!("{}-{seed}-{iteration}.input", target.name));
    if std::fs::write(&file, bytes).is_ok() {
        failure.file = Some(file);
    }
    Err(failure)
}

enum End {
    Exited(ExitStatus),
    Standstill,
    Unknown(std::io::Error),
}

fn start(target: &Target, seed: u64, until: Until, progress: &Path, said: &Path) -> std::io::Result<Child> {
    let log = File::create(said)?;
    File::create(progress)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", "--target", target.name, "--seed", &seed.to_string()]).arg("--progress").arg(progress);
    match until {
        Until::Iterations(n) => command.args(["--iterations", &n.to_string()]),
        Until::Seconds(n) => command.args(["--seconds", &n.to_string()]),
    };
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
}

fn wait(mut child: Child, progress: &Path) -> End {
    let (mut seen, mut since) = (None, Instant::now());
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return End::Exited(status),
            Ok(None) => {}
            Err(error) => return End::Unknown(error),
        }
        let now = read_progress(progress);
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > STANDSTILL {
            let _it_may_have_ended = child.kill();
            let _reaped = child.wait();
            return End::Standstill;
        }
        std::thread::sleep(POLL);
    }
}

fn read_progress(file: &Path) -> Option<u64> {
    Some(u64::from_le_bytes(std::fs::read(file).ok()?.try_into().ok()?))
}

impl End {
    fn why(self, log: &str) -> String {
        let said = log.trim();
        match self {
            End::Standstill => format!("it takes more than {} s", STANDSTILL.as_secs()),
            End::Unknown(error) => format!("its process cannot be watched: {error}"),
            End::Exited(status) => match status.signal() {
                Some(signal) => format!(
                    "it killed its process (signal {signal}: 6 is no memory or an abort, 11 a stack overflow): {said}"
                ),
                None => said.to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::Target;

    fn target(start: fn() -> Taker) -> &'static Target {
        Box::leak(Box::new(Target {
            name: "test",
            about: "",
            corpus: || vec![b"hello world".to_vec()],
            words: &[b"!"],
            bytes_max: 100,
            start,
        }))
    }

    #[test]
    fn what_breaks_is_found_with_its_number_and_comes_again() {
        let fragile = target(|| {
            Box::new(|input| {
                assert!(!input.contains(&b'!'), "it cannot bear exclamation marks");
                Ok(())
            })
        });
        let (iteration, why) = take_many(fragile, 7, 0, Until::Iterations(10_000), None).expect_err("it breaks");
        assert!(why.contains("it cannot bear exclamation marks"), "{why}");
        let again = take_many(fragile, 7, iteration, Until::Iterations(1), None).expect_err("it breaks again");
        assert_eq!(again.0, iteration);
        let sound = target(|| Box::new(|_| Ok(())));
        assert_eq!(take_many(sound, 7, 0, Until::Iterations(200), None), Ok(200));
        let wrong = target(|| Box::new(|_| Err("wrong".into())));
        assert_eq!(take_many(wrong, 7, 5, Until::Iterations(200), None), Err((5, "wrong".into())));
    }
}
