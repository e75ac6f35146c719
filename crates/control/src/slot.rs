//! The tasks of one service, slot by slot, as a working copy: the loops edit it, then it becomes a transaction.

use crate::dirty::is_up_to_date;
use crate::ids::{Follows, next_task_id};
use crate::plan::Group;
use crate::service::Context;
use model::{Meta, Place, ServiceId, SlotKey, Task, TaskId, TaskState, TaskStatus, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Snapshot;

/// The slots of a service that have tasks.
pub(crate) type Slots = BTreeMap<SlotKey, Slot>;

/// The tasks of one slot, oldest first.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) key: SlotKey,
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
        at(&mut slots, task.slot_key()).items.push(Item { task: task.clone(), edit: Edit::None });
    }
    slots.values_mut().for_each(Slot::sort);
    slots
}

/// The slot of this name, which is made if there is none.
pub(crate) fn at(slots: &mut Slots, key: SlotKey) -> &mut Slot {
    slots.entry(key.clone()).or_insert_with(|| Slot { key, items: Vec::new() })
}

/// Why a task is stopped, and what the agent is asked to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Another takes its place; it stays as history.
    Shutdown,
    /// Its slot is gone.
    Remove,
}

/// What a new task takes over from those before it in its slot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Next {
    /// It waits until then.
    pub(crate) run_after: Option<Timestamp>,
    /// So many failed in a row.
    pub(crate) failures: u32,
}

// === impl Item ===

impl Item {
    pub(crate) fn edit(&mut self) -> &mut Task {
        if self.edit == Edit::None {
            self.edit = Edit::Changed;
        }
        Arc::make_mut(&mut self.task)
    }

    /// This very plan makes it.
    pub(crate) fn is_new(&self) -> bool {
        self.edit == Edit::Created
    }

    pub(crate) fn is_present(&self) -> bool {
        !matches!(self.edit, Edit::Removed | Edit::Dropped)
    }

    /// It should run, or did until it ended.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_present() && self.task.is_wanted()
    }

    /// It is not what the service says.
    pub(crate) fn is_dirty(&self, context: &Context<'_>) -> bool {
        !is_up_to_date(context.snapshot, context.service, &self.task)
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

    /// A task of it should run, or did until it ended.
    pub(crate) fn is_wanted(&self) -> bool {
        self.present().any(Item::is_wanted)
    }

    /// The newest task, whatever it does; it speaks for the slot.
    pub(crate) fn newest(&self) -> Option<&Item> {
        self.present().next_back()
    }

    /// Adds the task that follows, not placed yet, with desired state `Ready`.
    pub(crate) fn add(&mut self, context: &Context<'_>, next: Next) {
        let service = context.service;
        let id = self.next_id(context);
        let (slot, for_node) = match &self.key.place {
            Place::Number(n) => (*n, None),
            Place::Node(id) => (0, Some(id.clone())),
        };
        let task = Task {
            id,
            meta: Meta { version: 0, created_at: context.now, updated_at: context.now },
            service_id: service.id.clone(),
            service_name: service.spec.name.clone(),
            slot,
            for_node,
            job_iteration: self.key.run,
            failures: next.failures,
            inherited: context.inherited(),
            spec: service.spec.task.clone(),
            spec_version: service.spec_version,
            host_ports: service.host_ports(),
            node_id: None,
            generic: Vec::new(),
            desired: TaskState::Ready,
            run_after: next.run_after,
            status: TaskStatus {
                state: TaskState::Pending,
                at: context.now,
                message: "pending task scheduling".into(),
                ..TaskStatus::default()
            },
        };
        self.items.push(Item { task: Arc::new(task), edit: Edit::Created });
    }

    /// Clocks that jumped may have hidden which one was last; an id that is taken is followed in its turn.
    fn next_id(&self, context: &Context<'_>) -> TaskId {
        let node = self.key.node().and_then(|id| context.snapshot.node(id));
        let follows = Follows {
            service: &context.service.id,
            service_version: context.service.meta.version,
            slot: &self.key,
            node_version: node.map_or(0, |n| n.meta.version),
            predecessor: self.predecessor().map(|i| &i.task.id),
        };
        let mut id = next_task_id(follows);
        while self.items.iter().any(|i| i.task.id == id) {
            id = next_task_id(Follows { predecessor: Some(&id), ..follows });
        }
        id
    }

    /// The task that the next one follows: the newest. Where that one goes on (start-first), others may have followed it and
    /// failed, and then it is the last of those: followed twice, a task would give the same id twice.
    fn predecessor(&self) -> Option<&Item> {
        let age = |i: &&Item| (i.task.spec_version, i.task.meta.created_at);
        match self.items.last() {
            Some(last) if last.is_wanted() => self.items.iter().max_by_key(age),
            last => last,
        }
    }

    /// What was done to it; `None` when nothing was.
    pub(crate) fn into_group(self) -> Option<Group> {
        let in_doubt = self.items.iter().filter(|i| !i.task.status.state.is_terminal() || i.edit == Edit::Changed);
        let nodes = in_doubt.filter_map(|i| i.task.node_id.clone()).collect();
        let mut group = Group { nodes, of_node: self.key.node().cloned(), ..Group::default() };
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
