//! The handle to a Raft member.

use crate::config::RaftConfig;
use crate::error::{InitializeError, ProposeError, ReadError, StartError, WaitError};
use crate::log::{Log, LogStore};
use crate::machine::{Machine, StateMachine};
use crate::peer::{Book, PeerCall, PeerError, PeerNetwork, PeerTransport, read_header};
use crate::snapshot_file::SnapshotFiles;
use crate::types::{Command, Member, Snapshot, TypeConfig, decode, encode};
use crate::view::{RaftView, Role, Seen};
use bytes::Bytes;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::impls::OneshotResponder;
use openraft::network::RaftNetworkFactory;
use openraft::raft::ClientWriteResult;
use openraft::storage::RaftLogStorage as _;
use openraft::type_config::TypeConfigExt as _;
use openraft::{RaftMetrics, ReadPolicy};
use openraft_rt::{AsyncRuntime, WatchReceiver as _};
use openraft_rt_tokio::TokioRuntime;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A Raft member of this process; clones are the same member.
pub struct Raft<RT: AsyncRuntime = TokioRuntime> {
    pub(crate) inner: openraft::Raft<TypeConfig<RT>, Machine<RT>>,
    pub(crate) config: Arc<RaftConfig>,
}

/// What a member is made of.
pub struct Parts {
    /// Its id: random, never zero, and never used again once the member was removed or has lost its disk.
    pub raft_id: u64,
    /// Its settings.
    pub config: RaftConfig,
    /// Its log.
    pub log: Arc<dyn LogStore>,
    /// What commands are applied to; empty, as it will be restored from the snapshot and the log.
    pub machine: Arc<dyn StateMachine>,
    /// Where snapshot files are kept.
    pub disk: Arc<dyn seams::Disk>,
    /// The directory for them, used by nothing else.
    pub snapshot_dir: PathBuf,
}

/// An acknowledged command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its log index, which the state machine here has applied.
    pub index: u64,
    /// What the state machine answered.
    pub response: Bytes,
}

// === impl Raft ===

impl<RT: AsyncRuntime> Clone for Raft<RT> {
    fn clone(&self) -> Self {
        Raft { inner: self.inner.clone(), config: self.config.clone() }
    }
}

impl<RT: AsyncRuntime> std::fmt::Debug for Raft<RT> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft").field("raft_id", self.inner.node_id()).finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime> Raft<RT> {
    /// Starts a member from its disk. A member with an empty disk waits to be [initialized](Raft::initialize) or added by
    /// a leader.
    ///
    /// # Errors
    /// When the settings contradict each other, or the log or the snapshot is damaged.
    pub async fn start_with_transport(parts: Parts, transport: Arc<dyn PeerTransport>) -> Result<Raft<RT>, StartError> {
        let book = Book::default();
        Raft::start_on(parts, PeerNetwork::new(transport, book.clone()), book).await
    }

    pub(crate) async fn start_on<N>(parts: Parts, network: N, book: Book) -> Result<Raft<RT>, StartError>
    where
        N: RaftNetworkFactory<TypeConfig<RT>>,
        N::Network: openraft::network::NetSnapshot<TypeConfig<RT>, SnapshotData = Bytes>,
    {
        let config = parts.config.to_openraft().map_err(StartError::Config)?;
        let files = SnapshotFiles::new(parts.disk, parts.snapshot_dir);
        let log = Log::new(parts.log);
        sound(&files, log.clone()).await?;
        let machine = Machine::new(parts.machine, files, book);
        let inner = openraft::Raft::new(parts.raft_id, config, network, log, machine)
            .await
            .map_err(|e| StartError::Storage(e.to_string()))?;
        Ok(Raft { inner, config: Arc::new(parts.config) })
    }

    /// This member's id.
    pub fn raft_id(&self) -> u64 {
        *self.inner.node_id()
    }

    /// Its settings.
    pub fn config(&self) -> &RaftConfig {
        &self.config
    }

    /// Founds a group with this member as its only voter.
    ///
    /// # Errors
    /// When the disk holds a group already.
    pub async fn initialize(&self, me: Member) -> Result<(), InitializeError> {
        let members = BTreeMap::from([(self.raft_id(), me)]);
        match self.inner.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(_)) => Err(InitializeError::AlreadyInitialized),
            Err(RaftError::Fatal(e)) => Err(InitializeError::Stopped(e.to_string())),
        }
    }

    /// True when this member belongs to a group (its disk holds a log or a vote).
    ///
    /// # Errors
    /// When the member has stopped.
    pub async fn is_initialized(&self) -> Result<bool, WaitError> {
        self.inner.is_initialized().await.map_err(|e| WaitError::Stopped(e.to_string()))
    }

    /// Proposes a command and waits until it is applied here, at most `limit`.
    ///
    /// # Errors
    /// [`ProposeError::Unknown`] when it may have been or may yet be applied; with any other error it was not appended.
    pub async fn propose(&self, command: Bytes, limit: Duration) -> Result<Applied, ProposeError> {
        self.propose_by(None, command, limit).await
    }

    /// As [`Raft::propose`], but the command is appended in this `term` or never: a member that leads again in a later one
    /// refuses it. Whatever a leader works out from what it knows is proposed so. An entry of a term stands in the log before the
    /// first entry of every later leader, so a later leader that has applied that entry of its own knows all that an earlier
    /// one has brought about, and none of it can come afterwards.
    ///
    /// # Errors
    /// As for [`Raft::propose`]; [`ProposeError::NotLeader`] says that the term is over, for good.
    pub async fn propose_in(&self, term: u64, command: Bytes, limit: Duration) -> Result<Applied, ProposeError> {
        self.propose_by(Some(term), command, limit).await
    }

    async fn propose_by(&self, term: Option<u64>, command: Bytes, limit: Duration) -> Result<Applied, ProposeError> {
        if command.len() > crate::COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: command.len() });
        }
        // Known now: it has stopped before anything was sent. Learnt later, it may have been sent.
        if let Some(reason) = self.stopped() {
            return Err(ProposeError::Stopped(reason));
        }
        match TypeConfig::<RT>::timeout(limit, self.write(term, command)).await {
            Ok(Some(Ok(done))) => Ok(Applied { index: done.log_id.index, response: done.data.0 }),
            Ok(Some(Err(e))) => Err(self.write_error(e)),
            Ok(None) => {
                let why = self.stopped().unwrap_or_else(|| "it gave no answer".into());
                Err(ProposeError::Unknown { reason: format!("Raft stopped: {why}") })
            }
            Err(_) => Err(ProposeError::Unknown { reason: format!("no acknowledgement within {limit:?}") }),
        }
    }

    /// `None` when Raft stops first.
    async fn write(&self, term: Option<u64>, command: Bytes) -> Option<ClientWriteResult<TypeConfig<RT>>> {
        let (responder, written) = OneshotResponder::new_pair();
        let request = self.inner.write(Command(command)).responder(responder);
        let sent = match term {
            Some(term) => request.with_leader(term).await,
            None => request.await,
        };
        sent.ok()?;
        written.await.ok()
    }

    fn write_error(&self, error: ClientWriteError<TypeConfig<RT>>) -> ProposeError {
        match error {
            ClientWriteError::ForwardToLeader(to) => match to.reason {
                ForwardReason::NotLeader => ProposeError::NotLeader { leader: self.forward(&to) },
                ForwardReason::LeadershipTransfer | ForwardReason::LeaseExpired => {
                    ProposeError::NotNow { leader: self.forward(&to) }
                }
            },
            ClientWriteError::LogEntryDiscarded(_) => {
                ProposeError::Unknown { reason: "the leadership was lost before it was acknowledged".into() }
            }
            e @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
                ProposeError::Unknown { reason: e.to_string() }
            }
        }
    }

    /// The leader that an error names; never this member, which has just said that it is none.
    pub(crate) fn forward(&self, to: &ForwardToLeader<TypeConfig<RT>>) -> Option<(u64, Member)> {
        to.leader_id.zip(to.leader_node.clone()).filter(|(id, _)| *id != self.raft_id())
    }

    /// The log index that a linearizable read must have seen, confirmed with a majority after the call. Concurrent callers
    /// share a round of heartbeats. Wait for it with [`Raft::wait_applied`], here or on another manager.
    ///
    /// # Errors
    /// When this member does not lead, or no majority confirms it within `limit`.
    pub async fn read_index(&self, limit: Duration) -> Result<u64, ReadError> {
        if let Some(reason) = self.stopped() {
            return Err(ReadError::Stopped(reason));
        }
        match TypeConfig::<RT>::timeout(limit, self.inner.get_read_linearizer(ReadPolicy::ReadIndex)).await {
            Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                Err(ReadError::NotLeader { leader: self.forward(&to) })
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(ReadError::NoQuorum { waited: limit })
            }
            Ok(Err(RaftError::Fatal(e))) => Err(ReadError::Stopped(e.to_string())),
        }
    }

    /// Waits until the state machine here has applied an index.
    ///
    /// # Errors
    /// When it has not within `limit`, or the member stops.
    pub async fn wait_applied(&self, index: u64, limit: Duration) -> Result<(), WaitError> {
        let mut progress = self.inner.watch_apply_progress();
        let reached =
            |applied: &Option<_>| applied.as_ref().is_some_and(|id: &crate::types::LogId<RT>| id.index >= index);
        if reached(&progress.get()) {
            return Ok(());
        }
        match TypeConfig::<RT>::timeout(limit, progress.wait_until(reached)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(WaitError::Stopped(self.stopped().unwrap_or_else(|| "it was shut down".into()))),
            Err(_) => Err(WaitError::Timeout { what: format!("log entry {index} to be applied"), waited: limit }),
        }
    }

    /// What this member knows now.
    pub fn view(&self) -> RaftView {
        RaftView::new::<RT>(&self.inner.metrics().borrow_watched())
    }

    /// Waits until the view meets a condition, and gives that view.
    ///
    /// # Errors
    /// When it does not within `limit`, or the member stops.
    pub async fn wait_view(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&RaftView) -> bool + Send + Sync,
    ) -> Result<RaftView, WaitError> {
        let mut metrics = self.inner.metrics();
        let met = async {
            loop {
                let view = RaftView::new::<RT>(&metrics.borrow_and_update());
                if condition(&view) {
                    return Ok(view);
                }
                if let Some(reason) = view.stopped {
                    return Err(WaitError::Stopped(reason));
                }
                if metrics.changed().await.is_err() {
                    return Err(WaitError::Stopped("it was shut down".into()));
                }
            }
        };
        let waited = TypeConfig::<RT>::timeout(limit, met).await;
        waited.unwrap_or_else(|_| Err(WaitError::Timeout { what: what.into(), waited: limit }))
    }

    /// The term in which this member leads, if it does.
    pub fn leading_term(&self) -> Option<u64> {
        let metrics = self.inner.metrics();
        let m: &RaftMetrics<TypeConfig<RT>> = &metrics.borrow_watched();
        (m.state == openraft::ServerState::Leader && m.running_state.is_ok()).then_some(m.current_term)
    }

    /// Why the member has stopped, when it has.
    pub(crate) fn stopped(&self) -> Option<String> {
        let metrics = self.inner.metrics();
        let m: &RaftMetrics<TypeConfig<RT>> = &metrics.borrow_watched();
        m.running_state.as_ref().err().map(ToString::to_string)
    }

    /// Purges the log up to and including `index`, as far as a snapshot covers it, without waiting for it. A leader does it when no
    /// follower reads those entries any more.
    ///
    /// # Errors
    /// When the member has stopped.
    pub async fn purge_log(&self, index: u64) -> Result<(), WaitError> {
        self.inner.trigger().purge_log(index).await.map_err(|e| WaitError::Stopped(e.to_string()))
    }

    /// Compacts the log into a snapshot now, without waiting for it.
    ///
    /// # Errors
    /// When the member has stopped.
    pub async fn trigger_snapshot(&self) -> Result<(), WaitError> {
        self.inner.trigger().snapshot().await.map_err(|e| WaitError::Stopped(e.to_string()))
    }

    /// Starts an election now, unless a live leader is known (pre-vote). For tests and for a member that knows that its
    /// leader is gone.
    ///
    /// # Errors
    /// When the member has stopped.
    pub async fn campaign(&self) -> Result<(), WaitError> {
        self.inner.trigger().elect(true).await.map_err(|e| WaitError::Stopped(e.to_string()))
    }

    /// Hands the leadership over, if it leads and somebody can take it, and stops; at most `limit` for the first and as much
    /// for the second.
    pub async fn shutdown(&self, limit: Duration) {
        if self.view().role == Role::Leader {
            match self.transfer_leadership(limit).await {
                Ok(to) => tracing::info!(to, "handed the leadership over"),
                Err(e) => tracing::info!(error = %e, "stopping without handing the leadership over"),
            }
        }
        if TypeConfig::<RT>::timeout(limit, self.inner.shutdown()).await.is_err() {
            tracing::warn!(?limit, "Raft did not stop in time");
        }
    }

    /// Stops at once, as a crash would: no leadership is handed over.
    pub async fn abort(&self) {
        if let Err(e) = self.inner.shutdown().await {
            tracing::warn!(error = %e, "Raft ended badly");
        }
    }

    /// Answers a peer's request.
    ///
    /// # Errors
    /// When the bytes are no such request, or this member has stopped.
    pub async fn handle(&self, call: PeerCall) -> Result<Bytes, PeerError> {
        match call {
            PeerCall::Append(body) => answer(self.inner.append_entries(parse(&body)?).await),
            PeerCall::Vote(body) => answer(self.inner.vote(parse(&body)?).await),
            PeerCall::PreVote(body) => answer(self.inner.pre_vote(parse(&body)?).await),
            PeerCall::TransferLeader(body) => answer(self.inner.handle_transfer_leader(parse(&body)?).await),
            PeerCall::Snapshot { header, state } => {
                let (vote, meta) = read_header::<RT>(&header).map_err(|e| PeerError::Failed(e.to_string()))?;
                let snapshot = Snapshot::<RT> { meta, snapshot: state };
                answer(self.inner.install_full_snapshot(vote, snapshot).await)
            }
        }
    }
}

/// Looks at the disk before openraft does: its own error hides what is wrong with a damaged snapshot, and it may overlook that the
/// newest one is gone. From an older one it would go on with a hole in its state.
async fn sound<RT: AsyncRuntime>(files: &SnapshotFiles, mut log: Log<RT>) -> Result<(), StartError> {
    let storage = |e: std::io::Error| StartError::Storage(e.to_string());
    let newest = files.newest::<RT>().await.map_err(storage)?;
    let covered = newest.and_then(|s| s.meta.last_log_id).map(|id| id.index);
    let purged = log.get_log_state().await.map_err(storage)?.last_purged_log_id.map(|id| id.index);
    match purged {
        Some(purged) if covered < Some(purged) => {
            Err(StartError::Missing { purged, covered: covered.unwrap_or_default() })
        }
        _ => Ok(()),
    }
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, PeerError> {
    decode("a peer's request", body).map_err(|e| PeerError::Failed(e.to_string()))
}

fn answer<T: Serialize, E: std::fmt::Display>(result: Result<T, E>) -> Result<Bytes, PeerError> {
    let value = result.map_err(|e| PeerError::Failed(format!("the peer's Raft has stopped: {e}")))?;
    encode(&value).map(Bytes::from).map_err(|e| PeerError::Failed(e.to_string()))
}

impl Raft<TokioRuntime> {
    /// Starts a member that speaks gRPC; serve its [`Raft::service`] where peers dial.
    ///
    /// # Errors
    /// As [`Raft::start_with_transport`].
    pub async fn start(parts: Parts, dial: Arc<dyn crate::Dial>) -> Result<Raft, StartError> {
        let book = Book::default();
        let network = crate::grpc::Network::new(&parts.config, dial, book.clone());
        Raft::start_on(parts, network, book).await
    }

    /// The gRPC service through which peers reach this member.
    pub fn service(&self) -> rpc::proto::raft::raft_server::RaftServer<crate::grpc::Service> {
        crate::grpc::Service::new(self.clone()).into_server()
    }

    /// The view as it changes, until the group of tasks stops or the member does. Time that merely passes is no change: how
    /// long somebody has been silent is as of the last change; ask [`Raft::view`] for that.
    pub fn watch(&self, tasks: &seams::Tasks) -> tokio::sync::watch::Receiver<RaftView> {
        let mut metrics = self.inner.metrics();
        let (first, mut seen) = {
            let m = metrics.borrow_and_update();
            (RaftView::new::<TokioRuntime>(&m), Seen::new(&m))
        };
        let (out, receiver) = tokio::sync::watch::channel(first);
        tasks.spawn("raft view", async move {
            // openraft reports after each of its ticks, fifty times a second. Whoever follows the view is woken, on an idle
            // manager too, so it is renewed only for what somebody could act upon.
            while metrics.changed().await.is_ok() {
                let changed = {
                    let m = metrics.borrow_and_update();
                    seen.update(&m).then(|| RaftView::new::<TokioRuntime>(&m))
                };
                if changed.is_some_and(|view| out.send(view).is_err()) {
                    return;
                }
            }
        });
        receiver
    }
}
