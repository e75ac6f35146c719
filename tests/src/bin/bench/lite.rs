//! Swarmlite as [`Hosts`].

use crate::hosts::Hosts;
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Duration;
use swarmlite_tests::engines::PrivateEngine;
use swarmlite_tests::network::{Kind, Network};
use swarmlite_tests::{Api, Cluster, Options, Outcome, wait};

/// For a process that was told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A cluster of daemons, in namespaces where that is possible, with at most one engine. It is gone when it is dropped.
pub(crate) struct Lite {
    cluster: Cluster,
    /// The engine's, if it is ours alone.
    _private: Option<Private>,
}

struct Private {
    engine: PrivateEngine,
    _network: Network,
    _dir: tempfile::TempDir,
}

// === impl Lite ===

impl Lite {
    /// A cluster that pretends to run its containers.
    pub(crate) async fn embedded(workers: usize) -> Outcome<Self> {
        Self::embedded_with(workers, None).await
    }

    /// The same, of another build of the product.
    pub(crate) async fn embedded_with(workers: usize, binary: Option<PathBuf>) -> Outcome<Self> {
        let options = Options { workers, network: kind(), embedded: true, binary, ..Options::default() };
        Ok(Self { cluster: Cluster::start(options).await?, _private: None })
    }

    /// A cluster on an engine of our own; without root on the engine that there is.
    pub(crate) async fn on_docker(workers: usize) -> Outcome<Self> {
        let private = if kind() == Kind::Namespaces { Some(Private::start().await?) } else { None };
        let docker_host = private.as_ref().map(|private| private.engine.address());
        let options = Options { workers, network: kind(), docker_host, ..Options::default() };
        Ok(Self { cluster: Cluster::start(options).await?, _private: private })
    }
}

impl Private {
    async fn start() -> Outcome<Self> {
        let dir = tempfile::Builder::new().prefix("de-").tempdir().map_err(|error| error.to_string())?;
        let network = Network::new(Kind::Namespaces, 1)?;
        let mut engine = PrivateEngine::new(0, dir.path().join("e"));
        engine.up(&network).await?;
        Ok(Self { engine, _network: network, _dir: dir })
    }
}

/// Namespaces need root.
fn kind() -> Kind {
    if rustix::process::geteuid().is_root() { Kind::Namespaces } else { Kind::Loopback }
}

impl Hosts for Lite {
    fn api(&self, host: usize) -> Api {
        self.cluster.nodes[host].api()
    }

    fn node_id(&self, host: usize) -> String {
        self.cluster.nodes[host].id.clone()
    }

    fn len(&self) -> usize {
        self.cluster.nodes.len()
    }

    fn process(&self, host: usize) -> Outcome<u32> {
        self.cluster.nodes[host].pid().ok_or_else(|| "it does not run".into())
    }

    fn engines(&self) -> Vec<String> {
        self.cluster.engine.iter().map(|engine| engine.host.clone()).collect()
    }

    fn keeps_containers(&self) -> bool {
        true
    }

    async fn kill(&mut self, host: usize) -> Outcome<()> {
        self.cluster.nodes[host].kill()
    }

    async fn kill_machine(&mut self, host: usize) -> Outcome<()> {
        self.cluster.nodes[host].kill()?;
        let engine = self.cluster.engine.clone().ok_or("no engine")?;
        engine.kill_containers_of(&self.cluster.nodes[host].id).await.map(drop)
    }

    fn ask_to_stop(&mut self, host: usize) -> Outcome<()> {
        self.cluster.signal(host, Signal::TERM)
    }

    async fn gone(&mut self, host: usize) -> Outcome<()> {
        wait::until_now("the old process is gone", STOP_LIMIT, || {
            if self.cluster.nodes[host].is_running() { Err("it is still there".into()) } else { Ok(()) }
        })
        .await
    }

    async fn start_again(&mut self, host: usize) -> Outcome<()> {
        self.cluster.restart(host).await
    }

    async fn whole(&self) -> Outcome<()> {
        self.cluster.all_ready().await?;
        self.cluster.leader().await.map(drop)
    }

    async fn tear_down(self) -> Outcome<()> {
        self.cluster.tear_down().await
    }
}
