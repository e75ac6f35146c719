//! Fields that Docker knows and Swarmlite does not support yet: named in a refusal, never dropped.

use crate::{ContainerSpec, Mount, ServiceSpec, SwarmSpec, TaskSpec};

/// A field that is not supported yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is not supported by this release of Swarmlite: {why}; {instead}")]
pub struct Unsupported {
    /// The field's path, as Docker names it.
    pub field: &'static str,
    /// Why not.
    pub why: &'static str,
    /// What works.
    pub instead: &'static str,
}

/// One rule: is the field in use, and what is said then.
type Rule<T> = (fn(&T) -> bool, &'static str, &'static str, &'static str);

const SERVICE: &[Rule<ServiceSpec>] = &[
    (|s| s.mode.global.is_some(), "Mode.Global", "services have a number of replicas", "use Mode.Replicated"),
    (|s| s.mode.replicated_job.is_some(), "Mode.ReplicatedJob", "there are no jobs yet", "use Mode.Replicated"),
    (|s| s.mode.global_job.is_some(), "Mode.GlobalJob", "there are no jobs yet", "use Mode.Replicated"),
    (|s| !s.networks.is_empty(), "Networks", "there are no overlay networks yet", NO_NETWORK),
    (
        |s| s.endpoint_spec.iter().flat_map(|e| &e.ports).any(|p| p.publish_mode != "host"),
        "EndpointSpec.Ports with PublishMode ingress",
        "there is no routing mesh yet",
        "publish with mode=host, on the nodes that run the tasks",
    ),
];

const NO_NETWORK: &str = "leave it out, and publish ports with mode=host";

const TASK: &[Rule<TaskSpec>] = &[
    (|t| t.plugin_spec.is_some(), "TaskTemplate.PluginSpec", "tasks are containers", "use ContainerSpec"),
    (
        |t| t.network_attachment_spec.is_some(),
        "TaskTemplate.NetworkAttachmentSpec",
        "tasks are containers",
        "use ContainerSpec",
    ),
    (
        |t| !matches!(t.runtime.as_str(), "" | "container"),
        "TaskTemplate.Runtime",
        "tasks are containers",
        "leave it out, or say container",
    ),
    (|t| !t.networks.is_empty(), "TaskTemplate.Networks", "there are no overlay networks yet", NO_NETWORK),
    (
        |t| t.placement.as_ref().is_some_and(|p| !p.constraints.is_empty()),
        "TaskTemplate.Placement.Constraints",
        "the scheduler does not know constraints yet",
        "leave it out, and drain or pause the nodes that should not run tasks",
    ),
    (
        |t| t.placement.as_ref().is_some_and(|p| !p.preferences.is_empty()),
        "TaskTemplate.Placement.Preferences",
        "the scheduler spreads over nodes only",
        "leave it out",
    ),
    (
        |t| t.placement.as_ref().is_some_and(|p| p.max_replicas != 0),
        "TaskTemplate.Placement.MaxReplicas",
        "the scheduler does not limit replicas of a node yet",
        "leave it out",
    ),
    (
        |t| t.resources.as_ref().is_some_and(|r| r.swap_bytes.is_some()),
        "TaskTemplate.Resources.SwapBytes",
        "swap is not limited yet",
        "leave it out, and use Limits.MemoryBytes",
    ),
    (
        |t| t.resources.as_ref().is_some_and(|r| r.memory_swappiness.is_some()),
        "TaskTemplate.Resources.MemorySwappiness",
        "swap is not limited yet",
        "leave it out, and use Limits.MemoryBytes",
    ),
    (
        |t| t.resources.iter().flat_map(|r| &r.reservations).any(|r| !r.generic_resources.is_empty()),
        "TaskTemplate.Resources.Reservations.GenericResources",
        "the scheduler counts CPU and memory only",
        "leave it out, and use NanoCPUs and MemoryBytes",
    ),
];

const CONTAINER: &[Rule<ContainerSpec>] = &[
    (
        |c| c.privileges.as_ref().is_some_and(|p| !says_nothing(p)),
        "ContainerSpec.Privileges",
        "security options are not passed on yet",
        "leave it out; CapabilityAdd and CapabilityDrop work",
    ),
    (
        |c| !matches!(c.isolation.as_str(), "" | "default"),
        "ContainerSpec.Isolation",
        "it is for Windows only",
        "leave it out, or say default",
    ),
    (|c| c.oom_score_adj != 0, "ContainerSpec.OomScoreAdj", "it is not passed on yet", "leave it out"),
    (
        |c| c.hostname.contains("{{") || c.env.iter().any(|e| e.contains("{{")),
        "A template in ContainerSpec.Hostname or ContainerSpec.Env",
        "templates are not filled in yet",
        "write the value itself",
    ),
    (
        |c| c.mounts.iter().any(has_template),
        "A template in ContainerSpec.Mounts",
        "templates are not filled in yet",
        "write the value itself",
    ),
];

const MOUNT: &[Rule<Mount>] = &[
    (
        |m| matches!(m.kind.as_str(), "npipe" | "cluster" | "image"),
        "ContainerSpec.Mounts.Type npipe, cluster or image",
        "mounts are paths, volumes or memory",
        "use bind, volume or tmpfs",
    ),
    (
        |m| m.image_options.as_ref().is_some_and(|o| !says_nothing(o)),
        "ContainerSpec.Mounts.ImageOptions",
        "images are not mounted yet",
        "use a volume",
    ),
    (
        |m| m.cluster_options.as_ref().is_some_and(|o| !says_nothing(o)),
        "ContainerSpec.Mounts.ClusterOptions",
        "there are no cluster volumes yet",
        "use a volume with a driver",
    ),
    (
        |m| m.bind_options.as_ref().is_some_and(|o| o.create_mountpoint),
        "ContainerSpec.Mounts.BindOptions.CreateMountpoint",
        "a bind mount needs a path that is there, as in Docker Swarm",
        "leave it out, and make the path on the nodes",
    ),
    (
        |m| m.bind_options.as_ref().is_some_and(|o| o.read_only_non_recursive || o.read_only_force_recursive),
        "ContainerSpec.Mounts.BindOptions.ReadOnlyNonRecursive or ReadOnlyForceRecursive",
        "they are not passed on yet",
        "leave it out, and use ReadOnly",
    ),
    (
        |m| m.tmpfs_options.as_ref().is_some_and(|o| !o.options.is_empty()),
        "ContainerSpec.Mounts.TmpfsOptions.Options",
        "they are not passed on yet",
        "leave it out; SizeBytes and Mode work",
    ),
];

const SWARM: &[Rule<SwarmSpec>] = &[
    (
        |s| !s.ca_config.external_cas.is_empty(),
        "CAConfig.ExternalCAs",
        "the swarm signs its certificates itself",
        "leave it out",
    ),
    (
        |s| s.task_defaults.log_driver.as_ref().is_some_and(|d| !d.name.is_empty() || !d.options.is_empty()),
        "TaskDefaults.LogDriver",
        "there are no defaults for tasks yet",
        "give each service its LogDriver",
    ),
    (
        |s| s.raft.keep_old_snapshots.is_some_and(|n| n != 0),
        "Raft.KeepOldSnapshots",
        "only the last snapshot is kept",
        "leave it out, or say 0",
    ),
];

/// The first field of a service that is not supported.
pub fn unsupported_in_service_spec(spec: &ServiceSpec) -> Option<Unsupported> {
    let container = spec.task_template.container_spec.as_ref();
    first(spec, SERVICE)
        .or_else(|| first(&spec.task_template, TASK))
        .or_else(|| container.and_then(|c| first(c, CONTAINER)))
        .or_else(|| container.and_then(|c| c.mounts.iter().find_map(|m| first(m, MOUNT))))
}

/// The first field of a swarm's spec that is not supported.
pub fn unsupported_in_swarm_spec(spec: &SwarmSpec) -> Option<Unsupported> {
    first(spec, SWARM)
}

fn first<T>(value: &T, rules: &[Rule<T>]) -> Option<Unsupported> {
    let (_, field, why, instead) = rules.iter().find(|(used, ..)| used(value))?;
    Some(Unsupported { field, why, instead })
}

/// True when Docker would fill something in: in path, name, and in a volume's labels and options (SwarmKit template/expand.go).
fn has_template(mount: &Mount) -> bool {
    let volume = mount.volume_options.iter();
    let labels = volume.clone().flat_map(|v| v.labels.values());
    let options = volume.flat_map(|v| &v.driver_config).flat_map(|d| d.options.values());
    [&mount.source, &mount.target].into_iter().chain(labels).chain(options).any(|text| text.contains("{{"))
}

/// True for JSON that asks for nothing: `null`, `false`, `0`, `""`, and lists and objects of nothing else.
fn says_nothing(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.values().all(says_nothing),
    }
}
