//! `service inspect --pretty`: what Docker's template shows, to the last blank, and what it leaves out.

use crate::client::decode;
use crate::error::CliError;
use crate::format::duration::ago;
use crate::format::size;
use docker_api::{
    ContainerSpec, EndpointSpec, FileTarget, GenericResource, HealthConfig, Mount, Service, ServiceMode, TaskSpec,
    UpdateConfig,
};
use std::fmt::{self, Write as _};
use std::time::Duration;

/// The human form of a service at `now` (time since the Unix epoch).
pub(crate) fn service(raw: &[u8], now: Duration) -> Result<String, CliError> {
    let service: Service = decode("service inspect", raw)?;
    let mut out = String::new();
    write_service(&mut out, &service, now).map_err(|e| CliError::text(format!("cannot show the service: {e}")))?;
    Ok(out)
}

fn write_service(out: &mut String, service: &Service, now: Duration) -> fmt::Result {
    let spec = &service.spec;
    write!(out, "\nID:\t\t{}\nName:\t\t{}\n", service.id, spec.name)?;
    if !spec.labels.is_empty() {
        out.push_str("Labels:\n");
        for (key, value) in &spec.labels {
            if value.is_empty() { writeln!(out, " {key}")? } else { writeln!(out, " {key}={value}")? }
        }
    }
    mode(out, &spec.mode)?;
    if let Some(job) = &service.job_status {
        writeln!(out, " Iteration:\t{}", job.job_iteration.index)?;
        if job.last_execution.unix_ns() > 0 {
            writeln!(out, " Last run:\t{}", ago(job.last_execution, now))?;
        }
    }
    update_status(out, service, now)?;
    placement(out, &spec.task_template)?;
    update_config(out, "UpdateConfig", spec.update_config.as_ref())?;
    update_config(out, "RollbackConfig", spec.rollback_config.as_ref())?;
    if let Some(c) = &spec.task_template.container_spec {
        container(out, c)?;
    }
    // Docker's own command fails on a service that has no container.
    if let Some(p) = &spec.task_template.plugin_spec {
        writeln!(out, "PluginSpec:\n Name:\t\t{}\n Remote:\t{}\n Disabled:\t{}", p.name, p.remote, p.disabled)?;
    }
    log_driver(out, &spec.task_template)?;
    resources(out, &spec.task_template)?;
    if !spec.task_template.networks.is_empty() {
        out.push_str("Networks:");
        spec.task_template.networks.iter().try_for_each(|n| write!(out, " {}", n.target))?;
        out.push_str(" \n");
    }
    endpoint(out, service, spec.endpoint_spec.as_ref())?;
    if let Some(check) = spec.task_template.container_spec.as_ref().and_then(|c| c.healthcheck.as_ref()) {
        healthcheck(out, check)?;
    }
    out.push('\n');
    Ok(())
}

/// Of a job, Docker's template has no more than the title.
fn mode(out: &mut String, mode: &ServiceMode) -> fmt::Result {
    match (&mode.global, &mode.replicated_job, &mode.global_job) {
        (Some(_), _, _) => writeln!(out, "Service Mode:\tGlobal"),
        (_, Some(job), _) => {
            let (at_once, total) = (job.max_concurrent.unwrap_or(1), job.total_completions.unwrap_or(1));
            writeln!(out, "Service Mode:\tReplicatedJob\n MaxConcurrent:\t{at_once}\n TotalCompletions:\t{total}")
        }
        (_, _, Some(_)) => writeln!(out, "Service Mode:\tGlobalJob"),
        _ => {
            let replicas = mode.replicated.as_ref().and_then(|r| r.replicas).unwrap_or(1);
            writeln!(out, "Service Mode:\tReplicated\n Replicas:\t{replicas}")
        }
    }
}

fn update_status(out: &mut String, service: &Service, now: Duration) -> fmt::Result {
    let Some(status) = service.update_status.as_ref().filter(|s| !s.state.is_empty()) else { return Ok(()) };
    writeln!(out, "UpdateStatus:\n State:\t\t{}", status.state)?;
    if let Some(started) = status.started_at {
        writeln!(out, " Started:\t{}", ago(started, now))?;
    }
    if let Some(completed) = status.completed_at.filter(|_| status.state == "completed") {
        writeln!(out, " Completed:\t{}", ago(completed, now))?;
    }
    writeln!(out, " Message:\t{}", status.message)
}

fn placement(out: &mut String, task: &TaskSpec) -> fmt::Result {
    out.push_str("Placement:\n");
    let Some(placement) = &task.placement else { return Ok(()) };
    if !placement.constraints.is_empty() {
        writeln!(out, " Constraints:\t[{}]", placement.constraints.join(" "))?;
    }
    let preferences: Vec<_> = placement
        .preferences
        .iter()
        .filter_map(|p| p.spread.as_ref())
        .map(|s| format!("spread={}", s.spread_descriptor))
        .collect();
    if !preferences.is_empty() {
        writeln!(out, " Preferences:   [{}]", preferences.join(" "))?;
    }
    if placement.max_replicas > 0 {
        writeln!(out, " Max Replicas Per Node:   {}", placement.max_replicas)?;
    }
    Ok(())
}

fn update_config(out: &mut String, title: &str, config: Option<&UpdateConfig>) -> fmt::Result {
    let Some(config) = config else { return Ok(()) };
    writeln!(out, "{title}:\n Parallelism:\t{}", config.parallelism)?;
    if config.delay.0 > 0 {
        writeln!(out, " Delay:\t\t{}", config.delay)?;
    }
    writeln!(out, " On failure:\t{}", config.failure_action)?;
    if config.monitor.0 > 0 {
        writeln!(out, " Monitoring Period: {}", config.monitor)?;
    }
    writeln!(out, " Max failure ratio: {}", config.max_failure_ratio.0)?;
    let verb = if title == "UpdateConfig" { "Update order:  " } else { "Rollback order:" };
    writeln!(out, " {verb}    {}", config.order)
}

fn container(out: &mut String, c: &ContainerSpec) -> fmt::Result {
    writeln!(out, "ContainerSpec:\n Image:\t\t{}", c.image)?;
    // Docker leaves a blank after each word of a list, and does not show the command.
    let words = |list: &[String]| list.iter().map(|w| format!("{w} ")).collect::<String>();
    for (title, list) in [("Command:\t", &c.command), ("Args:\t\t", &c.args), ("Env:\t\t", &c.env)] {
        if !list.is_empty() {
            writeln!(out, " {title}{}", words(list))?;
        }
    }
    if !c.dir.is_empty() {
        writeln!(out, " Dir:\t\t{}", c.dir)?;
    }
    if let Some(init) = c.init {
        writeln!(out, " Init:\t\t{init}")?;
    }
    if !c.user.is_empty() {
        writeln!(out, " User: {}", c.user)?;
    }
    if !c.capability_add.is_empty() || !c.capability_drop.is_empty() {
        out.push_str("Capabilities:\n");
    }
    for (title, list) in [("Add", &c.capability_add), ("Drop", &c.capability_drop)] {
        if !list.is_empty() {
            writeln!(out, " {title}: {}", list.join(", "))?;
        }
    }
    if !c.sysctls.is_empty() {
        out.push_str("SysCtls:\n");
        for (key, value) in &c.sysctls {
            if value.is_empty() { writeln!(out, " {key}")? } else { writeln!(out, " {key}: {value}")? }
        }
    }
    if !c.ulimits.is_empty() {
        out.push_str("Ulimits:\n");
        let mut ulimits: Vec<_> = c.ulimits.iter().collect();
        ulimits.sort_by(|a, b| a.name.cmp(&b.name));
        ulimits.iter().try_for_each(|u| writeln!(out, " {}: {}:{}", u.name, u.soft, u.hard))?;
    }
    if !c.mounts.is_empty() {
        out.push_str("Mounts:\n");
        c.mounts.iter().try_for_each(|m| mount(out, m))?;
    }
    if !c.configs.is_empty() {
        out.push_str("Configs:\n");
        c.configs.iter().try_for_each(|r| file(out, r.file.as_ref(), &r.config_name))?;
    }
    if !c.secrets.is_empty() {
        out.push_str("Secrets:\n");
        c.secrets.iter().try_for_each(|r| file(out, r.file.as_ref(), &r.secret_name))?;
    }
    Ok(())
}

fn file(out: &mut String, target: Option<&FileTarget>, source: &str) -> fmt::Result {
    writeln!(out, " Target:\t{}\n  Source:\t{source}", target.map(|t| t.name.as_str()).unwrap_or_default())
}

fn mount(out: &mut String, m: &Mount) -> fmt::Result {
    writeln!(
        out,
        " Target:\t{}\n  Source:\t{}\n  ReadOnly:\t{}\n  Type:\t\t{}",
        m.target, m.source, m.read_only, m.kind
    )
}

fn log_driver(out: &mut String, task: &TaskSpec) -> fmt::Result {
    let Some(driver) = &task.log_driver else { return Ok(()) };
    out.push_str("Log Driver:\n");
    if !driver.name.is_empty() {
        writeln!(out, " Name:\t\t{}", driver.name)?;
    }
    if !driver.options.is_empty() {
        out.push_str(" LogOpts:\n");
        for (key, value) in &driver.options {
            if value.is_empty() { writeln!(out, "  {key}")? } else { writeln!(out, "  {key}:       {value}")? }
        }
    }
    out.push('\n');
    Ok(())
}

fn resources(out: &mut String, task: &TaskSpec) -> fmt::Result {
    let Some(resources) = &task.resources else { return Ok(()) };
    let limits = resources.limits.clone().unwrap_or_default();
    let reserved = resources.reservations.clone().unwrap_or_default();
    out.push_str("Resources:\n");
    let generic: Vec<String> = reserved.generic_resources.iter().filter_map(counted).collect();
    for (title, cpus, memory, pids, generic) in [
        ("Reservations", reserved.nano_cpus, reserved.memory_bytes, 0, generic),
        ("Limits", limits.nano_cpus, limits.memory_bytes, limits.pids, Vec::new()),
    ] {
        if cpus <= 0 && memory <= 0 && pids <= 0 && generic.is_empty() {
            continue;
        }
        writeln!(out, " {title}:")?;
        if cpus > 0 {
            writeln!(out, "  CPU:\t\t{}", cpus as f64 / 1e9)?;
        }
        if memory > 0 {
            writeln!(out, "  Memory:\t{}", size::binary(memory))?;
        }
        if pids > 0 {
            writeln!(out, "  PIDs:\t\t{pids}")?;
        }
        if !generic.is_empty() {
            writeln!(out, "  Generic:\t{}", generic.join(", "))?;
        }
    }
    match resources.swap_bytes {
        Some(-1) => writeln!(out, " Swap:\t\tunlimited")?,
        Some(swap) => writeln!(out, " Swap:\t\t{}", size::binary(swap))?,
        None => {}
    }
    resources.memory_swappiness.map_or(Ok(()), |swappiness| writeln!(out, " Swappiness:\t{swappiness}"))
}

fn counted(resource: &GenericResource) -> Option<String> {
    resource.discrete.as_ref().map(|d| format!("{}={}", d.kind, d.value))
}

fn endpoint(out: &mut String, service: &Service, spec: Option<&EndpointSpec>) -> fmt::Result {
    write!(out, "Endpoint Mode:\t{}", spec.map(|e| e.mode.as_str()).unwrap_or_default())?;
    if !service.endpoint.ports.is_empty() {
        out.push_str("\nPorts:");
        for p in &service.endpoint.ports {
            write!(
                out,
                "\n PublishedPort = {}\n  Protocol = {}\n  TargetPort = {}\n  PublishMode = {}",
                p.published_port, p.protocol, p.target_port, p.publish_mode
            )?;
        }
        out.push(' ');
    }
    out.push('\n');
    Ok(())
}

fn healthcheck(out: &mut String, check: &HealthConfig) -> fmt::Result {
    writeln!(out, " Healthcheck:\n  Interval = {}\n  Retries = {}", check.interval, check.retries)?;
    write!(out, "  StartPeriod =\t{}\n  Timeout =\t{}", check.start_period, check.timeout)?;
    if !check.test.is_empty() {
        out.push_str("\n  Tests:");
        check.test.iter().try_for_each(|t| write!(out, "\n\t Test = {t}"))?;
        out.push(' ');
    }
    out.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22.
    const NOW: Duration = Duration::from_secs(1_795_305_600);

    /// Pairs of a service and what Docker 28.2.2 was recorded to show of it. Blanks and tabs at the ends of lines have signs
    /// of their own there.
    #[test]
    fn a_service_looks_as_docker_shows_it() {
        for part in include_str!("../../../tests/golden/pretty.txt").split("=== ").skip(1) {
            let (json, want) = part.split_once('\n').unwrap();
            let want = want.replace('␠', " ").replace('␉', "\t");
            assert_eq!(service(json.as_bytes(), NOW).unwrap(), want, "{json}");
        }
    }

    #[test]
    fn plugins_are_shown_where_docker_fails() {
        let raw = br#"{"ID": "s", "Spec": {"Name": "p", "Mode": {"Global": {}}, "TaskTemplate": {"Runtime": "plugin",
            "PluginSpec": {"name": "net", "remote": "registry/net:1"}}}}"#;
        let shown = service(raw, NOW).unwrap();
        assert!(shown.contains("PluginSpec:\n Name:\t\tnet\n Remote:\tregistry/net:1\n Disabled:\tfalse\n"), "{shown}");
    }

    #[test]
    fn jobs_and_what_they_reserve_are_shown_though_docker_does_not() {
        let raw = br#"{"ID": "s", "Spec": {"Name": "j", "Mode": {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 4}},
            "TaskTemplate": {"Resources": {"SwapBytes": -1, "MemorySwappiness": 0,
                "Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]}}}},
            "JobStatus": {"JobIteration": {"Index": 3}, "LastExecution": "2026-11-21T00:00:00Z"}}"#;
        let want = "\nID:\t\ts\nName:\t\tj\nService Mode:\tReplicatedJob\n MaxConcurrent:\t2\n TotalCompletions:\t4\n Iteration:\t3\n \
            Last run:\t24 hours ago\nPlacement:\nResources:\n Reservations:\n  Generic:\tgpu=2\n Swap:\t\tunlimited\n \
            Swappiness:\t0\nEndpoint Mode:\t\n\n";
        assert_eq!(service(raw, NOW).unwrap(), want);
    }
}
