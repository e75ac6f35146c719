//! The assignment set: which tasks this node should have, and how new that knowledge is. Pure.

use model::{Task, TaskId};
use rpc::proto::dispatcher as proto;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Tasks of one node. Far beyond what an engine can run; a set beyond it is a mistake.
pub(crate) const TASKS_MAX: usize = 10_000;

/// How new an assignment set is: the raft term that its sender knew, and the log index that it reflects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Position {
    /// Raft term.
    pub term: u64,
    /// Log index.
    pub index: u64,
}

/// The tasks and their position; `None` before the first set.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct AssignmentSet {
    pub(crate) position: Option<Position>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
}

/// A message of the stream, parsed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Update {
    pub(crate) position: Position,
    /// `None`: everything. `Some`: changes since that position.
    pub(crate) follows: Option<Position>,
    pub(crate) put: Vec<Task>,
    pub(crate) remove: Vec<TaskId>,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was taken. `changed` when tasks changed, not only the position.
    Applied { changed: bool },
    /// It is older than what is here, and was refused.
    Stale,
    /// It follows something that is not here, and was refused.
    Gap,
}

/// A message that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadUpdate {
    #[error("an assignment message has no position")]
    NoPosition,
    #[error("an incremental assignment message does not say what it follows")]
    NoPredecessor,
    #[error("an assignment message has a task that cannot be decoded: {0}")]
    BadTask(String),
    #[error("an assignment message has {0} tasks; a node has at most {TASKS_MAX}")]
    TooMany(usize),
}

// === impl Position ===

impl From<proto::Position> for Position {
    fn from(p: proto::Position) -> Position {
        Position { term: p.term, index: p.index }
    }
}

impl From<Position> for proto::Position {
    fn from(p: Position) -> proto::Position {
        proto::Position { term: p.term, index: p.index }
    }
}

impl Position {
    /// True when a set at this position may replace one at `have`. Both parts count: a manager that has heard of a new leader
    /// but not yet caught up with its log knows a higher term and a lower index, and must not take tasks away again.
    pub fn may_replace(self, have: Position) -> bool {
        self.term >= have.term && self.index >= have.index
    }
}

// === impl Update ===

impl Update {
    pub(crate) fn parse(message: proto::AssignmentsMessage) -> Result<Update, BadUpdate> {
        let position = message.position.ok_or(BadUpdate::NoPosition)?.into();
        let follows = match message.kind() {
            proto::assignments_message::Kind::Complete => None,
            proto::assignments_message::Kind::Incremental => {
                Some(message.follows.ok_or(BadUpdate::NoPredecessor)?.into())
            }
        };
        if message.put.len() > TASKS_MAX {
            return Err(BadUpdate::TooMany(message.put.len()));
        }
        let task =
            |bytes: &Vec<u8>| rmp_serde::from_slice::<Task>(bytes).map_err(|e| BadUpdate::BadTask(e.to_string()));
        let put = message.put.iter().map(task).collect::<Result<Vec<_>, _>>()?;
        // An id that cannot be parsed cannot name a task that is here.
        let remove = message.remove.iter().filter_map(|id| id.parse().ok()).collect();
        Ok(Update { position, follows, put, remove })
    }
}

// === impl AssignmentSet ===

impl AssignmentSet {
    /// Takes an update, or refuses it and stays as it was. `accept_stale` is the simulation's deliberate bug.
    pub(crate) fn apply(&mut self, update: Update, accept_stale: bool) -> Outcome {
        let stale = self.position.is_some_and(|have| !update.position.may_replace(have));
        if stale && !accept_stale {
            return Outcome::Stale;
        }
        if update.follows.is_some() && update.follows != self.position {
            return Outcome::Gap;
        }
        let before = update.follows.is_none().then(|| std::mem::take(&mut self.tasks));
        let mut changed = false;
        for id in update.remove {
            changed |= self.tasks.remove(&id).is_some();
        }
        for task in update.put {
            let old = self.tasks.insert(task.id.clone(), task.clone());
            changed |= old.is_none_or(|old| old != task);
        }
        self.position = Some(update.position);
        Outcome::Applied { changed: before.map_or(changed, |b| b != self.tasks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{a_task, task_id};

    fn at(term: u64, index: u64) -> Position {
        Position { term, index }
    }

    fn complete(position: Position, tasks: &[u8]) -> Update {
        Update { position, follows: None, put: tasks.iter().map(|n| a_task(*n)).collect(), remove: Vec::new() }
    }

    fn next(position: Position, follows: Position, put: &[u8], remove: &[u8]) -> Update {
        Update {
            remove: remove.iter().map(|n| task_id(*n)).collect(),
            follows: Some(follows),
            ..complete(position, put)
        }
    }

    fn ids(set: &AssignmentSet) -> Vec<TaskId> {
        set.tasks.keys().cloned().collect()
    }

    #[test]
    fn a_complete_set_replaces_and_an_incremental_one_changes() {
        let mut set = AssignmentSet::default();
        assert_eq!(set.apply(complete(at(1, 5), &[1, 2]), false), Outcome::Applied { changed: true });
        assert_eq!(set.apply(next(at(1, 7), at(1, 5), &[3], &[1]), false), Outcome::Applied { changed: true });
        assert_eq!(ids(&set), [task_id(2), task_id(3)]);
        assert_eq!(set.apply(next(at(1, 8), at(1, 7), &[3], &[9]), false), Outcome::Applied { changed: false });
        assert_eq!(set.apply(complete(at(2, 8), &[2, 3]), false), Outcome::Applied { changed: false });
        assert_eq!(set.apply(complete(at(2, 9), &[4]), false), Outcome::Applied { changed: true });
        assert_eq!((ids(&set), set.position), (vec![task_id(4)], Some(at(2, 9))));
    }

    #[test]
    fn an_older_set_is_refused_and_changes_nothing() {
        let mut set = AssignmentSet::default();
        set.apply(complete(at(3, 10), &[1]), false);
        let before = set.clone();
        for position in [at(3, 9), at(2, 11), at(4, 9)] {
            assert_eq!(set.apply(complete(position, &[]), false), Outcome::Stale, "{position:?}");
            assert_eq!(set.apply(next(position, at(3, 10), &[], &[1]), false), Outcome::Stale, "{position:?}");
        }
        assert_eq!(set, before);
        // The deliberate bug does what it says.
        assert_eq!(set.apply(complete(at(3, 9), &[]), true), Outcome::Applied { changed: true });
    }

    #[test]
    fn an_update_that_follows_something_else_is_a_gap() {
        let mut set = AssignmentSet::default();
        assert_eq!(set.apply(next(at(1, 2), at(1, 1), &[1], &[]), false), Outcome::Gap);
        set.apply(complete(at(1, 5), &[1]), false);
        let before = set.clone();
        assert_eq!(set.apply(next(at(1, 9), at(1, 6), &[2], &[]), false), Outcome::Gap);
        assert_eq!(set, before);
    }

    #[test]
    fn a_message_that_makes_no_sense_is_refused() {
        use proto::{AssignmentsMessage as M, assignments_message::Kind};
        let position = Some(at(1, 1).into());
        let parse = |m| Update::parse(m);
        assert_eq!(parse(M::default()), Err(BadUpdate::NoPosition));
        let no_predecessor = M { position, kind: Kind::Incremental.into(), ..M::default() };
        assert_eq!(parse(no_predecessor), Err(BadUpdate::NoPredecessor));
        assert!(matches!(parse(M { position, put: vec![vec![0xff, 1]], ..M::default() }), Err(BadUpdate::BadTask(_))));
        let many = M { position, put: vec![Vec::new(); TASKS_MAX + 1], ..M::default() };
        assert_eq!(parse(many), Err(BadUpdate::TooMany(TASKS_MAX + 1)));
    }

    proptest::proptest! {
        /// Whatever arrives, the position never goes down, and a refused update leaves everything as it was.
        #[test]
        fn never_backwards(updates in proptest::collection::vec((0u64..4, 0u64..6, 0u64..4, 0u64..6, 0u8..3, 0u8..5), 0..40)) {
            let mut set = AssignmentSet::default();
            for (term, index, from_term, from_index, kind, task) in updates {
                let update = match kind {
                    0 => complete(at(term, index), &[task]),
                    1 => next(at(term, index), at(from_term, from_index), &[task], &[]),
                    _ => next(at(term, index), set.position.unwrap_or_default(), &[], &[task]),
                };
                let before = set.clone();
                match set.apply(update, false) {
                    Outcome::Applied { .. } => {
                        proptest::prop_assert!(before.position.is_none_or(|b| set.position.unwrap().may_replace(b)));
                    }
                    Outcome::Stale | Outcome::Gap => proptest::prop_assert_eq!(&set, &before),
                }
            }
        }
    }
}
