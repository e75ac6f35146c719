//! Bounds on connections from a network: in all, and by source, so that one source cannot lock the others out. A source is
//! an IPv4 address or an IPv6 /64: whoever has one address of such a network has all of them.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Counts connections.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total_max: usize,
    per_source_max: usize,
    by_source: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A taken slot; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Slot {
    source: IpAddr,
    shared: Arc<Shared>,
}

// === impl Slots ===

impl Slots {
    /// So many in all, and so many from one source.
    pub(crate) fn new((total_max, per_source_max): (usize, usize)) -> Slots {
        Slots(Arc::new(Shared { total_max, per_source_max, by_source: Mutex::default() }))
    }

    /// A slot, or `None` when there is none left for this source.
    pub(crate) fn take(&self, source: IpAddr) -> Option<Slot> {
        let source = network(source);
        let mut by_source = self.0.by_source.lock();
        let of_source = by_source.get(&source).copied().unwrap_or(0);
        if of_source >= self.0.per_source_max || by_source.values().sum::<usize>() >= self.0.total_max {
            return None;
        }
        by_source.insert(source, of_source + 1);
        Some(Slot { source, shared: self.0.clone() })
    }
}

/// What counts as one source.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

// === impl Slot ===

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_source = self.shared.by_source.lock();
        if let Some(n) = by_source.get_mut(&self.source) {
            *n -= 1;
            if *n == 0 {
                by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_them_all_and_what_is_dropped_is_free() {
        let slots = Slots::new((3, 2));
        let (a, b): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().expect("an address"), "10.0.0.2".parse().expect("an address"));
        let first = slots.take(a).expect("a slot");
        let second = slots.take("::ffff:10.0.0.1".parse().expect("an address"));
        assert!(second.is_some() && slots.take(a).is_none(), "the source's own bound");
        let third = slots.take(b);
        assert!(third.is_some() && slots.take(b).is_none(), "the bound for all");
        drop(first);
        assert!(slots.take(b).is_some());
        drop((second, third));
        assert!(slots.0.by_source.lock().is_empty(), "nothing is kept");
    }

    #[test]
    fn whoever_has_a_whole_ipv6_network_is_one_source() {
        let slots = Slots::new((3, 2));
        let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let taken = [slots.take(address("2001:db8::1")), slots.take(address("2001:db8::ffff:0:0:2"))];
        assert!(taken.iter().all(Option::is_some) && slots.take(address("2001:db8::3")).is_none());
        let neighbour = slots.take(address("2001:db8:0:1::1"));
        assert!(neighbour.is_some(), "the next /64 is somebody else");
        drop((taken, neighbour));
        assert!(slots.0.by_source.lock().is_empty(), "nothing is kept");
    }
}
