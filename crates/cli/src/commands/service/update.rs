//! `service update`: what the flags change in a spec.

use super::flags::Flags;
use super::spec;
use crate::error::CliError;
use crate::opts::{Ports, Words};
use docker_api::{
    ContainerSpec, DnsConfig, Driver, EndpointSpec, Limit, Mount, PlacementPreference, PortConfig, Resources,
    ServiceSpec, Ulimit,
};
use std::collections::BTreeMap;

/// Changes `spec` as the flags say.
pub(crate) fn apply(flags: &Flags, spec: &mut ServiceSpec) -> Result<(), CliError> {
    map(flags, "label", &mut spec.labels);
    if let Some(replicas) = flags.one::<u64>("replicas") {
        set_replicas(spec, replicas)?;
    }
    if let Some(concurrent) = flags.one::<u64>("max-concurrent") {
        let job = spec.mode.replicated_job.as_mut();
        job.ok_or_else(|| CliError::text("max-concurrent can only be used with replicated-job mode"))?.max_concurrent =
            Some(concurrent);
    }
    spec.update_config = spec::update_config(flags, "update", spec.update_config.take())?;
    spec.rollback_config = spec::update_config(flags, "rollback", spec.rollback_config.take())?;
    endpoint(flags, &mut spec.endpoint_spec)?;
    let task = &mut spec.task_template;
    task.restart_policy = spec::restart_policy(flags, task.restart_policy.take())?;
    task.force_update += u64::from(flags.switch("force"));
    resources(flags, task);
    placement(flags, task);
    if flags.any_given(&["log-driver", "log-opt"]) {
        let name =
            flags.one("log-driver").or_else(|| task.log_driver.as_ref().map(|d| d.name.clone())).unwrap_or_default();
        task.log_driver =
            (!name.is_empty()).then(|| Driver { name, options: crate::opts::to_map(&flags.many("log-opt")) });
    }
    container(flags, task.container_spec.get_or_insert_default())
}

/// Sets how many tasks there shall be.
pub(crate) fn set_replicas(spec: &mut ServiceSpec, replicas: u64) -> Result<(), CliError> {
    match (&mut spec.mode.replicated, &mut spec.mode.replicated_job) {
        (Some(replicated), _) => replicated.replicas = Some(replicas),
        (_, Some(job)) => job.total_completions = Some(replicas),
        _ => return Err(CliError::text("scale can only be used with replicated or replicated-job mode")),
    }
    Ok(())
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
    keyed(&mut c.env, flags.many("env-rm"), flags.many("env-add"), |e: &String| {
        e.split('=').next().unwrap_or_default().to_owned()
    });
    keyed(&mut c.groups, flags.many("group-rm"), flags.many("group-add"), String::clone);
    keyed(&mut c.hosts, flags.many("host-rm"), flags.many("host-add"), String::clone);
    keyed(&mut c.mounts, flags.many("mount-rm"), flags.many("mount-add"), |m: &Mount| m.target.clone());
    keyed(&mut c.ulimits, flags.many("ulimit-rm"), flags.many("ulimit-add"), |u: &Ulimit| u.name.clone());
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
    for key in flags.many::<String>(&format!("{name}-rm")) {
        field.remove(&key);
    }
    field.extend(flags.many::<(String, String)>(&format!("{name}-add")));
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
    let list = |list: &mut Vec<String>, name: &str| {
        keyed(list, flags.many(&format!("{name}-rm")), flags.many(&format!("{name}-add")), String::clone);
        list.sort();
    };
    list(&mut dns.nameservers, "dns");
    list(&mut dns.search, "dns-search");
    list(&mut dns.options, "dns-option");
}

/// To add a capability that was dropped takes it off the dropped ones, and the other way round.
fn capabilities(flags: &Flags, c: &mut ContainerSpec) {
    if !flags.any_given(&["cap-add", "cap-drop"]) {
        return;
    }
    let (add, drop) = (flags.many::<String>("cap-add"), flags.many::<String>("cap-drop"));
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
    let Some(new) = spec::healthcheck(flags)? else { return Ok(()) };
    let before = c.healthcheck.take().unwrap_or_default();
    // NONE is all there is to say, and whatever is said after it takes it back.
    if new.test == ["NONE"] || before.test == ["NONE"] {
        c.healthcheck = Some(new);
        return Ok(());
    }
    let mut check = before;
    if flags.given("health-cmd") {
        check.test = new.test;
    }
    set(flags.one("health-interval"), &mut check.interval);
    set(flags.one("health-timeout"), &mut check.timeout);
    set(flags.one("health-start-period"), &mut check.start_period);
    set(flags.one("health-start-interval"), &mut check.start_interval);
    if flags.given("health-retries") {
        check.retries = new.retries;
    }
    c.healthcheck = Some(check);
    Ok(())
}

fn resources(flags: &Flags, task: &mut docker_api::TaskSpec) {
    if flags.any_given(&["limit-cpu", "limit-memory", "limit-pids"]) {
        let limits: &mut Limit = task.resources.get_or_insert_default().limits.get_or_insert_default();
        set(flags.one("limit-cpu"), &mut limits.nano_cpus);
        set(flags.one("limit-memory"), &mut limits.memory_bytes);
        set(flags.one("limit-pids"), &mut limits.pids);
    }
    if flags.any_given(&["reserve-cpu", "reserve-memory"]) {
        let reserved: &mut Resources = task.resources.get_or_insert_default().reservations.get_or_insert_default();
        set(flags.one("reserve-cpu"), &mut reserved.nano_cpus);
        set(flags.one("reserve-memory"), &mut reserved.memory_bytes);
    }
}

fn placement(flags: &Flags, task: &mut docker_api::TaskSpec) {
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
    keyed(&mut placement.constraints, flags.many("constraint-rm"), flags.many("constraint-add"), String::clone);
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
    for gone in flags.many::<Ports>("publish-rm").into_iter().flat_map(|p| p.0) {
        // Named by its target port; by the published one too, when that is given.
        endpoint.ports.retain(|p| {
            !(p.target_port == gone.target_port
                && p.protocol == gone.protocol
                && (gone.published_port == 0 || p.published_port == gone.published_port))
        });
    }
    for new in flags.many::<Ports>("publish-add").into_iter().flat_map(|p| p.0) {
        let same = |p: &PortConfig| {
            (p.target_port, &p.protocol, p.published_port) == (new.target_port, &new.protocol, new.published_port)
        };
        endpoint.ports.retain(|p| !same(p));
        endpoint.ports.push(new);
    }
    endpoint.ports.sort_by_key(|p| (p.published_port, p.target_port, p.protocol.clone()));
    Ok(())
}
