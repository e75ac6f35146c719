//! Tests on real processes and a real Docker Engine: the harness that chaos tests, conformance tests, bench and demo share.
//!
//! **Owns** clusters of `swarmlite daemon` processes ([`Cluster`]), the faults they suffer (kill, pause, cut, full disk), a
//! history of writes that knows what was acknowledged ([`history`]), and what must hold afterwards ([`checks`]).
//!
//! **Must never** link the product: it sees what a user sees, a binary and an API.

#![forbid(unsafe_code)]
// This is the real machine: real processes, real time, real sockets. The simulation has its own world.
#![allow(clippy::disallowed_methods)]

pub mod checks;
pub mod cli;
pub mod cluster;
pub mod engine;
pub mod engines;
pub mod history;
pub mod http;
pub mod image;
pub mod network;
pub mod node;
pub mod wait;

pub use cli::Cli;
pub use cluster::{Cluster, Options};
pub use engine::Engine;
pub use http::{Api, ApiError};
pub use node::Node;

/// What went wrong, in words; a test shows it and ends.
pub type Outcome<T> = Result<T, String>;
