//! What the scheduler knows of the nodes.

use super::filter::{claim, first_obstacle};
use super::request::{Held, Request, Spread};
use super::tree::{Leaf, Tree};
use super::{Filter, Seat};
use model::{GenericResource, Node, NodeId, NodeUsage, Preference, Resources};
use std::sync::{Arc, LazyLock};
use store::Snapshot;

/// The nodes, and what tasks hold of each. Kept up to date with what is placed.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// By id.
    nodes: Vec<NodeView>,
}

/// A node, and what tasks hold of it: the store's own sums, until something is placed there.
#[derive(Debug, Clone)]
pub(super) struct NodeView {
    pub(super) node: Arc<Node>,
    pub(super) available: bool,
    pub(super) usage: Arc<NodeUsage>,
}

/// Less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Recent failures, once they are many. (SwarmKit compares them as soon as one of two nodes has many; that is the same
    /// order among nodes with many, and puts all others before them.)
    failures: usize,
    of_service: usize,
    active: usize,
    pub(super) node: usize,
}

/// What nothing holds.
static NOTHING: LazyLock<Arc<NodeUsage>> = LazyLock::new(Arc::default);

// === impl ClusterView ===

impl ClusterView {
    /// The nodes as they are in the snapshot. It costs something for each node, and nothing for the tasks there.
    pub fn new(snapshot: &Snapshot) -> ClusterView {
        let view = |node: &Arc<Node>| NodeView {
            node: node.clone(),
            available: node.takes_tasks(),
            usage: snapshot.usage_of(&node.id).unwrap_or(&NOTHING).clone(),
        };
        ClusterView { nodes: snapshot.nodes().map(view).collect() }
    }

    pub(super) fn nodes(&self) -> &[NodeView] {
        &self.nodes
    }

    pub(super) fn index_of(&self, id: &NodeId) -> Option<usize> {
        self.nodes.binary_search_by(|n| n.node.id.cmp(id)).ok()
    }

    /// True when the node is there and takes tasks.
    pub fn takes_tasks(&self, id: &NodeId) -> bool {
        self.index_of(id).is_some_and(|i| self.nodes[i].available)
    }

    /// Tasks of any service on the node that are wanted and not over.
    pub fn active_on(&self, id: &NodeId) -> usize {
        self.index_of(id).map_or(0, |i| self.nodes[i].usage.active())
    }

    /// The first filter that turns the node away.
    pub(super) fn first_obstacle(&self, i: usize, request: &Request<'_>, spread: &Spread) -> Option<Filter> {
        first_obstacle(&self.nodes[i], request, spread, None)
    }

    /// The first filter that turns the node away from a task that follows those that hold something.
    pub(super) fn obstacle_for_successor(
        &self,
        i: usize,
        request: &Request<'_>,
        spread: &Spread,
        old: &[Held],
    ) -> Option<Filter> {
        let held = old.iter().find(|h| h.node == self.nodes[i].node.id);
        first_obstacle(&self.nodes[i], request, spread, held)
    }

    pub(super) fn rank(&self, i: usize, spread: &Spread) -> Rank {
        let id = &self.nodes[i].node.id;
        self.rank_of(i, spread.many_failures_on(id), spread.tasks_on(id))
    }

    fn rank_of(&self, i: usize, failures: usize, of_service: usize) -> Rank {
        Rank { failures, of_service, active: self.nodes[i].usage.active(), node: i }
    }

    /// The nodes that fit, arranged by the preferences of the request.
    pub(super) fn tree(&self, request: &Request<'_>, spread: &Spread, fits: impl Fn(&Self, usize) -> bool) -> Tree {
        let preferences = request.placement.map_or(&[][..], |p| &p.preferences);
        // Docker passes over a preference for anything but labels.
        let known = |p: &&Preference| self.nodes.first().is_some_and(|n| p.value_on(&n.node).is_some());
        let known: Vec<&Preference> = preferences.iter().filter(known).collect();
        // The service is on few of the nodes: these are looked up, not all nodes among them.
        let mut lies = vec![(0, 0); self.nodes.len()];
        let at = |id: &NodeId| self.index_of(id);
        spread.tasks().for_each(|(id, n)| at(id).into_iter().for_each(|i| lies[i].0 = n));
        spread.many_failures().for_each(|(id, n)| at(id).into_iter().for_each(|i| lies[i].1 = n));
        let leaf = |(i, (of_service, failures)): (usize, (usize, usize))| {
            let rank = fits(self, i).then(|| self.rank_of(i, failures, of_service));
            let values = known.iter().map(|p| p.value_on(&self.nodes[i].node).unwrap_or_default()).collect();
            (!known.is_empty() || rank.is_some()).then_some(Leaf { values, of_service, rank })
        };
        Tree::grow(lies.into_iter().enumerate().filter_map(leaf).collect(), known.len())
    }

    /// Notes that the node takes one such task.
    pub(super) fn take(&mut self, i: usize, request: &Request<'_>, spread: &mut Spread) -> Seat {
        let view = &mut self.nodes[i];
        let generic = claim(view, request.generic);
        Arc::make_mut(&mut view.usage).add(&request.holding(&generic));
        spread.add(&view.node.id);
        Seat { node: view.node.id.clone(), generic }
    }

    /// The same for a task that follows those that hold something, and shares it with them on the node where they are.
    pub(super) fn take_shared(&mut self, i: usize, request: &Request<'_>, spread: &mut Spread, old: &[Held]) -> Seat {
        let view = &mut self.nodes[i];
        let Some(held) = old.iter().find(|h| h.node == view.node.id) else { return self.take(i, request, spread) };
        let generic: Vec<GenericResource> = claim(view, request.generic);
        let shared = request.holding(&generic).shared_with(held.holding.clone());
        Arc::make_mut(&mut view.usage).add(&shared);
        spread.add(&view.node.id);
        Seat { node: view.node.id.clone(), generic }
    }

    /// Frees what is being stopped, for the one that comes after.
    pub(super) fn release(&mut self, held: &Held) {
        if let Some(i) = self.index_of(&held.node) {
            Arc::make_mut(&mut self.nodes[i].usage).subtract(&held.holding);
        }
    }

    /// Holds it again.
    pub(super) fn hold(&mut self, held: &Held) {
        if let Some(i) = self.index_of(&held.node) {
            Arc::make_mut(&mut self.nodes[i].usage).add(&held.holding);
        }
    }

    /// A task on the node is no longer wanted. What it holds it holds until it is over.
    pub fn relieve(&mut self, node: &NodeId) {
        if let Some(i) = self.index_of(node) {
            Arc::make_mut(&mut self.nodes[i].usage).relieve();
        }
    }
}

// === impl NodeView ===

impl NodeView {
    /// What is not reserved; a node that has not described itself has nothing.
    pub(super) fn free(&self) -> Resources {
        self.usage.left_of(self.node.description.as_ref().map(|d| d.resources).unwrap_or_default())
    }
}
