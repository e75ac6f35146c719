//! Immutable views of the whole state, with the indexes that readers need. Cloning one is a few pointer copies.

use crate::{Kind, Object, ObjectId};
use model::{
    Cluster, Config, ConfigId, ConfigName, Dependency, Holding, Node, NodeId, NodeUsage, Payload, PayloadId, Secret,
    SecretId, SecretName, Service, ServiceId, ServiceName, SlotKey, Task, TaskId, Timestamp,
};
use rpds::RedBlackTreeMapSync as Map;
use std::sync::{Arc, LazyLock};

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
    tasks_of_service: Map<ServiceId, Map<InService, Arc<Task>>>,
    tasks_on_node: Map<NodeId, Map<TaskId, Arc<Task>>>,
    /// What tasks hold of the nodes on which they hold something.
    usage: Map<NodeId, Arc<NodeUsage>>,
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
    /// The services with tasks for nodes: each change of a node concerns them.
    global_services: Map<ServiceId, ()>,
    /// The services of which a task is being moved to another node.
    moving_services: Map<ServiceId, ()>,
    /// The nodes that take tasks, by the time since when they do.
    takers: Map<(Timestamp, NodeId), ()>,
    /// Versions of data that are not those which their secret or config has now.
    outdated_payloads: Map<PayloadId, ()>,
}

/// A task in its service: its place there, and its id.
type InService = (SlotKey, TaskId);

/// No id is lower.
static LOWEST_TASK: LazyLock<TaskId> = LazyLock::new(|| "0".repeat(25).parse().expect("25 zeros are an id"));

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

    /// The tasks of a service, by their place in it and then by id; also those of a service that is gone.
    pub fn tasks_of_service(&self, id: &ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_of_service.get(id).into_iter().flat_map(|m| m.values())
    }

    /// The tasks that have this node, by id.
    pub fn tasks_on_node(&self, id: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_on_node.get(id).into_iter().flat_map(|m| m.values())
    }

    /// What tasks hold of the node; `None` when they hold nothing.
    pub fn usage_of(&self, node: &NodeId) -> Option<&Arc<NodeUsage>> {
        self.usage.get(node)
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

    /// The services whose tasks belong to nodes, by id.
    pub fn global_services(&self) -> impl Iterator<Item = &ServiceId> {
        self.global_services.keys()
    }

    /// The services of which a task is being moved to another node, by id.
    pub fn moving_services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.moving_services.keys().filter_map(|id| self.services.get(id))
    }

    /// The node that came last to take tasks, of those that do; of several that came at once the one with the highest id.
    pub fn newest_taker(&self) -> Option<&Arc<Node>> {
        self.takers.last().and_then(|((_, id), ())| self.nodes.get(id))
    }

    /// The versions of data that are not those which their secret or config has now, by id: they are kept only as long as
    /// somebody has them.
    pub fn outdated_payloads(&self) -> impl Iterator<Item = &Arc<Payload>> {
        self.outdated_payloads.keys().filter_map(|id| self.payloads.get(id))
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
        let old = self.remove(&object.id());
        if let (Object::Task(new), old) = (&object, old) {
            let old = match &old {
                Some(Object::Task(old)) => Some(old.as_ref()),
                _ => None,
            };
            self.account(old, Some(new));
        }
        match object {
            Object::Cluster(o) => self.cluster = Some(o),
            Object::Node(o) => {
                if o.takes_tasks() {
                    self.takers.insert_mut((o.status.takes_tasks_since, o.id.clone()), ());
                }
                self.nodes.insert_mut(o.id.clone(), o);
            }
            Object::Service(o) => {
                add(&mut self.service_names, &o.spec.name, &o.id);
                let named = o.spec.task.dependencies();
                named.for_each(|d| add(&mut self.services_naming, &(&d).into(), &o.id));
                if o.spec.mode.is_global() {
                    self.global_services.insert_mut(o.id.clone(), ());
                }
                if o.progress.is_moving() {
                    self.moving_services.insert_mut(o.id.clone(), ());
                }
                self.services.insert_mut(o.id.clone(), o);
            }
            Object::Task(o) => self.put_task(o),
            Object::Secret(o) => {
                add(&mut self.secret_names, &o.spec.name, &o.id);
                let of = Dependency::Secret(o.id.clone());
                self.secrets.insert_mut(o.id.clone(), o);
                self.mark_outdated(&of);
            }
            Object::Config(o) => {
                add(&mut self.config_names, &o.spec.name, &o.id);
                let of = Dependency::Config(o.id.clone());
                self.configs.insert_mut(o.id.clone(), o);
                self.mark_outdated(&of);
            }
            Object::Payload(o) => {
                let of = o.id.of.clone();
                self.payloads.insert_mut(o.id.clone(), o);
                self.mark_outdated(&of);
            }
        }
    }

    /// Notes which of the few versions of some data are not the present one.
    fn mark_outdated(&mut self, of: &Dependency) {
        let current = match of {
            Dependency::Secret(id) => self.secrets.get(id).map(|s| s.data_version),
            Dependency::Config(id) => self.configs.get(id).map(|c| c.data_version),
        };
        let versions: Vec<PayloadId> = self.payloads_of(of).map(|p| p.id.clone()).collect();
        for id in versions {
            if current == Some(id.version) {
                self.outdated_payloads.remove_mut(&id);
            } else {
                self.outdated_payloads.insert_mut(id, ());
            }
        }
    }

    fn put_task(&mut self, task: Arc<Task>) {
        let mut of_service = self.tasks_of_service.get(&task.service_id).cloned().unwrap_or_default();
        of_service.insert_mut(in_service(&task), task.clone());
        self.tasks_of_service.insert_mut(task.service_id.clone(), of_service);
        if let Some(node) = &task.node_id {
            let mut on_node = self.tasks_on_node.get(node).cloned().unwrap_or_default();
            on_node.insert_mut(task.id.clone(), task.clone());
            self.tasks_on_node.insert_mut(node.clone(), on_node);
        } else if task.is_active() {
            self.unplaced.insert_mut(task.id.clone(), task.clone());
        }
        if task.is_active() {
            task.spec.payloads().for_each(|p| add(&mut self.given, &p, &task.id));
        }
        self.tasks.insert_mut(task.id.clone(), task);
    }

    /// Removes an object and returns it.
    pub(crate) fn take(&mut self, id: &ObjectId) -> Option<Object> {
        let old = self.remove(id)?;
        if let Object::Task(task) = &old {
            self.account(Some(task), None);
        }
        Some(old)
    }

    /// The same, before it is known whether another version of it takes its place.
    fn remove(&mut self, id: &ObjectId) -> Option<Object> {
        let old = self.get(id)?;
        match &old {
            Object::Cluster(_) => self.cluster = None,
            Object::Node(o) => {
                self.nodes.remove_mut(&o.id);
                self.takers.remove_mut(&(o.status.takes_tasks_since, o.id.clone()));
            }
            Object::Service(o) => {
                self.services.remove_mut(&o.id);
                subtract(&mut self.service_names, &o.spec.name, &o.id);
                self.global_services.remove_mut(&o.id);
                self.moving_services.remove_mut(&o.id);
                let named = o.spec.task.dependencies();
                named.for_each(|d| subtract(&mut self.services_naming, &(&d).into(), &o.id));
            }
            Object::Task(o) => self.take_task(o),
            Object::Secret(o) => {
                self.secrets.remove_mut(&o.id);
                subtract(&mut self.secret_names, &o.spec.name, &o.id);
                self.mark_outdated(&Dependency::Secret(o.id.clone()));
            }
            Object::Config(o) => {
                self.configs.remove_mut(&o.id);
                subtract(&mut self.config_names, &o.spec.name, &o.id);
                self.mark_outdated(&Dependency::Config(o.id.clone()));
            }
            Object::Payload(o) => {
                self.payloads.remove_mut(&o.id);
                self.outdated_payloads.remove_mut(&o.id);
            }
        }
        Some(old)
    }

    fn take_task(&mut self, task: &Task) {
        self.tasks.remove_mut(&task.id);
        self.unplaced.remove_mut(&task.id);
        if task.is_active() {
            task.spec.payloads().for_each(|p| subtract(&mut self.given, &p, &task.id));
        }
        if let Some(of_service) = self.tasks_of_service.get(&task.service_id) {
            let rest = of_service.remove(&in_service(task));
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

// === usage ===

impl Snapshot {
    /// Brings the usage of nodes up to date with a task that was `old` and becomes `new`, while neither is in the indexes. Only
    /// its slot is looked at, so it costs what the slot has tasks.
    fn account(&mut self, old: Option<&Task>, new: Option<&Task>) {
        let place = |t: &Task| (t.service_id.clone(), t.slot_key());
        if let (Some(old), Some(new)) = (old, new)
            && old.holds_as(new)
            && place(old) == place(new)
        {
            return;
        }
        let holding = [old, new].map(|t| t.filter(|t| t.holds_its_node()));
        let [Some(a), Some(b)] = holding else {
            let one = holding.into_iter().flatten().next();
            one.into_iter().for_each(|t| self.recount(t, old, new));
            return;
        };
        // A task does not move, but what is true of an index must not depend on that.
        self.recount(a, Some(a), None);
        self.recount(b, None, Some(b));
    }

    /// Replaces what the slot of `like` holds on its node: the other tasks there with `old`, by the others with `new`.
    fn recount(&mut self, like: &Task, old: Option<&Task>, new: Option<&Task>) {
        let Some(node) = &like.node_id else { return };
        let others: Vec<Arc<Task>> = self.beside(like, node).cloned().collect();
        let with = |task: Option<&Task>| {
            let task = task.filter(|t| t.holds_its_node());
            (task.is_some() || !others.is_empty()).then(|| Holding::of(others.iter().map(Arc::as_ref).chain(task)))
        };
        let mut usage = self.usage.get(node).map_or_else(NodeUsage::default, |u| u.as_ref().clone());
        with(old).iter().for_each(|h| usage.subtract(h));
        with(new).iter().for_each(|h| usage.add(h));
        if usage.is_empty() {
            self.usage.remove_mut(node);
        } else {
            self.usage.insert_mut(node.clone(), Arc::new(usage));
        }
    }

    /// The other tasks of its slot that hold something on the node.
    fn beside(&self, task: &Task, node: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        let key = task.slot_key();
        let of_service = self.tasks_of_service.get(&task.service_id);
        let from = (key.clone(), LOWEST_TASK.clone());
        let of_slot = of_service.into_iter().flat_map(move |tasks| tasks.range(from.clone()..));
        let of_slot = of_slot.take_while(move |((k, _), _)| *k == key).map(|(_, t)| t);
        of_slot.filter(|t| t.id != task.id && t.node_id.as_ref() == Some(node) && t.holds_its_node())
    }
}

fn in_service(task: &Task) -> InService {
    (task.slot_key(), task.id.clone())
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
