//! A key, and how it is written for people.

use crate::sealed::{self, Around, Cipher};
use crate::{KeyId, OpenError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use seams::Rand;
use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// A key for XChaCha20-Poly1305. Never shown by `Debug`, compared in constant time, wiped from memory when it is dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

/// How a key is written for people: what it unlocks, then 43 characters of base64 without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// `SWMKEY-1-…`: unlocks managers (SwarmKit `manager/encryption`).
    Unlock,
    /// `SWMBAK-1-…`: opens a backup.
    Backup,
}

/// A text that is no key of the wanted form. It does not repeat the text, which may be half a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It begins otherwise.
    #[error("invalid key string: it must begin with `{}`", .0.prefix())]
    Prefix(KeyForm),
    /// What follows is not 32 bytes of base64.
    #[error("invalid key string: after `{}` there must be 43 characters of base64; was it copied whole?", .0.prefix())]
    Base64(KeyForm),
}

// === impl KeyForm ===

impl KeyForm {
    /// The beginning of the text.
    pub fn prefix(self) -> &'static str {
        match self {
            KeyForm::Unlock => "SWMKEY-1-",
            KeyForm::Backup => "SWMBAK-1-",
        }
    }
}

// === impl Key ===

impl Key {
    /// A new random key.
    pub fn generate(rand: &dyn Rand) -> Key {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand.fill(&mut *bytes);
        Key(bytes)
    }

    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Key {
        Key(Zeroizing::new(bytes))
    }

    /// Its bytes: a secret.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Its text: a secret.
    pub fn to_text(&self, form: KeyForm) -> String {
        format!("{}{}", form.prefix(), STANDARD_NO_PAD.encode(*self.0))
    }

    /// Reads a text; white space around it is forgiven, as it comes with copying.
    ///
    /// # Errors
    /// [`InvalidKey`] says what is wrong.
    pub fn parse(form: KeyForm, text: &str) -> Result<Key, InvalidKey> {
        let code = text.trim().strip_prefix(form.prefix()).ok_or(InvalidKey::Prefix(form))?;
        let bytes = Zeroizing::new(STANDARD_NO_PAD.decode(code).map_err(|_| InvalidKey::Base64(form))?);
        let bytes = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| InvalidKey::Base64(form))?;
        Ok(Key::from_bytes(bytes))
    }

    /// Seals a piece. It opens only with the same key and the same context: say there what the piece is and where it belongs.
    /// The result is [`crate::OVERHEAD_BYTES`] longer than `plain`.
    pub fn seal(&self, rand: &dyn Rand, context: &[u8], plain: &[u8]) -> Vec<u8> {
        sealed::seal(&self.cipher(), KeyId::NONE, rand, Around { prefix: b"", context }, plain)
    }

    /// Opens what [`Key::seal`] made.
    ///
    /// # Errors
    /// [`OpenError::Broken`] when key or context is another one, or anything was changed.
    pub fn open(&self, context: &[u8], sealed: Bytes) -> Result<Bytes, OpenError> {
        match sealed::key_id(&sealed)? {
            KeyId::NONE => sealed::open(&self.cipher(), context, sealed),
            other => Err(OpenError::UnknownKey(other)),
        }
    }

    pub(crate) fn cipher(&self) -> Cipher {
        sealed::cipher(&self.0)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}
impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use seams::real::OsRand;

    proptest! {
        #[test]
        fn a_key_survives_its_text(bytes: [u8; KEY_BYTES]) {
            let key = Key::from_bytes(bytes);
            for form in [KeyForm::Unlock, KeyForm::Backup] {
                let text = key.to_text(form);
                prop_assert_eq!(text.len(), 9 + 43);
                prop_assert_eq!(&Key::parse(form, &format!(" {text}\n")).unwrap(), &key);
            }
        }

        #[test]
        fn noise_is_no_key(text in ".{0,80}") {
            prop_assert!(Key::parse(KeyForm::Unlock, &text).is_err());
        }
    }

    #[test]
    fn a_text_that_is_no_key_is_told_why() {
        let text = Key::generate(&OsRand).to_text(KeyForm::Unlock);
        for (bad, starts) in [
            (String::new(), "invalid key string: it must begin with `SWMKEY-1-`"),
            (text.replace("SWMKEY", "SWMTKN"), "invalid key string: it must begin"),
            (text[..text.len() - 1].to_owned(), "invalid key string: after `SWMKEY-1-` there must be 43"),
            (format!("{text}A"), "invalid key string: after"),
            (format!("{text}="), "invalid key string: after"),
        ] {
            let said = Key::parse(KeyForm::Unlock, &bad).unwrap_err().to_string();
            assert!(said.starts_with(starts), "{said}");
        }
        assert!(Key::parse(KeyForm::Backup, &text).is_err(), "an unlock key opens no backup");
    }

    #[test]
    fn a_key_never_shows_itself() {
        assert_eq!(format!("{:?}", Key::generate(&OsRand)), "Key(..)");
    }
}
