//! Tasks, from the model to Docker's JSON.

use super::placement::given;
use super::service_out::task_spec;
use super::{protocol, time, version};
use docker_api::{ContainerStatus, PortConfig, PortStatus, Task, TaskSpec, TaskStatus};

/// A task.
pub(crate) fn task(t: &model::Task) -> Task {
    Task {
        id: t.id.to_string(),
        version: version(t.meta.version),
        created_at: time(t.meta.created_at),
        updated_at: time(t.meta.updated_at),
        name: t.name(),
        // What kind of runtime it has, Docker says of services only.
        spec: TaskSpec { runtime: String::new(), ..task_spec(&t.spec) },
        service_id: t.service_id.to_string(),
        slot: t.slot,
        // Docker gives a global task its node when it makes it.
        node_id: t.node_id.as_ref().or(t.for_node.as_ref()).map(ToString::to_string).unwrap_or_default(),
        generic_resources: given(&t.generic),
        job_iteration: t.job_iteration.map(version),
        status: status(&t.status),
        desired_state: t.desired.as_str().to_owned(),
        ..Task::default()
    }
}

fn status(s: &model::TaskStatus) -> TaskStatus {
    let container = s.container.as_ref();
    let port = |p: &model::PortStatus| PortConfig {
        protocol: protocol(p.protocol),
        target_port: p.target_port.into(),
        published_port: p.published_port.into(),
        publish_mode: "host".into(),
        ..PortConfig::default()
    };
    TaskStatus {
        timestamp: time(s.at),
        state: s.state.as_str().to_owned(),
        message: s.message.clone(),
        err: s.err.clone(),
        container_status: container.map(|c| ContainerStatus {
            container_id: c.id.clone(),
            pid: c.pid,
            exit_code: c.exit_code.unwrap_or(0),
        }),
        port_status: PortStatus { ports: s.ports.iter().map(port).collect() },
    }
}
