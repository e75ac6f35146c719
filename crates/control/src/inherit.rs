//! What a task takes from its service and its cluster besides the service's task spec.

use model::{ContainerSpec, Inherited, ServiceSpec};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Snapshot;

/// What tasks that are made now inherit; `None` for nothing.
pub(crate) fn inherited(snapshot: &Snapshot, spec: &ServiceSpec) -> Option<Arc<Inherited>> {
    let of_cluster = snapshot.cluster().and_then(|c| c.spec.task_log_driver.clone());
    let inherited =
        Inherited { log_driver: of_cluster.filter(|_| spec.task.log_driver.is_none()), service_labels: labels(spec) };
    (inherited != Inherited::default()).then(|| Arc::new(inherited))
}

/// The service's labels, when a template may ask for them: each task would carry them otherwise.
fn labels(spec: &ServiceSpec) -> BTreeMap<String, String> {
    if spec.task.container().is_some_and(is_templated) { spec.labels.clone() } else { BTreeMap::new() }
}

fn is_templated(container: &ContainerSpec) -> bool {
    let givens = container.secrets.iter().map(|r| &r.given);
    let mut givens = givens.chain(container.configs.iter().map(|r| &r.given));
    givens.any(|g| g.templating.is_some()) || container.has_templates()
}
