//! Messages between nodes: gRPC's framing, protobuf, and the MessagePack inside, on the real services.

use super::{Taker, Target, must};
use crate::targets::grpc::manager::{Manager, description, id, task};
use ::store::StoreClient as _;
use http_body_util::BodyExt as _;
use model::{Role, TaskState, TaskStatus};
use prost::Message;
use rpc::proto::{ca as ca_pb, cluster, dispatcher as pb, logs, raft};
use std::time::Duration;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

// The world of the dispatcher's own tests, taken as it is, so that the two never part.
#[allow(clippy::all, missing_docs, unreachable_pub, dead_code)]
#[path = "../../../crates/dispatcher/tests/common/mod.rs"]
mod manager;

/// In virtual time. Streams are open as long as their client is.
const PATIENCE: Duration = Duration::from_secs(30);
/// In virtual time, too: it passes when nothing is left to do.
const SOON: Duration = Duration::from_millis(1);

/// What an input may be, by its first byte: a call of the dispatcher, or a message that is read and written again.
const CALLS: [&str; 3] = [
    "/swarmlite.dispatcher.v1.Dispatcher/Session",
    "/swarmlite.dispatcher.v1.Dispatcher/Assignments",
    "/swarmlite.dispatcher.v1.Dispatcher/UpdateTaskStatus",
];
/// The first byte of a report to the leader.
const REPORT: u8 = 3;
/// The first byte of a call whose body is taken as it is, frame and all.
const RAW: u8 = 4;

pub(super) const TARGET: Target = Target {
    name: "grpc",
    about: "messages between nodes: gRPC frames, protobuf, the dispatcher's and the leader's reading of them",
    corpus,
    words: &[
        b"\x0a",
        b"\x12",
        b"\x1a",
        b"\x22",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0b",
        b"\x0c",
        b"\x0a\x00",
        b"\x12\x00",
        b"\x00\xff\xff\xff\xff",
        b"\x01\x00\x00\x00\x01",
        b"\x00\x00\x00\x00\x00",
        b"0000000000000000000000001",
        b"0000000000000000000000002",
        b"\x80",
        b"\xc0",
        b"\xdf\xff\xff\xff\xff",
        b"\xa5state",
        b"\xa7Running",
        b"\xa8Complete",
        b"\xa6Failed",
        b"\xa8hostname",
        b"\xd9\xff",
    ],
    bytes_max: 64 * 1024,
    start,
};

fn corpus() -> Vec<Vec<u8>> {
    let named = |kind: u8, message: Vec<u8>| [&[kind][..], &message].concat();
    let status =
        |state| rmp_serde::to_vec_named(&TaskStatus { state, ..Default::default() }).expect("plain data encodes");
    let update =
        pb::TaskStatusUpdate { task_id: id::<model::TaskId>(10).to_string(), status: status(TaskState::Running) };
    let session = cluster::SessionReport {
        node_id: id::<model::NodeId>(1).to_string(),
        silent_ms: 5,
        grace_ms: 3000,
        addr: "10.0.0.1".into(),
        description: Vec::new(),
        closed: false,
    };
    let report = cluster::ReportRequest {
        statuses: vec![cluster::TaskStatusReport {
            node_id: id::<model::NodeId>(1).to_string(),
            task_id: id::<model::TaskId>(10).to_string(),
            status: status(TaskState::Failed),
        }],
        sessions: vec![session],
    };
    let updates = pb::UpdateTaskStatusRequest { session_id: "s".into(), updates: vec![update] }.encode_to_vec();
    let mut framed = vec![2, 0];
    framed.extend(u32::try_from(updates.len()).unwrap_or_default().to_be_bytes());
    framed.extend(&updates);
    let have = Some(pb::Position { term: 1, index: 2 });
    let message = |n: u8, bytes: Vec<u8>| named(8 + n, bytes);
    vec![
        named(0, description("host").encode_to_vec()),
        named(1, pb::AssignmentsRequest { session_id: "s".into(), have, ..Default::default() }.encode_to_vec()),
        named(2, updates.clone()),
        named(REPORT, report.encode_to_vec()),
        named(RAW, framed),
        message(
            0,
            ca_pb::IssueNodeCertificateRequest {
                token: "SWMTKN-1-a-b".into(),
                csr_pem: "x".into(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        message(1, cluster::ProposeRequest { transaction: vec![0x80] }.encode_to_vec()),
        message(2, cluster::JoinRequest { raft_id: 7, addr: "10.0.0.1:2377".into() }.encode_to_vec()),
        message(
            3,
            logs::PublishRequest { subscription_id: "s".into(), batch: Some(logs::LogBatch::default()) }
                .encode_to_vec(),
        ),
        message(
            4,
            raft::SnapshotChunk { header: vec![1], total_bytes: 1, offset: 0, data: vec![1], crc32c: 1 }
                .encode_to_vec(),
        ),
        message(
            5,
            pb::SessionMessage { session_id: "s".into(), desired_role: "worker".into(), ..Default::default() }
                .encode_to_vec(),
        ),
        message(6, pb::AssignmentsMessage { position: have, follows: have, ..Default::default() }.encode_to_vec()),
        message(7, logs::Subscription { id: "a".into(), task_id: "b".into(), ..Default::default() }.encode_to_vec()),
    ]
}

fn start() -> Taker {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be built");
    let manager = runtime.block_on(async {
        let manager = Manager::start().await;
        manager.put([task(10, 1, TaskState::Assigned), task(20, 2, TaskState::Assigned)]).await;
        manager
    });
    let routes = Routes::new(rpc::dispatcher_server(manager.dispatcher.clone())).prepare();
    Box::new(move |input| {
        let Some((kind, bytes)) = input.split_first() else { return Ok(()) };
        match *kind {
            kind if usize::from(kind) < CALLS.len() => {
                let mut body = vec![0];
                body.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
                body.extend_from_slice(bytes);
                runtime.block_on(call(&routes, CALLS[usize::from(kind)], body))?;
            }
            REPORT => {
                if let Ok(report) = cluster::ReportRequest::decode(bytes) {
                    let reports = manager.way.reports.clone();
                    let _taken_or_refused =
                        runtime.block_on(async move { tokio::time::timeout(PATIENCE, reports.report(report)).await });
                }
            }
            RAW => {
                let Some((which, body)) = bytes.split_first() else { return Ok(()) };
                runtime.block_on(call(&routes, CALLS[usize::from(*which) % CALLS.len()], body.to_vec()))?;
            }
            other => survives(other, bytes)?,
        }
        // Whatever node 1 says, the task of node 2 is not touched.
        let state = manager.store.local();
        let foreign = state.task(&id(20)).map(|t| t.status.state);
        must(foreign == Some(TaskState::Assigned) || *kind == REPORT, || {
            format!("node 1 moved node 2's task to {foreign:?}")
        })
    })
}

/// A call in the name of node 1.
async fn call(routes: &Routes, path: &str, body: Vec<u8>) -> Result<(), String> {
    let mut request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        // What somebody says of himself counts for nothing.
        .header("x-forwarded-node", "0000000000000000000000002")
        .body(Body::new(http_body_util::Full::new(bytes::Bytes::from(body))))
        .map_err(|e| e.to_string())?;
    request.extensions_mut().insert(ca::Peer { node_id: id(1), role: Role::Worker, cluster_id: id(1) });
    let answer = async {
        let response = routes.clone().oneshot(request).await.map_err(|e| format!("{path}: {e}"))?;
        must(response.status() == 200, || format!("{path}: {}", response.status()))?;
        let mut body = response.into_body();
        // What comes before everything waits is read, which lets the service's own tasks run; a stream that stays open is left.
        for _ in 0..4 {
            match tokio::time::timeout(SOON, body.frame()).await {
                Ok(Some(Ok(_frame))) => {}
                _ => break,
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(format!("{path}: no answer in {PATIENCE:?}")))
}

/// What can be read as a message is the same when it is written and read again.
fn survives(kind: u8, bytes: &[u8]) -> Result<(), String> {
    match kind % 8 {
        0 => again::<ca_pb::IssueNodeCertificateRequest>(bytes),
        1 => again::<cluster::ProposeRequest>(bytes),
        2 => again::<cluster::JoinRequest>(bytes),
        3 => again::<logs::PublishRequest>(bytes),
        4 => again::<raft::SnapshotChunk>(bytes),
        5 => again::<pb::SessionMessage>(bytes),
        6 => again::<pb::AssignmentsMessage>(bytes),
        _ => again::<logs::Subscription>(bytes),
    }
}

fn again<M: Message + Default + PartialEq>(bytes: &[u8]) -> Result<(), String> {
    let Ok(message) = M::decode(bytes) else { return Ok(()) };
    let read = M::decode(&*message.encode_to_vec());
    must(read.as_ref().is_ok_and(|read| *read == message), || "a message does not survive".into())
}
