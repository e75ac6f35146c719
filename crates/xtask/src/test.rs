//! `cargo xtask test`: every step in order, with progress; what fails is shown at once, and the rest goes on.

use crate::steps::{Context, STEPS, Step};
use std::time::{Duration, Instant};

/// Runs all steps, or those that are named. Ends with the line `N passed, N failed`.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args.iter().any(|arg| arg == "--list") {
        for step in STEPS {
            println!("{:<16} {}", step.name, step.about);
        }
        return Ok(());
    }
    let steps = chosen(args)?;
    let mut context = Context { docker: None, step: "", limit: Duration::ZERO, built: false };
    let (mut passed, mut failed) = (0, 0);
    let mut broken = Vec::new();
    let started = Instant::now();
    for (index, step) in steps.iter().enumerate() {
        println!("[{:2}/{}] {:<15} {}", index + 1, steps.len(), step.name, step.about);
        context.step = step.name;
        context.limit = Duration::from_secs(60 * step.minutes_max);
        let began = Instant::now();
        let outcome = (step.work)(&mut context);
        passed += outcome.passed;
        failed += outcome.failed;
        let verdict = if outcome.failed == 0 { "ok" } else { "FAILED" };
        println!(
            "        {verdict}: {} passed, {} failed in {:.1} s",
            outcome.passed,
            outcome.failed,
            began.elapsed().as_secs_f64()
        );
        if outcome.failed > 0 {
            broken.push(step.name);
            println!("{}", indented(&outcome.report));
        }
    }
    if let Some(engine) = context.docker.take() {
        engine.release();
    }
    println!("\n{} steps in {:.0} s", steps.len(), started.elapsed().as_secs_f64());
    if !broken.is_empty() {
        println!("failed: {}", broken.join(", "));
    }
    // The very last line, whatever happened: programs read it.
    println!("{passed} passed, {failed} failed");
    if failed == 0 { Ok(()) } else { Err(String::new()) }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Step>, String> {
    if names.is_empty() {
        return Ok(STEPS.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            STEPS
                .iter()
                .find(|step| step.name == name)
                .ok_or_else(|| format!("no step `{name}`; see `cargo xtask test --list`"))
        })
        .collect()
}

fn indented(report: &str) -> String {
    report.lines().map(|line| format!("        | {line}")).collect::<Vec<_>>().join("\n")
}
