//! What the labels of a service say of things that Docker has no fields for: an unmodified client and a stack file can say them
//! too. Labels that begin like ours and are none are refused: a typo in one would be a setting that silently is not there.

use docker_api::{Failure, GoDuration, ram_in_bytes};
use model::{Backoff, Concurrency, CronSpec, Device, Gpus, HostAccess, Mode, UpdateBy, limits};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

/// How the labels begin that are ours.
pub(super) const PREFIX: &str = "swarmlite.";

const SCHEDULE: &str = "swarmlite.cron.schedule";
const TIMEZONE: &str = "swarmlite.cron.timezone";
const MISSED_RUN_WINDOW: &str = "swarmlite.cron.missed-run-window";
const CONCURRENCY: &str = "swarmlite.cron.concurrency";
const HISTORY: &str = "swarmlite.cron.history";
const BACKOFF: &str = "swarmlite.restart.backoff";
const BACKOFF_MAX: &str = "swarmlite.restart.backoff-max";
const PRIVILEGED: &str = "swarmlite.privileged";
const DEVICES: &str = "swarmlite.devices";
const SHM_SIZE: &str = "swarmlite.shm-size";
const GPUS: &str = "swarmlite.gpus";

/// Those that only a service with a schedule may have.
const OF_A_SCHEDULE: [&str; 4] = [TIMEZONE, MISSED_RUN_WINDOW, CONCURRENCY, HISTORY];
const OTHERS: [&str; 8] = [SCHEDULE, BACKOFF, BACKOFF_MAX, PRIVILEGED, DEVICES, SHM_SIZE, GPUS, UpdateBy::LABEL];

/// How late a run may still start, unless the service says otherwise.
const MISSED_RUN_WINDOW_DEFAULT: Duration = Duration::from_secs(60);
/// Finished runs that are kept, unless the service says otherwise.
const HISTORY_DEFAULT: u32 = 3;

/// What the labels of a service say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Extensions {
    pub(super) cron: Option<CronSpec>,
    pub(super) backoff: Backoff,
    pub(super) host_access: HostAccess,
}

/// The labels of one object, of a kind that errors name.
pub(super) struct Labels<'a> {
    kind: &'static str,
    all: &'a BTreeMap<String, String>,
}

/// Reads the labels of a service with this mode.
pub(super) fn extensions(labels: &BTreeMap<String, String>, mode: &Mode) -> Result<Extensions, Failure> {
    let labels = Labels::of("service", labels);
    labels.check_known(&[&OF_A_SCHEDULE[..], &OTHERS].concat())?;
    Ok(Extensions { cron: cron(&labels, mode)?, backoff: backoff(&labels)?, host_access: host_access(&labels)? })
}

fn cron(labels: &Labels<'_>, mode: &Mode) -> Result<Option<CronSpec>, Failure> {
    let Some(schedule) = labels.get(SCHEDULE) else {
        return match OF_A_SCHEDULE.into_iter().find(|l| labels.get(l).is_some()) {
            Some(alone) => Err(Failure::invalid(format_args!(
                "the service label {alone} says something of a schedule, and there is none: give {SCHEDULE} too, or leave it out"
            ))),
            None => Ok(None),
        };
    };
    if !mode.is_job() {
        return Err(Failure::invalid(format_args!(
            "only a job runs by a schedule, and the service is {}: give it the mode replicated-job or global-job, or leave out \
             the service label {SCHEDULE}",
            mode.as_str()
        )));
    }
    let concurrency = labels.word(
        CONCURRENCY,
        &[("forbid", Concurrency::Forbid), ("allow", Concurrency::Allow), ("replace", Concurrency::Replace)],
    )?;
    let history = labels.parsed(HISTORY, "a number of finished runs to keep, 100 at most", |text| {
        text.parse().ok().filter(|n| *n <= limits::CRON_HISTORY_MAX)
    })?;
    let wrong = |label: &str, why: &dyn Display| Failure::invalid(format_args!("the service label {label}: {why}"));
    Ok(Some(CronSpec {
        schedule: schedule.parse().map_err(|e| wrong(SCHEDULE, &e))?,
        timezone: labels.get(TIMEZONE).unwrap_or("UTC").parse().map_err(|e| wrong(TIMEZONE, &e))?,
        missed_run_window: labels.duration(MISSED_RUN_WINDOW)?.unwrap_or(MISSED_RUN_WINDOW_DEFAULT),
        concurrency: concurrency.unwrap_or_default(),
        history: history.unwrap_or(HISTORY_DEFAULT),
    }))
}

fn backoff(labels: &Labels<'_>) -> Result<Backoff, Failure> {
    let default = Backoff::default();
    Ok(Backoff {
        on: labels.word(BACKOFF, &[("on", true), ("off", false)])?.unwrap_or(default.on),
        max: labels.duration(BACKOFF_MAX)?.unwrap_or(default.max),
    })
}

fn host_access(labels: &Labels<'_>) -> Result<HostAccess, Failure> {
    let shm_size_bytes = labels.parsed(SHM_SIZE, "a size such as 64m or 1g", size)?;
    let gpus = labels.parsed(GPUS, "all, a number, or device= and the ids, such as device=0,2", gpus)?;
    Ok(HostAccess {
        privileged: labels.word(PRIVILEGED, &[("true", true), ("false", false)])?.unwrap_or(false),
        devices: devices(labels)?,
        shm_size_bytes,
        gpus,
    })
}

fn devices(labels: &Labels<'_>) -> Result<Vec<Device>, Failure> {
    let what = "a list such as /dev/fuse,/dev/sda:/dev/xvda:r, of 64 devices at most";
    let devices = labels.parsed(DEVICES, what, |text| {
        let devices: Option<Vec<Device>> = list(text).map(device).collect();
        devices.filter(|d| d.len() <= limits::DEVICES_MAX)
    })?;
    Ok(devices.unwrap_or_default())
}

/// `/dev/x`, `/dev/x:/dev/y`, `/dev/x:rw` or `/dev/x:/dev/y:rw`, as `docker run --device` has it.
fn device(text: &str) -> Option<Device> {
    let mut parts = text.split(':');
    let on_host = parts.next()?;
    let (second, third) = (parts.next(), parts.next());
    let (in_container, permissions) = match (second, third) {
        (None, None) => (on_host, "rwm"),
        (Some(permissions), None) if is_permissions(permissions) => (on_host, permissions),
        (Some(in_container), permissions) => (in_container, permissions.unwrap_or("rwm")),
        (None, Some(_)) => return None,
    };
    let ok =
        parts.next().is_none() && is_plain_path(on_host) && is_plain_path(in_container) && is_permissions(permissions);
    ok.then(|| Device {
        on_host: on_host.to_owned(),
        in_container: in_container.to_owned(),
        permissions: permissions.to_owned(),
    })
}

fn is_permissions(text: &str) -> bool {
    let once = |c: char| text.matches(c).count() <= 1;
    !text.is_empty() && text.chars().all(|c| "rwm".contains(c) && once(c))
}

/// An absolute path with no way around: a policy compares it as text.
pub(super) fn is_plain_path(path: &str) -> bool {
    path.len() <= limits::TARGET_PATH_BYTES_MAX
        && !path.contains('\0')
        && path.strip_prefix('/').is_some_and(|p| p.split('/').all(|c| !matches!(c, "" | "." | "..")))
}

fn gpus(text: &str) -> Option<Gpus> {
    if text == "all" {
        return Some(Gpus::All);
    }
    if let Some(ids) = text.strip_prefix("device=") {
        let ids: Vec<String> = list(ids).map(str::to_owned).collect();
        return (!ids.is_empty() && ids.len() <= limits::DEVICES_MAX).then_some(Gpus::Ids(ids));
    }
    text.parse().ok().filter(|n| *n > 0).map(Gpus::Count)
}

/// More than nothing.
pub(super) fn size(text: &str) -> Option<u64> {
    ram_in_bytes(text).ok().filter(|n| *n > 0)
}

/// The parts of a list with commas.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|p| !p.is_empty())
}

// === impl Labels ===

impl<'a> Labels<'a> {
    pub(super) fn of(kind: &'static str, all: &'a BTreeMap<String, String>) -> Labels<'a> {
        Labels { kind, all }
    }

    /// Refuses labels that begin like ours and are not known.
    pub(super) fn check_known(&self, known: &[&str]) -> Result<(), Failure> {
        let ours = self.all.range(PREFIX.to_owned()..).map(|(k, _)| k).take_while(|k| k.starts_with(PREFIX));
        match ours.into_iter().find(|k| !known.contains(&k.as_str())) {
            None => Ok(()),
            Some(unknown) => {
                let unknown: String = unknown.chars().take(64).collect();
                Err(Failure::invalid(format_args!(
                    "the {} label {unknown} is not known: those that begin with {PREFIX} are {}",
                    self.kind,
                    known.join(", ")
                )))
            }
        }
    }

    pub(super) fn get(&self, label: &str) -> Option<&'a str> {
        self.all.get(label).map(String::as_str)
    }

    /// A label's value, if there is one; an error says that it must be `what`.
    pub(super) fn parsed<T>(
        &self,
        label: &str,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.get(label) else { return Ok(None) };
        match parse(text.trim()) {
            Some(value) => Ok(Some(value)),
            None => {
                let shown: String = text.chars().take(64).collect();
                Err(Failure::invalid(format_args!(
                    "invalid value {shown:?} of the {} label {label}: give {what}",
                    self.kind
                )))
            }
        }
    }

    /// One of several words.
    pub(super) fn word<T: Clone>(&self, label: &str, words: &[(&str, T)]) -> Result<Option<T>, Failure> {
        let what: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.parsed(label, &what.join(" or "), |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone())
        })
    }

    /// A duration in Go's form that is more than nothing.
    pub(super) fn duration(&self, label: &str) -> Result<Option<Duration>, Failure> {
        self.parsed(label, "a duration such as 90s or 1h30m", |text| {
            text.parse::<GoDuration>().ok().and_then(GoDuration::to_std).filter(|d| *d > Duration::ZERO)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Mode = Mode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };

    fn read(mode: &Mode, labels: &[(&str, &str)]) -> Result<Extensions, String> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        extensions(&labels, mode).map_err(|f| f.message)
    }

    fn device_of(on_host: &str, in_container: &str, permissions: &str) -> Device {
        Device { on_host: on_host.into(), in_container: in_container.into(), permissions: permissions.into() }
    }

    #[test]
    fn no_label_says_what_docker_does() {
        let nothing = read(&Mode::Global, &[("team", "core"), ("swarmlit", "x"), ("swarmlitf.x", "y")]);
        assert_eq!(nothing, Ok(Extensions::default()));
    }

    #[test]
    fn devices_are_as_docker_run_has_them() {
        for (text, devices) in [
            ("/dev/fuse", Some(vec![device_of("/dev/fuse", "/dev/fuse", "rwm")])),
            ("/dev/sda:/dev/xvda", Some(vec![device_of("/dev/sda", "/dev/xvda", "rwm")])),
            ("/dev/sda:r", Some(vec![device_of("/dev/sda", "/dev/sda", "r")])),
            (
                "/dev/sda:/dev/xvda:rw, /dev/kvm",
                Some(vec![device_of("/dev/sda", "/dev/xvda", "rw"), device_of("/dev/kvm", "/dev/kvm", "rwm")]),
            ),
            ("", Some(vec![])),
            ("fuse", None),
            ("/dev/../etc/x", None),
            ("/dev//x", None),
            ("/", None),
            ("/dev/x:/dev/y:rwx", None),
            ("/dev/x:/dev/y:rr", None),
            ("/dev/x:/dev/y:", None),
            ("/dev/x:/dev/y:r:w", None),
            ("/dev/x:y", None),
        ] {
            let read = read(&Mode::Global, &[(DEVICES, text)]).map(|e| e.host_access.devices);
            assert_eq!(read.ok(), devices, "{text}");
        }
    }

    #[test]
    fn the_rest_of_host_access() {
        let read = |label, text| read(&Mode::Global, &[(label, text)]).map(|e| e.host_access);
        let none = HostAccess::default();
        for (label, text, expected) in [
            (PRIVILEGED, "true", Some(HostAccess { privileged: true, ..none.clone() })),
            (PRIVILEGED, "false", Some(none.clone())),
            (PRIVILEGED, "yes", None),
            (SHM_SIZE, "64m", Some(HostAccess { shm_size_bytes: Some(64 << 20), ..none.clone() })),
            (SHM_SIZE, "0", None),
            (SHM_SIZE, "much", None),
            (GPUS, "all", Some(HostAccess { gpus: Some(Gpus::All), ..none.clone() })),
            (GPUS, "2", Some(HostAccess { gpus: Some(Gpus::Count(2)), ..none.clone() })),
            (
                GPUS,
                "device=0,GPU-1",
                Some(HostAccess { gpus: Some(Gpus::Ids(vec!["0".into(), "GPU-1".into()])), ..none.clone() }),
            ),
            (GPUS, "0", None),
            (GPUS, "device=", None),
            (GPUS, "some", None),
        ] {
            assert_eq!(read(label, text).ok(), expected, "{label}={text}");
        }
    }

    #[test]
    fn errors_name_the_label_and_what_to_give() {
        let invalid = |text: &str| Err(format!("rpc error: code = InvalidArgument desc = {text}"));
        assert_eq!(
            read(&JOB, &[(PRIVILEGED, "maybe")]),
            invalid("invalid value \"maybe\" of the service label swarmlite.privileged: give true or false")
        );
        assert_eq!(
            read(&JOB, &[(BACKOFF_MAX, "5")]),
            invalid(
                "invalid value \"5\" of the service label swarmlite.restart.backoff-max: give a duration such as 90s or 1h30m"
            )
        );
        let unknown = read(&JOB, &[("swarmlite.cron.shedule", "@daily")]).expect_err("a typo");
        assert!(unknown.contains("the service label swarmlite.cron.shedule is not known"), "{unknown}");
        assert!(unknown.contains(SCHEDULE) && unknown.contains(UpdateBy::LABEL), "{unknown}");
    }

    #[test]
    fn backoff_is_on_until_it_is_off() {
        let read = |labels: &[(&str, &str)]| read(&Mode::Global, labels).map(|e| e.backoff);
        assert_eq!(read(&[]), Ok(Backoff { on: true, max: Duration::from_secs(300) }));
        let off = read(&[(BACKOFF, "off"), (BACKOFF_MAX, "1m")]);
        assert_eq!(off, Ok(Backoff { on: false, max: Duration::from_secs(60) }));
        assert!(read(&[(BACKOFF, "no")]).is_err());
    }

    #[test]
    fn only_a_job_has_a_schedule() {
        let read = |mode: &Mode, labels: &[(&str, &str)]| read(mode, labels).map(|e| e.cron);
        let cron = read(&JOB, &[(SCHEDULE, "@hourly")]).expect("a schedule").expect("there is one");
        assert_eq!(
            (cron.missed_run_window, cron.concurrency, cron.history),
            (Duration::from_secs(60), Concurrency::Forbid, 3)
        );
        let all = [
            (SCHEDULE, "30 3 * * 1"),
            (TIMEZONE, "Europe/Berlin"),
            (MISSED_RUN_WINDOW, "10m"),
            (CONCURRENCY, "replace"),
            (HISTORY, "7"),
        ];
        let cron = read(&Mode::GlobalJob, &all).expect("a schedule").expect("there is one");
        assert_eq!(
            (cron.missed_run_window, cron.concurrency, cron.history),
            (Duration::from_secs(600), Concurrency::Replace, 7)
        );
        for (mode, labels, part) in [
            (&Mode::Global, &[(SCHEDULE, "@hourly")][..], "only a job runs by a schedule, and the service is global"),
            (&JOB, &[(TIMEZONE, "UTC")], "swarmlite.cron.timezone says something of a schedule, and there is none"),
            (&JOB, &[(SCHEDULE, "every day")], "the service label swarmlite.cron.schedule: "),
            (
                &JOB,
                &[(SCHEDULE, "@hourly"), (TIMEZONE, "Mars")],
                "the service label swarmlite.cron.timezone: unknown time zone",
            ),
            (&JOB, &[(SCHEDULE, "@hourly"), (CONCURRENCY, "queue")], "give forbid or allow or replace"),
            (&JOB, &[(SCHEDULE, "@hourly"), (HISTORY, "101")], "100 at most"),
            (&JOB, &[(SCHEDULE, "@hourly"), (MISSED_RUN_WINDOW, "-1m")], "give a duration"),
        ] {
            let error = read(mode, labels).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }
}
