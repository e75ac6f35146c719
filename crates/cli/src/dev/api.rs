//! The nodes' APIs, by socket.

use super::state::DevNode;
use crate::client::{Client, ClientError, Host};
use seams::Tasks;
use serde_json::Value;

/// What a request needs besides a node.
#[derive(Clone)]
pub(crate) struct Api {
    net: std::sync::Arc<dyn seams::Net>,
    tasks: Tasks,
}

// === impl Api ===

impl Api {
    /// Connections are owned by `tasks`.
    pub(crate) fn new(net: std::sync::Arc<dyn seams::Net>, tasks: Tasks) -> Self {
        Self { net, tasks }
    }

    fn client(&self, node: &DevNode) -> Client {
        Client::new(Host::Unix(node.socket()), None, self.net.clone(), self.tasks.clone())
    }

    /// Whether the node's API answers; if not, why.
    pub(super) async fn ping(&self, node: &DevNode) -> Result<(), String> {
        self.client(node).get_raw("/_ping", &[]).await.map(drop).map_err(words)
    }

    /// Asks a node for something.
    pub(super) async fn get(&self, node: &DevNode, path: &str) -> Result<Value, String> {
        self.client(node).get(path, &[]).await.map_err(words)
    }

    /// Asks a node to do something.
    pub(super) async fn post(&self, node: &DevNode, path: &str, body: &Value) -> Result<(), String> {
        self.client(node).post(path, &[], body).await.map(drop).map_err(words)
    }
}

/// The daemon's own words, where it is the one who says no.
fn words(error: ClientError) -> String {
    match error {
        ClientError::Daemon { message, .. } => message,
        other => other.to_string(),
    }
}
