//! Plain files: small ones, written whole.

use async_trait::async_trait;
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};

/// Reads and writes whole files. Every write is durable when the call returns.
#[async_trait]
pub trait Disk: Send + Sync + 'static {
    /// The file's bytes; `None` when there is no such file.
    async fn read(&self, path: &Path) -> io::Result<Option<Bytes>>;
    /// Writes a file so that after a crash either the old bytes or the new ones are there: temporary file, fsync, rename,
    /// fsync of the directory. `mode` is the Unix permission (0o600 for anything secret). Creates the directory.
    async fn write_atomic(&self, path: &Path, bytes: Bytes, mode: u32) -> io::Result<()>;
    /// Removes a file; no error when it is not there.
    async fn remove(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, sorted; empty when there is no such directory.
    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Creates a directory and its parents with mode 0700.
    async fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes a directory with all that is in it; no error when it is not there.
    async fn remove_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileDisk;

// === impl FileDisk ===

#[allow(clippy::disallowed_methods)] // this is the seam
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(f).await.map_err(io::Error::other)?
}

fn missing_is<T>(r: io::Result<T>, default: T) -> io::Result<T> {
    match r {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(default),
        r => r,
    }
}

#[async_trait]
#[allow(clippy::disallowed_methods)] // this is the seam
impl Disk for FileDisk {
    async fn read(&self, path: &Path) -> io::Result<Option<Bytes>> {
        let path = path.to_owned();
        blocking(move || missing_is(std::fs::read(path).map(|b| Some(b.into())), None)).await
    }

    async fn write_atomic(&self, path: &Path, bytes: Bytes, mode: u32) -> io::Result<()> {
        let path = path.to_owned();
        blocking(move || write_atomic(&path, &bytes, mode)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking(move || missing_is(std::fs::remove_file(path), ())).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let dir = dir.to_owned();
        blocking(move || {
            let Some(entries) = missing_is(std::fs::read_dir(dir).map(Some), None)? else { return Ok(Vec::new()) };
            let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
            paths.sort();
            Ok(paths)
        })
        .await
    }

    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_owned();
        blocking(move || {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
        })
        .await
    }

    async fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_owned();
        blocking(move || missing_is(std::fs::remove_dir_all(dir), ())).await
    }
}

#[allow(clippy::disallowed_methods)] // this is the seam
fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let dir = path.parent().ok_or_else(|| io::Error::other("a file path needs a directory"))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    // A left-over from a crash may have another mode; a fresh file gets the one that was asked for.
    missing_is(std::fs::remove_file(&tmp), ())?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&tmp)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&tmp, path));
    if let Err(e) = written {
        // On a full disk, half a file would keep it full.
        let _ = std::fs::remove_file(&tmp);
        return Err(e);
    }
    std::fs::File::open(dir)?.sync_all()
}
