//! Autopilot: what it does, step by step, and what it leaves alone.
mod common;
use common::{SECOND, World};
use model::*;
use std::collections::BTreeSet;
use std::time::Duration;
use swarmlite_control::autopilot::{Advice, Group, Step, advise, transaction};

const AFTER: Duration = Duration::from_secs(600);

/// Three managers `m0` to `m2`, and two workers `w3` and `w4`; a Raft group that follows the roles, a step later.
struct Swarm {
    world: World,
    nodes: Vec<NodeId>,
    voters: BTreeSet<NodeId>,
}

impl Swarm {
    fn new(on: bool) -> Swarm {
        let mut world = World::with_nodes(5);
        world.set_history_limit(5);
        let mut cluster = world.snapshot().cluster().unwrap().as_ref().clone();
        cluster.spec.policy.autopilot = Autopilot { on, after: AFTER };
        let mut tx = store::Transaction::new(world.now);
        tx.update(cluster);
        world.apply(&tx).unwrap();
        let nodes = world.node_ids();
        for (i, id) in nodes.iter().enumerate() {
            world.change_node(id, |n| {
                n.description.as_mut().unwrap().hostname = format!("{}{i}", if i < 3 { "m" } else { "w" });
                if i < 3 {
                    n.spec.role = Role::Manager;
                    n.manager = Some(ManagerStatus { raft_id: i as u64 + 1, addr: format!("10.0.0.{i}:2377") });
                }
            });
        }
        let voters = nodes[..3].iter().cloned().collect();
        Swarm { world, nodes, voters }
    }

    fn spare(&mut self, node: usize) {
        let id = self.nodes[node].clone();
        self.world.change_node(&id, |n| drop(n.spec.labels.insert(SPARE_MANAGER_LABEL.into(), "true".into())));
    }

    fn set(&mut self, node: usize, state: NodeState) {
        let (id, now) = (self.nodes[node].clone(), self.world.now);
        self.world.change_node(&id, |n| (n.status.state, n.status.since) = (state, now));
    }

    fn group(&self) -> Group {
        let snapshot = self.world.snapshot();
        let up = |v: &&NodeId| snapshot.node(v).is_some_and(|n| n.status.state == NodeState::Ready);
        Group { voters: self.voters.clone(), reachable: self.voters.iter().filter(up).cloned().collect() }
    }

    fn advise(&self) -> Advice {
        let advice = advise(&self.world.snapshot(), &self.group(), self.world.now);
        assert_eq!(advice, advise(&self.world.snapshot(), &self.group(), self.world.now));
        advice
    }

    /// Takes the step that is advised.
    fn take(&mut self) -> Option<Step> {
        let step = self.advise().step?;
        let tx = transaction(&self.world.snapshot(), &step, self.world.now).unwrap();
        self.world.apply(&tx).unwrap();
        Some(step)
    }

    /// The Raft group becomes what the roles say.
    fn regroup(&mut self) {
        for id in self.nodes.clone() {
            let node = self.world.snapshot().node(&id).unwrap().clone();
            if node.spec.role == Role::Manager {
                self.voters.insert(id.clone());
                let raft_id = 100 + self.world.snapshot().index();
                self.world.change_node(&id, |n| {
                    n.manager.get_or_insert(ManagerStatus { raft_id, addr: "10.0.0.9:2377".into() });
                });
            } else {
                self.voters.remove(&id);
                self.world.change_node(&id, |n| n.manager = None);
            }
        }
    }

    fn managers(&self) -> Vec<String> {
        let snapshot = self.world.snapshot();
        let managers = snapshot.nodes().filter(|n| n.spec.role == Role::Manager);
        managers.map(|n| n.description.as_ref().unwrap().hostname.clone()).collect()
    }
}

#[test]
fn a_spare_takes_the_place_of_a_manager_that_is_lost_for_long_enough() {
    let mut swarm = Swarm::new(true);
    swarm.spare(4);
    assert_eq!(swarm.advise().lines, ["no manager is lost; spare managers: w4"]);
    swarm.set(1, NodeState::Down);
    let advice = swarm.advise();
    assert_eq!(advice.step, None);
    assert_eq!(advice.wake_at, Some(swarm.world.now.plus(AFTER)));
    assert_eq!(advice.lines, ["manager m1 is down for 0 s; it counts as lost after 10 min"]);
    swarm.world.pass(AFTER - SECOND);
    assert_eq!(swarm.take(), None);
    swarm.world.pass(SECOND);
    assert_eq!(swarm.advise().lines, ["manager m1 is lost; promotes w4, and demotes m1 then"]);
    assert!(matches!(swarm.take(), Some(Step::Promote { .. })));
    assert_eq!(swarm.managers(), ["m0", "m1", "m2", "w4"]);
    let cluster = swarm.world.snapshot().cluster().unwrap().clone();
    assert!(cluster.security.certificates.promoted_after.contains_key(&swarm.nodes[4]), "old certificates are void");
    assert_eq!(swarm.take(), None, "it has not joined yet");
    assert_eq!(
        swarm.advise().lines,
        ["w4 was promoted in the place of manager m1; waits until it has joined the managers"]
    );
    swarm.regroup();
    assert!(matches!(swarm.take(), Some(Step::Demote { .. })));
    assert_eq!(swarm.managers(), ["m0", "m2", "w4"]);
    swarm.regroup();
    assert_eq!(swarm.take(), None);
    assert!(swarm.world.snapshot().nodes().all(|n| n.status.stands_in_for.is_none()));
    // Back again, it is a worker.
    swarm.set(1, NodeState::Ready);
    assert_eq!(swarm.take(), None);
}

#[test]
fn one_at_a_time_the_longest_lost_first() {
    let mut swarm = Swarm::new(true);
    (3..5).for_each(|n| swarm.spare(n));
    // Five managers, of which two are lost, and one more spare.
    (0..2).for_each(|_| drop(swarm.world.add_node()));
    swarm.nodes = swarm.world.node_ids();
    for (i, name) in [(5, "m5"), (6, "m6")] {
        let id = swarm.nodes[i].clone();
        swarm.world.change_node(&id, |n| {
            n.description.as_mut().unwrap().hostname = name.into();
            n.spec.role = Role::Manager;
        });
    }
    swarm.regroup();
    swarm.set(6, NodeState::Down);
    swarm.world.pass(SECOND);
    swarm.set(0, NodeState::Down);
    swarm.world.pass(AFTER * 2);
    let mut taken = Vec::new();
    for _ in 0..10 {
        let step = swarm.take();
        taken.extend(step);
        let waiting = swarm.world.snapshot().nodes().filter(|n| n.status.stands_in_for.is_some()).count();
        assert!(waiting <= 1, "one at a time");
        swarm.regroup();
        assert!(swarm.group().reachable.len() * 2 > swarm.group().voters.len(), "there is always a quorum");
    }
    let n = |i: usize| swarm.nodes[i].clone();
    assert_eq!(
        taken,
        [
            Step::Promote { spare: n(3), lost: n(6) },
            Step::Demote { lost: n(6), spare: n(3) },
            Step::Promote { spare: n(4), lost: n(0) },
            Step::Demote { lost: n(0), spare: n(4) },
        ]
    );
    assert_eq!(swarm.managers(), ["m1", "m2", "w3", "w4", "m5"]);
}

#[test]
fn what_it_does_when_things_change_on_the_way() {
    /// What happens, the step that is taken then, and who is a manager after it.
    type Case = (&'static str, fn(&mut Swarm), Option<fn(&Swarm) -> Step>, &'static [&'static str]);
    let cases: [Case; 6] = [
        (
            "the lost manager is back: its stand-in is a worker again",
            |s| s.set(1, NodeState::Ready),
            Some(|s| Step::StandDown { spare: s.nodes[4].clone() }),
            &["m0", "m1", "m2"],
        ),
        (
            "the stand-in is lost before it joined",
            |s| s.set(4, NodeState::Down),
            Some(|s| Step::StandDown { spare: s.nodes[4].clone() }),
            &["m0", "m1", "m2"],
        ),
        (
            "somebody demotes the lost manager by hand",
            |s| {
                let id = s.nodes[1].clone();
                s.world.change_node(&id, |n| n.spec.role = Role::Worker);
            },
            Some(|s| Step::Settle { spare: s.nodes[4].clone() }),
            &["m0", "m2", "w4"],
        ),
        (
            "somebody demotes the stand-in by hand: should they promote it one day, it stays",
            |s| {
                let id = s.nodes[4].clone();
                s.world.change_node(&id, |n| n.spec.role = Role::Worker);
            },
            Some(|s| Step::Settle { spare: s.nodes[4].clone() }),
            &["m0", "m1", "m2"],
        ),
        (
            "too few are left without the lost one",
            |s| {
                s.regroup();
                s.set(2, NodeState::Down);
                // Of m0, m2 and w4 two would be left, so it goes; not when w4 cannot be reached as well.
                s.set(4, NodeState::Disconnected);
            },
            None,
            &["m0", "m1", "m2", "w4"],
        ),
        ("nothing", |_| {}, None, &["m0", "m1", "m2", "w4"]),
    ];
    for (what, happens, step, managers) in cases {
        let mut swarm = Swarm::new(true);
        swarm.spare(4);
        swarm.set(1, NodeState::Down);
        swarm.world.pass(AFTER);
        assert!(swarm.take().is_some());
        happens(&mut swarm);
        let expected = step.map(|f| f(&swarm));
        assert_eq!(swarm.take(), expected, "{what}");
        assert_eq!(swarm.managers(), managers, "{what}");
    }
}

#[test]
fn who_is_no_spare_is_not_promoted() {
    type Prepare = fn(&mut Swarm);
    let cases: [(&str, Prepare); 4] = [
        ("no label", |_| {}),
        ("another value", |s| {
            let id = s.nodes[3].clone();
            s.world.change_node(&id, |n| drop(n.spec.labels.insert(SPARE_MANAGER_LABEL.into(), "no".into())));
        }),
        ("down", |s| {
            s.spare(3);
            s.set(3, NodeState::Down);
        }),
        ("still in the Raft group from before", |s| {
            s.spare(3);
            let id = s.nodes[3].clone();
            let manager = Some(ManagerStatus { raft_id: 9, addr: "10.0.0.3:2377".into() });
            s.world.change_node(&id, |n| n.manager = manager);
        }),
    ];
    for (what, prepare) in cases {
        let mut swarm = Swarm::new(true);
        prepare(&mut swarm);
        swarm.set(0, NodeState::Down);
        swarm.world.pass(AFTER);
        let advice = swarm.advise();
        assert_eq!(advice.step, None, "{what}");
        assert!(advice.lines[0].contains("m0 is lost, and no ready worker is a spare"), "{what}: {:?}", advice.lines);
    }
}

#[test]
fn without_a_quorum_nobody_is_promoted() {
    let mut swarm = Swarm::new(true);
    swarm.spare(3);
    swarm.set(0, NodeState::Down);
    swarm.set(1, NodeState::Down);
    swarm.world.pass(AFTER);
    let advice = swarm.advise();
    assert_eq!(advice.step, None);
    assert_eq!(advice.lines, ["manager m0 is lost, but too few managers can be reached to change anything about it"]);
}

#[test]
fn off_it_says_what_it_would_do() {
    let mut swarm = Swarm::new(false);
    swarm.spare(3);
    assert!(swarm.advise().lines.is_empty(), "nothing to say");
    swarm.set(2, NodeState::Down);
    swarm.world.pass(AFTER);
    assert_eq!(
        swarm.advise().lines,
        [
            "autopilot is off: nothing of this happens by itself",
            "manager m2 is lost; would promote w3, and demote m2 then"
        ]
    );
}

#[test]
fn two_changes_of_managers_at_once_do_not_both_pass() {
    let mut swarm = Swarm::new(true);
    swarm.spare(3);
    swarm.set(0, NodeState::Down);
    swarm.world.pass(AFTER);
    let step = swarm.advise().step.unwrap();
    let tx = transaction(&swarm.world.snapshot(), &step, swarm.world.now).unwrap();
    let other = swarm.nodes[2].clone();
    swarm.world.change_node(&other, |n| n.spec.role = Role::Worker);
    assert!(swarm.world.apply(&tx).is_err(), "a manager was demoted meanwhile");
}
