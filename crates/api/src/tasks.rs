//! `/tasks`: list and inspect.

use crate::reply::{Reply, json_bytes};
use crate::request::Request;
use crate::{Api, convert, lookup, render};
use docker_api::{Failure, Filters};
use http::StatusCode;
use model::{NodeId, ServiceId, Task, TaskState};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::Snapshot;

const FILTERS: [&str; 9] =
    ["name", "id", "label", "service", "node", "desired-state", "_up-to-date", "runtime", "is-task"];

/// The filters, with names looked up.
struct Wanted {
    filters: Filters,
    services: BTreeSet<ServiceId>,
    nodes: BTreeSet<NodeId>,
}

/// `GET /tasks`
pub(crate) async fn list(api: &Api, request: &Request) -> Result<Reply, Failure> {
    let filters = request.query.filters()?;
    filters.allow_only(&FILTERS)?;
    let bad_state = filters.values("desired-state").find(|s| TaskState::parse(&s.to_ascii_lowercase()).is_none());
    if let Some(state) = bad_state {
        return Err(Failure::bad_request(format_args!("invalid desired-state filter: '{state}'")));
    }
    let snapshot = api.read(request).await?;
    let services = filters.values("service").map(|s| lookup::service(&snapshot, s).map(|s| s.id.clone()));
    let services = services.collect::<Result<BTreeSet<_>, _>>()?;
    let nodes = filters.values("node").map(|n| lookup::node(&snapshot, n).map(|n| n.id.clone()));
    let nodes = nodes.collect::<Result<BTreeSet<_>, _>>()?;
    let wanted = Wanted { filters, services, nodes };
    let rendered = candidates(&snapshot, &wanted).filter(|t| wanted.has(&snapshot, t)).map(|t| api.0.rendered.task(t));
    Ok(json_bytes(StatusCode::OK, render::list(rendered)))
}

/// The tasks among which to look: by an index where one fits.
fn candidates<'a>(snapshot: &'a Snapshot, wanted: &'a Wanted) -> Box<dyn Iterator<Item = &'a Arc<Task>> + 'a> {
    if !wanted.services.is_empty() {
        return Box::new(wanted.services.iter().flat_map(|s| snapshot.tasks_of_service(s)));
    }
    if !wanted.nodes.is_empty() {
        return Box::new(wanted.nodes.iter().flat_map(|n| snapshot.tasks_on_node(n)));
    }
    Box::new(snapshot.tasks())
}

/// `GET /tasks/{id}`
pub(crate) async fn inspect(api: &Api, request: &Request, id: &str) -> Result<Reply, Failure> {
    let snapshot = api.read(request).await?;
    let found = lookup::task(&snapshot, id)?;
    Ok(json_bytes(StatusCode::OK, api.0.rendered.task(found)))
}

// === impl Wanted ===

impl Wanted {
    fn has(&self, snapshot: &Snapshot, t: &Task) -> bool {
        let f = &self.filters;
        let is_new = |t: &Task| snapshot.service(&t.service_id).is_some_and(|s| control::is_up_to_date(snapshot, s, t));
        (self.services.is_empty() || self.services.contains(&t.service_id))
            && (self.nodes.is_empty() || t.node_id.as_ref().is_some_and(|n| self.nodes.contains(n)))
            && f.any("id", |id| t.id.as_str().starts_with(id))
            && f.any("name", |name| t.name().starts_with(name))
            && f.any("desired-state", |s| s.eq_ignore_ascii_case(t.desired.as_str()))
            && convert::is_of_runtime(f, &t.spec)
            && f.any("_up-to-date", |yes| is_on(yes) == is_new(t))
            // Docker filters on the labels of the task itself, which are its service's.
            && (!f.has("label")
                || snapshot.service(&t.service_id).is_some_and(|s| f.labels("label", &s.spec.labels)))
    }
}

fn is_on(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}
