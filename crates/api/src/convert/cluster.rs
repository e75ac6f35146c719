//! The cluster, both ways.

use super::policy::policy;
use super::service_in::log_driver;
use super::service_out::log_driver as log_driver_out;
use super::{time, version};
use docker_api::{
    CaConfig, ClusterInfo, DispatcherConfig, EncryptionConfig, Failure, GoDuration, JoinTokens, OrchestrationConfig,
    RaftConfig, Swarm, SwarmSpec, TaskDefaults, TlsInfo, unsupported_in_swarm_spec,
};
use model::limits::SNAPSHOT_INTERVAL_MAX;
use model::{Cluster, ClusterSpec};
use std::time::Duration;

/// What Docker shows for settings that this Raft has no use for: its own defaults (moby `daemon/cluster/swarm.go`).
const KEPT_FOR_SLOW_FOLLOWERS: u64 = 500;
const ELECTION_TICK: i64 = 10;
const HEARTBEAT_TICK: i64 = 1;
/// The shortest validity of a node's certificate (SwarmKit ca/certificates.go).
const CERT_EXPIRY_MIN: Duration = Duration::from_secs(3600);

/// A typo should not make every node send thousands of heartbeats a second.
const HEARTBEAT_PERIOD_MIN: Duration = Duration::from_millis(100);

/// The cluster without its tokens.
pub(crate) fn cluster_info(c: &Cluster, tls: &TlsInfo) -> ClusterInfo {
    ClusterInfo {
        id: c.id.to_string(),
        version: version(c.meta.version),
        created_at: time(c.meta.created_at),
        updated_at: time(c.meta.updated_at),
        spec: SwarmSpec { ca_config: ca_config(c), ..spec_out(&c.spec) },
        tls_info: tls.clone(),
        root_rotation_in_progress: c.security.root_rotation.is_some(),
        default_addr_pool: c.default_addr_pool.clone(),
        subnet_size: c.subnet_size,
        data_path_port: c.data_path_port.into(),
    }
}

/// The cluster with its tokens.
pub(crate) fn swarm(c: &Cluster, tls: &TlsInfo) -> Swarm {
    let info = cluster_info(c, tls);
    Swarm {
        id: info.id,
        version: info.version,
        created_at: info.created_at,
        updated_at: info.updated_at,
        spec: info.spec,
        tls_info: info.tls_info,
        root_rotation_in_progress: info.root_rotation_in_progress,
        default_addr_pool: info.default_addr_pool,
        subnet_size: info.subnet_size,
        data_path_port: info.data_path_port,
        join_tokens: JoinTokens {
            worker: c.join_tokens.worker.clone().into(),
            manager: c.join_tokens.manager.clone().into(),
        },
    }
}

/// The authority's settings. Its key is nobody's to see, and a certificate without one would be taken for a change of the root
/// when the spec is sent back.
fn ca_config(c: &Cluster) -> CaConfig {
    CaConfig {
        node_cert_expiry: c.spec.node_cert_expiry.into(),
        force_rotate: c.security.force_rotate,
        ..CaConfig::default()
    }
}

fn spec_out(s: &ClusterSpec) -> SwarmSpec {
    SwarmSpec {
        name: s.name.clone(),
        labels: s.labels.clone(),
        orchestration: OrchestrationConfig { task_history_retention_limit: Some(s.task_history_retention_limit) },
        raft: RaftConfig {
            snapshot_interval: s.snapshot_interval,
            keep_old_snapshots: Some(0),
            log_entries_for_slow_followers: KEPT_FOR_SLOW_FOLLOWERS,
            election_tick: ELECTION_TICK,
            heartbeat_tick: HEARTBEAT_TICK,
        },
        dispatcher: DispatcherConfig { heartbeat_period: s.heartbeat_period.into() },
        encryption_config: EncryptionConfig { auto_lock_managers: s.autolock },
        task_defaults: TaskDefaults { log_driver: s.task_log_driver.as_ref().map(log_driver_out) },
        ..SwarmSpec::default()
    }
}

/// What a user sends, over what there is: what is left out (or zero) stays as it was, as in SwarmKit.
pub(crate) fn apply_swarm_spec(sent: SwarmSpec, mut to: ClusterSpec) -> Result<ClusterSpec, Failure> {
    if !matches!(sent.name.as_str(), "" | "default") {
        return Err(Failure::bad_request("swarm spec must be named \"default\""));
    }
    if let Some(unsupported) = unsupported_in_swarm_spec(&sent) {
        return Err(Failure::bad_request(unsupported));
    }
    check_raft(&sent.raft)?;
    if sent.raft.snapshot_interval > SNAPSHOT_INTERVAL_MAX {
        return Err(Failure::invalid(format_args!(
            "Raft.SnapshotInterval is {}: at most {SNAPSHOT_INTERVAL_MAX} log entries lie between two snapshots",
            sent.raft.snapshot_interval
        )));
    }
    if sent.raft.snapshot_interval > 0 {
        to.snapshot_interval = sent.raft.snapshot_interval;
    }
    to.policy = policy(&sent.labels)?;
    to.labels = sent.labels;
    if let Some(driver) = sent.task_defaults.log_driver {
        // One without a name and options is the engine's own again.
        let says_something = !driver.name.is_empty() || !driver.options.is_empty();
        to.task_log_driver = says_something.then(|| log_driver(driver));
    }
    to.autolock = sent.encryption_config.auto_lock_managers;
    if let Some(limit) = sent.orchestration.task_history_retention_limit {
        to.task_history_retention_limit = limit;
    }
    if sent.dispatcher.heartbeat_period != GoDuration(0) {
        let period = sent.dispatcher.heartbeat_period.to_std();
        let period = period.ok_or_else(|| Failure::invalid("heartbeat time period cannot be a negative duration"))?;
        if period < HEARTBEAT_PERIOD_MIN {
            return Err(Failure::invalid(format_args!(
                "the heartbeat period must be at least {HEARTBEAT_PERIOD_MIN:?}"
            )));
        }
        to.heartbeat_period = period;
    }
    if sent.ca_config.node_cert_expiry != GoDuration(0) {
        let expiry = sent.ca_config.node_cert_expiry.to_std();
        let long_enough = expiry.filter(|e| *e >= CERT_EXPIRY_MIN);
        to.node_cert_expiry = long_enough.ok_or_else(|| {
            Failure::invalid(format_args!("minimum certificate expiry time is: {}", GoDuration::from(CERT_EXPIRY_MIN)))
        })?;
    }
    Ok(to)
}

/// Settings of another Raft: as shown, or nothing.
fn check_raft(raft: &RaftConfig) -> Result<(), Failure> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    for (field, value, shown) in [
        ("Raft.ElectionTick", raft.election_tick, ELECTION_TICK),
        ("Raft.HeartbeatTick", raft.heartbeat_tick, HEARTBEAT_TICK),
        (
            "Raft.LogEntriesForSlowFollowers",
            number(raft.log_entries_for_slow_followers),
            number(KEPT_FOR_SLOW_FOLLOWERS),
        ),
    ] {
        if value != 0 && value != shown {
            return Err(Failure::bad_request(format_args!(
                "{field} is not supported by this release of Swarmlite: its Raft has no such setting; leave it out, or say {shown}"
            )));
        }
    }
    Ok(())
}
