//! Objects of every kind, and their ids.

use model::{
    Cluster, ClusterId, Config, ConfigId, Dependency, Meta, Node, NodeId, Payload, PayloadId, Secret, SecretId,
    Service, ServiceId, Task, TaskId,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The kinds of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// [`Cluster`].
    Cluster,
    /// [`Node`].
    Node,
    /// [`Service`].
    Service,
    /// [`Task`].
    Task,
    /// [`Secret`].
    Secret,
    /// [`Config`].
    Config,
    /// [`Payload`].
    Payload,
}

/// Names one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectId {
    /// A cluster.
    Cluster(ClusterId),
    /// A node.
    Node(NodeId),
    /// A service.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
    /// A secret.
    Secret(SecretId),
    /// A config.
    Config(ConfigId),
    /// One version of the data of a secret or config.
    Payload(PayloadId),
}

/// An object of any kind. Shared, because snapshots, indexes and readers all hold the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Object {
    /// A cluster.
    Cluster(Arc<Cluster>),
    /// A node.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
    /// A secret.
    Secret(Arc<Secret>),
    /// A config.
    Config(Arc<Config>),
    /// One version of the data of a secret or config.
    Payload(Arc<Payload>),
}

// === impl Kind ===

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Cluster => "cluster",
            Kind::Node => "node",
            Kind::Service => "service",
            Kind::Task => "task",
            Kind::Secret => "secret",
            Kind::Config => "config",
            Kind::Payload => "data",
        })
    }
}

// === impl ObjectId ===

impl ObjectId {
    /// Of what kind the object is.
    pub fn kind(&self) -> Kind {
        match self {
            ObjectId::Cluster(_) => Kind::Cluster,
            ObjectId::Node(_) => Kind::Node,
            ObjectId::Service(_) => Kind::Service,
            ObjectId::Task(_) => Kind::Task,
            ObjectId::Secret(_) => Kind::Secret,
            ObjectId::Config(_) => Kind::Config,
            ObjectId::Payload(_) => Kind::Payload,
        }
    }

    /// The id's characters; for data those of the secret or config.
    pub fn as_str(&self) -> &str {
        match self {
            ObjectId::Cluster(id) => id.as_str(),
            ObjectId::Node(id) => id.as_str(),
            ObjectId::Service(id) => id.as_str(),
            ObjectId::Task(id) => id.as_str(),
            ObjectId::Secret(id) => id.as_str(),
            ObjectId::Config(id) => id.as_str(),
            ObjectId::Payload(id) => id.of.as_str(),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectId::Payload(id) => write!(f, "{} of {id}", self.kind()),
            _ => write!(f, "{} {}", self.kind(), self.as_str()),
        }
    }
}

// === impl Object ===

impl Object {
    /// The object's id.
    pub fn id(&self) -> ObjectId {
        match self {
            Object::Cluster(o) => ObjectId::Cluster(o.id.clone()),
            Object::Node(o) => ObjectId::Node(o.id.clone()),
            Object::Service(o) => ObjectId::Service(o.id.clone()),
            Object::Task(o) => ObjectId::Task(o.id.clone()),
            Object::Secret(o) => ObjectId::Secret(o.id.clone()),
            Object::Config(o) => ObjectId::Config(o.id.clone()),
            Object::Payload(o) => ObjectId::Payload(o.id.clone()),
        }
    }

    /// Version and times.
    pub fn meta(&self) -> &Meta {
        match self {
            Object::Cluster(o) => &o.meta,
            Object::Node(o) => &o.meta,
            Object::Service(o) => &o.meta,
            Object::Task(o) => &o.meta,
            Object::Secret(o) => &o.meta,
            Object::Config(o) => &o.meta,
            Object::Payload(o) => &o.meta,
        }
    }

    /// The same object with another version and other times.
    pub(crate) fn with_meta(self, meta: Meta) -> Object {
        match self {
            Object::Cluster(mut o) => {
                Arc::make_mut(&mut o).meta = meta;
                Object::Cluster(o)
            }
            Object::Node(mut o) => {
                Arc::make_mut(&mut o).meta = meta;
                Object::Node(o)
            }
            Object::Service(mut o) => {
                Arc::make_mut(&mut o).meta = meta;
                Object::Service(o)
            }
            Object::Task(mut o) => {
                Arc::make_mut(&mut o).meta = meta;
                Object::Task(o)
            }
            Object::Secret(mut o) => {
                Arc::make_mut(&mut o).meta = meta;
                Object::Secret(o)
            }
            Object::Config(mut o) => {
                Arc::make_mut(&mut o).meta = meta;
                Object::Config(o)
            }
            Object::Payload(mut o) => {
                Arc::make_mut(&mut o).meta = meta;
                Object::Payload(o)
            }
        }
    }
}

macro_rules! from {
    ($($ty:ident),*) => {$(
        impl From<$ty> for Object {
            fn from(o: $ty) -> Object { Object::$ty(Arc::new(o)) }
        }
        impl From<Arc<$ty>> for Object {
            fn from(o: Arc<$ty>) -> Object { Object::$ty(o) }
        }
    )*};
}
from!(Cluster, Node, Service, Task, Secret, Config, Payload);

macro_rules! from_id {
    ($($ty:ident => $kind:ident),*) => {$(
        impl From<$ty> for ObjectId {
            fn from(id: $ty) -> ObjectId { ObjectId::$kind(id) }
        }
        impl From<&$ty> for ObjectId {
            fn from(id: &$ty) -> ObjectId { ObjectId::$kind(id.clone()) }
        }
    )*};
}
from_id!(
    ClusterId => Cluster, NodeId => Node, ServiceId => Service, TaskId => Task,
    SecretId => Secret, ConfigId => Config, PayloadId => Payload
);

impl From<&Dependency> for ObjectId {
    fn from(of: &Dependency) -> ObjectId {
        match of {
            Dependency::Secret(id) => ObjectId::Secret(id.clone()),
            Dependency::Config(id) => ObjectId::Config(id.clone()),
        }
    }
}
