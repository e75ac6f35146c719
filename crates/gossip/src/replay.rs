//! The replay window.

use crate::frame::Nonce;
use std::collections::BTreeSet;

/// A datagram's time may differ from ours by this much, milliseconds. Clocks of a cluster have to agree better than that
/// for certificates anyway.
pub(crate) const SKEW_MS_MAX: u64 = 120_000;
/// Nonces remembered. A node of a cluster of 300 receives about 600 datagrams a second.
const REMEMBERED_MAX: usize = 65_536;

/// Remembers what was received within the window. What is older than the window is refused for its age, so that nothing
/// has to be remembered for ever.
#[derive(Debug, Default)]
pub(crate) struct ReplayWindow {
    seen: BTreeSet<(u64, Nonce)>,
    /// Nothing older than this is accepted: memory for it was given up.
    floor_ms: u64,
}

/// Why a datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Stale,
    Replayed,
}

// === impl ReplayWindow ===

impl ReplayWindow {
    /// Takes note of an authentic datagram.
    pub(crate) fn admit(&mut self, sent_ms: u64, nonce: Nonce, now_ms: u64) -> Result<(), Refused> {
        let oldest = now_ms.saturating_sub(SKEW_MS_MAX);
        // Our clock may have jumped back: the memory of what now lies in the future is still needed, so nothing but age
        // against the present clock removes it.
        while self.seen.first().is_some_and(|(at, _)| *at < oldest) {
            self.seen.pop_first();
        }
        let newest = now_ms.saturating_add(SKEW_MS_MAX);
        if self.floor_ms > newest {
            // It jumped back by more than the window. As it stands, the floor would shut everybody out until the clock is there again.
            self.floor_ms = 0;
        }
        if sent_ms < oldest || sent_ms < self.floor_ms || sent_ms > newest {
            return Err(Refused::Stale);
        }
        if !self.seen.insert((sent_ms, nonce)) {
            return Err(Refused::Replayed);
        }
        if self.seen.len() > REMEMBERED_MAX {
            if self.seen.last().is_some_and(|(at, _)| *at > newest) {
                // From before such a jump: too far ahead to be accepted now, so the last that needs to be remembered.
                self.seen.pop_last();
            } else if let Some((forgotten, _)) = self.seen.pop_first() {
                self.floor_ms = self.floor_ms.max(forgotten.saturating_add(1));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(n: u32) -> Nonce {
        let mut nonce = [0; 24];
        nonce[..4].copy_from_slice(&n.to_be_bytes());
        nonce
    }

    #[test]
    fn a_datagram_passes_once_within_the_window() {
        let now = 1_000_000_000;
        let mut window = ReplayWindow::default();
        assert_eq!(window.admit(now, nonce(1), now), Ok(()));
        assert_eq!(window.admit(now, nonce(1), now), Err(Refused::Replayed));
        assert_eq!(window.admit(now, nonce(2), now), Ok(()));
        assert_eq!(window.admit(now - SKEW_MS_MAX - 1, nonce(3), now), Err(Refused::Stale));
        assert_eq!(window.admit(now + SKEW_MS_MAX + 1, nonce(4), now), Err(Refused::Stale));
        assert_eq!(window.admit(now + SKEW_MS_MAX, nonce(5), now), Ok(()), "a sender whose clock is ahead");
        // Long after, the memory is gone but the age is not.
        assert_eq!(window.admit(now, nonce(1), now + SKEW_MS_MAX + 1), Err(Refused::Stale));
        assert_eq!(window.seen.len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_what_was_forgotten_is_refused() {
        let now = 1_000_000_000;
        let mut window = ReplayWindow::default();
        for n in 0..REMEMBERED_MAX as u32 + 10 {
            assert_eq!(window.admit(now + u64::from(n / 4), nonce(n), now), Ok(()));
        }
        assert_eq!(window.seen.len(), REMEMBERED_MAX);
        assert_eq!(window.admit(now, nonce(0), now), Err(Refused::Stale));
    }

    #[test]
    fn a_full_memory_does_not_shut_anybody_out_when_the_clock_jumps_back() {
        let (ahead, now) = (2_000_000_000, 1_000_000_000);
        let mut window = ReplayWindow::default();
        for n in 0..REMEMBERED_MAX as u32 + 10 {
            assert_eq!(window.admit(ahead + u64::from(n / 4), nonce(n), ahead), Ok(()));
        }
        // As they come from nodes that are some milliseconds apart.
        for (n, late) in (0..1000_u32).zip([0, 30, 5, 80].into_iter().cycle()) {
            let sent = now + u64::from(n) - late;
            assert_eq!(window.admit(sent, nonce(100_000 + n), now + u64::from(n)), Ok(()), "{n}");
            assert_eq!(window.admit(sent, nonce(100_000 + n), now + u64::from(n)), Err(Refused::Replayed), "{n}");
        }
        assert_eq!(window.seen.len(), REMEMBERED_MAX);
    }
}
