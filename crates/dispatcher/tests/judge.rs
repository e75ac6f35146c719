//! Who is ready and who is down, as tables.

mod common;

use common::{cluster, id, node};
use model::{NodeDescription, NodeId, NodeState, Timestamp};
use rpc::proto::cluster::SessionReport;
use std::collections::BTreeSet;
use std::time::Duration;
use store::{Change, Object, Snapshot, Store, Transaction};
use swarmlite_dispatcher::{Brake, Canary, SessionsSeen, World, judge};
use tokio::time::Instant;

/// One node's circumstances: its state, how long its session is silent (`None`: never heard), goodbye said, suspected.
#[derive(Clone, Copy)]
struct Case {
    state: NodeState,
    silent_ms: Option<u64>,
    closed: bool,
    suspect: bool,
}

fn snapshot(cases: &[Case], created_at: Timestamp) -> Snapshot {
    let store = Store::new();
    let mut tx = Transaction::new(created_at);
    tx.create(cluster());
    for (n, case) in cases.iter().enumerate() {
        tx.create(node(n as u64 + 1, case.state));
    }
    store.apply(1, &tx).expect("an empty store takes it");
    store.snapshot()
}

/// The states written, by node number, the brake, and when to look again (from now).
fn verdict(
    cases: &[Case],
    led_for: Duration,
    canary: Canary,
) -> (Vec<(u64, NodeState)>, Option<Brake>, Option<Duration>) {
    let snapshot = snapshot(cases, Timestamp(0));
    let leader_since = Instant::now();
    let now = leader_since + led_for;
    let mut sessions = SessionsSeen::default();
    let mut suspects = BTreeSet::new();
    for (n, case) in (1..).zip(cases) {
        if case.suspect {
            suspects.insert(id::<NodeId>(n));
        }
        if let Some(silent_ms) = case.silent_ms {
            let report = SessionReport {
                node_id: id::<NodeId>(n).to_string(),
                silent_ms,
                closed: case.closed,
                ..Default::default()
            };
            sessions.record(&id(n), &report, None, now);
        }
    }
    let wall = Timestamp::from_unix(Duration::from_secs(60));
    let judgement =
        judge(&snapshot, World { sessions: &sessions, suspects: &suspects, leader_since, now, wall, canary });
    let written = judgement.transaction.changes.iter().map(|change| match change {
        Change::Put(Object::Node(n)) => (n.id.as_str().parse().expect("digits"), n.status.state),
        other => panic!("unexpected {other:?}"),
    });
    (written.collect(), judgement.brake, judgement.wake_at.map(|at| at - now))
}

const fn case(state: NodeState, silent_ms: Option<u64>, closed: bool, suspect: bool) -> Case {
    Case { state, silent_ms, closed, suspect }
}

const GOOD: Case = case(NodeState::Ready, Some(200), false, false);

#[tokio::test(start_paused = true)]
async fn one_node_among_good_ones() {
    use NodeState::{Disconnected, Down, Ready, Unknown};
    let s = Duration::from_secs;
    // (circumstances, how long the leader leads, what is written, when to look again)
    let table = [
        ("a session makes it ready", case(Unknown, Some(0), false, false), 10, Some(Ready), None),
        ("a session brings it back", case(Down, Some(900), false, false), 10, Some(Ready), None),
        ("suspicion alone is nothing", case(Ready, Some(1000), false, true), 10, None, Some(s(2))),
        (
            "a short silence is nothing",
            case(Ready, Some(2500), false, false),
            10,
            None,
            Some(Duration::from_millis(500)),
        ),
        ("silent and suspected", case(Ready, Some(3000), false, true), 10, Some(Down), None),
        ("silent but still gossiping", case(Ready, Some(3000), false, false), 10, None, Some(s(3))),
        ("silent for long", case(Ready, Some(6000), false, false), 10, Some(Down), None),
        ("down stays down", case(Down, Some(6000), false, true), 10, None, None),
        ("goodbye", case(Ready, Some(0), true, false), 10, Some(Disconnected), None),
        ("goodbye is not yet down", case(Disconnected, Some(4000), true, true), 10, None, Some(s(2))),
        ("goodbye for good", case(Disconnected, Some(6000), true, true), 10, Some(Down), None),
        ("back after goodbye", case(Disconnected, Some(0), false, false), 10, Some(Ready), None),
        ("new leader, not heard", case(Ready, None, false, false), 3, None, Some(s(9))),
        ("new leader, lapsed", case(Ready, Some(7000), false, true), 2, None, Some(s(1))),
        ("new leader, suspected", case(Ready, None, false, true), 1, None, Some(s(2))),
        ("new leader, suspected, later", case(Ready, None, false, true), 4, None, Some(s(2))),
        ("new leader, suspected for long", case(Ready, None, false, true), 6, Some(Down), None),
        ("new leader, never heard", case(Ready, None, false, false), 12, Some(Down), None),
        ("never had a session", case(Unknown, None, false, false), 20, None, Some(s(10))),
        ("never had one for long", case(Unknown, None, false, false), 30, Some(Down), None),
    ];
    for (what, case, led_for, expected, wake) in table {
        let (written, brake, wake_at) = verdict(&[GOOD, GOOD, case], s(led_for), Canary::default());
        assert_eq!(written, expected.map(|state| (3, state)).into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(brake, None, "{what}");
        // The good nodes are looked at again when they would lapse.
        let good = Duration::from_millis(2800);
        assert_eq!(wake_at, Some(wake.map_or(good, |w| w.min(good))), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_brake_holds_while_more_than_half_are_silent() {
    let led = Duration::from_secs(60);
    let gone = |silent| case(NodeState::Ready, Some(silent), false, true);
    // Three of five vanish: the first to lapse is not alone, the others have just not lapsed yet.
    let (written, brake, _) = verdict(&[GOOD, GOOD, gone(3000), gone(2400), gone(2001)], led, Canary::default());
    assert_eq!((written, brake), (vec![], Some(Brake { silent: 3, ready: 5 })));
    // Two of five do not brake.
    let (written, brake, _) = verdict(&[GOOD, GOOD, GOOD, gone(3000), gone(2400)], led, Canary::default());
    assert_eq!((written, brake), (vec![(4, NodeState::Down)], None));
    // Exactly half does not brake: a worker beside its only manager must be able to go down.
    let (written, brake, _) = verdict(&[GOOD, gone(3000)], led, Canary::default());
    assert_eq!((written, brake), (vec![(2, NodeState::Down)], None));
    // Those that stay away are down in the end, and the verdict wakes for it.
    let (written, brake, wake) = verdict(&[GOOD, gone(29_000), gone(29_000)], led, Canary::default());
    assert_eq!((written, brake.is_some(), wake), (vec![], true, Some(Duration::from_secs(1))));
    let (written, ..) = verdict(&[GOOD, gone(30_000), gone(30_000)], led, Canary::default());
    assert_eq!(written, vec![(2, NodeState::Down), (3, NodeState::Down)]);
    // Behind a new leader: two were never heard, and count as silent long before they would be put down themselves.
    let unheard = case(NodeState::Ready, None, false, true);
    let after = Duration::from_secs(3);
    let (written, brake, _) = verdict(&[GOOD, GOOD, gone(3000), unheard, unheard], after, Canary::default());
    assert_eq!((written, brake), (vec![], Some(Brake { silent: 3, ready: 5 })));
    // From its first moment: what it has not heard it cannot tell from what is gone.
    let at_once = Duration::from_millis(900);
    let (written, brake, _) = verdict(&[GOOD, GOOD, gone(3000), unheard, unheard], at_once, Canary::default());
    assert_eq!((written, brake), (vec![], Some(Brake { silent: 3, ready: 5 })));
    // A goodbye is no vanishing.
    let bye = case(NodeState::Disconnected, Some(7000), true, true);
    let (written, brake, _) = verdict(&[GOOD, bye, bye], led, Canary::default());
    assert_eq!((written.len(), brake), (2, None));
}

#[tokio::test(start_paused = true)]
async fn the_canaries_are_bugs() {
    let led = Duration::from_secs(60);
    let gone = case(NodeState::Ready, Some(60_000), false, true);
    let blind = Canary { count_down_as_ready: true, ..Default::default() };
    assert_eq!(verdict(&[GOOD, GOOD, gone], led, blind).0, vec![]);
    let unbraked = Canary { forget_brake: true, ..Default::default() };
    let soon = case(NodeState::Ready, Some(3000), false, true);
    assert_eq!(verdict(&[GOOD, soon, soon], led, unbraked).0.len(), 2);
    assert_eq!(verdict(&[GOOD, soon, soon], led, Canary::default()).0.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_session_says_is_written_once_and_a_late_report_changes_nothing() {
    let snapshot = snapshot(&[GOOD], Timestamp(0));
    let now = Instant::now() + Duration::from_secs(60);
    let report = |silent_ms, addr: &str, closed| SessionReport {
        node_id: id::<NodeId>(1).to_string(),
        silent_ms,
        addr: addr.into(),
        closed,
        ..Default::default()
    };
    let described = NodeDescription { hostname: "h".into(), ..Default::default() };
    let mut sessions = SessionsSeen::default();
    sessions.record(&id(1), &report(100, "10.0.0.1", false), Some(described.clone()), now);
    // From the manager that it left before: older than what is known.
    sessions.record(&id(1), &report(5000, "10.9.9.9", true), None, now);
    let suspects = BTreeSet::new();
    let world = World {
        sessions: &sessions,
        suspects: &suspects,
        leader_since: now,
        now,
        wall: Timestamp(5),
        canary: Canary::default(),
    };
    let first = judge(&snapshot, world).transaction;
    let Some(Change::Put(Object::Node(node))) = first.changes.first() else { panic!("{first:?}") };
    assert_eq!((node.status.addr.as_str(), node.description.as_ref()), ("10.0.0.1", Some(&described)));
    let store = Store::new();
    store.restore(&Store::encode(&snapshot)).expect("it was just written");
    store.apply(2, &first).expect("nothing changed meanwhile");
    assert!(judge(&store.snapshot(), world).transaction.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_leader_slept_through_is_forgiven() {
    let snapshot = snapshot(&[GOOD, GOOD], Timestamp(0));
    let mut sessions = SessionsSeen::default();
    let heard = Instant::now();
    for n in 1..=2 {
        sessions.record(
            &id(n),
            &SessionReport { node_id: id::<NodeId>(n).to_string(), ..Default::default() },
            None,
            heard,
        );
    }
    let away = Duration::from_secs(7);
    tokio::time::advance(away).await;
    let suspects = BTreeSet::new();
    let judge_at = |sessions: &SessionsSeen, now| {
        let canary = Canary { forget_brake: true, ..Default::default() };
        let world = World { sessions, suspects: &suspects, leader_since: heard, now, wall: Timestamp(5), canary };
        judge(&snapshot, world).transaction.changes.len()
    };
    assert_eq!(judge_at(&sessions, Instant::now()), 2);
    sessions.forgive(away);
    assert_eq!(judge_at(&sessions, Instant::now() + Duration::from_secs(2)), 0);
    assert_eq!(judge_at(&sessions, Instant::now() + away), 2);
}
