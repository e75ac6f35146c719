//! The cluster, both ways.

use super::policy::policy;
use super::service_in::log_driver;
use super::service_out::log_driver as log_driver_out;
use super::{time, version};
use docker_api::{
    CaConfig, ClusterInfo, DispatcherConfig, EncryptionConfig, Failure, GoDuration, JoinTokens, OrchestrationConfig,
    RaftConfig, Swarm, SwarmSpec, TaskDefaults, TlsInfo,
};
use model::limits::{EXTERNAL_CA_BYTES_MAX, EXTERNAL_CAS_MAX, SNAPSHOT_INTERVAL_MAX};
use model::{Cluster, ClusterSpec, ExternalCa, InvalidRaftSettings, RaftSettings, RaftTicks};
use std::time::Duration;

/// The one protocol of authorities elsewhere.
const CFSSL: &str = "cfssl";
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
        external_cas: c.spec.external_cas.iter().map(external_ca_out).collect(),
        ..CaConfig::default()
    }
}

fn external_ca_out(ca: &ExternalCa) -> docker_api::ExternalCa {
    docker_api::ExternalCa {
        protocol: CFSSL.into(),
        url: ca.url.clone(),
        options: ca.options.clone(),
        ca_cert: ca.ca_cert_pem.clone(),
    }
}

/// All of them: what is left out is gone, as in Docker.
fn external_cas(sent: Vec<docker_api::ExternalCa>) -> Result<Vec<ExternalCa>, Failure> {
    if sent.len() > EXTERNAL_CAS_MAX {
        return Err(Failure::invalid(format_args!("at most {EXTERNAL_CAS_MAX} external CAs are accepted")));
    }
    sent.into_iter().map(external_ca).collect()
}

fn external_ca(sent: docker_api::ExternalCa) -> Result<ExternalCa, Failure> {
    if !sent.protocol.eq_ignore_ascii_case(CFSSL) {
        let told: String = sent.protocol.chars().take(32).collect();
        return Err(Failure::bad_request(format_args!("invalid protocol: {told:?}")));
    }
    let options: usize = sent.options.iter().map(|(key, value)| key.len() + value.len()).sum();
    if sent.url.len() + sent.ca_cert.len() + options > EXTERNAL_CA_BYTES_MAX {
        return Err(Failure::invalid(format_args!(
            "an external CA's URL, options and certificate have at most {EXTERNAL_CA_BYTES_MAX} bytes together"
        )));
    }
    let uri = sent.url.parse::<http::Uri>().ok().filter(|uri| {
        // A port that is none would be read over, and another one asked.
        let whole = |a: &http::uri::Authority| a.port().is_some() || a.as_str() == a.host();
        let plain = uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@') && whole(a));
        uri.scheme_str() == Some("https") && plain
    });
    if uri.is_none() {
        return Err(Failure::invalid(format_args!(
            "external CA URL {:?} is not one like https://HOST[:PORT]/PATH",
            sent.url.chars().take(200).collect::<String>()
        )));
    }
    if !sent.ca_cert.trim().is_empty() && !sent.ca_cert.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Failure::invalid("CA cert for external CA must be in PEM format"));
    }
    Ok(ExternalCa { url: sent.url, options: sent.options, ca_cert_pem: sent.ca_cert })
}

fn spec_out(s: &ClusterSpec) -> SwarmSpec {
    SwarmSpec {
        name: s.name.clone(),
        labels: s.labels.clone(),
        orchestration: OrchestrationConfig { task_history_retention_limit: Some(s.task_history_retention_limit) },
        raft: RaftConfig {
            snapshot_interval: s.snapshot_interval,
            keep_old_snapshots: Some(s.raft.keep_old_snapshots),
            log_entries_for_slow_followers: s.raft.log_entries_for_slow_followers,
            election_tick: s.raft.ticks.election.into(),
            heartbeat_tick: s.raft.ticks.heartbeat.into(),
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
    to.raft = raft(&sent.raft, &to.raft).map_err(Failure::invalid)?;
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
    to.external_cas = external_cas(sent.ca_config.external_cas)?;
    if sent.ca_config.node_cert_expiry != GoDuration(0) {
        let expiry = sent.ca_config.node_cert_expiry.to_std();
        let long_enough = expiry.filter(|e| *e >= CERT_EXPIRY_MIN);
        to.node_cert_expiry = long_enough.ok_or_else(|| {
            Failure::invalid(format_args!("minimum certificate expiry time is: {}", GoDuration::from(CERT_EXPIRY_MIN)))
        })?;
    }
    Ok(to)
}

/// Raft's settings, over what there is. None of Docker's ticks is 0, so that 0 says nothing; of the old snapshots it is a number like
/// any other.
fn raft(sent: &RaftConfig, to: &RaftSettings) -> Result<RaftSettings, InvalidRaftSettings> {
    let or = |sent: i64, now: u32| if sent == 0 { i64::from(now) } else { sent };
    let settings = RaftSettings {
        keep_old_snapshots: sent.keep_old_snapshots.unwrap_or(to.keep_old_snapshots),
        log_entries_for_slow_followers: match sent.log_entries_for_slow_followers {
            0 => to.log_entries_for_slow_followers,
            entries => entries,
        },
        ticks: RaftTicks::parse(
            or(sent.heartbeat_tick, to.ticks.heartbeat),
            or(sent.election_tick, to.ticks.election),
        )?,
    };
    settings.check().map(|()| settings)
}
