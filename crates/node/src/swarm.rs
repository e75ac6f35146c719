//! The node as the API sees it.

use crate::external_ca::Signers;
use crate::gossip_keys;
use crate::node::{JOIN_PATIENCE, Node};
use api::{
    Api, ApiDeps, ExecAnswer, ExecError, ExecRequest, Gate, InitOptions, JoinOptions, LocalState, LocalView, LogError,
    LogLine, LogRequest, ManagerView, NewRoot, NotManager, RaftView, Reachability, ServerVersion, Swarm, SwarmError,
    TlsInfo,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::{Cluster, NodeId};
use rpc::proto::logs::LogOptions;
use seams::{Listener, Tasks};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::StoreClient;

const _: () = assert!(JOIN_PATIENCE.as_secs() >= 20, "Docker's clients expect the daemon to wait 20 s");

#[async_trait]
impl Swarm for Node {
    fn local(&self) -> LocalView {
        self.local_view()
    }

    fn store(&self) -> Result<Arc<dyn StoreClient>, NotManager> {
        let not_manager = match self.local_view().state {
            LocalState::Inactive => NotManager::NoSwarm,
            LocalState::Worker => NotManager::Worker,
            LocalState::Locked => NotManager::Locked,
            LocalState::Error(_) if self.member().is_some_and(|m| m.expired().is_some()) => {
                NotManager::CertificatesExpired
            }
            LocalState::Pending | LocalState::Manager | LocalState::Error(_) => NotManager::NotReady,
        };
        let manager = self.member().and_then(|m| m.manager()).ok_or(not_manager)?;
        // Before it is in the group it has nothing to show.
        if manager.client.local().cluster().is_none() {
            return Err(NotManager::NotReady);
        }
        Ok(manager.client.clone())
    }

    fn raft(&self) -> Option<RaftView> {
        let member = self.member()?;
        let manager = member.manager()?;
        let view = manager.raft.view();
        let ids: Vec<NodeId> = view.nodes.values().filter_map(|m| m.node_id.parse().ok()).collect();
        let heard = member.hears(ids.iter());
        let me = &member.identity().node_id;
        let managers = view.nodes.iter().filter_map(|(raft_id, m)| {
            let node: NodeId = m.node_id.parse().ok()?;
            let reachability = if node == *me {
                Reachability::Reachable
            } else if view.role == raft::Role::Leader {
                reach(view.is_reachable(*raft_id, manager.raft.config().unreachable_after))
            } else {
                // A follower hears from nobody but the leader; gossip is what it knows of the others.
                heard.get(&node).copied().flatten().map_or(Reachability::Unknown, reach)
            };
            let shown = ManagerView { addr: m.addr.clone(), voter: view.voters.contains(raft_id), reachability };
            Some((node, shown))
        });
        Some(RaftView {
            leader: view.leader_member().and_then(|(_, m)| m.node_id.parse().ok()),
            managers: managers.collect(),
        })
    }

    fn tls_info(&self) -> Option<TlsInfo> {
        let member = self.member()?;
        // A manager knows which root it should be; any other node, which ones it trusts.
        let state = member.manager().map(|m| m.client.local());
        let cluster = state.as_ref().and_then(|s| s.cluster());
        let (trusted, signing) = match cluster {
            Some(c) => (c.root_ca.cert_pem.clone(), c.signing_root().cert_pem.clone()),
            None => (member.identity().root_pem.clone(), member.identity().root_pem.clone()),
        };
        let root = ca::describe_root(&signing)?;
        Some(TlsInfo {
            trust_root_pem: trusted,
            issuer_subject_der: root.subject_der,
            issuer_public_key_der: root.public_key_der,
        })
    }

    async fn begin_rotation(&self, cluster: &Cluster, new_root: NewRoot) -> Result<Cluster, SwarmError> {
        self.signers()?.begin_rotation(cluster, new_root).await
    }

    async fn check_external_cas(&self, cluster: &Cluster) -> Result<(), SwarmError> {
        self.signers()?.check(cluster).await
    }

    async fn init(&self, options: InitOptions) -> Result<NodeId, SwarmError> {
        self.init_swarm(options).await
    }

    async fn join(&self, options: JoinOptions) -> Result<(), SwarmError> {
        self.join_swarm(options).await
    }

    async fn leave(&self, force: bool) -> Result<(), SwarmError> {
        self.leave_swarm(force).await
    }

    async fn unlock(&self, key: seal::Key) -> Result<(), SwarmError> {
        self.unlock_swarm(&key).await
    }

    async fn backup(&self, key: seal::Key) -> Result<bytes::Bytes, SwarmError> {
        self.make_backup(&key).await
    }

    fn gossip(&self) -> Option<api::GossipView> {
        let member = self.member()?;
        Some(gossip_keys::view(member.gossip(), &member.membership()))
    }

    async fn logs(&self, request: LogRequest) -> Result<BoxStream<'static, Result<LogLine, LogError>>, LogError> {
        let manager = self.member().and_then(|m| m.manager());
        let manager = manager.ok_or_else(|| LogError::Failed("this node is not a manager".into()))?;
        let options = LogOptions {
            stdout: request.options.stdout,
            stderr: request.options.stderr,
            follow: request.options.follow,
            tail: request.options.tail.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
            since_unix_ns: request.options.since_unix_ns,
            details: request.details,
        };
        let stream = manager.broker.subscribe(request.task, request.node, options);
        let mut details = Arc::default();
        let lines = stream.flat_map(move |batch| {
            futures::stream::iter(match batch {
                Ok(lines) => lines.into_iter().map(|l| Ok(line(l, &mut details))).collect::<Vec<_>>(),
                Err(e) => vec![Err(log_error(e))],
            })
        });
        Ok(lines.boxed())
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecAnswer, ExecError> {
        let manager = self.member().and_then(|m| m.manager());
        let manager =
            manager.ok_or_else(|| ExecError { status: 503, message: "this node is not a manager: ask one".into() })?;
        crate::exec::ask(&manager, request).await
    }
}

impl Node {
    fn signers(&self) -> Result<Signers, SwarmError> {
        let manager = self.member().and_then(|m| m.manager()).ok_or(SwarmError::NotInSwarm)?;
        Ok(manager.signers.clone())
    }
}

fn reach(answers: bool) -> Reachability {
    if answers { Reachability::Reachable } else { Reachability::Unreachable }
}

/// A line with its details, which are those of the line before when it has none of its own.
fn line(l: rpc::proto::logs::LogLine, details: &mut Arc<BTreeMap<String, String>>) -> LogLine {
    if !l.details.is_empty() {
        *details = Arc::new(l.details.into_iter().collect());
    }
    LogLine { stderr: l.stream == 2, at_unix_ns: l.at_unix_ns, data: l.data.into(), details: details.clone() }
}

fn log_error(e: dispatcher::LogError) -> LogError {
    match e {
        dispatcher::LogError::NodeUnavailable(node) => LogError::NodeUnavailable(node),
        e => LogError::Failed(e.to_string()),
    }
}

impl Node {
    /// Serves the Docker Engine HTTP API on a listener, until `tasks` stops. Who can connect may do everything.
    pub fn serve_api(&self, listener: Box<dyn Listener>, tasks: &Tasks) {
        let (api, listening) = (self.api(tasks), tasks.child());
        tasks.spawn_to_end("api", async move { api.serve(listener, listening).await });
    }

    /// The same for whom `gate` lets in, with the rights that it gives.
    pub fn serve_gated_api(&self, listener: Box<dyn Listener>, gate: Arc<dyn Gate>, tasks: &Tasks) {
        let (api, listening) = (self.api(tasks), tasks.child());
        tasks.spawn_to_end("gated api", async move { api.serve_gated(listener, gate, listening).await });
    }

    fn api(&self, tasks: &Tasks) -> Api {
        let world = self.world();
        Api::new(ApiDeps {
            swarm: Arc::new(self.clone()),
            seams: world.seams.clone(),
            engine: world.engine.clone(),
            engine_api: world.engine_api.clone(),
            version: ServerVersion { version: env!("CARGO_PKG_VERSION").into(), ..ServerVersion::default() },
            tasks: tasks.child(),
        })
    }
}
