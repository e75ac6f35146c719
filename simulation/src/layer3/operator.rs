//! Who runs the cluster, and now and then changes who may do what in the middle of the storm: a manager is demoted, a worker
//! that is in nobody's good books is removed while it still runs and talks, the root and the gossip key are replaced.

use super::http::{Answer, ask};
use super::machine::Machine;
use super::user::{Desk, Phase};
use crate::event;
use crate::rng::SeededRand;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(300);

/// What the operator will do in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// The machine whose node is removed.
    pub outcast: Option<usize>,
    /// The machine whose node is demoted.
    pub demoted: Option<usize>,
    /// The root is replaced.
    pub rotates_root: bool,
    /// The gossip key is replaced.
    pub rotates_gossip: bool,
}

/// The operator.
pub(super) struct Operator {
    pub rand: SeededRand,
    pub plan: Plan,
    pub machines: Vec<Arc<Machine>>,
    pub managers: Vec<IpAddr>,
    pub desk: Arc<Mutex<Desk>>,
}

// === impl Operator ===

impl Operator {
    /// Does what is planned, each at its time, and again until it is done.
    pub(super) async fn work(self) -> turmoil::Result {
        while self.desk.lock().phase == Phase::Founding {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(self.rand.millis(2000, 9000)).await;
        if self.plan.rotates_gossip {
            // Asked once: whether it was done is told by the keys, and twice would be too often.
            let answer = self.ask(Method::POST, "/swarmlite/gossip/rotate", None).await;
            event!("operator", "replaces the gossip key: {}", answer.message());
        }
        if self.plan.rotates_root {
            self.rotate_root().await;
        }
        if let Some(i) = self.plan.demoted {
            self.demote(&self.machines[i].name).await;
        }
        if let Some(i) = self.plan.outcast {
            self.remove(&self.machines[i].name).await;
            self.desk.lock().removed.insert(i);
        }
        self.desk.lock().operator_is_done = true;
        Ok(())
    }

    async fn rotate_root(&self) {
        let mut before = None;
        loop {
            if let Answer::Came(StatusCode::OK, swarm) = self.ask(Method::GET, "/v1.44/swarm", None).await {
                let count = swarm["Spec"]["CAConfig"]["ForceRotate"].as_u64().unwrap_or_default();
                // Done, though perhaps nobody said so.
                if count > *before.get_or_insert(count) {
                    event!("operator", "the root is being replaced");
                    return;
                }
                let mut spec = swarm["Spec"].clone();
                spec["CAConfig"]["ForceRotate"] = json!(count + 1);
                let path = format!("/v1.44/swarm/update?version={}", swarm["Version"]["Index"]);
                let answer = self.ask(Method::POST, &path, Some(&spec)).await;
                event!("operator", "replaces the root: {}", answer.message());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn demote(&self, name: &str) {
        loop {
            if let Some(node) = self.node(name).await {
                if node["Spec"]["Role"] == "worker" {
                    event!("operator", "{name} is a worker");
                    return;
                }
                let mut spec = node["Spec"].clone();
                spec["Role"] = json!("worker");
                let version = &node["Version"]["Index"];
                let path = format!("/v1.44/nodes/{}/update?version={version}", id(&node));
                let answer = self.ask(Method::POST, &path, Some(&spec)).await;
                event!("operator", "demotes {name}: {}", answer.message());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn remove(&self, name: &str) {
        // Known by its id from here on: its name goes with it.
        let id = loop {
            if let Some(node) = self.node(name).await {
                break id(&node).to_owned();
            }
            tokio::time::sleep(AGAIN).await;
        };
        loop {
            let answer = self.ask(Method::DELETE, &format!("/v1.44/nodes/{id}?force=true"), None).await;
            event!("operator", "removes {name}: {}", answer.message());
            if matches!(&answer, Answer::Came(status, _) if status.is_success() || *status == StatusCode::NOT_FOUND) {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The node of a machine, as some manager describes it.
    async fn node(&self, name: &str) -> Option<Value> {
        match self.ask(Method::GET, "/v1.44/nodes", None).await {
            Answer::Came(StatusCode::OK, Value::Array(nodes)) => {
                nodes.into_iter().find(|n| n["Description"]["Hostname"] == name)
            }
            _ => None,
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let to = *self.rand.pick(&self.managers).expect("a cluster has a manager");
        ask(to, method, path, body).await
    }
}

fn id(node: &Value) -> &str {
    node["ID"].as_str().unwrap_or_default()
}
