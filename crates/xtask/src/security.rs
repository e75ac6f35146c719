//! `docs/SECURITY.md` has a row for every point of the attack list, and every row names a test that there is, or says what it
//! waits for.

use crate::run;
use crate::specification::{Named, quoted};
use std::collections::BTreeMap;
use std::fs;

const DOCUMENT: &str = "docs/SECURITY.md";
/// How many points the list has.
const POINTS: u32 = 37;
/// The words of a row without a test.
const WAITING: [&str; 2] = ["waits for", "no test"];

/// What is wrong with the table, a line each.
pub(crate) fn offences() -> Vec<String> {
    match fs::read_to_string(run::root().join(DOCUMENT)) {
        Ok(text) => of_table(&text),
        Err(error) => vec![format!("{DOCUMENT}: {error}")],
    }
}

fn of_table(text: &str) -> Vec<String> {
    // A row begins with its number: `| 7 | what is tried | tests | result |`.
    let number = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse::<u32>().ok();
    let rows: BTreeMap<u32, (usize, &str)> =
        text.lines().enumerate().filter_map(|(index, line)| Some((number(line)?, (index + 1, line)))).collect();
    let missing = (1..=POINTS).filter(|point| !rows.contains_key(point));
    let mut found: Vec<String> =
        missing.map(|point| format!("{DOCUMENT}: point {point} of the attack list has no row")).collect();
    for (point, (line, row)) in &rows {
        let tested = quoted(row).any(|text| Named::parse(text).is_some());
        if !tested && !WAITING.iter().any(|word| row.contains(word)) {
            found.push(format!("{DOCUMENT}:{line}: point {point} names no test and does not say what it waits for"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_needs_a_row_and_a_row_a_test_or_a_reason() {
        let rows = |but: u32| {
            let row = |n: u32| format!("| {n} | something | `ca:token::a_test` | denied |");
            (1..=POINTS).filter(|n| *n != but).map(row).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(of_table(&rows(0)), Vec::<String>::new());
        assert_eq!(of_table(&rows(4)), ["docs/SECURITY.md: point 4 of the attack list has no row"]);
        let waiting = format!("{}\n| 4 | something | waits for the network | |", rows(4));
        assert_eq!(of_table(&waiting), Vec::<String>::new());
        let bare = format!("{}\n| 4 | something | `of course` | |", rows(4));
        assert_eq!(of_table(&bare), ["docs/SECURITY.md:37: point 4 names no test and does not say what it waits for"]);
    }
}
