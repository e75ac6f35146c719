//! Only permissive licences, in all dependencies of all crates (dev and build dependencies too).

use crate::run;
use std::collections::BTreeMap;

/// Licences that ask for no more than attribution.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub(crate) fn command() -> Result<(), String> {
    let checked = check()?;
    println!("licences: {checked} packages, all permissive");
    Ok(())
}

/// Returns how many packages were looked at.
pub(crate) fn check() -> Result<usize, String> {
    // For this platform (Linux, the only one there is a Swarmlite for).
    let args = ["tree", "--workspace", "--all-features", "--edges", "normal,build,dev"];
    let listing = run::output(run::cargo(&args).args(["--prefix", "none", "--format", "{p}\t{l}"]))?;
    let packages = parse(&listing);
    let refused: Vec<String> = packages
        .iter()
        .filter(|(_, licence)| !allowed(licence))
        .map(|(package, licence)| {
            let licence = if licence.is_empty() { "none given" } else { licence };
            format!(
                "{package}: licence `{licence}` is not on the list in crates/xtask/src/licences.rs; use another crate"
            )
        })
        .collect();
    if refused.is_empty() { Ok(packages.len()) } else { Err(refused.join("\n")) }
}

/// Package → licence expression.
fn parse(listing: &str) -> BTreeMap<String, String> {
    listing
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(package, licence)| (package.trim().to_string(), licence.trim_end_matches("(*)").trim().to_string()))
        .collect()
}

/// An SPDX expression that an allowed choice satisfies.
fn allowed(expression: &str) -> bool {
    // Old manifests say `MIT/Apache-2.0` for `OR`.
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // Without precedence: for AND every part must be allowed, for OR one of each AND's alternatives. That is stricter
    // than the grammar for `A OR B AND C`, never more lenient.
    expression.split(" AND ").all(|part| part.split(" OR ").any(|licence| ALLOWED.contains(&licence.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for (expression, expected) in [
            ("MIT", true),
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0 OR MIT", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
            ("Apache-2.0 AND ISC", true),
            ("MPL-2.0", false),
            ("MIT AND MPL-2.0", false),
            ("LGPL-2.1-or-later", false),
            ("", false),
        ] {
            assert_eq!(allowed(expression), expected, "{expression}");
        }
    }

    #[test]
    fn listing() {
        let packages = parse("a v1.0.0\tMIT\nb v2.0.0 (proc-macro)\tMIT OR Apache-2.0 (*)\n\na v1.0.0\tMIT (*)\n");
        assert_eq!(packages.len(), 2);
        assert_eq!(packages["b v2.0.0 (proc-macro)"], "MIT OR Apache-2.0");
    }
}
