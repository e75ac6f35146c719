//! Committed writes per second, with real disks and gRPC on loopback, unsealed and sealed: `cargo bench -p swarmlite-raft`.
#![allow(clippy::disallowed_methods)] // measures with the real clock

#[path = "../tests/support/mod.rs"]
mod support;

use bytes::Bytes;
use std::time::{Duration, Instant};
use support::{AtRest, Cluster, LIMIT};
use swarmlite_raft::RaftConfig;

const FOR: Duration = Duration::from_secs(3);

/// User and system time of this process so far.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or_default();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

async fn writes(cluster: &Cluster, clients: usize) {
    let raft = cluster.node(cluster.leader().await).raft.clone();
    let begun = Instant::now();
    let client = |_| {
        let raft = raft.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < FOR {
                let sent = Instant::now();
                raft.propose(Bytes::from(vec![7; 300]), LIMIT).await.unwrap();
                times.push(sent.elapsed());
            }
            times
        })
    };
    let mut times = Vec::new();
    for client in (0..clients).map(client).collect::<Vec<_>>() {
        times.extend(client.await.unwrap());
    }
    times.sort();
    let per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("  {clients:3} clients: {per_second:7.0} writes/s, p50 {:?}, p99 {:?}", at(0.5), at(0.99));
}

async fn reads(cluster: &Cluster) {
    let raft = cluster.node(cluster.leader().await).raft.clone();
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < FOR / 2 {
        raft.read_index(LIMIT).await.unwrap();
        count += 1;
    }
    println!("  linearizable reads, 1 client: {:.0}/s", f64::from(count) / begun.elapsed().as_secs_f64());
}

async fn idle() {
    let (cpu, begun) = (cpu_time(), Instant::now());
    tokio::time::sleep(FOR).await;
    let share = (cpu_time() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    println!("  idle: {share:.1} % of a core for all members");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for (members, at_rest) in [(1, AtRest::Plain), (1, AtRest::Sealed), (3, AtRest::Plain), (3, AtRest::Sealed)] {
            let cluster = Cluster::with(members, RaftConfig::default(), at_rest).await;
            println!("{members} members, 300-byte commands, {at_rest:?}");
            idle().await;
            for clients in [1, 16, 64] {
                writes(&cluster, clients).await;
            }
            reads(&cluster).await;
            idle().await;
        }
    });
}
