//! What every object carries.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A wall-clock time in nanoseconds since the Unix epoch. For records and for rules that people set in seconds
/// (restart delays, windows); every comparison tolerates a clock that went backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

// === impl Timestamp ===

impl Timestamp {
    /// The time that is `since_epoch` after 1970.
    pub fn from_unix(since_epoch: Duration) -> Timestamp {
        Timestamp(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }

    /// This time, later by `by`; saturates.
    pub fn plus(self, by: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Version and times of an object, kept by the store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// The log index of the object's last change; Docker's `Version.Index`. Set by the store at apply; zero before.
    pub version: u64,
    /// When the object was created, by the clock of the manager that proposed it.
    pub created_at: Timestamp,
    /// When the object was last changed, by the clock of the manager that proposed the change.
    pub updated_at: Timestamp,
}
