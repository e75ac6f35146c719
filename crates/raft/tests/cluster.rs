//! Members over gRPC on loopback, with their real disks.
#![allow(clippy::disallowed_methods)] // measures with the real clock

mod support;

use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{AtRest, Cluster, LIMIT, List, Node, Plain};
use swarmlite_raft::{
    COMMAND_BYTES_MAX, Member, MembershipError, Parts, ProposeError, Raft, RaftConfig, ReadError, Role, SledLog,
};

fn commands(cluster: &Cluster) -> Vec<Bytes> {
    cluster.alive().next().unwrap().state().commands.into_iter().map(|(_, c)| c).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_comes_back_from_its_disk() {
    let mut cluster = Cluster::new(3, RaftConfig::default()).await;
    for i in 0..20 {
        cluster.write(format!("before {i}")).await;
    }
    let rounds = std::env::var("FAILOVERS").ok().and_then(|v| v.parse().ok()).unwrap_or(2);
    let mut pauses = Vec::new();
    for round in 0..rounds {
        let leader = cluster.leader().await;
        let term = cluster.node(leader).raft.leading_term().unwrap();
        let who = cluster.kill(leader);
        let begun = Instant::now();
        let applied = cluster.write(format!("after {round}")).await;
        pauses.push(begun.elapsed());
        assert!(cluster.alive().all(|n| n.raft.view().term > term));
        cluster.restart(leader, who).await;
        cluster.settled(applied.index).await;
    }
    cluster.same_everywhere().await;
    let commands = commands(&cluster);
    for i in 0..20 {
        assert!(commands.contains(&Bytes::from(format!("before {i}"))), "before {i}");
    }
    pauses.sort();
    println!("leader killed to next acknowledged write: {pauses:?}");
    assert!(pauses.iter().all(|p| *p < Duration::from_secs(5)), "{pauses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slowed_group_is_patient_and_members_of_different_patience_go_together() {
    let (quick, slow) = (RaftConfig::default(), RaftConfig::default().slowed(3, 30));
    let mut cluster = Cluster::new(3, quick.clone()).await;
    // One after the other becomes patient, the leader last; then impatient again, the leader first.
    for (config, leader_last) in [(slow.clone(), true), (quick, false), (slow, true)] {
        cluster.config = config;
        let leader = cluster.leader().await;
        let mut order: Vec<usize> = (0..3).collect();
        order.sort_by_key(|at| (*at == leader) == leader_last);
        for at in order {
            let before = cluster.write(format!("with {at}")).await;
            let who = cluster.kill(at);
            cluster.write(format!("without {at}")).await;
            cluster.restart(at, who).await;
            cluster.settled(before.index).await;
        }
        cluster.same_everywhere().await;
    }
    // A leader that is lost now is missed later: nobody campaigns before the lease is over.
    let leader = cluster.leader().await;
    let last_heartbeat_before = Duration::from_millis(600);
    let patience = cluster.config.election_max + cluster.config.election_min - last_heartbeat_before;
    let begun = Instant::now();
    cluster.kill(leader);
    cluster.write("after").await;
    println!("patient leader killed to next acknowledged write: {:?}", begun.elapsed());
    assert!(begun.elapsed() > patience, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_down_is_not_dialled_without_a_pause() {
    const WATCHED: Duration = Duration::from_secs(2);
    let mut cluster = Cluster::new(3, RaftConfig::default()).await;
    let leader = cluster.leader().await;
    let (_, member) = cluster.kill((leader + 1) % 3);
    // In its place somebody who hangs up on everybody, and counts.
    let begun = Instant::now();
    let listener = loop {
        match tokio::net::TcpListener::bind(&member.addr).await {
            Ok(listener) => break listener,
            Err(e) => assert!(begun.elapsed() < LIMIT, "its port is not free: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut calls = 0;
    let counting = async {
        loop {
            drop(listener.accept().await.unwrap());
            calls += 1;
        }
    };
    assert!(tokio::time::timeout(WATCHED, counting).await.is_err());
    cluster.write("without it").await;
    // Heartbeats call every 150 ms, appends every 50 at most.
    assert!((1..100).contains(&calls), "{calls} calls in {WATCHED:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_on_request_and_on_shutdown() {
    let mut cluster = Cluster::new(3, RaftConfig::default()).await;
    cluster.write("first").await;
    let leader = cluster.leader().await;
    let begun = Instant::now();
    let to = cluster.node(leader).raft.transfer_leadership(LIMIT).await.unwrap();
    cluster.write("second").await;
    println!("transfer to next acknowledged write: {:?}", begun.elapsed());
    assert_ne!(to, cluster.node(leader).id);
    let leader = cluster.leader().await;
    assert_eq!(cluster.node(leader).id, to);
    let begun = Instant::now();
    cluster.node(leader).raft.shutdown(LIMIT).await;
    cluster.kill(leader);
    cluster.write("third").await;
    println!("graceful stop to next acknowledged write: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3));
    cluster.same_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_fell_far_behind_gets_a_snapshot() {
    let config = RaftConfig { snapshot_every: 50, keep_behind_snapshot: 5, ..RaftConfig::default() };
    let mut cluster = Cluster::new(3, config).await;
    let behind = (0..3).find(|at| cluster.node(*at).raft.leading_term().is_none()).unwrap();
    // More than one chunk of a snapshot.
    let command = Bytes::from(vec![5; 20_000]);
    // The log is purged some time after the snapshot, and on a busy machine another leader may still have all of it: then
    // the member falls behind once more.
    for _ in 0..5 {
        let who = cluster.kill(behind);
        for _ in 0..200 {
            cluster.write(command.clone()).await;
        }
        let leader = cluster.leader().await;
        let compacted = |v: &swarmlite_raft::RaftView| v.snapshot.is_some_and(|s| s > 100);
        cluster.node(leader).raft.wait_view("a snapshot", LIMIT, compacted).await.unwrap();
        cluster.restart(behind, who).await;
        cluster.same_everywhere().await;
        if cluster.node(behind).state().restored > 0 {
            break;
        }
    }
    assert!(cluster.node(behind).state().restored > 0, "it was brought up to date without a snapshot");
    let snapshots = std::fs::read_dir(cluster.dir.path().join(format!("node{behind}/snapshots"))).unwrap().count();
    assert_eq!(snapshots, 1, "only the newest snapshot is kept");
    // And it starts from it.
    let who = cluster.kill(behind);
    cluster.restart(behind, who).await;
    cluster.same_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_reaches_a_new_member() {
    let config = RaftConfig { snapshot_every: 50, keep_behind_snapshot: 5, ..RaftConfig::default() };
    let mut cluster = Cluster::new(1, config).await;
    for i in 0..120 {
        cluster.write(format!("{i}")).await;
    }
    let at = cluster.add(7).await;
    let (id, member) = (cluster.node(at).id, cluster.node(at).member.clone());
    let raft = cluster.node(0).raft.clone();
    raft.add_learner(id, member.clone(), LIMIT).await.unwrap();
    // Adding it again does nothing.
    raft.add_learner(id, member, LIMIT).await.unwrap();
    raft.promote_to_voter(id, LIMIT).await.unwrap();
    cluster.same_everywhere().await;
    assert!(cluster.node(at).state().restored > 0);
    assert!(raft.view().voters.contains(&7));
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_changes_that_would_lose_quorum_are_refused() {
    let mut cluster = Cluster::new(3, RaftConfig::default()).await;
    let leader = cluster.leader().await;
    let raft = cluster.node(leader).raft.clone();
    let absent = Member { addr: "127.0.0.1:1".into(), node_id: "absent".into() };
    raft.add_learner(99, absent.clone(), LIMIT).await.unwrap();
    let error = raft.promote_to_voter(99, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, MembershipError::NotCaughtUp { id: 99, .. }), "{error}");
    let other = Member { node_id: "other".into(), ..absent };
    let error = raft.add_learner(99, other, LIMIT).await.unwrap_err();
    assert!(matches!(error, MembershipError::IdTaken { id: 99, .. }), "{error}");
    assert_eq!(raft.promote_to_voter(98, LIMIT).await, Err(MembershipError::NotFound { id: 98 }));
    raft.remove_member(99, LIMIT).await.unwrap();
    assert!(!raft.view().nodes.contains_key(&99));
    assert_eq!(raft.failures_tolerated(), 1);

    let follower = (0..3).find(|at| *at != leader).unwrap();
    let follower_raft = cluster.node(follower).raft.clone();
    let error = follower_raft.remove_member(1, LIMIT).await.unwrap_err();
    assert!(matches!(error, MembershipError::NotLeader { leader: Some((id, _)) } if id == raft.raft_id()), "{error}");

    // One is dead: the other one must stay, the dead one may go.
    let alive_id = cluster.node(3 - leader - follower).id;
    let (dead, _) = cluster.kill(follower);
    let unreachable = RaftConfig::default().unreachable_after;
    let begun = Instant::now();
    while raft.view().is_reachable(dead, unreachable) {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(raft.failures_tolerated(), 0);
    let error = raft.remove_member(alive_id, LIMIT).await.unwrap_err();
    assert_eq!(error, MembershipError::QuorumWouldBeLost { voters: 2, reachable: 1, needed: 2 });
    assert!(error.to_string().contains("would result in a loss of quorum"));
    raft.remove_member(dead, LIMIT).await.unwrap();
    raft.remove_member(alive_id, LIMIT).await.unwrap();
    assert_eq!(raft.remove_member(raft.raft_id(), LIMIT).await, Err(MembershipError::LastVoter));
    assert_eq!(raft.transfer_leadership(LIMIT).await, Err(MembershipError::NoSuccessor));
    raft.propose(Bytes::from("alone"), LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_member_can_change() {
    let mut cluster = Cluster::new(3, RaftConfig::default()).await;
    let leader = cluster.leader().await;
    let moving = (0..3).find(|at| *at != leader).unwrap();
    let (id, _) = cluster.kill(moving);
    let anywhere = Member { addr: "127.0.0.1:0".into(), node_id: String::new() };
    cluster.restart(moving, (id, anywhere)).await;
    let addr = cluster.node(moving).member.addr.clone();
    cluster.node(leader).raft.set_addr(id, addr.clone(), LIMIT).await.unwrap();
    cluster.same_everywhere().await;
    assert_eq!(cluster.node(moving).raft.view().nodes[&id].addr, addr);
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_told_honestly() {
    let mut cluster = Cluster::new(3, RaftConfig::default()).await;
    let leader = cluster.leader().await;
    let raft = cluster.node(leader).raft.clone();
    let applied = raft.propose(Bytes::from(vec![1; COMMAND_BYTES_MAX]), LIMIT).await.unwrap();
    assert_eq!(applied.response, format!("applied {}", applied.index));
    cluster.settled(applied.index).await;
    let error = raft.propose(Bytes::from(vec![1; COMMAND_BYTES_MAX + 1]), LIMIT).await.unwrap_err();
    assert_eq!(error, ProposeError::TooLarge { bytes: COMMAND_BYTES_MAX + 1 });
    assert!(raft.read_index(LIMIT).await.unwrap() >= applied.index);

    let follower = (0..3).find(|at| *at != leader).unwrap();
    let other = cluster.node(follower).raft.clone();
    let told = (raft.raft_id(), cluster.node(leader).member.clone());
    assert_eq!(
        other.propose(Bytes::from("x"), LIMIT).await,
        Err(ProposeError::NotLeader { leader: Some(told.clone()) })
    );
    assert_eq!(other.read_index(LIMIT).await, Err(ReadError::NotLeader { leader: Some(told) }));
    let error = other.wait_applied(applied.index + 1000, Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("still waiting"), "{error}");

    // Without a majority nothing is acknowledged, and reads are not confirmed.
    for at in (0..3).filter(|at| *at != leader) {
        cluster.kill(at);
    }
    let limit = Duration::from_millis(300);
    for _ in 0..5 {
        let outcome = raft.propose(Bytes::from("nobody hears it"), limit).await;
        assert!(matches!(outcome, Err(ProposeError::Unknown { .. } | ProposeError::NotNow { .. })), "{outcome:?}");
        assert!(raft.read_index(limit).await.is_err());
    }
    // Its term is not over for that: a majority may come back.
    let outcome = raft.propose_in(raft.leading_term().unwrap(), Bytes::from("nor that"), limit).await;
    assert!(matches!(outcome, Err(ProposeError::NotNow { .. })), "{outcome:?}");
    assert!(!raft.view().leads_with_quorum(limit));
    raft.abort().await;
    assert!(matches!(raft.propose(Bytes::new(), limit).await, Err(ProposeError::Stopped(_))));
    assert_eq!(raft.view().role, Role::Stopped);
}

/// What a leader has decided is of its term. A member that lost the leadership and has it again does not take what it decided
/// before: others may have decided meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_term_is_appended_in_that_term_or_never() {
    let cluster = Cluster::new(3, RaftConfig::default()).await;
    let leader = cluster.leader().await;
    let raft = cluster.node(leader).raft.clone();
    let term = raft.leading_term().unwrap();
    let applied = raft.propose_in(term, Bytes::from("of the first term"), LIMIT).await.unwrap();
    cluster.settled(applied.index).await;
    for wrong in [term - 1, term + 1] {
        let outcome = raft.propose_in(wrong, Bytes::from("of no term"), LIMIT).await;
        assert!(matches!(outcome, Err(ProposeError::NotLeader { .. })), "{outcome:?}");
    }
    // Leadership is handed on until it is back where it was.
    loop {
        let at = cluster.leader().await;
        let now = cluster.node(at).raft.clone();
        if at == leader && now.leading_term().is_some_and(|t| t > term) {
            break;
        }
        if let Ok(to) = now.transfer_leadership(LIMIT).await {
            now.wait_view("the successor", LIMIT, |v| v.leader == Some(to)).await.unwrap();
        }
    }
    let outcome = raft.propose_in(term, Bytes::from("too late"), LIMIT).await;
    assert!(matches!(outcome, Err(ProposeError::NotLeader { .. })), "{outcome:?}");
    let again = raft.leading_term().unwrap();
    let applied = raft.propose_in(again, Bytes::from("of a later term"), LIMIT).await.unwrap();
    cluster.settled(applied.index).await;
    for at in 0..3 {
        let commands: Vec<Bytes> = cluster.node(at).state().commands.into_iter().map(|(_, c)| c).collect();
        assert_eq!(commands, ["of the first term", "of a later term"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_disk_does_not_answer_for_its_former_self() {
    let mut cluster = Cluster::new(3, RaftConfig::default()).await;
    let leader = cluster.leader().await;
    let lost = (0..3).find(|at| *at != leader).unwrap();
    let (former, member) = cluster.kill(lost);
    let dir = tempfile::tempdir().unwrap();
    let addr = member.addr.parse().unwrap();
    let anew = Node::start(77, dir.path().to_owned(), addr, RaftConfig::default(), AtRest::Plain).await;
    let applied = cluster.write("without it").await;
    let raft = cluster.node(leader).raft.clone();
    let limit = RaftConfig::default().unreachable_after;
    let begun = Instant::now();
    while raft.view().is_reachable(former, limit) {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(anew.raft.view().last_log, None, "it took entries that were for another member");
    raft.remove_member(former, LIMIT).await.unwrap();
    raft.add_learner(77, anew.member.clone(), LIMIT).await.unwrap();
    raft.promote_to_voter(77, LIMIT).await.unwrap();
    anew.raft.wait_applied(applied.index, LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_applied_stops_the_member() {
    let cluster = Cluster::new(1, RaftConfig::default()).await;
    cluster.write("fine").await;
    let raft = cluster.node(0).raft.clone();
    let outcome = raft.propose(Bytes::from("poison"), LIMIT).await;
    assert!(matches!(outcome, Err(ProposeError::Unknown { .. })), "{outcome:?}");
    let error = raft.wait_view("never", LIMIT, |_| false).await.unwrap_err().to_string();
    assert!(error.contains("unknown command") && error.contains("upgrade"), "{error}");
    assert_eq!(cluster.node(0).state().commands.len(), 1, "nothing is applied behind it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_founded_once() {
    let cluster = Cluster::new(1, RaftConfig::default()).await;
    let node = cluster.node(0);
    assert!(node.raft.is_initialized().await.unwrap());
    let error = node.raft.initialize(node.member.clone()).await.unwrap_err();
    assert_eq!(error, swarmlite_raft::InitializeError::AlreadyInitialized);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watched_view_follows_the_member() {
    let cluster = Cluster::new(1, RaftConfig::default()).await;
    let tasks = seams::Tasks::new();
    let mut views = cluster.node(0).raft.watch(&tasks);
    let applied = cluster.write("x").await;
    views.wait_for(|v| v.last_applied >= Some(applied.index) && v.role == Role::Leader).await.unwrap();
    assert!(tasks.shutdown(LIMIT).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_says_what_to_do() {
    let config = RaftConfig { snapshot_every: 20, keep_behind_snapshot: 5, ..RaftConfig::default() };
    let mut cluster = Cluster::new(1, config.clone()).await;
    for i in 0..60 {
        cluster.write(format!("{i}")).await;
    }
    // The last one that so many commands cause: no other is written behind our back.
    let compacted = |v: &swarmlite_raft::RaftView| v.snapshot.is_some_and(|s| s > 55);
    cluster.node(0).raft.wait_view("a snapshot", LIMIT, compacted).await.unwrap();
    cluster.node(0).raft.shutdown(LIMIT).await;
    cluster.kill(0);
    let dir = cluster.dir.path().join("node0");
    let snapshot = std::fs::read_dir(dir.join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&snapshot).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    let parts = Parts {
        raft_id: 1,
        config,
        log: Arc::new(SledLog::open(&dir.join("raft")).await.unwrap()),
        machine: Arc::new(List::default()),
        disk: Arc::new(seams::real::FileDisk),
        snapshot_dir: dir.join("snapshots"),
    };
    let error = Raft::start(parts, Arc::new(Plain)).await.unwrap_err().to_string();
    assert!(error.contains("checksum of its state is wrong") && error.contains("join again"), "{error}");
}
