//! Who should be in the Raft group: a pure function from the store and the group as it is to the next step. The leader
//! takes the steps one at a time; a leader that dies in between is replaced by one that sees the same difference.

use model::{NodeId, Role};
use std::collections::{BTreeMap, BTreeSet};
use store::Snapshot;

/// The Raft group as the leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// This node's Raft id.
    pub me: u64,
    /// Members that vote.
    pub voters: BTreeSet<u64>,
    /// Members that only follow.
    pub learners: BTreeSet<u64>,
}

/// One change of the Raft group (or of the store, when the group is as it should be).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Give leadership away: this node should leave the group.
    HandOver,
    /// Take a member out.
    Remove { raft_id: u64 },
    /// Take a node in, without a vote.
    AddLearner { raft_id: u64, addr: String, node_id: NodeId },
    /// Give a learner a vote, once it has caught up.
    Promote { raft_id: u64 },
    /// Note in the store that a node is out of the group.
    ClearManager { node_id: NodeId },
}

/// The next step, if anything is to be done. Removals go first: a group that is about to shrink should not wait for a
/// newcomer that cannot catch up. `not_now` are learners that could not be promoted a moment ago; others go first.
pub(crate) fn next_step(state: &Snapshot, group: &Group, not_now: &BTreeSet<u64>) -> Option<Step> {
    let wanted: BTreeMap<u64, (&NodeId, &str)> = state
        .nodes()
        .filter(|n| n.spec.role == Role::Manager)
        .filter_map(|n| n.manager.as_ref().map(|m| (m.raft_id, (&n.id, m.addr.as_str()))))
        .collect();
    let member = |id: &u64| group.voters.contains(id) || group.learners.contains(id);
    // A group whose members the store does not know at all is one that is being made: nothing may be removed yet.
    if !wanted.is_empty() {
        let extra = group.voters.iter().chain(&group.learners).find(|id| !wanted.contains_key(id));
        match extra {
            Some(id) if *id == group.me && group.voters.len() > 1 => return Some(Step::HandOver),
            Some(id) if *id != group.me => return Some(Step::Remove { raft_id: *id }),
            _ => {}
        }
    }
    let stale =
        state.nodes().find(|n| n.spec.role == Role::Worker && n.manager.as_ref().is_some_and(|m| !member(&m.raft_id)));
    if let Some(node) = stale {
        return Some(Step::ClearManager { node_id: node.id.clone() });
    }
    if let Some((id, (node_id, addr))) = wanted.iter().find(|(id, _)| !member(id)) {
        return Some(Step::AddLearner { raft_id: *id, addr: (*addr).to_owned(), node_id: (*node_id).clone() });
    }
    let ready = |id: &&u64| group.learners.contains(*id) && !not_now.contains(*id);
    wanted.keys().find(ready).map(|id| Step::Promote { raft_id: *id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ManagerStatus, Meta, Node, NodeSpec, NodeStatus, Timestamp};
    use store::{Store, Transaction};

    fn node(n: u64, role: Role, raft_id: Option<u64>) -> Node {
        Node {
            id: format!("{n:025}").parse().unwrap(),
            meta: Meta::default(),
            spec: NodeSpec { role, ..Default::default() },
            description: None,
            status: NodeStatus::default(),
            manager: raft_id.map(|raft_id| ManagerStatus { raft_id, addr: format!("127.0.0.{n}:2377") }),
        }
    }

    fn state(nodes: &[Node]) -> Snapshot {
        let store = Store::new();
        let mut tx = Transaction::new(Timestamp(1));
        nodes.iter().for_each(|n| _ = tx.create(n.clone()));
        store.apply(1, &tx).unwrap();
        store.snapshot()
    }

    fn group(me: u64, voters: &[u64], learners: &[u64]) -> Group {
        Group { me, voters: voters.iter().copied().collect(), learners: learners.iter().copied().collect() }
    }

    #[test]
    fn each_difference_has_its_step() {
        use Role::{Manager, Worker};
        let id = |n: u64| format!("{n:025}").parse::<NodeId>().unwrap();
        let cases: Vec<(&str, Vec<Node>, Group, Option<Step>)> = vec![
            ("nothing to do", vec![node(1, Manager, Some(1))], group(1, &[1], &[]), None),
            ("a group in the making", vec![], group(1, &[1], &[]), None),
            (
                "a promoted node is taken in without a vote",
                vec![node(1, Manager, Some(1)), node(2, Manager, Some(2))],
                group(1, &[1], &[]),
                Some(Step::AddLearner { raft_id: 2, addr: "127.0.0.2:2377".into(), node_id: id(2) }),
            ),
            (
                "and then gets one",
                vec![node(1, Manager, Some(1)), node(2, Manager, Some(2))],
                group(1, &[1], &[2]),
                Some(Step::Promote { raft_id: 2 }),
            ),
            (
                "a manager that has not asked to join yet is waited for",
                vec![node(1, Manager, Some(1)), node(2, Manager, None)],
                group(1, &[1], &[]),
                None,
            ),
            (
                "a demoted follower is removed",
                vec![node(1, Manager, Some(1)), node(2, Worker, Some(2))],
                group(1, &[1, 2], &[]),
                Some(Step::Remove { raft_id: 2 }),
            ),
            (
                "a demoted leader hands over first",
                vec![node(1, Worker, Some(1)), node(2, Manager, Some(2))],
                group(1, &[1, 2], &[]),
                Some(Step::HandOver),
            ),
            (
                "a removed node is removed from the group",
                vec![node(1, Manager, Some(1))],
                group(1, &[1, 9], &[]),
                Some(Step::Remove { raft_id: 9 }),
            ),
            (
                "once out, the store says so",
                vec![node(1, Manager, Some(1)), node(2, Worker, Some(2))],
                group(1, &[1], &[]),
                Some(Step::ClearManager { node_id: id(2) }),
            ),
            (
                "removal goes before admission",
                vec![node(1, Manager, Some(1)), node(2, Worker, Some(2)), node(3, Manager, Some(3))],
                group(1, &[1, 2], &[]),
                Some(Step::Remove { raft_id: 2 }),
            ),
        ];
        for (what, nodes, group, expected) in cases {
            assert_eq!(next_step(&state(&nodes), &group, &BTreeSet::new()), expected, "{what}");
        }
    }
}
