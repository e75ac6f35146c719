//! Flags that Docker does not have. They ride on the service's labels, so that the unmodified Docker CLI and stack files can
//! say the same.

use super::flags::Flags;
use crate::error::CliError;
use std::collections::BTreeMap;

/// When a job runs by itself.
pub(super) const SCHEDULE: &str = "swarmlite.cron.schedule";
/// In which time zone that is meant.
pub(super) const TIMEZONE: &str = "swarmlite.cron.timezone";
const DEVICES: &str = "swarmlite.devices";
const PRIVILEGED: &str = "swarmlite.privileged";

/// Flags whose text becomes the label's. An empty one takes the label away.
const TEXTS: [(&str, &str); 9] = [
    ("schedule", SCHEDULE),
    ("timezone", TIMEZONE),
    ("missed-run-window", "swarmlite.cron.missed-run-window"),
    ("concurrency-policy", "swarmlite.cron.concurrency"),
    ("restart-backoff", "swarmlite.restart.backoff"),
    ("restart-backoff-max", "swarmlite.restart.backoff-max"),
    ("shm-size", "swarmlite.shm-size"),
    ("gpus", "swarmlite.gpus"),
    // A number, which has its own kind of flag.
    ("run-history", "swarmlite.cron.history"),
];

/// Flags that mean something beside a schedule only.
const OF_SCHEDULES: [&str; 4] = ["timezone", "missed-run-window", "concurrency-policy", "run-history"];

/// Puts into `labels` what the flags say. `is_job` when the service is one: only a job can have a schedule.
pub(super) fn apply(flags: &Flags, is_job: bool, labels: &mut BTreeMap<String, String>) -> Result<(), CliError> {
    for (flag, choices) in
        [("concurrency-policy", &["forbid", "allow", "replace"] as &[&str]), ("restart-backoff", &["on", "off"])]
    {
        if !flags.text(flag).is_empty() {
            flags.choice(flag, choices)?;
        }
    }
    for (flag, label) in TEXTS {
        let text = flags.one::<String>(flag).or_else(|| flags.one::<u64>(flag).map(|n| n.to_string()));
        match text.as_deref() {
            None => {}
            Some("") => drop(labels.remove(label)),
            Some(text) => drop(labels.insert(label.to_owned(), text.trim().to_owned())),
        }
    }
    match flags.switch_given("privileged") {
        None => {}
        Some(true) => drop(labels.insert(PRIVILEGED.to_owned(), "true".to_owned())),
        Some(false) => drop(labels.remove(PRIVILEGED)),
    }
    devices(flags, labels);
    check(flags, is_job, labels)
}

fn check(flags: &Flags, is_job: bool, labels: &BTreeMap<String, String>) -> Result<(), CliError> {
    let scheduled = labels.contains_key(SCHEDULE);
    if flags.text("mode") == "cron-job" && !scheduled {
        return Err(CliError::text("cron-job mode needs a schedule, such as --schedule \"0 3 * * *\""));
    }
    if scheduled && !is_job && flags.given("schedule") {
        return Err(CliError::text("schedule can only be used with cron-job, replicated-job or global-job mode"));
    }
    match OF_SCHEDULES.iter().find(|flag| flags.given(flag) && !scheduled) {
        Some(flag) => Err(CliError::text(format!("{flag} can only be used with a schedule"))),
        None => Ok(()),
    }
}

/// `--device` (or `--device-rm`, then `--device-add`): a list in one label. A device is known by its path on the host.
fn devices(flags: &Flags, labels: &mut BTreeMap<String, String>) {
    if !flags.any_given(&["device", "device-add", "device-rm"]) {
        return;
    }
    let before = labels.remove(DEVICES).unwrap_or_default();
    let mut devices: Vec<String> = before.split(',').filter(|d| !d.is_empty()).map(str::to_owned).collect();
    let host = |device: &str| device.split(':').next().unwrap_or_default().to_owned();
    let gone: Vec<String> = flags.many::<String>("device-rm").iter().map(|d| host(d)).collect();
    devices.retain(|d| !gone.contains(&host(d)));
    for new in flags.many::<String>("device").into_iter().chain(flags.many("device-add")) {
        devices.retain(|d| host(d) != host(&new));
        devices.push(new);
    }
    if !devices.is_empty() {
        labels.insert(DEVICES.to_owned(), devices.join(","));
    }
}
