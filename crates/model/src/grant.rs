//! What a service is granted of secrets and configs, and where a container finds it.

use crate::{
    ConfigId, ConfigName, ContainerSpec, Dependency, PayloadId, SecretId, SecretName, Signal, Templating, limits,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A secret that each task of a service gets as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretReference {
    /// Which.
    pub secret_id: SecretId,
    /// Its name, as the user wrote it.
    pub secret_name: SecretName,
    /// Where it is put.
    pub target: FileTarget,
    /// Which version of the data. Nothing from the API; the control loops fill it in before they make a task.
    #[serde(default)]
    pub given: Given,
}

/// A config that each task of a service gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReference {
    /// Which.
    pub config_id: ConfigId,
    /// Its name, as the user wrote it.
    pub config_name: ConfigName,
    /// Where it is put.
    pub target: ConfigTarget,
    /// Which version of the data. Nothing from the API; the control loops fill it in before they make a task.
    #[serde(default)]
    pub given: Given,
}

/// Which version of some data a task is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Given {
    /// The version; `None` before the control loops have chosen one.
    pub version: Option<u64>,
    /// What the container is told when this version takes the place of another in its files; `None` for nothing.
    pub signal: Option<Signal>,
    /// The data is a template.
    pub templating: Option<Templating>,
}

/// What a config is used as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigTarget {
    /// A file in the container.
    File(FileTarget),
    /// Something of the engine's (a credential spec); no file.
    Runtime,
}

/// A file in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTarget {
    /// Where.
    pub path: TargetPath,
    /// Its owner, a number.
    pub uid: u32,
    /// Its group, a number.
    pub gid: u32,
    /// Its permissions.
    pub mode: FileMode,
}

/// A file's permissions: at most `0o7777`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct FileMode(u32);

/// A number that is no file's permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid file mode {0:#o}: at most 0o7777")]
pub struct InvalidFileMode(pub u32);

/// Where in a container a secret or config is put, as the user wrote it: an absolute path, or one that is relative to
/// `/run/secrets` (secrets) or `/` (configs). It climbs nowhere: no component is empty, `.` or `..`; no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetPath(String);

/// A string that is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid target {path:?} of a secret or config: {why}")]
pub struct InvalidTarget {
    /// The target, cut to a readable length.
    pub path: String,
    /// What is wrong.
    pub why: &'static str,
}

/// Files of a container that get into each other's way, or where none may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetConflict {
    /// Two secrets, or two configs, are put at the same place. (SwarmKit's words.)
    #[error("{kind} references '{first}' and '{second}' have a conflicting target: '{target}'")]
    Same {
        /// `secret` or `config`.
        kind: &'static str,
        /// The name of one.
        first: String,
        /// The name of the other.
        second: String,
        /// Where.
        target: String,
    },
    /// One is put below the other, or at a mount.
    #[error("the target '{target}' of {what} conflicts with {other}: give another target")]
    InTheWay {
        /// Where.
        target: String,
        /// Of what, with its name.
        what: String,
        /// What is there already.
        other: String,
    },
    /// A relative target ends where none may be put.
    #[error("invalid target '{target}' of {what}: {why}")]
    Reserved {
        /// Where.
        target: String,
        /// Of what, with its name.
        what: String,
        /// What is there.
        why: &'static str,
    },
    /// Too many for one service.
    #[error("a service can use at most {max} secrets and configs, not {0}", max = limits::DEPENDENCIES_PER_SERVICE_MAX)]
    TooMany(usize),
}

/// A file that a container is given: where, with which owner and mode, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedFile<'a> {
    /// Of what.
    pub of: Dependency,
    /// Which version of it.
    pub given: &'a Given,
    /// The name of the secret or config.
    pub name: &'a str,
    /// The absolute path in the container.
    pub path: String,
    /// Owner, group, mode.
    pub target: &'a FileTarget,
}

/// The directory in a container that relative targets of secrets are put in.
pub const SECRETS_DIR: &str = "/run/secrets";

// === impl FileMode ===

impl FileMode {
    /// Docker's default: everybody may read.
    pub const DEFAULT: FileMode = FileMode(0o444);

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for FileMode {
    type Error = InvalidFileMode;
    fn try_from(bits: u32) -> Result<Self, InvalidFileMode> {
        if bits <= 0o7777 { Ok(FileMode(bits)) } else { Err(InvalidFileMode(bits)) }
    }
}

impl From<FileMode> for u32 {
    fn from(mode: FileMode) -> u32 {
        mode.0
    }
}

// === impl TargetPath ===

impl TargetPath {
    /// As the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The absolute path, taken from `base` when it is relative.
    pub fn below(&self, base: &str) -> String {
        if self.0.starts_with('/') { self.0.clone() } else { format!("{}/{}", base.trim_end_matches('/'), self.0) }
    }
}

impl std::str::FromStr for TargetPath {
    type Err = InvalidTarget;
    fn from_str(s: &str) -> Result<Self, InvalidTarget> {
        let refuse = |why| Err(InvalidTarget { path: s.chars().take(64).collect(), why });
        if s.is_empty() {
            return refuse("it is empty");
        }
        if s.len() > limits::TARGET_PATH_BYTES_MAX {
            return refuse("it is longer than 1024 bytes");
        }
        if s.chars().any(char::is_control) {
            return refuse("it contains control characters");
        }
        for component in s.strip_prefix('/').unwrap_or(s).split('/') {
            match component {
                "" => return refuse("it has an empty component (a double or trailing slash)"),
                "." | ".." => return refuse("it has a component that is . or .."),
                long if long.len() > limits::FILE_NAME_BYTES_MAX => {
                    return refuse("it has a component longer than 255 bytes");
                }
                _ => {}
            }
        }
        if let Some(why) = reserved(s) {
            return refuse(why);
        }
        Ok(TargetPath(s.to_owned()))
    }
}

impl TryFrom<String> for TargetPath {
    type Error = InvalidTarget;
    fn try_from(s: String) -> Result<Self, InvalidTarget> {
        s.parse()
    }
}

impl From<TargetPath> for String {
    fn from(p: TargetPath) -> String {
        p.0
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

// === impl SecretReference, ConfigReference ===

impl SecretReference {
    /// What it is of.
    pub fn dependency(&self) -> Dependency {
        Dependency::Secret(self.secret_id.clone())
    }
}

impl ConfigReference {
    /// What it is of.
    pub fn dependency(&self) -> Dependency {
        Dependency::Config(self.config_id.clone())
    }
}

// === impl ContainerSpec ===

impl ContainerSpec {
    /// What it is granted: every secret and config that it refers to, files or not.
    pub fn dependencies(&self) -> impl Iterator<Item = Dependency> + '_ {
        let secrets = self.secrets.iter().map(SecretReference::dependency);
        secrets.chain(self.configs.iter().map(ConfigReference::dependency))
    }

    /// The versions of data that it is given; references without a version are left out.
    pub fn payloads(&self) -> impl Iterator<Item = PayloadId> + '_ {
        let of = |of: Dependency, given: &Given| given.version.map(|version| PayloadId { of, version });
        let secrets = self.secrets.iter().filter_map(move |r| of(r.dependency(), &r.given));
        secrets.chain(self.configs.iter().filter_map(move |r| of(r.dependency(), &r.given)))
    }

    /// The files that it is given, secrets first.
    pub fn granted_files(&self) -> impl Iterator<Item = GrantedFile<'_>> {
        let secrets = self.secrets.iter().map(|r| GrantedFile {
            of: r.dependency(),
            given: &r.given,
            name: r.secret_name.as_str(),
            path: r.target.path.below(SECRETS_DIR),
            target: &r.target,
        });
        let configs = self.configs.iter().filter_map(|r| match &r.target {
            ConfigTarget::File(target) => Some(GrantedFile {
                of: r.dependency(),
                given: &r.given,
                name: r.config_name.as_str(),
                path: target.path.below("/"),
                target,
            }),
            ConfigTarget::Runtime => None,
        });
        secrets.chain(configs)
    }

    /// Refuses files that get into each other's, a mount's or the kernel's way. To be asked before a spec is taken.
    pub fn check_targets(&self) -> Result<(), TargetConflict> {
        let count = self.secrets.len() + self.configs.len();
        if count > limits::DEPENDENCIES_PER_SERVICE_MAX {
            return Err(TargetConflict::TooMany(count));
        }
        let mut taken: BTreeMap<String, GrantedFile<'_>> = BTreeMap::new();
        for file in self.granted_files() {
            // Relative targets of configs begin at the root: `proc/1/mem` is as bad as `/proc/1/mem`.
            if let Some(why) = reserved(&file.path) {
                return Err(TargetConflict::Reserved { target: file.target.path.to_string(), what: file.what(), why });
            }
            if let Some(other) = taken.get(&file.path) {
                return Err(other.collides(&file));
            }
            taken.insert(file.path.clone(), file);
        }
        for (path, file) in &taken {
            if let Some(other) = ancestors(path).find_map(|dir| taken.get(dir)) {
                return Err(file.in_the_way(format!("{} at '{}'", other.what(), other.path)));
            }
            for mount in &self.mounts {
                let target = mount.target.trim_end_matches('/');
                // A mount on or below one of our files or the directory of the secrets would hide it, or find no place.
                let ours = if is_below(path, SECRETS_DIR) { SECRETS_DIR } else { path };
                if target == ours || is_below(target, ours) {
                    return Err(file.in_the_way(format!("the mount at '{}'", mount.target)));
                }
            }
        }
        Ok(())
    }

    /// True when the two are equal but for the versions of data that they are given.
    pub fn is_same_but_data(&self, other: &ContainerSpec) -> bool {
        let mut with_same_data = other.clone();
        with_same_data.take_data(self);
        *self == with_same_data
    }

    /// Gives every reference what the same reference is given in `from`; nothing where there is none.
    pub fn take_data(&mut self, from: &ContainerSpec) {
        for r in &mut self.secrets {
            r.given =
                from.secrets.iter().find(|o| o.secret_id == r.secret_id).map(|o| o.given.clone()).unwrap_or_default();
        }
        for r in &mut self.configs {
            r.given =
                from.configs.iter().find(|o| o.config_id == r.config_id).map(|o| o.given.clone()).unwrap_or_default();
        }
    }
}

// === impl GrantedFile ===

impl GrantedFile<'_> {
    /// The version of the data that is its content; `None` before the control loops have chosen one.
    pub fn payload(&self) -> Option<PayloadId> {
        self.given.version.map(|version| PayloadId { of: self.of.clone(), version })
    }

    fn kind(&self) -> &'static str {
        match self.of {
            Dependency::Secret(_) => "secret",
            Dependency::Config(_) => "config",
        }
    }

    /// `secret NAME` or `config NAME`.
    pub fn what(&self) -> String {
        format!("{} {}", self.kind(), self.name)
    }

    fn collides(&self, second: &GrantedFile<'_>) -> TargetConflict {
        if self.kind() != second.kind() {
            return second.in_the_way(format!("{} at '{}'", self.what(), self.path));
        }
        TargetConflict::Same {
            kind: self.kind(),
            first: self.name.to_owned(),
            second: second.name.to_owned(),
            target: second.target.path.to_string(),
        }
    }

    fn in_the_way(&self, other: String) -> TargetConflict {
        TargetConflict::InTheWay { target: self.target.path.to_string(), what: self.what(), other }
    }
}

/// Why no file may be put at this absolute path: what the kernel shows there is not ours to cover, and the directory of all
/// secrets is no file.
fn reserved(path: &str) -> Option<&'static str> {
    let under = |dir: &str| path == dir || is_below(path, dir);
    if under("/proc") || under("/sys") {
        return Some("nothing can be put under /proc or /sys");
    }
    (path == SECRETS_DIR || path == "/run").then_some("it is a directory that secrets are put in")
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// The directories that a path is in, but for the root.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).filter(|dir| !dir.is_empty())
}

#[cfg(test)]
mod tests;
