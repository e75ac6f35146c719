//! What a user sends for a container, to the model.

use super::image::is_reference;
use super::mount::mount_in;
use super::privileges::privileges_in;
use super::secret::references_in;
use super::service_in::not_negative;
use docker_api::{Failure, GoDuration};
use model::{ContainerSpec, DnsConfig, Healthcheck, HostAccess, Ulimit};
use std::collections::BTreeSet;
use std::time::Duration;

/// A container spec, without the registry's credentials.
pub(super) fn container(c: docker_api::ContainerSpec) -> Result<ContainerSpec, Failure> {
    if c.image.is_empty() {
        return Err(Failure::invalid("ContainerSpec: image reference must be provided"));
    }
    if !is_reference(&c.image) {
        return Err(Failure::invalid(format_args!("ContainerSpec: {:?} is not a valid repository/tag", c.image)));
    }
    let mounts = c.mounts.into_iter().map(mount_in).collect::<Result<Vec<_>, _>>()?;
    let mut targets = BTreeSet::new();
    if let Some(twice) = mounts.iter().find(|m| !targets.insert(m.target.as_str())) {
        return Err(Failure::invalid(format_args!("ContainerSpec: duplicate mount point: {}", twice.target)));
    }
    check_linux(&c.isolation, c.oom_score_adj)?;
    let grace = |d| not_negative(d, "ContainerSpec: StopGracePeriod cannot be negative");
    let mut spec = ContainerSpec {
        image: c.image,
        labels: c.labels,
        command: c.command,
        args: c.args,
        hostname: c.hostname,
        env: c.env,
        dir: c.dir,
        user: c.user,
        groups: c.groups,
        stop_signal: c.stop_signal,
        stop_grace_period: c.stop_grace_period.map(grace).transpose()?,
        tty: c.tty,
        open_stdin: c.open_stdin,
        read_only: c.read_only,
        init: c.init,
        mounts,
        healthcheck: c.healthcheck.map(healthcheck).transpose()?,
        hosts: c.hosts,
        dns: c.dns_config.map(|d| DnsConfig { nameservers: d.nameservers, search: d.search, options: d.options }),
        sysctls: c.sysctls,
        cap_add: c.capability_add,
        cap_drop: c.capability_drop,
        ulimits: c.ulimits.into_iter().map(|u| Ulimit { name: u.name, soft: u.soft, hard: u.hard }).collect(),
        registry_auth: None,
        secrets: Vec::new(),
        configs: Vec::new(),
        oom_score_adj: c.oom_score_adj,
        privileges: c.privileges.map(privileges_in).transpose()?,
        // From the labels of the service.
        host_access: HostAccess::default(),
    };
    references_in(c.secrets, c.configs, &mut spec)?;
    Ok(spec)
}

/// What an engine on Linux would refuse on the node, in its words (moby `daemon/daemon_unix.go`, `runconfig`).
fn check_linux(isolation: &str, oom_score_adj: i64) -> Result<(), Failure> {
    if !isolation.is_empty() && !isolation.eq_ignore_ascii_case("default") {
        let shown: String = isolation.chars().take(64).collect();
        return Err(Failure::bad_request(format_args!("invalid isolation {shown:?} on linux")));
    }
    if !(-1000..=1000).contains(&oom_score_adj) {
        return Err(Failure::bad_request(format_args!(
            "invalid value {oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )));
    }
    Ok(())
}

fn healthcheck(h: docker_api::HealthConfig) -> Result<Healthcheck, Failure> {
    let at_least_1ms = |d: GoDuration, field: &str| {
        if d.0 != 0 && d.0 < 1_000_000 {
            let text = format!("ContainerSpec: {field} in HealthConfig cannot be less than 1ms");
            return Err(Failure::invalid(text));
        }
        Ok(d.to_std().filter(|d| *d > Duration::ZERO))
    };
    if h.retries < 0 {
        return Err(Failure::invalid("ContainerSpec: Retries in HealthConfig cannot be negative"));
    }
    Ok(Healthcheck {
        interval: at_least_1ms(h.interval, "Interval")?,
        timeout: at_least_1ms(h.timeout, "Timeout")?,
        start_period: at_least_1ms(h.start_period, "StartPeriod")?,
        start_interval: at_least_1ms(h.start_interval, "StartInterval")?,
        retries: (h.retries != 0).then_some(h.retries),
        test: h.test,
    })
}
