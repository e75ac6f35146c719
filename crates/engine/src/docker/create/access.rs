//! What a container is kept from, and what it is given of its node, in Docker's terms.

use super::some_list;
use bollard::models::{DeviceMapping, DeviceRequest, HostConfig};
use model::{AppArmor, Gpus, HostAccess, Privileges, Seccomp};

/// The security options of `docker run`, which Docker Swarm's executor makes of a service's privileges. What says `default` is
/// left to the engine.
pub(super) fn security_options(privileges: &Privileges) -> Vec<String> {
    let mut options = Vec::new();
    if let Some(selinux) = &privileges.selinux {
        if selinux.disable {
            options.push("label=disable".to_owned());
        }
        let labels =
            [("user", &selinux.user), ("role", &selinux.role), ("level", &selinux.level), ("type", &selinux.kind)];
        let given = labels.into_iter().filter(|(_, value)| !value.is_empty());
        options.extend(given.map(|(key, value)| format!("label={key}:{value}")));
    }
    match &privileges.seccomp {
        None | Some(Seccomp::Default) => {}
        Some(Seccomp::Unconfined) => options.push("seccomp=unconfined".to_owned()),
        Some(Seccomp::Custom(profile)) => options.push(format!("seccomp={profile}")),
    }
    if privileges.apparmor == Some(AppArmor::Disabled) {
        options.push("apparmor=unconfined".to_owned());
    }
    if privileges.no_new_privileges {
        options.push("no-new-privileges=true".to_owned());
    }
    options
}

/// What `docker run --privileged --device --shm-size --gpus` says.
pub(super) fn grant(host: &mut HostConfig, access: &HostAccess) {
    host.privileged = access.privileged.then_some(true);
    let devices: Vec<DeviceMapping> = access
        .devices
        .iter()
        .map(|device| DeviceMapping {
            path_on_host: Some(device.on_host.clone()),
            path_in_container: Some(device.in_container.clone()),
            cgroup_permissions: Some(device.permissions.clone()),
        })
        .collect();
    host.devices = some_list(&devices);
    host.shm_size = access.shm_size_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    host.device_requests = access.gpus.as_ref().map(|gpus| vec![gpu_request(gpus)]);
}

/// As the CLI's `--gpus` makes it: every GPU is -1 of them.
fn gpu_request(gpus: &Gpus) -> DeviceRequest {
    let (count, device_ids) = match gpus {
        Gpus::All => (Some(-1), None),
        Gpus::Count(count) => (Some(i64::from(*count)), None),
        Gpus::Ids(ids) => (None, Some(ids.clone())),
    };
    DeviceRequest { count, device_ids, capabilities: Some(vec![vec!["gpu".to_owned()]]), ..DeviceRequest::default() }
}
