//! Nodes.

use crate::go::{GoTime, omit};
use crate::{ObjectVersion, Resources, TlsInfo};
use serde_json::Value;
use std::collections::BTreeMap;

bodies! {
    /// A node.
    pub struct Node {
        /// Its id.
        "ID" id: String;
        /// Its version.
        "Version" version: ObjectVersion;
        /// When it was created.
        "CreatedAt" created_at: GoTime;
        /// When it was last changed.
        "UpdatedAt" updated_at: GoTime;
        /// What a user can change.
        "Spec" spec: NodeSpec;
        /// What the node says of itself.
        "Description" description: NodeDescription;
        /// What the managers think of it.
        "Status" status: NodeStatus;
        /// Only of a manager.
        "ManagerStatus" manager_status: Option<ManagerStatus>, "omit";
    }

    /// What a user can change about a node.
    pub struct NodeSpec {
        /// An optional name.
        "Name" name: String, "omit";
        /// User labels.
        "Labels" labels: BTreeMap<String, String>;
        /// `worker` or `manager`.
        "Role" role: String, "omit";
        /// `active`, `pause` or `drain`.
        "Availability" availability: String, "omit";
    }

    /// What a node says of itself.
    pub struct NodeDescription {
        /// Host name.
        "Hostname" hostname: String, "omit";
        /// Architecture and operating system.
        "Platform" platform: Platform;
        /// What it has.
        "Resources" resources: Resources;
        /// Its container engine.
        "Engine" engine: EngineDescription;
        /// The authority of its certificate.
        "TLSInfo" tls_info: TlsInfo;
        /// Storage plugins.
        "CSIInfo" csi_info: Vec<Value>, "omit";
    }

    /// Architecture and operating system.
    pub struct Platform {
        /// Such as `x86_64`.
        "Architecture" architecture: String, "omit";
        /// Such as `linux`.
        "OS" os: String, "omit";
    }

    /// A node's container engine.
    pub struct EngineDescription {
        /// Its version.
        "EngineVersion" engine_version: String, "omit";
        /// Its labels.
        "Labels" labels: BTreeMap<String, String>, "omit";
        /// Its plugins.
        "Plugins" plugins: Vec<PluginDescription>, "omit";
    }

    /// A plugin.
    pub struct PluginDescription {
        /// Such as `Network`.
        "Type" kind: String, "omit";
        /// Such as `bridge`.
        "Name" name: String, "omit";
    }

    /// What the managers think of a node.
    pub struct NodeStatus {
        /// `unknown`, `down`, `ready` or `disconnected`.
        "State" state: String, "omit";
        /// Why, for people.
        "Message" message: String, "omit";
        /// Its address.
        "Addr" addr: String, "omit";
    }

    /// A node's part in the Raft group.
    pub struct ManagerStatus {
        /// True for the leader.
        "Leader" leader: bool, "omit";
        /// `unknown`, `reachable` or `unreachable`.
        "Reachability" reachability: String, "omit";
        /// `host:port`.
        "Addr" addr: String, "omit";
    }
}
