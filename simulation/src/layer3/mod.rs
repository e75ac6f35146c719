//! Layer 3: whole nodes. Raft over gRPC with mutual TLS, sealed gossip, dispatcher, agent and API are the production code;
//! network, disk, clocks, container engine and users are models. One run is one process.

mod clock;
mod disk;
mod expiry;
mod faults;
mod held;
mod http;
mod intruder;
mod keeper;
mod machine;
mod net;
mod operator;
mod run;
mod user;
mod watch;

pub use clock::{EPOCH, SimClock, set_elapsed};
pub use disk::{Lost, ModelDisk, ModelLog};
pub use expiry::expiry;
pub use faults::{KINDS, Kind, Weather};
pub use machine::{API_PORT, Machine, Order};
pub use net::{SimNet, UdpFaults};
pub use run::{Bug, Failure, Options, Summary, run, steps};
