//! Bounds on connections that have not shown who they are.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Counts unauthenticated connections, in all and by source, so that one source ([`ca::network_of`]) cannot lock the others
/// out.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
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
pub(crate) struct Slot {
    source: IpAddr,
    shared: Arc<Shared>,
}

// === impl Slots ===

impl Slots {
    pub(crate) fn new(total_max: usize, per_source_max: usize) -> Slots {
        Slots { shared: Arc::new(Shared { total_max, per_source_max, taken: Mutex::default() }) }
    }

    /// A slot, or `None` when there is none left for this source.
    pub(crate) fn take(&self, source: IpAddr) -> Option<Slot> {
        let source = ca::network_of(source);
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

    #[test]
    fn one_source_cannot_take_them_all_and_what_is_dropped_is_free() {
        let slots = Slots::new(3, 2);
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = slots.take(a).unwrap();
        let _second = slots.take(a).unwrap();
        assert!(slots.take(a).is_none(), "the source's own bound");
        let _third = slots.take(b).unwrap();
        assert!(slots.take(b).is_none(), "the bound for all");
        drop(first);
        assert!(slots.take(b).is_some());
        assert_eq!(slots.shared.taken.lock().by_source.len(), 2);
    }

    #[test]
    fn attack_18_a_host_with_many_ipv6_addresses_is_one_source() {
        let slots = Slots::new(8, 2);
        let taken: Vec<Slot> =
            (1..8_u16).filter_map(|n| slots.take(format!("2001:db8::{n}").parse().unwrap())).collect();
        assert_eq!(taken.len(), 2);
        let (mapped, plain) = ("::ffff:10.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let _same = (slots.take(mapped).unwrap(), slots.take(plain).unwrap());
        assert!(slots.take(mapped).is_none());
        assert!(slots.take("2001:db8:0:1::1".parse().unwrap()).is_some(), "the next /64 is somebody else");
        drop(taken);
        assert!(slots.take("2001:db8::9".parse().unwrap()).is_some());
    }
}
