//! Tasks.

use crate::go::{GoDuration, GoTime, omit};
use crate::{ContainerSpec, NetworkAttachmentConfig, ObjectVersion, Platform, PortConfig};
use serde_json::Value;
use std::collections::BTreeMap;

bodies! {
    /// A task.
    pub struct Task {
        /// Its id.
        "ID" id: String;
        /// Its version.
        "Version" version: ObjectVersion;
        /// When it was created.
        "CreatedAt" created_at: GoTime;
        /// When it was last changed.
        "UpdatedAt" updated_at: GoTime;
        /// Its name.
        "Name" name: String, "omit";
        /// User labels.
        "Labels" labels: BTreeMap<String, String>;
        /// What it runs.
        "Spec" spec: TaskSpec;
        /// The service it belongs to.
        "ServiceID" service_id: String, "omit";
        /// Which of the replicas it is; absent for a global task.
        "Slot" slot: u64, "omit";
        /// Where it runs.
        "NodeID" node_id: String, "omit";
        /// The state it is in.
        "Status" status: TaskStatus;
        /// The state it should reach.
        "DesiredState" desired_state: String, "omit";
        /// Networks it is in, with its addresses.
        "NetworksAttachments" networks_attachments: Vec<Value>, "omit";
        /// Generic resources it was given.
        "GenericResources" generic_resources: Vec<GenericResource>, "omit";
        /// Of a job: which run it belongs to.
        "JobIteration" job_iteration: Option<ObjectVersion>, "omit";
        /// Cluster volumes it uses.
        "Volumes" volumes: Option<Vec<Value>>;
    }

    /// What a task runs.
    pub struct TaskSpec {
        /// A container.
        "ContainerSpec" container_spec: Option<ContainerSpec>, "omit";
        /// A plugin of the engine.
        "PluginSpec" plugin_spec: Option<PluginSpec>, "omit";
        /// A container's place in a network. Not supported; seen in order to be refused.
        "NetworkAttachmentSpec" network_attachment_spec: Option<Value>, "omit";
        /// What it needs and may use.
        "Resources" resources: Option<ResourceRequirements>, "omit";
        /// What happens when it ends.
        "RestartPolicy" restart_policy: Option<RestartPolicy>, "omit";
        /// Where it may run.
        "Placement" placement: Option<Placement>, "omit";
        /// Networks it is in.
        "Networks" networks: Vec<NetworkAttachmentConfig>, "omit";
        /// Where its output goes.
        "LogDriver" log_driver: Option<Driver>, "omit";
        /// Raised to replace all tasks though nothing changed.
        "ForceUpdate" force_update: u64;
        /// `container` or `plugin`; `attachment` is not supported.
        "Runtime" runtime: String, "omit";
    }

    /// A plugin of the engine. (Docker writes these names small, unlike all others.)
    pub struct PluginSpec {
        /// The name that it gets on the node.
        "name" name: String, "omit";
        /// Where it comes from.
        "remote" remote: String, "omit";
        /// What it is allowed.
        "privileges" privileges: Vec<PluginPrivilege>, "omit";
        /// Installed, and not to be enabled.
        "disabled" disabled: bool, "omit";
        /// `KEY=value` settings.
        "env" env: Vec<String>, "omit";
    }

    /// Something that a plugin is allowed.
    pub struct PluginPrivilege {
        /// What kind.
        "name" name: String, "omit";
        /// Words for it.
        "description" description: String, "omit";
        /// Which.
        "value" value: Vec<String>, "omit";
    }

    /// A driver and its options.
    pub struct Driver {
        /// Its name.
        "Name" name: String, "omit";
        /// Its options.
        "Options" options: BTreeMap<String, String>, "omit";
    }

    /// What a task needs and may use.
    pub struct ResourceRequirements {
        /// Enforced by the engine.
        "Limits" limits: Option<Limit>, "omit";
        /// Reserved by the scheduler.
        "Reservations" reservations: Option<Resources>, "omit";
        /// Bytes of memory and swap together beyond `Limits.MemoryBytes`; -1 for any amount, absent for the engine's default.
        "SwapBytes" swap_bytes: Option<i64>, "omit";
        /// How readily the kernel swaps the container's memory, 0 to 100; absent (or -1) for the host's own setting.
        "MemorySwappiness" memory_swappiness: Option<i64>, "omit";
    }

    /// Limits.
    pub struct Limit {
        /// Billionths of a CPU.
        "NanoCPUs" nano_cpus: i64, "omit";
        /// Bytes.
        "MemoryBytes" memory_bytes: i64, "omit";
        /// Processes.
        "Pids" pids: i64, "omit";
    }

    /// What a node has, or a task reserves.
    pub struct Resources {
        /// Billionths of a CPU.
        "NanoCPUs" nano_cpus: i64, "omit";
        /// Bytes.
        "MemoryBytes" memory_bytes: i64, "omit";
        /// Anything else that can be counted.
        "GenericResources" generic_resources: Vec<GenericResource>, "omit";
    }

    /// Anything else that can be counted, or named.
    pub struct GenericResource {
        /// Named.
        "NamedResourceSpec" named: Option<NamedGenericResource>, "omit";
        /// Counted.
        "DiscreteResourceSpec" discrete: Option<DiscreteGenericResource>, "omit";
    }

    /// A named resource.
    pub struct NamedGenericResource {
        /// Of what kind.
        "Kind" kind: String, "omit";
        /// Which.
        "Value" value: String, "omit";
    }

    /// A counted resource.
    pub struct DiscreteGenericResource {
        /// Of what kind.
        "Kind" kind: String, "omit";
        /// How much.
        "Value" value: i64, "omit";
    }

    /// What happens when a task ends.
    pub struct RestartPolicy {
        /// `none`, `on-failure` or `any`.
        "Condition" condition: String, "omit";
        /// After what pause.
        "Delay" delay: Option<GoDuration>, "omit";
        /// How often within the window; 0 for ever.
        "MaxAttempts" max_attempts: Option<u64>, "omit";
        /// The window.
        "Window" window: Option<GoDuration>, "omit";
    }

    /// Where a task may run.
    pub struct Placement {
        /// Such as `node.labels.zone==a`.
        "Constraints" constraints: Vec<String>, "omit";
        /// What to spread over.
        "Preferences" preferences: Vec<PlacementPreference>, "omit";
        /// At most so many on one node; 0 for any number.
        "MaxReplicas" max_replicas: u64, "omit";
        /// Platforms the image exists for.
        "Platforms" platforms: Vec<Platform>, "omit";
    }

    /// What to spread over.
    pub struct PlacementPreference {
        /// The values of something.
        "Spread" spread: Option<SpreadOver>;
    }

    /// The values of something.
    pub struct SpreadOver {
        /// Such as `node.labels.zone`.
        "SpreadDescriptor" spread_descriptor: String;
    }

    /// The state a task is in, and why.
    pub struct TaskStatus {
        /// When it was reached.
        "Timestamp" timestamp: GoTime;
        /// The state.
        "State" state: String, "omit";
        /// What happened, for people.
        "Message" message: String, "omit";
        /// What went wrong.
        "Err" err: String, "omit";
        /// Its container.
        "ContainerStatus" container_status: Option<ContainerStatus>, "omit";
        /// Ports published on its node.
        "PortStatus" port_status: PortStatus;
    }

    /// A task's container.
    pub struct ContainerStatus {
        /// The engine's id.
        "ContainerID" container_id: String;
        /// Process id on the node.
        "PID" pid: i64;
        /// Exit code.
        "ExitCode" exit_code: i64;
    }

    /// Ports published on a task's node.
    pub struct PortStatus {
        /// The ports.
        "Ports" ports: Vec<PortConfig>, "omit";
    }
}
