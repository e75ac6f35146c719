//! Every RPC against every kind of caller, over real TLS and HTTP/2.

mod common;

use common::{HOUR, MANAGER_ADDR, START, World, id};
use model::Role;
use std::sync::Arc;
use swarmlite_rpc::access::TABLE;
use swarmlite_rpc::{ChannelTimings, Channels, ServerLimits, Who, describe, not_sent};
use tokio::sync::watch;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// Calls a path with an empty message. A server without handlers answers UNIMPLEMENTED to what it lets through.
async fn call(channel: Channel, path: &str) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel);
    let path = PathAndQuery::try_from(path).unwrap();
    if let Err(e) = grpc.ready().await {
        return Status::from_error(Box::new(e));
    }
    grpc.unary::<(), (), _>(Request::new(()), path, ProstCodec::default()).await.expect_err("there are no handlers")
}

async fn world() -> World {
    let world = World::new();
    let manager = world.member('m', Role::Manager);
    world.serve(MANAGER_ADDR, manager, Routes::default(), ServerLimits::default()).await;
    world
}

#[tokio::test]
async fn each_kind_of_caller_reaches_its_rows_and_no_other() {
    let world = world().await;
    let manager = world.member('n', Role::Manager);
    let worker = world.member('w', Role::Worker);
    let demoted = world.member('d', Role::Manager);
    world.state.0.lock().insert(id('d'), Role::Worker);
    let removed = world.member('r', Role::Manager);
    world.state.0.lock().remove(&id::<model::NodeId>('r'));

    let everything = [Who::Anonymous, Who::Member, Who::Manager, Who::RaftPeer];
    let of = |identity| world.channels(Some(identity)).manager(MANAGER_ADDR).unwrap();
    let anonymous = world.channels(None).anonymous(MANAGER_ADDR, &world.root.cert_pem).unwrap();
    for (what, channel, open) in [
        ("manager", of(manager), &everything[..]),
        ("worker", of(worker), &everything[..2]),
        ("demoted manager", of(demoted), &everything[..2]),
        ("removed manager", of(removed), &everything[..1]),
        ("anonymous", anonymous, &everything[..1]),
    ] {
        for row in TABLE {
            let status = call(channel.clone(), row.path).await;
            let expected = if open.contains(&row.who) { Code::Unimplemented } else { Code::PermissionDenied };
            assert_eq!(status.code(), expected, "{what} on {}: {status:?}", row.path);
        }
        for unlisted in ["/grpc.health.v1.Health/Check", "/swarmlite.raft.v1.Raft/vote", "/"] {
            assert_eq!(call(channel.clone(), unlisted).await.code(), Code::PermissionDenied, "{what} on {unlisted}");
        }
    }
}

#[tokio::test]
async fn another_clusters_certificate_opens_no_connection_and_no_rpc() {
    let world = world().await;
    let path = "/swarmlite.dispatcher.v1.Dispatcher/Assignments";
    let foreign_root = ca::generate_root(START, &seams::real::OsRand).unwrap();
    let foreign = world.identity('w', Role::Worker, 'c', &foreign_root, HOUR);
    let channel = world.channels(Some(foreign)).manager(MANAGER_ADDR).unwrap();
    let status = call(channel, path).await;
    assert!(not_sent(&status), "{status:?}");
    assert!(describe(&status).starts_with("cannot secure the connection to 10.0.0.1:2377: "), "{}", describe(&status));

    // Signed by the right root, but it says another cluster: our own client would not even connect to it, so the
    // connection is made by one that does not look.
    let liar = world.identity('w', Role::Worker, 'x', &world.root, HOUR);
    let status = call(world.channels(Some(liar)).manager(MANAGER_ADDR).unwrap(), path).await;
    assert!(describe(&status).contains("belongs to cluster cccc"), "{}", describe(&status));
}

#[tokio::test]
async fn removal_demotion_and_expiry_take_effect_on_a_standing_connection() {
    let world = world().await;
    let channel = world.channels(Some(world.member('n', Role::Manager))).manager(MANAGER_ADDR).unwrap();
    let propose = "/swarmlite.cluster.v1.Cluster/Propose";
    let renew = "/swarmlite.ca.v1.NodeCa/RenewNodeCertificate";
    assert_eq!(call(channel.clone(), propose).await.code(), Code::Unimplemented);

    world.state.0.lock().insert(id('n'), Role::Worker);
    let denied = call(channel.clone(), propose).await;
    assert_eq!((denied.code(), denied.message().contains("is not a manager")), (Code::PermissionDenied, true));
    assert_eq!(call(channel.clone(), renew).await.code(), Code::Unimplemented, "it can still renew its certificate");

    world.state.0.lock().insert(id('n'), Role::Manager);
    world.clock.set(START + 25 * HOUR);
    let denied = call(channel.clone(), propose).await;
    assert_eq!((denied.code(), denied.message().contains("has expired")), (Code::Unauthenticated, true));

    world.clock.set(START);
    world.state.0.lock().remove(&id::<model::NodeId>('n'));
    let denied = call(channel, renew).await;
    assert_eq!((denied.code(), denied.message().contains("is not a member")), (Code::PermissionDenied, true));
}

#[tokio::test]
async fn a_renewed_identity_is_used_for_the_next_channel() {
    let world = world().await;
    let worker = world.member('w', Role::Worker);
    let (identity, watch) = watch::channel(Some(worker));
    let channels = Channels::new(world.seams(), watch, ChannelTimings::default());
    let propose = "/swarmlite.cluster.v1.Cluster/Propose";
    let first = channels.manager(MANAGER_ADDR).unwrap();
    assert_eq!(call(first, propose).await.code(), Code::PermissionDenied);
    let connections = || world.net.connections.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(call(channels.manager(MANAGER_ADDR).unwrap(), propose).await.code(), Code::PermissionDenied);
    assert_eq!(connections(), 1, "the channel is kept");

    identity.send_replace(Some(world.member('w', Role::Manager)));
    assert_eq!(call(channels.manager(MANAGER_ADDR).unwrap(), propose).await.code(), Code::Unimplemented);
    channels.forget(MANAGER_ADDR);
    assert_eq!(call(channels.manager(MANAGER_ADDR).unwrap(), propose).await.code(), Code::Unimplemented);
    assert_eq!(connections(), 3);
}

#[tokio::test]
async fn the_other_end_must_be_the_node_that_is_wanted() {
    let world = world().await;
    let channels = world.channels(Some(world.member('w', Role::Worker)));
    let path = "/swarmlite.logs.v1.Logs/Listen";
    let right = channels.manager_node(MANAGER_ADDR, &id('m')).unwrap();
    assert_eq!(call(right, path).await.code(), Code::Unimplemented);
    let wrong = call(channels.manager_node(MANAGER_ADDR, &id('x')).unwrap(), path).await;
    assert!(not_sent(&wrong) && describe(&wrong).contains("not the one that was wanted"), "{}", describe(&wrong));
}

#[tokio::test]
async fn without_an_identity_nothing_is_dialled_and_nothing_is_served() {
    let world = World::new();
    let (tx, watch) = watch::channel(None::<Arc<ca::Identity>>);
    let channels = Channels::new(world.seams(), watch, ChannelTimings::default());
    let status = call(channels.manager(MANAGER_ADDR).unwrap(), TABLE[0].path).await;
    assert!(not_sent(&status) && describe(&status).contains("has no certificate"), "{}", describe(&status));
    assert_eq!(world.net.connections.load(std::sync::atomic::Ordering::SeqCst), 0);
    drop(tx);
}
