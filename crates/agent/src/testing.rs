//! Tasks for the tests of this crate.

use model::{Meta, PluginSpec, Task, TaskId, TaskSpec, TaskState, TaskStatus};
use std::sync::Arc;

pub(crate) fn task_id(n: u8) -> TaskId {
    task_id_of(u64::from(n))
}

pub(crate) fn task_id_of(n: u64) -> TaskId {
    format!("{n:025}").parse().unwrap()
}

/// A task of the service `web` that is this plugin.
pub(crate) fn a_plugin_task(n: u8, name: &str, remote: &str) -> Task {
    let plugin = PluginSpec { name: name.into(), remote: remote.into(), ..PluginSpec::default() };
    Task { spec: Arc::new(TaskSpec { runtime: plugin.into(), ..TaskSpec::default() }), ..a_task(n) }
}

/// A task of the service `web` that is assigned and should run.
pub(crate) fn a_task(n: u8) -> Task {
    Task {
        id: task_id(n),
        meta: Meta::default(),
        service_id: format!("s{n:024}").parse().unwrap(),
        service_name: "web".parse().unwrap(),
        slot: u64::from(n),
        spec: Arc::new(TaskSpec::default()),
        spec_version: 1,
        host_ports: Vec::new(),
        node_id: Some(format!("n{:024}", 1).parse().unwrap()),
        desired: TaskState::Running,
        run_after: None,
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
        for_node: None,
        job_iteration: None,
        failures: 0,
        inherited: None,
        generic: Vec::new(),
    }
}
