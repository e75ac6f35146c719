//! What the applied state says of a caller (docs/adr/0003, and 0009 for swarms whose certificates are signed elsewhere).
//!
//! A certificate carries the log index of the state that granted it. A copy of the state that is as new knows all that the
//! certificate knows, so that what it says of the node is the truth or newer than the certificate. Only of a certificate that
//! is newer than the copy nothing can be said: its node may have joined, or been promoted, meanwhile.

use crate::raft_store::RaftStore;
use ca::Issued;
use model::{NodeId, Role};
use rpc::Admission;
use std::sync::Arc;
use store::{Snapshot, StoreClient as _};

/// Admits callers by what this manager has applied.
pub(crate) struct StoreAdmission(pub(crate) Arc<RaftStore>);

impl Admission for StoreAdmission {
    fn current_role(&self, node: &NodeId, issued: &Issued) -> Option<Role> {
        let state = self.0.local();
        current_role(&state, node, granted_from(&state, issued)?)
    }

    fn raft_peer(&self, node: &NodeId, issued: &Issued) -> bool {
        let state = self.0.local();
        granted_from(&state, issued).is_some_and(|index| raft_peer(&state, node, index))
    }
}

/// The log index of the state that granted a certificate; `None` for one that the swarm never granted, whoever signed it.
fn granted_from(state: &Snapshot, issued: &Issued) -> Option<u64> {
    issued.from_state(state.cluster().and_then(|c| c.security.grants.as_ref()))
}

/// What a caller may do at most.
fn current_role(state: &Snapshot, node: &NodeId, issued_from: u64) -> Option<Role> {
    if was_removed(state, node) {
        return None;
    }
    match state.node(node) {
        Some(_) if is_from_before_promotion(state, node, issued_from) => Some(Role::Worker),
        // Out of the Raft group is what ends a demoted manager's rights; until then it has to take part in its removal.
        Some(node) if node.manager.is_some() => Some(Role::Manager),
        Some(node) => Some(node.spec.role),
        // This manager would know it: it is no member any more.
        None if knows(state, issued_from) => None,
        // It may have joined a moment ago, at another manager: the least rights, and each service looks again.
        None => Some(Role::Worker),
    }
}

/// Whether the holder of a manager's certificate may speak Raft. A copy that is behind may know a manager of today as a worker
/// of yesterday, or not at all, and would never catch up if it refused it; a copy that knows better does refuse.
fn raft_peer(state: &Snapshot, node: &NodeId, issued_from: u64) -> bool {
    if was_removed(state, node) {
        return false;
    }
    !knows(state, issued_from) || current_role(state, node, issued_from) == Some(Role::Manager)
}

/// Whether this state is as new as the one that a certificate was granted from. A manager without a cluster knows nothing.
fn knows(state: &Snapshot, issued_from: u64) -> bool {
    state.cluster().is_some() && issued_from <= state.index()
}

fn was_removed(state: &Snapshot, node: &NodeId) -> bool {
    state.cluster().is_some_and(|c| c.removed_nodes.contains_key(node))
}

/// A manager's certificate from an earlier time as a manager is worth nothing after a demotion, though the node was promoted
/// again. (A worker's certificate opens no manager's door anyhow.)
fn is_from_before_promotion(state: &Snapshot, node: &NodeId, issued_from: u64) -> bool {
    let promoted = state.cluster().and_then(|c| c.security.certificates.promoted_after.get(node));
    promoted.is_some_and(|after| issued_from <= *after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ManagerStatus, Meta, Node, NodeSpec, NodeStatus, Timestamp};
    use proptest::prelude::*;
    use store::{Store, Transaction};

    /// A history of one node, as it is written down in steps of the log.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Step {
        Join(Role),
        Promote,
        EnterGroup,
        Demote,
        LeaveGroup,
        Remove,
        Other,
    }

    fn id() -> NodeId {
        "n".repeat(25).parse().unwrap()
    }

    struct World {
        store: Store,
        index: u64,
    }

    impl World {
        fn new() -> World {
            let mut world = World { store: Store::new(), index: 0 };
            let mut tx = Transaction::new(Timestamp(1));
            tx.create(crate::testing::cluster());
            world.apply(&tx);
            world
        }

        fn state(&self) -> Snapshot {
            self.store.snapshot()
        }

        fn apply(&mut self, tx: &Transaction) {
            self.index += 1;
            self.store.apply(self.index, tx).unwrap();
        }

        /// As the API, the leader and the joiner's manager write these.
        fn take(&mut self, step: Step) {
            let state = self.state();
            let mut cluster = model::Cluster::clone(state.cluster().unwrap());
            let mut tx = Transaction::new(Timestamp(1));
            let node = state.node(&id()).map(|n| Node::clone(n));
            match (step, node) {
                (Step::Join(role), None) if !was_removed(&state, &id()) => drop(tx.create(Node {
                    id: id(),
                    meta: Meta::default(),
                    spec: NodeSpec { role, ..Default::default() },
                    description: None,
                    status: NodeStatus::default(),
                    manager: None,
                })),
                (Step::Promote, Some(mut node)) if node.spec.role == Role::Worker => {
                    node.spec.role = Role::Manager;
                    tx.update(node);
                    cluster.security.certificates.promoted_after.insert(id(), state.index());
                    tx.update(cluster);
                }
                (Step::EnterGroup, Some(mut node)) if node.spec.role == Role::Manager => {
                    node.manager = Some(ManagerStatus { raft_id: 7, addr: "127.0.0.1:1".into() });
                    tx.update(node);
                }
                (Step::Demote, Some(mut node)) => {
                    node.spec.role = Role::Worker;
                    tx.update(node);
                }
                (Step::LeaveGroup, Some(mut node)) if node.spec.role == Role::Worker => {
                    node.manager = None;
                    tx.update(node);
                }
                (Step::Remove, Some(node)) if node.manager.is_none() && node.spec.role == Role::Worker => {
                    tx.remove(&node.id, node.meta.version);
                    cluster.removed_nodes.insert(id(), Timestamp(u64::MAX));
                    tx.update(cluster);
                }
                _ => drop(tx.update(cluster)),
            }
            self.apply(&tx);
        }
    }

    fn history(steps: &[Step]) -> World {
        let mut world = World::new();
        steps.iter().for_each(|s| world.take(*s));
        world
    }

    #[test]
    fn attack_08_a_demoted_managers_certificate_opens_no_managers_door() {
        use Step::{Demote, EnterGroup, Join, LeaveGroup, Promote, Remove};
        let manager = Step::Join(Role::Manager);
        // (what, history, index of the certificate, role, may speak Raft)
        for (what, steps, issued, role, raft) in [
            ("a manager", vec![manager, EnterGroup], 2, Some(Role::Manager), true),
            (
                "one that is being demoted helps with it",
                vec![manager, EnterGroup, Demote],
                2,
                Some(Role::Manager),
                true,
            ),
            ("demoted", vec![manager, EnterGroup, Demote, LeaveGroup], 2, Some(Role::Worker), false),
            ("demoted before it was in the group", vec![manager, Demote], 2, Some(Role::Worker), false),
            ("promoted again, old certificate", vec![manager, Demote, Promote], 2, Some(Role::Worker), false),
            ("promoted again, new certificate", vec![manager, Demote, Promote], 4, Some(Role::Manager), true),
            ("promoted, but not here yet", vec![Join(Role::Worker)], 9, Some(Role::Worker), true),
            ("joined, but not here yet", vec![], 9, Some(Role::Worker), true),
            ("never a member", vec![], 1, None, false),
            ("removed", vec![manager, Demote, Remove], 2, None, false),
        ] {
            let state = history(&steps).state();
            assert_eq!(current_role(&state, &id(), issued), role, "{what}");
            assert_eq!(raft_peer(&state, &id(), issued), raft, "{what}");
        }
    }

    #[test]
    fn attack_08_a_removed_node_is_refused_when_its_removal_is_forgotten_too() {
        let world = history(&[Step::Join(Role::Manager), Step::Demote, Step::Remove]);
        let mut cluster = model::Cluster::clone(world.state().cluster().unwrap());
        cluster.removed_nodes.clear();
        let mut tx = Transaction::new(Timestamp(1));
        tx.update(cluster);
        let mut world = world;
        world.apply(&tx);
        assert_eq!(current_role(&world.state(), &id(), 2), None);
        assert!(!raft_peer(&world.state(), &id(), 2));
    }

    /// A manager's certificate as the cluster of a state grants it.
    fn certificate(cluster: &model::Cluster, index: u64) -> Issued {
        use ca::{Authority, CertificateGrant, Csr, Identity, NodeKey};
        let key = NodeKey::generate().unwrap();
        let csr = Csr::parse(&key.csr_pem().unwrap()).unwrap();
        let grant = CertificateGrant { node_id: id(), role: Role::Manager, expiry: cluster.spec.node_cert_expiry };
        let now = std::time::Duration::from_secs(1_800_000_000);
        let chain = Authority::of(cluster).unwrap().issue_from(index, &csr, &grant, now, &seams::real::OsRand).unwrap();
        Identity::new(chain, key.key_pem(), cluster.trusted_roots_pem()).unwrap().issued().clone()
    }

    #[test]
    fn attack_09_a_forged_mark_opens_nothing_and_a_copy_that_is_behind_locks_nobody_out() {
        let mut world = history(&[Step::Join(Role::Worker)]);
        let behind = world.state();
        let unmarked = certificate(behind.cluster().unwrap(), 2);
        let set = |world: &mut World, grants: &model::GrantKey| {
            let mut cluster = model::Cluster::clone(world.state().cluster().unwrap());
            cluster.security.grants = Some(grants.clone());
            let mut tx = Transaction::new(Timestamp(1));
            tx.update(cluster);
            world.apply(&tx);
            world.state()
        };
        let key = ca::generate_grant_key(&seams::real::OsRand);
        set(&mut world, &key);
        world.take(Step::Promote);
        world.take(Step::EnterGroup);
        let marking = world.state();
        let (cluster, index) = (model::Cluster::clone(marking.cluster().unwrap()), marking.index());
        let needed = set(&mut world, &model::GrantKey { required: true, ..key });
        let mut evil = cluster.clone();
        evil.security.grants = Some(ca::generate_grant_key(&seams::real::OsRand));
        let (good, forged) = (certificate(&cluster, index), certificate(&evil, index));
        let raft = |state: &Snapshot, issued: &Issued| {
            granted_from(state, issued).is_some_and(|index| raft_peer(state, &id(), index))
        };
        for (what, state, issued, admitted) in [
            ("the newest, at a copy that is behind", &behind, &good, true),
            ("the newest", &marking, &good, true),
            ("the newest, when marks are needed", &needed, &good, true),
            ("forged", &marking, &forged, false),
            ("forged, when marks are needed", &needed, &forged, false),
            ("of a worker, from before", &marking, &unmarked, false),
            ("as far in the future as may be", &marking, &Issued::unmarked(u64::MAX), true),
            ("as far, when marks are needed", &needed, &Issued::unmarked(u64::MAX), false),
        ] {
            assert_eq!(raft(state, issued), admitted, "{what}");
        }
    }

    #[test]
    fn a_manager_that_knows_nothing_refuses_no_peer() {
        let state = Store::new().snapshot();
        assert!(raft_peer(&state, &id(), 0));
        assert_eq!(current_role(&state, &id(), 0), Some(Role::Worker));
    }

    fn step() -> impl Strategy<Value = Step> {
        prop::sample::select(vec![
            Step::Join(Role::Worker),
            Step::Join(Role::Manager),
            Step::Promote,
            Step::EnterGroup,
            Step::Demote,
            Step::LeaveGroup,
            Step::Remove,
            Step::Other,
        ])
    }

    proptest! {
        /// Certificates are issued in the role of the state they are granted from. However far behind a copy is: a node that is a
        /// manager now, with the newest certificate it can have, is never locked out of Raft; and whoever is none now, and
        /// whose end every copy in question has applied, speaks Raft to nobody.
        #[test]
        fn no_copy_locks_a_manager_out_and_no_up_to_date_copy_lets_a_former_one_in(
            steps in prop::collection::vec(step(), 1..14),
        ) {
            let mut world = World::new();
            let mut copies = vec![world.state()];
            for s in &steps {
                world.take(*s);
                copies.push(world.state());
            }
            let now = world.state();
            let role_in = |s: &Snapshot| s.node(&id()).map(|n| n.spec.role);
            let granted = copies.iter().filter(|s| role_in(s) == Some(Role::Manager));
            let issued: Vec<u64> = granted.map(Snapshot::index).collect();
            let is_manager = role_in(&now) == Some(Role::Manager);
            if let (true, Some(newest)) = (is_manager, issued.last()) {
                for copy in copies.iter().filter(|c| c.index() > 0) {
                    prop_assert!(raft_peer(copy, &id(), *newest), "locked out at {}", copy.index());
                }
            }
            let out = now.node(&id()).is_none_or(|n| n.spec.role == Role::Worker && n.manager.is_none());
            for certificate in &issued {
                if out {
                    prop_assert!(!raft_peer(&now, &id(), *certificate));
                    prop_assert_ne!(current_role(&now, &id(), *certificate), Some(Role::Manager));
                }
            }
        }
    }
}
