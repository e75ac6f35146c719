//! Raft: replicates opaque commands to a majority of managers and applies them in one order.
//!
//! **Owns** openraft (no other crate names it): the durable log and vote on sled, snapshot files, the gRPC transport
//! between managers, membership of the Raft group, leadership and its transfer, linearizable reads.
//!
//! **Must never** know what it replicates: a command is bytes, and only the [`StateMachine`] that is handed in reads it.
//!
//! # Parts
//!
//! * [`Raft`] is the handle that everybody else holds: propose, read, watch, change membership. It is generic over
//!   openraft's runtime, so that the same code runs on tokio and on a simulated executor.
//! * [`StateMachine`] is what commands are applied to.
//! * [`LogStore`] is the disk under the log: [`SledLog`] in production, [`MemoryLog`] in tests; a simulation brings a model
//!   with latency and loss of what was not synced. [`SealedLog`] seals what goes to any of them.
//! * [`Offline`] works on the disk of a member that does not run: disaster recovery.
//! * [`Dial`] gives the gRPC transport its channels; [`PeerTransport`] replaces gRPC altogether (simulation).
//!
//! # What an acknowledgement means
//!
//! [`Raft::propose`] returns `Ok` when the command is on the synced disks of a majority and applied here. An `Err` other
//! than [`ProposeError::Unknown`] means that the command was not appended and never will be. Everything in between is
//! `Unknown`, and is never reported as a failure.
#![forbid(unsafe_code)]

mod compact;
mod config;
mod error;
mod grpc;
mod handle;
mod log;
mod machine;
mod membership;
mod memory_log;
mod offline;
mod peer;
mod recent;
mod sealed_log;
mod sled_log;
mod snapshot_file;
#[cfg(test)]
mod suite;
mod types;
mod view;

pub use config::RaftConfig;
pub use error::{
    ApplyError, InitializeError, MembershipError, OpenLogError, ProposeError, ReadError, StartError, WaitError,
};
pub use grpc::{Dial, Service};
pub use handle::{Applied, Parts, Raft};
pub use log::{LogStore, Meta, Synced};
pub use machine::{SnapshotFn, StateMachine};
pub use memory_log::MemoryLog;
pub use offline::{LogPosition, Offline, OfflineError};
pub use openraft_rt::AsyncRuntime;
pub use openraft_rt_tokio::TokioRuntime;
pub use peer::{PeerCall, PeerError, PeerTransport};
pub use sealed_log::SealedLog;
pub use sled_log::SledLog;
pub use types::Member;
pub use view::{Follower, RaftView, Role};

/// Largest command, in bytes. Larger than any transaction (1.5 MiB, SwarmKit's `MaxTransactionBytes`), and small enough for
/// an append with its bookkeeping to fit one gRPC message.
pub const COMMAND_BYTES_MAX: usize = 1600 * 1024;
/// Largest gRPC message between managers, in bytes (SwarmKit's `GRPCMaxMsgSize`).
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
