//! Our container in Docker's terms, as Docker Swarm's executor maps it (moby daemon/cluster/executor/container).

mod access;
mod mounts;

use super::pull::Reference;
use crate::{EngineError, NewContainer};
use bollard::ClientVersion;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, PortBinding, PortMap, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};
use model::{Healthcheck, Mount, MountKind, PortConfig, Protocol};
use std::collections::BTreeMap;
use std::time::Duration;

/// The body of the create call. What this engine's API version would silently drop is refused.
pub(super) fn body(container: &NewContainer, version: ClientVersion) -> Result<ContainerCreateBody, EngineError> {
    let spec = &container.spec;
    refuse_unknown(container, version)?;
    let mut labels = spec.labels.clone();
    labels.extend(container.labels.clone());
    let (exposed, bindings) = ports(&container.ports);
    let mut host = host_config(container)?;
    host.port_bindings = bindings;
    access::grant(&mut host, &spec.host_access);
    Ok(ContainerCreateBody {
        hostname: some(&spec.hostname),
        user: some(&spec.user),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        exposed_ports: exposed,
        tty: Some(spec.tty),
        open_stdin: Some(spec.open_stdin),
        env: some_list(&spec.env),
        entrypoint: some_list(&spec.command),
        cmd: some_list(&spec.args),
        healthcheck: spec.healthcheck.as_ref().map(health),
        image: Some(Reference::parse(&spec.image).full),
        working_dir: some(&spec.dir),
        labels: Some(labels.into_iter().collect()),
        stop_signal: some(&spec.stop_signal),
        stop_timeout: spec.stop_grace_period.map(seconds_up),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

fn host_config(container: &NewContainer) -> Result<HostConfig, EngineError> {
    let spec = &container.spec;
    let dns = spec.dns.clone().unwrap_or_default();
    // Options alone are for the engine's own driver.
    let log = container.log_driver.as_ref().filter(|l| !l.name.is_empty() || !l.options.is_empty());
    let ulimits: Vec<ResourcesUlimits> = spec
        .ulimits
        .iter()
        .map(|u| ResourcesUlimits { name: Some(u.name.clone()), soft: Some(u.soft), hard: Some(u.hard) })
        .collect();
    Ok(HostConfig {
        nano_cpus: positive(container.limits.nano_cpus),
        memory: positive(container.limits.memory_bytes),
        memory_reservation: positive(container.memory_reservation_bytes),
        memory_swap: memory_swap(container),
        memory_swappiness: container.memory_swappiness,
        oom_score_adj: (spec.oom_score_adj != 0).then_some(spec.oom_score_adj),
        pids_limit: positive(container.limits.pids),
        ulimits: some_list(&ulimits),
        init: spec.init,
        readonly_rootfs: Some(spec.read_only),
        group_add: some_list(&spec.groups),
        extra_hosts: some_list(&extra_hosts(&spec.hosts)),
        dns: some_list(&dns.nameservers),
        dns_search: some_list(&dns.search),
        dns_options: some_list(&dns.options),
        sysctls: some_map(&spec.sysctls).map(|m| m.into_iter().collect()),
        cap_add: some_list(&spec.cap_add),
        cap_drop: some_list(&spec.cap_drop),
        security_opt: spec.privileges.as_ref().and_then(|p| some_list(&access::security_options(p))),
        mounts: some_list(&mounts::mounts(container)?),
        log_config: log.map(|l| HostConfigLogConfig {
            typ: some(&l.name),
            config: some_map(&l.options).map(|m| m.into_iter().collect()),
        }),
        // Whether it runs again is for the cluster to say, never for the engine.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    })
}

/// Docker's sum of memory and swap, of which swap alone was asked for. Without a limit of memory there is nothing to add to, and
/// Docker Swarm leaves it out.
fn memory_swap(container: &NewContainer) -> Option<i64> {
    let memory = positive(container.limits.memory_bytes)?;
    match container.swap_bytes? {
        -1 => Some(-1),
        swap => (swap >= 0).then(|| memory.saturating_add(swap)),
    }
}

fn refuse_unknown(container: &NewContainer, version: ClientVersion) -> Result<(), EngineError> {
    let spec = &container.spec;
    let any = |is: fn(&Mount) -> bool| spec.mounts.iter().any(is);
    let start_interval = spec.healthcheck.as_ref().is_some_and(|h| h.start_interval.is_some());
    // The first API version of each (moby daemon/server/router/container/container_routes.go).
    for (wanted, what, minor) in [
        (any(|m| m.bind_create_mountpoint), "a bind mount that makes its path", 42),
        (start_interval, "a health check's start interval", 44),
        (any(|m| m.bind_read_only_non_recursive), "a bind mount that is read-only by itself only", 44),
        (any(|m| m.bind_read_only_force_recursive), "a bind mount that is read-only with all below it", 44),
        (any(|m| !m.volume_subpath.is_empty()), "a path inside a volume", 45),
        (any(|m| !m.tmpfs_options.is_empty()), "a tmpfs with options", 46),
        (any(|m| m.kind == MountKind::Image), "a mount of an image", 48),
    ] {
        let needed = ClientVersion { major_version: 1, minor_version: minor };
        if wanted && version < needed {
            return Err(EngineError::Refused(format!(
                "{what} needs an engine with API version {needed}; this one has {version}"
            )));
        }
    }
    Ok(())
}

/// `IP name [name…]` lines as Docker's `name:IP`.
fn extra_hosts(lines: &[String]) -> Vec<String> {
    let split = |line: &String| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let ip = words.next().unwrap_or_default();
        words.map(move |name| format!("{name}:{ip}")).collect::<Vec<_>>()
    };
    lines.iter().flat_map(split).collect()
}

fn health(check: &Healthcheck) -> HealthConfig {
    let ns = |d: Option<Duration>| d.map(|d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    HealthConfig {
        test: some_list(&check.test),
        interval: ns(check.interval),
        timeout: ns(check.timeout),
        retries: check.retries,
        start_period: ns(check.start_period),
        start_interval: ns(check.start_interval),
    }
}

fn ports(ports: &[PortConfig]) -> (Option<Vec<String>>, Option<PortMap>) {
    let mut bindings: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
    for port in ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        // An empty host port lets the engine choose.
        let host_port = if port.published_port == 0 { String::new() } else { port.published_port.to_string() };
        let binding = PortBinding { host_ip: None, host_port: Some(host_port) };
        bindings
            .entry(format!("{}/{protocol}", port.target_port))
            .or_default()
            .get_or_insert_with(Vec::new)
            .push(binding);
    }
    if bindings.is_empty() {
        return (None, None);
    }
    (Some(bindings.keys().cloned().collect()), Some(bindings.into_iter().collect()))
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn some_list<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn some_map(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

fn positive(number: i64) -> Option<i64> {
    (number > 0).then_some(number)
}

fn seconds_up(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
