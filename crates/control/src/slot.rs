//! The tasks of one service, slot by slot, as a working copy: the loops edit it, then it becomes a transaction.

use crate::ids::next_task_id;
use crate::plan::Group;
use model::{Meta, Service, ServiceId, Task, TaskId, TaskState, TaskStatus, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Snapshot;

/// The slots of a service that have tasks.
pub(crate) type Slots = BTreeMap<u64, Slot>;

/// The tasks of one slot, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) items: Vec<Item>,
}

/// A task, and what is done to it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) task: Arc<Task>,
    edit: Edit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    None,
    Created,
    Changed,
    Removed,
    /// Created and removed by the same plan.
    Dropped,
}

/// Loads the tasks of a service that may be gone.
pub(crate) fn load(snapshot: &Snapshot, id: &ServiceId) -> Slots {
    let mut slots = Slots::new();
    for task in snapshot.tasks_of_service(id) {
        slots.entry(task.slot).or_default().items.push(Item { task: task.clone(), edit: Edit::None });
    }
    slots.values_mut().for_each(Slot::sort);
    slots
}

/// Why a task is stopped, and what the agent is asked to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Another takes its place; it stays as history.
    Shutdown,
    /// Its slot is gone.
    Remove,
}

// === impl Item ===

impl Item {
    pub(crate) fn edit(&mut self) -> &mut Task {
        if self.edit == Edit::None {
            self.edit = Edit::Changed;
        }
        Arc::make_mut(&mut self.task)
    }

    pub(crate) fn is_present(&self) -> bool {
        !matches!(self.edit, Edit::Removed | Edit::Dropped)
    }

    /// It should run, or did until it ended.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_present() && self.task.is_wanted()
    }

    pub(crate) fn is_dirty(&self, service: &Service) -> bool {
        is_dirty(service, &self.task)
    }

    /// It needs a node.
    pub(crate) fn is_unplaced(&self) -> bool {
        self.is_wanted() && self.task.node_id.is_none() && !self.task.status.state.is_terminal()
    }

    pub(crate) fn remove(&mut self) {
        self.edit = if self.edit == Edit::Created { Edit::Dropped } else { Edit::Removed };
    }

    /// Asks for its end. What never had a node just goes.
    pub(crate) fn stop(&mut self, how: Stop) {
        let desired = if how == Stop::Remove { TaskState::Remove } else { TaskState::Shutdown };
        if self.task.node_id.is_none() && !self.task.status.state.is_terminal() {
            self.remove();
        } else if self.task.desired < desired {
            self.edit().desired = desired;
        }
    }

    /// It ended without being asked to.
    pub(crate) fn ended_by_itself(&self) -> bool {
        matches!(self.task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
    }
}

/// True when the task is not what the service says. Equal specs are equal whatever their version.
pub(crate) fn is_dirty(service: &Service, task: &Task) -> bool {
    if task.spec_version == service.spec_version {
        return false;
    }
    !is_same_spec(service, task) || task.host_ports != service.host_ports()
}

/// Credentials for a registry do not matter any more once the image is there (SwarmKit's `PullOptions`).
fn is_same_spec(service: &Service, task: &Task) -> bool {
    if Arc::ptr_eq(&task.spec, &service.spec.task) || task.spec == service.spec.task {
        return true;
    }
    if task.status.state < TaskState::Running {
        return false;
    }
    let mut with_same_auth = task.spec.as_ref().clone();
    with_same_auth.container.registry_auth.clone_from(&service.spec.task.container.registry_auth);
    with_same_auth == *service.spec.task
}

// === impl Slot ===

impl Slot {
    /// By age; clocks may have jumped, so what is still wanted is newest whatever its time says.
    pub(crate) fn sort(&mut self) {
        self.items.sort_by(|a, b| {
            let age = |i: &Item| (i.task.is_wanted(), i.task.spec_version, i.task.meta.created_at);
            age(a).cmp(&age(b)).then_with(|| a.task.id.cmp(&b.task.id))
        });
    }

    pub(crate) fn present(&self) -> impl DoubleEndedIterator<Item = &Item> {
        self.items.iter().filter(|i| i.is_present())
    }

    pub(crate) fn present_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.items.iter_mut().filter(|i| i.is_present())
    }

    /// The slot counts as one of the service's replicas.
    pub(crate) fn is_occupied(&self) -> bool {
        self.present().any(|i| i.task.desired < TaskState::Remove)
    }

    /// The newest task, whatever it does; it speaks for the slot.
    pub(crate) fn newest(&self) -> Option<&Item> {
        self.present().next_back()
    }

    /// Adds the task that follows, not placed yet, with desired state `Ready`.
    pub(crate) fn add(&mut self, service: &Service, slot: u64, run_after: Option<Timestamp>, now: Timestamp) {
        let id = self.next_id(service, slot);
        let task = Task {
            id,
            meta: Meta { version: 0, created_at: now, updated_at: now },
            service_id: service.id.clone(),
            service_name: service.spec.name.clone(),
            slot,
            spec: service.spec.task.clone(),
            spec_version: service.spec_version,
            host_ports: service.host_ports(),
            node_id: None,
            desired: TaskState::Ready,
            run_after,
            status: TaskStatus {
                state: TaskState::Pending,
                at: now,
                message: "pending task scheduling".into(),
                ..TaskStatus::default()
            },
        };
        self.items.push(Item { task: Arc::new(task), edit: Edit::Created });
    }

    /// Clocks that jumped may have hidden which one was last; an id that is taken is followed in its turn.
    fn next_id(&self, service: &Service, slot: u64) -> TaskId {
        let predecessor = self.items.last().map(|i| &i.task.id);
        let mut id = next_task_id(&service.id, service.meta.version, slot, predecessor);
        while self.items.iter().any(|i| i.task.id == id) {
            id = next_task_id(&service.id, service.meta.version, slot, Some(&id));
        }
        id
    }

    /// What was done to it; `None` when nothing was.
    pub(crate) fn into_group(self) -> Option<Group> {
        let in_doubt = self.items.iter().filter(|i| !i.task.status.state.is_terminal() || i.edit == Edit::Changed);
        let nodes = in_doubt.filter_map(|i| i.task.node_id.clone()).collect();
        let mut group = Group { nodes, ..Group::default() };
        for item in self.items {
            match item.edit {
                Edit::None | Edit::Dropped => {}
                Edit::Created => group.create.push(item.task),
                Edit::Changed => group.update.push(item.task),
                Edit::Removed => group.remove.push(item.task),
            }
        }
        let any = !(group.create.is_empty() && group.update.is_empty() && group.remove.is_empty());
        any.then_some(group)
    }
}
