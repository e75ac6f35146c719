//! Every limit, with the reason for its figure.

use std::time::Duration;

/// Encoded bytes of one transaction: SwarmKit's `MaxTransactionBytes`.
pub const TRANSACTION_BYTES_MAX: usize = 1536 * 1024;
/// Changes in one transaction. SwarmKit splits at 200; a service of a thousand replicas should be one commit here.
pub const TRANSACTION_CHANGES_MAX: usize = 4000;
/// One gRPC message: SwarmKit's `GRPCMaxMsgSize`.
pub const RPC_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// One HTTP request body that we parse ourselves.
pub const API_BODY_BYTES_MAX: usize = 4 << 20;
/// Values (elements of arrays, members of objects) in one HTTP request body that we parse ourselves. A million of nothing fits
/// the bytes, and costs a hundred times as much once it is parsed.
pub const API_BODY_VALUES_MAX: usize = 100_000;
/// Join tokens that users made, at once. They live in the cluster object, which every manager holds and every change of it
/// writes.
pub const JOIN_TOKENS_MAX: usize = 256;
/// Labels that one join token gives to its nodes.
pub const JOIN_TOKEN_LABELS_MAX: usize = 32;
/// Bytes of those labels, keys and values together: with [`JOIN_TOKENS_MAX`] half a MiB, which leaves a transaction room.
pub const JOIN_TOKEN_LABEL_BYTES_MAX: usize = 2048;
/// Authorities elsewhere that sign certificates: all of them may be asked for one certificate.
pub const EXTERNAL_CAS_MAX: usize = 16;
/// Bytes of one of them: its URL, its options, its root certificate.
pub const EXTERNAL_CA_BYTES_MAX: usize = 16 << 10;
/// Nodes in a swarm, those that are down included: who holds a token must not fill the managers' memory.
pub const NODES_MAX: usize = 10_000;
/// Removed nodes that are remembered until their certificates have expired; beyond it those that expire first are forgotten.
/// What is forgotten is still no member: its certificate is older than a state without it.
pub const REMOVED_NODES_MAX: usize = 1_000;
/// Characters in a service name (it is a DNS label).
pub const SERVICE_NAME_CHARS_MAX: usize = 63;
/// Replicas of one service. A typo should not fill the log: beyond it is refused.
pub const REPLICAS_MAX: u64 = 100_000;
/// Applied log entries between two snapshots unless the cluster spec says otherwise (SwarmKit manager/state/raft).
pub const SNAPSHOT_INTERVAL_DEFAULT: u64 = 10_000;
/// The largest such number: what a manager keeps in its log and replays when it starts has an end.
pub const SNAPSHOT_INTERVAL_MAX: u64 = 100_000;
/// Old snapshots that a manager keeps at most: each is as large as the state, and is sealed anew with every change of the data key.
pub const OLD_SNAPSHOTS_MAX: u64 = 100;
/// Log entries kept behind a snapshot unless the cluster spec says otherwise (SwarmKit manager/state/raft).
pub const KEPT_FOR_SLOW_FOLLOWERS_DEFAULT: u64 = 500;
/// The largest such number, as for the entries between two snapshots.
pub const KEPT_FOR_SLOW_FOLLOWERS_MAX: u64 = 100_000;
/// The largest heartbeat tick of Raft. Five make 0.75 s, and an answer may take as long: by satellite it takes 0.6 s. Much slower,
/// and a manager that is well would count as unreachable.
pub const HEARTBEAT_TICK_MAX: u32 = 5;
/// The largest election tick of Raft. Fifty make up to 4 s until a lost leader is replaced, and 8 s when the wrong one campaigns
/// first; a write waits for 10 s.
pub const ELECTION_TICK_MAX: u32 = 50;
/// Dead tasks kept for each slot unless the cluster spec says otherwise (SwarmKit manager.go).
pub const TASK_HISTORY_DEFAULT: i64 = 5;
/// Smallest CPU limit or reservation, in billionths of a CPU (SwarmKit controlapi/service.go).
pub const NANO_CPUS_MIN: i64 = 1_000_000;
/// Smallest memory limit or reservation, in bytes (SwarmKit controlapi/service.go).
pub const MEMORY_BYTES_MIN: i64 = 4 << 20;
/// A task's error or message is cut at this many bytes, so that an engine's novel does not travel the log.
pub const STATUS_TEXT_BYTES_MAX: usize = 1024;
/// A container's id; Docker's have 64.
pub const CONTAINER_ID_BYTES_MAX: usize = 128;
/// Restart delay when the service has no policy (SwarmKit api/defaults).
pub const RESTART_DELAY_DEFAULT: Duration = Duration::from_secs(5);
/// The longest pause before a restart of a task that keeps failing, unless its service says otherwise. Docker's does not grow.
pub const RESTART_BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(300);
/// What a growing pause before a restart grows from when the policy has a shorter one, or none.
pub const RESTART_BACKOFF_MIN: Duration = Duration::from_millis(500);
/// A task that ran for so long before it failed is not one that keeps failing.
pub const RESTART_RAN_WELL: Duration = Duration::from_secs(60);
/// Runs of a job that may go on at once when its schedule lets them overlap: beyond it a run is left out.
pub const CRON_RUNS_MAX: usize = 16;
/// For how long a manager is lost before autopilot replaces it, unless the cluster says otherwise.
pub const AUTOPILOT_AFTER_DEFAULT: Duration = Duration::from_secs(600);
/// Constraints, and preferences, of one service. Docker has no limit; each is asked of each node.
pub const CONSTRAINTS_MAX: usize = 64;
/// Kinds of generic resources of one service or node.
pub const GENERIC_KINDS_MAX: usize = 64;
/// Named resources of one kind on one node: each is asked for by the scheduler.
pub const GENERIC_NAMES_MAX: usize = 1024;
/// Bytes that the templates of one container put in. A Linux process is started with no more arguments and environment (a quarter
/// of a stack of 8 MiB).
pub const EXPANDED_BYTES_MAX: usize = 2 << 20;
/// Devices, or ids of GPUs, of one service, and devices that a policy names.
pub const DEVICES_MAX: usize = 64;
/// Finished runs of a job with a schedule whose tasks are kept: each has as many as the job has completions.
pub const CRON_HISTORY_MAX: u32 = 100;
/// Bytes of separators in one template: a join of a hundred thousand nothings with half a megabyte between would come to fifty
/// gigabytes.
pub const SEPARATOR_BYTES_MAX: usize = 64 << 10;
/// Stop grace period when the spec has none (SwarmKit api/defaults).
pub const STOP_GRACE_PERIOD_DEFAULT: Duration = Duration::from_secs(10);
/// How long a task must run after an update before it counts as good (SwarmKit api/defaults).
pub const UPDATE_MONITOR_DEFAULT: Duration = Duration::from_secs(5);
/// How much longer than an update's delay its last tasks are watched, when the delay is not shorter than the monitor (SwarmKit
/// orchestrator/update).
pub const UPDATE_MONITOR_BEYOND_DELAY: Duration = Duration::from_secs(1);
/// How long an update waits for an old task to stop before it starts the new one (SwarmKit orchestrator/restart).
pub const OLD_TASK_TIMEOUT: Duration = Duration::from_secs(60);
/// Failures of a service version on a node that make the scheduler prefer others (SwarmKit scheduler/nodeinfo.go).
pub const NODE_FAILURES_MAX: usize = 5;
/// For how long those failures count.
pub const NODE_FAILURE_WINDOW: Duration = Duration::from_secs(300);
/// Raft ids of former members that are remembered. They are 64 random bits, so that nobody honest draws one twice; this keeps
/// out who would, for as long as anybody may remember.
pub const RETIRED_RAFT_IDS_MAX: usize = 512;
/// How long a node is down before its tasks are given up as orphaned (SwarmKit `defaultNodeDownPeriod`).
pub const NODE_ORPHAN_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a secret's data, this many excluded (SwarmKit `MaxSecretSize`).
pub const SECRET_BYTES_END: usize = 500 * 1024;
/// Bytes of a config's data, this many excluded (SwarmKit `MaxConfigSize`).
pub const CONFIG_BYTES_END: usize = 1000 * 1024;
/// Characters in a secret's or config's name (SwarmKit controlapi/common.go).
pub const DEPENDENCY_NAME_CHARS_MAX: usize = 64;
/// Secrets and configs of one service: each is a file and perhaps a mount on the node. Docker has no limit.
pub const DEPENDENCIES_PER_SERVICE_MAX: usize = 256;
/// Versions of one secret's or config's data that are kept, because tasks have them; an update beyond waits for those to go.
pub const DATA_VERSIONS_MAX: usize = 16;
/// Bytes of the target of a secret or config.
pub const TARGET_PATH_BYTES_MAX: usize = 1024;
/// Bytes of one component of a path (Linux `NAME_MAX`).
pub const FILE_NAME_BYTES_MAX: usize = 255;

const _: () = assert!(CONFIG_BYTES_END + (64 << 10) < TRANSACTION_BYTES_MAX && SECRET_BYTES_END < CONFIG_BYTES_END);
const _: () = assert!(TRANSACTION_BYTES_MAX < RPC_MESSAGE_BYTES_MAX);
