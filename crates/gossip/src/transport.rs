//! chitchat's transport: sealed datagrams on the network seam.

use crate::config::GossipConfig;
use crate::counters::{Count, GossipCounters};
use crate::frame::{Bad, DATAGRAM_BYTES_MAX, NONCE_BYTES, Part, Sealed, split};
use crate::limiter::Limiter;
use crate::reassembly::Reassembly;
use crate::replay::{Refused, ReplayWindow};
use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable as _, Serializable as _};
use seams::{Clock, Datagrams, RandExt as _, Seams};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::time::Instant;

/// After a receive error, so that a broken socket does not spin.
const RECEIVE_RETRY: Duration = Duration::from_millis(50);

/// Opens [`SealedSocket`]s.
pub(crate) struct SealedTransport {
    pub(crate) config: GossipConfig,
    pub(crate) seams: Seams,
    pub(crate) count: Count,
}

struct SealedSocket {
    config: GossipConfig,
    seams: Seams,
    count: Count,
    udp: Box<dyn Datagrams>,
    buffer: Vec<u8>,
    receiver: Receiver,
}

/// What decides about a datagram that came in, without I/O.
pub(crate) struct Receiver {
    limiter: Limiter,
    replay: ReplayWindow,
    reassembly: Reassembly,
}

// === impl SealedTransport ===

#[async_trait]
impl Transport for SealedTransport {
    async fn open(&self, listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let udp = self.seams.net.bind_udp(listen_addr).await?;
        Ok(Box::new(SealedSocket {
            config: self.config.clone(),
            seams: self.seams.clone(),
            count: self.count.clone(),
            udp,
            // One more than any honest datagram has, so that a longer one is seen to be longer.
            buffer: vec![0; DATAGRAM_BYTES_MAX + 1],
            receiver: Receiver::new(Instant::now()),
        }))
    }
}

// === impl SealedSocket ===

impl SealedSocket {
    /// The datagrams of a message.
    fn seal(&self, message: &ChitchatMessage) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        message.serialize(&mut bytes);
        let Some(payloads) = split(&bytes) else {
            self.count.add(|c| c.too_long += 1);
            return Vec::new();
        };
        let Some(key) = self.config.keys.borrow().first().cloned() else {
            self.count.add(|c| c.no_key += 1);
            return Vec::new();
        };
        let message_id = self.seams.rand.next_u64();
        let sent_unix_ms = unix_ms(self.seams.clock.as_ref());
        let count = payloads.len() as u8;
        let seal = |(index, payload): (usize, &&[u8])| {
            let sender = self.config.node_id.clone();
            let (index, payload) = (index as u8, payload.to_vec());
            let mut nonce = [0; NONCE_BYTES];
            self.seams.rand.fill(&mut nonce);
            let part = Part { sender, sent_unix_ms, message_id, index, count, payload };
            let datagram = part.seal(&self.config.cluster_id, &key, &nonce)?;
            self.count.sealed(key.id, datagram.len());
            Some(datagram)
        };
        payloads.iter().enumerate().filter_map(seal).collect()
    }
}

#[async_trait]
impl Socket for SealedSocket {
    /// Never fails: chitchat would only log it, and a lost datagram is gossip's daily bread.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        // chitchat now and then tries a dead node, and after a restart this node's former life is one, at its own address. What came
        // back would count as replayed, and a count that rises is an alarm.
        if to == self.config.advertise_addr {
            return Ok(());
        }
        for datagram in self.seal(&message) {
            match self.udp.send_to(&datagram, to).await {
                Ok(()) => self.count.add(|c| c.sent += 1),
                Err(error) => {
                    tracing::trace!(%to, %error, "gossip datagram not sent");
                    self.count.add(|c| c.send_errors += 1);
                }
            }
        }
        Ok(())
    }

    /// Never fails. Safe to drop at any await: what was received is in `self`.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (length, from) = match self.udp.recv_from(&mut self.buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "gossip receive failed");
                    self.count.add(|c| c.receive_errors += 1);
                    tokio::time::sleep(RECEIVE_RETRY).await;
                    continue;
                }
            };
            self.count.add(|c| c.received += 1);
            let now_ms = unix_ms(self.seams.clock.as_ref());
            let datagram = &self.buffer[..length];
            let taken = self.receiver.take(datagram, from, now_ms, Instant::now(), &self.config);
            let given_up = self.receiver.reassembly.take_given_up();
            self.count.add(|c| c.incomplete += given_up);
            match taken.and_then(|message| message.map(|m| decode(&m)).transpose()) {
                Ok(Some(message)) => {
                    self.count.add(|c| c.messages += 1);
                    return Ok((from, message));
                }
                Ok(None) => {}
                Err(reason) => {
                    tracing::trace!(%from, "gossip datagram dropped");
                    self.count.add(|c| *reason(c) += 1);
                }
            }
        }
    }
}

/// Which counter a drop is counted under.
pub(crate) type Reason = fn(&mut GossipCounters) -> &mut u64;

// === impl Receiver ===

impl Receiver {
    pub(crate) fn new(now: Instant) -> Receiver {
        Receiver { limiter: Limiter::new(now), replay: ReplayWindow::default(), reassembly: Reassembly::default() }
    }

    #[cfg(test)]
    pub(crate) fn known_sources(&self) -> usize {
        self.limiter.known()
    }

    /// The message that a datagram completes, if it does. Cheap checks come first, then those that need proof.
    pub(crate) fn take(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        now_ms: u64,
        now: Instant,
        config: &GossipConfig,
    ) -> Result<Option<Vec<u8>>, Reason> {
        let sealed = Sealed::parse(datagram).map_err(reason)?;
        if !self.limiter.allow(from, now) {
            return Err(|c| &mut c.rate_limited);
        }
        let part = sealed.open(&config.cluster_id, &config.keys.borrow()).map_err(reason)?;
        self.replay.admit(part.sent_unix_ms, sealed.nonce, now_ms).map_err(|refused| match refused {
            Refused::Stale => (|c| &mut c.stale) as Reason,
            Refused::Replayed => (|c| &mut c.replayed) as Reason,
        })?;
        if part.sender == config.node_id {
            return Err(|c| &mut c.replayed);
        }
        let members = config.members.borrow();
        if !members.is_empty() && !members.contains(&part.sender) {
            return Err(|c| &mut c.foreign);
        }
        drop(members);
        // Only now: a datagram that was recorded opens as well as a fresh one, from as many made-up addresses as one likes.
        self.limiter.proven(from, now);
        Ok(self.reassembly.add(part, from, now))
    }
}

fn reason(bad: Bad) -> Reason {
    match bad {
        Bad::Oversized => |c| &mut c.oversized,
        Bad::Malformed => |c| &mut c.malformed,
        Bad::UnknownKey => |c| &mut c.unknown_key,
        Bad::Forged => |c| &mut c.forged,
    }
}

pub(crate) fn decode(bytes: &[u8]) -> Result<ChitchatMessage, Reason> {
    // A member wrote it, but a member can be broken: chitchat's reader must not take this node's gossip down with it.
    let mut rest = bytes;
    match catch_unwind(AssertUnwindSafe(|| ChitchatMessage::deserialize(&mut rest))) {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(_)) | Err(_) => Err(|c| &mut c.unreadable),
    }
}

fn unix_ms(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.unix_now().as_millis()).unwrap_or(u64::MAX)
}
