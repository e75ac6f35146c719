//! What a swarm is made of: ids, specs, objects, task states and who may move them, limits.
//!
//! **Owns** the domain types. A value of one of these types is valid by construction where the type can express it
//! ([`ServiceName`], [`TaskState`]); what needs the rest of the world to judge is judged elsewhere.
//!
//! **Must never** do I/O, read the clock, or know Docker's JSON or protobuf. The serde derives are for one purpose: the
//! persisted form (MessagePack with field names, fields only ever added; see docs/ARCHITECTURE.md, "Serialisation").

#![forbid(unsafe_code)]

pub mod limits;
pub mod persisted;

mod cluster;
mod constraint;
mod container;
mod cron;
mod expand;
mod generic;
mod grant;
mod id;
mod meta;
mod mode;
mod node;
mod placement;
mod policy;
mod raft_settings;
mod runtime;
mod secret;
mod service;
mod task;
mod template;
mod usage;

pub use cluster::{
    CertificateRecord, Cluster, ClusterSecurity, ClusterSpec, ExternalCa, ExtraToken, GossipKey, GrantKey, JoinTokens,
    RootCa, RootRotation, UnlockKey,
};
pub use constraint::{Constraint, InvalidConstraint};
pub use container::{
    AppArmor, ContainerSpec, Device, DnsConfig, Gpus, Healthcheck, HostAccess, Mount, MountKind, Privileges,
    RegistryAuth, SeLinux, Seccomp, Ulimit,
};
pub use cron::{Concurrency, CronSpec, CronState, InvalidSchedule, Schedule, TimeZoneName, UnknownTimeZone};
pub use expand::ExpandError;
pub use generic::InvalidGenericResource;
pub use grant::{
    ConfigReference, ConfigTarget, FileMode, FileTarget, Given, GrantedFile, InvalidFileMode, InvalidTarget,
    SECRETS_DIR, SecretReference, TargetConflict, TargetPath,
};
pub use id::{ClusterId, ConfigId, InvalidId, NodeId, SecretId, ServiceId, TaskId};
pub use meta::{Meta, Timestamp};
pub use mode::{JobRun, Mode, Move, Place, Progress, Rebalance, SlotKey};
pub use node::{
    Availability, EngineDescription, ManagerStatus, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, NodeTls,
    Platform, Resources, Role,
};
pub use placement::{GenericRequest, GenericResource, Placement, Preference};
pub use policy::{
    AllowedDevices, Autopilot, Backoff, ClusterPolicy, HostAccessDenied, HostPolicy, RebalancePolicy,
    SPARE_MANAGER_LABEL,
};
pub use raft_settings::{InvalidRaftSettings, RaftSettings, RaftTicks};
pub use runtime::{PluginPrivilege, PluginSpec, Runtime};
pub use secret::{
    Config, ConfigName, ConfigSpec, Data, Dependency, InvalidData, InvalidDependencyName, InvalidSignal,
    InvalidUpdateBy, Payload, PayloadId, Secret, SecretName, SecretSpec, Signal, Templating, UpdateBy,
};
pub use service::{
    EndpointMode, EndpointSpec, FailureAction, InvalidServiceName, Limits, LogDriver, PortConfig, Protocol,
    PublishMode, ResourceRequirements, RestartCondition, RestartPolicy, Service, ServiceName, ServiceSpec, TaskSpec,
    UpdateConfig, UpdateOrder, UpdateState, UpdateStatus,
};
pub use task::{ContainerStatus, Inherited, Owner, PortStatus, Task, TaskState, TaskStatus};
pub use template::{InvalidTemplate, Template, TemplateValue};
pub use usage::{Holding, HostPort, NodeUsage};
