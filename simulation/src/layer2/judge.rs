//! Whether what happens is right, at every step.

use super::worker::HEARTBEAT;
use crate::marks::Marks;
use crate::oracle::{RaftLog, TrueLog, story};
use crate::trace;
use agent::Position;
use invariants::{Violation, check_cas};
use model::{NodeId, NodeState};
use raft::{RaftView, Role};
use std::collections::BTreeMap;
use std::time::Duration;
use store::{Change, Commit, Conflict, Object, Snapshot, Transaction};
use tokio::time::Instant;

/// A node that is silent for so long counts as silent for the brake, whatever the leader knew before.
const SURELY_SILENT: Duration = Duration::from_secs(5);
/// After so long a node may be put down though the brake holds; less than the dispatcher's bound, as a leader may have
/// heard less than this judge.
const BRAKE_HOLDS: Duration = Duration::from_secs(25);

/// Sees everything, and remembers what it needs to judge it.
#[derive(Default)]
pub(super) struct Judge {
    log: TrueLog,
    raft: RaftLog,
    /// The hash of the command at each index (S2, S3, S6).
    commands: BTreeMap<u64, u64>,
    /// The term in which a leader decided upon a command, for what leaders decide (S31).
    decided: BTreeMap<u64, u64>,
    /// How much the leader of a term knew when it began to decide (S31).
    begun: BTreeMap<u64, u64>,
    /// How far each manager's state machine is in this life (S8).
    applied: BTreeMap<String, u64>,
    /// When a leader last heard of a node.
    heard: BTreeMap<NodeId, Instant>,
    positions: BTreeMap<NodeId, Position>,
    roles: BTreeMap<String, (u64, Role)>,
    violations: Vec<Violation>,
    pub(super) leader_changes: u64,
    pub(super) commits: u64,
    /// What the control loops did (M3).
    pub(super) marks: Marks,
}

// === impl Judge ===

impl Judge {
    pub(super) fn add(&mut self, violations: Vec<Violation>) {
        for violation in &violations {
            trace::event("judge", format_args!("{violation}"));
        }
        self.violations.extend(violations);
    }

    fn say(&mut self, invariant: &'static str, what: String) {
        self.add(vec![Violation { invariant, what }]);
    }

    /// What was found so far.
    pub(super) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The state after the newest commit.
    pub(super) fn state(&self) -> Snapshot {
        self.log.state()
    }

    /// A manager's process is over.
    pub(super) fn forget_life(&mut self, who: &str) {
        self.raft.forget_life(who);
        self.applied.remove(who);
        self.roles.remove(who);
    }

    /// S1, S7, S8.
    pub(super) fn view(&mut self, who: &str, view: &RaftView) {
        let found = self.raft.observe(who, view);
        self.add(found);
        let role = (view.term, view.role);
        if self.roles.insert(who.to_owned(), role) != Some(role) && view.role == Role::Leader {
            self.leader_changes += 1;
        }
    }

    /// S3, S6, S8: each index is applied once in a life, in order, and with the same command everywhere.
    pub(super) fn applies(&mut self, who: &str, index: u64, command: Option<&[u8]>) {
        let hash = command.map_or(0, hash);
        let mut is_new = false;
        let first = *self.commands.entry(index).or_insert_with(|| {
            is_new = true;
            hash
        });
        if first != hash {
            self.say("S3", format!("{who} applies another command at {index} than a manager before"));
        }
        if is_new {
            self.in_time(index, hash);
        }
        match self.applied.insert(who.to_owned(), index) {
            Some(last) if index != last + 1 => self.say("S8", format!("{who} applies {index} after {last}")),
            _ => {}
        }
    }

    /// A leader proposes what it decided itself.
    pub(super) fn decides(&mut self, term: u64, command: &[u8]) {
        let newest = self.decided.entry(hash(command)).or_default();
        *newest = term.max(*newest);
    }

    /// A leader begins to decide.
    pub(super) fn begins(&mut self, term: u64, index: u64) {
        self.begun.insert(term, index);
        let late: Vec<(u64, u64)> = self.commands.range(index + 1..).map(|(index, hash)| (*index, *hash)).collect();
        late.into_iter().for_each(|(index, hash)| self.in_time(index, hash));
    }

    /// S31: what a leader decided is not in the log behind what a later one began with.
    fn in_time(&mut self, index: u64, hash: u64) {
        let Some(term) = self.decided.get(&hash).copied() else { return };
        if let Some((later, knew)) = self.begun.range(term + 1..).find(|(_, knew)| **knew < index) {
            let what = format!("a plan of term {term} is at {index}, and the leader of term {later} began at {knew}");
            self.say("S31", what);
        }
    }

    pub(super) fn restores(&mut self, who: &str, index: u64) {
        match self.applied.insert(who.to_owned(), index) {
            Some(last) if index < last => self.say("S8", format!("{who} restores {index} after {last}")),
            _ => {}
        }
    }

    /// S4 and S10: states are equal, and nothing stale is applied.
    pub(super) fn compares(
        &mut self,
        who: &str,
        before: &Snapshot,
        command: &[u8],
        outcome: &Result<(), Option<Conflict>>,
        after: &Snapshot,
    ) {
        let Ok(transaction) = Transaction::decode(command) else { return };
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(Some(conflict)) => Err(conflict.clone()),
            Err(None) => return self.say("S10", format!("{who} gave an answer that cannot be read")),
        };
        let mut found = check_cas(before, &transaction, &outcome);
        found.extend(self.log.compare(who, after));
        self.add(found);
    }

    /// S6 and S12–S20.
    pub(super) fn commits(&mut self, who: &str, commit: &Commit, name: impl Fn(&NodeId) -> String) {
        let (new, found) = self.log.observe(who, commit);
        if new {
            self.commits += 1;
            self.marks.observe(commit, &self.log.state());
            for delta in &commit.deltas {
                if let Some(story) = story(delta, &name) {
                    trace::event("log", format_args!("{}: {story}", commit.index));
                }
            }
        }
        self.add(found);
    }

    /// S10: what was acknowledged is in the log. That it stays there, S3 shows.
    pub(super) fn acknowledged(&mut self, index: u64, command: &[u8]) {
        if self.commands.get(&index) != Some(&hash(command)) {
            self.say("S10", format!("a write was acknowledged at {index}, where something else is"));
        }
    }

    /// S28: a worker never goes backwards.
    pub(super) fn position(&mut self, node: &NodeId, to: Position) {
        if let Some(from) = self.positions.insert(node.clone(), to)
            && (to.term < from.term || to.index < from.index)
        {
            self.say("S28", format!("node {node} went back from {from:?} to {to:?}"));
        }
    }

    /// A worker lost its disk.
    pub(super) fn forget_position(&mut self, node: &NodeId) {
        self.positions.remove(node);
    }

    /// A leader heard of a node.
    pub(super) fn heard(&mut self, node: &NodeId, now: Instant) {
        self.heard.insert(node.clone(), now);
    }

    /// The brake: while more than half of the ready nodes are silent, none of them is put down.
    pub(super) fn verdict(&mut self, who: &str, state: &Snapshot, tx: &Transaction, since: Instant, now: Instant) {
        let silence = |id: &NodeId| {
            let last = self.heard.get(id).map_or(since, |at| since.max(*at));
            now.saturating_duration_since(last)
        };
        let ready = || state.nodes().filter(|n| n.status.state == NodeState::Ready);
        let silent = ready().filter(|n| silence(&n.id) >= SURELY_SILENT).count();
        let put_down = |change: &Change| match change {
            Change::Put(Object::Node(n)) if n.status.state == NodeState::Down => Some(n.id.clone()),
            _ => None,
        };
        let down: Vec<NodeId> = tx.changes.iter().filter_map(put_down).filter(|id| silence(id) < BRAKE_HOLDS).collect();
        let all = ready().count();
        if silent * 2 > all && !down.is_empty() {
            let what = format!("{who} puts {} of {all} nodes down while {silent} are silent", down.len());
            self.say("brake", what);
        }
    }

    /// L7: the nodes whose state is not as it should be.
    pub(super) fn wrong_nodes<'a>(&self, state: &'a Snapshot, gone: impl Fn(&NodeId) -> bool + 'a) -> Vec<&'a NodeId> {
        let right = |n: &model::Node| if gone(&n.id) { NodeState::Down } else { NodeState::Ready };
        state.nodes().filter(|n| n.status.state != right(n)).map(|n| &n.id).collect()
    }
}

// Rounded so that a heartbeat's way does not matter.
const _: () = assert!(SURELY_SILENT.as_millis() >= HEARTBEAT.as_millis() * 19 / 4);

fn hash(command: &[u8]) -> u64 {
    // Never zero: that is an entry without a command.
    command.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)) | 1
}
