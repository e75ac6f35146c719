//! Demo, chaos and conformance: binaries and tests of `swarmlite-tests`, given a product binary and an engine.

use crate::{docker, everything, run};
use std::process::Command;

/// Where the tests find the Docker Engine.
pub(crate) const ENV_DOCKER_HOST: &str = "SWARMLITE_TEST_DOCKER_HOST";
/// Where the tests find the `swarmlite` binary.
pub(crate) const ENV_BINARY: &str = "SWARMLITE_TEST_BINARY";

/// Where the record of the comparison with Docker Swarm is kept.
const COMPARISON: &str = "docs/comparison.md";

/// Builds the product and the harness.
pub(crate) fn build(release: bool) -> Command {
    let mut args = vec!["build", "--package", "swarmlite", "--package", "swarmlite-tests", "--bins"];
    if release {
        args.push("--release");
    }
    run::cargo(&args)
}

/// Tells a child where the product and the engine are.
pub(crate) fn equip<'a>(command: &'a mut Command, host: Option<&str>, release: bool) -> &'a mut Command {
    let profile = if release { "release" } else { "debug" };
    command.env(ENV_BINARY, run::target().join(profile).join("swarmlite"));
    match host {
        Some(host) => command.env(ENV_DOCKER_HOST, host),
        None => command.env_remove(ENV_DOCKER_HOST),
    }
}

pub(crate) fn demo(args: &[String]) -> Result<(), String> {
    println!("building (a few minutes the first time) …");
    run::show(&mut build(false))?;
    let engine = match docker::ensure() {
        Ok(engine) => Some(engine),
        Err(reason) => {
            println!(
                "\nno Docker Engine: {reason}\ngoing on with the EMBEDDED engine: it keeps containers in memory and runs nothing\n"
            );
            None
        }
    };
    let host = engine.as_ref().map(|engine| engine.host.clone());
    let mut demo = Command::new(run::target().join("debug/swarmlite-demo"));
    let outcome = run::show(equip(demo.args(args), host.as_deref(), false));
    if let Some(engine) = engine {
        engine.release();
    }
    outcome
}

pub(crate) fn chaos(args: &[String]) -> Result<(), String> {
    one_test("chaos", args)
}

pub(crate) fn conformance(args: &[String]) -> Result<(), String> {
    one_test("conformance", args)
}

/// The same commands to a real Docker Swarm and to Swarmlite. `--write` alone writes the record where it is kept.
pub(crate) fn compare(args: &[String]) -> Result<(), String> {
    run::show(&mut everything::build())?;
    run::show(&mut compare_command(args)?)
}

/// [`compare`], once everything is built. Both sides have engines of their own: only the programs must be there.
pub(crate) fn compare_command(args: &[String]) -> Result<Command, String> {
    docker::ensure_programs()?;
    let mut compare = Command::new(run::target().join("debug/swarmlite-compare"));
    for arg in args {
        compare.arg(arg);
        if arg == "--write" {
            compare.arg(run::root().join(COMPARISON));
        }
    }
    equip(&mut compare, None, false);
    Ok(compare)
}

fn one_test(name: &str, args: &[String]) -> Result<(), String> {
    run::show(&mut everything::build())?;
    with_engine(|host| run::show(equip(test_command(name).args(args), Some(host), false)))
}

/// One of the tests on real processes: one at a time, since each has a cluster of its own.
pub(crate) fn test_command(name: &str) -> Command {
    everything::test(name, &["--test-threads=1", "--nocapture"])
}

fn with_engine(work: impl FnOnce(&str) -> Result<(), String>) -> Result<(), String> {
    let engine = docker::ensure()?;
    let outcome = work(&engine.host);
    engine.release();
    outcome
}
