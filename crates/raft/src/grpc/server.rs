//! The answering side.

use super::{CHUNK_TIMEOUT, TARGET};
use crate::handle::Raft;
use crate::peer::{PeerCall, PeerError};
use crate::types::{TypeConfig, decode, encode};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use openraft::raft::AppendEntriesRequest;
use openraft_rt_tokio::TokioRuntime;
use rpc::proto::raft as proto;
use rpc::proto::raft::raft_server::{Raft as RaftRpc, RaftServer};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

/// Answers peers. Who may call is decided before: every method is for managers of this cluster only.
#[derive(Clone)]
pub struct Service {
    raft: Raft,
    /// A snapshot is held in memory while it arrives: one at a time.
    installing: Arc<Semaphore>,
}

// === impl Service ===

impl Service {
    pub(crate) fn new(raft: Raft) -> Service {
        Service { raft, installing: Arc::new(Semaphore::new(1)) }
    }

    pub(crate) fn into_server(self) -> RaftServer<Service> {
        RaftServer::new(self)
            .max_decoding_message_size(crate::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(crate::MESSAGE_BYTES_MAX)
    }

    /// A member that joined anew must not answer for the one that was at its address before.
    fn check_target<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let meant = request.metadata().get(TARGET).and_then(|v| v.to_str().ok()).unwrap_or("nobody");
        match meant.parse() == Ok(self.raft.raft_id()) {
            true => Ok(()),
            false => Err(Status::failed_precondition(format!(
                "this manager has the Raft id {}, the call is for {meant}",
                self.raft.raft_id()
            ))),
        }
    }

    async fn call(&self, call: PeerCall) -> Result<Vec<u8>, Status> {
        self.raft.handle(call).await.map(Vec::from).map_err(|e| match e {
            PeerError::Unreachable(text) => Status::unavailable(text),
            PeerError::Failed(text) => Status::internal(text),
        })
    }

    async fn receive(&self, mut chunks: Streaming<proto::SnapshotChunk>) -> Result<PeerCall, Status> {
        let limit = self.raft.config().snapshot_bytes_max as u64;
        let mut state = Vec::new();
        let (mut header, mut total) = (None, 0);
        while let Some(chunk) = timeout(CHUNK_TIMEOUT, chunks.message())
            .await
            .map_err(|_| Status::deadline_exceeded(format!("no part of the snapshot for {CHUNK_TIMEOUT:?}")))??
        {
            if header.is_none() {
                header = Some(chunk.header);
                total = chunk.total_bytes;
            }
            if total > limit {
                return Err(Status::resource_exhausted(format!(
                    "a snapshot of {total} bytes is larger than {limit}: raise the limit on this manager"
                )));
            }
            if chunk.offset != state.len() as u64 || chunk.offset + chunk.data.len() as u64 > total {
                return Err(Status::invalid_argument(format!(
                    "a part of the snapshot at {} after {} of {total} bytes",
                    chunk.offset,
                    state.len()
                )));
            }
            if crc32c::crc32c(&chunk.data) != chunk.crc32c {
                return Err(Status::data_loss(format!("the snapshot was damaged on its way at {}", chunk.offset)));
            }
            state.extend_from_slice(&chunk.data);
        }
        match header {
            Some(header) if state.len() as u64 == total => {
                Ok(PeerCall::Snapshot { header: header.into(), state: Bytes::from(state) })
            }
            _ => Err(Status::invalid_argument(format!("the snapshot ended after {} of {total} bytes", state.len()))),
        }
    }
}

#[tonic::async_trait]
impl RaftRpc for Service {
    type StreamAppendStream = BoxStream<'static, Result<proto::AppendResponse, Status>>;

    async fn stream_append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        self.check_target(&request)?;
        let appends = stream::unfold(request.into_inner(), next_append);
        let answers = self.raft.inner.stream_append(appends).map(|answer| {
            let result = answer.map_err(|e| Status::unavailable(format!("Raft has stopped: {e}")))?;
            let body = encode(&result).map_err(|e| Status::internal(e.to_string()))?;
            Ok(proto::AppendResponse { body })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn vote(&self, request: Request<proto::VoteRequest>) -> Result<Response<proto::VoteResponse>, Status> {
        self.check_target(&request)?;
        let body = self.call(PeerCall::Vote(request.into_inner().body.into())).await?;
        Ok(Response::new(proto::VoteResponse { body }))
    }

    async fn pre_vote(&self, request: Request<proto::VoteRequest>) -> Result<Response<proto::VoteResponse>, Status> {
        self.check_target(&request)?;
        let body = self.call(PeerCall::PreVote(request.into_inner().body.into())).await?;
        Ok(Response::new(proto::VoteResponse { body }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::SnapshotResponse>, Status> {
        self.check_target(&request)?;
        let Ok(_alone) = self.installing.try_acquire() else {
            return Err(Status::unavailable("another snapshot is being received"));
        };
        let call = self.receive(request.into_inner()).await?;
        let body = self.call(call).await?;
        Ok(Response::new(proto::SnapshotResponse { body }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        self.check_target(&request)?;
        let body = self.call(PeerCall::TransferLeader(request.into_inner().body.into())).await?;
        Ok(Response::new(proto::TransferLeaderResponse { body }))
    }
}

/// The next append of a stream; the stream ends with the connection, or at bytes that are no append.
async fn next_append(
    mut from: Streaming<proto::AppendRequest>,
) -> Option<(AppendEntriesRequest<TypeConfig<TokioRuntime>>, Streaming<proto::AppendRequest>)> {
    let request = match from.message().await {
        Ok(request) => request?,
        Err(status) => {
            tracing::debug!(%status, "a leader's stream ended");
            return None;
        }
    };
    match decode("an append", &request.body) {
        Ok(append) => Some((append, from)),
        Err(e) => {
            tracing::error!(error = %e, "a leader sent what is no append: it may run another release");
            None
        }
    }
}
