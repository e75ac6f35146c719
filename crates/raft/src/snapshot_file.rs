//! Snapshots as plain files: header and state, each with its checksum. Only the newest is ever read; as many older ones as are
//! wanted stay beside it as a safety copy.

use crate::types::{Snapshot, SnapshotMeta, decode, encode};
use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use seams::Disk;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"SWLSNAP1";
/// Magic, header length (u32), header checksum (u32), state length (u64), state checksum (u32); little endian.
const PREFIX_BYTES: usize = 8 + 4 + 4 + 8 + 4;

/// The directory of snapshot files.
#[derive(Clone)]
pub(crate) struct SnapshotFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Two writers (a snapshot that is built here, one that arrives from the leader) must not clean up each other's file.
    writing: Arc<tokio::sync::Mutex<()>>,
}

// === impl SnapshotFiles ===

impl SnapshotFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> SnapshotFiles {
        SnapshotFiles { disk, dir, writing: Arc::default() }
    }

    /// Writes a snapshot, then removes older ones until `keep_old` of them are left. One that is older than what is there is not
    /// written.
    pub(crate) async fn write<RT: AsyncRuntime>(
        &self,
        meta: &SnapshotMeta<RT>,
        state: &Bytes,
        keep_old: usize,
    ) -> io::Result<()> {
        let _one_at_a_time = self.writing.lock().await;
        let path = self.dir.join(file_name::<RT>(meta));
        self.remove_unfinished().await?;
        let files = self.files().await?;
        if files.last().is_some_and(|newest| *newest >= path) {
            return Ok(());
        }
        self.disk.write_atomic(&path, pack(&encode(meta)?, state), 0o600).await?;
        let surplus = files.len().saturating_sub(keep_old);
        for old in files.into_iter().take(surplus) {
            self.disk.remove(&old).await?;
        }
        Ok(())
    }

    /// How many snapshots there are beside the newest.
    pub(crate) async fn old(&self) -> io::Result<usize> {
        Ok(self.files().await?.len().saturating_sub(1))
    }

    /// The newest snapshot; an error when its file is damaged. An older one is never taken in its place: it lacks what the log has
    /// meanwhile let go of.
    pub(crate) async fn newest<RT: AsyncRuntime>(&self) -> io::Result<Option<Snapshot<RT>>> {
        let mut files = self.files().await?;
        let Some(path) = files.pop() else { return Ok(None) };
        let damaged = |reason: String| damaged(&path, &files, &reason);
        let read = self.disk.read(&path).await.map_err(|e| match e.kind() {
            // A sealed disk found its seal broken.
            io::ErrorKind::InvalidData => damaged(e.to_string()),
            _ => e,
        });
        let Some(bytes) = read? else { return Ok(None) };
        let (header, state) = unpack(bytes).map_err(damaged)?;
        let meta = decode("the snapshot's header", &header).map_err(|e| damaged(e.to_string()))?;
        Ok(Some(Snapshot::<RT> { meta, snapshot: state }))
    }

    /// What a crash or a full disk has left of a write: each has a name of its own, so that they would fill the disk one by one.
    async fn remove_unfinished(&self) -> io::Result<()> {
        for path in self.disk.list(&self.dir).await? {
            if path.extension().is_some_and(|e| e == "tmp") {
                self.disk.remove(&path).await?;
            }
        }
        Ok(())
    }

    /// Finished snapshot files, oldest first.
    async fn files(&self) -> io::Result<Vec<PathBuf>> {
        let is_snapshot = |p: &PathBuf| p.extension().is_some_and(|e| e == "snapshot");
        let mut files: Vec<PathBuf> = self.disk.list(&self.dir).await?.into_iter().filter(is_snapshot).collect();
        files.sort();
        Ok(files)
    }
}

fn damaged(path: &Path, old: &[PathBuf], reason: &str) -> io::Error {
    let mut text = format!(
        "the snapshot {} is damaged: {reason}. Remove this manager from the swarm on another one (node demote, node rm), delete its Raft directory and join again; if it is the only manager, restore the file from a backup",
        path.display()
    );
    if let Some(last) = old.last() {
        let (number, last) = (old.len(), last.display());
        text.push_str(&format!(
            ". What it kept of older ones ({number}, the last is {last}) lacks what was written since: such a one is gone back to only by hand, when there is no backup (the operator's guide says how, under Disks)"
        ));
    }
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Sorts by log index, then by term.
fn file_name<RT: AsyncRuntime>(meta: &SnapshotMeta<RT>) -> String {
    let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
    format!("{index:020}-{term:020}.snapshot")
}

fn pack(header: &[u8], state: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(PREFIX_BYTES + header.len() + state.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&u32::try_from(header.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(header).to_le_bytes());
    out.extend_from_slice(&(state.len() as u64).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(state).to_le_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(state);
    out.into()
}

fn unpack(bytes: Bytes) -> Result<(Bytes, Bytes), String> {
    let prefix = bytes.get(..PREFIX_BYTES).ok_or("it is cut off")?;
    let u32_at = |at: usize| prefix[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or_default();
    if &prefix[..8] != MAGIC {
        return Err("it is no snapshot of a format that this release reads".into());
    }
    let (header_len, header_crc, state_crc) = (u32_at(8) as usize, u32_at(12), u32_at(24));
    let state_len = prefix[16..24].try_into().map(u64::from_le_bytes).unwrap_or_default();
    let rest = bytes.slice(PREFIX_BYTES..);
    if rest.len() as u64 != state_len.saturating_add(header_len as u64) {
        return Err(format!("it has {} bytes after the prefix, not {header_len} + {state_len}", rest.len()));
    }
    let (header, state) = (rest.slice(..header_len), rest.slice(header_len..));
    match (crc32c::crc32c(&header) == header_crc, crc32c::crc32c(&state) == state_crc) {
        (true, true) => Ok((header, state)),
        (false, _) => Err("the checksum of its header is wrong".into()),
        (_, false) => Err("the checksum of its state is wrong".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft_rt_tokio::TokioRuntime;
    use seams::real::FileDisk;

    #[tokio::test]
    async fn what_a_crash_left_of_a_snapshot_goes_with_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::new(Arc::new(FileDisk), dir.path().to_owned());
        let meta = SnapshotMeta::<TokioRuntime>::default();
        let left = dir.path().join("00000000000000000007-00000000000000000001.snapshot.tmp");
        FileDisk.write_atomic(&left, Bytes::from("half of one"), 0o600).await.unwrap();
        files.write::<TokioRuntime>(&meta, &Bytes::from("state"), 0).await.unwrap();
        let there = FileDisk.list(dir.path()).await.unwrap();
        assert_eq!(there, [dir.path().join(file_name::<TokioRuntime>(&meta))]);
    }

    fn meta(index: u64) -> SnapshotMeta<TokioRuntime> {
        let leader = openraft::alias::CommittedLeaderIdOf::<crate::types::TypeConfig<TokioRuntime>>::new(1);
        let last_log_id = Some(crate::types::LogId::<TokioRuntime>::new(leader, index));
        SnapshotMeta::<TokioRuntime> { last_log_id, ..Default::default() }
    }

    #[tokio::test]
    async fn as_many_old_snapshots_as_are_wanted_stay_beside_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::new(Arc::new(FileDisk), dir.path().to_owned());
        for (index, keep_old, left) in [
            (1, 0, vec![1]),
            (2, 2, vec![1, 2]),
            (3, 2, vec![1, 2, 3]),
            (4, 2, vec![2, 3, 4]),
            // One that comes late is older than what is there.
            (3, 0, vec![2, 3, 4]),
            // The surplus goes with the next one.
            (5, 1, vec![4, 5]),
            (6, 0, vec![6]),
        ] {
            files.write::<TokioRuntime>(&meta(index), &Bytes::from("state"), keep_old).await.unwrap();
            let expected: Vec<PathBuf> =
                left.iter().map(|i| dir.path().join(file_name::<TokioRuntime>(&meta(*i)))).collect();
            assert_eq!(files.files().await.unwrap(), expected, "after {index}");
            assert_eq!(files.old().await.unwrap(), left.len() - 1);
        }
    }

    #[tokio::test]
    async fn an_old_snapshot_never_stands_in_for_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::new(Arc::new(FileDisk), dir.path().to_owned());
        for index in 1..=3 {
            files.write::<TokioRuntime>(&meta(index), &Bytes::from("state"), 9).await.unwrap();
        }
        let path = |index| dir.path().join(file_name::<TokioRuntime>(&meta(index)));
        FileDisk.write_atomic(&path(3), Bytes::from("noise"), 0o600).await.unwrap();
        let error = files.newest::<TokioRuntime>().await.unwrap_err().to_string();
        let old = format!("older ones (2, the last is {})", path(2).display());
        assert!(error.contains("is damaged: it is cut off") && error.contains(&old), "{error}");
    }

    #[test]
    fn what_is_packed_is_unpacked_and_every_flipped_byte_is_found() {
        let packed = pack(b"header", b"the state");
        assert_eq!(unpack(packed.clone()).unwrap(), (Bytes::from("header"), Bytes::from("the state")));
        for at in 0..packed.len() {
            let mut bad = packed.to_vec();
            bad[at] ^= 0x40;
            assert!(unpack(bad.into()).is_err(), "byte {at}");
            assert!(unpack(packed.slice(..at)).is_err(), "cut at {at}");
        }
    }
}
