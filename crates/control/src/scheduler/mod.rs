//! The scheduler: which node takes a task. Filters and ranks as Docker does (SwarmKit manager/scheduler), without
//! looking at anything but a snapshot.
//!
//! A node *fits* when no [`Filter`] turns it away. Among those that fit, a task goes to where fewest tasks of its service are,
//! at each level of the placement preferences in turn; there, a node with fewer recent failures of this service version goes
//! first once one of them has five; then the one with fewer tasks of this service; then with fewer tasks at all.

mod explain;
mod filter;
mod reason;
mod request;
mod tree;
mod view;

pub use explain::{Filter, explain};
pub use reason::Rejection;
pub use request::{Held, Request, Spread};
pub use view::ClusterView;

pub(crate) use reason::{unavailable, unmet};

use model::{GenericResource, NodeId};

/// What became of a request for several equal tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// A place for each task that found one.
    pub seats: Vec<Seat>,
    /// Why there are fewer places than tasks, in Docker's words; `None` when there are not.
    pub unplaced_because: Option<String>,
}

/// A place for one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// The node.
    pub node: NodeId,
    /// What the task is given there beyond CPU and memory.
    pub generic: Vec<GenericResource>,
}

// === impl ClusterView ===

impl ClusterView {
    /// Places `count` equal tasks and takes note of them. Linear in `count`, and each takes a logarithm of the nodes.
    pub fn place(&mut self, request: &Request<'_>, spread: &mut Spread, count: usize) -> Placed {
        let mut tree = self.tree(request, spread, |view, i| view.first_obstacle(i, request, spread).is_none());
        let mut seats = Vec::with_capacity(count);
        while seats.len() < count {
            let found = tree.take_best(&mut |i| {
                seats.push(self.take(i, request, spread));
                self.first_obstacle(i, request, spread).is_none().then(|| self.rank(i, spread))
            });
            if !found {
                break;
            }
        }
        let unplaced_because = (seats.len() < count).then(|| self.explain(request, spread));
        Placed { seats, unplaced_because }
    }

    /// Places one task that starts when its predecessors in the slot have stopped, and may have what they still hold.
    pub fn place_successor(&mut self, request: &Request<'_>, spread: &mut Spread, old: &[Held]) -> Placed {
        old.iter().for_each(|h| self.release(h));
        let fits = |view: &Self, i: usize| view.obstacle_for_successor(i, request, spread, old).is_none();
        let best = self.tree(request, spread, fits).best();
        let all = 0..self.nodes().len();
        let obstacles = all.filter_map(|i| self.obstacle_for_successor(i, request, spread, old));
        let unplaced_because = best.is_none().then(|| explain(obstacles));
        let seat = best.map(|rank| self.take_shared(rank.node, request, spread, old));
        let elsewhere = |h: &&Held| seat.as_ref().is_none_or(|s| s.node != h.node);
        old.iter().filter(elsewhere).for_each(|h| self.hold(h));
        Placed { seats: seat.into_iter().collect(), unplaced_because }
    }

    /// Places one task on the node that it is for, if it fits there; it may have what its predecessors still hold.
    pub fn place_on(&mut self, node: &NodeId, request: &Request<'_>, spread: &mut Spread, old: &[Held]) -> Placed {
        let Some(i) = self.index_of(node) else {
            // It was removed: the task has no reason to be, and whoever made it will say so.
            return Placed { seats: Vec::new(), unplaced_because: Some(explain([].into_iter())) };
        };
        old.iter().for_each(|h| self.release(h));
        let obstacle = self.obstacle_for_successor(i, request, spread, old);
        let seat = obstacle.is_none().then(|| self.take_shared(i, request, spread, old));
        let elsewhere = |h: &&Held| seat.as_ref().is_none_or(|s| s.node != h.node);
        old.iter().filter(elsewhere).for_each(|h| self.hold(h));
        let unplaced_because = obstacle.map(|f| explain::reasons([f].into_iter()));
        Placed { seats: seat.into_iter().collect(), unplaced_because }
    }

    fn explain(&self, request: &Request<'_>, spread: &Spread) -> String {
        explain((0..self.nodes().len()).filter_map(|i| self.first_obstacle(i, request, spread)))
    }
}
