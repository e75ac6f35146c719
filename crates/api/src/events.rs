//! `/events`: what happens in the swarm, between what the local engine tells.

use crate::reply::{Reply, empty};
use crate::request::Request;
use crate::{Api, convert};
use bytes::{Bytes, BytesMut};
use docker_api::{Actor, EventMessage, Failure, Filters};
use http::{HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use model::{Timestamp, limits};
use std::collections::BTreeMap;
use std::time::Duration;
use store::{Changes, Delta, Event, Object};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Lines that wait for a slow reader before we do.
const BACKLOG: usize = 256;
/// How soon a node that is no manager looks again whether it is one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
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
    let until = time_left(request.query.get("until"), api.now())?;
    let (lines, body) = mpsc::channel(BACKLOG);
    if api.deps().engine_api.is_some() && filters.any("scope", |s| s == "local") {
        let (api, lines, query) = (api.clone(), lines.clone(), raw_query.unwrap_or_default().to_owned());
        api.deps().tasks.clone().spawn("engine events", async move { engine_events(&api, &query, lines).await });
    }
    // From before the reply: whoever has its head misses nothing that comes after.
    let changes = api.deps().swarm.store().ok().map(|s| s.changes());
    let swarm = (api.clone(), filters);
    api.deps().tasks.spawn("swarm events", async move {
        let ours = swarm_events(&swarm.0, &swarm.1, &lines, changes);
        tokio::select! {
            biased;
            () = lines.closed() => {}
            () = ours => {}
            () = sleep_until(until) => {}
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

/// How long until a Unix time; `None` when none was given.
fn time_left(until: &str, now: Timestamp) -> Result<Option<Duration>, Failure> {
    if until.is_empty() || until == "0" {
        return Ok(None);
    }
    let seconds: f64 =
        until.parse().ok().filter(|s: &f64| s.is_finite() && (0.0..1e11).contains(s)).ok_or_else(|| {
            let shown: String = until.chars().take(64).collect();
            Failure::bad_request(format_args!("invalid until {shown:?}: it must be a Unix time in seconds"))
        })?;
    Ok(Some(Timestamp::from_unix(Duration::from_secs_f64(seconds)).since(now)))
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

/// Tells what the store's changes mean, for as long as this node is a manager, and again when it is one again.
async fn swarm_events(api: &Api, filters: &Filters, lines: &Lines, mut changes: Option<Changes>) {
    loop {
        if let Some(changes) = &mut changes
            && !tell(api, filters, lines, changes).await
        {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        changes = api.deps().swarm.store().ok().map(|s| s.changes());
    }
}

/// True when there will be no more changes, false when nobody listens any more.
async fn tell(api: &Api, filters: &Filters, lines: &Lines, changes: &mut Changes) -> bool {
    loop {
        let commit = match changes.next().await {
            Event::Commit(commit) => commit,
            // What was missed is missed: events are news, not a record.
            Event::Resync => continue,
            Event::Closed => return true,
        };
        for message in commit.deltas.iter().filter_map(|d| message(d, api.now())) {
            if wanted(&message, filters) && lines.send(Ok(line(&message))).await.is_err() {
                return false;
            }
        }
    }
}

fn line(message: &EventMessage) -> Bytes {
    let mut line = serde_json::to_vec(message).expect("an event is a map with string keys, which always encodes");
    line.push(b'\n');
    line.into()
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

/// What a change is to a user; nothing when it is not the user's business.
fn message(delta: &Delta, now: Timestamp) -> Option<EventMessage> {
    let (kind, id, attributes) = match delta.after.as_ref().or(delta.before.as_ref())? {
        Object::Service(s) => ("service", s.id.to_string(), service_attributes(delta)),
        Object::Node(n) => ("node", n.id.to_string(), node_attributes(delta)),
        Object::Secret(s) => ("secret", s.id.to_string(), named(s.spec.name.as_str())),
        Object::Config(c) => ("config", c.id.to_string(), named(c.spec.name.as_str())),
        Object::Cluster(_) | Object::Task(_) | Object::Payload(_) => return None,
    };
    let (action, at) = match (&delta.before, &delta.after) {
        (None, Some(after)) => ("create", after.meta().created_at),
        (_, None) => ("remove", now),
        (Some(_), Some(after)) => ("update", after.meta().updated_at),
    };
    let nanos = i64::try_from(at.0).unwrap_or(i64::MAX);
    Some(EventMessage {
        kind: kind.into(),
        action: action.into(),
        actor: Actor { id, attributes },
        scope: "swarm".into(),
        time_unix_s: nanos / 1_000_000_000,
        time_unix_ns: nanos,
    })
}

fn named(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("name".to_owned(), name.to_owned())])
}

fn difference(attributes: &mut BTreeMap<String, String>, name: &str, old: Option<String>, new: Option<String>) {
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        attributes.insert(format!("{name}.old"), old);
        attributes.insert(format!("{name}.new"), new);
    }
}

fn service_attributes(delta: &Delta) -> BTreeMap<String, String> {
    let as_service = |o: &Option<Object>| match o {
        Some(Object::Service(s)) => Some(s.clone()),
        _ => None,
    };
    let (old, new) = (as_service(&delta.before), as_service(&delta.after));
    let mut all = BTreeMap::new();
    if let Some(s) = new.as_ref().or(old.as_ref()) {
        all.insert("name".to_owned(), s.spec.name.to_string());
    }
    let both = |f: &dyn Fn(&model::Service) -> String| (old.as_ref().map(|s| f(s)), new.as_ref().map(|s| f(s)));
    let state = |s: &model::Service| s.current_update().map(|u| u.state.as_str().to_owned()).unwrap_or_default();
    for (name, (old, new)) in [
        ("image", both(&|s| s.spec.task.container.image.clone())),
        ("replicas", both(&|s| s.spec.replicas().to_string())),
        ("updatestate", both(&state)),
    ] {
        difference(&mut all, name, old, new);
    }
    all
}

fn node_attributes(delta: &Delta) -> BTreeMap<String, String> {
    let as_node = |o: &Option<Object>| match o {
        Some(Object::Node(n)) => Some(convert::node(n, None)),
        _ => None,
    };
    let (old, new) = (as_node(&delta.before), as_node(&delta.after));
    let mut all = BTreeMap::new();
    if let Some(n) = new.as_ref().or(old.as_ref()) {
        all.insert("name".to_owned(), n.description.hostname.clone());
    }
    let both = |f: &dyn Fn(&docker_api::Node) -> String| (old.as_ref().map(f), new.as_ref().map(f));
    for (name, (old, new)) in [
        ("availability", both(&|n| n.spec.availability.clone())),
        ("role", both(&|n| n.spec.role.clone())),
        ("state", both(&|n| n.status.state.clone())),
    ] {
        difference(&mut all, name, old, new);
    }
    all
}
