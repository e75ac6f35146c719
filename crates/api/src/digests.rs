//! Images by digest. Clients since API 1.30 find the digest themselves; for older ones the daemon does.

use crate::Api;
use crate::request::{ApiVersion, Request};
use docker_api::ServiceSpec;
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use std::time::Duration;

/// Where a client puts the registry's credentials.
const AUTH: &str = "x-registry-auth";
/// From this version on clients find the digest themselves.
const CLIENTS_PIN_SINCE: ApiVersion = ApiVersion(1, 30);
/// How long a registry may take: the service is made all the same, and each node finds its own.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Puts the digest into the image's reference where the client left that to us. What the user should be told if it could not
/// be found, as moby does (`daemon/cluster/services.go`).
pub(crate) async fn pin(api: &Api, request: &Request, spec: &mut ServiceSpec) -> Option<Vec<String>> {
    let version = request.path.version?;
    let container = spec.task_template.container_spec.as_mut()?;
    if version >= CLIENTS_PIN_SINCE || container.image.contains('@') || !crate::convert::is_reference(&container.image)
    {
        return None;
    }
    let asked = ask(api, &container.image, request.headers.get(AUTH));
    match tokio::time::timeout(TIMEOUT, asked).await.ok().flatten() {
        Some(digest) => {
            container.image = format!("{}@{digest}", with_tag(&container.image));
            None
        }
        None => Some(vec![warning(&container.image)]),
    }
}

/// The digest that the local engine finds at the registry.
async fn ask(api: &Api, image: &str, auth: Option<&HeaderValue>) -> Option<String> {
    let headers = auth.map(|auth| (HeaderName::from_static(AUTH), auth.clone())).into_iter().collect();
    let found = api.engine_json_with(&format!("/distribution/{}/json", with_tag(image)), &headers).await.ok()?;
    let digest = found.get("Descriptor")?.get("digest").and_then(Value::as_str)?;
    crate::convert::is_reference(&format!("x@{digest}")).then(|| digest.to_owned())
}

fn with_tag(image: &str) -> String {
    let has_tag = image.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
    if has_tag { image.to_owned() } else { format!("{image}:latest") }
}

fn warning(image: &str) -> String {
    format!(
        "image {image} could not be accessed on a registry to record\nits digest. Each node will access {image} independently,\npossibly leading to different nodes running different\nversions of the image.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::with_tag;

    #[test]
    fn a_reference_without_a_tag_means_the_latest() {
        for (image, tagged) in [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("localhost:5000/nginx", "localhost:5000/nginx:latest"),
            ("localhost:5000/nginx:1", "localhost:5000/nginx:1"),
        ] {
            assert_eq!(with_tag(image), tagged);
        }
    }
}
