//! Pulling images.
//!
//! As Docker Swarm's executor: every task pulls, a failed pull is fatal only when the image is not there, and a reference
//! by digest that is there needs no pull. Beyond it, so that a dead registry or a hundred tasks at once cost little:
//! pulls of one image run one after another and share a result that is fresh, and a pull that makes no progress is given
//! up, sooner when the image is there ([`STALL_WITH_IMAGE`]) than when it is not ([`STALL_WITHOUT_IMAGE`]).

use super::{DockerEngine, READ_TIMEOUT};
use crate::EngineError;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Time without progress after which a pull is given up, when an older copy of the image is there. An unreachable registry
/// delays a task by this much, once in [`RESULT_FRESH`].
const STALL_WITH_IMAGE: Duration = Duration::from_secs(4);
/// The same when there is no copy: Docker's own connection attempts take up to 30 s each.
pub(super) const STALL_WITHOUT_IMAGE: Duration = Duration::from_secs(60);
/// No pull takes longer than this.
pub(super) const PULL_TIMEOUT: Duration = Duration::from_secs(3600);
/// For so long a pull's result is good for other tasks that want the same image and have it.
const RESULT_FRESH: Duration = Duration::from_secs(10);
/// Images whose last pull is remembered.
const REMEMBERED_MAX: usize = 256;

/// Which images were pulled lately. Keyed by reference.
#[derive(Debug, Default)]
pub(super) struct Pulls(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Option<Instant>>>>>);

// === impl Pulls ===

impl Pulls {
    /// The lock of one image's pulls, holding when the last one ended.
    fn of(&self, image: &str) -> Arc<tokio::sync::Mutex<Option<Instant>>> {
        let mut pulls = self.0.lock();
        if pulls.len() >= REMEMBERED_MAX {
            // What nobody waits for can be forgotten; at worst it is pulled again.
            pulls.retain(|_, p| Arc::strong_count(p) > 1);
        }
        Arc::clone(pulls.entry(image.to_owned()).or_default())
    }
}

fn is_fresh(ended: Instant) -> bool {
    ended.elapsed() < RESULT_FRESH
}

/// What a reference says without asking a registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// With `:latest` when it has neither tag nor digest.
    pub(super) full: String,
    /// Names content that never changes.
    by_digest: bool,
    /// An engine's image id: no registry has it.
    local_id: bool,
}

impl Reference {
    pub(super) fn parse(image: &str) -> Reference {
        let hex = |s: &str| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
        let local_id = hex(image.strip_prefix("sha256:").unwrap_or(image));
        let by_digest = image.contains('@');
        let last = image.rsplit('/').next().unwrap_or(image);
        let named_only = !local_id && !by_digest && !last.contains(':');
        let full = if named_only { format!("{image}:latest") } else { image.to_owned() };
        Reference { full, by_digest, local_id }
    }
}

// === impl DockerEngine ===

impl DockerEngine {
    pub(super) async fn pull_image(&self, image: &str, registry_auth: Option<&str>) -> Result<(), EngineError> {
        if image.is_empty() {
            return Err(EngineError::Refused("invalid reference format: no image was given".into()));
        }
        let reference = Reference::parse(image);
        if self.is_enough(&reference).await? {
            return Ok(());
        }
        let pulls = self.pulls.of(&reference.full);
        let mut last = tokio::time::timeout(PULL_TIMEOUT, pulls.lock())
            .await
            .map_err(|_| EngineError::Timeout { call: "pull an image", after: PULL_TIMEOUT })?;
        // Another task may have pulled it while this one waited.
        let present = self.is_present(&reference.full).await?;
        if present && last.is_some_and(is_fresh) {
            return Ok(());
        }
        let pulled = self.pull_once(&reference, registry_auth, present).await;
        *last = Some(Instant::now());
        match pulled {
            Ok(()) => Ok(()),
            Err(e) if present => {
                tracing::warn!(image, "pulling failed, the image that is here is used: {e}");
                Ok(())
            }
            Err(e @ EngineError::Unreachable { .. }) => Err(e),
            Err(e) => Err(EngineError::NotFound(format!("No such image: {} (pull failed: {e})", reference.full))),
        }
    }

    async fn is_enough(&self, reference: &Reference) -> Result<bool, EngineError> {
        if reference.local_id {
            // Nothing to pull: creating the container will say when it is not there.
            return Ok(true);
        }
        Ok((reference.by_digest || self.prefer_offline_images) && self.is_present(&reference.full).await?)
    }

    async fn is_present(&self, image: &str) -> Result<bool, EngineError> {
        let client = self.client().await?;
        match self.bound("inspect an image", READ_TIMEOUT, client.inspect_image(image)).await {
            Ok(_) => Ok(true),
            Err(EngineError::NotFound(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn pull_once(
        &self,
        reference: &Reference,
        registry_auth: Option<&str>,
        present: bool,
    ) -> Result<(), EngineError> {
        let mut client = self.client().await?;
        if let Some(auth) = registry_auth {
            let header = sensitive_header(auth)?;
            client = client.with_request_modifier(move |mut request| {
                request.headers_mut().insert("x-registry-auth", header.clone());
                request
            });
        }
        let options = CreateImageOptionsBuilder::new().from_image(&reference.full).build();
        let mut progress = client.create_image(Some(options), None, None);
        let stall = if present { STALL_WITH_IMAGE } else { STALL_WITHOUT_IMAGE };
        let deadline = Instant::now() + PULL_TIMEOUT;
        while Instant::now() < deadline {
            match tokio::time::timeout(stall, progress.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(e))) => return Err(self.error("pull an image", stall, e)),
                Err(_) => return Err(EngineError::Timeout { call: "make progress with a pull", after: stall }),
            }
        }
        Err(EngineError::Timeout { call: "finish a pull", after: PULL_TIMEOUT })
    }
}

pub(super) fn sensitive_header(auth: &str) -> Result<http::HeaderValue, EngineError> {
    let mut value = http::HeaderValue::from_str(auth).map_err(|_| {
        EngineError::Refused("the registry credentials contain characters that no header may have".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_says_what_must_be_asked_of_a_registry() {
        let digest = format!("web@sha256:{}", "a".repeat(64));
        let id = format!("sha256:{}", "b".repeat(64));
        for (image, full, by_digest, local_id) in [
            ("web", "web:latest", false, false),
            ("web:1", "web:1", false, false),
            ("host:5000/web", "host:5000/web:latest", false, false),
            ("host:5000/a/web:2", "host:5000/a/web:2", false, false),
            (digest.as_str(), digest.as_str(), true, false),
            (id.as_str(), id.as_str(), false, true),
        ] {
            assert_eq!(Reference::parse(image), Reference { full: full.into(), by_digest, local_id }, "{image}");
        }
    }

    #[test]
    fn credentials_that_cannot_be_a_header_are_refused_and_not_repeated() {
        let error = sensitive_header("sec\nret").unwrap_err().to_string();
        assert!(!error.contains("ret\n") && !error.contains("sec\n"), "{error}");
    }

    #[test]
    fn the_memory_of_pulls_is_bounded() {
        let pulls = Pulls::default();
        for n in 0..3 * REMEMBERED_MAX {
            drop(pulls.of(&format!("image:{n}")));
        }
        assert!(pulls.0.lock().len() <= REMEMBERED_MAX);
    }
}
