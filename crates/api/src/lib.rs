//! The Docker Engine HTTP API of one node.
//!
//! **Owns** the routes, the translation between Docker's JSON and the model, the proxy to the local engine (upgrades
//! included), events and logs.
//!
//! **Must never** decide anything: it reads a snapshot, proposes a transaction, and says what became of it. It knows
//! nothing of Raft, certificates or the dispatcher; what it needs of the node is in [`Swarm`].
//!
//! Reads are linearizable on every manager, unless the caller asks for `?stale=true` (or sends `X-Swarmlite-Read: stale`).

#![forbid(unsafe_code)]

pub mod access;
mod backup;
mod cluster;
mod convert;
mod digests;
mod engine_facts;
mod events;
mod exec;
mod info;
mod lock;
mod logs;
mod lookup;
mod names;
mod nodes;
mod plan;
mod proxy;
mod read;
mod rebalance;
mod render;
mod reply;
mod request;
mod route;
mod secrets;
mod server;
mod service_update;
mod services;
mod simulate;
mod stall;
mod swarm;
mod swarm_ca;
mod system;
mod tasks;
mod tokens;
mod why;

pub use access::{Caller, Right};
pub use backup::GossipView;
pub use exec::{ExecAnswer, ExecCall, ExecError, ExecInput, ExecRequest, ExecTunnel};
pub use proxy::{EngineDial, UnixEngine};
pub use server::Gate;
pub use swarm::{
    InitOptions, JoinOptions, LocalState, LocalView, LogError, LogLine, LogRequest, ManagerView, NewRoot, NotManager,
    RaftView, Reachability, Swarm, SwarmError, TlsInfo,
};

use seams::{Seams, Tasks};
use std::sync::Arc;

/// What an [`Api`] is made of.
#[derive(Clone)]
pub struct ApiDeps {
    /// The node's part in the swarm.
    pub swarm: Arc<dyn Swarm>,
    /// The world; only clock and randomness are used.
    pub seams: Seams,
    /// The local engine, for what it says of itself.
    pub engine: Arc<dyn engine::Engine>,
    /// The way to the local engine's API, to which everything goes that is not the swarm's; `None` for the embedded
    /// engine, which has none.
    pub engine_api: Option<Arc<dyn EngineDial>>,
    /// What the server says of itself.
    pub version: ServerVersion,
    /// Owns every connection and request.
    pub tasks: Tasks,
}

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerVersion {
    /// Release, such as `0.1.0`.
    pub version: String,
    /// Source revision; empty when not known.
    pub git_commit: String,
    /// When it was built; empty when not known.
    pub build_time: String,
}

/// The API of one node. Cloning is cheap.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    deps: ApiDeps,
    rendered: render::Rendered,
    facts: engine_facts::EngineFactsCache,
    connections: Arc<tokio::sync::Semaphore>,
    streams: Arc<tokio::sync::Semaphore>,
    computations: Arc<tokio::sync::Semaphore>,
    /// Instead of the swarm's: where a plan is rehearsed.
    rehearsal: Option<Arc<dyn store::StoreClient>>,
    /// What happened in the swarm lately.
    record: events::Record,
}

// === impl Api ===

impl Api {
    /// An API that serves nothing yet: hand it connections with [`Api::serve`], [`Api::serve_unix`],
    /// [`Api::serve_gated`] or [`Api::serve_connection`].
    pub fn new(deps: ApiDeps) -> Api {
        let record = events::Record::default();
        deps.tasks.spawn("event record", record.clone().keep(deps.swarm.clone()));
        Api(Arc::new(Inner {
            deps,
            rendered: render::Rendered::default(),
            facts: engine_facts::EngineFactsCache::default(),
            connections: server::room(server::CONNECTIONS_MAX),
            streams: server::room(server::STREAMS_MAX),
            computations: server::room(plan::COMPUTATIONS_MAX),
            rehearsal: None,
            record,
        }))
    }

    /// The same API upon another store.
    fn with_store(&self, store: Arc<dyn store::StoreClient>) -> Api {
        Api(Arc::new(Inner {
            deps: self.0.deps.clone(),
            rendered: render::Rendered::default(),
            facts: engine_facts::EngineFactsCache::default(),
            connections: self.0.connections.clone(),
            streams: self.0.streams.clone(),
            computations: self.0.computations.clone(),
            rehearsal: Some(store),
            record: self.0.record.clone(),
        }))
    }

    fn deps(&self) -> &ApiDeps {
        &self.0.deps
    }

    fn now(&self) -> model::Timestamp {
        model::Timestamp::from_unix(self.deps().seams.clock.unix_now())
    }
}
