//! The global orchestrator: a task on each node that may run one (SwarmKit orchestrator/global).

use crate::eligible::{Standing, standing};
use crate::enforce;
use crate::service::Context;
use crate::slot::{self, Next, Slot, Slots, Stop};
use model::{NodeId, Place, SlotKey, TaskState};

/// Opens the places of nodes that came to be eligible and closes those of nodes that are no more; true when there is more to
/// do than fits. What ended on a node that is eligible is for the restart supervisor, what is outdated for the updater.
pub(crate) fn follow(context: &Context<'_>, slots: &mut Slots) -> bool {
    for slot in slots.values_mut() {
        close(context, slot);
    }
    open(context, slots, None)
}

/// The same for one run of a job.
pub(crate) fn follow_run(context: &Context<'_>, slots: &mut Slots, run: u64, may_begin: bool) -> bool {
    for slot in slots.values_mut().filter(|s| s.key.run == Some(run)) {
        close(context, slot);
    }
    may_begin && open(context, slots, Some(run))
}

fn close(context: &Context<'_>, slot: &mut Slot) {
    let Some(node) = slot.key.node() else { return };
    let how = match standing(context.snapshot, node, &context.service.spec.task) {
        Standing::Open | Standing::Kept => return,
        Standing::Closed => Stop::Shutdown,
        // Its tasks go with the node, as in Docker.
        Standing::Gone => Stop::Remove,
    };
    let done = |state| slot.key.run.is_some() && state == TaskState::Complete && how == Stop::Shutdown;
    let items = slot.items.iter_mut().filter(|i| i.is_present() && (how == Stop::Remove || i.task.is_wanted()));
    for item in items.filter(|i| !done(i.task.status.state)) {
        // Asked before it is told to stop: what is stopping has not to leave.
        let enforced = how == Stop::Shutdown && enforce::must_leave(context.snapshot, context.service, &item.task);
        item.stop(how);
        if enforced {
            enforce::say_why(item);
        }
    }
}

fn open(context: &Context<'_>, slots: &mut Slots, run: Option<u64>) -> bool {
    let spec = &context.service.spec.task;
    let missing = |id: &NodeId| {
        let key = SlotKey { run, place: Place::Node(id.clone()) };
        let empty = slots.get(&key).is_none_or(|s| !s.is_occupied());
        (empty && standing(context.snapshot, id, spec) == Standing::Open).then_some(key)
    };
    let mut missing = context.snapshot.nodes().filter_map(|n| missing(&n.id));
    let opening: Vec<SlotKey> = missing.by_ref().take(context.room).collect();
    let more = missing.next().is_some();
    for key in opening {
        slot::at(slots, key).add(context, Next::default());
    }
    more
}
