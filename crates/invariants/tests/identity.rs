//! S25–S27 notice what they are there for.

use model::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Change, Commit, Event, Snapshot, Store, Transaction};
use swarmlite_invariants::*;

fn id<T: std::str::FromStr<Err = InvalidId>>(c: char) -> T {
    c.to_string().repeat(25).parse().unwrap()
}

fn node(c: char, role: Role, raft_id: Option<u64>) -> Node {
    Node {
        id: id(c),
        meta: Meta::default(),
        spec: NodeSpec { role, ..NodeSpec::default() },
        description: None,
        status: NodeStatus::default(),
        manager: raft_id.map(|raft_id| ManagerStatus { raft_id, addr: "10.0.0.1:2377".into() }),
    }
}

fn cluster(removed: &[char]) -> Cluster {
    Cluster {
        id: id('c'),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        root_ca: RootCa { cert_pem: String::new(), key_pem: String::new() },
        join_tokens: JoinTokens { worker: String::new(), manager: String::new() },
        gossip_keys: Vec::new(),
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        removed_nodes: removed.iter().map(|c| (id(*c), Timestamp(u64::MAX))).collect::<BTreeMap<_, _>>(),
        security: ClusterSecurity::default(),
    }
}

#[derive(Default)]
struct Lab {
    store: Store,
    index: u64,
}

impl Lab {
    /// Managers `m`, worker `w`, demoted `d` (still in the group), removed `r`.
    fn new() -> Lab {
        let mut lab = Lab::default();
        lab.commit(vec![
            Change::Put(cluster(&['r']).into()),
            Change::Put(node('m', Role::Manager, Some(1)).into()),
            Change::Put(node('w', Role::Worker, None).into()),
            Change::Put(node('d', Role::Worker, Some(2)).into()),
        ]);
        lab
    }

    fn commit(&mut self, changes: Vec<Change>) -> (Snapshot, Arc<Commit>, Snapshot) {
        let (before, mut stream) = (self.store.snapshot(), self.store.changes());
        self.index += 1;
        self.store.apply(self.index, &Transaction { at: Timestamp(1), checks: Vec::new(), changes }).unwrap();
        let Some(Event::Commit(commit)) = stream.try_next() else { panic!("nothing was changed") };
        (before, commit, self.store.snapshot())
    }

    fn broken(&mut self, changes: Vec<Change>) -> Vec<&'static str> {
        let (before, commit, after) = self.commit(changes);
        check_commit(&before, &commit, &after).into_iter().map(|v| v.invariant).collect()
    }
}

#[test]
fn doors_open_for_those_who_have_the_right_and_for_no_one_else() {
    use Door::{Anybody, Managers, Members, Raft, Unlisted};
    let state = Lab::new().store.snapshot();
    let (worker, manager) = (Role::Worker, Role::Manager);
    for (who, certificate, door, broken, issued_from) in [
        ('m', manager, Managers, None, 1),
        ('m', manager, Raft, None, 1),
        ('m', worker, Managers, Some("S25"), 1),
        ('m', worker, Raft, Some("S25"), 1),
        ('w', worker, Members, None, 1),
        ('w', manager, Managers, Some("S25"), 1),
        ('d', manager, Managers, None, 1),
        ('r', manager, Anybody, None, 1),
        ('r', manager, Members, Some("S25"), 1),
        ('r', manager, Raft, Some("S25"), 1),
        ('r', worker, Managers, Some("S25"), 1),
        ('m', manager, Unlisted, Some("S27"), 1),
        // A copy that is behind does not know who joined a moment ago, and must not refuse it Raft.
        ('n', manager, Raft, None, 9),
        ('n', manager, Raft, Some("S25"), 1),
        ('w', manager, Raft, Some("S25"), 1),
        ('n', manager, Managers, Some("S25"), 1),
    ] {
        let call = |admitted| Call { caller: id(who), certificate, issued_from, door, path: "/a/b".into(), admitted };
        let found = check_call(&state, &call(true));
        assert_eq!(found.first().map(|v| v.invariant), broken, "{who} at {door:?} as {certificate:?}: {found:?}");
        assert!(check_call(&state, &call(false)).is_empty(), "a denial is always right");
    }
}

#[test]
fn claims_about_the_caller_change_nothing() {
    let call = Call {
        caller: id('w'),
        certificate: Role::Worker,
        issued_from: 1,
        door: Door::Managers,
        path: "/a/b".into(),
        admitted: false,
    };
    assert!(check_claims(&call, false, false).is_empty());
    assert!(check_claims(&call, true, true).is_empty());
    assert_eq!(check_claims(&call, false, true)[0].invariant, "S26");
}

#[test]
fn a_removed_node_has_no_rights_from_its_removal_on_and_never_comes_back() {
    let gone = || Change::Remove(id::<NodeId>('w').into());
    assert_eq!(Lab::new().broken(vec![gone()]), ["S25"]);
    let mut lab = Lab::new();
    assert!(lab.broken(vec![gone(), Change::Put(cluster(&['r', 'w']).into())]).is_empty());
    assert_eq!(lab.broken(vec![Change::Put(node('w', Role::Worker, None).into())]), ["S25"]);
}

#[test]
fn a_raft_id_belongs_to_one_node_for_ever() {
    let (mut lab, mut witness) = (Lab::new(), Witness::new());
    let mut put = |change: Node| witness.observe(&lab.commit(vec![Change::Put(change.into())]).1);
    assert!(put(node('m', Role::Manager, Some(7))).is_empty());
    assert!(put(node('m', Role::Manager, None)).is_empty());
    assert!(put(node('m', Role::Manager, Some(8))).is_empty(), "promoted again, under another id");
    assert_eq!(put(node('w', Role::Manager, Some(7)))[0].invariant, "S25");
}
