//! Authorities elsewhere, which sign nodes' certificates in the managers' place: whole nodes in one process, on loopback addresses,
//! and a signing service that does what the test says.

mod support;

use api::{InitOptions, LocalState, NewRoot, Swarm as _, SwarmError};
use ca::{CertificateGrant, Csr, Identity, NodeKey};
use model::{Cluster, ExternalCa, ExtraToken, NodeId, NodeState, Role, RootCa, Timestamp};
use rpc::{ChannelTimings, Channels};
use seams::Clock as _;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use store::Transaction;
use support::cfssl::{Cfssl, Mood, new_root, sign};
use support::{Host, SetClock, all_ready, ip, new_net, state, until};
use swarmlite_node::NodeConfig;
use swarmlite_node::backup::{BackupKey, restore};
use tokio::sync::watch;
use tonic::Code;

const HOUR: Duration = Duration::from_secs(3600);
const DENIED: (Code, Code) = (Code::PermissionDenied, Code::PermissionDenied);

impl Host {
    fn identity(&self) -> Arc<Identity> {
        self.node().watch_identity().expect("it is in a swarm")
    }
}

async fn cluster_of(host: &Host) -> Cluster {
    Cluster::clone(state(host).await.cluster().expect("a cluster"))
}

/// Changes the cluster object as the API does.
async fn change(host: &Host, mut by: impl FnMut(&mut Cluster)) {
    until("the cluster to be changed", async || {
        let mut cluster = cluster_of(host).await;
        by(&mut cluster);
        let mut tx = Transaction::new(Timestamp(1));
        tx.update(cluster);
        host.store().propose(tx).await.ok()
    })
    .await;
}

/// The cluster with these authorities elsewhere, as the API makes it.
fn with(mut cluster: Cluster, cas: &[ExternalCa]) -> Cluster {
    cluster.spec.external_cas = cas.to_vec();
    if cluster.security.grants.is_none() {
        cluster.security.grants = Some(ca::generate_grant_key(&seams::real::OsRand));
    }
    cluster
}

/// `swarm ca --rotate`, until every node has moved over.
async fn rotate(host: &Host, cas: &[ExternalCa], to: impl Fn() -> NewRoot) -> Result<(), SwarmError> {
    until("the change to be begun", async || {
        let cluster = with(cluster_of(host).await, cas);
        match host.node().begin_rotation(&cluster, to()).await {
            Err(e) => Some(Err(e)),
            Ok(cluster) => {
                let mut tx = Transaction::new(Timestamp(1));
                tx.update(cluster);
                host.store().propose(tx).await.ok().map(|_| Ok(()))
            }
        }
    })
    .await?;
    until("the change to be finished", async || cluster_of(host).await.security.root_rotation.is_none().then_some(()))
        .await;
    Ok(())
}

fn elsewhere(root: &RootCa) -> NewRoot {
    NewRoot::Elsewhere { cert_pem: root.cert_pem.clone() }
}

async fn until_marks_are_needed(host: &Host) {
    until("marks to be needed", async || {
        cluster_of(host).await.security.grants.is_some_and(|g| g.required).then_some(())
    })
    .await;
}

/// A cluster whose root is an authority's elsewhere from here on.
async fn moved(managers: u8, workers: u8, clock: &SetClock) -> (Vec<Host>, Cfssl) {
    let hosts = support::cluster_with(managers, workers, clock, InitOptions::default()).await;
    let old = cluster_of(&hosts[0]).await.root_ca.cert_pem;
    let ca = Cfssl::start(&hosts[0].ip, new_root(), &[&old], clock).await;
    rotate(&hosts[0], &[ca.spec()], || elsewhere(&ca.root)).await.expect("the root is another");
    until_marks_are_needed(&hosts[0]).await;
    (hosts, ca)
}

/// As the API promotes and demotes.
async fn set_role(by: &Host, id: &NodeId, role: Role) {
    until("the role to be written", async || {
        let state = state(by).await;
        let mut node = model::Node::clone(state.node(id)?);
        let mut tx = Transaction::new(Timestamp(1));
        if role == Role::Manager {
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

/// What comes of a question at a manager's doors: of the state, and of Raft.
async fn knock(identity: &Identity, at: &Host) -> (Code, Code) {
    let (_, identity) = watch::channel(Some(Arc::new(identity.clone())));
    let channels = Channels::new(at.seams(), identity, ChannelTimings::default());
    let code = |r: Result<(), tonic::Status>| r.map_or_else(|s| s.code(), |()| Code::Ok);
    let channel = channels.manager(&format!("{}:2377", at.ip)).expect("an address");
    let read = rpc::cluster_client(channel.clone()).read_index(rpc::proto::cluster::ReadIndexRequest {}).await;
    let vote = rpc::raft_client(channel).pre_vote(rpc::proto::raft::VoteRequest::default()).await;
    (code(read.map(drop)), code(vote.map(drop)))
}

async fn until_voters(host: &Host, count: usize) {
    until("the managers to be in the group", async || {
        let view = host.node().raft()?;
        (view.managers.values().filter(|m| m.voter).count() == count).then_some(())
    })
    .await;
}

async fn until_role(host: &Host, role: Role) {
    let expected = if role == Role::Manager { LocalState::Manager } else { LocalState::Worker };
    until("it to have the role", async || {
        (host.identity().role == role && host.node().local().state == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_renewals_and_promotions_are_signed_elsewhere() {
    let clock = SetClock::default();
    let (mut hosts, ca) = moved(1, 1, &clock).await;
    let net = new_net();
    let cluster = cluster_of(&hosts[0]).await;
    assert_eq!((cluster.root_ca.cert_pem.trim(), cluster.root_ca.has_key()), (ca.root.cert_pem.trim(), false));
    let before = ca.asked().len();
    for (n, token) in [(2, &cluster.join_tokens.worker), (3, &cluster.join_tokens.manager)] {
        let host = Host::start_with(net, n, &clock).await;
        host.join(&hosts[0], token).await.expect("join");
        hosts.push(host);
    }
    all_ready(&hosts[0], 4).await;
    until_voters(&hosts[0], 2).await;
    let asked = ca.asked();
    assert!(asked.len() >= before + 2 && asked.iter().all(|(_, shown)| *shown), "by managers with their certificates");
    for host in &hosts {
        assert!(host.identity().issued().is_marked());
    }

    // Renewed in time, however long the authority makes them.
    ca.valid_for(50 * HOUR);
    clock.ahead(25 * 24 * HOUR);
    change(&hosts[0], |cluster| drop(cluster.spec.labels.insert("look".into(), "now".into()))).await;
    for host in &hosts {
        until("the certificate to be renewed", async || {
            let until = host.identity().validity().1;
            (until > clock.unix_now() && until < clock.unix_now() + 51 * HOUR).then_some(())
        })
        .await;
    }

    // Promoted, demoted, and promoted again: the second time it is a manager, too, and its first certificate a worker's.
    let id = hosts[1].id();
    set_role(&hosts[0], &id, Role::Manager).await;
    until_role(&hosts[1], Role::Manager).await;
    until_voters(&hosts[0], 3).await;
    let stolen = Identity::clone(&hosts[1].identity());
    assert_ne!(knock(&stolen, &hosts[0]).await, DENIED, "the control");
    set_role(&hosts[0], &id, Role::Worker).await;
    until_role(&hosts[1], Role::Worker).await;
    until("no door to be open", async || (knock(&stolen, &hosts[0]).await == DENIED).then_some(())).await;
    set_role(&hosts[0], &id, Role::Manager).await;
    until_role(&hosts[1], Role::Manager).await;
    until_voters(&hosts[0], 3).await;
    assert_ne!(knock(&hosts[1].identity(), &hosts[0]).await, DENIED);
    assert_eq!(knock(&stolen, &hosts[0]).await, DENIED);
    ca.stop().await;
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_elsewhere_is_told_to_the_joiner_and_costs_no_use_of_its_token() {
    let clock = SetClock::default();
    let (mut hosts, ca) = moved(1, 0, &clock).await;
    // A token for one node.
    let standing = cluster_of(&hosts[0]).await.join_tokens.worker;
    let token = format!("{}-{:0>25}", standing.rsplit_once('-').expect("a token").0, "once");
    let made = ExtraToken {
        role: Role::Worker,
        digest: ca::token_digest(&token),
        created_at: Timestamp(1),
        expires_at: None,
        uses_left: Some(1),
        labels: Default::default(),
        root_digest: String::new(),
    };
    change(&hosts[0], |cluster| drop(cluster.security.tokens.insert("once".into(), made.clone()))).await;
    let (channel, csr_pem) = {
        let (_, nobody) = watch::channel(None);
        let channels = Channels::new(hosts[0].seams(), nobody, ChannelTimings::default());
        let channel = channels.anonymous(&format!("{}:2377", hosts[0].ip), &ca.root.cert_pem).expect("an address");
        (channel, NodeKey::generate().and_then(|key| key.csr_pem()).expect("a request"))
    };
    let ask = async || {
        let request = rpc::proto::ca::IssueNodeCertificateRequest {
            token: token.clone(),
            csr_pem: csr_pem.clone(),
            ..Default::default()
        };
        rpc::node_ca_client(channel.clone()).issue_node_certificate(request).await
    };
    for (mood, words) in [
        (Mood::Refuses, "it refused: not on a Sunday (code 5200)"),
        (Mood::Rubbish, "is none of cfssl's signing service"),
        (Mood::TooMuch, "its answer is longer than 256 KiB"),
        (Mood::Slow, "no answer within"),
        (Mood::OtherKey, "it is for another key than the one that was sent"),
        (Mood::OtherRoot, "none that the swarm's root signed"),
        (Mood::Promotes, "it names another node, role or swarm"),
        (Mood::Unmarked, "its names are not the ones that were asked for"),
    ] {
        ca.be(mood);
        let refused = ask().await.expect_err("there is no certificate");
        assert_eq!(refused.code(), Code::Unavailable, "{mood:?}: {refused}");
        let text = refused.message();
        let whose = format!("no certificate from the swarm's external certificate authority: {}", ca.url);
        assert!(text.contains(&whose) && text.contains(words), "{mood:?}: {text}");
        let state = state(&hosts[0]).await;
        assert_eq!(state.nodes().len(), 1, "{mood:?}: nothing is left behind");
        assert_eq!(state.cluster().expect("a cluster").security.tokens["once"].uses_left, Some(1), "{mood:?}");
    }
    // A joiner that hangs up while the authority takes its time leaves nothing behind either.
    ca.be(Mood::Slow);
    let before = ca.asked().len();
    tokio::select! {
        biased;
        answer = ask() => panic!("it does not answer: {answer:?}"),
        () = until("the authority to be asked", async || (ca.asked().len() > before).then_some(())) => {}
    }
    until("the admission to be taken back", async || {
        let state = state(&hosts[0]).await;
        let left = state.cluster()?.security.tokens["once"].uses_left;
        (state.nodes().len() == 1 && left == Some(1)).then_some(())
    })
    .await;
    // The same as a user sees it; then a second authority helps out.
    ca.be(Mood::Refuses);
    let joiner = Host::start_with(new_net(), 1, &clock).await;
    let said = joiner.join(&hosts[0], &token).await.expect_err("no certificate");
    let said = said.to_string();
    assert!(said.contains("could not admit this node") && said.contains("not on a Sunday"), "{said}");
    let second = Cfssl::start(&ip(new_net(), 1), ca.root.clone(), &[], &clock).await;
    change(&hosts[0], |cluster| cluster.spec.external_cas.push(second.spec())).await;
    until("it to have joined", async || {
        if joiner.node().local().state == LocalState::Inactive {
            let _again = joiner.join(&hosts[0], &token).await;
        }
        (joiner.node().local().state == LocalState::Worker).then_some(())
    })
    .await;
    assert_eq!(cluster_of(&hosts[0]).await.security.tokens["once"].uses_left, Some(0));
    assert!(!second.asked().is_empty());
    hosts.push(joiner);
    for host in &mut hosts {
        host.halt().await;
    }
    ca.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_09_what_an_authority_elsewhere_signs_without_being_asked_opens_nothing() {
    let clock = SetClock::default();
    let (mut hosts, ca) = moved(2, 1, &clock).await;
    let cluster = cluster_of(&hosts[0]).await;
    let identity = |key: &NodeKey, request: &serde_json::Value| {
        let leaf = sign(&ca.root, request, clock.unix_now(), 24 * HOUR);
        Identity::new(format!("{leaf}{}", ca.root.cert_pem), key.key_pem(), ca.root.cert_pem.clone())
    };
    let honest = ca.asked().into_iter().map(|(request, _)| request);
    let manager = honest.clone().find(|r| r["hosts"][0] == "swarm-manager").expect("a manager's request");
    // As a manager that there is, as one that there is not, with and without a mark that was for somebody else.
    let mut stranger = manager.clone();
    stranger["subject"]["CN"] = json!("x".repeat(25));
    stranger["hosts"][1] = json!("x".repeat(25));
    let key = NodeKey::generate().expect("a key");
    for mut request in [manager, stranger] {
        request["certificate_request"] = json!(key.csr_pem().expect("a request"));
        for marked in [true, false] {
            if !marked {
                request["hosts"].as_array_mut().expect("names").pop();
            }
            let forged = identity(&key, &request).expect("a chain to the root");
            assert_eq!((forged.role, forged.cluster_id.clone()), (Role::Manager, cluster.id.clone()));
            for at in &hosts[..2] {
                assert_eq!(knock(&forged, at).await, DENIED, "{request}");
            }
        }
    }
    // And a worker's mark makes no manager of the worker.
    let worker = hosts[2].identity();
    let key = NodeKey::generate().expect("a key");
    let csr_pem = key.csr_pem().expect("a request");
    let grant = CertificateGrant { node_id: hosts[2].id(), role: Role::Worker, expiry: HOUR };
    let authority = ca::ExternalAuthority::of(&cluster).expect("a root").expect("an authority elsewhere");
    let csr = Csr::parse(&csr_pem).expect("a request");
    let granted = authority.request(worker.state_index(), &csr, &grant).expect("a request");
    let as_manager = granted.body().replace("swarm-worker", "swarm-manager");
    let forged = identity(&key, &serde_json::from_str(&as_manager).expect("JSON")).expect("a chain to the root");
    assert_eq!((forged.role, knock(&forged, &hosts[0]).await), (Role::Manager, DENIED));
    assert_ne!(knock(&hosts[1].identity(), &hosts[0]).await, DENIED, "the control");
    ca.stop().await;
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_swarms_own_root_every_certificate_gets_a_mark_and_then_needs_it() {
    let clock = SetClock::default();
    let mut hosts = support::cluster_with(1, 1, &clock, InitOptions::default()).await;
    let root = cluster_of(&hosts[0]).await.root_ca;
    let unmarked = Identity::clone(&hosts[0].identity());
    assert_ne!(knock(&unmarked, &hosts[0]).await, DENIED, "the control");
    let ca = Cfssl::start(&hosts[0].ip, root.clone(), &[], &clock).await;
    // `swarm update --external-ca`: no other root, and the root's key stays where it is.
    change(&hosts[0], |cluster| *cluster = with(cluster.clone(), &[ca.spec()])).await;
    until_marks_are_needed(&hosts[0]).await;
    assert!(hosts.iter().all(|host| host.identity().issued().is_marked()));
    assert_eq!(knock(&unmarked, &hosts[0]).await, DENIED);
    assert_eq!(cluster_of(&hosts[0]).await.root_ca, root);
    // The authority goes; managers sign again, with marks.
    change(&hosts[0], |cluster| cluster.spec.external_cas.clear()).await;
    let asked = ca.asked().len();
    ca.stop().await;
    let host = Host::start_with(new_net(), 3, &clock).await;
    let token = cluster_of(&hosts[0]).await.join_tokens.manager;
    host.join(&hosts[0], &token).await.expect("join");
    hosts.push(host);
    until_voters(&hosts[0], 2).await;
    assert!(hosts[2].identity().issued().is_marked());
    assert_eq!(ca.asked().len(), asked);
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_that_begins_with_an_authority_elsewhere_marks_its_first_certificate() {
    let clock = SetClock::default();
    let ca = Cfssl::start(&ip(new_net(), 1), new_root(), &[], &clock).await;
    // Of a root that the swarm does not have (yet): managers sign.
    let spec = model::ClusterSpec { external_cas: vec![ca.spec()], ..Default::default() };
    let options = InitOptions { spec, ..Default::default() };
    let mut hosts = support::cluster_with(1, 1, &clock, options).await;
    assert!(hosts.iter().all(|host| host.identity().issued().is_marked()));
    assert!(cluster_of(&hosts[0]).await.security.grants.is_some_and(|g| g.required));
    assert!(ca.asked().is_empty());
    // Without a root's certificate it is the swarm's own root, under which this one does not sign.
    change(&hosts[0], |cluster| cluster.spec.external_cas[0].ca_cert_pem.clear()).await;
    let late = Host::start_with(new_net(), 1, &clock).await;
    let token = cluster_of(&hosts[0]).await.join_tokens.worker;
    let said = late.join(&hosts[0], &token).await.expect_err("nobody signs").to_string();
    assert!(
        said.contains(&ca.url) && said.contains("its certificate must be of the root that it signs under"),
        "{said}"
    );
    hosts.push(late);
    ca.stop().await;
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_without_the_roots_key_is_restored_with_the_authoritys_help() {
    let clock = SetClock::default();
    let (mut hosts, ca) = moved(1, 1, &clock).await;
    let key = BackupKey::generate(&seams::real::OsRand);
    let file = {
        let key = seal::Key::parse(seal::KeyForm::Backup, &key.to_text()).expect("a key");
        hosts[0].node().backup(key).await.expect("a backup")
    };
    let mut gone = hosts.remove(0);
    gone.halt().await;
    let machine = || {
        let host = Host { clock: clock.clone(), ..Host::asleep(&gone.ip) };
        let config = NodeConfig { listen_addr: format!("{}:2377", host.ip), ..NodeConfig::new(host.dir.path()) };
        (host, config)
    };
    ca.be(Mood::Refuses);
    let (first, config) = machine();
    let refused = restore(&file, &key, &config, &first.world()).await.expect_err("no certificate").to_string();
    assert!(refused.contains("not on a Sunday"), "{refused}");
    ca.be(Mood::Honest);
    let (mut new, config) = machine();
    restore(&file, &key, &config, &new.world()).await.expect("restored");
    assert!(!ca.asked().last().expect("it was asked").1, "there is no certificate to show yet");
    new.boot().await;
    assert!(new.identity().issued().is_marked());
    until("the worker to be back", async || {
        state(&new).await.node(&hosts[0].id()).is_some_and(|n| n.status.state == NodeState::Ready).then_some(())
    })
    .await;
    ca.stop().await;
    new.halt().await;
    for host in &mut hosts {
        host.halt().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_move_to_an_authority_elsewhere_and_back_as_in_swarmkit() {
    let clock = SetClock::default();
    let mut hosts = support::cluster_with(1, 1, &clock, InitOptions::default()).await;
    let refused = async |cas: &[ExternalCa], to: NewRoot| {
        let cluster = with(cluster_of(&hosts[0]).await, cas);
        match hosts[0].node().begin_rotation(&cluster, to).await {
            Err(SwarmError::Invalid(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let nobody = |which: &str| {
        format!("there must be at least one valid, reachable external CA corresponding to the {which} CA certificate")
    };
    let old = cluster_of(&hosts[0]).await.root_ca.cert_pem;
    let ca = Cfssl::start(&hosts[0].ip, new_root(), &[&old], &clock).await;
    let away = ExternalCa { url: format!("https://{}:9/sign", hosts[0].ip), ..ca.spec() };
    let of_another_root = ExternalCa { ca_cert_pem: new_root().cert_pem, ..ca.spec() };
    for cas in [vec![], vec![away.clone()], vec![of_another_root]] {
        assert_eq!(refused(&cas, elsewhere(&ca.root)).await, nobody("desired"));
    }
    assert!(refused(&[ca.spec()], NewRoot::Elsewhere { cert_pem: "junk".into() }).await.contains("CA certificate"));

    rotate(&hosts[0], &[away.clone(), ca.spec()], || elsewhere(&ca.root)).await.expect("one of them is there");
    assert!(!cluster_of(&hosts[0]).await.root_ca.has_key());
    // It cannot be taken away, nor be followed by another one, nor be asked in vain.
    let without = with(cluster_of(&hosts[0]).await, std::slice::from_ref(&away));
    let Err(SwarmError::Invalid(why)) = hosts[0].node().check_external_cas(&without).await else { panic!("refused") };
    assert_eq!(why, nobody("current"));
    assert_eq!(refused(&[], NewRoot::Generated).await, nobody("current"));
    // One that is silent does not hide one that answers.
    let silent = hosts[0].seams().net.listen(format!("{}:0", hosts[0].ip).parse().expect("an address")).await;
    let silent = silent.expect("a port");
    let mute = ExternalCa { url: format!("https://{}/sign", silent.local_addr().expect("an address")), ..ca.spec() };
    let with_both = with(cluster_of(&hosts[0]).await, &[mute, ca.spec()]);
    hosts[0].node().check_external_cas(&with_both).await.expect("one of them answers");
    drop(silent);
    let other = Cfssl::start(&hosts[0].ip, new_root(), &[&ca.root.cert_pem], &clock).await;
    assert_eq!(
        refused(&[ca.spec(), other.spec()], elsewhere(&other.root)).await,
        "rotating from one external CA to a different external CA is not supported"
    );

    // A root of the swarm's own, for which the authority vouches.
    rotate(&hosts[0], &[ca.spec()], || NewRoot::Generated).await.expect("the root is the swarm's own");
    let cluster = cluster_of(&hosts[0]).await;
    assert!(cluster.root_ca.has_key() && !cluster.root_ca.is(&ca.root.cert_pem) && !cluster.signs_elsewhere());
    let vouched = ca.asked().into_iter().find(|(request, _)| request["profile"] == "CA").expect("it was asked");
    assert_eq!(vouched.0["extensions"][0]["value"], "30030101ff");
    let host = Host::start_with(new_net(), 3, &clock).await;
    host.join(&hosts[0], &cluster.join_tokens.manager).await.expect("join");
    hosts.push(host);
    until_voters(&hosts[0], 2).await;
    // And with its key the authority's root is the swarm's own as it is.
    rotate(&hosts[0], &[ca.spec()], || elsewhere(&ca.root)).await.expect("to the authority");
    let bring = || NewRoot::Given { cert_pem: ca.root.cert_pem.clone(), key_pem: ca.root.key_pem.clone() };
    ca.stop().await;
    // (As clients send it: they leave the authorities as they are.)
    rotate(&hosts[0], &[ca.spec()], bring).await.expect("the key is here now");
    let cluster = cluster_of(&hosts[0]).await;
    assert!(cluster.root_ca.has_key() && cluster.root_ca.is(&ca.root.cert_pem) && !cluster.signs_elsewhere());
    other.stop().await;
    for host in &mut hosts {
        host.halt().await;
    }
}
