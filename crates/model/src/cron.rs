//! Jobs that run by a schedule.

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

mod schedule;
mod zone;

pub use schedule::{InvalidSchedule, Schedule};
pub use zone::{TimeZoneName, UnknownTimeZone};

/// When a job runs by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronSpec {
    /// The times.
    pub schedule: Schedule,
    /// The time zone that they are in.
    pub timezone: TimeZoneName,
    /// How late a run may still start: one that was missed for longer is left out.
    pub missed_run_window: Duration,
    /// What happens when the last run is not over.
    pub concurrency: Concurrency,
    /// Finished runs whose tasks are kept; the last one always is.
    pub history: u32,
}

/// What happens when a run is due and the last one is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Concurrency {
    /// The new one is left out.
    #[default]
    Forbid,
    /// Both go on.
    Allow,
    /// The old one is stopped.
    Replace,
}

/// How far a schedule was followed. Written by the control loops only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CronState {
    /// Every time of the schedule until then was looked at: it was run, or left out.
    pub considered_until: Timestamp,
    /// Runs that were left out since the service was made, because they were too late or the last one was not over.
    pub left_out: u64,
    /// The run that began last ([`crate::JobRun::iteration`]); `None` before the first.
    pub started: Option<u64>,
    /// The schedule and the time zone that were followed: what another one says of the time before it was set is nobody's
    /// wish.
    pub followed: String,
    /// The service's [`crate::TaskSpec::force_update`] that was seen: a user who raises it asks for a run now.
    pub forced: u64,
    /// The run that began last, and the earlier ones that were not over then; each with how many of its tasks have to end well
    /// (0 of a global job's). What an update asks for is asked of the runs to come. Empty when none has begun since this is
    /// written down.
    pub open: BTreeMap<u64, u64>,
}

// === impl CronSpec ===

impl CronSpec {
    /// The first time after `after`; `None` when there is none any more.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next_after(after, &self.timezone)
    }
}
