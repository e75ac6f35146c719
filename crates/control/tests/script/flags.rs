//! The flags of `service create` and `service update`, by the names that `docker service` has for them.

use super::{duration, number};
use model::*;
use std::sync::Arc;
use std::time::Duration;

/// Flags that stand alone.
const SWITCHES: &[&str] = &["--force"];

/// Takes the flags off the words, one after another; what is left are the names.
pub(crate) fn take<'a>(
    words: &[&'a str],
    mut f: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<Vec<&'a str>, String> {
    let mut rest = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            rest.push(*word);
        } else if SWITCHES.contains(word) {
            f(word, "")?;
        } else {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            f(word, value)?;
        }
    }
    Ok(rest)
}

/// Sets what a flag says.
pub(crate) fn set(spec: &mut ServiceSpec, flag: &str, value: &str) -> Result<(), String> {
    if let Some(rest) = flag.strip_prefix("--update-") {
        return set_update(spec.update.get_or_insert_default(), rest, value);
    }
    if let Some(rest) = flag.strip_prefix("--rollback-") {
        return set_update(spec.rollback.get_or_insert_default(), rest, value);
    }
    if let Some(rest) = flag.strip_prefix("--restart-") {
        return set_restart(spec, rest, value);
    }
    if flag.starts_with("--cron-") {
        return set_cron(spec, flag, value);
    }
    match flag {
        "--name" => spec.name = value.parse().map_err(|e| format!("{value}: {e}"))?,
        "--label-add" => {
            let (key, value) = value.split_once('=').unwrap_or((value, ""));
            spec.labels.insert(key.into(), value.into());
        }
        "--mode" | "--replicas" | "--max-concurrent" => spec.mode = mode(&spec.mode, flag, value)?,
        "--publish-host" => spec.endpoint = Some(crate::common::host_port(number(value)?)),
        _ => set_task(Arc::make_mut(&mut spec.task), flag, value)?,
    }
    Ok(())
}

fn mode(old: &Mode, flag: &str, value: &str) -> Result<Mode, String> {
    Ok(match (flag, value, old) {
        ("--mode", "replicated", _) => Mode::Replicated { replicas: 1 },
        ("--mode", "global", _) => Mode::Global,
        ("--mode", "replicated-job", _) => Mode::ReplicatedJob { max_concurrent: 1, total_completions: 1 },
        ("--mode", "global-job", _) => Mode::GlobalJob,
        ("--replicas", n, Mode::Replicated { .. }) => Mode::Replicated { replicas: number(n)? },
        ("--replicas", n, Mode::ReplicatedJob { max_concurrent, .. }) => {
            Mode::ReplicatedJob { max_concurrent: *max_concurrent, total_completions: number(n)? }
        }
        ("--max-concurrent", n, Mode::ReplicatedJob { total_completions, .. }) => {
            Mode::ReplicatedJob { max_concurrent: number(n)?, total_completions: *total_completions }
        }
        _ => return Err(format!("{flag} {value} does not go with mode {}", old.as_str())),
    })
}

fn set_task(task: &mut TaskSpec, flag: &str, value: &str) -> Result<(), String> {
    match flag {
        "--image" => task.container_mut().unwrap().image = value.into(),
        "--plugin" => task.runtime = PluginSpec { name: value.into(), ..PluginSpec::default() }.into(),
        "--remote" => task.plugin_mut().ok_or("its tasks are no plugins")?.remote = value.into(),
        "--plugin-disabled" => task.plugin_mut().ok_or("its tasks are no plugins")?.disabled = value == "true",
        "--force" => task.force_update += 1,
        "--env" => task.container_mut().unwrap().env.push(value.into()),
        "--reserve-cpu" => reservations(task).nano_cpus = cpus(value)?,
        "--reserve-memory" => reservations(task).memory_bytes = bytes(value)?,
        "--generic-resource" => {
            let (kind, amount) = value.split_once('=').ok_or("a generic resource is KIND=NUMBER")?;
            let generic = &mut task.resources.get_or_insert_default().generic;
            generic.push(GenericRequest { kind: kind.into(), amount: number(amount)? });
        }
        "--log-driver" => task.log_driver = Some(LogDriver { name: value.into(), ..LogDriver::default() }),
        "--volume-driver" => task.container_mut().unwrap().mounts.push(Mount {
            source: "data".into(),
            target: "/data".into(),
            volume_driver: value.into(),
            ..Mount::default()
        }),
        _ => set_placement(task.placement.get_or_insert_default(), flag, value)?,
    }
    Ok(())
}

fn set_placement(placement: &mut Placement, flag: &str, value: &str) -> Result<(), String> {
    match flag {
        "--constraint" | "--constraint-add" => {
            placement.constraints.push(value.parse().map_err(|e| format!("{value}: {e}"))?);
        }
        "--constraint-rm" => placement.constraints.retain(|c| c.to_string() != value),
        "--placement-pref" => {
            let over = value.strip_prefix("spread=").ok_or("a preference is spread=SOMETHING")?;
            placement.preferences.push(Preference::Spread(over.into()));
        }
        "--replicas-max-per-node" => placement.max_replicas = number(value)?,
        "--platform" => {
            let (os, architecture) = value.split_once('/').ok_or("a platform is OS/ARCHITECTURE")?;
            placement.platforms.push(Platform { architecture: architecture.into(), os: os.into() });
        }
        _ => return Err(format!("{flag} is no flag that scenarios know")),
    }
    Ok(())
}

fn reservations(task: &mut TaskSpec) -> &mut Resources {
    task.resources.get_or_insert_default().reservations.get_or_insert_default()
}

fn set_update(config: &mut UpdateConfig, what: &str, value: &str) -> Result<(), String> {
    match what {
        "parallelism" => config.parallelism = number(value)?,
        "delay" => config.delay = duration(value)?,
        "monitor" => config.monitor = Some(duration(value)?),
        "failure-action" => {
            config.failure_action = match value {
                "pause" => FailureAction::Pause,
                "continue" => FailureAction::Continue,
                "rollback" => FailureAction::Rollback,
                _ => return Err(format!("{value:?} is no failure action")),
            };
        }
        "max-failure-ratio" => config.max_failure_ratio_ppm = (number::<f64>(value)? * 1e6) as u32,
        "order" => {
            config.order = match value {
                "stop-first" => UpdateOrder::StopFirst,
                "start-first" => UpdateOrder::StartFirst,
                _ => return Err(format!("{value:?} is no order")),
            };
        }
        _ => return Err(format!("--update-{what} is no flag")),
    }
    Ok(())
}

fn set_restart(spec: &mut ServiceSpec, what: &str, value: &str) -> Result<(), String> {
    match (what, value) {
        ("backoff", "off") => spec.backoff.on = false,
        ("backoff", "on") => spec.backoff.on = true,
        ("backoff-max", _) => spec.backoff.max = duration(value)?,
        _ => {
            let policy = Arc::make_mut(&mut spec.task).restart.get_or_insert_default();
            match what {
                "condition" => {
                    policy.condition = Some(match value {
                        "none" => RestartCondition::None,
                        "on-failure" => RestartCondition::OnFailure,
                        "any" => RestartCondition::Any,
                        _ => return Err(format!("{value:?} is no condition")),
                    });
                }
                "delay" => policy.delay = Some(duration(value)?),
                "max-attempts" => policy.max_attempts = Some(number(value)?),
                "window" => policy.window = Some(duration(value)?),
                _ => return Err(format!("--restart-{what} is no flag")),
            }
        }
    }
    Ok(())
}

fn set_cron(spec: &mut ServiceSpec, flag: &str, value: &str) -> Result<(), String> {
    let text = |value: &str| value.replace('_', " ");
    let cron = spec.cron.get_or_insert_with(|| CronSpec {
        schedule: "@hourly".parse().expect("it is a schedule"),
        timezone: "UTC".parse().expect("it is a time zone"),
        missed_run_window: Duration::from_secs(60),
        concurrency: Concurrency::Forbid,
        history: 3,
    });
    match flag {
        "--cron-schedule" => cron.schedule = text(value).parse().map_err(|e| format!("{value}: {e}"))?,
        "--cron-timezone" => cron.timezone = value.parse().map_err(|e| format!("{value}: {e}"))?,
        "--cron-window" => cron.missed_run_window = duration(value)?,
        "--cron-history" => cron.history = number(value)?,
        "--cron-concurrency" => {
            cron.concurrency = match value {
                "forbid" => Concurrency::Forbid,
                "allow" => Concurrency::Allow,
                "replace" => Concurrency::Replace,
                _ => return Err(format!("{value:?} is no concurrency")),
            };
        }
        _ => return Err(format!("{flag} is no flag")),
    }
    Ok(())
}

/// `0.5` of a CPU, in billionths.
pub(crate) fn cpus(text: &str) -> Result<i64, String> {
    Ok((number::<f64>(text)? * 1e9) as i64)
}

/// `512m`, `8g`.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let (digits, unit) = text.split_at(text.len() - 1);
    let shift = match unit {
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("{text:?} needs m or g")),
    };
    Ok(number::<i64>(digits)? << shift)
}

/// A service that says nothing but its name and image.
pub(crate) fn plain(name: &str, image: &str) -> Result<ServiceSpec, String> {
    Ok(ServiceSpec {
        name: name.parse().map_err(|e| format!("{name}: {e}"))?,
        labels: Default::default(),
        task: Arc::new(crate::common::image(image)),
        mode: Mode::Replicated { replicas: 1 },
        update: None,
        rollback: None,
        endpoint: None,
        cron: None,
        backoff: Backoff::default(),
    })
}

/// A time in words: `1h30m`, `5s`, `200ms`.
pub(crate) fn words(time: Duration) -> String {
    let s = time.as_secs();
    match (s / 3600, s % 3600 / 60, s % 60) {
        (0, 0, 0) => format!("{}ms", time.as_millis()),
        (0, 0, s) => format!("{s}s"),
        (0, m, 0) => format!("{m}m"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, 0, _) => format!("{h}h"),
        (h, m, _) => format!("{h}h{m}m"),
    }
}
