//! Calls to the containers of a node, from a caller on any manager to the node's agent and back.

mod common;

use async_trait::async_trait;
use common::{Manager, Session, as_node, id};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rpc::proto::exec::agent_message::Body;
use rpc::proto::exec::call::What;
use rpc::proto::exec::exec_client::ExecClient;
use rpc::proto::exec::exec_server::ExecServer;
use rpc::proto::exec::{
    AgentMessage, Call, End, Failure, InputEnd, Inspect, ListenRequest, ManagerMessage, Started, manager_message,
};
use std::sync::Arc;
use std::time::Duration;
use swarmlite_dispatcher::{Conversation, ExecBroker, ExecError, OtherExecManagers};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// The other managers' brokers.
#[derive(Default)]
struct Others(Vec<(String, ExecBroker)>);

#[async_trait]
impl OtherExecManagers for Others {
    fn addrs(&self) -> Vec<String> {
        self.0.iter().map(|(addr, _)| addr.clone()).collect()
    }

    async fn relay(
        &self,
        addr: &str,
        messages: ReceiverStream<ManagerMessage>,
    ) -> Result<BoxStream<'static, Result<AgentMessage, Status>>, Status> {
        let (_, broker) = self.0.iter().find(|(a, _)| a == addr).expect("one of ours");
        Ok(client(broker, 9).relay(messages).await?.into_inner().boxed())
    }
}

type Client = ExecClient<tonic::service::interceptor::InterceptedService<ExecServer<ExecBroker>, Intercept>>;
type Intercept = Box<dyn FnMut(tonic::Request<()>) -> Result<tonic::Request<()>, Status> + Send + Sync>;

fn broker(manager: &Manager, others: Others) -> ExecBroker {
    ExecBroker::new(manager.dispatcher.clone(), Arc::new(others), Arc::new(common::Counting::default()), &manager.tasks)
}

fn client(broker: &ExecBroker, n: u64) -> Client {
    ExecClient::new(ExecServer::with_interceptor(broker.clone(), as_node(n)))
}

fn a_call() -> Call {
    Call { id: String::new(), what: Some(What::Inspect(Inspect { container_id: "abc".into() })) }
}

fn says(body: Body) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

fn input(bytes: &[u8]) -> ManagerMessage {
    ManagerMessage { body: Some(manager_message::Body::Input(bytes.to_vec())) }
}

async fn listen(broker: &ExecBroker, n: u64, session: &Session) -> Streaming<Call> {
    let request = ListenRequest { session_id: session.id.clone() };
    client(broker, n).listen(request).await.expect("the session is good").into_inner()
}

/// An agent that answers a call: what it says, and what it hears.
async fn answer(
    broker: &ExecBroker,
    n: u64,
    call: &str,
) -> Result<(mpsc::Sender<AgentMessage>, Streaming<ManagerMessage>), Status> {
    let (say, said) = mpsc::channel(4);
    say.send(says(Body::CallId(call.to_owned()))).await.expect("it has room");
    Ok((say, client(broker, n).answer(ReceiverStream::new(said)).await?.into_inner()))
}

/// Everything that a manager's user hears, as text.
async fn heard(conversation: &mut Conversation) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(message) = conversation.output.next().await {
        all.push(match message.map(|m| m.body.expect("a body")) {
            Ok(Body::Started(_)) => "started".into(),
            Ok(Body::Output(bytes)) => String::from_utf8(bytes).expect("text"),
            Ok(Body::End(_)) => "end".into(),
            Ok(Body::Failure(f)) => format!("failure {}: {}", f.status, f.message),
            Ok(other) => panic!("unexpected {other:?}"),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        });
    }
    all
}

/// An agent that listens and gives back what it hears, in capitals, until there is no more input.
fn echo(manager: &Manager, broker: &ExecBroker, n: u64, mut calls: Streaming<Call>) {
    let broker = broker.clone();
    manager.tasks.spawn("echo", async move {
        while let Ok(Some(call)) = calls.message().await {
            let (say, mut hear) = answer(&broker, n, &call.id).await.expect("it is its call");
            say.send(says(Body::Started(Started {}))).await.expect("somebody listens");
            while let Ok(Some(ManagerMessage { body: Some(body) })) = hear.message().await {
                let body = match body {
                    manager_message::Body::Input(bytes) => Body::Output(bytes.to_ascii_uppercase()),
                    _ => break,
                };
                say.send(says(body)).await.expect("somebody listens");
            }
            say.send(says(Body::End(End {}))).await.expect("somebody listens");
        }
    });
}

async fn talk(mut conversation: Conversation) -> Vec<String> {
    for word in ["a", "b"] {
        conversation.input.send(input(word.as_bytes())).await.expect("it listens");
    }
    let end = ManagerMessage { body: Some(manager_message::Body::InputEnd(InputEnd {})) };
    conversation.input.send(end).await.expect("it listens");
    heard(&mut conversation).await
}

#[tokio::test(start_paused = true)]
async fn a_call_reaches_the_nodes_agent_and_is_answered() {
    let manager = Manager::start().await;
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    let broker = broker(&manager, Others::default());
    echo(&manager, &broker, 1, listen(&broker, 1, &session).await);
    for _ in 0..2 {
        let conversation = broker.call(&id(1), a_call()).await.expect("it is here");
        assert_eq!(talk(conversation).await, ["started", "A", "B", "end"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_from_another_manager_is_relayed_and_only_one_gets_it() {
    let (near, far) = (Manager::start().await, Manager::start().await);
    let session = Session::open(&mut far.client(2)).await.unwrap();
    let theirs = broker(&far, Others::default());
    let calls = listen(&theirs, 2, &session).await;
    let silent = broker(&near, Others::default());
    // The same manager under two addresses: both say that they have the agent.
    let others = Others(vec![("a:1".into(), silent), ("b:1".into(), theirs.clone()), ("c:1".into(), theirs.clone())]);
    let ours = broker(&near, others);
    let counted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (told, all) = mpsc::channel(8);
    let counting = Arc::clone(&counted);
    far.tasks.spawn("count", async move {
        let mut calls = calls;
        while let Ok(Some(call)) = calls.message().await {
            counting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            told.send(call).await.expect("the test waits");
        }
    });
    let mut all = all;
    let mut conversation = ours.call(&id(2), a_call()).await.expect("it is there");
    let call = all.recv().await.expect("it came");
    let (say, mut hear) = answer(&theirs, 2, &call.id).await.expect("it is its call");
    conversation.input.send(input(b"x")).await.expect("it listens");
    let got = hear.message().await.unwrap().unwrap();
    assert_eq!(got.body, Some(manager_message::Body::Input(b"x".to_vec())));
    for body in [Body::Started(Started {}), Body::Output(b"y".to_vec()), Body::End(End {})] {
        say.send(says(body)).await.expect("somebody listens");
    }
    assert_eq!(heard(&mut conversation).await, ["started", "y", "end"]);
    assert_eq!(counted.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_ends_the_call_here_and_through_a_relay() {
    let (near, far) = (Manager::start().await, Manager::start().await);
    let session = Session::open(&mut far.client(2)).await.unwrap();
    let theirs = broker(&far, Others::default());
    let mut calls = listen(&theirs, 2, &session).await;
    let ours = broker(&near, Others(vec![("b:1".into(), theirs.clone())]));
    for caller in [&theirs, &ours] {
        let mut conversation = caller.call(&id(2), a_call()).await.expect("it is there");
        let call = calls.message().await.unwrap().unwrap();
        let (say, mut hear) = answer(&theirs, 2, &call.id).await.expect("it is its call");
        say.send(says(Body::Started(Started {}))).await.expect("somebody listens");
        assert!(conversation.output.next().await.expect("it began").is_ok());
        drop(conversation);
        assert!(hear.message().await.is_ok_and(|m| m.is_none()), "the agent hears that the caller has gone");
        say.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_for_an_agent() {
    let manager = Manager::start().await;
    let broker = broker(&manager, Others::default());
    let nobody = broker.call(&id(1), a_call()).await.err();
    assert_eq!(nobody, Some(ExecError::NodeUnavailable(id(1))));
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    session.beat(&manager.tasks);
    let mut calls = listen(&broker, 1, &session).await;
    // One that hears of the call and does nothing.
    let began = Instant::now();
    let mut conversation = broker.call(&id(1), a_call()).await.expect("it listens");
    let silent = heard(&mut conversation).await;
    assert!(silent[0].contains("did not answer in time") && began.elapsed() < Duration::from_secs(10), "{silent:?}");
    let late = answer(&broker, 1, &calls.message().await.unwrap().unwrap().id).await;
    assert_eq!(late.err().map(|s| s.code()), Some(Code::NotFound));
    // One that is lost in the middle.
    let mut conversation = broker.call(&id(1), a_call()).await.expect("it listens");
    let call = calls.message().await.unwrap().unwrap();
    let (say, hear) = answer(&broker, 1, &call.id).await.expect("it is its call");
    say.send(says(Body::Started(Started {}))).await.expect("somebody listens");
    drop((say, hear));
    let lost = heard(&mut conversation).await;
    assert_eq!(lost[0], "started");
    assert!(lost[1].contains("was lost"), "{lost:?}");
    // One that refuses.
    let mut conversation = broker.call(&id(1), a_call()).await.expect("it listens");
    let call = calls.message().await.unwrap().unwrap();
    let (say, _hear) = answer(&broker, 1, &call.id).await.expect("it is its call");
    say.send(says(Body::Failure(Failure { status: 404, message: "none".into() }))).await.expect("somebody listens");
    assert_eq!(heard(&mut conversation).await, ["failure 404: none"]);
}

#[tokio::test(start_paused = true)]
async fn attack_07_a_node_neither_hears_nor_answers_calls_to_another() {
    let manager = Manager::start().await;
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    let broker = broker(&manager, Others::default());
    let foreign = client(&broker, 2).listen(ListenRequest { session_id: session.id.clone() }).await;
    assert_eq!(foreign.unwrap_err().code(), Code::FailedPrecondition);
    let mut calls = listen(&broker, 1, &session).await;
    let mut conversation = broker.call(&id(1), a_call()).await.expect("it listens");
    let call = calls.message().await.unwrap().unwrap();
    let forged = answer(&broker, 2, &call.id).await;
    assert_eq!(forged.err().map(|s| s.code()), Some(Code::PermissionDenied));
    let (say, _hear) = answer(&broker, 1, &call.id).await.expect("it is its call");
    let twice = answer(&broker, 1, &call.id).await;
    assert_eq!(twice.err().map(|s| s.code()), Some(Code::NotFound), "a call is answered once");
    say.send(says(Body::End(End {}))).await.expect("somebody listens");
    assert_eq!(heard(&mut conversation).await, ["end"]);
}

#[tokio::test(start_paused = true)]
async fn calls_are_bounded_and_free_when_they_are_over() {
    let manager = Manager::start().await;
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    session.beat(&manager.tasks);
    let broker = broker(&manager, Others::default());
    let mut calls = listen(&broker, 1, &session).await;
    let mut open = Vec::new();
    let refused = loop {
        match broker.call(&id(1), a_call()).await {
            Ok(conversation) => open.push((conversation, calls.message().await.unwrap().unwrap())),
            Err(error) => break error,
        }
        assert!(open.len() < 10_000);
    };
    assert_eq!(refused, ExecError::TooMany);
    open.pop();
    assert!(broker.call(&id(1), a_call()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_read_for_a_while_is_reached_again_afterwards() {
    let manager = Manager::start().await;
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    session.beat(&manager.tasks);
    let broker = broker(&manager, Others::default());
    let mut calls = listen(&broker, 1, &session).await;
    let mut unread = Vec::new();
    let refused = loop {
        match broker.call(&id(1), a_call()).await {
            Ok(conversation) => unread.push(conversation),
            Err(error) => break error,
        }
        assert!(unread.len() < 1000);
    };
    assert_eq!(refused, ExecError::NodeUnavailable(id(1)));
    for _ in &unread {
        calls.message().await.unwrap().unwrap();
    }
    unread.clear();
    let mut conversation = broker.call(&id(1), a_call()).await.expect("it reads again");
    let call = calls.message().await.unwrap().unwrap();
    let (say, _hear) = answer(&broker, 1, &call.id).await.expect("it is its call");
    say.send(says(Body::End(End {}))).await.expect("somebody listens");
    assert_eq!(heard(&mut conversation).await, ["end"]);
}
