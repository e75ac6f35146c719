//! Task statuses on their way to the store.

mod common;

use common::{Client, Manager, Session, id, task};
use model::{ContainerStatus, TaskId, TaskState, TaskStatus};
use rpc::proto::dispatcher::{TaskStatusUpdate, UpdateTaskStatusRequest};
use std::time::Duration;
use store::StoreClient as _;
use tonic::{Code, Status};

async fn report(client: &mut Client, session: &Session, updates: &[(u64, TaskStatus)]) -> Result<(), Status> {
    let updates = updates
        .iter()
        .map(|(task, status)| TaskStatusUpdate {
            task_id: id::<TaskId>(*task).to_string(),
            status: rmp_serde::to_vec_named(status).expect("encodes"),
        })
        .collect();
    client.update_task_status(UpdateTaskStatusRequest { session_id: session.id.clone(), updates }).await.map(drop)
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus { state, ..Default::default() }
}

fn observed(manager: &Manager, task: u64) -> TaskState {
    manager.store.local().task(&id(task)).expect("it is there").status.state
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_status_is_committed_and_never_goes_back() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    manager.put([task(10, 1, TaskState::Assigned)]).await;
    report(&mut client, &session, &[(10, status(TaskState::Preparing)), (10, status(TaskState::Running))])
        .await
        .unwrap();
    assert_eq!(observed(&manager, 10), TaskState::Running);
    // Sent again by an agent that did not hear the answer.
    report(&mut client, &session, &[(10, status(TaskState::Preparing))]).await.unwrap();
    assert_eq!(observed(&manager, 10), TaskState::Running);
    report(&mut client, &session, &[(10, status(TaskState::Failed))]).await.unwrap();
    report(&mut client, &session, &[(10, status(TaskState::Rejected))]).await.unwrap();
    assert_eq!(observed(&manager, 10), TaskState::Failed);
}

#[tokio::test(start_paused = true)]
async fn the_desired_state_stays_what_it_is() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    let mut stopping = task(10, 1, TaskState::Running);
    stopping.desired = TaskState::Shutdown;
    stopping.status.err = "assigned node no longer meets constraints".into();
    manager.put([stopping]).await;
    report(&mut client, &session, &[(10, status(TaskState::Shutdown))]).await.unwrap();
    let snapshot = manager.store.local();
    let task = snapshot.task(&id(10)).unwrap();
    assert_eq!((task.desired, task.status.state), (TaskState::Shutdown, TaskState::Shutdown));
    assert_eq!(task.status.err, "assigned node no longer meets constraints", "and so does the reason");
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_may_not_say_is_refused() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    manager.put([task(10, 1, TaskState::Assigned), task(20, 2, TaskState::Assigned)]).await;
    let table = [
        ("another node's task", 20, TaskState::Running, Code::PermissionDenied),
        ("orphaned", 10, TaskState::Orphaned, Code::InvalidArgument),
        ("remove", 10, TaskState::Remove, Code::InvalidArgument),
        ("pending", 10, TaskState::Pending, Code::InvalidArgument),
    ];
    for (what, task, state, code) in table {
        let error = report(&mut client, &session, &[(task, status(state))]).await.unwrap_err();
        assert_eq!(error.code(), code, "{what}");
    }
    let junk = TaskStatusUpdate { task_id: id::<TaskId>(10).to_string(), status: vec![0xc1; 9] };
    let request = UpdateTaskStatusRequest { session_id: session.id.clone(), updates: vec![junk] };
    assert_eq!(client.update_task_status(request).await.unwrap_err().code(), Code::InvalidArgument);
    let other = UpdateTaskStatusRequest { session_id: "x".into(), updates: Vec::new() };
    assert_eq!(client.update_task_status(other).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!((observed(&manager, 10), observed(&manager, 20)), (TaskState::Assigned, TaskState::Assigned));
    // A task that is gone is no error: the agent will hear of it.
    report(&mut client, &session, &[(99, status(TaskState::Running))]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_text_is_cut() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    manager.put([task(10, 1, TaskState::Assigned)]).await;
    let novel = TaskStatus { err: "ä".repeat(5000), ..status(TaskState::Failed) };
    report(&mut client, &session, &[(10, novel)]).await.unwrap();
    assert_eq!(manager.store.local().task(&id(10)).unwrap().status.err.len(), model::limits::STATUS_TEXT_BYTES_MAX);
}

#[tokio::test(start_paused = true)]
async fn attack_07_a_text_commands_no_terminal() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    manager.put([task(10, 1, TaskState::Assigned)]).await;
    let err = "exit\tcode 1\n\u{1b}]52;c;bHM=\u{7}\u{9b}2Jend\r\0".to_owned();
    report(&mut client, &session, &[(10, TaskStatus { err, ..status(TaskState::Failed) })]).await.unwrap();
    assert_eq!(manager.store.local().task(&id(10)).unwrap().status.err, "exit\tcode 1\n]52;c;bHM=2Jend");
    // Neither does a host name.
    session.requests.send(common::description("h\u{1b}]52;c;bHM=\u{7}\n1")).await.unwrap();
    let hostname = |s: &store::Snapshot| s.node(&id(1)).and_then(|n| n.description.clone()).map(|d| d.hostname);
    manager.until(|s| hostname(s).is_some_and(|h| h != "host")).await;
    assert_eq!(hostname(&manager.store.local()).as_deref(), Some("h]52;c;bHM=1"));
}

#[tokio::test(start_paused = true)]
async fn attack_07_a_container_is_called_by_an_id_of_an_engine_or_not_at_all() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    manager.put((10..14).map(|n| task(n, 1, TaskState::Assigned))).await;
    let good = "0af".repeat(20);
    for (n, claimed, known) in [
        (10, good.clone(), Some(good)),
        (11, "database-of-a-manager".into(), None),
        (12, "../x".into(), None),
        (13, "a".repeat(5000), None),
    ] {
        let container = Some(ContainerStatus { id: claimed.clone(), ..ContainerStatus::default() });
        report(&mut client, &session, &[(n, TaskStatus { container, ..status(TaskState::Running) })]).await.unwrap();
        let status = manager.store.local().task(&id(n)).unwrap().status.clone();
        assert_eq!((status.state, status.container.map(|c| c.id)), (TaskState::Running, known), "{claimed:.20}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_the_agent_is_told_to_try_again() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    session.beat(&manager.tasks);
    manager.put([task(10, 1, TaskState::Assigned)]).await;
    *manager.way.cut.lock() = true;
    let error = report(&mut client, &session, &[(10, status(TaskState::Running))]).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    // And a short time without one is only a delay.
    let mut other = manager.client(1);
    let running = [(10, status(TaskState::Running))];
    let (outcome, ()) = tokio::join!(report(&mut other, &session, &running), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        *manager.way.cut.lock() = false;
    });
    outcome.unwrap();
    assert_eq!(observed(&manager, 10), TaskState::Running);
}

#[tokio::test(start_paused = true)]
async fn many_statuses_of_many_nodes_make_few_commits() {
    let manager = Manager::start().await;
    let mut sessions = Vec::new();
    for n in 1..=3 {
        let mut client = manager.client(n);
        let session = Session::open(&mut client).await.unwrap();
        sessions.push((n, client, session));
    }
    manager.put((0..300).map(|t| task(1000 + t, t % 3 + 1, TaskState::Assigned))).await;
    manager.until(|s| s.nodes().all(|n| n.status.state == model::NodeState::Ready)).await;
    let before = manager.store.local().index();
    let all = sessions.iter_mut().map(async |(n, client, session)| {
        let of_node: Vec<_> =
            (0..300).filter(|t| t % 3 + 1 == *n).map(|t| (1000 + t, status(TaskState::Running))).collect();
        for one in of_node.chunks(20) {
            report(client, session, one).await.unwrap();
        }
    });
    futures::future::join_all(all).await;
    assert!(manager.store.local().tasks().all(|t| t.status.state == TaskState::Running));
    let commits = manager.store.local().index() - before;
    assert!(commits <= 15, "{commits} commits for 15 requests");
}
