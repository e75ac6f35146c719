//! How many datagrams a source may send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Datagrams a second from a source that has proved to hold a key, lasting. A node of a cluster of 300 hears about 30
/// messages of 20 datagrams a second, from all nodes together.
const KNOWN_PER_SECOND: u32 = 1000;
/// And at once.
const KNOWN_BURST: u32 = 2000;
/// The same for all sources that have not, together: opening a forgery costs as much as opening an honest datagram.
const STRANGERS_PER_SECOND: u32 = 2000;
const STRANGERS_BURST: u32 = 4000;
/// Sources remembered.
const SOURCES_MAX: usize = 4096;
/// A source that was silent for so long counts as a stranger again.
const FORGET_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// A token bucket for each proven source, and one for all others. Addresses are easily forged; so that a flood from made-up
/// ones cannot fill the memory, a source is remembered only once a datagram of its was good.
///
#[derive(Debug)]
pub(crate) struct Limiter {
    known: BTreeMap<SocketAddr, Bucket>,
    strangers: Bucket,
}

// === impl Bucket ===

impl Bucket {
    fn take(&mut self, now: Instant, per_second: u32, burst: u32) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(per_second);
        self.tokens = (self.tokens + gained).min(f64::from(burst));
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

// === impl Limiter ===

impl Limiter {
    pub(crate) fn new(now: Instant) -> Limiter {
        Limiter { known: BTreeMap::new(), strangers: Bucket { tokens: f64::from(STRANGERS_BURST), at: now } }
    }

    /// Whether one more datagram from `source` is looked at.
    pub(crate) fn allow(&mut self, source: SocketAddr, now: Instant) -> bool {
        match self.known.get_mut(&source) {
            Some(bucket) => bucket.take(now, KNOWN_PER_SECOND, KNOWN_BURST),
            None => self.strangers.take(now, STRANGERS_PER_SECOND, STRANGERS_BURST),
        }
    }

    /// How many sources are proven.
    #[cfg(test)]
    pub(crate) fn known(&self) -> usize {
        self.known.len()
    }

    /// A datagram of `source` was good: it opened, is fresh, and a member's.
    pub(crate) fn proven(&mut self, source: SocketAddr, now: Instant) {
        if self.known.contains_key(&source) {
            return;
        }
        if self.known.len() >= SOURCES_MAX {
            self.known.retain(|_, bucket| now.saturating_duration_since(bucket.at) < FORGET_AFTER);
        }
        // Still full: it stays a stranger, which is slower but not shut out.
        if self.known.len() < SOURCES_MAX {
            self.known.insert(source, Bucket { tokens: f64::from(KNOWN_BURST), at: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 7946))
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_strangers_does_not_touch_a_proven_source() {
        let now = Instant::now();
        let mut limiter = Limiter::new(now);
        limiter.proven(source(1), now);
        let passed = (0..10_000_u16).filter(|n| limiter.allow(source(100 + n), now)).count();
        assert_eq!(passed, STRANGERS_BURST as usize);
        assert!(limiter.allow(source(1), now));
        assert_eq!(limiter.known.len(), 1, "strangers take no memory");
        let later = now + Duration::from_secs(1);
        assert_eq!((0..10_000).filter(|_| limiter.allow(source(9), later)).count(), STRANGERS_PER_SECOND as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn attack_21_a_recorded_datagram_makes_no_proven_source() {
        use crate::frame::Part;
        use crate::transport::Receiver;
        use crate::{GossipConfig, GossipTimings};
        use tokio::sync::watch;

        let id = |c: char| String::from(c).repeat(25).parse().unwrap();
        let key = model::GossipKey { id: 1, key: [7; 32] };
        let config = GossipConfig {
            node_id: id('m'),
            cluster_id: "c".repeat(25).parse().unwrap(),
            listen_addr: source(0),
            advertise_addr: source(0),
            keys: watch::channel(vec![key.clone()]).1,
            members: watch::channel([id('a'), id('m')].into()).1,
            seeds: Default::default(),
            timings: GossipTimings::default(),
        };
        let (at_ms, now) = (1_000_000_000, Instant::now());
        let datagram = |sender: char, n: u8| {
            let part =
                Part { sender: id(sender), sent_unix_ms: at_ms, message_id: 1, index: 0, count: 1, payload: vec![] };
            part.seal(&config.cluster_id, &key, &[n; 24]).unwrap()
        };
        let mut receiver = Receiver::new(now);
        let (honest, foreign) = (datagram('a', 1), datagram('f', 2));
        assert!(receiver.take(&honest, source(1), at_ms, now, &config).is_ok());
        for n in 2..500 {
            // The same again, and one of somebody who was removed; at last, an old one.
            assert!(receiver.take(&honest, source(n), at_ms, now, &config).is_err());
            assert!(receiver.take(&foreign, source(n), at_ms, now, &config).is_err());
        }
        assert!(receiver.take(&honest, source(1000), at_ms + 3_600_000, now, &config).is_err());
        assert_eq!(receiver.known_sources(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_proven_source_has_a_bound_of_its_own_and_memory_is_bounded() {
        let now = Instant::now();
        let mut limiter = Limiter::new(now);
        for n in 0..5000 {
            limiter.proven(source(n), now);
        }
        assert_eq!(limiter.known.len(), SOURCES_MAX);
        assert_eq!((0..10_000).filter(|_| limiter.allow(source(1), now)).count(), KNOWN_BURST as usize);
        assert!(limiter.allow(source(2), now));
        let later = now + FORGET_AFTER;
        limiter.proven(source(4999), later);
        assert_eq!(limiter.known.len(), 1);
    }
}
