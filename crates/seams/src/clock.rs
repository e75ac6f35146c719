//! Wall-clock time.

use std::time::Duration;

/// Tells the wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// Time since the Unix epoch. May jump in either direction; never subtract two readings to measure a duration.
    fn unix_now(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

// === impl SystemClock ===

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // this is the seam
    fn unix_now(&self) -> Duration {
        // A clock before 1970 is a broken clock; zero makes every certificate check fail loudly instead of panicking.
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }
}
