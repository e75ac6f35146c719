//! The calling side.

use super::{CHUNK_BYTES, Dial, TARGET};
use crate::config::RaftConfig;
use crate::peer::Book;
use crate::types::{Member, Snapshot, TypeConfig, Vote, decode, encode};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::network::v2::RaftNetworkV2;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use openraft_rt_tokio::TokioRuntime;
use parking_lot::Mutex;
use rpc::proto::raft as proto;
use rpc::proto::raft::raft_client::RaftClient;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

type C = TypeConfig<TokioRuntime>;
type Rpc = RPCError<C>;

/// Channels kept; far more than a group has members.
const CHANNELS_MAX: usize = 256;

/// Heartbeats have a connection of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Bulk,
    Heartbeat,
}

/// openraft's network over gRPC.
pub(crate) struct Network {
    append_timeout: Duration,
    book: Book,
    channels: Channels,
}

/// Open channels, shared by everything that talks to a member.
#[derive(Clone)]
struct Channels {
    dial: Arc<dyn Dial>,
    open: Arc<Mutex<Open>>,
}

type Open = BTreeMap<(u64, Lane), (Member, u64, Channel)>;

/// The way to one member.
pub(crate) struct Peer {
    target: u64,
    lane: Lane,
    book: Book,
    channels: Channels,
    append_timeout: Duration,
}

/// When the appends were sent that are not answered yet; answers come in order.
#[derive(Clone, Default)]
struct InFlight(Arc<Mutex<VecDeque<Instant>>>);

// === impl Network ===

impl Network {
    pub(crate) fn new(config: &RaftConfig, dial: Arc<dyn Dial>, book: Book) -> Network {
        Network { append_timeout: config.append_timeout, book, channels: Channels { dial, open: Arc::default() } }
    }

    fn peer(&self, target: u64, member: &Member, lane: Lane) -> Peer {
        self.book.note(target, member);
        let (book, channels) = (self.book.clone(), self.channels.clone());
        Peer { target, lane, book, channels, append_timeout: self.append_timeout }
    }
}

impl RaftNetworkFactory<C> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        self.peer(target, node, Lane::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Peer {
        self.peer(target, node, Lane::Heartbeat)
    }
}

// === impl Channels ===

impl Channels {
    fn get(&self, target: u64, member: Member, lane: Lane) -> Result<Channel, String> {
        let generation = self.dial.generation().map_or(0, |g| *g.borrow());
        let mut open = self.open.lock();
        if let Some((known, of, channel)) = open.get(&(target, lane))
            && (known, *of) == (&member, generation)
        {
            return Ok(channel.clone());
        }
        let channel = self.dial.channel(target, &member).map_err(|e| {
            tracing::error!(target, addr = member.addr, error = %e, "cannot dial a manager");
            format!("cannot dial {}: {e}", member.addr)
        })?;
        if open.len() >= CHANNELS_MAX {
            open.clear();
        }
        open.insert((target, lane), (member, generation, channel.clone()));
        Ok(channel)
    }
}

/// Resolves when the generation of channels is another one than it is now.
fn outdated(dial: &dyn Dial) -> impl Future<Output = ()> + Send + 'static {
    let mut generation = dial.generation();
    generation.iter_mut().for_each(watch::Receiver::mark_unchanged);
    async move {
        let changed = match &mut generation {
            Some(generation) => generation.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending().await
        }
    }
}

// === impl Peer ===

impl Peer {
    fn client(&self) -> Result<RaftClient<Channel>, Rpc> {
        let unreachable = |text: String| RPCError::Unreachable(Unreachable::from_string(text));
        let member = self.book.find(self.target).ok_or_else(|| unreachable("it is no member any more".into()))?;
        let channel = self.channels.get(self.target, member, self.lane).map_err(unreachable)?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(crate::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(crate::MESSAGE_BYTES_MAX))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(TARGET, MetadataValue::from(self.target));
        request
    }

    async fn unary<B: DeserializeOwned, R>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<R>, Status>>,
        body: impl FnOnce(R) -> Vec<u8>,
    ) -> Result<B, Rpc> {
        let response = timeout(limit, call).await.map_err(|_| no_answer(limit))?.map_err(failed)?;
        decode("a peer's answer", &body(response.into_inner())).map_err(|e| network(&e))
    }
}

fn network(e: &std::io::Error) -> Rpc {
    RPCError::Network(NetworkError::new(e))
}

fn no_answer(limit: Duration) -> Rpc {
    RPCError::Network(NetworkError::from_string(format!("no answer within {limit:?}")))
}

/// Always `Unreachable`: openraft waits before it tries such a peer again, and tries one with a `Network` error at once. A
/// call on a connection that is gone fails at once, too, whatever its code, and would be repeated without end.
fn failed(status: Status) -> Rpc {
    RPCError::Unreachable(Unreachable::new(&status))
}

impl RaftNetworkV2<C> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, Rpc> {
        let last = rpc.entries.last().map(|e| e.log_id).or(rpc.prev_log_id);
        let mut answers = self.stream_append(stream::iter([rpc]), option).await?;
        match answers.next().await {
            Some(Ok(Ok(at))) if at == last => Ok(AppendEntriesResponse::Success),
            Some(Ok(Ok(at))) => Ok(AppendEntriesResponse::PartialSuccess(at)),
            Some(Ok(refused)) => Ok(refused.into()),
            Some(Err(e)) => Err(e),
            None => {
                Err(RPCError::Unreachable(Unreachable::from_string("the peer closed the stream without an answer")))
            }
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<C>, Rpc>>, Rpc>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // openraft waits for its backoff when it is asked for a request. To ask before dialling keeps a peer that cannot
            // be reached from being dialled, and complained about, without a pause.
            let mut input = input;
            let Some(first) = input.next().await else { return Ok(Box::pin(stream::empty()) as BoxStream<'s, _>) };
            // Before the channel is chosen: a change in between ends the stream at once. What openraft has not handed over by
            // then stays with it, for the next stream.
            let input = input.take_until(Box::pin(outdated(&*self.channels.dial)));
            let in_flight = InFlight::default();
            let sent = in_flight.clone();
            let requests = stream::iter([first]).chain(input).filter_map(move |append| {
                let request = encode(&append).map(|body| proto::AppendRequest { body });
                sent.push();
                // Plain data always encodes; were it ever to fail, the answer is missed and the stream is given up.
                std::future::ready(request.inspect_err(|e| tracing::error!(error = %e, "cannot encode an append")).ok())
            });
            let mut client = self.client()?;
            let call = client.stream_append(self.request(requests));
            let limit = self.append_timeout;
            let answers = timeout(limit, call).await.map_err(|_| no_answer(limit))?.map_err(failed)?.into_inner();
            let answers = stream::unfold(Some((answers, in_flight)), move |state| next_answer(state, limit));
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, Rpc> {
        let mut client = self.client()?;
        let request = self.request(proto::VoteRequest { body: encode(&rpc).map_err(|e| network(&e))? });
        self.unary(option.hard_ttl(), client.vote(request), |r: proto::VoteResponse| r.body).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, Rpc> {
        let mut client = self.client()?;
        let request = self.request(proto::VoteRequest { body: encode(&rpc).map_err(|e| network(&e))? });
        self.unary(option.hard_ttl(), client.pre_vote(request), |r: proto::VoteResponse| r.body).await
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, Rpc> {
        let mut client = self.client()?;
        let request = self.request(proto::TransferLeaderRequest { body: encode(&req).map_err(|e| network(&e))? });
        let call = client.transfer_leader(request);
        self.unary(option.hard_ttl(), call, |r: proto::TransferLeaderResponse| r.body).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<TokioRuntime>,
        snapshot: Snapshot<TokioRuntime>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let header = crate::peer::header::<TokioRuntime>(&vote, &snapshot.meta).map_err(|e| network(&e))?;
        let mut client = self.client()?;
        let request = self.request(stream::iter(chunks(header, snapshot.snapshot)));
        let call = client.install_snapshot(request);
        let sent = self.unary(option.hard_ttl(), call, |r: proto::SnapshotResponse| r.body);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = sent => Ok(answer?),
        }
    }
}

async fn next_answer(
    state: Option<(Streaming<proto::AppendResponse>, InFlight)>,
    limit: Duration,
) -> Option<(Result<StreamAppendResult<C>, Rpc>, Option<(Streaming<proto::AppendResponse>, InFlight)>)> {
    let (mut answers, in_flight) = state?;
    loop {
        let patience = in_flight.oldest().map_or(limit, |at| limit.saturating_sub(at.elapsed()));
        // Never zero: an answer that is there already must be seen.
        match timeout(patience.max(Duration::from_millis(1)), answers.message()).await {
            Ok(Ok(Some(answer))) => {
                in_flight.pop();
                return match decode::<StreamAppendResult<C>>("a peer's answer", &answer.body) {
                    Ok(result) => Some((Ok(result), Some((answers, in_flight)))),
                    Err(e) => Some((Err(network(&e)), None)),
                };
            }
            Ok(Ok(None)) => return None,
            Ok(Err(status)) => return Some((Err(failed(status)), None)),
            // Without an append under way, silence is what there should be.
            Err(_) if in_flight.oldest().is_none_or(|at| at.elapsed() < limit) => {}
            Err(_) => return Some((Err(no_answer(limit)), None)),
        }
    }
}

fn chunks(header: Vec<u8>, state: Bytes) -> impl Iterator<Item = proto::SnapshotChunk> + Send {
    let total = state.len();
    let mut header = Some(header);
    // An empty state still needs the message with the header.
    (0..total.max(1)).step_by(CHUNK_BYTES).map(move |offset| {
        let data = state.slice(offset..total.min(offset + CHUNK_BYTES)).to_vec();
        proto::SnapshotChunk {
            header: header.take().unwrap_or_default(),
            total_bytes: if offset == 0 { total as u64 } else { 0 },
            offset: offset as u64,
            crc32c: crc32c::crc32c(&data),
            data,
        }
    })
}

// === impl InFlight ===

impl InFlight {
    fn push(&self) {
        self.0.lock().push_back(Instant::now());
    }

    fn pop(&self) {
        self.0.lock().pop_front();
    }

    fn oldest(&self) -> Option<Instant> {
        self.0.lock().front().copied()
    }
}
