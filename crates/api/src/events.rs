//! `/events`: what happens in the swarm, between what the local engine tells. What happened before the request is replayed as far
//! as this manager's record of it goes back.

mod message;
mod record;

use crate::Api;
use crate::reply::{Reply, empty};
use crate::request::{Request, unix_ns};
use bytes::{Bytes, BytesMut};
use docker_api::{EventMessage, Failure, Filters};
use http::{HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use model::{Timestamp, limits};
use record::{Entry, Reader};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) use record::Record;

/// Lines that wait for a slow reader before we do.
const BACKLOG: usize = 256;
/// Filters that Docker knows.
const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];
/// Filters that only hold for what is not the swarm's.
const NOT_OURS: [&str; 6] = ["container", "daemon", "image", "network", "plugin", "volume"];

type Lines = mpsc::Sender<Result<Bytes, std::convert::Infallible>>;

/// `GET /events`
pub(crate) async fn stream(api: &Api, request: &Request, raw_query: Option<&str>) -> Result<Reply, Failure> {
    let filters = request.query.filters()?;
    filters.allow_only(&FILTERS)?;
    let (since, until) = (unix_ns("since", request.query.get("since"))?, unix_ns("until", request.query.get("until"))?);
    let (lines, body) = mpsc::channel(BACKLOG);
    if api.deps().engine_api.is_some() && filters.any("scope", |s| s == "local") {
        let (api, lines, query) = (api.clone(), lines.clone(), raw_query.unwrap_or_default().to_owned());
        api.deps().tasks.clone().spawn("engine events", async move { engine_events(&api, &query, lines).await });
    }
    // From before the reply: whoever has its head misses nothing that comes after.
    let store = api.deps().swarm.store().ok();
    if store.is_some() {
        api.0.record.begun().await;
    }
    let reader = api.0.record.reader(store.map(|s| s.local().index()), since);
    let swarm = (api.clone(), filters);
    api.deps().tasks.spawn("swarm events", async move {
        tokio::select! {
            biased;
            () = lines.closed() => {}
            () = swarm_events(&swarm.0, &swarm.1, &lines, reader, until) => {}
        }
    });
    let mut reply = empty();
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let frames = futures::StreamExt::map(ReceiverStream::new(body), |line| line.map(Frame::data));
    *reply.body_mut() = StreamBody::new(frames).map_err(|never| match never {}).boxed();
    Ok(reply)
}

async fn sleep_until(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}

/// Passes on the engine's lines, whole.
async fn engine_events(api: &Api, query: &str, lines: Lines) {
    let request = http::Request::get(format!("/events?{query}")).body(crate::reply::full(""));
    let Ok(request) = request else { return };
    let mut body = match api.send_to_engine(request).await {
        Ok(response) if response.status().is_success() => response.into_body(),
        Ok(response) => return tracing::debug!(status = %response.status(), "the engine refused to tell its events"),
        Err(e) => return tracing::debug!(error = %e, "the engine's events cannot be had"),
    };
    let mut partial = BytesMut::new();
    loop {
        let frame = tokio::select! {
            biased;
            () = lines.closed() => return,
            frame = body.frame() => frame,
        };
        let Some(Ok(frame)) = frame else { return };
        partial.extend_from_slice(frame.data_ref().map_or(&[], |d| d));
        if let Some(end) = partial.iter().rposition(|b| *b == b'\n') {
            let whole = partial.split_to(end + 1).freeze();
            if lines.send(Ok(whole)).await.is_err() {
                return;
            }
        } else if partial.len() > limits::API_BODY_BYTES_MAX {
            return tracing::warn!("an event of the engine is longer than any event should be; its events end here");
        }
    }
}

/// Tells what the record has from before the request, as far as it is wanted, and then what comes.
async fn swarm_events(api: &Api, filters: &Filters, lines: &Lines, mut reader: Reader, until: Option<u64>) {
    let over = |entry: &Entry| until.is_some_and(|until| entry.at_unix_ns() > until);
    while let Some(entry) = reader.next_replayed() {
        if !over(&entry) && wanted(&entry.message, filters) && lines.send(Ok(entry.line.clone())).await.is_err() {
            return;
        }
    }
    let live = async {
        loop {
            let entry = reader.next().await;
            if wanted(&entry.message, filters) && lines.send(Ok(entry.line.clone())).await.is_err() {
                return;
            }
        }
    };
    let left = until.map(|until| Timestamp(until).since(api.now()));
    tokio::select! {
        biased;
        () = sleep_until(left) => {}
        () = live => {}
    }
}

fn wanted(m: &EventMessage, filters: &Filters) -> bool {
    let actor = |kind: &str| {
        let name = m.actor.attributes.get("name");
        filters.any(kind, |want| m.kind == kind && (m.actor.id.starts_with(want) || name.is_some_and(|n| n == want)))
    };
    filters.any("scope", |s| s == "swarm")
        && filters.any("type", |t| t == m.kind)
        && filters.any("event", |e| e == m.action)
        && filters.labels("label", &m.actor.attributes)
        && actor("config")
        && actor("node")
        && actor("secret")
        && actor("service")
        && !NOT_OURS.iter().any(|f| filters.has(f))
}
