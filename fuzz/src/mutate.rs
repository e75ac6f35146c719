//! From an honest input to a bent one.

use crate::dice::Dice;

/// What numbers are replaced with: the edges of every width.
const EDGES: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x00ff_ffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];
/// What numbers in text are replaced with.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1e999",
    "-0.0",
    "0.5",
    "NaN",
    "null",
    "9007199254740993",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
];
/// How often a piece is repeated at most: deeper than any parser's patience.
const REPEATS: [usize; 6] = [2, 16, 100, 129, 1000, 20_000];

/// What a target gives the fuzzer to work with.
#[derive(Debug, Clone, Copy)]
pub struct Material<'a> {
    /// Honest inputs.
    pub corpus: &'a [Vec<u8>],
    /// Words that matter.
    pub words: &'a [&'a [u8]],
    /// Longer inputs are cut.
    pub bytes_max: usize,
}

/// The input of a roll of the dice. Now and then it is an honest one, so that what must work is seen to work.
pub fn input(dice: &mut Dice, material: Material<'_>) -> Vec<u8> {
    let mut bytes = dice.pick(material.corpus).cloned().unwrap_or_default();
    if dice.once_in(50) {
        return bytes;
    }
    let mut more = 1;
    while more > 0 {
        bend(dice, material, &mut bytes);
        // Usually one to three changes: much more is noise, which every parser refuses at its first byte.
        more = usize::from(!dice.once_in(3));
    }
    bytes.truncate(material.bytes_max);
    bytes
}

fn bend(dice: &mut Dice, material: Material<'_>, bytes: &mut Vec<u8>) {
    let at = dice.below(bytes.len());
    match dice.below(13) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        1 if !bytes.is_empty() => bytes[at] = dice.word() as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(range(dice, bytes.len()))),
        4 => insert(bytes, at, &random(dice)),
        5 => edge(dice, bytes, at),
        6 => number(dice, bytes, at),
        7 | 8 => {
            let word = dice.pick(material.words).map_or(&b""[..], |w| w);
            if dice.once_in(2) { insert(bytes, at, word) } else { overwrite(bytes, at, word) }
        }
        9 => splice(dice, material, bytes),
        10 => {
            let piece = bytes[range(dice, bytes.len())].to_vec();
            insert(bytes, at, &piece);
        }
        11 => repeat(dice, material, bytes, at),
        _ => swap(dice, bytes),
    }
}

fn range(dice: &mut Dice, length: usize) -> std::ops::Range<usize> {
    let from = dice.below(length);
    let most = if dice.once_in(4) { length - from } else { (length - from).min(16) };
    from..from + dice.below(most + 1)
}

fn random(dice: &mut Dice) -> Vec<u8> {
    (0..=dice.below(12)).map(|_| dice.word() as u8).collect()
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = (at + piece.len()).min(bytes.len());
    bytes.splice(at..end, piece.iter().copied());
}

/// A number of some width and byte order is replaced by one from an edge: lengths that lie.
fn edge(dice: &mut Dice, bytes: &mut Vec<u8>, at: usize) {
    let value = dice.pick(&EDGES).copied().unwrap_or_default();
    let width = [1, 2, 4, 8][dice.below(4)];
    let mut piece = value.to_be_bytes()[8 - width..].to_vec();
    if dice.once_in(2) {
        piece.reverse();
    }
    overwrite(bytes, at, &piece);
}

/// A number in text is replaced.
fn number(dice: &mut Dice, bytes: &mut Vec<u8>, from: usize) {
    let Some(start) = bytes[from..].iter().position(u8::is_ascii_digit).map(|n| from + n) else { return };
    let end = bytes[start..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |n| start + n);
    let with = dice.pick(&NUMBERS).map_or("", |n| n);
    bytes.splice(start..end, with.bytes());
}

/// The head of this and the tail of another.
fn splice(dice: &mut Dice, material: Material<'_>, bytes: &mut Vec<u8>) {
    let Some(other) = dice.pick(material.corpus) else { return };
    let (cut, from) = (dice.below(bytes.len() + 1), dice.below(other.len() + 1));
    bytes.truncate(cut);
    bytes.extend_from_slice(&other[from..]);
}

/// A word or a piece many times over: depth bombs, long lists, long names.
fn repeat(dice: &mut Dice, material: Material<'_>, bytes: &mut Vec<u8>, at: usize) {
    let word = dice.pick(material.words).map(|w| w.to_vec()).filter(|_| !dice.once_in(3));
    let piece = word.unwrap_or_else(|| bytes[range(dice, bytes.len())].to_vec());
    let times = dice.pick(&REPEATS).copied().unwrap_or(2);
    if !piece.is_empty() {
        let times = times.min(material.bytes_max / piece.len());
        insert(bytes, at, &piece.repeat(times));
    }
}

fn swap(dice: &mut Dice, bytes: &mut [u8]) {
    if !bytes.is_empty() {
        let (a, b) = (dice.below(bytes.len()), dice.below(bytes.len()));
        bytes.swap(a, b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_many_within_bounds_and_repeatable() {
        let corpus = [b"hello 17 world".to_vec(), Vec::new(), b"{\"a\":[1,2]}".to_vec()];
        let material = Material { corpus: &corpus, words: &[b"[", b"\x00"], bytes_max: 300 };
        let make = |i| input(&mut Dice::new("t", 1, i), material);
        let mut seen: std::collections::BTreeSet<Vec<u8>> = Default::default();
        for i in 0..2000 {
            let bytes = make(i);
            assert!(bytes.len() <= 300);
            assert_eq!(bytes, make(i));
            seen.insert(bytes);
        }
        assert!(seen.len() > 1000, "{}", seen.len());
        assert!(seen.contains(&corpus[0]), "honest inputs come, too");
        assert!(seen.iter().any(|b| b.starts_with(b"[[[[[[[[[[[[[[[[")), "depth bombs come, too");
    }
}
