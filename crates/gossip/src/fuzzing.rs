//! A way in for the fuzz targets: what hears datagrams, without a socket. Nothing in the product uses it.

use crate::config::GossipConfig;
use crate::frame::Part;
use crate::transport::{Receiver, decode};
use model::{GossipKey, NodeId};
use std::net::SocketAddr;
use tokio::time::Instant;

/// The listening half of a node's gossip.
pub struct Ear {
    receiver: Receiver,
    config: GossipConfig,
    now: Instant,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Dropped.
    Nothing,
    /// It was good; more parts are to come.
    Part,
    /// It completed a message that chitchat can read.
    Message,
}

// === impl Ear ===

impl Ear {
    /// An ear that has heard nothing.
    pub fn new(config: GossipConfig, now: Instant) -> Ear {
        Ear { receiver: Receiver::new(now), config, now }
    }

    /// Hears one datagram.
    pub fn hear(&mut self, datagram: &[u8], from: SocketAddr, now_unix_ms: u64) -> Heard {
        match self.receiver.take(datagram, from, now_unix_ms, self.now, &self.config) {
            Err(_) => Heard::Nothing,
            Ok(None) => Heard::Part,
            Ok(Some(message)) => decode(&message).map_or(Heard::Nothing, |_| Heard::Message),
        }
    }

    /// A good seal around whatever a member might say; `None` when it is too long for a datagram.
    pub fn seal(
        &self,
        sender: NodeId,
        key: &GossipKey,
        at: (u64, u64),
        part: (u8, u8),
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let ((sent_unix_ms, message_id), (index, count)) = (at, part);
        let mut nonce = [0; crate::frame::NONCE_BYTES];
        nonce[..8].copy_from_slice(&message_id.to_be_bytes());
        nonce[8] = index;
        Part { sender, sent_unix_ms, message_id, index, count, payload: payload.to_vec() }.seal(
            &self.config.cluster_id,
            key,
            &nonce,
        )
    }
}
