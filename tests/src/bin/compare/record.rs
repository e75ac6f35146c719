//! The record: what both sides answered, for people.

use crate::judge::{Rule, Seen, json, leaves};
use crate::sides::Sides;
use crate::{Answered, Played};
use std::fmt::Write;

/// Of a JSON answer with more lines than this, only the number of values is shown.
const JSON_LINES_MAX: usize = 12;

/// The whole of `docs/comparison.md`.
pub(crate) fn markdown(sides: &Sides, played: &[Played], rules: &[Rule]) -> String {
    let commands: Vec<&Answered> = played.iter().flat_map(|played| &played.commands).collect();
    let same = commands.iter().filter(|command| command.differences.is_empty()).count();
    let mut text = format!(
        "# Beside a real Docker Swarm\n\n\
         The same commands, given by the same unmodified `docker` command line to a real Docker Swarm ({})\n\
         and to Swarmlite. Below is what Docker Swarm answered, and under each section in what Swarmlite's answers differ, if\n\
         they do. `cargo xtask compare` repeats all of it and fails when they differ in anything that is not\n\
         explained here, and when something that is explained does not differ any more; `cargo xtask compare --write` writes\n\
         this file. The commands are in `tests/compare/commands.txt`, the explanations in `tests/compare/differences.txt`.\n\n\
         Each side has one node, on engines of the same build. Ids, times, addresses and versions are masked (`ID`, `TIME`,\n\
         `WHILE`, `HOST`, `ADDRESS`), progress displays are left out. Both are asked in API 1.41, the newest that this Docker\n\
         speaks: what came after it has tests of its own.\n\n\
         {} sections, {} commands: {same} are answered alike to the letter, {} with differences, which the\n\
         [last section](#differences) explains.\n",
        sides.docker.version,
        played.len(),
        commands.len(),
        commands.len() - same,
    );
    for section in played {
        let _ = write!(text, "\n## {}\n\n{}\n\n```console\n", section.section.name, section.section.about);
        for command in &section.commands {
            let _ = writeln!(text, "$ {}", command.line);
            text.push_str(&answer(&command.docker));
        }
        text.push_str("```\n");
        let differing: Vec<&Answered> =
            section.commands.iter().filter(|command| !command.differences.is_empty()).collect();
        if !differing.is_empty() {
            text.push_str("\n| in | Docker Swarm | Swarmlite | |\n|---|---|---|---|\n");
        }
        for command in differing {
            for (difference, rule) in &command.differences {
                let rule = rule.as_deref().map_or("NOT EXPLAINED".into(), |rule| format!("[{rule}](#{rule})"));
                let (docker, lite) = (cell(&difference.docker), cell(&difference.lite));
                let _ = writeln!(
                    text,
                    "| {}: {} | {docker} | {lite} | {rule} |",
                    cell(&short(&command.line)),
                    difference.at
                );
            }
        }
    }
    text.push_str("\n## Differences\n");
    for rule in rules {
        let _ = write!(text, "\n### {}\n\n{}\n", rule.name, rule.because);
    }
    text
}

/// What a command answered, as the record has it.
pub(crate) fn answer(seen: &Seen) -> String {
    let mut text = String::new();
    let lines = seen.stdout.lines().count();
    match json(&seen.stdout) {
        Some(value) if lines > JSON_LINES_MAX || seen.stdout.len() > 1000 => {
            let _ = writeln!(text, "(JSON with {} values)", leaves(&value).len());
        }
        _ if lines > 0 => {
            let _ = writeln!(text, "{}", seen.stdout);
        }
        _ => {}
    }
    if !seen.stderr.is_empty() {
        let _ = writeln!(text, "{}", seen.stderr);
    }
    if seen.code != 0 {
        let _ = writeln!(text, "(exit code {})", seen.code);
    }
    text
}

/// The beginning of a command.
fn short(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').skip(1).take(2).collect();
    words.join(" ")
}

/// A cell of a table.
fn cell(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|").replace('\n', "` `").replace("``", "` `"))
}
