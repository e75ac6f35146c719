//! What templates say of a task, its service and its node, and whether a task can be a container at all.

use crate::runner::{Order, Runner};
use engine::EngineError;
use model::{ContainerSpec, ExpandError, Mount, MountKind, Platform, Task, TemplateValue};
use std::borrow::Cow;

/// What templates say of the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeFacts {
    pub(crate) id: String,
    pub(crate) hostname: String,
    pub(crate) platform: Platform,
}

// === impl NodeFacts ===

impl NodeFacts {
    /// A value that is neither a file's nor of the environment; nothing for those.
    ///
    /// # Errors
    /// When the service has no label that the template cannot do without.
    pub(crate) fn value(&self, task: &Task, value: &TemplateValue) -> Result<String, String> {
        let label = |key: &String| task.inherited.as_ref().and_then(|i| i.service_labels.get(key)).cloned();
        Ok(match value {
            TemplateValue::ServiceId => task.service_id.to_string(),
            TemplateValue::ServiceName => task.service_name.to_string(),
            TemplateValue::ServiceLabel(key) => label(key).unwrap_or_default(),
            TemplateValue::RequiredServiceLabel(key) => {
                label(key).ok_or_else(|| format!("map has no entry for key {key:?}: the service has no such label"))?
            }
            TemplateValue::NodeId => self.id.clone(),
            TemplateValue::NodeHostname => self.hostname.clone(),
            TemplateValue::NodeOs => self.platform.os.clone(),
            TemplateValue::NodeArchitecture => self.platform.architecture.clone(),
            TemplateValue::TaskId => task.id.to_string(),
            TemplateValue::TaskName => task.name(),
            // Where there are no slots, the node says which of the service's tasks it is (SwarmKit template/context.go).
            TemplateValue::TaskSlot if task.slot == 0 => self.id.clone(),
            TemplateValue::TaskSlot => task.slot.to_string(),
            TemplateValue::Env(_) | TemplateValue::Secret(_) | TemplateValue::Config(_) => String::new(),
        })
    }

    /// The container of the task, its templates filled in.
    ///
    /// # Errors
    /// The first field that cannot be filled in.
    pub(crate) fn filled<'a>(
        &self,
        task: &Task,
        container: &'a ContainerSpec,
    ) -> Result<Cow<'a, ContainerSpec>, ExpandError> {
        container.expanded(|value| self.value(task, value))
    }
}

/// Whether the task can be a container, as far as that is known without the engine; Docker's executor refuses such a task
/// before it accepts it, in these words (moby daemon/cluster/executor/container/validate.go).
///
/// # Errors
/// Why it cannot.
pub(crate) fn resolve(task: &Task) -> Result<(), String> {
    let Some(container) = task.spec.container() else { return Ok(()) };
    container.mounts.iter().try_for_each(check_mount)?;
    let id = task.node_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let (node, mut unsure) = (NodeFacts { id, ..NodeFacts::default() }, false);
    let filled = container.expanded(|value| {
        // A condition on it may be why something is asked for that is not there.
        unsure |= is_of_engine(value);
        node.value(task, value)
    });
    match filled {
        Err(error) if !unsure => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// What of a node its engine says.
fn is_of_engine(value: &TemplateValue) -> bool {
    use TemplateValue::{NodeArchitecture, NodeHostname, NodeOs};
    matches!(value, NodeHostname | NodeOs | NodeArchitecture)
}

/// The container API takes a volume with an absolute source for a bind mount, and the other way round.
fn check_mount(mount: &Mount) -> Result<(), String> {
    let (source, target) = (mount.source.as_str(), mount.target.as_str());
    let absolute = source.starts_with('/');
    let wrong = if !target.starts_with('/') {
        format!("invalid mount target, must be an absolute path: {target}")
    } else {
        match mount.kind {
            MountKind::Bind if !absolute => {
                format!("invalid bind mount source, must be an absolute path: {source}")
            }
            MountKind::Volume if absolute => {
                format!("invalid volume mount source, must not be an absolute path: {source}")
            }
            MountKind::Tmpfs if !source.is_empty() => "invalid tmpfs source, source must be empty".to_owned(),
            MountKind::Image if source.is_empty() => "invalid image source, source must not be empty".to_owned(),
            _ => return Ok(()),
        }
    };
    Err(wrong)
}

// === impl Runner ===

impl Runner {
    /// What templates may say of the node; the engine is asked only when a template asks.
    pub(crate) async fn node_facts(&self, order: &Order) -> Result<NodeFacts, EngineError> {
        let config = &self.context.config;
        let id = config.node_id.to_string();
        let spec = &order.task.spec;
        let asked = spec.granted_files().any(|f| f.given.templating.is_some())
            || spec.container().is_some_and(|c| c.asks_for(is_of_engine));
        if !asked {
            return Ok(NodeFacts { id, ..NodeFacts::default() });
        }
        let found = self.context.engine.describe().await?;
        let hostname = config.hostname.clone().unwrap_or(found.hostname);
        Ok(NodeFacts { id, hostname, platform: found.platform })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::a_task;
    use model::Inherited;
    use std::sync::Arc;

    fn task(change: impl FnOnce(&mut ContainerSpec)) -> Task {
        let mut task = a_task(3);
        change(Arc::make_mut(&mut task.spec).container_mut().unwrap());
        let labels = [("zone".to_owned(), "a".to_owned())].into();
        task.inherited = Some(Arc::new(Inherited { service_labels: labels, ..Inherited::default() }));
        task
    }

    fn hostname(text: &str, slot: u64) -> Result<String, String> {
        let mut task = task(|c| c.hostname = text.to_owned());
        task.slot = slot;
        let platform = Platform { architecture: "x86_64".into(), os: "linux".into() };
        let node = NodeFacts { id: "n1".into(), hostname: "host".into(), platform };
        node.filled(&task, task.spec.container().unwrap()).map(|c| c.hostname.clone()).map_err(|e| e.to_string())
    }

    #[test]
    fn templates_say_what_is_known_of_service_node_and_task() {
        for (text, filled) in [
            ("{{.Service.Name}}-{{.Task.Slot}}", "web-3".to_owned()),
            ("{{.Service.ID}}", a_task(3).service_id.to_string()),
            ("{{.Node.ID}}.{{.Node.Hostname}}.{{.Node.Platform.OS}}", "n1.host.linux".into()),
            ("{{.Node.Platform.Architecture}}", "x86_64".into()),
            ("{{.Task.ID}}", a_task(3).id.to_string()),
            ("{{.Task.Name}}", a_task(3).name()),
            ("{{index .Service.Labels \"zone\"}}{{index .Service.Labels \"none\"}}", "a".into()),
            ("{{.Service.Labels.zone}}", "a".into()),
            ("{{if eq .Task.Slot \"3\"}}{{.Node.Hostname}}{{else}}{{.Service.Labels.none}}{{end}}", "host".into()),
        ] {
            assert_eq!(hostname(text, 3), Ok(filled), "{text}");
        }
        assert_eq!(hostname("{{.Task.Slot}}", 0).as_deref(), Ok("n1"), "without a slot the node says which");
        let missing = hostname("{{.Service.Labels.none}}", 3).unwrap_err();
        assert!(missing.starts_with("expanding hostname failed: map has no entry for key \"none\""), "{missing}");
    }

    #[test]
    fn what_cannot_be_a_container_is_known_before() {
        let mount = |kind, source: &str, target: &str| {
            let (source, target) = (source.to_owned(), target.to_owned());
            resolve(&task(|c| c.mounts = vec![Mount { kind, source, target, ..Mount::default() }]))
        };
        assert_eq!(mount(MountKind::Volume, "v-{{.Task.Slot}}", "/v"), Ok(()));
        for (kind, source, target, says) in [
            (MountKind::Volume, "v", "v", "invalid mount target, must be an absolute path: v"),
            (MountKind::Volume, "/v", "/v", "invalid volume mount source, must not be an absolute path: /v"),
            (MountKind::Bind, "v", "/v", "invalid bind mount source, must be an absolute path: v"),
            (MountKind::Tmpfs, "v", "/v", "invalid tmpfs source, source must be empty"),
            (MountKind::Image, "", "/v", "invalid image source, source must not be empty"),
        ] {
            assert_eq!(mount(kind, source, target), Err(says.to_owned()));
        }
        let depends = "{{if eq .Node.Hostname \"h\"}}a{{else}}{{.Service.Labels.none}}{{end}}";
        assert_eq!(resolve(&task(|c| c.hostname = depends.into())), Ok(()), "that is known when the engine was asked");
        let wrong = resolve(&task(|c| c.env = vec!["A={{.Nope}}".into()])).unwrap_err();
        assert!(wrong.starts_with("expanding env failed: expanding env \"A\": the template uses {{.Nope}}"), "{wrong}");
    }
}
