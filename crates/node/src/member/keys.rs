//! The member's data keys: locked as the cluster says, changed before they get old.

use super::Member;
use crate::manager::Manager;
use model::{Role, UnlockKey};
use std::sync::Arc;
use std::time::Duration;
use store::{Event, Snapshot, StoreClient as _};

/// How often the age of the data key is looked at, when nothing else happens.
const LOOK: Duration = Duration::from_secs(3600);
/// And at most.
const LOOK_AT_LEAST: Duration = Duration::from_secs(1);
/// After something went wrong.
const RETRY: Duration = Duration::from_secs(5);

/// The unlock key of a state; `None` when it has no cluster yet.
fn wanted(state: &Snapshot) -> Option<Option<UnlockKey>> {
    state.cluster().map(|c| c.security.unlock_key.clone())
}

// === impl Member ===

impl Member {
    /// Changes the data key when it is old, and brings every change of it to its end: those that a crash interrupted, too. Runs to
    /// its own end: a write of the key file must not be left alone half-way.
    pub(super) async fn keep_data_keys(self: Arc<Self>) {
        let (mut changes, mut identity) = (self.keys.store().changes(), self.identity.subscribe());
        loop {
            changes.borrow_and_update();
            identity.borrow_and_update();
            let wait = match self.keep_data_keys_once().await {
                Ok(next) => next,
                Err(reason) => {
                    tracing::warn!(reason, "the change of this node's data key has to wait");
                    RETRY
                }
            };
            tokio::select! {
                biased;
                () = self.tasks.stopped() => return,
                changed = changes.changed() => if changed.is_err() { return },
                changed = identity.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Gives when to look again.
    async fn keep_data_keys_once(&self) -> Result<Duration, String> {
        let (store, now) = (self.keys.store(), self.world.seams.clock.unix_now());
        let is_manager = self.identity().role == Role::Manager;
        // Only managers are locked; this one was demoted.
        if !is_manager && !self.keys.follows(None).await {
            self.keys.unlock_worker(now, &self.tasks).await.map_err(|e| e.to_string())?;
            tracing::info!("this node is no manager any more: its data keys need no unlock key from now on");
        }
        if now.saturating_sub(store.current_since().await) >= self.data_key_max_age {
            let key = store.rotate(now).await.map_err(|e| e.to_string())?;
            tracing::info!(%key, "this node has a new data key, as the one before got old");
        }
        let manager = self.manager();
        let retired = self.keys.retire_older(is_manager, manager.as_ref().map(|m| &m.raft), &self.tasks).await;
        retired.map_err(|e| e.to_string())?;
        let age = now.saturating_sub(store.current_since().await);
        Ok(self.data_key_max_age.saturating_sub(age).clamp(LOOK_AT_LEAST, LOOK))
    }

    /// Keeps the key file locked under the cluster's unlock key, or in the clear when there is none: also when that changed while
    /// this manager was away. Runs to its own end, as [`Member::keep_data_keys`].
    pub(super) async fn follow_autolock(self: Arc<Self>, manager: Arc<Manager>) {
        let (mut state, mut keys) = (manager.client.changes(), self.keys.store().changes());
        loop {
            keys.borrow_and_update();
            let wanted = tokio::select! {
                biased;
                () = manager.tasks().stopped() => return,
                wanted = self.other_lock(&manager) => wanted,
            };
            let followed = match wanted {
                Ok(Some(wanted)) => self.lock_as(wanted).await,
                Ok(None) => Ok(()),
                Err(reason) => Err(reason),
            };
            let wait = match followed {
                Ok(()) => LOOK,
                Err(reason) => {
                    tracing::warn!(reason, "this manager's disk is not locked as the swarm says yet");
                    RETRY
                }
            };
            tokio::select! {
                biased;
                () = manager.tasks().stopped() => return,
                event = state.next() => if matches!(event, Event::Closed) { return },
                changed = keys.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// What the key file should be locked under; `None` when it is.
    async fn other_lock(&self, manager: &Manager) -> Result<Option<Option<UnlockKey>>, String> {
        let Some(local) = wanted(&manager.client.local()) else { return Ok(None) };
        if self.keys.follows(local.as_ref()).await {
            return Ok(None);
        }
        // A copy that is behind tells of yesterday's key, or of a time without one: the data keys must not be written in the
        // clear for that.
        let current = manager.client.current().await.map_err(|e| e.to_string())?;
        Ok(wanted(&current))
    }

    async fn lock_as(&self, wanted: Option<UnlockKey>) -> Result<(), String> {
        let now = self.world.seams.clock.unix_now();
        if self.keys.follow(wanted.as_ref(), now).await.map_err(|e| e.to_string())? {
            let generation = wanted.map(|k| k.generation);
            tracing::info!(?generation, "this manager's data keys are locked as the swarm says");
        }
        Ok(())
    }
}
