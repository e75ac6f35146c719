//! `/swarmlite/backup` and `/swarmlite/gossip`: what an operator needs beyond Docker's API when it comes to disasters and keys.

use crate::reply::{Reply, full, json};
use crate::request::Request;
use crate::{Api, cluster, tokens};
use docker_api::Failure;
use http::{HeaderValue, Response, header};
use model::{Cluster, NodeId};
use seal::{Key, KeyForm};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// This node's gossip, as it sees it itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GossipView {
    /// Ids of the keys that it can open, the one that it seals with first.
    pub keys: Vec<u32>,
    /// Datagrams that it has sealed under the first key.
    pub sealed_datagrams: u64,
    /// Bytes of them.
    pub sealed_bytes: u64,
    /// The nodes that it hears.
    pub live: Vec<NodeId>,
    /// What was sent, heard and dropped since the daemon started, each drop under its reason.
    pub counters: BTreeMap<&'static str, u64>,
}

/// The key of a backup, `SWMBAK-1-…`, as the user sent it: a secret.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct KeyText(String);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BackupRequest {
    #[serde(rename = "Key", alias = "key")]
    key: Option<KeyText>,
}

/// `POST /swarmlite/backup`: the sealed file.
pub(crate) async fn create(api: &Api, mut request: Request) -> Result<Reply, Failure> {
    // In no swarm, a worker, or locked: that comes first.
    api.store()?;
    let sent: BackupRequest = request.json().await?;
    let Some(text) = sent.key.filter(|key| !key.0.is_empty()) else {
        return Err(Failure::bad_request(
            "a backup holds every secret of the cluster and is sealed under a key of yours: send one as Key (SWMBAK-1- and 32 random bytes in base64 without padding); `swarmlite backup create` makes one",
        ));
    };
    let key = Key::parse(KeyForm::Backup, &text.0).map_err(Failure::bad_request)?;
    let file = api.deps().swarm.backup(key).await.map_err(cluster::swarm_failure)?;
    let mut reply = Response::new(full(file));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(reply)
}

/// `GET /swarmlite/gossip`
pub(crate) fn gossip(api: &Api) -> Result<Reply, Failure> {
    let view = api.deps().swarm.gossip();
    view.map(|view| json(&view)).ok_or_else(|| {
        // Why there is none: in no swarm, or locked.
        api.store().err().unwrap_or_else(|| Failure::new(503, docker_api::errors::NOT_IN_SWARM))
    })
}

/// `POST /swarmlite/gossip/rotate`: the leader makes a new key as soon as no other change is under way. The answer is the id of the key
/// that is to be replaced; `GET /swarmlite/gossip` shows how far it has come.
pub(crate) async fn rotate(api: &Api) -> Result<Reply, Failure> {
    let (_, snapshot) = api.read_to_write().await?;
    let cluster = snapshot.cluster().ok_or_else(cluster::no_cluster)?;
    let newest_of = |cluster: &Cluster| cluster.gossip_keys.iter().map(|k| k.id).max().unwrap_or_default();
    let mut newest = newest_of(cluster);
    if !cluster.security.gossip_rotation.asked {
        tokens::change(api, |cluster, _| {
            newest = newest_of(cluster);
            cluster.security.gossip_rotation.asked = true;
            Ok(())
        })
        .await?;
    }
    Ok(json(&serde_json::json!({ "Replaces": newest })))
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(..)")
    }
}
