//! One running node: all the parts, wired.
//!
//! **Owns** the composition: what a node is made of, in which order it starts and stops, how it becomes a member of a swarm
//! and ceases to be one, and the daemon around it.
//!
//! **Must never** hold logic that belongs to a part: it hands things to each other.

#![forbid(unsafe_code)]

mod addr;
mod ca_service;
mod cluster_service;
pub mod daemon;
mod join;
mod leader;
mod link;
mod machine;
mod manager;
mod member;
mod membership;
mod node;
mod observe;
mod raft_store;
mod state;
mod swarm;
mod world;

pub use addr::{AddrError, CONTROL_PORT, DATA_PATH_PORT, GOSSIP_PORT, Interfaces};
pub use daemon::{DaemonConfig, DaemonError, EngineChoice};
pub use machine::{StoreCanary, StoreMachine, decode_conflict};
pub use manager::{ManagerError, RaftLogs};
pub use member::{Member, MemberError};
pub use node::{Node, OpenError};
pub use observe::ManagerWatch;
pub use state::{KnownManager, Layout, Membership, StateError};
pub use world::{Canaries, NodeConfig, SledLogs, World};
