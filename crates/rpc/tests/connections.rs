//! Joining, limits, timeouts, partitions, stopping.

mod common;

use common::{HOUR, MANAGER_ADDR, START, World, id};
use model::Role;
use parking_lot::Mutex;
use seams::Net as _;
use seams::real::OsRand;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use swarmlite_rpc::proto::ca::node_ca_server::NodeCa;
use swarmlite_rpc::proto::ca::*;
use swarmlite_rpc::proto::logs::logs_server::Logs;
use swarmlite_rpc::proto::logs::*;
use swarmlite_rpc::{
    JoinError, ServerLimits, caller, describe, logs_client, logs_server, node_ca_client, node_ca_server, not_sent,
    remote_addr,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

/// Writes down what it was called with.
#[derive(Clone, Default)]
struct Authority {
    root_pem: String,
    calls: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl NodeCa for Authority {
    async fn get_root_certificate(
        &self,
        request: Request<GetRootCertificateRequest>,
    ) -> Result<Response<GetRootCertificateResponse>, Status> {
        assert!(remote_addr(&request).is_some());
        assert_eq!(caller(&request).unwrap_err().code(), Code::PermissionDenied);
        self.calls.lock().push("root".into());
        Ok(Response::new(GetRootCertificateResponse { certificate_pem: self.root_pem.clone() }))
    }

    async fn issue_node_certificate(
        &self,
        request: Request<IssueNodeCertificateRequest>,
    ) -> Result<Response<IssueNodeCertificateResponse>, Status> {
        self.calls.lock().push(format!("issue {}", request.get_ref().token));
        Ok(Response::new(IssueNodeCertificateResponse::default()))
    }

    async fn renew_node_certificate(
        &self,
        request: Request<RenewNodeCertificateRequest>,
    ) -> Result<Response<RenewNodeCertificateResponse>, Status> {
        let role = format!("{:?} {}", caller(&request)?.role, caller(&request)?.node_id);
        Ok(Response::new(RenewNodeCertificateResponse { role, ..Default::default() }))
    }
}

/// Streams that never say anything, and a Publish that counts bytes.
struct Silent;

#[tonic::async_trait]
impl Logs for Silent {
    type ListenStream = Pin<Box<dyn Stream<Item = Result<SubscriptionMessage, Status>> + Send>>;
    type RelayStream = Pin<Box<dyn Stream<Item = Result<LogBatch, Status>> + Send>>;

    async fn listen(&self, _: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }

    async fn publish(&self, request: Request<Streaming<PublishRequest>>) -> Result<Response<PublishResponse>, Status> {
        let mut stream = request.into_inner();
        while stream.next().await.transpose()?.is_some() {}
        Ok(Response::new(PublishResponse {}))
    }

    async fn relay(&self, _: Request<Subscription>) -> Result<Response<Self::RelayStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}

async fn world(limits: ServerLimits) -> (World, Authority) {
    let world = World::new();
    let authority = Authority { root_pem: world.root.cert_pem.clone(), ..Authority::default() };
    let routes = Routes::new(node_ca_server(authority.clone())).add_service(logs_server(Silent));
    world.serve(MANAGER_ADDR, world.member('m', Role::Manager), routes, limits).await;
    (world, authority)
}

#[tokio::test]
async fn a_joiner_checks_the_digest_before_it_sends_its_token() {
    let (world, authority) = world(ServerLimits::default()).await;
    let tokens = ca::generate_join_tokens(&world.root.cert_pem, &OsRand);
    let channels = world.channels(None);
    let root = channels.fetch_root(MANAGER_ADDR, &tokens.worker.parse().unwrap()).await.unwrap();
    assert_eq!(root, world.root.cert_pem);
    let mut client = node_ca_client(channels.anonymous(MANAGER_ADDR, &root).unwrap());
    let request = IssueNodeCertificateRequest { token: "a-token".into(), ..Default::default() };
    client.issue_node_certificate(request).await.unwrap();
    assert_eq!(*authority.calls.lock(), ["root", "issue a-token"]);
}

#[tokio::test]
async fn a_manager_with_another_root_gets_nothing() {
    let (world, _) = world(ServerLimits::default()).await;
    let tokens = ca::generate_join_tokens(&world.root.cert_pem, &OsRand);
    let evil_root = ca::generate_root(START, &OsRand).unwrap();
    let evil = Authority { root_pem: evil_root.cert_pem.clone(), ..Authority::default() };
    let addr = "10.0.0.66:2377";
    let routes = Routes::new(node_ca_server(evil.clone()));
    world.serve(addr, world.identity('e', Role::Manager, 'c', &evil_root, HOUR), routes, ServerLimits::default()).await;

    let channels = world.channels(None);
    let refused = channels.fetch_root(addr, &tokens.worker.parse().unwrap()).await.unwrap_err();
    assert!(matches!(refused, JoinError::WrongRoot(_)), "{refused}");
    // Even when it shows the right root certificate, it does not have its key.
    let relayed = Authority { root_pem: world.root.cert_pem.clone(), calls: evil.calls.clone() };
    let addr = "10.0.0.67:2377";
    let routes = Routes::new(node_ca_server(relayed));
    world.serve(addr, world.identity('e', Role::Manager, 'c', &evil_root, HOUR), routes, ServerLimits::default()).await;
    let root = channels.fetch_root(addr, &tokens.worker.parse().unwrap()).await.unwrap();
    let mut client = node_ca_client(channels.anonymous(addr, &root).unwrap());
    let status = client.issue_node_certificate(IssueNodeCertificateRequest::default()).await.unwrap_err();
    assert!(not_sent(&status), "{status:?}");
    assert_eq!(*evil.calls.lock(), ["root", "root"]);
}

#[tokio::test]
async fn the_handler_sees_who_calls() {
    let (world, _) = world(ServerLimits::default()).await;
    let mut client =
        node_ca_client(world.channels(Some(world.member('w', Role::Worker))).manager(MANAGER_ADDR).unwrap());
    let answer = client.renew_node_certificate(RenewNodeCertificateRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.role, format!("Worker {}", id::<model::NodeId>('w')));
}

#[tokio::test]
async fn messages_over_the_limit_are_refused() {
    let (world, authority) = world(ServerLimits::default()).await;
    let channels = world.channels(None);
    let mut client = node_ca_client(channels.anonymous(MANAGER_ADDR, &world.root.cert_pem).unwrap());
    let request = |bytes| IssueNodeCertificateRequest { token: "x".repeat(bytes), ..Default::default() };
    for bytes in [65 * 1024, 5 << 20] {
        let status = client.issue_node_certificate(request(bytes)).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    }
    assert!(authority.calls.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn addresses_that_cannot_be_reached_say_so() {
    let (world, _) = world(ServerLimits::default()).await;
    let channels = world.channels(Some(world.member('w', Role::Worker)));
    let call = async |addr: &str| {
        let mut client = node_ca_client(channels.manager(addr).unwrap());
        client.renew_node_certificate(RenewNodeCertificateRequest::default()).await.unwrap_err()
    };
    let status = call("10.0.0.2:2377").await;
    assert_eq!((status.code(), not_sent(&status)), (Code::Unavailable, true));
    assert_eq!(describe(&status), "cannot connect to 10.0.0.2:2377: connection refused");

    // Accepts, and never says a word.
    let _deaf = world.net.listen("10.0.0.3:2377".parse().unwrap()).await.unwrap();
    let status = call("10.0.0.3:2377").await;
    assert!(not_sent(&status), "{status:?}");
    assert_eq!(describe(&status), "cannot connect to 10.0.0.3:2377: no answer within 3000 ms");
    let token = ca::generate_join_tokens("", &OsRand).worker.parse().unwrap();
    let error = channels.fetch_root("10.0.0.3:2377", &token).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot get the root certificate from 10.0.0.3:2377: "), "{error}");

    for bad in ["", "manager1:2377", "10.0.0.1", "10.0.0.1:99999", "[::1]"] {
        let error = channels.manager(bad).unwrap_err().to_string();
        assert!(error.contains("is not an address"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_dead_connection_is_found_and_replaced() {
    let (world, _) = world(ServerLimits::default()).await;
    let channels = world.channels(Some(world.member('w', Role::Worker)));
    let mut client = logs_client(channels.manager(MANAGER_ADDR).unwrap());
    let mut stream = client.listen(ListenRequest::default()).await.unwrap().into_inner();
    let cut_at = tokio::time::Instant::now();
    world.net.cut.store(true, Ordering::SeqCst);
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.message()).await.expect("keep-alive notices");
    let words = describe(&ended.unwrap_err());
    assert!(words.contains("stream closed"), "{words}");
    assert!(cut_at.elapsed() <= Duration::from_secs(6), "{:?}", cut_at.elapsed());

    world.net.cut.store(false, Ordering::SeqCst);
    let mut client = node_ca_client(channels.manager(MANAGER_ADDR).unwrap());
    client.renew_node_certificate(RenewNodeCertificateRequest::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn silent_and_idle_strangers_are_bounded_in_number_and_time() {
    let limits = ServerLimits { anonymous_max: 3, anonymous_per_source_max: 3, ..ServerLimits::default() };
    let (world, _) = world(limits).await;
    // Three connections that never start TLS take all places ...
    let addr = MANAGER_ADDR.parse().unwrap();
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(world.net.connect(addr).await.unwrap());
    }
    let channels = world.channels(Some(world.member('w', Role::Worker)));
    let mut client = node_ca_client(channels.manager(MANAGER_ADDR).unwrap());
    let renew = RenewNodeCertificateRequest::default;
    assert!(client.renew_node_certificate(renew()).await.is_err());
    // ... until the handshake timeout frees them.
    tokio::time::sleep(limits.handshake_timeout).await;
    client.renew_node_certificate(renew()).await.unwrap();

    // A stranger with TLS may stay as long as joining takes, a member for good.
    let anonymous = channels.anonymous(MANAGER_ADDR, &world.root.cert_pem).unwrap();
    let mut joiner = node_ca_client(anonymous);
    joiner.get_root_certificate(GetRootCertificateRequest {}).await.unwrap();
    let before = world.net.connections.load(Ordering::SeqCst);
    tokio::time::sleep(limits.anonymous_lifetime * 2).await;
    client.renew_node_certificate(renew()).await.unwrap();
    assert_eq!(world.net.connections.load(Ordering::SeqCst), before, "the member's connection stands");
    joiner.get_root_certificate(GetRootCertificateRequest {}).await.unwrap();
    assert_eq!(world.net.connections.load(Ordering::SeqCst), before + 1, "the stranger's was closed");
}

#[tokio::test(start_paused = true)]
async fn members_behind_one_address_do_not_take_each_others_places() {
    let limits = ServerLimits { anonymous_max: 2, anonymous_per_source_max: 1, ..ServerLimits::default() };
    let (world, _) = world(limits).await;
    let mut clients = Vec::new();
    // A channel of its own for each: so many connections, all from one address, and all of them stay.
    for name in ['a', 'b', 'c', 'd', 'e'] {
        let channels = world.channels(Some(world.member(name, Role::Worker)));
        let mut client = node_ca_client(channels.manager(MANAGER_ADDR).unwrap());
        client.renew_node_certificate(RenewNodeCertificateRequest::default()).await.unwrap();
        clients.push((channels, client));
    }
    for (_, client) in &mut clients {
        client.renew_node_certificate(RenewNodeCertificateRequest::default()).await.unwrap();
    }
    assert_eq!(world.net.connections.load(Ordering::SeqCst), 5);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_does() {
    let (world, _) = world(ServerLimits::default()).await;
    let channel = world.channels(None).anonymous(MANAGER_ADDR, &world.root.cert_pem).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = "/swarmlite.ca.v1.NodeCa/IssueNodeCertificate".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<IssueNodeCertificateRequest, IssueNodeCertificateResponse>::default();
    let endless = Request::new(tokio_stream::pending::<IssueNodeCertificateRequest>());
    let started = tokio::time::Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(600), grpc.client_streaming(endless, path, codec)).await;
    assert!(ended.expect("the server ends it").is_err());
    assert!(started.elapsed() <= Duration::from_secs(61), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_streams_within_the_drain_time() {
    let (world, _) = world(ServerLimits::default()).await;
    let channels = world.channels(Some(world.member('w', Role::Worker)));
    let mut client = logs_client(channels.manager(MANAGER_ADDR).unwrap());
    let mut stream = client.listen(ListenRequest::default()).await.unwrap().into_inner();
    assert!(world.tasks.shutdown(Duration::from_secs(2)).await, "all connections ended");
    assert!(!matches!(stream.message().await, Ok(Some(_))));
    let mut client = node_ca_client(channels.manager(MANAGER_ADDR).unwrap());
    let refused = client.renew_node_certificate(RenewNodeCertificateRequest::default()).await.unwrap_err();
    assert!(not_sent(&refused), "{refused:?}");
}
