//! Which secrets and configs a node is sent: those that its tasks need, and no others.

mod common;

use common::{Client, Manager, Session, id, task};
use model::{
    ConfigReference, ConfigTarget, Data, Dependency, FileMode, FileTarget, Given, Payload, PayloadId, SecretReference,
    Signal, Task, TaskState, limits,
};
use rpc::proto::dispatcher::assignments_message::Kind;
use rpc::proto::dispatcher::{AssignmentsMessage, AssignmentsRequest, Position};
use std::sync::Arc;
use std::time::Duration;
use store::{Change, StoreClient as _, Transaction};
use tonic::Streaming;

async fn follow(
    client: &mut Client,
    session: &Session,
    have: Option<Position>,
    granted: &[PayloadId],
) -> Streaming<AssignmentsMessage> {
    let granted = granted.iter().map(|id| rmp_serde::to_vec_named(id).unwrap()).collect();
    let request = AssignmentsRequest { session_id: session.id.clone(), have, granted };
    client.assignments(request).await.expect("the session is good").into_inner()
}

/// The next messages that belong together.
async fn next(stream: &mut Streaming<AssignmentsMessage>) -> Vec<AssignmentsMessage> {
    let mut parts = Vec::new();
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
        parts.push(message.expect("a message comes").expect("no error").expect("no end"));
        if !parts[parts.len() - 1].more {
            return parts;
        }
    }
}

fn granted(parts: &[AssignmentsMessage]) -> Vec<PayloadId> {
    let payloads = parts.iter().flat_map(|m| &m.grant).map(|b| rmp_serde::from_slice::<Payload>(b).unwrap());
    payloads.map(|p| p.id).collect()
}

fn revoked(parts: &[AssignmentsMessage]) -> Vec<PayloadId> {
    parts.iter().flat_map(|m| &m.revoke).map(|b| rmp_serde::from_slice(b).unwrap()).collect()
}

fn secret(n: u64, version: u64) -> PayloadId {
    PayloadId { of: Dependency::Secret(id(n)), version }
}

fn config(n: u64) -> PayloadId {
    PayloadId { of: Dependency::Config(id(n)), version: 1 }
}

fn target(name: String) -> FileTarget {
    FileTarget { path: name.parse().unwrap(), uid: 0, gid: 0, mode: FileMode::DEFAULT }
}

/// A task with this data.
fn with(mut task: Task, payloads: &[PayloadId]) -> Task {
    let container = Arc::make_mut(&mut task.spec).container_mut().unwrap();
    for payload in payloads {
        let given = Given { version: Some(payload.version), signal: Some(Signal::default()), templating: None };
        match &payload.of {
            Dependency::Secret(secret_id) => container.secrets.push(SecretReference {
                secret_id: secret_id.clone(),
                secret_name: "s".parse().unwrap(),
                target: target(secret_id.to_string()),
                given,
            }),
            Dependency::Config(config_id) => container.configs.push(ConfigReference {
                config_id: config_id.clone(),
                config_name: "c".parse().unwrap(),
                target: ConfigTarget::File(target(config_id.to_string())),
                given,
            }),
        }
    }
    task
}

async fn keep(manager: &Manager, id: PayloadId, bytes: usize) {
    let data = Data::of_config(vec![b'x'; bytes]).unwrap();
    let mut tx = Transaction::new(model::Timestamp(2));
    tx.changes.push(Change::Put(Payload { id, meta: Default::default(), data }.into()));
    manager.store.propose(tx).await.unwrap();
}

async fn node_1(manager: &Manager) -> (Client, Session) {
    let mut client = manager.client(1);
    let session = Session::open(&mut client).await.unwrap();
    session.beat(&manager.tasks);
    (client, session)
}

#[tokio::test(start_paused = true)]
async fn a_node_has_the_data_of_its_tasks_while_they_run_and_never_another_s() {
    let manager = Manager::start().await;
    for payload in [secret(50, 1), secret(50, 2), secret(51, 1), secret(52, 1), config(53)] {
        keep(&manager, payload, 10).await;
    }
    let running = || task(10, 1, TaskState::Assigned);
    let mut stopping = with(task(12, 1, TaskState::Running), &[secret(52, 1)]);
    stopping.desired = TaskState::Shutdown;
    let dead = with(task(13, 1, TaskState::Failed), &[secret(52, 1)]);
    let waiting = with(task(14, 1, TaskState::Pending), &[secret(52, 1)]);
    let foreign = with(task(11, 2, TaskState::Running), &[secret(51, 1)]);
    let tasks = [with(running(), &[secret(50, 1), config(53)]), foreign, stopping, dead, waiting];
    manager.put(tasks).await;
    let (mut client, session) = node_1(&manager).await;
    let mut stream = follow(&mut client, &session, None, &[]).await;
    let first = next(&mut stream).await;
    assert_eq!((first[0].kind(), granted(&first)), (Kind::Complete, vec![secret(50, 1), config(53)]));
    tokio::time::sleep(Duration::from_secs(1)).await;

    // A task that comes brings what is not there yet; data that is updated in place is a change of its task.
    manager.put([with(task(20, 1, TaskState::Assigned), &[secret(50, 1), secret(51, 1)])]).await;
    let second = next(&mut stream).await;
    assert_eq!((granted(&second), revoked(&second)), (vec![secret(51, 1)], vec![]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    manager.put([with(running(), &[secret(50, 2), config(53)])]).await;
    let third = next(&mut stream).await;
    assert_eq!((third[0].put.len(), granted(&third), revoked(&third)), (1, vec![secret(50, 2)], vec![]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What its last task was asked to stop with goes.
    let mut stop = with(task(20, 1, TaskState::Assigned), &[secret(50, 1), secret(51, 1)]);
    stop.desired = TaskState::Shutdown;
    manager.put([stop]).await;
    let fourth = next(&mut stream).await;
    assert_eq!((granted(&fourth), revoked(&fourth)), (vec![], vec![secret(50, 1), secret(51, 1)]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    manager.remove(10).await;
    assert_eq!(revoked(&next(&mut stream).await), [secret(50, 2), config(53)]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_is_sent_what_it_lacks() {
    let manager = Manager::start().await;
    for payload in [secret(50, 1), secret(51, 1), secret(52, 1)] {
        keep(&manager, payload, 10).await;
    }
    let index = manager.put([with(task(10, 1, TaskState::Running), &[secret(50, 1), secret(51, 1)])]).await;
    let (mut client, session) = node_1(&manager).await;
    let have = Some(Position { term: 1, index });
    // It was only cut off, and has one too many.
    let mut stream = follow(&mut client, &session, have, &[secret(50, 1), secret(52, 1)]).await;
    let first = next(&mut stream).await;
    assert_eq!((first[0].kind(), first[0].put.len()), (Kind::Incremental, 0));
    assert_eq!((granted(&first), revoked(&first)), (vec![secret(51, 1)], vec![secret(52, 1)]));
    // It was started again: what was in its memory is gone.
    let mut stream = follow(&mut client, &session, have, &[]).await;
    assert_eq!(granted(&next(&mut stream).await), [secret(50, 1), secret(51, 1)]);
    // What it says it has may be nonsense.
    let request = AssignmentsRequest { session_id: session.id.clone(), have, granted: vec![vec![0xc1], Vec::new()] };
    let mut stream = client.assignments(request).await.unwrap().into_inner();
    assert_eq!(granted(&next(&mut stream).await).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_too_large_for_one_message_comes_in_several() {
    let manager = Manager::start().await;
    let largest = limits::CONFIG_BYTES_END - 1;
    let configs: Vec<PayloadId> = (50..56).map(config).collect();
    for payload in &configs {
        keep(&manager, payload.clone(), largest).await;
    }
    manager.put([with(task(10, 1, TaskState::Assigned), &configs), task(11, 1, TaskState::Assigned)]).await;
    let (mut client, session) = node_1(&manager).await;
    let mut stream = follow(&mut client, &session, None, &[]).await;
    let parts = next(&mut stream).await;
    assert_eq!((granted(&parts), parts.len() > 5), (configs.clone(), true));
    assert_eq!(parts.iter().map(|m| m.put.len()).sum::<usize>(), 2);
    for part in &parts {
        assert_eq!((part.kind(), part.position), (Kind::Complete, parts[0].position));
        let bytes: usize = part.grant.iter().chain(&part.put).map(Vec::len).sum();
        assert!(bytes < limits::RPC_MESSAGE_BYTES_MAX / 2, "{bytes}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // An increment as well.
    for n in 60..63 {
        keep(&manager, config(n), largest).await;
    }
    let more: Vec<PayloadId> = (60..63).map(config).collect();
    manager.put([with(task(12, 1, TaskState::Assigned), &more)]).await;
    let second = next(&mut stream).await;
    assert_eq!((granted(&second), second.len() > 2), (more, true));
    assert!(second.iter().all(|m| m.kind() == Kind::Incremental && m.follows == parts[0].position));
}
