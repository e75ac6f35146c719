//! Names for services that were created without one: an adjective and the surname of somebody who moved computing on.

use seams::{Rand, RandExt as _};

const ADJECTIVES: [&str; 40] = [
    "able", "brave", "bright", "calm", "candid", "careful", "cheerful", "clear", "clever", "cosy", "daring", "eager",
    "early", "fair", "fine", "firm", "frank", "gentle", "glad", "golden", "grand", "happy", "honest", "keen", "kind",
    "lively", "loyal", "merry", "modest", "neat", "noble", "patient", "plain", "proud", "quick", "quiet", "steady",
    "sunny", "tidy", "warm",
];
const SURNAMES: [&str; 40] = [
    "allen",
    "babbage",
    "backus",
    "berners",
    "boole",
    "cerf",
    "clarke",
    "codd",
    "dijkstra",
    "engelbart",
    "floyd",
    "goldberg",
    "gray",
    "hamilton",
    "hamming",
    "hoare",
    "hopper",
    "johnson",
    "kay",
    "kleene",
    "knuth",
    "lamport",
    "liskov",
    "lovelace",
    "mccarthy",
    "milner",
    "minsky",
    "naur",
    "neumann",
    "perlis",
    "perlman",
    "postel",
    "ritchie",
    "shannon",
    "sutherland",
    "tarjan",
    "thompson",
    "turing",
    "wilkes",
    "wirth",
];

/// A random name for which `taken` is false. With few names left a number is added, which then makes it free.
pub(crate) fn generate(rand: &dyn Rand, taken: impl Fn(&str) -> bool) -> String {
    for _ in 0..16 {
        let name = pick(rand);
        if !taken(&name) {
            return name;
        }
    }
    let base = pick(rand);
    (1..u64::MAX).map(|n| format!("{base}{n}")).find(|name| !taken(name)).unwrap_or(base)
}

fn pick(rand: &dyn Rand) -> String {
    let of = |words: &[&'static str]| words[rand.below(words.len() as u64) as usize];
    format!("{}_{}", of(&ADJECTIVES), of(&SURNAMES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_service_name_and_a_taken_one_is_not_used() {
        let rand = seams::real::OsRand;
        for _ in 0..200 {
            let name = generate(&rand, |_| false);
            assert!(name.parse::<model::ServiceName>().is_ok(), "{name}");
        }
        let name = generate(&rand, |n| n.bytes().all(|b| !b.is_ascii_digit()));
        assert!(name.ends_with('1'), "{name}");
    }
}
