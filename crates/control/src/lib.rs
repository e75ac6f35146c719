//! The control loops: what turns intent into assignments, and keeps it so.
//!
//! **Owns** the orchestrators of all modes (replicated, global, jobs and their schedules), the updater, the restart supervisor,
//! the reaper, the scheduler and the constraint enforcer, and what becomes of the data of secrets and configs ([`grants`]), all
//! as one pure function of a snapshot: [`reconcile`]. It is level-triggered: it looks at how things are and not at what happened,
//! and how far an update or a schedule has come, since when a task waits and how often it failed is read from the store. From
//! intent to assignment is one commit. [`driver`] is the shell that runs it on the leader.
//!
//! **Must never** do I/O outside the driver, read a clock, roll dice, or keep progress in memory.
//!
//! A plan enters the log in the term of the leader that made it, or never ([`driver::run`]), so a leader's plans know all that those
//! of the leaders before it have brought about. A proposal whose outcome was unknown may still be applied late, and others
//! write at any time. Every plan is therefore safe to apply twice or never: it checks the version of the service, of each node it
//! places a task on and of each task it changes, and the id of a new task is derived from what it follows ([`next_task_id`]), so
//! that the same replacement is never made twice.

#![forbid(unsafe_code)]

pub mod autopilot;
pub mod driver;
pub mod forecast;
pub mod grants;
pub mod scheduler;
pub mod why;

mod affected;
mod canary;
mod cron;
mod dirty;
mod eligible;
mod enforce;
mod global;
mod ids;
mod inherit;
mod job;
mod plan;
mod reaper;
mod rebalance;
mod replicated;
mod restart;
mod service;
mod slot;
mod update;
mod words;

pub use affected::{Key, affected, expand};
pub use canary::Canary;
pub use dirty::is_up_to_date;
pub use ids::{Follows, next_task_id};
pub use plan::{Batch, Budget, Plan};

use model::{ServiceId, Timestamp};
use store::Snapshot;

/// Brings what `key` names closer to what is wanted: as much as fits one transaction. Once the transaction is applied,
/// or when it is empty, nothing is left to do before [`Plan::wake_at`] unless something changes.
pub fn reconcile(snapshot: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    let batch = reconcile_services(snapshot, expand(snapshot, [key]), now, Budget::default());
    Plan { wake_at: batch.wakes.values().copied().min(), transaction: batch.transaction }
}

/// Brings several services closer to what is wanted, in one transaction, as far as the budget allows. What did not fit
/// wakes at `now`.
pub fn reconcile_services(
    snapshot: &Snapshot,
    services: impl IntoIterator<Item = ServiceId>,
    now: Timestamp,
    budget: Budget,
) -> Batch {
    reconcile_with(snapshot, services, now, budget, Canary::default())
}

/// As [`reconcile_services`], with deliberate bugs.
pub fn reconcile_with(
    snapshot: &Snapshot,
    services: impl IntoIterator<Item = ServiceId>,
    now: Timestamp,
    budget: Budget,
    canary: Canary,
) -> Batch {
    let mut planner = plan::Planner::new(snapshot, now, budget, canary);
    for id in services {
        service::reconcile(&mut planner, &id);
    }
    grants::prune(&mut planner);
    planner.finish()
}
