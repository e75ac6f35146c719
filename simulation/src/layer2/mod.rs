//! Layer 2: Raft, the store and the control loops on a simulated runtime.
//!
//! Production code: the Raft handle with its log and snapshot files, the store and its state machine, the control loops with
//! their driver, the dispatcher's verdict on nodes. Models: disks, network, clocks, workers, users, and the thin shells that
//! tie them together in the node crate. Everything of a run happens on one thread, in an order that follows from the seed,
//! and runs leave nothing behind: thousands of them fit one process.

mod client;
mod disk;
mod faults;
mod judge;
mod manager;
mod net;
mod run;
mod runtime;
mod sweep;
#[cfg(test)]
mod tests;
mod user;
mod worker;
mod world;

pub use faults::{KINDS, Kind};
pub use run::{Failure, Summary, run};
pub use sweep::{many, one};
