//! openraft's own storage suite, on every store.

use crate::log::{Log, LogStore};
use crate::machine::{Machine, SnapshotFn, StateMachine};
use crate::peer::Book;
use crate::snapshot_file::SnapshotFiles;
use crate::types::TypeConfig;
use crate::{ApplyError, MemoryLog, SealedLog, SledLog};
use bytes::Bytes;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft_rt_tokio::TokioRuntime;
use std::sync::Arc;
use tempfile::TempDir;

type C = TypeConfig<TokioRuntime>;

/// Ignores what it is told: the suite looks at the log and at the adapter.
struct Nothing;

/// Opens a store, and puts openraft's storage on it.
struct Builder<F>(F, fn(Arc<dyn LogStore>) -> Log<TokioRuntime>);

impl StateMachine for Nothing {
    fn apply(&self, _: u64, _: &[u8]) -> Result<Bytes, ApplyError> {
        Ok(Bytes::new())
    }
    fn advance(&self, _: u64) {}
    fn snapshot(&self) -> SnapshotFn {
        Box::new(Vec::new)
    }
    fn restore(&self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

impl<F, Fut> StoreBuilder<C, Log<TokioRuntime>, Machine<TokioRuntime>, TempDir> for Builder<F>
where
    F: Fn(std::path::PathBuf) -> Fut + Send + Sync,
    Fut: Future<Output = Arc<dyn LogStore>> + Send,
{
    async fn build(&self) -> Result<(TempDir, Log<TokioRuntime>, Machine<TokioRuntime>), StorageError<C>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = (self.0)(dir.path().join("raft")).await;
        let files = SnapshotFiles::new(Arc::new(seams::real::FileDisk), dir.path().join("snapshots"));
        Ok((dir, (self.1)(log), Machine::new(Arc::new(Nothing), files, Book::default())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_on_sled() {
    let open = |dir: std::path::PathBuf| async move {
        Arc::new(SledLog::open(&dir).await.expect("a fresh log opens")) as Arc<dyn LogStore>
    };
    Suite::test_all(Builder(open, Log::forgetful)).await.expect("openraft's storage suite");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_in_memory() {
    let open = |_| async { Arc::new(MemoryLog::new()) as Arc<dyn LogStore> };
    Suite::test_all(Builder(open, Log::new)).await.expect("openraft's storage suite");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_sealed() {
    let open = |_| async {
        let keyring = seal::Keyring::ephemeral(Arc::new(seams::real::OsRand));
        let log = SealedLog::open(Arc::new(MemoryLog::new()), keyring, std::path::Path::new("memory")).await;
        Arc::new(log.expect("a fresh log opens")) as Arc<dyn LogStore>
    };
    Suite::test_all(Builder(open, Log::forgetful)).await.expect("openraft's storage suite");
}
