//! What was sent, heard and dropped.

use parking_lot::Mutex;
use std::sync::Arc;

/// Counts since the start. A drop is counted once, under the first reason that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GossipCounters {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received, good or bad.
    pub received: u64,
    /// Whole messages handed to chitchat.
    pub messages: u64,
    /// Dropped: longer than any of ours.
    pub oversized: u64,
    /// Dropped: too short, another protocol, or fields that make no sense.
    pub malformed: u64,
    /// Dropped: its source sent too many.
    pub rate_limited: u64,
    /// Dropped: sealed under a key that this node does not have.
    pub unknown_key: u64,
    /// Dropped: the seal is broken, or another cluster's.
    pub forged: u64,
    /// Dropped: its time is too far from ours.
    pub stale: u64,
    /// Dropped: seen before, or our own come back.
    pub replayed: u64,
    /// Dropped: its sender is no member.
    pub foreign: u64,
    /// Messages given up because a part did not come in time or too many were open.
    pub incomplete: u64,
    /// Messages whose content chitchat cannot read.
    pub unreadable: u64,
    /// Messages not sent for want of a key.
    pub no_key: u64,
    /// Messages not sent because they are too long.
    pub too_long: u64,
    /// Datagrams that the network refused.
    pub send_errors: u64,
    /// Receive errors of the network.
    pub receive_errors: u64,
    /// Times that gossip had to be started again.
    pub restarts: u64,
    /// How many of these were because somebody had filled its memory.
    pub overfull: u64,
}

/// What this node has sealed under the key that it seals with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyUse {
    /// The key's id.
    pub key_id: u32,
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// The counters, shared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(Arc<Mutex<(GossipCounters, KeyUse)>>);

// === impl Count ===

impl Count {
    pub(crate) fn add(&self, change: impl FnOnce(&mut GossipCounters)) {
        change(&mut self.0.lock().0);
    }

    pub(crate) fn snapshot(&self) -> GossipCounters {
        self.0.lock().0
    }

    /// Notes a datagram that was sealed; another key begins at nothing.
    pub(crate) fn sealed(&self, key_id: u32, bytes: usize) {
        let usage = &mut self.0.lock().1;
        if usage.key_id != key_id {
            *usage = KeyUse { key_id, ..KeyUse::default() };
        }
        usage.datagrams += 1;
        usage.bytes += bytes as u64;
    }

    pub(crate) fn key_use(&self) -> KeyUse {
        self.0.lock().1
    }
}

// === impl GossipCounters ===

impl GossipCounters {
    /// Everything that came in and was dropped.
    pub fn dropped(&self) -> u64 {
        self.oversized
            + self.malformed
            + self.rate_limited
            + self.unknown_key
            + self.forged
            + self.stale
            + self.replayed
            + self.foreign
            + self.incomplete
            + self.unreadable
    }
}
