//! gRPC between nodes: the generated messages, who may call what, and the connections.
//!
//! **Owns** the generated code of `proto/`, the one authorisation table ([`access::TABLE`]), the server that enforces it
//! before any handler runs or any body is read ([`serve`]), and the channels to managers ([`Channels`]): mutual TLS over
//! the [`seams::Net`] seam, keep-alive, limits.
//!
//! **Must never** know what a call means, or carry a caller's identity any further: a handler finds the authenticated
//! [`ca::Peer`] in its request ([`caller`]) and acts in its own name.

#![forbid(unsafe_code)]

pub mod access;
mod authorise;
mod channels;
mod connector;
mod redacted;
mod server;
mod services;
mod status;

pub use access::{Admission, Denied, Who};
pub use channels::{ChannelTimings, Channels, InvalidAddress, JoinError};
pub use connector::ConnectError;
pub use server::{ServeConfig, ServerLimits, serve};
pub use services::{
    cluster_client, cluster_server, dispatcher_client, dispatcher_server, exec_client, exec_server, logs_client,
    logs_server, node_ca_client, node_ca_server, raft_client, raft_server,
};
pub use status::{RemoteAddr, caller, describe, internal, not_sent, remote_addr};

/// Generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    /// `proto/raft.proto`
    pub mod raft {
        tonic::include_proto!("swarmlite.raft.v1");
    }
    /// `proto/ca.proto`
    pub mod ca {
        tonic::include_proto!("swarmlite.ca.v1");
    }
    /// `proto/cluster.proto`
    pub mod cluster {
        tonic::include_proto!("swarmlite.cluster.v1");
    }
    /// `proto/dispatcher.proto`
    pub mod dispatcher {
        tonic::include_proto!("swarmlite.dispatcher.v1");
    }
    /// `proto/logs.proto`
    pub mod logs {
        tonic::include_proto!("swarmlite.logs.v1");
    }
    /// `proto/exec.proto`
    pub mod exec {
        tonic::include_proto!("swarmlite.exec.v1");
    }
}
