//! An agent that sends what no agent would.

mod common;

use common::{Manager, as_node, description, id, task};
use model::{TaskId, TaskState};
use rpc::proto::dispatcher::dispatcher_client::DispatcherClient;
use rpc::proto::dispatcher::dispatcher_server::DispatcherServer;
use rpc::proto::dispatcher::session_request::Body;
use rpc::proto::dispatcher::{SessionRequest, TaskStatusUpdate, UpdateTaskStatusRequest};
use tonic::{Code, Status};

/// Deeper than any stack: a map with a field that nobody knows, and arrays in arrays below it.
fn bomb() -> Vec<u8> {
    let mut bytes = b"\x81\xa5bogus".to_vec();
    bytes.extend(std::iter::repeat_n(0x91, 30_000));
    bytes.push(0xc0);
    bytes
}

fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", Vec::new()),
        ("a depth bomb", bomb()),
        ("a length that lies", b"\xdf\xff\xff\xff\xff".to_vec()),
        ("a string that lies", b"\x81\xdb\xff\xff\xff\xffx".to_vec()),
        ("a number", vec![7]),
        ("what is never used", vec![0xc1]),
    ]
}

async fn open(manager: &Manager, first: SessionRequest) -> Result<(), Status> {
    let mut client = manager.client(1);
    let mut messages = client.session(tokio_stream::iter([first])).await?.into_inner();
    messages.message().await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn attack_15_a_description_that_cannot_be_read_is_refused_and_ends_nothing() {
    let manager = Manager::start().await;
    for (what, bytes) in hostile() {
        let refused = open(&manager, SessionRequest { body: Some(Body::Description(bytes)) }).await;
        assert_eq!(refused.expect_err(what).code(), Code::InvalidArgument, "{what}");
    }
    // The manager is still there, for others and for this one.
    let mut other = DispatcherClient::new(DispatcherServer::with_interceptor(manager.dispatcher.clone(), as_node(2)));
    let opened = other.session(tokio_stream::iter([description("honest")])).await;
    assert!(opened.expect("a session").into_inner().message().await.expect("a message").is_some());
}

#[tokio::test(start_paused = true)]
async fn attack_15_a_status_that_cannot_be_read_changes_no_task() {
    let manager = Manager::start().await;
    manager.put([task(10, 1, TaskState::Assigned)]).await;
    let (requests, receiver) = tokio::sync::mpsc::channel(4);
    requests.send(description("host")).await.expect("it is open");
    let mut client = manager.client(1);
    let mut messages =
        client.session(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.expect("a session").into_inner();
    let session_id = messages.message().await.expect("a message").expect("the first one").session_id;
    for (what, status) in hostile() {
        let update = TaskStatusUpdate { task_id: id::<TaskId>(10).to_string(), status };
        let request = UpdateTaskStatusRequest { session_id: session_id.clone(), updates: vec![update] };
        let refused = client.update_task_status(request).await.expect_err(what);
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}: {refused}");
    }
    use store::StoreClient as _;
    let state = manager.store.local().task(&id(10)).map(|t| t.status.state);
    assert_eq!(state, Some(TaskState::Assigned));
}
