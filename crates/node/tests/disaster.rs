//! Gossip keys that change, and clusters that come back: from a backup, and from one manager of a lost majority.
#![allow(clippy::disallowed_methods)] // looks at the nodes' directories behind their backs

mod support;

use api::{InitOptions, JoinOptions, LocalState, Swarm as _, SwarmError};
use bytes::Bytes;
use model::{Data, Dependency, Meta, NodeState, Payload, PayloadId, Role, Secret, SecretSpec, Timestamp};
use seams::RandExt as _;
use std::path::Path;
use std::time::Duration;
use store::{Object, Transaction};
use support::{Host, cluster, create, state, until, until_running};
use swarmlite_node::NodeConfig;
use swarmlite_node::backup::{Backup, BackupError, BackupKey, RestoreError, restore};

const SECRET: &[u8] = b"what nobody else may know";

fn new_key() -> BackupKey {
    BackupKey::generate(&seams::real::OsRand)
}

async fn back_up(host: &Host, key: &BackupKey) -> Bytes {
    let key = seal::Key::parse(seal::KeyForm::Backup, &key.to_text()).unwrap();
    host.node().backup(key).await.expect("a backup")
}

async fn put_secret(host: &Host) -> PayloadId {
    let id: model::SecretId = seams::real::OsRand.id25().parse().unwrap();
    let payload = PayloadId { of: Dependency::Secret(id.clone()), version: 1 };
    let spec = SecretSpec { name: "password".parse().unwrap(), labels: Default::default(), templating: None };
    let mut tx = Transaction::new(Timestamp(1));
    tx.create(Secret { id, meta: Meta::default(), spec, data_version: 1 });
    tx.create(Payload { id: payload.clone(), meta: Meta::default(), data: Data::of_secret(SECRET.to_vec()).unwrap() });
    host.store().propose(tx).await.expect("the secret is created");
    payload
}

async fn has_secret(host: &Host, id: &PayloadId) {
    match state(host).await.get(&id.clone().into()) {
        Some(Object::Payload(payload)) => assert_eq!(payload.data.expose(), SECRET),
        other => panic!("no such data: {other:?}"),
    }
}

async fn until_ready(host: &Host, nodes: usize) {
    until("the nodes to be ready", async || {
        let ready = state(host).await.nodes().filter(|n| n.status.state == NodeState::Ready).count();
        (ready == nodes).then_some(())
    })
    .await;
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|n| n != "lock").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_cluster_comes_back_from_a_backup_and_its_workers_with_it() {
    let mut hosts = cluster(1, 2).await;
    let old_manager = hosts[0].id();
    let web = create(&hosts[0], "web", 3).await;
    let before = until_running(&hosts[0], &web, 3).await;
    let secret = put_secret(&hosts[0]).await;
    let key = new_key();
    let file = back_up(&hosts[0], &key).await;
    let tokens = state(&hosts[0]).await.cluster().unwrap().join_tokens.clone();
    // The cluster goes on: what the workers have seen is newer than the backup.
    let late = create(&hosts[0], "late", 4).await;
    until_running(&hosts[0], &late, 4).await;

    // The manager is gone with its disk. On another machine with its address:
    let mut gone = hosts.remove(0);
    gone.halt().await;
    let mut new = Host::asleep(&gone.ip);
    let config = NodeConfig { listen_addr: format!("{}:2377", new.ip), ..NodeConfig::new(new.dir.path()) };
    let restored = restore(&file, &key, &config, &new.world()).await.expect("restored");
    assert!(restored.head.index < restored.state.index());
    new.boot().await;
    let id = new.id();
    assert_eq!(id, restored.node_id);
    assert_ne!(id, old_manager);
    has_secret(&new, &secret).await;
    until("the workers are back", async || {
        let state = state(&new).await;
        let back = |h: &Host| state.node(&h.id()).is_some_and(|n| n.status.state == NodeState::Ready);
        hosts.iter().all(back).then_some(())
    })
    .await;
    // Two tasks were on nodes that live: they are not restarted. The third runs elsewhere now.
    let after = until_running(&new, &web, 3).await;
    for task in before.iter().filter(|(_, node)| *node != old_manager) {
        assert!(after.contains(task), "{task:?} was restarted: {after:?}");
    }
    let now = state(&new).await;
    assert_eq!(now.services().count(), 1, "what came after the backup is gone");
    assert_eq!(now.node(&old_manager).unwrap().spec.role, Role::Worker);
    // It lives: writes, joins by the old token, restarts.
    let more = create(&new, "more", 2).await;
    until_running(&new, &more, 2).await;
    let mut joined = Host::asleep(&support::ip(250, 9));
    joined.boot().await;
    let options =
        JoinOptions { remote_addrs: vec![format!("{}:2377", new.ip)], join_token: tokens.worker, ..Default::default() };
    joined.node().join(options).await.expect("the old token still admits");
    new.halt().await;
    new.boot().await;
    until_ready(&new, 4).await;

    // And once more from the same file, which is older than all that the workers have seen from the first one.
    new.halt().await;
    let mut again = Host::asleep(&new.ip);
    let config = NodeConfig { listen_addr: format!("{}:2377", again.ip), ..NodeConfig::new(again.dir.path()) };
    restore(&file, &key, &config, &again.world()).await.expect("restored again");
    again.boot().await;
    let third = create(&again, "third", 5).await;
    until("the workers run what the third cluster says", async || {
        let found = support::running(&state(&again).await, &third);
        hosts.iter().all(|h| found.iter().any(|(_, node)| *node == h.id())).then_some(())
    })
    .await;
    until("gossip hears them", async || {
        let live = again.node().gossip()?.live;
        hosts.iter().all(|h| live.contains(&h.id())).then_some(())
    })
    .await;
    for mut host in hosts.into_iter().chain([joined, again]) {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_good_backup_is_refused_and_leaves_no_trace() {
    let mut hosts = cluster(1, 0).await;
    put_secret(&hosts[0]).await;
    let key = new_key();
    let file = back_up(&hosts[0], &key).await;
    assert!(!file.windows(SECRET.len()).any(|w| w == SECRET), "it can be read");
    assert_eq!(Backup::open(&file, &key).unwrap().state.secrets().count(), 1);

    let wrong = Backup::open(&file, &new_key()).unwrap_err();
    assert!(matches!(wrong, BackupError::WrongKey { .. }), "{wrong}");
    assert!(matches!(Backup::open(&Bytes::from_static(b"no backup"), &key), Err(BackupError::NotABackup)));
    let format = b"\"Format\":";
    let at = file.windows(format.len()).position(|w| w == format).unwrap() + format.len();
    let mut newer = file.to_vec();
    newer[at] = b'9';
    assert!(matches!(Backup::open(&newer.into(), &key), Err(BackupError::Format { found: 9 })));
    for at in (0..file.len()).step_by(file.len() / 97) {
        let mut bent = file.to_vec();
        bent[at] ^= 1;
        assert!(Backup::open(&bent.into(), &key).is_err(), "byte {at}");
        assert!(Backup::open(&file.slice(..at), &key).is_err(), "cut at {at}");
    }

    let new = Host::asleep(&support::ip(250, 1));
    let config = NodeConfig { listen_addr: format!("{}:2377", new.ip), ..NodeConfig::new(new.dir.path()) };
    let refused = restore(&file, &new_key(), &config, &new.world()).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Backup(BackupError::WrongKey { .. })), "{refused}");
    let no_addr = NodeConfig { listen_addr: "eth7".into(), ..config.clone() };
    assert!(matches!(restore(&file, &key, &no_addr, &new.world()).await, Err(RestoreError::Addr(_))));
    assert_eq!(files(new.dir.path()), Vec::<String>::new());
    std::fs::write(new.dir.path().join("precious"), "data").unwrap();
    let refused = restore(&file, &key, &config, &new.world()).await.unwrap_err();
    assert!(refused.to_string().contains("is not empty (it holds precious)"), "{refused}");
    assert_eq!(files(new.dir.path()), ["precious"]);
    hosts[0].halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_swarm_is_restored_locked() {
    let mut old = Host::asleep(&support::ip(250, 3));
    old.boot().await;
    let spec = model::ClusterSpec { autolock: true, ..Default::default() };
    old.node().init(InitOptions { spec, ..Default::default() }).await.expect("init");
    put_secret(&old).await;
    let key = new_key();
    let file = back_up(&old, &key).await;
    // Forced anew it needs no key, as it is not locked while it runs.
    old.node().init(InitOptions { force_new_cluster: true, ..Default::default() }).await.expect("a new cluster");
    old.halt().await;

    let mut new = Host::asleep(&old.ip);
    let config = NodeConfig { listen_addr: format!("{}:2377", new.ip), ..NodeConfig::new(new.dir.path()) };
    let restored = restore(&file, &key, &config, &new.world()).await.expect("restored");
    new.boot().await;
    assert_eq!(new.node().local().state, LocalState::Locked);
    let unlock_key = restored.state.cluster().unwrap().security.unlock_key.clone().expect("it has one");
    let wrong = new.node().unlock(seal::Key::from_bytes([0; 32])).await;
    assert_eq!(wrong, Err(SwarmError::WrongUnlockKey));
    new.node().unlock(seal::Key::from_bytes(unlock_key.key)).await.expect("unlocked");
    until("it leads", async || new.node().raft()?.leader).await;
    assert_eq!(state(&new).await.secrets().count(), 1);
    new.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_manager_of_a_lost_majority_goes_on_and_the_others_come_back_as_workers() {
    let mut hosts = cluster(3, 1).await;
    let web = create(&hosts[0], "web", 4).await;
    let before = until_running(&hosts[0], &web, 4).await;
    let secret = put_secret(&hosts[0]).await;
    let force = || InitOptions { force_new_cluster: true, ..Default::default() };
    let refused = hosts[1].node().init(force()).await.unwrap_err();
    assert!(matches!(&refused, SwarmError::Invalid(text) if text.contains("majority of its managers")), "{refused}");
    let refused = hosts[3].node().init(force()).await.unwrap_err();
    assert!(matches!(&refused, SwarmError::Invalid(text) if text.contains("not a manager")), "{refused}");
    assert_eq!(hosts[1].node().local().state, LocalState::Manager);

    // Two at once, so that the one that is left knows no leader.
    let (left, right) = hosts.split_at_mut(2);
    let (first, third) = (&mut left[0], &mut right[0]);
    tokio::join!(first.halt(), third.halt());
    let survivor = hosts[1].id();
    let forced = until("the new cluster", async || match hosts[1].node().init(force()).await {
        Ok(id) => Some(id),
        // The others were still going down.
        Err(SwarmError::Invalid(_)) => None,
        Err(e) => panic!("{e}"),
    })
    .await;
    assert_eq!(forced, survivor);
    has_secret(&hosts[1], &secret).await;
    until("the worker is back", async || {
        let state = state(&hosts[1]).await;
        state.node(&hosts[3].id()).is_some_and(|n| n.status.state == NodeState::Ready).then_some(())
    })
    .await;
    let view = hosts[1].node().raft().unwrap();
    assert_eq!(view.managers.keys().collect::<Vec<_>>(), [&survivor]);
    let after = until_running(&hosts[1], &web, 4).await;
    for task in before.iter().filter(|(_, node)| [&survivor, &hosts[3].id()].contains(&node)) {
        assert!(after.contains(task), "{task:?} was restarted: {after:?}");
    }
    let more = create(&hosts[1], "more", 2).await;
    until_running(&hosts[1], &more, 2).await;
    hosts[1].halt().await;
    hosts[1].boot().await;
    until_running(&hosts[1], &more, 2).await;

    // One of the former managers alone is no majority of the old group; it finds that it is a worker now.
    hosts[0].boot().await;
    until("the former manager is a worker", async || {
        let ready = state(&hosts[1]).await.node(&hosts[0].id())?.status.state == NodeState::Ready;
        (ready && hosts[0].node().local().state == LocalState::Worker).then_some(())
    })
    .await;
    assert_eq!(hosts[1].node().raft().unwrap().managers.len(), 1);
    for n in [0, 1, 3] {
        hosts[n].halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_keys_rotate_under_a_running_cluster_and_a_node_that_was_away_catches_up() {
    let mut hosts = cluster(1, 2).await;
    let rotate = async |hosts: &[Host]| {
        let mut cluster = model::Cluster::clone(state(&hosts[0]).await.cluster().unwrap());
        let old = cluster.gossip_keys[0].id;
        cluster.security.gossip_rotation.asked = true;
        let mut tx = Transaction::new(Timestamp(1));
        tx.update(cluster);
        hosts[0].store().propose(tx).await.unwrap();
        until("the new key alone", async || {
            let state = state(&hosts[0]).await;
            let keys = &state.cluster().unwrap().gossip_keys;
            (keys.len() == 1 && keys[0].id > old).then_some(())
        })
        .await;
    };
    let all_hear_all = |hosts: &[&Host]| hosts.iter().all(|h| h.node().gossip().unwrap().live.len() == hosts.len());
    until("everybody hears everybody", async || all_hear_all(&hosts.iter().collect::<Vec<_>>()).then_some(())).await;
    rotate(&hosts).await;
    for host in &hosts {
        let gossip = host.node().gossip().unwrap();
        assert_eq!(gossip.live.len(), 3, "somebody is not heard");
        assert_eq!((gossip.counters["UnknownKey"], gossip.counters["Forged"]), (0, 0), "somebody was ahead of others");
    }
    let down = state(&hosts[0]).await.nodes().filter(|n| n.status.state != NodeState::Ready).count();
    assert_eq!(down, 0, "a rotation put a node down");

    // Away for two rotations: it has none of the keys then, and gets them with its session.
    hosts[2].halt().await;
    until("it is down", async || {
        let state = state(&hosts[0]).await;
        state.nodes().any(|n| n.status.state == NodeState::Down).then_some(())
    })
    .await;
    rotate(&hosts[..2]).await;
    rotate(&hosts[..2]).await;
    hosts[2].boot().await;
    until("it hears and is heard", async || all_hear_all(&hosts.iter().collect::<Vec<_>>()).then_some(())).await;
    let keys = |h: &Host| h.node().gossip().unwrap().keys;
    assert_eq!((keys(&hosts[2]), keys(&hosts[0])), (vec![4], vec![4]));
    tokio::time::timeout(Duration::from_secs(30), async {
        for host in &mut hosts {
            host.halt().await;
        }
    })
    .await
    .expect("they stop");
}
