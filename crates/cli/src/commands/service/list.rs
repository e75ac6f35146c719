//! `service ls` and `service ps`.

use crate::commands::LsArgs;
use crate::commands::tasks::{self, PsFlags, without_digest};
use crate::context::Context;
use crate::error::CliError;
use crate::format::view::{Row, View, row};
use crate::format::{natural_cmp, short_id};
use crate::opts;
use clap::Args;
use docker_api::{PortConfig, Service, Task};

/// `service ps`.
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    flags: PsFlags,
    /// Services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

const VIEW: View = View {
    table: "{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}",
    quiet: "{{.ID}}",
    headers: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Mode", "MODE"),
        ("Replicas", "REPLICAS"),
        ("Image", "IMAGE"),
        ("Ports", "PORTS"),
    ],
};

/// Lists services.
pub(crate) async fn ls(ctx: &Context, args: LsArgs) -> Result<(), CliError> {
    let mut query = opts::filters_query(&args.filter);
    query.push(("status", "true".to_owned()));
    let mut services: Vec<Service> = ctx.client.get("/services", &query).await?;
    services.sort_by(|a, b| natural_cmp(&a.spec.name, &b.spec.name));
    let rows: Vec<Row> = services.iter().map(service_row).collect();
    ctx.out(&VIEW.render(&rows, args.format.as_deref(), args.quiet)?)
}

/// Lists the tasks of services. Those that are there are shown even when another is not.
pub(crate) async fn ps(ctx: &Context, args: PsArgs) -> Result<(), CliError> {
    let (mut wanted, mut missing) = (Vec::new(), Vec::new());
    for name in &args.services {
        match find(ctx, name).await? {
            Some(service) => wanted.push(("service".to_owned(), service.id)),
            None => missing.push(format!("no such service: {name}")),
        }
    }
    if !wanted.is_empty() {
        wanted.extend(args.flags.filter.iter().cloned());
        tasks::list(ctx, &args.flags, &opts::filters_query(&wanted)).await?;
    }
    if missing.is_empty() { Ok(()) } else { Err(CliError::text(missing.join("\n"))) }
}

/// The service with this id, name, or (only one) beginning of an id.
async fn find(ctx: &Context, name: &str) -> Result<Option<Service>, CliError> {
    match ctx.client.get(&format!("/services/{}", crate::client::escape(name)), &[]).await {
        Ok(service) => Ok(Some(service)),
        Err(crate::client::ClientError::Daemon { status: 404, .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn service_row(service: &Service) -> Row {
    let (mode, replicas) = mode_and_replicas(service);
    let image =
        service.spec.task_template.container_spec.as_ref().map(|c| without_digest(&c.image)).unwrap_or_default();
    row! {
        "ID": short_id(&service.id),
        "Name": service.spec.name.as_str(),
        "Mode": mode,
        "Replicas": replicas,
        "Image": image,
        "Ports": ports(&service.endpoint.ports),
    }
}

/// The mode, and how many tasks run and shall run. Of a job, how many of its tasks are done stands in the place of the most
/// for a node: there is no room for both.
fn mode_and_replicas(service: &Service) -> (&'static str, String) {
    let mode = &service.spec.mode;
    let status = service.service_status.clone().unwrap_or_default();
    let count = format!("{}/{}", status.running_tasks, status.desired_tasks);
    let done = |of: u64| format!("{count} ({}/{of} completed)", status.completed_tasks);
    match (&mode.global, &mode.replicated_job, &mode.global_job) {
        (Some(_), _, _) => ("global", count),
        (_, Some(job), _) => ("replicated job", done(job.total_completions.unwrap_or(1))),
        // What is desired of a global job is what is not completed yet.
        (_, _, Some(_)) => ("global job", done(status.desired_tasks + status.completed_tasks)),
        _ => match service.spec.task_template.placement.as_ref().map_or(0, |p| p.max_replicas) {
            0 => ("replicated", count),
            per_node => ("replicated", format!("{count} (max {per_node} per node)")),
        },
    }
}

/// Published ports of the routing mesh; neighbours in one go: `*:8000-8002->80-82/tcp`.
fn ports(ports: &[PortConfig]) -> String {
    let mut mesh: Vec<&PortConfig> = ports.iter().filter(|p| p.publish_mode == "ingress").collect();
    mesh.sort_by_key(|p| (p.protocol.clone(), p.published_port, p.target_port));
    let mut runs: Vec<(&str, u32, u32, u32)> = Vec::new();
    for port in mesh {
        match runs.last_mut() {
            Some((protocol, published, target, length))
                if *protocol == port.protocol
                    && *published + *length == port.published_port
                    && *target + *length == port.target_port =>
            {
                *length += 1;
            }
            _ => runs.push((&port.protocol, port.published_port, port.target_port, 1)),
        }
    }
    let range = |first: u32, length: u32| {
        if length == 1 { first.to_string() } else { format!("{first}-{}", first + length - 1) }
    };
    let shown = runs.iter().map(|(protocol, published, target, length)| {
        format!("*:{}->{}/{protocol}", range(*published, *length), range(*target, *length))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// True when the API knows the task: for what takes a service or a task.
pub(crate) async fn find_task(ctx: &Context, id: &str) -> Result<Option<Task>, CliError> {
    match ctx.client.get(&format!("/tasks/{}", crate::client::escape(id)), &[]).await {
        Ok(task) => Ok(Some(task)),
        Err(crate::client::ClientError::Daemon { status: 404, .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_is_a_line_as_in_docker() {
        let port = |published: u32, target: u32, mode: &str| json!({"Protocol": "tcp", "TargetPort": target, "PublishedPort": published, "PublishMode": mode});
        let service: Service = serde_json::from_value(json!({
            "ID": "s".repeat(25), "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z",
            "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 3}},
                "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1@sha256:aa"}, "Placement": {"MaxReplicas": 2}}},
            "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3},
            "Endpoint": {"Ports": [port(8080, 80, "host"), port(8001, 81, "ingress"), port(8000, 80, "ingress"), port(9000, 9000, "ingress")]},
        }))
        .unwrap();
        let want = "\
ID             NAME      MODE         REPLICAS               IMAGE     PORTS
ssssssssssss   web       replicated   2/3 (max 2 per node)   nginx:1   *:8000-8001->80-81/tcp, *:9000->9000/tcp
";
        assert_eq!(VIEW.render(&[service_row(&service)], None, false).unwrap(), want);
    }

    #[test]
    fn modes_and_counts_are_dockers() {
        for (mode, status, want) in [
            (json!({"Global": {}}), (1, 3, 0), ("global", "1/3")),
            (
                json!({"ReplicatedJob": {"MaxConcurrent": 5, "TotalCompletions": 10}}),
                (0, 1, 2),
                ("replicated job", "0/1 (2/10 completed)"),
            ),
            (json!({"GlobalJob": {}}), (1, 2, 3), ("global job", "1/2 (3/5 completed)")),
            (json!({"Replicated": {"Replicas": 3}}), (1, 3, 0), ("replicated", "1/3 (max 2 per node)")),
        ] {
            let service: Service = serde_json::from_value(json!({
                "ID": "s", "Spec": {"Mode": mode, "TaskTemplate": {"Placement": {"MaxReplicas": 2}}},
                "ServiceStatus": {"RunningTasks": status.0, "DesiredTasks": status.1, "CompletedTasks": status.2},
            }))
            .unwrap();
            assert_eq!(mode_and_replicas(&service), (want.0, want.1.to_owned()), "{mode}");
        }
    }
}
