//! What sealing and opening one piece costs: `cargo bench -p swarmlite-seal`.
#![allow(clippy::disallowed_methods)] // measures with the real clock

use bytes::Bytes;
use seams::real::OsRand;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmlite_seal::Keyring;

/// The best of some rounds: what else runs on the machine only ever makes it slower.
fn best(mut round: impl FnMut()) -> Duration {
    const TIMES: u32 = 1000;
    let one = |_| {
        let begun = Instant::now();
        (0..TIMES).for_each(|_| round());
        begun.elapsed() / TIMES
    };
    (0..20).map(one).min().unwrap_or_default()
}

fn main() {
    let keyring = Keyring::ephemeral(Arc::new(OsRand));
    for bytes in [300, 3_000, 100_000] {
        let plain = vec![7_u8; bytes];
        let (_, sealed) = keyring.seal(b"raft entry 1", &plain);
        let seal = best(|| drop(black_box(keyring.seal(b"raft entry 1", black_box(&plain)))));
        let open = best(|| drop(black_box(keyring.open(b"raft entry 1", Bytes::copy_from_slice(&sealed)))));
        println!("{bytes:7} bytes: sealed in {seal:?}, opened in {open:?}");
    }
}
