//! Datagrams of gossip.

use super::{Taker, Target, must};
use ::gossip::fuzzing::{Ear, Heard};
use ::gossip::{GossipConfig, GossipTimings};
use model::{GossipKey, NodeId};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use tokio::sync::watch;
use tokio::time::Instant;

const NOW_MS: u64 = 1_800_000_000_000;

pub(super) const TARGET: Target = Target {
    name: "gossip",
    about: "datagrams: frames, seals, replay window, reassembly, chitchat's messages",
    corpus,
    words: &[
        b"SG\x01",
        b"SG\x02",
        b"SG",
        b"\0\0\0\x01",
        b"\xff\xff\xff\xff",
        b"\x01\x02",
        b"\x3b\x3c",
        b"node.addr",
        b"\0\0",
    ],
    bytes_max: 1400,
    start,
};

fn id(c: char) -> NodeId {
    String::from(c).repeat(25).parse().expect("25 letters are an id")
}

fn key(id: u32) -> GossipKey {
    GossipKey { id, key: [7; 32] }
}

fn ear() -> Ear {
    let (_, keys) = watch::channel(vec![key(1), key(2)]);
    let (_, members) = watch::channel(BTreeSet::from([id('a'), id('b')]));
    let addr: SocketAddr = ([10, 0, 0, 1], 7946).into();
    let config = GossipConfig {
        node_id: id('a'),
        cluster_id: "c".repeat(25).parse().expect("an id"),
        listen_addr: addr,
        advertise_addr: addr,
        keys,
        members,
        seeds: BTreeSet::new(),
        timings: GossipTimings::default(),
    };
    Ear::new(config, Instant::now())
}

/// The first byte says how the rest comes: 0 as a datagram; else sealed well, as a part of a message.
fn corpus() -> Vec<Vec<u8>> {
    let whole = ear().seal(id('b'), &key(1), (NOW_MS, 9), (0, 1), b"hello").expect("it is short");
    let mut inputs = vec![[&[0][..], &whole].concat()];
    // A chitchat message that says nothing: its bad-cluster answer; and beginnings of the others.
    for payload in
        [&[3][..], &[0, 0, 0], &[1, 0, 0, 0, 0], &[2, 0, 0], &[0, 1, 0, 25], b"\x00\x00\x09cluster-1\x00\x00"]
    {
        inputs.push([&[1, 0, 1][..], payload].concat());
        inputs.push([&[2, 0, 2][..], payload].concat());
    }
    inputs
}

fn start() -> Taker {
    let (mut ear, mut number) = (ear(), 0);
    Box::new(move |input| {
        number += 1;
        let Some((mode, rest)) = input.split_first() else { return Ok(()) };
        let from: SocketAddr = ([10, 0, 0, 2], 7000 + u16::from(*mode)).into();
        if *mode == 0 {
            let heard = ear.hear(rest, from, NOW_MS);
            // Who has no key cannot make one message of it but the honest one, once.
            return must(heard != Heard::Part, || "a bent datagram was taken for a part".into());
        }
        let Some(([index, count], payload)) = rest.split_first_chunk::<2>() else { return Ok(()) };
        let sender = if *mode == 0xff { id('z') } else { id('b') };
        let number = if *mode == 2 { 5 } else { number };
        if let Some(datagram) = ear.seal(sender, &key(1), (NOW_MS, number), (*index, *count), payload) {
            let heard = ear.hear(&datagram, from, NOW_MS);
            must(*mode != 0xff || heard == Heard::Nothing, || "who is no member was heard".into())?;
            must(ear.hear(&datagram, from, NOW_MS) == Heard::Nothing, || "a datagram was heard twice".into())?;
        }
        Ok(())
    })
}
