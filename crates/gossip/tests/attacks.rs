//! Attack 21: what reaches a node's gossip port from outside, or from a member that means harm.

mod common;

use common::{World, addr, key, live_is, node_id, until};
use model::GossipKey;
use std::time::Duration;
use swarmlite_gossip::FACTS_MAX;

const EVIL: u8 = 99;

/// The third byte of a datagram is the version, the next four are the key's id.
fn with_head(datagram: &[u8], version: u8, key_id: u32) -> Vec<u8> {
    let mut changed = datagram.to_vec();
    changed[2] = version;
    changed[3..7].copy_from_slice(&key_id.to_be_bytes());
    changed
}

#[tokio::test(start_paused = true)]
async fn attack_21_forged_replayed_and_oversized_datagrams_are_dropped_and_counted() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    live_is(&nodes[0], 0..3).await;
    let (_, _, honest) = world.net.seen().into_iter().find(|(from, to, _)| (*from, *to) == (addr(1), addr(0))).unwrap();
    let before = nodes[0].gossip.counters();
    // Every single bit of it flipped: the head is authenticated too.
    let bits = honest.len() * 8;
    for bit in 0..bits {
        let mut forged = honest.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        world.net.inject(&forged, addr(EVIL), addr(0));
        if bit % 1000 == 999 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    world.net.inject(&honest, addr(EVIL), addr(0));
    world.net.inject(&vec![b'S'; 60_000], addr(EVIL), addr(0));
    let count = || nodes[0].gossip.counters();
    until("all were looked at", || count().oversized > before.oversized && count().replayed > before.replayed).await;
    let after = count();
    let by_bits = |head: usize| head as u64 * 8;
    assert_eq!(after.malformed - before.malformed, by_bits(3), "magic and version");
    assert_eq!(after.unknown_key - before.unknown_key, by_bits(4), "key id");
    assert_eq!(after.forged - before.forged, bits as u64 - by_bits(7), "nonce, ciphertext and tag");
    assert_eq!((after.replayed - before.replayed, after.oversized - before.oversized), (1, 1));
    live_is(&nodes[0], 0..3).await;
}

#[tokio::test(start_paused = true)]
async fn attack_21_a_datagram_under_an_old_key_or_version_does_not_open() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    live_is(&nodes[0], 0..2).await;
    let (_, _, old) = world.net.seen().into_iter().find(|(from, to, _)| (*from, *to) == (addr(1), addr(0))).unwrap();
    for keys in [vec![key(1), key(2)], vec![key(2), key(1)], vec![key(2)]] {
        for node in &nodes {
            node.keys.send_replace(keys.clone());
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let before = nodes[0].gossip.counters();
    assert_eq!(before.unknown_key, 0, "everybody moved in step");
    // A recording from the time of the first key, and the same made to look newer, or from another release.
    world.net.inject(&old, addr(1), addr(0));
    world.net.inject(&with_head(&old, 1, 2), addr(1), addr(0));
    world.net.inject(&with_head(&old, 0, 1), addr(1), addr(0));
    world.net.inject(&with_head(&old, 2, 2), addr(1), addr(0));
    let count = || nodes[0].gossip.counters();
    until("all were looked at", || count().malformed == before.malformed + 2).await;
    assert_eq!(count().unknown_key, 1, "the old key is gone");
    assert_eq!(count().forged - before.forged, 1, "its id is authenticated");
    live_is(&nodes[0], 0..2).await;
}

#[tokio::test(start_paused = true)]
async fn attack_21_a_stranger_without_the_key_learns_and_says_nothing() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    live_is(&nodes[0], 0..2).await;
    world.net.forget_seen();
    // It has a member's name and the right cluster, but not the key.
    let wrong = vec![GossipKey { id: 1, key: [0; 32] }];
    let stranger = world.node_in(2, common::id('c'), wrong, Duration::ZERO).await;
    until("it was refused", || nodes[0].gossip.counters().forged > 5).await;
    live_is(&stranger, [2]).await;
    assert!(world.net.seen().iter().all(|(_, to, _)| *to != addr(2)), "nobody answers it");
    live_is(&nodes[0], 0..2).await;
}

#[tokio::test(start_paused = true)]
async fn attack_21_a_flood_of_facts_and_tombstones_from_a_member_takes_bounded_memory() {
    let mut world = World::new();
    world.timings.state_entries_max = 2000;
    let nodes = world.nodes(3).await;
    live_is(&nodes[0], 0..3).await;
    // It says and takes back more than all nodes of a full cluster could.
    let value = "x".repeat(900);
    let mut n = 0;
    while nodes.iter().all(|node| node.gossip.counters().overfull == 0) {
        for _ in 0..FACTS_MAX {
            nodes[2].gossip.set_fact(&format!("flood.{n}"), &value).unwrap();
            n += 1;
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
        for k in n - FACTS_MAX..n {
            nodes[2].gossip.remove_fact(&format!("flood.{k}"));
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(n < 10_000, "its memory grew without end");
    }
    // Whoever had to begin anew is back, and the flood is forgotten.
    for node in &nodes {
        live_is(node, 0..3).await;
    }
    assert!(nodes[0].gossip.facts()[&node_id(2)].len() <= FACTS_MAX);
}
