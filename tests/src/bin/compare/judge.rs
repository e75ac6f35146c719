//! Where the two differ, and which differences are known and explained.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use swarmlite_tests::Outcome;

/// What stands for a value that is not there.
const ABSENT: &str = "absent";

/// Stands for a star that is meant as one.
const STAR: &str = "\u{2605}";

/// What a command did on one side, masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

/// One thing in which they differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Which part: `exit code`, `stdout`, `stderr`, or the path of a JSON value.
    pub(crate) at: String,
    /// Docker Swarm's.
    pub(crate) docker: String,
    /// Swarmlite's.
    pub(crate) lite: String,
}

/// A known difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its name.
    pub(crate) name: String,
    /// Patterns of section, command and part.
    pub(crate) places: Vec<[String; 3]>,
    /// Pattern of what Docker Swarm says.
    docker: String,
    /// Pattern of what Swarmlite says.
    lite: String,
    /// Why that is so.
    pub(crate) because: String,
}

// === impl Seen ===

impl Seen {
    /// Of a command that is not recorded.
    pub(crate) fn nothing() -> Self {
        Self { code: 0, stdout: String::new(), stderr: String::new() }
    }

    /// All in which another side differs.
    pub(crate) fn differences(&self, lite: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        if self.code != lite.code {
            differences.push(Difference::new("exit code", &self.code.to_string(), &lite.code.to_string()));
        }
        match (json(&self.stdout), json(&lite.stdout)) {
            (Some(docker), Some(lite)) => values(&leaves(&docker), &leaves(&lite), &mut differences),
            _ => lines("stdout", &self.stdout, &lite.stdout, &mut differences),
        }
        lines("stderr", &self.stderr, &lite.stderr, &mut differences);
        differences
    }
}

/// An object or list, if the text is one.
pub(crate) fn json(text: &str) -> Option<Value> {
    if text.starts_with(['{', '[']) { serde_json::from_str(text).ok() } else { None }
}

/// The values in a JSON text, by path; versions and process numbers are not compared.
pub(crate) fn leaves(value: &Value) -> BTreeMap<String, String> {
    fn walk(path: String, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(path, value, found);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, value) in items.iter().enumerate() {
                    walk(format!("{path}[{index}]"), value, found);
                }
            }
            _ if path.ends_with("Version.Index") => drop(found.insert(path, "VERSION".into())),
            _ if path.ends_with("ContainerStatus.PID") => drop(found.insert(path, "PID".into())),
            value => drop(found.insert(path, value.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    walk(String::new(), value, &mut found);
    found
}

fn values(docker: &BTreeMap<String, String>, lite: &BTreeMap<String, String>, differences: &mut Vec<Difference>) {
    let paths: BTreeSet<&String> = docker.keys().chain(lite.keys()).collect();
    for path in paths {
        let of = |side: &BTreeMap<String, String>| side.get(path).cloned().unwrap_or_else(|| ABSENT.into());
        let (docker, lite) = (of(docker), of(lite));
        if docker != lite {
            differences.push(Difference::new(path, &docker, &lite));
        }
    }
}

/// Lines that only one of them has, each run of them as one difference.
fn lines(at: &str, docker: &str, lite: &str, differences: &mut Vec<Difference>) {
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (lite.lines().collect(), docker.lines().collect());
    let common = longest_common(&theirs, &ours);
    let (mut from_docker, mut from_lite) = (0, 0);
    for (in_docker, in_lite) in common.into_iter().chain([(theirs.len(), ours.len())]) {
        if from_docker < in_docker || from_lite < in_lite {
            let text = |lines: &[&str]| if lines.is_empty() { ABSENT.to_string() } else { lines.join("\n") };
            let docker = text(&theirs[from_docker..in_docker]);
            differences.push(Difference::new(at, &docker, &text(&ours[from_lite..in_lite])));
        }
        (from_docker, from_lite) = (in_docker + 1, in_lite + 1);
    }
}

/// The places of a longest common subsequence.
fn longest_common(one: &[&str], other: &[&str]) -> Vec<(usize, usize)> {
    let mut lengths = vec![vec![0u32; other.len() + 1]; one.len() + 1];
    for i in (0..one.len()).rev() {
        for j in (0..other.len()).rev() {
            lengths[i][j] =
                if one[i] == other[j] { lengths[i + 1][j + 1] + 1 } else { lengths[i + 1][j].max(lengths[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut places) = (0, 0, Vec::new());
    while i < one.len() && j < other.len() {
        if one[i] == other[j] {
            places.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    places
}

// === impl Difference ===

impl Difference {
    /// A difference.
    pub(crate) fn new(at: &str, docker: &str, lite: &str) -> Self {
        Self { at: at.into(), docker: docker.into(), lite: lite.into() }
    }
}

// === impl Rule ===

impl Rule {
    /// Whether it explains this difference of this command in this section.
    pub(crate) fn explains(&self, section: &str, command: &str, difference: &Difference) -> bool {
        let [text, place] = [[&difference.docker, &difference.lite], [&self.docker, &self.lite]];
        self.places.iter().any(|[in_section, in_command, at]| {
            matches(in_section, section) && matches(in_command, command) && matches(at, &difference.at)
        }) && matches(place[0], text[0])
            && matches(place[1], text[1])
    }
}

/// Reads the list of known differences: blocks with empty lines between them, as in
///
/// ```text
/// rule vip
/// where: SECTION / COMMAND / PART     (several such lines: any of them)
/// docker: TEXT
/// swarmlite: TEXT
/// because: a sentence, which may go on
///   in indented lines
/// ```
///
/// `*` stands for anything, `\*` for a star, `\n` for the end of a line. Without `docker:` or `swarmlite:`, anything goes.
pub(crate) fn rules(text: &str) -> Outcome<Vec<Rule>> {
    let mut rules: Vec<Rule> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = |error: &str| format!("line {}: {error}", index + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("rule ") {
            if rules.iter().any(|rule| rule.name == name) {
                return Err(at(&format!("there is a rule {name} already")));
            }
            let anything = || "*".to_string();
            let (places, because) = (Vec::new(), String::new());
            rules.push(Rule { name: name.into(), places, docker: anything(), lite: anything(), because });
            continue;
        }
        let rule = rules.last_mut().ok_or_else(|| at("it is in no rule"))?;
        if line.starts_with(' ') {
            rule.because.extend([" ", line.trim()]);
            continue;
        }
        let (key, value) = line.split_once(": ").ok_or_else(|| at("a line has a key and a value"))?;
        match key {
            "where" => rule.places.push(place(value).ok_or_else(|| at("`where` takes SECTION / COMMAND / PART"))?),
            "docker" => rule.docker = value.replace("\\n", "\n"),
            "swarmlite" => rule.lite = value.replace("\\n", "\n"),
            "because" => rule.because = value.trim().into(),
            _ => return Err(at("its key is none of where, docker, swarmlite, because")),
        }
    }
    match rules.iter().find(|rule| rule.places.is_empty() || rule.because.is_empty()) {
        Some(rule) => Err(format!("rule {} says not where, or not why", rule.name)),
        None => Ok(rules),
    }
}

fn place(text: &str) -> Option<[String; 3]> {
    let parts: Vec<String> = text.split(" / ").map(|part| part.trim().to_string()).collect();
    parts.try_into().ok()
}

/// Whether a text is as a pattern says, in which `*` stands for anything.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    // A star that is meant is written with a backslash.
    let pattern = pattern.replace("\\*", STAR);
    let text = text.replace('*', STAR);
    let text = text.as_str();
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(code: i32, stdout: &str, stderr: &str) -> Seen {
        Seen { code, stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*f", "abcde", false),
            ("ab*bc", "abc", false),
            ("a*\nb", "a x\nb", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*\\*:80", "x *:80", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn texts_differ_in_runs_of_lines() {
        let docker = seen(0, "a\nb\nc\nd", "");
        let lite = seen(1, "a\nx\ny\nc\nd\ne", "no");
        let expected = [
            Difference::new("exit code", "0", "1"),
            Difference::new("stdout", "b", "x\ny"),
            Difference::new("stdout", ABSENT, "e"),
            Difference::new("stderr", ABSENT, "no"),
        ];
        assert_eq!(docker.differences(&lite), expected);
        assert_eq!(docker.differences(&docker), []);
    }

    #[test]
    fn json_differs_in_values() {
        let docker = seen(0, r#"[{"A": {"B": 1, "C": []}, "Version": {"Index": 4}, "L": ["x", "y"]}]"#, "");
        let lite = seen(0, r#"[{"A": {"B": 2, "D": null}, "Version": {"Index": 9}, "L": ["x"]}]"#, "");
        let expected = [
            Difference::new("[0].A.B", "1", "2"),
            Difference::new("[0].A.C", "[]", ABSENT),
            Difference::new("[0].A.D", ABSENT, "null"),
            Difference::new("[0].L[1]", "\"y\"", ABSENT),
        ];
        assert_eq!(docker.differences(&lite), expected);
    }

    #[test]
    fn rules_explain_what_they_name() {
        let text = "# known\nrule vip\nwhere: * / docker service inspect* / *VirtualIPs*\nwhere: x / * / stdout\n\
                    swarmlite: absent\nbecause: There is no\n  network.\n";
        let rules = rules(text).expect("they are good");
        let [rule] = rules.as_slice() else { panic!("{rules:?}") };
        assert_eq!((rule.name.as_str(), rule.because.as_str()), ("vip", "There is no network."));
        for (section, command, at, lite, expected) in [
            ("a", "docker service inspect w", "[0].Endpoint.VirtualIPs[0].Addr", "absent", true),
            ("a", "docker service ls", "[0].Endpoint.VirtualIPs[0].Addr", "absent", false),
            ("x", "docker service ls", "stdout", "absent", true),
            ("x", "docker service ls", "stdout", "here", false),
        ] {
            let difference = Difference::new(at, "1.2.3.4", lite);
            assert_eq!(rule.explains(section, command, &difference), expected, "{section} {command} {at}");
        }
        for (text, expected) in [
            ("where: a / b / c", "line 1: it is in no rule"),
            ("rule a\nwhere: a / b", "line 2: `where` takes SECTION / COMMAND / PART"),
            ("rule a\nwho: me", "line 2: its key is none of where, docker, swarmlite, because"),
            ("rule a\nwhere: a / b / c", "rule a says not where, or not why"),
            ("rule a\nrule a", "line 2: there is a rule a already"),
        ] {
            assert_eq!(super::rules(text), Err(expected.into()));
        }
    }
}
