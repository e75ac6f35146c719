//! How an entry lies in sled: rows of at most 7 KiB under (index, piece), length and checksum in front.
//!
//! sled puts up to 17 rows on a page, and a page that grows beyond 128 KiB goes to a "blob" file that sled never syncs.
//! So no row may be larger than 128 KiB / 17.

use bytes::{Bytes, BytesMut};

/// Bytes of an entry in one row. With the key and sled's bookkeeping it stays below 7 KiB.
pub(super) const PIECE_BYTES: usize = 7000;
/// Length (u32) and CRC32C (u32), little endian, before the entry's bytes. The checksum covers index and bytes, so that an
/// entry in the wrong place is found too.
const HEAD_BYTES: usize = 8;

const _: () = assert!(PIECE_BYTES + 12 <= 7 * 1024 && 17 * 7 * 1024 < 128 * 1024);

/// The key of a piece: big endian, so that sled's order is the log's.
pub(super) fn key(index: u64, piece: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&index.to_be_bytes());
    key[8..].copy_from_slice(&piece.to_be_bytes());
    key
}

/// Reads a key; `None` when it is none of ours.
pub(super) fn parse_key(key: &[u8]) -> Option<(u64, u32)> {
    let (index, piece) = key.split_at_checked(8)?;
    Some((u64::from_be_bytes(index.try_into().ok()?), u32::from_be_bytes(piece.try_into().ok()?)))
}

/// The rows of an entry.
pub(super) fn rows(index: u64, entry: &[u8]) -> Vec<([u8; 12], Vec<u8>)> {
    let mut framed = Vec::with_capacity(HEAD_BYTES + entry.len());
    framed.extend_from_slice(&u32::try_from(entry.len()).unwrap_or(u32::MAX).to_le_bytes());
    framed.extend_from_slice(&checksum(index, entry).to_le_bytes());
    framed.extend_from_slice(entry);
    framed.chunks(PIECE_BYTES).zip(0..).map(|(piece, n)| (key(index, n), piece.to_vec())).collect()
}

fn checksum(index: u64, entry: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&index.to_be_bytes()), entry)
}

/// Why an entry cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowError {
    /// Rows are missing at its end: a write that was cut off.
    #[error("log entry {0} is cut off")]
    CutOff(u64),
    /// Its rows do not belong together.
    #[error("the checksum of log entry {0} is wrong")]
    Checksum(u64),
}

/// Puts an entry together from its rows, which come in order.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    index: u64,
    pieces: u32,
    framed: BytesMut,
}

// === impl Assembly ===

impl Assembly {
    pub(super) fn new(index: u64) -> Assembly {
        Assembly { index, pieces: 0, framed: BytesMut::new() }
    }

    /// Takes the next row.
    pub(super) fn push(&mut self, piece: u32, bytes: &[u8]) -> Result<(), RowError> {
        if piece != self.pieces {
            return Err(RowError::CutOff(self.index));
        }
        self.pieces += 1;
        self.framed.extend_from_slice(bytes);
        Ok(())
    }

    /// The entry.
    pub(super) fn finish(self) -> Result<Bytes, RowError> {
        let framed = self.framed.freeze();
        if framed.len() < HEAD_BYTES {
            return Err(RowError::CutOff(self.index));
        }
        let number = |at: usize| framed[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or_default();
        let (len, crc) = (number(0) as usize, number(4));
        let entry = framed.slice(HEAD_BYTES..);
        match entry.len() {
            n if n < len => Err(RowError::CutOff(self.index)),
            n if n == len && checksum(self.index, &entry) == crc => Ok(entry),
            _ => Err(RowError::Checksum(self.index)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assemble(rows: &[([u8; 12], Vec<u8>)]) -> Result<Bytes, RowError> {
        let (index, _) = parse_key(&rows[0].0).unwrap();
        let mut assembly = Assembly::new(index);
        for (key, bytes) in rows {
            assembly.push(parse_key(key).unwrap().1, bytes)?;
        }
        assembly.finish()
    }

    proptest! {
        #[test]
        fn what_is_split_is_assembled(index: u64, len in 0_usize..40_000, fill: u8) {
            let entry = vec![fill; len];
            let rows = rows(index, &entry);
            prop_assert!(rows.iter().all(|(k, v)| k.len() + v.len() <= 7 * 1024));
            prop_assert!(rows.windows(2).all(|w| w[0].0 < w[1].0));
            prop_assert_eq!(assemble(&rows).unwrap(), entry);
        }

        #[test]
        fn a_lost_row_or_a_flipped_bit_is_found(index: u64, len in 1_usize..30_000, at: prop::sample::Index, bit in 0..8_u8) {
            let whole = rows(index, &vec![7; len]);
            let lost = at.index(whole.len());
            let mut rows = whole.clone();
            rows.remove(lost);
            if !rows.is_empty() {
                prop_assert!(assemble(&rows).is_err());
            }
            let mut rows = whole;
            let row = &mut rows[lost].1;
            let at = at.index(row.len());
            row[at] ^= 1 << bit;
            prop_assert!(assemble(&rows).is_err());
        }
    }

    #[test]
    fn an_entry_in_another_ones_place_is_found() {
        let mut moved = rows(7, b"entry");
        moved[0].0 = key(8, 0);
        assert_eq!(assemble(&moved), Err(RowError::Checksum(8)));
        assert_eq!(parse_key(b"short"), None);
    }
}
