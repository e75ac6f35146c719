//! Datagrams that should not count, and do not.

mod common;

use common::{World, addr, id, key, live_is, node_id, until};
use model::GossipKey;
use std::collections::BTreeSet;
use std::time::Duration;
use swarmlite_gossip::{GossipConfig, GossipError, GossipTimings};

const EVIL: u8 = 99;

#[tokio::test(start_paused = true)]
async fn replayed_damaged_and_foreign_datagrams_are_dropped_and_counted() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    live_is(&nodes[0], 0..3).await;
    let (_, _, honest) = world.net.seen().into_iter().find(|(from, to, _)| (*from, *to) == (addr(1), addr(0))).unwrap();
    let before = nodes[0].gossip.counters();

    let mut damaged = honest.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let mut other_key = honest.clone();
    other_key[3..7].copy_from_slice(&77_u32.to_be_bytes());
    for _ in 0..3 {
        world.net.inject(&honest, addr(1), addr(0));
        world.net.inject(&honest, addr(EVIL), addr(0));
        world.net.inject(&damaged, addr(EVIL), addr(0));
        world.net.inject(&other_key, addr(EVIL), addr(0));
        world.net.inject(&[0; 1201], addr(EVIL), addr(0));
        world.net.inject(&[0; 65_000], addr(EVIL), addr(0));
        world.net.inject(b"hello", addr(EVIL), addr(0));
        world.net.inject(&[], addr(EVIL), addr(0));
    }
    let count = || nodes[0].gossip.counters();
    until("all were looked at", || count().malformed >= before.malformed + 6).await;
    let after = count();
    assert_eq!(after.replayed - before.replayed, 6);
    assert_eq!(after.forged - before.forged, 3);
    assert_eq!(after.unknown_key - before.unknown_key, 3);
    assert_eq!(after.oversized - before.oversized, 6);
    assert_eq!(after.malformed - before.malformed, 6);
    // Later it is too old instead.
    tokio::time::sleep(Duration::from_secs(121)).await;
    world.net.inject(&honest, addr(1), addr(0));
    until("it was looked at", || count().stale == 1).await;
    live_is(&nodes[0], 0..3).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_datagram_can_be_read_on_the_way() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    nodes[1].gossip.set_fact("engine.version", "a-very-visible-text").unwrap();
    until("it arrived", || format!("{:?}", nodes[0].gossip.facts()).contains("a-very-visible-text")).await;
    let clear = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    for (_, _, bytes) in world.net.seen() {
        assert!(!clear(&bytes, "a-very-visible-text") && !clear(&bytes, node_id(1).as_str()));
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_no_member_is_not_heard() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    live_is(&nodes[0], 0..3).await;
    let members: BTreeSet<_> = (0..2).map(node_id).collect();
    world.members.send_replace(members);
    live_is(&nodes[0], 0..2).await;
    live_is(&nodes[1], 0..2).await;
    until("it still tries", || nodes[0].gossip.counters().foreign > 0).await;
    assert!(!nodes[0].gossip.facts().contains_key(&node_id(2)));
    world.members.send_replace((0..3).map(node_id).collect());
    live_is(&nodes[0], 0..3).await;
}

#[tokio::test(start_paused = true)]
async fn another_cluster_under_the_same_key_is_not_heard() {
    let world = World::new();
    let ours = world.node(0).await;
    let theirs = world.node_in(1, id('x'), vec![key(1)], Duration::ZERO).await;
    let wrong_key = vec![GossipKey { id: 1, key: [9; 32] }];
    let _stranger = world.node_in(2, id('c'), wrong_key, Duration::ZERO).await;
    until("their datagrams are dropped", || ours.gossip.counters().forged > 10).await;
    live_is(&ours, [0]).await;
    live_is(&theirs, [1]).await;
}

#[tokio::test(start_paused = true)]
async fn clocks_may_differ_by_a_minute_but_not_by_an_hour() {
    let world = World::new();
    let first = world.node(0).await;
    let minute = world.node_in(1, id('c'), vec![key(1)], Duration::from_secs(60)).await;
    let hour = world.node_in(2, id('c'), vec![key(1)], Duration::from_secs(3600)).await;
    live_is(&first, 0..2).await;
    live_is(&minute, 0..2).await;
    until("the third is refused", || first.gossip.counters().stale > 0 && hour.gossip.counters().received == 0).await;
    live_is(&hour, [2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_limited_and_does_not_silence_the_members() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    live_is(&nodes[0], 0..3).await;
    let mut live = nodes[0].gossip.live();
    live.mark_unchanged();
    let (_, _, honest) = world.net.seen().into_iter().find(|(_, to, _)| *to == addr(0)).unwrap();
    let mut forged = honest;
    *forged.last_mut().unwrap() ^= 1;
    for second in 0..10_u16 {
        for n in 0..5000_u16 {
            let from = ([10, 9, (n >> 8) as u8, n as u8], second + 1).into();
            world.net.inject(&forged, from, addr(0));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let counters = nodes[0].gossip.counters();
    assert!(counters.rate_limited > 20_000, "{counters:?}");
    assert!(counters.forged < 30_000, "{counters:?}");
    assert!(!live.has_changed().unwrap(), "nobody was missed");
}

#[tokio::test(start_paused = true)]
async fn a_taken_address_and_senseless_timings_are_clear_errors() {
    let world = World::new();
    let node = world.node(0).await;
    let seams = seams::Seams { net: std::sync::Arc::new(world.net.clone()), ..seams::real::seams() };
    let config = |timings| GossipConfig {
        node_id: node_id(0),
        cluster_id: id('c'),
        listen_addr: addr(0),
        advertise_addr: addr(0),
        keys: node.keys.subscribe(),
        members: world.members.subscribe(),
        seeds: BTreeSet::new(),
        timings,
    };
    let start = async |timings| swarmlite_gossip::Gossip::start(config(timings), seams.clone(), &world.tasks).await;
    let error = start(GossipTimings::default()).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot bind the gossip address 10.0.0.0:7946/udp"), "{error}");
    for timings in [
        GossipTimings { interval: Duration::ZERO, ..GossipTimings::default() },
        GossipTimings { phi_threshold: f64::NAN, ..GossipTimings::default() },
        GossipTimings { sampling_window: 0, ..GossipTimings::default() },
    ] {
        assert!(matches!(start(timings).await, Err(GossipError::Timings(_))));
    }
    // The address is free as soon as `stop` returns.
    node.gossip.stop().await;
    start(GossipTimings::default()).await.unwrap();
}
