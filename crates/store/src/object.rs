//! Objects of every kind, and their ids.

use model::{Cluster, ClusterId, Meta, Node, NodeId, Service, ServiceId, Task, TaskId};
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
}

// === impl Kind ===

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Cluster => "cluster",
            Kind::Node => "node",
            Kind::Service => "service",
            Kind::Task => "task",
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
        }
    }

    /// The id's characters.
    pub fn as_str(&self) -> &str {
        match self {
            ObjectId::Cluster(id) => id.as_str(),
            ObjectId::Node(id) => id.as_str(),
            ObjectId::Service(id) => id.as_str(),
            ObjectId::Task(id) => id.as_str(),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.as_str())
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
        }
    }

    /// Version and times.
    pub fn meta(&self) -> &Meta {
        match self {
            Object::Cluster(o) => &o.meta,
            Object::Node(o) => &o.meta,
            Object::Service(o) => &o.meta,
            Object::Task(o) => &o.meta,
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
from!(Cluster, Node, Service, Task);

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
from_id!(ClusterId => Cluster, NodeId => Node, ServiceId => Service, TaskId => Task);
