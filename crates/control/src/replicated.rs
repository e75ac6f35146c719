//! The replicated orchestrator: as many slots as the service wants.

use crate::service::Context;
use crate::slot::{self, Next, Slot, Slots, Stop};
use model::{Place, SlotKey, TaskState};
use std::collections::{BTreeMap, BTreeSet};

/// Opens the lowest free slots, or closes those that are missed least; true when there is more to do than fits.
pub(crate) fn scale(context: &Context<'_>, slots: &mut Slots) -> bool {
    let wanted = usize::try_from(context.service.spec.replicas().unwrap_or(0)).unwrap_or(usize::MAX);
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
    let taken: BTreeSet<&SlotKey> = slots.values().filter(|s| s.is_occupied()).map(|s| &s.key).collect();
    let keys = (1..).map(|n| SlotKey { run: None, place: Place::Number(n) });
    let free: Vec<SlotKey> = keys.filter(|k| !taken.contains(k)).take(count).collect();
    for key in free {
        slot::at(slots, key).add(context, Next::default());
    }
}

/// Keeps slots that run before those that do not, and among those that run, the first on each node before the second on
/// any; so the nodes with most copies lose one first.
fn close(slots: &mut Slots, keep: usize) {
    let mut copies: BTreeMap<_, usize> = BTreeMap::new();
    let mut order: Vec<(bool, usize, SlotKey)> = Vec::new();
    for (key, slot) in slots.iter().filter(|(_, s)| s.is_occupied()) {
        let on = running_on(slot);
        let copy = on.as_ref().map_or(0, |node| {
            let copies = copies.entry(node.clone()).or_default();
            *copies += 1;
            *copies
        });
        order.push((on.is_none(), copy, key.clone()));
    }
    order.sort_unstable();
    for (_, _, key) in order.into_iter().skip(keep) {
        let items = slots.get_mut(&key).map(|s| &mut s.items);
        items.into_iter().flatten().for_each(|i| i.stop(Stop::Remove));
    }
}

fn running_on(slot: &Slot) -> Option<model::NodeId> {
    let running = |i: &&crate::slot::Item| i.is_wanted() && i.task.status.state == TaskState::Running;
    slot.present().find(running).and_then(|i| i.task.node_id.clone())
}
