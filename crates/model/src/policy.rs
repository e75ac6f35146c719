//! What an operator lets happen in a cluster by itself, and what services may use of its nodes. Closed and off by default.

use crate::HostAccess;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What may happen in a cluster beyond what Docker does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterPolicy {
    /// What services may use of their nodes.
    pub host: HostPolicy,
    /// When services are spread anew by themselves.
    pub rebalance: RebalancePolicy,
    /// Whether lost managers are replaced by spare ones.
    pub autopilot: Autopilot,
}

/// What services may use of their nodes. Closed by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostPolicy {
    /// Services may be privileged.
    pub privileged: bool,
    /// Devices that services may have, by their path on the node.
    pub devices: AllowedDevices,
    /// The largest `/dev/shm`, in bytes; `None` when its size is not for services to say.
    pub shm_size_bytes_max: Option<u64>,
    /// Services may have GPUs.
    pub gpus: bool,
}

/// Devices that services may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllowedDevices {
    /// Any.
    All,
    /// Those with these paths.
    These(Vec<String>),
}

/// When services are spread anew by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RebalancePolicy {
    /// Never.
    #[default]
    Off,
    /// When a node joins or comes back.
    OnJoin,
}

/// Whether lost managers are replaced by spare ones: nodes with the label [`SPARE_MANAGER_LABEL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Autopilot {
    /// They are.
    pub on: bool,
    /// A manager counts as lost after so long.
    pub after: Duration,
}

/// The label of nodes that autopilot may promote; its value is `true`.
pub const SPARE_MANAGER_LABEL: &str = "swarmlite.spare-manager";

/// How the pause before a restart grows while a task keeps failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backoff {
    /// It grows.
    pub on: bool,
    /// The longest pause.
    pub max: Duration,
}

/// What a service wants of its nodes and the cluster does not let it have. The text says which label of the swarm would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostAccessDenied {
    /// All of it.
    #[error(
        "the swarm's policy does not let services be privileged: an operator allows it with the swarm label \
         swarmlite.policy.privileged=allow"
    )]
    Privileged,
    /// A device.
    #[error(
        "the swarm's policy does not let services have the device {0}: an operator allows it by naming it in the swarm label \
         swarmlite.policy.devices"
    )]
    Device(String),
    /// A `/dev/shm` of any size of its own.
    #[error(
        "the swarm's policy does not let services choose the size of /dev/shm: an operator allows it with the largest size as \
         the swarm label swarmlite.policy.shm-size"
    )]
    ShmSize,
    /// A larger `/dev/shm` than any service may have.
    #[error(
        "the swarm's policy lets services have a /dev/shm of at most {max} bytes, and this one wants {wanted}: an operator \
         allows more with the swarm label swarmlite.policy.shm-size"
    )]
    ShmSizeTooLarge {
        /// Bytes that it wants.
        wanted: u64,
        /// Bytes that it may have.
        max: u64,
    },
    /// GPUs.
    #[error(
        "the swarm's policy does not let services have GPUs: an operator allows it with the swarm label \
         swarmlite.policy.gpus=allow"
    )]
    Gpus,
}

// === impl HostPolicy ===

impl HostPolicy {
    /// Whether a service may have all that it wants. It is asked when a spec comes in; what runs goes on running when the
    /// policy is tightened.
    pub fn check(&self, wanted: &HostAccess) -> Result<(), HostAccessDenied> {
        if wanted.privileged && !self.privileged {
            return Err(HostAccessDenied::Privileged);
        }
        if let Some(device) = wanted.devices.iter().find(|d| !self.devices.has(&d.on_host)) {
            return Err(HostAccessDenied::Device(device.on_host.clone()));
        }
        match (wanted.shm_size_bytes, self.shm_size_bytes_max) {
            (Some(_), None) => return Err(HostAccessDenied::ShmSize),
            (Some(wanted), Some(max)) if wanted > max => {
                return Err(HostAccessDenied::ShmSizeTooLarge { wanted, max });
            }
            _ => {}
        }
        if wanted.gpus.is_some() && !self.gpus {
            return Err(HostAccessDenied::Gpus);
        }
        Ok(())
    }
}

impl AllowedDevices {
    /// Services may have the device with this path on the node.
    pub fn has(&self, path: &str) -> bool {
        match self {
            AllowedDevices::All => true,
            AllowedDevices::These(paths) => paths.iter().any(|p| p == path),
        }
    }
}

impl Default for AllowedDevices {
    fn default() -> Self {
        AllowedDevices::These(Vec::new())
    }
}

impl Default for Autopilot {
    fn default() -> Self {
        Autopilot { on: false, after: crate::limits::AUTOPILOT_AFTER_DEFAULT }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { on: true, max: crate::limits::RESTART_BACKOFF_MAX_DEFAULT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Gpus};

    #[test]
    fn nothing_is_allowed_that_was_not_opened() {
        let device = |path: &str| Device { on_host: path.into(), in_container: path.into(), permissions: "rwm".into() };
        let closed = HostPolicy::default();
        let open = HostPolicy {
            privileged: true,
            devices: AllowedDevices::These(vec!["/dev/fuse".into()]),
            shm_size_bytes_max: Some(1 << 20),
            gpus: true,
        };
        let none = HostAccess::default();
        let privileged = HostAccess { privileged: true, ..none.clone() };
        let fuse = HostAccess { devices: vec![device("/dev/fuse")], ..none.clone() };
        let both = HostAccess { devices: vec![device("/dev/fuse"), device("/dev/kvm")], ..none.clone() };
        let shm = |bytes| HostAccess { shm_size_bytes: Some(bytes), ..HostAccess::default() };
        let gpus = HostAccess { gpus: Some(Gpus::All), ..none.clone() };
        let kvm = HostAccessDenied::Device("/dev/kvm".into());
        let too_large = HostAccessDenied::ShmSizeTooLarge { wanted: (1 << 20) + 1, max: 1 << 20 };
        for (wanted, when_closed, when_open) in [
            (&none, Ok(()), Ok(())),
            (&privileged, Err(HostAccessDenied::Privileged), Ok(())),
            (&fuse, Err(HostAccessDenied::Device("/dev/fuse".into())), Ok(())),
            (&both, Err(HostAccessDenied::Device("/dev/fuse".into())), Err(kvm)),
            (&shm(1 << 20), Err(HostAccessDenied::ShmSize), Ok(())),
            (&shm((1 << 20) + 1), Err(HostAccessDenied::ShmSize), Err(too_large)),
            (&gpus, Err(HostAccessDenied::Gpus), Ok(())),
        ] {
            assert_eq!(closed.check(wanted), when_closed, "{wanted:?}");
            assert_eq!(open.check(wanted), when_open, "{wanted:?}");
        }
        let any = HostPolicy { devices: AllowedDevices::All, ..HostPolicy::default() };
        assert_eq!(any.check(&both), Ok(()));
    }
}
