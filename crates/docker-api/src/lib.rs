//! Docker's Engine API on the wire: JSON bodies, error texts, filters, log framing. The server and the CLI share it.
//!
//! **Owns** the shape of every body of the swarm endpoints, name by name as Docker writes it (which fields are left out
//! when empty, which are `null`, which are `{}`), the texts and status codes of Docker's errors, and Go's ways of writing
//! times and durations. Source: moby `api/types/swarm` and `api/swagger.yaml`, API 1.24 to 1.56.
//!
//! **Must never** know the model, open a socket or decide anything. Fields that Swarmlite does not support are here too:
//! who reads a request must be able to see them in order to refuse them.
//!
//! Reading follows Go: `null` is the same as absent, unknown keys are ignored.

#![forbid(unsafe_code)]

#[macro_use]
mod wire;

pub mod errors;
pub mod filters;
pub mod stdcopy;

mod beyond;
mod container;
mod exec;
mod go;
mod network;
mod node;
mod secret;
mod service;
mod size;
mod swarm;
mod system;
mod task;
mod token;
mod unsupported;

pub use beyond::{
    Forecast, ForecastNode, ForecastService, ForecastStep, ForecastUnplaced, RebalanceRequest, RejectedNode,
    SimulateRequest, Why, WhyService, WhyTask,
};
pub use container::{
    AppArmorOptions, BindOptions, ClusterOptions, ConfigReference, ContainerSpec, CredentialSpec, DnsConfig,
    FileTarget, HealthConfig, ImageOptions, Mount, MountDriver, Privileges, SeLinuxContext, SeccompOptions,
    SecretReference, TmpfsOptions, Ulimit, VolumeOptions,
};
pub use errors::Failure;
pub use exec::{ExecCreateRequest, ExecCreateResponse, ExecInspect, ExecProcess, ExecStartRequest};
pub use filters::Filters;
pub use go::{GoDuration, GoTime, InvalidDuration, InvalidTime, Ratio, Secret};
pub use network::{Endpoint, EndpointSpec, EndpointVirtualIp, NetworkAttachmentConfig, PortConfig};
pub use node::{
    EngineDescription, ManagerStatus, Node, NodeDescription, NodeSpec, NodeStatus, Platform, PluginDescription,
};
pub use secret::{Data, IdResponse, SecretOrConfig, SecretOrConfigSpec};
pub use service::{
    GlobalService, JobStatus, ReplicatedJob, ReplicatedService, Service, ServiceCreateResponse, ServiceMode,
    ServiceSpec, ServiceStatus, ServiceUpdateResponse, UpdateConfig, UpdateStatus,
};
pub use size::{InvalidSize, ram_in_bytes};
pub use swarm::{
    CaConfig, ClusterInfo, DispatcherConfig, EncryptionConfig, ExternalCa, InitRequest, JoinRequest, JoinTokens,
    OrchestrationConfig, RaftConfig, Swarm, SwarmSpec, TaskDefaults, UnlockKey,
};
pub use system::{Actor, Component, ErrorResponse, EventMessage, Peer, PlatformName, SwarmInfo, Version};
pub use task::{
    ContainerStatus, DiscreteGenericResource, Driver, GenericResource, Limit, NamedGenericResource, Placement,
    PlacementPreference, PluginPrivilege, PluginSpec, PortStatus, ResourceRequirements, Resources, RestartPolicy,
    SpreadOver, Task, TaskSpec, TaskStatus,
};
pub use token::{TokenCreateRequest, TokenCreateResponse, TokenSummary};
pub use unsupported::{Unsupported, unsupported_in_service_spec};
pub use wire::{ObjectVersion, TlsInfo};
