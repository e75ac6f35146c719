//! What a model disk holds of a Raft log: the same in both layers, whatever the disk's manners are.

use bytes::Bytes;
use raft::Meta;
use std::collections::BTreeMap;
use std::ops::Range;

/// The entries and records of one log, either as a reader sees them or as they would survive a crash.
#[derive(Debug, Default, Clone)]
pub(crate) struct Content {
    entries: BTreeMap<u64, Bytes>,
    meta: BTreeMap<Meta, Bytes>,
}

/// One change of a log.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Entries from an index on.
    Append(u64, Vec<Bytes>),
    /// Everything from an index on is gone.
    Truncate(u64),
    /// Everything up to an index is gone; the mark says so.
    Purge(u64, Bytes),
    /// A record is replaced.
    Record(Meta, Bytes),
}

// === impl Content ===

impl Content {
    /// Changes it. An append behind a gap is a bug of whoever appends, and ends the run.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Append(first, entries) => {
                if let Some(last) = self.last() {
                    assert!(*first <= last + 1, "append at {first} after {last}");
                }
                self.entries.extend((*first..).zip(entries.iter().cloned()));
            }
            Change::Truncate(from) => drop(self.entries.split_off(from)),
            Change::Purge(up_to, mark) => {
                self.meta.insert(Meta::Purged, mark.clone());
                self.entries = self.entries.split_off(&up_to.saturating_add(1));
            }
            Change::Record(key, value) => drop(self.meta.insert(*key, value.clone())),
        }
    }

    /// The last index.
    pub(crate) fn last(&self) -> Option<u64> {
        self.entries.last_key_value().map(|(index, _)| *index)
    }

    /// The first and the last index.
    pub(crate) fn bounds(&self) -> Option<(u64, u64)> {
        self.entries.first_key_value().map(|(index, _)| *index).zip(self.last())
    }

    /// Entries up to the first gap or until there are enough bytes; at least one, if there is one.
    pub(crate) fn read(&self, range: Range<u64>, bytes_max: usize) -> Vec<Bytes> {
        let mut bytes = 0_usize;
        let mut out = Vec::new();
        for (expected, (index, entry)) in (range.start..).zip(self.entries.range(range)) {
            bytes = bytes.saturating_add(entry.len());
            if *index != expected || (bytes > bytes_max && !out.is_empty()) {
                break;
            }
            out.push(entry.clone());
        }
        out
    }

    /// A record.
    pub(crate) fn meta(&self, key: Meta) -> Option<Bytes> {
        self.meta.get(&key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: Range<u64>) -> Content {
        let mut content = Content::default();
        content.apply(&Change::Append(entries.start, entries.map(|i| Bytes::from(i.to_string())).collect()));
        content
    }

    #[test]
    fn a_log_is_cut_at_both_ends_and_read_in_between() {
        let mut content = of(1..11);
        content.apply(&Change::Truncate(9));
        content.apply(&Change::Purge(2, Bytes::from("mark")));
        assert_eq!(content.bounds(), Some((3, 8)));
        assert_eq!(content.meta(Meta::Purged), Some(Bytes::from("mark")));
        assert_eq!(content.read(3..6, usize::MAX), ["3", "4", "5"].map(Bytes::from));
        assert_eq!(content.read(3..6, 0), [Bytes::from("3")], "one is always given");
        assert_eq!(content.read(1..6, usize::MAX), Vec::<Bytes>::new(), "a gap ends it");
        content.apply(&Change::Purge(8, Bytes::from("mark")));
        content.apply(&Change::Append(20, vec![Bytes::from("20")]));
        assert_eq!(content.bounds(), Some((20, 20)), "after a snapshot the log begins anywhere");
    }

    #[test]
    #[should_panic(expected = "append at 7 after 5")]
    fn an_append_that_leaves_a_hole_ends_the_run() {
        of(1..6).apply(&Change::Append(7, vec![Bytes::new()]));
    }
}
