//! `service why` and `task why`: what keeps tasks from being where they should be.

use crate::client::{Client, decode, escape};
use crate::context::Context;
use crate::error::CliError;
use crate::format::template::Parsed;
use crate::format::{short_id, table};
use clap::{Args, Subcommand};
use docker_api::{RejectedNode, Why, WhyTask};
use std::time::Duration;

/// `service why`, `task why`.
#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// Format output: 'json' or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    /// Name or id
    #[arg(value_name = "NAME|ID")]
    name: String,
}

/// The verbs of `task`.
#[derive(Subcommand, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) enum TaskCommand {
    /// Explain why a task is not where it should be
    Why(WhyArgs),
}

/// Explains a service (`of` is `services`) or a task (`tasks`).
pub(crate) async fn run(ctx: &Context, of: &str, args: WhyArgs) -> Result<(), CliError> {
    let format = args.format.as_deref().unwrap_or_default();
    let template = if matches!(format, "" | "json") { None } else { Some(Parsed::new(format)?) };
    let path = path(of, &args.name);
    let raw = ctx.client.get_raw(&path, &[]).await?;
    let what = format!("GET {path}");
    match template {
        Some(template) => ctx.line(template.render(&decode(&what, &raw)?)?),
        None if format == "json" => ctx.line(crate::format::json::compact(&decode(&what, &raw)?)),
        None => ctx.out(&text(&decode(&what, &raw)?)),
    }
}

fn path(of: &str, name: &str) -> String {
    format!("/swarmlite/{of}/{}/why", escape(name))
}

/// With more nodes than this, they are grouped by what they say.
const ROWS_MAX: usize = 20;
/// So many nodes of a group are named.
const NAMED_MAX: usize = 3;
/// How long the progress display waits for its line.
const PATIENCE: Duration = Duration::from_secs(2);

/// The one line that says most about a service; nothing when there is none to be had, whatever the reason.
pub(crate) async fn line(client: &Client, service_id: &str) -> Option<String> {
    let why: Why = client.get_within(&path("services", service_id), &[], PATIENCE).await.ok()?;
    let task = || why.tasks.iter().map(|t| t.line.as_str()).find(|l| !l.is_empty());
    let update = || Some(why.update.as_str()).filter(|l| !l.is_empty());
    let line = why.lines.first().map(String::as_str).filter(|l| !l.is_empty()).or_else(task).or_else(update)?;
    Some(line.to_owned())
}

/// The answer, as people read it.
fn text(why: &Why) -> String {
    let mut out = format!("{} ({})\n", why.service.name, short_id(&why.service.id));
    if why.lines.is_empty() && why.update.is_empty() && why.tasks.is_empty() {
        out.push_str("Everything is as it should be.\n");
    }
    why.lines.iter().for_each(|line| out.push_str(&format!("{line}\n")));
    if !why.update.is_empty() {
        out.push_str(&format!("Update: {}\n", why.update));
    }
    why.tasks.iter().for_each(|task| out.push_str(&task_text(task)));
    out
}

fn task_text(task: &WhyTask) -> String {
    let node = if task.node_id.is_empty() { String::new() } else { format!(" on node {}", short_id(&task.node_id)) };
    let mut out =
        format!("\n{} ({}){node}: {}, should be {}\n", task.name, short_id(&task.id), task.state, task.desired_state);
    if !task.line.is_empty() {
        out.push_str(&format!("  {}\n", task.line));
    }
    if !task.rejected.is_empty() {
        let rows = rejections(&task.rejected)
            .into_iter()
            .map(|(nodes, filter, reason)| format!("  {nodes}\t{filter}\t{}\n", reason.replace(['\n', '\t'], " ")));
        let rows: String = ["  NODE\tREJECTED BY\tWHY\n".to_owned()].into_iter().chain(rows).collect();
        out.push_str(&table::align(&rows, table::MIN_WIDTH, table::PADDING));
    }
    out
}

/// Nodes, filter, and reason. In a large swarm, the nodes that say the same share a row.
fn rejections(rejected: &[RejectedNode]) -> Vec<(String, &str, &str)> {
    let host = |r: &'_ RejectedNode| {
        if r.hostname.is_empty() { short_id(&r.node_id).to_owned() } else { r.hostname.clone() }
    };
    let rows = rejected.iter().map(|r| (host(r), r.filter.as_str(), r.reason.as_str()));
    if rejected.len() <= ROWS_MAX {
        return rows.collect();
    }
    let mut groups: Vec<(Vec<String>, &str, &str)> = Vec::new();
    for (host, filter, reason) in rows {
        match groups.iter_mut().find(|(_, f, r)| (*f, *r) == (filter, reason)) {
            Some((hosts, ..)) => hosts.push(host),
            None => groups.push((vec![host], filter, reason)),
        }
    }
    let named = |hosts: &[String]| match hosts.len().checked_sub(NAMED_MAX) {
        None | Some(0) => hosts.join(", "),
        Some(more) => format!("{} and {more} more", hosts[..NAMED_MAX].join(", ")),
    };
    groups.iter().map(|(hosts, filter, reason)| (named(hosts), *filter, *reason)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_task_is_told_with_the_nodes_that_cannot_have_it() {
        let why: Why = serde_json::from_value(json!({
            "Service": {"ID": "s".repeat(25), "Name": "web"}, "Lines": ["1 of 3 tasks has no node"], "Update": "waits for web.2 to run",
            "Tasks": [
                {"ID": "t".repeat(25), "Name": "web.3", "Slot": 3, "NodeID": "", "DesiredState": "running", "State": "pending", "Line": "no suitable node",
                    "Rejected": [
                        {"NodeID": "n2", "Hostname": "node2", "Filter": "resources", "Reason": "512 MiB short of 1 GiB"},
                        {"NodeID": "n3", "Hostname": "", "Filter": "constraint", "Reason": "label disk=ssd missing"},
                    ]},
                {"ID": "u", "Name": "web.2", "Slot": 2, "NodeID": "n".repeat(25), "DesiredState": "running", "State": "failed", "Line": "restarts in 4s", "Rejected": []},
            ],
        }))
        .unwrap();
        let want = "\
web (ssssssssssss)
1 of 3 tasks has no node
Update: waits for web.2 to run

web.3 (tttttttttttt): pending, should be running
  no suitable node
  NODE    REJECTED BY   WHY
  node2   resources     512 MiB short of 1 GiB
  n3      constraint    label disk=ssd missing

web.2 (u) on node nnnnnnnnnnnn: failed, should be running
  restarts in 4s
";
        assert_eq!(text(&why), want);
        let fine = Why { service: docker_api::WhyService { id: "s".into(), name: "web".into() }, ..Why::default() };
        assert_eq!(text(&fine), "web (s)\nEverything is as it should be.\n");
    }

    #[test]
    fn many_nodes_that_say_the_same_share_a_row() {
        let node = |n: usize| RejectedNode {
            hostname: format!("node{n}"),
            filter: "resources".into(),
            reason: if n == 7 { "1 CPU short".into() } else { "2 CPUs short".into() },
            ..RejectedNode::default()
        };
        let few: Vec<_> = (0..20).map(node).collect();
        assert_eq!(rejections(&few).len(), 20);
        let many: Vec<_> = (0..1000).map(node).collect();
        let want = [("node0, node1, node2 and 996 more", "2 CPUs short"), ("node7", "1 CPU short")];
        assert_eq!(rejections(&many), want.map(|(nodes, why)| (nodes.to_owned(), "resources", why)));
    }
}
