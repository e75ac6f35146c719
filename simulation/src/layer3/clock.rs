//! The wall clocks of the simulated machines.

use seams::Clock;
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// When every simulation begins: 2026-01-01T00:00:00Z.
pub const EPOCH: Duration = Duration::from_secs(1_767_225_600);

thread_local! {
    static ELAPSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Moves the time of the simulation: all machines' clocks, and what the C library says.
pub fn set_elapsed(elapsed: Duration) {
    ELAPSED.set(elapsed);
    crate::trace::set_now(elapsed);
    let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    // Far from zero, where code that subtracts from an instant would panic.
    interpose::set_clocks(ns(elapsed + Duration::from_secs(86_400)), ns(EPOCH + elapsed));
}

/// One machine's clock.
#[derive(Debug, Default)]
pub struct SimClock {
    offset_ms: AtomicI64,
}

// === impl SimClock ===

impl SimClock {
    /// Sets it forward or back.
    pub fn jump(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Sets it right.
    pub fn set_right(&self) {
        self.offset_ms.store(0, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn unix_now(&self) -> Duration {
        let offset = self.offset_ms.load(Ordering::Relaxed);
        let by = Duration::from_millis(offset.unsigned_abs());
        let now = EPOCH + ELAPSED.get();
        if offset < 0 { now.saturating_sub(by) } else { now + by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_jumps_alone_and_is_set_right() {
        let (a, b) = (SimClock::default(), SimClock::default());
        set_elapsed(Duration::from_secs(5));
        a.jump(-60_000);
        assert_eq!(b.unix_now() - a.unix_now(), Duration::from_secs(60));
        a.jump(3_660_000);
        assert_eq!(a.unix_now() - b.unix_now(), Duration::from_secs(3600));
        a.set_right();
        assert_eq!(a.unix_now(), EPOCH + Duration::from_secs(5));
    }
}
