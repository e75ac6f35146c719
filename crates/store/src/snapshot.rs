//! Immutable views of the whole state, with the indexes that readers need. Cloning one is a few pointer copies.

use crate::{Kind, Object, ObjectId};
use model::{Cluster, Node, NodeId, Service, ServiceId, ServiceName, Task, TaskId};
use rpds::RedBlackTreeMapSync as Map;
use std::sync::Arc;

/// The whole state at one log index.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    index: u64,
    cluster: Option<Arc<Cluster>>,
    nodes: Map<NodeId, Arc<Node>>,
    services: Map<ServiceId, Arc<Service>>,
    /// By name. Nothing keeps a transaction without a check from using a name twice, and what is true of a name must follow
    /// from the objects alone: a manager that was restored from a snapshot knows nothing else.
    service_names: Map<ServiceName, Map<ServiceId, ()>>,
    tasks: Map<TaskId, Arc<Task>>,
    tasks_of_service: Map<ServiceId, Map<(u64, TaskId), Arc<Task>>>,
    tasks_on_node: Map<NodeId, Map<TaskId, Arc<Task>>>,
    unplaced: Map<TaskId, Arc<Task>>,
}

// === impl Snapshot ===

impl Snapshot {
    /// The log index of the last transaction that is in it.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The cluster object; `None` before `init`.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// One node.
    pub fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(id)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// One service.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id)
    }

    /// One service by its name; the one with the lowest id, should there be several.
    pub fn service_named(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.service_names.get(name).and_then(|ids| self.services.get(ids.keys().next()?))
    }

    /// All services, by id.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// One task.
    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }

    /// All tasks, by id.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// The tasks of a service, by slot and then id; also those of a service that is gone.
    pub fn tasks_of_service(&self, id: &ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_of_service.get(id).into_iter().flat_map(|m| m.values())
    }

    /// The tasks that have this node, by id.
    pub fn tasks_on_node(&self, id: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_on_node.get(id).into_iter().flat_map(|m| m.values())
    }

    /// The services that have tasks, whether or not they are still there themselves.
    pub fn services_with_tasks(&self) -> impl Iterator<Item = &ServiceId> {
        self.tasks_of_service.keys()
    }

    /// Tasks that have no node yet and still want one, by id.
    pub fn unplaced_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.unplaced.values()
    }

    /// Any object.
    pub fn get(&self, id: &ObjectId) -> Option<Object> {
        match id {
            ObjectId::Cluster(id) => self.cluster.as_ref().filter(|c| c.id == *id).cloned().map(Object::Cluster),
            ObjectId::Node(id) => self.nodes.get(id).cloned().map(Object::Node),
            ObjectId::Service(id) => self.services.get(id).cloned().map(Object::Service),
            ObjectId::Task(id) => self.tasks.get(id).cloned().map(Object::Task),
        }
    }

    /// Every object, in a fixed order.
    pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
        let cluster = self.cluster.iter().cloned().map(Object::Cluster);
        let nodes = self.nodes.values().cloned().map(Object::Node);
        let services = self.services.values().cloned().map(Object::Service);
        cluster.chain(nodes).chain(services).chain(self.tasks.values().cloned().map(Object::Task))
    }

    pub(crate) fn name_taken(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Service => name.parse().is_ok_and(|n: ServiceName| self.service_names.contains_key(&n)),
            Kind::Cluster | Kind::Node | Kind::Task => false,
        }
    }

    pub(crate) fn set_index(&mut self, index: u64) {
        self.index = index;
    }

    /// The same object, with its spec shared with an equal one that is here already: each transaction brings specs of its
    /// own, and a service has many tasks.
    pub(crate) fn share(&self, object: Object) -> Object {
        let Object::Task(mut task) = object else { return object };
        let before = self.tasks.get(&task.id).map(|t| &t.spec);
        let of_service = self.services.get(&task.service_id).map(|s| &s.spec.task);
        if let Some(spec) = [before, of_service].into_iter().flatten().find(|s| ***s == *task.spec) {
            Arc::make_mut(&mut task).spec = spec.clone();
        }
        Object::Task(task)
    }

    pub(crate) fn put(&mut self, object: Object) {
        self.take(&object.id());
        match object {
            Object::Cluster(o) => self.cluster = Some(o),
            Object::Node(o) => self.nodes.insert_mut(o.id.clone(), o),
            Object::Service(o) => {
                let ids = self.service_names.get(&o.spec.name).cloned().unwrap_or_default();
                self.service_names.insert_mut(o.spec.name.clone(), ids.insert(o.id.clone(), ()));
                self.services.insert_mut(o.id.clone(), o);
            }
            Object::Task(o) => self.put_task(o),
        }
    }

    fn put_task(&mut self, task: Arc<Task>) {
        let mut of_service = self.tasks_of_service.get(&task.service_id).cloned().unwrap_or_default();
        of_service.insert_mut((task.slot, task.id.clone()), task.clone());
        self.tasks_of_service.insert_mut(task.service_id.clone(), of_service);
        if let Some(node) = &task.node_id {
            let mut on_node = self.tasks_on_node.get(node).cloned().unwrap_or_default();
            on_node.insert_mut(task.id.clone(), task.clone());
            self.tasks_on_node.insert_mut(node.clone(), on_node);
        } else if task.is_active() {
            self.unplaced.insert_mut(task.id.clone(), task.clone());
        }
        self.tasks.insert_mut(task.id.clone(), task);
    }

    /// Removes an object and returns it.
    pub(crate) fn take(&mut self, id: &ObjectId) -> Option<Object> {
        let old = self.get(id)?;
        match &old {
            Object::Cluster(_) => self.cluster = None,
            Object::Node(o) => drop(self.nodes.remove_mut(&o.id)),
            Object::Service(o) => {
                self.services.remove_mut(&o.id);
                if let Some(ids) = self.service_names.get(&o.spec.name).map(|ids| ids.remove(&o.id)) {
                    if ids.is_empty() {
                        self.service_names.remove_mut(&o.spec.name);
                    } else {
                        self.service_names.insert_mut(o.spec.name.clone(), ids);
                    }
                }
            }
            Object::Task(o) => self.take_task(o),
        }
        Some(old)
    }

    fn take_task(&mut self, task: &Task) {
        self.tasks.remove_mut(&task.id);
        self.unplaced.remove_mut(&task.id);
        if let Some(of_service) = self.tasks_of_service.get(&task.service_id) {
            let rest = of_service.remove(&(task.slot, task.id.clone()));
            if rest.is_empty() {
                self.tasks_of_service.remove_mut(&task.service_id);
            } else {
                self.tasks_of_service.insert_mut(task.service_id.clone(), rest);
            }
        }
        if let Some((node, on_node)) = task.node_id.as_ref().and_then(|n| Some((n, self.tasks_on_node.get(n)?))) {
            let rest = on_node.remove(&task.id);
            if rest.is_empty() {
                self.tasks_on_node.remove_mut(node);
            } else {
                self.tasks_on_node.insert_mut(node.clone(), rest);
            }
        }
    }
}
