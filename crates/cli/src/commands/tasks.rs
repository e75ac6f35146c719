//! Tasks as `service ps` and `node ps` list them.

use crate::client::{Query, escape};
use crate::context::Context;
use crate::error::CliError;
use crate::format::duration::ago;
use crate::format::view::{Row, View, row};
use crate::format::{capitalised, natural_cmp, short_id};
use crate::opts;
use clap::Args;
use docker_api::{Node, Service, Task};
use std::collections::BTreeMap;
use std::time::Duration;

/// The flags that `service ps` and `node ps` share.
#[derive(Args, Debug)]
pub(crate) struct PsFlags {
    /// Filter output based on conditions provided
    #[arg(short, long, value_parser = opts::filter, value_name = "filter")]
    pub(crate) filter: Vec<(String, String)>,
    /// Pretty-print tasks using a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Do not map IDs to Names
    #[arg(long)]
    pub(crate) no_resolve: bool,
    /// Do not truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only display task IDs
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

const VIEW: View = View {
    table: "{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}",
    quiet: "{{.ID}}",
    headers: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Node", "NODE"),
        ("DesiredState", "DESIRED STATE"),
        ("CurrentState", "CURRENT STATE"),
        ("Error", "ERROR"),
        ("Ports", "PORTS"),
    ],
};

/// The longest error in a table.
const ERROR_CHARS_MAX: usize = 30;

/// Names of the services and nodes that tasks mention.
#[derive(Debug, Default)]
struct Names {
    services: BTreeMap<String, String>,
    nodes: BTreeMap<String, String>,
}

/// Lists the tasks that match.
pub(crate) async fn list(ctx: &Context, flags: &PsFlags, query: Query<'_>) -> Result<(), CliError> {
    let tasks: Vec<Task> = ctx.client.get("/tasks", query).await?;
    let names = if flags.quiet || flags.no_resolve { Names::default() } else { resolve(ctx, &tasks).await };
    ctx.out(&shown(tasks, &names, flags, ctx.now())?)
}

/// Looks the names up; an object that is gone keeps its id.
async fn resolve(ctx: &Context, tasks: &[Task]) -> Names {
    let mut names = Names::default();
    for task in tasks {
        if !task.service_id.is_empty() && !names.services.contains_key(&task.service_id) {
            let service = ctx.client.get::<Service>(&format!("/services/{}", escape(&task.service_id)), &[]).await;
            let name =
                service.map(|s| s.spec.name).ok().filter(|n| !n.is_empty()).unwrap_or_else(|| task.service_id.clone());
            names.services.insert(task.service_id.clone(), name);
        }
        if !task.node_id.is_empty() && !names.nodes.contains_key(&task.node_id) {
            let node = ctx.client.get::<Node>(&format!("/nodes/{}", escape(&task.node_id)), &[]).await;
            let name = node.map(|n| if n.spec.name.is_empty() { n.description.hostname } else { n.spec.name });
            let name = name.ok().filter(|n| !n.is_empty()).unwrap_or_else(|| task.node_id.clone());
            names.nodes.insert(task.node_id.clone(), name);
        }
    }
    names
}

fn shown(tasks: Vec<Task>, names: &Names, flags: &PsFlags, now: Duration) -> Result<String, CliError> {
    let mut named: Vec<(String, Task)> = tasks.into_iter().map(|t| (task_name(&t, names), t)).collect();
    // Of one slot, the newest first.
    named.sort_by(|(a, x), (b, y)| {
        natural_cmp(a, b).then_with(|| y.created_at.cmp(&x.created_at)).then_with(|| x.id.cmp(&y.id))
    });
    let format = flags.format.as_deref();
    let is_table = format.is_none_or(|f| f.starts_with("table"));
    let mut previous = None;
    let rows: Vec<Row> = named
        .iter()
        .map(|(name, task)| {
            let again = previous.replace(name) == Some(name);
            let shown_name = if again && is_table { format!(" \\_ {name}") } else { name.clone() };
            task_row(task, shown_name, names, flags, now)
        })
        .collect();
    Ok(VIEW.render(&rows, format, flags.quiet)?)
}

fn task_row(task: &Task, name: String, names: &Names, flags: &PsFlags, now: Duration) -> Row {
    let full = flags.no_trunc || flags.quiet;
    let image = task.spec.container_spec.as_ref().map(|c| c.image.as_str()).unwrap_or_default();
    let error = match task.status.err.as_str() {
        "" => String::new(),
        err if !full && err.chars().count() > ERROR_CHARS_MAX => {
            format!("\"{}…\"", err.chars().take(ERROR_CHARS_MAX - 1).collect::<String>())
        }
        err => format!("\"{err}\""),
    };
    let ports: Vec<String> = task
        .status
        .port_status
        .ports
        .iter()
        .map(|p| format!("*:{}->{}/{}", p.published_port, p.target_port, p.protocol))
        .collect();
    row! {
        "ID": if full { task.id.as_str() } else { short_id(&task.id) },
        "Name": name,
        "Image": if full { image } else { without_digest(image) },
        "Node": names.nodes.get(&task.node_id).unwrap_or(&task.node_id).as_str(),
        "DesiredState": capitalised(&task.desired_state),
        "CurrentState": format!("{} {}", capitalised(&task.status.state), ago(task.status.timestamp, now).to_lowercase()),
        "Error": error,
        "Ports": ports.join(","),
    }
}

fn task_name(task: &Task, names: &Names) -> String {
    let service = names.services.get(&task.service_id).unwrap_or(&task.service_id);
    match (task.slot, service.as_str()) {
        (_, "") => task.id.clone(),
        (0, service) => format!("{service}.{}", task.node_id),
        (slot, service) => format!("{service}.{slot}"),
    }
}

/// `nginx:1@sha256:…` as `nginx:1`. A reference with a digest alone keeps it.
pub(crate) fn without_digest(image: &str) -> &str {
    match image.split_once('@') {
        Some((name, _)) if name.rsplit('/').next().is_some_and(|last| last.contains(':')) => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(id: &str, slot: u64, node: &str, states: (&str, &str), error: &str, minute: u64) -> Task {
        serde_json::from_value(json!({
            "ID": format!("{id:t<25}"), "Slot": slot, "ServiceID": "s", "NodeID": node, "DesiredState": states.1,
            "CreatedAt": format!("2026-01-01T00:{minute:02}:00Z"),
            "Spec": {"ContainerSpec": {"Image": "nginx:1@sha256:aa"}},
            "Status": {"Timestamp": "2026-01-01T00:57:00Z", "State": states.0, "Err": error,
                "PortStatus": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}]}}
        }))
        .unwrap()
    }

    fn listed(flags: PsFlags) -> String {
        let names = Names {
            services: [("s".to_owned(), "web".to_owned())].into(),
            nodes: [("n1".to_owned(), "host1".to_owned())].into(),
        };
        let tasks = vec![
            task("d", 10, "", ("pending", "running"), "no suitable node (insufficient resources on 3 nodes)", 1),
            task("b", 2, "n1", ("failed", "shutdown"), "task: non-zero exit (1)", 1),
            task("a", 2, "n1", ("running", "running"), "", 2),
        ];
        // An hour past midnight of New Year's day 2026.
        shown(tasks, &names, &flags, Duration::from_secs(1_767_229_200)).unwrap()
    }

    fn flags() -> PsFlags {
        PsFlags { filter: vec![], format: None, no_resolve: false, no_trunc: false, quiet: false }
    }

    #[test]
    fn history_is_indented_under_the_task_that_runs() {
        let want = "\
ID             NAME        IMAGE     NODE      DESIRED STATE   CURRENT STATE           ERROR                              PORTS
attttttttttt   web.2       nginx:1   host1     Running         Running 3 minutes ago                                      *:8080->80/tcp
bttttttttttt    \\_ web.2   nginx:1   host1     Shutdown        Failed 3 minutes ago    \"task: non-zero exit (1)\"          *:8080->80/tcp
dttttttttttt   web.10      nginx:1             Running         Pending 3 minutes ago   \"no suitable node (insufficien…\"   *:8080->80/tcp
";
        assert_eq!(listed(flags()), want);
    }

    #[test]
    fn nothing_is_cut_when_asked_so() {
        let full = listed(PsFlags { no_trunc: true, ..flags() });
        assert!(full.contains("attttttttttttttttttttttttt ") || full.contains(&format!("{:t<25} ", "a")), "{full}");
        assert!(
            full.contains("nginx:1@sha256:aa")
                && full.contains("\"no suitable node (insufficient resources on 3 nodes)\""),
            "{full}"
        );
        assert_eq!(listed(PsFlags { quiet: true, ..flags() }).lines().next(), Some(format!("{:t<25}", "a").as_str()));
        assert_eq!(listed(PsFlags { format: Some("{{.Name}}".into()), ..flags() }), "web.2\nweb.2\nweb.10\n");
    }
}
