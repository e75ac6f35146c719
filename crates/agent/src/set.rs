//! The assignment set: which tasks this node should have, and how new that knowledge is. Pure.

use model::{Data, Payload, PayloadId, Task, TaskId};
use rpc::proto::dispatcher as proto;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Tasks of one node. Far beyond what an engine can run; a set beyond it is a mistake.
pub(crate) const TASKS_MAX: usize = 10_000;

/// Bytes of secrets and configs that one node holds in memory; a set with more is a mistake.
pub(crate) const DATA_BYTES_MAX: usize = 512 << 20;

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
    /// What the tasks need of secrets and configs. Only ever in memory: an agent that is started again has none.
    pub(crate) data: BTreeMap<PayloadId, Data>,
}

/// A message of the stream, or several that belong together, parsed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Update {
    pub(crate) position: Position,
    /// `None`: everything. `Some`: changes since that position.
    pub(crate) follows: Option<Position>,
    pub(crate) put: Vec<Task>,
    pub(crate) remove: Vec<TaskId>,
    pub(crate) grant: Vec<Payload>,
    pub(crate) revoke: Vec<PayloadId>,
    /// The next message belongs to it.
    pub(crate) more: bool,
}

/// The messages so far of an update that comes in several.
#[derive(Debug, Default)]
pub(crate) struct Parts(Option<Update>);

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
    // Why not would quote from it.
    #[error("an assignment message has data of a secret or config that cannot be decoded")]
    BadData,
    #[error("an assignment message has {0} tasks; a node has at most {TASKS_MAX}")]
    TooMany(usize),
    #[error("the secrets and configs of this node take {0} bytes; a node holds at most {DATA_BYTES_MAX}")]
    TooLarge(usize),
    #[error("an assignment message does not continue the one before it")]
    NoContinuation,
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
            |bytes: &Vec<u8>| model::persisted::decode::<Task>(bytes).map_err(|e| BadUpdate::BadTask(e.to_string()));
        let put = message.put.iter().map(task).collect::<Result<Vec<_>, _>>()?;
        // An id that cannot be parsed cannot name a task that is here.
        let remove = message.remove.iter().filter_map(|id| id.parse().ok()).collect();
        let payload = |bytes: &Vec<u8>| model::persisted::decode::<Payload>(bytes).map_err(|_| BadUpdate::BadData);
        let grant = message.grant.iter().map(payload).collect::<Result<Vec<_>, _>>()?;
        let revoke = message.revoke.iter().filter_map(|id| model::persisted::decode(id).ok()).collect();
        Ok(Update { position, follows, put, remove, grant, revoke, more: message.more })
    }
}

// === impl Parts ===

impl Parts {
    /// Takes the next message; the update, once it is whole.
    pub(crate) fn add(&mut self, part: Update) -> Result<Option<Update>, BadUpdate> {
        let mut whole = match self.0.take() {
            None => part,
            Some(before) if (before.position, before.follows) != (part.position, part.follows) => {
                return Err(BadUpdate::NoContinuation);
            }
            Some(mut before) => {
                before.put.extend(part.put);
                before.remove.extend(part.remove);
                before.grant.extend(part.grant);
                before.revoke.extend(part.revoke);
                before.more = part.more;
                before
            }
        };
        if whole.put.len() > TASKS_MAX {
            return Err(BadUpdate::TooMany(whole.put.len()));
        }
        let bytes = whole.grant.iter().map(|p| p.data.expose().len()).sum();
        if bytes > DATA_BYTES_MAX {
            return Err(BadUpdate::TooLarge(bytes));
        }
        if std::mem::take(&mut whole.more) {
            self.0 = Some(whole);
            return Ok(None);
        }
        Ok(Some(whole))
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
        let data_before = update.follows.is_none().then(|| std::mem::take(&mut self.data));
        for id in &update.revoke {
            changed |= self.data.remove(id).is_some();
        }
        for payload in update.grant {
            changed |= self.data.insert(payload.id, payload.data).is_none();
        }
        let other_data = data_before.is_some_and(|b| b != self.data);
        for id in update.remove {
            changed |= self.tasks.remove(&id).is_some();
        }
        for task in update.put {
            let old = self.tasks.insert(task.id.clone(), task.clone());
            changed |= old.is_none_or(|old| old != task);
        }
        self.position = Some(update.position);
        Outcome::Applied { changed: before.map_or(changed, |b| b != self.tasks || other_data) }
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
        Update {
            position,
            follows: None,
            put: tasks.iter().map(|n| a_task(*n)).collect(),
            remove: Vec::new(),
            grant: Vec::new(),
            revoke: Vec::new(),
            more: false,
        }
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

    fn payload(n: u8, bytes: usize) -> Payload {
        let of = model::Dependency::Secret(format!("{n:025}").parse().unwrap());
        let data = Data::of_config(vec![n; bytes]).unwrap();
        Payload { id: PayloadId { of, version: 1 }, meta: Default::default(), data }
    }

    #[test]
    fn data_comes_and_goes_with_the_set() {
        let mut set = AssignmentSet::default();
        let grant = |n: &[u8]| n.iter().map(|n| payload(*n, 1)).collect::<Vec<_>>();
        let changed = |changed| Outcome::Applied { changed };
        let first = Update { grant: grant(&[1, 2]), ..complete(at(1, 5), &[1]) };
        assert_eq!(set.apply(first, false), changed(true));
        let second =
            Update { grant: grant(&[2, 3]), revoke: vec![payload(1, 1).id], ..next(at(1, 6), at(1, 5), &[], &[]) };
        assert_eq!(set.apply(second.clone(), false), changed(true));
        let has = |set: &AssignmentSet| set.data.keys().cloned().collect::<Vec<_>>();
        assert_eq!(has(&set), [payload(2, 1).id, payload(3, 1).id]);
        assert_eq!((set.apply(second, false), has(&set).len()), (Outcome::Gap, 2));
        // A complete set is all of it, the data included.
        assert_eq!(set.apply(Update { grant: grant(&[3]), ..complete(at(1, 7), &[1]) }, false), changed(true));
        assert_eq!(has(&set), [payload(3, 1).id]);
    }

    #[test]
    fn parts_are_one_update_or_none() {
        let part =
            |n, more| Update { put: vec![a_task(n)], grant: vec![payload(n, 1)], more, ..complete(at(1, 5), &[]) };
        let mut parts = Parts::default();
        assert_eq!(parts.add(part(1, true)), Ok(None));
        assert_eq!(parts.add(part(2, true)), Ok(None));
        let whole = parts.add(part(3, false)).unwrap().unwrap();
        assert_eq!((whole.put.len(), whole.grant.len(), whole.more), (3, 3, false));
        assert_eq!(parts.add(part(4, false)).unwrap().unwrap().put.len(), 1, "nothing is left of it");
        // Another update must not come in between.
        parts.add(part(1, true)).unwrap();
        assert_eq!(parts.add(next(at(1, 6), at(1, 5), &[], &[])), Err(BadUpdate::NoContinuation));
        // What never ends has an end.
        let large = Update { grant: vec![payload(1, 1_000_000)], more: true, ..complete(at(1, 5), &[]) };
        let mut parts = Parts::default();
        let error = (0..1000).find_map(|_| parts.add(large.clone()).err()).unwrap();
        assert!(matches!(error, BadUpdate::TooLarge(bytes) if bytes > DATA_BYTES_MAX), "{error}");
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
        // {"id": "correct horse"}
        let bad = b"\x81\xa2id\xadcorrect horse".to_vec();
        let bad = parse(M { position, grant: vec![bad], ..M::default() }).unwrap_err();
        assert!(bad == BadUpdate::BadData && !bad.to_string().contains("horse"));
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
