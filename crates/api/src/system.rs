//! `/_ping` and `/version`.

use crate::Api;
use crate::reply::{Reply, json};
use crate::request::{API_MIN, Request};
use docker_api::{Component, Failure, PlatformName, Version};
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json as value};
use std::collections::BTreeMap;

const PRODUCT: &str = "Swarmlite";

/// `GET` and `HEAD /_ping`: also how clients find the API version.
pub(crate) async fn ping(api: &Api, request: &Request) -> Reply {
    let mut reply = crate::reply::empty();
    let facts = api.engine_facts().await;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert("Swarm", HeaderValue::from_static(api.deps().swarm.local().state.ping_header()));
    let builder = facts.map(|f| f.builder).unwrap_or_default();
    if let Ok(builder) = HeaderValue::from_str(&builder)
        && !builder.is_empty()
    {
        headers.insert("Builder-Version", builder);
    }
    if request.method == Method::GET {
        *reply.body_mut() = crate::reply::full("OK");
    }
    reply
}

/// The headers that every reply of Docker has.
pub(crate) async fn common_headers(api: &Api, headers: &mut HeaderMap) {
    let put = |headers: &mut HeaderMap, name: &'static str, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.entry(name).or_insert(value);
        }
    };
    put(headers, "api-version", api.api_version().await.to_string());
    put(headers, "docker-experimental", "false".into());
    put(headers, "ostype", std::env::consts::OS.into());
    put(headers, "server", format!("{PRODUCT}/{} ({})", api.deps().version.version, std::env::consts::OS));
}

/// `GET /version`
pub(crate) async fn version(api: &Api) -> Result<Reply, Failure> {
    let newest = api.api_version().await.to_string();
    let ours = our_component(api);
    if api.deps().engine_api.is_some()
        && let Ok(mut engine) = api.engine_json("/version").await
    {
        let mut components = vec![value!(ours)];
        if let Some(Value::Array(of_engine)) = engine.remove("Components") {
            components.extend(of_engine);
        }
        engine.insert("Components".into(), Value::Array(components));
        engine.insert("Platform".into(), value!({ "Name": PRODUCT }));
        engine.insert("ApiVersion".into(), newest.into());
        engine.insert("MinAPIVersion".into(), API_MIN.to_string().into());
        return Ok(json(&engine));
    }
    let ServerVersionText { version, git_commit, build_time } = text(api);
    Ok(json(&Version {
        platform: PlatformName { name: PRODUCT.into() },
        components: vec![ours],
        version,
        api_version: newest,
        min_api_version: API_MIN.to_string(),
        git_commit,
        go_version: "none (Rust)".into(),
        os: std::env::consts::OS.into(),
        arch: arch().into(),
        build_time,
        ..Version::default()
    }))
}

struct ServerVersionText {
    version: String,
    git_commit: String,
    build_time: String,
}

fn text(api: &Api) -> ServerVersionText {
    let v = &api.deps().version;
    ServerVersionText { version: v.version.clone(), git_commit: v.git_commit.clone(), build_time: v.build_time.clone() }
}

fn our_component(api: &Api) -> Component {
    let ServerVersionText { version, git_commit, build_time } = text(api);
    let details = [
        ("Arch", arch().to_owned()),
        ("BuildTime", build_time),
        ("Engine", api.deps().engine.kind().to_owned()),
        ("GitCommit", git_commit),
        ("MinAPIVersion", API_MIN.to_string()),
        ("Os", std::env::consts::OS.to_owned()),
    ];
    let details: BTreeMap<String, String> = details.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Component { name: PRODUCT.into(), version, details }
}

/// The architecture in Go's words.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
