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
/// Characters in a service name (it is a DNS label).
pub const SERVICE_NAME_CHARS_MAX: usize = 63;
/// Replicas of one service. A typo should not fill the log: beyond it is refused.
pub const REPLICAS_MAX: u64 = 100_000;
/// Dead tasks kept for each slot unless the cluster spec says otherwise (SwarmKit manager.go).
pub const TASK_HISTORY_DEFAULT: i64 = 5;
/// Smallest CPU limit or reservation, in billionths of a CPU (SwarmKit controlapi/service.go).
pub const NANO_CPUS_MIN: i64 = 1_000_000;
/// Smallest memory limit or reservation, in bytes (SwarmKit controlapi/service.go).
pub const MEMORY_BYTES_MIN: i64 = 4 << 20;
/// A task's error or message is cut at this many bytes, so that an engine's novel does not travel the log.
pub const STATUS_TEXT_BYTES_MAX: usize = 1024;
/// Restart delay when the service has no policy (SwarmKit api/defaults).
pub const RESTART_DELAY_DEFAULT: Duration = Duration::from_secs(5);
/// Stop grace period when the spec has none (SwarmKit api/defaults).
pub const STOP_GRACE_PERIOD_DEFAULT: Duration = Duration::from_secs(10);
/// How long a task must run after an update before it counts as good (SwarmKit api/defaults).
pub const UPDATE_MONITOR_DEFAULT: Duration = Duration::from_secs(5);
/// How long an update waits for an old task to stop before it starts the new one (SwarmKit orchestrator/restart).
pub const OLD_TASK_TIMEOUT: Duration = Duration::from_secs(60);
/// Failures of a service version on a node that make the scheduler prefer others (SwarmKit scheduler/nodeinfo.go).
pub const NODE_FAILURES_MAX: usize = 5;
/// For how long those failures count.
pub const NODE_FAILURE_WINDOW: Duration = Duration::from_secs(300);
/// How long a node is down before its tasks are given up as orphaned (SwarmKit `defaultNodeDownPeriod`).
pub const NODE_ORPHAN_PERIOD: Duration = Duration::from_secs(24 * 3600);

const _: () = assert!(TRANSACTION_BYTES_MAX < RPC_MESSAGE_BYTES_MAX);
