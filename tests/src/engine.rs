//! The Docker Engine that all nodes of a test cluster share, seen from outside.

use crate::http::{Api, encoded};
use crate::{Outcome, image};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names the engine to use; `cargo xtask` sets it.
pub const ENV_DOCKER_HOST: &str = "SWARMLITE_TEST_DOCKER_HOST";
/// Where an engine is looked for otherwise: the machine's own, then the one of `cargo xtask docker up`.
const USUAL_PLACES: [&str; 2] = ["/var/run/docker.sock", "/run/swarmlite-xtask/docker.sock"];
/// The label by which a container is its node's.
pub const NODE_LABEL: &str = "com.docker.swarm.node.id";
/// The label by which a container is its task's.
pub const TASK_LABEL: &str = "com.docker.swarm.task.id";

/// A Docker Engine.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Its API.
    pub api: Api,
    /// Its address, as the daemon's flag takes it.
    pub host: String,
}

/// A container as `GET /containers/json` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name, without the leading slash.
    pub name: String,
    /// `running`, `exited`, `created` …
    pub state: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A container that is none of ours, and that must come through a test untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bystander {
    id: String,
    started_at: String,
}

// === impl Engine ===

impl Engine {
    /// The engine for tests; an error when none answers.
    pub async fn find() -> Outcome<Self> {
        let named = std::env::var(ENV_DOCKER_HOST).or_else(|_| std::env::var("DOCKER_HOST")).ok();
        let places =
            named.map_or_else(|| USUAL_PLACES.map(|path| format!("unix://{path}")).to_vec(), |host| vec![host]);
        for host in &places {
            if let Ok(engine) = Self::at(host).await {
                return Ok(engine);
            }
        }
        Err(format!(
            "no Docker Engine at {}: run this through `cargo xtask`, or `cargo xtask docker up` first",
            places.join(", ")
        ))
    }

    /// The engine at this address, `unix://…`; an error when it does not answer.
    pub async fn at(host: &str) -> Outcome<Self> {
        let socket = host.strip_prefix("unix://").ok_or_else(|| format!("{host} is no unix:// address"))?;
        let api = Api::new(socket);
        api.get("/_ping").await.map_err(|error| format!("no Docker Engine at {host}: {error}"))?;
        Ok(Self { api, host: host.to_string() })
    }

    /// Makes sure that the test images are there.
    pub async fn with_images(self) -> Outcome<Self> {
        image::ensure(&self.api).await?;
        Ok(self)
    }

    /// All containers, running or not, that carry this label (`KEY` or `KEY=VALUE`).
    pub async fn containers(&self, label: &str) -> Outcome<Vec<Container>> {
        let filters = encoded(&json!({ "label": [label] }).to_string());
        let list = self.api.get(&format!("/containers/json?all=true&filters={filters}")).await?;
        Ok(list.as_array().into_iter().flatten().map(Container::read).collect())
    }

    /// All containers of these nodes.
    pub async fn containers_of(&self, nodes: &[String]) -> Outcome<Vec<Container>> {
        let mut all = self.containers(NODE_LABEL).await?;
        all.retain(|container| container.labels.get(NODE_LABEL).is_some_and(|node| nodes.contains(node)));
        Ok(all)
    }

    /// Kills the running containers of a node, as when its machine is gone; returns how many.
    pub async fn kill_containers_of(&self, node: &str) -> Outcome<usize> {
        let mut running = self.containers_of(&[node.to_string()]).await?;
        running.retain(|container| container.state == "running");
        for container in &running {
            // It may have ended by itself meanwhile.
            let _ = self.api.post(&format!("/containers/{}/kill", container.id), &Value::Null).await;
        }
        Ok(running.len())
    }

    /// Removes containers, running or not.
    pub async fn remove(&self, containers: &[Container]) -> Outcome<()> {
        for container in containers {
            match self.api.delete(&format!("/containers/{}?force=true&v=true", container.id)).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Starts containers that are none of ours: a plain one that is named like a task's, and one of another swarm's node.
    pub async fn bystanders(&self, tag: &str) -> Outcome<Vec<Bystander>> {
        let other_swarm = json!({ NODE_LABEL: "another-swarms-node-00000", TASK_LABEL: "another-swarms-task-00000", "com.docker.swarm.service.name": "web" });
        let mut bystanders = Vec::new();
        for (name, labels) in [(format!("web.1.{tag}"), json!({})), (format!("web.2.{tag}"), other_swarm)] {
            let create = json!({ "Image": image::WEB_1, "Cmd": ["sleep"], "Labels": labels });
            let created = self.api.post(&format!("/containers/create?name={name}"), &create).await?;
            let id = created["Id"].as_str().unwrap_or_default().to_string();
            self.api.post(&format!("/containers/{id}/start"), &Value::Null).await?;
            bystanders.push(self.bystander(&id).await?);
        }
        Ok(bystanders)
    }

    async fn bystander(&self, id: &str) -> Outcome<Bystander> {
        let seen = self.api.get(&format!("/containers/{id}/json")).await?;
        if seen["State"]["Running"] != true {
            return Err(format!("container {id}, which is none of ours, does not run any more: {}", seen["State"]));
        }
        Ok(Bystander {
            id: id.to_string(),
            started_at: seen["State"]["StartedAt"].as_str().unwrap_or_default().to_string(),
        })
    }

    /// That they run, and were not restarted.
    pub async fn check_untouched(&self, bystanders: &[Bystander]) -> Outcome<()> {
        for bystander in bystanders {
            let now = self.bystander(&bystander.id).await?;
            if now != *bystander {
                return Err(format!("a container that is none of ours was restarted: {bystander:?} is now {now:?}"));
            }
        }
        Ok(())
    }

    /// When a container was started.
    pub async fn started_at(&self, id: &str) -> Outcome<String> {
        let seen = self.api.get(&format!("/containers/{id}/json")).await?;
        Ok(seen["State"]["StartedAt"].as_str().unwrap_or_default().to_string())
    }
}

// === impl Container ===

impl Container {
    fn read(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let labels = value["Labels"].as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value)));
        Self {
            id: text(&value["Id"]),
            name: text(&value["Names"][0]).trim_start_matches('/').to_string(),
            state: text(&value["State"]),
            labels: labels.collect(),
        }
    }

    /// The task that it is for.
    pub fn task(&self) -> &str {
        self.labels.get(TASK_LABEL).map_or("", String::as_str)
    }
}

// === impl Bystander ===

impl Bystander {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }
}
