//! Clients and servers of our services with the message limits set. Nobody makes one without them.

use crate::proto::ca::node_ca_client::NodeCaClient;
use crate::proto::ca::node_ca_server::{NodeCa, NodeCaServer};
use crate::proto::cluster::cluster_client::ClusterClient;
use crate::proto::cluster::cluster_server::{Cluster, ClusterServer};
use crate::proto::dispatcher::dispatcher_client::DispatcherClient;
use crate::proto::dispatcher::dispatcher_server::{Dispatcher, DispatcherServer};
use crate::proto::exec::exec_client::ExecClient;
use crate::proto::exec::exec_server::{Exec, ExecServer};
use crate::proto::logs::logs_client::LogsClient;
use crate::proto::logs::logs_server::{Logs, LogsServer};
use crate::proto::raft::raft_client::RaftClient;
use crate::proto::raft::raft_server::{Raft, RaftServer};
use model::limits::RPC_MESSAGE_BYTES_MAX;
use tonic::transport::Channel;

/// Anybody may send to this service: a token and a certificate request have about 1 KiB.
const CA_REQUEST_BYTES_MAX: usize = 64 * 1024;
/// The largest message is the engine's description of a container, which the agent bounds.
const EXEC_MESSAGE_BYTES_MAX: usize = 2 << 20;

macro_rules! clients {
    ($($name:ident, $client:ident, $service:literal;)*) => {$(
        #[doc = concat!("A client of the ", $service, " service, answers limited to [`RPC_MESSAGE_BYTES_MAX`].")]
        // What is sent is judged by the server alone: its refusal is `OUT_OF_RANGE`, tonic's own on this side is a broken
        // stream, which would pass for an unknown outcome.
        pub fn $name(channel: Channel) -> $client<Channel> {
            $client::new(channel).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX)
        }
    )*};
}

macro_rules! servers {
    ($($name:ident, $handler:ident, $server:ident, $limit:expr, $service:literal;)*) => {$(
        #[doc = concat!("The ", $service, " service on a handler, messages limited.")]
        pub fn $name<T: $handler>(handler: T) -> $server<T> {
            $server::new(handler)
                .max_decoding_message_size($limit)
                .max_encoding_message_size(RPC_MESSAGE_BYTES_MAX)
        }
    )*};
}

clients! {
    raft_client, RaftClient, "Raft";
    node_ca_client, NodeCaClient, "NodeCa";
    cluster_client, ClusterClient, "Cluster";
    dispatcher_client, DispatcherClient, "Dispatcher";
    logs_client, LogsClient, "Logs";
    exec_client, ExecClient, "Exec";
}

servers! {
    raft_server, Raft, RaftServer, RPC_MESSAGE_BYTES_MAX, "Raft";
    node_ca_server, NodeCa, NodeCaServer, CA_REQUEST_BYTES_MAX, "NodeCa";
    cluster_server, Cluster, ClusterServer, RPC_MESSAGE_BYTES_MAX, "Cluster";
    dispatcher_server, Dispatcher, DispatcherServer, RPC_MESSAGE_BYTES_MAX, "Dispatcher";
    logs_server, Logs, LogsServer, RPC_MESSAGE_BYTES_MAX, "Logs";
    exec_server, Exec, ExecServer, EXEC_MESSAGE_BYTES_MAX, "Exec";
}
