//! Fields that Docker knows and Swarmlite does not support yet: named in a refusal, never dropped.

use crate::{ContainerSpec, Mount, ServiceSpec, TaskSpec};

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
    (
        |t| t.network_attachment_spec.is_some() || t.runtime == "attachment",
        "TaskTemplate.NetworkAttachmentSpec",
        "there are no overlay networks yet",
        "use ContainerSpec or PluginSpec",
    ),
    (|t| !t.networks.is_empty(), "TaskTemplate.Networks", "there are no overlay networks yet", NO_NETWORK),
];

const CONTAINER: &[Rule<ContainerSpec>] = &[(
    |c| c.privileges.as_ref().is_some_and(|p| p.credential_spec.is_some()),
    "ContainerSpec.Privileges.CredentialSpec",
    "it is for Windows only",
    "leave it out",
)];

const MOUNT: &[Rule<Mount>] = &[
    (
        |m| m.kind.eq_ignore_ascii_case("npipe"),
        "ContainerSpec.Mounts.Type npipe",
        "it is for Windows only",
        "use bind, volume, tmpfs or image",
    ),
    (
        |m| m.kind.eq_ignore_ascii_case("cluster") || m.cluster_options.is_some(),
        "ContainerSpec.Mounts.Type cluster",
        "there are no cluster volumes",
        "use a volume of a driver that all nodes have",
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

fn first<T>(value: &T, rules: &[Rule<T>]) -> Option<Unsupported> {
    let (_, field, why, instead) = rules.iter().find(|(used, ..)| used(value))?;
    Some(Unsupported { field, why, instead })
}
