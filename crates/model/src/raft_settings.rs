//! What a user can say about the managers' Raft.

use crate::limits::{
    ELECTION_TICK_MAX, HEARTBEAT_TICK_MAX, KEPT_FOR_SLOW_FOLLOWERS_DEFAULT, KEPT_FOR_SLOW_FOLLOWERS_MAX,
    OLD_SNAPSHOTS_MAX,
};
use serde::{Deserialize, Serialize};

/// How managers keep their log and how patient they are with each other, beyond how often they take a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RaftSettings {
    /// Snapshots that a manager keeps beside its newest one, as a safety copy.
    pub keep_old_snapshots: u64,
    /// Log entries that a manager keeps though its newest snapshot covers them: a manager that is no further behind needs no
    /// snapshot to catch up.
    pub log_entries_for_slow_followers: u64,
    /// How patient they are.
    pub ticks: RaftTicks,
}

/// How patient managers are with each other. Docker's defaults, 1 and 10, stand for what suits one data centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RaftTicks {
    /// A leader's heartbeats are so many times as far apart.
    pub heartbeat: u32,
    /// A silent leader is replaced after so many tenths of the time. Less than ten for each tick of the heartbeat counts as ten.
    pub election: u32,
}

/// Settings that managers cannot work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRaftSettings {
    /// Too many old snapshots.
    #[error(
        "Raft.KeepOldSnapshots is {0}: a manager keeps at most {OLD_SNAPSHOTS_MAX} old snapshots, each as large as the swarm's whole state"
    )]
    OldSnapshots(u64),
    /// Too long a log.
    #[error(
        "Raft.LogEntriesForSlowFollowers is {0}: a manager keeps at most {KEPT_FOR_SLOW_FOLLOWERS_MAX} log entries behind a snapshot"
    )]
    SlowFollowers(u64),
    /// Heartbeats too far apart, or none.
    #[error(
        "Raft.HeartbeatTick is {0}: it must be at least 1 and at most {HEARTBEAT_TICK_MAX}, which is enough for any two places on Earth"
    )]
    Heartbeat(i64),
    /// Elections too late, or none.
    #[error(
        "Raft.ElectionTick is {0}: it must be at least 1 and at most {ELECTION_TICK_MAX}, or what waits for a new leader would give up before there is one"
    )]
    Election(i64),
    /// Elections before a heartbeat was due.
    #[error(
        "Raft.ElectionTick is {election} and Raft.HeartbeatTick is {heartbeat}: the election tick must be greater than the heartbeat tick"
    )]
    Order {
        /// The heartbeat tick.
        heartbeat: u32,
        /// The election tick.
        election: u32,
    },
}

// === impl RaftSettings ===

impl Default for RaftSettings {
    fn default() -> Self {
        RaftSettings {
            keep_old_snapshots: 0,
            log_entries_for_slow_followers: KEPT_FOR_SLOW_FOLLOWERS_DEFAULT,
            ticks: RaftTicks::default(),
        }
    }
}

impl RaftSettings {
    /// Whether managers can work with these.
    ///
    /// # Errors
    /// [`InvalidRaftSettings`] says which of them they cannot work with.
    pub fn check(&self) -> Result<(), InvalidRaftSettings> {
        if self.keep_old_snapshots > OLD_SNAPSHOTS_MAX {
            return Err(InvalidRaftSettings::OldSnapshots(self.keep_old_snapshots));
        }
        if self.log_entries_for_slow_followers > KEPT_FOR_SLOW_FOLLOWERS_MAX {
            return Err(InvalidRaftSettings::SlowFollowers(self.log_entries_for_slow_followers));
        }
        Ok(())
    }
}

// === impl RaftTicks ===

impl Default for RaftTicks {
    fn default() -> Self {
        RaftTicks { heartbeat: 1, election: 10 }
    }
}

impl RaftTicks {
    /// Ticks as a user gives them.
    ///
    /// # Errors
    /// [`InvalidRaftSettings`] when they are out of bounds, or an election would come before a heartbeat.
    pub fn parse(heartbeat: i64, election: i64) -> Result<RaftTicks, InvalidRaftSettings> {
        let within = |ticks: i64, max: u32| u32::try_from(ticks).ok().filter(|t| (1..=max).contains(t));
        let heartbeat = within(heartbeat, HEARTBEAT_TICK_MAX).ok_or(InvalidRaftSettings::Heartbeat(heartbeat))?;
        let election = within(election, ELECTION_TICK_MAX).ok_or(InvalidRaftSettings::Election(election))?;
        match election > heartbeat {
            true => Ok(RaftTicks { heartbeat, election }),
            false => Err(InvalidRaftSettings::Order { heartbeat, election }),
        }
    }

    /// Ticks from a file or from another node: what is out of bounds (0 is what an older release says) is brought within.
    pub fn bounded(heartbeat: u32, election: u32) -> RaftTicks {
        let or_default = |ticks: u32, default: u32| if ticks == 0 { default } else { ticks };
        let default = RaftTicks::default();
        RaftTicks {
            heartbeat: or_default(heartbeat, default.heartbeat).min(HEARTBEAT_TICK_MAX),
            election: or_default(election, default.election).min(ELECTION_TICK_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_that_managers_cannot_work_with_are_refused_by_name() {
        for (heartbeat, election, says) in [
            (0, 10, "Raft.HeartbeatTick is 0"),
            (-1, 10, "Raft.HeartbeatTick is -1"),
            (6, 50, "at most 5"),
            (1, 51, "Raft.ElectionTick is 51"),
            (1, i64::from(u32::MAX) + 11, "Raft.ElectionTick is 4294967306"),
            (3, 3, "the election tick must be greater than the heartbeat tick"),
            (1, 1, "the election tick must be greater than the heartbeat tick"),
        ] {
            let error = RaftTicks::parse(heartbeat, election).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
        // What Docker's API documentation shows.
        assert_eq!(RaftTicks::parse(1, 3), Ok(RaftTicks { heartbeat: 1, election: 3 }));
        assert_eq!(RaftTicks::parse(1, 10), Ok(RaftTicks::default()));
        assert_eq!(RaftTicks::parse(5, 50), Ok(RaftTicks { heartbeat: 5, election: 50 }));
    }

    #[test]
    fn what_an_older_release_does_not_say_is_the_default_and_nothing_is_out_of_bounds() {
        assert_eq!(RaftTicks::bounded(0, 0), RaftTicks::default());
        assert_eq!(RaftTicks::bounded(2, 0), RaftTicks { heartbeat: 2, election: 10 });
        assert_eq!(RaftTicks::bounded(u32::MAX, u32::MAX), RaftTicks { heartbeat: 5, election: 50 });
        let nothing: RaftSettings = crate::persisted::decode(b"\x80").expect("every field has a default");
        assert_eq!(nothing, RaftSettings::default());
    }

    #[test]
    fn a_typo_does_not_fill_the_managers_disks() {
        let with = |keep_old_snapshots, log_entries_for_slow_followers| RaftSettings {
            keep_old_snapshots,
            log_entries_for_slow_followers,
            ..RaftSettings::default()
        };
        assert_eq!(with(OLD_SNAPSHOTS_MAX, KEPT_FOR_SLOW_FOLLOWERS_MAX).check(), Ok(()));
        let error = with(OLD_SNAPSHOTS_MAX + 1, 1).check().expect_err("too many");
        assert!(error.to_string().starts_with("Raft.KeepOldSnapshots is 101: a manager keeps at most 100"), "{error}");
        let error = with(0, u64::MAX).check().expect_err("too many");
        assert!(error.to_string().starts_with("Raft.LogEntriesForSlowFollowers is 18446744073709551615"), "{error}");
    }
}
