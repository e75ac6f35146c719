//! Autopilot: a spare node takes the place of a manager that is lost.
//!
//! A manager counts as lost when it is down for longer than the cluster's policy says. Then a spare (a ready worker with the
//! label [`SPARE_MANAGER_LABEL`]) is promoted, and once it votes and can be reached, the lost one is demoted. Only one manager
//! is replaced at a time, and none is demoted without whom too few would be left. How far a replacement has come stands in
//! the spare's [`stands_in_for`](model::NodeStatus::stands_in_for), so that another leader goes on where one stopped. A
//! manager that comes back before it is replaced stays, and its stand-in is a worker again.
//!
//! It is off by default; what it would do can be asked all the same.

use model::{Autopilot, Cluster, Node, NodeId, NodeState, Role, SPARE_MANAGER_LABEL, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::{Check, Snapshot, Transaction};

/// The Raft group, as a manager sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// The nodes that vote.
    pub voters: BTreeSet<NodeId>,
    /// Those of them that can be reached, this manager among them.
    pub reachable: BTreeSet<NodeId>,
}

/// What is to be done about the managers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice {
    /// The next step, if it is time for one. It is given whether or not autopilot is on.
    pub step: Option<Step>,
    /// When to ask again though nothing changed.
    pub wake_at: Option<Timestamp>,
    /// What there is to say, a sentence each; empty where nobody has anything to do with autopilot.
    pub lines: Vec<String>,
}

/// A step of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a spare a manager.
    Promote {
        /// The spare.
        spare: NodeId,
        /// The lost manager that it is to replace.
        lost: NodeId,
    },
    /// Make a lost manager a worker: its stand-in votes.
    Demote {
        /// The lost manager.
        lost: NodeId,
        /// Who stands in for it.
        spare: NodeId,
    },
    /// Make a stand-in a worker again: it is not needed any more, or lost itself.
    StandDown {
        /// The stand-in.
        spare: NodeId,
    },
    /// The lost manager is a manager no more, or no node of the swarm: its stand-in is a manager like any other. Or the
    /// stand-in is a worker, because somebody wanted it so.
    Settle {
        /// The stand-in.
        spare: NodeId,
    },
}

/// What autopilot would do now.
pub fn advise(snapshot: &Snapshot, group: &Group, now: Timestamp) -> Advice {
    let Some(cluster) = snapshot.cluster() else { return Advice::default() };
    let policy = cluster.spec.policy.autopilot;
    let mut advice = Advice::default();
    let lost = lost(snapshot, policy, now, &mut advice);
    let stand_in = snapshot.nodes().find(|n| is_manager(n) && n.status.stands_in_for.is_some());
    // Somebody made a stand-in a worker again. Should they promote it one day, it is a manager like any other.
    let dismissed = snapshot.nodes().find(|n| !is_manager(n) && n.status.stands_in_for.is_some());
    advice.step = match (stand_in, dismissed) {
        (Some(spare), _) => replacing(snapshot, group, spare, policy, now, &mut advice.lines),
        (None, Some(spare)) => Some(Step::Settle { spare: spare.id.clone() }),
        (None, None) => lost.first().and_then(|lost| begin(snapshot, group, lost, policy, &mut advice.lines)),
    };
    if advice.lines.is_empty() && advice.step.is_none() && policy.on {
        let spares = spares(snapshot).map(|n| name(n)).collect::<Vec<_>>();
        let spares = if spares.is_empty() { "none".to_owned() } else { spares.join(", ") };
        advice.lines.push(format!("no manager is lost; spare managers: {spares}"));
    }
    if !policy.on && !advice.lines.is_empty() {
        advice.lines.insert(0, "autopilot is off: nothing of this happens by itself".into());
    }
    advice
}

/// The changes of a step, with the checks that make them safe; `None` when the nodes are not there any more.
pub fn transaction(snapshot: &Snapshot, step: &Step, now: Timestamp) -> Option<Transaction> {
    let mut tx = Transaction::new(now);
    // Of two changes of managers at once, the second is judged again.
    for manager in snapshot.nodes().filter(|n| is_manager(n)) {
        tx.check(Check::Unchanged { id: (&manager.id).into(), version: manager.meta.version });
    }
    let mut change = |id: &NodeId, f: &dyn Fn(&mut Node)| {
        let mut node = Node::clone(snapshot.node(id)?);
        f(&mut node);
        tx.update(node);
        Some(())
    };
    match step {
        Step::Promote { spare, lost } => {
            change(spare, &|n| {
                n.spec.role = Role::Manager;
                n.status.stands_in_for = Some(lost.clone());
            })?;
            if snapshot.node(spare).is_some_and(|n| n.manager.is_none()) {
                // A certificate that it may have from an earlier time as a manager opens no door; it gets a new one.
                let mut cluster = Cluster::clone(snapshot.cluster()?);
                cluster.security.certificates.promoted_after.insert(spare.clone(), snapshot.index());
                tx.update(cluster);
            }
        }
        Step::Demote { lost, spare } => {
            change(lost, &|n| n.spec.role = Role::Worker)?;
            change(spare, &|n| n.status.stands_in_for = None)?;
        }
        Step::StandDown { spare } => change(spare, &|n| {
            n.spec.role = Role::Worker;
            n.status.stands_in_for = None;
        })?,
        Step::Settle { spare } => change(spare, &|n| n.status.stands_in_for = None)?,
    }
    Some(tx)
}

fn is_manager(node: &Node) -> bool {
    node.spec.role == Role::Manager
}

fn name(node: &Node) -> String {
    let hostname = node.description.as_ref().map(|d| d.hostname.as_str()).filter(|h| !h.is_empty());
    hostname.unwrap_or(node.id.as_str()).to_owned()
}

/// The managers that are lost, the longest first. One that is down, but not for long enough, is only spoken of.
fn lost(snapshot: &Snapshot, policy: Autopilot, now: Timestamp, advice: &mut Advice) -> Vec<Arc<Node>> {
    let mut lost = Vec::new();
    for node in snapshot.nodes().filter(|n| is_manager(n) && n.status.state == NodeState::Down) {
        let since = down_since(node);
        let at = since.plus(policy.after);
        // A clock that went back by more than that says nothing; the node is down all the same.
        if at <= now || at.since(now) > policy.after {
            lost.push((since, node.clone()));
        } else {
            advice.wake_at = Some(advice.wake_at.map_or(at, |w| w.min(at)));
            let (for_, after) = (words(now.since(since)), words(policy.after));
            advice.lines.push(format!("manager {} is down for {for_}; it counts as lost after {after}", name(node)));
        }
    }
    lost.sort_by(|(a, m), (b, n)| (a, &m.id).cmp(&(b, &n.id)));
    lost.into_iter().map(|(_, node)| node).collect()
}

/// Older releases noted no time.
fn down_since(node: &Node) -> Timestamp {
    if node.status.since == Timestamp::default() { node.meta.updated_at } else { node.status.since }
}

/// Nodes that may be promoted, by id. One that was a manager has to be out of the Raft group first.
fn spares(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Node>> {
    snapshot.nodes().filter(|n| {
        let labelled = n.spec.labels.get(SPARE_MANAGER_LABEL).is_some_and(|v| v == "true");
        labelled && n.spec.role == Role::Worker && n.status.state == NodeState::Ready && n.manager.is_none()
    })
}

/// The first step of a replacement.
fn begin(snapshot: &Snapshot, group: &Group, lost: &Node, policy: Autopilot, lines: &mut Vec<String>) -> Option<Step> {
    let gone = format!("manager {} is lost", name(lost));
    let Some(spare) = spares(snapshot).next() else {
        lines.push(format!(
            "{gone}, and no ready worker is a spare: label one with {SPARE_MANAGER_LABEL}=true, or promote one yourself"
        ));
        return None;
    };
    // One more voter raises what is needed; who is reachable now, with the newcomer, has to be enough for it.
    if !has_quorum(group.voters.len() + 1, group.voters.intersection(&group.reachable).count() + 1) {
        lines.push(format!("{gone}, but too few managers can be reached to change anything about it"));
        return None;
    }
    let (x, y) = (name(lost), name(spare));
    lines.push(if policy.on {
        format!("{gone}; promotes {y}, and demotes {x} then")
    } else {
        format!("{gone}; would promote {y}, and demote {x} then")
    });
    Some(Step::Promote { spare: spare.id.clone(), lost: lost.id.clone() })
}

/// The next step of a replacement that was begun.
fn replacing(
    snapshot: &Snapshot,
    group: &Group,
    spare: &Node,
    policy: Autopilot,
    now: Timestamp,
    lines: &mut Vec<String>,
) -> Option<Step> {
    let id = || spare.id.clone();
    let lost = spare.status.stands_in_for.as_ref().and_then(|l| snapshot.node(l)).filter(|n| is_manager(n));
    let Some(lost) = lost else { return Some(Step::Settle { spare: id() }) };
    let (x, y) = (name(lost), name(spare));
    if lost.status.state == NodeState::Ready {
        return stand_down(group, spare, format!("manager {x} is back"), lines);
    }
    if spare.status.state == NodeState::Down {
        return stand_down(group, spare, format!("{y}, which stands in for manager {x}, is lost itself"), lines);
    }
    if !(group.voters.contains(&spare.id) && group.reachable.contains(&spare.id)) {
        lines.push(format!("{y} was promoted in the place of manager {x}; waits until it has joined the managers"));
        return None;
    }
    if !may_go(group, &lost.id) {
        lines
            .push(format!("{y} stands in for manager {x}; without {x} too few managers could be reached, so it stays"));
        return None;
    }
    let does = if policy.on { "demotes" } else { "would demote" };
    let down_for = words(now.since(down_since(lost)));
    lines.push(format!("{y} stands in for manager {x}, which is lost for {down_for}; {does} {x}"));
    Some(Step::Demote { lost: lost.id.clone(), spare: id() })
}

fn stand_down(group: &Group, spare: &Node, why: String, lines: &mut Vec<String>) -> Option<Step> {
    if !may_go(group, &spare.id) {
        lines.push(format!("{why}; without {} too few managers could be reached, so it stays", name(spare)));
        return None;
    }
    lines.push(format!("{why}; {} is a worker again", name(spare)));
    Some(Step::StandDown { spare: spare.id.clone() })
}

/// True when the rest has a quorum, and somebody is left.
fn may_go(group: &Group, node: &NodeId) -> bool {
    let rest = || group.voters.iter().filter(|v| *v != node);
    has_quorum(rest().count(), rest().filter(|v| group.reachable.contains(*v)).count())
}

fn has_quorum(voters: usize, reachable: usize) -> bool {
    voters > 0 && reachable > voters / 2
}

/// A span, for people.
fn words(span: Duration) -> String {
    match span.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}
