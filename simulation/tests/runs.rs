//! The simulator as a program: what it prints, and that a seed is all there is to a run.

use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_swarmlite-sim")).args(args).output().expect("the simulator can be started")
}

#[test]
fn a_seed_gives_the_same_trace_byte_for_byte() {
    let runs = [1, 2].map(|_| sim(&["--seed", "2", "--trace"]));
    let errors = runs.each_ref().map(|r| String::from_utf8_lossy(&r.stderr).into_owned());
    assert!(runs.iter().all(|r| r.status.success()), "{errors:?}");
    assert!(runs[0].stdout == runs[1].stdout, "the traces differ");
    assert_eq!(errors[0], errors[1]);
    let trace = String::from_utf8(runs[0].stdout.clone()).expect("a trace is text");
    assert!(trace.lines().count() > 50, "{trace}");
    // A line an event, and nothing else: each begins with the time.
    let times: Vec<f64> =
        trace.lines().map(|l| l[..10].trim().parse().unwrap_or_else(|_| panic!("no time: {l}"))).collect();
    assert!(times.is_sorted());
}

#[test]
fn another_seed_gives_another_trace() {
    let [a, b] = ["3", "4"].map(|seed| sim(&["--seed", seed, "--trace"]));
    assert!(a.status.success() && b.status.success());
    assert_ne!(a.stdout, b.stdout);
}

#[test]
fn a_deliberate_bug_is_caught() {
    let run = sim(&["--canary", "stale-assignments", "--seeds", "0..10"]);
    let text = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && text.contains("canary stale-assignments was caught by seed"), "{text}");
}

#[test]
fn a_certificate_that_expires_during_a_partition_ends_its_node_alone() {
    let run = sim(&["--expiry", "--seed", "1"]);
    let text = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && text.contains("who was cut off too long is down"), "{text}");
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    for (args, text) in [
        (&["--seeds", "5"][..], "is not a range of seeds"),
        (&["--seeds", "5..5"], "is an empty range"),
        (&["--layer", "1"], "1 is not in 2..=3"),
        (&["--canary", "no-such-bug"], "possible values"),
        (&["--trace"], "--seed"),
    ] {
        let run = sim(args);
        let error = String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success() && run.stdout.is_empty() && error.contains(text), "{args:?}: {error}");
    }
}
