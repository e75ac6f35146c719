//! Words that several texts for people share.

use std::fmt;

/// `1 node`, `3 nodes`.
pub(crate) fn several<N: fmt::Display + PartialEq + From<u8>>(n: N, one: &str, many: &str) -> String {
    if n == N::from(1) { format!("1 {one}") } else { format!("{n} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_none_are_many() {
        let said = [0_u64, 1, 2].map(|n| several(n, "node", "nodes"));
        assert_eq!(said, ["0 nodes", "1 node", "2 nodes"]);
    }
}
