//! What an agent keeps on disk: its assignments with the status that each has reached, and which plugins it installed.

use crate::plugin::owned::OwnedPlugins;
use crate::set::Position;
use bytes::Bytes;
use model::Task;
use seams::Disk;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the file's form. Fields are only ever added; a higher one was written by a newer release.
const VERSION: u32 = 1;

/// The file: MessagePack with field names, written whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) version: u32,
    pub(crate) position: Option<Position>,
    /// With the agent's own status in place of the managers'.
    pub(crate) tasks: Vec<Task>,
    /// What it installed in the engine; agents that knew no plugins wrote nothing of it.
    #[serde(default)]
    pub(crate) plugins: OwnedPlugins,
}

/// The state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It cannot be read.
    #[error("cannot read the agent's state file {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be decoded.
    #[error(
        "the agent's state file {} is damaged ({reason}); remove it and start again: the managers will send the node's \
         assignments anew, and its containers keep running meanwhile",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer release wrote it.
    #[error("the agent's state file {} has version {found}, this release knows {VERSION}: start the newer release", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

pub(crate) async fn read(disk: &dyn Disk, path: &Path) -> Result<Saved, SavedError> {
    let path = path.to_owned();
    let bytes = match disk.read(&path).await {
        Ok(None) => return Ok(Saved::default()),
        Ok(Some(bytes)) => bytes,
        Err(source) => return Err(SavedError::Unreadable { path, source }),
    };
    let saved: Saved = match model::persisted::decode(&bytes) {
        Ok(saved) => saved,
        Err(e) => return Err(SavedError::Damaged { path, reason: e.to_string() }),
    };
    if saved.version > VERSION {
        return Err(SavedError::Newer { path, found: saved.version });
    }
    Ok(saved)
}

pub(crate) async fn write(
    disk: &dyn Disk,
    path: &Path,
    position: Option<Position>,
    tasks: Vec<Task>,
    plugins: OwnedPlugins,
) -> std::io::Result<()> {
    let saved = Saved { version: VERSION, position, tasks, plugins };
    let bytes = rmp_serde::to_vec_named(&saved).map_err(std::io::Error::other)?;
    // Environment variables of containers often hold passwords.
    disk.write_atomic(path, Bytes::from(bytes), 0o600).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::owned::{Claim, Claimed};
    use crate::testing::a_plugin_task;

    #[test]
    fn what_agents_wrote_that_knew_no_plugins_is_read_and_plugins_are_kept() {
        #[derive(Serialize)]
        struct Before {
            version: u32,
            position: Option<Position>,
            tasks: Vec<Task>,
        }
        let task = a_plugin_task(1, "net", "registry/net:1");
        let before = Before { version: VERSION, position: None, tasks: vec![task.clone()] };
        let bytes = rmp_serde::to_vec_named(&before).unwrap();
        let mut saved: Saved = model::persisted::decode(&bytes).unwrap();
        assert_eq!((saved.tasks.len(), &saved.plugins), (1, &OwnedPlugins::default()));
        let (name, remote) = ("net:latest".into(), "registry/net:1".into());
        let claim = Claim { name, service: task.service_id, task: task.id, remote, found: None };
        assert_eq!(saved.plugins.claim(claim, |_| false), Claimed::Granted);
        let bytes = rmp_serde::to_vec_named(&saved).unwrap();
        assert_eq!(model::persisted::decode::<Saved>(&bytes).unwrap(), saved);
    }
}
