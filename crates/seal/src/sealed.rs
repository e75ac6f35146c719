//! The sealed form.
//!
//! ```text
//! clear:   version u8 | key id u32 | nonce 24
//! sealed:  the piece (+ tag 16)
//! AAD:     "swarmlite-seal" | version | key id | context
//! ```
//! Numbers are big-endian. Nonces are random: 192 bits never repeat in practice.

use crate::KeyId;
use bytes::{Buf as _, Bytes, BytesMut};
use chacha20poly1305::aead::{AeadInPlace as _, KeyInit as _};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use seams::Rand;

pub(crate) type Cipher = XChaCha20Poly1305;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + 4 + NONCE_BYTES;
/// How much longer a sealed piece is.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;

/// Why a sealed piece cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is too short to be one.
    #[error("it is cut off")]
    CutOff,
    /// Its first byte says that another release wrote it, or that it is no sealed piece at all.
    #[error("it is not sealed in a form that this release reads (form {0}, not {VERSION})")]
    Version(u8),
    /// It needs a key that is not here.
    #[error("it is sealed with data key {0}, which this node does not have")]
    UnknownKey(KeyId),
    /// Its tag is wrong.
    #[error("its seal is broken: it was changed, moved here from another place, or sealed with another key")]
    Broken,
}

pub(crate) fn cipher(key: &[u8; 32]) -> Cipher {
    XChaCha20Poly1305::new(key.into())
}

fn associated(key: KeyId, context: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(14 + 1 + 4 + context.len());
    aad.extend_from_slice(b"swarmlite-seal");
    aad.push(VERSION);
    aad.extend_from_slice(&key.0.to_be_bytes());
    aad.extend_from_slice(context);
    aad
}

/// What comes in clear before the sealed piece, and what authenticates its place.
pub(crate) struct Around<'a> {
    pub(crate) prefix: &'a [u8],
    pub(crate) context: &'a [u8],
}

/// One buffer of the right size, encrypted in place.
pub(crate) fn seal(cipher: &Cipher, key: KeyId, rand: &dyn Rand, around: Around<'_>, plain: &[u8]) -> Vec<u8> {
    let Around { prefix, context } = around;
    let mut nonce = [0; NONCE_BYTES];
    rand.fill(&mut nonce);
    let mut out = Vec::with_capacity(prefix.len() + OVERHEAD_BYTES + plain.len());
    out.extend_from_slice(prefix);
    out.push(VERSION);
    out.extend_from_slice(&key.0.to_be_bytes());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(plain);
    let aad = associated(key, context);
    let tag = cipher
        .encrypt_in_place_detached(XNonce::from_slice(&nonce), &aad, &mut out[prefix.len() + HEAD_BYTES..])
        .expect("the cipher refuses only pieces beyond 256 GiB, which do not fit memory");
    out.extend_from_slice(&tag);
    out
}

/// Which key a sealed piece needs; `None` when it is no sealed piece.
pub fn key_id_of(sealed: &[u8]) -> Option<KeyId> {
    key_id(sealed).ok()
}

pub(crate) fn key_id(sealed: &[u8]) -> Result<KeyId, OpenError> {
    if sealed.len() < OVERHEAD_BYTES {
        return Err(OpenError::CutOff);
    }
    let (version, rest) = sealed.split_first().ok_or(OpenError::CutOff)?;
    if *version != VERSION {
        return Err(OpenError::Version(*version));
    }
    let id = rest.first_chunk().ok_or(OpenError::CutOff)?;
    Ok(KeyId(u32::from_be_bytes(*id)))
}

/// Opens in place when nobody else holds the bytes.
pub(crate) fn open(cipher: &Cipher, context: &[u8], sealed: Bytes) -> Result<Bytes, OpenError> {
    let key = key_id(&sealed)?;
    let mut piece = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let head = piece.split_to(HEAD_BYTES);
    let tag = piece.split_off(piece.len() - TAG_BYTES);
    let aad = associated(key, context);
    let nonce = XNonce::from_slice(&head[HEAD_BYTES - NONCE_BYTES..]);
    cipher
        .decrypt_in_place_detached(nonce, &aad, &mut piece, Tag::from_slice(tag.chunk()))
        .map_err(|_| OpenError::Broken)?;
    Ok(piece.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;
    use proptest::prelude::*;
    use seams::real::OsRand;

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(plain in prop::collection::vec(any::<u8>(), 0..2000), context in prop::collection::vec(any::<u8>(), 0..40)) {
            let key = Key::generate(&OsRand);
            let sealed = Bytes::from(key.seal(&OsRand, &context, &plain));
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD_BYTES);
            // With the bytes held elsewhere, and in place.
            prop_assert_eq!(&key.open(&context, sealed.clone()).unwrap(), &plain);
            prop_assert_eq!(&key.open(&context, sealed).unwrap(), &plain);
        }

        #[test]
        fn attack_25_any_flipped_bit_other_context_or_other_key_breaks_the_seal(
            plain in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, bit in 0..8_u8
        ) {
            let key = Key::generate(&OsRand);
            let sealed = key.seal(&OsRand, b"here", &plain);
            let mut bent = sealed.clone();
            bent[at.index(sealed.len())] ^= 1 << bit;
            prop_assert!(key.open(b"here", bent.into()).is_err());
            prop_assert_eq!(key.open(b"there", sealed.clone().into()), Err(OpenError::Broken));
            prop_assert_eq!(Key::generate(&OsRand).open(b"here", sealed.clone().into()), Err(OpenError::Broken));
            let cut = at.index(sealed.len());
            prop_assert!(key.open(b"here", Bytes::copy_from_slice(&sealed[..cut])).is_err());
        }

        #[test]
        fn noise_is_refused_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Key::generate(&OsRand).open(b"", noise.into()).is_err());
        }
    }

    #[test]
    fn the_same_piece_never_looks_the_same() {
        let key = Key::generate(&OsRand);
        assert_ne!(key.seal(&OsRand, b"", b"piece"), key.seal(&OsRand, b"", b"piece"));
    }
}
