//! What a node remembers of itself between two starts: one small file. Its presence means "this node is in a swarm"; it is
//! written last when a swarm is made or joined and removed first when one is left, so a crash in between leaves nothing
//! that could be taken for a membership.

use bytes::Bytes;
use model::{ClusterId, GossipKey, NodeId, RaftTicks};
use seams::Disk;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where things are in the data directory.
#[derive(Debug, Clone)]
pub struct Layout(PathBuf);

/// The remembered membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Format of this file.
    pub format: u32,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This node.
    pub node_id: NodeId,
    /// This node's Raft member id: drawn when it joined, never used by another node. A worker keeps it unused until it is
    /// promoted; a demotion draws a new one.
    pub raft_id: u64,
    /// Where this node listens.
    pub listen_addr: SocketAddr,
    /// Where others reach it.
    pub advertise_addr: SocketAddr,
    /// UDP port of gossip.
    pub gossip_port: u16,
    /// UDP port of the data path.
    pub data_path_port: u16,
    /// The address of the data path, where the user gave one; else it is the advertised one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_path_addr: Option<IpAddr>,
    /// Managers, as last heard of.
    pub managers: Vec<KnownManager>,
    /// Gossip keys, as last heard of.
    pub gossip_keys: Vec<GossipKey>,
    /// How patient managers are with each other, as last heard of: Raft has to be told when it starts, and what the cluster says can
    /// be read only once it runs.
    #[serde(default)]
    pub raft_ticks: RaftTicks,
}

/// A manager's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KnownManager {
    /// Which.
    pub node_id: NodeId,
    /// Where.
    pub addr: SocketAddr,
}

/// A membership file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk said no.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// It is damaged.
    #[error(
        "{path} is damaged ({source}): this node cannot tell which swarm it belongs to. Restore the file, or move the data directory away and join again as a new node"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Written by another release.
    #[error("{path} has format {found}, this release reads format {FORMAT}; was it written by a newer release?")]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// The format this release writes.
pub(crate) const FORMAT: u32 = 1;

// === impl Layout ===

impl Layout {
    /// The layout of this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Layout {
        Layout(data_dir.into())
    }
    /// The data directory.
    pub fn root(&self) -> &Path {
        &self.0
    }
    /// Held while a daemon runs on the directory.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
    /// [`Membership`].
    pub fn membership(&self) -> PathBuf {
        self.0.join("node.json")
    }
    /// The data keys with which everything else is sealed.
    pub fn key_file(&self) -> PathBuf {
        self.0.join("data-keys")
    }
    /// Keys and certificates.
    pub fn certificates(&self) -> PathBuf {
        self.0.join("certificates")
    }
    /// Log, vote and snapshots of a manager.
    pub fn raft(&self) -> PathBuf {
        self.0.join("raft")
    }
    /// The log alone, which is no plain file.
    pub(crate) fn raft_log(&self) -> PathBuf {
        self.raft().join("log")
    }
    /// What `init --force-new-cluster` has begun.
    pub(crate) fn force_new(&self) -> PathBuf {
        self.0.join("force-new.json")
    }
    /// The agent's assignments.
    pub fn agent(&self) -> PathBuf {
        self.0.join("agent")
    }

    /// Forgets the membership: the file first, then the data keys, then all that belongs to it.
    pub async fn wipe(&self, disk: &dyn Disk) -> Result<(), StateError> {
        let io = |path: PathBuf| move |source| StateError::Io { verb: "remove", path, source };
        // Without the data keys the rest cannot be read, whatever becomes of it.
        for file in [self.membership(), self.key_file(), self.force_new()] {
            disk.remove(&file).await.map_err(io(file.clone()))?;
            // What a crash in the middle of a write has left of it.
            let unfinished = PathBuf::from([file.as_os_str(), "tmp".as_ref()].join(".".as_ref()));
            disk.remove(&unfinished).await.map_err(io(unfinished))?;
        }
        for dir in [self.raft(), self.agent(), self.certificates()] {
            disk.remove_dir(&dir).await.map_err(io(dir))?;
        }
        Ok(())
    }
}

// === impl Membership ===

impl Membership {
    /// Whether there is a file, readable or not: this node is in a swarm.
    pub(crate) async fn is_there(layout: &Layout, disk: &dyn Disk) -> Result<bool, StateError> {
        let path = layout.membership();
        let read = disk.read(&path).await;
        read.map(|bytes| bytes.is_some()).map_err(|source| StateError::Io { verb: "read", path, source })
    }

    /// Reads the file through the sealed disk; `None` when this node is in no swarm.
    pub async fn load(layout: &Layout, disk: &dyn Disk) -> Result<Option<Membership>, StateError> {
        let path = layout.membership();
        let bytes =
            disk.read(&path).await.map_err(|source| StateError::Io { verb: "read", path: path.clone(), source })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let membership: Membership =
            serde_json::from_slice(&bytes).map_err(|source| StateError::Damaged { path: path.clone(), source })?;
        if membership.format != FORMAT {
            return Err(StateError::Format { path, found: membership.format });
        }
        Ok(Some(membership))
    }

    /// Writes the file through the sealed disk. It holds the gossip keys, so it is the owner's alone.
    pub async fn save(&self, layout: &Layout, disk: &dyn Disk) -> Result<(), StateError> {
        let path = layout.membership();
        let bytes = serde_json::to_vec_pretty(self).expect("a membership is plain data, which always encodes");
        disk.write_atomic(&path, Bytes::from(bytes), 0o600).await.map_err(|source| StateError::Io {
            verb: "write",
            path,
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seams::real::FileDisk;

    #[tokio::test]
    async fn nothing_of_a_membership_is_left_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for path in [layout.membership(), layout.key_file(), layout.force_new(), layout.raft().join("snapshots/1")] {
            for path in [path.clone(), PathBuf::from(format!("{}.tmp", path.display()))] {
                FileDisk.write_atomic(&path, Bytes::from("old"), 0o600).await.unwrap();
            }
        }
        FileDisk.write_atomic(&layout.lock(), Bytes::from("1"), 0o600).await.unwrap();
        layout.wipe(&FileDisk).await.unwrap();
        assert_eq!(FileDisk.list(dir.path()).await.unwrap(), [layout.lock()]);
    }
}
