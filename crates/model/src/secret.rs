//! Secrets and configs: small files that a cluster keeps and gives to those services that were granted them.
//!
//! The two differ in how careful one has to be with them and in how large they may be, and in nothing else; each has types
//! of its own so that one is never taken for the other. Their data is kept apart from them, a [`Payload`] for each version:
//! a version is written once, so a change of a label does not carry the data along, and an update in place does not have to
//! hold the old and the new in one transaction.

use crate::{ConfigId, Meta, SecretId, limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its id.
    pub id: SecretId,
    /// Version and times.
    pub meta: Meta,
    /// What the user gave, but for the data.
    pub spec: SecretSpec,
    /// The version of its data that is handed out now, from 1; rises by one with each update of the data.
    pub data_version: u64,
}

/// A config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Its id.
    pub id: ConfigId,
    /// Version and times.
    pub meta: Meta,
    /// What the user gave, but for the data.
    pub spec: ConfigSpec,
    /// The version of its data that is handed out now, from 1; rises by one with each update of the data.
    pub data_version: u64,
}

/// What a user says of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSpec {
    /// Its name, unique among secrets. Never changes.
    pub name: SecretName,
    /// User labels. [`UpdateBy::LABEL`] says what an update of the data does.
    pub labels: BTreeMap<String, String>,
    /// The data is a template. Never changes.
    pub templating: Option<Templating>,
}

/// What a user says of a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSpec {
    /// Its name, unique among configs. Never changes.
    pub name: ConfigName,
    /// User labels. [`UpdateBy::LABEL`] says what an update of the data does.
    pub labels: BTreeMap<String, String>,
    /// The data is a template. Never changes.
    pub templating: Option<Templating>,
}

/// How data is made into the file that a task sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Templating {
    /// Go's text/template, as far as [`crate::Template`] knows it.
    Golang,
}

/// One version of the data of a secret or a config. Never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Whose, and which.
    pub id: PayloadId,
    /// Version and times.
    pub meta: Meta,
    /// The bytes.
    pub data: Data,
}

/// Something that a service can be granted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dependency {
    /// A secret.
    Secret(SecretId),
    /// A config.
    Config(ConfigId),
}

/// Names one version of the data of a secret or a config.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PayloadId {
    /// Whose.
    pub of: Dependency,
    /// Which, from 1.
    pub version: u64,
}

/// The bytes of a secret or a config; never shown by `Debug`. Cloning one copies no bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Data(Arc<[u8]>);

/// Bytes that are no secret's or config's data, with SwarmKit's words (manager/controlapi/secret.go, config.go).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidData {
    /// None, or too many.
    #[error("secret data must be larger than 0 and less than {} bytes", limits::SECRET_BYTES_END)]
    Secret,
    /// None, or too many.
    #[error("config data must be larger than 0 and less than {} bytes", limits::CONFIG_BYTES_END)]
    Config,
}

/// A string that is no secret's or config's name, with SwarmKit's words (manager/controlapi/common.go).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDependencyName {
    /// Nothing at all.
    #[error("name must be provided")]
    Empty,
    /// Too long, or with other characters.
    #[error(
        "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
    )]
    Invalid,
}

/// What an update of the data does to the tasks that have the data before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UpdateBy {
    /// They are replaced, under the service's own update policy.
    #[default]
    Roll,
    /// Their file is replaced on the node, and the container gets the signal.
    Signal(Signal),
    /// They keep what they have, and so does the service, until its task template is changed (or an update is forced).
    Keep,
}

/// A signal for a container: one that Linux has, `SIG` and its name (`SIGHUP`, `SIGUSR1`). What the engine does not know it would
/// refuse on the node, where nobody sees it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(Arc<str>);

/// A string that is no signal's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal {0:?}: give a name such as SIGHUP")]
pub struct InvalidSignal(pub String);

/// A value of the label [`UpdateBy::LABEL`] that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid value {0:?} of the label {label}: give roll, keep, signal, or signal:<name> such as signal:SIGUSR1",
    label = UpdateBy::LABEL
)]
pub struct InvalidUpdateBy(pub String);

// === impl SecretName, ConfigName ===

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name's characters.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::str::FromStr for $name {
            type Err = InvalidDependencyName;
            fn from_str(s: &str) -> Result<Self, InvalidDependencyName> {
                check_name(s).map(|()| $name(s.into()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidDependencyName;
            fn try_from(s: String) -> Result<Self, InvalidDependencyName> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0.as_ref().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// A secret's name: 1 to 64 of `a-z A-Z 0-9 - _ .`, the first and the last a letter or a digit.
    SecretName;
    /// A config's name: 1 to 64 of `a-z A-Z 0-9 - _ .`, the first and the last a letter or a digit.
    ConfigName;
}

fn check_name(s: &str) -> Result<(), InvalidDependencyName> {
    let (Some(first), Some(last)) = (s.bytes().next(), s.bytes().next_back()) else {
        return Err(InvalidDependencyName::Empty);
    };
    let inner = s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let ends = first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric();
    let ok = inner && ends && s.len() <= limits::DEPENDENCY_NAME_CHARS_MAX;
    if ok { Ok(()) } else { Err(InvalidDependencyName::Invalid) }
}

// === impl Secret ===

impl Secret {
    /// The version of its data that is handed out now.
    pub fn payload_id(&self) -> PayloadId {
        PayloadId { of: Dependency::Secret(self.id.clone()), version: self.data_version }
    }
}

// === impl Config ===

impl Config {
    /// The version of its data that is handed out now.
    pub fn payload_id(&self) -> PayloadId {
        PayloadId { of: Dependency::Config(self.id.clone()), version: self.data_version }
    }
}

// === impl Dependency ===

impl Dependency {
    /// The id's characters.
    pub fn as_str(&self) -> &str {
        match self {
            Dependency::Secret(id) => id.as_str(),
            Dependency::Config(id) => id.as_str(),
        }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dependency::Secret(id) => write!(f, "secret {id}"),
            Dependency::Config(id) => write!(f, "config {id}"),
        }
    }
}

impl fmt::Display for PayloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.of, self.version)
    }
}

// === impl Data ===

impl Data {
    /// The data of a secret: at least one byte, and fewer than [`limits::SECRET_BYTES_END`].
    pub fn of_secret(bytes: impl Into<Arc<[u8]>>) -> Result<Data, InvalidData> {
        let bytes = bytes.into();
        if (1..limits::SECRET_BYTES_END).contains(&bytes.len()) { Ok(Data(bytes)) } else { Err(InvalidData::Secret) }
    }

    /// The data of a config: at least one byte, and fewer than [`limits::CONFIG_BYTES_END`].
    pub fn of_config(bytes: impl Into<Arc<[u8]>>) -> Result<Data, InvalidData> {
        let bytes = bytes.into();
        if (1..limits::CONFIG_BYTES_END).contains(&bytes.len()) { Ok(Data(bytes)) } else { Err(InvalidData::Config) }
    }

    /// The bytes themselves. Not for logs, errors or traces.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

// As bytes, where serde would write a list of numbers.
impl Serialize for Data {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Data;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "1 to {} bytes", limits::CONFIG_BYTES_END - 1)
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Data, E> {
                Data::of_config(bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

// === impl UpdateBy ===

impl UpdateBy {
    /// The label, of a secret, a config, or a service, that says what an update of data does: `roll`, `keep`, `signal` or
    /// `signal:<name>`. A service's own label goes before those of what it uses.
    pub const LABEL: &'static str = "swarmlite.update";

    /// What these labels say; `None` when they say nothing.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Result<Option<UpdateBy>, InvalidUpdateBy> {
        labels.get(UpdateBy::LABEL).map(|value| value.parse()).transpose()
    }

    /// What holds for a service with these labels and something it uses with those. A label that says nothing counts as
    /// none: the API refuses it, but labels of an older release are what they are.
    pub fn effective(of_service: &BTreeMap<String, String>, of_dependency: &BTreeMap<String, String>) -> UpdateBy {
        let said = |labels| UpdateBy::of_labels(labels).unwrap_or_default();
        said(of_service).or_else(|| said(of_dependency)).unwrap_or_default()
    }
}

impl std::str::FromStr for UpdateBy {
    type Err = InvalidUpdateBy;
    fn from_str(s: &str) -> Result<UpdateBy, InvalidUpdateBy> {
        let invalid = || InvalidUpdateBy(s.chars().take(64).collect());
        match s {
            "roll" => Ok(UpdateBy::Roll),
            "keep" => Ok(UpdateBy::Keep),
            "signal" => Ok(UpdateBy::Signal(Signal::default())),
            _ => s.strip_prefix("signal:").and_then(Signal::parse).map(UpdateBy::Signal).ok_or_else(invalid),
        }
    }
}

// === impl Signal ===

impl Signal {
    /// The signal's name, `SIG…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name with or without `SIG`; `None` when it is none.
    pub fn parse(name: &str) -> Option<Signal> {
        let short = name.strip_prefix("SIG").unwrap_or(name);
        SIGNALS.contains(&short).then(|| Signal(format!("SIG{short}").into()))
    }
}

/// signal(7), but for the numbered real-time signals.
const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

impl TryFrom<String> for Signal {
    type Error = InvalidSignal;
    fn try_from(s: String) -> Result<Self, InvalidSignal> {
        Signal::parse(&s).ok_or_else(|| InvalidSignal(s.chars().take(64).collect()))
    }
}

impl From<Signal> for String {
    fn from(s: Signal) -> String {
        s.0.as_ref().to_owned()
    }
}

impl Default for Signal {
    /// `SIGHUP`: what daemons re-read their files for.
    fn default() -> Self {
        Signal("SIGHUP".into())
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_docker_s() {
        for good in ["a", "A9", "my-secret_1.txt", "x".repeat(64).as_str()] {
            assert!(good.parse::<SecretName>().is_ok() && good.parse::<ConfigName>().is_ok(), "{good}");
        }
        for bad in ["-a", "a-", ".a", "a.", "_a", "a b", "a/b", "ä", "a\0b", "..", "x".repeat(65).as_str()] {
            assert_eq!(bad.parse::<SecretName>(), Err(InvalidDependencyName::Invalid), "{bad}");
        }
        assert_eq!("".parse::<ConfigName>(), Err(InvalidDependencyName::Empty));
    }

    #[test]
    fn data_has_docker_s_limits() {
        let zeros = |n: usize| vec![0_u8; n];
        for (n, secret, config) in [
            (0, false, false),
            (1, true, true),
            (511_999, true, true),
            (512_000, false, true),
            (1_023_999, false, true),
            (1_024_000, false, false),
        ] {
            assert_eq!((Data::of_secret(zeros(n)).is_ok(), Data::of_config(zeros(n)).is_ok()), (secret, config), "{n}");
        }
        assert_eq!(InvalidData::Secret.to_string(), "secret data must be larger than 0 and less than 512000 bytes");
    }

    #[test]
    fn data_is_not_shown() {
        let data = Data::of_secret(b"hunter2".as_slice()).unwrap();
        assert_eq!(format!("{data:?}"), "Data(7 bytes)");
    }

    #[test]
    fn labels_say_what_an_update_does_and_the_service_s_goes_first() {
        let label = |value: &str| BTreeMap::from([(UpdateBy::LABEL.to_owned(), value.to_owned())]);
        let none = BTreeMap::new();
        assert_eq!(UpdateBy::effective(&none, &none), UpdateBy::Roll);
        assert_eq!(UpdateBy::effective(&none, &label("keep")), UpdateBy::Keep);
        assert_eq!(UpdateBy::effective(&label("roll"), &label("keep")), UpdateBy::Roll);
        assert_eq!(UpdateBy::effective(&none, &label("signal")), UpdateBy::Signal(Signal::default()));
        let usr1 = UpdateBy::Signal(Signal::parse("USR1").unwrap());
        assert_eq!(UpdateBy::of_labels(&label("signal:SIGUSR1")), Ok(Some(usr1)));
        for bad in [
            "",
            "Roll",
            "signal:",
            "signal:1",
            "signal:SIG",
            "signal:SIGHUPP",
            "signal:FOO",
            "signal:hup",
            "signal:HUP\n",
            "signal:SIGKILLKILLKILLS",
        ] {
            assert!(UpdateBy::of_labels(&label(bad)).is_err(), "{bad:?}");
            assert_eq!(UpdateBy::effective(&none, &label(bad)), UpdateBy::Roll, "{bad:?}");
        }
    }
}
