//! The rotation of the keys that seal gossip: what the leader does about them, and what each node says of them.
//!
//! A key is changed in three steps, each a write to the cluster object: the new key is put *behind* the first (everybody can
//! open it, nobody seals with it), then moved to the front, then the old one is forgotten. A step is taken when every ready node
//! has said that the one before has reached it. Sessions bring the keys to the nodes, gossip brings the nodes' word back.
//! That word is a hint, as all gossip: a member that lies makes others wait for their next session, no more.

use crate::manager::Manager;
use crate::raft_store::LeaderStore;
use crate::state::Membership;
use gossip::{Facts, Gossip, KeyUse, fact};
use model::{Cluster, GossipKey, NodeState, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;
use store::{Snapshot, StoreClient as _, Transaction};
use tokio::sync::watch;

/// A key seals for so long (SwarmKit manager/keymanager `DefaultKeyRotationInterval`).
const SEALS_FOR: Duration = Duration::from_secs(12 * 3600);
/// A ready node that says nothing holds a step up for so long at most. Its session has brought it the keys long before.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// No member can wear out keys faster than this by saying that it has.
const WORN_NOT_BEFORE: Duration = Duration::from_secs(600);
/// Datagrams that one node seals under one key. Random nonces of 192 bits would allow far more than anybody can send; this
/// is ten times what a node of a full cluster sends in the twelve hours, so that whatever sends so much (a loop, a flood of
/// answers) gets a fresh key with a wide margin to any bound of the cipher, and a key that leaks opens that much less.
const DATAGRAMS_MAX: u64 = 1 << 28;
/// And their bytes.
const BYTES_MAX: u64 = 1 << 38;
/// Keys in the cluster object (SwarmKit's `keyringSize`).
pub(crate) const KEYS_MAX: usize = 3;
/// Between two looks, where nothing wakes earlier.
const LOOK: Duration = Duration::from_secs(5);
/// After a step that could not be written.
const RETRY: Duration = Duration::from_millis(500);

/// A step of the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Put a new key behind the first.
    Make,
    /// Move the newest key to the front.
    Seal,
    /// Drop all but the first.
    Forget,
}

/// The next step, if it is time for one. Its progress is in the order of the keys.
pub(crate) fn next_step(state: &Snapshot, facts: &Facts, now: Timestamp) -> Option<Step> {
    let cluster = state.cluster()?;
    let first = cluster.gossip_keys.first()?;
    let newest = newest(&cluster.gossip_keys);
    let ready = || state.nodes().filter(|n| n.status.state == NodeState::Ready).map(|n| &n.id);
    let said = |key: &'static str| move |node| facts.get(node).and_then(|f| f.get(key)).map(String::as_str);
    if newest != first.id {
        let has = |ids: &str| ids.split(',').any(|id| id.parse() == Ok(newest));
        let all = ready().all(|node| said(fact::GOSSIP_KEYS)(node).is_some_and(has));
        let waited = passed(cluster.security.gossip_rotation.staged_at, now);
        return (all || waited >= WAIT_MAX).then_some(Step::Seal);
    }
    let age = passed(since(cluster), now);
    if cluster.gossip_keys.len() > 1 {
        let seals = |ids: &str| ids.split(',').next().and_then(|id| id.parse().ok()) == Some(first.id);
        let all = ready().all(|node| said(fact::GOSSIP_KEYS)(node).is_some_and(seals));
        return (all || age >= WAIT_MAX).then_some(Step::Forget);
    }
    let is_worn = |id: &str| id.parse() == Ok(first.id);
    let worn = || ready().any(|node| said(fact::GOSSIP_KEY_WORN)(node).is_some_and(is_worn));
    let due = cluster.security.gossip_rotation.asked || age >= SEALS_FOR || (age >= WORN_NOT_BEFORE && worn());
    // Ids never repeat; four thousand million rotations are enough.
    (due && newest < u32::MAX).then_some(Step::Make)
}

/// The cluster after a step; `key` is the new key of [`Step::Make`].
pub(crate) fn after(cluster: &Cluster, step: Step, key: [u8; 32], now: Timestamp) -> Cluster {
    let mut next = cluster.clone();
    next.security.forget_old_tokens(now);
    let keys = &mut next.gossip_keys;
    match step {
        Step::Make => {
            let id = newest(keys).saturating_add(1);
            keys.insert(keys.len().min(1), GossipKey { id, key });
            keys.truncate(KEYS_MAX);
            next.security.gossip_rotation.asked = false;
            next.security.gossip_rotation.staged_at = now;
        }
        Step::Seal => {
            let newest = newest(keys);
            keys.sort_by_key(|k| k.id != newest);
            next.security.gossip_key_since = now;
        }
        Step::Forget => keys.truncate(1),
    }
    next
}

fn newest(keys: &[GossipKey]) -> u32 {
    keys.iter().map(|k| k.id).max().unwrap_or_default()
}

/// How long ago that was. What lies further ahead than clocks differ was noted by one that was wrong, and is long over: it would
/// hold everything up until its time comes.
fn passed(at: Timestamp, now: Timestamp) -> Duration {
    if at > now.plus(SEALS_FOR) { Duration::MAX } else { now.since(at) }
}

/// Since when the first key seals.
fn since(cluster: &Cluster) -> Timestamp {
    cluster.security.gossip_key_since.max(cluster.meta.created_at)
}

/// Whether keys that a manager sent may replace those that a node has. A manager that is behind knows older ones; taking
/// them would cut the node off from those who have moved on.
pub(crate) fn may_replace(have: &[GossipKey], sent: &[GossipKey]) -> bool {
    let age = |keys: &[GossipKey]| (newest(keys), keys.first().map_or(0, |k| k.id));
    !sent.is_empty() && age(sent) >= age(have)
}

/// The leader's part: takes the steps, until dropped.
pub(crate) async fn keep(manager: &Manager, store: &LeaderStore) {
    let mut facts = manager.facts.clone();
    loop {
        let heard = facts.borrow_and_update().clone();
        let now = Timestamp::from_unix(manager.seams.clock.unix_now());
        let state = store.local();
        let Some((step, cluster)) = next_step(&state, &heard, now).zip(state.cluster()) else {
            tokio::select! {
                biased;
                changed = facts.changed() => if changed.is_err() { return std::future::pending().await },
                () = tokio::time::sleep(LOOK) => {}
            }
            continue;
        };
        let mut key = [0; 32];
        manager.seams.rand.fill(&mut key);
        let mut tx = Transaction::new(now);
        tx.update(after(cluster, step, key, now));
        match store.propose(tx).await {
            Ok(_) => tracing::info!(?step, "rotating the gossip key"),
            Err(e) => {
                tracing::debug!(?step, error = %e, "the gossip key could not be rotated; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Every node's part: says which keys it has, and when one is worn out. Until the membership is over.
pub(crate) async fn tell(mut membership: watch::Receiver<Membership>, gossip: Gossip) {
    loop {
        let keys = membership.borrow_and_update().gossip_keys.clone();
        let mut facts = BTreeMap::from([(fact::GOSSIP_KEYS, ids(&keys))]);
        match worn(gossip.key_use()) {
            Some(id) => _ = facts.insert(fact::GOSSIP_KEY_WORN, id.to_string()),
            None => gossip.remove_fact(fact::GOSSIP_KEY_WORN),
        }
        for (key, value) in facts {
            if let Err(e) = gossip.set_fact(key, &value) {
                tracing::warn!(error = %e, "this node's gossip keys are not told");
            }
        }
        tokio::select! {
            biased;
            changed = membership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// A node's gossip as its API shows it.
pub(crate) fn view(gossip: &Gossip, membership: &Membership) -> api::GossipView {
    let (c, usage) = (gossip.counters(), gossip.key_use());
    let counters = BTreeMap::from([
        ("Sent", c.sent),
        ("Received", c.received),
        ("Messages", c.messages),
        ("Dropped", c.dropped()),
        ("Oversized", c.oversized),
        ("Malformed", c.malformed),
        ("RateLimited", c.rate_limited),
        ("UnknownKey", c.unknown_key),
        ("Forged", c.forged),
        ("Stale", c.stale),
        ("Replayed", c.replayed),
        ("Foreign", c.foreign),
        ("Incomplete", c.incomplete),
        ("Unreadable", c.unreadable),
        ("NoKey", c.no_key),
        ("TooLong", c.too_long),
        ("SendErrors", c.send_errors),
        ("ReceiveErrors", c.receive_errors),
        ("Restarts", c.restarts),
        ("Overfull", c.overfull),
    ]);
    api::GossipView {
        keys: membership.gossip_keys.iter().map(|k| k.id).collect(),
        sealed_datagrams: usage.datagrams,
        sealed_bytes: usage.bytes,
        live: gossip.live().borrow().iter().cloned().collect(),
        counters,
    }
}

fn ids(keys: &[GossipKey]) -> String {
    let ids: Vec<String> = keys.iter().map(|k| k.id.to_string()).collect();
    ids.join(",")
}

/// The key that has sealed enough.
fn worn(usage: KeyUse) -> Option<u32> {
    (usage.datagrams >= DATAGRAMS_MAX || usage.bytes >= BYTES_MAX).then_some(usage.key_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Meta, Node, NodeId, NodeSpec, NodeStatus};
    use store::Store;

    const T0: Timestamp = Timestamp(1_700_000_000_000_000_000);

    fn key(id: u32) -> GossipKey {
        GossipKey { id, key: [id as u8; 32] }
    }

    fn node(n: u64, state: NodeState) -> Node {
        Node {
            id: id(n),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            description: None,
            status: NodeStatus { state, ..Default::default() },
            manager: None,
        }
    }

    fn id(n: u64) -> NodeId {
        format!("{n:025}").parse().unwrap()
    }

    fn cluster(keys: &[u32]) -> Cluster {
        let mut cluster = crate::testing::cluster();
        cluster.gossip_keys = keys.iter().map(|n| key(*n)).collect();
        cluster.security.gossip_key_since = T0;
        cluster
    }

    fn state(cluster: &Cluster, nodes: &[Node]) -> Snapshot {
        let store = Store::new();
        let mut tx = Transaction::new(T0);
        tx.create(cluster.clone());
        nodes.iter().for_each(|n| _ = tx.create(n.clone()));
        store.apply(1, &tx).unwrap();
        store.snapshot()
    }

    fn facts(said: &[(u64, &'static str, &str)]) -> Facts {
        let mut facts = Facts::new();
        for (n, key, value) in said {
            facts.entry(id(*n)).or_default().insert((*key).to_owned(), (*value).to_owned());
        }
        facts
    }

    #[test]
    fn a_step_is_taken_when_everybody_has_the_one_before() {
        use NodeState::{Down, Ready};
        let keys = fact::GOSSIP_KEYS;
        let two = vec![node(1, Ready), node(2, Ready), node(3, Down)];
        let minute = Duration::from_secs(60);
        type Case = (&'static str, &'static [u32], Facts, Duration, Option<Step>);
        let cases: Vec<Case> = vec![
            ("young and alone", &[1], facts(&[]), minute, None),
            ("time is over", &[1], facts(&[]), SEALS_FOR, Some(Step::Make)),
            ("handed out, not there yet", &[1, 2], facts(&[(1, keys, "1,2"), (2, keys, "1")]), minute, None),
            ("one that says nothing is waited for", &[1, 2], facts(&[(1, keys, "1,2")]), minute, None),
            ("nonsense is not consent", &[1, 2], facts(&[(1, keys, "1,2"), (2, keys, "12,x")]), minute, None),
            ("everybody ready has it", &[1, 2], facts(&[(1, keys, "1,2"), (2, keys, "1,2")]), minute, Some(Step::Seal)),
            ("or has had time enough", &[1, 2], facts(&[]), WAIT_MAX, Some(Step::Seal)),
            ("in front, one seals with the old", &[2, 1], facts(&[(1, keys, "2,1"), (2, keys, "1,2")]), minute, None),
            ("all seal with it", &[2, 1], facts(&[(1, keys, "2,1"), (2, keys, "2")]), minute, Some(Step::Forget)),
            ("or have had time enough", &[2, 1], facts(&[]), WAIT_MAX, Some(Step::Forget)),
        ];
        for (what, held, facts, later, expected) in cases {
            let mut cluster = cluster(held);
            cluster.security.gossip_rotation.staged_at = T0;
            assert_eq!(next_step(&state(&cluster, &two), &facts, T0.plus(later)), expected, "{what}");
        }
    }

    #[test]
    fn a_time_noted_by_a_clock_that_was_wrong_holds_nothing_up() {
        let year = Duration::from_secs(365 * 86_400);
        let nodes = [node(1, NodeState::Ready)];
        for (held, expected) in [(&[1][..], Step::Make), (&[1, 2], Step::Seal), (&[2, 1], Step::Forget)] {
            let mut cluster = cluster(held);
            cluster.security.gossip_key_since = T0.plus(year);
            cluster.security.gossip_rotation.staged_at = T0.plus(year);
            let now = T0.plus(SEALS_FOR);
            assert_eq!(next_step(&state(&cluster, &nodes), &Facts::new(), now), Some(expected), "{held:?}");
            cluster.security.gossip_key_since = now.plus(WAIT_MAX);
            cluster.security.gossip_rotation.staged_at = now.plus(WAIT_MAX);
            assert_eq!(
                next_step(&state(&cluster, &nodes), &Facts::new(), now),
                None,
                "clocks differ a little: {held:?}"
            );
        }
    }

    #[test]
    fn a_worn_key_is_changed_but_not_at_a_members_whim() {
        let nodes = [node(1, NodeState::Ready), node(2, NodeState::Down)];
        let state = state(&cluster(&[4]), &nodes);
        let worn = |n, id| facts(&[(n, fact::GOSSIP_KEY_WORN, id)]);
        let soon = T0.plus(Duration::from_secs(60));
        let later = T0.plus(WORN_NOT_BEFORE);
        assert_eq!(next_step(&state, &worn(1, "4"), later), Some(Step::Make));
        assert_eq!(next_step(&state, &worn(1, "4"), soon), None, "too soon after the last");
        assert_eq!(next_step(&state, &worn(1, "3"), later), None, "another key");
        assert_eq!(next_step(&state, &worn(2, "4"), later), None, "a node that is down");
        let usage = KeyUse { key_id: 4, datagrams: DATAGRAMS_MAX - 1, bytes: BYTES_MAX - 1 };
        assert_eq!(super::worn(usage), None);
        assert_eq!(super::worn(KeyUse { datagrams: DATAGRAMS_MAX, ..usage }), Some(4));
        assert_eq!(super::worn(KeyUse { bytes: BYTES_MAX, ..usage }), Some(4));
    }

    #[test]
    fn a_rotation_that_was_asked_for_runs_from_end_to_end_once() {
        let nodes = [node(1, NodeState::Ready)];
        let mut cluster = cluster(&[1]);
        cluster.security.gossip_rotation.asked = true;
        let mut orders = Vec::new();
        for _ in 0..10 {
            let said: Vec<String> = cluster.gossip_keys.iter().map(|k| k.id.to_string()).collect();
            let heard = facts(&[(1, fact::GOSSIP_KEYS, &said.join(","))]);
            let Some(step) = next_step(&state(&cluster, &nodes), &heard, T0) else { break };
            cluster = after(&cluster, step, [9; 32], T0);
            assert!(cluster.gossip_keys.len() <= KEYS_MAX);
            orders.push(ids(&cluster.gossip_keys));
        }
        assert_eq!(orders, ["1,2", "2,1", "2"]);
        assert_eq!(cluster.gossip_keys, [GossipKey { id: 2, key: [9; 32] }]);
        assert_eq!(cluster.security.gossip_key_since, T0);
    }

    #[test]
    fn a_manager_that_is_behind_does_not_take_a_node_back() {
        let keys = |ids: &[u32]| ids.iter().map(|n| key(*n)).collect::<Vec<_>>();
        // In the order in which the leader writes them: each may follow each before it, and none may go back.
        let order = [keys(&[1]), keys(&[1, 2]), keys(&[2, 1]), keys(&[2, 3]), keys(&[3, 2]), keys(&[70_000, 3])];
        for (n, earlier) in order.iter().enumerate() {
            assert!(may_replace(earlier, earlier));
            for later in &order[n + 1..] {
                assert!(may_replace(earlier, later) && !may_replace(later, earlier), "{earlier:?} {later:?}");
            }
        }
        assert!(may_replace(&[], &keys(&[1])) && !may_replace(&keys(&[1]), &[]));
    }

    proptest::proptest! {
        /// Whatever nodes say and however long it takes, there is always a key to seal with, and never more than three.
        #[test]
        fn there_is_always_a_key(rounds in proptest::collection::vec((0_u64..50_000, 0_u8..4, proptest::bool::ANY), 1..40)) {
            let nodes = [node(1, NodeState::Ready), node(2, NodeState::Ready)];
            let (mut cluster, mut now) = (cluster(&[1]), T0);
            for (seconds, who, asked) in rounds {
                now = now.plus(Duration::from_secs(seconds));
                cluster.security.gossip_rotation.asked |= asked;
                let all = ids(&cluster.gossip_keys);
                let said: Vec<_> = (1..=2).filter(|n| who & n != 0).map(|n| (u64::from(n), fact::GOSSIP_KEYS, all.as_str())).collect();
                let before = cluster.clone();
                if let Some(step) = next_step(&state(&cluster, &nodes), &facts(&said), now) {
                    cluster = after(&cluster, step, [7; 32], now);
                }
                let keys = &cluster.gossip_keys;
                proptest::prop_assert!((1..=KEYS_MAX).contains(&keys.len()));
                proptest::prop_assert!(may_replace(&before.gossip_keys, keys));
                // Who has the keys of before opens what is sealed with the first of now, but for the one handed out for long.
                let known = before.gossip_keys.iter().any(|k| k.id == keys[0].id);
                proptest::prop_assert!(known);
                let unique: std::collections::BTreeSet<_> = keys.iter().map(|k| k.id).collect();
                proptest::prop_assert_eq!(unique.len(), keys.len());
            }
        }
    }
}
