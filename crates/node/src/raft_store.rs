//! The store as everybody on this manager sees it: reads from the local state, linearizable on request, and proposals that
//! find the leader wherever it is.

use crate::machine::decode_conflict;
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use raft::{Member, Raft, RaftView, TokioRuntime};
use rpc::Channels;
use rpc::proto::cluster as pb;
use rpc::proto::cluster::cluster_client::ClusterClient;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{Changes, ProposeError, ReadError, Snapshot, Store, StoreClient, Transaction};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::Channel;

/// How long a write or a read waits for a leader. Docker's proposal timeout is 25 s with elections of 10 s; ours take one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for a leader when the view does not change by itself.
const RETRY: Duration = Duration::from_millis(25);
/// For one question to one leader, which may have become unreachable while another one was elected.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// [`StoreClient`] over Raft.
pub(crate) struct RaftStore {
    raft: Raft<TokioRuntime>,
    views: watch::Receiver<RaftView>,
    store: Arc<Store>,
    channels: Channels,
    /// The question for a read index that is being prepared; readers that come meanwhile share it.
    next_read: Arc<Mutex<Option<SharedRead>>>,
    /// Held by the question that is under way.
    reading: Arc<tokio::sync::Mutex<()>>,
}

type SharedRead = Shared<BoxFuture<'static, Result<u64, ReadError>>>;

/// A question to another manager without an answer that settles it.
enum Asked<T> {
    Answer(T),
    /// It was not sent, or the asked one does not lead: ask again.
    Again,
    /// It was sent, and nobody knows what came of it.
    Lost(String),
}

// === impl RaftStore ===

impl RaftStore {
    pub(crate) fn new(
        raft: Raft<TokioRuntime>,
        views: watch::Receiver<RaftView>,
        store: Arc<Store>,
        channels: Channels,
    ) -> Arc<RaftStore> {
        Arc::new(RaftStore { raft, views, store, channels, next_read: Arc::default(), reading: Arc::default() })
    }

    async fn propose_bytes(&self, bytes: Bytes) -> Result<u64, ProposeError> {
        let started = Instant::now();
        let deadline = started + PATIENCE;
        let mut views = self.views.clone();
        loop {
            let view = views.borrow_and_update().clone();
            let asked = match view.leader_member() {
                Some((id, _)) if id == view.raft_id => settle(self.raft.propose(bytes.clone(), left(deadline)).await)?,
                Some((_, member)) => self.propose_to(&member, bytes.clone(), deadline).await?,
                None => Asked::Again,
            };
            match asked {
                Asked::Answer(index) => return self.applied(index, deadline).await,
                Asked::Lost(reason) => return Err(ProposeError::Unknown { reason }),
                Asked::Again if view.stopped.is_some() => return Err(ProposeError::NotManager),
                Asked::Again => {}
            }
            if Instant::now() >= deadline {
                return Err(ProposeError::NoLeader { waited: started.elapsed() });
            }
            changed_or_soon(&mut views, &view).await;
        }
    }

    async fn propose_to(&self, leader: &Member, bytes: Bytes, deadline: Instant) -> Result<Asked<u64>, ProposeError> {
        let Some(mut client) = cluster_client(&self.channels, leader) else { return Ok(Asked::Again) };
        let request = pb::ProposeRequest { transaction: bytes.to_vec() };
        let response = match timeout_at(deadline, client.propose(request)).await {
            Err(_) => return Ok(Asked::Lost(format!("the leader at {} did not answer in time", leader.addr))),
            Ok(Err(status)) if rpc::not_sent(&status) => {
                self.channels.forget(&leader.addr);
                return Ok(Asked::Again);
            }
            Ok(Err(status)) => {
                self.channels.forget(&leader.addr);
                let reason = format!("the call to the leader at {} failed: {}", leader.addr, rpc::describe(&status));
                return Ok(Asked::Lost(reason));
            }
            Ok(Ok(response)) => response.into_inner(),
        };
        match response.outcome {
            Some(pb::propose_response::Outcome::Applied(index)) => Ok(Asked::Answer(index)),
            Some(pb::propose_response::Outcome::Conflict(bytes)) => Err(conflict(&bytes)),
            Some(pb::propose_response::Outcome::NotLeader(_)) => Ok(Asked::Again),
            Some(pb::propose_response::Outcome::Unknown(reason)) => Ok(Asked::Lost(reason)),
            None => Ok(Asked::Lost("the leader's answer could not be understood".into())),
        }
    }

    /// The proposal is committed; waits until this manager has applied it too, so that its caller reads its own write.
    /// Being late does not unmake the commit.
    async fn applied(&self, index: u64, deadline: Instant) -> Result<u64, ProposeError> {
        if self.raft.wait_applied(index, left(deadline)).await.is_err() {
            tracing::debug!(index, "committed, but not applied here in time");
        }
        Ok(index)
    }

    /// Asks the leader, wherever it is, for an index that a linearizable read must have applied.
    async fn read_index(
        raft: Raft<TokioRuntime>,
        mut views: watch::Receiver<RaftView>,
        channels: Channels,
        started: Instant,
    ) -> Result<u64, ReadError> {
        let deadline = started + PATIENCE;
        loop {
            let view = views.borrow_and_update().clone();
            let answer = match view.leader_member() {
                Some((id, _)) if id == view.raft_id => raft.read_index(ASK_TIMEOUT).await.ok(),
                Some((_, member)) => ask_read_index(&channels, &member).await,
                None => None,
            };
            if let Some(index) = answer {
                return Ok(index);
            }
            if view.stopped.is_some() {
                return Err(ReadError::NotManager);
            }
            if Instant::now() >= deadline {
                return Err(ReadError::NoLeader { waited: started.elapsed() });
            }
            changed_or_soon(&mut views, &view).await;
        }
    }

    /// A question that is sent after this call began; shared by all readers that come before it is sent.
    fn shared_read_index(&self) -> SharedRead {
        let mut next = self.next_read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = next.as_ref() {
            return prepared.clone();
        }
        let (raft, views, channels) = (self.raft.clone(), self.views.clone(), self.channels.clone());
        let (reading, slot) = (self.reading.clone(), self.next_read.clone());
        let asked = Instant::now();
        let question = async move {
            let one_at_a_time = timeout_at(asked + PATIENCE, reading.lock()).await;
            // From here on it is too late to share: what was acknowledged meanwhile may be missing in the answer.
            slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            let _one_at_a_time = one_at_a_time.map_err(|_| ReadError::NoLeader { waited: asked.elapsed() })?;
            Self::read_index(raft, views, channels, asked).await
        };
        let question = question.boxed().shared();
        *next = Some(question.clone());
        question
    }
}

#[async_trait]
impl StoreClient for RaftStore {
    fn local(&self) -> Snapshot {
        self.store.snapshot()
    }

    async fn current(&self) -> Result<Snapshot, ReadError> {
        let started = Instant::now();
        let index = self.shared_read_index().await?;
        match self.raft.wait_applied(index, PATIENCE).await {
            Ok(()) => Ok(self.store.snapshot()),
            Err(raft::WaitError::Timeout { .. }) => Err(ReadError::NoLeader { waited: started.elapsed() }),
            Err(raft::WaitError::Stopped(_)) => Err(ReadError::NotManager),
        }
    }

    async fn propose(&self, transaction: Transaction) -> Result<u64, ProposeError> {
        let bytes = transaction.encode()?;
        self.propose_bytes(bytes).await
    }

    fn changes(&self) -> Changes {
        self.store.changes()
    }
}

/// The store as one term's leader sees it, for everything that a leader does of its own accord: the control loops, the
/// judgement of nodes, the changes of keys, of the root and of the managers. What it proposes is appended to this manager's log
/// in that term, or nowhere.
///
/// Its plans are made from what this leader knows. Handed to its successor, or to itself in a later term, they could meet plans
/// that were made there: twice as many tasks replaced as are allowed to be, a slot too many closed. The checks of a transaction
/// do not prevent that, because what two plans change may have no object in common. An entry of this term, however, stands
/// before the first entry of every later leader, and a new leader applies that one before it decides anything
/// ([`crate::leader`]). So each of these plans is known to all later ones, and none comes after them.
pub(crate) struct LeaderStore {
    store: Arc<RaftStore>,
    term: u64,
}

impl LeaderStore {
    pub(crate) fn new(store: Arc<RaftStore>, term: u64) -> LeaderStore {
        LeaderStore { store, term }
    }
}

#[async_trait]
impl StoreClient for LeaderStore {
    fn local(&self) -> Snapshot {
        self.store.local()
    }

    async fn current(&self) -> Result<Snapshot, ReadError> {
        self.store.current().await
    }

    async fn propose(&self, transaction: Transaction) -> Result<u64, ProposeError> {
        let outcome = self.store.raft.propose_in(self.term, transaction.encode()?, PATIENCE).await;
        if matches!(outcome, Err(raft::ProposeError::NotLeader { .. })) {
            return Err(ProposeError::Deposed { term: self.term });
        }
        match settle(outcome)? {
            Asked::Answer(index) => Ok(index),
            Asked::Lost(reason) => Err(ProposeError::Unknown { reason }),
            // The term may go on: a successor did not take over, or the majority is heard again.
            Asked::Again => Err(ProposeError::NoLeader { waited: Duration::ZERO }),
        }
    }

    fn changes(&self) -> Changes {
        self.store.changes()
    }
}

/// Answers `Cluster.Propose`: proposes here, without looking elsewhere, so that no proposal travels twice.
pub(crate) async fn propose_here(raft: &Raft<TokioRuntime>, transaction: Bytes) -> pb::ProposeResponse {
    use pb::propose_response::Outcome;
    let outcome = match raft.propose(transaction, PATIENCE).await {
        Ok(applied) if applied.response.is_empty() => Outcome::Applied(applied.index),
        Ok(applied) => Outcome::Conflict(applied.response.to_vec()),
        Err(raft::ProposeError::NotLeader { leader } | raft::ProposeError::NotNow { leader }) => {
            Outcome::NotLeader(not_leader(leader))
        }
        Err(raft::ProposeError::Stopped(_)) => Outcome::NotLeader(not_leader(None)),
        Err(raft::ProposeError::Unknown { reason }) => Outcome::Unknown(reason),
        // Every proposer checks the size before it sends.
        Err(e @ raft::ProposeError::TooLarge { .. }) => Outcome::Unknown(e.to_string()),
    };
    pb::ProposeResponse { outcome: Some(outcome) }
}

/// A client for the `Cluster` service of another manager; `None` when its entry in the Raft group is not one of ours.
pub(crate) fn cluster_client(channels: &Channels, member: &Member) -> Option<ClusterClient<Channel>> {
    let node = member.node_id.parse().ok()?;
    Some(rpc::cluster_client(channels.manager_node(&member.addr, &node).ok()?))
}

/// Who leads, for a caller that asked the wrong manager.
pub(crate) fn not_leader(leader: Option<(u64, Member)>) -> pb::NotLeader {
    pb::NotLeader { leader_addr: leader.map(|(_, m)| m.addr).unwrap_or_default() }
}

async fn ask_read_index(channels: &Channels, leader: &Member) -> Option<u64> {
    let mut client = cluster_client(channels, leader)?;
    let response = timeout(ASK_TIMEOUT, client.read_index(pb::ReadIndexRequest {})).await.ok()?;
    match response {
        Ok(response) => match response.into_inner().outcome? {
            pb::read_index_response::Outcome::Index(index) => Some(index),
            pb::read_index_response::Outcome::NotLeader(_) => None,
        },
        Err(status) => {
            tracing::debug!(leader = leader.addr, error = rpc::describe(&status), "the leader gave no read index");
            None
        }
    }
}

/// What came of a proposal to this manager's own log.
fn settle(outcome: Result<raft::Applied, raft::ProposeError>) -> Result<Asked<u64>, ProposeError> {
    match outcome {
        Ok(applied) if applied.response.is_empty() => Ok(Asked::Answer(applied.index)),
        Ok(applied) => Err(conflict(&applied.response)),
        Err(raft::ProposeError::NotLeader { .. } | raft::ProposeError::NotNow { .. }) => Ok(Asked::Again),
        Err(raft::ProposeError::Unknown { reason }) => Ok(Asked::Lost(reason)),
        Err(raft::ProposeError::Stopped(_)) => Err(ProposeError::NotManager),
        Err(raft::ProposeError::TooLarge { bytes }) => Err(store::TransactionTooLarge { changes: 0, bytes }.into()),
    }
}

fn conflict(bytes: &[u8]) -> ProposeError {
    match decode_conflict(bytes) {
        Some(conflict) => conflict.into(),
        None => ProposeError::Unknown { reason: "the outcome was written by a newer release".into() },
    }
}

/// Until another leader is known than `seen`, or a moment has passed. Any change of the view would be too often: asking a
/// member that just refused changes its view.
async fn changed_or_soon(views: &mut watch::Receiver<RaftView>, seen: &RaftView) {
    let leadership = |v: &RaftView| (v.term, v.role, v.leader, v.stopped.is_some());
    let changed = views.wait_for(|now| leadership(now) != leadership(seen));
    let _either_is_fine = tokio::time::timeout(RETRY, changed).await;
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
