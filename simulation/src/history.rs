//! What users did and were told, and whether one order of it all explains it (linearizability, object by object).
//!
//! Each object (a service name) is a register: absent, or present with the mark that its last writer left. An operation
//! took effect at one moment between its call and its answer; one whose outcome is unknown took effect at some moment after its
//! call, or never. The search is Wing and Gong's with the memory of Lowe's: depth first over which operation comes next,
//! never twice from the same set of done operations and the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// A writer's mark: never used twice.
pub type Mark = u64;

/// What a user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// To create the object, marked.
    Create(Mark),
    /// To replace the mark that it saw by another.
    Update {
        /// The mark at the version that it gave.
        seen: Mark,
        /// The new one.
        new: Mark,
    },
    /// To remove it.
    Remove,
    /// To see it.
    Read,
}

/// What it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Done.
    Done,
    /// The object is there already (creation), or has changed (update): nothing done.
    Refused,
    /// There is no such object: nothing done.
    Absent,
    /// This mark (reading).
    Saw(Mark),
    /// Nothing that can be relied on: it may have been done, or may be done yet.
    Unknown,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who.
    pub client: String,
    /// What it asked for.
    pub ask: Ask,
    /// What it was told.
    pub told: Told,
    /// When it called.
    pub called: Duration,
    /// When it was answered (or gave up).
    pub answered: Duration,
}

/// The operations of a run, by object.
#[derive(Debug, Clone, Default)]
pub struct History(BTreeMap<String, Vec<Operation>>);

/// A history that no order explains.
#[derive(Debug, thiserror::Error)]
pub struct NotLinearizable {
    /// The object.
    pub object: String,
    /// Its operations, by their calls.
    pub operations: Vec<Operation>,
}

/// More operations on one object than the search can hold.
const OPERATIONS_MAX: usize = 128;

type State = Option<Mark>;

// === impl History ===

impl History {
    /// Adds an operation that was answered or given up.
    pub fn add(&mut self, object: &str, operation: Operation) {
        self.0.entry(object.to_owned()).or_default().push(operation);
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many operations an object has.
    pub fn of(&self, object: &str) -> usize {
        self.0.get(object).map_or(0, Vec::len)
    }

    /// True when another operation on the object still can be judged.
    pub fn has_room(&self, object: &str) -> bool {
        self.of(object) + 8 < OPERATIONS_MAX
    }

    /// Looks for an order of each object's operations that explains what was told.
    ///
    /// # Errors
    /// [`NotLinearizable`] for the first object that has none.
    pub fn check(&self) -> Result<(), NotLinearizable> {
        for (object, operations) in &self.0 {
            let mut operations: Vec<Operation> = operations.iter().filter(|o| tells(o)).cloned().collect();
            operations.sort_by_key(|o| (o.called, o.answered));
            assert!(operations.len() <= OPERATIONS_MAX, "the workload made too many operations on {object}");
            if !explained(&operations) {
                return Err(NotLinearizable { object: object.clone(), operations });
            }
        }
        Ok(())
    }
}

impl fmt::Display for NotLinearizable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order of the operations on {} explains what was told:", self.object)?;
        for o in &self.operations {
            let (called, answered) = (o.called.as_secs_f64(), o.answered.as_secs_f64());
            writeln!(f, "  {called:>8.3}..{answered:<8.3} {:<6} {:?} -> {:?}", o.client, o.ask, o.told)?;
        }
        Ok(())
    }
}

/// False for what says nothing about the object, whatever happened.
fn tells(operation: &Operation) -> bool {
    !matches!((operation.ask, operation.told), (Ask::Read, Told::Unknown) | (Ask::Update { .. }, Told::Refused))
}

/// The state after the operation, when it could have happened in `state` with what was told.
fn step(state: State, operation: &Operation) -> Option<State> {
    match (operation.ask, operation.told, state) {
        (Ask::Create(mark), Told::Done, None) => Some(Some(mark)),
        (Ask::Create(_), Told::Refused, Some(_)) => Some(state),
        (Ask::Update { seen, new }, Told::Done, Some(mark)) if mark == seen => Some(Some(new)),
        (Ask::Remove, Told::Done, Some(_)) => Some(None),
        (Ask::Update { .. } | Ask::Remove | Ask::Read, Told::Absent, None) => Some(None),
        (Ask::Read, Told::Saw(mark), Some(m)) if m == mark => Some(state),
        // Not known to be done: if it was done at all, then as it would have been.
        (Ask::Create(mark), Told::Unknown, None) => Some(Some(mark)),
        (Ask::Update { seen, new }, Told::Unknown, Some(mark)) if mark == seen => Some(Some(new)),
        (Ask::Remove, Told::Unknown, Some(_)) => Some(None),
        _ => None,
    }
}

fn explained(operations: &[Operation]) -> bool {
    let required: u128 =
        operations.iter().enumerate().filter(|(_, o)| o.told != Told::Unknown).map(|(i, _)| 1 << i).sum();
    let mut tried: BTreeSet<(u128, State)> = BTreeSet::new();
    let mut stack: Vec<(u128, State)> = vec![(0, None)];
    while let Some((done, state)) = stack.pop() {
        if done & required == required {
            return true;
        }
        if !tried.insert((done, state)) {
            continue;
        }
        // What comes next was called before any other that is not done was answered.
        let left = || operations.iter().enumerate().filter(|(i, _)| done & (1 << i) == 0);
        let first_answer = left().filter(|(_, o)| o.told != Told::Unknown).map(|(_, o)| o.answered).min();
        for (i, operation) in left() {
            if first_answer.is_none_or(|at| operation.called <= at)
                && let Some(next) = step(state, operation)
            {
                stack.push((done | 1 << i, next));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(operations: &[(Ask, Told, u64, u64)]) -> History {
        let mut history = History::default();
        for (ask, told, called, answered) in operations {
            let [called, answered] = [called, answered].map(|ms| Duration::from_millis(*ms));
            history.add("web", Operation { client: "c".into(), ask: *ask, told: *told, called, answered });
        }
        history
    }

    #[test]
    fn what_one_order_explains_is_linearizable() {
        use Ask::{Create, Read, Remove, Update};
        use Told::{Absent, Done, Refused, Saw, Unknown};
        let good: &[&[(Ask, Told, u64, u64)]] = &[
            &[],
            &[
                (Read, Absent, 0, 1),
                (Create(1), Done, 2, 3),
                (Read, Saw(1), 4, 5),
                (Remove, Done, 6, 7),
                (Read, Absent, 8, 9),
            ],
            // Overlapping: either order.
            &[(Create(1), Done, 0, 10), (Read, Absent, 1, 2), (Read, Saw(1), 3, 4)],
            &[(Create(1), Done, 0, 10), (Create(2), Refused, 0, 10), (Read, Saw(1), 11, 12)],
            &[
                (Create(1), Done, 0, 1),
                (Update { seen: 1, new: 2 }, Done, 2, 9),
                (Update { seen: 1, new: 3 }, Refused, 2, 9),
                (Read, Saw(2), 10, 11),
            ],
            // Unknown: done, done late, or never done.
            &[(Create(1), Unknown, 0, 1), (Read, Saw(1), 2, 3)],
            &[(Create(1), Unknown, 0, 1), (Read, Absent, 2, 3), (Read, Saw(1), 4, 5)],
            &[(Create(1), Unknown, 0, 1), (Read, Absent, 2, 3), (Create(2), Done, 4, 5), (Read, Saw(2), 6, 7)],
            &[(Create(1), Done, 0, 1), (Remove, Unknown, 2, 3), (Read, Saw(1), 4, 5), (Read, Absent, 6, 7)],
        ];
        for operations in good {
            assert!(history(operations).check().is_ok(), "{operations:?}");
        }
    }

    #[test]
    fn what_no_order_explains_is_not() {
        use Ask::{Create, Read, Remove, Update};
        use Told::{Absent, Done, Saw, Unknown};
        let bad: &[&[(Ask, Told, u64, u64)]] = &[
            // An acknowledged write that is lost.
            &[(Create(1), Done, 0, 1), (Read, Absent, 2, 3)],
            // A read of the past.
            &[(Create(1), Done, 0, 1), (Update { seen: 1, new: 2 }, Done, 2, 3), (Read, Saw(1), 4, 5)],
            // Seen, then not, then seen.
            &[(Create(1), Unknown, 0, 1), (Read, Saw(1), 2, 3), (Read, Absent, 4, 5)],
            // Two updates of one version.
            &[
                (Create(1), Done, 0, 1),
                (Update { seen: 1, new: 2 }, Done, 2, 9),
                (Update { seen: 1, new: 3 }, Done, 2, 9),
            ],
            // Two creations of one name.
            &[(Create(1), Done, 0, 9), (Create(2), Done, 0, 9)],
            // From nowhere, and before its call.
            &[(Read, Saw(9), 0, 1)],
            &[(Read, Saw(1), 0, 1), (Create(1), Done, 2, 3)],
            // Removed, and back by itself.
            &[(Create(1), Done, 0, 1), (Remove, Done, 2, 3), (Read, Saw(1), 4, 5)],
        ];
        for operations in bad {
            let error = history(operations).check().expect_err(&format!("{operations:?}"));
            assert!(error.to_string().contains("web"));
        }
    }
}
