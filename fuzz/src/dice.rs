//! Randomness that follows from a seed: SplitMix64, which needs no state beyond one word.

/// A seeded generator.
#[derive(Debug, Clone)]
pub struct Dice(u64);

// === impl Dice ===

impl Dice {
    /// The dice for one input of one target.
    pub fn new(target: &str, seed: u64, iteration: u64) -> Dice {
        let name =
            target.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut dice = Dice(name ^ seed.rotate_left(32) ^ iteration.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.word();
        dice
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when the bound is.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { usize::try_from(self.word() % bound as u64).unwrap_or(0) }
    }

    /// One of several; `None` when there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_has_its_own_dice_and_always_the_same() {
        let roll = |target, seed, i| Dice::new(target, seed, i).word();
        assert_eq!(roll("a", 1, 2), roll("a", 1, 2));
        assert_ne!(roll("a", 1, 2), roll("b", 1, 2));
        assert_ne!(roll("a", 1, 2), roll("a", 2, 2));
        assert_ne!(roll("a", 1, 2), roll("a", 1, 3));
        let mut dice = Dice::new("a", 1, 1);
        assert!((0..1000).all(|_| dice.below(7) < 7));
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.pick::<u8>(&[]), None);
    }
}
