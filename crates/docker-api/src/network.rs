//! How services are reached.

use crate::go::omit;
use std::collections::BTreeMap;

bodies! {
    /// How a service is reached, as it is.
    pub struct Endpoint {
        /// What was asked for.
        "Spec" spec: EndpointSpec;
        /// Published ports.
        "Ports" ports: Vec<PortConfig>, "omit";
        /// Virtual addresses.
        "VirtualIPs" virtual_ips: Vec<EndpointVirtualIp>, "omit";
    }

    /// How a service is reached, as it was asked for.
    pub struct EndpointSpec {
        /// `vip` or `dnsrr`.
        "Mode" mode: String, "omit";
        /// Published ports.
        "Ports" ports: Vec<PortConfig>, "omit";
    }

    /// A published port.
    pub struct PortConfig {
        /// An optional name.
        "Name" name: String, "omit";
        /// `tcp`, `udp` or `sctp`.
        "Protocol" protocol: String, "omit";
        /// Port in the container.
        "TargetPort" target_port: u32, "omit";
        /// Port outside; 0 lets the swarm choose.
        "PublishedPort" published_port: u32, "omit";
        /// `ingress` or `host`.
        "PublishMode" publish_mode: String, "omit";
    }

    /// A service's address in one network.
    pub struct EndpointVirtualIp {
        /// The network.
        "NetworkID" network_id: String, "omit";
        /// The address, with its prefix length.
        "Addr" addr: String, "omit";
    }

    /// A network that tasks are in.
    pub struct NetworkAttachmentConfig {
        /// Its id or name.
        "Target" target: String, "omit";
        /// Further names of the tasks in it.
        "Aliases" aliases: Vec<String>, "omit";
        /// Options for its driver.
        "DriverOpts" driver_opts: BTreeMap<String, String>, "omit";
    }
}
