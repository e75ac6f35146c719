//! Digest pinning: every node shall run the same image, though its tag may move on meanwhile.

use super::flags::Flags;
use crate::context::Context;
use docker_api::{Platform, ServiceSpec};
use serde::Deserialize;
use std::time::Duration;

/// How long the registry has: without an answer the service is created all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// `GET /distribution/{image}/json`.
#[derive(Debug, Deserialize)]
struct Distribution {
    #[serde(rename = "Descriptor")]
    descriptor: Descriptor,
    #[serde(rename = "Platforms", default)]
    platforms: Vec<ImagePlatform>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: String,
}

#[derive(Debug, Deserialize)]
struct ImagePlatform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

/// Puts the image's digest and platforms into the spec; a warning when the registry cannot be asked.
pub(crate) async fn pin(
    ctx: &Context,
    flags: &Flags,
    auth: &[(&str, String)],
    spec: &mut ServiceSpec,
) -> Option<String> {
    let task = &mut spec.task_template;
    let container = task.container_spec.as_mut()?;
    if flags.switch("no-resolve-image") || container.image.contains('@') {
        return None;
    }
    let path = format!("/distribution/{}/json", container.image);
    match ctx.client.get_within::<Distribution>(&path, auth, PATIENCE).await {
        Ok(found) if found.descriptor.digest.contains(':') => {
            container.image = format!("{}@{}", container.image, found.descriptor.digest);
            let platforms = found.platforms.into_iter().map(platform).collect();
            task.placement.get_or_insert_default().platforms = platforms;
            None
        }
        _ => Some(format!(
            "image {0} could not be accessed on a registry to record\nits digest. Each node will access {0} independently,\n\
             possibly leading to different nodes running different\nversions of the image.\n",
            container.image
        )),
    }
}

/// What registries call `arm` says too little of its variant to be matched.
fn platform(p: ImagePlatform) -> Platform {
    let architecture = if p.architecture.eq_ignore_ascii_case("arm") { String::new() } else { p.architecture };
    Platform { architecture, os: p.os }
}
