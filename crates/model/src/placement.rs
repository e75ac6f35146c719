//! Where a task may run: constraints, preferences, and what it needs of a node beyond CPU and memory.

use crate::constraint::Subject;
use crate::{Constraint, Node, Platform};
use serde::{Deserialize, Serialize};

/// Where a task may run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// Platforms the image exists for; empty allows all.
    pub platforms: Vec<Platform>,
    /// What a node must be like: all of them.
    pub constraints: Vec<Constraint>,
    /// Over what tasks are spread, the outermost first.
    pub preferences: Vec<Preference>,
    /// At most so many tasks of the service on a node; 0 for any number.
    pub max_replicas: u64,
}

/// Over what tasks are spread evenly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preference {
    /// Over the values of this property of nodes, `node.labels.zone` for example. Nodes without it are one more value.
    Spread(String),
}

/// What a task asks for of a resource that can be counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GenericRequest {
    /// Of what kind.
    pub kind: String,
    /// How many.
    pub amount: i64,
}

/// What a node has of a resource, or what a task was given of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GenericResource {
    /// One that has a name.
    Named {
        /// Of what kind.
        kind: String,
        /// Which.
        value: String,
    },
    /// So many, whichever.
    Discrete {
        /// Of what kind.
        kind: String,
        /// How many.
        amount: i64,
    },
}

// === impl Placement ===

impl Placement {
    /// The constraints that the node does not meet.
    pub fn unmet<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Constraint> {
        self.constraints.iter().filter(|c| !c.is_met_by(node))
    }

    /// True when the node meets all constraints.
    pub fn is_met_by(&self, node: &Node) -> bool {
        self.unmet(node).next().is_none()
    }

    /// True when the image runs on the node's platform: it is one of those that were given, or none was. A node that did not
    /// say what it is runs nothing that asks.
    pub fn allows_platform_of(&self, node: &Node) -> bool {
        let platform = node.description.as_ref().map(|d| &d.platform);
        self.platforms.is_empty() || platform.is_some_and(|p| self.platforms.iter().any(|wanted| wanted.allows(p)))
    }
}

// === impl Preference ===

impl Preference {
    /// What the node has of the property over which tasks are spread; empty when it has nothing. `None` when the property is
    /// neither a label of the node nor one of its engine: Docker knows no others, and passes over such a preference.
    pub fn value_on<'a>(&self, node: &'a Node) -> Option<&'a str> {
        let Preference::Spread(key) = self;
        match Subject::of(key) {
            subject @ (Subject::NodeLabel(_) | Subject::EngineLabel(_)) => Some(subject.of_node(node)),
            _ => None,
        }
    }
}

// === impl Platform ===

impl Platform {
    /// True when what was built for `self` runs on a node of the platform. An empty field allows anything.
    pub fn allows(&self, node: &Platform) -> bool {
        let os = self.os.is_empty() || self.os == node.os;
        os && (self.architecture.is_empty() || normal(&self.architecture) == normal(&node.architecture))
    }
}

/// Engines say `x86_64` where image manifests say `amd64`.
fn normal(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
