//! The house rules that neither rustfmt nor clippy knows.

use crate::{arrows, matrix, run, security, specification};
use std::fs;
use std::path::{Path, PathBuf};

/// A file that grew past this wants to be two.
const LINES_MAX: usize = 700;
/// Where the rules apply.
const WATCHED: &[&str] = &["crates", "fuzz", "simulation", "tests", "docs", "proto", ".ci", ".cargo"];

pub(crate) fn command() -> Result<(), String> {
    let files = check()?;
    println!("tidy: {files} files");
    Ok(())
}

/// Returns how many files were looked at, or every offence, a line each.
pub(crate) fn check() -> Result<usize, String> {
    let root = run::root();
    let mut files = Vec::new();
    for directory in WATCHED {
        collect(&root.join(directory), &mut files);
    }
    for name in ["README.md", "Cargo.toml", "clippy.toml"] {
        files.push(root.join(name));
    }
    files.sort();
    let mut offences = arrows::offences();
    offences.extend(specification::offences());
    offences.extend(security::offences());
    offences.extend(matrix::offences());
    for path in &files {
        let Ok(bytes) = fs::read(path) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let name = path.strip_prefix(&root).unwrap_or(path).to_string_lossy().into_owned();
        let file = SourceFile { name: &name, text: &text, checkout: &root.to_string_lossy() };
        offences.extend(file.offences());
        if name.ends_with(".md") {
            offences.extend(broken_links(path, &name, &text));
        }
    }
    if offences.is_empty() { Ok(files.len()) } else { Err(offences.join("\n")) }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if entry.file_name() != "target" && entry.file_name() != "proptest-regressions" {
                collect(&path, files);
            }
        } else {
            files.push(path);
        }
    }
}

struct SourceFile<'a> {
    name: &'a str,
    text: &'a str,
    /// The absolute path of the checkout, which no file may hold.
    checkout: &'a str,
}

// === impl SourceFile ===

impl SourceFile<'_> {
    fn offences(&self) -> Vec<String> {
        let mut found = self.in_every_file();
        if self.name.ends_with(".rs") {
            found.extend(self.in_rust());
        }
        found
    }

    fn in_every_file(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            let mut say = |what: &str| found.push(format!("{}:{}: {what}", self.name, index + 1));
            if line.ends_with([' ', '\t']) {
                say("trailing space");
            }
            if line.contains(self.checkout) {
                say("holds the path of this checkout");
            }
            if ["/home/", "/Users/"].iter().any(|home| line.contains(home)) && !self.names_the_rules() {
                say("holds a path of someone's machine");
            }
        }
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            found.push(format!("{}: no newline at the end", self.name));
        }
        found
    }

    fn in_rust(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.is_documented() {
            found.push(format!("{}:1: begins without `//!`: what is this file for?", self.name));
        }
        let lines = self.text.lines().count();
        if lines > LINES_MAX {
            found.push(format!("{}: {lines} lines; more than {LINES_MAX} want to be two files", self.name));
        }
        let mut rest = self.text.lines().enumerate().peekable();
        while let Some((index, line)) = rest.next() {
            let mut say = |what: String| found.push(format!("{}:{}: {what}", self.name, index + 1));
            if !self.names_the_rules() {
                for word in ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX", "#[ignore"] {
                    if line.contains(word) {
                        say(format!("`{word}`"));
                    }
                }
            }
            let selects = !line.trim_start().starts_with("//") && line.trim_end().ends_with("select! {");
            if selects && rest.peek().is_none_or(|(_, next)| next.trim() != "biased;") {
                say("`select!` without `biased;`: its choice would be random".into());
            }
        }
        found
    }

    fn is_documented(&self) -> bool {
        if self.name.ends_with("/tests.rs") {
            return true;
        }
        let code = |line: &&str| !line.trim().is_empty() && !line.starts_with("#!");
        match self.text.lines().find(code) {
            None => true,
            Some(first) => {
                first.starts_with("//!")
                    || self.text.lines().filter(code).all(|line| {
                        line.starts_with("mod ") || line.starts_with("pub mod ") || line.starts_with("pub use ")
                    })
            }
        }
    }

    /// This very file has to spell out what it looks for.
    fn names_the_rules(&self) -> bool {
        self.name == "crates/xtask/src/tidy.rs"
    }
}

/// Links of a Markdown file to files that are not there.
fn broken_links(path: &Path, name: &str, text: &str) -> Vec<String> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for piece in line.split("](").skip(1) {
            let Some((link, _)) = piece.split_once(')') else { continue };
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !directory.join(file).exists() {
                found.push(format!("{name}:{}: the link to `{link}` leads nowhere", index + 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offences(name: &str, text: &str) -> Vec<String> {
        SourceFile { name, text, checkout: "/a/checkout" }.offences()
    }

    #[test]
    fn a_good_file_has_none() {
        assert_eq!(offences("crates/a/src/b.rs", "//! Docs.\n\nfn f() {}\n"), Vec::<String>::new());
        assert_eq!(offences("crates/a/src/b/tests.rs", "use super::*;\n"), Vec::<String>::new());
        assert_eq!(offences("tests/tests/all.rs", "mod one;\nmod two;\n"), Vec::<String>::new());
    }

    #[test]
    fn each_rule_bites() {
        for (text, expected) in [
            ("fn f() {}\n", "b.rs:1: begins without `//!`: what is this file for?"),
            ("//! D\nfn f() { todo!() }\n", "b.rs:2: `todo!(`"),
            ("//! D\nfn f() {} \n", "b.rs:2: trailing space"),
            ("//! D\nfn f() {}", "b.rs: no newline at the end"),
            ("//! D\n// see /a/checkout/x\n", "b.rs:2: holds the path of this checkout"),
            (
                "//! D\n    tokio::select! {\n        a = b => {}\n",
                "b.rs:2: `select!` without `biased;`: its choice would be random",
            ),
        ] {
            assert_eq!(offences("b.rs", text), [expected], "{text}");
        }
        let long = format!("//! D\n{}", "// x\n".repeat(LINES_MAX));
        assert_eq!(offences("b.rs", &long), ["b.rs: 701 lines; more than 700 want to be two files"]);
    }

    #[test]
    fn a_link_that_leads_nowhere() {
        let here = run::root().join("README.md");
        let text = "[a](Cargo.toml) [b](https://example.org/x) [c](#top)\n[d](no/such/file.md#x)\n";
        assert_eq!(
            broken_links(&here, "README.md", text),
            ["README.md:2: the link to `no/such/file.md#x` leads nowhere"]
        );
    }
}
