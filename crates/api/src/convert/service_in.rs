//! What a user sends for a service, to the model: in the order and the words of SwarmKit's validation.

use super::container_in::container;
use super::labels::extensions;
use super::placement::{placement_in, resources_in};
use super::{plugin, templates};
use docker_api::{Failure, GoDuration, unsupported_in_service_spec};
use model::{
    EndpointMode, EndpointSpec, FailureAction, LogDriver, Mode, PortConfig, Protocol, PublishMode, RegistryAuth,
    RestartCondition, RestartPolicy, Runtime, ServiceName, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder, limits,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A whole spec. Nothing is dropped: what is not supported is an error that says so. Whether the swarm's policy lets the
/// service have what it wants of its nodes is not looked at here.
pub(crate) fn service_spec(spec: docker_api::ServiceSpec, auth: Option<RegistryAuth>) -> Result<ServiceSpec, Failure> {
    let name: ServiceName = spec.name.parse().map_err(Failure::invalid)?;
    if let Some(unsupported) = unsupported_in_service_spec(&spec) {
        return Err(Failure::bad_request(unsupported));
    }
    crate::secrets::checked_labels(&spec.labels)?;
    let mut task = task_spec(spec.task_template, auth)?;
    let mode = match &task.runtime {
        Runtime::Container(container) => {
            templates::check(container, &spec.labels)?;
            mode(&spec.mode)?
        }
        Runtime::Plugin(_) => mode(&plugin::mode(spec.mode)?)?,
    };
    let extensions = extensions(&spec.labels, &mode)?;
    let update = spec.update_config.map(update_config).transpose()?;
    if mode.is_job() && update.is_some() {
        return Err(Failure::invalid("Jobs may not have an update config"));
    }
    let rollback = spec.rollback_config.map(update_config).transpose()?;
    let endpoint = spec.endpoint_spec.map(endpoint_spec).transpose()?;
    match &mut task.runtime {
        Runtime::Container(container) => container.host_access = extensions.host_access,
        Runtime::Plugin(_) => plugin::check(&extensions.host_access, endpoint.as_ref())?,
    }
    Ok(ServiceSpec {
        name,
        labels: spec.labels,
        task: Arc::new(task),
        mode,
        update,
        rollback,
        endpoint,
        cron: extensions.cron,
        backoff: extensions.backoff,
    })
}

fn task_spec(task: docker_api::TaskSpec, auth: Option<RegistryAuth>) -> Result<TaskSpec, Failure> {
    let resources = task.resources.map(resources_in).transpose()?;
    let restart = task.restart_policy.map(restart_policy).transpose()?;
    let placement = task.placement.map(placement_in).transpose()?;
    let runtime = runtime(&task.runtime, task.container_spec, task.plugin_spec, auth)?;
    let log_driver = task.log_driver.map(log_driver);
    Ok(TaskSpec { runtime, resources, restart, placement, log_driver, force_update: task.force_update })
}

/// What a task is. The spec that goes with it must be there, and no other.
fn runtime(
    word: &str,
    container_spec: Option<docker_api::ContainerSpec>,
    plugin_spec: Option<docker_api::PluginSpec>,
    auth: Option<RegistryAuth>,
) -> Result<Runtime, Failure> {
    match (word, container_spec, plugin_spec) {
        ("" | "container", Some(spec), None) => {
            let mut container = container(spec)?;
            container.registry_auth = auth;
            Ok(container.into())
        }
        ("plugin", None, Some(spec)) => Ok(plugin::plugin_in(spec, auth)?.into()),
        ("" | "container" | "plugin", ..) => Err(Failure::bad_request("mismatched Runtime and *Spec fields")),
        _ => Err(Failure::bad_request("unsupported runtime")),
    }
}

/// A logging driver.
pub(super) fn log_driver(d: docker_api::Driver) -> LogDriver {
    LogDriver { name: d.name, options: d.options }
}

fn restart_policy(p: docker_api::RestartPolicy) -> Result<RestartPolicy, Failure> {
    // What is left out is shown as its default, and must be the same when it comes back.
    let condition = match p.condition.as_str() {
        "" | "any" => None,
        "none" => Some(RestartCondition::None),
        "on-failure" => Some(RestartCondition::OnFailure),
        other => {
            return Err(Failure::bad_request(format_args!(
                "invalid RestartCondition: {other:?}: use none, on-failure or any"
            )));
        }
    };
    let delay = p.delay.map(|d| not_negative(d, "TaskSpec: restart-delay cannot be negative")).transpose()?;
    let window = p.window.map(|d| not_negative(d, "TaskSpec: restart-window cannot be negative")).transpose()?;
    Ok(RestartPolicy { condition, delay, max_attempts: p.max_attempts.filter(|n| *n > 0), window })
}

/// A duration that must not be negative.
pub(super) fn not_negative(d: GoDuration, otherwise: &str) -> Result<Duration, Failure> {
    d.to_std().ok_or_else(|| Failure::invalid(otherwise))
}

/// At most one, and so many replicas at most. SwarmKit means a negative number by one of 64 bits that is too large.
fn mode(mode: &docker_api::ServiceMode) -> Result<Mode, Failure> {
    let given =
        [mode.replicated.is_some(), mode.global.is_some(), mode.replicated_job.is_some(), mode.global_job.is_some()];
    if given.into_iter().filter(|g| *g).count() > 1 {
        return Err(Failure::bad_request("must specify only one service mode"));
    }
    if mode.global.is_some() {
        return Ok(Mode::Global);
    }
    if mode.global_job.is_some() {
        return Ok(Mode::GlobalJob);
    }
    if let Some(job) = &mode.replicated_job {
        let max_concurrent = job.max_concurrent.unwrap_or(1);
        let total_completions = job.total_completions.unwrap_or(max_concurrent);
        let max_concurrent = bounded(max_concurrent, "Maximum concurrent jobs must not be negative")?;
        let total_completions = bounded(total_completions, "Total completed jobs must not be negative")?;
        return Ok(Mode::ReplicatedJob { max_concurrent, total_completions });
    }
    let replicas = mode.replicated.as_ref().and_then(|r| r.replicas).unwrap_or(1);
    Ok(Mode::Replicated { replicas: bounded(replicas, "Number of replicas must be non-negative")? })
}

fn bounded(number: u64, when_negative: &str) -> Result<u64, Failure> {
    if i64::try_from(number).is_err() {
        return Err(Failure::invalid(when_negative));
    }
    if number > limits::REPLICAS_MAX {
        return Err(Failure::invalid(format_args!(
            "{number} replicas are too many: at most {} are accepted for one service",
            limits::REPLICAS_MAX
        )));
    }
    Ok(number)
}

fn update_config(c: docker_api::UpdateConfig) -> Result<UpdateConfig, Failure> {
    let failure_action = match c.failure_action.as_str() {
        "" | "pause" => FailureAction::Pause,
        "continue" => FailureAction::Continue,
        "rollback" => FailureAction::Rollback,
        other => return Err(Failure::bad_request(format_args!("unrecognized update failure action {other}"))),
    };
    let order = match c.order.as_str() {
        "" | "stop-first" => UpdateOrder::StopFirst,
        "start-first" => UpdateOrder::StartFirst,
        other => return Err(Failure::bad_request(format_args!("unrecognized update order {other}"))),
    };
    let delay = not_negative(c.delay, "TaskSpec: update-delay cannot be negative")?;
    let monitor = not_negative(c.monitor, "TaskSpec: update-monitor cannot be negative")?;
    let ratio = c.max_failure_ratio.0;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(Failure::invalid("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"));
    }
    Ok(UpdateConfig {
        parallelism: c.parallelism,
        delay,
        failure_action,
        monitor: (monitor > Duration::ZERO).then_some(monitor),
        max_failure_ratio_ppm: (f64::from(ratio) * 1e6).round() as u32,
        order,
    })
}

fn endpoint_spec(e: docker_api::EndpointSpec) -> Result<EndpointSpec, Failure> {
    let mode = match e.mode.to_ascii_lowercase().as_str() {
        "" | "vip" => EndpointMode::Vip,
        "dnsrr" => EndpointMode::DnsRr,
        _ => return Err(Failure::bad_request(format_args!("invalid resolution mode: {:?}", e.mode))),
    };
    let ports = e.ports.into_iter().map(port).collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    for p in &ports {
        if p.mode == PublishMode::Ingress && mode == EndpointMode::DnsRr {
            return Err(Failure::invalid(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        if p.published_port != 0 && !seen.insert((p.published_port, p.protocol, p.mode == PublishMode::Host)) {
            return Err(Failure::invalid("EndpointSpec: duplicate published ports provided"));
        }
    }
    Ok(EndpointSpec { mode, ports })
}

fn port(p: docker_api::PortConfig) -> Result<PortConfig, Failure> {
    let protocol = match p.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(Failure::bad_request(format_args!("invalid protocol: {:?}", p.protocol))),
    };
    let mode = match p.publish_mode.to_ascii_lowercase().as_str() {
        "" | "ingress" => PublishMode::Ingress,
        "host" => PublishMode::Host,
        _ => return Err(Failure::bad_request(format_args!("invalid PublishMode: {:?}", p.publish_mode))),
    };
    let number = |n: u32, what: &str| {
        u16::try_from(n).map_err(|_| Failure::invalid(format_args!("EndpointSpec: {what} port {n} is not below 65536")))
    };
    let target_port = number(p.target_port, "target")?;
    if target_port == 0 {
        return Err(Failure::invalid("EndpointSpec: a port needs a target port"));
    }
    Ok(PortConfig { name: p.name, protocol, target_port, published_port: number(p.published_port, "published")?, mode })
}
