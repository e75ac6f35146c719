//! What a user sends for a service, to the model: in the order and the words of SwarmKit's validation.

use super::container_in::container;
use docker_api::{Failure, GoDuration, unsupported_in_service_spec};
use model::{
    EndpointMode, EndpointSpec, FailureAction, Limits, LogDriver, Mode, Placement, Platform, PortConfig, Protocol,
    PublishMode, RegistryAuth, ResourceRequirements, Resources, RestartCondition, RestartPolicy, ServiceName,
    ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder, limits,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A whole spec. Nothing is dropped: what is not supported is an error that says so.
pub(crate) fn service_spec(spec: docker_api::ServiceSpec, auth: Option<RegistryAuth>) -> Result<ServiceSpec, Failure> {
    let name: ServiceName = spec.name.parse().map_err(Failure::invalid)?;
    if let Some(unsupported) = unsupported_in_service_spec(&spec) {
        return Err(Failure::bad_request(unsupported));
    }
    crate::secrets::checked_labels(&spec.labels)?;
    let task = task_spec(spec.task_template, auth)?;
    let mode = mode(&spec.mode)?;
    let update = spec.update_config.map(update_config).transpose()?;
    let rollback = spec.rollback_config.map(update_config).transpose()?;
    let endpoint = spec.endpoint_spec.map(endpoint_spec).transpose()?;
    Ok(ServiceSpec { name, labels: spec.labels, task: Arc::new(task), mode, update, rollback, endpoint })
}

fn task_spec(task: docker_api::TaskSpec, auth: Option<RegistryAuth>) -> Result<TaskSpec, Failure> {
    let resources = task.resources.map(resources).transpose()?;
    let restart = task.restart_policy.map(restart_policy).transpose()?;
    let placement = task.placement.map(|p| Placement {
        platforms: p.platforms.into_iter().map(|p| Platform { architecture: p.architecture, os: p.os }).collect(),
    });
    let Some(spec) = task.container_spec else { return Err(Failure::invalid("TaskSpec: missing runtime")) };
    let mut container = container(spec)?;
    container.registry_auth = auth;
    let log_driver = task.log_driver.map(|d| LogDriver { name: d.name, options: d.options });
    Ok(TaskSpec { container, resources, restart, placement, log_driver, force_update: task.force_update })
}

fn resources(r: docker_api::ResourceRequirements) -> Result<ResourceRequirements, Failure> {
    let limits = match r.limits {
        None => None,
        Some(l) => {
            check_amounts(l.nano_cpus, l.memory_bytes)?;
            if l.pids < 0 {
                return Err(Failure::invalid(format_args!("invalid pids limit {}: must not be negative", l.pids)));
            }
            Some(Limits { nano_cpus: l.nano_cpus, memory_bytes: l.memory_bytes, pids: l.pids })
        }
    };
    let reservations = match r.reservations {
        None => None,
        Some(r) => {
            check_amounts(r.nano_cpus, r.memory_bytes)?;
            Some(Resources { nano_cpus: r.nano_cpus, memory_bytes: r.memory_bytes })
        }
    };
    Ok(ResourceRequirements { limits, reservations })
}

fn check_amounts(nano_cpus: i64, memory_bytes: i64) -> Result<(), Failure> {
    if nano_cpus != 0 && nano_cpus < limits::NANO_CPUS_MIN {
        let cpus = nano_cpus as f64 / 1e9;
        return Err(Failure::invalid(format_args!("invalid cpu value {cpus}: Must be at least 0.001")));
    }
    if memory_bytes != 0 && memory_bytes < limits::MEMORY_BYTES_MIN {
        return Err(Failure::invalid(format_args!("invalid memory value {memory_bytes}: Must be at least 4MiB")));
    }
    Ok(())
}

fn restart_policy(p: docker_api::RestartPolicy) -> Result<RestartPolicy, Failure> {
    let condition = match p.condition.as_str() {
        "" => None,
        "none" => Some(RestartCondition::None),
        "on-failure" => Some(RestartCondition::OnFailure),
        "any" => Some(RestartCondition::Any),
        other => {
            return Err(Failure::bad_request(format_args!(
                "invalid RestartCondition: {other:?}: use none, on-failure or any"
            )));
        }
    };
    let delay = p.delay.map(|d| not_negative(d, "TaskSpec: restart-delay cannot be negative")).transpose()?;
    let window = p.window.map(|d| not_negative(d, "TaskSpec: restart-window cannot be negative")).transpose()?;
    Ok(RestartPolicy { condition, delay, max_attempts: p.max_attempts, window })
}

/// A duration that must not be negative.
pub(super) fn not_negative(d: GoDuration, otherwise: &str) -> Result<Duration, Failure> {
    d.to_std().ok_or_else(|| Failure::invalid(otherwise))
}

fn mode(mode: &docker_api::ServiceMode) -> Result<Mode, Failure> {
    let replicas = mode.replicated.as_ref().and_then(|r| r.replicas).unwrap_or(1);
    if replicas > limits::REPLICAS_MAX {
        return Err(Failure::invalid(format_args!(
            "{replicas} replicas are too many: at most {} are accepted for one service",
            limits::REPLICAS_MAX
        )));
    }
    Ok(Mode::Replicated { replicas })
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
        _ => return Err(Failure::bad_request(format_args!("invalid ResolutionMode: {:?}", e.mode))),
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
