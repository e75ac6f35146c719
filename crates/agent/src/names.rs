//! What containers of tasks are called and labelled, exactly as Docker Swarm does it (moby
//! daemon/cluster/executor/container/container.go), with one label more.

use engine::{ContainerState, NewContainer};
use model::{NodeId, Task, TaskId};
use std::collections::BTreeMap;

/// On every container of a task; empty value.
pub const TASK_LABEL: &str = "com.docker.swarm.task";
/// The node that the container belongs to. Ours: several nodes may share one engine, and a container without this node's id
/// is never touched.
pub const NODE_LABEL: &str = "com.swarmlite.node";
/// The task's id.
pub(crate) const TASK_ID_LABEL: &str = "com.docker.swarm.task.id";

/// The filter for the containers of one node.
pub(crate) fn own_label(node: &NodeId) -> String {
    format!("{NODE_LABEL}={node}")
}

/// The task that a container says it belongs to, when it is one of this node's.
pub(crate) fn task_of(container: &ContainerState, node: &NodeId) -> Option<TaskId> {
    let label = |name: &str| container.labels.get(name).map(String::as_str);
    (label(NODE_LABEL)? == node.as_str() && label(TASK_LABEL).is_some()).then_some(())?;
    label(TASK_ID_LABEL)?.parse().ok()
}

/// The container of a task on this node.
pub fn new_container(task: &Task, node: &NodeId) -> NewContainer {
    let name = task.name();
    let labels: BTreeMap<String, String> = [
        (TASK_LABEL, String::new()),
        (TASK_ID_LABEL, task.id.to_string()),
        ("com.docker.swarm.task.name", name.clone()),
        ("com.docker.swarm.node.id", node.to_string()),
        ("com.docker.swarm.service.id", task.service_id.to_string()),
        ("com.docker.swarm.service.name", task.service_name.to_string()),
        (NODE_LABEL, node.to_string()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect();
    let resources = task.spec.resources.clone().unwrap_or_default();
    NewContainer {
        name,
        spec: task.spec.container.clone(),
        labels,
        limits: resources.limits.unwrap_or_default(),
        memory_reservation_bytes: resources.reservations.unwrap_or_default().memory_bytes,
        log_driver: task.spec.log_driver.clone(),
        ports: task.host_ports.clone(),
        files: Vec::new(),
    }
}
