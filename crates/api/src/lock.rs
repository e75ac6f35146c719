//! `/swarm/unlock`, `/swarm/unlockkey`, and what a swarm's spec says about autolock.

use crate::Api;
use crate::cluster::{no_cluster, swarm_failure};
use crate::reply::{Reply, empty, json};
use crate::request::Request;
use crate::swarm::LocalState;
use docker_api::{Failure, UnlockKey};
use model::Cluster;
use seal::{Key, KeyForm};
use seams::Rand;

/// Makes the unlock key what the spec says: none without autolock, a new one when autolock was turned on or `rotate` asks for one
/// (SwarmKit controlapi/cluster.go; asking for one without autolock does nothing there either).
pub(crate) fn follow_spec(cluster: &mut Cluster, rotate: bool, rand: &dyn Rand) {
    let key = &mut cluster.security.unlock_key;
    match cluster.spec.autolock {
        false => *key = None,
        true if key.is_none() || rotate => {
            let generation = key.as_ref().map_or(1, |k| k.generation.saturating_add(1));
            *key = Some(model::UnlockKey { generation, key: *Key::generate(rand).as_bytes() });
        }
        true => {}
    }
}

/// `GET /swarm/unlockkey`: empty when managers are not locked.
pub(crate) async fn unlock_key(api: &Api, request: &Request) -> Result<Reply, Failure> {
    let snapshot = api.read(request).await?;
    let key = &snapshot.cluster().ok_or_else(no_cluster)?.security.unlock_key;
    let text = |k: &model::UnlockKey| Key::from_bytes(k.key).to_text(KeyForm::Unlock);
    Ok(json(&UnlockKey { unlock_key: key.as_ref().map(text).unwrap_or_default().into() }))
}

/// `POST /swarm/unlock`
pub(crate) async fn unlock(api: &Api, mut request: Request) -> Result<Reply, Failure> {
    let swarm = &api.deps().swarm;
    if swarm.local().state != LocalState::Locked {
        // In no swarm, or a worker: that comes first (moby `daemon/cluster/swarm.go`).
        api.store()?;
        return Err(Failure::not_locked());
    }
    let sent: UnlockKey = request.json().await?;
    let key = Key::parse(KeyForm::Unlock, &sent.unlock_key.0).map_err(Failure::bad_request)?;
    swarm.unlock(key).await.map_err(swarm_failure)?;
    Ok(empty())
}
