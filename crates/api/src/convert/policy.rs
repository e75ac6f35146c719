//! What the labels of the swarm say of things that Docker has no fields for.

use super::labels::{Labels, is_plain_path, list, size};
use docker_api::Failure;
use model::{AllowedDevices, Autopilot, ClusterPolicy, HostPolicy, RebalancePolicy, limits};
use std::collections::BTreeMap;

const PRIVILEGED: &str = "swarmlite.policy.privileged";
const DEVICES: &str = "swarmlite.policy.devices";
const SHM_SIZE: &str = "swarmlite.policy.shm-size";
const GPUS: &str = "swarmlite.policy.gpus";
const REBALANCE: &str = "swarmlite.rebalance";
const AUTOPILOT: &str = "swarmlite.autopilot";
const AUTOPILOT_AFTER: &str = "swarmlite.autopilot.after";
const ALL: [&str; 7] = [PRIVILEGED, DEVICES, SHM_SIZE, GPUS, REBALANCE, AUTOPILOT, AUTOPILOT_AFTER];

/// Reads the labels of a swarm. What they do not say is closed, or off.
pub(super) fn policy(labels: &BTreeMap<String, String>) -> Result<ClusterPolicy, Failure> {
    let labels = Labels::of("swarm", labels);
    labels.check_known(&ALL)?;
    let allowed = |label| labels.word(label, &[("allow", true), ("deny", false)]);
    let on = [("on", true), ("off", false)];
    let default = Autopilot::default();
    Ok(ClusterPolicy {
        host: HostPolicy {
            privileged: allowed(PRIVILEGED)?.unwrap_or(false),
            devices: devices(&labels)?,
            shm_size_bytes_max: labels.parsed(SHM_SIZE, "the largest size, such as 1g", size)?,
            gpus: allowed(GPUS)?.unwrap_or(false),
        },
        rebalance: labels
            .word(REBALANCE, &[("off", RebalancePolicy::Off), ("on-join", RebalancePolicy::OnJoin)])?
            .unwrap_or_default(),
        autopilot: Autopilot {
            on: labels.word(AUTOPILOT, &on)?.unwrap_or(default.on),
            after: labels.duration(AUTOPILOT_AFTER)?.unwrap_or(default.after),
        },
    })
}

fn devices(labels: &Labels<'_>) -> Result<AllowedDevices, Failure> {
    let what = "* or a list of paths such as /dev/fuse,/dev/kvm, of 64 devices at most";
    let allowed = labels.parsed(DEVICES, what, |text| {
        if text == "*" {
            return Some(AllowedDevices::All);
        }
        let paths: Vec<String> = list(text).map(str::to_owned).collect();
        let ok = paths.len() <= limits::DEVICES_MAX && paths.iter().all(|p| is_plain_path(p));
        ok.then_some(AllowedDevices::These(paths))
    })?;
    Ok(allowed.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(labels: &[(&str, &str)]) -> Result<ClusterPolicy, String> {
        policy(&labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()).map_err(|f| f.message)
    }

    #[test]
    fn all_is_closed_and_off_until_a_label_says_otherwise() {
        assert_eq!(read(&[("team", "core")]), Ok(ClusterPolicy::default()));
        let open = read(&[
            (PRIVILEGED, "allow"),
            (DEVICES, "/dev/fuse, /dev/kvm"),
            (SHM_SIZE, "1g"),
            (GPUS, "allow"),
            (REBALANCE, "on-join"),
            (AUTOPILOT, "on"),
            (AUTOPILOT_AFTER, "30m"),
        ]);
        let devices = AllowedDevices::These(vec!["/dev/fuse".into(), "/dev/kvm".into()]);
        let host = HostPolicy { privileged: true, devices, shm_size_bytes_max: Some(1 << 30), gpus: true };
        let autopilot = Autopilot { on: true, after: Duration::from_secs(1800) };
        assert_eq!(open, Ok(ClusterPolicy { host, rebalance: RebalancePolicy::OnJoin, autopilot }));
        let closed = read(&[(PRIVILEGED, "deny"), (GPUS, "deny"), (REBALANCE, "off"), (AUTOPILOT, "off")]);
        assert_eq!(closed, Ok(ClusterPolicy::default()));
        let any = read(&[(DEVICES, "*")]).map(|p| p.host.devices);
        assert_eq!(any, Ok(AllowedDevices::All));
        assert_eq!(read(&[(DEVICES, "")]), Ok(ClusterPolicy::default()));
    }

    #[test]
    fn a_policy_that_says_nothing_clear_is_refused() {
        for (label, value, part) in [
            (
                PRIVILEGED,
                "true",
                "invalid value \"true\" of the swarm label swarmlite.policy.privileged: give allow or deny",
            ),
            (DEVICES, "fuse", "give * or a list of paths"),
            (DEVICES, "/dev/../etc", "give * or a list of paths"),
            (SHM_SIZE, "0", "give the largest size"),
            (REBALANCE, "on", "give off or on-join"),
            (AUTOPILOT_AFTER, "10", "give a duration"),
            ("swarmlite.policy.privilegd", "deny", "the swarm label swarmlite.policy.privilegd is not known"),
            ("swarmlite.privileged", "true", "the swarm label swarmlite.privileged is not known"),
        ] {
            let error = read(&[(label, value)]).expect_err(label);
            assert!(error.contains(part), "{error}");
        }
    }
}
