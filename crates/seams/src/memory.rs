//! A disk in memory, for tests and for machines that are only simulated.

use crate::Disk;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files in memory. Nothing is lost but with the process, and nothing ever fails.
#[derive(Debug, Default)]
pub struct MemoryDisk(Mutex<BTreeMap<PathBuf, Bytes>>);

// === impl MemoryDisk ===

impl MemoryDisk {
    /// All files, by their paths.
    pub fn files(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Bytes>> {
        // A map that somebody panicked beside is still a map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Disk for MemoryDisk {
    async fn read(&self, path: &Path) -> io::Result<Option<Bytes>> {
        Ok(self.files().get(path).cloned())
    }

    async fn write_atomic(&self, path: &Path, bytes: Bytes, _mode: u32) -> io::Result<()> {
        self.files().insert(path.to_owned(), bytes);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.files().remove(path);
        Ok(())
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.files().keys().filter(|p| p.parent() == Some(dir)).cloned().collect())
    }

    async fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.files().retain(|p, _| !p.starts_with(dir));
        Ok(())
    }
}
