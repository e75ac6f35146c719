//! Who is ready and who is down: the leader's verdict, as a pure function.

use crate::{BRAKE_PERIODS, Canary, FIRST_SESSION_PATIENCE, GRACE_PERIODS, LONG_GRACE_PERIODS};
use model::{Node, NodeDescription, NodeId, NodeState, Timestamp};
use rpc::proto::cluster::SessionReport;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Snapshot, Transaction};
use tokio::time::Instant;

/// Node changes in one verdict; the rest follow in the next, at once.
const CHANGES_MAX: usize = 500;
/// What a cluster without a cluster object would have; never used once there is one.
const PERIOD_DEFAULT: Duration = Duration::from_secs(1);

/// What the leader has heard of the sessions of all nodes since it leads. In memory only: a new leader hears of them anew.
#[derive(Debug, Clone, Default)]
pub struct SessionsSeen(BTreeMap<NodeId, Seen>);

/// What the leader has heard of one node's session.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its last heartbeat.
    pub last: Instant,
    /// It said goodbye after that.
    pub closed: bool,
    /// The address it came from.
    pub addr: String,
    /// What the node says of itself, if it was told to this leader.
    pub description: Option<NodeDescription>,
}

/// What a verdict rests on beside the store.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The sessions.
    pub sessions: &'a SessionsSeen,
    /// Nodes that gossip's failure detector suspects.
    pub suspects: &'a BTreeSet<NodeId>,
    /// Since when this manager leads.
    pub leader_since: Instant,
    /// Now.
    pub now: Instant,
    /// Now, by the wall clock.
    pub wall: Timestamp,
    /// Deliberate bugs.
    pub canary: Canary,
}

/// A verdict.
#[derive(Debug)]
pub struct Judgement {
    /// What changes; empty when nothing does.
    pub transaction: Transaction,
    /// When to judge again if nothing is heard before.
    pub wake_at: Option<Instant>,
    /// Set while the brake holds.
    pub brake: Option<Brake>,
}

/// So many nodes fell silent at once that it is more likely the leader that is cut off: nobody is put down for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brake {
    /// Ready nodes that are silent.
    pub silent: usize,
    /// Ready nodes in all.
    pub ready: usize,
}

/// What is to be done about one node.
enum Verdict {
    /// Nothing, until then.
    Wait(Option<Instant>),
    /// Its session is good.
    Ready,
    /// It said goodbye.
    Disconnected,
    /// It is gone since `silence`, for this reason.
    Gone { silence: Duration, why: &'static str },
}

// === impl SessionsSeen ===

impl SessionsSeen {
    /// Notes what a manager reports at `now`. Reports may come late and out of order: the last heartbeat wins. False when the
    /// description that came with it was not taken for that reason.
    pub fn record(
        &mut self,
        node: &NodeId,
        report: &SessionReport,
        description: Option<NodeDescription>,
        now: Instant,
    ) -> bool {
        let last = now.checked_sub(Duration::from_millis(report.silent_ms)).unwrap_or(now);
        let seen = self.0.entry(node.clone()).or_insert_with(|| Seen {
            last,
            closed: report.closed,
            addr: report.addr.clone(),
            description: None,
        });
        if last >= seen.last {
            seen.last = last;
            seen.closed = report.closed;
            if !report.addr.is_empty() {
                seen.addr.clone_from(&report.addr);
            }
            if description.is_some() {
                seen.description = description;
            }
            return true;
        }
        description.is_none()
    }

    /// What was heard of one node.
    pub fn get(&self, node: &NodeId) -> Option<&Seen> {
        self.0.get(node)
    }

    /// Takes so much off everybody's silence; [`Duration::MAX`] takes all of it.
    pub fn forgive(&mut self, silence: Duration) {
        let now = Instant::now();
        self.0.values_mut().for_each(|seen| seen.last = seen.last.checked_add(silence).map_or(now, |at| at.min(now)));
    }

    /// Forgets the nodes that are no members any more.
    pub fn retain_members(&mut self, snapshot: &Snapshot) {
        self.0.retain(|id, _| snapshot.node(id).is_some());
    }
}

// === the verdict ===

/// Judges every node.
pub fn judge(snapshot: &Snapshot, world: World<'_>) -> Judgement {
    let period = snapshot.cluster().map_or(PERIOD_DEFAULT, |c| c.spec.heartbeat_period);
    let brake = brake(snapshot, world, period);
    let mut judgement = Judgement { transaction: Transaction::new(world.wall), wake_at: None, brake };
    for node in snapshot.nodes() {
        let verdict = match judge_node(node, world, period) {
            // `Gone` under the brake waits for the longest bound.
            Verdict::Gone { silence, .. } if brake.is_some() && silence < period * BRAKE_PERIODS => {
                Verdict::Wait(Some(world.now + (period * BRAKE_PERIODS - silence)))
            }
            verdict => verdict,
        };
        if let Some(at) = carry_out(&mut judgement.transaction, node, verdict, world) {
            judgement.wake_at = Some(judgement.wake_at.map_or(at, |w| w.min(at)));
        }
        if judgement.transaction.changes.len() >= CHANGES_MAX {
            judgement.wake_at = Some(world.now);
            break;
        }
    }
    judgement
}

/// How long the leader has not heard of a node, and whether it has at all. A node that it has not heard of counts from when
/// the leader began to lead.
fn silence(node: &NodeId, world: World<'_>) -> (Duration, bool) {
    let seen = world.sessions.get(node);
    let last = seen.map_or(world.leader_since, |s| s.last);
    (world.now.saturating_duration_since(last), seen.is_some())
}

fn judge_node(node: &Node, world: World<'_>, period: Duration) -> Verdict {
    let (silence, heard) = silence(&node.id, world);
    let closed = world.sessions.get(&node.id).is_some_and(|s| s.closed);
    let at = |bound: Duration| Verdict::Wait(Some(world.now + bound.saturating_sub(silence)));
    if heard && !closed && silence < period * GRACE_PERIODS {
        let wakes = node.status.state == NodeState::Ready && described(node, world);
        return if wakes { at(period * GRACE_PERIODS) } else { Verdict::Ready };
    }
    if node.status.state == NodeState::Down || world.canary.count_down_as_ready {
        return Verdict::Wait(None);
    }
    if closed && node.status.state == NodeState::Ready {
        return Verdict::Disconnected;
    }
    if !heard && node.status.state == NodeState::Unknown {
        let age = world.wall.since(node.meta.created_at);
        return if age >= FIRST_SESSION_PATIENCE && silence >= FIRST_SESSION_PATIENCE {
            Verdict::Gone { silence, why: "heartbeat failure for node in \"unknown\" state" }
        } else {
            at(FIRST_SESSION_PATIENCE)
        };
    }
    // A new leader gives everybody time to find a manager again, twice what it gives a node that it knows.
    let (grace, long, why) = if heard {
        (GRACE_PERIODS, LONG_GRACE_PERIODS, "heartbeat failure")
    } else {
        (LONG_GRACE_PERIODS, 2 * LONG_GRACE_PERIODS, "heartbeat failure for node in \"unknown\" state")
    };
    // Before it has had the time to hear of everybody, a new leader cannot tell one that is gone from many.
    let led = world.now.saturating_duration_since(world.leader_since);
    if led < period * GRACE_PERIODS {
        return Verdict::Wait(Some(world.leader_since + period * GRACE_PERIODS));
    }
    // Who said goodbye may be back soon, and no longer gossips: its silence alone must tell.
    let suspected = world.suspects.contains(&node.id) && !closed;
    if silence >= period * long || suspected && silence >= period * grace {
        Verdict::Gone { silence, why }
    } else if suspected {
        at(period * grace)
    } else {
        at(period * long)
    }
}

/// True when the store has what the session says of the node.
fn described(node: &Node, world: World<'_>) -> bool {
    world.sessions.get(&node.id).is_none_or(|seen| {
        (seen.addr.is_empty() || seen.addr == node.status.addr)
            && (seen.description.is_none() || seen.description == node.description)
    })
}

fn carry_out(tx: &mut Transaction, node: &Arc<Node>, verdict: Verdict, world: World<'_>) -> Option<Instant> {
    let (state, message) = match verdict {
        Verdict::Wait(at) => return at,
        Verdict::Ready => (NodeState::Ready, ""),
        Verdict::Disconnected => (NodeState::Disconnected, "the node has stopped; its tasks go on"),
        Verdict::Gone { why, .. } => (NodeState::Down, why),
    };
    let mut node = Node::clone(node);
    if node.status.state != state {
        node.status.since = world.wall;
        if state == NodeState::Ready {
            node.status.takes_tasks_since = world.wall;
        }
    }
    node.status.state = state;
    node.status.message = message.to_owned();
    if let Some(seen) = world.sessions.get(&node.id) {
        if !seen.addr.is_empty() {
            node.status.addr.clone_from(&seen.addr);
        }
        if seen.description.is_some() {
            node.description.clone_from(&seen.description);
        }
    }
    tx.update(node);
    None
}

/// Nodes that fall silent together are noticed up to a heartbeat period apart, and each is found out alone. So the brake
/// counts a node as silent before it lapses: by more than a period and the way of a report, less than the grace. A node
/// that a new leader has not heard of counts from the first moment: it hears of the others within a period, and until it
/// does, it cannot tell who is gone.
fn brake(snapshot: &Snapshot, world: World<'_>, period: Duration) -> Option<Brake> {
    if world.canary.forget_brake {
        return None;
    }
    let ready = || snapshot.nodes().filter(|n| n.status.state == NodeState::Ready);
    let silent = ready()
        .filter(|n| {
            let (silence, heard) = silence(&n.id, world);
            let closed = world.sessions.get(&n.id).is_some_and(|s| s.closed);
            !closed && (!heard || silence + period * 5 / 4 >= period * GRACE_PERIODS)
        })
        .count();
    let ready = ready().count();
    (silent * 2 > ready).then_some(Brake { silent, ready })
}
