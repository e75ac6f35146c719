//! Time zones, by their IANA names, from a database that is part of the program: what a name means must not depend on the
//! machine.

use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of a time zone, `Europe/Zurich` for example, in the database's own spelling.
///
/// A name is checked when a user gives it. What was stored is believed: a release whose database lacks a name still has to
/// read the state, and takes such a zone for UTC.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeZoneName(String);

/// A string that names no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone '{0}': use a name of the IANA time zone database, such as Europe/Zurich, or UTC")]
pub struct UnknownTimeZone(String);

// === impl TimeZoneName ===

impl TimeZoneName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn zone(&self) -> TimeZone {
        TimeZoneDatabase::bundled().get(&self.0).unwrap_or(TimeZone::UTC)
    }
}

impl Default for TimeZoneName {
    /// UTC.
    fn default() -> Self {
        TimeZoneName("UTC".into())
    }
}

impl std::str::FromStr for TimeZoneName {
    type Err = UnknownTimeZone;
    fn from_str(name: &str) -> Result<Self, UnknownTimeZone> {
        let unknown = || UnknownTimeZone(name.chars().take(64).collect());
        let zone = TimeZoneDatabase::bundled().get(name).map_err(|_| unknown())?;
        zone.iana_name().map(|n| TimeZoneName(n.to_owned())).ok_or_else(unknown)
    }
}

impl fmt::Display for TimeZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TimeZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
