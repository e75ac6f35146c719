//! gRPC between nodes: the generated messages, and who may call what.

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
}
