//! Puts messages together from their parts.

use crate::frame::Part;
use model::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How long a message waits for its missing parts. The next round sends everything anew anyway.
const WAIT: Duration = Duration::from_secs(2);
/// Messages open at once, from all senders: at most 60 parts of 1108 bytes each, 8.5 MB at the very worst.
const OPEN_MAX: usize = 128;
/// And from one sender.
const OPEN_PER_SENDER_MAX: usize = 8;

/// Sender, its address, and its number for the message.
type Key = (NodeId, SocketAddr, u64);

#[derive(Debug)]
struct Open {
    since: Instant,
    missing: usize,
    parts: Vec<Option<Vec<u8>>>,
}

/// Messages of which some parts are here.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    open: BTreeMap<Key, Open>,
    /// Messages given up since [`Reassembly::take_given_up`].
    given_up: u64,
}

// === impl Reassembly ===

impl Reassembly {
    /// Adds a part; the whole message when it was the last one missing.
    pub(crate) fn add(&mut self, part: Part, from: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        if part.count == 1 {
            return Some(part.payload);
        }
        let key = (part.sender, from, part.message_id);
        if !self.open.contains_key(&key) {
            self.make_room(&key, now);
            let parts = vec![None; usize::from(part.count)];
            self.open.insert(key.clone(), Open { since: now, missing: parts.len(), parts });
        }
        let open = self.open.get_mut(&key)?;
        if open.parts.len() != usize::from(part.count) {
            // Two messages under one number: somebody errs or lies. Neither is worth keeping.
            self.open.remove(&key);
            self.given_up += 1;
            return None;
        }
        let place = open.parts.get_mut(usize::from(part.index))?;
        if place.is_none() {
            *place = Some(part.payload);
            open.missing -= 1;
        }
        if open.missing > 0 {
            return None;
        }
        self.open.remove(&key).map(|whole| whole.parts.into_iter().flatten().flatten().collect())
    }

    /// How many messages were given up since it was last asked.
    pub(crate) fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    fn make_room(&mut self, key: &Key, now: Instant) {
        let before = self.open.len();
        self.open.retain(|_, open| now.saturating_duration_since(open.since) < WAIT);
        let of_sender = self.open.keys().filter(|k| k.0 == key.0).count();
        if of_sender >= OPEN_PER_SENDER_MAX {
            self.remove_oldest(|k| k.0 == key.0);
        } else if self.open.len() >= OPEN_MAX {
            self.remove_oldest(|_| true);
        }
        self.given_up += (before - self.open.len()) as u64;
    }

    fn remove_oldest(&mut self, among: impl Fn(&Key) -> bool) {
        let oldest = self.open.iter().filter(|(k, _)| among(k)).min_by_key(|(_, open)| open.since);
        if let Some(key) = oldest.map(|(k, _)| k.clone()) {
            self.open.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(sender: char, message_id: u64, index: u8, count: u8) -> Part {
        let sender = String::from(sender).repeat(25).parse().unwrap();
        Part { sender, sent_unix_ms: 0, message_id, index, count, payload: vec![index; 3] }
    }

    fn from() -> SocketAddr {
        ([10, 0, 0, 1], 7946).into()
    }

    #[tokio::test(start_paused = true)]
    async fn parts_in_any_order_and_repeated_make_the_message() {
        let (mut r, now) = (Reassembly::default(), Instant::now());
        assert_eq!(r.add(part('a', 1, 2, 3), from(), now), None);
        assert_eq!(r.add(part('a', 1, 0, 3), from(), now), None);
        assert_eq!(r.add(part('a', 1, 0, 3), from(), now), None);
        assert_eq!(r.add(part('b', 1, 1, 3), from(), now), None, "another sender's");
        assert_eq!(r.add(part('a', 1, 1, 3), from(), now), Some(vec![0, 0, 0, 1, 1, 1, 2, 2, 2]));
        assert_eq!(r.add(part('a', 2, 0, 1), from(), now), Some(vec![0; 3]));
        assert_eq!(r.take_given_up(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_in_number_and_time() {
        let (mut r, now) = (Reassembly::default(), Instant::now());
        for id in 0..20 {
            assert_eq!(r.add(part('a', id, 0, 2), from(), now), None);
        }
        assert_eq!((r.open.len(), r.take_given_up()), (OPEN_PER_SENDER_MAX, 12));
        for (n, sender) in ('b'..='z').chain('0'..='9').enumerate() {
            for id in 0..8 {
                r.add(part(sender, n as u64 * 100 + id, 0, 2), from(), now);
            }
        }
        assert_eq!(r.open.len(), OPEN_MAX);
        assert!(r.take_given_up() > 0);
        assert_eq!(r.add(part('a', 99, 0, 2), from(), now + WAIT), None);
        assert_eq!(r.open.len(), 1, "what waited too long is gone");
        assert_eq!(r.add(part('a', 99, 1, 4), from(), now + WAIT), None, "another count under the same number");
        assert_eq!(r.open.len(), 0);
    }
}
