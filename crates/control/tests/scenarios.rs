//! Scenarios: text files in `tests/scenarios/` that state a cluster, commands and time steps, and what is to be seen then.
//! They are written for readers who have never seen this code; `script/mod.rs` says what the commands are.
//!
//! `SWARMLITE_RECORD_SCENARIOS=1 cargo test -p swarmlite-control --test scenarios` writes down what is seen now. Read the
//! difference before you keep it.
#![allow(clippy::disallowed_methods)] // the scenarios are files, and are recorded here

mod common;
mod script;

use script::{Scenario, Script};
use std::path::PathBuf;

/// Fewer would mean that files were not found.
const SCENARIOS_MIN: usize = 60;

fn files() -> Vec<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = std::fs::read_dir(&dir).expect("the scenarios are there");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "txt"));
    files.sort();
    files
}

#[test]
fn every_scenario_goes_as_it_is_written() {
    let record = std::env::var_os("SWARMLITE_RECORD_SCENARIOS").is_some();
    let only = std::env::var("SWARMLITE_SCENARIO").unwrap_or_default();
    let (mut count, mut wrong) = (0, Vec::new());
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("a scenario file is text");
        let scenarios = script::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut seen = text.clone();
        for scenario in scenarios.iter().filter(|s| s.title.contains(&only)) {
            count += 1;
            let differences = run(scenario, &mut seen);
            wrong.extend(differences.into_iter().map(|d| format!("{}: {}\n{d}", file.display(), scenario.title)));
        }
        if record && seen != text {
            std::fs::write(&file, seen).expect("the file can be written");
        }
    }
    assert!(record || wrong.is_empty(), "{} differences\n\n{}", wrong.len(), wrong.join("\n"));
    assert!(!only.is_empty() || count >= SCENARIOS_MIN, "only {count} scenarios were found");
}

/// Plays one scenario; what is seen is put into the file's text in the place of what was expected.
fn run(scenario: &Scenario, file: &mut String) -> Vec<String> {
    let mut script = Script::default();
    let mut differences = Vec::new();
    for step in &scenario.steps {
        let seen = script.command(&step.command).unwrap_or_else(|e| format!("error: {e}\n"));
        if seen != step.expected {
            let (command, expected) = (&step.command, &step.expected);
            differences.push(format!("$ {command}\nexpected:\n{expected}seen:\n{seen}"));
            // Steps are found by what stands in the file: commands with the same words may come again.
            let before = format!("== {}\n", scenario.title);
            let start = file.find(&before).expect("the scenario is in its file");
            let at = start + position(&file[start..], step.number);
            let end = at + command.len() + "$ \n".len();
            file.replace_range(end..end + expected.len(), &seen);
        }
    }
    differences
}

/// Where the command with this number (from 0) begins in the text of a scenario.
fn position(text: &str, number: usize) -> usize {
    let mut at = 0;
    let mut left = number;
    for line in text.split_inclusive('\n') {
        if line.starts_with("$ ") {
            if left == 0 {
                return at;
            }
            left -= 1;
        }
        at += line.len();
    }
    panic!("there is no command {number}");
}
