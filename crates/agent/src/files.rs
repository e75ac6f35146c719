//! The secrets and configs of a task: put on this machine before its container is made, again before it is started, replaced
//! when they are updated in place, and removed with the end of the task.

use crate::facts::NodeFacts;
use crate::runner::{Order, Runner};
use engine::{ContainerPhase, EngineError, FileMount, FilePlace, HostFile};
use model::{
    ContainerSpec, Data, Dependency, GrantedFile, PayloadId, Signal, Task, Template, TemplateValue, Templating, limits,
};
use std::collections::{BTreeMap, BTreeSet};

use crate::step::Seen;

/// What a task needs of secrets and configs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Granted {
    /// What is here of it.
    data: BTreeMap<PayloadId, Data>,
    /// A manager said that this is all there is.
    complete: bool,
}

/// What a runner knows of its task's files.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// The note of what is in place; `None` when it was not looked at.
    placed: Option<String>,
    /// They were removed.
    removed: bool,
}

// === impl Granted ===

impl Granted {
    /// The task's part of what the node has.
    pub(crate) fn of(task: &Task, data: &BTreeMap<PayloadId, Data>, synced: bool) -> Granted {
        let needs = || task.spec.payloads();
        let data = needs().filter_map(|id| data.get(&id).map(|d| (id, d.clone()))).collect();
        let any = task.spec.dependencies().next().is_some();
        Granted { data, complete: synced && any }
    }
}

/// What is written beside the files: which version each has. It says nothing of what is in them.
fn note(task: &Task) -> String {
    task.spec.payloads().map(|p| format!("{p}\n")).collect()
}

/// The signals that say that files changed, from what a note says to what the task has now.
fn signals(before: &str, task: &Task) -> BTreeSet<Signal> {
    let had: BTreeSet<&str> = before.lines().collect();
    let files = task.spec.granted_files();
    let changed = files.filter(|f| f.payload().is_some_and(|p| !had.contains(p.to_string().as_str())));
    changed.filter_map(|f| f.given.signal.clone()).collect()
}

/// The task's files; `None` while data is on its way. `in_place`: what is there is what it should be.
fn host_files(order: &Order, in_place: bool, node: &NodeFacts) -> Result<Option<Vec<HostFile>>, EngineError> {
    let mut files = Vec::new();
    for file in order.task.spec.granted_files() {
        let content = content(order, &file, node);
        let data = match content {
            Ok(data) => Some(data),
            Err(NoContent::Missing(_)) if in_place => None,
            Err(NoContent::Missing(what)) if order.granted.complete => {
                return Err(EngineError::Refused(format!("{what} is not there any more")));
            }
            Err(NoContent::Missing(_)) => return Ok(None),
            Err(NoContent::Template(why)) => return Err(EngineError::Refused(format!("{}: {why}", file.what()))),
        };
        let (uid, gid, mode) = (file.target.uid, file.target.gid, file.target.mode.bits());
        files.push(HostFile { path: file.path, uid, gid, mode, data });
    }
    Ok(Some(files))
}

/// Why a file has no content.
enum NoContent {
    /// This data is not here.
    Missing(String),
    /// The template cannot be filled in.
    Template(String),
}

fn content(order: &Order, file: &GrantedFile<'_>, node: &NodeFacts) -> Result<Data, NoContent> {
    let raw = |file: &GrantedFile<'_>| {
        let data = file.payload().and_then(|id| order.granted.data.get(&id));
        data.ok_or_else(|| NoContent::Missing(format!("{} ({})", file.what(), file.of)))
    };
    let data = raw(file)?;
    let Some(Templating::Golang) = file.given.templating else { return Ok(data.clone()) };
    let template = Template::parse(data.expose()).map_err(|e| NoContent::Template(e.to_string()))?;
    let named = |target: &str, of: fn(&Dependency) -> bool| {
        let mut files = order.task.spec.granted_files();
        let found = files.find(|f| of(&f.of) && f.target.path.as_str() == target);
        found
            .ok_or_else(|| NoContent::Template(format!("the template uses a target that its task has not: {target:?}")))
    };
    let end = limits::CONFIG_BYTES_END;
    let mut bytes = 0;
    let container = order.task.spec.container().map(|c| node.filled(&order.task, c)).transpose();
    let container = container.map_err(|e| NoContent::Template(e.to_string()))?;
    let filled = template.render(|value| {
        let put = match value {
            TemplateValue::Secret(t) => raw(&named(t, |of| matches!(of, Dependency::Secret(_)))?)?.expose().to_vec(),
            TemplateValue::Config(t) => raw(&named(t, |of| matches!(of, Dependency::Config(_)))?)?.expose().to_vec(),
            TemplateValue::Env(name) => {
                // The last one counts, as for the container.
                let env = container.iter().flat_map(|c| c.env.iter().rev()).filter_map(|line| line.split_once('='));
                env.filter(|(key, _)| key == name)
                    .map(|(_, value)| value.as_bytes().to_vec())
                    .next()
                    .unwrap_or_default()
            }
            other => node.value(&order.task, other).map_err(NoContent::Template)?.into_bytes(),
        };
        // A megabyte of templates can ask for a megabyte of data in a hundred thousand places.
        bytes += put.len();
        if bytes < end { Ok(put) } else { Err(NoContent::Template(format!("filled in, it has {end} bytes or more"))) }
    })?;
    let bytes = filled.len();
    Data::of_config(filled).map_err(|_| {
        NoContent::Template(format!("filled in, it has {bytes} bytes; it must have some, and less than {end}"))
    })
}

// === impl Runner ===

impl Runner {
    fn place(&self, order: &Order) -> Result<FilePlace, EngineError> {
        FilePlace::new(self.context.config.node_id.as_str(), order.task.id.as_str())
    }

    /// Puts the task's files where they belong, and says what to mount. `None` while data is on its way from a manager.
    pub(crate) async fn place_files(&mut self, order: &Order) -> Result<Option<Vec<FileMount>>, EngineError> {
        if order.task.spec.dependencies().next().is_none() {
            return Ok(Some(Vec::new()));
        }
        let container = order.task.spec.container();
        container.map_or(Ok(()), ContainerSpec::check_targets).map_err(|e| EngineError::Refused(e.to_string()))?;
        let (files, place, note) = (self.context.engine.files(), self.place(order)?, note(&order.task));
        let in_place = files.mark_of(&place).await?.as_ref() == Some(&note);
        let node = self.node_facts(order).await?;
        let Some(wanted) = host_files(order, in_place, &node)? else { return Ok(None) };
        self.files.removed = false;
        let mounts = files.put(&place, &wanted).await?;
        files.mark(&place, &note).await?;
        self.files.placed = Some(note);
        Ok(Some(mounts))
    }

    /// Brings the files of a task that runs to the versions that it should have now, and tells the container. Those of a task
    /// that has ended are removed.
    pub(crate) async fn keep_files(&mut self, order: &Order) -> Result<(), EngineError> {
        if order.task.spec.dependencies().next().is_none() {
            return Ok(());
        }
        let runs = matches!(&self.seen, Seen::Present(c) if c.phase == ContainerPhase::Running);
        if self.status.state.is_terminal() && !runs {
            return self.remove_files(order).await;
        }
        let wanted = note(&order.task);
        if !runs || !order.wanted.is_live() || self.files.placed.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let (files, place) = (self.context.engine.files(), self.place(order)?);
        let before = files.mark_of(&place).await?.unwrap_or_default();
        if before != wanted {
            // What was removed in the meantime, or is on its way: the container keeps what it has.
            let node = self.node_facts(order).await?;
            let new = match host_files(order, false, &node) {
                Ok(Some(new)) => new,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::warn!(task = %order.task.id, "secrets or configs cannot be updated in place: {error}");
                    return Ok(());
                }
            };
            files.put(&place, &new).await?;
            for signal in signals(&before, &order.task) {
                let Some(id) = &self.container else { break };
                tracing::info!(task = %order.task.id, ?signal, "secrets or configs were updated in place");
                match self.context.engine.signal(id, signal.as_str()).await {
                    // It would refuse again, for as long as the task runs; the file is what it should be.
                    Err(EngineError::Refused(why)) => {
                        tracing::warn!(task = %order.task.id, ?signal, "the container is not told of it: {why}");
                    }
                    told => told?,
                }
            }
            // Last: an agent that stops in between does it again.
            files.mark(&place, &wanted).await?;
        }
        self.files.placed = Some(wanted);
        Ok(())
    }

    /// Removes the task's files, once.
    pub(crate) async fn remove_files(&mut self, order: &Order) -> Result<(), EngineError> {
        if self.files.removed || order.task.spec.dependencies().next().is_none() {
            return Ok(());
        }
        self.context.engine.files().remove(&self.place(order)?).await?;
        self.files = Files { placed: None, removed: true };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
