//! The replicated orchestrator: as many slots as the service wants.

use crate::service::Context;
use crate::slot::{Slot, Slots, Stop};
use model::TaskState;
use std::collections::{BTreeMap, BTreeSet};

/// Opens the lowest free slots, or closes those that are missed least; true when there is more to do than fits.
pub(crate) fn scale(context: &Context<'_>, slots: &mut Slots) -> bool {
    let wanted = usize::try_from(context.service.spec.replicas()).unwrap_or(usize::MAX);
    let occupied = slots.values().filter(|s| s.is_occupied()).count();
    if occupied < wanted {
        let opening = (wanted - occupied).min(context.room);
        open(context, slots, opening);
        opening < wanted - occupied
    } else {
        close(slots, wanted);
        false
    }
}

fn open(context: &Context<'_>, slots: &mut Slots, count: usize) {
    let taken: BTreeSet<u64> = slots.iter().filter(|(_, s)| s.is_occupied()).map(|(n, _)| *n).collect();
    let free: Vec<u64> = (1..).filter(|n| !taken.contains(n)).take(count).collect();
    for number in free {
        slots.entry(number).or_default().add(context.service, number, None, context.now);
    }
}

/// Keeps slots that run before those that do not, and among those that run, the first on each node before the second on
/// any; so the nodes with most copies lose one first.
fn close(slots: &mut Slots, keep: usize) {
    let mut copies: BTreeMap<_, usize> = BTreeMap::new();
    let mut order: Vec<(bool, usize, u64)> = Vec::new();
    for (number, slot) in slots.iter().filter(|(_, s)| s.is_occupied()) {
        let on = running_on(slot);
        let copy = on.as_ref().map_or(0, |node| {
            let copies = copies.entry(node.clone()).or_default();
            *copies += 1;
            *copies
        });
        order.push((on.is_none(), copy, *number));
    }
    order.sort_unstable();
    for (_, _, number) in order.into_iter().skip(keep) {
        let items = slots.get_mut(&number).map(|s| &mut s.items);
        items.into_iter().flatten().for_each(|i| i.stop(Stop::Remove));
    }
}

fn running_on(slot: &Slot) -> Option<model::NodeId> {
    let running = |i: &&crate::slot::Item| i.is_wanted() && i.task.status.state == TaskState::Running;
    slot.present().find(running).and_then(|i| i.task.node_id.clone())
}
