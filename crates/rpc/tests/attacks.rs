//! Attacks on the port that nodes talk on, named after the points of the attack list.

mod common;

use common::{MANAGER_ADDR, START, World};
use model::Role;
use parking_lot::Mutex;
use seams::Net as _;
use seams::real::OsRand;
use std::sync::Arc;
use std::time::Duration;
use swarmlite_rpc::access::TABLE;
use swarmlite_rpc::proto::ca::node_ca_server::NodeCa;
use swarmlite_rpc::proto::ca::*;
use swarmlite_rpc::{JoinError, ServerLimits, Who, node_ca_client, node_ca_server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

/// Shows a root certificate, and notes everything that it is sent.
#[derive(Clone, Default)]
struct Listening {
    root_pem: String,
    heard: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl NodeCa for Listening {
    async fn get_root_certificate(
        &self,
        _: Request<GetRootCertificateRequest>,
    ) -> Result<Response<GetRootCertificateResponse>, Status> {
        self.heard.lock().push("root".into());
        let certificate_pem = self.root_pem.clone();
        Ok(Response::new(GetRootCertificateResponse { certificate_pem }))
    }

    async fn issue_node_certificate(
        &self,
        request: Request<IssueNodeCertificateRequest>,
    ) -> Result<Response<IssueNodeCertificateResponse>, Status> {
        self.heard.lock().push(request.into_inner().token);
        Ok(Response::new(IssueNodeCertificateResponse::default()))
    }

    async fn renew_node_certificate(
        &self,
        _: Request<RenewNodeCertificateRequest>,
    ) -> Result<Response<RenewNodeCertificateResponse>, Status> {
        self.heard.lock().push("renew".into());
        Ok(Response::new(RenewNodeCertificateResponse::default()))
    }
}

async fn world(limits: ServerLimits) -> (World, Listening) {
    let world = World::new();
    let service = Listening { root_pem: world.root.cert_pem.clone(), ..Listening::default() };
    let routes = Routes::new(node_ca_server(service.clone()));
    world.serve(MANAGER_ADDR, world.member('m', Role::Manager), routes, limits).await;
    (world, service)
}

#[tokio::test]
async fn attack_05_a_joiner_tells_nobody_its_token_who_has_not_the_root_that_it_names() {
    let (world, ours) = world(ServerLimits::default()).await;
    let token = ca::generate_join_tokens(&world.root.cert_pem, &OsRand).manager;
    // In the middle: with a root of its own, and with ours but without its key.
    let evil_root = ca::generate_root(START, &OsRand).unwrap();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let channels = world.channels(None);
    for (addr, shown) in [("10.0.0.66:2377", &evil_root.cert_pem), ("10.0.0.67:2377", &world.root.cert_pem)] {
        let service = Listening { root_pem: shown.clone(), heard: heard.clone() };
        let identity = world.identity('e', Role::Manager, 'c', &evil_root, common::HOUR);
        world.serve(addr, identity, Routes::new(node_ca_server(service)), ServerLimits::default()).await;
        match channels.fetch_root(addr, &token.parse().unwrap()).await {
            Err(refused) => assert!(matches!(refused, JoinError::WrongRoot(_)), "{refused}"),
            Ok(root) => {
                let mut client = node_ca_client(channels.anonymous(addr, &root).unwrap());
                let request = IssueNodeCertificateRequest { token: token.clone(), ..Default::default() };
                client.issue_node_certificate(request).await.expect_err("it has not the root's key");
            }
        }
    }
    assert_eq!(*heard.lock(), ["root", "root"], "the token was sent to nobody");
    assert!(ours.heard.lock().is_empty());
}

#[tokio::test]
async fn attack_06_a_workers_certificate_opens_no_managers_door() {
    let (world, service) = world(ServerLimits::default()).await;
    let channel = world.channels(Some(world.member('w', Role::Worker))).manager(MANAGER_ADDR).unwrap();
    let mut tried = 0;
    for row in TABLE.iter().filter(|row| matches!(row.who, Who::Manager | Who::RaftPeer)) {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path = PathAndQuery::try_from(row.path).unwrap();
        let status = grpc.unary::<(), (), _>(Request::new(()), path, ProstCodec::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{}: {status:?}", row.path);
        tried += 1;
    }
    assert!(tried >= 10 && service.heard.lock().is_empty());
}

#[tokio::test]
async fn attack_14_messages_and_heads_that_are_too_large_reach_no_handler() {
    let (world, service) = world(ServerLimits::default()).await;
    let mut client = node_ca_client(world.channels(None).anonymous(MANAGER_ADDR, &world.root.cert_pem).unwrap());
    for bytes in [65 * 1024, 17 << 20] {
        let request = IssueNodeCertificateRequest { token: "x".repeat(bytes), ..Default::default() };
        let status = client.issue_node_certificate(request).await.unwrap_err();
        assert!(matches!(status.code(), Code::OutOfRange | Code::Unknown | Code::Internal), "{status:?}");
    }
    let mut request = Request::new(IssueNodeCertificateRequest::default());
    request.metadata_mut().insert("x-long", "y".repeat(100 << 10).parse().unwrap());
    client.issue_node_certificate(request).await.unwrap_err();
    assert!(service.heard.lock().is_empty());
    client.issue_node_certificate(IssueNodeCertificateRequest::default()).await.expect("others are served");
}

#[tokio::test]
async fn attack_17_compressed_messages_are_refused_before_anything_is_unpacked() {
    let (world, service) = world(ServerLimits::default()).await;
    let mut client = node_ca_client(world.channels(None).anonymous(MANAGER_ADDR, &world.root.cert_pem).unwrap());
    for encoding in ["gzip", "zstd", "deflate", "snappy"] {
        let mut request = Request::new(IssueNodeCertificateRequest::default());
        request.metadata_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let status = client.issue_node_certificate(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{encoding}: {status:?}");
    }
    assert!(service.heard.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn attack_18_ten_thousand_idle_connections_are_closed_and_members_are_served_after_them() {
    let limits = ServerLimits::default();
    let (world, _) = world(limits).await;
    let addr = MANAGER_ADDR.parse().unwrap();
    let start = tokio::time::Instant::now();
    let mut idle = Vec::new();
    for n in 0..10_000 {
        let mut stream = world.net.connect(addr).await.unwrap();
        if n % 2 == 0 {
            // The beginning of a handshake, and no more. Over the bound the connection is closed already.
            let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01").await;
        }
        idle.push(stream);
    }
    for mut stream in idle {
        // An alert or nothing, and then the end.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.len() < 64, "{rest:?}");
    }
    assert!(start.elapsed() <= limits.handshake_timeout + Duration::from_secs(1), "{:?}", start.elapsed());
    let member = world.channels(Some(world.member('w', Role::Worker))).manager(MANAGER_ADDR).unwrap();
    node_ca_client(member).renew_node_certificate(RenewNodeCertificateRequest::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn attack_18_connections_are_bounded_for_members_too_and_what_is_closed_is_free() {
    let (world, _) = world(ServerLimits { connections_max: 2, ..ServerLimits::default() }).await;
    let renew = async |channels: &swarmlite_rpc::Channels| {
        let mut client = node_ca_client(channels.manager(MANAGER_ADDR).unwrap());
        client.renew_node_certificate(RenewNodeCertificateRequest::default()).await
    };
    let [one, two, three] = ['u', 'v', 'w'].map(|node| world.channels(Some(world.member(node, Role::Worker))));
    renew(&one).await.unwrap();
    renew(&two).await.unwrap();
    let refused = renew(&three).await.unwrap_err();
    assert!(swarmlite_rpc::not_sent(&refused), "{refused:?}");
    renew(&one).await.expect("those that stand are served");
    drop(one);
    let served = async {
        while renew(&three).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), served).await.expect("there is room again");
}

#[tokio::test(start_paused = true)]
async fn attack_18_a_stranger_has_few_streams_at_once() {
    let (world, service) = world(ServerLimits::default()).await;
    let channel = world.channels(None).anonymous(MANAGER_ADDR, &world.root.cert_pem).unwrap();
    // Requests whose body does not end hold their streams ...
    for _ in 0..8 {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        world.tasks.spawn("endless request", async move {
            let path: PathAndQuery = "/swarmlite.ca.v1.NodeCa/IssueNodeCertificate".parse().unwrap();
            let codec = ProstCodec::<IssueNodeCertificateRequest, IssueNodeCertificateResponse>::default();
            grpc.ready().await.unwrap();
            let endless = Request::new(tokio_stream::pending::<IssueNodeCertificateRequest>());
            drop(grpc.client_streaming(endless, path, codec).await);
        });
    }
    // (Virtual time: everything that can happen has happened then.)
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut client = node_ca_client(channel);
    let ninth = client.get_root_certificate(GetRootCertificateRequest {});
    // ... and the ninth waits for one of them.
    let waited = tokio::time::timeout(Duration::from_secs(30), ninth).await;
    assert!(waited.is_err(), "{waited:?}");
    assert!(service.heard.lock().is_empty());
}
