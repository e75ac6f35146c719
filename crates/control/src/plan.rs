//! Plans, and the budget of one transaction.

use crate::Canary;
use crate::enforce::NO_LONGER_MEETS;
use crate::rebalance;
use crate::scheduler::ClusterView;
use crate::service::is_away;
use model::{Availability, NodeId, Service, ServiceId, Task, TaskSpec, TaskState, Timestamp, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Check, Object, ObjectId, Snapshot, Transaction};

/// What one run of a control loop wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The changes, with the checks that make them safe; may be empty.
    pub transaction: Transaction,
    /// When to look again though nothing changed: a delay runs out, or (`now`) the rest did not fit the transaction.
    pub wake_at: Option<Timestamp>,
}

/// What a run over several services wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The changes, with the checks that make them safe; may be empty.
    pub transaction: Transaction,
    /// When to look again at which service. `now` means that its rest did not fit the transaction.
    pub wakes: BTreeMap<ServiceId, Timestamp>,
}

/// How much goes into one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Changes.
    pub changes: usize,
    /// Bytes, by an estimate that errs on the large side.
    pub bytes: usize,
}

/// One transaction in the making.
pub(crate) struct Planner<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Timestamp,
    /// Simulation only: all off unless it turns one on.
    pub(crate) canary: Canary,
    budget: Budget,
    transaction: Transaction,
    /// A group was added.
    has_groups: bool,
    checked: BTreeSet<ObjectId>,
    wakes: BTreeMap<ServiceId, Timestamp>,
    view: Option<ClusterView>,
    /// Nodes that run a task less by this plan; for the view, once there is one.
    relieved: Vec<NodeId>,
    /// The view is without the tasks that are being moved away.
    moves_counted: bool,
    /// The node that came to take tasks last, if that is a reason to spread services anew; looked for once.
    joined: Option<Option<(NodeId, Timestamp)>>,
    /// The last task spec that was measured, and its size.
    measured: Option<(Arc<TaskSpec>, usize)>,
}

/// Changes that are made together or not at all.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) create: Vec<Arc<Task>>,
    pub(crate) update: Vec<Arc<Task>>,
    pub(crate) remove: Vec<Arc<Task>>,
    /// Nodes on which something of the slot may run: that they are away may be why the changes are made.
    pub(crate) nodes: BTreeSet<NodeId>,
    /// The node whose place it is: what the node is like is why the changes are made.
    pub(crate) of_node: Option<NodeId>,
}

/// Bytes that a change takes beside its task: field names, ids and versions of the change and of its check.
const CHANGE_OVERHEAD_BYTES: usize = 300;

// === impl Budget ===

impl Default for Budget {
    /// As much as the log takes, with room for checks.
    fn default() -> Self {
        Budget { changes: limits::TRANSACTION_CHANGES_MAX, bytes: limits::TRANSACTION_BYTES_MAX * 3 / 4 }
    }
}

impl Budget {
    /// Half of it, but always room for one slot.
    pub fn halved(self) -> Budget {
        Budget { changes: (self.changes / 2).max(16), bytes: (self.bytes / 2).max(64 * 1024) }
    }
}

// === impl Group ===

impl Group {
    /// 0: something ends, and nothing begins. 1: both. 2: something begins, or gets a node, and nothing ends.
    pub(crate) fn order(&self, snapshot: &Snapshot) -> u8 {
        let had_node = |t: &Arc<Task>| snapshot.task(&t.id).is_some_and(|b| b.node_id.is_some());
        let begins = !self.create.is_empty() || self.update.iter().any(|t| t.node_id.is_some() && !had_node(t));
        let ends = !self.remove.is_empty() || self.update.iter().any(|t| !t.is_wanted());
        match (ends, begins) {
            (_, false) => 0,
            (true, true) => 1,
            (false, true) => 2,
        }
    }
}

// === impl Planner ===

impl<'a> Planner<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, now: Timestamp, budget: Budget, canary: Canary) -> Self {
        Planner {
            snapshot,
            now,
            canary,
            budget,
            transaction: Transaction::new(now),
            has_groups: false,
            checked: BTreeSet::new(),
            wakes: BTreeMap::new(),
            view: None,
            relieved: Vec::new(),
            moves_counted: false,
            joined: None,
            measured: None,
        }
    }

    pub(crate) fn finish(self) -> Batch {
        Batch { transaction: self.transaction, wakes: self.wakes }
    }

    /// Changes that still fit: a loop need not plan more than this.
    pub(crate) fn room(&self) -> usize {
        self.budget.changes.saturating_sub(self.transaction.changes.len())
    }

    /// True when nothing fits any more.
    pub(crate) fn is_full(&self) -> bool {
        self.room() == 0 || self.budget.bytes == 0
    }

    /// Asks to look at the service again at `at`, or before.
    pub(crate) fn wake(&mut self, service: &ServiceId, at: Timestamp) {
        self.wakes.entry(service.clone()).and_modify(|w| *w = at.min(*w)).or_insert(at);
    }

    /// The scheduler's view of the nodes, with what this plan has placed.
    pub(crate) fn view(&mut self) -> &mut ClusterView {
        let view = self.view.get_or_insert_with(|| ClusterView::new(self.snapshot));
        for node in self.relieved.drain(..) {
            view.relieve(&node);
        }
        view
    }

    /// The same, for spreading tasks anew: as it will be when the moves are through that are under way.
    pub(crate) fn relieved_view(&mut self) -> &mut ClusterView {
        if !std::mem::replace(&mut self.moves_counted, true) {
            self.relieved.extend(rebalance::leaving(self.snapshot));
        }
        self.view()
    }

    /// The node that came to take tasks lately, and when, where the cluster's policy is to make use of it.
    pub(crate) fn recent_join(&mut self) -> Option<(NodeId, Timestamp)> {
        self.joined.get_or_insert_with(|| rebalance::recent_join(self.snapshot, self.now)).clone()
    }

    /// Notes that a task on the node is no longer wanted.
    pub(crate) fn relieve(&mut self, node: &NodeId) {
        self.relieved.push(node.clone());
    }

    /// Checks something, once.
    pub(crate) fn check(&mut self, check: Check) {
        let id = match &check {
            Check::Unchanged { id, .. } | Check::Exists { id } | Check::Absent { id } => id,
            Check::NameFree { .. } | Check::Unreferenced { .. } => {
                self.transaction.check(check);
                return;
            }
        };
        if self.checked.insert(id.clone()) {
            self.transaction.check(check);
        }
    }

    /// True when the plan holds only while this object is there, or is as it was seen.
    pub(crate) fn relies_on(&self, id: &ObjectId) -> bool {
        self.checked.contains(id)
    }

    /// Removes an object that nobody changed.
    pub(crate) fn remove(&mut self, id: impl Into<ObjectId>, version: u64) {
        self.take_bytes(CHANGE_OVERHEAD_BYTES);
        self.transaction.remove(id, version);
    }

    /// Replaces a service. It always fits; what comes after it may not.
    pub(crate) fn update(&mut self, service: Service) {
        self.check(Check::Unchanged { id: (&service.id).into(), version: service.meta.version });
        let specs = std::iter::once(&service.spec).chain(&service.previous_spec);
        let bytes: usize = specs.map(|s| encoded_len(&s.task)).sum();
        self.take_bytes(bytes + CHANGE_OVERHEAD_BYTES);
        self.transaction.changes.push(store::Change::Put(Object::from(service)));
    }

    /// Adds the group if it fits; false when it does not. The first group always fits, also beside a change of its service:
    /// what is noted there may be about the group, and would be taken back if that never came.
    pub(crate) fn add(&mut self, group: Group) -> bool {
        let changes = group.create.len() + group.update.len() + group.remove.len();
        let puts: Vec<Arc<Task>> = group.create.iter().chain(&group.update).cloned().collect();
        let bytes = puts.iter().map(|t| self.measure(t)).sum::<usize>() + changes * CHANGE_OVERHEAD_BYTES;
        if self.has_groups && (changes > self.room() || bytes > self.budget.bytes) {
            // What might still fit is not worth a look at all the other services.
            self.budget.bytes = 0;
            return false;
        }
        self.has_groups = true;
        self.take_bytes(bytes);
        puts.iter().for_each(|t| self.check_placement(t));
        group.nodes.iter().for_each(|n| self.check_absence(n));
        group.of_node.iter().for_each(|n| self.check_node(n));
        group.create.into_iter().for_each(|t| _ = self.transaction.create(t));
        group.update.into_iter().for_each(|t| _ = self.transaction.update(t));
        for task in group.remove {
            self.transaction.remove(&task.id, task.meta.version);
        }
        true
    }

    /// A task that is placed now is placed on the node as it was seen, and leaves it as it was seen.
    fn check_placement(&mut self, task: &Task) {
        let placed_before = self.snapshot.task(&task.id).is_some_and(|t| t.node_id.is_some());
        let node = task.node_id.as_ref().and_then(|n| self.snapshot.node(n));
        let is_told_to_leave = task.desired > TaskState::Complete && task.status.err == NO_LONGER_MEETS;
        if let (true, Some(node)) = (!placed_before || is_told_to_leave, node) {
            self.check(Check::Unchanged { id: (&node.id).into(), version: node.meta.version });
        }
    }

    /// What is done because a node is away, or to leave it, is done only while it is so.
    fn check_absence(&mut self, id: &NodeId) {
        let node = self.snapshot.node(id);
        match node {
            None => self.check(Check::Absent { id: id.into() }),
            Some(n) if is_away(node) || n.spec.availability == Availability::Drain => {
                self.check(Check::Unchanged { id: id.into(), version: n.meta.version });
            }
            Some(_) => {}
        }
    }

    /// The node is as it was seen, or still gone.
    fn check_node(&mut self, id: &NodeId) {
        self.check(match self.snapshot.node(id) {
            Some(node) => Check::Unchanged { id: id.into(), version: node.meta.version },
            None => Check::Absent { id: id.into() },
        });
    }

    fn take_bytes(&mut self, bytes: usize) {
        self.budget.bytes = self.budget.bytes.saturating_sub(bytes);
    }

    /// The size of a task: that of its spec is measured once, the rest is small and estimated.
    fn measure(&mut self, task: &Task) -> usize {
        let rest = 600 + task.status.message.len() + task.status.err.len() + 120 * task.status.ports.len();
        let ports = 120 * task.host_ports.len();
        rest + ports + self.measure_spec(&task.spec)
    }

    fn measure_spec(&mut self, spec: &Arc<TaskSpec>) -> usize {
        match &self.measured {
            Some((measured, size)) if Arc::ptr_eq(measured, spec) => *size,
            _ => {
                let size = encoded_len(spec);
                self.measured = Some((spec.clone(), size));
                size
            }
        }
    }
}

/// The size of a spec in its persisted form, by way of a transaction that holds it.
fn encoded_len(spec: &Arc<TaskSpec>) -> usize {
    let id = "0".repeat(25).parse().expect("25 zeros are an id");
    let mut probe = Transaction::default();
    probe.changes.push(store::Change::Put(Object::from(Task {
        id,
        meta: model::Meta::default(),
        service_id: "0".repeat(25).parse().expect("25 zeros are an id"),
        service_name: "x".parse().expect("x is a name"),
        slot: 0,
        for_node: None,
        job_iteration: None,
        failures: 0,
        inherited: None,
        spec: spec.clone(),
        spec_version: 0,
        host_ports: Vec::new(),
        node_id: None,
        generic: Vec::new(),
        desired: model::TaskState::New,
        run_after: None,
        status: model::TaskStatus::default(),
    })));
    match probe.encode() {
        Ok(bytes) => bytes.len(),
        Err(too_large) => too_large.bytes,
    }
}
