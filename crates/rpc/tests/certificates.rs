//! Certificates that end, are replaced or lose their worth while connections and streams stand.

mod common;

use ca::{Identity, cross_sign};
use common::{HOUR, MANAGER_ADDR, START, World, id};
use model::{NodeId, Role, RootCa};
use seams::Net as _;
use seams::real::OsRand;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use swarmlite_rpc::proto::ca::node_ca_server::NodeCa;
use swarmlite_rpc::proto::ca::{
    GetRootCertificateRequest, GetRootCertificateResponse, IssueNodeCertificateRequest, IssueNodeCertificateResponse,
    RenewNodeCertificateRequest, RenewNodeCertificateResponse,
};
use swarmlite_rpc::proto::logs::logs_server::Logs;
use swarmlite_rpc::proto::logs::*;
use swarmlite_rpc::{
    Admission, ChannelTimings, Channels, ServeConfig, ServerLimits, describe, logs_client, logs_server, node_ca_client,
    node_ca_server, not_sent, serve,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

/// Streams that say what the test tells them to say, and report what comes in.
struct Told {
    say: watch::Receiver<u32>,
    heard: mpsc::UnboundedSender<Result<(), Code>>,
}

#[tonic::async_trait]
impl Logs for Told {
    type ListenStream = Pin<Box<dyn Stream<Item = Result<SubscriptionMessage, Status>> + Send>>;
    type RelayStream = Pin<Box<dyn Stream<Item = Result<LogBatch, Status>> + Send>>;

    async fn listen(&self, _: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        let said = tokio_stream::wrappers::WatchStream::new(self.say.clone());
        Ok(Response::new(Box::pin(said.map(|_| Ok(SubscriptionMessage::default())))))
    }

    async fn publish(&self, request: Request<Streaming<PublishRequest>>) -> Result<Response<PublishResponse>, Status> {
        let mut stream = request.into_inner();
        loop {
            let next = stream.next().await.transpose();
            let heard = next.as_ref().map(drop).map_err(Status::code);
            _ = self.heard.send(heard);
            if next?.is_none() {
                return Ok(Response::new(PublishResponse {}));
            }
        }
    }

    async fn relay(&self, _: Request<Subscription>) -> Result<Response<Self::RelayStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}

struct Served {
    world: World,
    say: watch::Sender<u32>,
    heard: mpsc::UnboundedReceiver<Result<(), Code>>,
    identity: watch::Sender<Option<Arc<Identity>>>,
}

async fn served() -> Served {
    let world = World::new();
    let (say, say_rx) = watch::channel(0);
    let (heard_tx, heard) = mpsc::unbounded_channel();
    let (identity, identity_rx) = watch::channel(Some(world.member('m', Role::Manager)));
    let routes = Routes::new(logs_server(Told { say: say_rx, heard: heard_tx }));
    world.serve_as(MANAGER_ADDR, identity_rx, routes, ServerLimits::default()).await;
    Served { world, say, heard, identity }
}

/// The stream up and the stream down of a worker, both in use.
struct Streams {
    up: mpsc::Sender<PublishRequest>,
    published: tokio::task::JoinHandle<Result<(), Status>>,
    down: Streaming<SubscriptionMessage>,
}

impl Served {
    #[allow(clippy::disallowed_methods)] // a call that goes on beside the test
    async fn streams(&mut self) -> Streams {
        let channel = self.world.channels(Some(self.world.member('w', Role::Worker))).manager(MANAGER_ADDR).unwrap();
        let mut client = logs_client(channel);
        let (up, up_rx) = mpsc::channel(4);
        let mut publisher = client.clone();
        let published = tokio::spawn(async move { publisher.publish(ReceiverStream::new(up_rx)).await.map(|_| ()) });
        up.send(PublishRequest::default()).await.unwrap();
        assert_eq!(self.heard.recv().await, Some(Ok(())));
        let mut down = client.listen(ListenRequest::default()).await.unwrap().into_inner();
        assert!(down.message().await.unwrap().is_some());
        self.say.send_modify(|n| *n += 1);
        assert!(down.message().await.unwrap().is_some());
        Streams { up, published, down }
    }

    /// Both streams end with the next thing they carry, and say why.
    async fn both_are_cut(&mut self, mut streams: Streams, code: Code, words: &str) {
        streams.up.send(PublishRequest::default()).await.unwrap();
        assert_eq!(self.heard.recv().await, Some(Err(code)), "the handler sees no more");
        let refused = streams.published.await.unwrap().unwrap_err();
        assert_eq!((refused.code(), refused.message().contains(words)), (code, true), "{refused:?}");
        self.say.send_modify(|n| *n += 1);
        let ended = streams.down.message().await.unwrap_err();
        assert_eq!((ended.code(), ended.message().contains(words)), (code, true), "{ended:?}");
        assert!(matches!(streams.down.message().await, Ok(None) | Err(_)));
    }
}

#[tokio::test]
async fn attack_08_a_removed_node_loses_its_standing_streams() {
    let mut served = served().await;
    let streams = served.streams().await;
    served.world.state.0.lock().remove(&id::<NodeId>('w'));
    served.both_are_cut(streams, Code::PermissionDenied, "is not a member of this swarm (any more)").await;
}

#[tokio::test]
async fn attack_08_streams_end_with_their_certificate() {
    let mut served = served().await;
    let streams = served.streams().await;
    served.world.clock.set(START + 25 * HOUR);
    let words = "the certificate of node wwwwwwwwwwwwwwwwwwwwwwwww has expired at 2027-01-16T08:00:00Z; this node's clock shows 2027-01-16T09:00:00Z";
    served.both_are_cut(streams, Code::Unauthenticated, words).await;
}

#[tokio::test]
async fn attack_08_streams_of_the_old_root_end_with_its_trust() {
    let mut served = served().await;
    let streams = served.streams().await;
    // The manager has moved to a new root, and trusts both: the streams go on.
    let (old, new) = (served.world.root.clone(), ca::generate_root(START, &OsRand).unwrap());
    let moved = |trust: String| {
        let identity = served.world.identity('m', Role::Manager, 'c', &new, HOUR);
        let crossed = cross_sign(&new, &old, START, &OsRand).unwrap();
        let leaf = identity.cert_chain_pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
        Arc::new(Identity::new(format!("{leaf}{crossed}"), identity.key_pem.clone(), trust).unwrap())
    };
    served.identity.send_replace(Some(moved(format!("{}{}", old.cert_pem, new.cert_pem))));
    let Streams { up, published, mut down } = streams;
    up.send(PublishRequest::default()).await.unwrap();
    assert_eq!(served.heard.recv().await, Some(Ok(())));
    served.say.send_modify(|n| *n += 1);
    assert!(down.message().await.unwrap().is_some());
    // A newcomer who knows only the old root is understood, too.
    let late = served.world.channels(Some(served.world.member('x', Role::Worker))).manager(MANAGER_ADDR).unwrap();
    assert!(logs_client(late).listen(ListenRequest::default()).await.is_ok());

    served.identity.send_replace(Some(moved(new.cert_pem.clone())));
    let words = "of a root that this swarm does not trust any more";
    served.both_are_cut(Streams { up, published, down }, Code::Unauthenticated, words).await;
}

#[tokio::test]
async fn a_renewal_drops_no_stream_and_new_connections_use_it() {
    let mut served = served().await;
    let mut streams = served.streams().await;
    served.identity.send_replace(Some(served.world.member('m', Role::Manager)));
    for _ in 0..3 {
        streams.up.send(PublishRequest::default()).await.unwrap();
        assert_eq!(served.heard.recv().await, Some(Ok(())));
        served.say.send_modify(|n| *n += 1);
        assert!(streams.down.message().await.unwrap().is_some());
    }
    drop(streams.up);
    assert_eq!(served.heard.recv().await, Some(Ok(())));
    streams.published.await.unwrap().unwrap();
}

/// Counts the calls that reach it.
#[derive(Clone, Default)]
struct Reached(Arc<AtomicU32>);

#[tonic::async_trait]
impl NodeCa for Reached {
    async fn get_root_certificate(
        &self,
        _: Request<GetRootCertificateRequest>,
    ) -> Result<Response<GetRootCertificateResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn issue_node_certificate(
        &self,
        _: Request<IssueNodeCertificateRequest>,
    ) -> Result<Response<IssueNodeCertificateResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn renew_node_certificate(
        &self,
        _: Request<RenewNodeCertificateRequest>,
    ) -> Result<Response<RenewNodeCertificateResponse>, Status> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(RenewNodeCertificateResponse::default()))
    }
}

/// Tells how often it was asked.
struct Asked {
    state: common::State,
    times: watch::Sender<u32>,
}

impl Admission for Asked {
    fn current_role(&self, node: &NodeId, issued: &ca::Issued) -> Option<Role> {
        self.times.send_modify(|n| *n += 1);
        self.state.current_role(node, issued)
    }
}

/// Begins a call with one message, lets the node be removed (or not) when the manager has judged `pieces` of it, and finishes it
/// only then.
#[allow(clippy::disallowed_methods)] // a call that goes on beside the test
async fn held_open(pieces: u32, removed: bool) -> (Result<(), Status>, u32) {
    let (world, reached) = (World::new(), Reached::default());
    let (times, mut judged) = watch::channel(0);
    let serve_config = ServeConfig {
        identity: watch::channel(Some(world.member('m', Role::Manager))).1,
        admission: Arc::new(Asked { state: world.state.clone(), times }),
        clock: Arc::new(world.clock.clone()),
        limits: ServerLimits::default(),
    };
    let listener = world.net.listen(MANAGER_ADDR.parse().unwrap()).await.unwrap();
    serve(listener, serve_config, Routes::new(node_ca_server(reached.clone())), &world.tasks);

    let channel = world.channels(Some(world.member('w', Role::Worker))).manager(MANAGER_ADDR).unwrap();
    let (say, said) = mpsc::channel::<RenewNodeCertificateRequest>(1);
    let call = tokio::spawn(async move {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<RenewNodeCertificateRequest, RenewNodeCertificateResponse>::default();
        let path = http::uri::PathAndQuery::from_static("/swarmlite.ca.v1.NodeCa/RenewNodeCertificate");
        client.client_streaming(Request::new(ReceiverStream::new(said)), path, codec).await.map(drop)
    });
    if pieces > 1 {
        say.send(RenewNodeCertificateRequest::default()).await.unwrap();
    }
    let enough = tokio::time::timeout(Duration::from_secs(10), judged.wait_for(|n| *n >= pieces)).await;
    assert!(enough.map(drop).is_ok(), "the manager has not judged {pieces} pieces");
    if removed {
        world.state.0.lock().remove(&id::<NodeId>('w'));
    }
    if pieces == 1 {
        // A call that is refused already takes nothing more.
        _ = say.send(RenewNodeCertificateRequest::default()).await;
    }
    drop(say);
    (call.await.unwrap(), reached.0.load(Ordering::SeqCst))
}

#[tokio::test]
async fn attack_08_a_call_that_was_begun_in_time_is_not_finished_after_the_removal() {
    // (what was there before the removal)
    for (what, pieces) in [("the head", 1), ("all but the end", 2)] {
        let (done, reached) = held_open(pieces, false).await;
        assert!(done.is_ok() && reached == 1, "{what}: {done:?}");
        let (done, reached) = held_open(pieces, true).await;
        assert_eq!((done.unwrap_err().code(), reached), (Code::PermissionDenied, 0), "{what}");
    }
}

async fn ask(channels: &Channels) -> Status {
    let mut client = node_ca_client(channels.manager(MANAGER_ADDR).unwrap());
    client.renew_node_certificate(RenewNodeCertificateRequest::default()).await.unwrap_err()
}

/// Channels of a node with another clock.
fn channels_at(world: &World, identity: Arc<Identity>, now: Duration) -> Channels {
    let mut seams = world.seams();
    let clock = common::World::new().clock;
    clock.set(now);
    seams.clock = Arc::new(clock);
    let (_, identity) = watch::channel(Some(identity));
    Channels::new(seams, identity, ChannelTimings::default())
}

#[tokio::test]
async fn expired_certificates_and_clocks_that_differ_are_told_at_both_ends() {
    let served = served().await;
    let worker = served.world.member('w', Role::Worker);
    let whose = "this node (wwwwwwwwwwwwwwwwwwwwwwwww)";
    for (what, now, words) in [
        (
            "its own certificate has ended",
            START + 25 * HOUR,
            format!(
                "cannot connect to 10.0.0.1:2377: the certificate of {whose} has expired at 2027-01-16T08:00:00Z; this \
                 node's clock shows 2027-01-16T09:00:00Z"
            ),
        ),
        (
            "its own certificate has not begun",
            START - 2 * HOUR,
            format!(
                "cannot connect to 10.0.0.1:2377: the certificate of {whose} is not valid before 2027-01-15T07:00:00Z; \
                 this node's clock shows 2027-01-15T06:00:00Z"
            ),
        ),
    ] {
        let status = ask(&channels_at(&served.world, worker.clone(), now)).await;
        assert!(not_sent(&status) && describe(&status).starts_with(&words), "{what}: {}", describe(&status));
    }

    // Only the manager's is over, by the caller's clock.
    let long = served.world.identity('w', Role::Worker, 'c', &served.world.root, 1000 * HOUR);
    let status = ask(&channels_at(&served.world, long.clone(), START + 25 * HOUR)).await;
    let words =
        "cannot secure the connection to 10.0.0.1:2377: the certificate of the manager at 10.0.0.1:2377 has expired at";
    assert!(describe(&status).starts_with(words), "{}", describe(&status));

    // Only by the manager's clock is the caller's certificate over: the manager refuses it, and the caller is told so.
    let short = served.world.identity('w', Role::Worker, 'c', &served.world.root, 2 * HOUR);
    served.world.clock.set(START + 5 * HOUR);
    let status = ask(&channels_at(&served.world, short, START)).await;
    let words = "cannot secure the connection to 10.0.0.1:2377: the manager at 10.0.0.1:2377 says that this node's certificate has expired, or is not valid yet; compare the clocks";
    assert!(describe(&status).starts_with(words), "{}", describe(&status));
}

#[tokio::test]
async fn attack_09_whoever_made_the_certificate_himself_gets_no_connection() {
    let served = served().await;
    let own: RootCa = ca::generate_root(START, &OsRand).unwrap();
    let forged = served.world.identity('m', Role::Manager, 'c', &own, HOUR);
    // He trusts the cluster's root, so only the manager's judgement is in his way.
    let chain = format!("{}{}", forged.cert_chain_pem, served.world.root.cert_pem);
    let forged =
        Identity::new(chain, forged.key_pem.clone(), format!("{}{}", served.world.root.cert_pem, own.cert_pem));
    let (_, identity) = watch::channel(Some(Arc::new(forged.unwrap())));
    let channels = Channels::new(served.world.seams(), identity, ChannelTimings::default());
    let status = ask(&channels).await;
    assert!(status.code() != Code::Unimplemented && status.code() != Code::Ok, "{status:?}");

    // A manager calls nobody whose certificate the swarm did not grant, though its root signed it.
    let member = served.world.member('w', Role::Manager);
    let channels = served.world.channels(Some(member));
    let marks = model::GrantKey { key: [7; 32], required: true };
    for (known, refused) in [(None, false), (Some(marks), true), (None, false)] {
        channels.judge_by(known);
        let words = describe(&ask(&channels).await);
        assert_eq!(words.contains("was signed, but not granted by the swarm"), refused, "{words}");
    }

    // Without a certificate only what a joiner needs is open.
    let anonymous = served.world.channels(None).anonymous(MANAGER_ADDR, &served.world.root.cert_pem).unwrap();
    let refused = logs_client(anonymous).listen(ListenRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
