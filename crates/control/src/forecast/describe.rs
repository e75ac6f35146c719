//! Changes of objects, in words. Values are shown where they are no secret: never those of environment variables, of data, of
//! keys and of tokens.

use model::{
    Availability, Cluster, ContainerSpec, Mode, Node, NodeState, PluginSpec, Role, Runtime, Service, ServiceSpec,
    TaskSpec,
};
use std::collections::{BTreeMap, BTreeSet};
use store::{Change, Object, ObjectId, Snapshot, Transaction};

/// What the transactions change, an object a line; nothing for an object that is as it was. `moves` says whether spreading the
/// service anew comes to anything: a wish that is fulfilled already is no change.
pub(super) fn objects(
    before: &Snapshot,
    after: &Snapshot,
    transactions: &[Transaction],
    moves: impl Fn(&Service) -> bool,
) -> Vec<String> {
    let changes = transactions.iter().flat_map(|t| &t.changes);
    let ids: BTreeSet<ObjectId> = changes
        .map(|c| match c {
            Change::Put(object) => object.id(),
            Change::Remove(id) => id.clone(),
        })
        .collect();
    ids.iter().filter_map(|id| object(before.get(id), after.get(id), &moves)).collect()
}

fn object(before: Option<Object>, after: Option<Object>, moves: &impl Fn(&Service) -> bool) -> Option<String> {
    let subject = subject(after.as_ref().or(before.as_ref())?)?;
    let what = match (&before, &after) {
        (None, Some(Object::Service(s))) => format!("new: {}", summary(&s.spec)),
        (None, _) => "new".into(),
        (_, None) => "removed".into(),
        (Some(Object::Service(b)), Some(Object::Service(a))) => service(b, a, moves(a)).join(", "),
        (Some(Object::Node(b)), Some(Object::Node(a))) => node(b, a).join(", "),
        (Some(Object::Cluster(b)), Some(Object::Cluster(a))) => cluster(b, a).join(", "),
        (Some(Object::Secret(b)), Some(Object::Secret(a))) => {
            of_data(&b.spec.labels, &a.spec.labels, b.data_version, a.data_version).join(", ")
        }
        (Some(Object::Config(b)), Some(Object::Config(a))) => {
            of_data(&b.spec.labels, &a.spec.labels, b.data_version, a.data_version).join(", ")
        }
        _ => String::new(),
    };
    (!what.is_empty()).then(|| format!("{subject}: {what}"))
}

/// How an object is called; `None` for what shows elsewhere: tasks in the steps, data with its secret or config.
fn subject(object: &Object) -> Option<String> {
    match object {
        Object::Cluster(_) => Some("swarm".into()),
        Object::Node(n) => Some(format!("node {}", node_name(n))),
        Object::Service(s) => Some(format!("service {}", s.spec.name)),
        Object::Secret(s) => Some(format!("secret {}", s.spec.name)),
        Object::Config(c) => Some(format!("config {}", c.spec.name)),
        Object::Task(_) | Object::Payload(_) => None,
    }
}

/// A node's host name, or its id while it has told none.
pub(super) fn node_name(node: &Node) -> String {
    let hostname = node.description.as_ref().map(|d| d.hostname.as_str()).filter(|h| !h.is_empty());
    hostname.unwrap_or(node.id.as_str()).to_owned()
}

// --- services ---

fn summary(spec: &ServiceSpec) -> String {
    format!("{}, {}", mode(&spec.mode), runtime(&spec.task))
}

fn runtime(task: &TaskSpec) -> String {
    match &task.runtime {
        Runtime::Container(container) => format!("image {}", container.image),
        Runtime::Plugin(plugin) => format!("plugin {} from {}", plugin.local_name(), plugin.remote),
    }
}

fn mode(mode: &Mode) -> String {
    match mode {
        Mode::Replicated { replicas } => format!("replicated, replicas {replicas}"),
        Mode::ReplicatedJob { total_completions, .. } => format!("replicated-job, completions {total_completions}"),
        Mode::Global | Mode::GlobalJob => mode.as_str().into(),
    }
}

fn service(before: &Service, after: &Service, moves: bool) -> Vec<String> {
    let (b, a) = (&before.spec, &after.spec);
    let mut out = Vec::new();
    if b.name != a.name {
        out.push(format!("name {} -> {}", b.name, a.name));
    }
    match (&b.mode, &a.mode) {
        (Mode::Replicated { replicas: b }, Mode::Replicated { replicas: a }) if a != b => {
            out.push(format!("replicas {b} -> {a}"));
        }
        (b, a) if a != b => out.push(format!("mode {} -> {}", mode(b), mode(a))),
        _ => {}
    }
    labels(&b.labels, &a.labels, &mut out);
    out.extend(task(&b.task, &a.task));
    let others = [
        ("update configuration", b.update != a.update),
        ("rollback configuration", b.rollback != a.rollback),
        ("published ports", b.endpoint != a.endpoint),
        ("schedule", b.cron != a.cron),
        ("restart backoff", b.backoff != a.backoff),
    ];
    out.extend(others.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what.to_owned()));
    let (b, a) = (&before.progress, &after.progress);
    if let Some(run) = a.job.filter(|run| b.job.is_some_and(|b| b.iteration != run.iteration)) {
        out.push(format!("run {} of the job", run.iteration + 1));
    }
    if moves && a.rebalance.is_some() && a.rebalance != b.rebalance {
        out.push("to be spread anew".into());
    }
    out
}

/// What differs between two task specs, a few words each.
pub(super) fn task(b: &TaskSpec, a: &TaskSpec) -> Vec<String> {
    let mut out = match (&b.runtime, &a.runtime) {
        (Runtime::Container(old), Runtime::Container(new)) => container(old, new),
        (Runtime::Plugin(old), Runtime::Plugin(new)) => plugin(old, new),
        _ => vec![format!("{} -> {}", runtime(b), runtime(a))],
    };
    let parts = [
        ("resources", b.resources != a.resources),
        ("restart policy", b.restart != a.restart),
        ("placement", b.placement != a.placement),
        ("log driver", b.log_driver != a.log_driver),
        ("forced", b.force_update != a.force_update),
    ];
    out.extend(differing(&parts));
    if out.is_empty() && b.registry_auth() == a.registry_auth() && b != a {
        out.push("container settings".into());
    }
    out
}

fn container(old: &ContainerSpec, new: &ContainerSpec) -> Vec<String> {
    let parts = [
        ("command", (&old.command, &old.args, &old.dir, &old.user) != (&new.command, &new.args, &new.dir, &new.user)),
        ("environment", old.env != new.env),
        ("container labels", old.labels != new.labels),
        ("mounts", old.mounts != new.mounts),
        ("health check", old.healthcheck != new.healthcheck),
        ("secrets", old.secrets != new.secrets),
        ("configs", old.configs != new.configs),
        ("privileges", (&old.privileges, &old.host_access) != (&new.privileges, &new.host_access)),
    ];
    let image = (old.image != new.image).then(|| format!("image {} -> {}", old.image, new.image));
    image.into_iter().chain(differing(&parts)).collect()
}

fn plugin(old: &PluginSpec, new: &PluginSpec) -> Vec<String> {
    let renamed = [("name", &old.name, &new.name), ("plugin", &old.remote, &new.remote)];
    let renamed = renamed.into_iter().filter(|(_, b, a)| b != a).map(|(what, b, a)| format!("{what} {b} -> {a}"));
    let parts = [
        ("privileges", old.privileges != new.privileges),
        ("environment", old.env != new.env),
        (if new.disabled { "disabled" } else { "enabled" }, old.disabled != new.disabled),
    ];
    renamed.chain(differing(&parts)).collect()
}

fn differing(parts: &[(&'static str, bool)]) -> impl Iterator<Item = String> {
    parts.iter().filter(|(_, differs)| *differs).map(|(what, _)| (*what).to_owned())
}

// --- nodes ---

fn node(b: &Node, a: &Node) -> Vec<String> {
    let mut out = Vec::new();
    if b.spec.availability != a.spec.availability {
        out.push(format!(
            "availability {} -> {}",
            availability(b.spec.availability),
            availability(a.spec.availability)
        ));
    }
    if b.spec.role != a.spec.role {
        out.push(format!("role {} -> {}", role(b.spec.role), role(a.spec.role)));
    }
    if b.spec.name != a.spec.name {
        out.push(format!("name {:?} -> {:?}", b.spec.name, a.spec.name));
    }
    if b.status.state != a.status.state {
        out.push(format!("state {} -> {}", state(b.status.state), state(a.status.state)));
    }
    labels(&b.spec.labels, &a.spec.labels, &mut out);
    out
}

fn availability(a: Availability) -> &'static str {
    match a {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}

fn role(r: Role) -> &'static str {
    match r {
        Role::Worker => "worker",
        Role::Manager => "manager",
    }
}

fn state(s: NodeState) -> &'static str {
    match s {
        NodeState::Unknown => "unknown",
        NodeState::Down => "down",
        NodeState::Ready => "ready",
        NodeState::Disconnected => "disconnected",
    }
}

// --- the rest ---

fn cluster(b: &Cluster, a: &Cluster) -> Vec<String> {
    let mut out = Vec::new();
    let (old, new) = (&b.spec, &a.spec);
    if old.task_history_retention_limit != new.task_history_retention_limit {
        let (b, a) = (old.task_history_retention_limit, new.task_history_retention_limit);
        out.push(format!("task history limit {b} -> {a}"));
    }
    if old.heartbeat_period != new.heartbeat_period {
        out.push(format!("heartbeat period {:?} -> {:?}", old.heartbeat_period, new.heartbeat_period));
    }
    if old.node_cert_expiry != new.node_cert_expiry {
        out.push(format!("certificate validity {:?} -> {:?}", old.node_cert_expiry, new.node_cert_expiry));
    }
    if old.autolock != new.autolock {
        out.push(format!("autolock {} -> {}", old.autolock, new.autolock));
    }
    labels(&old.labels, &new.labels, &mut out);
    let others = [
        ("snapshot interval", old.snapshot_interval != new.snapshot_interval),
        ("Raft settings", old.raft != new.raft),
        ("default log driver", old.task_log_driver != new.task_log_driver),
        ("policy", old.policy != new.policy),
        ("worker join token", b.join_tokens.worker != a.join_tokens.worker),
        ("manager join token", b.join_tokens.manager != a.join_tokens.manager),
        ("unlock key", b.security.unlock_key != a.security.unlock_key),
        ("root certificate", b.security.root_rotation != a.security.root_rotation),
    ];
    out.extend(others.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what.to_owned()));
    out
}

fn of_data(b: &BTreeMap<String, String>, a: &BTreeMap<String, String>, old: u64, new: u64) -> Vec<String> {
    let mut out = Vec::new();
    if old != new {
        out.push(format!("data {old} -> {new}"));
    }
    labels(b, a, &mut out);
    out
}

fn labels(b: &BTreeMap<String, String>, a: &BTreeMap<String, String>, out: &mut Vec<String>) {
    for (key, value) in a {
        match b.get(key) {
            None => out.push(format!("label {key}={value} added")),
            Some(old) if old != value => out.push(format!("label {key} {old} -> {value}")),
            Some(_) => {}
        }
    }
    out.extend(b.keys().filter(|k| !a.contains_key(*k)).map(|k| format!("label {k} removed")));
}
