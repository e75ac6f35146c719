//! `service create`: from flags to the JSON that Docker would send.

use super::extensions;
use super::flags::Flags;
use crate::context::Context;
use crate::error::CliError;
use crate::opts::{self, Ports, Words, to_map};
use docker_api::{
    ContainerSpec, CredentialSpec, DnsConfig, Driver, EndpointSpec, GlobalService, GoDuration, HealthConfig, Limit,
    Mount, NetworkAttachmentConfig, Placement, PlacementPreference, Privileges, Ratio, ReplicatedJob,
    ReplicatedService, ResourceRequirements, Resources, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec, Ulimit,
    UpdateConfig,
};
use std::path::Path;

/// Docker's pause before a restart.
const RESTART_DELAY: GoDuration = GoDuration(5_000_000_000);
/// Docker's time in which a new task is watched.
const MONITOR: GoDuration = GoDuration(5_000_000_000);

/// Builds the spec of a new service.
pub(crate) async fn build(ctx: &Context, flags: &Flags) -> Result<ServiceSpec, CliError> {
    let mut env = Vec::new();
    for path in flags.many::<String>("env-file") {
        let text = ctx.read_text(Path::new(&path)).await?;
        env.extend(opts::env_file(&text).map_err(|e| CliError::text(format!("invalid env file {path}: {e}")))?);
    }
    env.extend(flags.many::<String>("env"));
    from_flags(flags, env)
}

/// The spec, without reading files.
pub(crate) fn from_flags(flags: &Flags, env: Vec<String>) -> Result<ServiceSpec, CliError> {
    let words = flags.many::<String>("words");
    let (image, args) = words.split_first().ok_or_else(|| CliError::text("an image is required"))?;
    let (capability_add, capability_drop) = capabilities(flags.many("cap-add"), flags.many("cap-drop"));
    let mode = mode(flags)?;
    let mut labels = to_map(&flags.many("label"));
    extensions::apply(flags, is_job(&mode), &mut labels)?;
    let container = ContainerSpec {
        image: tagged(image)?,
        labels: to_map(&flags.many("container-label")),
        command: flags.one::<Words>("entrypoint").map(|w| w.0).unwrap_or_default(),
        args: args.to_vec(),
        hostname: flags.text("hostname"),
        env: last_of_each(env),
        dir: flags.text("workdir"),
        user: flags.text("user"),
        groups: flags.many("group"),
        privileges: flags
            .one::<CredentialSpec>("credential-spec")
            .filter(|_| flags.given_not_empty("credential-spec"))
            .map(|spec| Privileges { credential_spec: Some(spec), ..Privileges::default() }),
        init: Some(flags.switch("init")),
        stop_signal: flags.text("stop-signal"),
        tty: flags.switch("tty"),
        read_only: flags.switch("read-only"),
        mounts: flags.many::<Mount>("mount"),
        stop_grace_period: flags.one("stop-grace-period"),
        healthcheck: healthcheck(flags)?,
        hosts: flags.many("host"),
        dns_config: Some(DnsConfig {
            nameservers: flags.many("dns"),
            search: flags.many("dns-search"),
            options: flags.many("dns-option"),
        }),
        sysctls: to_map(&flags.many("sysctl")),
        capability_add,
        capability_drop,
        isolation: flags.text("isolation"),
        ulimits: sorted_ulimits(flags.many("ulimit")),
        oom_score_adj: flags.one("oom-score-adj").unwrap_or_default(),
        ..ContainerSpec::default()
    };
    let log_driver = flags.text("log-driver");
    Ok(ServiceSpec {
        name: flags.text("name"),
        labels,
        task_template: TaskSpec {
            container_spec: Some(container),
            resources: Some(resources(flags)?),
            restart_policy: restart_policy(flags, None)?,
            placement: Some(Placement {
                constraints: flags.many("constraint"),
                preferences: flags.many::<PlacementPreference>("placement-pref"),
                max_replicas: flags.one("replicas-max-per-node").unwrap_or_default(),
                ..Placement::default()
            }),
            networks: flags.many::<NetworkAttachmentConfig>("network"),
            log_driver: (!log_driver.is_empty())
                .then(|| Driver { name: log_driver, options: to_map(&flags.many("log-opt")) }),
            ..TaskSpec::default()
        },
        mode,
        update_config: update_config(flags, "update", None)?,
        rollback_config: update_config(flags, "rollback", None)?,
        endpoint_spec: Some(EndpointSpec {
            mode: endpoint_mode(flags)?.unwrap_or_else(|| "vip".to_owned()),
            ports: flags.many::<Ports>("publish").into_iter().flat_map(|p| p.0).collect(),
        }),
        ..ServiceSpec::default()
    })
}

/// An image reference with a tag: Docker adds `latest` where there is neither tag nor digest. One that cannot be a
/// reference is refused here: the daemon would only learn so from every node's engine.
pub(crate) fn tagged(image: &str) -> Result<String, CliError> {
    let bad = || CliError::text(format!("invalid reference format: {image:?} is not an image reference"));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c);
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    if !image.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        || !image.chars().all(allowed)
        || last.is_empty()
    {
        return Err(bad());
    }
    let repository =
        if last.contains(':') { &name[..name.len() - last.len() + last.find(':').unwrap_or(last.len())] } else { name };
    let path = repository.split_once('/').filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost");
    if path.map_or(repository, |(_, path)| path).contains(|c: char| c.is_ascii_uppercase()) {
        return Err(CliError::text(format!(
            "invalid reference format: repository name ({repository}) must be lowercase"
        )));
    }
    Ok(if image.contains('@') || last.contains(':') { image.to_owned() } else { format!("{image}:latest") })
}

/// The last value of each variable, where the first one stood.
pub(crate) fn last_of_each(env: Vec<String>) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut out: Vec<String> = Vec::new();
    for entry in env {
        match out.iter_mut().find(|e| name(e) == name(&entry)) {
            Some(earlier) => *earlier = entry,
            None => out.push(entry),
        }
    }
    out
}

/// What is added and dropped: to add wins over to drop, `ALL` over the rest, and both are sorted.
pub(crate) fn capabilities(add: Vec<String>, drop: Vec<String>) -> (Vec<String>, Vec<String>) {
    let tidy = |mut list: Vec<String>| {
        list.sort();
        list.dedup();
        if list.iter().any(|c| c == "ALL") { vec!["ALL".to_owned()] } else { list }
    };
    let add = tidy(add);
    let drop = tidy(drop).into_iter().filter(|c| !add.contains(c)).collect();
    (add, drop)
}

fn sorted_ulimits(mut ulimits: Vec<Ulimit>) -> Vec<Ulimit> {
    ulimits.sort_by(|a, b| a.name.cmp(&b.name));
    ulimits
}

/// `vip` or `dnsrr`.
pub(crate) fn endpoint_mode(flags: &Flags) -> Result<Option<String>, CliError> {
    Ok(flags.choice("endpoint-mode", &["vip", "dnsrr", "VIP", "DNSRR"])?.map(|mode| mode.to_ascii_lowercase()))
}

fn mode(flags: &Flags) -> Result<ServiceMode, CliError> {
    let mode = flags.one::<String>("mode").unwrap_or_else(|| "replicated".to_owned());
    let replicas = flags.one::<u64>("replicas");
    let max_concurrent = flags.one::<u64>("max-concurrent");
    let per_node = flags.one::<u64>("replicas-max-per-node").is_some_and(|n| n > 0);
    let no_numbers = || match () {
        () if replicas.is_some() => Some("replicas can only be used with replicated or replicated-job mode"),
        () if per_node => Some("replicas-max-per-node can only be used with replicated or replicated-job mode"),
        () => max_concurrent.map(|_| ONLY_JOBS_CONCURRENT),
    };
    let mut wanted = ServiceMode::default();
    let wrong = match mode.as_str() {
        "replicated" => {
            wanted.replicated = Some(ReplicatedService { replicas });
            max_concurrent.map(|_| ONLY_JOBS_CONCURRENT)
        }
        "global" => {
            wanted.global = Some(GlobalService {});
            no_numbers()
        }
        // The daemon knows what is meant when nothing is said.
        "replicated-job" | "cron-job" => {
            let max_concurrent = max_concurrent.or(replicas);
            wanted.replicated_job = Some(ReplicatedJob { max_concurrent, total_completions: replicas });
            None
        }
        "global-job" => {
            wanted.global_job = Some(GlobalService {});
            no_numbers()
        }
        _ => return Err(CliError::text(format!("Unknown mode: {mode}, only replicated and global supported"))),
    };
    let update_or_rollback =
        || UPDATE_FLAGS.iter().any(|f| flags.given(f) || flags.given(&f.replacen("update", "rollback", 1)));
    match wrong {
        Some(wrong) => Err(CliError::text(wrong)),
        None if is_job(&wanted) && update_or_rollback() => {
            Err(CliError::text("update and rollback configuration is not supported for jobs"))
        }
        None => Ok(wanted),
    }
}

/// What is said of `--max-concurrent` elsewhere.
pub(super) const ONLY_JOBS_CONCURRENT: &str = "max-concurrent can only be used with replicated-job mode";

/// True for a mode whose tasks end.
pub(super) fn is_job(mode: &ServiceMode) -> bool {
    mode.replicated_job.is_some() || mode.global_job.is_some()
}

const UPDATE_FLAGS: [&str; 6] = [
    "update-parallelism",
    "update-delay",
    "update-monitor",
    "update-failure-action",
    "update-max-failure-ratio",
    "update-order",
];

fn resources(flags: &Flags) -> Result<ResourceRequirements, CliError> {
    Ok(ResourceRequirements {
        limits: Some(Limit {
            nano_cpus: flags.one("limit-cpu").unwrap_or_default(),
            memory_bytes: flags.one("limit-memory").unwrap_or_default(),
            pids: flags.one("limit-pids").unwrap_or_default(),
        }),
        reservations: Some(Resources {
            nano_cpus: flags.one("reserve-cpu").unwrap_or_default(),
            memory_bytes: flags.one("reserve-memory").unwrap_or_default(),
            generic_resources: opts::generic_resources(&flags.many("generic-resource")).map_err(CliError::Text)?,
        }),
        swap_bytes: flags.one("memory-swap"),
        memory_swappiness: flags.one("memory-swappiness"),
    })
}

/// The restart policy after the flags: `before` with what they say, or Docker's default with it; `None` when neither is.
pub(crate) fn restart_policy(flags: &Flags, before: Option<RestartPolicy>) -> Result<Option<RestartPolicy>, CliError> {
    if !flags.any_given(&["restart-condition", "restart-delay", "restart-max-attempts", "restart-window"]) {
        return Ok(before);
    }
    let mut policy = before.unwrap_or_else(|| RestartPolicy {
        condition: "any".to_owned(),
        delay: Some(RESTART_DELAY),
        max_attempts: Some(0),
        window: None,
    });
    if let Some(condition) = flags.choice("restart-condition", &["none", "on-failure", "any"])? {
        policy.condition = condition;
    }
    policy.delay = flags.one("restart-delay").or(policy.delay);
    policy.max_attempts = flags.one("restart-max-attempts").or(policy.max_attempts);
    policy.window = flags.one("restart-window").or(policy.window);
    Ok(Some(policy))
}

/// The update (`kind` is `update`) or rollback configuration after the flags, as [`restart_policy`].
pub(crate) fn update_config(
    flags: &Flags,
    kind: &str,
    before: Option<UpdateConfig>,
) -> Result<Option<UpdateConfig>, CliError> {
    let name = |what: &str| format!("{kind}-{what}");
    let all = UPDATE_FLAGS.map(|flag| name(flag.trim_start_matches("update-")));
    if !all.iter().any(|flag| flags.given(flag)) {
        return Ok(before);
    }
    let mut config = before.unwrap_or_else(|| UpdateConfig {
        parallelism: 1,
        delay: GoDuration(0),
        failure_action: "pause".to_owned(),
        monitor: MONITOR,
        max_failure_ratio: Ratio(0.0),
        order: "stop-first".to_owned(),
    });
    let actions: &[&str] = if kind == "update" { &["pause", "continue", "rollback"] } else { &["pause", "continue"] };
    config.parallelism = flags.one(&name("parallelism")).unwrap_or(config.parallelism);
    config.delay = flags.one(&name("delay")).unwrap_or(config.delay);
    config.monitor = flags.one(&name("monitor")).unwrap_or(config.monitor);
    config.max_failure_ratio = flags.one(&name("max-failure-ratio")).map(Ratio).unwrap_or(config.max_failure_ratio);
    if let Some(action) = flags.choice(&name("failure-action"), actions)? {
        config.failure_action = action;
    }
    if let Some(order) = flags.choice(&name("order"), &["start-first", "stop-first"])? {
        config.order = order;
    }
    Ok(Some(config))
}

/// The health check that the flags ask for; `None` when they say nothing.
pub(crate) fn healthcheck(flags: &Flags) -> Result<Option<HealthConfig>, CliError> {
    let command = flags.text("health-cmd");
    let retries = flags.one::<i64>("health-retries").unwrap_or_default();
    let given = !command.is_empty() || retries != 0 || flags.any_given(&HEALTH_TIMES);
    if flags.switch("no-healthcheck") {
        if given {
            return Err(CliError::text(NO_HEALTHCHECK));
        }
        return Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() }));
    }
    Ok(given.then(|| HealthConfig {
        test: if command.is_empty() { Vec::new() } else { vec!["CMD-SHELL".to_owned(), command] },
        interval: flags.one("health-interval").unwrap_or_default(),
        timeout: flags.one("health-timeout").unwrap_or_default(),
        start_period: flags.one("health-start-period").unwrap_or_default(),
        start_interval: flags.one("health-start-interval").unwrap_or_default(),
        retries,
    }))
}

/// The flags of a health check that are durations.
pub(super) const HEALTH_TIMES: [&str; 4] =
    ["health-interval", "health-timeout", "health-start-period", "health-start-interval"];
/// What is said of a check that shall be and shall not be.
pub(super) const NO_HEALTHCHECK: &str = "--no-healthcheck conflicts with --health-* options";
