//! Members whose disks are sealed: restarts, changes of the data key, and disks that were tampered with.
#![allow(clippy::disallowed_methods)] // looks at the files behind the disk's back

mod support;

use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use support::{AtRest, Cluster, LIMIT, List, Plain, Stores};
use swarmlite_raft::{Parts, Raft, RaftConfig, Role};

const MARKER: &str = "a known marker";

fn compacting() -> RaftConfig {
    RaftConfig { snapshot_every: 20, keep_behind_snapshot: 5, ..RaftConfig::default() }
}

/// A member of its own, without a cluster around it.
async fn member(dir: &Path, stores: &Stores) -> Result<Raft, String> {
    let parts = Parts {
        raft_id: 1,
        config: compacting(),
        log: stores.log.clone(),
        machine: Arc::new(List::default()),
        disk: stores.disk.clone(),
        snapshot_dir: dir.join("snapshots"),
    };
    Raft::start(parts, Arc::new(Plain)).await.map_err(|e| e.to_string())
}

/// A member that has written so much that there is a snapshot, and was stopped.
async fn written() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::with(1, compacting(), AtRest::Sealed).await;
    for i in 0..60 {
        cluster.write(format!("{MARKER} {i}")).await;
    }
    let compacted = |v: &swarmlite_raft::RaftView| v.snapshot.is_some_and(|s| s > 55);
    cluster.node(0).raft.wait_view("a snapshot", LIMIT, compacted).await.unwrap();
    cluster.node(0).raft.shutdown(LIMIT).await;
    cluster.kill(0);
    let dir = cluster.dir.path().join("node0");
    (cluster, dir)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_25_sealed_members_replicate_and_restart_and_their_disks_show_nothing() {
    let mut cluster = Cluster::with(3, compacting(), AtRest::Sealed).await;
    for i in 0..50 {
        cluster.write(format!("{MARKER} {i}")).await;
    }
    let follower = (cluster.leader().await + 1) % 3;
    let who = cluster.kill(follower);
    for i in 50..100 {
        cluster.write(format!("{MARKER} {i}")).await;
    }
    cluster.restart(follower, who).await;
    cluster.same_everywhere().await;
    let all = files(cluster.dir.path());
    assert!(all.iter().any(|f| f.extension().is_some_and(|e| e == "snapshot")), "{all:?}");
    for file in all {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(MARKER.len()).any(|w| w == MARKER.as_bytes()), "{} shows the marker", file.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_20_a_snapshot_with_a_wrong_tag_or_from_another_place_is_refused() {
    let (_cluster, dir) = written().await;
    let snapshot = std::fs::read_dir(dir.join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&snapshot).unwrap();
    let stores = Stores::open(&dir, AtRest::Sealed).await;
    for at in [good.len() - 1, good.len() / 2, 40] {
        let mut bent = good.clone();
        bent[at] ^= 1;
        std::fs::write(&snapshot, bent).unwrap();
        let said = member(&dir, &stores).await.unwrap_err();
        assert!(said.contains("its seal is broken") && said.contains("join again"), "{said}");
    }
    // A good one under another name: it would put the state at another place of the log.
    std::fs::rename(&snapshot, snapshot.with_file_name(format!("{:020}-{:020}.snapshot", 99, 1))).unwrap();
    std::fs::write(snapshot.with_file_name(format!("{:020}-{:020}.snapshot", 99, 1)), &good).unwrap();
    let said = member(&dir, &stores).await.unwrap_err();
    assert!(said.contains("its seal is broken"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_data_key_under_writes_loses_nothing_and_ends_without_the_old_key() {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::open(dir.path(), AtRest::Sealed).await;
    let raft = member(dir.path(), &stores).await.unwrap();
    let me = swarmlite_raft::Member { addr: "127.0.0.1:1".into(), node_id: "one".into() };
    raft.initialize(me).await.unwrap();
    raft.wait_view("leadership", LIMIT, |v| v.role == Role::Leader).await.unwrap();
    let writer = {
        let raft = raft.clone();
        async move |from: u64, to: u64| {
            for i in from..to {
                raft.propose(Bytes::from(format!("{i}")), LIMIT).await.unwrap();
            }
        }
    };
    writer(0, 30).await;
    let (keys, log, disk) = stores.sealed.as_ref().expect("it is sealed");
    let new = keys.rotate(Duration::from_secs(9)).await.unwrap();
    let old_through = log.older_through().expect("entries of before");
    let retired = async {
        disk.reseal(&[dir.path().join("raft")]).await.unwrap();
        log.reseal_records().await.unwrap();
        while let Some(through) = log.older_through() {
            raft.compact_through(through, LIMIT).await.unwrap();
        }
        keys.retire_older(new).await.unwrap();
    };
    tokio::join!(retired, writer(30, 130));
    assert_eq!(log.older_through(), None);
    assert!(raft.view().snapshot.is_some_and(|s| s >= old_through));
    // Idle, to its last entry.
    let last = raft.view().last_log.unwrap();
    raft.compact_through(last, LIMIT).await.unwrap();
    writer(130, 131).await;
    raft.shutdown(LIMIT).await;
    drop((raft, writer, stores));

    let stores = Stores::open(dir.path(), AtRest::Sealed).await;
    assert!(!stores.sealed.as_ref().expect("it is sealed").0.keyring().has_older());
    let list = Arc::new(List::default());
    let parts = Parts {
        raft_id: 1,
        config: compacting(),
        log: stores.log.clone(),
        machine: list.clone(),
        disk: stores.disk.clone(),
        snapshot_dir: dir.path().join("snapshots"),
    };
    let raft = Raft::start(parts, Arc::new(Plain)).await.unwrap();
    raft.wait_view("leadership", LIMIT, |v| v.role == Role::Leader).await.unwrap();
    raft.propose(Bytes::from("131"), LIMIT).await.unwrap();
    let commands: Vec<_> = list.0.lock().commands.iter().map(|(_, c)| c.clone()).collect();
    let expected: Vec<_> = (0..132).map(|i| Bytes::from(i.to_string())).collect();
    assert_eq!(commands, expected);
    raft.shutdown(LIMIT).await;
}

/// Changes a member's data key to the end.
async fn change_key(cluster: &Cluster, at: usize) {
    let node = cluster.node(at);
    let (keys, log, disk) = node.sealed.as_ref().expect("it is sealed");
    let new = keys.rotate(Duration::from_secs(9)).await.unwrap();
    disk.reseal(&[cluster.dir.path().join(format!("node{at}/raft"))]).await.unwrap();
    log.reseal_records().await.unwrap();
    while let Some(through) = log.older_through() {
        node.raft.compact_through(through, LIMIT).await.unwrap();
    }
    keys.retire_older(new).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_keys_change_while_a_member_is_away_and_it_catches_up() {
    let mut cluster = Cluster::with(3, RaftConfig::default(), AtRest::Sealed).await;
    for i in 0..20 {
        cluster.write(format!("before {i}")).await;
    }
    let away = (cluster.leader().await + 1) % 3;
    let who = cluster.kill(away);
    for i in 0..20 {
        cluster.write(format!("meanwhile {i}")).await;
    }
    for at in (0..3).filter(|at| *at != away) {
        change_key(&cluster, at).await;
    }
    cluster.write("after").await;
    cluster.restart(away, who).await;
    cluster.same_everywhere().await;
    change_key(&cluster, away).await;
    cluster.same_everywhere().await;
}
