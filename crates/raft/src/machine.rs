//! What commands are applied to, and openraft's state machine on top of it.

use crate::error::ApplyError;
use crate::peer::Book;
use crate::snapshot_file::SnapshotFiles;
use crate::types::{LogId, Response, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use openraft_rt::AsyncRuntime;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// Encodes a state that was captured earlier.
pub type SnapshotFn = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// What committed commands are applied to, in the order of the log, one at a time. It starts empty; a restart restores the
/// last snapshot and applies the entries after it again.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies the command of a log entry and gives the proposer's answer. It must be deterministic. A rejected command is an
    /// answer, not an error: an error stops this member.
    fn apply(&self, index: u64, command: &[u8]) -> Result<Bytes, ApplyError>;
    /// The log went past an entry without a command (a new leader's first entry, a change of membership).
    fn advance(&self, index: u64);
    /// Captures the state now, cheaply; the closure encodes it later, on another task.
    fn snapshot(&self) -> SnapshotFn;
    /// Replaces the state by an encoded one. On an error nothing is changed; the text says why.
    fn restore(&self, bytes: &[u8]) -> Result<(), String>;
    /// How many snapshots are kept beside the newest, as the state has it.
    fn old_snapshots_kept(&self) -> usize {
        0
    }
}

/// openraft's state machine: ours, its position in the log, and the snapshot files.
pub(crate) struct Machine<RT: AsyncRuntime> {
    machine: Arc<dyn StateMachine>,
    files: SnapshotFiles,
    /// Kept up to date with every membership.
    book: Book,
    applied: Option<LogId<RT>>,
    membership: StoredMembership<RT>,
}

/// A captured state on its way to a file.
pub(crate) struct Builder<RT: AsyncRuntime> {
    meta: SnapshotMeta<RT>,
    /// In a lock only because openraft wants to share the builder.
    encode: Mutex<Option<SnapshotFn>>,
    files: SnapshotFiles,
    keep_old: usize,
}

// === impl Machine ===

impl<RT: AsyncRuntime> Machine<RT> {
    pub(crate) fn new(machine: Arc<dyn StateMachine>, files: SnapshotFiles, book: Book) -> Machine<RT> {
        Machine { machine, files, book, applied: None, membership: StoredMembership::<RT>::default() }
    }

    fn apply_one(&mut self, (entry, responder): EntryResponder<TypeConfig<RT>>) -> io::Result<()> {
        let index = entry.log_id.index;
        let response = match entry.payload {
            EntryPayload::Normal(command) => self.machine.apply(index, &command.0).map_err(|e| {
                tracing::error!(index, error = %e, "Raft stops");
                io::Error::other(e)
            })?,
            EntryPayload::Membership(membership) => {
                self.book.note_all(membership.nodes());
                self.membership = StoredMembership::<RT>::new(Some(entry.log_id), membership);
                self.machine.advance(index);
                Bytes::new()
            }
            EntryPayload::Blank => {
                self.machine.advance(index);
                Bytes::new()
            }
        };
        self.applied = Some(entry.log_id);
        if let Some(responder) = responder {
            responder.send(Response(response));
        }
        Ok(())
    }
}

impl<RT: AsyncRuntime> RaftStateMachine<TypeConfig<RT>> for Machine<RT> {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder<RT>;

    async fn applied_state(&mut self) -> Result<(Option<LogId<RT>>, StoredMembership<RT>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig<RT>>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            self.apply_one(entry?)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<RT> {
        Builder {
            meta: SnapshotMeta::<RT> { last_log_id: self.applied, last_membership: self.membership.clone() },
            encode: Mutex::new(Some(self.machine.snapshot())),
            files: self.files.clone(),
            keep_old: self.machine.old_snapshots_kept(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta<RT>, snapshot: Bytes) -> Result<(), io::Error> {
        // On the disk first: what is applied must not be newer than what a restart finds.
        self.files.write::<RT>(meta, &snapshot, self.machine.old_snapshots_kept()).await?;
        self.machine.restore(&snapshot).map_err(|reason| {
            let at = meta.last_log_id.map_or(0, |id| id.index);
            io::Error::other(format!("cannot restore the snapshot at log index {at}: {reason}"))
        })?;
        self.book.note_all(meta.last_membership.nodes());
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<RT>>, io::Error> {
        self.files.newest::<RT>().await
    }
}

// === impl Builder ===

impl<RT: AsyncRuntime> RaftSnapshotBuilder<TypeConfig<RT>> for Builder<RT> {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot<RT>, io::Error> {
        let encode = self.encode.get_mut().take();
        let encode = encode.ok_or_else(|| io::Error::other("a captured state is encoded once"))?;
        let bytes = Bytes::from(encode());
        self.files.write::<RT>(&self.meta, &bytes, self.keep_old).await?;
        tracing::debug!(bytes = bytes.len(), last = ?self.meta.last_log_id, "snapshot written");
        Ok(Snapshot::<RT> { meta: self.meta.clone(), snapshot: bytes })
    }
}
