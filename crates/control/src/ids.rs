//! Ids of new tasks.

use model::{ServiceId, TaskId};
use sha2::{Digest as _, Sha256};

/// The id of the task that follows `predecessor` in a slot (`None`: the slot is empty), as long as the service has this
/// version.
///
/// It is derived, not random: whoever decides to fill the same slot for the same reason makes the same id, and the second
/// of two such transactions fails its check that the task is absent. It is never used twice: a slot of one service version
/// follows a given predecessor only once, because the last task of a wanted slot is never reaped.
pub fn next_task_id(service: &ServiceId, service_version: u64, slot: u64, predecessor: Option<&TaskId>) -> TaskId {
    let mut hash = Sha256::new();
    hash.update(b"swarmlite task\0");
    hash.update(service.as_str());
    hash.update(service_version.to_be_bytes());
    hash.update(slot.to_be_bytes());
    hash.update(predecessor.map_or("", TaskId::as_str));
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

    #[test]
    fn everything_that_a_task_follows_is_in_its_id() {
        let (s, t) = ("s".repeat(25).parse().unwrap(), "t".repeat(25).parse().unwrap());
        let id = next_task_id(&s, 1, 1, None);
        assert_eq!(id, next_task_id(&s, 1, 1, None));
        let other = "x".repeat(25).parse().unwrap();
        let others = [
            next_task_id(&other, 1, 1, None),
            next_task_id(&s, 2, 1, None),
            next_task_id(&s, 1, 2, None),
            next_task_id(&s, 1, 1, Some(&t)),
        ];
        assert!(others.iter().all(|o| *o != id), "{others:?}");
    }
}
