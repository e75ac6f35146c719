//! A manager that is locked: all that it can do is be unlocked, or leave.

use crate::join::internal;
use crate::keys::DiskKeys;
use crate::state::Layout;
use crate::world::World;
use agent::AgentConfig;
use api::SwarmError;
use ca::Peer;
use docker_api::errors::LEAVE_LOCKED;
use seal::{Key, LockedStore};

/// Opens the keys.
pub(crate) fn unlock(locked: &LockedStore, key: &Key, layout: &Layout, world: &World) -> Result<DiskKeys, SwarmError> {
    match locked.unlock(key).map_err(internal)? {
        Ok(store) => Ok(DiskKeys::of(store, layout, world)),
        Err(wrong) => {
            tracing::warn!(generation = wrong.generation, "this manager could not be unlocked: the key does not fit");
            Err(SwarmError::WrongUnlockKey)
        }
    }
}

/// Nobody is told, as nothing that is needed for that can be read; the other managers see the node go down.
pub(crate) async fn leave(force: bool, layout: &Layout, world: &World) -> Result<(), SwarmError> {
    if !force {
        return Err(SwarmError::Unavailable(LEAVE_LOCKED.into()));
    }
    match own_id(layout, world).await {
        Ok(peer) => {
            let config = AgentConfig::new(peer.node_id, layout.agent().join("assignments"));
            if let Err(e) = agent::remove_everything(&config, &world.seams, &*world.engine).await {
                tracing::warn!(error = %e, "some containers of the swarm could not be removed; `docker ps` shows them");
            }
        }
        Err(reason) => tracing::warn!(reason, "the containers of the swarm are left; `docker ps` shows them"),
    }
    Ok(())
}

/// The certificate is in the clear.
async fn own_id(layout: &Layout, world: &World) -> Result<Peer, String> {
    let path = layout.root().join(ca::NODE_CERT_FILE);
    let read = world.seams.disk.read(&path).await.map_err(|e| e.to_string())?;
    let pem = read.ok_or_else(|| format!("{} is missing", path.display()))?;
    Peer::from_pem(&String::from_utf8_lossy(&pem)).map_err(|e| format!("{}: {e}", path.display()))
}
