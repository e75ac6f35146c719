//! What is remembered between two commands: a directory with a file that describes the cluster.

use super::{DevError, EngineKind};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// Longest path that a Unix socket's address can hold (108 bytes with the closing zero).
const SOCKET_PATH_MAX: usize = 107;

/// The cluster's directory, locked: two commands at once would undo each other's work.
pub(super) struct Place {
    dir: PathBuf,
    _lock: File,
}

/// The cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cluster {
    /// Engine of all nodes.
    pub(super) engine: EngineKind,
    /// Where that engine is.
    pub(super) docker_host: String,
    /// The binary that the nodes run.
    pub(super) program: PathBuf,
    /// Its nodes, managers first.
    pub(super) nodes: Vec<DevNode>,
}

/// A node of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DevNode {
    /// `manager1`, `worker2`.
    pub(super) name: String,
    /// Brought up as a manager. (Its role may have changed since.)
    pub(super) manager: bool,
    /// Its loopback address.
    pub(super) address: String,
    /// Its directory: data, socket, log.
    pub(super) dir: PathBuf,
    /// Its id in the swarm, once it has joined.
    pub(super) node_id: String,
    /// Its process, while it should run.
    pub(super) process: Option<super::process::ProcessId>,
}

/// The directory of the cluster when none is named.
pub(super) fn default_dir() -> Result<PathBuf, DevError> {
    let state_home = std::env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || {
        std::env::var_os("HOME").filter(|value| !value.is_empty()).map(|home| PathBuf::from(home).join(".local/state"))
    };
    state_home.or_else(home).map(|base| base.join("swarmlite/dev")).ok_or(DevError::NoDirectory)
}

// === impl Place ===

impl Place {
    /// Takes the directory for this command.
    pub(super) fn open(dir: &Path) -> Result<Self, DevError> {
        let dir = std::path::absolute(dir).map_err(DevError::io(dir))?;
        fs::create_dir_all(&dir).map_err(DevError::io(&dir))?;
        let path = dir.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(DevError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DevError::Busy(dir)),
            Err(TryLockError::Error(error)) => Err(DevError::Io { path, source: error }),
        }
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn file(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    /// The cluster that is here, if there is one.
    pub(super) fn find(&self) -> Result<Option<Cluster>, DevError> {
        let path = self.file();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| DevError::Damaged(path, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DevError::Io { path, source: error }),
        }
    }

    /// The cluster that must be here.
    pub(super) fn cluster(&self) -> Result<Cluster, DevError> {
        self.find()?.ok_or_else(|| DevError::None(self.dir.clone()))
    }

    /// Writes it down, whole or not at all.
    pub(super) fn save(&self, cluster: &Cluster) -> Result<(), DevError> {
        let path = self.file();
        let draft = self.dir.join("cluster.json.new");
        let text = serde_json::to_vec_pretty(cluster).map_err(|error| DevError::Damaged(path.clone(), error))?;
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(DevError::io(&path))
    }

    /// Forgets the cluster and removes its files.
    pub(super) fn clear(&self, cluster: &Cluster) -> Result<(), DevError> {
        // First the nodes: a command that is cut off here finds the description, and can be given again.
        for node in &cluster.nodes {
            match fs::remove_dir_all(&node.dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DevError::Io { path: node.dir.clone(), source: error });
                }
                _ => {}
            }
        }
        self.forget()
    }

    /// Forgets the cluster; its files stay.
    pub(super) fn forget(&self) -> Result<(), DevError> {
        let path = self.file();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DevError::Io { path, source: error }),
            _ => Ok(()),
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// The node of this name, by position.
    pub(super) fn position(&self, name: &str) -> Result<usize, DevError> {
        self.nodes.iter().position(|node| node.name == name).ok_or_else(|| DevError::NoNode {
            name: name.to_string(),
            nodes: self.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// How many of its processes live.
    pub(super) fn running(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_running()).count()
    }
}

// === impl DevNode ===

impl DevNode {
    /// A node that is to be started in `dir`. Fails when its socket's path would be too long.
    pub(super) fn new(dir: &Path, name: String, manager: bool, address: String) -> Result<Self, DevError> {
        let node = Self { dir: dir.join(&name), name, manager, address, node_id: String::new(), process: None };
        let length = node.socket().as_os_str().len();
        if length > SOCKET_PATH_MAX { Err(DevError::LongPath(node.socket(), length)) } else { Ok(node) }
    }

    /// Its API's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("swarmlite.sock")
    }

    /// Its data directory.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What it says.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// Its control address.
    pub(super) fn remote(&self) -> String {
        format!("{}:{}", self.address, super::up::CONTROL_PORT)
    }

    /// Whether its process lives.
    pub(super) fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(super::process::ProcessId::is_alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("swarmlite-dev-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn what_is_saved_is_found_again_and_cleared() {
        let dir = scratch("saved");
        let place = Place::open(&dir).expect("opens");
        assert!(place.find().expect("reads").is_none());
        assert!(matches!(place.cluster(), Err(DevError::None(_))));
        let node = DevNode::new(&dir, "manager1".into(), true, "127.0.77.1".into()).expect("short path");
        fs::create_dir_all(node.data_dir()).expect("created");
        let cluster = Cluster {
            engine: EngineKind::Embedded,
            docker_host: String::new(),
            program: PathBuf::from("swarmlite"),
            nodes: vec![node],
        };
        place.save(&cluster).expect("saves");
        let found = place.cluster().expect("is there");
        assert_eq!(found.nodes[0].name, "manager1");
        assert_eq!(found.running(), 0);
        assert!(matches!(found.position("worker9"), Err(DevError::NoNode { .. })));
        place.clear(&found).expect("clears");
        assert!(place.find().expect("reads").is_none());
        assert!(!found.nodes[0].dir.exists());
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn two_commands_at_once_are_refused() {
        let dir = scratch("lock");
        let first = Place::open(&dir).expect("opens");
        assert!(matches!(Place::open(&dir), Err(DevError::Busy(_))));
        drop(first);
        assert!(Place::open(&dir).is_ok());
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn a_damaged_file_and_a_long_path_say_so() {
        let dir = scratch("damaged");
        let place = Place::open(&dir).expect("opens");
        fs::write(place.file(), "{").expect("written");
        assert!(matches!(place.find(), Err(DevError::Damaged(..))));
        let deep = dir.join("x".repeat(100));
        assert!(matches!(DevNode::new(&deep, "manager1".into(), true, String::new()), Err(DevError::LongPath(..))));
        fs::remove_dir_all(&dir).expect("removed");
    }
}
