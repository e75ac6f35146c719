//! Attacks of one node on another, named after the points of the attack list.

mod common;

use async_trait::async_trait;
use common::{Counting, Manager, Session, as_node, id};
use futures::stream::BoxStream;
use model::TaskState;
use rpc::proto::dispatcher::{AssignmentsRequest, TaskStatusUpdate, UpdateTaskStatusRequest};
use rpc::proto::logs::logs_client::LogsClient;
use rpc::proto::logs::logs_server::LogsServer;
use rpc::proto::logs::{ListenRequest, LogBatch, LogOptions, PublishRequest, Subscription};
use std::sync::Arc;
use store::StoreClient as _;
use swarmlite_dispatcher::{LogBroker, OtherManagers};
use tonic::{Code, Status};

struct Alone;

#[async_trait]
impl OtherManagers for Alone {
    fn addrs(&self) -> Vec<String> {
        Vec::new()
    }
    async fn relay(&self, _: &str, _: Subscription) -> Result<BoxStream<'static, Result<LogBatch, Status>>, Status> {
        Err(Status::unavailable("there is none"))
    }
}

#[tokio::test(start_paused = true)]
async fn attack_07_a_node_speaks_only_for_itself_even_with_the_session_of_another() {
    let manager = Manager::start().await;
    manager.put([common::task(10, 1, TaskState::Assigned), common::task(20, 2, TaskState::Assigned)]).await;
    let (mut one, mut two) = (manager.client(1), manager.client(2));
    let own = Session::open(&mut one).await.expect("a session");
    let stolen = Session::open(&mut two).await.expect("a session");
    let failed = model::TaskStatus { state: TaskState::Failed, ..Default::default() };
    let says = |session: &Session, task: u64| UpdateTaskStatusRequest {
        session_id: session.id.clone(),
        updates: vec![TaskStatusUpdate {
            task_id: id::<model::TaskId>(task).to_string(),
            status: rmp_serde::to_vec_named(&failed).expect("encodes"),
        }],
    };
    // The other's task in its own session; both tasks in the other's session.
    for (what, request) in [
        ("another's task", says(&own, 20)),
        ("another's task in another's session", says(&stolen, 20)),
        ("its own task in another's session", says(&stolen, 10)),
    ] {
        let refused = one.update_task_status(request).await.expect_err("refused").code();
        assert!(matches!(refused, Code::PermissionDenied | Code::FailedPrecondition), "{what}: {refused:?}");
    }
    let request = AssignmentsRequest { session_id: stolen.id.clone(), ..Default::default() };
    let refused = one.assignments(request).await.expect_err("it does not see what the other runs").code();
    assert!(matches!(refused, Code::PermissionDenied | Code::FailedPrecondition), "{refused:?}");
    for task in [10, 20] {
        assert_eq!(manager.store.local().task(&id(task)).expect("the task").status.state, TaskState::Assigned);
    }
}

#[tokio::test(start_paused = true)]
async fn attack_07_a_node_neither_hears_nor_answers_log_requests_of_another() {
    let manager = Manager::start().await;
    let stolen = Session::open(&mut manager.client(2)).await.expect("a session");
    let broker =
        LogBroker::new(manager.dispatcher.clone(), Arc::new(Alone), Arc::new(Counting::default()), &manager.tasks);
    let mut one = LogsClient::new(LogsServer::with_interceptor(broker.clone(), as_node(1)));
    let mut two = LogsClient::new(LogsServer::with_interceptor(broker.clone(), as_node(2)));
    let refused =
        one.listen(ListenRequest { session_id: stolen.id.clone() }).await.expect_err("not its session").code();
    assert!(matches!(refused, Code::PermissionDenied | Code::FailedPrecondition), "{refused:?}");
    // A reader waits for node 2's output; node 1 knows the subscription and sends its own.
    let mut listener = two.listen(ListenRequest { session_id: stolen.id }).await.expect("its own").into_inner();
    let _reader = broker.subscribe(id(20), id(2), LogOptions { stdout: true, tail: -1, ..Default::default() });
    let opened = listener.message().await.expect("no error").expect("a message").body.expect("a body");
    let rpc::proto::logs::subscription_message::Body::Open(subscription) = opened else { panic!("{opened:?}") };
    let forged = PublishRequest { subscription_id: subscription.id, batch: Some(LogBatch::default()) };
    let refused = one.publish(tokio_stream::iter([forged])).await.expect_err("not its subscription").code();
    assert!(matches!(refused, Code::PermissionDenied | Code::NotFound), "{refused:?}");
}
