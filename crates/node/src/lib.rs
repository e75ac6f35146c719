//! One running node: all the parts, wired.
//!
//! **Owns** the composition: what a node is made of, in which order it starts and stops, how it becomes a member of a swarm
//! and ceases to be one, and the daemon around it.
//!
//! **Must never** hold logic that belongs to a part: it hands things to each other.

#![forbid(unsafe_code)]

mod addr;
mod admission;
mod api_listener;
mod autopilot;
pub mod backup;
mod ca_marks;
mod ca_rotation;
mod ca_service;
mod cluster_service;
pub mod daemon;
mod exec;
mod external_ca;
mod force_new;
mod forgiving;
mod gossip_keys;
mod join;
mod keys;
mod leader;
mod link;
mod locked;
mod machine;
mod manager;
mod member;
mod membership;
mod node;
mod observe;
mod raft_store;
mod snapshots;
mod state;
mod swarm;
#[cfg(test)]
mod testing;
mod tokens;
mod world;

pub use addr::{AddrError, CONTROL_PORT, DATA_PATH_PORT, GOSSIP_PORT, Interfaces};
pub use api_listener::{ApiAccess, ApiTcp};
pub use daemon::{DaemonConfig, DaemonError, EngineChoice};
pub use force_new::ForceNewError;
pub use keys::{DiskKeys, FoundKeys, RetireError};
pub use machine::{StoreCanary, StoreMachine, decode_conflict};
pub use manager::{ManagerError, RaftLogs};
pub use member::{Member, MemberError};
pub use model::{GenericResource, InvalidGenericResource};
pub use node::{Node, OpenError};
pub use observe::ManagerWatch;
pub use state::{KnownManager, Layout, Membership, StateError};
pub use world::{Canaries, NodeConfig, SledLogs, World};
