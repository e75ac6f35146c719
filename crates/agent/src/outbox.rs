//! Statuses on their way to the managers: kept until acknowledged, the newest of each task.

use model::{TaskId, TaskStatus};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::Notify;

/// Statuses sent at once: with [`model::limits::STATUS_TEXT_BYTES_MAX`] for each text, far below the size of a message.
pub(crate) const BATCH_MAX: usize = 500;

/// What was not acknowledged yet. One entry for each task, so it is bounded by the number of tasks; a status that was
/// overtaken by a newer one of its task is not sent any more, for a task only ever moves forward.
#[derive(Default)]
pub(crate) struct Outbox {
    pending: Mutex<Pending>,
    news: Notify,
}

#[derive(Default)]
struct Pending {
    /// Rises with every entry: tells an entry that was replaced while in flight.
    numbers: u64,
    by_task: BTreeMap<TaskId, (u64, TaskStatus)>,
}

/// What is sent in one call.
pub(crate) struct Batch {
    pub(crate) statuses: Vec<(TaskId, TaskStatus)>,
    numbers: Vec<u64>,
}

// === impl Outbox ===

impl Outbox {
    /// Puts a status in, in place of an older one of the same task. One that would lead backwards is dropped.
    pub(crate) fn push(&self, task: TaskId, status: TaskStatus) {
        let mut pending = self.pending.lock();
        if pending.by_task.get(&task).is_some_and(|(_, old)| old.state > status.state) {
            return;
        }
        pending.numbers += 1;
        let number = pending.numbers;
        pending.by_task.insert(task, (number, status));
        drop(pending);
        self.news.notify_one();
    }

    /// True when a status of this task waits to be acknowledged.
    pub(crate) fn has(&self, task: &TaskId) -> bool {
        self.pending.lock().by_task.contains_key(task)
    }

    /// What to send next, oldest first, at most so many; waits until there is something. It stays until
    /// [`Outbox::acknowledge`].
    pub(crate) async fn next(&self, at_most: usize) -> Batch {
        loop {
            let batch = self.batch(at_most);
            if !batch.statuses.is_empty() {
                return batch;
            }
            self.news.notified().await;
        }
    }

    fn batch(&self, at_most: usize) -> Batch {
        let pending = self.pending.lock();
        let mut entries: Vec<_> = pending.by_task.iter().map(|(id, (n, s))| (*n, id.clone(), s.clone())).collect();
        entries.sort_by_key(|(n, ..)| *n);
        entries.truncate(at_most.clamp(1, BATCH_MAX));
        let numbers = entries.iter().map(|(n, ..)| *n).collect();
        Batch { statuses: entries.into_iter().map(|(_, id, s)| (id, s)).collect(), numbers }
    }

    /// Forgets what was sent, but not what came since.
    pub(crate) fn acknowledge(&self, batch: &Batch) {
        let mut pending = self.pending.lock();
        for ((task, _), number) in batch.statuses.iter().zip(&batch.numbers) {
            if pending.by_task.get(task).is_some_and(|(n, _)| n == number) {
                pending.by_task.remove(task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::task_id;
    use model::TaskState;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus { state, ..TaskStatus::default() }
    }

    fn states(batch: &Batch) -> Vec<(TaskId, TaskState)> {
        batch.statuses.iter().map(|(id, s)| (id.clone(), s.state)).collect()
    }

    #[tokio::test]
    async fn what_is_not_acknowledged_is_sent_again_and_the_newest_wins() {
        let outbox = Outbox::default();
        outbox.push(task_id(2), status(TaskState::Accepted));
        outbox.push(task_id(1), status(TaskState::Accepted));
        let first = outbox.next(BATCH_MAX).await;
        assert_eq!(states(&first), [(task_id(2), TaskState::Accepted), (task_id(1), TaskState::Accepted)]);
        outbox.push(task_id(2), status(TaskState::Running));
        outbox.push(task_id(2), status(TaskState::Preparing)); // too late: dropped
        let again = outbox.next(BATCH_MAX).await;
        assert_eq!(states(&again), [(task_id(1), TaskState::Accepted), (task_id(2), TaskState::Running)]);
        outbox.acknowledge(&first);
        assert_eq!(states(&outbox.next(BATCH_MAX).await), [(task_id(2), TaskState::Running)]);
        assert!(outbox.has(&task_id(2)) && !outbox.has(&task_id(1)));
    }

    #[tokio::test]
    async fn a_batch_is_bounded() {
        let outbox = Outbox::default();
        for n in 0..=u8::MAX {
            for m in 0..4 {
                outbox.push(crate::testing::task_id_of(u64::from(n) * 4 + m), status(TaskState::Accepted));
            }
        }
        let batch = outbox.next(BATCH_MAX).await;
        assert_eq!(batch.statuses.len(), BATCH_MAX);
        outbox.acknowledge(&batch);
        assert_eq!(outbox.next(BATCH_MAX).await.statuses.len(), BATCH_MAX);
    }
}
