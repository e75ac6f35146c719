//! The node itself: its version, its part in the swarm, events, errors.

use crate::ClusterInfo;
use crate::go::omit;
use std::collections::BTreeMap;

bodies! {
    /// The `Swarm` block of `/info`.
    pub struct SwarmInfo {
        /// This node's id; empty outside a swarm.
        "NodeID" node_id: String;
        /// The address it advertises.
        "NodeAddr" node_addr: String;
        /// `inactive`, `pending`, `active`, `error` or `locked`.
        "LocalNodeState" local_node_state: String;
        /// True on a manager that can serve the swarm endpoints.
        "ControlAvailable" control_available: bool;
        /// What is wrong; empty when nothing is.
        "Error" error: String;
        /// Managers that the node knows.
        "RemoteManagers" remote_managers: Option<Vec<Peer>>;
        /// How many nodes there are; only on a manager.
        "Nodes" nodes: u64, "omit";
        /// How many of them are managers; only on a manager.
        "Managers" managers: u64, "omit";
        /// The swarm; only on a manager.
        "Cluster" cluster: Option<ClusterInfo>, "omit";
        /// What an operator should know.
        "Warnings" warnings: Vec<String>, "omit";
        /// How many more managers may fail before the swarm can decide nothing; only on a manager, and absent when it
        /// can decide nothing already. Ours: Docker does not say.
        "ManagersMayFail" managers_may_fail: Option<u64>, "omit";
        /// What autopilot would do about managers that are lost, a sentence each; only on a manager. Ours.
        "Autopilot" autopilot: Vec<String>, "omit";
    }

    /// A manager.
    pub struct Peer {
        /// Its node id.
        "NodeID" node_id: String;
        /// `host:port`.
        "Addr" addr: String;
    }

    /// `GET /version`.
    pub struct Version {
        /// What the product is called.
        "Platform" platform: PlatformName;
        /// The parts and their versions.
        "Components" components: Vec<Component>, "omit";
        /// Version of the server.
        "Version" version: String;
        /// The newest API version it speaks.
        "ApiVersion" api_version: String;
        /// The oldest API version it speaks.
        "MinAPIVersion" min_api_version: String, "omit";
        /// Source revision.
        "GitCommit" git_commit: String;
        /// The language's version; a Docker client shows it.
        "GoVersion" go_version: String;
        /// Operating system.
        "Os" os: String;
        /// Architecture.
        "Arch" arch: String;
        /// Kernel.
        "KernelVersion" kernel_version: String, "omit";
        /// Experimental features are on.
        "Experimental" experimental: bool, "omit";
        /// When the server was built.
        "BuildTime" build_time: String, "omit";
    }

    /// What the product is called.
    pub struct PlatformName {
        /// The name.
        "Name" name: String;
    }

    /// A part of the server.
    pub struct Component {
        /// Its name.
        "Name" name: String;
        /// Its version.
        "Version" version: String;
        /// More about it.
        "Details" details: BTreeMap<String, String>, "omit";
    }

    /// A line of `/events`.
    pub struct EventMessage {
        /// `node`, `service`, `container`, …
        "Type" kind: String;
        /// `create`, `update`, `remove`, …
        "Action" action: String;
        /// To what it happened.
        "Actor" actor: Actor;
        /// `swarm` or `local`.
        "scope" scope: String, "omit";
        /// When, seconds since the Unix epoch.
        "time" time_unix_s: i64, "omit";
        /// When, nanoseconds since the Unix epoch.
        "timeNano" time_unix_ns: i64, "omit";
    }

    /// To what an event happened.
    pub struct Actor {
        /// The object's id.
        "ID" id: String;
        /// More about it.
        "Attributes" attributes: BTreeMap<String, String>;
    }

    /// The body of every error.
    pub struct ErrorResponse {
        /// What is wrong.
        "message" message: String;
    }
}
