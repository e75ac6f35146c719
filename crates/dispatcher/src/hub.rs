//! One reader of the store's changes for all streams of a manager: wakes the nodes that a change concerns, and remembers
//! which tasks left which node, so that a stream can go on from where an agent was.

use model::{NodeId, TaskId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use store::{Changes, Commit, Event, Object, Snapshot, StoreClient};
use tokio::sync::{Notify, watch};

/// Removals remembered on one manager. An agent that was away for more gets the whole set.
const REMOVALS_MAX: usize = 10_000;

pub(crate) struct Hub {
    store: Arc<dyn StoreClient>,
    state: Mutex<State>,
    seen: watch::Sender<u64>,
    cluster: watch::Sender<u64>,
    poke: Notify,
}

#[derive(Default)]
struct State {
    /// Nothing is remembered of what was removed up to this log index.
    floor: u64,
    removals: VecDeque<(u64, NodeId, TaskId)>,
    nodes: BTreeMap<NodeId, watch::Sender<u64>>,
}

/// What left a node after a log index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Removals {
    Known(Vec<TaskId>),
    /// Too long ago.
    Forgotten,
}

// === impl Hub ===

impl Hub {
    /// A hub and the reader that it needs; run it with [`Hub::run`].
    pub(crate) fn new(store: Arc<dyn StoreClient>) -> (Arc<Hub>, Changes) {
        // First the stream, then the snapshot: nothing falls between.
        let changes = store.changes();
        let floor = store.local().index();
        let hub = Hub {
            state: Mutex::new(State { floor, ..State::default() }),
            seen: watch::Sender::new(floor),
            cluster: watch::Sender::new(0),
            poke: Notify::new(),
            store,
        };
        (Arc::new(hub), changes)
    }

    /// Reads the changes until the store closes.
    pub(crate) async fn run(self: Arc<Self>, mut changes: Changes) {
        loop {
            tokio::select! {
                biased;
                event = changes.next() => if !self.take(event) { return },
                () = self.poke.notified() => {}
            }
            while let Some(event) = changes.try_next() {
                if !self.take(event) {
                    return;
                }
            }
            // A commit is in the snapshot a moment before it is in the stream; subscribing waits for that moment to pass.
            let index = self.store.local().index();
            drop(self.store.changes());
            while let Some(event) = changes.try_next() {
                if !self.take(event) {
                    return;
                }
            }
            self.raise_seen(index);
        }
    }

    /// Up to which log index everything is in [`Hub::removals`].
    pub(crate) fn seen(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }

    /// Asks for `seen` to catch up with entries that changed nothing.
    pub(crate) fn poke(&self) {
        self.poke.notify_one();
    }

    /// Woken when the cluster or a node changed.
    pub(crate) fn cluster(&self) -> watch::Receiver<u64> {
        self.cluster.subscribe()
    }

    /// Woken when a task of this node changed.
    pub(crate) fn node(&self, node: &NodeId) -> watch::Receiver<u64> {
        let mut state = self.state.lock();
        state.nodes.retain(|_, sender| sender.receiver_count() > 0);
        state.nodes.entry(node.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// The tasks that left the node after `index`.
    pub(crate) fn removals(&self, node: &NodeId, index: u64) -> Removals {
        let state = self.state.lock();
        if index < state.floor {
            return Removals::Forgotten;
        }
        let after = state.removals.partition_point(|(at, ..)| *at <= index);
        let of_node = state.removals.range(after..).filter(|(_, n, _)| n == node);
        Removals::Known(of_node.map(|(.., task)| task.clone()).collect())
    }

    fn take(&self, event: Event) -> bool {
        match event {
            Event::Commit(commit) => self.commit(&commit),
            Event::Resync => self.start_over(&self.store.local()),
            Event::Closed => return false,
        }
        true
    }

    fn commit(&self, commit: &Commit) {
        let mut state = self.state.lock();
        for delta in &commit.deltas {
            let (before, after) = (task_node(delta.before.as_ref()), task_node(delta.after.as_ref()));
            if let (Some((node, task)), true) = (before, before.map(|b| b.0) != after.map(|a| a.0)) {
                state.removals.push_back((commit.index, node.clone(), task.clone()));
            }
        }
        while state.removals.len() > REMOVALS_MAX {
            state.floor = state.removals.pop_front().map_or(state.floor, |(at, ..)| at);
        }
        // Before anybody is woken, so that whoever looks can say how far it has seen.
        self.raise_seen(commit.index);
        for delta in &commit.deltas {
            for (node, _) in [task_node(delta.before.as_ref()), task_node(delta.after.as_ref())].into_iter().flatten() {
                if let Some(sender) = state.nodes.get(node) {
                    sender.send_modify(|n| *n += 1);
                }
            }
        }
        drop(state);
        let concerns = |o: &Option<Object>| matches!(o, Some(Object::Cluster(_) | Object::Node(_)));
        if commit.deltas.iter().any(|d| concerns(&d.before) || concerns(&d.after)) {
            self.cluster.send_modify(|n| *n += 1);
        }
    }

    fn raise_seen(&self, index: u64) {
        self.seen.send_if_modified(|seen| std::mem::replace(seen, index.max(*seen)) < index);
    }

    /// Some commits were missed: nothing that was remembered is whole.
    fn start_over(&self, snapshot: &Snapshot) {
        let mut state = self.state.lock();
        state.floor = state.floor.max(snapshot.index());
        state.removals.clear();
        self.raise_seen(snapshot.index());
        state.nodes.values().for_each(|sender| sender.send_modify(|n| *n += 1));
        drop(state);
        self.cluster.send_modify(|n| *n += 1);
    }
}

fn task_node(object: Option<&Object>) -> Option<(&NodeId, &TaskId)> {
    match object {
        Some(Object::Task(task)) => task.node_id.as_ref().map(|node| (node, &task.id)),
        _ => None,
    }
}
