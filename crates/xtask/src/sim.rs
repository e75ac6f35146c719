//! `cargo xtask sim …`: builds the simulator and runs it with the arguments given.

use crate::run;
use std::path::PathBuf;
use std::process::Command;

/// The simulator's binary.
const BINARY: &str = "swarmlite-sim";

pub(crate) fn command(args: &[String]) -> Result<(), String> {
    // Its output is the simulator's alone: the build says only what goes wrong, and that on standard error.
    run::show(&mut build())?;
    run::show(Command::new(binary()).args(args))
}

/// Builds the simulator.
pub(crate) fn build() -> Command {
    run::cargo(&["build", "--quiet", "--package", "swarmlite-simulation", "--bins"])
}

/// The simulator, once built.
pub(crate) fn binary() -> PathBuf {
    run::target().join("debug").join(BINARY)
}
