//! What is to be seen: tables in the manner of `docker service`.

use super::Script;
use model::{Mode, Task, TaskState};
use std::sync::Arc;

impl Script {
    /// `ls`
    pub(super) fn list(&self) -> String {
        let snapshot = self.world.snapshot();
        let mut rows: Vec<Vec<String>> = Vec::new();
        for service in snapshot.services() {
            let wanted: Vec<Arc<Task>> = self.world.wanted(&service.id);
            let running = wanted.iter().filter(|t| t.status.state == TaskState::Running).count();
            let of = match service.spec.mode {
                Mode::Replicated { replicas } => replicas.to_string(),
                Mode::ReplicatedJob { total_completions, .. } => {
                    format!("{total_completions} done {}", self.done(service))
                }
                Mode::Global => wanted.len().to_string(),
                Mode::GlobalJob => format!("{} done {}", wanted.len(), self.done(service)),
            };
            let image = service.spec.task.origin().to_owned();
            rows.push(vec![
                service.spec.name.to_string(),
                service.spec.mode.as_str().into(),
                format!("{running}/{of}"),
                image,
            ]);
        }
        rows.sort();
        table(rows)
    }

    /// Tasks of a job's present run that ended well.
    fn done(&self, service: &model::Service) -> usize {
        let run = service.progress.job.map(|j| j.iteration);
        let is_done = |t: &&Arc<Task>| t.job_iteration == run && t.status.state == TaskState::Complete;
        self.world.tasks(&service.id).iter().filter(is_done).count()
    }

    /// `ps`: the newest task of each slot, or all of them.
    pub(super) fn tasks(&self, name: &str, all: bool) -> Result<String, String> {
        let mut tasks = match self.service_id(name) {
            Ok(id) => self.world.tasks(&id),
            // Tasks of a service that is gone may still be stopping.
            Err(e) => {
                let left: Vec<_> =
                    self.world.snapshot().tasks().filter(|t| t.service_name.as_str() == name).cloned().collect();
                if left.is_empty() {
                    return Err(e);
                }
                left
            }
        };
        let key =
            |t: &Task| (t.job_iteration.map(std::cmp::Reverse), t.slot, t.for_node.as_ref().map(|n| self.node_name(n)));
        tasks.sort_by(|a, b| {
            let newest = |t: &Task| (t.is_wanted(), t.spec_version, t.meta.created_at, t.meta.version);
            key(a).cmp(&key(b)).then_with(|| newest(b).cmp(&newest(a)))
        });
        let mut rows = Vec::new();
        let mut last = None;
        for task in tasks {
            let is_history = last.replace(key(&task)) == Some(key(&task));
            if all || !is_history {
                rows.push(self.row(&task, is_history));
            }
        }
        Ok(table(rows))
    }

    /// The number of a task's slot, or the name of the node that it is for.
    pub(super) fn slot(&self, task: &Task) -> String {
        task.for_node.as_ref().map_or(task.slot.to_string(), |n| self.node_name(n))
    }

    fn row(&self, task: &Task, is_history: bool) -> Vec<String> {
        let node = task.node_id.as_ref().map_or("-".into(), |n| self.node_name(n));
        let slot = self.slot(task);
        let run = task.job_iteration.map_or(String::new(), |n| format!("#{n}"));
        let indent = if is_history { " \\_ " } else { "" };
        let name = format!("{indent}{}{run}.{slot}", task.service_name);
        let desired = if is_history || task.desired >= TaskState::Shutdown {
            format!("({})", task.desired)
        } else {
            task.desired.to_string()
        };
        let state = task.status.state.to_string();
        let mut row = vec![name, task.spec.origin().to_owned(), node, desired, state];
        if !task.generic.is_empty() {
            let given = task.generic.iter().map(|g| match g {
                model::GenericResource::Named { kind, value } => format!("{kind}={value}"),
                model::GenericResource::Discrete { kind, amount } => format!("{kind}={amount}"),
            });
            row.push(given.collect::<Vec<_>>().join(","));
        }
        if !task.status.err.is_empty() {
            row.push(format!("\"{}\"", task.status.err));
        }
        row
    }

    /// `status`: how the last update went.
    pub(super) fn status(&self, name: &str) -> Result<String, String> {
        let service = self.world.service(&self.service_id(name)?);
        let Some(status) = service.current_update() else { return Ok("no update\n".into()) };
        let mut message = status.message.clone();
        // Ids are long and say nothing to a reader: tasks are called by their slots.
        for task in self.world.tasks(&service.id) {
            message = message.replace(task.id.as_str(), &format!("{}.{}", task.service_name, self.slot(&task)));
        }
        Ok(format!("{}: {message}\n", status.state.as_str()))
    }
}

/// Rows with their columns under each other.
pub(super) fn table(rows: Vec<Vec<String>>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(text, width)| format!("{text:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    if rows.is_empty() { "nothing\n".into() } else { rows.iter().map(line).collect() }
}
