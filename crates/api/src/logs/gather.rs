//! Gathers the output of many tasks into one stream.

use super::format::Format;
use crate::Api;
use crate::swarm::{LogError, LogRequest};
use bytes::Bytes;
use engine::LogOptions;
use futures::StreamExt as _;
use model::{ServiceId, Task, TaskId};
use parking_lot::Mutex;
use seams::Tasks;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, Event, Object, Snapshot, StoreClient};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Tasks whose output one request may ask for.
const TASKS_MAX: usize = 1000;
/// How soon a stream that broke off while its task goes on is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long the readers have to end once the request is over.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Whose output.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Service(ServiceId),
    Task(TaskId),
}

/// One log request.
pub(super) struct Gather {
    shared: Arc<Shared>,
    source: Source,
    seen: BTreeSet<TaskId>,
    readers: Tasks,
    reading: Vec<JoinHandle<()>>,
}

/// What the readers of a request share.
struct Shared {
    api: Api,
    options: LogOptions,
    format: Format,
    out: mpsc::Sender<Bytes>,
    /// What could not be had, and why.
    missing: Mutex<BTreeSet<String>>,
}

// === impl Gather ===

impl Gather {
    pub(super) fn new(
        api: Api,
        source: Source,
        options: LogOptions,
        format: Format,
        out: mpsc::Sender<Bytes>,
    ) -> Gather {
        let readers = api.deps().tasks.child();
        let shared = Arc::new(Shared { api, options, format, out, missing: Mutex::default() });
        Gather { shared, source, seen: BTreeSet::new(), readers, reading: Vec::new() }
    }

    /// Reads until all output was read, or with `follow` until the client has had enough.
    pub(super) async fn run(mut self, store: Arc<dyn StoreClient>, snapshot: Snapshot, changes: Changes) {
        let shared = self.shared.clone();
        let work = async {
            self.open_all(&store, &snapshot, shared.options);
            drop(snapshot);
            if shared.options.follow {
                self.open_new(&store, changes).await;
            } else {
                self.finish().await;
            }
        };
        tokio::select! {
            biased;
            () = shared.out.closed() => {}
            () = work => {}
        }
        self.readers.shutdown(END_TIMEOUT).await;
    }

    fn concerns(&self, task: &Task) -> bool {
        match &self.source {
            Source::Service(id) => task.service_id == *id,
            Source::Task(id) => task.id == *id,
        }
    }

    fn open_all(&mut self, store: &Arc<dyn StoreClient>, snapshot: &Snapshot, options: LogOptions) {
        let tasks: Vec<Arc<Task>> = match &self.source {
            Source::Service(id) => snapshot.tasks_of_service(id).cloned().collect(),
            Source::Task(id) => snapshot.task(id).cloned().into_iter().collect(),
        };
        for task in tasks {
            self.open(store, &task, options);
        }
    }

    /// Starts reading a task's output, once.
    fn open(&mut self, store: &Arc<dyn StoreClient>, task: &Arc<Task>, options: LogOptions) {
        if self.seen.contains(&task.id) {
            return;
        }
        if task.node_id.is_none() {
            if !options.follow && task.is_wanted() {
                self.shared.misses(format!("task {} has not been scheduled", task.id));
            }
            return;
        }
        // Without a container there is no output; with `follow` there may come to be one.
        let over = task.status.state.is_terminal() || !options.follow;
        if over && task.status.container.as_ref().is_none_or(|c| c.id.is_empty()) {
            return;
        }
        if self.seen.len() >= TASKS_MAX {
            self.shared.misses(format!("there are more than {TASKS_MAX} tasks: ask for one task"));
            return;
        }
        self.seen.insert(task.id.clone());
        let (shared, store, task) = (self.shared.clone(), store.clone(), task.clone());
        let reading = self.readers.spawn("task log", async move { shared.read_task(&*store, &task, options).await });
        if !options.follow {
            self.reading.push(reading);
        }
    }

    /// With `follow`: tasks that come later, from their beginning.
    async fn open_new(&mut self, store: &Arc<dyn StoreClient>, mut changes: Changes) {
        let options = LogOptions { tail: None, ..self.shared.options };
        loop {
            match changes.next().await {
                Event::Commit(commit) => {
                    for delta in &commit.deltas {
                        if let Some(Object::Task(task)) = &delta.after
                            && self.concerns(task)
                        {
                            self.open(store, task, options);
                        }
                    }
                }
                Event::Resync => self.open_all(store, &store.local(), options),
                Event::Closed => return,
            }
        }
    }

    /// Without `follow`: waits for all readers, and says what is missing.
    async fn finish(&mut self) {
        futures::future::join_all(self.reading.drain(..)).await;
        let missing = std::mem::take(&mut *self.shared.missing.lock());
        if !missing.is_empty() {
            let reasons = missing.into_iter().collect::<Vec<_>>().join(", ");
            let text = format!(
                "warning: incomplete log stream. some logs could not be retrieved for the following reasons: {reasons}\n"
            );
            let _client_is_gone = self.shared.out.send(self.shared.format.error(&text)).await;
        }
    }
}

// === impl Shared ===

impl Shared {
    fn misses(&self, reason: String) {
        self.missing.lock().insert(reason);
    }

    /// Passes on a task's output. With `follow` it asks again when the stream broke off while the task goes on (its node
    /// lost its manager, say).
    async fn read_task(&self, store: &dyn StoreClient, task: &Task, mut options: LogOptions) {
        let Some(node) = task.node_id.clone() else { return };
        loop {
            let details = self.format.details;
            let request = LogRequest { task: task.id.clone(), node: node.clone(), options, details };
            match self.api.deps().swarm.logs(request).await {
                Ok(mut lines) => {
                    while let Some(line) = lines.next().await {
                        match line {
                            Ok(line) => {
                                // Only what comes after it, should we have to ask again.
                                options.since_unix_ns = options.since_unix_ns.max(line.at_unix_ns.saturating_add(1));
                                options.tail = None;
                                if self.out.send(self.format.line(task, &line)).await.is_err() {
                                    return;
                                }
                            }
                            Err(e) => self.fails(task, &e),
                        }
                    }
                }
                Err(e) => self.fails(task, &e),
            }
            let goes_on = store.local().task(&task.id).is_some_and(|t| !t.status.state.is_terminal());
            if !options.follow || !goes_on {
                return;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    fn fails(&self, task: &Task, e: &LogError) {
        match e {
            LogError::NodeUnavailable(_) => self.misses(e.to_string()),
            LogError::Failed(text) => self.misses(format!("task {}: {text}", task.id)),
        }
    }
}
