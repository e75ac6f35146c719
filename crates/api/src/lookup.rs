//! Finding an object by what a user typed: its id, else its name, else the beginning of its id.

use docker_api::Failure;
use model::{Node, Service, Task};
use std::sync::Arc;
use store::Snapshot;

/// A service by id, name or id prefix.
pub(crate) fn service<'a>(snapshot: &'a Snapshot, what: &str) -> Result<&'a Arc<Service>, Failure> {
    if let Some(found) = service_exactly(snapshot, what) {
        return Ok(found);
    }
    only("service", what, snapshot.services().filter(|s| s.id.as_str().starts_with(what)))
}

/// A service by its whole id or name, on a state that may be behind. Neither is ever given to another service while this
/// one is there, so a transaction that checks the service has checked the answer too.
pub(crate) fn service_exactly<'a>(behind: &'a Snapshot, what: &str) -> Option<&'a Arc<Service>> {
    let by_id = what.parse().ok().and_then(|id| behind.service(&id));
    by_id.or_else(|| what.parse().ok().and_then(|name| behind.service_named(&name)))
}

/// A node by id, host name or id prefix.
pub(crate) fn node<'a>(snapshot: &'a Snapshot, what: &str) -> Result<&'a Arc<Node>, Failure> {
    if let Some(found) = what.parse().ok().and_then(|id| snapshot.node(&id)) {
        return Ok(found);
    }
    let named = |n: &&Arc<Node>| n.description.as_ref().is_some_and(|d| !what.is_empty() && d.hostname == what);
    if snapshot.nodes().any(|n| named(&n)) {
        return only("node", what, snapshot.nodes().filter(named));
    }
    only("node", what, snapshot.nodes().filter(|n| n.id.as_str().starts_with(what)))
}

/// A task by id, name or id prefix.
pub(crate) fn task<'a>(snapshot: &'a Snapshot, what: &str) -> Result<&'a Arc<Task>, Failure> {
    if let Some(found) = what.parse().ok().and_then(|id| snapshot.task(&id)) {
        return Ok(found);
    }
    // A task's name ends with its id, so that only one task can have it.
    let named = what.rsplit_once('.').and_then(|(_, id)| id.parse().ok()).and_then(|id| snapshot.task(&id));
    if let Some(found) = named.filter(|t| t.name() == what) {
        return Ok(found);
    }
    only("task", what, snapshot.tasks().filter(|t| t.id.as_str().starts_with(what)))
}

/// The only match, or Docker's error that says that there is none, or too many.
pub(crate) fn only<'a, T>(kind: &str, what: &str, mut matches: impl Iterator<Item = &'a T>) -> Result<&'a T, Failure> {
    let shown: String = what.chars().take(128).collect();
    if what.is_empty() {
        return Err(Failure::not_found(kind, &shown));
    }
    match (matches.next(), matches.count()) {
        (None, _) => Err(Failure::not_found(kind, &shown)),
        (Some(found), 0) => Ok(found),
        (Some(_), more) => Err(Failure::ambiguous(kind, &shown, more + 1)),
    }
}
