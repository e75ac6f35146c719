//! Randomness that follows from the seed.

use parking_lot::Mutex;
use seams::{Rand, RandExt as _};
use std::time::Duration;

/// A generator (xoshiro256++, seeded by SplitMix64). Each part of the world has its own, so that one part's appetite does not
/// change another's luck.
#[derive(Debug)]
pub struct SeededRand(Mutex<[u64; 4]>);

/// A chance, in thousandths.
pub type PerMille = u64;

// === impl SeededRand ===

impl SeededRand {
    /// The generator of a part of the world.
    pub fn new(seed: u64, part: &str) -> SeededRand {
        let mut state =
            part.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        SeededRand(Mutex::new([next(), next(), next(), next()]))
    }

    /// True with this chance.
    pub fn chance(&self, chance: PerMille) -> bool {
        self.below(1000) < chance
    }

    /// A number in the range, both ends included.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A duration in the range, in whole milliseconds.
    pub fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// One of them; `None` when there are none.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0))
    }

    fn word(&self) -> u64 {
        let mut s = self.0.lock();
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }
}

impl Rand for SeededRand {
    fn fill(&self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            chunk.copy_from_slice(&self.word().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_part_give_one_sequence() {
        let draw = |seed, part| SeededRand::new(seed, part).id25();
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }

    #[test]
    fn chances_are_about_right() {
        let rand = SeededRand::new(1, "chances");
        let hits = (0..10_000).filter(|_| rand.chance(250)).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| (3..=5).contains(&rand.between(3, 5))));
        assert_eq!(rand.pick::<u8>(&[]), None);
    }
}
