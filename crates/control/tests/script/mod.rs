//! The language of the scenarios.
//!
//! A scenario begins with `== its title`. Lines that begin with `$ ` are commands, and what follows one, up to an empty line or
//! the next command, is what is to be seen. Everything else is for readers.
//!
//! | command | |
//! |---|---|
//! | `nodes a b c [cpu=4] [memory=8g] [LABEL=VALUE…]` | nodes join, each with so much |
//! | `node update FLAGS NODE` | `--availability`, `--label-add`, `--label-rm`, `--role` |
//! | `node down\|up\|rm NODE…` | a machine dies, comes back, is removed |
//! | `service create\|update\|scale\|rollback\|rm` | with the flags of `docker service`, see `flags.rs` |
//! | `wait [TIME]` | everything happens that happens in that time; without one, what happens at once |
//! | `settle` | until everything is as it is wanted |
//! | `watch TIME NAME` | waits, and says how many ran at least and at most, and how many were on their way at most |
//! | `new leader` | the leader dies; its successor knows what is in the store, and nothing else |
//! | `history N` | so many dead tasks are kept for a slot |
//! | `date YYYY-MM-DDTHH:MM:SSZ` | sets the clock |
//! | `plan COMMAND` | what a command would do |
//! | `simulate --kill\|--drain NODE --scale NAME=N` | where everything would be then |
//! | `why NAME` | what keeps a service from being as it should be |
//! | `rebalance NAME` | as `swarmlite node rebalance` |
//! | `policy rebalance=on-join\|off`, `policy autopilot=10m\|off` | what happens by itself |
//! | `autopilot` | what it says, and does when it is on |
//! | `ls`, `ps [--all] NAME`, `status NAME` | what `docker service ls`, `ps`, `inspect` say |
//!
//! Images do what their names say: `crash` fails when it runs, `done` ends well, `reject` cannot be prepared, `slow` takes its
//! time to be prepared, `sick` never becomes healthy; `crash/5s` after so long. All others run.

mod flags;
mod foresight;
mod nodes;
mod services;
mod show;

use crate::common::World;
use model::{NodeId, ServiceId, TaskState, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// A scenario as it stands in a file.
pub(crate) struct Scenario {
    pub(crate) title: String,
    pub(crate) steps: Vec<Step>,
}

/// A command, and what is to be seen then.
pub(crate) struct Step {
    /// Which of the scenario's commands it is, from 0.
    pub(crate) number: usize,
    pub(crate) command: String,
    pub(crate) expected: String,
}

/// Reads a file.
pub(crate) fn parse(text: &str) -> Result<Vec<Scenario>, String> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut in_output = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            if scenarios.iter().any(|s| s.title == title) {
                return Err(format!("two scenarios are called {title:?}"));
            }
            scenarios.push(Scenario { title: title.to_owned(), steps: Vec::new() });
            in_output = false;
        } else if let Some(command) = line.strip_prefix("$ ") {
            let scenario = scenarios.last_mut().ok_or("a command comes before the first scenario")?;
            let number = scenario.steps.len();
            scenario.steps.push(Step { number, command: command.to_owned(), expected: String::new() });
            in_output = true;
        } else if line.is_empty() {
            in_output = false;
        } else if in_output && let Some(step) = scenarios.last_mut().and_then(|s| s.steps.last_mut()) {
            step.expected.push_str(line);
            step.expected.push('\n');
        }
    }
    Ok(scenarios)
}

/// A cluster that commands are given to.
pub(crate) struct Script {
    pub(crate) world: World,
    pub(crate) nodes: BTreeMap<String, NodeId>,
}

impl Default for Script {
    fn default() -> Self {
        let mut world = World::with_nodes(0);
        world.set_history_limit(model::limits::TASK_HISTORY_DEFAULT);
        Script { world, nodes: BTreeMap::new() }
    }
}

impl Script {
    /// Does what a line says, and returns what is seen.
    pub(crate) fn command(&mut self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["nodes", rest @ ..] => self.join(rest),
            ["node", verb, rest @ ..] => self.node(verb, rest),
            ["service", "create", rest @ ..] => self.create(rest),
            ["service", "update", rest @ ..] => self.update(rest),
            ["service", "scale", rest @ ..] => self.scale(rest),
            ["service", "rollback", name] => self.roll_back(name),
            ["service", "rm", name] => self.remove(name),
            ["wait"] => self.silently(World::run),
            ["wait", time] => {
                let time = duration(time)?;
                self.silently(|w| w.run_for(time))
            }
            ["settle"] => self.silently(World::settle),
            ["watch", time, name] => self.watch(duration(time)?, name),
            ["plan", ..] => self.plan(line.trim_start_matches("plan ")),
            ["simulate", flags @ ..] => self.simulate(flags),
            ["why", name] => self.why(name),
            ["rebalance", name] => self.rebalance(name),
            ["policy", word] => self.policy(word),
            ["autopilot"] => self.autopilot(),
            ["new", "leader"] => self.silently(World::change_leader),
            ["history", n] => {
                let n = number(n)?;
                self.silently(|w| w.set_history_limit(n))
            }
            ["date", text] => {
                self.world.now = date(text)?;
                Ok(String::new())
            }
            ["ls"] => Ok(self.list()),
            ["ps", "--all", name] => self.tasks(name, true),
            ["ps", name] => self.tasks(name, false),
            ["status", name] => self.status(name),
            _ => Err(format!("{line:?} is no command")),
        }
    }

    fn silently(&mut self, f: impl FnOnce(&mut World)) -> Result<String, String> {
        f(&mut self.world);
        Ok(String::new())
    }

    pub(crate) fn node_id(&self, name: &str) -> Result<NodeId, String> {
        self.nodes.get(name).cloned().ok_or_else(|| format!("node {name} not found"))
    }

    pub(crate) fn node_name(&self, id: &NodeId) -> String {
        self.nodes.iter().find(|(_, n)| *n == id).map_or_else(|| id.to_string(), |(name, _)| name.clone())
    }

    pub(crate) fn service_id(&self, name: &str) -> Result<ServiceId, String> {
        let parsed = name.parse().map_err(|e| format!("{name}: {e}"))?;
        let snapshot = self.world.snapshot();
        snapshot.service_named(&parsed).map(|s| s.id.clone()).ok_or_else(|| format!("service {name} not found"))
    }

    /// Lets time pass in small steps.
    fn watch(&mut self, time: Duration, name: &str) -> Result<String, String> {
        let id = self.service_id(name)?;
        let end = self.world.now.plus(time);
        let (mut least, mut most, mut coming) = (usize::MAX, 0, 0);
        while self.world.now < end {
            self.world.control();
            self.world.agents();
            let running = self.world.running(&id).len();
            let new = self.world.wanted(&id).iter().filter(|t| t.status.state < TaskState::Running).count();
            (least, most, coming) = (least.min(running), most.max(running), coming.max(new));
            self.world.pass(Duration::from_millis(100));
        }
        Ok(format!("{name}: {least} to {most} ran, at most {coming} were on their way\n"))
    }
}

/// `90s`, `5m`, `2h`, `100ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| format!("{text:?} has no unit"))?;
    let n: u64 = number(&text[..split])?;
    match &text[split..] {
        "ms" => Ok(Duration::from_millis(n)),
        "s" => Ok(Duration::from_secs(n)),
        "m" => Ok(Duration::from_secs(n * 60)),
        "h" => Ok(Duration::from_secs(n * 3600)),
        unit => Err(format!("{unit:?} is no unit")),
    }
}

/// A number of any kind.
pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// `2026-01-05T11:59:30Z`.
fn date(text: &str) -> Result<Timestamp, String> {
    let fields: Vec<i64> =
        text.split(['-', 'T', ':', 'Z']).filter(|f| !f.is_empty()).map(number).collect::<Result<_, _>>()?;
    let &[year, month, day, hour, minute, second] = fields.as_slice() else {
        return Err(format!("{text:?} is no date"));
    };
    // Days since 1970-01-01, with years that begin in March (the leap day comes last).
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let seconds = u64::try_from(seconds).map_err(|_| format!("{text:?} is before 1970"))?;
    Ok(Timestamp::from_unix(Duration::from_secs(seconds)))
}
