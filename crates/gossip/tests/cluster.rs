//! Nodes that gossip over a network in memory, in virtual time.

mod common;

use common::{World, addr, key, live_is, node_id, until};
use std::collections::BTreeSet;
use std::time::Duration;
use swarmlite_gossip::{FACT_VALUE_BYTES_MAX, FACTS_MAX, FactError};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn nodes_find_each_other_and_notice_a_death_in_time() {
    // chitchat picks its partners at random, so the bounds leave room around what is usual (see `GossipTimings`).
    for count in [3_u8, 5, 10] {
        let world = World::new();
        let nodes = world.nodes(count).await;
        for node in &nodes {
            live_is(node, 0..count).await;
        }
        // Usual intervals are measured by now.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let dead = nodes.last().unwrap();
        dead.gossip.stop().await;
        let died = Instant::now();
        let mut seen = Vec::new();
        for node in &nodes[..usize::from(count) - 1] {
            live_is(node, 0..count - 1).await;
            seen.push(died.elapsed());
        }
        let (first, last) = (seen[0], seen[seen.len() - 1]);
        assert!(first >= Duration::from_millis(1500), "too nervous: {first:?} with {count} nodes");
        assert!(last <= Duration::from_millis(6000), "too slow: {last:?} with {count} nodes");
        world.tasks.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn facts_spread_change_and_go() {
    let world = World::new();
    let nodes = world.nodes(4).await;
    nodes[3].gossip.set_fact("engine.version", "27.1").unwrap();
    let said = |n: usize| {
        let facts = nodes[n].gossip.facts();
        facts.get(&node_id(3)).and_then(|f| f.get("engine.version").cloned())
    };
    let mut changes = nodes[0].gossip.fact_changes();
    until("the fact is everywhere", || (0..4).all(|n| said(n).as_deref() == Some("27.1"))).await;
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    nodes[3].gossip.set_fact("engine.version", "28.0").unwrap();
    tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.expect("a change is told").unwrap();
    until("the change is everywhere", || (0..4).all(|n| said(n).as_deref() == Some("28.0"))).await;
    nodes[3].gossip.remove_fact("engine.version");
    until("the fact is gone", || (0..4).all(|n| said(n).is_none())).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_carries_all_it_may_is_heard_in_packets_that_fit() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    for n in 0..FACTS_MAX {
        nodes[1].gossip.set_fact(&format!("endpoint.{n}"), &format!("{n:0>FACT_VALUE_BYTES_MAX$}")).unwrap();
    }
    let size = |n: usize| nodes[n].gossip.facts().get(&node_id(1)).map_or(0, |f| f.len());
    until("all facts are everywhere", || (0..3).all(|n| size(n) == FACTS_MAX)).await;
    assert!(world.net.seen().iter().all(|(_, _, bytes)| bytes.len() <= 1200));
    assert!(world.net.seen().iter().any(|(_, _, bytes)| bytes.len() == 1200), "some messages were split");

    let gossip = &nodes[1].gossip;
    assert_eq!(gossip.set_fact("one.more", ""), Err(FactError::TooMany("one.more".into())));
    assert_eq!(gossip.set_fact("endpoint.0", "replaced"), Ok(()));
    let long = "x".repeat(FACT_VALUE_BYTES_MAX + 1);
    assert!(matches!(gossip.set_fact("endpoint.0", &long), Err(FactError::Value { .. })));
    for bad in ["", "UPPER", "sp ace", &"k".repeat(65), "ünï"] {
        assert!(matches!(gossip.set_fact(bad, ""), Err(FactError::Key(_))), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_is_live_again_with_its_new_facts_only() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    nodes[2].gossip.set_fact("old", "1").unwrap();
    let facts = || nodes[0].gossip.facts().get(&node_id(2)).cloned().unwrap_or_default();
    until("the old fact is known", || facts().contains_key("old")).await;
    nodes[2].gossip.stop().await;
    live_is(&nodes[0], 0..2).await;
    let again = world.node(2).await;
    again.gossip.set_fact("new", "1").unwrap();
    live_is(&nodes[0], 0..3).await;
    live_is(&again, 0..3).await;
    until("only the new fact is known", || facts().keys().map(String::as_str).eq(["new"])).await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_does_not_speak_to_its_former_self() {
    let world = World::new();
    let nodes = world.nodes(2).await;
    live_is(&nodes[0], 0..2).await;
    nodes[1].gossip.stop().await;
    live_is(&nodes[0], 0..1).await;
    // The others remember its former life, which is dead and at its address, and tell it.
    let again = world.node(1).await;
    live_is(&again, 0..2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let counters = again.gossip.counters();
    assert_eq!(counters.dropped(), 0, "an operator would look for somebody who replays: {counters:?}");
}

#[tokio::test(start_paused = true)]
async fn keys_rotate_without_anybody_being_missed() {
    let world = World::new();
    let nodes = world.nodes(5).await;
    for node in &nodes {
        live_is(node, 0..5).await;
    }
    let everybody: BTreeSet<_> = (0..5).map(node_id).collect();
    let mut live: Vec<_> = nodes.iter().map(|n| n.gossip.live()).collect();
    live.iter_mut().for_each(|l| l.mark_unchanged());
    // Behind the old one, then in front of it, then alone; each step reaches the nodes seconds apart.
    for keys in [vec![key(1), key(2)], vec![key(2), key(1)], vec![key(2)]] {
        for node in &nodes {
            node.keys.send_replace(keys.clone());
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    for (node, live) in nodes.iter().zip(&live) {
        assert!(!live.has_changed().unwrap(), "somebody was missed");
        assert_eq!(*live.borrow(), everybody);
        let counters = node.gossip.counters();
        assert_eq!(counters.dropped(), 0, "{counters:?}");
    }
    // A node that was left out of the rotation hears nobody.
    nodes[4].keys.send_replace(vec![key(1)]);
    live_is(&nodes[4], [4]).await;
    live_is(&nodes[0], 0..4).await;
    assert!(nodes[4].gossip.counters().unknown_key > 0);
    nodes[4].keys.send_replace(vec![]);
    until("nothing can be sealed", || nodes[4].gossip.counters().no_key > 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_cut_off_comes_back_by_its_seeds() {
    let world = World::new();
    let nodes = world.nodes(3).await;
    live_is(&nodes[0], 0..3).await;
    world.net.cut(addr(2), true);
    live_is(&nodes[0], 0..2).await;
    live_is(&nodes[2], [2]).await;
    world.net.cut(addr(2), false);
    live_is(&nodes[2], 0..3).await;
    live_is(&nodes[0], 0..3).await;
}

#[tokio::test(start_paused = true)]
async fn seeds_can_be_learned_later() {
    let world = World::new();
    let (first, second) = (world.node(1).await, world.node(2).await);
    // Their only seed does not exist.
    tokio::time::sleep(Duration::from_secs(5)).await;
    live_is(&first, [1]).await;
    second.gossip.set_seeds([first.addr, addr(9)].into());
    live_is(&first, [1, 2]).await;
    live_is(&second, [1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_lossy_network_makes_nobody_suspect() {
    let world = World::new();
    world.net.lose_one_in(10);
    let nodes = world.nodes(5).await;
    for node in &nodes {
        live_is(node, 0..5).await;
    }
    let mut live: Vec<_> = nodes.iter().map(|n| n.gossip.live()).collect();
    live.iter_mut().for_each(|l| l.mark_unchanged());
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(live.iter().all(|l| !l.has_changed().unwrap()), "somebody was suspected");
}

#[tokio::test(start_paused = true)]
async fn stopping_the_owner_stops_gossip_and_frees_the_address() {
    let world = World::new();
    let _node = world.node(0).await;
    assert!(world.tasks.shutdown(Duration::from_secs(1)).await);
    let again = World { tasks: seams::Tasks::new(), ..world };
    live_is(&again.node(0).await, [0]).await;
}
