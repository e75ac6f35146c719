//! From a manager to the leader: statuses and sessions, each gathered while the report before is under way.

use crate::sessions::Sessions;
use crate::status::Reported;
use crate::{CUT_OFF_PERIODS, GRACE_PERIODS, Leader, ReportError, STATUS_PATIENCE, STATUSES_PENDING_MAX};
use parking_lot::Mutex;
use rpc::proto::cluster::ReportRequest;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::Status;

/// One report at most takes so long; then it is sent again.
const REPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(100);
/// Statuses in one report: some hundred bytes each, far below the gRPC limit.
const REPORT_STATUSES_MAX: usize = 2_000;
/// Bytes of statuses in one report.
const REPORT_BYTES_MAX: usize = model::limits::RPC_MESSAGE_BYTES_MAX / 2;
/// Requests of agents that wait.
const QUEUE: usize = 4_096;

/// The agents' side of the status queue.
#[derive(Clone)]
pub(crate) struct StatusQueue {
    sender: mpsc::Sender<Waiting>,
    pending: Arc<AtomicUsize>,
}

struct Waiting {
    reports: Vec<Reported>,
    deadline: Instant,
    done: oneshot::Sender<Result<(), ReportError>>,
}

// === impl StatusQueue ===

impl StatusQueue {
    /// A queue, and the loop that empties it.
    pub(crate) fn new(leader: Arc<dyn Leader>) -> (StatusQueue, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let pending = Arc::new(AtomicUsize::new(0));
        let queue = StatusQueue { sender, pending: pending.clone() };
        (queue, send_statuses(leader, receiver, pending))
    }

    /// Hands statuses to the leader; returns once they are committed.
    pub(crate) async fn commit(&self, reports: Vec<Reported>) -> Result<(), Status> {
        let full = || {
            Status::resource_exhausted(format!("{STATUSES_PENDING_MAX} task statuses wait for the leader; try again"))
        };
        if self.pending.load(Ordering::Relaxed) + reports.len() > STATUSES_PENDING_MAX {
            return Err(full());
        }
        let (done, outcome) = oneshot::channel();
        self.pending.fetch_add(reports.len(), Ordering::Relaxed);
        let waiting = Waiting { deadline: Instant::now() + STATUS_PATIENCE, done, reports };
        if let Err(error) = self.sender.try_send(waiting) {
            self.pending.fetch_sub(error.into_inner().reports.len(), Ordering::Relaxed);
            return Err(full());
        }
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
            Err(_stopped) => Err(Status::unavailable("this manager is stopping")),
        }
    }
}

async fn send_statuses(leader: Arc<dyn Leader>, mut queue: mpsc::Receiver<Waiting>, pending: Arc<AtomicUsize>) {
    let mut held = None;
    loop {
        let first = match held.take() {
            Some(waiting) => waiting,
            None => match queue.recv().await {
                Some(waiting) => waiting,
                None => return,
            },
        };
        let mut statuses: Vec<_> = first.reports.iter().map(Reported::to_report).collect();
        let mut bytes: usize = statuses.iter().map(|s| s.status.len()).sum();
        let mut batch = vec![first];
        while statuses.len() < REPORT_STATUSES_MAX && bytes < REPORT_BYTES_MAX {
            let Ok(next) = queue.try_recv() else { break };
            let more: Vec<_> = next.reports.iter().map(Reported::to_report).collect();
            let more_bytes: usize = more.iter().map(|s| s.status.len()).sum();
            if bytes + more_bytes > REPORT_BYTES_MAX {
                held = Some(next);
                break;
            }
            bytes += more_bytes;
            statuses.extend(more);
            batch.push(next);
        }
        let outcome = send(&*leader, ReportRequest { statuses, sessions: Vec::new() }, batch[0].deadline).await;
        for waiting in batch {
            pending.fetch_sub(waiting.reports.len(), Ordering::Relaxed);
            let _nobody_waits_any_more = waiting.done.send(outcome.clone());
        }
    }
}

/// Sends until it is taken or the deadline has passed.
async fn send(leader: &dyn Leader, request: ReportRequest, deadline: Instant) -> Result<(), ReportError> {
    loop {
        let outcome = tokio::time::timeout(REPORT_TIMEOUT, leader.report(request.clone())).await;
        let error = match outcome {
            Ok(Ok(_accepted)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_elapsed) => ReportError::Unavailable { reason: format!("no answer within {REPORT_TIMEOUT:?}") },
        };
        if Instant::now() + RETRY >= deadline {
            return Err(error);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Tells the leader of the sessions: at once when somebody came, left or changed, of heartbeats four times a period. When
/// another leader took over it is told everything. While it cannot be reached for long, agents are sent elsewhere, and an
/// empty report asks whether it is back; when it will not hear this manager, they are sent elsewhere at once.
pub(crate) async fn send_sessions(
    leader: Arc<dyn Leader>,
    sessions: Arc<Mutex<Sessions>>,
    news: Arc<Notify>,
    mut term: watch::Receiver<u64>,
    period: impl Fn() -> Duration + Send,
) {
    let mut term_open = true;
    let mut reached = Instant::now();
    let mut denied = false;
    loop {
        let every = period() / 4;
        tokio::select! {
            biased;
            changed = term.changed(), if term_open => {
                term_open = changed.is_ok();
                sessions.lock().forget_told();
            }
            () = news.notified() => {}
            () = tokio::time::sleep(every) => {}
        }
        let told = sessions.lock().report(Instant::now(), period() * GRACE_PERIODS);
        let in_vain = reached.elapsed();
        if denied || in_vain >= period() * CUT_OFF_PERIODS {
            sessions.lock().cut_off();
        } else if told.reports.is_empty() {
            reached = Instant::now();
            continue;
        }
        let request = ReportRequest { statuses: Vec::new(), sessions: told.reports.clone() };
        match tokio::time::timeout(REPORT_TIMEOUT, leader.report(request)).await {
            Ok(Ok(accepted)) => {
                reached = Instant::now();
                denied = false;
                let mut sessions = sessions.lock();
                sessions.reconnected();
                sessions.told(&told, &accepted.untold);
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the leader was not told of the sessions");
                if matches!(error, ReportError::Denied { .. }) {
                    denied = true;
                    sessions.lock().cut_off();
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(_elapsed) => tracing::debug!("the leader did not answer a session report"),
        }
    }
}
