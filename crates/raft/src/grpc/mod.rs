//! Members talk gRPC: `proto/raft.proto`.

mod client;
mod server;

pub(crate) use client::Network;
pub use server::Service;

use crate::types::Member;
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;

/// Opens channels to other members. The implementation decides about TLS, whom it expects at the other end (the member's
/// `node_id`), and keep-alive: a connection that a partition has cut must be noticed, or a follower stays behind for ever.
pub trait Dial: Send + Sync + 'static {
    /// A new channel, connected when it is first used, that connects again after a failure. Each call gives a connection of
    /// its own: heartbeats do not wait behind bulk data. The transport keeps and shares what it gets.
    ///
    /// # Errors
    /// When the address cannot be one.
    fn channel(&self, raft_id: u64, member: &Member) -> std::io::Result<Channel>;

    /// Changes when channels that were given out should not be used any more, though they work: the certificate that they
    /// were made with was replaced. Calls under way go on, streams end in good order and begin again on a new channel. `None`
    /// when that never happens.
    fn generation(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// Metadata that names the member that is meant.
const TARGET: &str = "swarmlite-raft-target";
/// Bytes of a snapshot in one message.
const CHUNK_BYTES: usize = 1 << 20;
/// Longest silence between two chunks of a snapshot.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
