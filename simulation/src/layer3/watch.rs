//! Looks at every machine after every step, and says what is wrong (safety) or not yet right (liveness).

use super::held::{self, Held, Position};
use super::machine::{FOREIGN, Machine};
use crate::event;
use crate::oracle::{RaftLog, TrueLog, story};
use bytes::Bytes;
use engine::{ContainerPhase, ContainerState};
use invariants::Violation;
use model::{Mode, Node, NodeId, NodeState, TaskId, TaskState};
use node::ManagerWatch;
use raft::{RaftView, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, Commit, Event, Object, Snapshot};

/// The label that says which task a container belongs to, and which node.
const TASK_ID_LABEL: &str = "com.docker.swarm.task.id";

/// Watches the machines.
pub(super) struct Watch {
    machines: Vec<Arc<Machine>>,
    seats: Vec<Option<Seat>>,
    log: TrueLog,
    raft: RaftLog,
    names: BTreeMap<NodeId, String>,
    /// Each machine's assignment position as its disk has it (S28).
    positions: Vec<Option<Position>>,
    /// The files that they are in, as they were seen last.
    files: Vec<Option<Bytes>>,
    held: Held,
    roles: BTreeMap<String, (u64, Role)>,
    last_leader: Option<String>,
    leader_changes: u64,
}

/// A manager that is being watched, during one life.
struct Seat {
    watch: ManagerWatch,
    changes: Changes,
    index: u64,
}

/// What the weather has to do with it.
pub(super) struct Outlook<'a> {
    /// Machines whose nodes do not run.
    pub down: &'a BTreeSet<usize>,
    /// Machines that a big cut, and nothing else, cuts off.
    pub big_cut: Option<&'a BTreeSet<usize>>,
}

fn violation(invariant: &'static str, what: String) -> Violation {
    Violation { invariant, what }
}

// === impl Watch ===

impl Watch {
    /// Watches these machines.
    pub(super) fn new(machines: Vec<Arc<Machine>>) -> Watch {
        Watch {
            seats: machines.iter().map(|_| None).collect(),
            positions: vec![None; machines.len()],
            files: vec![None; machines.len()],
            held: Held::default(),
            machines,
            log: TrueLog::default(),
            raft: RaftLog::default(),
            names: BTreeMap::new(),
            roles: BTreeMap::new(),
            last_leader: None,
            leader_changes: 0,
        }
    }

    /// How often another manager became the leader.
    pub(super) fn leader_changes(&self) -> u64 {
        self.leader_changes
    }

    /// Looks at all machines once.
    pub(super) fn look(&mut self, outlook: &Outlook<'_>) -> Vec<Violation> {
        let mut violations = Vec::new();
        for i in 0..self.machines.len() {
            self.take_seat(i);
            self.look_at_manager(i, outlook, &mut violations);
            self.look_at_agent(i, &mut violations);
        }
        violations
    }

    /// Looks at what is too costly for every step.
    pub(super) fn look_closely(&mut self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (i, seat) in self.seats.iter().enumerate() {
            if let Some(seat) = seat {
                violations.extend(self.log.compare(&self.machines[i].name, &seat.watch.store.local()));
            }
        }
        for machine in &self.machines {
            if let Some((id, _)) = self.names.iter().find(|(_, name)| **name == machine.name) {
                violations.extend(self.held.check(machine, id));
            }
            let foreign = machine.engine.containers().into_iter().any(|c| c.name == FOREIGN);
            let started = machine.engine.starts().iter().filter(|s| s.name == FOREIGN).count();
            if machine.node().is_some() && !foreign || started > 1 {
                violations
                    .push(violation("S29", format!("a container that is not ours was touched on {}", machine.name)));
            }
        }
        violations
    }

    fn take_seat(&mut self, i: usize) {
        let machine = &self.machines[i];
        let over = self.seats[i].as_ref().is_some_and(|s| s.watch.raft.has_changed().is_err());
        let watch = machine.node().and_then(|n| n.watch_manager());
        if over || watch.is_none() {
            if self.seats[i].take().is_some() {
                self.raft.forget_life(&machine.name);
                self.roles.remove(&machine.name);
            }
            return;
        }
        if let (None, Some(watch)) = (&self.seats[i], watch) {
            if watch.raft.has_changed().is_err() {
                return;
            }
            // First the stream, then the snapshot: nothing falls between.
            let changes = watch.store.changes();
            let snapshot = watch.store.local();
            self.catch_up(&snapshot);
            self.seats[i] = Some(Seat { watch, changes, index: 0 });
        }
    }

    // --- managers ---

    fn catch_up(&mut self, snapshot: &Snapshot) {
        self.log.catch_up(snapshot);
        self.held.catch_up(snapshot);
        snapshot.nodes().for_each(|node| self.name(node));
    }

    /// A node is called by its host name, which is its machine's.
    fn name(&mut self, node: &Node) {
        if let Some(description) = &node.description {
            self.names.insert(node.id.clone(), description.hostname.clone());
        }
    }

    fn look_at_manager(&mut self, i: usize, outlook: &Outlook<'_>, violations: &mut Vec<Violation>) {
        let Some(mut seat) = self.seats[i].take() else { return };
        let name = self.machines[i].name.clone();
        loop {
            match seat.changes.try_next() {
                None => break,
                Some(Event::Commit(commit)) => {
                    let (new, wrong) = self.log.observe(&name, &commit);
                    violations.extend(wrong);
                    if new {
                        self.held.observe(&commit);
                        self.tell(&commit);
                        violations.extend(self.check_brake(&commit, outlook));
                        violations.extend(self.check_adoption(&commit));
                    }
                }
                Some(Event::Resync | Event::Closed) => {
                    self.catch_up(&seat.watch.store.local());
                    break;
                }
            }
        }
        let index = seat.watch.store.local().index();
        if index < seat.index {
            violations.push(violation("S8", format!("{name} went back from index {} to {index}", seat.index)));
        }
        seat.index = index;
        let view = seat.watch.raft.borrow_and_update().clone();
        violations.extend(self.raft.observe(&name, &view));
        self.tell_role(&name, &view);
        self.seats[i] = Some(seat);
    }

    /// D7: an agent finds the containers that run already. What it gives up as gone must not be running there.
    fn check_adoption(&self, commit: &Commit) -> Option<Violation> {
        let given_up = commit.deltas.iter().filter_map(|d| match (&d.before, &d.after) {
            (Some(Object::Task(before)), Some(Object::Task(after))) => {
                let ran = (TaskState::Starting..=TaskState::Running).contains(&before.status.state);
                let is_gone = after.status.state == TaskState::Failed && after.status.err.contains("No such container");
                (ran && is_gone).then_some(after)
            }
            _ => None,
        });
        given_up.into_iter().find_map(|task| {
            let name = task.node_id.as_ref().and_then(|id| self.names.get(id))?;
            let machine = self.machines.iter().find(|m| m.name == *name)?;
            let runs = |c: &ContainerState| c.phase == ContainerPhase::Running && task_of(c).as_ref() == Some(&task.id);
            let container = machine.engine.containers().into_iter().find(runs)?;
            let what = format!("{name} gave up task {} as gone, and its container {} runs", task.id, container.name);
            Some(violation("D7", what))
        })
    }

    fn tell(&mut self, commit: &Commit) {
        for delta in &commit.deltas {
            if let Some(Object::Node(node)) = &delta.after {
                self.name(node);
            }
        }
        let names = &self.names;
        let name = |id: &NodeId| names.get(id).cloned().unwrap_or_else(|| id.to_string());
        for line in commit.deltas.iter().filter_map(|d| story(d, name)) {
            event!("log", "{:>5} {line}", commit.index);
        }
    }

    fn tell_role(&mut self, name: &str, view: &RaftView) {
        let role = (view.term, view.role);
        if self.roles.insert(name.to_owned(), role) != Some(role) {
            event!(name, "{:?} of term {}", view.role, view.term);
            if view.role == Role::Leader && self.last_leader.as_deref() != Some(name) {
                self.last_leader = Some(name.to_owned());
                self.leader_changes += 1;
            }
        }
    }

    /// While more than half of the nodes are cut off at once, none of them is put down for it.
    fn check_brake(&self, commit: &Commit, outlook: &Outlook<'_>) -> Option<Violation> {
        let side = outlook.big_cut?;
        let down = |o: &Option<Object>| match o {
            Some(Object::Node(node)) => Some((node.id.clone(), node.status.state)),
            _ => None,
        };
        let put_down = commit.deltas.iter().filter_map(|d| {
            let (id, after) = down(&d.after)?;
            let (_, before) = down(&d.before)?;
            (before == NodeState::Ready && after == NodeState::Down).then_some(id)
        });
        let machine = |id: &NodeId| self.machines.iter().position(|m| self.names.get(id) == Some(&m.name));
        let cut_off = put_down.filter_map(|id| machine(&id)).find(|i| side.contains(i) && !outlook.down.contains(i))?;
        let name = &self.machines[cut_off].name;
        Some(violation(
            "brake",
            format!("{name} was put down while {} of {} nodes fell silent at once", side.len(), self.machines.len()),
        ))
    }

    // --- agents ---

    /// S28: an agent never acts on an older set than it has seen.
    fn look_at_agent(&mut self, i: usize, violations: &mut Vec<Violation>) {
        let machine = &self.machines[i];
        // Opening the file costs something: only when it is another one.
        let file = machine.disk.file(Path::new("/var/lib/swarmlite"), "assignments");
        if file == self.files[i] {
            return;
        }
        self.files[i] = file;
        let (Some(now), before) = (held::position(machine), self.positions[i]) else { return };
        if before.is_some_and(|b| now.term < b.term || now.index < b.index) {
            violations
                .push(violation("S28", format!("the agent of {} went back from {before:?} to {now:?}", machine.name)));
        }
        self.positions[i] = Some(now);
    }

    // --- liveness ---

    /// What is not yet as it should be once nothing breaks any more; empty when all is.
    pub(super) fn unsettled(&self, down: &BTreeSet<usize>, removed: &BTreeSet<usize>) -> Vec<String> {
        let mut out = Vec::new();
        let seats: Vec<(&Machine, &Seat)> =
            self.machines.iter().zip(&self.seats).filter_map(|(m, s)| Some((&**m, s.as_ref()?))).collect();
        let leaders = seats.iter().filter(|(_, s)| s.watch.raft.borrow().role == Role::Leader).count();
        if leaders != 1 {
            out.push(format!("L1: {leaders} managers lead"));
        }
        let Some((_, first)) = seats.first() else { return vec!["L1: no manager runs".into()] };
        let snapshot = first.watch.store.local();
        for (machine, seat) in &seats[1..] {
            let other = seat.watch.store.local();
            if other.index() != snapshot.index() {
                out.push(format!(
                    "L2: {} is at {}, {} at {}",
                    machine.name,
                    other.index(),
                    seats[0].0.name,
                    snapshot.index()
                ));
            }
            out.extend(invariants::check_same_state(&snapshot, &other).iter().map(ToString::to_string));
        }
        if let Err(unsettled) = invariants::settled(&snapshot) {
            out.extend(unsettled.iter().filter(|u| !u.explained).map(ToString::to_string));
        }
        let end_of_time = model::Timestamp(u64::MAX);
        let misplaced = invariants::check_drained(&snapshot, end_of_time, Duration::ZERO, &BTreeMap::new());
        out.extend(misplaced.iter().map(ToString::to_string));
        let unsuited = invariants::check_suited(&snapshot, end_of_time, Duration::ZERO);
        out.extend(unsuited.iter().map(ToString::to_string));
        self.check_nodes(&snapshot, down, removed, &mut out);
        // What runs on a machine that is no node any more is nobody's business but its owner's.
        let not_ours: BTreeSet<usize> = down.union(removed).copied().collect();
        self.check_containers(&snapshot, &not_ours, &mut out);
        for (_, machine) in self.machines.iter().enumerate().filter(|(i, _)| !not_ours.contains(i)) {
            if let Some((id, _)) = self.names.iter().find(|(_, name)| **name == machine.name) {
                out.extend(self.held.left_over(machine, &snapshot, id));
            }
        }
        // A node that is down for good holds it up for good.
        if down.is_empty()
            && let Some(rotation) = snapshot.cluster().and_then(|c| c.security.root_rotation.as_ref())
        {
            let new = ca::describe_root(&rotation.new.cert_pem).map(|r| r.public_key_der);
            for node in snapshot.nodes() {
                let said = node.description.as_ref().and_then(|d| d.tls.as_ref());
                let says = said.map(|t| {
                    let trusts = t.trust_root_pem.contains(rotation.new.cert_pem.trim());
                    (Some(&t.issuer_public_key_der) == new.as_ref(), trusts)
                });
                let name = self.names.get(&node.id).cloned().unwrap_or_default();
                let has = self.machines.iter().find(|m| m.name == name).and_then(|m| m.node()?.watch_identity());
                let has = has.map(|i| Some(&i.issuer().public_key_der) == new.as_ref());
                out.push(format!(
                    "L11: the change of the root is not over: {name} says (new certificate, trusts it) {says:?}, has {has:?}"
                ));
            }
        }
        out.extend(invariants::check_pruned(&snapshot).iter().map(ToString::to_string));
        out
    }

    fn check_nodes(
        &self,
        snapshot: &Snapshot,
        down: &BTreeSet<usize>,
        removed: &BTreeSet<usize>,
        out: &mut Vec<String>,
    ) {
        for (i, machine) in self.machines.iter().enumerate().filter(|(i, _)| !removed.contains(i)) {
            let node = snapshot.nodes().find(|n| self.names.get(&n.id) == Some(&machine.name));
            let ready = node.is_some_and(|n| n.status.state == NodeState::Ready);
            if ready == down.contains(&i) {
                let state = node.map(|n| n.status.state);
                out.push(format!(
                    "L7: {} is {state:?} and its machine is {}",
                    machine.name,
                    if ready { "down" } else { "up" }
                ));
            }
        }
    }

    /// L4 and S29 as the engines see them: exactly the containers that are wanted run, where they should.
    fn check_containers(&self, snapshot: &Snapshot, down: &BTreeSet<usize>, out: &mut Vec<String>) {
        let mut running: BTreeMap<String, u64> = BTreeMap::new();
        for (_, machine) in self.machines.iter().enumerate().filter(|(i, _)| !down.contains(i)) {
            for container in machine.engine.containers().iter().filter(|c| c.name != FOREIGN) {
                let Some(task) = task_of(container).and_then(|id| snapshot.task(&id).cloned()) else {
                    out.push(format!("S29: container {} on {} belongs to no task", container.name, machine.name));
                    continue;
                };
                let here = task.node_id.as_ref().and_then(|id| self.names.get(id)) == Some(&machine.name);
                if container.phase == ContainerPhase::Running {
                    if !here || !task.is_wanted() {
                        out.push(format!("S29: container {} runs on {} and should not", container.name, machine.name));
                    }
                    *running.entry(task.service_name.to_string()).or_default() += 1;
                }
            }
        }
        for service in snapshot.services() {
            let found = running.remove(service.spec.name.as_str()).unwrap_or(0);
            let wanted = match service.spec.mode {
                Mode::Replicated { replicas } => replicas,
                Mode::Global => snapshot.nodes().filter(|n| n.status.state == NodeState::Ready).count() as u64,
                // Whatever was to be done is done by now.
                Mode::ReplicatedJob { .. } | Mode::GlobalJob => 0,
            };
            if wanted != found {
                out.push(format!("L4: {found} containers of {} run, {wanted} are wanted", service.spec.name));
            }
        }
        out.extend(running.into_iter().map(|(name, n)| format!("L5: {n} containers of {name} run, which is gone")));
    }
}

fn task_of(container: &ContainerState) -> Option<TaskId> {
    container.labels.get(TASK_ID_LABEL)?.parse().ok()
}
