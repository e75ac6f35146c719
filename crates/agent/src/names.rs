//! What containers of tasks are called and labelled, exactly as Docker Swarm does it (moby
//! daemon/cluster/executor/container/container.go), with one label more.

use engine::{ContainerState, NewContainer};
use model::{ContainerSpec, GenericResource, NodeId, Task, TaskId};
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

/// The container of a task on this node; `spec` is the task's with its templates filled in.
pub(crate) fn new_container(task: &Task, node: &NodeId, mut spec: ContainerSpec) -> NewContainer {
    spec.env.extend(GenericResource::environment(&task.generic));
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
    let default_log_driver = || task.inherited.as_ref().and_then(|i| i.log_driver.clone());
    let resources = task.spec.resources.clone().unwrap_or_default();
    NewContainer {
        name,
        spec,
        labels,
        limits: resources.limits.unwrap_or_default(),
        memory_reservation_bytes: resources.reservations.unwrap_or_default().memory_bytes,
        swap_bytes: resources.swap_bytes,
        memory_swappiness: resources.memory_swappiness,
        log_driver: task.spec.log_driver.clone().or_else(default_log_driver),
        ports: task.host_ports.clone(),
        files: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::a_task;
    use model::{Inherited, LogDriver, ResourceRequirements, TaskSpec};
    use std::sync::Arc;

    fn driver(name: &str) -> Option<LogDriver> {
        Some(LogDriver { name: name.to_owned(), ..LogDriver::default() })
    }

    fn container(task: &Task) -> NewContainer {
        new_container(task, task.node_id.as_ref().unwrap(), task.spec.container().unwrap().clone())
    }

    #[test]
    fn a_container_is_called_after_its_slot_or_its_node() {
        let mut task = a_task(7);
        let (node, id) = (task.node_id.clone().unwrap(), task.id.clone());
        assert_eq!(container(&task).name, format!("web.7.{id}"));
        // A global task, and the first task of a replicated job.
        task.slot = 0;
        let made = container(&task);
        assert_eq!(made.name, format!("web.{node}.{id}"));
        assert_eq!(made.labels["com.docker.swarm.task.name"], made.name);
        task.for_node = task.node_id.clone();
        assert_eq!(container(&task).name, made.name);
    }

    #[test]
    fn a_container_is_told_of_what_its_task_was_given() {
        let mut task = a_task(7);
        let resources = ResourceRequirements { swap_bytes: Some(5), memory_swappiness: Some(6), ..Default::default() };
        let mut spec = TaskSpec { resources: Some(resources), ..TaskSpec::default() };
        spec.container_mut().unwrap().env = vec!["A=1".into()];
        task.spec = Arc::new(spec);
        task.generic = vec![GenericResource::Named { kind: "gpu".into(), value: "u1".into() }];
        let made = container(&task);
        assert_eq!(made.spec.env, ["A=1", "DOCKER_RESOURCE_GPU=u1"]);
        assert_eq!((made.swap_bytes, made.memory_swappiness), (Some(5), Some(6)));
    }

    #[test]
    fn the_cluster_says_where_output_goes_when_the_service_does_not() {
        for (own, default, used) in [
            (None, None, None),
            (None, driver("syslog"), driver("syslog")),
            (driver("json-file"), driver("syslog"), driver("json-file")),
        ] {
            let mut task = a_task(7);
            task.spec = Arc::new(TaskSpec { log_driver: own, ..TaskSpec::default() });
            task.inherited = Some(Arc::new(Inherited { log_driver: default, ..Inherited::default() }));
            assert_eq!(container(&task).log_driver, used);
        }
    }
}
