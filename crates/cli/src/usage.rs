//! What is said about a command line that cannot be parsed: in Docker's words, with Docker's exit codes.

use crate::error::EXIT_USAGE;
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;
use std::process::ExitCode;

/// A message and an exit code.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    message: String,
    code: u8,
}

/// Prints what is wrong with a command line (or the help that was asked for).
pub(crate) fn report(error: &clap::Error, command: &mut Command, args: &[OsString]) -> ExitCode {
    match error.kind() {
        // Docker prints a group's help when its verb is missing, and calls that success.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let text = error.render();
            let text = if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
                text.ansi().to_string()
            } else {
                text.to_string()
            };
            print_help(&text)
        }
        ErrorKind::MissingSubcommand => print_help(&locate(command, args).1.render_help().to_string()),
        _ => {
            let verdict = judge(error, command, args);
            eprintln!("{}\n\n{}", verdict.message, usage_of(command, args));
            ExitCode::from(verdict.code)
        }
    }
}

/// What is wrong with a command line, without the usage.
#[cfg(test)]
pub(crate) fn message(error: &clap::Error, command: &mut Command, args: &[OsString]) -> String {
    judge(error, command, args).message
}

fn print_help(text: &str) -> ExitCode {
    use std::io::Write as _;
    // Whoever closed the pipe has seen enough.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// `Usage: …` of the command that was meant, and where to read on.
pub(crate) fn usage_of(command: &mut Command, args: &[OsString]) -> String {
    let (path, meant) = locate(command, args);
    let usage = meant.render_usage().to_string();
    let usage = usage.trim().trim_start_matches("Usage:").trim();
    // The usage of a command that was not reached by parsing has no parents in it.
    let name = meant.get_name().to_owned();
    let rest = usage.strip_prefix(&path).or_else(|| usage.strip_prefix(&name)).unwrap_or(usage);
    format!("Usage:  {path}{rest}\n\nRun '{path} --help' for more information")
}

/// The deepest command that the arguments name, and its full name.
fn locate<'a>(command: &'a mut Command, args: &[OsString]) -> (String, &'a mut Command) {
    let mut path = command.get_name().to_owned();
    let mut meant = command;
    for arg in args.iter().skip(1).filter_map(|a| a.to_str()) {
        let Some(name) = meant.find_subcommand(arg).map(|c| c.get_name().to_owned()) else {
            // A flag or its value may stand before the verb at the top level only; below it, anything else ends the path.
            if path.contains(' ') { break } else { continue }
        };
        path = format!("{path} {name}");
        meant = match meant.find_subcommand_mut(&name) {
            Some(deeper) => deeper,
            None => unreachable!("found a moment ago"),
        };
    }
    (path, meant)
}

fn judge(error: &clap::Error, command: &mut Command, args: &[OsString]) -> Verdict {
    let (path, meant) = locate(command, args);
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(s)) => Some(s.clone()),
        // The nearest is the last.
        Some(ContextValue::Strings(s)) => Some(s.iter().rev().cloned().collect::<Vec<_>>().join(", ")),
        _ => None,
    };
    let flag = text(ContextKind::InvalidArg).unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let general = |message: String| Verdict { message: format!("swarmlite: {message}"), code: 1 };
    let usage = |message: String| Verdict { message, code: EXIT_USAGE };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let wrong = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            general(format!("unknown command: {path} {wrong}{}", suggestion(text(ContextKind::SuggestedSubcommand))))
        }
        ErrorKind::UnknownArgument if flag.starts_with("--") => {
            usage(format!("unknown flag: {flag}{}", suggestion(text(ContextKind::SuggestedArg))))
        }
        ErrorKind::UnknownArgument if flag.starts_with('-') => {
            usage(format!("unknown shorthand flag: '{0}' in -{0}", flag.trim_start_matches('-')))
        }
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument | ErrorKind::TooManyValues => {
            general(format!("'{path}' {}", arguments_wanted(meant)))
        }
        // A value that is missing, not one that is empty: nothing has looked at it.
        ErrorKind::InvalidValue | ErrorKind::NoEquals
            if value.is_empty() && std::error::Error::source(error).is_none() =>
        {
            usage(format!("flag needs an argument: {}", name_of(&flag)))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map(ToString::to_string);
            let reason = reason.unwrap_or_else(|| match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(valid)) => format!("must be one of {}", valid.join(", ")),
                _ => "not a valid value".to_owned(),
            });
            if flag.starts_with('-') {
                usage(format!(
                    "invalid argument {value:?} for \"{}\" flag: {reason}",
                    both_names(meant, name_of(&flag))
                ))
            } else {
                general(format!("invalid argument {value:?}: {reason}"))
            }
        }
        _ => general(error.render().to_string().trim().trim_start_matches("error: ").to_owned()),
    }
}

fn suggestion(near: Option<String>) -> String {
    near.map(|near| format!("\nDid you mean: {near}")).unwrap_or_default()
}

/// `-f, --filter` for a flag that has a short form.
fn both_names(command: &Command, flag: &str) -> String {
    let known = command.get_arguments().find(|a| a.get_long().is_some_and(|l| flag.strip_prefix("--") == Some(l)));
    match known.and_then(clap::Arg::get_short) {
        Some(short) => format!("-{short}, {flag}"),
        None => flag.to_owned(),
    }
}

/// `--mount <mount>` without its value's name.
fn name_of(flag: &str) -> &str {
    flag.split([' ', '[', '=']).next().unwrap_or(flag)
}

fn arguments_wanted(command: &Command) -> String {
    let (mut least, mut most) = (0, Some(0));
    for positional in command.get_positionals() {
        let range = positional.get_num_args().unwrap_or_else(|| 1.into());
        least += if positional.is_required_set() { range.min_values().max(1) } else { 0 };
        most = most.filter(|_| range.max_values() < usize::MAX).map(|m| m + range.max_values());
    }
    let arguments = |n: usize| if n == 1 { "argument" } else { "arguments" };
    match (least, most) {
        (_, Some(0)) => "accepts no arguments".to_owned(),
        (least, Some(most)) if least == most => format!("requires {least} {}", arguments(least)),
        (least @ 1.., Some(most)) => format!("requires at least {least} and at most {most} arguments"),
        (0, Some(most)) => format!("requires at most {most} {}", arguments(most)),
        (least, _) => format!("requires at least {least} {}", arguments(least)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(line: &str) -> Verdict {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut command = crate::app::command();
        let error = command.try_get_matches_from_mut(&args).expect_err(line);
        judge(&error, &mut command, &args)
    }

    #[test]
    fn wrong_command_lines_get_dockers_words_and_codes() {
        for (line, code, message) in [
            ("swarmlite bogus", 1, "swarmlite: unknown command: swarmlite bogus"),
            (
                "swarmlite swarm jion",
                1,
                "swarmlite: unknown command: swarmlite swarm jion\nDid you mean: join, join-token",
            ),
            ("swarmlite node ls extra", 1, "swarmlite: 'swarmlite node ls' accepts no arguments"),
            ("swarmlite swarm join", 1, "swarmlite: 'swarmlite swarm join' requires 1 argument"),
            ("swarmlite service create", 1, "swarmlite: 'swarmlite service create' requires at least 1 argument"),
            ("swarmlite service rm", 1, "swarmlite: 'swarmlite service rm' requires at least 1 argument"),
            ("swarmlite -H unix:///x node ls --foo", 125, "unknown flag: --foo"),
            ("swarmlite node ls -x", 125, "unknown shorthand flag: 'x' in -x"),
            ("swarmlite service create --limit-cpu", 125, "flag needs an argument: --limit-cpu"),
            (
                "swarmlite service create --replicas x nginx",
                125,
                "invalid argument \"x\" for \"--replicas\" flag: strconv.ParseUint: parsing \"x\": invalid syntax",
            ),
            (
                "swarmlite service create --detach=foo nginx",
                125,
                "invalid argument \"foo\" for \"-d, --detach\" flag: strconv.ParseBool: parsing \"foo\": invalid syntax",
            ),
        ] {
            assert_eq!(verdict(line), Verdict { message: message.to_owned(), code }, "{line}");
        }
        assert!(
            verdict("swarmlite service create --nam x y")
                .message
                .starts_with("unknown flag: --nam\nDid you mean: --name")
        );
    }

    #[test]
    fn the_usage_names_the_whole_command() {
        let args: Vec<OsString> = ["swarmlite", "-D", "service", "rm"].map(OsString::from).into();
        let usage = usage_of(&mut crate::app::command(), &args);
        assert!(usage.starts_with("Usage:  swarmlite service rm"), "{usage}");
        assert!(usage.ends_with("Run 'swarmlite service rm --help' for more information"), "{usage}");
    }
}
