//! The commands: a text file of sections, each a list of `docker` commands in the order in which they are given.
//!
//! ```text
//! # a comment
//! section scale: What it shows, in one sentence.
//! docker service create --detach --name s1 --replicas 2 IMAGE sleep
//! until 2/2: docker service ls --filter name=s1 --format {{.Replicas}}
//! printf 'data' | docker secret create key -
//! ```
//!
//! Sections run at the same time and have names of their own for what they make; one whose first line is `alone` changes
//! the node, and runs when the others are done. `until TEXT:` repeats a command until it prints this (`*` stands for
//! anything, `|` for the end of a line, ` or ` for another possibility); it is not recorded. What `sorted` precedes has its
//! lines sorted: where the order depends on ids. A line that ends with a backslash goes on in the next.

use swarmlite_tests::Outcome;

/// Begins a word that stands for what a command prints.
pub(crate) const INNER: &str = "$(";

/// Some commands that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// Its name, without spaces.
    pub(crate) name: String,
    /// What it shows.
    pub(crate) about: String,
    /// Whether nothing else may run beside it.
    pub(crate) alone: bool,
    /// What is done.
    pub(crate) steps: Vec<Step>,
}

/// One line of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The line as it is written.
    pub(crate) line: String,
    /// The words after `docker`.
    pub(crate) words: Vec<String>,
    /// What the command reads.
    pub(crate) input: String,
    /// Whether the order of its lines means nothing.
    pub(crate) sorted: bool,
    /// What it has to print before it goes on; none for a command that is run once and recorded.
    pub(crate) until: Option<String>,
}

/// Reads the file; an error names the line.
pub(crate) fn parse(text: &str) -> Outcome<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    for (number, line) in lines(text) {
        let at = |error: String| format!("line {number}: {error}");
        if let Some(head) = line.strip_prefix("section ") {
            let (name, about) =
                head.split_once(": ").ok_or_else(|| at("a section has a name and a sentence".into()))?;
            if sections.iter().any(|section| section.name == name) {
                return Err(at(format!("there is a section {name} already")));
            }
            sections.push(Section { name: name.into(), about: about.into(), alone: false, steps: Vec::new() });
            continue;
        }
        let section = sections.last_mut().ok_or_else(|| at("it is in no section".into()))?;
        if line == "alone" {
            section.alone = true;
        } else {
            section.steps.push(step(&line).map_err(at)?);
        }
    }
    match sections.iter().find(|section| section.steps.is_empty()) {
        Some(empty) => Err(format!("section {} has no commands", empty.name)),
        None if sections.is_empty() => Err("there are no sections".into()),
        None => Ok(sections),
    }
}

/// The lines that mean something, put together where a backslash ends them, each with its number.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() || (line.starts_with('#') && !goes_on) {
            continue;
        }
        let (part, more) = line.strip_suffix('\\').map_or((line, false), |part| (part.trim_end(), true));
        match lines.last_mut() {
            Some((_, last)) if goes_on => last.extend([" ", part]),
            _ => lines.push((index + 1, part.to_string())),
        }
        goes_on = more;
    }
    lines
}

fn step(line: &str) -> Outcome<Step> {
    let (until, command) = match line.strip_prefix("until ") {
        Some(rest) => {
            let (text, command) =
                rest.split_once(": docker ").ok_or("after `until` come a text, a colon and a docker command")?;
            (Some(text.to_string()), format!("docker {command}"))
        }
        None => (None, line.to_string()),
    };
    let (sorted, command) = match command.strip_prefix("sorted ") {
        Some(command) => (true, command.to_string()),
        None => (false, command),
    };
    let (input, command) = match command.strip_prefix("printf ") {
        Some(rest) => {
            let (text, command) = rest.split_once(" | ").ok_or("after `printf TEXT` comes a pipe")?;
            (words(text)?.join(" "), command.to_string())
        }
        None => (String::new(), command),
    };
    match words(&command)?.as_slice() {
        [docker, rest @ ..] if docker == "docker" && !rest.is_empty() => {
            let line = line.strip_prefix("sorted ").unwrap_or(line).into();
            Ok(Step { line, words: rest.to_vec(), input, sorted, until })
        }
        _ => Err(format!("`{line}` is no docker command")),
    }
}

/// Words as a shell reads them, with quotes of both kinds, and `$(docker …)` as one word that begins with [`INNER`].
pub(crate) fn words(text: &str) -> Outcome<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for char in text.chars() {
        match (quote, char) {
            (None, '(') if word.as_deref() == Some("$") => {
                quote = Some(')');
                word = Some(INNER.into());
            }
            (Some(open), _) if open == char => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(char),
            (None, '\'' | '"') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    match quote {
        Some(open) => Err(format!("{open} is not closed in `{text}`")),
        None => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_commands() {
        let text = "# why\n\nsection one: It shows one.\nalone\ndocker service create --name a \\\n  IMAGE \"two words\" ''\n\
                    until 1/1: docker service ls --format '{{.Replicas}} x'\nprintf 'a b' | docker secret create s -\nsorted docker ps\n";
        let sections = parse(text).expect("it is good");
        let [one] = sections.as_slice() else { panic!("{sections:?}") };
        assert!(one.alone && one.name == "one" && one.about == "It shows one.");
        let words: Vec<Vec<&str>> =
            one.steps.iter().map(|step| step.words.iter().map(String::as_str).collect()).collect();
        assert_eq!(words[0], ["service", "create", "--name", "a", "IMAGE", "two words", ""]);
        assert_eq!(words[1], ["service", "ls", "--format", "{{.Replicas}} x"]);
        assert_eq!(words[2], ["secret", "create", "s", "-"]);
        assert_eq!(one.steps[1].until.as_deref(), Some("1/1"));
        assert_eq!((one.steps[2].input.as_str(), &one.steps[0].until), ("a b", &None));
        assert!(one.steps[3].sorted && one.steps[3].line == "docker ps" && !one.steps[0].sorted);
        assert_eq!(
            super::words("docker inspect $(docker ps -q) x"),
            Ok(["docker", "inspect", "$(docker ps -q", "x"].map(String::from).to_vec())
        );
        assert_eq!(one.steps[0].line, "docker service create --name a IMAGE \"two words\" ''");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, expected) in [
            ("docker ps", "line 1: it is in no section"),
            ("section a", "line 1: a section has a name and a sentence"),
            ("section a: A.\nls", "line 2: `ls` is no docker command"),
            ("section a: A.\ndocker 'x", "line 2: ' is not closed in `docker 'x`"),
            ("section a: A.\nuntil x", "line 2: after `until` come a text, a colon and a docker command"),
            ("section a: A.\ndocker ps\nsection a: A.", "line 3: there is a section a already"),
            ("section a: A.", "section a has no commands"),
            ("# nothing", "there are no sections"),
        ] {
            assert_eq!(parse(text), Err(expected.into()), "{text}");
        }
    }
}
