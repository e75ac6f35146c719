//! Sessions and assignment streams, through the gRPC service.

mod common;

use common::{Client, Manager, Session, heartbeat, id, task};
use model::{NodeState, Task, TaskId, TaskState};
use rpc::proto::dispatcher::assignments_message::Kind;
use rpc::proto::dispatcher::session_request::Body;
use rpc::proto::dispatcher::{AssignmentsMessage, AssignmentsRequest, Goodbye, Position, SessionRequest};
use std::time::Duration;
use store::{Change, Object, StoreClient as _, Transaction};
use tokio::time::Instant;
use tonic::{Code, Streaming};

async fn assignments(client: &mut Client, session: &Session, have: Option<Position>) -> Streaming<AssignmentsMessage> {
    let request = AssignmentsRequest { session_id: session.id.clone(), have, granted: Vec::new() };
    client.assignments(request).await.expect("the session is good").into_inner()
}

async fn next(stream: &mut Streaming<AssignmentsMessage>) -> AssignmentsMessage {
    let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    message.expect("a message comes").expect("no error").expect("no end")
}

fn put(message: &AssignmentsMessage) -> Vec<u64> {
    let tasks = message.put.iter().map(|b| rmp_serde::from_slice::<Task>(b).expect("a task"));
    tasks.map(|t| t.id.as_str().parse().expect("digits")).collect()
}

fn removed(message: &AssignmentsMessage) -> Vec<u64> {
    message.remove.iter().map(|id| id.parse().expect("digits")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_gets_its_own_tasks_whole_and_then_what_changes() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    session.beat(&manager.tasks);
    let mut stopped = task(11, 1, TaskState::Running);
    stopped.desired = TaskState::Shutdown;
    let tasks =
        [task(10, 1, TaskState::Assigned), stopped, task(12, 1, TaskState::Pending), task(13, 2, TaskState::Assigned)];
    let index = manager.put(tasks).await;
    let mut stream = assignments(&mut client, &session, None).await;
    let first = next(&mut stream).await;
    assert_eq!((first.kind(), put(&first)), (Kind::Complete, vec![10, 11]));
    assert!(first.position.unwrap().index <= index);
    tokio::time::sleep(Duration::from_secs(1)).await;

    // The first change after a quiet time goes out at once, the next are gathered.
    let quiet = Instant::now();
    manager.put([task(12, 1, TaskState::Assigned)]).await;
    let second = next(&mut stream).await;
    assert_eq!((second.kind(), put(&second), second.follows), (Kind::Incremental, vec![12], first.position));
    assert_eq!(quiet.elapsed(), Duration::ZERO);
    manager.put([task(14, 1, TaskState::Assigned)]).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    manager.remove(10).await;
    let third = next(&mut stream).await;
    assert_eq!((put(&third), removed(&third), third.follows), (vec![14], vec![10], second.position));
    assert_eq!(quiet.elapsed(), Duration::from_millis(100));
    assert!(third.position.unwrap().index >= index + 3);
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_does_not_wait() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    let mut stream = assignments(&mut client, &session, None).await;
    next(&mut stream).await;
    let start = Instant::now();
    manager.put((1000..1100).map(|n| task(n, 1, TaskState::Assigned))).await;
    assert_eq!(next(&mut stream).await.put.len(), 100);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_the_agent_itself_reported_is_not_sent_back() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    session.beat(&manager.tasks);
    manager.put([task(10, 1, TaskState::Assigned)]).await;
    let mut stream = assignments(&mut client, &session, None).await;
    next(&mut stream).await;
    manager.put([task(10, 1, TaskState::Running)]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut shutdown = task(10, 1, TaskState::Running);
    shutdown.desired = TaskState::Shutdown;
    manager.put([shutdown]).await;
    let message = next(&mut stream).await;
    let sent: Task = rmp_serde::from_slice(&message.put[0]).unwrap();
    assert_eq!((message.put.len(), sent.desired), (1, TaskState::Shutdown));
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_from_where_the_agent_was() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    session.beat(&manager.tasks);
    manager.put([task(10, 1, TaskState::Assigned), task(11, 1, TaskState::Assigned)]).await;
    let mut stream = assignments(&mut client, &session, None).await;
    let mut have = next(&mut stream).await.position;
    drop(stream);
    manager.put([task(12, 1, TaskState::Assigned), task(20, 2, TaskState::Assigned)]).await;
    manager.remove(10).await;
    manager.remove(20).await;
    let mut stream = assignments(&mut client, &session, have).await;
    let resumed = next(&mut stream).await;
    assert_eq!((resumed.kind(), resumed.follows), (Kind::Incremental, have));
    have = resumed.position;
    let mut seen = (put(&resumed), removed(&resumed));
    while have.unwrap().index < manager.store.local().index() {
        let more = next(&mut stream).await;
        assert_eq!(more.follows, have);
        have = more.position;
        seen.0.extend(put(&more));
        seen.1.extend(removed(&more));
    }
    assert_eq!(seen, (vec![12], vec![10]));
    // And again with nothing new: an empty message confirms it.
    drop(stream);
    let again = next(&mut assignments(&mut client, &session, have).await).await;
    assert_eq!((again.kind(), again.put.len(), again.remove.len()), (Kind::Incremental, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_was_away_for_longer_than_this_manager_remembers_gets_the_whole_set() {
    let manager = Manager::start().await;
    manager.put([task(10, 1, TaskState::Assigned)]).await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    // Before this manager began to remember.
    let message = next(&mut assignments(&mut client, &session, Some(Position { term: 1, index: 0 })).await).await;
    assert_eq!((message.kind(), put(&message)), (Kind::Complete, vec![10]));
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_behind_waits_and_then_sends_the_agent_away() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    session.beat(&manager.tasks);
    let index = manager.store.local().index();
    let ahead = Position { term: 1, index: index + 10 };
    let mut stream = assignments(&mut client, &session, Some(ahead)).await;
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("behind"), "{status}");
    // A leader of which this manager has not heard yet.
    let mut stream = assignments(&mut client, &session, Some(Position { term: 7, index })).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    manager.term.send_replace(7);
    assert_eq!(next(&mut stream).await.position.unwrap().term, 7);
}

#[tokio::test(start_paused = true)]
async fn strangers_are_refused_and_a_removed_node_loses_its_session() {
    let manager = Manager::start().await;
    let status = Session::open(&mut manager.client(77)).await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut client = manager.client(1);
    let mut session = Session::open(&mut client).await.unwrap();
    let foreign = AssignmentsRequest { session_id: session.id.clone(), have: None, granted: Vec::new() };
    assert_eq!(manager.client(2).assignments(foreign).await.unwrap_err().code(), Code::FailedPrecondition);
    let mut tx = Transaction::new(model::Timestamp(9));
    tx.changes.push(Change::Remove(id::<model::NodeId>(1).into()));
    manager.store.propose(tx).await.unwrap();
    let ended = loop {
        match session.messages.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(ended.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_certificate_is_refused() {
    use rpc::proto::dispatcher::dispatcher_client::DispatcherClient;
    use rpc::proto::dispatcher::dispatcher_server::DispatcherServer;
    let manager = Manager::start().await;
    let mut client = DispatcherClient::new(DispatcherServer::new(manager.dispatcher.clone()));
    let status = client.assignments(AssignmentsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn the_session_tells_what_changes_in_the_cluster() {
    let manager = Manager::start().await;
    let mut session = Session::open(&mut manager.client(1)).await.unwrap();
    session.beat(&manager.tasks);
    assert_eq!((session.first.desired_role.as_str(), session.first.heartbeat_period_ms), ("worker", 1000));
    assert_eq!((session.first.raft_heartbeat_tick, session.first.raft_election_tick), (1, 10));
    let mut node = model::Node::clone(manager.store.local().node(&id(1)).unwrap());
    node.spec.role = model::Role::Manager;
    node.manager = Some(model::ManagerStatus { raft_id: 1, addr: "10.0.0.1:2377".into() });
    let mut tx = Transaction::new(model::Timestamp(9));
    tx.changes.push(Change::Put(Object::from(node)));
    manager.store.propose(tx).await.unwrap();
    let message = session.messages.message().await.unwrap().unwrap();
    assert_eq!(message.desired_role, "manager");
    assert_eq!(message.managers.iter().map(|m| m.addr.as_str()).collect::<Vec<_>>(), ["10.0.0.1:2377"]);
    let mut cluster = model::Cluster::clone(manager.store.local().cluster().unwrap());
    cluster.spec.heartbeat_period = Duration::from_secs(3);
    cluster.spec.raft.ticks = model::RaftTicks { heartbeat: 2, election: 30 };
    let mut tx = Transaction::new(model::Timestamp(10));
    tx.changes.push(Change::Put(Object::from(cluster)));
    manager.store.propose(tx).await.unwrap();
    let message = session.messages.message().await.unwrap().unwrap();
    assert_eq!(message.heartbeat_period_ms, 3000);
    assert_eq!((message.raft_heartbeat_tick, message.raft_election_tick), (2, 30));
}

#[tokio::test(start_paused = true)]
async fn a_session_makes_the_node_ready_and_its_silence_ends_it() {
    let manager = Manager::start().await;
    let mut others = Vec::new();
    for n in [2, 3] {
        let session = Session::open(&mut manager.client(n)).await.unwrap();
        session.beat(&manager.tasks);
        others.push(session);
    }
    let mut session = Session::open(&mut manager.client(1)).await.unwrap();
    let opened = Instant::now();
    manager.until(|s| s.nodes().all(|n| n.status.state == NodeState::Ready)).await;
    assert!(opened.elapsed() < Duration::from_millis(500));
    assert_eq!(manager.store.local().node(&id(1)).unwrap().description.as_ref().unwrap().hostname, "host");
    session.requests.send(heartbeat()).await.unwrap();
    // Gossip suspects it two seconds after its last sign of life.
    tokio::time::sleep(Duration::from_secs(2)).await;
    manager.suspects.send_replace([id(1)].into());
    manager.until(|s| s.node(&id(1)).unwrap().status.state == NodeState::Down).await;
    assert!(opened.elapsed() <= Duration::from_secs(4), "{:?}", opened.elapsed());
    assert_eq!(manager.store.local().node(&id(1)).unwrap().status.message, "heartbeat failure");
    assert_eq!(session.messages.message().await.unwrap_err().code(), Code::Aborted);
    // It comes back.
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    session.beat(&manager.tasks);
    manager.until(|s| s.node(&id(1)).unwrap().status.state == NodeState::Ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_known_at_once() {
    let manager = Manager::start().await;
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    manager.until(|s| s.node(&id(1)).unwrap().status.state == NodeState::Ready).await;
    session.requests.send(SessionRequest { body: Some(Body::Goodbye(Goodbye {})) }).await.unwrap();
    let start = Instant::now();
    manager.until(|s| s.node(&id(1)).unwrap().status.state == NodeState::Disconnected).await;
    assert!(start.elapsed() < Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_told_everything() {
    let manager = Manager::start().await;
    let session = Session::open(&mut manager.client(1)).await.unwrap();
    session.beat(&manager.tasks);
    manager.until(|s| s.node(&id(1)).unwrap().status.state == NodeState::Ready).await;
    manager.way.seen.lock().clear();
    manager.term.send_replace(2);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let seen = manager.way.seen.lock();
    assert!(seen.iter().flat_map(|r| &r.sessions).any(|s| !s.description.is_empty()), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_left_in_the_same_moment_as_it_came_is_no_trouble() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    let mut stream = assignments(&mut client, &session, None).await;
    next(&mut stream).await;
    let mut tx = Transaction::new(model::Timestamp(9));
    tx.changes.push(Change::Put(task(10, 1, TaskState::Assigned).into()));
    tx.changes.push(Change::Remove(id::<TaskId>(10).into()));
    manager.store.propose(tx).await.unwrap();
    let message = next(&mut stream).await;
    assert_eq!((put(&message), removed(&message)), (vec![], vec![10]));
}

#[tokio::test(start_paused = true)]
async fn a_manager_without_a_leader_sends_its_agents_elsewhere_until_it_has_one() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let mut session = Session::open(&mut client).await.unwrap();
    session.beat(&manager.tasks);
    manager.until(|s| s.node(&id(1)).is_some_and(|n| n.status.state == NodeState::Ready)).await;
    *manager.way.cut.lock() = true;
    let cut = Instant::now();
    let ended = loop {
        match session.messages.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a session ends with a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
    assert!((3..=4).contains(&cut.elapsed().as_secs()), "after three periods, not {:?}", cut.elapsed());
    let refused = Session::open(&mut client).await.err().expect("refused while it is cut off");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");

    *manager.way.cut.lock() = false;
    while Session::open(&mut client).await.is_err() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_one_no_more_sends_its_agents_elsewhere_at_once() {
    let manager = Manager::start().await;
    let mut client = manager.client(1);
    let mut session = Session::open(&mut client).await.unwrap();
    session.beat(&manager.tasks);
    manager.until(|s| s.node(&id(1)).is_some_and(|n| n.status.state == NodeState::Ready)).await;
    *manager.way.denied.lock() = true;
    let demoted = Instant::now();
    while let Ok(Some(_)) = session.messages.message().await {}
    // With the next heartbeat that it cannot hand on, before the node counts as silent.
    assert!(demoted.elapsed() < Duration::from_secs(2), "{:?}", demoted.elapsed());
    assert!(Session::open(&mut client).await.is_err(), "and takes no others");

    // It was a mistake, or it was promoted again.
    *manager.way.denied.lock() = false;
    while Session::open(&mut client).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_brake_lets_go_gently() {
    let manager = Manager::start().await;
    let mut sessions = Vec::new();
    for n in 1..=3 {
        sessions.push(Session::open(&mut manager.client(n)).await.unwrap());
    }
    sessions[2].beat(&manager.tasks);
    manager.until(|s| s.nodes().all(|n| n.status.state == NodeState::Ready)).await;
    // Two of three fall silent at once.
    tokio::time::sleep(Duration::from_secs(2)).await;
    manager.suspects.send_replace([id(1), id(2)].into());
    let brake = manager.way.reports.brake();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(brake.borrow().is_some());
    assert_eq!([manager.state(1), manager.state(2)], [NodeState::Ready; 2]);
    // One comes back: the other gets as long as if it fell silent now.
    let back = Session::open(&mut manager.client(1)).await.unwrap();
    back.beat(&manager.tasks);
    manager.suspects.send_replace([id(2)].into());
    let returned = Instant::now();
    manager.until(|s| s.node(&id(2)).unwrap().status.state == NodeState::Down).await;
    let after = returned.elapsed();
    assert!((Duration::from_millis(2500)..Duration::from_millis(4500)).contains(&after), "{after:?}");
    assert!(brake.borrow().is_none());
}
