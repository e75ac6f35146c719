//! Sources of connections and tries: what counts as one, and how much one may have at a time.
//!
//! **Owns** the network that an address belongs to, and slots for connections, in all and by source, so that one source cannot
//! lock the others out.
//!
//! **Must never** know what a slot is for, or who is at the other end.

#![forbid(unsafe_code)]

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Counts connections, in all and by source ([`network_of`]). Clones share the count.
#[derive(Debug, Clone)]
pub struct Slots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total_max: usize,
    per_source_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_source: BTreeMap<IpAddr, usize>,
}

/// A taken slot; dropping it frees it.
#[derive(Debug)]
pub struct Slot {
    source: IpAddr,
    shared: Arc<Shared>,
}

/// What counts as one source: an IPv4 address, or an IPv6 /64, as whoever has one address of that has all 2^64.
pub fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

// === impl Slots ===

impl Slots {
    /// So many in all, and so many from one source.
    pub fn new(total_max: usize, per_source_max: usize) -> Slots {
        Slots { shared: Arc::new(Shared { total_max, per_source_max, taken: Mutex::default() }) }
    }

    /// A slot, or `None` when there is none left for this source.
    pub fn take(&self, source: IpAddr) -> Option<Slot> {
        let source = network_of(source);
        let mut taken = self.shared.taken.lock();
        let of_source = taken.by_source.get(&source).copied().unwrap_or(0);
        if taken.total >= self.shared.total_max || of_source >= self.shared.per_source_max {
            return None;
        }
        taken.total += 1;
        taken.by_source.insert(source, of_source + 1);
        Some(Slot { source, shared: self.shared.clone() })
    }
}

// === impl Slot ===

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.shared.taken.lock();
        taken.total -= 1;
        if let Some(n) = taken.by_source.get_mut(&self.source) {
            *n -= 1;
            if *n == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_source_cannot_take_them_all_and_what_is_dropped_is_free() {
        let slots = Slots::new(3, 2);
        let (a, b) = (address("10.0.0.1"), address("10.0.0.2"));
        let first = slots.take(a).expect("a slot");
        let second = slots.take(address("::ffff:10.0.0.1"));
        assert!(second.is_some() && slots.take(a).is_none(), "the source's own bound");
        let third = slots.take(b);
        assert!(third.is_some() && slots.take(b).is_none(), "the bound for all");
        drop(first);
        let fourth = slots.take(b);
        assert!(fourth.is_some());
        assert_eq!(slots.shared.taken.lock().by_source.len(), 2);
        drop((second, third, fourth));
        let taken = slots.shared.taken.lock();
        assert!(taken.total == 0 && taken.by_source.is_empty(), "nothing is kept");
    }

    #[test]
    fn whoever_has_a_whole_ipv6_network_is_one_source() {
        let slots = Slots::new(3, 2);
        let taken = [slots.take(address("2001:db8::1")), slots.take(address("2001:db8::ffff:0:0:2"))];
        assert!(taken.iter().all(Option::is_some) && slots.take(address("2001:db8::3")).is_none());
        let neighbour = slots.take(address("2001:db8:0:1::1"));
        assert!(neighbour.is_some(), "the next /64 is somebody else");
        drop((taken, neighbour));
        assert!(slots.shared.taken.lock().by_source.is_empty(), "nothing is kept");
    }

    #[test]
    fn attack_18_a_host_with_many_ipv6_addresses_is_one_source() {
        let slots = Slots::new(8, 2);
        let taken: Vec<Slot> = (1..8_u16).filter_map(|n| slots.take(address(&format!("2001:db8::{n}")))).collect();
        assert_eq!(taken.len(), 2);
        let (mapped, plain) = (address("::ffff:10.0.0.1"), address("10.0.0.1"));
        let _same = (slots.take(mapped).expect("a slot"), slots.take(plain).expect("a slot"));
        assert!(slots.take(mapped).is_none());
        assert!(slots.take(address("2001:db8:0:1::1")).is_some(), "the next /64 is somebody else");
        drop(taken);
        assert!(slots.take(address("2001:db8::9")).is_some());
    }
}
