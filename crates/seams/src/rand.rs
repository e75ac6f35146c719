//! Randomness.

/// A source of random bytes. The real one is the operating system's; the simulation's is seeded.
pub trait Rand: Send + Sync + 'static {
    /// Fills `buf` with random bytes, good enough for keys and tokens.
    fn fill(&self, buf: &mut [u8]);
}

/// What is commonly wanted from a [`Rand`].
pub trait RandExt: Rand {
    /// A uniform 64-bit number.
    fn next_u64(&self) -> u64 {
        let mut b = [0; 8];
        self.fill(&mut b);
        u64::from_le_bytes(b)
    }

    /// A number in `0..bound`; zero when `bound` is zero. The modulo bias is below 2^-32 for bounds below 2^32.
    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// 25 lower-case base-36 characters, the form of SwarmKit's object ids (identity/randomid.go: 128 random bits, of
    /// which the 25-digit form keeps all; the first digit is below `f`).
    fn id25(&self) -> String {
        let mut b = [0; 16];
        self.fill(&mut b);
        let mut n = u128::from_le_bytes(b);
        let mut out = [b'0'; 25];
        for slot in out.iter_mut().rev() {
            *slot = b"0123456789abcdefghijklmnopqrstuvwxyz"[(n % 36) as usize];
            n /= 36;
        }
        out.iter().map(|c| char::from(*c)).collect()
    }
}

impl<T: Rand + ?Sized> RandExt for T {}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRand;

// === impl OsRand ===

impl Rand for OsRand {
    #[allow(clippy::disallowed_methods)] // this is the seam
    fn fill(&self, buf: &mut [u8]) {
        use ::rand::Rng as _;
        ::rand::rng().fill_bytes(buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_25_base36_digits_and_no_two_are_equal() {
        let ids: std::collections::BTreeSet<String> = (0..1000).map(|_| OsRand.id25()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|i| i.len() == 25 && i.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())));
    }
}
