//! Streams that stand still, because somebody has paused a log or a terminal, do not keep the rest of their connection waiting.

mod common;

use common::{MANAGER_ADDR, World};
use model::Role;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use swarmlite_rpc::proto::ca::node_ca_server::NodeCa;
use swarmlite_rpc::proto::ca::*;
use swarmlite_rpc::proto::logs::logs_server::Logs;
use swarmlite_rpc::proto::logs::*;
use swarmlite_rpc::{ServerLimits, logs_client, logs_server, node_ca_client, node_ca_server};
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

/// Streams that stand still on one connection: as many as a node's agent serves.
const STREAMS: usize = 128;
/// Bytes of a message.
const MESSAGE_BYTES: usize = 64 << 10;

fn batch() -> LogBatch {
    let line = LogLine { stream: 1, data: vec![b'x'; MESSAGE_BYTES], ..LogLine::default() };
    LogBatch { lines: vec![line], ..LogBatch::default() }
}

/// Reads nothing that is published, and relays more than anybody reads.
#[derive(Clone)]
struct Still {
    sent: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Logs for Still {
    type ListenStream = Pin<Box<dyn Stream<Item = Result<SubscriptionMessage, Status>> + Send>>;
    type RelayStream = Pin<Box<dyn Stream<Item = Result<LogBatch, Status>> + Send>>;

    async fn listen(&self, _: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }

    async fn publish(&self, request: Request<Streaming<PublishRequest>>) -> Result<Response<PublishResponse>, Status> {
        let _never_read = request.into_inner();
        std::future::pending().await
    }

    async fn relay(&self, _: Request<Subscription>) -> Result<Response<Self::RelayStream>, Status> {
        let sent = self.sent.clone();
        let endless = tokio_stream::iter(std::iter::repeat_with(move || {
            sent.fetch_add(1, Ordering::SeqCst);
            Ok(batch())
        }));
        Ok(Response::new(Box::pin(endless)))
    }
}

struct Authority;

#[tonic::async_trait]
impl NodeCa for Authority {
    async fn get_root_certificate(
        &self,
        _: Request<GetRootCertificateRequest>,
    ) -> Result<Response<GetRootCertificateResponse>, Status> {
        Err(Status::unimplemented("nobody joins"))
    }

    async fn issue_node_certificate(
        &self,
        _: Request<IssueNodeCertificateRequest>,
    ) -> Result<Response<IssueNodeCertificateResponse>, Status> {
        Err(Status::unimplemented("nobody joins"))
    }

    async fn renew_node_certificate(
        &self,
        _: Request<RenewNodeCertificateRequest>,
    ) -> Result<Response<RenewNodeCertificateResponse>, Status> {
        Ok(Response::new(RenewNodeCertificateResponse { role: "heard".into(), ..Default::default() }))
    }
}

async fn world() -> (World, Still, Channel) {
    let world = World::new();
    let still = Still { sent: Arc::default() };
    let routes = Routes::new(node_ca_server(Authority)).add_service(logs_server(still.clone()));
    world.serve(MANAGER_ADDR, world.member('m', Role::Manager), routes, ServerLimits::default()).await;
    let channel = world.channels(Some(world.member('n', Role::Manager))).manager(MANAGER_ADDR).unwrap();
    (world, still, channel)
}

/// Waits until every stream has sent what fits and nothing moves any more.
async fn stand_still(sent: &AtomicUsize) {
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::SeqCst);
        if now == last && now >= STREAMS {
            return;
        }
        last = now;
    }
}

async fn is_heard(channel: Channel) {
    let mut client = node_ca_client(channel);
    let call = client.renew_node_certificate(RenewNodeCertificateRequest::default());
    let heard = tokio::time::timeout(Duration::from_secs(10), call).await;
    assert_eq!(heard.expect("the connection still moves").unwrap().into_inner().role, "heard");
}

#[tokio::test]
async fn what_a_manager_does_not_read_keeps_no_other_call_waiting() {
    let (world, _, channel) = world().await;
    let sent = Arc::new(AtomicUsize::new(0));
    for _ in 0..STREAMS {
        let (channel, sent) = (channel.clone(), sent.clone());
        let endless = tokio_stream::iter(std::iter::repeat_with(move || {
            sent.fetch_add(1, Ordering::SeqCst);
            PublishRequest { subscription_id: "s".into(), batch: Some(batch()) }
        }));
        world.tasks.spawn("publish", async move { drop(logs_client(channel).publish(endless).await) });
    }
    stand_still(&sent).await;
    is_heard(channel).await;
}

#[tokio::test]
async fn what_a_caller_does_not_read_keeps_no_other_call_waiting() {
    let (_world, still, channel) = world().await;
    let mut unread = Vec::new();
    for _ in 0..STREAMS {
        unread.push(logs_client(channel.clone()).relay(Subscription::default()).await.unwrap().into_inner());
    }
    stand_still(&still.sent).await;
    is_heard(channel).await;
    assert!(unread[0].next().await.is_some_and(|m| m.is_ok()), "and whoever reads on gets the rest");
}
