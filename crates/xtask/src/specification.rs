//! Every test that `docs/SPECIFICATION.md`, `docs/SECURITY.md` or `docs/compat.md` names must exist: a promise whose test was
//! renamed away is no promise.

use crate::run;
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 3] = ["docs/SPECIFICATION.md", "docs/SECURITY.md", "docs/compat.md"];
/// Where the scenarios of the control loops are.
const SCENARIOS: &str = "crates/control/tests/scenarios";
/// Packages with tests of their own beside the crates.
const NEIGHBOURS: [&str; 2] = ["fuzz", "simulation"];

/// Tests that are named and not there, a line each.
pub(crate) fn offences() -> Vec<String> {
    DOCUMENTS.into_iter().flat_map(of_document).collect()
}

fn of_document(document: &str) -> Vec<String> {
    let Ok(text) = fs::read_to_string(run::root().join(document)) else { return Vec::new() };
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for named in quoted(line).filter_map(Named::parse) {
            if !named.exists() {
                let (test, place) = (&named.test, named.place.display());
                found.push(format!("{document}:{}: no test `{test}` in {place}", index + 1));
            }
        }
    }
    found
}

/// The pieces of a line between backticks.
pub(crate) fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// A test as the document names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// A file or directory, relative to the top of the repository.
    place: PathBuf,
    /// What the file holds of it: a function's name, or a scenario's title.
    test: String,
}

/// Before the title of a scenario in its file.
const TITLE: &str = "== ";

// === impl Named ===

impl Named {
    /// `crate/file::test`, `crate:module::test`, `chaos::test`, `conformance::story::test`, `scenario file: title`; anything
    /// else is no test.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some((file, title)) = text.strip_prefix("scenario ").and_then(|rest| rest.split_once(": ")) {
            return Some(Self { place: Path::new(SCENARIOS).join(file), test: format!("{TITLE}{title}") });
        }
        let (path, test) = text.rsplit_once("::")?;
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-/:".contains(&byte))
        };
        if !plain(text) {
            return None;
        }
        let room = |name: &str| run::root().join("crates").join(name).is_dir();
        let first = path.split("::").next().unwrap_or(path);
        let place = match (first.split_once('/'), first.split_once(':')) {
            _ if matches!(first, "chaos" | "conformance") => Path::new("tests/tests").join(first),
            (Some((name, file)), _) if room(name) => Path::new("crates").join(name).join("tests").join(file),
            (None, Some((name, _))) if room(name) => Path::new("crates").join(name).join("src"),
            (Some((name, file)), _) if NEIGHBOURS.contains(&name) => Path::new(name).join("tests").join(file),
            (None, Some((name, _))) if NEIGHBOURS.contains(&name) => Path::new(name).join("src"),
            _ => return None,
        };
        Some(Self { place, test: test.to_string() })
    }

    fn exists(&self) -> bool {
        let place = run::root().join(&self.place);
        let mut files = Vec::new();
        collect(&place, &mut files);
        collect(&place.with_extension("rs"), &mut files);
        if self.test.starts_with(TITLE) {
            let scenarios = fs::read_to_string(place.with_extension("txt")).unwrap_or_default();
            return scenarios.lines().any(|line| line == self.test);
        }
        let definition = format!("fn {}(", self.test);
        files.iter().any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&definition)))
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_path_buf());
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        collect(&entry.path(), files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tests() {
        for (text, expected) in [
            ("raft/power_cut::nothing_is_lost", Some(("crates/raft/tests/power_cut", "nothing_is_lost"))),
            ("cli:opts::mount::a_test", Some(("crates/cli/src", "a_test"))),
            ("conformance::membership::by_docker", Some(("tests/tests/conformance", "by_docker"))),
            ("fuzz:targets::a_test", Some(("fuzz/src", "a_test"))),
            ("simulation/runs::a_test", Some(("simulation/tests/runs", "a_test"))),
            ("chaos::a_test", Some(("tests/tests/chaos", "a_test"))),
            ("scenario jobs: Two at a time", Some(("crates/control/tests/scenarios/jobs", "== Two at a time"))),
            ("checks::all_is_well", None),
            ("std::process::Command", None),
            ("swarm init, join", None),
        ] {
            let expected = expected.map(|(place, test)| Named { place: place.into(), test: test.into() });
            assert_eq!(Named::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn this_very_test_exists_and_another_does_not() {
        let named = |test: &str| Named { place: "crates/xtask/src".into(), test: test.into() };
        assert!(named("this_very_test_exists_and_another_does_not").exists());
        assert!(!named(&["no", "such", "test"].join("_")).exists());
        let scenario = |title: &str| Named::parse(&format!("scenario replicated: {title}")).expect("a scenario");
        assert!(scenario("Three replicas go to three nodes").exists());
        assert!(!scenario("Three replicas").exists());
    }
}
