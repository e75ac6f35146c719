//! Services, from the model to Docker's JSON.

use super::mount::mount_out;
use super::placement::{placement_out, resources_out};
use super::plugin::plugin_out;
use super::privileges::privileges_out;
use super::{protocol, time, version};
use docker_api::{
    ContainerSpec, DnsConfig, Endpoint, EndpointSpec, GlobalService, GoDuration, HealthConfig, JobStatus, PortConfig,
    Ratio, ReplicatedJob, ReplicatedService, RestartPolicy, Service, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig,
};
use model::{EndpointMode, FailureAction, Mode, PublishMode, RestartCondition, UpdateOrder, limits};
use std::time::Duration;

/// A service.
pub(crate) fn service(s: &model::Service) -> Service {
    let spec = service_spec_out(&s.spec);
    // Of a service without published ports nothing is set up, and nothing is shown.
    let endpoint_spec = spec.endpoint_spec.clone().filter(|wanted| !wanted.ports.is_empty()).unwrap_or_default();
    Service {
        id: s.id.to_string(),
        version: version(s.meta.version),
        created_at: time(s.meta.created_at),
        updated_at: time(s.meta.updated_at),
        endpoint: Endpoint { ports: endpoint_spec.ports.clone(), spec: endpoint_spec, virtual_ips: Vec::new() },
        previous_spec: s.previous_spec.as_ref().map(service_spec_out),
        update_status: s.current_update().map(|u| docker_api::UpdateStatus {
            state: u.state.as_str().to_owned(),
            started_at: Some(time(u.started_at)),
            completed_at: u.completed_at.map(time),
            message: u.message.clone(),
        }),
        service_status: None,
        job_status: s
            .progress
            .job
            .map(|job| JobStatus { job_iteration: version(job.iteration), last_execution: time(job.last_execution) }),
        spec,
    }
}

/// A service's spec.
fn service_spec_out(s: &model::ServiceSpec) -> ServiceSpec {
    ServiceSpec {
        name: s.name.to_string(),
        labels: s.labels.clone(),
        task_template: task_spec(&s.task),
        mode: mode(&s.mode),
        update_config: s.update.as_ref().map(update_config),
        rollback_config: s.rollback.as_ref().map(update_config),
        networks: Vec::new(),
        endpoint_spec: s.endpoint.as_ref().map(endpoint_spec),
    }
}

/// Fills in what the user left out, as `GET /services/{id}?insertDefaults=true` does (SwarmKit api/defaults).
pub(crate) fn insert_defaults(spec: &mut ServiceSpec) {
    let task = &mut spec.task_template;
    if let Some(c) = &mut task.container_spec {
        c.stop_grace_period.get_or_insert(limits::STOP_GRACE_PERIOD_DEFAULT.into());
        c.dns_config.get_or_insert_default();
    }
    task.resources.get_or_insert_default();
    let restart = task.restart_policy.get_or_insert_default();
    if restart.condition.is_empty() {
        restart.condition = "any".into();
    }
    restart.delay.get_or_insert(limits::RESTART_DELAY_DEFAULT.into());
    restart.max_attempts.get_or_insert(0);
    task.placement.get_or_insert_default();
    let default_update = update_config(&model::UpdateConfig {
        monitor: Some(limits::UPDATE_MONITOR_DEFAULT),
        ..model::UpdateConfig::default()
    });
    for config in [&mut spec.update_config, &mut spec.rollback_config] {
        let config = config.get_or_insert_with(|| default_update.clone());
        if config.monitor == GoDuration(0) {
            config.monitor = default_update.monitor;
        }
    }
}

fn mode(m: &Mode) -> ServiceMode {
    let mut mode = ServiceMode::default();
    match *m {
        Mode::Replicated { replicas } => {
            mode.replicated = Some(ReplicatedService { replicas: Some(replicas) });
        }
        Mode::Global => mode.global = Some(GlobalService {}),
        Mode::ReplicatedJob { max_concurrent, total_completions } => {
            mode.replicated_job = Some(ReplicatedJob {
                max_concurrent: Some(max_concurrent),
                total_completions: Some(total_completions),
            });
        }
        Mode::GlobalJob => mode.global_job = Some(GlobalService {}),
    }
    mode
}

/// A logging driver.
pub(super) fn log_driver(d: &model::LogDriver) -> docker_api::Driver {
    docker_api::Driver { name: d.name.clone(), options: d.options.clone() }
}

pub(super) fn task_spec(t: &model::TaskSpec) -> TaskSpec {
    TaskSpec {
        container_spec: t.container().map(container),
        plugin_spec: t.plugin().map(plugin_out),
        resources: t.resources.as_ref().map(resources_out),
        restart_policy: t.restart.as_ref().map(restart_policy),
        placement: t.placement.as_ref().map(placement_out),
        log_driver: t.log_driver.as_ref().map(log_driver),
        force_update: t.force_update,
        runtime: t.runtime.as_str().into(),
        ..TaskSpec::default()
    }
}

fn container(c: &model::ContainerSpec) -> ContainerSpec {
    ContainerSpec {
        image: c.image.clone(),
        labels: c.labels.clone(),
        command: c.command.clone(),
        args: c.args.clone(),
        hostname: c.hostname.clone(),
        env: c.env.clone(),
        dir: c.dir.clone(),
        user: c.user.clone(),
        groups: c.groups.clone(),
        init: c.init,
        stop_signal: c.stop_signal.clone(),
        tty: c.tty,
        open_stdin: c.open_stdin,
        read_only: c.read_only,
        mounts: c.mounts.iter().map(mount_out).collect(),
        stop_grace_period: c.stop_grace_period.map(GoDuration::from),
        healthcheck: c.healthcheck.as_ref().map(healthcheck),
        hosts: c.hosts.clone(),
        dns_config: c.dns.as_ref().map(|d| DnsConfig {
            nameservers: d.nameservers.clone(),
            search: d.search.clone(),
            options: d.options.clone(),
        }),
        secrets: super::secret::secrets_out(c),
        configs: super::secret::configs_out(c),
        isolation: "default".into(),
        sysctls: c.sysctls.clone(),
        capability_add: c.cap_add.clone(),
        capability_drop: c.cap_drop.clone(),
        ulimits: c
            .ulimits
            .iter()
            .map(|u| docker_api::Ulimit { name: u.name.clone(), hard: u.hard, soft: u.soft })
            .collect(),
        privileges: c.privileges.as_ref().map(privileges_out),
        oom_score_adj: c.oom_score_adj,
    }
}

fn healthcheck(h: &model::Healthcheck) -> HealthConfig {
    let duration = |d: Option<Duration>| d.map_or(GoDuration(0), GoDuration::from);
    HealthConfig {
        test: h.test.clone(),
        interval: duration(h.interval),
        timeout: duration(h.timeout),
        start_period: duration(h.start_period),
        start_interval: duration(h.start_interval),
        retries: h.retries.unwrap_or(0),
    }
}

fn restart_policy(p: &model::RestartPolicy) -> RestartPolicy {
    let condition = match p.condition() {
        RestartCondition::None => "none",
        RestartCondition::OnFailure => "on-failure",
        RestartCondition::Any => "any",
    };
    RestartPolicy {
        condition: condition.into(),
        delay: p.delay.map(GoDuration::from),
        max_attempts: Some(p.max_attempts.unwrap_or(0)),
        window: p.window.map(GoDuration::from),
    }
}

fn update_config(c: &model::UpdateConfig) -> UpdateConfig {
    let failure_action = match c.failure_action {
        FailureAction::Pause => "pause",
        FailureAction::Continue => "continue",
        FailureAction::Rollback => "rollback",
    };
    let order = match c.order {
        UpdateOrder::StopFirst => "stop-first",
        UpdateOrder::StartFirst => "start-first",
    };
    UpdateConfig {
        parallelism: c.parallelism,
        delay: c.delay.into(),
        failure_action: failure_action.into(),
        monitor: c.monitor.map_or(GoDuration(0), GoDuration::from),
        max_failure_ratio: Ratio((f64::from(c.max_failure_ratio_ppm) / 1e6) as f32),
        order: order.into(),
    }
}

fn endpoint_spec(e: &model::EndpointSpec) -> EndpointSpec {
    let mode = match e.mode {
        EndpointMode::Vip => "vip",
        EndpointMode::DnsRr => "dnsrr",
    };
    EndpointSpec { mode: mode.into(), ports: e.ports.iter().map(port).collect() }
}

fn port(p: &model::PortConfig) -> PortConfig {
    let mode = match p.mode {
        PublishMode::Ingress => "ingress",
        PublishMode::Host => "host",
    };
    PortConfig {
        name: p.name.clone(),
        protocol: protocol(p.protocol),
        target_port: p.target_port.into(),
        published_port: p.published_port.into(),
        publish_mode: mode.into(),
    }
}
