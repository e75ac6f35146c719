//! The form of a datagram.
//!
//! ```text
//! clear:   'S' 'G' | version u8 | key id u32 | nonce 24
//! sealed:  sender 25 | unix time ms u64 | message id u64 | part u8 | parts u8 | payload      (+ tag 16)
//! AAD:     "swarmlite-gossip" | version | key id | cluster id
//! ```
//! Numbers are big-endian. Every part of a message is sealed by itself, so nothing unproven is ever kept for reassembly.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use model::{ClusterId, GossipKey, NodeId};

/// Longest datagram: fits an Ethernet packet through the usual tunnels, and IPv6's guaranteed 1280 bytes.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1200;
/// Bytes of the nonce. Random ones never repeat in practice (192 bits).
pub(crate) const NONCE_BYTES: usize = 24;
const VERSION: u8 = 1;
const CLEAR_BYTES: usize = 2 + 1 + 4 + NONCE_BYTES;
const SENDER_BYTES: usize = 25;
const INNER_BYTES: usize = SENDER_BYTES + 8 + 8 + 1 + 1;
const TAG_BYTES: usize = 16;
/// Bytes of a message in one datagram.
pub(crate) const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - CLEAR_BYTES - INNER_BYTES - TAG_BYTES;
/// Parts of the longest message: chitchat's are at most 65507 bytes.
pub(crate) const PARTS_MAX: usize = 60;

const _: () = assert!(PAYLOAD_BYTES_MAX * PARTS_MAX >= 65_507);

/// A nonce, as it travels.
pub(crate) type Nonce = [u8; NONCE_BYTES];

/// One part of a message, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) sender: NodeId,
    pub(crate) sent_unix_ms: u64,
    pub(crate) message_id: u64,
    pub(crate) index: u8,
    pub(crate) count: u8,
    pub(crate) payload: Vec<u8>,
}

/// Why a datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    Oversized,
    Malformed,
    UnknownKey,
    Forged,
}

/// The clear head of a datagram.
pub(crate) struct Sealed<'a> {
    pub(crate) key_id: u32,
    pub(crate) nonce: Nonce,
    ciphertext: &'a [u8],
}

fn associated(cluster: &ClusterId, key_id: u32) -> Vec<u8> {
    let mut aad = b"swarmlite-gossip".to_vec();
    aad.push(VERSION);
    aad.extend(key_id.to_be_bytes());
    aad.extend(cluster.as_str().bytes());
    aad
}

// === impl Sealed ===

impl<'a> Sealed<'a> {
    /// Reads the clear head.
    pub(crate) fn parse(datagram: &'a [u8]) -> Result<Sealed<'a>, Bad> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(Bad::Oversized);
        }
        let Some((head, ciphertext)) = datagram.split_first_chunk::<CLEAR_BYTES>() else { return Err(Bad::Malformed) };
        let [b'S', b'G', VERSION, k0, k1, k2, k3, nonce @ ..] = head else { return Err(Bad::Malformed) };
        if ciphertext.len() < INNER_BYTES + TAG_BYTES {
            return Err(Bad::Malformed);
        }
        Ok(Sealed { key_id: u32::from_be_bytes([*k0, *k1, *k2, *k3]), nonce: *nonce, ciphertext })
    }

    /// Opens it with the key of its id.
    pub(crate) fn open(&self, cluster: &ClusterId, keys: &[GossipKey]) -> Result<Part, Bad> {
        let key = keys.iter().find(|k| k.id == self.key_id).ok_or(Bad::UnknownKey)?;
        let aad = associated(cluster, key.id);
        let sealed = Payload { msg: self.ciphertext, aad: &aad };
        let inner = XChaCha20Poly1305::new(&key.key.into())
            .decrypt(XNonce::from_slice(&self.nonce), sealed)
            .map_err(|_| Bad::Forged)?;
        Part::parse(&inner).ok_or(Bad::Malformed)
    }
}

// === impl Part ===

impl Part {
    fn parse(inner: &[u8]) -> Option<Part> {
        let (sender, rest) = inner.split_first_chunk::<SENDER_BYTES>()?;
        let (sent, rest) = rest.split_first_chunk::<8>()?;
        let (message_id, rest) = rest.split_first_chunk::<8>()?;
        let ([index, count], payload) = rest.split_first_chunk::<2>()?;
        if index >= count || usize::from(*count) > PARTS_MAX {
            return None;
        }
        Some(Part {
            sender: std::str::from_utf8(sender).ok()?.parse().ok()?,
            sent_unix_ms: u64::from_be_bytes(*sent),
            message_id: u64::from_be_bytes(*message_id),
            index: *index,
            count: *count,
            payload: payload.to_vec(),
        })
    }

    /// The datagram that carries it. `None` when the payload is too long (it is cut by [`split`]).
    pub(crate) fn seal(&self, cluster: &ClusterId, key: &GossipKey, nonce: &Nonce) -> Option<Vec<u8>> {
        let mut inner = Vec::with_capacity(INNER_BYTES + self.payload.len());
        inner.extend(self.sender.as_str().bytes());
        inner.extend(self.sent_unix_ms.to_be_bytes());
        inner.extend(self.message_id.to_be_bytes());
        inner.extend([self.index, self.count]);
        inner.extend(&self.payload);
        let aad = associated(cluster, key.id);
        let clear = Payload { msg: &inner, aad: &aad };
        let ciphertext = XChaCha20Poly1305::new(&key.key.into()).encrypt(XNonce::from_slice(nonce), clear).ok()?;
        let mut datagram = Vec::with_capacity(CLEAR_BYTES + ciphertext.len());
        datagram.extend([b'S', b'G', VERSION]);
        datagram.extend(key.id.to_be_bytes());
        datagram.extend(nonce);
        datagram.extend(ciphertext);
        (datagram.len() <= DATAGRAM_BYTES_MAX).then_some(datagram)
    }
}

/// Cuts a message into payloads; `None` when it is too long.
pub(crate) fn split(message: &[u8]) -> Option<Vec<&[u8]>> {
    if message.is_empty() {
        return Some(vec![message]);
    }
    let parts: Vec<&[u8]> = message.chunks(PAYLOAD_BYTES_MAX).collect();
    (parts.len() <= PARTS_MAX).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cluster(c: char) -> ClusterId {
        String::from(c).repeat(25).parse().unwrap()
    }

    fn part(payload: Vec<u8>) -> Part {
        let sender = "n".repeat(25).parse().unwrap();
        Part { sender, sent_unix_ms: 7, message_id: 9, index: 0, count: 1, payload }
    }

    fn key(id: u32) -> GossipKey {
        GossipKey { id, key: [id as u8; 32] }
    }

    #[test]
    fn a_full_part_fills_a_datagram_and_comes_back() {
        let sent = part(vec![5; PAYLOAD_BYTES_MAX]);
        let datagram = sent.seal(&cluster('c'), &key(1), &[3; 24]).unwrap();
        assert_eq!(datagram.len(), DATAGRAM_BYTES_MAX);
        let sealed = Sealed::parse(&datagram).unwrap();
        assert_eq!(sealed.open(&cluster('c'), &[key(2), key(1)]), Ok(sent));
        assert!(part(vec![5; PAYLOAD_BYTES_MAX + 1]).seal(&cluster('c'), &key(1), &[3; 24]).is_none());
    }

    #[test]
    fn what_is_not_ours_says_why() {
        let datagram = part(b"hello".to_vec()).seal(&cluster('c'), &key(1), &[3; 24]).unwrap();
        let sealed = Sealed::parse(&datagram).unwrap();
        assert_eq!(sealed.open(&cluster('x'), &[key(1)]), Err(Bad::Forged), "another cluster");
        assert_eq!(sealed.open(&cluster('c'), &[key(2)]), Err(Bad::UnknownKey));
        assert_eq!(sealed.open(&cluster('c'), &[GossipKey { id: 1, key: [9; 32] }]), Err(Bad::Forged), "another key");
        assert_eq!(Sealed::parse(&[0; DATAGRAM_BYTES_MAX + 1]).err(), Some(Bad::Oversized));
        assert_eq!(Sealed::parse(b"SG").err(), Some(Bad::Malformed));
        assert_eq!(Sealed::parse(&[0; 200]).err(), Some(Bad::Malformed));
        let mut other_version = datagram.clone();
        other_version[2] = 2;
        assert_eq!(Sealed::parse(&other_version).err(), Some(Bad::Malformed));
        for nonsense in [Part { index: 1, ..part(vec![]) }, Part { count: 61, ..part(vec![]) }] {
            let datagram = nonsense.seal(&cluster('c'), &key(1), &[3; 24]).unwrap();
            assert_eq!(Sealed::parse(&datagram).unwrap().open(&cluster('c'), &[key(1)]), Err(Bad::Malformed));
        }
    }

    #[test]
    fn the_longest_message_fits_and_a_longer_one_does_not() {
        assert_eq!(split(&[0; 65_507]).map(|p| p.len()), Some(60));
        assert!(split(&[0; PAYLOAD_BYTES_MAX * PARTS_MAX + 1]).is_none());
        assert_eq!(split(&[]).map(|p| p.len()), Some(1));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_breaks_the_seal(at in 0..200_usize, bit in 0..8_u8) {
            let mut datagram = part(vec![1; 80]).seal(&cluster('c'), &key(1), &[3; 24]).unwrap();
            let at = at % datagram.len();
            datagram[at] ^= 1 << bit;
            let opened = Sealed::parse(&datagram).and_then(|s| s.open(&cluster('c'), &[key(1)]));
            prop_assert!(opened.is_err());
        }

        #[test]
        fn noise_is_dropped_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            let opened = Sealed::parse(&bytes).and_then(|s| s.open(&cluster('c'), &[key(1)]));
            prop_assert!(opened.is_err());
        }

        #[test]
        fn noise_inside_a_good_seal_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(part) = Part::parse(&bytes) {
                prop_assert!(part.index < part.count);
            }
        }
    }
}
