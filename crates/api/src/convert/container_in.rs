//! What a user sends for a container, to the model.

use super::image::is_reference;
use super::secret::references_in;
use super::service_in::not_negative;
use docker_api::{Failure, GoDuration};
use model::{ContainerSpec, DnsConfig, Healthcheck, Mount, MountKind, Ulimit};
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
    let mounts = c.mounts.into_iter().map(mount).collect::<Result<Vec<_>, _>>()?;
    let mut targets = BTreeSet::new();
    if let Some(twice) = mounts.iter().find(|m| !targets.insert(m.target.as_str())) {
        return Err(Failure::invalid(format_args!("ContainerSpec: duplicate mount point: {}", twice.target)));
    }
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
    };
    references_in(c.secrets, c.configs, &mut spec)?;
    Ok(spec)
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

fn mount(m: docker_api::Mount) -> Result<Mount, Failure> {
    let kind = match m.kind.as_str() {
        "bind" => MountKind::Bind,
        "volume" => MountKind::Volume,
        "tmpfs" => MountKind::Tmpfs,
        other => return Err(Failure::bad_request(format_args!("invalid MountType: {other:?}"))),
    };
    check_mount(&m, kind)?;
    let bind = m.bind_options.unwrap_or_default();
    let volume = m.volume_options.unwrap_or_default();
    let driver = volume.driver_config.unwrap_or_default();
    let tmpfs = m.tmpfs_options.unwrap_or_default();
    Ok(Mount {
        kind,
        source: m.source,
        target: m.target,
        read_only: m.read_only,
        consistency: m.consistency,
        bind_propagation: bind.propagation,
        bind_non_recursive: bind.non_recursive,
        volume_no_copy: volume.no_copy,
        volume_labels: volume.labels,
        volume_driver: driver.name,
        volume_driver_opts: driver.options,
        volume_subpath: volume.subpath,
        tmpfs_size_bytes: tmpfs.size_bytes,
        tmpfs_mode: tmpfs.mode,
    })
}

/// What the engine would refuse on the node, refused here (moby `volume/mounts/linux_parser.go`).
fn check_mount(m: &docker_api::Mount, kind: MountKind) -> Result<(), Failure> {
    let invalid =
        |why: String| Err(Failure::invalid(format_args!("invalid mount config for type {:?}: {why}", m.kind)));
    if m.target.is_empty() {
        return invalid("field Target must not be empty".into());
    }
    if !m.target.starts_with('/') {
        return invalid(format!("invalid mount path: '{}' mount path must be absolute", m.target));
    }
    if m.target.trim_end_matches('/').is_empty() {
        return invalid(format!("invalid specification: destination can't be '{}'", m.target));
    }
    if m.bind_options.is_some() && kind != MountKind::Bind {
        return invalid("field BindOptions must not be specified".into());
    }
    if m.volume_options.is_some() && kind != MountKind::Volume {
        return invalid("field VolumeOptions must not be specified".into());
    }
    if m.tmpfs_options.is_some() && kind != MountKind::Tmpfs {
        return invalid("field TmpfsOptions must not be specified".into());
    }
    match kind {
        MountKind::Bind if m.source.is_empty() => invalid("field Source must not be empty".into()),
        MountKind::Bind if !m.source.starts_with('/') => {
            invalid(format!("invalid mount path: '{}' mount path must be absolute", m.source))
        }
        MountKind::Tmpfs if !m.source.is_empty() => invalid("field Source must not be specified".into()),
        MountKind::Tmpfs if m.tmpfs_options.as_ref().is_some_and(|o| o.size_bytes < 0) => {
            invalid("the size must not be negative".into())
        }
        _ => check_propagation(m),
    }
}

fn check_propagation(m: &docker_api::Mount) -> Result<(), Failure> {
    match m.bind_options.as_ref().map_or("", |b| b.propagation.as_str()) {
        "" | "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => Ok(()),
        other => Err(Failure::bad_request(format_args!("invalid MountPropagation: {other:?}"))),
    }?;
    match m.consistency.as_str() {
        "" | "default" | "consistent" | "cached" | "delegated" => Ok(()),
        other => Err(Failure::bad_request(format_args!("invalid mount consistency: {other:?}"))),
    }
}
