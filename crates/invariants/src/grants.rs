//! S22 and S23: secrets and configs.

use crate::Violation;
use model::{Dependency, PayloadId};
use store::{ObjectId, Snapshot};

/// S23: what a service names is there; and its current data with it.
pub(crate) fn check_state(snapshot: &Snapshot, out: &mut Vec<Violation>) {
    for service in snapshot.services() {
        for of in service.spec.task.dependencies() {
            if snapshot.get(&ObjectId::from(&of)).is_none() {
                let name = &service.spec.name;
                out.push(Violation::new("S23", format!("service {name} uses {of}, which is not there")));
            }
        }
    }
    let secrets = snapshot.secrets().map(|s| s.payload_id());
    for id in secrets.chain(snapshot.configs().map(|c| c.payload_id())) {
        if snapshot.payload(&id).is_none() {
            out.push(Violation::new("S23", format!("{id} is current, and its data is not there")));
        }
    }
}

/// S22: a version of some data is kept only while it is current, or somebody has it: a service that names what it is of, or a
/// task that may run. Holds once the control loops had their turn, not at every commit.
pub fn check_pruned(snapshot: &Snapshot) -> Vec<Violation> {
    let is_current = |id: &PayloadId| match &id.of {
        Dependency::Secret(of) => snapshot.secret(of).is_some_and(|s| s.data_version == id.version),
        Dependency::Config(of) => snapshot.config(of).is_some_and(|c| c.data_version == id.version),
    };
    let by_task = |id: &PayloadId| snapshot.tasks().any(|t| t.is_active() && t.spec.payloads().any(|p| p == *id));
    let by_service = |id: &PayloadId| {
        snapshot.services().filter(|s| s.spec.task.dependencies().any(|d| d == id.of)).any(|s| {
            let specs = [Some(&s.spec), s.previous_spec.as_ref()].into_iter().flatten();
            specs.flat_map(|spec| spec.task.payloads()).any(|p| p == *id)
        })
    };
    let ids = snapshot.payloads().map(|p| &p.id);
    let unused = ids.filter(|id| !is_current(id) && !by_task(id) && !by_service(id));
    unused.map(|id| Violation::new("S22", format!("{id} is kept, and nobody has it"))).collect()
}
