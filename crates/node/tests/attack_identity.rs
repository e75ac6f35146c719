//! Somebody with a worker's certificate who wants to be more (CVE-2026-115539 is how that went elsewhere): he says so in the
//! metadata of his calls, to managers that lead and to managers that do not, also while the leader changes.

mod support;

use ca::{NodeKey, Peer};
use model::{NodeId, Role};
use rpc::access::TABLE;
use rpc::proto::ca::RenewNodeCertificateRequest;
use rpc::{ChannelTimings, Channels, Who};
use std::time::Duration;
use support::{Host, cluster, state, until};
use tokio::sync::watch;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// What SwarmKit's proxy believed, and what others might.
const CLAIMS: [(&str, &str); 5] = [
    ("tls-cert-organizational-unit", "swarm-manager"),
    ("forwarded-org-unit", "swarm-manager"),
    ("x-forwarded-node-id", "1111111111111111111111111"),
    ("remote_addr", "127.0.0.1:2377"),
    ("redirect", ""),
];

/// Channels of whoever has copied this node's key and certificate.
fn thief(of: &Host) -> Channels {
    let identity = of.node().watch_identity().expect("it is in a swarm");
    let (_, watch) = watch::channel(Some(identity));
    Channels::new(seams::real::seams(), watch, ChannelTimings::default())
}

fn addr(of: &Host) -> String {
    format!("{}:2377", of.ip)
}

fn claim<T>(mut request: Request<T>, manager: &NodeId) -> Request<T> {
    for (key, value) in CLAIMS {
        let key: AsciiMetadataKey = key.parse().expect("a key");
        request.metadata_mut().insert(key, value.parse().expect("a value"));
    }
    let manager: MetadataValue<_> = manager.as_str().parse().expect("an id is a value");
    request.metadata_mut().insert("tls-cert-common-name", manager);
    request
}

async fn call(channel: Channel, path: &'static str, manager: &NodeId) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("a connection");
    let request = claim(Request::new(()), manager);
    let answer = grpc.unary::<(), (), _>(request, PathAndQuery::from_static(path), ProstCodec::default()).await;
    answer.err().unwrap_or_else(|| Status::ok("it was done"))
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_10_what_a_worker_says_of_himself_in_the_metadata_opens_no_door() {
    let hosts = cluster(3, 1).await;
    let worker = thief(&hosts[3]);
    for manager in &hosts[..3] {
        for row in TABLE.iter().filter(|r| matches!(r.who, Who::Manager | Who::RaftPeer)) {
            let channel = worker.manager(&addr(manager)).expect("an address");
            let status = call(channel, row.path, &manager.id()).await;
            assert_eq!(status.code(), Code::PermissionDenied, "{} at {}: {status:?}", row.path, manager.ip);
        }
    }
}

/// A certificate for whoever asks, as the manager sees him; `None` while it cannot sign.
async fn renew(channels: &Channels, at: &Host, manager: &NodeId) -> Option<Peer> {
    let key = NodeKey::generate().expect("a key");
    let request = RenewNodeCertificateRequest { csr_pem: key.csr_pem().expect("a request") };
    let mut client = rpc::node_ca_client(channels.manager(&addr(at)).expect("an address"));
    let answer = client.renew_node_certificate(claim(Request::new(request), manager));
    let answer = tokio::time::timeout(Duration::from_secs(10), answer).await.ok()?.ok()?.into_inner();
    let chain = ca::Identity::new(answer.certificate_pem, key.key_pem(), channels_root(at).await)
        .expect("what a manager signs is a certificate of this cluster");
    assert_eq!(
        answer.role,
        ca::role_word(chain.role).trim_start_matches("swarm-"),
        "the answer and the certificate agree"
    );
    Some(Peer { node_id: chain.node_id, role: chain.role, cluster_id: chain.cluster_id })
}

async fn channels_root(at: &Host) -> String {
    at.node().watch_identity().expect("it is in a swarm").root_pem.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_11_two_hops_through_a_stale_leader_make_no_manager_of_a_worker() {
    let mut hosts = cluster(3, 1).await;
    let (worker, victim, manager) = (thief(&hosts[3]), hosts[3].id(), hosts[0].id());
    // Through the leader and through managers that do not lead: always the same certificate.
    for at in &hosts[..3] {
        let got = renew(&worker, at, &manager).await.expect("nothing is broken");
        assert_eq!((got.node_id, got.role), (victim.clone(), Role::Worker), "at {}", at.ip);
    }
    // While the leader goes away, and from managers that still take him for the leader.
    let (asking, halting) = {
        let (founder, rest) = hosts.split_at_mut(1);
        let rest = &*rest;
        let asking = async {
            let mut signed = 0;
            for round in 0..20 {
                if let Some(got) = renew(&worker, &rest[round % 2], &manager).await {
                    assert_eq!((got.node_id, got.role), (victim.clone(), Role::Worker), "round {round}");
                    signed += 1;
                }
            }
            signed
        };
        tokio::join!(asking, founder[0].halt())
    };
    let ((), signed) = (halting, asking);
    assert!(signed > 0, "somebody signed something");
    // Nothing of it has left a trace: the worker is a worker.
    until("a leader", async || hosts[1].store().current().await.ok().map(|_| ())).await;
    let state = state(&hosts[1]).await;
    let node = state.node(&victim).expect("it is still a node");
    assert_eq!((node.spec.role, node.manager.as_ref()), (Role::Worker, None));
    assert_eq!(state.nodes().filter(|n| n.spec.role == Role::Manager).count(), 3);
}
