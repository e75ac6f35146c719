//! The manager's part of a node: Raft, the store, and the services that other nodes call.

use crate::admission::StoreAdmission;
use crate::ca_marks;
use crate::ca_service::CaService;
use crate::cluster_service::{ClusterService, report_here};
use crate::external_ca::Signers;
use crate::forgiving::Forgiving;
use crate::leader;
use crate::machine::{StoreCanary, StoreMachine};
use crate::raft_store::{RaftStore, cluster_client};
use crate::state::Layout;
use async_trait::async_trait;
use dispatcher::{
    Dispatcher, DispatcherParts, ExecBroker, Leader, LeaderReports, LogBroker, OtherExecManagers, OtherManagers,
    ReportError,
};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::NodeId;
use model::limits::{KEPT_FOR_SLOW_FOLLOWERS_MAX, SNAPSHOT_INTERVAL_MAX};
use raft::{LogStore, OpenLogError, Raft, RaftConfig, RaftView, TokioRuntime};
use rpc::proto::cluster::{self as pb, Accepted, ReportRequest};
use rpc::proto::exec::{AgentMessage, ManagerMessage};
use rpc::proto::logs::{LogBatch, Subscription};
use rpc::{Admission, Channels, ServeConfig, ServerLimits};
use seams::{Seams, Tasks};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, Delta, Event, Object, Store, StoreClient};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How long a graceful stop may take to hand the leadership over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);
/// For one report to the leader; a status waits for its commit.
const REPORT_TIMEOUT: Duration = Duration::from_secs(4);

/// Opens the Raft log in a directory: sled in production, a model disk in the simulation.
#[async_trait]
pub trait RaftLogs: Send + Sync + 'static {
    /// Opens it, empty if there is none.
    async fn open(&self, dir: &Path) -> Result<Arc<dyn LogStore>, OpenLogError>;
}

/// A running manager.
pub(crate) struct Manager {
    pub(crate) raft: Raft<TokioRuntime>,
    pub(crate) views: watch::Receiver<RaftView>,
    pub(crate) client: Arc<RaftStore>,
    pub(crate) reports: Arc<LeaderReports>,
    pub(crate) broker: LogBroker,
    pub(crate) execs: ExecBroker,
    pub(crate) seams: Seams,
    /// Sign certificates.
    pub(crate) signers: Signers,
    /// What nodes say of themselves in gossip.
    pub(crate) facts: watch::Receiver<Arc<gossip::Facts>>,
    /// Simulation only.
    pub(crate) control_canary: control::Canary,
    tasks: Tasks,
}

/// What a manager is made of.
pub(crate) struct ManagerParts {
    pub(crate) raft_id: u64,
    pub(crate) layout: Layout,
    pub(crate) listen_addr: SocketAddr,
    pub(crate) seams: Seams,
    pub(crate) logs: Arc<dyn RaftLogs>,
    pub(crate) identity: watch::Receiver<Option<Arc<ca::Identity>>>,
    pub(crate) channels: Channels,
    /// Nodes that gossip hears.
    pub(crate) live: watch::Receiver<BTreeSet<NodeId>>,
    /// What nodes say of themselves in gossip.
    pub(crate) facts: watch::Receiver<Arc<gossip::Facts>>,
    /// Told which nodes are members, for gossip.
    pub(crate) members: watch::Sender<BTreeSet<NodeId>>,
    pub(crate) raft: RaftConfig,
    pub(crate) store_canary: StoreCanary,
    pub(crate) control_canary: control::Canary,
    pub(crate) dispatcher_canary: dispatcher::Canary,
    pub(crate) accept_removed: bool,
}

/// A manager that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The control port is not to be had.
    #[error(
        "cannot listen on {addr}: {source}; is another daemon using the port? Choose another address with --listen-addr"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenLogError),
    /// Raft.
    #[error(transparent)]
    Raft(#[from] raft::StartError),
}

// === impl Manager ===

impl Manager {
    /// Starts Raft from its disk and serves the control port. A manager with an empty disk waits to be made a founder or to
    /// be taken into a group.
    pub(crate) async fn start(parts: ManagerParts, tasks: &Tasks) -> Result<Arc<Manager>, ManagerError> {
        let tasks = tasks.child();
        // It may be tried again: what a start leaves behind that failed must end.
        Self::start_parts(parts, &tasks).await.inspect_err(|_| tasks.stop())
    }

    async fn start_parts(parts: ManagerParts, tasks: &Tasks) -> Result<Arc<Manager>, ManagerError> {
        let addr = parts.listen_addr;
        let listener = parts.seams.net.listen(addr).await.map_err(|source| ManagerError::Listen { addr, source })?;
        let log = parts.logs.open(&parts.layout.raft()).await?;
        let store = Arc::new(Store::new());
        let raft_parts = raft::Parts {
            raft_id: parts.raft_id,
            // As the cluster wants it (see `snapshots`); these are Raft's own last resort.
            config: RaftConfig {
                snapshot_every: SNAPSHOT_INTERVAL_MAX,
                keep_behind_snapshot: KEPT_FOR_SLOW_FOLLOWERS_MAX,
                ..parts.raft
            },
            log,
            machine: Arc::new(StoreMachine::new(store.clone(), parts.store_canary)),
            disk: parts.seams.disk.clone(),
            snapshot_dir: parts.layout.raft().join("snapshots"),
        };
        let generation = generations(parts.identity.clone(), parts.channels.judged_by(), tasks);
        let dial = PeerDial { channels: parts.channels.clone(), generation };
        let raft = Raft::start(raft_parts, Arc::new(dial)).await?;
        let views = raft.watch(tasks);
        let client = RaftStore::new(raft.clone(), views.clone(), store, parts.channels.clone());
        let reports = LeaderReports::new(parts.seams.clock.clone(), parts.dispatcher_canary);
        let way = Arc::new(Way {
            raft: raft.clone(),
            views: views.clone(),
            channels: parts.channels.clone(),
            reports: reports.clone(),
        });
        let dispatcher = Dispatcher::start(
            DispatcherParts {
                store: client.clone(),
                leader: way.clone(),
                term: leader_terms(views.clone(), tasks),
                rand: parts.seams.rand.clone(),
                canary: parts.dispatcher_canary,
            },
            tasks,
        );
        let broker = LogBroker::new(dispatcher.clone(), way.clone(), parts.seams.rand.clone(), tasks);
        let execs = ExecBroker::new(dispatcher.clone(), way, parts.seams.rand.clone(), tasks);
        let manager = Arc::new(Manager {
            raft,
            views,
            client,
            reports,
            broker,
            execs,
            seams: parts.seams.clone(),
            signers: Signers::new(parts.seams.clone(), parts.identity.clone()),
            facts: parts.facts,
            control_canary: parts.control_canary,
            tasks: tasks.clone(),
        });
        let admission: Arc<dyn Admission> = Arc::new(StoreAdmission(manager.client.clone()));
        let serve = ServeConfig {
            identity: parts.identity,
            admission: if parts.accept_removed { Arc::new(Forgiving(admission)) } else { admission },
            clock: parts.seams.clock,
            limits: ServerLimits::default(),
        };
        rpc::serve(listener, serve, manager.routes(dispatcher), tasks);
        let suspects = watch_members(manager.client.clone(), parts.live, parts.members, tasks);
        tasks.spawn(
            "snapshots",
            crate::snapshots::keep(manager.raft.clone(), manager.views.clone(), manager.client.clone()),
        );
        tasks.spawn("marks", ca_marks::tell(manager.client.clone(), parts.channels));
        tasks.spawn("leader", leader::lead_when_leader(manager.clone(), suspects));
        Ok(manager)
    }

    fn routes(&self, dispatcher: Dispatcher) -> tonic::service::Routes {
        let cluster = ClusterService {
            raft: self.raft.clone(),
            views: self.views.clone(),
            store: self.client.clone(),
            reports: self.reports.clone(),
            clock: self.seams.clock.clone(),
        };
        tonic::service::Routes::new(self.raft.service())
            .add_service(rpc::node_ca_server(CaService::new(
                self.client.clone(),
                self.seams.clone(),
                self.signers.clone(),
                self.tasks.clone(),
            )))
            .add_service(rpc::cluster_server(cluster))
            .add_service(rpc::dispatcher_server(dispatcher))
            .add_service(rpc::logs_server(self.broker.clone()))
            .add_service(rpc::exec_server(self.execs.clone()))
    }

    /// The manager's own tasks: they stop with it.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Hands the leadership over, if it can, and stops.
    pub(crate) async fn stop(&self) {
        self.raft.shutdown(HAND_OVER_TIMEOUT).await;
        if !self.tasks.shutdown(HAND_OVER_TIMEOUT).await {
            tracing::warn!("some of the manager's tasks did not end in time");
        }
    }
}

// --- the way to other managers ---

struct PeerDial {
    channels: Channels,
    generation: watch::Receiver<u64>,
}

impl raft::Dial for PeerDial {
    fn channel(&self, _raft_id: u64, member: &raft::Member) -> std::io::Result<tonic::transport::Channel> {
        let node: NodeId = member.node_id.parse().map_err(std::io::Error::other)?;
        self.channels.own_manager_node(&member.addr, &node).map_err(std::io::Error::other)
    }

    fn generation(&self) -> Option<watch::Receiver<u64>> {
        Some(self.generation.clone())
    }
}

/// The way to the leader and to the other managers.
struct Way {
    raft: Raft<TokioRuntime>,
    views: watch::Receiver<RaftView>,
    channels: Channels,
    reports: Arc<LeaderReports>,
}

#[async_trait]
impl Leader for Way {
    async fn report(&self, request: ReportRequest) -> Result<Accepted, ReportError> {
        use pb::report_response::Outcome;
        let view = self.views.borrow().clone();
        let unavailable = |reason: String| ReportError::Unavailable { reason };
        let (id, member) = view.leader_member().ok_or_else(|| unavailable("there is no leader".into()))?;
        if id == view.raft_id {
            return report_here(&self.raft, &self.reports, request).await;
        }
        let mut client = cluster_client(&self.channels, &member)
            .ok_or_else(|| unavailable(format!("the leader's address `{}` is unusable", member.addr)))?;
        let response = tokio::time::timeout(REPORT_TIMEOUT, client.report(request)).await;
        match response {
            Err(_) => Err(unavailable(format!("the leader at {} did not answer in time", member.addr))),
            Ok(Err(status)) if status.code() == tonic::Code::PermissionDenied => {
                Err(ReportError::Denied { reason: status.message().to_owned() })
            }
            Ok(Err(status)) => Err(unavailable(rpc::describe(&status))),
            Ok(Ok(response)) => match response.into_inner().outcome {
                Some(Outcome::Accepted(accepted)) => Ok(accepted),
                Some(Outcome::NotLeader(n)) => Err(ReportError::NotLeader { leader_addr: n.leader_addr }),
                None => Err(unavailable("the leader's answer could not be understood".into())),
            },
        }
    }
}

#[async_trait]
impl OtherManagers for Way {
    fn addrs(&self) -> Vec<String> {
        let view = self.views.borrow();
        view.nodes.iter().filter(|(id, _)| **id != view.raft_id).map(|(_, m)| m.addr.clone()).collect()
    }

    async fn relay(
        &self,
        addr: &str,
        what: Subscription,
    ) -> Result<BoxStream<'static, Result<LogBatch, Status>>, Status> {
        let channel = self.channels.manager(addr).map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(rpc::logs_client(channel).relay(what).await?.into_inner().boxed())
    }
}

#[async_trait]
impl OtherExecManagers for Way {
    fn addrs(&self) -> Vec<String> {
        OtherManagers::addrs(self)
    }

    async fn relay(
        &self,
        addr: &str,
        messages: ReceiverStream<ManagerMessage>,
    ) -> Result<BoxStream<'static, Result<AgentMessage, Status>>, Status> {
        let channel = self.channels.manager(addr).map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(rpc::exec_client(channel).relay(messages).await?.into_inner().boxed())
    }
}

// --- derived watches ---

/// Counts what channels are made with: the identities that this node has had, and the keys of the marks that others were judged by.
/// Those that were made with earlier ones are to be replaced. (A manager that starts calls others before it has read what its log
/// says, and so before it knows that key.)
fn generations(
    mut identity: watch::Receiver<Option<Arc<ca::Identity>>>,
    mut marks: watch::Receiver<Option<model::GrantKey>>,
    tasks: &Tasks,
) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    identity.mark_unchanged();
    marks.mark_unchanged();
    tasks.spawn("channel generations", async move {
        loop {
            let changed = tokio::select! {
                biased;
                identity = identity.changed() => identity,
                marks = marks.changed() => marks,
            };
            if changed.is_err() {
                return;
            }
            sender.send_modify(|n| *n += 1);
        }
    });
    receiver
}

/// The term of the newest leader that this manager knows; never falls.
fn leader_terms(mut views: watch::Receiver<RaftView>, tasks: &Tasks) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    tasks.spawn("leader terms", async move {
        loop {
            let led = {
                let view = views.borrow_and_update();
                view.leader.map(|_| view.term)
            };
            if let Some(term) = led {
                sender.send_if_modified(|known| std::mem::replace(known, term.max(*known)) < term);
            }
            if views.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Tells gossip who the members are, and derives whom it does not hear.
fn watch_members(
    client: Arc<RaftStore>,
    mut live: watch::Receiver<BTreeSet<NodeId>>,
    members: watch::Sender<BTreeSet<NodeId>>,
    tasks: &Tasks,
) -> watch::Receiver<BTreeSet<NodeId>> {
    let (sender, receiver) = watch::channel(BTreeSet::new());
    tasks.spawn("members", async move {
        let mut changes = client.changes();
        loop {
            let nodes: BTreeSet<NodeId> = client.local().nodes().map(|n| n.id.clone()).collect();
            let suspects: BTreeSet<NodeId> = nodes.difference(&live.borrow_and_update()).cloned().collect();
            members.send_if_modified(|m| replace(m, nodes));
            sender.send_if_modified(|s| replace(s, suspects));
            tokio::select! {
                biased;
                heard = live.changed() => if heard.is_err() { return },
                there = other_nodes(&mut changes) => if !there { return },
            }
        }
    });
    receiver
}

/// Until a node has come or gone; false when there will be no more changes. Most commits concern tasks, and a look at all
/// nodes after each would be felt in a large cluster.
async fn other_nodes(changes: &mut Changes) -> bool {
    loop {
        match changes.next().await {
            Event::Commit(commit) => {
                let came_or_went = |d: &Delta| match (&d.before, &d.after) {
                    (None, Some(object)) | (Some(object), None) => matches!(object, Object::Node(_)),
                    _ => false,
                };
                if commit.deltas.iter().any(came_or_went) {
                    return true;
                }
            }
            Event::Resync => return true,
            Event::Closed => return false,
        }
    }
}

fn replace<T: PartialEq>(slot: &mut T, value: T) -> bool {
    let changed = *slot != value;
    *slot = value;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::ChannelTimings;

    #[tokio::test]
    async fn the_way_to_other_managers_is_opened_anew_when_they_are_judged_by_another_key() {
        let (_identity, identity) = watch::channel(None);
        let channels = Channels::new(seams::real::seams(), identity.clone(), ChannelTimings::default());
        let tasks = Tasks::new();
        let mut generation = generations(identity, channels.judged_by(), &tasks);
        let key = ca::generate_grant_key(&seams::real::OsRand);
        for (n, marks) in [(1, key.clone()), (2, model::GrantKey { required: true, ..key })] {
            channels.judge_by(Some(marks.clone()));
            generation.wait_for(|now| *now == n).await.expect("counted");
            channels.judge_by(Some(marks));
            assert!(!generation.has_changed().expect("counted"), "the same key changes nothing");
        }
        tasks.stop();
    }
}
