//! Many seeds in one process.

use super::faults::{KINDS, Kind};
use super::run::{Failure, Summary, run};
use crate::layer3::{Bug, Options};
use crate::marks::Marks;
use crate::trace;
use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Exit code of a run that found something wrong.
const WRONG: u8 = 1;
/// Exit code of a canary that was not caught.
const NOT_CAUGHT: u8 = 3;

/// In so many seeds everything happens that is counted (M3).
const COVERS_ALL: u64 = 1000;

/// What a sweep has seen.
#[derive(Default)]
struct Tally {
    failed: Vec<u64>,
    passed: u64,
    elapsed: Duration,
    faults: BTreeMap<Kind, u64>,
    marks: Marks,
}

/// Runs one seed in this process.
pub fn one(seed: u64, options: Options) -> ExitCode {
    match run(seed, options) {
        Ok(summary) => {
            say(seed, &summary);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            lament(seed, &failure, !options.print);
            ExitCode::from(WRONG)
        }
    }
}

fn say(seed: u64, summary: &Summary) {
    eprintln!(
        "seed {seed}: {} after {:.1} s, {} operations, {} commits, {} leader changes, {:?}",
        summary.fingerprint,
        summary.elapsed.as_secs_f64(),
        summary.operations,
        summary.commits,
        summary.leader_changes,
        summary.faults
    );
}

fn lament(seed: u64, failure: &Failure, tail: bool) {
    let tail = if tail { trace::tail() } else { String::new() };
    eprintln!("{tail}seed {seed} FAILED {failure}\nits trace: {}", trace::fingerprint());
}

/// Runs a range of seeds on so many threads. With a bug it ends at the first seed that catches it.
pub fn many(seeds: Range<u64>, jobs: usize, bug: Option<Bug>) -> ExitCode {
    if bug == Some(Bug::AdoptNothing) {
        eprintln!("layer 2 has no containers to adopt: run this canary in layer 3");
        return ExitCode::from(NOT_CAUGHT);
    }
    let next = AtomicU64::new(seeds.start);
    let tally: Mutex<Tally> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| work(&next, seeds.end, &tally, bug));
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.failed.sort_unstable();
    let count = seeds.end - seeds.start;
    match (bug, &tally.failed[..]) {
        (Some(bug), []) => {
            eprintln!("canary {} was NOT CAUGHT by {count} seeds of layer 2", bug.name());
            ExitCode::from(NOT_CAUGHT)
        }
        (Some(bug), [first, ..]) => {
            eprintln!("canary {} was caught by seed {first} of layer 2", bug.name());
            ExitCode::SUCCESS
        }
        (None, []) => {
            let kinds = KINDS.iter().filter(|k| !tally.faults.contains_key(k)).map(|k| format!("{k:?}"));
            let never: Vec<String> = kinds.chain(tally.marks.never().into_iter().map(String::from)).collect();
            eprintln!(
                "{} seeds of layer 2 passed, {:.0} simulated seconds; faults: {:?}; the control loops: {}; never: {never:?}",
                tally.passed,
                tally.elapsed.as_secs_f64(),
                tally.faults,
                tally.marks
            );
            if count >= COVERS_ALL && !never.is_empty() {
                eprintln!("so many seeds FAILED to show what they are for: {never:?} never happened");
                return ExitCode::from(WRONG);
            }
            ExitCode::SUCCESS
        }
        (None, failed) => {
            eprintln!(
                "{} of {count} seeds of layer 2 FAILED: {failed:?}; see one with --layer 2 --seed N --trace",
                failed.len()
            );
            ExitCode::from(WRONG)
        }
    }
}

fn work(next: &AtomicU64, end: u64, tally: &Mutex<Tally>, bug: Option<Bug>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        let caught = bug.is_some() && !tally.lock().unwrap_or_else(PoisonError::into_inner).failed.is_empty();
        if seed >= end || caught {
            return;
        }
        let outcome = run(seed, Options { print: false, bug });
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(summary) => {
                tally.passed += 1;
                tally.elapsed += summary.elapsed;
                tally.marks.add(&summary.marks);
                for (kind, count) in summary.faults {
                    *tally.faults.entry(kind).or_default() += count;
                }
            }
            Err(failure) => {
                lament(seed, &failure, bug.is_none());
                tally.failed.push(seed);
            }
        }
    }
}
