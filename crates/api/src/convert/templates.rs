//! Templates in a container's spec: whether they can be filled in, before any task is given one.

use docker_api::Failure;
use model::{ContainerSpec, TemplateValue};
use std::collections::BTreeMap;

/// What stands for a value that is not known yet.
const SOMETHING: &str = "x";

/// Refuses templates that no task could be given.
pub(super) fn check(c: &ContainerSpec, labels: &BTreeMap<String, String>) -> Result<(), Failure> {
    let value = |value: &TemplateValue| match value {
        TemplateValue::RequiredServiceLabel(label) if !labels.contains_key(label) => {
            Err(format!("the service has no label {label:?}"))
        }
        _ => Ok(SOMETHING.to_owned()),
    };
    c.expanded(value).map(drop).map_err(Failure::invalid)
}
