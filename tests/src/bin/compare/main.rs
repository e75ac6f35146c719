//! The same commands to a real Docker Swarm and to Swarmlite, and in what their answers differ: `cargo xtask compare`.
//!
//! The commands are in `tests/compare/commands.txt`, the known differences, each with an explanation, in
//! `tests/compare/differences.txt`. A difference without an explanation fails, and so does an explanation without a
//! difference.
//!
//! `--only NAME` runs sections whose name matches (`*` for anything; several times: any of them), `--show` prints all
//! answers, `--commands PATH` takes other commands, `--docker` prints those of Docker Swarm alone and compares nothing, `--write PATH` writes the record.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)] // the real machine

mod judge;
mod mask;
mod record;
mod script;
mod sides;

use futures::StreamExt;
use judge::{Difference, Rule, Seen};
use script::Section;
use sides::Sides;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use swarmlite_tests::Outcome;
use tokio::time::Instant;

const COMMANDS: &str = include_str!("../../../compare/commands.txt");
const DIFFERENCES: &str = include_str!("../../../compare/differences.txt");
/// Sections at the same time: two processors are shared by both sides.
const AT_A_TIME: usize = 10;
/// For all sections; it is far less.
const LIMIT: Duration = Duration::from_secs(600);

/// What was asked for.
#[derive(Debug, Default)]
struct Asked {
    only: Vec<String>,
    show: bool,
    docker: bool,
    commands: Option<PathBuf>,
    write: Option<PathBuf>,
}

/// What came of a section.
pub(crate) struct Played {
    pub(crate) section: Section,
    pub(crate) commands: Vec<Answered>,
    /// What neither side did, or what could not be tried.
    pub(crate) broken: Vec<String>,
}

/// What came of a command.
pub(crate) struct Answered {
    pub(crate) line: String,
    pub(crate) docker: Seen,
    pub(crate) lite: Seen,
    /// In what they differ, each with the name of the rule that explains it.
    pub(crate) differences: Vec<(Difference, Option<String>)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = async {
        let asked = Asked::parse(std::env::args().skip(1))?;
        let worked = tokio::time::timeout(LIMIT, compare(&asked));
        worked.await.map_err(|_| format!("it takes longer than {LIMIT:?}"))?
    };
    match outcome.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays all sections; whether all is as expected.
async fn compare(asked: &Asked) -> Outcome<bool> {
    let sections = asked.chosen(script::parse(&asked.text()?).map_err(|error| format!("the commands: {error}"))?)?;
    let rules = judge::rules(DIFFERENCES).map_err(|error| format!("differences.txt: {error}"))?;
    let sides = Sides::start().await?;
    eprintln!("{} beside {}", sides.lite.version, sides.docker.version);
    let (alone, together): (Vec<Section>, Vec<Section>) = sections.into_iter().partition(|section| section.alone);
    if asked.docker {
        let plays = together.iter().map(|section| dockers(&sides, section));
        futures::stream::iter(plays).buffered(AT_A_TIME).collect::<()>().await;
        for section in &alone {
            dockers(&sides, section).await;
        }
        return Ok(true);
    }
    let plays = together.into_iter().map(|section| play(&sides, &rules, section));
    let mut played: Vec<Played> = futures::stream::iter(plays).buffered(AT_A_TIME).collect().await;
    for section in alone {
        played.push(play(&sides, &rules, section).await);
    }
    let mut failed = played.iter().filter(|played| !played.report(asked.show)).count();
    let passed = played.len() - failed;
    if asked.all() {
        let used: BTreeSet<&str> = played.iter().flat_map(Played::rules).collect();
        for rule in rules.iter().filter(|rule| !used.contains(rule.name.as_str())) {
            println!("rule {}: nothing differs like this any more; remove it from differences.txt", rule.name);
            failed += 1;
        }
    }
    if let Some(path) = &asked.write {
        let text = record::markdown(&sides, &played, &rules);
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Shows what Docker Swarm alone makes of a section.
async fn dockers(sides: &Sides, section: &Section) {
    let answers = sides.docker.play(&section.steps).await;
    for (step, answer) in section.steps.iter().zip(answers) {
        match answer {
            Ok(None) => {}
            Ok(Some(seen)) => println!("\n[{}] $ {}\n{}", section.name, step.line, record::answer(&seen)),

            Err(error) => println!("\n[{}] {error}", section.name),
        }
    }
}

/// Runs a section on both sides, each in its own time.
async fn play(sides: &Sides, rules: &[Rule], section: Section) -> Played {
    let began = Instant::now();
    let (docker, lite) = tokio::join!(sides.docker.play(&section.steps), sides.lite.play(&section.steps));
    let (mut commands, mut broken) = (Vec::new(), Vec::new());
    for ((step, docker), lite) in section.steps.iter().zip(docker).zip(lite) {
        let (docker, lite, differences) = match (docker, lite) {
            (Ok(None), Ok(None)) => continue,
            (Ok(Some(docker)), Ok(Some(lite))) => {
                let differences = docker.differences(&lite);
                (docker, lite, differences)
            }
            (Err(docker), Err(lite)) => {
                broken.push(format!("on both sides: {docker}\n{lite}"));
                continue;
            }
            (docker, lite) => {
                let text = |outcome: Outcome<Option<Seen>>| outcome.err().unwrap_or_else(|| "it comes to that".into());
                let difference = Difference::new("until", &text(docker), &text(lite));
                (Seen::nothing(), Seen::nothing(), vec![difference])
            }
        };
        let explained = |difference: &Difference| {
            rules.iter().find(|rule| rule.explains(&section.name, &step.line, difference)).map(|rule| rule.name.clone())
        };
        let differences = differences.into_iter().map(|difference| (explained(&difference), difference));
        let differences = differences.map(|(rule, difference)| (difference, rule)).collect();
        commands.push(Answered { line: step.line.clone(), docker, lite, differences });
    }
    eprintln!("  {} ({:.1} s)", section.name, began.elapsed().as_secs_f64());
    Played { section, commands, broken }
}

// === impl Asked ===

impl Asked {
    fn parse(args: impl Iterator<Item = String>) -> Outcome<Self> {
        let (mut asked, mut args) = (Self::default(), args);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--only" => asked.only.push(value()?),
                "--commands" => asked.commands = Some(PathBuf::from(value()?)),
                "--write" => asked.write = Some(PathBuf::from(value()?)),
                "--show" => asked.show = true,
                "--docker" => asked.docker = true,
                _ => {
                    return Err(format!(
                        "unknown argument {arg}: there are --only NAME, --commands PATH, --show, --docker and --write PATH"
                    ));
                }
            }
        }
        if asked.write.is_some() && !asked.all() {
            return Err("--write records all sections: it does not go with --only and --commands".into());
        }
        Ok(asked)
    }

    /// Whether all sections are run.
    fn all(&self) -> bool {
        self.only.is_empty() && self.commands.is_none()
    }

    fn text(&self) -> Outcome<String> {
        match &self.commands {
            None => Ok(COMMANDS.into()),
            Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display())),
        }
    }

    fn chosen(&self, mut sections: Vec<Section>) -> Outcome<Vec<Section>> {
        sections.retain(|section| {
            self.only.is_empty() || self.only.iter().any(|pattern| judge::matches(pattern, &section.name))
        });
        if sections.is_empty() { Err("no section has such a name".into()) } else { Ok(sections) }
    }
}

// === impl Played ===

impl Played {
    /// The rules that explain something here.
    fn rules(&self) -> impl Iterator<Item = &str> {
        self.commands.iter().flat_map(|command| &command.differences).filter_map(|(_, rule)| rule.as_deref())
    }

    /// Says what is wrong, and everything on request; whether nothing is.
    fn report(&self, all: bool) -> bool {
        let mut good = self.broken.is_empty();
        for text in &self.broken {
            println!("section {}: {text}", self.section.name);
        }
        for command in &self.commands {
            if all {
                println!("\n[{}] $ {}", self.section.name, command.line);
                for (side, seen) in [("docker", &command.docker), ("swarmlite", &command.lite)] {
                    println!("  {side} ({}):\n{}\n{}", seen.code, seen.stdout, seen.stderr);
                }
            }
            for (difference, _) in command.differences.iter().filter(|(_, rule)| rule.is_none()) {
                println!("section {}, `{}`, {}:", self.section.name, command.line, difference.at);
                println!("    Docker Swarm: {}", difference.docker.replace('\n', "\n                  "));
                println!("    Swarmlite:    {}", difference.lite.replace('\n', "\n                  "));
                good = false;
            }
        }
        good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_every_command_and_every_difference() {
        let record = include_str!("../../../../docs/comparison.md");
        let missing = |text: &str| (!record.contains(text)).then(|| text.trim().to_string());
        let mut stale: Vec<String> = Vec::new();
        for section in script::parse(COMMANDS).expect("the commands are good") {
            stale.extend(missing(&format!("\n## {}\n\n{}\n", section.name, section.about)));
            let recorded = section.steps.iter().filter(|step| step.until.is_none());
            stale.extend(recorded.filter_map(|step| missing(&format!("\n$ {}\n", step.line))));
        }
        for rule in judge::rules(DIFFERENCES).expect("the differences are good") {
            stale.extend(missing(&format!("\n### {}\n\n{}\n", rule.name, rule.because)));
        }
        assert!(stale.is_empty(), "`cargo xtask compare --write`: docs/comparison.md does not have {stale:#?}");
        assert!(!record.contains("NOT EXPLAINED"));
    }

    #[test]
    fn arguments() {
        let parse = |line: &str| Asked::parse(line.split_whitespace().map(String::from));
        let asked = parse("--only a* --only b --show").expect("they are good");
        assert!(asked.only == ["a*", "b"] && asked.show && !asked.docker && !asked.all());
        assert!(parse("").expect("nothing is good").all());
        for (line, expected) in [
            ("--only", "--only needs a value"),
            ("--only a --write x", "--write records all sections"),
            ("--fast", "unknown argument --fast"),
        ] {
            assert!(parse(line).is_err_and(|error| error.starts_with(expected)), "{line}");
        }
    }
}
