//! Small files that containers are given and that must never be on a disk: kept in the memory of the engine's machine, mounted
//! into containers read-only.

use crate::EngineError;
use async_trait::async_trait;
use model::{Data, SECRETS_DIR};

/// Whose files: a space for each user of the machine (nodes may share one), and in it a directory for each owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePlace {
    space: String,
    owner: String,
}

/// A file that a container is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    /// The absolute path in the container; a [`model::TargetPath`] that was made absolute.
    pub path: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permissions.
    pub mode: u32,
    /// Its content; `None` to leave what is there, which must be there then.
    pub data: Option<Data>,
}

/// Something of the machine that is mounted into a container, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMount {
    /// The path on the machine.
    pub source: String,
    /// The path in the container.
    pub target: String,
}

/// Keeps files for containers in the memory of the engine's machine. They outlive this process, and not the machine's
/// uptime.
#[async_trait]
pub trait HostFiles: Send + Sync + 'static {
    /// Makes sure that these files are there, and says what to mount. What is there already stays as it is when it is equal,
    /// and is replaced under the eyes of a container that has it mounted when it is not. The files of one place always have
    /// the same paths.
    async fn put(&self, place: &FilePlace, files: &[HostFile]) -> Result<Vec<FileMount>, EngineError>;
    /// Leaves a note beside the files that no container sees.
    async fn mark(&self, place: &FilePlace, note: &str) -> Result<(), EngineError>;
    /// The note, if it is there.
    async fn mark_of(&self, place: &FilePlace) -> Result<Option<String>, EngineError>;
    /// Removes a place with all its files. No error when there is none.
    async fn remove(&self, place: &FilePlace) -> Result<(), EngineError>;
    /// The owners that have a place in this space.
    async fn list(&self, space: &str) -> Result<Vec<String>, EngineError>;
    /// Removes a space with everything in it. No error when there is none.
    async fn clear(&self, space: &str) -> Result<(), EngineError>;
}

/// Where a file goes on the machine.
pub(crate) enum Spot<'a> {
    /// Into the directory that is mounted at [`SECRETS_DIR`], under this path.
    Secrets(&'a str),
    /// Into a file of its own, with this number.
    Single(usize),
}

// === impl FilePlace ===

impl FilePlace {
    /// The place of `owner` in `space`.
    ///
    /// # Errors
    /// When one of the two is not 1 to 64 characters of `0-9a-z`: they become names of directories.
    pub fn new(space: &str, owner: &str) -> Result<FilePlace, EngineError> {
        check_name(space)?;
        check_name(owner)?;
        Ok(FilePlace { space: space.to_owned(), owner: owner.to_owned() })
    }

    /// The space.
    pub fn space(&self) -> &str {
        &self.space
    }

    /// The owner.
    pub fn owner(&self) -> &str {
        &self.owner
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    let ok = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    if ok { Ok(()) } else { Err(EngineError::Refused(format!("{name:?} is no name for a directory of files"))) }
}

// === impl Spot ===

impl<'a> Spot<'a> {
    pub(crate) fn of(number: usize, file: &'a HostFile) -> Spot<'a> {
        match file.path.strip_prefix(SECRETS_DIR).and_then(|rest| rest.strip_prefix('/')) {
            Some(below) => Spot::Secrets(below),
            None => Spot::Single(number),
        }
    }
}

/// What to mount for these files: the directory of secrets once, each other file alone. `source` says where a spot is
/// (`None`: the directory of secrets).
pub(crate) fn mounts(files: &[HostFile], source: impl Fn(Option<usize>) -> String) -> Vec<FileMount> {
    let mut mounts = Vec::new();
    let spots = || files.iter().enumerate().map(|(n, f)| (Spot::of(n, f), f));
    if spots().any(|(spot, _)| matches!(spot, Spot::Secrets(_))) {
        mounts.push(FileMount { source: source(None), target: SECRETS_DIR.to_owned() });
    }
    for (spot, file) in spots() {
        if let Spot::Single(n) = spot {
            mounts.push(FileMount { source: source(Some(n)), target: file.path.clone() });
        }
    }
    mounts
}
