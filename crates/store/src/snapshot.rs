//! Immutable views of the whole state, with the indexes that readers need. Cloning one is a few pointer copies.

use crate::{Kind, Object, ObjectId};
use model::{
    Cluster, Config, ConfigId, ConfigName, Dependency, Node, NodeId, Payload, PayloadId, Secret, SecretId, SecretName,
    Service, ServiceId, ServiceName, Task, TaskId,
};
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
    secrets: Map<SecretId, Arc<Secret>>,
    secret_names: Map<SecretName, Map<SecretId, ()>>,
    configs: Map<ConfigId, Arc<Config>>,
    config_names: Map<ConfigName, Map<ConfigId, ()>>,
    payloads: Map<PayloadId, Arc<Payload>>,
    /// The tasks that run, or may come to run, with a version of some data.
    given: Map<PayloadId, Map<TaskId, ()>>,
    /// The services whose spec names a secret or config.
    services_naming: Map<ObjectId, Map<ServiceId, ()>>,
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

    /// One secret.
    pub fn secret(&self, id: &SecretId) -> Option<&Arc<Secret>> {
        self.secrets.get(id)
    }

    /// One secret by its name; the one with the lowest id, should there be several.
    pub fn secret_named(&self, name: &SecretName) -> Option<&Arc<Secret>> {
        self.secret_names.get(name).and_then(|ids| self.secrets.get(ids.keys().next()?))
    }

    /// All secrets, by id.
    pub fn secrets(&self) -> impl ExactSizeIterator<Item = &Arc<Secret>> {
        self.secrets.values()
    }

    /// One config.
    pub fn config(&self, id: &ConfigId) -> Option<&Arc<Config>> {
        self.configs.get(id)
    }

    /// One config by its name; the one with the lowest id, should there be several.
    pub fn config_named(&self, name: &ConfigName) -> Option<&Arc<Config>> {
        self.config_names.get(name).and_then(|ids| self.configs.get(ids.keys().next()?))
    }

    /// All configs, by id.
    pub fn configs(&self) -> impl ExactSizeIterator<Item = &Arc<Config>> {
        self.configs.values()
    }

    /// One version of the data of a secret or config.
    pub fn payload(&self, id: &PayloadId) -> Option<&Arc<Payload>> {
        self.payloads.get(id)
    }

    /// The versions of the data of a secret or config that are kept, oldest first.
    pub fn payloads_of(&self, of: &Dependency) -> impl DoubleEndedIterator<Item = &Arc<Payload>> {
        let at = |version| PayloadId { of: of.clone(), version };
        self.payloads.range(at(0)..=at(u64::MAX)).map(|(_, p)| p)
    }

    /// All versions of all data, by id.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &Arc<Payload>> {
        self.payloads.values()
    }

    /// The services whose spec names the secret or config, by id.
    pub fn services_naming(&self, id: &ObjectId) -> impl Iterator<Item = &Arc<Service>> {
        let ids = self.services_naming.get(id).into_iter().flat_map(|ids| ids.keys());
        ids.filter_map(|id| self.services.get(id))
    }

    /// True when a task that runs, or may come to run, was made with this version of the data.
    pub fn is_given(&self, id: &PayloadId) -> bool {
        self.given.contains_key(id)
    }

    /// Any object.
    pub fn get(&self, id: &ObjectId) -> Option<Object> {
        match id {
            ObjectId::Cluster(id) => self.cluster.as_ref().filter(|c| c.id == *id).cloned().map(Object::Cluster),
            ObjectId::Node(id) => self.nodes.get(id).cloned().map(Object::Node),
            ObjectId::Service(id) => self.services.get(id).cloned().map(Object::Service),
            ObjectId::Task(id) => self.tasks.get(id).cloned().map(Object::Task),
            ObjectId::Secret(id) => self.secrets.get(id).cloned().map(Object::Secret),
            ObjectId::Config(id) => self.configs.get(id).cloned().map(Object::Config),
            ObjectId::Payload(id) => self.payloads.get(id).cloned().map(Object::Payload),
        }
    }

    /// Every object, in a fixed order.
    pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
        let cluster = self.cluster.iter().cloned().map(Object::Cluster);
        let nodes = self.nodes.values().cloned().map(Object::Node);
        let services = self.services.values().cloned().map(Object::Service);
        let tasks = self.tasks.values().cloned().map(Object::Task);
        let secrets = self.secrets.values().cloned().map(Object::Secret);
        let configs = self.configs.values().cloned().map(Object::Config);
        let payloads = self.payloads.values().cloned().map(Object::Payload);
        cluster.chain(nodes).chain(services).chain(tasks).chain(secrets).chain(configs).chain(payloads)
    }

    pub(crate) fn name_taken(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Service => name.parse().is_ok_and(|n: ServiceName| self.service_names.contains_key(&n)),
            Kind::Secret => name.parse().is_ok_and(|n: SecretName| self.secret_names.contains_key(&n)),
            Kind::Config => name.parse().is_ok_and(|n: ConfigName| self.config_names.contains_key(&n)),
            Kind::Cluster | Kind::Node | Kind::Task | Kind::Payload => false,
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
                add(&mut self.service_names, &o.spec.name, &o.id);
                let named = o.spec.task.container.dependencies();
                named.for_each(|d| add(&mut self.services_naming, &(&d).into(), &o.id));
                self.services.insert_mut(o.id.clone(), o);
            }
            Object::Task(o) => self.put_task(o),
            Object::Secret(o) => {
                add(&mut self.secret_names, &o.spec.name, &o.id);
                self.secrets.insert_mut(o.id.clone(), o);
            }
            Object::Config(o) => {
                add(&mut self.config_names, &o.spec.name, &o.id);
                self.configs.insert_mut(o.id.clone(), o);
            }
            Object::Payload(o) => self.payloads.insert_mut(o.id.clone(), o),
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
        if task.is_active() {
            task.spec.container.payloads().for_each(|p| add(&mut self.given, &p, &task.id));
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
                subtract(&mut self.service_names, &o.spec.name, &o.id);
                let named = o.spec.task.container.dependencies();
                named.for_each(|d| subtract(&mut self.services_naming, &(&d).into(), &o.id));
            }
            Object::Task(o) => self.take_task(o),
            Object::Secret(o) => {
                self.secrets.remove_mut(&o.id);
                subtract(&mut self.secret_names, &o.spec.name, &o.id);
            }
            Object::Config(o) => {
                self.configs.remove_mut(&o.id);
                subtract(&mut self.config_names, &o.spec.name, &o.id);
            }
            Object::Payload(o) => drop(self.payloads.remove_mut(&o.id)),
        }
        Some(old)
    }

    fn take_task(&mut self, task: &Task) {
        self.tasks.remove_mut(&task.id);
        self.unplaced.remove_mut(&task.id);
        if task.is_active() {
            task.spec.container.payloads().for_each(|p| subtract(&mut self.given, &p, &task.id));
        }
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

/// Notes in an index that `id` is found under `key`.
fn add<K: Ord + Clone, I: Ord + Clone>(index: &mut Map<K, Map<I, ()>>, key: &K, id: &I) {
    let ids = index.get(key).cloned().unwrap_or_default();
    index.insert_mut(key.clone(), ids.insert(id.clone(), ()));
}

/// The reverse; a key under which nothing is found any more goes.
fn subtract<K: Ord + Clone, I: Ord + Clone>(index: &mut Map<K, Map<I, ()>>, key: &K, id: &I) {
    let Some(ids) = index.get(key).map(|ids| ids.remove(id)) else { return };
    if ids.is_empty() {
        index.remove_mut(key);
    } else {
        index.insert_mut(key.clone(), ids);
    }
}
