//! `docs/compat.md` has a row for every feature of Docker's swarm on the list, and each says whether it works and names a test
//! that there is.

use crate::run;
use crate::specification::{Named, quoted};
use std::collections::BTreeMap;
use std::fs;

const DOCUMENT: &str = "docs/compat.md";
/// What comes before the number of a row, and how many rows there are of it: of the cluster, of nodes, of services.
const ROWS: [(char, u32); 3] = [('C', 10), ('N', 6), ('S', 20)];
/// What a row may say of itself in its third column.
const STATES: [&str; 3] = ["works", "refused", "kept"];

/// What is wrong with the table, a line each.
pub(crate) fn offences() -> Vec<String> {
    match fs::read_to_string(run::root().join(DOCUMENT)) {
        Ok(text) => of_table(&text),
        Err(error) => vec![format!("{DOCUMENT}: {error}")],
    }
}

/// A row begins with its name: `| C7 | what it is | works | tests |`.
fn name_of(line: &str) -> Option<(char, u32)> {
    let name = line.strip_prefix("| ")?.split(' ').next()?;
    let (kind, number) = (name.chars().next()?, name.get(1..)?.parse().ok()?);
    ROWS.iter().any(|(known, count)| *known == kind && (1..=*count).contains(&number)).then_some((kind, number))
}

fn of_table(text: &str) -> Vec<String> {
    let rows: BTreeMap<(char, u32), (usize, &str)> =
        text.lines().enumerate().filter_map(|(index, line)| Some((name_of(line)?, (index + 1, line)))).collect();
    let wanted = ROWS.iter().flat_map(|(kind, count)| (1..=*count).map(|number| (*kind, number)));
    let missing = wanted.filter(|name| !rows.contains_key(name));
    let mut found: Vec<String> =
        missing.map(|(kind, number)| format!("{DOCUMENT}: the feature {kind}{number} has no row")).collect();
    for ((kind, number), (line, row)) in &rows {
        let state = row.split(" | ").nth(2).unwrap_or_default();
        if !STATES.iter().any(|known| state.starts_with(known)) {
            found.push(format!("{DOCUMENT}:{line}: {kind}{number} does not begin with one of: {}", STATES.join(", ")));
        }
        if !quoted(row).any(|text| Named::parse(text).is_some()) {
            found.push(format!("{DOCUMENT}:{line}: {kind}{number} names no test"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_needs_a_row_a_state_and_a_test() {
        let row = |kind: char, n: u32| format!("| {kind}{n} | something | works | `ca:token::a_test` |");
        let all = || ROWS.iter().flat_map(|(kind, count)| (1..=*count).map(move |n| (*kind, n)));
        let but = |left_out: (char, u32), instead: &str| {
            let rows = all().filter(|name| *name != left_out).map(|(kind, n)| row(kind, n)).collect::<Vec<_>>();
            of_table(&format!("{}\n{instead}\n", rows.join("\n")))
        };
        assert_eq!(but(('x', 0), ""), Vec::<String>::new());
        assert_eq!(but(('N', 6), ""), ["docs/compat.md: the feature N6 has no row"]);
        let bare = "| S20 | something | works | `of course` |";
        assert_eq!(but(('S', 20), bare), ["docs/compat.md:36: S20 names no test"]);
        let silent = "| C1 | something | perhaps | `ca:token::a_test` |";
        assert_eq!(but(('C', 1), silent), ["docs/compat.md:36: C1 does not begin with one of: works, refused, kept"]);
        // Invariants of the simulation have names like these, and no row here.
        assert_eq!(but(('x', 0), "| S21 | something | 1, 2 | no test |"), Vec::<String>::new());
    }
}
