//! The stream of changes: in log order, each commit once, or a plain word that some were missed.

use crate::{Object, ObjectId};
use model::Timestamp;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Commits that a slow reader may lag behind before it has to start over from a snapshot.
const BACKLOG_COMMITS: usize = 1024;

/// What one transaction changed.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its log index.
    pub index: u64,
    /// When it was proposed, by the clock of the manager that did: the same on every manager.
    pub at: Timestamp,
    /// Each change, in order.
    pub deltas: Vec<Delta>,
}

/// The change of one object: made (`before` is `None`), changed, or removed (`after` is `None`).
#[derive(Debug, Clone)]
pub struct Delta {
    /// The object before.
    pub before: Option<Object>,
    /// The object after.
    pub after: Option<Object>,
}

/// What a reader of the stream sees.
#[derive(Debug, Clone)]
pub enum Event {
    /// A commit; the next in order.
    Commit(Arc<Commit>),
    /// Some commits were missed (the reader was slow, or the state was replaced by a Raft snapshot): read a snapshot and go
    /// on from there.
    Resync,
    /// There will be no more.
    Closed,
}

/// A reader's end of the stream.
#[derive(Debug)]
pub struct Changes(broadcast::Receiver<Option<Arc<Commit>>>);

#[derive(Debug)]
pub(crate) struct Feed(broadcast::Sender<Option<Arc<Commit>>>);

// === impl Delta ===

impl Delta {
    /// Which object.
    pub fn id(&self) -> ObjectId {
        self.after.as_ref().or(self.before.as_ref()).map(Object::id).expect("a delta has a before or an after")
    }
}

// === impl Changes ===

impl Changes {
    /// The next event. Cancel-safe.
    pub async fn next(&mut self) -> Event {
        match self.0.recv().await {
            Ok(Some(commit)) => Event::Commit(commit),
            Ok(None) | Err(broadcast::error::RecvError::Lagged(_)) => Event::Resync,
            Err(broadcast::error::RecvError::Closed) => Event::Closed,
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.0.try_recv() {
            Ok(Some(commit)) => Some(Event::Commit(commit)),
            Ok(None) | Err(broadcast::error::TryRecvError::Lagged(_)) => Some(Event::Resync),
            Err(broadcast::error::TryRecvError::Closed) => Some(Event::Closed),
            Err(broadcast::error::TryRecvError::Empty) => None,
        }
    }
}

// === impl Feed ===

impl Feed {
    pub(crate) fn new() -> Feed {
        Feed(broadcast::channel(BACKLOG_COMMITS).0)
    }

    pub(crate) fn subscribe(&self) -> Changes {
        Changes(self.0.subscribe())
    }

    pub(crate) fn publish(&mut self, commit: Commit) {
        let _nobody_listens = self.0.send(Some(Arc::new(commit)));
    }

    pub(crate) fn reset(&mut self) {
        let _nobody_listens = self.0.send(None);
    }
}
