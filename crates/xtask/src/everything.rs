//! All programs and all tests of the workspace, built once.
//!
//! Cargo gives a library the features that the packages it was asked for want, and compiles it anew for others. So the
//! steps of `cargo xtask test` always ask for the whole workspace, tests included, and say which targets they mean. The price is
//! that the programs under test have tokio's means of testing compiled in, as the tests have.

use crate::run;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tests that have steps of their own: they run for long, or need what others do not.
const APART: [&str; 4] = ["chaos", "conformance", "power_cut", "runs"];

/// Builds all of it.
pub(crate) fn build() -> Command {
    run::cargo(&["build", "--workspace", "--bins", "--tests"])
}

/// The tests of one target, by its name, with arguments for them.
pub(crate) fn test(target: &str, args: &[&str]) -> Command {
    let mut command = run::cargo(&["test", "--workspace", "--test", target, "--"]);
    command.args(args);
    command
}

/// All tests that have no step of their own.
pub(crate) fn unit_tests() -> Result<Command, String> {
    let mut command = run::cargo(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
    for target in test_targets(&run::root())?.iter().filter(|target| !APART.contains(&target.as_str())) {
        command.args(["--test", target]);
    }
    Ok(command)
}

/// The examples in the documentation.
pub(crate) fn doc_tests() -> Command {
    run::cargo(&["test", "--workspace", "--doc", "--quiet"])
}

/// The names of all integration tests beneath `root`, in order, each once: cargo finds them in the same places.
fn test_targets(root: &Path) -> Result<Vec<String>, String> {
    let mut packages: Vec<PathBuf> = ["simulation", "fuzz", "tests"].map(|package| root.join(package)).into();
    packages.extend(entries(&root.join("crates"))?);
    let mut names = Vec::new();
    for tests in packages.iter().map(|package| package.join("tests")).filter(|tests| tests.is_dir()) {
        for path in entries(&tests)? {
            if path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file() {
                names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            }
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
    let entries = std::fs::read_dir(directory).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_that_stands_apart_is_there_and_helpers_are_none() {
        let names = test_targets(&run::root()).expect("the workspace can be read");
        for name in APART {
            assert!(names.iter().any(|n| n == name), "{name} is not in {names:?}");
        }
        assert!(names.iter().any(|name| name == "docker_cli"), "{names:?}");
        assert!(!names.iter().any(|name| name == "support"), "{names:?}");
        let known = names.len();
        let mut once = names;
        once.dedup();
        assert_eq!(known, once.len());
    }
}
