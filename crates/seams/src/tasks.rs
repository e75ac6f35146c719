//! Asynchronous tasks that belong to somebody.

use std::future::Future;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks with one owner: they are asked to stop together, and awaited together. Nothing is spawned outside a
/// group, so nothing outlives its owner unnoticed.
#[derive(Clone, Default, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

// === impl Tasks ===

impl Tasks {
    /// An empty group.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// A group of its own that also stops when this one does.
    pub fn child(&self) -> Tasks {
        Tasks { tracker: TaskTracker::new(), stop: self.stop.child_token() }
    }

    /// Starts a task. It is dropped at its next await point when the group stops; use [`Tasks::spawn_to_end`] for one that
    /// wants to clean up.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let stop = self.stop.clone();
        self.spawn_to_end(name, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = task => {}
            }
        })
    }

    /// Starts a task that watches [`Tasks::stopped`] itself and is awaited to its end.
    #[allow(clippy::disallowed_methods)] // this is the seam
    pub fn spawn_to_end(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        tracing::trace!(task = name, "task started");
        tokio::spawn(self.tracker.track_future(task))
    }

    /// Resolves when the group is asked to stop.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// True once the group was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Asks every task to stop, without waiting.
    pub fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
    }

    /// Asks every task to stop and waits for them, at most `timeout`. False when some were still running then.
    pub async fn shutdown(&self, timeout: Duration) -> bool {
        self.stop();
        tokio::time::timeout(timeout, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_alone() {
        let parent = Tasks::new();
        let (a, b) = (parent.child(), parent.child());
        a.spawn("a", std::future::pending());
        b.spawn("b", std::future::pending());
        assert!(a.shutdown(Duration::from_secs(5)).await);
        assert!(!b.is_stopped());
        parent.stop();
        assert!(b.is_stopped());
    }
}
