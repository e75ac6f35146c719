//! Commands on services: what the API does with them.

use super::{Script, flags, number};
use model::{JobRun, Meta, Mode, Progress, Runtime, Service, ServiceSpec, UpdateState, UpdateStatus};

impl Script {
    /// `service create --name NAME FLAGS IMAGE`; with `--plugin NAME` its tasks are plugins, and IMAGE is where they come from.
    pub(super) fn create(&mut self, words: &[&str]) -> Result<String, String> {
        let mut spec = flags::plain("unnamed", "nginx")?;
        let rest = flags::take(words, |flag, value| flags::set(&mut spec, flag, value))?;
        let [image] = rest.as_slice() else { return Err("one image is needed".into()) };
        match &mut std::sync::Arc::make_mut(&mut spec.task).runtime {
            Runtime::Container(container) => container.image = (*image).to_owned(),
            Runtime::Plugin(plugin) => plugin.remote = (*image).to_owned(),
        }
        let run = JobRun { iteration: 0, last_execution: self.world.now };
        let job = spec.mode.is_job().then_some(run);
        let service = Service {
            id: self.world.id().parse().expect("it is an id"),
            meta: Meta::default(),
            spec,
            spec_version: 1,
            previous_spec: None,
            update_status: None,
            progress: Progress { job, ..Progress::default() },
        };
        self.world.must(|t| _ = t.create(service));
        Ok(String::new())
    }

    /// `service update FLAGS NAME`
    pub(super) fn update(&mut self, words: &[&str]) -> Result<String, String> {
        let mut changes: Vec<(String, String)> = Vec::new();
        let rest = flags::take(words, |flag, value| {
            changes.push((flag.to_owned(), value.to_owned()));
            Ok(())
        })?;
        let [name] = rest.as_slice() else { return Err("one service is needed".into()) };
        let mut spec = self.world.service(&self.service_id(name)?).spec;
        changes.iter().try_for_each(|(flag, value)| flags::set(&mut spec, flag, value))?;
        self.put(name, spec)
    }

    /// `service scale NAME=N`
    pub(super) fn scale(&mut self, words: &[&str]) -> Result<String, String> {
        for word in words {
            let (name, n) = word.split_once('=').ok_or("NAME=NUMBER is needed")?;
            let mut spec = self.world.service(&self.service_id(name)?).spec;
            spec.mode = match spec.mode {
                Mode::Replicated { .. } => Mode::Replicated { replicas: number(n)? },
                Mode::ReplicatedJob { .. } => {
                    Mode::ReplicatedJob { max_concurrent: number(n)?, total_completions: number(n)? }
                }
                _ => return Err("scale can only be used with replicated or replicated-job mode".into()),
            };
            self.put(name, spec)?;
        }
        Ok(String::new())
    }

    fn put(&mut self, name: &str, spec: ServiceSpec) -> Result<String, String> {
        let id = self.service_id(name)?;
        let now = self.world.now;
        self.world.edit_service(&id, |s| {
            s.previous_spec = Some(std::mem::replace(&mut s.spec, spec));
            s.spec_version += 1;
            s.update_status = None;
            let next = |run: JobRun| JobRun { iteration: run.iteration + 1, last_execution: now };
            s.progress.job = s.progress.job.map(next);
        });
        Ok(String::new())
    }

    /// What the API does with `rollback=previous`.
    pub(super) fn roll_back(&mut self, name: &str) -> Result<String, String> {
        let id = self.service_id(name)?;
        let service = self.world.service(&id);
        let Some(previous) = service.previous_spec else {
            return Err(format!("service {name} does not have a previous spec"));
        };
        let now = self.world.now;
        self.world.edit_service(&id, |s| {
            s.previous_spec = Some(std::mem::replace(&mut s.spec, previous));
            s.spec_version += 1;
            s.update_status = Some(UpdateStatus {
                state: UpdateState::RollbackStarted,
                started_at: now,
                completed_at: None,
                message: "manually requested rollback".into(),
                spec_version: s.spec_version,
            });
        });
        Ok(String::new())
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<String, String> {
        let id = self.service_id(name)?;
        self.world.remove_service(&id);
        Ok(String::new())
    }
}
