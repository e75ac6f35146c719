//! The fence: a file outside sled that says what sled must still have.
//!
//! sled can open empty, without an error, when a power cut hit it wrongly. A voter that has forgotten its vote may vote
//! twice, and one that has forgotten entries may elect a leader without them. So what was promised is also noted here, and
//! a log that holds less is refused.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What the log held for certain when the fence was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fence {
    /// Votes written so far.
    pub votes: u64,
    /// Entries up to here were in the log, or purged from it; zero when there were none.
    pub floor: u64,
}

/// The file.
#[derive(Debug)]
pub(super) struct FenceFile {
    dir: PathBuf,
}

const NAME: &str = "FENCE";
const FORMAT: &str = "swarmlite-raft-fence-1";

// === impl FenceFile ===

impl FenceFile {
    pub(super) fn new(dir: &Path) -> FenceFile {
        FenceFile { dir: dir.to_owned() }
    }

    /// Reads it; `None` when there is none. An unreadable one is `InvalidData`.
    pub(super) fn read(&self) -> io::Result<Option<Fence>> {
        let text = match fs::read_to_string(self.dir.join(NAME)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        parse(&text).map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the fence file is damaged"))
    }

    /// Replaces it durably.
    pub(super) fn write(&self, fence: Fence) -> io::Result<()> {
        let tmp = self.dir.join("FENCE.tmp");
        let mut file = File::create(&tmp)?;
        file.write_all(print(fence).as_bytes())?;
        file.sync_all()?;
        fs::rename(&tmp, self.dir.join(NAME))?;
        File::open(&self.dir)?.sync_all()
    }
}

fn print(fence: Fence) -> String {
    let body = format!("{FORMAT} votes={} floor={}", fence.votes, fence.floor);
    format!("{body} crc32c={:08x}\n", crc32c::crc32c(body.as_bytes()))
}

fn parse(text: &str) -> Option<Fence> {
    let (body, crc) = text.trim_end().rsplit_once(" crc32c=")?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
        return None;
    }
    let (votes, floor) = body.strip_prefix(FORMAT)?.strip_prefix(" votes=")?.split_once(" floor=")?;
    Some(Fence { votes: votes.parse().ok()?, floor: floor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_parsed_and_damage_is_found() {
        let fence = Fence { votes: 3, floor: 4096 };
        let text = print(fence);
        assert_eq!(parse(&text), Some(fence));
        assert_eq!(parse(""), None);
        assert_eq!(parse(&text.replace("4096", "4097")), None);
        assert_eq!(parse(&text[..text.len() - 4]), None);
    }

    #[test]
    fn a_fence_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = FenceFile::new(dir.path());
        assert_eq!(file.read().unwrap(), None);
        for votes in 1..3 {
            file.write(Fence { votes, floor: 9 }).unwrap();
            assert_eq!(file.read().unwrap(), Some(Fence { votes, floor: 9 }));
        }
    }
}
