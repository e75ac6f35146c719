//! Docker's JSON to the model and back.

mod cluster;
mod container_in;
mod forecast;
mod image;
mod labels;
mod mount;
mod node;
mod placement;
mod plugin;
mod policy;
mod privileges;
mod secret;
mod service_in;
mod service_out;
mod task;
mod templates;
mod versions;
mod why;

pub(crate) use cluster::{apply_swarm_spec, cluster_info, swarm};
pub(crate) use forecast::forecast;
pub(crate) use image::is_reference;
pub(crate) use node::{availability, node, node_spec};
pub(crate) use plugin::is_of_runtime;
pub(crate) use secret::{config, secret, templating};
pub(crate) use service_in::service_spec;
pub(crate) use service_out::{insert_defaults, service};
pub(crate) use task::task;
pub(crate) use versions::adjust_for_version;
pub(crate) use why::why;

use docker_api::{GoTime, ObjectVersion};
use model::{Protocol, Timestamp};

fn time(t: Timestamp) -> GoTime {
    GoTime::from_unix_ns(t.0)
}

fn version(index: u64) -> ObjectVersion {
    ObjectVersion { index }
}

fn protocol(p: Protocol) -> String {
    match p {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
    .to_owned()
}
