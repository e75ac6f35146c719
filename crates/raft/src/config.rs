//! Settings, with the reason for each default.

use std::sync::Arc;
use std::time::Duration;

/// Settings of one Raft member. All members of a group should use the same ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftConfig {
    /// How often the leader tells its followers that it lives.
    pub heartbeat: Duration,
    /// Shortest random wait before a follower whose leader's lease has run out starts an election.
    pub election_min: Duration,
    /// Longest such wait. It is also the leader's lease: a follower that heard from its leader within `election_max` neither
    /// campaigns nor votes. So an election starts between `election_max + election_min` and `2 * election_max` after the
    /// last heartbeat that arrived.
    pub election_max: Duration,
    /// Applied entries after which the log is compacted into a snapshot.
    pub snapshot_every: u64,
    /// Entries that stay in the log behind a snapshot, so that a follower which is only a little behind needs no snapshot.
    pub keep_behind_snapshot: u64,
    /// An append that is unanswered for so long makes the leader drop the stream and start over.
    pub append_timeout: Duration,
    /// Longest wait for a whole snapshot to be sent and installed.
    pub snapshot_timeout: Duration,
    /// Largest snapshot that is accepted from a peer, in bytes; it is held in memory.
    pub snapshot_bytes_max: usize,
    /// Entries behind the leader up to which a learner counts as caught up.
    pub promote_lag_max: u64,
    /// A follower that has not answered for so long counts as unreachable when a membership change is judged.
    pub unreachable_after: Duration,
}

// === impl RaftConfig ===

impl Default for RaftConfig {
    /// Chosen for two shared cores: a leader that is held up for 0.25 s after a heartbeat was due keeps its lease, and a killed
    /// one is replaced 0.41 to 0.8 s later (the lease of 0.4 s counts from the last heartbeat, which was up to 0.15 s before
    /// the kill, and the random wait of 0.16 to 0.4 s follows it). Shorter ones elect for nothing when the machine is busy
    /// compiling. Heartbeats, and openraft's ticks of which there are five for each, are most of what an idle manager does:
    /// at 0.1 s they took it over half a percent of a core.
    fn default() -> Self {
        RaftConfig {
            heartbeat: Duration::from_millis(150),
            // openraft wants it above the heartbeat.
            election_min: Duration::from_millis(160),
            election_max: Duration::from_millis(400),
            snapshot_every: 10_000,
            keep_behind_snapshot: 500,
            append_timeout: Duration::from_secs(2),
            snapshot_timeout: Duration::from_secs(60),
            snapshot_bytes_max: 512 << 20,
            promote_lag_max: 100,
            unreachable_after: Duration::from_secs(2),
        }
    }
}

impl RaftConfig {
    /// The same for members that are further apart: heartbeats come `heartbeat_tick` times as slowly, and elections after
    /// `election_tick` tenths of the time. One and ten are what it was.
    ///
    /// The proportion of the two is not the user's: a vote is given as long as the shortest wait for an election, and a heartbeat as
    /// long as the pause to the next one, so an election that came sooner would be lost in the way and repeated. Fewer than ten
    /// election ticks for each heartbeat tick count as ten.
    #[must_use]
    pub fn slowed(self, heartbeat_tick: u32, election_tick: u32) -> RaftConfig {
        let beats = heartbeat_tick.max(1);
        let tenths = election_tick.max(beats.saturating_mul(10));
        let heartbeat = self.heartbeat.saturating_mul(beats);
        let elections = |d: Duration| d.saturating_mul(tenths) / 10;
        RaftConfig {
            heartbeat,
            election_min: elections(self.election_min),
            election_max: elections(self.election_max),
            // A heartbeat, the pause after it (openraft rounds it up by a fifth), and another one that was lost.
            unreachable_after: self.unreachable_after.max(heartbeat.saturating_mul(4)),
            ..self
        }
    }

    /// A leader that no majority has answered for so long has probably been replaced.
    pub fn quorum_silence_max(&self) -> Duration {
        self.election_max.saturating_mul(5) / 2
    }

    /// openraft's form of it. The error text says which setting is wrong.
    pub(crate) fn to_openraft(&self) -> Result<Arc<openraft::Config>, String> {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: "swarmlite".into(),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            install_snapshot_timeout: ms(self.snapshot_timeout),
            // Entries; bytes are bounded by the log reader, so that small ones travel in large batches.
            max_payload_entries: 1024,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            replication_lag_threshold: self.snapshot_every.saturating_add(self.keep_behind_snapshot),
            max_in_snapshot_log_to_keep: self.keep_behind_snapshot,
            // Purging entry by entry would sync the disk for each.
            purge_batch_size: (self.snapshot_every / 10).clamp(1, 256),
            enable_pre_vote: Some(true),
            // A removed leader hands over as soon as its removal has reached the followers.
            removed_leader_step_down: openraft::StepDownPolicy::After(50),
            // A peer that was down must be back in the group soon after it answers again.
            backoff: "50ms 100ms 200ms ..500ms".into(),
            // A restarted leader must win an election: its state machine starts from the snapshot.
            enable_leader_restore: Some(false),
            ..openraft::Config::default()
        };
        config.validate().map(Arc::new).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_a_bad_order_is_refused() {
        assert!(RaftConfig::default().to_openraft().is_ok());
        let bad = RaftConfig { election_min: Duration::from_millis(50), ..RaftConfig::default() };
        assert!(bad.to_openraft().unwrap_err().contains("election"));
    }

    #[test]
    fn a_slowed_group_keeps_the_proportions_that_make_elections_succeed() {
        let ms = Duration::from_millis;
        let base = RaftConfig::default();
        assert_eq!(base.clone().slowed(1, 10), base);
        let slow = base.clone().slowed(3, 40);
        assert_eq!((slow.heartbeat, slow.election_min, slow.election_max), (ms(450), ms(640), ms(1600)));
        assert_eq!(base.clone().slowed(1, 3), base, "ten for each tick of the heartbeat at least");
        assert_eq!(base.clone().slowed(2, 11), base.clone().slowed(2, 20));
        for heartbeat in 0..=5 {
            for election in 0..=50 {
                let slow = base.clone().slowed(heartbeat, election);
                assert!(slow.to_openraft().is_ok(), "{heartbeat} {election}");
                // Two heartbeats may be lost within the lease, and a member that is well answers in time to count as such.
                assert!(slow.heartbeat * 2 < slow.election_max, "{heartbeat} {election}");
                assert!(
                    slow.heartbeat * 3 < slow.unreachable_after.min(slow.quorum_silence_max() * 2),
                    "{heartbeat} {election}"
                );
            }
        }
    }
}
