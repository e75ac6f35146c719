//! The nodes that fit, arranged by the placement preferences: a branch for each value of the first one, in it a branch for
//! each value of the second, and so on. A task goes where fewest tasks of its service are, at each level in turn
//! (SwarmKit manager/scheduler/decision_tree.go).

use super::view::Rank;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// A node, as the tree sees it.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    /// What it has of each property over which tasks are spread, the outermost first.
    pub(super) values: Vec<&'a str>,
    /// Active tasks of the service on it. They count whether or not it can take another.
    pub(super) of_service: usize,
    /// Its rank, if it fits.
    pub(super) rank: Option<Rank>,
}

/// The nodes of one branch.
#[derive(Debug)]
pub(super) enum Tree {
    /// No preference is left: the best nodes first.
    Nodes(BinaryHeap<Reverse<Rank>>),
    /// A branch for each value.
    Fork {
        /// The branches that can take a task: how many tasks of the service are in each, its best node, and which it is.
        order: BinaryHeap<Reverse<(usize, Rank, usize)>>,
        branches: Vec<Tree>,
    },
}

// === impl Tree ===

impl Tree {
    /// Arranges the nodes by so many levels of preferences.
    pub(super) fn grow(leaves: Vec<Leaf<'_>>, levels: usize) -> Tree {
        Tree::grow_from(leaves, 0, levels)
    }

    fn grow_from(leaves: Vec<Leaf<'_>>, level: usize, levels: usize) -> Tree {
        if level == levels {
            let ranks: Vec<_> = leaves.into_iter().filter_map(|l| l.rank.map(Reverse)).collect();
            return Tree::Nodes(ranks.into());
        }
        let mut values: BTreeMap<&str, Vec<Leaf<'_>>> = BTreeMap::new();
        for leaf in leaves {
            values.entry(leaf.values[level]).or_default().push(leaf);
        }
        let (mut order, mut branches) = (Vec::new(), Vec::new());
        for leaves in values.into_values() {
            let tasks = leaves.iter().map(|l| l.of_service).sum();
            let branch = Tree::grow_from(leaves, level + 1, levels);
            if let Some(best) = branch.best() {
                order.push(Reverse((tasks, best, branches.len())));
                branches.push(branch);
            }
        }
        Tree::Fork { order: order.into(), branches }
    }

    /// The node that the next task goes to.
    pub(super) fn best(&self) -> Option<Rank> {
        match self {
            Tree::Nodes(nodes) => nodes.peek().map(|Reverse(rank)| *rank),
            Tree::Fork { order, .. } => order.peek().map(|Reverse((_, best, _))| *best),
        }
    }

    /// Gives the best node to `take`, which says how it ranks from then on, if it still fits. False when none is left.
    pub(super) fn take_best(&mut self, take: &mut impl FnMut(usize) -> Option<Rank>) -> bool {
        match self {
            Tree::Nodes(nodes) => {
                let Some(Reverse(rank)) = nodes.pop() else { return false };
                nodes.extend(take(rank.node).map(Reverse));
                true
            }
            Tree::Fork { order, branches } => {
                let Some(Reverse((tasks, _, i))) = order.pop() else { return false };
                let taken = branches[i].take_best(take);
                order.extend(branches[i].best().map(|best| Reverse((tasks + 1, best, i))));
                taken
            }
        }
    }
}
