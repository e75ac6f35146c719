//! What `swarm init`, `join` and `update` say of addresses and of the log, on whole nodes.

mod support;

use api::{InitOptions, JoinOptions, Swarm as _, SwarmError};
use async_trait::async_trait;
use model::{Availability, Cluster, RaftTicks, Timestamp};
use raft::RaftView;
use seams::{BoxStream, Datagrams, Listener, Net, Seams};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::Transaction;
use support::{Host, create, new_net, state, until, until_running};
use swarmlite_node::{DiskKeys, FoundKeys, Layout, Membership, Node, NodeConfig, World};

/// The machine's network, with the names that the test gives to addresses.
struct Names {
    inner: Arc<dyn Net>,
    known: Vec<(&'static str, Vec<String>)>,
}

// === impl Names ===

#[async_trait]
impl Net for Names {
    async fn connect(&self, to: SocketAddr) -> io::Result<BoxStream> {
        self.inner.connect(to).await
    }

    async fn listen(&self, on: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.inner.listen(on).await
    }

    async fn bind_udp(&self, on: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        self.inner.bind_udp(on).await
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = self.known.iter().find(|(name, _)| *name == host);
        let (_, addrs) = found.ok_or_else(|| io::Error::other("no such host"))?;
        Ok(addrs.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), port)).collect())
    }
}

async fn founder(net: u8, options: InitOptions) -> Host {
    let host = Host::start(net, 1).await;
    host.node().init(options).await.expect("init");
    host
}

/// A machine that knows these names.
async fn with_names(ip: &str, known: Vec<(&'static str, Vec<String>)>) -> (Host, Node) {
    let host = Host::asleep(ip);
    let names = Names { inner: host.seams().net, known };
    let world = World { seams: Seams { net: Arc::new(names), ..host.seams() }, ..host.world() };
    let config = NodeConfig { listen_addr: format!("{ip}:2377"), ..NodeConfig::new(host.dir.path()) };
    let node = Node::open(config, world).await.expect("the node starts");
    (host, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_may_be_named_by_its_host_name() {
    let net = new_net();
    let mut manager = founder(net, InitOptions::default()).await;
    let token = state(&manager).await.cluster().expect("a cluster").join_tokens.worker.clone();
    // Nobody listens on the first of its addresses.
    let known = vec![("m1.example.org", vec![support::ip(net, 9), manager.ip.clone()]), ("nowhere", vec![])];
    let (_disk, node) = with_names(&support::ip(net, 2), known).await;
    let join = async |remote: &str| {
        let remote_addrs = vec![remote.to_owned()];
        node.join(JoinOptions { remote_addrs, join_token: token.clone(), ..Default::default() }).await
    };
    for (remote, says) in [
        ("m2.example.org", "cannot find the manager `m2.example.org`: no such host; check the name"),
        ("nowhere:2377", "cannot find the manager `nowhere`: it has no address; check the name"),
    ] {
        let refused = join(remote).await.expect_err(remote);
        assert!(matches!(&refused, SwarmError::Unavailable(text) if text.starts_with(says)), "{refused}");
    }
    for remote in ["http://m1.example.org", "m1.example.org:0", "10.0.0.256"] {
        let refused = join(remote).await.expect_err(remote);
        let says = format!("`{remote}` is not the address of a manager: give HOST:PORT or IP:PORT");
        assert_eq!(refused, SwarmError::Invalid(says));
    }
    join("m1.example.org:2377").await.expect("it joins");
    support::all_ready(&manager, 2).await;
    let service = create(&manager, "web", 2).await;
    until_running(&manager, &service, 2).await;
    node.shutdown().await;
    manager.halt().await;
}

async fn remembered(host: &Host) -> Membership {
    let layout = Layout::new(host.dir.path());
    let Ok(FoundKeys::Open(keys)) = DiskKeys::find(&layout, &host.world()).await else { panic!("no keys") };
    let disk = keys.world(&host.world()).seams.disk;
    Membership::load(&layout, &*disk).await.expect("a readable file").expect("a member")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_of_the_data_path_is_kept() {
    let net = new_net();
    let refused = Host::start(net, 1).await;
    let with = |data_path_addr: &str| InitOptions { data_path_addr: data_path_addr.into(), ..Default::default() };
    for bad in ["0.0.0.0", "127.0.0.1:4789", "eth99"] {
        let error = refused.node().init(with(bad)).await.expect_err(bad).to_string();
        assert!(error.starts_with("data path address must be a non-zero IP address or a network interface"), "{error}");
    }
    let mut manager = refused;
    manager.node().init(with("192.0.2.7")).await.expect("init");
    let token = state(&manager).await.cluster().expect("a cluster").join_tokens.worker.clone();
    let mut worker = Host::start(net, 2).await;
    let remote_addrs = vec![format!("{}:2377", manager.ip)];
    let options =
        JoinOptions { remote_addrs, join_token: token, data_path_addr: "192.0.2.8".into(), ..Default::default() };
    worker.node().join(options).await.expect("join");
    for (host, addr) in [(&mut manager, "192.0.2.7"), (&mut worker, "192.0.2.8")] {
        host.halt().await;
        assert_eq!(remembered(host).await.data_path_addr, Some(addr.parse().expect("an address")));
    }
}

async fn change(host: &Host, edit: &dyn Fn(&mut Cluster)) {
    until("the cluster to be changed", async || {
        let mut cluster = Cluster::clone(state(host).await.cluster()?);
        edit(&mut cluster);
        let mut tx = Transaction::new(Timestamp(1));
        tx.update(cluster);
        host.store().propose(tx).await.ok()
    })
    .await;
}

fn view(host: &Host) -> RaftView {
    host.node().watch_manager().expect("a manager").raft.borrow().clone()
}

/// The snapshots on its disk, oldest first.
async fn snapshots(host: &Host) -> Vec<PathBuf> {
    let dir = Layout::new(host.dir.path()).raft().join("snapshots");
    let mut files = host.seams().disk.list(&dir).await.expect("the snapshots");
    files.retain(|f| f.extension().is_some_and(|e| e == "snapshot"));
    files.sort();
    files
}

/// Writes, once each time, until its disk has so many snapshots.
async fn until_snapshots(host: &Host, count: usize) -> Vec<PathBuf> {
    let mut n = 0;
    until(&format!("{count} snapshots"), async || {
        n += 1;
        change(host, &|c| c.spec.task_history_retention_limit = n).await;
        Some(snapshots(host).await).filter(|files| files.len() == count)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_old_snapshots_are_kept_as_the_swarm_wants() {
    let mut manager = founder(new_net(), InitOptions::default()).await;
    change(&manager, &|c| (c.spec.snapshot_interval, c.spec.raft.keep_old_snapshots) = (10, 2)).await;
    let three = until_snapshots(&manager, 3).await;
    until("others in their place", async || {
        change(&manager, &|c| c.spec.task_history_retention_limit += 1).await;
        let now = snapshots(&manager).await;
        // A new one is there before the oldest is gone.
        assert!((3..=4).contains(&now.len()), "{now:?}");
        now.iter().all(|file| !three.contains(file)).then_some(())
    })
    .await;
    for keep in [1, 0] {
        change(&manager, &|c| c.spec.raft.keep_old_snapshots = keep).await;
        until_snapshots(&manager, keep as usize + 1).await;
    }
    manager.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_snapshot_is_gone_back_to_by_hand_only() {
    let mut manager = founder(new_net(), InitOptions::default()).await;
    let settings = |c: &mut Cluster| {
        (c.spec.snapshot_interval, c.spec.raft.keep_old_snapshots) = (10, 2);
        c.spec.raft.log_entries_for_slow_followers = 1;
    };
    change(&manager, &settings).await;
    until_snapshots(&manager, 3).await;
    let last = state(&manager).await.cluster().expect("a cluster").spec.task_history_retention_limit;
    let all_but_one = |v: RaftView| (v.purged? + 1 >= v.snapshot?).then_some(());
    until("the log to be purged", async || all_but_one(view(&manager))).await;
    manager.halt().await;
    let (disk, mut files) = (manager.seams().disk, snapshots(&manager).await);
    let newest = files.pop().expect("a snapshot");
    disk.write_atomic(&newest, "noise".into(), 0o600).await.expect("written");
    let refused = manager.try_boot().await.expect_err("it is damaged").to_string();
    assert!(refused.contains(&format!("the snapshot {} is damaged", newest.display())), "{refused}");
    assert!(refused.contains("older ones (2, the last is "), "{refused}");
    disk.remove(&newest).await.expect("removed");
    let refused = manager.try_boot().await.expect_err("there is a hole").to_string();
    assert!(refused.contains("a snapshot is missing"), "{refused}");
    assert!(refused.contains("if it is the only manager, restore the swarm"), "{refused}");

    // As the operator's guide has it.
    disk.remove_dir(&Layout::new(manager.dir.path()).raft().join("log")).await.expect("removed");
    manager.boot().await;
    manager.node().init(InitOptions { force_new_cluster: true, ..Default::default() }).await.expect("a new cluster");
    let spec = state(&manager).await.cluster().expect("a cluster").spec.clone();
    assert!(spec.raft.keep_old_snapshots == 2 && spec.task_history_retention_limit < last, "{spec:?}");
    assert_eq!(snapshots(&manager).await.len(), 2, "the new cluster's first, and one old one as before");
    let service = create(&manager, "web", 2).await;
    until_running(&manager, &service, 2).await;
    manager.halt().await;
    manager.boot().await;
    until_running(&manager, &service, 2).await;
    manager.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_keeps_as_much_behind_a_snapshot_as_the_swarm_wants() {
    let mut manager = founder(new_net(), InitOptions::default()).await;
    change(&manager, &|c| (c.spec.snapshot_interval, c.spec.raft.keep_old_snapshots) = (10, 2)).await;
    until_snapshots(&manager, 3).await;
    assert_eq!(view(&manager).purged, None, "five hundred entries are kept");
    change(&manager, &|c| c.spec.raft.log_entries_for_slow_followers = 7).await;
    let behind = |v: &RaftView| Some(v.snapshot? - v.purged?);
    until("the log to be purged at once", async || behind(&view(&manager)).filter(|b| *b == 7)).await;
    change(&manager, &|c| c.spec.raft.log_entries_for_slow_followers = 25).await;
    until("more to be kept", async || {
        change(&manager, &|c| c.spec.task_history_retention_limit += 1).await;
        behind(&view(&manager)).filter(|b| *b == 25)
    })
    .await;
    // A start changes nothing of it.
    manager.halt().await;
    manager.boot().await;
    until("the same", async || behind(&view(&manager)).filter(|b| (25..36).contains(b))).await;
    manager.halt().await;
}

fn heartbeat(host: &Host) -> Duration {
    host.node().watch_manager().expect("a manager").config.heartbeat
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_of_raft_count_from_the_next_start_and_for_new_managers_at_once() {
    let (one, three) = (Duration::from_millis(150), Duration::from_millis(450));
    let mut hosts = support::cluster(2, 1).await;
    let ticks = RaftTicks { heartbeat: 3, election: 40 };
    change(&hosts[0], &|c| c.spec.raft.ticks = ticks).await;
    for host in &hosts {
        until("it to have heard", async || (remembered(host).await.raft_ticks == ticks).then_some(())).await;
    }
    assert_eq!([heartbeat(&hosts[0]), heartbeat(&hosts[1])], [one, one], "they run on as they are");
    // The worker that becomes a manager, and the one that comes as one, need no second start.
    let token = state(&hosts[0]).await.cluster().expect("a cluster").join_tokens.manager.clone();
    let worker = hosts[2].id();
    until("the promotion", async || {
        let mut node = model::Node::clone(state(&hosts[0]).await.node(&worker)?);
        node.spec.role = model::Role::Manager;
        let mut tx = Transaction::new(Timestamp(1));
        tx.update(node);
        hosts[0].store().propose(tx).await.ok()
    })
    .await;
    until("another manager", async || view(&hosts[0]).voters.len().eq(&3).then_some(())).await;
    assert_eq!(heartbeat(&hosts[2]), three);
    let net: u8 = hosts[0].ip.split('.').nth(2).and_then(|n| n.parse().ok()).expect("an address");
    let newcomer = Host::start(net, 9).await;
    newcomer.join(&hosts[0], &token).await.expect("join");
    until("a fourth manager", async || view(&hosts[0]).voters.len().eq(&4).then_some(())).await;
    assert_eq!(heartbeat(&newcomer), three);
    hosts.push(newcomer);
    // One after the other, and the swarm works with some of each.
    for host in &mut hosts[..2] {
        host.halt().await;
        host.boot().await;
        until("its manager", async || (host.node().watch_manager()?.config.heartbeat == three).then_some(())).await;
        until("it to know the leader", async || view(host).leader).await;
        change(host, &|c| c.spec.task_history_retention_limit += 1).await;
    }
    let config = hosts[0].node().watch_manager().expect("a manager").config;
    assert_eq!(config.election_max, Duration::from_millis(1600));
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_compacted_as_often_as_the_swarm_wants_it() {
    let mut manager = founder(new_net(), InitOptions::default()).await;
    let snapshot = |host: &Host| view(host).snapshot;
    for n in 0..30 {
        change(&manager, &|c| c.spec.task_history_retention_limit = n).await;
    }
    assert_eq!(snapshot(&manager), None, "ten thousand entries are far away");
    change(&manager, &|c| c.spec.snapshot_interval = 20).await;
    let first = until("a snapshot", async || snapshot(&manager)).await;
    for n in 0..25 {
        change(&manager, &|c| c.spec.task_history_retention_limit = n).await;
    }
    until("another snapshot", async || snapshot(&manager).filter(|next| *next >= first + 20)).await;
    // And what was compacted is what it starts from.
    manager.halt().await;
    manager.boot().await;
    let limit = async || Some(state(&manager).await.cluster()?.spec.task_history_retention_limit);
    assert_eq!(until("the cluster", limit).await, 24);
    manager.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_begins_with_the_availability_that_was_asked_for() {
    let net = new_net();
    let availability = Availability::Drain;
    let mut manager = founder(net, InitOptions { availability, ..Default::default() }).await;
    let token = state(&manager).await.cluster().expect("a cluster").join_tokens.worker.clone();
    let mut hosts = vec![];
    for (n, availability) in [(2, Availability::Pause), (3, Availability::Active)] {
        let host = Host::start(net, n).await;
        let remote_addrs = vec![format!("{}:2377", manager.ip)];
        let options = JoinOptions { remote_addrs, join_token: token.clone(), availability, ..Default::default() };
        host.node().join(options).await.expect("join");
        hosts.push(host);
    }
    support::all_ready(&manager, 3).await;
    let nodes = state(&manager).await;
    let of = |host: &Host| nodes.node(&host.id()).expect("a node").spec.availability;
    assert_eq!(of(&manager), Availability::Drain);
    assert_eq!([of(&hosts[0]), of(&hosts[1])], [Availability::Pause, Availability::Active]);
    // From the first moment: nothing is placed on the other two.
    let service = create(&manager, "web", 3).await;
    let placed = until_running(&manager, &service, 3).await;
    assert!(placed.iter().all(|(_, node)| *node == hosts[1].id()), "{placed:?}");
    for host in hosts.iter_mut().chain([&mut manager]) {
        host.halt().await;
    }
}
