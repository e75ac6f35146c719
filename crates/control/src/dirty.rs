//! Whether a task is what its service says.

use model::{Service, Task, TaskSpec, TaskState};
use std::sync::Arc;
use store::Snapshot;

/// True when the task need not be replaced for the service's spec to be brought about (SwarmKit's `IsTaskDirty`, the other way
/// round). Equal specs are equal whatever their version. Two differences do not matter to a task that is there: credentials for
/// a registry once the image (or the plugin) is, and placement while its node is such as the service now wants.
pub fn is_up_to_date(snapshot: &Snapshot, service: &Service, task: &Task) -> bool {
    if task.spec_version == service.spec_version {
        return true;
    }
    let wanted = &service.spec.task;
    if task.host_ports != service.host_ports() {
        return false;
    }
    Arc::ptr_eq(&task.spec, wanted) || task.spec == *wanted || is_good_enough(snapshot, task, wanted)
}

fn is_good_enough(snapshot: &Snapshot, task: &Task, wanted: &TaskSpec) -> bool {
    let has_image = task.is_wanted() && (TaskState::Ready..=TaskState::Running).contains(&task.status.state);
    let has_other_auth = task.spec.registry_auth() != wanted.registry_auth();
    let has_other_placement = task.spec.placement != wanted.placement;
    let node = task.node_id.as_ref().and_then(|id| snapshot.node(id));
    let may_stay = has_other_placement && node.is_some_and(|n| wanted.is_allowed_on(n));
    if !(has_image && has_other_auth || may_stay) {
        return false;
    }
    let mut like = task.spec.as_ref().clone();
    if has_image {
        like.set_registry_auth(wanted.registry_auth().cloned());
    }
    if may_stay {
        like.placement.clone_from(&wanted.placement);
    }
    like == *wanted
}
