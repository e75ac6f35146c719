//! The leader's side: takes the managers' reports, writes statuses, and keeps judging the nodes.

use crate::liveness::{Brake, SessionsSeen, World, judge};
use crate::status::{self, Reported};
use crate::{Canary, DESCRIPTION_BYTES_MAX, ReportError};
use model::{Node, NodeDescription, NodeId, Timestamp};
use parking_lot::Mutex;
use rpc::proto::cluster::{Accepted, ReportRequest, SessionReport};
use seams::Clock;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Object, ProposeError, Snapshot, StoreClient, Transaction};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

/// Reports of managers that wait to be committed.
const QUEUE: usize = 1_024;
/// Statuses in one transaction. A task is about 1 KiB encoded; should they not fit, the transaction is halved.
const COMMIT_STATUSES_MAX: usize = 1_000;
/// How often a commit is tried again because another one changed the same tasks.
const CONFLICTS_MAX: usize = 20;
/// After a proposal that failed.
const RETRY: Duration = Duration::from_millis(200);
/// A verdict that comes later than planned by more than this was held up by the machine, not by work.
const OVERSLEPT: Duration = Duration::from_millis(500);
/// The verdict is looked at again at least this often, whatever it says itself.
const JUDGE_AT_LEAST: Duration = Duration::from_secs(1);

/// Takes the managers' reports while this manager leads. One for each manager, for its whole life.
pub struct LeaderReports {
    clock: Arc<dyn Clock>,
    canary: Canary,
    /// Set while this manager leads.
    reign: Mutex<Option<Reign>>,
    brake: watch::Sender<Option<Brake>>,
}

#[derive(Clone)]
struct Reign {
    /// Takes what this reign decides, and nothing after its end.
    store: Arc<dyn StoreClient>,
    sessions: Arc<Mutex<SessionsSeen>>,
    heard: Arc<Notify>,
    statuses: mpsc::Sender<Waiting>,
}

struct Waiting {
    reports: Vec<Reported>,
    done: oneshot::Sender<Result<u32, ReportError>>,
}

// === impl LeaderReports ===

impl LeaderReports {
    /// Not leading yet.
    pub fn new(clock: Arc<dyn Clock>, canary: Canary) -> Arc<LeaderReports> {
        Arc::new(LeaderReports { clock, canary, reign: Mutex::new(None), brake: watch::Sender::new(None) })
    }

    /// Set while more than half of the nodes are silent at once and none is therefore put down.
    pub fn brake(&self) -> watch::Receiver<Option<Brake>> {
        self.brake.subscribe()
    }

    /// Takes a report of a manager (whose certificate the caller has checked), and returns once its statuses are committed.
    ///
    /// # Errors
    /// [`ReportError::NotLeader`] unless [`LeaderReports::lead`] runs; [`ReportError::Unavailable`] when it cannot commit.
    pub async fn report(&self, request: ReportRequest) -> Result<Accepted, ReportError> {
        let not_leader = || ReportError::NotLeader { leader_addr: String::new() };
        let reign = self.reign.lock().clone().ok_or_else(not_leader)?;
        let (mut refused, untold) = self.record(&reign, &request.sessions);
        let reports: Vec<Reported> = request.statuses.iter().filter_map(Reported::from_manager).collect();
        refused += u32::try_from(request.statuses.len() - reports.len()).unwrap_or(u32::MAX);
        if !reports.is_empty() {
            let (done, outcome) = oneshot::channel();
            reign.statuses.send(Waiting { reports, done }).await.map_err(|_| not_leader())?;
            refused += outcome.await.map_err(|_| not_leader())??;
        }
        Ok(Accepted { refused, untold })
    }

    /// Leads, until the returned future is dropped: run it from when this manager became the leader until it is none.
    /// `suspects` are the nodes that gossip's failure detector suspects. The store must take proposals in the term that this
    /// manager leads in, and in no later one: a leader that was replaced hears of no node any more, and its verdict that they are
    /// all down must not reach its successor.
    pub async fn lead(&self, store: Arc<dyn StoreClient>, suspects: watch::Receiver<BTreeSet<NodeId>>) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let reign = Reign { store, sessions: Arc::default(), heard: Arc::default(), statuses: sender };
        *self.reign.lock() = Some(reign.clone());
        let _abdicates = Abdicates(self);
        tokio::join!(self.write_statuses(&*reign.store, queue), self.judge_nodes(&reign, suspects));
    }

    /// Gives how many were refused, and whose description was not taken.
    fn record(&self, reign: &Reign, reports: &[SessionReport]) -> (u32, Vec<String>) {
        let snapshot = reign.store.local();
        let now = Instant::now();
        let (mut refused, mut untold) = (0, Vec::new());
        let mut sessions = reign.sessions.lock();
        for report in reports {
            // Only members are remembered, so that memory is bounded by the store.
            let Some(node) = report.node_id.parse().ok().filter(|id| snapshot.node(id).is_some()) else {
                refused += 1;
                continue;
            };
            let readable = (1..=DESCRIPTION_BYTES_MAX).contains(&report.description.len());
            let description: Option<NodeDescription> =
                readable.then(|| model::persisted::decode(&report.description).ok()).flatten();
            if !sessions.record(&node, report, description, now) {
                untold.push(report.node_id.clone());
            }
        }
        drop(sessions);
        if !reports.is_empty() {
            reign.heard.notify_one();
        }
        (refused, untold)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_unix(self.clock.unix_now())
    }

    // --- statuses ---

    /// Commits what is there, and meanwhile gathers what comes: at once when idle, in large batches under load.
    async fn write_statuses(&self, store: &dyn StoreClient, mut queue: mpsc::Receiver<Waiting>) {
        while let Some(first) = queue.recv().await {
            let mut reports = first.reports;
            let mut waiting = vec![first.done];
            while reports.len() < COMMIT_STATUSES_MAX {
                let Ok(next) = queue.try_recv() else { break };
                reports.extend(next.reports);
                waiting.push(next.done);
            }
            let outcome = self.commit(store, &reports).await;
            for done in waiting {
                let _nobody_waits_any_more = done.send(outcome.clone());
            }
        }
    }

    async fn commit(&self, store: &dyn StoreClient, reports: &[Reported]) -> Result<u32, ReportError> {
        let mut todo = vec![reports];
        let mut refused = 0;
        let mut conflicts = 0;
        while let Some(part) = todo.pop() {
            let (mut transaction, mut not_taken) = status::write(&store.local(), part, self.wall());
            if not_taken > 0 {
                // A leader that was replaced and does not know it yet does not know the newest tasks either. Nothing is
                // refused, and so forgotten by its agent, on its word alone.
                let current = store.current().await;
                let current = current.map_err(|e| ReportError::Unavailable { reason: e.to_string() })?;
                (transaction, not_taken) = status::write(&current, part, self.wall());
            }
            let outcome = if transaction.is_empty() { Ok(0) } else { store.propose(transaction).await };
            match outcome {
                Ok(_index) => refused += not_taken,
                Err(ProposeError::Conflict(_)) if conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    todo.push(part);
                }
                Err(ProposeError::TooLarge(_)) if part.len() > 1 => {
                    // Later ones go below: the order of two statuses of one task must stay.
                    let (early, late) = part.split_at(part.len() / 2);
                    todo.push(late);
                    todo.push(early);
                }
                Err(ProposeError::TooLarge(error)) => {
                    tracing::error!(task = %part[0].task, %error, "a task status does not fit the log and is dropped");
                    refused += 1;
                }
                Err(error) => return Err(ReportError::Unavailable { reason: error.to_string() }),
            }
        }
        Ok(refused)
    }

    // --- liveness ---

    async fn judge_nodes(&self, reign: &Reign, mut suspects: watch::Receiver<BTreeSet<NodeId>>) {
        let mut leader_since = Instant::now();
        let mut changes = reign.store.changes();
        let mut suspects_open = true;
        loop {
            let suspected = suspects.borrow_and_update().clone();
            let wake_at = self.judge_once(reign, &suspected, &mut leader_since).await;
            tokio::select! {
                biased;
                () = reign.heard.notified() => {}
                changed = suspects.changed(), if suspects_open => suspects_open = changed.is_ok(),
                // A node was added, or somebody else wrote its status.
                closed = node_changed(&mut changes) => if closed { return },
                () = tokio::time::sleep_until(wake_at) => {}
            }
            // Late by so much, this manager was stopped itself: what it slept through is nobody's silence.
            let overslept = Instant::now().saturating_duration_since(wake_at);
            if overslept > OVERSLEPT {
                tracing::warn!(?overslept, "this manager did nothing for a while; nodes get so much longer");
                leader_since += overslept;
                reign.sessions.lock().forgive(overslept);
            }
        }
    }

    async fn judge_once(&self, reign: &Reign, suspects: &BTreeSet<NodeId>, leader_since: &mut Instant) -> Instant {
        let snapshot = reign.store.local();
        let now = Instant::now();
        let judgement = {
            let mut sessions = reign.sessions.lock();
            sessions.retain_members(&snapshot);
            let world = World {
                sessions: &sessions,
                suspects,
                leader_since: *leader_since,
                now,
                wall: self.wall(),
                canary: self.canary,
            };
            judge(&snapshot, world)
        };
        if self.say(judgement.brake) && judgement.brake.is_none() {
            // They come back one after the other: those that are not here yet get as long as if they fell silent now.
            *leader_since = now;
            reign.sessions.lock().forgive(Duration::MAX);
            return now;
        }
        let latest = now + JUDGE_AT_LEAST;
        if judgement.transaction.is_empty() {
            return judgement.wake_at.map_or(latest, |at| at.min(latest));
        }
        let moved = moved_nodes(&snapshot, &judgement.transaction);
        match reign.store.propose(judgement.transaction).await {
            Ok(_) => {
                for node in moved {
                    tracing::info!(node = %node.id, state = ?node.status.state, message = node.status.message, "a node's state changed");
                }
                Instant::now()
            }
            Err(ProposeError::Conflict(_)) => Instant::now(),
            Err(error) => {
                tracing::debug!(%error, "node states could not be written");
                Instant::now() + RETRY
            }
        }
    }

    /// Says what is new about the brake; true when something is.
    fn say(&self, brake: Option<Brake>) -> bool {
        let changed = self.brake.send_if_modified(|old| std::mem::replace(old, brake).is_some() != brake.is_some());
        match brake {
            Some(Brake { silent, ready }) if changed => tracing::warn!(
                silent,
                ready,
                "more than half of the nodes fell silent at once: no node is put down until they return or stay away; \
                 look at this manager's network"
            ),
            None if changed => tracing::info!("enough of the nodes that fell silent are back, or down"),
            _ => {}
        }
        changed
    }
}

/// Waits for a change of a node or of the cluster; true when there will be no more.
async fn node_changed(changes: &mut store::Changes) -> bool {
    loop {
        match changes.next().await {
            store::Event::Closed => return true,
            store::Event::Resync => return false,
            store::Event::Commit(commit) => {
                let concerns =
                    |id: store::ObjectId| matches!(id, store::ObjectId::Node(_) | store::ObjectId::Cluster(_));
                if commit.deltas.iter().any(|d| concerns(d.id())) {
                    return false;
                }
            }
        }
    }
}

/// Ends a reign when it is dropped: reports are refused from then on, and whoever waits is told.
struct Abdicates<'a>(&'a LeaderReports);

impl Drop for Abdicates<'_> {
    fn drop(&mut self) {
        *self.0.reign.lock() = None;
        self.0.brake.send_replace(None);
    }
}

/// The nodes whose state a transaction changes, as they will be.
fn moved_nodes(snapshot: &Snapshot, transaction: &Transaction) -> Vec<Arc<Node>> {
    let put = transaction.changes.iter().filter_map(|change| match change {
        Change::Put(Object::Node(node)) => Some(node),
        _ => None,
    });
    let moved = put.filter(|n| snapshot.node(&n.id).is_some_and(|old| old.status.state != n.status.state));
    moved.cloned().collect()
}
