//! The scheduler: which node takes a task. Filters and ranks as Docker does (SwarmKit manager/scheduler), without
//! looking at anything but a snapshot.
//!
//! A node *fits* when it is ready and active, has the reserved CPU and memory left, is of a platform that the image exists
//! for, and has the host-mode ports free. Among those that fit, a node with fewer recent failures of this service version
//! goes first once one of them has five; then the one with fewer tasks of this service; then with fewer tasks at all.

mod explain;
mod view;

pub use explain::{Filter, explain};
pub use view::{ClusterView, Held, Request, Spread};

use model::Resources;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What became of a request for several equal tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The nodes, one for each task that found one.
    pub nodes: Vec<model::NodeId>,
    /// Why there are fewer nodes than tasks, in Docker's words; `None` when there are not.
    pub unplaced_because: Option<String>,
}

// === impl ClusterView ===

impl ClusterView {
    /// Places `count` equal tasks and takes note of them. Linear in `count`, and each takes a logarithm of the nodes.
    pub fn place(&mut self, request: &Request<'_>, spread: &mut Spread, count: usize) -> Placed {
        let fitting = (0..self.len()).filter(|i| self.first_obstacle(*i, request).is_none());
        let mut best: BinaryHeap<_> = fitting.map(|i| Reverse(self.rank(i, spread))).collect();
        let mut nodes = Vec::with_capacity(count);
        while nodes.len() < count {
            let Some(Reverse(rank)) = best.pop() else { break };
            let i = rank.node;
            self.take(i, request, spread);
            nodes.push(self.id(i).clone());
            if self.first_obstacle(i, request).is_none() {
                best.push(Reverse(self.rank(i, spread)));
            }
        }
        let unplaced_because = (nodes.len() < count).then(|| self.explain(request));
        Placed { nodes, unplaced_because }
    }

    /// Places one task that starts when its predecessors in the slot have stopped, and may have what they still hold.
    pub fn place_successor(&mut self, request: &Request<'_>, spread: &mut Spread, old: &[Held]) -> Placed {
        old.iter().for_each(|h| self.release(h));
        let obstacle = |view: &Self, i: usize| {
            let held = old.iter().find(|h| h.node == *view.id(i));
            let reserved = held.map_or(request.reserved, |h| h.needed_by(request.reserved));
            view.first_obstacle(i, &request.reserving(reserved))
        };
        let fitting = (0..self.len()).filter(|i| obstacle(self, *i).is_none());
        let best = fitting.map(|i| self.rank(i, spread)).min();
        let why_not = best.is_none().then(|| explain((0..self.len()).filter_map(|i| obstacle(self, i))));
        let node = best.map(|rank| {
            self.take(rank.node, request, spread);
            self.id(rank.node).clone()
        });
        for held in old {
            let shared = if node.as_ref() == Some(&held.node) { request.reserved } else { Resources::default() };
            self.hold(held, shared);
        }
        Placed { nodes: node.into_iter().collect(), unplaced_because: why_not }
    }

    fn explain(&self, request: &Request<'_>) -> String {
        explain((0..self.len()).filter_map(|i| self.first_obstacle(i, request)))
    }
}
