//! A log in memory, for tests.

use crate::log::{LogStore, Meta, Synced};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A log that lives as long as its clones do, and calls everything durable at once: a "restart" in a test hands a clone to
/// the next member.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<u64, Bytes>,
    meta: BTreeMap<Meta, Bytes>,
}

// === impl MemoryLog ===

impl MemoryLog {
    /// An empty log.
    pub fn new() -> MemoryLog {
        MemoryLog::default()
    }
}

#[async_trait]
impl LogStore for MemoryLog {
    async fn bounds(&self) -> io::Result<Option<(u64, u64)>> {
        let state = self.state.lock();
        let first = state.entries.first_key_value().map(|(i, _)| *i);
        let last = state.entries.last_key_value().map(|(i, _)| *i);
        Ok(first.zip(last))
    }

    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Bytes>> {
        let state = self.state.lock();
        let mut bytes = 0_usize;
        let mut out = Vec::new();
        for (expected, (index, entry)) in (range.start..).zip(state.entries.range(range)) {
            bytes = bytes.saturating_add(entry.len());
            if *index != expected || (bytes > bytes_max && !out.is_empty()) {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    async fn append(&self, first: u64, entries: Vec<Bytes>, synced: Synced) -> io::Result<()> {
        self.state.lock().entries.extend((first..).zip(entries));
        synced(Ok(()));
        Ok(())
    }

    async fn truncate(&self, from: u64) -> io::Result<()> {
        self.state.lock().entries.split_off(&from);
        Ok(())
    }

    async fn purge(&self, up_to: u64, purged: Bytes) -> io::Result<()> {
        let mut state = self.state.lock();
        state.meta.insert(Meta::Purged, purged);
        state.entries = state.entries.split_off(&up_to.saturating_add(1));
        Ok(())
    }

    async fn read_meta(&self, key: Meta) -> io::Result<Option<Bytes>> {
        Ok(self.state.lock().meta.get(&key).cloned())
    }

    async fn write_meta(&self, key: Meta, value: Bytes) -> io::Result<()> {
        self.state.lock().meta.insert(key, value);
        Ok(())
    }

    async fn write_meta_lazily(&self, key: Meta, value: Bytes) -> io::Result<()> {
        self.write_meta(key, value).await
    }
}
