//! Whether what happened was right: what can be judged from the managers' views and commits, in both layers.

use invariants::{StateHash, Violation, Witness, check_commit, check_state, state_hash};
use raft::{RaftView, Role};
use std::collections::BTreeMap;
use store::{Change, Commit, Delta, Object, Snapshot, Store, Transaction};

/// The one log that all managers apply, as pieced together from what each of them shows.
///
/// Its own copy of the state follows from the commits alone, so every commit can be judged with the states around it,
/// however late it is seen.
#[derive(Default)]
pub struct TrueLog {
    state: Store,
    /// What each commit did, as a hash (S3, S6: a second manager must show the same).
    commits: BTreeMap<u64, u64>,
    witness: Witness,
    /// Content at an index, without the index itself.
    hashes: BTreeMap<u64, StateHash>,
}

/// What the managers' Raft views said so far.
#[derive(Debug, Default)]
pub struct RaftLog {
    /// The leader of each term (S1).
    leaders: BTreeMap<u64, u64>,
    /// Each member's last view in this life.
    last: BTreeMap<String, RaftView>,
}

/// Commits whose hashes are kept.
const COMMITS_KEPT: usize = 20_000;
/// Every so many commits the managers' whole states are compared.
const COMPARE_EVERY: u64 = 16;

fn violation(invariant: &'static str, what: String) -> Violation {
    Violation { invariant, what }
}

// === impl TrueLog ===

impl TrueLog {
    /// The state after the newest commit that was seen.
    pub fn state(&self) -> Snapshot {
        self.state.snapshot()
    }

    /// Judges a commit that a manager shows. True when it is new.
    pub fn observe(&mut self, who: &str, commit: &Commit) -> (bool, Vec<Violation>) {
        let hash = commit_hash(commit);
        let before = self.state.snapshot();
        if commit.index <= before.index() {
            let differs = self.commits.get(&commit.index).is_some_and(|seen| *seen != hash);
            let what = || format!("{who} applied something else at {} than the manager before", commit.index);
            return (false, differs.then(|| violation("S6", what())).into_iter().collect());
        }
        let transaction = transaction(commit);
        self.state.apply(commit.index, &transaction).expect("a transaction without checks always applies");
        let after = self.state.snapshot();
        self.commits.insert(commit.index, hash);
        if self.commits.len() > COMMITS_KEPT {
            self.commits.pop_first();
        }
        let mut violations = self.witness.observe(commit);
        violations.extend(check_commit(&before, commit, &after));
        violations.extend(check_state(&after));
        (true, violations)
    }

    /// A manager shows a state of which some commits were never seen (they were applied while nobody looked).
    pub fn catch_up(&mut self, snapshot: &Snapshot) {
        if snapshot.index() > self.state.snapshot().index() {
            self.state.restore(&Store::encode(snapshot)).expect("what was just encoded can be decoded");
        }
    }

    /// S4: compares a manager's state with others' at the same index, now and then.
    pub fn compare(&mut self, who: &str, snapshot: &Snapshot) -> Option<Violation> {
        let index = snapshot.index();
        if !index.is_multiple_of(COMPARE_EVERY) {
            return None;
        }
        let hash = state_hash(snapshot);
        let first = *self.hashes.entry(index).or_insert(hash);
        (first != hash).then(|| violation("S4", format!("{who} has another state at {index} than the manager before")))
    }
}

/// The changes of a commit, so that they give the same objects with the same times again.
fn transaction(commit: &Commit) -> Transaction {
    let at = commit.deltas.iter().find_map(|d| d.after.as_ref()).map(|o| o.meta().updated_at);
    let mut transaction = Transaction::new(at.unwrap_or_default());
    transaction.changes = commit
        .deltas
        .iter()
        .map(|delta| match &delta.after {
            Some(object) => Change::Put(object.clone()),
            None => Change::Remove(delta.id()),
        })
        .collect();
    transaction
}

fn commit_hash(commit: &Commit) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    for delta in &commit.deltas {
        add(delta.id().as_str().as_bytes());
        if let Some(object) = &delta.after {
            add(&rmp_serde::to_vec(object).expect("an object is plain data, which always encodes"));
        }
    }
    hash
}

/// A commit for the trace: what of it tells the story.
pub fn story(delta: &Delta, name: impl Fn(&model::NodeId) -> String) -> Option<String> {
    match (&delta.before, &delta.after) {
        (before, Some(Object::Task(task))) => {
            let old = match before {
                Some(Object::Task(old)) => Some((old.status.state, old.desired)),
                _ => None,
            };
            let now = (task.status.state, task.desired);
            let place = task.node_id.as_ref().map(&name).unwrap_or_else(|| "nowhere".into());
            let err = if task.status.err.is_empty() { String::new() } else { format!(" ({})", task.status.err) };
            (old != Some(now)).then(|| format!("task {} on {place}: {}, wanted {}{err}", task.name(), now.0, now.1))
        }
        (Some(Object::Task(task)), None) => Some(format!("task {} is gone", task.name())),
        (before, Some(Object::Node(node))) => {
            let old = match before {
                Some(Object::Node(old)) => Some((old.status.state, old.spec.role)),
                _ => None,
            };
            let now = (node.status.state, node.spec.role);
            (old != Some(now))
                .then(|| format!("node {} is {:?} ({:?}) {}", name(&node.id), now.0, now.1, node.status.message))
        }
        (_, Some(Object::Service(service))) => Some(format!(
            "service {} has {} replicas of {}, marked {}",
            service.spec.name,
            service.spec.replicas().map_or(service.spec.mode.as_str().to_owned(), |n| n.to_string()),
            service.spec.task.origin(),
            service.spec.labels.get("mark").map_or("", String::as_str)
        )),
        // No key, no token: only how many, and which.
        (_, Some(Object::Cluster(cluster))) => Some(format!(
            "the cluster: gossip keys {:?}, {}, {} nodes removed",
            cluster.gossip_keys.iter().map(|k| k.id).collect::<Vec<_>>(),
            if cluster.security.root_rotation.is_some() { "two roots" } else { "one root" },
            cluster.removed_nodes.len()
        )),
        (Some(Object::Service(service)), None) => Some(format!("service {} is gone", service.spec.name)),
        _ => None,
    }
}

// === impl RaftLog ===

impl RaftLog {
    /// Judges a member's view: S1 (one leader a term), S7 (marks in order), S8 (marks never go back in one life).
    pub fn observe(&mut self, who: &str, view: &RaftView) -> Vec<Violation> {
        let mut violations = Vec::new();
        if view.role == Role::Leader {
            let leader = *self.leaders.entry(view.term).or_insert(view.raft_id);
            if leader != view.raft_id {
                violations.push(violation(
                    "S1",
                    format!("two leaders of term {}: {leader:x} and {:x}", view.term, view.raft_id),
                ));
            }
        }
        let marks = [("snapshot", view.snapshot), ("applied", view.last_applied), ("last", view.last_log)];
        for ((a, low), (b, high)) in marks.iter().zip(&marks[1..]) {
            if low > high {
                violations.push(violation("S7", format!("{who}: {a} {low:?} is beyond {b} {high:?}")));
            }
        }
        let went_back = |last: &&RaftView| {
            view.term < last.term || view.last_applied < last.last_applied || view.snapshot < last.snapshot
        };
        if let Some(last) = self.last.get(who).filter(went_back) {
            violations.push(violation("S8", format!("{who} went back from {} to {}", marks_of(last), marks_of(view))));
        }
        self.last.insert(who.to_owned(), view.clone());
        violations
    }

    /// The member's life is over; the next one begins from its disk. (A term that it had only in memory is gone, too: what
    /// it promised in it, S1 shows.)
    pub fn forget_life(&mut self, who: &str) {
        self.last.remove(who);
    }
}

fn marks_of(view: &RaftView) -> String {
    format!("term {} applied {:?} snapshot {:?}", view.term, view.last_applied, view.snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;
    use std::collections::BTreeSet;

    fn view(raft_id: u64, term: u64, role: Role, applied: u64) -> RaftView {
        RaftView {
            raft_id,
            term,
            role,
            leader: None,
            last_applied: Some(applied),
            last_log: Some(applied),
            snapshot: None,
            purged: None,
            voters: BTreeSet::new(),
            learners: BTreeSet::new(),
            nodes: BTreeMap::new(),
            followers: BTreeMap::new(),
            quorum_silent_for: None,
            stopped: None,
            broken: false,
        }
    }

    #[test]
    fn two_leaders_of_a_term_and_steps_back_are_seen() {
        let mut log = RaftLog::default();
        assert!(log.observe("n1", &view(1, 3, Role::Leader, 5)).is_empty());
        assert!(log.observe("n2", &view(2, 4, Role::Leader, 5)).is_empty());
        assert_eq!(log.observe("n3", &view(3, 4, Role::Leader, 5))[0].invariant, "S1");
        assert_eq!(log.observe("n1", &view(1, 3, Role::Follower, 4))[0].invariant, "S8");
        log.forget_life("n1");
        assert!(log.observe("n1", &view(1, 3, Role::Follower, 2)).is_empty());
    }

    #[test]
    fn the_true_log_is_the_managers_and_a_second_story_is_seen() {
        let node = |id: u64, name: &str| model::Node {
            id: format!("{id:025}").parse().unwrap(),
            meta: Default::default(),
            spec: model::NodeSpec { name: name.into(), ..Default::default() },
            description: None,
            status: Default::default(),
            manager: None,
        };
        let manager = Store::new();
        let mut changes = manager.changes();
        let mut tx = Transaction::new(Timestamp(7));
        tx.create(node(1, "a"));
        manager.apply(3, &tx).unwrap();
        let store::Event::Commit(commit) = changes.try_next().unwrap() else { panic!("a commit") };
        let mut log = TrueLog::default();
        assert_eq!(log.observe("n1", &commit), (true, vec![]));
        assert_eq!(state_hash(&log.state()), state_hash(&manager.snapshot()));
        assert_eq!(log.observe("n2", &commit), (false, vec![]));
        let mut other = Commit::clone(&commit);
        other.deltas[0].after = Some(node(1, "b").into());
        assert_eq!(log.observe("n2", &other).1[0].invariant, "S6");
    }
}
