//! `service inspect --pretty`.

use crate::client::decode;
use crate::error::CliError;
use crate::format::duration::ago;
use crate::format::size;
use docker_api::{ContainerSpec, EndpointSpec, FileTarget, Mount, Service, TaskSpec, UpdateConfig};
use std::fmt::{self, Write as _};

/// The human form of a service.
pub(crate) fn service(raw: &[u8]) -> Result<String, CliError> {
    let service: Service = decode("service inspect", raw)?;
    let mut out = String::new();
    write_service(&mut out, &service).map_err(|e| CliError::text(format!("cannot show the service: {e}")))?;
    Ok(out)
}

fn write_service(out: &mut String, service: &Service) -> fmt::Result {
    let spec = &service.spec;
    write!(out, "\nID:\t\t{}\nName:\t\t{}\n", service.id, spec.name)?;
    if !spec.labels.is_empty() {
        out.push_str("Labels:\n");
        spec.labels.iter().try_for_each(|(k, v)| writeln!(out, " {k}={v}"))?;
    }
    let mode = &spec.mode;
    match (&mode.global, &mode.replicated_job, &mode.global_job) {
        (Some(_), _, _) => out.push_str("Service Mode:\tGlobal\n"),
        (_, Some(job), _) => {
            out.push_str("Service Mode:\tReplicatedJob\n");
            writeln!(out, " MaxConcurrent:\t{}", job.max_concurrent.unwrap_or(1))?;
            writeln!(out, " TotalCompletions:\t{}", job.total_completions.unwrap_or(1))?;
        }
        (_, _, Some(_)) => out.push_str("Service Mode:\tGlobalJob\n"),
        _ => {
            let replicas = mode.replicated.as_ref().and_then(|r| r.replicas).unwrap_or(1);
            writeln!(out, "Service Mode:\tReplicated\n Replicas:\t{replicas}")?;
        }
    }
    if let Some(status) = &service.update_status {
        writeln!(out, "UpdateStatus:\n State:\t\t{}", status.state)?;
        let unix_now = status.completed_at.or(status.started_at).map(|t| t.unix_ns()).unwrap_or_default();
        let now = std::time::Duration::from_nanos(u64::try_from(unix_now).unwrap_or_default());
        if let Some(started) = status.started_at {
            match status.completed_at {
                Some(_) => {
                    writeln!(out, " Started:\t{started}\n Took:\t\t{}", ago(started, now).trim_end_matches(" ago"))?
                }
                None => writeln!(out, " Started:\t{started}")?,
            }
        }
        writeln!(out, " Message:\t{}", status.message)?;
    }
    placement(out, &spec.task_template)?;
    update_config(out, "UpdateConfig", spec.update_config.as_ref())?;
    update_config(out, "RollbackConfig", spec.rollback_config.as_ref())?;
    if let Some(c) = &spec.task_template.container_spec {
        container(out, c)?;
    }
    resources(out, &spec.task_template)?;
    endpoint(out, service, spec.endpoint_spec.as_ref())?;
    if let Some(check) = spec.task_template.container_spec.as_ref().and_then(|c| c.healthcheck.as_ref()) {
        writeln!(out, " Healthcheck:\n  Interval = {}\n  Retries = {}", check.interval, check.retries)?;
        writeln!(out, "  StartPeriod =\t{}\n  Timeout =\t{}", check.start_period, check.timeout)?;
        if !check.test.is_empty() {
            out.push_str("  Tests:\n");
            check.test.iter().try_for_each(|t| writeln!(out, "\t Test = {t}"))?;
        }
    }
    out.push('\n');
    Ok(())
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
        writeln!(out, " Preferences:\t[{}]", preferences.join(" "))?;
    }
    if placement.max_replicas > 0 {
        writeln!(out, " Max Replicas Per Node:\t{}", placement.max_replicas)?;
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
    // Docker leaves a blank after each word of a list.
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
    for (title, list) in [("Capability Add:\t", &c.capability_add), ("Capability Drop:\t", &c.capability_drop)] {
        if !list.is_empty() {
            writeln!(out, " {title}{}", list.join(", "))?;
        }
    }
    if !c.sysctls.is_empty() {
        out.push_str(" Sysctls:\n");
        c.sysctls.iter().try_for_each(|(k, v)| writeln!(out, "  {k}={v}"))?;
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

fn resources(out: &mut String, task: &TaskSpec) -> fmt::Result {
    let Some(resources) = &task.resources else { return Ok(()) };
    let limits = resources.limits.clone().unwrap_or_default();
    let reserved = resources.reservations.clone().unwrap_or_default();
    let mut both = String::new();
    for (title, cpus, memory, pids) in [
        ("Reservations", reserved.nano_cpus, reserved.memory_bytes, 0),
        ("Limits", limits.nano_cpus, limits.memory_bytes, limits.pids),
    ] {
        if cpus == 0 && memory == 0 && pids == 0 {
            continue;
        }
        writeln!(both, " {title}:")?;
        if cpus > 0 {
            writeln!(both, "  CPU:\t\t{}", cpus as f64 / 1e9)?;
        }
        if memory > 0 {
            writeln!(both, "  Memory:\t{}", size::binary(memory))?;
        }
        if pids > 0 {
            writeln!(both, "  PIDs:\t\t{pids}")?;
        }
    }
    if both.is_empty() { Ok(()) } else { write!(out, "Resources:\n{both}") }
}

fn endpoint(out: &mut String, service: &Service, spec: Option<&EndpointSpec>) -> fmt::Result {
    if let Some(mode) = spec.map(|e| e.mode.as_str()).filter(|m| !m.is_empty()) {
        writeln!(out, "Endpoint Mode:\t{mode}")?;
    }
    if service.endpoint.ports.is_empty() {
        return Ok(());
    }
    out.push_str("Ports:\n");
    for p in &service.endpoint.ports {
        writeln!(
            out,
            " PublishedPort = {}\n  Protocol = {}\n  TargetPort = {}\n  PublishMode = {}",
            p.published_port, p.protocol, p.target_port, p.publish_mode
        )?;
    }
    Ok(())
}
