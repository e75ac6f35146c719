//! A cluster of real processes with one shared Docker Engine.

use crate::engine::{Bystander, Engine};
use crate::network::{Kind, Network};
use crate::node::{self, Node};
use crate::{Api, ApiError, Outcome, wait};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How long a cluster has until all its nodes are ready, or to agree on a leader again.
pub const READY_LIMIT: Duration = Duration::from_secs(60);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of managers.
    pub managers: usize,
    /// Number of workers.
    pub workers: usize,
    /// How they reach each other.
    pub network: Kind,
    /// Put the data directory of this node on a file system of its own, of so many bytes.
    pub small_disk: Option<(usize, u64)>,
    /// Whether its nodes run containers on the engine, or pretend to.
    pub embedded: bool,
    /// The engine of its nodes; none takes the one that [`Engine::find`] finds.
    pub docker_host: Option<String>,
    /// The product; none takes the one of [`node::binary`].
    pub binary: Option<PathBuf>,
}

/// The cluster. Its processes, containers, namespaces and files are gone when it is dropped.
pub struct Cluster {
    /// Managers first.
    pub nodes: Vec<Node>,
    /// The shared engine; none in an embedded cluster.
    pub engine: Option<Engine>,
    /// Containers that are none of ours.
    pub bystanders: Vec<Bystander>,
    network: Network,
    options: Options,
    dir: Option<tempfile::TempDir>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            managers: 3,
            workers: 2,
            network: Kind::Namespaces,
            small_disk: None,
            embedded: false,
            docker_host: None,
            binary: None,
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts processes that are no swarm yet.
    pub async fn processes(options: Options) -> Outcome<Self> {
        let engine = match &options.docker_host {
            _ if options.embedded => None,
            Some(host) => Some(Engine::at(host).await?.with_images().await?),
            None => Some(Engine::find().await?.with_images().await?),
        };
        let dir = tempfile::Builder::new().prefix("sl-").tempdir().map_err(|error| error.to_string())?;
        let count = options.managers + options.workers;
        let network = Network::new(options.network, count)?;
        let mut cluster = Self { nodes: Vec::new(), engine, bystanders: Vec::new(), network, options, dir: Some(dir) };
        for index in 0..count {
            let place = cluster.dir().join(format!("n{}", index + 1));
            let node = Node::new(index, index < cluster.options.managers, cluster.network.address(index), place)?;
            cluster.nodes.push(node);
        }
        if let Some((index, bytes)) = cluster.options.small_disk {
            mount_small_disk(&cluster.nodes[index], bytes)?;
        }
        for index in 0..count {
            cluster.spawn(index)?;
        }
        for node in &mut cluster.nodes {
            node.answers().await?;
        }
        Ok(cluster)
    }

    /// Starts a cluster and waits until all its nodes are ready.
    pub async fn start(options: Options) -> Outcome<Self> {
        let began = tokio::time::Instant::now();
        let mut cluster = Self::processes(options).await?;
        cluster.form().await?;
        let engine = cluster.engine.clone();
        if let Some(engine) = engine {
            let tag = cluster.nodes[0].id.clone();
            cluster.bystanders = engine.bystanders(&tag).await?;
        }
        // Not on standard output: the bench prints figures for programs there.
        eprintln!(
            "    a cluster of {} managers and {} workers is ready after {:.1} s",
            cluster.options.managers,
            cluster.options.workers,
            began.elapsed().as_secs_f64()
        );
        Ok(cluster)
    }

    async fn form(&mut self) -> Outcome<()> {
        self.nodes[0].init().await?;
        let (manager, worker) = self.tokens().await?;
        let remote = self.nodes[0].remote();
        for node in &mut self.nodes[1..] {
            let token = if node.manager { &manager } else { &worker };
            node.join(&remote, token).await?;
        }
        self.all_ready().await
    }

    /// The join tokens, for managers and workers.
    pub async fn tokens(&self) -> Outcome<(String, String)> {
        let swarm = self.nodes[0].api().get("/swarm").await?;
        let token = |role: &str| {
            swarm["JoinTokens"][role].as_str().map(String::from).ok_or_else(|| format!("no token in {swarm}"))
        };
        Ok((token("Manager")?, token("Worker")?))
    }

    /// Starts a node's process (again); it is not waited for.
    pub fn spawn(&mut self, index: usize) -> Outcome<()> {
        let command = self.network.command(index, &self.binary());
        let args = self.engine_args();
        self.nodes[index].start(command, &args)
    }

    fn binary(&self) -> PathBuf {
        self.options.binary.clone().unwrap_or_else(node::binary)
    }

    fn engine_args(&self) -> Vec<String> {
        match &self.engine {
            Some(engine) => vec!["--engine".to_string(), "docker".into(), "--docker-host".into(), engine.host.clone()],
            None => vec!["--engine".to_string(), "embedded".into()],
        }
    }

    /// Starts a daemon that is in no swarm, on an address of its own; it ends when it is dropped.
    pub async fn stranger(&self) -> Outcome<Node> {
        if self.options.network != Kind::Loopback {
            return Err("a namespace for it would have to be made first: use Kind::Loopback".into());
        }
        let mut node = self.place(self.nodes.len(), "stranger")?;
        self.start_at(&mut node)?;
        node.answers().await?;
        Ok(node)
    }

    /// A node that is not started, with the address of a host and directories of its own.
    pub fn place(&self, host: usize, name: &str) -> Outcome<Node> {
        Node::new(host, host < self.options.managers, self.network.address(host), self.dir().join(name))
    }

    /// Starts the daemon of such a node; it is not waited for.
    pub fn start_at(&self, node: &mut Node) -> Outcome<()> {
        node.start(self.network.command(node.index, &self.binary()), &self.engine_args())
    }

    /// Starts a node's process again, and waits until its API answers.
    pub async fn restart(&mut self, index: usize) -> Outcome<()> {
        self.spawn(index)?;
        self.nodes[index].answers().await
    }

    /// Pulls a node's cable.
    pub fn cut(&self, index: usize) -> Outcome<()> {
        self.network.cut(index)
    }

    /// Lets a node send but not receive.
    pub fn deafen(&self, index: usize) -> Outcome<()> {
        self.network.deafen(index)
    }

    /// Mends its network.
    pub fn heal(&self, index: usize) -> Outcome<()> {
        self.network.heal(index)
    }

    /// The managers.
    pub fn managers(&self) -> &[Node] {
        &self.nodes[..self.options.managers]
    }

    /// The APIs of the managers: any of them serves.
    pub fn apis(&self) -> Vec<Api> {
        self.managers().iter().map(Node::api).collect()
    }

    /// The ids of all nodes.
    pub fn ids(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.id.clone()).collect()
    }

    /// Waits until every node is ready and every manager reachable, as the first manager sees them.
    pub async fn all_ready(&self) -> Outcome<()> {
        wait::until("all nodes are ready", READY_LIMIT, || async {
            let seen = self.nodes[0].nodes().await?;
            for node in &self.nodes {
                let of_it = seen
                    .iter()
                    .find(|other| other["ID"] == node.id.as_str())
                    .ok_or_else(|| format!("{} is not listed", node.name()))?;
                let reachable = !node.manager || of_it["ManagerStatus"]["Reachability"] == "reachable";
                if of_it["Status"]["State"] != "ready" || !reachable {
                    return Err(format!("{} is {} {}", node.name(), of_it["Status"], of_it["ManagerStatus"]));
                }
            }
            Ok(())
        })
        .await
    }

    /// Waits until the given managers name one and the same leader, and returns its place.
    pub async fn leader_among(&self, managers: &[usize]) -> Outcome<usize> {
        wait::until("one leader", READY_LIMIT, || async {
            let mut agreed: Option<String> = None;
            for index in managers {
                let leaders: Vec<String> = self.nodes[*index].nodes().await?.iter().filter_map(leader_id).collect();
                let [leader] = leaders.as_slice() else {
                    return Err(format!("{} sees {} leaders", self.nodes[*index].name(), leaders.len()));
                };
                if agreed.get_or_insert_with(|| leader.clone()) != leader {
                    return Err("the managers name different leaders".into());
                }
            }
            let leader = agreed.unwrap_or_default();
            let place = self.nodes.iter().position(|node| node.id == leader).ok_or("the leader is no node of ours")?;
            // A leader that others still name, but that is out of reach, is none.
            if managers.contains(&place) {
                Ok(place)
            } else {
                Err(format!("they still name {}", self.nodes[place].name()))
            }
        })
        .await
    }

    /// The same of all managers.
    pub async fn leader(&self) -> Outcome<usize> {
        let all: Vec<usize> = (0..self.options.managers).collect();
        self.leader_among(&all).await
    }

    /// Creates a replicated service of the test image, through the given manager; returns its id.
    pub async fn create_service(&self, through: usize, name: &str, image: &str, replicas: u64) -> Outcome<String> {
        let spec = service_spec(name, image, replicas);
        let created = self.nodes[through].api().post("/services/create", &spec).await?;
        created["ID"].as_str().map(String::from).ok_or_else(|| format!("no id in {created}"))
    }

    /// Sends a signal to a node's process.
    pub fn signal(&self, index: usize, signal: Signal) -> Outcome<()> {
        self.nodes[index].signal(signal)
    }

    /// What the daemons said last, for a report; the files stay when the environment asks for it.
    pub fn autopsy(&mut self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            text.push_str(&format!("  {} ({}):\n{}\n", node.name(), node.id, node.log_tail(12)));
        }
        if std::env::var_os("SWARMLITE_TEST_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            text.push_str(&format!("  kept: {}\n", dir.keep().display()));
        }
        text
    }

    fn dir(&self) -> PathBuf {
        self.dir.as_ref().map(|dir| dir.path().to_path_buf()).unwrap_or_default()
    }

    /// Tells a story on this cluster and takes it down, however the story ends. The error of one that went wrong says what the
    /// cluster looked like then.
    pub async fn tell(mut self, story: impl AsyncFnOnce(&mut Cluster) -> Outcome<()>) -> Outcome<()> {
        let outcome = story(&mut self).await;
        let outcome = outcome.map_err(|error| format!("{error}\n{}", self.autopsy()));
        let cleaned = self.tear_down().await;
        outcome.and(cleaned)
    }

    /// Stops everything and removes all containers of this cluster. Dropping kills the processes as well, but leaves their
    /// containers.
    pub async fn tear_down(mut self) -> Outcome<()> {
        let ids = self.ids();
        for node in &mut self.nodes {
            if node.pid().is_some() {
                node.kill()?;
            }
        }
        if let Some(engine) = &self.engine {
            engine.remove(&engine.containers_of(&ids).await?).await?;
            for bystander in &self.bystanders {
                let _ = engine.api.delete(&format!("/containers/{}?force=true", bystander.id())).await;
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((index, _)) = self.options.small_disk
            && let Some(node) = self.nodes.get_mut(index)
        {
            if node.pid().is_some() {
                let _ = node.kill();
            }
            let _ = Command::new("umount").arg(node.data_dir()).output();
        }
    }
}

fn mount_small_disk(node: &Node, bytes: u64) -> Outcome<()> {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(node.data_dir());
    let output = mount.output().map_err(|error| format!("cannot run mount: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("mount: {}", String::from_utf8_lossy(&output.stderr))) }
}

fn leader_id(node: &Value) -> Option<String> {
    (node["ManagerStatus"]["Leader"] == true).then(|| node["ID"].as_str().unwrap_or_default().to_string())
}

/// The specification of a replicated service, as `docker service create` sends it.
pub fn service_spec(name: &str, image: &str, replicas: u64) -> Value {
    json!({
        "Name": name,
        "Labels": {},
        "TaskTemplate": { "ContainerSpec": { "Image": image }, "RestartPolicy": { "Condition": "any", "Delay": 1_000_000_000u64 } },
        "Mode": { "Replicated": { "Replicas": replicas } },
        "EndpointSpec": { "Mode": "vip" },
    })
}

/// Changes a service's specification through any of the managers; retries while others change it too.
pub async fn update_service(api: &Api, name: &str, change: impl Fn(&mut Value)) -> Result<(), ApiError> {
    for _ in 0..20 {
        let service = api.get(&format!("/services/{name}")).await?;
        let mut spec = service["Spec"].clone();
        change(&mut spec);
        match api.post(&format!("/services/{name}/update?version={}", service["Version"]["Index"]), &spec).await {
            Err(ApiError::Refused { message, .. }) if message.contains("out of sequence") => {}
            outcome => return outcome.map(drop),
        }
    }
    Err(ApiError::Broken(format!("service {name} is changed by others all the time")))
}

/// A line of a test's story.
pub fn say(line: &str) {
    println!("    {line}");
}
