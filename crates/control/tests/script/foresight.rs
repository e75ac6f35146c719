//! What would be: plans and what-ifs; and what Swarm never had: rebalancing and autopilot.

use super::flags::{take, words};
use super::show::table;
use super::{Script, duration, number};
use model::{Autopilot, NodeState, Rebalance, RebalancePolicy, Role};
use std::collections::BTreeMap;
use store::Transaction;
use swarmlite_control::forecast::{Forecast, Options, Step, forecast, what_if};
use swarmlite_control::{autopilot, why};

impl Script {
    /// `plan COMMAND`: what the command would do. It does nothing.
    pub(super) fn plan(&mut self, command: &str) -> Result<String, String> {
        self.world.planned = Some(Vec::new());
        let outcome = self.command(command);
        let planned = self.world.planned.take().unwrap_or_default();
        outcome?;
        self.foresee(&planned, &Options::default())
    }

    /// `simulate --kill NODE --drain NODE --scale SERVICE=N`: where everything would land.
    pub(super) fn simulate(&mut self, flags: &[&str]) -> Result<String, String> {
        let (mut kill, mut drain, mut scale) = (Vec::new(), Vec::new(), BTreeMap::new());
        take(flags, |flag, value| {
            match flag {
                "--kill" => kill.push(self.node_id(value)?),
                "--drain" => drain.push(self.node_id(value)?),
                "--scale" => {
                    let (name, n) = value.split_once('=').ok_or("NAME=NUMBER is needed")?;
                    scale.insert(self.service_id(name)?, number(n)?);
                }
                _ => return Err(format!("{flag} is no flag of simulate")),
            }
            Ok(())
        })?;
        let transaction = what_if(&self.world.snapshot(), &kill, &drain, &scale, self.world.now);
        let transaction = transaction.map_err(|e| e.to_string())?;
        self.foresee(&[transaction], &Options { land_all: true, ..Options::default() })
    }

    fn foresee(&self, changes: &[Transaction], options: &Options) -> Result<String, String> {
        let snapshot = self.world.snapshot();
        let found = forecast(&snapshot, changes, self.world.now, options).map_err(|e| e.to_string())?;
        let again = forecast(&snapshot, changes, self.world.now, options).map_err(|e| e.to_string())?;
        assert_eq!(found, again, "the same question has the same answer");
        let mut text = if found.changes { String::new() } else { "no change\n".into() };
        found.objects.iter().for_each(|o| text.push_str(&format!("{o}\n")));
        text.push_str(&steps(&found));
        for s in found.services.iter().filter(|s| !s.dip.is_zero()) {
            let (service, least, wanted, dip) = (&s.service, s.least_running, s.wanted_after, words(s.dip));
            text.push_str(&format!("{service} has {least} of {wanted} running at least, and too few for {dip}\n"));
        }
        for u in &found.unplaced {
            text.push_str(&format!("no place for {}.{}: {}\n", u.service, u.slot, u.reason));
        }
        for landing in found.landing.iter().filter(|_| options.land_all) {
            let tasks = landing.tasks.iter().map(|(service, n)| format!("{service}={n}")).collect::<Vec<_>>();
            text.push_str(&format!("{} then has {}\n", landing.hostname, tasks.join(" ")));
        }
        Ok(format!("{text}{}\n", found.ends))
    }

    /// `why SERVICE`: what keeps it from being as it should be.
    pub(super) fn why(&self, name: &str) -> Result<String, String> {
        let service = self.world.service(&self.service_id(name)?);
        let why = why::service(&self.world.snapshot(), &service, self.world.now);
        let mut lines = why.lines;
        if !why.update.is_empty() && !lines.contains(&why.update) {
            lines.push(why.update);
        }
        for task in &why.tasks {
            let slot = self.world.tasks(&service.id).into_iter().find(|t| t.id == task.id).map(|t| self.slot(&t));
            lines.push(format!("{name}.{}: {}", slot.unwrap_or_default(), task.line));
            lines.extend(
                task.rejected.iter().map(|r| format!("  {}: {} ({})", r.hostname, r.reason, r.filter.as_str())),
            );
        }
        let mut text = lines.iter().map(|l| format!("{l}\n")).collect::<String>();
        // Ids are long and say nothing to a reader: tasks are called by their slots.
        for task in self.world.tasks(&service.id) {
            text = text.replace(&task.name(), &format!("{name}.{}", self.slot(&task)));
            text = text.replace(task.id.as_str(), &format!("{name}.{}", self.slot(&task)));
        }
        Ok(if text.is_empty() { "all is as it should be\n".into() } else { text })
    }

    /// `node rebalance SERVICE`
    pub(super) fn rebalance(&mut self, name: &str) -> Result<String, String> {
        let id = self.service_id(name)?;
        let asked_at = self.world.now;
        self.world.edit_service(&id, |s| s.progress.rebalance = Some(Rebalance { asked_at, ..Rebalance::default() }));
        Ok(String::new())
    }

    /// `policy rebalance=on-join`, `policy autopilot=10m`
    pub(super) fn policy(&mut self, word: &str) -> Result<String, String> {
        let (key, value) = word.split_once('=').ok_or("KEY=VALUE is needed")?;
        let mut cluster = self.world.snapshot().cluster().expect("there is one").as_ref().clone();
        match (key, value) {
            ("rebalance", "on-join") => cluster.spec.policy.rebalance = RebalancePolicy::OnJoin,
            ("rebalance", "off") => cluster.spec.policy.rebalance = RebalancePolicy::Off,
            ("autopilot", "off") => cluster.spec.policy.autopilot.on = false,
            ("autopilot", after) => cluster.spec.policy.autopilot = Autopilot { on: true, after: duration(after)? },
            _ => return Err(format!("{key} is no policy")),
        }
        self.world.must(|t| _ = t.update(cluster));
        Ok(String::new())
    }

    /// `autopilot`: what it advises, and does if it is on. In scenarios all managers that are up can be reached.
    pub(super) fn autopilot(&mut self) -> Result<String, String> {
        let snapshot = self.world.snapshot();
        let managers = || snapshot.nodes().filter(|n| n.spec.role == Role::Manager);
        let reachable = managers().filter(|n| n.status.state == NodeState::Ready);
        let group = autopilot::Group {
            voters: managers().map(|n| n.id.clone()).collect(),
            reachable: reachable.map(|n| n.id.clone()).collect(),
        };
        let advice = autopilot::advise(&snapshot, &group, self.world.now);
        let names =
            |line: &String| self.nodes.iter().fold(line.clone(), |line, (name, id)| line.replace(id.as_str(), name));
        let text: String = advice.lines.iter().map(|l| format!("{}\n", names(l))).collect();
        if let Some(step) = &advice.step
            && let Some(transaction) = autopilot::transaction(&snapshot, step, self.world.now)
        {
            self.world.apply(&transaction).map_err(|e| e.to_string())?;
        }
        Ok(if text.is_empty() { "nothing to do\n".into() } else { text })
    }
}

fn steps(found: &Forecast) -> String {
    let row = |s: &Step| {
        let way = match (&s.from_node, &s.to_node) {
            (Some(from), Some(to)) if from != to => format!("{from} -> {to}"),
            (_, Some(node)) | (Some(node), None) => node.clone(),
            (None, None) => String::new(),
        };
        vec![format!("+{}", words(s.at)), s.action.to_string(), format!("{}.{}", s.service, s.slot), way, s.why.clone()]
    };
    if found.steps.is_empty() { String::new() } else { table(found.steps.iter().map(row).collect()) }
}
