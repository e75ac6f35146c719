//! Files for containers on a tmpfs of this machine.
//!
//! ```text
//! <run dir>/<space>/          a tmpfs of its own (nodev, noexec, nosuid), 0700
//!   <owner>/                  0700
//!     note                    what only we read
//!     secrets/…               mounted at /run/secrets, 0755
//!     files/<n>               each mounted where it belongs
//! ```
//!
//! A process that may not mount uses a directory, if that is on a tmpfs already (as /run is); on a disk it refuses.
#![allow(clippy::disallowed_methods)] // this is the seam: these files are nobody's durable state

use crate::EngineError;
use crate::files::{FileMount, FilePlace, HostFile, HostFiles, Spot, check_name, mounts};
use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Linux' `TMPFS_MAGIC` and `RAMFS_MAGIC` (magic.h).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Held from the look whether a space is mounted to its mount. The tasks of a node begin together: two mounts on top of each
/// other would hide the files of the first, and nothing would ever remove them.
static MOUNTING: Mutex<()> = Mutex::new(());

/// The files of one engine on this machine.
#[derive(Debug, Clone)]
pub(super) struct TmpfsFiles {
    base: Arc<Path>,
}

/// For an engine on another machine: there is no place for files.
#[derive(Debug)]
pub(super) struct NoFiles {
    pub(super) endpoint: String,
}

/// Something that failed, with what it was done to.
fn failed<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> EngineError + 'a {
    move |e| EngineError::Failed(format!("cannot {what} {}: {e}", path.display()))
}

// === impl TmpfsFiles ===

impl TmpfsFiles {
    pub(super) fn new(base: &Path) -> TmpfsFiles {
        TmpfsFiles { base: base.into() }
    }

    fn space(&self, space: &str) -> PathBuf {
        self.base.join(space)
    }

    fn dir(&self, place: &FilePlace) -> PathBuf {
        self.space(place.space()).join(place.owner())
    }

    /// Files are a matter of microseconds, but they are system calls all the same.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&TmpfsFiles) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.map_err(|e| EngineError::Failed(format!("the thread that writes files for containers ended: {e}")))?
    }

    /// Makes sure that the space is there and in memory.
    fn make_space(&self, space: &str) -> Result<(), EngineError> {
        let dir = self.space(space);
        let _one_at_a_time = MOUNTING.lock();
        make_dir(&self.base, 0o755).and_then(|()| make_dir(&dir, 0o700)).map_err(|error| {
            EngineError::Refused(format!(
                "there is no place for secrets and configs: {error}; run the daemon as root, or give it a --run-dir on a tmpfs"
            ))
        })?;
        let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).map_err(failed("look at", path));
        if device(&dir)? != device(&self.base)? && is_in_memory(&dir)? {
            return Ok(());
        }
        match mount(&dir) {
            Ok(()) => fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(failed("protect", &dir)),
            Err(_) if is_in_memory(&dir)? => Ok(()),
            Err(error) => Err(EngineError::Refused(format!(
                "secrets and configs are kept in memory only, and there is no place for them: {dir} is on a disk and a tmpfs \
                 cannot be mounted there ({error}); run the daemon as root, or give it a --run-dir on a tmpfs",
                dir = dir.display()
            ))),
        }
    }

    fn put_now(&self, place: &FilePlace, files: &[HostFile]) -> Result<Vec<FileMount>, EngineError> {
        self.make_space(place.space())?;
        let dir = self.dir(place);
        let (secrets, singles) = (dir.join("secrets"), dir.join("files"));
        make_dir(&dir, 0o700)?;
        make_dir(&singles, 0o700)?;
        make_dir(&secrets, 0o755)?;
        for (n, file) in files.iter().enumerate() {
            match Spot::of(n, file) {
                Spot::Secrets(below) => {
                    let path = secrets.join(below);
                    let parents = Path::new(below).ancestors().skip(1).filter(|p| *p != Path::new(""));
                    for parent in parents.collect::<Vec<_>>().into_iter().rev() {
                        make_dir(&secrets.join(parent), 0o755)?;
                    }
                    write(&path, file, &dir.join("new"))?;
                }
                Spot::Single(n) => write(&singles.join(n.to_string()), file, &dir.join("new"))?,
            }
        }
        let source = |n: Option<usize>| n.map_or_else(|| secrets.clone(), |n| singles.join(n.to_string()));
        Ok(mounts(files, |n| source(n).display().to_string()))
    }
}

/// A tmpfs; one that is never swapped to a disk where the kernel knows how (Linux 6.4).
fn mount(dir: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let with = |options: &std::ffi::CStr| rustix::mount::mount("swarmlite", dir, "tmpfs", flags, options);
    Ok(with(c"mode=0700,noswap").or_else(|_| with(c"mode=0700"))?)
}

fn is_in_memory(path: &Path) -> Result<bool, EngineError> {
    let found = rustix::fs::statfs(path).map_err(|e| failed("look at", path)(e.into()))?;
    #[allow(clippy::unnecessary_cast)] // its type differs between architectures
    Ok(IN_MEMORY.contains(&(found.f_type as i64)))
}

/// A directory that is one, and no link to one.
fn make_dir(path: &Path, mode: u32) -> Result<(), EngineError> {
    match fs::DirBuilder::new().recursive(false).mode(mode).create(path) {
        // The mask of this process must not make it narrower than containers need.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("protect", path)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(EngineError::Refused(format!("{} is in the way: it is no directory", path.display()))),
            Err(e) => Err(failed("look at", path)(e)),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().ok_or_else(|| failed("make", path)(e))?;
            make_dir(parent, 0o755)?;
            fs::DirBuilder::new().mode(mode).create(path).map_err(failed("make", path))
        }
        Err(e) => Err(failed("make", path)(e)),
    }
}

/// Writes one file. One that is there is replaced as a whole when it is in a directory that is mounted; a file that is
/// mounted itself is written over, because the mount would go on showing the old one.
fn write(path: &Path, file: &HostFile, scratch: &Path) -> Result<(), EngineError> {
    let is_there = fs::symlink_metadata(path).is_ok();
    let Some(data) = &file.data else {
        let gone = || EngineError::Failed(format!("{} is gone, and so is what it was made from", path.display()));
        return if is_there { Ok(()) } else { Err(gone()) };
    };
    if is_there && read(path).map_err(failed("read", path))? == data.expose() {
        return protect(path, file);
    }
    let is_single = path.parent().is_some_and(|p| p.ends_with("files"));
    let target = if is_there && is_single { path } else { scratch };
    let made = if target == path { OFlags::TRUNC } else { OFlags::CREATE | OFlags::TRUNC };
    let flags = made | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, target, flags, Mode::RUSR | Mode::WUSR);
    let mut out = fs::File::from(opened.map_err(|e| failed("write", target)(e.into()))?);
    out.write_all(data.expose()).map_err(failed("write", target))?;
    protect(target, file)?;
    if target == path { Ok(()) } else { fs::rename(target, path).map_err(failed("write", path)) }
}

fn protect(path: &Path, file: &HostFile) -> Result<(), EngineError> {
    let found = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if (found.uid(), found.gid()) != (file.uid, file.gid) {
        std::os::unix::fs::lchown(path, Some(file.uid), Some(file.gid)).map_err(failed("give away", path))?;
    }
    // After the owner: a change of owner may take bits away.
    fs::set_permissions(path, fs::Permissions::from_mode(file.mode)).map_err(failed("protect", path))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = fs::File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

#[async_trait]
impl HostFiles for TmpfsFiles {
    async fn put(&self, place: &FilePlace, files: &[HostFile]) -> Result<Vec<FileMount>, EngineError> {
        let (place, files) = (place.clone(), files.to_vec());
        self.blocking(move |this| this.put_now(&place, &files)).await
    }

    async fn mark(&self, place: &FilePlace, note: &str) -> Result<(), EngineError> {
        let (path, note) = (self.dir(place).join("note"), note.to_owned());
        self.blocking(move |_| fs::write(&path, note).map_err(failed("write", &path))).await
    }

    async fn mark_of(&self, place: &FilePlace) -> Result<Option<String>, EngineError> {
        let path = self.dir(place).join("note");
        self.blocking(move |_| match fs::read_to_string(&path) {
            Ok(note) => Ok(Some(note)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("read", &path)(e)),
        })
        .await
    }

    async fn remove(&self, place: &FilePlace) -> Result<(), EngineError> {
        let dir = self.dir(place);
        self.blocking(move |_| absent_is_fine(fs::remove_dir_all(&dir)).map_err(failed("remove", &dir))).await
    }

    async fn list(&self, space: &str) -> Result<Vec<String>, EngineError> {
        check_name(space)?;
        let dir = self.space(space);
        self.blocking(move |_| {
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(e) => return Err(failed("list", &dir)(e)),
            };
            let mut owners: Vec<String> = entries
                .filter_map(|e| e.ok()?.file_name().into_string().ok())
                .filter(|n| check_name(n).is_ok())
                .collect();
            owners.sort();
            Ok(owners)
        })
        .await
    }

    async fn clear(&self, space: &str) -> Result<(), EngineError> {
        for owner in self.list(space).await? {
            self.remove(&FilePlace::new(space, &owner)?).await?;
        }
        let dir = self.space(space);
        self.blocking(move |_| {
            // Not mounted, or not by us: then it is only a directory.
            let _not_a_mount = rustix::mount::unmount(&dir, UnmountFlags::DETACH);
            absent_is_fine(fs::remove_dir(&dir)).map_err(failed("remove", &dir))
        })
        .await
    }
}

// === impl NoFiles ===

#[async_trait]
impl HostFiles for NoFiles {
    async fn put(&self, _place: &FilePlace, _files: &[HostFile]) -> Result<Vec<FileMount>, EngineError> {
        Err(EngineError::Refused(format!(
            "secrets and configs need an engine on this machine (a unix socket): they are put into its memory and mounted from \
             there, and {} may be another machine",
            self.endpoint
        )))
    }

    async fn mark(&self, _place: &FilePlace, _note: &str) -> Result<(), EngineError> {
        Ok(())
    }

    async fn mark_of(&self, _place: &FilePlace) -> Result<Option<String>, EngineError> {
        Ok(None)
    }

    async fn remove(&self, _place: &FilePlace) -> Result<(), EngineError> {
        Ok(())
    }

    async fn list(&self, _space: &str) -> Result<Vec<String>, EngineError> {
        Ok(Vec::new())
    }

    async fn clear(&self, _space: &str) -> Result<(), EngineError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
