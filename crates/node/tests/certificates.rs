//! Certificates that are renewed, roots that are changed, and certificates that must not be worth anything any more: whole
//! nodes in one process, on loopback addresses, with a clock that tests can set.

mod support;

use api::{InitOptions, LocalState, NewRoot, Swarm as _};
use ca::{Authority, CertificateGrant, Csr, Identity, NodeKey};
use model::{Cluster, NodeId, NodeState, Role, ServiceId, Timestamp};
use rpc::{ChannelTimings, Channels};
use seams::{Clock as _, Tasks};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::{Event, Object, Snapshot, Transaction};
use support::{Host, PATIENCE, SetClock, all_ready, new_net, state, try_create, until, until_running};
use tokio::sync::watch;
use tonic::Code;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Host {
    fn identity(&self) -> Arc<Identity> {
        self.node().watch_identity().expect("it is in a swarm")
    }

    fn session_id(&self) -> String {
        self.node().watch_session().expect("it is in a swarm").borrow().session_id.clone()
    }
}

async fn cluster_of(host: &Host) -> Arc<Cluster> {
    state(host).await.cluster().expect("a cluster").clone()
}

/// A cluster with one clock and certificates that are valid for so long.
async fn cluster(managers: u8, workers: u8, clock: &SetClock, expiry: Duration) -> Vec<Host> {
    let spec = model::ClusterSpec { node_cert_expiry: expiry, ..Default::default() };
    support::cluster_with(managers, workers, clock, InitOptions { spec, ..Default::default() }).await
}

/// Changes the cluster object as the API does.
async fn change(host: &Host, mut by: impl FnMut(&Cluster) -> Cluster) {
    until("the cluster to be changed", async || {
        let mut tx = Transaction::new(Timestamp(1));
        tx.update(by(&*cluster_of(host).await));
        host.store().propose(tx).await.ok()
    })
    .await;
}

async fn rotate(host: &Host) {
    until("the change to be begun", async || {
        let cluster = cluster_of(host).await;
        let mut tx = Transaction::new(Timestamp(1));
        tx.update(host.node().begin_rotation(&cluster, NewRoot::Generated).await.expect("a new root"));
        host.store().propose(tx).await.ok()
    })
    .await;
}

/// As the API promotes and demotes.
async fn set_role(by: &Host, id: &NodeId, role: Role) {
    until("the role to be written", async || {
        let state = state(by).await;
        let mut node = model::Node::clone(state.node(id)?);
        let mut tx = Transaction::new(Timestamp(1));
        if role == Role::Manager && node.spec.role == Role::Worker {
            let mut cluster = Cluster::clone(state.cluster()?);
            cluster.security.certificates.promoted_after.insert(id.clone(), state.index());
            tx.update(cluster);
        }
        node.spec.role = role;
        tx.update(node);
        by.store().propose(tx).await.ok()
    })
    .await;
}

/// Nodes that were ever seen down, from now on.
fn watch_for_down(host: &Host, tasks: &Tasks) -> watch::Receiver<BTreeSet<NodeId>> {
    let (seen, receiver) = watch::channel(BTreeSet::new());
    let mut changes = host.store().changes();
    tasks.spawn("watch for down", async move {
        loop {
            match changes.next().await {
                Event::Commit(commit) => {
                    for delta in &commit.deltas {
                        if let Some(Object::Node(node)) = &delta.after
                            && node.status.state == NodeState::Down
                        {
                            seen.send_modify(|s| _ = s.insert(node.id.clone()));
                        }
                    }
                }
                Event::Resync => {}
                Event::Closed => return,
            }
        }
    });
    receiver
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_without_dropping_a_session_or_a_task() {
    let clock = SetClock::default();
    let mut hosts = cluster(1, 1, &clock, HOUR).await;
    let id = try_create(&*hosts[0].store(), "web", 4).await.expect("a service");
    let before = until_running(&hosts[0], &id, 4).await;
    let sessions: Vec<String> = hosts.iter().map(Host::session_id).collect();
    let old: Vec<Arc<Identity>> = hosts.iter().map(Host::identity).collect();

    // Past the last point at which they may renew, and before their end. A change of the cluster makes the nodes look.
    clock.ahead(50 * HOUR / 60);
    change(&hosts[0], |cluster| {
        let mut cluster = cluster.clone();
        cluster.spec.labels.insert("look".into(), "now".into());
        cluster
    })
    .await;
    for (host, old) in hosts.iter().zip(&old) {
        until("the certificate to be renewed", async || {
            let new = host.identity();
            (new.validity().1 > old.validity().1 + 49 * HOUR / 60).then_some(())
        })
        .await;
        assert_eq!((host.identity().node_id.clone(), host.identity().role), (old.node_id.clone(), old.role));
        assert_ne!(host.identity().key_pem, old.key_pem, "a new certificate is for a new key");
    }
    // A newcomer meets the renewed manager, and by then nothing has happened to anybody.
    let newcomer = Host::start_with(new_net(), 9, &clock).await;
    newcomer.join(&hosts[0], &cluster_of(&hosts[0]).await.join_tokens.worker).await.expect("join");
    all_ready(&hosts[0], 3).await;
    assert_eq!(hosts.iter().map(Host::session_id).collect::<Vec<_>>(), sessions, "no session was dropped");
    assert_eq!(until_running(&hosts[0], &id, 4).await, before, "no task was restarted");

    // What was renewed is on the disk.
    let serial = hosts[1].identity().cert_chain_pem.clone();
    hosts[1].halt().await;
    hosts[1].boot().await;
    assert_eq!(hosts[1].identity().cert_chain_pem, serial);
    hosts.push(newcomer);
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_validity_is_had_at_once_and_a_removed_nodes_longer_one_is_remembered() {
    let clock = SetClock::default();
    let mut hosts = cluster(1, 1, &clock, 90 * DAY).await;
    let now = Timestamp::from_unix(clock.unix_now());
    change(&hosts[0], |cluster| {
        let mut cluster = cluster.clone();
        cluster.set_node_cert_expiry(2 * HOUR, now);
        cluster
    })
    .await;
    for host in &hosts {
        until("a certificate of the new validity", async || {
            (host.identity().expiry().abs_diff(2 * HOUR) < Duration::from_secs(5)).then_some(())
        })
        .await;
    }
    // A certificate of the ninety days may be in somebody's hands.
    let cluster = cluster_of(&hosts[0]).await;
    assert!(cluster.certificates_end_by(now) >= now.plus(90 * DAY));
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_is_changed_under_writes_with_nothing_lost_and_nobody_down() {
    let clock = SetClock::default();
    let mut hosts = cluster(3, 1, &clock, 90 * DAY).await;
    let tasks = Tasks::new();
    let down = watch_for_down(&hosts[0], &tasks);
    let id = try_create(&*hosts[1].store(), "web", 4).await.expect("a service");
    let before = until_running(&hosts[0], &id, 4).await;
    let old = cluster_of(&hosts[0]).await;

    let (acknowledged, written) = watch::channel(Vec::<ServiceId>::new());
    let stores: Vec<_> = hosts[..3].iter().map(Host::store).collect();
    tasks.spawn("writes", async move {
        for n in 0.. {
            if let Ok(id) = try_create(&*stores[n % stores.len()], &format!("empty{n}"), 0).await {
                acknowledged.send_modify(|ids| ids.push(id));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    until("writes to flow", async || (written.borrow().len() > 5).then_some(())).await;
    rotate(&hosts[0]).await;
    assert!(
        cluster_of(&hosts[1]).await.security.root_rotation.is_some()
            || cluster_of(&hosts[1]).await.root_ca != old.root_ca
    );
    let new = until("the change to be finished", async || {
        let cluster = cluster_of(&hosts[2]).await;
        (cluster.security.root_rotation.is_none() && cluster.root_ca != old.root_ca).then_some(cluster)
    })
    .await;
    for host in &hosts {
        until("every node to trust the new root alone", async || {
            let identity = host.identity();
            (identity.root_pem == new.root_ca.cert_pem).then_some(())
        })
        .await;
        assert_eq!(Some(host.identity().issuer()), ca::describe_root(&new.root_ca.cert_pem).as_ref());
    }
    let at_the_end = written.borrow().len();
    until("writes to flow on", async || (written.borrow().len() > at_the_end + 5).then_some(())).await;
    assert!(tasks.shutdown(PATIENCE).await);

    let state = state(&hosts[0]).await;
    let lost: Vec<_> = written.borrow().iter().filter(|id| state.service(id).is_none()).cloned().collect();
    assert_eq!(lost, [], "an acknowledged write is lost");
    assert_eq!(until_running(&hosts[0], &id, 4).await, before, "a task was restarted");
    assert_eq!(*down.borrow(), BTreeSet::new(), "a node was called down");
    // The nodes say so, as `node ls` shows it.
    until("every node to say so", async || {
        let state = hosts[0].store().local();
        let said = |n: &Arc<model::Node>| n.description.as_ref().and_then(|d| d.tls.clone()).map(|t| t.trust_root_pem);
        state.nodes().all(|n| said(n).as_ref() == Some(&new.root_ca.cert_pem)).then_some(())
    })
    .await;

    // The old tokens name a root that is no more; the new ones admit.
    let newcomer = Host::start_with(new_net(), 9, &clock).await;
    let refused = newcomer.join(&hosts[0], &old.join_tokens.worker).await.unwrap_err();
    assert!(refused.to_string().contains("remote CA does not match fingerprint"), "{refused}");
    newcomer.join(&hosts[0], &new.join_tokens.manager).await.expect("join");
    // And a daemon that starts again is back.
    hosts[1].halt().await;
    hosts[1].boot().await;
    hosts.push(newcomer);
    all_ready(&hosts[0], 5).await;
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_away_holds_a_change_up_and_moves_when_it_is_back() {
    let clock = SetClock::default();
    let mut hosts = cluster(1, 2, &clock, 90 * DAY).await;
    let old = cluster_of(&hosts[0]).await;
    hosts[2].halt().await;
    rotate(&hosts[0]).await;
    let wanted = cluster_of(&hosts[0]).await;
    for host in &hosts[..2] {
        until("those that are there to move", async || {
            let issuer = ca::describe_root(&wanted.signing_root().cert_pem);
            (Some(host.identity().issuer()) == issuer.as_ref()).then_some(())
        })
        .await;
    }
    // Joiners come in by the old token, and have the new root's certificate at once.
    let newcomer = Host::start_with(new_net(), 9, &clock).await;
    newcomer.join(&hosts[0], &wanted.join_tokens.worker).await.expect("join");
    assert_eq!(newcomer.identity().root_pem, wanted.trusted_roots_pem());
    assert!(cluster_of(&hosts[0]).await.security.root_rotation.is_some(), "one is still awaited");
    assert_eq!(wanted.join_tokens, old.join_tokens);

    hosts[2].boot().await;
    until("the change to be finished", async || {
        let cluster = cluster_of(&hosts[0]).await;
        (cluster.security.root_rotation.is_none() && cluster.root_ca == *wanted.signing_root()).then_some(())
    })
    .await;
    hosts.push(newcomer);
    all_ready(&hosts[0], 4).await;
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_worker_says_so_and_a_lone_manager_renews_by_itself() {
    let clock = SetClock::default();
    let mut hosts = cluster(1, 1, &clock, 90 * DAY).await;
    for host in &mut hosts {
        host.halt().await;
    }
    clock.ahead(100 * DAY);
    for host in &mut hosts {
        host.boot().await;
    }
    until("the manager to be one again", async || (hosts[0].node().local().state == LocalState::Manager).then_some(()))
        .await;
    let worker = hosts[1].id();
    let LocalState::Error(words) = hosts[1].node().local().state else { panic!("its certificate is over") };
    assert!(
        words.starts_with("Swarm certificates have expired. To replace them, leave the swarm and join again."),
        "{words}"
    );
    assert!(words.contains(&format!("the certificate of this node ({worker}) has expired at 20")), "{words}");
    // As the words say.
    hosts[1].node().leave(true).await.expect("it leaves");
    hosts[1].join(&hosts[0], &cluster_of(&hosts[0]).await.join_tokens.worker).await.expect("it joins again");
    until("both to be ready", async || {
        let state = state(&hosts[0]).await;
        let ready = |id: &NodeId| state.node(id).is_some_and(|n| n.status.state == NodeState::Ready);
        (ready(&hosts[0].id()) && ready(&hosts[1].id())).then_some(())
    })
    .await;
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_whose_clock_is_wrong_is_told_so() {
    let clock = SetClock::default();
    clock.ahead(1000 * DAY);
    let mut hosts = cluster(1, 0, &clock, 90 * DAY).await;
    let token = cluster_of(&hosts[0]).await.join_tokens.worker.clone();
    for (ahead, words) in [(0, "is not valid before"), (2000, "has expired at")] {
        let own = SetClock::default();
        own.ahead(ahead * DAY);
        let mut joiner = Host::start_with(new_net(), 9, &own).await;
        let refused = joiner.join(&hosts[0], &token).await.unwrap_err().to_string();
        let whose = format!("the certificate of the manager at {}:2377 {words} ", hosts[0].ip);
        assert!(refused.contains(&whose) && refused.contains("; this node's clock shows 20"), "{refused}");
        joiner.halt().await;
    }
    hosts[0].halt().await;
}

/// Channels of whoever holds this identity.
fn channels(host: &Host, identity: Identity) -> Channels {
    let (_, identity) = watch::channel(Some(Arc::new(identity)));
    Channels::new(host.seams(), identity, ChannelTimings::default())
}

/// What comes of a question at a manager's doors: of the state, and of Raft.
async fn knock(channels: &Channels, at: &Host) -> (Code, Code, Code) {
    let code = |r: Result<(), tonic::Status>| r.map_or_else(|s| s.code(), |()| Code::Ok);
    let channel = channels.manager(&format!("{}:2377", at.ip)).expect("an address");
    let read = rpc::cluster_client(channel.clone()).read_index(rpc::proto::cluster::ReadIndexRequest {}).await;
    let vote = rpc::raft_client(channel.clone()).pre_vote(rpc::proto::raft::VoteRequest::default()).await;
    let report = rpc::cluster_client(channel).report(rpc::proto::cluster::ReportRequest::default()).await;
    (code(read.map(drop)), code(vote.map(drop)), code(report.map(drop)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_08_a_demoted_managers_old_certificate_opens_no_managers_door() {
    let clock = SetClock::default();
    let mut hosts = cluster(3, 0, &clock, 90 * DAY).await;
    let id = hosts[2].id();
    let stolen = Identity::clone(&hosts[2].identity());
    let open = knock(&channels(&hosts[0], stolen.clone()), &hosts[0]).await;
    assert!(open.0 != Code::PermissionDenied && open.1 != Code::PermissionDenied, "the control: {open:?}");

    set_role(&hosts[0], &id, Role::Worker).await;
    let denied = (Code::PermissionDenied, Code::PermissionDenied, Code::PermissionDenied);
    for at in [0, 1] {
        until("it to be out of the group, and no door to be open", async || {
            (knock(&channels(&hosts[0], stolen.clone()), &hosts[at]).await == denied).then_some(())
        })
        .await;
    }
    until("it to know", async || (hosts[2].node().local().state == LocalState::Worker).then_some(())).await;
    // Made a manager again: with its new certificate it is one, and with the old one nobody is.
    set_role(&hosts[0], &id, Role::Manager).await;
    until("it to be back in the group", async || {
        let view = hosts[0].node().raft()?;
        (view.managers.values().filter(|m| m.voter).count() == 3 && hosts[2].identity().role == Role::Manager)
            .then_some(())
    })
    .await;
    until("it to serve reads", async || hosts[2].node().store().ok()?.current().await.ok()).await;
    for at in [0, 1, 2] {
        until("this manager to know of the promotion", async || hosts[at].store().current().await.ok()).await;
        assert_eq!(knock(&channels(&hosts[0], stolen.clone()), &hosts[at]).await, denied, "manager {at}");
    }
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::disallowed_methods)] // somebody else's program on the node's port
async fn a_promoted_node_whose_port_is_taken_becomes_a_manager_when_it_is_free() {
    let mut hosts = cluster(1, 1, &SetClock::default(), 90 * DAY).await;
    let taken =
        tokio::net::TcpListener::bind((hosts[1].ip.as_str(), 2377)).await.expect("a worker leaves the port alone");
    set_role(&hosts[0], &hosts[1].id(), Role::Manager).await;
    until("it to have the certificate", async || (hosts[1].identity().role == Role::Manager).then_some(())).await;
    // The next renewal comes after the try to start: both are the same task's.
    let before = hosts[1].identity().cert_chain_pem.clone();
    change(&hosts[0], |cluster| {
        let mut cluster = cluster.clone();
        cluster.spec.node_cert_expiry = 60 * DAY;
        cluster
    })
    .await;
    until("another certificate", async || (hosts[1].identity().cert_chain_pem != before).then_some(())).await;
    drop(taken);
    until("it to be in the group", async || {
        let view = hosts[0].node().raft()?;
        (view.managers.values().filter(|m| m.voter).count() == 2).then_some(())
    })
    .await;
    for host in &mut hosts {
        host.halt().await;
    }
}

/// A demoted manager's sessions reach no leader through it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demotion_calls_nobody_down_whoever_had_a_session_with_the_demoted() {
    let clock = SetClock::default();
    let mut hosts = cluster(2, 3, &clock, 90 * DAY).await;
    let tasks = Tasks::new();
    let down = watch_for_down(&hosts[0], &tasks);
    let id = try_create(&*hosts[0].store(), "web", 5).await.expect("a service");
    let before = until_running(&hosts[0], &id, 5).await;
    for _ in 0..2 {
        set_role(&hosts[0], &hosts[1].id(), Role::Worker).await;
        until("it to know", async || (hosts[1].node().local().state == LocalState::Worker).then_some(())).await;
        all_ready(&hosts[0], 5).await;
        set_role(&hosts[0], &hosts[1].id(), Role::Manager).await;
        until("it to be back in the group", async || {
            let view = hosts[0].node().raft()?;
            (view.managers.values().filter(|m| m.voter).count() == 2).then_some(())
        })
        .await;
    }
    assert_eq!(*down.borrow(), BTreeSet::new(), "a node was called down");
    assert_eq!(until_running(&hosts[0], &id, 5).await, before, "a task was restarted");
    tasks.shutdown(PATIENCE).await;
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_08_a_removed_nodes_certificate_opens_nothing_at_all() {
    let clock = SetClock::default();
    let mut hosts = cluster(1, 1, &clock, 90 * DAY).await;
    let id = hosts[1].id();
    let worker = Identity::clone(&hosts[1].identity());
    // As a manager's, too: whoever got hold of the authority once would have had it made so.
    let cluster = cluster_of(&hosts[0]).await;
    let key = NodeKey::generate().expect("a key");
    let csr = Csr::parse(&key.csr_pem().expect("a request")).expect("a request");
    let grant = CertificateGrant { node_id: id.clone(), role: Role::Manager, expiry: 90 * DAY };
    let index = state(&hosts[0]).await.index();
    let authority = Authority::of(&cluster).expect("an authority");
    let chain =
        authority.issue_from(index, &csr, &grant, clock.unix_now(), &seams::real::OsRand).expect("a certificate");
    let manager = Identity::new(chain, key.key_pem(), cluster.trusted_roots_pem()).expect("an identity");

    hosts[1].halt().await;
    until("it to be removed", async || {
        let state = state(&hosts[0]).await;
        let node = state.node(&id)?;
        let mut tx = Transaction::new(Timestamp(1));
        tx.remove(&id, node.meta.version);
        hosts[0].store().propose(tx).await.ok()
    })
    .await;
    // Not even noted as removed: the state is newer than the certificates, and does not know their node.
    for (what, identity) in [("worker", worker), ("manager", manager)] {
        let channels = channels(&hosts[0], identity);
        let denied = (Code::PermissionDenied, Code::PermissionDenied, Code::PermissionDenied);
        assert_eq!(knock(&channels, &hosts[0]).await, denied, "{what}");
        let channel = channels.manager(&format!("{}:2377", hosts[0].ip)).expect("an address");
        let renew = rpc::proto::ca::RenewNodeCertificateRequest { csr_pem: key.csr_pem().expect("a request") };
        let refused = rpc::node_ca_client(channel).renew_node_certificate(renew).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{what}");
    }
    hosts[0].halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_12_another_nodes_raft_id_is_refused() {
    let clock = SetClock::default();
    let mut hosts = cluster(2, 1, &clock, 90 * DAY).await;
    let raft_id_of = |state: &Snapshot, id: &NodeId| state.node(id).and_then(|n| n.manager.as_ref()).map(|m| m.raft_id);
    let taken = raft_id_of(&state(&hosts[0]).await, &hosts[1].id()).expect("a manager");
    // One of the managers wants to be the other.
    let channels = channels(&hosts[0], Identity::clone(&hosts[0].identity()));
    let ask = async |raft_id: u64| {
        let request = rpc::proto::cluster::JoinRequest { raft_id, addr: format!("{}:2377", hosts[0].ip) };
        for at in [0, 1] {
            let channel = channels.manager(&format!("{}:2377", hosts[at].ip)).expect("an address");
            let answer = rpc::cluster_client(channel).join(request.clone()).await.expect("an answer").into_inner();
            if let Some(rpc::proto::cluster::join_response::Outcome::Refused(why)) = answer.outcome {
                return Some(why);
            }
        }
        None
    };
    let why = ask(taken).await.expect("it is refused");
    assert!(why.contains("another node's; an id is never used again"), "{why}");
    // And after the other has left the group.
    let id = hosts[1].id();
    set_role(&hosts[0], &id, Role::Worker).await;
    until("it to be out", async || state(&hosts[0]).await.node(&id).is_some_and(|n| n.manager.is_none()).then_some(()))
        .await;
    let why = until("it to be refused", async || ask(taken).await).await;
    assert!(why.contains("another node's; an id is never used again"), "{why}");
    for host in &mut hosts {
        host.halt().await;
    }
}
