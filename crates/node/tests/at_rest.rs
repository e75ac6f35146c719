//! What lies on a node's disk, and who can read it: data keys, autolock, unlocking.
#![allow(clippy::disallowed_methods)] // looks at the files behind the nodes' backs

mod support;

use api::{InitOptions, LocalState, NotManager, Swarm as _, SwarmError};
use engine::ContainerPhase;
use model::{
    Cluster, ClusterSpec, ContainerSpec, Data, Dependency, Meta, Mode, NodeState, Payload, PayloadId, Role, Runtime,
    Service, ServiceSpec, TaskSpec, TaskState, Timestamp, UnlockKey,
};
use seal::Key;
use seams::RandExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::{Snapshot, Transaction};
use support::{Host, new_net, until};
use swarmlite_node::{DiskKeys, FoundKeys, Layout};

const MARKER: &str = "xyzzy-a-known-marker-xyzzy";

impl Host {
    async fn reboot(&mut self) {
        self.halt().await;
        self.boot().await;
    }

    fn local(&self) -> LocalState {
        self.node().local().state
    }

    async fn join_as(&self, to: &Host, role: Role) {
        let tokens = state(to).await.cluster().expect("a cluster").join_tokens.clone();
        let token = if role == Role::Manager { tokens.manager } else { tokens.worker };
        self.join(to, &token).await.expect("join");
    }

    /// Id, process and phase of each container: another process is another start.
    fn containers(&self) -> Vec<(String, i64, ContainerPhase)> {
        self.engine.containers().into_iter().map(|c| (c.id, c.pid, c.phase)).collect()
    }

    fn key_file(&self) -> String {
        std::fs::read_to_string(Layout::new(self.dir.path()).key_file()).expect("a key file")
    }

    fn is_locked_on_disk(&self) -> bool {
        self.key_file().contains("\"Locked\"")
    }

    /// The files that show these bytes.
    fn files_with(&self, marker: &[u8]) -> Vec<PathBuf> {
        let shows = |file: &PathBuf| {
            let bytes = std::fs::read(file).unwrap_or_default();
            bytes.windows(marker.len()).any(|w| w == marker)
        };
        files(self.dir.path()).into_iter().filter(shows).collect()
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

async fn state(host: &Host) -> Snapshot {
    until("a linearizable read", async || host.node().store().ok()?.current().await.ok()).await
}

/// A manager, the only one.
async fn founder(net: u8, autolock: bool) -> Host {
    let host = Host::start(net, 1).await;
    let spec = ClusterSpec { autolock, ..ClusterSpec::default() };
    host.node().init(InitOptions { spec, ..Default::default() }).await.expect("init");
    host
}

async fn change(host: &Host, change: impl Fn(&mut Cluster)) {
    until("the cluster to be changed", async || {
        let state = state(host).await;
        let mut cluster = Cluster::clone(state.cluster()?);
        change(&mut cluster);
        let mut tx = Transaction::new(Timestamp(1));
        tx.update(cluster);
        host.store().propose(tx).await.ok()
    })
    .await;
}

fn label(cluster: &mut Cluster) {
    cluster.spec.labels.insert("marker".into(), MARKER.into());
}

/// The marker wherever users put what nobody else may read: a label, a secret, the environment of a task that runs here.
async fn spread_the_marker(host: &Host) {
    change(host, label).await;
    let id = || seams::real::OsRand.id25();
    let of = Dependency::Secret(id().parse().expect("an id"));
    let data = Data::of_secret(MARKER.as_bytes()).expect("data");
    let task = TaskSpec {
        runtime: Runtime::Container(ContainerSpec {
            image: "web:1".into(),
            env: vec![format!("PASSWORD={MARKER}")],
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = ServiceSpec {
        name: "web".parse().expect("a name"),
        labels: Default::default(),
        task: Arc::new(task),
        mode: Mode::Replicated { replicas: 1 },
        update: None,
        rollback: None,
        endpoint: None,
        cron: None,
        backoff: Default::default(),
    };
    let mut tx = Transaction::new(Timestamp(1));
    tx.create(Payload { id: PayloadId { of, version: 1 }, meta: Meta::default(), data });
    tx.create(Service {
        id: id().parse().expect("an id"),
        meta: Meta::default(),
        spec,
        spec_version: 1,
        previous_spec: None,
        update_status: None,
        progress: Default::default(),
    });
    host.store().propose(tx).await.expect("they are created");
    until("the task to run", async || {
        state(host).await.tasks().any(|t| t.status.state == TaskState::Running).then_some(())
    })
    .await;
    let assignments = Layout::new(host.dir.path()).agent().join("assignments");
    until("the agent to remember it", async || assignments.exists().then_some(())).await;
    // Into a snapshot, too: a new unlock key brings a new data key, and that a snapshot.
    let was = state(host).await.cluster().expect("a cluster").clone();
    new_unlock_key(host, 9).await;
    let snapshots = Layout::new(host.dir.path()).raft().join("snapshots");
    until("a snapshot", async || (snapshots.is_dir() && !files(&snapshots).is_empty()).then_some(())).await;
    if was.security.unlock_key.is_none() {
        change(host, |c| {
            c.spec.autolock = false;
            c.security.unlock_key = None;
        })
        .await;
        until("it to be open again", async || (!host.is_locked_on_disk()).then_some(())).await;
    }
}

async fn unlock_key(host: &Host) -> UnlockKey {
    state(host).await.cluster().and_then(|c| c.security.unlock_key.clone()).expect("an unlock key")
}

fn key(key: &UnlockKey) -> Key {
    Key::from_bytes(key.key)
}

/// As the API does when autolock is turned on, or the key is rotated.
async fn new_unlock_key(host: &Host, generation: u64) -> UnlockKey {
    let new = UnlockKey { generation, key: *Key::generate(&seams::real::OsRand).as_bytes() };
    change(host, |c| {
        c.spec.autolock = true;
        c.security.unlock_key = Some(new.clone());
    })
    .await;
    new
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_25_with_autolock_nothing_on_the_disk_can_be_read() {
    let mut host = founder(new_net(), true).await;
    spread_the_marker(&host).await;
    let cluster = Cluster::clone(state(&host).await.cluster().expect("a cluster"));
    assert!(host.is_locked_on_disk(), "it is locked from its first moment");
    host.halt().await;
    assert!(files(host.dir.path()).len() > 5, "{:?}", files(host.dir.path()));
    let token = cluster.join_tokens.manager.rsplit('-').next().expect("a secret").to_owned();
    for secret in [MARKER, token.as_str(), "PRIVATE KEY", cluster.root_ca.key_pem.as_str()] {
        assert_eq!(host.files_with(secret.as_bytes()), Vec::<PathBuf>::new(), "the disk shows {}", &secret[..6]);
    }
    for secret in [cluster.gossip_keys[0].key, cluster.security.unlock_key.expect("an unlock key").key] {
        assert_eq!(host.files_with(&secret), Vec::<PathBuf>::new(), "the disk shows a key");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_25_without_autolock_only_the_key_file_opens_the_disk() {
    let mut host = founder(new_net(), false).await;
    spread_the_marker(&host).await;
    host.halt().await;
    for secret in [MARKER, "PRIVATE KEY"] {
        assert_eq!(host.files_with(secret.as_bytes()), Vec::<PathBuf>::new(), "the disk shows {secret}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let layout = Layout::new(host.dir.path());
    let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    for path in [layout.key_file(), layout.membership(), layout.certificates().join("swarm-node.key")] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }

    // Without the key file, or with another node's, the rest is worth nothing; and that is said.
    let other = founder(new_net(), false).await;
    let own = host.key_file();
    std::fs::write(layout.key_file(), other.key_file()).expect("it is written");
    let said = host.try_boot().await.expect_err("another node's key").to_string();
    assert!(said.contains("node.json") && said.contains("which this node does not have"), "{said}");
    std::fs::remove_file(layout.key_file()).expect("it is removed");
    let said = host.try_boot().await.expect_err("no key").to_string();
    assert!(said.contains("data-keys") && said.contains("join again"), "{said}");
    std::fs::write(layout.key_file(), own).expect("it is written");
    host.boot().await;
    assert_eq!(state(&host).await.cluster().expect("a cluster").spec.labels["marker"], MARKER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_manager_says_so_and_goes_on_once_it_is_unlocked() {
    let mut host = founder(new_net(), true).await;
    change(&host, label).await;
    let right = key(&unlock_key(&host).await);
    assert_eq!(host.node().unlock(right.clone()).await, Err(SwarmError::NotLocked));
    host.reboot().await;
    assert_eq!(host.local(), LocalState::Locked);
    assert_eq!(host.node().store().err(), Some(NotManager::Locked));
    let wrong = Key::generate(&seams::real::OsRand);
    assert_eq!(host.node().unlock(wrong).await, Err(SwarmError::WrongUnlockKey));
    assert_eq!(host.node().init(InitOptions::default()).await, Err(SwarmError::AlreadyInSwarm));
    assert_eq!(host.local(), LocalState::Locked, "a wrong key changes nothing");

    host.node().unlock(right).await.expect("the key fits");
    assert_eq!(host.local(), LocalState::Manager);
    assert_eq!(state(&host).await.cluster().expect("a cluster").spec.labels["marker"], MARKER);
    host.reboot().await;
    assert_eq!(host.local(), LocalState::Locked, "it stays locked on the disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_run_on_while_their_manager_is_locked_and_are_adopted() {
    let mut host = founder(new_net(), true).await;
    spread_the_marker(&host).await;
    let right = key(&unlock_key(&host).await);
    let running = async |host: &Host| {
        let state = state(host).await;
        let wanted = state.tasks().filter(|t| t.is_wanted() && t.status.state == TaskState::Running);
        wanted.map(|t| t.id.to_string()).collect::<Vec<_>>()
    };
    let (tasks, containers) = (running(&host).await, host.containers());
    assert_eq!((tasks.len(), containers.len(), containers[0].2), (1, 1, ContainerPhase::Running));
    host.reboot().await;
    assert_eq!((host.local(), host.containers()), (LocalState::Locked, containers.clone()));
    host.node().unlock(right).await.expect("the key fits");
    until("the node to be ready", async || {
        state(&host).await.nodes().all(|n| n.status.state == NodeState::Ready).then_some(())
    })
    .await;
    // The agent works: it starts a second task. What it found runs on beside that.
    let mut service = {
        let state = state(&host).await;
        Service::clone(state.services().next().expect("a service"))
    };
    service.spec.mode = Mode::Replicated { replicas: 2 };
    let mut tx = Transaction::new(Timestamp(2));
    tx.update(service);
    host.store().propose(tx).await.expect("it is scaled");
    let after = until("both tasks to run", async || Some(running(&host).await).filter(|tasks| tasks.len() == 2)).await;
    assert!(after.contains(&tasks[0]), "the first task was replaced");
    assert!(host.containers().contains(&containers[0]), "its container was restarted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_node_leaves_only_by_force() {
    let mut host = founder(new_net(), true).await;
    host.reboot().await;
    let said = host.node().leave(false).await.expect_err("it is locked").to_string();
    assert!(said.contains("Please unlock it first or use `--force`"), "{said}");
    host.node().leave(true).await.expect("by force");
    assert_eq!(host.local(), LocalState::Inactive);
    assert!(!Layout::new(host.dir.path()).key_file().exists(), "the key is gone");
    host.node().init(InitOptions::default()).await.expect("it can be in a new swarm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_lock_themselves_as_the_swarm_says_also_after_they_were_away() {
    let net = new_net();
    let first = founder(net, false).await;
    let (mut second, third, worker) = (Host::start(net, 2).await, Host::start(net, 3).await, Host::start(net, 4).await);
    second.join_as(&first, Role::Manager).await;
    third.join_as(&first, Role::Manager).await;
    worker.join_as(&first, Role::Worker).await;
    let old = new_unlock_key(&first, 1).await;
    for host in [&first, &second, &third] {
        until("the managers to be locked", async || host.is_locked_on_disk().then_some(())).await;
    }
    assert!(!worker.is_locked_on_disk(), "workers are not locked");

    // Away while the key changes: it opens with the old key once more, and follows.
    second.halt().await;
    let new = new_unlock_key(&first, 2).await;
    second.boot().await;
    assert_eq!(second.local(), LocalState::Locked);
    assert_eq!(second.node().unlock(key(&new)).await, Err(SwarmError::WrongUnlockKey));
    second.node().unlock(key(&old)).await.expect("its own key");
    until("it to follow", async || second.key_file().contains("\"Generation\":2").then_some(())).await;
    second.reboot().await;
    assert_eq!(second.node().unlock(key(&old)).await, Err(SwarmError::WrongUnlockKey));
    second.node().unlock(key(&new)).await.expect("the new key");

    // A manager that joins a locked swarm locks itself; one that is demoted needs no key any more.
    let id = worker.node().local().node_id.expect("an id");
    let set_role = async |role: Role| {
        until("the role to be written", async || {
            let state = state(&first).await;
            let mut node = model::Node::clone(state.node(&id)?);
            node.spec.role = role;
            let mut tx = Transaction::new(Timestamp(1));
            tx.update(node);
            first.store().propose(tx).await.ok()
        })
        .await;
    };
    set_role(Role::Manager).await;
    until("the new manager to be locked", async || worker.is_locked_on_disk().then_some(())).await;
    set_role(Role::Worker).await;
    until("the demoted manager to be open", async || (!worker.is_locked_on_disk()).then_some(())).await;

    change(&first, |c| {
        c.spec.autolock = false;
        c.security.unlock_key = None;
    })
    .await;
    for host in [&first, &second, &third] {
        until("the managers to be open", async || (!host.is_locked_on_disk()).then_some(())).await;
    }
}

/// The certificate is a worker's already, and the daemon died before the rest: it would keep all secrets, and a later promotion
/// would go on from a log that nobody wants any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demotion_that_was_cut_short_is_finished_by_the_next_start() {
    let net = new_net();
    let first = founder(net, false).await;
    let mut worker = Host::start(net, 2).await;
    worker.join_as(&first, Role::Worker).await;
    worker.halt().await;
    let raft = Layout::new(worker.dir.path()).raft();
    for left in ["log/db", "snapshots/00000000000000000007-00000000000000000001.snapshot"] {
        let left = raft.join(left);
        std::fs::create_dir_all(left.parent().expect("a directory")).expect("a directory");
        std::fs::write(left, "all secrets").expect("a file");
    }
    worker.boot().await;
    assert!(!raft.exists(), "the group's log is still there");
    assert_eq!(worker.local(), LocalState::Worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_keys_change_under_writes_and_restarts_without_a_loss() {
    let net = new_net();
    let mut hosts = vec![founder(net, true).await, Host::start(net, 2).await];
    hosts[1].join_as(&hosts[0], Role::Worker).await;
    until("both nodes", async || {
        let state = state(&hosts[0]).await;
        (state.nodes().filter(|n| n.status.state == NodeState::Ready).count() == 2).then_some(())
    })
    .await;
    let count = async |host: &Host, n: u64| {
        change(host, |c| _ = c.spec.labels.insert("count".into(), n.to_string())).await;
    };
    for generation in 2..5 {
        count(&hosts[0], generation).await;
        // A new unlock key brings a new data key; the restart comes wherever it comes.
        let key_now = new_unlock_key(&hosts[0], generation).await;
        let word = format!("\"Generation\":{generation}");
        until("it to be locked anew", async || hosts[0].key_file().contains(&word).then_some(())).await;
        hosts[0].reboot().await;
        hosts[0].node().unlock(key(&key_now)).await.expect("the newest key");
        let labels = state(&hosts[0]).await.cluster().expect("a cluster").spec.labels.clone();
        assert_eq!(labels["count"], generation.to_string());
    }
    // By age: a key is too old after a second.
    for host in &mut hosts {
        host.data_key_max_age = Duration::from_secs(1);
    }
    hosts[1].halt().await;
    let before = hosts[1].key_file();
    hosts[1].boot().await;
    until("the worker's key to change", async || {
        let now = hosts[1].key_file();
        (now != before && !now.contains("\"Id\":1,")).then_some(())
    })
    .await;
    assert_eq!(hosts[1].local(), LocalState::Worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_snapshots_are_sealed_anew_with_everything_else() {
    let mut manager = founder(new_net(), false).await;
    let count = async |host: &Host, n: u64| {
        change(host, |c| _ = c.spec.labels.insert("count".into(), n.to_string())).await;
    };
    let snapshots = |host: &Host| {
        let dir = Layout::new(host.dir.path()).raft().join("snapshots");
        let mut files = if dir.exists() { files(&dir) } else { Vec::new() };
        files.retain(|f| f.extension().is_some_and(|e| e == "snapshot"));
        files
    };
    change(&manager, |c| (c.spec.snapshot_interval, c.spec.raft.keep_old_snapshots) = (10, 100)).await;
    let mut n = 0;
    let old = until("three snapshots", async || {
        n += 1;
        count(&manager, n).await;
        Some(snapshots(&manager)).filter(|files| files.len() == 3)
    })
    .await;
    manager.halt().await;
    manager.data_key_max_age = Duration::from_secs(1);
    manager.boot().await;
    until("the first key to be gone", async || (!manager.key_file().contains("\"Id\":1,")).then_some(())).await;
    manager.halt().await;
    let Ok(FoundKeys::Open(keys)) = DiskKeys::find(&Layout::new(manager.dir.path()), &manager.world()).await else {
        panic!("no keys")
    };
    let disk = keys.world(&manager.world()).seams.disk;
    for file in old {
        let read = disk.read(&file).await.expect("its key is there");
        assert!(read.is_some(), "{} is kept", file.display());
    }
}
