//! A disk that seals files as they are written.

use crate::sealed::Around;
use crate::{KeyId, Keyring, key_id_of};
use async_trait::async_trait;
use bytes::Bytes;
use seams::Disk;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::RwLock;

/// In front of every sealed file, so that a file that never was sealed is told from a broken one.
const MAGIC: &[u8; 8] = b"SWLSEAL1";
/// Directories below the root; a link in a circle ends there.
const DEPTH_MAX: usize = 8;
/// What opening a socket as a file says (the same number on every Linux).
const ENXIO: i32 = 6;

/// Seals every file below a directory, but for those that are named. A file opens only under its own name: swapping two of them
/// breaks both. What lies elsewhere passes through as it is.
pub struct SealedDisk {
    inner: Arc<dyn Disk>,
    root: PathBuf,
    /// Relative to the root.
    clear: &'static [&'static str],
    keyring: Arc<Keyring>,
    /// Writers share it; who seals files anew has it alone, so that nobody's write is undone.
    writing: RwLock<()>,
}

// === impl SealedDisk ===

impl SealedDisk {
    /// Seals what is below `root`, except the files `clear` (paths relative to it).
    pub fn new(
        inner: Arc<dyn Disk>,
        root: impl Into<PathBuf>,
        clear: &'static [&'static str],
        keyring: Arc<Keyring>,
    ) -> SealedDisk {
        SealedDisk { inner, root: root.into(), clear, keyring, writing: RwLock::new(()) }
    }

    /// What authenticates a file's place; `None` when it is not to be sealed.
    fn context(&self, path: &Path) -> Option<Vec<u8>> {
        let below = path.strip_prefix(&self.root).ok()?;
        let sealed = self.clear.iter().all(|clear| Path::new(clear) != below);
        sealed.then(|| [b"file ", below.as_os_str().as_encoded_bytes()].concat())
    }

    fn seal(&self, context: &[u8], plain: &[u8]) -> Bytes {
        self.keyring.seal_around(Around { prefix: MAGIC, context }, plain).1
    }

    /// The errors do not name the file: whoever reads one says which, as with the system's own errors.
    fn open(&self, context: &[u8], mut file: Bytes) -> io::Result<Bytes> {
        let bad = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        if !file.starts_with(MAGIC) {
            return Err(bad(
                "it is not sealed; it was written before there was encryption at rest, or is no file of ours".into(),
            ));
        }
        let sealed = file.split_off(MAGIC.len());
        drop(file);
        self.keyring.open(context, sealed).map_err(|e| bad(e.to_string()))
    }

    /// Seals every file below the root anew that is sealed with another key than the current one, but for what is below the paths
    /// `skip`. Afterwards no file needs an older key. Gives the number of files.
    ///
    /// # Errors
    /// When the disk says no, or a file cannot be opened; the others may have been sealed anew.
    pub async fn reseal(&self, skip: &[PathBuf]) -> io::Result<usize> {
        // Whoever sealed with an older key has written when this is had.
        drop(self.writing.write().await);
        let current = self.keyring.current();
        let mut resealed = 0;
        let mut dirs = vec![(self.root.clone(), 0)];
        while let Some((dir, depth)) = dirs.pop() {
            for path in self.inner.list(&dir).await? {
                // A temporary file that a crash has left is never read.
                if skip.contains(&path) || path.extension().is_some_and(|e| e == "tmp") {
                    continue;
                }
                match self.reseal_one(&path, current).await? {
                    Some(done) => resealed += usize::from(done),
                    None if depth < DEPTH_MAX => dirs.push((path, depth + 1)),
                    None => return Err(io::Error::other(format!("{} lies too deep", path.display()))),
                }
            }
        }
        Ok(resealed)
    }

    /// `None` when it is no file.
    async fn reseal_one(&self, path: &Path, current: KeyId) -> io::Result<Option<bool>> {
        let _alone = self.writing.write().await;
        let file = match self.inner.read(path).await {
            Ok(Some(file)) => file,
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => return Ok(None),
            // Gone since it was listed, or a directory of a disk that does not say so.
            Ok(None) => return Ok(None),
            // A socket; nobody ever sealed one.
            Err(e) if e.raw_os_error() == Some(ENXIO) => return Ok(Some(false)),
            Err(e) => return Err(e),
        };
        let Some(context) = self.context(path) else { return Ok(Some(false)) };
        match file.strip_prefix(MAGIC).and_then(key_id_of) {
            Some(id) if id != current => {}
            // Not ours, or up to date.
            _ => return Ok(Some(false)),
        }
        let opened = self.open(&context, file);
        let plain = opened.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        // Whatever its mode was, a sealed file is the owner's alone.
        self.inner.write_atomic(path, self.seal(&context, &plain), 0o600).await?;
        Ok(Some(true))
    }
}

#[async_trait]
impl Disk for SealedDisk {
    async fn read(&self, path: &Path) -> io::Result<Option<Bytes>> {
        let file = self.inner.read(path).await?;
        match (file, self.context(path)) {
            (Some(file), Some(context)) => self.open(&context, file).map(Some),
            (file, _) => Ok(file),
        }
    }

    async fn write_atomic(&self, path: &Path, bytes: Bytes, mode: u32) -> io::Result<()> {
        let _shared = self.writing.read().await;
        let bytes = match self.context(path) {
            Some(context) => self.seal(&context, &bytes),
            None => bytes,
        };
        self.inner.write_atomic(path, bytes, mode).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let _shared = self.writing.read().await;
        self.inner.remove(path).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir).await
    }

    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir).await
    }

    async fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let _shared = self.writing.read().await;
        self.inner.remove_dir(dir).await
    }
}
