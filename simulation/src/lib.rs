//! The simulation: production code in a world that follows from a seed.
//!
//! **Owns** the model of everything outside (network, disk, clocks, container engines, users), the faults that befall it,
//! the oracles that say whether what happened was right, and the switches that turn on deliberate bugs.
//!
//! **Must never** reach into what it tests except through its seams, its public interface, and views that change nothing.
//! A run is a function of its seed: nothing in a trace may come from the machine that it runs on.
//!
//! # Layers
//!
//! 1. The pure core under properties and scenarios: in the crates themselves.
//! 2. [`layer2`]: Raft, the store and the control loops on a simulated runtime; thousands of seeds.
//! 3. [`layer3`]: whole nodes, with their real protocols over a simulated network; one process a seed, because some libraries
//!    keep counters for the life of a process.
//!
//! Beside them, [`fleet`] measures real managers with a thousand machines around them, by the machine's own clock.
#![forbid(unsafe_code)]

pub mod cli;
mod content;
pub mod fleet;
pub mod history;
pub mod layer2;
pub mod layer3;
mod marks;
pub mod oracle;
pub mod rng;
pub mod trace;
