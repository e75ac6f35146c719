//! The newest entries of the log, as they were appended. Every entry is read back at once: by the state machine, and for each
//! follower; without this each of them would look it up, open its seal and decode it anew.

use crate::types::Entry;
use openraft_rt::AsyncRuntime;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Encoded bytes of the entries that are kept: a follower that is further behind is served from the disk.
const BYTES_MAX: usize = 2 << 20;
/// Entries that are kept: small ones cost more in memory than their bytes.
const ENTRIES_MAX: usize = 1024;

/// The end of the log. Consecutive, up to the last entry; or empty.
pub(crate) struct Recent<RT: AsyncRuntime>(Arc<Mutex<Kept<RT>>>);

struct Kept<RT: AsyncRuntime> {
    entries_max: usize,
    /// Each with its encoded size.
    entries: VecDeque<(Entry<RT>, usize)>,
    bytes: usize,
}

// === impl Recent ===

impl<RT: AsyncRuntime> Clone for Recent<RT> {
    fn clone(&self) -> Self {
        Recent(self.0.clone())
    }
}

impl<RT: AsyncRuntime> Recent<RT> {
    pub(crate) fn new() -> Recent<RT> {
        Recent::of_at_most(ENTRIES_MAX)
    }

    /// With room for so many entries; with none, everything is read from the disk.
    pub(crate) fn of_at_most(entries_max: usize) -> Recent<RT> {
        Recent(Arc::new(Mutex::new(Kept { entries_max, entries: VecDeque::new(), bytes: 0 })))
    }

    /// Takes note of entries that are being appended, each with its encoded size.
    pub(crate) fn append(&self, entries: impl IntoIterator<Item = (Entry<RT>, usize)>) {
        let mut kept = self.0.lock();
        for (entry, bytes) in entries {
            if kept.entries.back().is_some_and(|(last, _)| last.log_id.index + 1 != entry.log_id.index) {
                kept.clear();
            }
            kept.bytes += bytes;
            kept.entries.push_back((entry, bytes));
            while kept.bytes > BYTES_MAX || kept.entries.len() > kept.entries_max {
                kept.drop_first();
            }
        }
    }

    /// Forgets all: nobody knows any more what the log ends with.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Forgets the entries from an index on.
    pub(crate) fn truncate(&self, from: u64) {
        let mut kept = self.0.lock();
        while kept.entries.back().is_some_and(|(last, _)| last.log_id.index >= from) {
            let dropped = kept.entries.pop_back().map_or(0, |(_, bytes)| bytes);
            kept.bytes -= dropped;
        }
    }

    /// Forgets the entries up to and including an index.
    pub(crate) fn purge(&self, up_to: u64) {
        let mut kept = self.0.lock();
        while kept.entries.front().is_some_and(|(first, _)| first.log_id.index <= up_to) {
            kept.drop_first();
        }
    }

    /// The entries of a range as the log would give them: up to where it ends or `bytes_max` is passed, but at least one. `None`
    /// when the range does not begin here.
    pub(crate) fn read(&self, range: &Range<u64>, bytes_max: usize) -> Option<Vec<Entry<RT>>> {
        let kept = self.0.lock();
        let first = kept.entries.front()?.0.log_id.index;
        let skip = usize::try_from(range.start.checked_sub(first)?).ok()?;
        if skip >= kept.entries.len() {
            return None;
        }
        let mut found = Vec::new();
        let mut total = 0_usize;
        for (entry, bytes) in kept.entries.iter().skip(skip).take_while(|(e, _)| e.log_id.index < range.end) {
            total = total.saturating_add(*bytes);
            if total > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Some(found)
    }
}

// === impl Kept ===

impl<RT: AsyncRuntime> Kept<RT> {
    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn drop_first(&mut self) {
        let dropped = self.entries.pop_front().map_or(0, |(_, bytes)| bytes);
        self.bytes -= dropped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryLog;
    use crate::log::Log;
    use crate::types::{Command, LeaderId, LogId};
    use bytes::Bytes;
    use openraft::RaftLogReader as _;
    use openraft::entry::RaftEntry as _;
    use openraft::storage::{IOFlushed, RaftLogStorage as _};
    use openraft::vote::RaftLeaderIdExt as _;
    use openraft_rt_tokio::TokioRuntime;
    use proptest::prelude::*;

    type Rt = TokioRuntime;

    #[derive(Debug, Clone)]
    enum Op {
        /// So many entries of so many bytes.
        Append(u64, usize),
        /// So many off the end.
        Truncate(u64),
        /// So many off the beginning.
        Purge(u64),
        /// From so far behind the end, so many.
        Read(u64, u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => (1..40_u64, 0..60_000_usize).prop_map(|(n, bytes)| Op::Append(n, bytes)),
            1 => (0..50_u64).prop_map(Op::Truncate),
            1 => (0..50_u64).prop_map(Op::Purge),
            6 => (0..90_u64, 0..90_u64).prop_map(|(behind, n)| Op::Read(behind, n)),
        ];
        prop::collection::vec(op, 1..40)
    }

    fn log_id(index: u64) -> LogId<Rt> {
        LogId::<Rt>::new(LeaderId::new_committed(1, 1), index)
    }

    fn entry(index: u64, bytes: usize) -> Entry<Rt> {
        Entry::<Rt>::new_normal(log_id(index), Command(Bytes::from(vec![index as u8; bytes])))
    }

    fn shown(entries: Vec<Entry<Rt>>) -> Vec<(u64, String)> {
        entries.into_iter().map(|e| (e.log_id.index, format!("{:?}", e.payload))).collect()
    }

    async fn same_with_and_without(ops: Vec<Op>) {
        let store = || Arc::new(MemoryLog::new());
        let (mut with, mut without) = (Log::<Rt>::new(store()), Log::<Rt>::forgetful(store()));
        let (mut first, mut end) = (1_u64, 1_u64);
        for op in ops {
            for log in [&mut with, &mut without] {
                match op {
                    Op::Append(n, bytes) => {
                        let entries = (end..end + n).map(|index| entry(index, bytes));
                        log.append(entries, IOFlushed::noop()).await.unwrap();
                    }
                    Op::Truncate(n) => {
                        let last = end.saturating_sub(n + 1).max(first - 1);
                        log.truncate_after((last > 0).then(|| log_id(last))).await.unwrap();
                    }
                    Op::Purge(n) if end > first => log.purge(log_id((first + n).min(end - 1))).await.unwrap(),
                    Op::Purge(_) | Op::Read(..) => {}
                }
            }
            match op {
                Op::Append(n, _) => end += n,
                Op::Truncate(n) => end = end.saturating_sub(n).max(first),
                Op::Purge(n) if end > first => first = (first + n).min(end - 1) + 1,
                Op::Purge(_) => {}
                Op::Read(behind, n) => {
                    let from = end.saturating_sub(behind).max(first);
                    let to = (from + n).min(end);
                    let limited = with.limited_get_log_entries(from, to).await.unwrap();
                    assert_eq!(shown(limited), shown(without.limited_get_log_entries(from, to).await.unwrap()));
                    let all = with.try_get_log_entries(from..to).await.unwrap();
                    assert_eq!(shown(all), shown(without.try_get_log_entries(from..to).await.unwrap()));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_read_is_the_same_with_and_without(ops in ops()) {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(same_with_and_without(ops));
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let recent = Recent::<Rt>::new();
        recent.append((1..=5_000).map(|index| (entry(index, 1), 100)));
        assert_eq!(recent.0.lock().entries.len(), ENTRIES_MAX);
        recent.append((5_001..=5_010).map(|index| (entry(index, 1), BYTES_MAX / 4)));
        assert_eq!(recent.0.lock().bytes, BYTES_MAX / 4 * 4);
        assert_eq!(shown(recent.read(&(5_010..5_011), usize::MAX).unwrap()).len(), 1);
        assert!(recent.read(&(5_000..5_011), usize::MAX).is_none(), "they begin before what is kept");
        assert!(recent.read(&(5_011..5_012), usize::MAX).is_none(), "they are not there yet");
    }
}
