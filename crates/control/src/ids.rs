//! Ids of new tasks.

use model::{Place, ServiceId, SlotKey, TaskId};
use sha2::{Digest as _, Sha256};

/// Why a task is made: all that its id is derived from.
#[derive(Debug, Clone, Copy)]
pub struct Follows<'a> {
    /// The service, at this version.
    pub service: &'a ServiceId,
    /// See `service`.
    pub service_version: u64,
    /// The place that it fills.
    pub slot: &'a SlotKey,
    /// The version of the slot's node, 0 when the slot has none. A node that is drained and comes back leaves nothing behind
    /// of a task that still waited.
    pub node_version: u64,
    /// The last task there; `None`: the place is empty.
    pub predecessor: Option<&'a TaskId>,
}

/// The id of the task that follows.
///
/// It is derived, not random: whoever decides to fill the same place for the same reason makes the same id, and the second
/// of two such transactions fails its check that the task is absent. It is never used twice: a place of one service version
/// follows a given predecessor only once, because the last task of a wanted place is never reaped. The place of a node may be
/// wanted no more and then wanted again, but then the node has changed, and a plan checks that it has not.
pub fn next_task_id(follows: Follows<'_>) -> TaskId {
    let mut hash = Sha256::new();
    hash.update(b"swarmlite task\0");
    hash.update(follows.service.as_str());
    hash.update(follows.service_version.to_be_bytes());
    if let Some(run) = follows.slot.run {
        hash.update(b"run");
        hash.update(run.to_be_bytes());
    }
    match &follows.slot.place {
        Place::Number(n) => hash.update(n.to_be_bytes()),
        Place::Node(id) => {
            hash.update(b"node");
            hash.update(id.as_str());
            hash.update(follows.node_version.to_be_bytes());
        }
    }
    hash.update(follows.predecessor.map_or("", TaskId::as_str));
    let digest = hash.finalize();
    let mut n = digest[..16].iter().fold(0_u128, |n, b| n << 8 | u128::from(*b));
    let mut id = [b'0'; 25];
    for digit in id.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(n % 36) as usize];
        n /= 36;
    }
    let id = String::from_utf8_lossy(&id).into_owned();
    id.parse().expect("25 base-36 digits are an id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everything_that_a_task_follows_is_in_its_id() {
        let (s, other) = ("s".repeat(25).parse().unwrap(), "x".repeat(25).parse().unwrap());
        let (t, n) = ("t".repeat(25).parse().unwrap(), "n".repeat(25).parse().unwrap());
        let key = |run, place| SlotKey { run, place };
        let (one, two) = (key(None, Place::Number(1)), key(None, Place::Number(2)));
        let (node, run) = (key(None, Place::Node(n)), key(Some(0), Place::Number(1)));
        let later_run = key(Some(1), Place::Number(1));
        let first = Follows { service: &s, service_version: 1, slot: &one, node_version: 0, predecessor: None };
        let all = [
            first,
            Follows { service: &other, ..first },
            Follows { service_version: 2, ..first },
            Follows { slot: &two, ..first },
            Follows { slot: &node, ..first },
            Follows { slot: &node, node_version: 1, ..first },
            Follows { slot: &run, ..first },
            Follows { slot: &later_run, ..first },
            Follows { predecessor: Some(&t), ..first },
        ];
        assert_eq!(next_task_id(first), next_task_id(first));
        let ids: BTreeSet<TaskId> = all.iter().map(|f| next_task_id(*f)).collect();
        assert_eq!(ids.len(), all.len());
    }
}
