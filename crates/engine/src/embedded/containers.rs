//! The records of the embedded engine's containers. Pure: the time is an argument.

use super::behaviour::{Behaviour, HEALTH_TAKES, STOP_TAKES};
use super::{CONTAINERS_MAX, has_label};
use crate::{
    ContainerEvent, ContainerPhase, ContainerState, EngineError, FileMount, Health, LogChunk, LogOptions, NewContainer,
};
use bytes::Bytes;
use model::PortStatus;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Events kept for listeners that are slow.
const EVENTS_MAX: usize = 4096;
/// Lines of output kept for each container.
const LOG_LINES_MAX: usize = 2000;
/// First port that the engine chooses, as Linux' ephemeral range.
const FIRST_EPHEMERAL_PORT: u16 = 32_768;
/// Exit code of a container that was killed.
const KILLED: i64 = 137;

/// That a container was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When, by the engine's clock, since the Unix epoch.
    pub at: Duration,
}

/// All containers and what happened to them.
#[derive(Default)]
pub(crate) struct Containers {
    by_id: BTreeMap<String, Record>,
    events: VecDeque<(u64, ContainerState, String)>,
    changes: u64,
    starts: VecDeque<Started>,
    pids: i64,
}

struct Record {
    state: ContainerState,
    new: NewContainer,
    behaviour: Behaviour,
    /// When it will end, and how.
    ends: Option<(Duration, i64)>,
    /// When its health will be known.
    health_due: Option<(Duration, Health)>,
    log: VecDeque<(u64, LogChunk)>,
    lines: u64,
}

pub(crate) fn no_such_container(id: &str) -> EngineError {
    EngineError::NotFound(format!("No such container: {id}"))
}

// === impl Containers ===

impl Containers {
    /// Rises with every event.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn starts(&self) -> Vec<Started> {
        self.starts.iter().cloned().collect()
    }

    pub(crate) fn create(&mut self, id: String, new: &NewContainer) -> Result<String, EngineError> {
        if let Some(other) = self.find(&new.name) {
            return Err(EngineError::Conflict(format!(
                "Conflict. The container name \"/{}\" is already in use by container \"{other}\". You have to remove (or \
                 rename) that container to be able to reuse that name.",
                new.name
            )));
        }
        if self.by_id.len() >= CONTAINERS_MAX {
            return Err(EngineError::Failed(format!("the embedded engine holds at most {CONTAINERS_MAX} containers")));
        }
        let behaviour = Behaviour::of(&new.spec.image);
        if behaviour.no_image {
            return Err(EngineError::NotFound(format!("No such image: {}", new.spec.image)));
        }
        if behaviour.no_create {
            return Err(EngineError::Refused(
                "invalid mount config for type \"bind\": bind source path does not exist".into(),
            ));
        }
        let mut labels = new.spec.labels.clone();
        labels.extend(new.labels.clone());
        let state = ContainerState { id: id.clone(), name: new.name.clone(), labels, ..ContainerState::default() };
        let record =
            Record { state, new: new.clone(), behaviour, ends: None, health_due: None, log: VecDeque::new(), lines: 0 };
        self.by_id.insert(id.clone(), record);
        self.happened(&id, "create");
        Ok(id)
    }

    pub(crate) fn start(&mut self, id: &str, now: Duration) -> Result<(), EngineError> {
        let id = self.find(id).ok_or_else(|| no_such_container(id))?;
        let ports = self.bind_ports(&id)?;
        self.pids += 1;
        let pid = 1000 + self.pids;
        let Some(record) = self.by_id.get_mut(&id) else { return Err(no_such_container(&id)) };
        if record.state.phase == ContainerPhase::Running {
            return Ok(());
        }
        if record.behaviour.no_start {
            record.state.error =
                "OCI runtime create failed: exec: \"app\": executable file not found in $PATH: unknown".into();
            return Err(EngineError::Refused(record.state.error.clone()));
        }
        record.start(now, pid, ports);
        let started = Started { id: id.clone(), name: record.state.name.clone(), at: now };
        self.starts.push_back(started);
        if self.starts.len() > CONTAINERS_MAX {
            self.starts.pop_front();
        }
        self.happened(&id, "start");
        Ok(())
    }

    pub(crate) fn created(&self, id: &str) -> Option<&NewContainer> {
        self.find(id).and_then(|id| self.by_id.get(&id)).map(|r| &r.new)
    }

    /// The files that it was created with.
    pub(crate) fn files(&self, id: &str) -> &[FileMount] {
        self.find(id).and_then(|id| self.by_id.get(&id)).map_or(&[], |r| &r.new.files)
    }

    /// Ports as Docker gives them: those asked for, or free ones; a port that another container has is an error.
    fn bind_ports(&self, id: &str) -> Result<Vec<PortStatus>, EngineError> {
        let running = |r: &&Record| r.state.phase == ContainerPhase::Running && r.state.id != id;
        let mut taken: Vec<PortStatus> =
            self.by_id.values().filter(running).flat_map(|r| r.state.ports.iter().cloned()).collect();
        let wanted = self.by_id.get(id).map(|r| r.new.ports.clone()).unwrap_or_default();
        let mut bound = Vec::new();
        for port in wanted {
            let is_taken = |number| taken.iter().any(|t| t.protocol == port.protocol && t.published_port == number);
            let published_port = match port.published_port {
                0 => (FIRST_EPHEMERAL_PORT..=u16::MAX).find(|n| !is_taken(*n)).unwrap_or(u16::MAX),
                number if is_taken(number) => {
                    return Err(EngineError::Failed(format!(
                        "driver failed programming external connectivity: Bind for 0.0.0.0:{number} failed: port is already \
                         allocated"
                    )));
                }
                number => number,
            };
            let status = PortStatus { protocol: port.protocol, target_port: port.target_port, published_port };
            taken.push(status.clone());
            bound.push(status);
        }
        Ok(bound)
    }

    /// Asks it to stop; when it will have.
    pub(crate) fn stop(&mut self, id: &str, now: Duration, grace: Duration) -> Option<Duration> {
        let id = self.find(id)?;
        let record = self.by_id.get_mut(&id)?;
        if record.state.phase != ContainerPhase::Running {
            return None;
        }
        let (after, code) =
            if record.behaviour.stubborn || grace < STOP_TAKES { (grace, KILLED) } else { (STOP_TAKES, 0) };
        let end = now + after;
        if record.ends.is_none_or(|(at, _)| at > end) {
            record.ends = Some((end, code));
        }
        record.ends.map(|(at, _)| at)
    }

    /// Ends it now.
    pub(crate) fn kill(&mut self, id: &str, now: Duration, code: i64) -> bool {
        let Some(id) = self.find(id) else { return false };
        let Some(record) = self.by_id.get_mut(&id).filter(|r| r.state.phase == ContainerPhase::Running) else {
            return false;
        };
        record.end(now, code);
        self.happened(&id, "die");
        true
    }

    pub(crate) fn kill_all(&mut self, now: Duration) {
        let ids: Vec<String> = self.by_id.keys().cloned().collect();
        for id in ids {
            self.kill(&id, now, KILLED);
        }
    }

    pub(crate) fn set_health(&mut self, id: &str, health: Health) -> bool {
        let Some(id) = self.find(id) else { return false };
        let Some(record) = self.by_id.get_mut(&id) else { return false };
        (record.state.health, record.health_due) = (health, None);
        self.happened(&id, health_event(health));
        true
    }

    pub(crate) fn remove(&mut self, id: &str, now: Duration) {
        let Some(id) = self.find(id) else { return };
        self.kill(&id, now, KILLED);
        self.happened(&id, "destroy");
        self.by_id.remove(&id);
    }

    pub(crate) fn get(&self, id: &str, _now: Duration) -> Option<ContainerState> {
        self.by_id.get(&self.find(id)?).map(|r| r.state.clone())
    }

    /// By name.
    pub(crate) fn all(&self, _now: Duration) -> Vec<ContainerState> {
        let mut all: Vec<ContainerState> = self.by_id.values().map(|r| r.state.clone()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(crate) fn has_ended(&self, id: &str, now: Duration) -> bool {
        self.get(id, now).is_none_or(|c| c.phase == ContainerPhase::Exited)
    }

    /// The number that its next line of output will have.
    pub(crate) fn next_line(&self, id: &str) -> u64 {
        self.find(id).and_then(|id| self.by_id.get(&id)).map_or(0, |r| r.lines)
    }

    /// Its output with line numbers; `None` when it is not there.
    pub(crate) fn log(&self, id: &str, options: LogOptions, _now: Duration) -> Option<Vec<(u64, LogChunk)>> {
        let record = self.by_id.get(&self.find(id)?)?;
        let wanted = |c: &LogChunk| {
            (if c.stderr { options.stderr } else { options.stdout }) && c.at_unix_ns > options.since_unix_ns
        };
        let mut lines: Vec<(u64, LogChunk)> = record.log.iter().filter(|(_, c)| wanted(c)).cloned().collect();
        if let Some(tail) = options.tail {
            let skip = lines.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX));
            lines.drain(..skip);
        }
        Some(lines)
    }

    /// What its log options name of its labels and its environment; `None` when it is not there.
    pub(crate) fn log_details(&self, id: &str) -> Option<BTreeMap<String, String>> {
        let record = self.by_id.get(&self.find(id)?)?;
        let options = record.new.log_driver.as_ref().map(|d| &d.options);
        let names = |option: &str| -> Vec<String> {
            let list = options.and_then(|o| o.get(option)).map_or("", String::as_str);
            list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let labels = names("labels").into_iter().filter_map(|name| record.state.labels.get_key_value(&name));
        let mut details: BTreeMap<String, String> = labels.map(|(k, v)| (k.clone(), v.clone())).collect();
        let wanted = names("env");
        let env = record.new.spec.env.iter().filter_map(|e| e.split_once('='));
        details.extend(env.filter(|(k, _)| wanted.iter().any(|w| w == k)).map(|(k, v)| (k.to_owned(), v.to_owned())));
        Some(details)
    }

    /// Does everything that is due.
    pub(crate) fn settle(&mut self, now: Duration) {
        while let Some((id, at)) = self.first_due().filter(|(_, at)| *at <= now) {
            let Some(record) = self.by_id.get_mut(&id) else { return };
            if let Some((_, health)) = record.health_due.take_if(|(due, _)| *due <= at) {
                record.state.health = health;
                self.happened(&id, health_event(health));
            } else if let Some((_, code)) = record.ends.take() {
                record.end(at, code);
                self.happened(&id, "die");
            }
        }
    }

    pub(crate) fn next_due(&self, _now: Duration) -> Option<Duration> {
        self.first_due().map(|(_, at)| at)
    }

    fn first_due(&self) -> Option<(String, Duration)> {
        let due = |r: &Record| [r.ends.map(|(at, _)| at), r.health_due.map(|(at, _)| at)].into_iter().flatten().min();
        let first = self.by_id.iter().filter_map(|(id, r)| due(r).map(|at| (at, id))).min()?;
        Some((first.1.clone(), first.0))
    }

    /// The first event after number `from` that carries the label, with its number.
    pub(crate) fn events_after(&self, from: u64, label: &str, _now: Duration) -> Option<(u64, ContainerEvent)> {
        let start = self.events.partition_point(|(n, ..)| *n <= from);
        let (n, state, action) = self.events.range(start..).find(|(_, c, _)| has_label(c, label))?;
        Some((*n, ContainerEvent { id: state.id.clone(), action: action.clone() }))
    }

    fn happened(&mut self, id: &str, action: &str) {
        let Some(record) = self.by_id.get(id) else { return };
        self.changes += 1;
        self.events.push_back((self.changes, record.state.clone(), action.to_owned()));
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    /// The id that an id or a name means.
    fn find(&self, id_or_name: &str) -> Option<String> {
        if self.by_id.contains_key(id_or_name) {
            return Some(id_or_name.to_owned());
        }
        self.by_id.values().find(|r| r.state.name == id_or_name).map(|r| r.state.id.clone())
    }
}

fn health_event(health: Health) -> &'static str {
    match health {
        Health::Healthy => "health_status: healthy",
        Health::Unhealthy => "health_status: unhealthy",
        Health::Starting | Health::None => "health_status: starting",
    }
}

// === impl Record ===

impl Record {
    fn start(&mut self, now: Duration, pid: i64, ports: Vec<PortStatus>) {
        self.state.phase = ContainerPhase::Running;
        self.state.pid = pid;
        self.state.exit_code = None;
        self.state.ports = ports;
        self.ends = self.behaviour.ends.map(|(after, code)| (now + after, code));
        let checked = self.new.spec.healthcheck.as_ref().is_some_and(|h| h.test.first().is_none_or(|t| t != "NONE"));
        self.state.health = if checked { Health::Starting } else { Health::None };
        let result = if self.behaviour.unhealthy { Health::Unhealthy } else { Health::Healthy };
        self.health_due = checked.then_some((now + HEALTH_TAKES, result));
        for n in 1..=self.behaviour.lines {
            self.print(now, false, &format!("{}: line {n}", self.new.spec.image));
        }
    }

    fn end(&mut self, now: Duration, code: i64) {
        self.print(now, code != 0, &format!("ended with code {code}"));
        self.state.phase = ContainerPhase::Exited;
        self.state.pid = 0;
        self.state.exit_code = Some(code);
        self.state.ports.clear();
        (self.ends, self.health_due) = (None, None);
    }

    fn print(&mut self, now: Duration, stderr: bool, text: &str) {
        // Lines of one moment are told apart, as a real engine's nanoseconds would.
        let after = self.log.back().map_or(0, |(_, c)| c.at_unix_ns + 1);
        let at_unix_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(after);
        self.log.push_back((self.lines, LogChunk { stderr, at_unix_ns, data: Bytes::from(format!("{text}\n")) }));
        self.lines += 1;
        if self.log.len() > LOG_LINES_MAX {
            self.log.pop_front();
        }
    }
}
