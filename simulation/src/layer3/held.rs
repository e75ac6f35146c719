//! What agents hold: where they are in the log, as their disks say (S28), and the data of secrets, in memory and in files (S22).

use super::machine::Machine;
use bytes::Bytes;
use futures::FutureExt as _;
use invariants::Violation;
use model::{NodeId, PayloadId};
use seal::{KeyStore, Loaded, SealedDisk};
use seams::Disk;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use store::{Commit, Object, Snapshot};

/// Where every node of the simulation keeps its state.
const ROOT: &str = "/var/lib/swarmlite";
/// The file of the data keys, which is no sealed one.
const KEYS: &str = "data-keys";
/// The agent's assignments.
const ASSIGNMENTS: &str = "agent/assignments";

/// What was ever needed where.
#[derive(Default)]
pub(super) struct Held {
    /// The versions of data that some task on the node was made with.
    needed: BTreeMap<NodeId, BTreeSet<PayloadId>>,
    /// What each piece of data is.
    known: BTreeMap<Bytes, PayloadId>,
}

/// The part of the agent's state file that S28 is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Position {
    pub(super) term: u64,
    pub(super) index: u64,
}

#[derive(Deserialize)]
struct Saved {
    position: Option<Position>,
}

fn violation(invariant: &'static str, what: String) -> Violation {
    Violation { invariant, what }
}

// === impl Held ===

impl Held {
    /// Takes note of a commit.
    pub(super) fn observe(&mut self, commit: &Commit) {
        commit.deltas.iter().filter_map(|d| d.after.as_ref()).for_each(|o| self.note(o));
    }

    /// Takes note of a state of which some commits were never seen.
    pub(super) fn catch_up(&mut self, snapshot: &Snapshot) {
        snapshot.objects().for_each(|o| self.note(&o));
    }

    fn note(&mut self, object: &Object) {
        match object {
            Object::Task(task) => {
                if let Some(node) = &task.node_id {
                    self.needed.entry(node.clone()).or_default().extend(task.spec.payloads());
                }
            }
            Object::Payload(payload) => {
                self.known.insert(Bytes::copy_from_slice(payload.data.expose()), payload.id.clone());
            }
            _ => {}
        }
    }

    /// S22: a node has no data, in memory or in files, that no task of it was ever made with.
    pub(super) fn check(&self, machine: &Machine, id: &NodeId) -> Vec<Violation> {
        let none = BTreeSet::new();
        let needed = self.needed.get(id).unwrap_or(&none);
        let name = &machine.name;
        let granted = machine.node().and_then(|n| n.watch_granted()).unwrap_or_default();
        let in_memory = granted.into_iter().filter(|p| !needed.contains(p));
        let mut out: Vec<Violation> = in_memory
            .map(|p| violation("S22", format!("{name} was sent {p}, which no task of it ever needed")))
            .collect();
        for file in machine.engine.file_contents() {
            match self.known.get(file.data.expose()) {
                Some(of) if needed.contains(of) => {}
                Some(of) => out.push(violation("S22", format!("{of} lies on {name}, which never needed it"))),
                None => out.push(violation("S22", format!("{} on {name} is no data of the swarm", file.path))),
            }
        }
        out
    }

    /// S22 in rest: what the node has is what its tasks are made with, and nothing is left of those that are gone.
    pub(super) fn left_over(&self, machine: &Machine, snapshot: &Snapshot, id: &NodeId) -> Vec<String> {
        let tasks = || snapshot.tasks_on_node(id).filter(|t| !t.status.state.is_terminal());
        let needed: BTreeSet<PayloadId> = tasks().flat_map(|t| t.spec.payloads()).collect();
        let granted: BTreeSet<PayloadId> =
            machine.node().and_then(|n| n.watch_granted()).unwrap_or_default().into_iter().collect();
        let name = &machine.name;
        let mut out: Vec<String> =
            granted.difference(&needed).map(|p| format!("S22: {name} still has {p} in memory")).collect();
        out.extend(needed.difference(&granted).map(|p| format!("S22: {name} was not sent {p}")));
        let there = machine.engine.file_contents().into_iter().filter_map(|f| self.known.get(f.data.expose()).cloned());
        let left = there.filter(|p| !needed.contains(p)).map(|p| format!("S22: {p} still lies on {name}"));
        out.extend(left);
        out
    }
}

/// The position in a machine's state file, past its seal.
pub(super) fn position(machine: &Machine) -> Option<Position> {
    let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
    let (root, rand) = (Path::new(ROOT), Arc::new(crate::rng::SeededRand::new(0, "nothing is sealed here")));
    let loaded = KeyStore::load(disk.clone(), rand, root.join(KEYS)).now_or_never()?.ok()??;
    let Loaded::Open(keys) = loaded else { return None };
    let disk = SealedDisk::new(disk, root, &[KEYS], keys.keyring());
    let bytes = disk.read(&root.join(ASSIGNMENTS)).now_or_never()?.ok()??;
    model::persisted::decode::<Saved>(&bytes).ok()?.position
}
