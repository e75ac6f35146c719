//! The swarm itself.

use crate::go::{GoDuration, GoTime, Secret, omit};
use crate::{Driver, ObjectVersion, TlsInfo};
use std::collections::BTreeMap;

bodies! {
    /// The swarm, as `/info` shows it: without the join tokens.
    pub struct ClusterInfo {
        /// Its id.
        "ID" id: String;
        /// Its version.
        "Version" version: ObjectVersion;
        /// When it was created.
        "CreatedAt" created_at: GoTime;
        /// When it was last changed.
        "UpdatedAt" updated_at: GoTime;
        /// What a user can change.
        "Spec" spec: SwarmSpec;
        /// The certificate authority.
        "TLSInfo" tls_info: TlsInfo;
        /// A rotation of the authority is under way.
        "RootRotationInProgress" root_rotation_in_progress: bool;
        /// Address pools for overlay networks, CIDR.
        "DefaultAddrPool" default_addr_pool: Vec<String>;
        /// Prefix length of the subnets cut from the pools.
        "SubnetSize" subnet_size: u32;
        /// UDP port of the data path.
        "DataPathPort" data_path_port: u32;
    }

    /// The swarm, as `/swarm` shows it.
    pub struct Swarm {
        /// Its id.
        "ID" id: String;
        /// Its version.
        "Version" version: ObjectVersion;
        /// When it was created.
        "CreatedAt" created_at: GoTime;
        /// When it was last changed.
        "UpdatedAt" updated_at: GoTime;
        /// What a user can change.
        "Spec" spec: SwarmSpec;
        /// The certificate authority.
        "TLSInfo" tls_info: TlsInfo;
        /// A rotation of the authority is under way.
        "RootRotationInProgress" root_rotation_in_progress: bool;
        /// Address pools for overlay networks, CIDR.
        "DefaultAddrPool" default_addr_pool: Vec<String>;
        /// Prefix length of the subnets cut from the pools.
        "SubnetSize" subnet_size: u32;
        /// UDP port of the data path.
        "DataPathPort" data_path_port: u32;
        /// What admits new nodes.
        "JoinTokens" join_tokens: JoinTokens;
    }

    /// What admits new nodes.
    pub struct JoinTokens {
        /// Workers.
        "Worker" worker: Secret;
        /// Managers.
        "Manager" manager: Secret;
    }

    /// What a user can change about a swarm.
    pub struct SwarmSpec {
        /// `default`.
        "Name" name: String, "omit";
        /// User labels.
        "Labels" labels: BTreeMap<String, String>;
        /// Task history.
        "Orchestration" orchestration: OrchestrationConfig;
        /// Raft.
        "Raft" raft: RaftConfig;
        /// Heartbeats.
        "Dispatcher" dispatcher: DispatcherConfig;
        /// Certificates.
        "CAConfig" ca_config: CaConfig;
        /// For tasks that say nothing themselves.
        "TaskDefaults" task_defaults: TaskDefaults;
        /// Encryption at rest.
        "EncryptionConfig" encryption_config: EncryptionConfig;
    }

    /// Task history.
    pub struct OrchestrationConfig {
        /// Dead tasks kept for each slot; negative keeps all.
        "TaskHistoryRetentionLimit" task_history_retention_limit: Option<i64>, "omit";
    }

    /// Raft.
    pub struct RaftConfig {
        /// Log entries between snapshots.
        "SnapshotInterval" snapshot_interval: u64, "omit";
        /// Old snapshots kept.
        "KeepOldSnapshots" keep_old_snapshots: Option<u64>, "omit";
        /// Log entries kept behind a snapshot.
        "LogEntriesForSlowFollowers" log_entries_for_slow_followers: u64, "omit";
        /// Election timeout, in ticks.
        "ElectionTick" election_tick: i64;
        /// Heartbeat, in ticks.
        "HeartbeatTick" heartbeat_tick: i64;
    }

    /// Heartbeats.
    pub struct DispatcherConfig {
        /// How often an agent sends one.
        "HeartbeatPeriod" heartbeat_period: GoDuration, "omit";
    }

    /// Certificates.
    pub struct CaConfig {
        /// Validity of a node's certificate.
        "NodeCertExpiry" node_cert_expiry: GoDuration, "omit";
        /// Authorities elsewhere that sign certificates.
        "ExternalCAs" external_cas: Vec<ExternalCa>, "omit";
        /// A new root certificate, PEM. Sent, never shown.
        "SigningCACert" signing_ca_cert: String, "omit";
        /// Its key, PEM. Sent, never shown.
        "SigningCAKey" signing_ca_key: Secret, "omit";
        /// Changed to make a new root.
        "ForceRotate" force_rotate: u64, "omit";
    }

    /// An authority elsewhere that signs certificates.
    pub struct ExternalCa {
        /// `cfssl`.
        "Protocol" protocol: String;
        /// Where requests are sent.
        "URL" url: String;
        /// Kept as they are.
        "Options" options: BTreeMap<String, String>, "omit";
        /// The root certificate that it signs under, PEM; empty for the swarm's of now.
        "CACert" ca_cert: String;
    }

    /// For tasks that say nothing themselves.
    pub struct TaskDefaults {
        /// Where their output goes.
        "LogDriver" log_driver: Option<Driver>, "omit";
    }

    /// Encryption at rest.
    pub struct EncryptionConfig {
        /// Managers need a key after a restart.
        "AutoLockManagers" auto_lock_managers: bool;
    }

    /// `POST /swarm/init`.
    pub struct InitRequest {
        /// Address to listen on.
        "ListenAddr" listen_addr: String;
        /// Address that other nodes use.
        "AdvertiseAddr" advertise_addr: String;
        /// Address of the data path.
        "DataPathAddr" data_path_addr: String;
        /// UDP port of the data path; 0 for the default.
        "DataPathPort" data_path_port: u32;
        /// Start over as the only manager.
        "ForceNewCluster" force_new_cluster: bool;
        /// What a user can change.
        "Spec" spec: SwarmSpec;
        /// Managers need a key after a restart.
        "AutoLockManagers" auto_lock_managers: bool;
        /// `active`, `pause` or `drain`.
        "Availability" availability: String;
        /// Address pools for overlay networks, CIDR.
        "DefaultAddrPool" default_addr_pool: Option<Vec<String>>;
        /// Prefix length of the subnets cut from the pools; 0 for the default.
        "SubnetSize" subnet_size: u32;
    }

    /// `POST /swarm/join`.
    pub struct JoinRequest {
        /// Address to listen on.
        "ListenAddr" listen_addr: String;
        /// Address that other nodes use.
        "AdvertiseAddr" advertise_addr: String;
        /// Address of the data path.
        "DataPathAddr" data_path_addr: String;
        /// Managers to ask.
        "RemoteAddrs" remote_addrs: Vec<String>;
        /// What admits this node.
        "JoinToken" join_token: Secret;
        /// `active`, `pause` or `drain`.
        "Availability" availability: String;
    }

    /// The key that unlocks managers: `GET /swarm/unlockkey`, `POST /swarm/unlock`.
    pub struct UnlockKey {
        /// `SWMKEY-…`; empty when there is none.
        "UnlockKey" unlock_key: Secret;
    }
}
