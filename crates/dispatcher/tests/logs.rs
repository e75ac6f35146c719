//! Task output, from an agent's publication to a reader on any manager.

mod common;

use async_trait::async_trait;
use common::{Manager, Session, as_node, id};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rpc::proto::logs::logs_client::LogsClient;
use rpc::proto::logs::logs_server::LogsServer;
use rpc::proto::logs::subscription_message::Body;
use rpc::proto::logs::{
    ListenRequest, LogBatch, LogLine, LogOptions, PublishRequest, Subscription, SubscriptionMessage,
};
use std::sync::Arc;
use std::time::Duration;
use swarmlite_dispatcher::{LogBroker, LogError, OtherManagers};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// The other managers' brokers.
#[derive(Default)]
struct Others(Vec<(String, LogBroker)>);

#[async_trait]
impl OtherManagers for Others {
    fn addrs(&self) -> Vec<String> {
        self.0.iter().map(|(addr, _)| addr.clone()).collect()
    }

    async fn relay(
        &self,
        addr: &str,
        what: Subscription,
    ) -> Result<BoxStream<'static, Result<LogBatch, Status>>, Status> {
        let (_, broker) = self.0.iter().find(|(a, _)| a == addr).expect("one of ours");
        let mut client = LogsClient::new(LogsServer::with_interceptor(broker.clone(), as_node(9)));
        Ok(client.relay(what).await?.into_inner().boxed())
    }
}

type Client = LogsClient<tonic::service::interceptor::InterceptedService<LogsServer<LogBroker>, Intercept>>;
type Intercept = Box<dyn FnMut(tonic::Request<()>) -> Result<tonic::Request<()>, Status> + Send + Sync>;

fn broker(manager: &Manager, others: Others) -> LogBroker {
    LogBroker::new(manager.dispatcher.clone(), Arc::new(others), Arc::new(common::Counting::default()), &manager.tasks)
}

fn client(broker: &LogBroker, n: u64) -> Client {
    LogsClient::new(LogsServer::with_interceptor(broker.clone(), as_node(n)))
}

async fn listen(client: &mut Client, session: &Session) -> Streaming<SubscriptionMessage> {
    client.listen(ListenRequest { session_id: session.id.clone() }).await.expect("the session is good").into_inner()
}

async fn opened(listener: &mut Streaming<SubscriptionMessage>) -> Subscription {
    match listener.message().await.unwrap().unwrap().body {
        Some(Body::Open(subscription)) => subscription,
        other => panic!("unexpected {other:?}"),
    }
}

fn batch(text: &str, end: bool) -> LogBatch {
    let line = LogLine { stream: 1, at_unix_ns: 7, data: text.as_bytes().to_vec(), ..Default::default() };
    LogBatch { lines: vec![line], error: String::new(), end }
}

fn request(id: &str, batch: LogBatch) -> PublishRequest {
    PublishRequest { subscription_id: id.to_owned(), batch: Some(batch) }
}

/// An agent's publication under way.
fn publish(
    manager: &Manager,
    mut client: Client,
) -> (mpsc::Sender<PublishRequest>, tokio::sync::oneshot::Receiver<Code>) {
    let (sender, receiver) = mpsc::channel(4);
    let (done, outcome) = tokio::sync::oneshot::channel();
    manager.tasks.spawn("publish", async move {
        let code = client.publish(ReceiverStream::new(receiver)).await.map_or_else(|s| s.code(), |_| Code::Ok);
        done.send(code).expect("the test waits");
    });
    (sender, outcome)
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_the_lines_in_order_and_the_end() {
    let manager = Manager::start().await;
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    let broker = broker(&manager, Others::default());
    let mut listener = listen(&mut client(&broker, 1), &session).await;
    let mut reader = broker.subscribe(id(10), id(1), LogOptions { stdout: true, tail: -1, ..Default::default() });
    let subscription = opened(&mut listener).await;
    assert_eq!(
        (subscription.task_id.as_str(), subscription.options.unwrap().stdout),
        (id::<model::TaskId>(10).as_str(), true)
    );
    let (lines, outcome) = publish(&manager, client(&broker, 1));
    for n in 0..100 {
        // More than any buffer holds: a slow reader slows the agent down.
        let sent = lines.send(request(&subscription.id, batch(&format!("line {n}\n"), n == 99)));
        let (_, got) = tokio::join!(sent, reader.next());
        assert_eq!(got.unwrap().unwrap()[0].data, format!("line {n}\n").as_bytes());
    }
    assert_eq!(reader.next().await, None);
    assert_eq!(outcome.await.unwrap(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_reader_on_another_manager_is_relayed() {
    let (near, far) = (Manager::start().await, Manager::start().await);
    let session = Session::open(&mut far.client(2)).await.unwrap();
    let theirs = broker(&far, Others::default());
    let mut listener = listen(&mut client(&theirs, 2), &session).await;
    let silent = broker(&near, Others::default());
    let ours = broker(&near, Others(vec![("a:1".into(), silent), ("b:1".into(), theirs.clone())]));
    let mut reader = ours.subscribe(id(10), id(2), LogOptions::default());
    let subscription = opened(&mut listener).await;
    let (lines, _outcome) = publish(&far, client(&theirs, 2));
    lines.send(request(&subscription.id, batch("x\n", true))).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap()[0].data, b"x\n");
    assert_eq!(reader.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_ends_the_subscription() {
    let manager = Manager::start().await;
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    let broker = broker(&manager, Others::default());
    let mut listener = listen(&mut client(&broker, 1), &session).await;
    let reader = broker.subscribe(id(10), id(1), LogOptions { follow: true, ..Default::default() });
    let subscription = opened(&mut listener).await;
    let (lines, outcome) = publish(&manager, client(&broker, 1));
    lines.send(request(&subscription.id, batch("x\n", false))).await.unwrap();
    drop(reader);
    let closed = listener.message().await.unwrap().unwrap();
    assert_eq!(closed.body, Some(Body::Close(subscription.id)));
    assert_eq!(outcome.await.unwrap(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_lost_is_said_so() {
    let manager = Manager::start().await;
    let broker = broker(&manager, Others::default());
    let mut nobody = broker.subscribe(id(10), id(1), LogOptions::default());
    assert_eq!(nobody.next().await, Some(Err(LogError::NodeUnavailable(id(1)))));
    assert_eq!(nobody.next().await, None);
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    let mut listener = listen(&mut client(&broker, 1), &session).await;
    let mut reader = broker.subscribe(id(10), id(1), LogOptions::default());
    let subscription = opened(&mut listener).await;
    let (lines, _outcome) = publish(&manager, client(&broker, 1));
    lines.send(request(&subscription.id, batch("x\n", false))).await.unwrap();
    assert!(reader.next().await.unwrap().is_ok());
    drop(lines);
    let error = reader.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("stopped sending"), "{error}");
    // One that hears of the subscription and does nothing.
    let mut reader = broker.subscribe(id(10), id(1), LogOptions::default());
    session.beat(&manager.tasks);
    let error = tokio::time::timeout(Duration::from_secs(11), reader.next()).await.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains("did not begin"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn only_the_node_itself_publishes_and_listens() {
    let manager = Manager::start().await;
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    let broker = broker(&manager, Others::default());
    let foreign = client(&broker, 2).listen(ListenRequest { session_id: session.id.clone() }).await;
    assert_eq!(foreign.unwrap_err().code(), Code::FailedPrecondition);
    let mut listener = listen(&mut client(&broker, 1), &session).await;
    let _reader = broker.subscribe(id(10), id(1), LogOptions::default());
    let subscription = opened(&mut listener).await;
    let (lines, outcome) = publish(&manager, client(&broker, 2));
    lines.send(request(&subscription.id, batch("forged\n", false))).await.unwrap();
    assert_eq!(outcome.await.unwrap(), Code::PermissionDenied);
    let (lines, outcome) = publish(&manager, client(&broker, 1));
    lines.send(request("unknown", batch("x\n", false))).await.unwrap();
    assert_eq!(outcome.await.unwrap(), Code::NotFound);
}
