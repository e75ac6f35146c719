//! `swarmlite node`.

use super::LsArgs;
use super::inspect::{self, InspectFlags};
use super::plan::{self, PlanFlag};
use super::rebalance;
use super::swarm::Info;
use super::tasks::{self, PsFlags};
use crate::client::{decode, escape};
use crate::context::{Context, each};
use crate::error::CliError;
use crate::format::duration::pretty as pretty_time;
use crate::format::view::{Row, View, row};
use crate::format::{capitalised, natural_cmp, size};
use crate::opts;
use clap::{Args, Subcommand};
use docker_api::{GenericResource, Node, NodeSpec};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// The verbs of `node`.
#[derive(Subcommand, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) enum NodeCommand {
    /// Demote one or more nodes from manager in the swarm
    Demote(NamesArgs),
    /// Display detailed information on one or more nodes
    Inspect(InspectArgs),
    /// List nodes in the swarm
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Promote one or more nodes to manager in the swarm
    Promote(NamesArgs),
    /// List tasks running on one or more nodes, defaults to current node
    Ps(PsArgs),
    /// Move tasks to the nodes that have fewer, one of each service at a time
    Rebalance(rebalance::RebalanceArgs),
    /// Remove one or more nodes from the swarm
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Update a node
    Update(UpdateArgs),
}

/// `node promote`, `node demote`.
#[derive(Args, Debug)]
pub(crate) struct NamesArgs {
    #[command(flatten)]
    plan: PlanFlag,
    /// Nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// `node inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    flags: InspectFlags,
    /// Nodes; `self` for this one
    #[arg(required = true, value_name = "self|NODE")]
    nodes: Vec<String>,
}

/// `node ps`.
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    flags: PsFlags,
    /// Nodes; `self` for this one
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
}

/// `node rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Force remove a node from the swarm
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    plan: PlanFlag,
    /// Nodes
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// `node update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// Availability of the node ("active", "pause", "drain")
    #[arg(long, value_name = "string")]
    availability: Option<String>,
    /// Add or update a node label ("key=value")
    #[arg(long, value_parser = opts::label, value_name = "list")]
    label_add: Vec<(String, String)>,
    /// Remove a node label if exists
    #[arg(long, value_name = "list")]
    label_rm: Vec<String>,
    /// Role of the node ("worker", "manager")
    #[arg(long, value_name = "string")]
    role: Option<String>,
    #[command(flatten)]
    plan: PlanFlag,
    /// Node
    node: String,
}

const VIEW: View = View {
    table: "{{.ID}} {{if .Self}}*{{else}} {{ end }}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}",
    quiet: "{{.ID}}",
    headers: &[
        ("ID", "ID"),
        ("Self", ""),
        ("Hostname", "HOSTNAME"),
        ("Status", "STATUS"),
        ("Availability", "AVAILABILITY"),
        ("ManagerStatus", "MANAGER STATUS"),
        ("EngineVersion", "ENGINE VERSION"),
        ("TLSStatus", "TLS STATUS"),
    ],
};

/// Runs a verb.
pub(crate) async fn run(ctx: &Context, command: NodeCommand) -> Result<(), CliError> {
    match command {
        NodeCommand::Ls(args) => ls(ctx, &args).await,
        NodeCommand::Inspect(args) => {
            let mut paths = Vec::new();
            for name in &args.nodes {
                paths.push((name.clone(), format!("/nodes/{}", escape(&resolve(ctx, name).await?))));
            }
            inspect::run(ctx, "node", &paths, &args.flags, pretty).await
        }
        NodeCommand::Promote(args) => change_role(ctx, &args, "manager").await,
        NodeCommand::Demote(args) => change_role(ctx, &args, "worker").await,
        NodeCommand::Update(args) => update(ctx, &args).await,
        NodeCommand::Ps(args) => ps(ctx, args).await,
        NodeCommand::Rebalance(args) => rebalance::run(ctx, args).await,
        NodeCommand::Rm(args) => {
            let query = if args.force { vec![("force", "1".to_owned())] } else { vec![] };
            each!(ctx, &args.nodes, async |name: &String| {
                let path = format!("/nodes/{}", escape(name));
                if args.plan.plan {
                    return plan::delete(ctx, &path, &query).await;
                }
                ctx.client.delete(&path, &query).await?;
                ctx.line(name)
            })
        }
    }
}

/// `self` is the node that the daemon is.
async fn resolve(ctx: &Context, name: &str) -> Result<String, CliError> {
    if name != "self" {
        return Ok(name.to_owned());
    }
    let info: Info = ctx.client.get("/info", &[]).await?;
    if info.swarm.node_id.is_empty() {
        // Whatever is asked of the swarm gives the daemon's reason why there is none here.
        let _: Vec<Node> = ctx.client.get("/nodes", &[]).await?;
        return Err(CliError::text("this node is not part of a swarm"));
    }
    Ok(info.swarm.node_id)
}

async fn ls(ctx: &Context, args: &LsArgs) -> Result<(), CliError> {
    let mut nodes: Vec<Node> = ctx.client.get("/nodes", &opts::filters_query(&args.filter)).await?;
    let info: Info = if args.quiet { Info::default() } else { ctx.client.get("/info", &[]).await? };
    nodes.sort_by(|a, b| natural_cmp(&a.description.hostname, &b.description.hostname).then_with(|| a.id.cmp(&b.id)));
    let root = info.swarm.cluster.as_ref().map(|c| &c.tls_info);
    let rows: Vec<Row> = nodes.iter().map(|n| node_row(n, &info.swarm.node_id, root)).collect();
    ctx.out(&VIEW.render(&rows, args.format.as_deref(), args.quiet)?)?;
    // Beside the table, not in it: whoever reads the output by program reads standard output.
    if !args.quiet && args.format.is_none() && args.filter.is_empty() {
        ctx.note(format!("\n{}", spare(&nodes)));
    }
    Ok(())
}

fn node_row(node: &Node, own_id: &str, root: Option<&docker_api::TlsInfo>) -> Row {
    let manager = node.manager_status.as_ref();
    let manager = manager.map(|m| if m.leader { "Leader".to_owned() } else { capitalised(&m.reachability) });
    let tls = match root {
        Some(root) if root.trust_root.is_empty() || node.description.tls_info.trust_root.is_empty() => "Unknown",
        Some(root) if *root == node.description.tls_info => "Ready",
        Some(_) => "Needs Rotation",
        None => "Unknown",
    };
    row! {
        "ID": node.id.as_str(),
        "Self": node.id == own_id,
        "Hostname": node.description.hostname.as_str(),
        "Status": capitalised(&node.status.state),
        "Availability": capitalised(&node.spec.availability),
        "ManagerStatus": manager.unwrap_or_default(),
        "EngineVersion": node.description.engine.engine_version.as_str(),
        "TLSStatus": tls,
    }
}

/// How many more managers may fail.
pub(crate) fn spare(nodes: &[Node]) -> String {
    let managers: Vec<_> = nodes.iter().filter_map(|n| n.manager_status.as_ref()).collect();
    let reachable = managers.iter().filter(|m| m.reachability == "reachable").count();
    spare_of(managers.len(), reachable)
}

fn spare_of(managers: usize, reachable: usize) -> String {
    let quorum = managers / 2 + 1;
    let count = format!("{managers} manager{}, {reachable} reachable", if managers == 1 { "" } else { "s" });
    match reachable.checked_sub(quorum) {
        None => {
            format!("{count}: fewer than the {quorum} that the cluster needs to decide anything. Bring managers back.")
        }
        Some(spare) => format!("{count}: the cluster can lose {}.", lose(spare as u64)),
    }
}

/// `no more managers`, `1 more manager`, `2 more managers`.
pub(crate) fn lose(spare: u64) -> String {
    match spare {
        0 => "no more managers".to_owned(),
        1 => "1 more manager".to_owned(),
        n => format!("{n} more managers"),
    }
}

async fn ps(ctx: &Context, args: PsArgs) -> Result<(), CliError> {
    let names = if args.nodes.is_empty() { vec!["self".to_owned()] } else { args.nodes };
    let (mut wanted, mut missing) = (args.flags.filter.clone(), Vec::new());
    for name in &names {
        match ctx.client.get::<Node>(&format!("/nodes/{}", escape(&resolve(ctx, name).await?)), &[]).await {
            Ok(node) => wanted.push(("node".to_owned(), node.id)),
            Err(e) => missing.push(e.to_string()),
        }
    }
    if missing.len() < names.len() {
        tasks::list(ctx, &args.flags, &opts::filters_query(&wanted)).await?;
    }
    if missing.is_empty() { Ok(()) } else { Err(CliError::text(missing.join("\n"))) }
}

/// Reads a node, changes its spec, writes it back, or shows what that would do. `change` says whether there is anything to
/// write.
async fn change(
    ctx: &Context,
    name: &str,
    plan: PlanFlag,
    change: impl FnOnce(&mut NodeSpec) -> Result<bool, CliError>,
) -> Result<bool, CliError> {
    let mut node: Node = ctx.client.get(&format!("/nodes/{}", escape(&resolve(ctx, name).await?)), &[]).await?;
    if !change(&mut node.spec)? {
        return Ok(false);
    }
    let (path, version) = (format!("/nodes/{}/update", node.id), [("version", node.version.index.to_string())]);
    if plan.plan {
        plan::post(ctx, &path, &version, &node.spec, &[]).await?;
    } else {
        ctx.client.post(&path, &version, &node.spec).await?;
    }
    Ok(true)
}

async fn change_role(ctx: &Context, args: &NamesArgs, role: &str) -> Result<(), CliError> {
    let mut planned = Ok(());
    for name in &args.nodes {
        let set = |spec: &mut NodeSpec| {
            let already = spec.role == role;
            spec.role = role.to_owned();
            Ok(!already)
        };
        let changed = match change(ctx, name, args.plan, set).await {
            Err(changes @ CliError::Silent(_)) if args.plan.plan => {
                planned = Err(changes);
                continue;
            }
            changed => changed?,
        };
        if changed && args.plan.plan {
            continue;
        }
        ctx.line(match (changed, role) {
            (false, role) => format!("Node {name} is already a {role}."),
            (true, "manager") => format!("Node {name} promoted to a manager in the swarm."),
            (true, _) => format!("Manager {name} demoted in the swarm."),
        })?;
    }
    planned
}

async fn update(ctx: &Context, args: &UpdateArgs) -> Result<(), CliError> {
    change(ctx, &args.node, args.plan, |spec| {
        if let Some(role) = &args.role {
            let role = role.to_ascii_lowercase();
            if role != "worker" && role != "manager" {
                return Err(CliError::text(format!("invalid role {role:?}, only worker and manager are supported")));
            }
            spec.role = role;
        }
        if let Some(availability) = &args.availability {
            spec.availability = opts::availability(availability).map_err(CliError::Text)?;
        }
        spec.labels.extend(args.label_add.iter().cloned());
        for key in &args.label_rm {
            if spec.labels.remove(key).is_none() {
                return Err(CliError::text(format!("key {key} doesn't exist in node's labels")));
            }
        }
        Ok(true)
    })
    .await?;
    if args.plan.plan { Ok(()) } else { ctx.line(&args.node) }
}

fn pretty(raw: &[u8]) -> Result<String, CliError> {
    let node: Node = decode("node inspect", raw)?;
    let mut out = String::new();
    write_node(&mut out, &node).map_err(|e| CliError::text(format!("cannot show the node: {e}")))?;
    Ok(out)
}

fn write_node(out: &mut String, node: &Node) -> fmt::Result {
    writeln!(out, "ID:\t\t\t{}", node.id)?;
    if !node.spec.name.is_empty() {
        writeln!(out, "Name:\t\t\t{}", node.spec.name)?;
    }
    labels(out, "Labels", &node.spec.labels)?;
    let d = &node.description;
    writeln!(
        out,
        "Hostname:              \t{}\nJoined at:             \t{}",
        d.hostname,
        pretty_time(node.created_at)
    )?;
    writeln!(out, "Status:\n State:\t\t\t{}", capitalised(&node.status.state))?;
    if !node.status.message.is_empty() {
        writeln!(out, " Message:              \t{}", capitalised(&node.status.message))?;
    }
    writeln!(out, " Availability:         \t{}", capitalised(&node.spec.availability))?;
    if !node.status.addr.is_empty() {
        writeln!(out, " Address:\t\t{}", node.status.addr)?;
    }
    if let Some(m) = &node.manager_status {
        let leader = if m.leader { "Yes" } else { "No" };
        writeln!(
            out,
            "Manager Status:\n Address:\t\t{}\n Raft Status:\t\t{}\n Leader:\t\t{leader}",
            m.addr,
            capitalised(&m.reachability)
        )?;
    }
    writeln!(out, "Platform:\n Operating System:\t{}\n Architecture:\t\t{}", d.platform.os, d.platform.architecture)?;
    // Whole ones, as in Docker.
    let cpus = d.resources.nano_cpus / 1_000_000_000;
    writeln!(out, "Resources:\n CPUs:\t\t\t{cpus}\n Memory:\t\t{}", size::binary(d.resources.memory_bytes))?;
    let generic = generic(&d.resources.generic_resources);
    if !generic.is_empty() {
        // Docker does not show them.
        writeln!(out, " Generic:\t\t{generic}")?;
    }
    let mut plugins: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    d.engine.plugins.iter().for_each(|p| plugins.entry(&p.kind).or_default().push(&p.name));
    if !plugins.is_empty() {
        out.push_str("Plugins:\n");
        plugins.iter().try_for_each(|(kind, names)| writeln!(out, " {kind}:\t\t{}", names.join(", ")))?;
    }
    writeln!(out, "Engine Version:\t\t{}", d.engine.engine_version)?;
    labels(out, "Engine Labels", &d.engine.labels)?;
    let tls = &d.tls_info;
    if !tls.trust_root.is_empty() {
        writeln!(
            out,
            "TLS Info:\n TrustRoot:\n{}\n Issuer Subject:\t{}\n Issuer Public Key:\t{}",
            tls.trust_root, tls.cert_issuer_subject, tls.cert_issuer_public_key
        )?;
    }
    Ok(())
}

/// `ssd=3, gpu=a, gpu=b`.
fn generic(resources: &[GenericResource]) -> String {
    let one = |r: &GenericResource| match (&r.discrete, &r.named) {
        (Some(d), _) => Some(format!("{}={}", d.kind, d.value)),
        (_, Some(n)) => Some(format!("{}={}", n.kind, n.value)),
        (None, None) => None,
    };
    resources.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

fn labels(out: &mut String, title: &str, labels: &BTreeMap<String, String>) -> fmt::Result {
    if labels.is_empty() {
        return Ok(());
    }
    writeln!(out, "{title}:")?;
    labels
        .iter()
        .try_for_each(|(k, v)| if v.is_empty() { writeln!(out, " - {k}") } else { writeln!(out, " - {k}={v}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(id: &str, hostname: &str, manager: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "ID": format!("{id:x<25}"), "Spec": {"Role": "manager", "Availability": "active"},
            "Description": {"Hostname": hostname, "Engine": {"EngineVersion": "28.2.2"}},
            "Status": {"State": "ready"}, "ManagerStatus": manager,
        }))
        .unwrap()
    }

    #[test]
    fn nodes_are_listed_as_docker_lists_them() {
        let leader = node("a", "host10", json!({"Leader": true, "Reachability": "reachable"}));
        let other = node("b", "host2", json!({"Reachability": "unreachable"}));
        let worker = node("c", "host3", json!(null));
        let rows: Vec<Row> = [&leader, &other, &worker].map(|n| node_row(n, &leader.id, None)).into();
        let want = "\
ID                            HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
axxxxxxxxxxxxxxxxxxxxxxxx *   host10     Ready     Active         Leader           28.2.2
bxxxxxxxxxxxxxxxxxxxxxxxx     host2      Ready     Active         Unreachable      28.2.2
cxxxxxxxxxxxxxxxxxxxxxxxx     host3      Ready     Active                          28.2.2
";
        assert_eq!(VIEW.render(&rows, None, false).unwrap(), want);
        assert_eq!(
            spare(&[leader, other, worker]),
            "2 managers, 1 reachable: fewer than the 2 that the cluster needs to decide anything. Bring managers back."
        );
    }

    /// Pairs of a node and what Docker 28.2.2 was recorded to show of it.
    #[test]
    fn a_node_looks_as_docker_shows_it() {
        for part in include_str!("../../tests/golden/node.txt").split("=== ").skip(1) {
            let (json, want) = part.split_once('\n').unwrap();
            assert_eq!(pretty(json.as_bytes()).unwrap(), want, "{json}");
        }
        let resources = json!([{"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}}, {"NamedResourceSpec": {"Kind": "gpu", "Value": "a"}}]);
        assert_eq!(generic(&serde_json::from_value::<Vec<_>>(resources).unwrap()), "ssd=3, gpu=a");
    }

    #[test]
    fn it_says_how_many_managers_may_fail() {
        for (managers, reachable, want) in [
            (1, 1, "1 manager, 1 reachable: the cluster can lose no more managers."),
            (3, 3, "3 managers, 3 reachable: the cluster can lose 1 more manager."),
            (5, 5, "5 managers, 5 reachable: the cluster can lose 2 more managers."),
            (5, 3, "5 managers, 3 reachable: the cluster can lose no more managers."),
        ] {
            assert_eq!(spare_of(managers, reachable), want);
        }
    }
}
