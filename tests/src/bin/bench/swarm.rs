//! Docker Swarm as [`Hosts`]: the swarm mode of private engines.

use crate::hosts::{Hosts, LONG};
use serde_json::{Value, json};
use swarmlite_tests::engines::PrivateEngine;
use swarmlite_tests::network::{Kind, Network};
use swarmlite_tests::{Api, Outcome, wait};

const PORT: u16 = 2377;

/// Docker engines in swarm mode. They are gone when it is dropped.
pub(crate) struct DockerSwarm {
    engines: Vec<PrivateEngine>,
    ids: Vec<String>,
    network: Network,
    _dir: tempfile::TempDir,
}

// === impl DockerSwarm ===

impl DockerSwarm {
    /// Starts a swarm.
    pub(crate) async fn start(managers: usize, workers: usize) -> Outcome<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root, for engines in network namespaces".into());
        }
        let dir = tempfile::Builder::new().prefix("ds-").tempdir().map_err(|error| error.to_string())?;
        let network = Network::new(Kind::Namespaces, managers + workers)?;
        let engines = (0..managers + workers).map(|host| PrivateEngine::new(host, dir.path().join(format!("h{host}"))));
        let mut swarm = Self { engines: engines.collect(), ids: Vec::new(), network, _dir: dir };
        for engine in &mut swarm.engines {
            engine.up(&swarm.network).await?;
        }
        swarm.form(managers).await?;
        Ok(swarm)
    }

    async fn form(&mut self, managers: usize) -> Outcome<()> {
        let remote = format!("{}:{PORT}", self.network.address(0));
        let first = self.engines[0].api();
        first.post("/swarm/init", &json!({ "ListenAddr": format!("0.0.0.0:{PORT}"), "AdvertiseAddr": remote })).await?;
        let tokens = first.get("/swarm").await?["JoinTokens"].clone();
        for host in 1..self.engines.len() {
            let token = &tokens[if host < managers { "Manager" } else { "Worker" }];
            let address = format!("{}:{PORT}", self.network.address(host));
            let join = json!({ "ListenAddr": format!("0.0.0.0:{PORT}"), "AdvertiseAddr": address, "RemoteAddrs": [remote], "JoinToken": token });
            self.engines[host].api().post("/swarm/join", &join).await?;
        }
        for engine in &self.engines {
            let api = engine.api();
            let id = wait::until("a member", LONG, || async {
                let info = api.get("/info").await?;
                let id = info["Swarm"]["NodeID"].as_str().filter(|id| !id.is_empty());
                id.map(String::from).ok_or_else(|| "none yet".to_string())
            });
            self.ids.push(id.await?);
        }
        self.whole().await
    }
}

impl Hosts for DockerSwarm {
    fn api(&self, host: usize) -> Api {
        self.engines[host].api()
    }

    fn node_id(&self, host: usize) -> String {
        self.ids[host].clone()
    }

    fn len(&self) -> usize {
        self.engines.len()
    }

    fn process(&self, host: usize) -> Outcome<u32> {
        self.engines[host].dockerd()
    }

    fn engines(&self) -> Vec<String> {
        self.engines.iter().map(PrivateEngine::address).collect()
    }

    fn keeps_containers(&self) -> bool {
        false
    }

    async fn kill(&mut self, host: usize) -> Outcome<()> {
        self.engines[host].kill();
        Ok(())
    }

    async fn kill_machine(&mut self, host: usize) -> Outcome<()> {
        self.kill(host).await
    }

    fn ask_to_stop(&mut self, host: usize) -> Outcome<()> {
        self.engines[host].ask_to_stop()
    }

    async fn gone(&mut self, host: usize) -> Outcome<()> {
        self.engines[host].gone().await
    }

    async fn start_again(&mut self, host: usize) -> Outcome<()> {
        self.engines[host].kill();
        self.engines[host].up(&self.network).await
    }

    async fn whole(&self) -> Outcome<()> {
        let api = self.engines[0].api();
        wait::until("all nodes are ready", LONG, || async {
            let nodes = api.get("/nodes").await?;
            let good = |node: &&Value| {
                let reachable = node["ManagerStatus"].is_null() || node["ManagerStatus"]["Reachability"] == "reachable";
                node["Status"]["State"] == "ready" && reachable
            };
            let ready = nodes.as_array().into_iter().flatten().filter(good).count();
            if ready == self.engines.len() { Ok(()) } else { Err(format!("{ready} are")) }
        })
        .await
    }

    async fn tear_down(self) -> Outcome<()> {
        Ok(())
    }
}
