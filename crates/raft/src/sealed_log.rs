//! A log whose entries and records are sealed on their way to the disk. What lies below it (rows, checksums, fence) stays as it is:
//! it keeps other bytes, that is all.

use crate::error::OpenLogError;
use crate::log::{LogStore, Meta, Synced};
use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use seal::{KeyId, Keyring, OpenError, key_id_of};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Seals each entry with its index, and each record with its name, so that none opens in another one's place.
pub struct SealedLog {
    inner: Arc<dyn LogStore>,
    keyring: Arc<Keyring>,
    /// The last entry that may be sealed with each key.
    through: Mutex<BTreeMap<KeyId, u64>>,
    /// Whoever writes a record has it alone, so that sealing an old one anew never undoes a newer one.
    records: [tokio::sync::Mutex<()>; 3],
}

const RECORDS: [Meta; 3] = [Meta::Vote, Meta::Committed, Meta::Purged];
/// Bytes read at a time when the log is verified.
const VERIFY_BYTES: usize = 1 << 20;

// === impl SealedLog ===

impl SealedLog {
    /// Opens everything that is in `inner`, once: what was changed on the disk is found here, before the member votes.
    ///
    /// # Errors
    /// [`OpenLogError::Damaged`] when something does not open; `dir` is where the log lies, for the text.
    pub async fn open(inner: Arc<dyn LogStore>, keyring: Arc<Keyring>, dir: &Path) -> Result<SealedLog, OpenLogError> {
        let log = SealedLog { inner, keyring, through: Mutex::default(), records: Default::default() };
        match log.verify().await {
            Ok(()) => Ok(log),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                Err(OpenLogError::Damaged { dir: dir.to_owned(), reason: e.to_string() })
            }
            Err(source) => Err(OpenLogError::Io { dir: dir.to_owned(), source }),
        }
    }

    async fn verify(&self) -> io::Result<()> {
        for key in RECORDS {
            self.record(key).await?;
        }
        let Some((first, last)) = self.inner.bounds().await? else { return Ok(()) };
        let mut next = first;
        while next <= last {
            let rows = self.inner.read(next..last.saturating_add(1), VERIFY_BYTES).await?;
            if rows.is_empty() {
                return Err(damaged(format_args!("log entry {next} is missing")));
            }
            for row in rows {
                if let Some(key) = key_id_of(&row) {
                    self.through.lock().insert(key, next);
                }
                self.open_entry(next, row)?;
                next += 1;
            }
        }
        Ok(())
    }

    fn open_entry(&self, index: u64, row: Bytes) -> io::Result<Bytes> {
        self.keyring.open(&entry_context(index), row).map_err(|e| damaged(format_args!("log entry {index}: {e}")))
    }

    /// Opens a record; a purge mark comes with its index.
    async fn record(&self, key: Meta) -> io::Result<Option<(KeyId, Bytes)>> {
        let Some(row) = self.inner.read_meta(key).await? else { return Ok(None) };
        let told = |e: OpenError| damaged(format_args!("the record {key:?}: {e}"));
        let id = key_id_of(&row).ok_or_else(|| damaged(format_args!("the record {key:?} is not sealed")))?;
        self.keyring.open(record_context(key), row).map(|plain| Some((id, plain))).map_err(told)
    }

    fn seal_record(&self, key: Meta, plain: &[u8]) -> Bytes {
        self.keyring.seal(record_context(key), plain).1
    }

    fn seal_purged(&self, up_to: u64, purged: &[u8]) -> Bytes {
        self.seal_record(Meta::Purged, &[up_to.to_be_bytes().as_slice(), purged].concat())
    }

    /// The last entry that needs an older key than the current one; `None` when there is none. Once the log is purged up to there
    /// it needs none: every later entry is sealed with the current key, or with one that is newer still.
    pub fn older_through(&self) -> Option<u64> {
        let through = self.through.lock();
        let current = self.keyring.current();
        through.range(..current).map(|(_, index)| *index).max()
    }

    /// Seals the records anew that need an older key than the current one; durable when this returns.
    ///
    /// # Errors
    /// When the disk says no.
    pub async fn reseal_records(&self) -> io::Result<()> {
        for key in RECORDS {
            let _alone = self.records[key as usize].lock().await;
            let Some((id, mut plain)) = self.record(key).await? else { continue };
            // What was written lazily may be new here and old on the disk still.
            if id == self.keyring.current() && key != Meta::Committed {
                continue;
            }
            match key {
                Meta::Purged => {
                    let up_to = plain.try_get_u64().map_err(io::Error::other)?;
                    self.inner.purge(up_to, self.seal_purged(up_to, &plain)).await?;
                }
                Meta::Vote | Meta::Committed => self.inner.write_meta(key, self.seal_record(key, &plain)).await?,
            }
        }
        Ok(())
    }
}

fn damaged(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the Raft log is damaged: {what}"))
}

fn entry_context(index: u64) -> [u8; 18] {
    let mut context = *b"raft entry\0\0\0\0\0\0\0\0";
    context[10..].copy_from_slice(&index.to_be_bytes());
    context
}

fn record_context(key: Meta) -> &'static [u8] {
    match key {
        Meta::Vote => b"raft vote",
        Meta::Committed => b"raft committed",
        Meta::Purged => b"raft purged",
    }
}

#[async_trait]
impl LogStore for SealedLog {
    async fn bounds(&self) -> io::Result<Option<(u64, u64)>> {
        self.inner.bounds().await
    }

    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Bytes>> {
        let first = range.start;
        let rows = self.inner.read(range, bytes_max).await?;
        rows.into_iter().zip(first..).map(|(row, index)| self.open_entry(index, row)).collect()
    }

    async fn append(&self, first: u64, entries: Vec<Bytes>, synced: Synced) -> io::Result<()> {
        let rows = {
            // Taken note of before it can be on the disk; and who changes the key after this sees it.
            let mut through = self.through.lock();
            let seal = |(entry, index): (&Bytes, u64)| {
                let (key, row) = self.keyring.seal(&entry_context(index), entry);
                through.insert(key, index);
                row
            };
            entries.iter().zip(first..).map(seal).collect()
        };
        self.inner.append(first, rows, synced).await
    }

    async fn truncate(&self, from: u64) -> io::Result<()> {
        self.inner.truncate(from).await?;
        let mut through = self.through.lock();
        match from.checked_sub(1) {
            Some(last) => through.values_mut().for_each(|index| *index = last.min(*index)),
            None => through.clear(),
        }
        Ok(())
    }

    async fn purge(&self, up_to: u64, purged: Bytes) -> io::Result<()> {
        let _alone = self.records[Meta::Purged as usize].lock().await;
        self.inner.purge(up_to, self.seal_purged(up_to, &purged)).await?;
        self.through.lock().retain(|_, index| *index > up_to);
        Ok(())
    }

    async fn read_meta(&self, key: Meta) -> io::Result<Option<Bytes>> {
        let Some((_, mut plain)) = self.record(key).await? else { return Ok(None) };
        if key == Meta::Purged {
            plain.try_get_u64().map_err(io::Error::other)?;
        }
        Ok(Some(plain))
    }

    async fn write_meta(&self, key: Meta, value: Bytes) -> io::Result<()> {
        let _alone = self.records[key as usize].lock().await;
        self.inner.write_meta(key, self.seal_record(key, &value)).await
    }

    async fn write_meta_lazily(&self, key: Meta, value: Bytes) -> io::Result<()> {
        let _alone = self.records[key as usize].lock().await;
        self.inner.write_meta_lazily(key, self.seal_record(key, &value)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryLog, SledLog};
    use seal::KeyStore;
    use seams::real::{FileDisk, OsRand};
    use std::time::Duration;

    async fn append(log: &SealedLog, first: u64, entries: &[&'static [u8]]) {
        let (done, synced) = tokio::sync::oneshot::channel();
        let entries = entries.iter().map(|e| Bytes::from_static(e)).collect();
        log.append(first, entries, Box::new(move |r| drop(done.send(r)))).await.unwrap();
        synced.await.unwrap().unwrap();
    }

    async fn all(log: &SealedLog) -> Vec<Bytes> {
        let Some((first, last)) = log.bounds().await.unwrap() else { return Vec::new() };
        log.read(first..last + 1, usize::MAX).await.unwrap()
    }

    async fn keys(dir: &Path) -> Arc<KeyStore> {
        KeyStore::create(Arc::new(FileDisk), Arc::new(OsRand), dir.join("keys"), None, Duration::ZERO).await.unwrap()
    }

    async fn open(inner: &MemoryLog, keys: &KeyStore) -> Result<SealedLog, OpenLogError> {
        SealedLog::open(Arc::new(inner.clone()), keys.keyring(), Path::new("here")).await
    }

    #[tokio::test]
    async fn what_was_appended_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path()).await;
        let reopen = async || {
            let inner = Arc::new(SledLog::open(&dir.path().join("raft")).await.unwrap());
            SealedLog::open(inner, keys.keyring(), dir.path()).await.unwrap()
        };
        {
            let log = reopen().await;
            append(&log, 1, &[b"one", b"", b"three"]).await;
            log.write_meta(Meta::Vote, Bytes::from("vote")).await.unwrap();
            log.write_meta_lazily(Meta::Committed, Bytes::from("2")).await.unwrap();
            log.purge(1, Bytes::from("purged")).await.unwrap();
        }
        let log = reopen().await;
        assert_eq!(all(&log).await, [Bytes::new(), Bytes::from("three")]);
        for (key, value) in [(Meta::Vote, "vote"), (Meta::Committed, "2"), (Meta::Purged, "purged")] {
            assert_eq!(log.read_meta(key).await.unwrap().unwrap(), value, "{key:?}");
        }
    }

    #[tokio::test]
    async fn attack_25_nothing_below_the_seal_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let inner = MemoryLog::new();
        let log = open(&inner, &*keys(dir.path()).await).await.unwrap();
        append(&log, 1, &[b"a known marker"]).await;
        log.write_meta(Meta::Vote, Bytes::from("a known marker")).await.unwrap();
        log.purge(0, Bytes::from("a known marker")).await.unwrap();
        let mut below = inner.read(1..2, usize::MAX).await.unwrap();
        for key in [Meta::Vote, Meta::Purged] {
            below.push(inner.read_meta(key).await.unwrap().unwrap());
        }
        assert_eq!(below.len(), 3);
        for bytes in below {
            assert!(!bytes.windows(8).any(|w| w == b"a known "), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn attack_25_entries_and_records_open_only_in_their_own_place() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path()).await;
        let inner = MemoryLog::new();
        let log = open(&inner, &keys).await.unwrap();
        append(&log, 1, &[b"one", b"two"]).await;
        let rows = inner.read(1..3, usize::MAX).await.unwrap();

        let swapped = MemoryLog::new();
        swapped.append(1, vec![rows[1].clone(), rows[0].clone()], Box::new(|_| ())).await.unwrap();
        let said = open(&swapped, &keys).await.err().unwrap().to_string();
        assert!(said.contains("log entry 1: its seal is broken"), "{said}");

        log.write_meta(Meta::Vote, Bytes::from("vote")).await.unwrap();
        let vote = inner.read_meta(Meta::Vote).await.unwrap().unwrap();
        inner.write_meta(Meta::Committed, vote).await.unwrap();
        let said = open(&inner, &keys).await.err().unwrap().to_string();
        assert!(said.contains("the record Committed: its seal is broken") && said.contains("join again"), "{said}");

        let clear = MemoryLog::new();
        clear.append(1, vec![Bytes::from(vec![0x82; 100])], Box::new(|_| ())).await.unwrap();
        let said = open(&clear, &keys).await.err().unwrap().to_string();
        assert!(said.contains("not sealed in a form that this release reads"), "{said}");
    }

    /// The files as they are now, as they would be found after `kill -9`.
    #[allow(clippy::disallowed_methods)] // the files themselves, below everything
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            match entry.path().is_dir() {
                true => copy(&entry.path(), &to),
                false => _ = std::fs::copy(entry.path(), to).unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn a_record_that_was_written_lazily_under_the_new_key_does_not_hide_the_old_one_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path()).await;
        let (raft, found) = (dir.path().join("raft"), dir.path().join("found"));
        let log = SealedLog::open(Arc::new(SledLog::open(&raft).await.unwrap()), keys.keyring(), &raft).await.unwrap();
        append(&log, 1, &[b"one"]).await;
        log.write_meta(Meta::Vote, Bytes::from("vote")).await.unwrap();
        log.write_meta(Meta::Committed, Bytes::from("1")).await.unwrap();

        let new = keys.rotate(Duration::from_secs(5)).await.unwrap();
        log.write_meta(Meta::Vote, Bytes::from("vote")).await.unwrap();
        log.purge(1, Bytes::from("one")).await.unwrap();
        log.write_meta_lazily(Meta::Committed, Bytes::from("1")).await.unwrap();
        log.reseal_records().await.unwrap();
        assert_eq!(log.older_through(), None);
        keys.retire_older(new).await.unwrap();
        copy(&raft, &found);
        let inner = Arc::new(SledLog::open(&found).await.unwrap());
        let log = SealedLog::open(inner, keys.keyring(), &found).await.unwrap();
        assert_eq!(log.read_meta(Meta::Committed).await.unwrap().unwrap(), "1");
    }

    #[tokio::test]
    async fn an_older_key_is_needed_until_its_entries_are_purged() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path()).await;
        let inner = MemoryLog::new();
        let log = open(&inner, &keys).await.unwrap();
        append(&log, 1, &[b"1", b"2", b"3", b"4"]).await;
        log.write_meta(Meta::Vote, Bytes::from("vote")).await.unwrap();
        log.purge(1, Bytes::from("one")).await.unwrap();
        assert_eq!(log.older_through(), None);

        let new = keys.rotate(Duration::from_secs(5)).await.unwrap();
        assert_eq!(log.older_through(), Some(4));
        append(&log, 5, &[b"5"]).await;
        assert_eq!(log.older_through(), Some(4), "the new entry has the new key");
        log.truncate(4).await.unwrap();
        assert_eq!(log.older_through(), Some(3));
        append(&log, 4, &[b"four"]).await;
        // A restart in the middle knows the same.
        let log = open(&inner, &keys).await.unwrap();
        assert_eq!(log.older_through(), Some(3));

        log.reseal_records().await.unwrap();
        log.purge(3, Bytes::from("three")).await.unwrap();
        assert_eq!(log.older_through(), None);
        keys.retire_older(new).await.unwrap();
        let log = open(&inner, &keys).await.unwrap();
        assert_eq!(all(&log).await, [Bytes::from("four")]);
        assert_eq!(log.read_meta(Meta::Vote).await.unwrap().unwrap(), "vote");
        assert_eq!(log.read_meta(Meta::Purged).await.unwrap().unwrap(), "three");
    }
}
