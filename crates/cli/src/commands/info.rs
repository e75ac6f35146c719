//! `swarmlite info`.

use super::node::lose;
use crate::context::Context;
use crate::error::CliError;
use crate::format::duration::human;
use crate::format::size;
use crate::format::template::Parsed;
use clap::Args;
use docker_api::SwarmInfo;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// `info`.
#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

/// The parts of `/info` that are shown: the engine's, and ours.
#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Info {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    containers: i64,
    containers_running: i64,
    containers_paused: i64,
    containers_stopped: i64,
    images: i64,
    server_version: String,
    driver: String,
    logging_driver: String,
    cgroup_driver: String,
    cgroup_version: String,
    plugins: BTreeMap<String, Option<Vec<String>>>,
    swarm: SwarmInfo,
    kernel_version: String,
    operating_system: String,
    #[serde(rename = "OSType")]
    os_type: String,
    architecture: String,
    #[serde(rename = "NCPU")]
    cpus: i64,
    mem_total: i64,
    docker_root_dir: String,
    labels: Option<Vec<String>>,
    warnings: Option<Vec<String>>,
}

/// Prints what the daemon says of itself, its engine and its swarm.
pub(crate) async fn run(ctx: &Context, args: InfoArgs) -> Result<(), CliError> {
    let format = args.format.as_deref().unwrap_or_default();
    let template = if format.is_empty() || format == "json" { None } else { Some(Parsed::new(format)?) };
    let raw: Value = ctx.client.get("/info", &[]).await?;
    match template {
        Some(template) => return ctx.line(template.render(&raw)?),
        None if format == "json" => return ctx.line(crate::format::json::compact(&raw)),
        None => {}
    }
    let info: Info = serde_json::from_value(raw)
        .map_err(|e| CliError::text(format!("the daemon's answer to GET /info cannot be read: {e}")))?;
    let mut out = String::new();
    write_info(&mut out, &info).map_err(|e| CliError::text(format!("cannot show the information: {e}")))?;
    ctx.out(&out)?;
    for warning in info.warnings.iter().flatten().chain(&info.swarm.warnings) {
        ctx.note(warning);
    }
    Ok(())
}

fn write_info(out: &mut String, info: &Info) -> fmt::Result {
    writeln!(out, "Client:\n Version:    {}\n\nServer:", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, " Containers: {}", info.containers)?;
    writeln!(
        out,
        "  Running: {}\n  Paused: {}\n  Stopped: {}",
        info.containers_running, info.containers_paused, info.containers_stopped
    )?;
    writeln!(out, " Images: {}\n Server Version: {}", info.images, info.server_version)?;
    for (title, value) in [
        ("Storage Driver", &info.driver),
        ("Logging Driver", &info.logging_driver),
        ("Cgroup Driver", &info.cgroup_driver),
        ("Cgroup Version", &info.cgroup_version),
    ] {
        if !value.is_empty() {
            writeln!(out, " {title}: {value}")?;
        }
    }
    if info.plugins.values().flatten().next().is_some() {
        out.push_str(" Plugins:\n");
        for (kind, names) in &info.plugins {
            if let Some(names) = names.as_ref().filter(|n| !n.is_empty()) {
                writeln!(out, "  {kind}: {}", names.join(" "))?;
            }
        }
    }
    write_swarm(out, &info.swarm)?;
    for (title, value) in [
        ("Kernel Version", &info.kernel_version),
        ("Operating System", &info.operating_system),
        ("OSType", &info.os_type),
        ("Architecture", &info.architecture),
    ] {
        if !value.is_empty() {
            writeln!(out, " {title}: {value}")?;
        }
    }
    writeln!(
        out,
        " CPUs: {}\n Total Memory: {}\n Name: {}\n ID: {}",
        info.cpus,
        size::binary(info.mem_total),
        info.name,
        info.id
    )?;
    if !info.docker_root_dir.is_empty() {
        writeln!(out, " Docker Root Dir: {}", info.docker_root_dir)?;
    }
    if let Some(labels) = info.labels.as_ref().filter(|l| !l.is_empty()) {
        out.push_str(" Labels:\n");
        labels.iter().try_for_each(|l| writeln!(out, "  {l}"))?;
    }
    Ok(())
}

fn write_swarm(out: &mut String, swarm: &SwarmInfo) -> fmt::Result {
    writeln!(out, " Swarm: {}", if swarm.local_node_state.is_empty() { "inactive" } else { &swarm.local_node_state })?;
    if matches!(swarm.local_node_state.as_str(), "" | "inactive" | "locked") {
        return Ok(());
    }
    writeln!(out, "  NodeID: {}", swarm.node_id)?;
    if !swarm.error.is_empty() {
        writeln!(out, "  Error: {}", swarm.error)?;
    }
    writeln!(out, "  Is Manager: {}", swarm.control_available)?;
    if let Some(cluster) = swarm.cluster.as_ref().filter(|_| swarm.control_available && swarm.error.is_empty()) {
        writeln!(out, "  ClusterID: {}\n  Managers: {}", cluster.id, swarm.managers)?;
        match swarm.managers_may_fail {
            Some(spare) => writeln!(out, "   Can lose: {}", lose(spare))?,
            None => out.push_str("   Can lose: too few managers are reachable already\n"),
        }
        if !swarm.autopilot.is_empty() {
            out.push_str("  Autopilot:\n");
            swarm.autopilot.iter().try_for_each(|line| writeln!(out, "   {line}"))?;
        }
        writeln!(out, "  Nodes: {}", swarm.nodes)?;
        if !cluster.default_addr_pool.is_empty() {
            writeln!(
                out,
                "  Default Address Pool: {}\n  SubnetSize: {}",
                cluster.default_addr_pool.join("  "),
                cluster.subnet_size
            )?;
        }
        writeln!(out, "  Data Path Port: {}", cluster.data_path_port)?;
        let spec = &cluster.spec;
        let history = spec.orchestration.task_history_retention_limit.unwrap_or_default();
        writeln!(out, "  Orchestration:\n   Task History Retention Limit: {history}")?;
        writeln!(out, "  Raft:\n   Snapshot Interval: {}", spec.raft.snapshot_interval)?;
        if let Some(old) = spec.raft.keep_old_snapshots {
            writeln!(out, "   Number of Old Snapshots to Retain: {old}")?;
        }
        writeln!(
            out,
            "   Heartbeat Tick: {}\n   Election Tick: {}",
            spec.raft.heartbeat_tick, spec.raft.election_tick
        )?;
        let told = |d: docker_api::GoDuration| human(d.to_std().unwrap_or_default());
        writeln!(out, "  Dispatcher:\n   Heartbeat Period: {}", told(spec.dispatcher.heartbeat_period))?;
        writeln!(
            out,
            "  CA Configuration:\n   Expiry Duration: {}\n   Force Rotate: {}",
            told(spec.ca_config.node_cert_expiry),
            spec.ca_config.force_rotate
        )?;
        let cas = &spec.ca_config.external_cas;
        if !cas.is_empty() {
            out.push_str("   External CAs:\n");
            cas.iter().try_for_each(|ca| writeln!(out, "     {}: {}", ca.protocol, ca.url))?;
        }
        writeln!(out, "  Autolock Managers: {}", spec.encryption_config.auto_lock_managers)?;
        writeln!(out, "  Root Rotation In Progress: {}", cluster.root_rotation_in_progress)?;
    }
    writeln!(out, "  Node Address: {}", swarm.node_addr)?;
    let mut managers: Vec<&str> = swarm.remote_managers.iter().flatten().map(|m| m.addr.as_str()).collect();
    if !managers.is_empty() {
        managers.sort_unstable();
        out.push_str("  Manager Addresses:\n");
        managers.iter().try_for_each(|m| writeln!(out, "   {m}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_swarm_block_says_how_many_managers_may_fail() {
        let swarm = |may_fail: Value| {
            let swarm: SwarmInfo = serde_json::from_value(json!({"NodeID": "n", "NodeAddr": "10.0.0.1", "LocalNodeState": "active", "ControlAvailable": true,
                "Managers": 3, "Nodes": 5, "ManagersMayFail": may_fail, "Autopilot": ["off"], "RemoteManagers": [{"NodeID": "n", "Addr": "10.0.0.1:2377"}],
                "Cluster": {"ID": "c", "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z", "DataPathPort": 4789,
                    "Spec": {"Dispatcher": {"HeartbeatPeriod": 5_000_000_000_i64}, "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_i64,
                        "ExternalCAs": [{"Protocol": "cfssl", "URL": "https://ca/sign"}]}}}}))
            .unwrap();
            let mut out = String::new();
            write_swarm(&mut out, &swarm).unwrap();
            out
        };
        let text = swarm(json!(1));
        for line in [
            " Swarm: active\n",
            "  Managers: 3\n   Can lose: 1 more manager\n  Autopilot:\n   off\n  Nodes: 5\n",
            "   Expiry Duration: 3 months\n",
            "   External CAs:\n     cfssl: https://ca/sign\n",
            "   Heartbeat Period: 5 seconds\n",
            "  Manager Addresses:\n   10.0.0.1:2377\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        assert!(swarm(json!(null)).contains("too few managers are reachable"));
        let mut out = String::new();
        write_swarm(&mut out, &SwarmInfo::default()).unwrap();
        assert_eq!(out, " Swarm: inactive\n");
    }
}
