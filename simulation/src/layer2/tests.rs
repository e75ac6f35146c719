//! A handful of seeds. The sweeps are the binary's (`swarmlite-sim --layer 2`).

use super::run;
use crate::layer3::{Bug, Options};

#[test]
fn a_seed_gives_the_same_trace_twice_in_one_process_and_another_seed_another() {
    let trace = |seed| run(seed, Options::default()).map_err(|f| f.to_string()).expect("the seed passes");
    let first = trace(1);
    assert_eq!(trace(1), first);
    assert_ne!(trace(2).fingerprint, first.fingerprint);
}

#[test]
fn a_handful_of_seeds_pass_and_much_happens_in_them() {
    let mut operations = 0;
    let mut faults = 0;
    for seed in 100..106 {
        let summary = run(seed, Options::default()).unwrap_or_else(|f| panic!("seed {seed}: {f}"));
        operations += summary.operations;
        faults += summary.faults.values().sum::<u64>();
    }
    assert!(operations > 100 && faults > 10, "{operations} operations, {faults} faults");
}

#[test]
fn a_state_machine_without_checks_is_caught() {
    let caught = |seed| run(seed, Options { print: false, bug: Some(Bug::DropChecks) }).is_err();
    assert!((0..20).any(caught));
}

#[test]
fn a_leader_that_hands_its_plans_to_its_successor_is_caught() {
    let caught = |seed| {
        run(seed, Options { print: false, bug: Some(Bug::PlansTravel) }).is_err_and(|f| f.to_string().contains("S31"))
    };
    assert!((0..50).any(caught));
}
