//! The seams: everything the outside world can do to us, as traits.
//!
//! **Owns** the traits through which Swarmlite reads the clock, rolls dice, opens sockets, touches the disk and starts
//! tasks, with one implementation of each for the real world ([`real`]) and a disk in memory for
//! whoever has none ([`MemoryDisk`]).
//!
//! **Must never** hold logic, or know what travels through it. Whoever needs the world takes a [`Seams`] (or one of its
//! parts) from the composition root, so that the simulation can run production code in a world of its own. Measuring
//! durations and sleeping is done with `tokio::time`, which the simulation controls as it is.

#![forbid(unsafe_code)]

mod clock;
mod disk;
mod memory;
mod net;
mod rand;
mod tasks;

pub use clock::Clock;
pub use disk::Disk;
pub use memory::MemoryDisk;
pub use net::{BoxStream, Datagrams, Listener, Net, Stream};
pub use rand::{Rand, RandExt};
pub use tasks::Tasks;

use std::sync::Arc;

/// The world of one node, handed down from the composition root.
#[derive(Clone)]
pub struct Seams {
    /// Wall-clock time, for records that people read and for certificate validity; never for measuring durations.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids, tokens, jitter.
    pub rand: Arc<dyn Rand>,
    /// TCP and UDP.
    pub net: Arc<dyn Net>,
    /// Plain files. (The Raft log has a seam of its own in the raft crate.)
    pub disk: Arc<dyn Disk>,
}

/// The real world.
pub mod real {
    pub use crate::clock::SystemClock;
    pub use crate::disk::FileDisk;
    pub use crate::net::TokioNet;
    pub use crate::rand::OsRand;
    use std::sync::Arc;

    /// All seams of a production node.
    pub fn seams() -> crate::Seams {
        crate::Seams {
            clock: Arc::new(SystemClock),
            rand: Arc::new(OsRand),
            net: Arc::new(TokioNet),
            disk: Arc::new(FileDisk),
        }
    }
}
