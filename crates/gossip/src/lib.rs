//! Gossip: who is alive, and what each node says of itself, spread among all nodes within a second or two.
//!
//! **Owns** chitchat and everything that stands between it and the network: every datagram is sealed under a cluster key,
//! split so that it fits a packet, checked against replay, bounded by source, and dropped when its sender is no member.
//!
//! **Must never** decide anything. A group key proves that *a* member spoke, not which one, so what is heard here is a hint:
//! the leader weighs it together with session heartbeats, and the log has the last word.
//!
//! All clocks are `tokio::time`, except the replay window's, which has to mean the same on two machines and so is
//! [`seams::Clock`]'s.

#![forbid(unsafe_code)]

mod config;
mod counters;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod gossip;
mod limiter;
mod reassembly;
mod replay;
mod transport;

pub use config::{
    FACT_KEY_BYTES_MAX, FACT_VALUE_BYTES_MAX, FACTS_MAX, FactError, Facts, GossipConfig, GossipError, GossipTimings,
    fact,
};
pub use counters::{GossipCounters, KeyUse};
pub use gossip::Gossip;
