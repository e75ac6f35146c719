//! What a change is to a user.

use crate::convert;
use docker_api::{Actor, EventMessage};
use std::collections::BTreeMap;
use store::{Delta, Object};

/// What a change is to a user, with the time that it is to have; nothing when it is not the user's business.
pub(super) fn message(delta: &Delta, at_unix_ns: u64) -> Option<EventMessage> {
    let (kind, id, attributes) = match delta.after.as_ref().or(delta.before.as_ref())? {
        Object::Service(s) => ("service", s.id.to_string(), service_attributes(delta)),
        Object::Node(n) => ("node", n.id.to_string(), node_attributes(delta)),
        Object::Secret(s) => ("secret", s.id.to_string(), named(s.spec.name.as_str())),
        Object::Config(c) => ("config", c.id.to_string(), named(c.spec.name.as_str())),
        Object::Cluster(_) | Object::Task(_) | Object::Payload(_) => return None,
    };
    let action = match (&delta.before, &delta.after) {
        (None, Some(_)) => "create",
        (_, None) => "remove",
        (Some(_), Some(_)) => "update",
    };
    let nanos = i64::try_from(at_unix_ns).unwrap_or(i64::MAX);
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
        ("image", both(&|s| s.spec.task.container().map_or(String::new(), |c| c.image.clone()))),
        ("replicas", both(&|s| s.spec.replicas().map_or(String::new(), |n| n.to_string()))),
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
