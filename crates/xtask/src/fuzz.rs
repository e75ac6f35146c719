//! `cargo xtask fuzz …`: builds the fuzzer and runs it with the arguments given.

use crate::run;
use std::path::PathBuf;
use std::process::Command;

pub(crate) fn command(args: &[String]) -> Result<(), String> {
    run::show(&mut build())?;
    run::show(Command::new(binary()).args(args))
}

/// Builds the fuzzer. The simulator is named as well, so that the libraries beneath have the same features for both, and are
/// not compiled twice.
pub(crate) fn build() -> Command {
    run::cargo(&["build", "--quiet", "--package", "swarmlite-fuzz", "--package", "swarmlite-simulation", "--bins"])
}

/// The fuzzer, once built.
pub(crate) fn binary() -> PathBuf {
    run::target().join("debug/swarmlite-fuzz")
}
