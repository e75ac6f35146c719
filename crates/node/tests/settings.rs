//! What `swarm init`, `join` and `update` say of addresses and of the log, on whole nodes.

mod support;

use api::{InitOptions, JoinOptions, Swarm as _, SwarmError};
use async_trait::async_trait;
use model::{Availability, Cluster, Timestamp};
use seams::{BoxStream, Datagrams, Listener, Net, Seams};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_compacted_as_often_as_the_swarm_wants_it() {
    let mut manager = founder(new_net(), InitOptions::default()).await;
    let snapshot = |host: &Host| host.node().watch_manager().expect("a manager").raft.borrow().snapshot;
    let change = async |host: &Host, edit: &dyn Fn(&mut Cluster)| {
        until("the cluster to be changed", async || {
            let mut cluster = Cluster::clone(state(host).await.cluster()?);
            edit(&mut cluster);
            let mut tx = Transaction::new(Timestamp(1));
            tx.update(cluster);
            host.store().propose(tx).await.ok()
        })
        .await
    };
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
