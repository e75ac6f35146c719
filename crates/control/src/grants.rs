//! Secrets and configs: the transactions that make, change and remove them, which version of their data a service is given,
//! and when a version is forgotten.
//!
//! A service names what it is granted, and its spec also says which version of the data its tasks are made with (`given`). So an update of the data is a change of the service like any other: the same updater rolls it out, pauses
//! it, or takes it back. [`pin`] makes that change when the data is newer than what the service has and nobody asked to keep it.
//!
//! Why nothing in use is ever removed: whoever puts a service checks that what it names exists ([`check_granted`]); whoever
//! removes a secret or config checks that no service names it (`Check::Unreferenced`). Both are decided at the log, where one
//! of two is first, and then the other fails.

use crate::dirty::is_up_to_date;
use crate::plan::Planner;
use crate::service::Context;
use crate::slot::{Item, Slots};
use model::{
    Config, ConfigId, ConfigSpec, Data, Dependency, Given, Payload, PayloadId, Secret, SecretId, SecretSpec, Service,
    ServiceSpec, Signal, TaskSpec, Templating, UpdateBy, limits,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Check, Kind, Object, ObjectId, Snapshot, Transaction};

/// A secret or config that services use, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// `secret` or `config`.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The names of the services.
    pub services: Vec<String>,
}

/// Data that cannot be updated now: as many versions as are kept are in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooManyVersions {
    /// `secret` or `config`.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

// === impl InUse, TooManyVersions ===

impl std::fmt::Display for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.services.len() == 1 { "" } else { "s" };
        let services = self.services.join(", ");
        write!(f, "{} '{}' is in use by the following service{plural}: {services}", self.kind, self.name)
    }
}

impl std::error::Error for InUse {}

impl std::fmt::Display for TooManyVersions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, name) = (self.kind, &self.name);
        let max = limits::DATA_VERSIONS_MAX;
        write!(
            f,
            "{kind} {name} has {max} versions of its data in use: wait until the services that use it are updated"
        )
    }
}

impl std::error::Error for TooManyVersions {}

// === What the API proposes ===

/// Adds a new secret with its data to the transaction.
pub fn create_secret(tx: &mut Transaction, id: SecretId, spec: SecretSpec, data: Data) {
    tx.check(Check::NameFree { kind: Kind::Secret, name: spec.name.to_string() });
    let secret = Secret { id, meta: Default::default(), spec, data_version: 1 };
    tx.create(Payload { id: secret.payload_id(), meta: Default::default(), data });
    tx.create(secret);
}

/// Adds a new config with its data to the transaction.
pub fn create_config(tx: &mut Transaction, id: ConfigId, spec: ConfigSpec, data: Data) {
    tx.check(Check::NameFree { kind: Kind::Config, name: spec.name.to_string() });
    let config = Config { id, meta: Default::default(), spec, data_version: 1 };
    tx.create(Payload { id: config.payload_id(), meta: Default::default(), data });
    tx.create(config);
}

/// Adds a secret's change to the transaction: its labels, and its data when there is some and it differs. True when that is
/// a new version. `secret.meta.version` is the version that the user saw.
pub fn update_secret(
    tx: &mut Transaction,
    snapshot: &Snapshot,
    secret: &Secret,
    labels: BTreeMap<String, String>,
    data: Option<Data>,
) -> Result<bool, TooManyVersions> {
    let mut new = secret.clone();
    new.spec.labels = labels;
    let data = data.filter(|d| snapshot.payload(&secret.payload_id()).is_none_or(|p| p.data != *d));
    let is_new = data.is_some();
    if let Some(data) = data {
        check_versions(snapshot, &Dependency::Secret(secret.id.clone()), secret.spec.name.as_str())?;
        new.data_version += 1;
        tx.create(Payload { id: new.payload_id(), meta: Default::default(), data });
    }
    tx.update(new);
    Ok(is_new)
}

/// As [`update_secret`], for a config.
pub fn update_config(
    tx: &mut Transaction,
    snapshot: &Snapshot,
    config: &Config,
    labels: BTreeMap<String, String>,
    data: Option<Data>,
) -> Result<bool, TooManyVersions> {
    let mut new = config.clone();
    new.spec.labels = labels;
    let data = data.filter(|d| snapshot.payload(&config.payload_id()).is_none_or(|p| p.data != *d));
    let is_new = data.is_some();
    if let Some(data) = data {
        check_versions(snapshot, &Dependency::Config(config.id.clone()), config.spec.name.as_str())?;
        new.data_version += 1;
        tx.create(Payload { id: new.payload_id(), meta: Default::default(), data });
    }
    tx.update(new);
    Ok(is_new)
}

/// Adds a secret's removal to the transaction. Its data goes once no task has it. A service that comes to use it in between
/// makes the transaction fail with `Conflict::Referenced`: look again.
pub fn remove_secret(tx: &mut Transaction, snapshot: &Snapshot, secret: &Secret) -> Result<(), InUse> {
    remove(tx, snapshot, Object::from(secret.clone()), secret.spec.name.as_str())
}

/// As [`remove_secret`], for a config.
pub fn remove_config(tx: &mut Transaction, snapshot: &Snapshot, config: &Config) -> Result<(), InUse> {
    remove(tx, snapshot, Object::from(config.clone()), config.spec.name.as_str())
}

/// Adds the checks that what the spec names exists. To be added to every transaction that puts a service with a spec that came
/// from outside (a new one, or the previous one).
pub fn check_granted(tx: &mut Transaction, spec: &ServiceSpec) {
    for of in spec.task.dependencies() {
        tx.check(Check::Exists { id: (&of).into() });
    }
}

fn check_versions(snapshot: &Snapshot, of: &Dependency, name: &str) -> Result<(), TooManyVersions> {
    if snapshot.payloads_of(of).count() < limits::DATA_VERSIONS_MAX {
        return Ok(());
    }
    Err(TooManyVersions { kind: ObjectId::from(of).kind(), name: name.to_owned() })
}

fn remove(tx: &mut Transaction, snapshot: &Snapshot, object: Object, name: &str) -> Result<(), InUse> {
    let id = object.id();
    let services: Vec<String> = snapshot.services_naming(&id).map(|s| s.spec.name.to_string()).collect();
    if !services.is_empty() {
        return Err(InUse { kind: id.kind(), name: name.to_owned(), services });
    }
    tx.check(Check::Unreferenced { id: id.clone() });
    tx.remove(id, object.meta().version);
    Ok(())
}

// === Which version a service is given ===

/// What is current of something that a service is granted.
struct Current<'a> {
    version: u64,
    labels: &'a BTreeMap<String, String>,
    templating: Option<Templating>,
}

fn current<'a>(snapshot: &'a Snapshot, of: &Dependency) -> Option<Current<'a>> {
    match of {
        Dependency::Secret(id) => snapshot.secret(id).map(|s| {
            let SecretSpec { labels, templating, .. } = &s.spec;
            Current { version: s.data_version, labels, templating: *templating }
        }),
        Dependency::Config(id) => snapshot.config(id).map(|c| {
            let ConfigSpec { labels, templating, .. } = &c.spec;
            Current { version: c.data_version, labels, templating: *templating }
        }),
    }
}

/// What becomes of the version of some data that a service gives its tasks.
enum Step {
    /// It stays.
    Keep,
    /// There was none: no task has it yet.
    Quiet(u64),
    /// The tasks get it in place.
    Signal(u64, Signal),
    /// The tasks are replaced, once no update is under way.
    Roll(u64),
    /// The tasks are replaced: what they have is gone.
    Replace(u64),
}

/// The service with the versions of data that its next tasks are made with; `None` when it has them already.
pub(crate) fn pin(snapshot: &Snapshot, service: &Service, slots: &Slots) -> Option<Service> {
    let old = service.spec.task.container()?;
    if old.secrets.is_empty() && old.configs.is_empty() {
        return None;
    }
    let roll = roll(snapshot, service, slots);
    let mut container = old.clone();
    let mut rolls = false;
    let mut step = |of: &Dependency, given: &mut Given| {
        let (version, signal) = match next_step(snapshot, service, of, given) {
            Step::Keep => return,
            Step::Roll(_) if roll == Roll::Later => return,
            Step::Quiet(version) => (version, None),
            Step::Signal(version, signal) => (version, Some(signal)),
            Step::Roll(version) | Step::Replace(version) => {
                rolls = true;
                (version, None)
            }
        };
        let templating = current(snapshot, of).and_then(|c| c.templating);
        *given = Given { version: Some(version), signal, templating };
    };
    container.secrets.iter_mut().for_each(|r| step(&r.dependency(), &mut r.given));
    container.configs.iter_mut().for_each(|r| step(&r.dependency(), &mut r.given));
    if container == *old {
        return None;
    }
    let mut new = service.clone();
    if rolls {
        if roll != Roll::Instead {
            new.previous_spec = Some(service.spec.clone());
        }
        new.spec_version += 1;
        new.update_status = None;
    }
    Arc::make_mut(&mut new.spec.task).runtime = container.into();
    Some(new)
}

/// When newer data is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Roll {
    /// Now: it is an update of its own.
    Now,
    /// Now, instead of the older data that is just being rolled out, or with which that has stopped. What was before that is
    /// still what a rollback goes back to.
    Instead,
    /// When the update that goes on is over: it would take a paused one up again, and could go back no further than to the
    /// half of the one that it interrupts.
    Later,
}

fn roll(snapshot: &Snapshot, service: &Service, slots: &Slots) -> Roll {
    use model::UpdateState::{Completed, Paused, RollbackCompleted, RollbackPaused, RollbackStarted, Updating};
    let is_outdated = |i: &Item| !is_up_to_date(snapshot, service, &i.task);
    match service.current_update().map(|u| u.state) {
        Some(Completed | RollbackCompleted) => return Roll::Now,
        Some(RollbackStarted | RollbackPaused) => return Roll::Later,
        None if !slots.values().any(|s| s.is_occupied() && s.newest().is_some_and(is_outdated)) => return Roll::Now,
        None | Some(Updating | Paused) => {}
    }
    let of_data = |before: &ServiceSpec| {
        let mut like = service.spec.clone();
        like.task = before.task.clone();
        like == *before && service.spec.task.is_same_but_data(&before.task)
    };
    if service.previous_spec.as_ref().is_some_and(of_data) { Roll::Instead } else { Roll::Later }
}

fn next_step(snapshot: &Snapshot, service: &Service, of: &Dependency, given: &Given) -> Step {
    // Removed in spite of all checks: the tasks will say so.
    let Some(Current { version, labels, .. }) = current(snapshot, of) else { return Step::Keep };
    let Some(has) = given.version else { return Step::Quiet(version) };
    if has == version {
        return Step::Keep;
    }
    if snapshot.payload(&PayloadId { of: of.clone(), version: has }).is_none() {
        // A rollback to data that is gone: what there is has to do.
        return Step::Replace(version);
    }
    match UpdateBy::effective(&service.spec.labels, labels) {
        UpdateBy::Keep => Step::Keep,
        _ if was_taken_back(service, of, version) => Step::Keep,
        UpdateBy::Signal(signal) => Step::Signal(version, signal),
        UpdateBy::Roll => Step::Roll(version),
    }
}

/// Gives a spec that comes back what there is of the data that was forgotten meanwhile: while the service did not name the
/// secret or config, nothing kept the old version.
pub(crate) fn replace_forgotten(snapshot: &Snapshot, spec: &mut ServiceSpec) {
    let is_forgotten = |id: &PayloadId| snapshot.payload(id).is_none();
    if !spec.task.payloads().any(|id| is_forgotten(&id)) {
        return;
    }
    let Some(container) = Arc::make_mut(&mut spec.task).container_mut() else { return };
    let replace = |of: Dependency, given: &mut Given| {
        let forgotten = given.version.is_some_and(|version| is_forgotten(&PayloadId { of: of.clone(), version }));
        if let (true, Some(now)) = (forgotten, current(snapshot, &of)) {
            *given = Given { version: Some(now.version), signal: None, templating: now.templating };
        }
    };
    container.secrets.iter_mut().for_each(|r| replace(r.dependency(), &mut r.given));
    container.configs.iter_mut().for_each(|r| replace(r.dependency(), &mut r.given));
}

/// True when the service was rolled back from this very version, and not changed since: it is not tried again.
fn was_taken_back(service: &Service, of: &Dependency, version: u64) -> bool {
    use model::UpdateState::{RollbackCompleted, RollbackPaused, RollbackStarted};
    let back = |u: &model::UpdateStatus| matches!(u.state, RollbackStarted | RollbackPaused | RollbackCompleted);
    let before = service.previous_spec.as_ref().filter(|_| service.current_update().is_some_and(back));
    before.is_some_and(|spec| spec.task.payloads().any(|p| p.of == *of && p.version == version))
}

/// What the service comes to be given must still be there when the plan is applied: another leader, or a user, may just be
/// removing it.
pub(crate) fn check_given(planner: &mut Planner<'_>, service: &Service) {
    let task = &service.spec.task;
    task.dependencies().for_each(|of| planner.check(Check::Exists { id: (&of).into() }));
    task.payloads().for_each(|id| planner.check(Check::Exists { id: id.into() }));
}

/// Gives the service's data to tasks that take it in place: their spec differs in nothing else that matters to them.
pub(crate) fn refresh(context: &Context<'_>, slots: &mut Slots) {
    let service = context.service;
    let wanted = &service.spec.task;
    if wanted.dependencies().next().is_none() {
        return;
    }
    for item in slots.values_mut().flat_map(|s| &mut s.items).filter(|i| i.is_wanted()) {
        let has = &item.task.spec;
        if Arc::ptr_eq(has, wanted) || has == wanted || item.task.status.state.is_terminal() {
            continue;
        }
        if all_by_signal(has, wanted)
            && let Some(new) = with_data_of(has, wanted).filter(|new| new != has)
        {
            item.edit().spec = new;
        }
    }
}

/// The task's spec with the data that is wanted; `None` when more than the data differs. A task keeps the credentials that its
/// image was pulled with.
fn with_data_of(has: &TaskSpec, wanted: &Arc<TaskSpec>) -> Option<Arc<TaskSpec>> {
    if has.is_same_but_data(wanted) {
        return Some(wanted.clone());
    }
    let mut new = has.clone();
    new.set_registry_auth(wanted.registry_auth().cloned());
    new.is_same_but_data(wanted).then(|| {
        new.take_data(wanted);
        new.set_registry_auth(has.registry_auth().cloned());
        Arc::new(new)
    })
}

fn all_by_signal(has: &TaskSpec, wanted: &TaskSpec) -> bool {
    let Some(wanted) = wanted.container() else { return false };
    let had: Vec<PayloadId> = has.payloads().collect();
    let givens = wanted.secrets.iter().map(|r| (r.dependency(), &r.given));
    let mut givens = givens.chain(wanted.configs.iter().map(|r| (r.dependency(), &r.given)));
    givens.all(|(of, given)| {
        let same = given.version.is_none_or(|version| had.contains(&PayloadId { of, version }));
        same || given.signal.is_some()
    })
}

// === When a version is forgotten ===

/// Removes versions of data that are not current and that nobody has: no service that names the thing, no task that may run.
pub(crate) fn prune(planner: &mut Planner<'_>) {
    let snapshot = planner.snapshot;
    for payload in snapshot.outdated_payloads() {
        let of = &payload.id.of;
        if snapshot.is_given(&payload.id) || planner.room() == 0 {
            continue;
        }
        // A service that named it no more is just being rolled back to it.
        if planner.relies_on(&(&payload.id).into()) {
            continue;
        }
        let named = ObjectId::from(of);
        let named_by = || snapshot.services_naming(&named);
        let has = |spec: &ServiceSpec| spec.task.payloads().any(|p| p == payload.id);
        if named_by().any(|s| has(&s.spec) || s.previous_spec.as_ref().is_some_and(has)) {
            continue;
        }
        // A service that comes to have it changes; one that comes to name it is given what is current.
        for service in named_by() {
            planner.check(Check::Unchanged { id: (&service.id).into(), version: service.meta.version });
        }
        planner.remove(&payload.id, payload.meta.version);
    }
}
