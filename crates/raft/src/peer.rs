//! Messages between members as opaque bytes, for a transport that is not gRPC.

use crate::types::{Member, Snapshot, SnapshotMeta, TypeConfig, Vote, decode, encode};
use async_trait::async_trait;
use bytes::Bytes;
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::network::v2::RaftNetworkV2;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt as _;
use openraft::{OptionalSend, RaftNetworkFactory};
use openraft_rt::{AsyncRuntime, Select2};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A request from one member to another. The bytes are MessagePack of openraft's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerCall {
    /// Entries, or none (heartbeat).
    Append(Bytes),
    /// A candidate asks for a vote.
    Vote(Bytes),
    /// A member asks whether it would get a vote.
    PreVote(Bytes),
    /// The leader asks a follower to take over.
    TransferLeader(Bytes),
    /// A whole snapshot.
    Snapshot {
        /// Vote and position.
        header: Bytes,
        /// The state.
        state: Bytes,
    },
}

/// A request that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It did not reach the peer, as far as known.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It may have reached the peer, or the peer refused it.
    #[error("{0}")]
    Failed(String),
}

/// Carries requests to other members. The receiving side hands them to [`Raft::handle`](crate::Raft::handle).
#[async_trait]
pub trait PeerTransport: Send + Sync + 'static {
    /// Sends a request and waits for the answer. The caller gives up by itself; a transport needs no timeout.
    async fn call(&self, target: u64, member: &Member, call: PeerCall) -> Result<Bytes, PeerError>;
}

/// Where members are, by the latest membership seen. openraft keeps its way to a member when only its address changes, so
/// every call looks here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book(Arc<Mutex<BTreeMap<u64, Member>>>);

/// Members remembered, far more than a group has at a time.
const BOOK_MAX: usize = 256;

/// openraft's network over a [`PeerTransport`].
pub(crate) struct PeerNetwork<RT> {
    transport: Arc<dyn PeerTransport>,
    book: Book,
    runtime: PhantomData<fn() -> RT>,
}

/// The way to one member.
pub(crate) struct Peer<RT> {
    transport: Arc<dyn PeerTransport>,
    target: u64,
    book: Book,
    runtime: PhantomData<fn() -> RT>,
}

pub(crate) fn header<RT: AsyncRuntime>(vote: &Vote<RT>, meta: &SnapshotMeta<RT>) -> std::io::Result<Vec<u8>> {
    encode(&(vote, meta))
}

pub(crate) fn read_header<RT: AsyncRuntime>(bytes: &[u8]) -> std::io::Result<(Vote<RT>, SnapshotMeta<RT>)> {
    decode("a snapshot's header", bytes)
}

// === impl Book ===

impl Book {
    /// Notes one member.
    pub(crate) fn note(&self, id: u64, member: &Member) {
        self.0.lock().insert(id, member.clone());
    }

    /// Notes a whole membership. Who is not in it stays until there are too many: it may be in a newer one that is on its way.
    pub(crate) fn note_all<'a>(&self, members: impl Iterator<Item = (&'a u64, &'a Member)>) {
        let mut book = self.0.lock();
        if book.len() > BOOK_MAX {
            book.clear();
        }
        book.extend(members.map(|(id, member)| (*id, member.clone())));
    }

    /// Where a member is.
    pub(crate) fn find(&self, id: u64) -> Option<Member> {
        self.0.lock().get(&id).cloned()
    }
}

// === impl PeerNetwork ===

impl<RT: AsyncRuntime> PeerNetwork<RT> {
    pub(crate) fn new(transport: Arc<dyn PeerTransport>, book: Book) -> PeerNetwork<RT> {
        PeerNetwork { transport, book, runtime: PhantomData }
    }
}

impl<RT: AsyncRuntime> RaftNetworkFactory<TypeConfig<RT>> for PeerNetwork<RT> {
    type Network = Peer<RT>;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer<RT> {
        self.book.note(target, node);
        Peer { transport: self.transport.clone(), target, book: self.book.clone(), runtime: PhantomData }
    }
}

// === impl Peer ===

type Rpc<RT> = RPCError<TypeConfig<RT>>;

impl<RT: AsyncRuntime> Peer<RT> {
    async fn exchange<R: DeserializeOwned>(&self, limit: Duration, call: PeerCall) -> Result<R, Rpc<RT>> {
        let Some(member) = self.book.find(self.target) else {
            return Err(RPCError::Unreachable(Unreachable::from_string("it is no member any more")));
        };
        let answer = self.transport.call(self.target, &member, call);
        match TypeConfig::<RT>::timeout(limit, answer).await {
            Ok(Ok(bytes)) => decode("a peer's answer", &bytes).map_err(|e| RPCError::Network(NetworkError::new(&e))),
            Ok(Err(e @ PeerError::Unreachable(_))) => Err(RPCError::Unreachable(Unreachable::new(&e))),
            Ok(Err(e @ PeerError::Failed(_))) => Err(RPCError::Network(NetworkError::new(&e))),
            Err(_) => Err(RPCError::Network(NetworkError::from_string(format!("no answer within {limit:?}")))),
        }
    }

    fn body<T: Serialize>(&self, message: &T) -> Result<Bytes, Rpc<RT>> {
        encode(message).map(Bytes::from).map_err(|e| RPCError::Network(NetworkError::new(&e)))
    }
}

impl<RT: AsyncRuntime> RaftNetworkV2<TypeConfig<RT>> for Peer<RT> {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig<RT>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig<RT>>, Rpc<RT>> {
        let call = PeerCall::Append(self.body(&rpc)?);
        self.exchange(option.hard_ttl(), call).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig<RT>>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig<RT>>, Rpc<RT>> {
        let call = PeerCall::Vote(self.body(&rpc)?);
        self.exchange(option.hard_ttl(), call).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig<RT>>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig<RT>>, Rpc<RT>> {
        let call = PeerCall::PreVote(self.body(&rpc)?);
        self.exchange(option.hard_ttl(), call).await
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig<RT>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig<RT>>, Rpc<RT>> {
        let call = PeerCall::TransferLeader(self.body(&req)?);
        self.exchange(option.hard_ttl(), call).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<RT>,
        snapshot: Snapshot<RT>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig<RT>>, StreamingError<TypeConfig<RT>>> {
        let header = header::<RT>(&vote, &snapshot.meta).map_err(|e| StreamingError::Network(NetworkError::new(&e)))?;
        let call = PeerCall::Snapshot { header: header.into(), state: snapshot.snapshot };
        let sent = Box::pin(self.exchange(option.hard_ttl(), call));
        match TypeConfig::<RT>::select2(Box::pin(cancel), sent).await {
            Select2::First(closed) => Err(StreamingError::Closed(closed)),
            Select2::Second(answer) => Ok(answer?),
        }
    }
}
