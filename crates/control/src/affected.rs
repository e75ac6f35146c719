//! Which loops a change concerns.

use model::{Node, RebalancePolicy, ServiceId, Task, TaskState};
use std::collections::BTreeSet;
use store::{Delta, Object, Snapshot};

/// What a control loop is run for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A service, or the tasks of one that is gone.
    Service(model::ServiceId),
    /// The tasks on a node, which may be gone.
    Node(model::NodeId),
    /// The tasks that have found no node.
    Unplaced,
    /// The services with a task for each node.
    Global,
    /// The services that the cluster's policy spreads anew when a node comes to take tasks.
    Joined,
    /// The services that use a secret or config, which may be gone.
    Granted(model::Dependency),
    /// Everything: at the start, and when changes were missed.
    All,
}

/// The keys whose outcome the change may affect.
pub fn affected(delta: &Delta) -> BTreeSet<Key> {
    match (&delta.before, &delta.after) {
        (Some(Object::Task(b)), Some(Object::Task(a))) => task_changed(b, a),
        (Some(Object::Task(t)), _) | (_, Some(Object::Task(t))) => {
            let freed = delta.after.is_none() && holds_resources(t);
            service_and(t, freed)
        }
        (Some(Object::Node(b)), Some(Object::Node(a))) => node_changed(b, a),
        (Some(Object::Node(n)), _) | (_, Some(Object::Node(n))) => {
            [Key::Node(n.id.clone()), Key::Unplaced, Key::Global, Key::Joined].into()
        }
        (_, Some(Object::Service(s))) | (Some(Object::Service(s)), None) => [Key::Service(s.id.clone())].into(),
        (_, Some(Object::Secret(s))) | (Some(Object::Secret(s)), None) => {
            [Key::Granted(model::Dependency::Secret(s.id.clone()))].into()
        }
        (_, Some(Object::Config(c))) | (Some(Object::Config(c)), None) => {
            [Key::Granted(model::Dependency::Config(c.id.clone()))].into()
        }
        // Data comes with its secret or config, and goes when it concerns nobody.
        (_, Some(Object::Payload(_))) | (Some(Object::Payload(_)), None) => BTreeSet::new(),
        (Some(Object::Cluster(b)), Some(Object::Cluster(a)))
            if b.spec.task_history_retention_limit == a.spec.task_history_retention_limit =>
        {
            if b.spec.policy.rebalance == a.spec.policy.rebalance { BTreeSet::new() } else { [Key::Joined].into() }
        }
        _ => [Key::All].into(),
    }
}

/// The services that the keys stand for in this snapshot.
pub fn expand<'a>(snapshot: &Snapshot, keys: impl IntoIterator<Item = &'a Key>) -> BTreeSet<ServiceId> {
    let mut services = BTreeSet::new();
    for key in keys {
        match key {
            Key::Service(id) => drop(services.insert(id.clone())),
            Key::Node(id) => services.extend(snapshot.tasks_on_node(id).map(|t| t.service_id.clone())),
            Key::Unplaced => services.extend(snapshot.unplaced_tasks().map(|t| t.service_id.clone())),
            Key::Global => services.extend(snapshot.global_services().cloned()),
            Key::Joined if snapshot.cluster().is_some_and(|c| c.spec.policy.rebalance == RebalancePolicy::OnJoin) => {
                services.extend(snapshot.services().filter(|s| s.spec.replicas().is_some()).map(|s| s.id.clone()));
            }
            Key::Joined => {}
            Key::Granted(of) => services.extend(snapshot.services_naming(&of.into()).map(|s| s.id.clone())),
            Key::All => {
                services.extend(snapshot.services().map(|s| s.id.clone()));
                services.extend(snapshot.services_with_tasks().cloned());
            }
        }
    }
    services
}

fn holds_resources(task: &Task) -> bool {
    task.node_id.is_some() && !task.status.state.is_terminal()
}

fn service_and(task: &Task, freed: bool) -> BTreeSet<Key> {
    let mut keys = BTreeSet::from([Key::Service(task.service_id.clone())]);
    if freed {
        keys.insert(Key::Unplaced);
    }
    keys
}

fn task_changed(before: &Task, after: &Task) -> BTreeSet<Key> {
    let (b, a) = (before.status.state, after.status.state);
    // The steps between are the agent's own business.
    let telling = a != b && (a.is_terminal() || a == TaskState::Running);
    if telling || before.desired != after.desired || before.node_id != after.node_id {
        service_and(after, holds_resources(before) && !holds_resources(after))
    } else {
        BTreeSet::new()
    }
}

fn node_changed(before: &Node, after: &Node) -> BTreeSet<Key> {
    if decisive(before) == decisive(after) {
        return BTreeSet::new();
    }
    let mut keys = BTreeSet::from([Key::Node(after.id.clone()), Key::Unplaced, Key::Global]);
    if before.status.takes_tasks_since != after.status.takes_tasks_since {
        keys.insert(Key::Joined);
    }
    keys
}

/// All of a node that a filter or a constraint may ask for. What else changes (its certificate, its part in the Raft group)
/// moves no task.
fn decisive(node: &Node) -> impl PartialEq + '_ {
    let facts = node.description.as_ref().map(|d| {
        let (engine, platform) = (&d.engine, &d.platform);
        (&d.hostname, platform, d.resources, &d.generic, &engine.labels, &engine.plugins)
    });
    let spec = &node.spec;
    (node.status.state, &node.status.addr, spec.availability, spec.role, &spec.labels, facts)
}
