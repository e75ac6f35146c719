//! `service update`: what the flags change in a spec.

use super::flags::Flags;
use super::{extensions, spec};
use crate::error::CliError;
use crate::opts::{self, Ports, Words, to_map};
use docker_api::{
    ContainerSpec, CredentialSpec, DnsConfig, Driver, EndpointSpec, GenericResource, HealthConfig, Mount,
    PlacementPreference, PortConfig, Privileges, ServiceSpec, TaskSpec, Ulimit,
};
use std::collections::{BTreeMap, BTreeSet};

/// Changes `spec` as the flags say.
pub(crate) fn apply(flags: &Flags, spec: &mut ServiceSpec) -> Result<(), CliError> {
    map(flags, "label", &mut spec.labels);
    extensions::apply(flags, spec::is_job(&spec.mode), &mut spec.labels)?;
    if let Some(replicas) = flags.one::<u64>("replicas") {
        let replicated = spec.mode.replicated.as_mut();
        replicated.ok_or_else(|| CliError::text("replicas can only be used with replicated mode"))?.replicas =
            Some(replicas);
    }
    if let Some(concurrent) = flags.one::<u64>("max-concurrent") {
        let job = spec.mode.replicated_job.as_mut();
        job.ok_or_else(|| CliError::text(spec::ONLY_JOBS_CONCURRENT))?.max_concurrent = Some(concurrent);
    }
    spec.update_config = spec::update_config(flags, "update", spec.update_config.take())?;
    spec.rollback_config = spec::update_config(flags, "rollback", spec.rollback_config.take())?;
    endpoint(flags, &mut spec.endpoint_spec)?;
    let task = &mut spec.task_template;
    task.restart_policy = spec::restart_policy(flags, task.restart_policy.take())?;
    task.force_update += u64::from(flags.switch("force"));
    resources(flags, task)?;
    placement(flags, task);
    log_driver(flags, task);
    let Some(plugin) = &task.plugin_spec else { return container(flags, task.container_spec.get_or_insert_default()) };
    let mut none = ContainerSpec::default();
    container(flags, &mut none)?;
    if none == ContainerSpec::default() {
        return Ok(());
    }
    let remote = &plugin.remote;
    Err(CliError::text(format!(
        "the tasks of this service are plugins ({remote}) and no containers: change PluginSpec through the API"
    )))
}

/// `service scale`: sets how many tasks there shall be.
pub(crate) fn set_replicas(spec: &mut ServiceSpec, replicas: u64) -> Result<(), CliError> {
    match (&mut spec.mode.replicated, &mut spec.mode.replicated_job) {
        (Some(replicated), _) => replicated.replicas = Some(replicas),
        (_, Some(job)) => job.total_completions = Some(replicas),
        _ => return Err(CliError::text("scale can only be used with replicated or replicated-job mode")),
    }
    Ok(())
}

/// A new driver comes with its own options only. Options alone are for the driver that is there; Docker drops them.
fn log_driver(flags: &Flags, task: &mut TaskSpec) {
    let options = || to_map(&flags.many("log-opt"));
    match (flags.text("log-driver").as_str(), &mut task.log_driver) {
        ("", Some(driver)) if flags.given("log-opt") => driver.options = options(),
        ("", _) => {}
        (name, driver) => *driver = Some(Driver { name: name.to_owned(), options: options() }),
    }
}

fn container(flags: &Flags, c: &mut ContainerSpec) -> Result<(), CliError> {
    if let Some(image) = flags.one::<String>("image") {
        c.image = spec::tagged(&image)?;
    }
    set(flags.one::<Words>("args").map(|w| w.0), &mut c.args);
    set(flags.one::<Words>("entrypoint").map(|w| w.0), &mut c.command);
    set(flags.one("hostname"), &mut c.hostname);
    set(flags.one("workdir"), &mut c.dir);
    set(flags.one("user"), &mut c.user);
    set(flags.one("stop-signal"), &mut c.stop_signal);
    set(flags.one("oom-score-adj"), &mut c.oom_score_adj);
    set(flags.switch_given("tty"), &mut c.tty);
    set(flags.switch_given("read-only"), &mut c.read_only);
    c.init = flags.switch_given("init").or(c.init);
    c.stop_grace_period = flags.one("stop-grace-period").or(c.stop_grace_period);
    map(flags, "container-label", &mut c.labels);
    map(flags, "sysctl", &mut c.sysctls);
    set(flags.one("isolation"), &mut c.isolation);
    credentials(flags, &mut c.privileges);
    keyed(&mut c.env, flags.many("env-rm"), flags.many("env-add"), |e: &String| {
        e.split('=').next().unwrap_or_default().to_owned()
    });
    sorted(flags, "group", &mut c.groups);
    hosts(flags, &mut c.hosts);
    mounts(flags, &mut c.mounts)?;
    keyed(&mut c.ulimits, keys(flags, "ulimit-rm"), flags.many("ulimit-add"), |u: &Ulimit| u.name.clone());
    c.ulimits.sort_by(|a, b| a.name.cmp(&b.name));
    dns(flags, &mut c.dns_config);
    capabilities(flags, c);
    healthcheck(flags, c)
}

fn set<T>(new: Option<T>, field: &mut T) {
    if let Some(new) = new {
        *field = new;
    }
}

/// `--X-rm KEY`, then `--X-add KEY=value`.
fn map(flags: &Flags, name: &str, field: &mut BTreeMap<String, String>) {
    for key in keys(flags, &format!("{name}-rm")) {
        field.remove(&key);
    }
    field.extend(flags.many::<(String, String)>(&format!("{name}-add")));
}

/// What a flag removes. A value may stand behind the key.
fn keys(flags: &Flags, name: &str) -> Vec<String> {
    flags.many::<String>(name).iter().map(|k| k.split('=').next().unwrap_or_default().to_owned()).collect()
}

/// Adds, removes, and sorts, so that the order of the flags is no change of the service.
fn sorted(flags: &Flags, name: &str, list: &mut Vec<String>) {
    let (add, rm) = (format!("{name}-add"), format!("{name}-rm"));
    if !flags.any_given(&[&add, &rm]) {
        return;
    }
    let gone = flags.many::<String>(&rm);
    list.extend(flags.many::<String>(&add));
    list.retain(|entry| !gone.contains(entry));
    list.sort();
    list.dedup();
}

/// The mounts by source and target. A mount is known by its target.
fn mounts(flags: &Flags, mounts: &mut Vec<Mount>) -> Result<(), CliError> {
    let add = flags.many::<Mount>("mount-add");
    let targets: BTreeSet<&str> = add.iter().map(|m| m.target.as_str()).collect();
    if targets.len() < add.len() {
        return Err(CliError::text("duplicate mount target"));
    }
    let gone = flags.many::<String>("mount-rm");
    mounts.retain(|m| !targets.contains(m.target.as_str()));
    mounts.extend(add.iter().cloned());
    mounts.retain(|m| !gone.contains(&m.target));
    mounts.sort_by(|a, b| (&a.source, &a.target).cmp(&(&b.source, &b.target)));
    Ok(())
}

/// The lines of `/etc/hosts`. `--host-rm NAME` takes a name from every address, `--host-rm NAME:IP` from one.
fn hosts(flags: &Flags, lines: &mut Vec<String>) {
    if !flags.any_given(&["host-add", "host-rm"]) {
        return;
    }
    let gone = flags.many::<String>("host-rm");
    let is_gone = |name: &str, ip: &str| {
        gone.iter().any(|g| match g.split_once(':') {
            Some((host, at)) => host == name && (at.is_empty() || at == ip),
            None => g == name,
        })
    };
    let kept = lines.iter().filter_map(|line| {
        let mut words = line.split_whitespace();
        let ip = words.next()?;
        let names: Vec<&str> = words.filter(|name| !is_gone(name, ip)).collect();
        (!names.is_empty()).then(|| format!("{ip} {}", names.join(" ")))
    });
    let mut all: Vec<String> = kept.collect();
    for line in flags.many::<String>("host-add") {
        if !all.contains(&line) {
            all.push(line);
        }
    }
    *lines = all;
}

/// `--credential-spec`; an empty one takes the credentials away.
fn credentials(flags: &Flags, privileges: &mut Option<Privileges>) {
    let Some(spec) = flags.one::<CredentialSpec>("credential-spec") else { return };
    if flags.given_not_empty("credential-spec") {
        privileges.get_or_insert_default().credential_spec = Some(spec);
    } else if let Some(privileges) = privileges {
        privileges.credential_spec = None;
    }
}

/// Removes the entries with these keys, then puts the new ones in the place of the one with the same key, or at the end.
fn keyed<T>(list: &mut Vec<T>, remove: Vec<String>, add: Vec<T>, key: impl Fn(&T) -> String) {
    list.retain(|entry| !remove.contains(&key(entry)));
    for new in add {
        match list.iter_mut().find(|entry| key(entry) == key(&new)) {
            Some(entry) => *entry = new,
            None => list.push(new),
        }
    }
}

fn dns(flags: &Flags, config: &mut Option<DnsConfig>) {
    if !flags.any_given(&["dns-add", "dns-rm", "dns-option-add", "dns-option-rm", "dns-search-add", "dns-search-rm"]) {
        return;
    }
    let dns = config.get_or_insert_default();
    sorted(flags, "dns", &mut dns.nameservers);
    sorted(flags, "dns-search", &mut dns.search);
    sorted(flags, "dns-option", &mut dns.options);
}

/// To add a capability that was dropped takes it off the dropped ones, and the other way round.
fn capabilities(flags: &Flags, c: &mut ContainerSpec) {
    if !flags.any_given(&["cap-add", "cap-drop"]) {
        return;
    }
    let (add, mut drop) = (flags.many::<String>("cap-add"), flags.many::<String>("cap-drop"));
    drop.retain(|c| c == "RESET" || !add.contains(c));
    let reset = |list: &[String]| list.iter().any(|c| c == "RESET");
    let was_dropped: Vec<String> = if reset(&drop) { Vec::new() } else { std::mem::take(&mut c.capability_drop) };
    let was_added: Vec<String> = if reset(&add) { Vec::new() } else { std::mem::take(&mut c.capability_add) };
    let (undropped, add): (Vec<String>, Vec<String>) =
        add.into_iter().filter(|c| c != "RESET").partition(|c| was_dropped.contains(c));
    let (unadded, drop): (Vec<String>, Vec<String>) =
        drop.into_iter().filter(|c| c != "RESET").partition(|c| was_added.contains(c));
    let added = was_added.into_iter().filter(|c| !unadded.contains(c)).chain(add).collect();
    let dropped = was_dropped.into_iter().filter(|c| !undropped.contains(c)).chain(drop).collect();
    (c.capability_add, c.capability_drop) = spec::capabilities(added, dropped);
}

fn healthcheck(flags: &Flags, c: &mut ContainerSpec) -> Result<(), CliError> {
    let given = flags.any_given(&["health-cmd", "health-retries"]) || flags.any_given(&spec::HEALTH_TIMES);
    if flags.switch("no-healthcheck") {
        if given {
            return Err(CliError::text(spec::NO_HEALTHCHECK));
        }
        c.healthcheck = Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() });
        return Ok(());
    }
    if !given {
        return Ok(());
    }
    let check = c.healthcheck.get_or_insert_default();
    // NONE is all there is to say, and whatever is said after it takes it back.
    if check.test == ["NONE"] {
        check.test.clear();
    }
    if let Some(command) = flags.one::<String>("health-cmd") {
        check.test = if command.is_empty() { Vec::new() } else { vec!["CMD-SHELL".to_owned(), command] };
    }
    set(flags.one("health-interval"), &mut check.interval);
    set(flags.one("health-timeout"), &mut check.timeout);
    set(flags.one("health-start-period"), &mut check.start_period);
    set(flags.one("health-start-interval"), &mut check.start_interval);
    set(flags.one("health-retries"), &mut check.retries);
    Ok(())
}

fn resources(flags: &Flags, task: &mut TaskSpec) -> Result<(), CliError> {
    if flags.any_given(&["limit-cpu", "limit-memory", "limit-pids", "reserve-cpu", "reserve-memory"]) {
        let resources = task.resources.get_or_insert_default();
        let limits = resources.limits.get_or_insert_default();
        set(flags.one("limit-cpu"), &mut limits.nano_cpus);
        set(flags.one("limit-memory"), &mut limits.memory_bytes);
        set(flags.one("limit-pids"), &mut limits.pids);
        let reserved = resources.reservations.get_or_insert_default();
        set(flags.one("reserve-cpu"), &mut reserved.nano_cpus);
        set(flags.one("reserve-memory"), &mut reserved.memory_bytes);
    }
    if flags.any_given(&["memory-swap", "memory-swappiness"]) {
        let resources = task.resources.get_or_insert_default();
        resources.swap_bytes = flags.one("memory-swap").or(resources.swap_bytes);
        resources.memory_swappiness = flags.one("memory-swappiness").or(resources.memory_swappiness);
    }
    if !flags.any_given(&["generic-resource-add", "generic-resource-rm"]) {
        return Ok(());
    }
    let list = &mut task.resources.get_or_insert_default().reservations.get_or_insert_default().generic_resources;
    let kind = |r: &GenericResource| r.discrete.as_ref().map(|d| d.kind.clone()).unwrap_or_default();
    let add = opts::generic_resources(&flags.many("generic-resource-add")).map_err(CliError::Text)?;
    keyed(list, Vec::new(), add, kind);
    for gone in flags.many::<String>("generic-resource-rm") {
        let at = list.iter().position(|r| kind(r) == gone);
        let at = at.ok_or_else(|| CliError::text(format!("could not find generic-resource `{gone}` to remove it")))?;
        list.remove(at);
    }
    Ok(())
}

fn placement(flags: &Flags, task: &mut TaskSpec) {
    if !flags.any_given(&[
        "constraint-add",
        "constraint-rm",
        "placement-pref-add",
        "placement-pref-rm",
        "replicas-max-per-node",
    ]) {
        return;
    }
    let placement = task.placement.get_or_insert_default();
    sorted(flags, "constraint", &mut placement.constraints);
    let gone = flags.many::<PlacementPreference>("placement-pref-rm");
    placement.preferences.retain(|p| !gone.contains(p));
    placement.preferences.extend(flags.many::<PlacementPreference>("placement-pref-add"));
    set(flags.one("replicas-max-per-node"), &mut placement.max_replicas);
}

fn endpoint(flags: &Flags, field: &mut Option<EndpointSpec>) -> Result<(), CliError> {
    if !flags.any_given(&["endpoint-mode", "publish-add", "publish-rm"]) {
        return Ok(());
    }
    let endpoint = field.get_or_insert_default();
    set(spec::endpoint_mode(flags)?, &mut endpoint.mode);
    let gone: Vec<PortConfig> = flags.many::<Ports>("publish-rm").into_iter().flat_map(|p| p.0).collect();
    let same = |a: &PortConfig, b: &PortConfig| {
        (a.target_port, &a.protocol, &a.publish_mode) == (b.target_port, &b.protocol, &b.publish_mode)
    };
    // Named by its target port, protocol and mode: what is said of the published port does not count, as in Docker.
    endpoint.ports.retain(|p| !gone.iter().any(|g| same(p, g)));
    for new in flags.many::<Ports>("publish-add").into_iter().flat_map(|p| p.0) {
        if !endpoint.ports.iter().any(|p| p.published_port == new.published_port && same(p, &new)) {
            endpoint.ports.push(new);
        }
    }
    let order = |p: &PortConfig| format!("{}:{}/{}/{}", p.published_port, p.target_port, p.protocol, p.publish_mode);
    endpoint.ports.sort_by_key(order);
    Ok(())
}
