//! Plugins of the engine itself: what gives it further networks, volumes and ways of logging.

use crate::EngineError;
use async_trait::async_trait;
use model::PluginPrivilege;
use std::fmt;

/// Bytes of a name or a reference of a plugin.
pub(crate) const NAME_BYTES_MAX: usize = 1024;

/// Where a plugin comes from, and what it may do.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PluginSource {
    /// A reference in a registry.
    pub remote: String,
    /// What it is allowed; the engine refuses a plugin that asks for anything else.
    pub privileges: Vec<PluginPrivilege>,
    /// Docker's `X-Registry-Auth` value.
    pub registry_auth: Option<String>,
}

/// A plugin as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PluginState {
    /// The engine's id.
    pub id: String,
    /// Its name, with a tag.
    pub name: String,
    /// Where it came from.
    pub remote: String,
    /// It runs.
    pub enabled: bool,
    /// Its settings, `KEY=value`.
    pub env: Vec<String>,
}

/// What an engine does with plugins. A plugin's name is that which the engine gives it (with a tag).
#[async_trait]
pub trait Plugins: Send + Sync + 'static {
    /// A plugin by its name; `None` when it is not there.
    async fn plugin(&self, name: &str) -> Result<Option<PluginState>, EngineError>;
    /// Installs a plugin under this name. It is not enabled.
    async fn plugin_install(&self, name: &str, source: &PluginSource) -> Result<(), EngineError>;
    /// Puts another in place of one that is not enabled, under the same name.
    async fn plugin_upgrade(&self, name: &str, source: &PluginSource) -> Result<(), EngineError>;
    /// Gives one that is not enabled these settings (`KEY=value`), and for all others the plugin's own defaults.
    async fn plugin_set(&self, name: &str, env: &[String]) -> Result<(), EngineError>;
    /// Starts one that does not run.
    async fn plugin_enable(&self, name: &str) -> Result<(), EngineError>;
    /// Stops it, whoever uses it. No error when it is not there, or does not run.
    async fn plugin_disable(&self, name: &str) -> Result<(), EngineError>;
    /// Removes it, whether it runs or not. No error when it is not there.
    async fn plugin_remove(&self, name: &str) -> Result<(), EngineError>;
}

// === impl PluginSource ===

impl fmt::Debug for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginSource").field("remote", &self.remote).finish_non_exhaustive()
    }
}

// === impl PluginState ===

impl PluginState {
    /// True when it came from there. The engine says in full where: `a/net` has become `docker.io/a/net:latest`.
    pub fn is_from(&self, remote: &str) -> bool {
        in_full(&self.remote) == in_full(remote)
    }
}

/// A reference with the registry and the tag that it means; beside a digest a tag says nothing (distribution/reference).
fn in_full(reference: &str) -> String {
    let (name, digest) = reference.split_once('@').map_or((reference, None), |(name, digest)| (name, Some(digest)));
    let is_registry = |d: &str| d.contains(['.', ':']) || d == "localhost" || d.bytes().any(|b| b.is_ascii_uppercase());
    let (registry, path) = name.split_once('/').filter(|(d, _)| is_registry(d)).unwrap_or(("docker.io", name));
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    let library = if registry == "docker.io" && !path.contains('/') { "library/" } else { "" };
    let (path, tag) = path.split_once(':').unwrap_or((path, "latest"));
    let which = digest.map_or_else(|| format!(":{tag}"), |digest| format!("@{digest}"));
    format!("{registry}/{library}{path}{which}")
}

/// Refuses what is no reference to a plugin: it becomes part of a path.
pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@+".contains(&b);
    let way = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if way && name.len() <= NAME_BYTES_MAX && name.bytes().all(ok) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(EngineError::Refused(format!("error parsing remote reference {shown:?}: invalid reference format")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_part_of_a_path_is_a_reference() {
        for good in ["net:latest", "127.0.0.1:5000/a/net:1", "a/b@sha256:00"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in
            ["", "a//b", "../containers/x", "a/../b", "a b", "a?x=1", "a%2f", "ä", &"x".repeat(NAME_BYTES_MAX + 1)]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn where_a_plugin_came_from_is_said_in_full_or_in_short() {
        for (full, short, same) in [
            ("docker.io/vieux/sshfs:latest", "vieux/sshfs", true),
            ("docker.io/vieux/sshfs:latest", "index.docker.io/vieux/sshfs:latest", true),
            ("docker.io/library/net:1", "net:1", true),
            ("127.0.0.1:5000/a/net:1", "127.0.0.1:5000/a/net:1", true),
            ("localhost/net:latest", "localhost/net", true),
            ("registry:5000/net@sha256:00", "registry:5000/net:1@sha256:00", true),
            ("docker.io/vieux/sshfs:latest", "vieux/sshfs:2", false),
            ("docker.io/vieux/sshfs:latest", "registry:5000/vieux/sshfs", false),
            ("registry:5000/net@sha256:00", "registry:5000/net@sha256:01", false),
            ("", "net", false),
        ] {
            let plugin = PluginState { remote: full.into(), ..PluginState::default() };
            assert_eq!(plugin.is_from(short), same, "{full} {short}");
        }
    }

    #[test]
    fn credentials_are_not_printed() {
        let source = PluginSource { registry_auth: Some("hunter2".into()), ..PluginSource::default() };
        assert!(!format!("{source:?}").contains("hunter2"));
    }
}
