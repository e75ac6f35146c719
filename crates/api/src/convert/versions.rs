//! What older versions of the API do not know: a field of a newer version is not there for a client of an older one, as in moby
//! (`daemon/server/router/swarm/helpers.go`, `adjustForAPIVersion`).

use crate::request::ApiVersion;
use docker_api::ServiceSpec;

/// Takes out of a spec what the version of the API does not know.
pub(crate) fn adjust_for_version(version: Option<ApiVersion>, spec: &mut ServiceSpec) {
    let Some(version) = version else { return };
    if version < ApiVersion(1, 52) {
        before_1_52(spec);
    }
    if version < ApiVersion(1, 46) {
        before_1_46(spec);
    }
    if version < ApiVersion(1, 44) {
        before_1_44(spec);
    }
    if version < ApiVersion(1, 41) {
        before_1_41(spec);
    }
    if version < ApiVersion(1, 40) {
        before_1_40(spec);
    }
}

fn before_1_52(spec: &mut ServiceSpec) {
    if let Some(resources) = &mut spec.task_template.resources {
        resources.swap_bytes = None;
        resources.memory_swappiness = None;
    }
}

fn before_1_46(spec: &mut ServiceSpec) {
    let Some(container) = &mut spec.task_template.container_spec else { return };
    container.oom_score_adj = 0;
    for mount in &mut container.mounts {
        if let Some(tmpfs) = &mut mount.tmpfs_options {
            tmpfs.options.clear();
        }
    }
}

fn before_1_44(spec: &mut ServiceSpec) {
    let Some(container) = &mut spec.task_template.container_spec else { return };
    if let Some(privileges) = &mut container.privileges {
        privileges.seccomp = None;
        privileges.apparmor = None;
        privileges.no_new_privileges = false;
    }
    if let Some(health) = &mut container.healthcheck {
        health.start_interval = Default::default();
    }
}

fn before_1_41(spec: &mut ServiceSpec) {
    if let Some(container) = &mut spec.task_template.container_spec {
        container.capability_add.clear();
        container.capability_drop.clear();
        container.ulimits.clear();
    }
    if let Some(limits) = spec.task_template.resources.as_mut().and_then(|r| r.limits.as_mut()) {
        limits.pids = 0;
    }
    spec.mode.replicated_job = None;
    spec.mode.global_job = None;
}

fn before_1_40(spec: &mut ServiceSpec) {
    if let Some(container) = &mut spec.task_template.container_spec {
        container.sysctls.clear();
        if let Some(credentials) = container.privileges.as_mut().and_then(|p| p.credential_spec.as_mut()) {
            credentials.config.clear();
        }
        for config in &mut container.configs {
            config.runtime = None;
        }
    }
    if let Some(placement) = &mut spec.task_template.placement {
        placement.max_replicas = 0;
    }
}
