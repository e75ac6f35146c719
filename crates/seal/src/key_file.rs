//! The key file's form: JSON, with the data keys in the clear or locked under the unlock key.
//!
//! ```text
//! {"Format":1,"Keys":[{"Id":1,"CreatedAt":1700000000,"Key":"<base64>"}]}
//! {"Format":1,"Locked":{"Generation":2,"Keys":"<base64 of the sealed list above>"}}
//! ```

use crate::{Key, KeyId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use seams::Rand;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const FORMAT: u32 = 1;
/// Data keys in one file at most. There is one, and two while a change is under way.
pub const KEYS_MAX: usize = 16;
/// Far above the largest file that is ever written.
const BYTES_MAX: usize = 64 << 10;
const CONTEXT: &[u8] = b"data keys";

/// A data key.
#[derive(Clone)]
pub(crate) struct DataKey {
    pub(crate) id: KeyId,
    /// When it was made, seconds since the Unix epoch.
    pub(crate) created_unix_s: u64,
    pub(crate) key: Key,
}

/// What a key file holds.
pub(crate) enum KeyFile {
    /// The keys, rising ids, at least one.
    Open(Vec<DataKey>),
    Locked(LockedKeys),
}

/// Data keys that nobody can read without the unlock key.
#[derive(Debug, Clone)]
pub(crate) struct LockedKeys {
    pub(crate) generation: u64,
    sealed: Bytes,
}

/// A text that is no key file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It is no such JSON.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Another release wrote it.
    #[error("it has format {0}, this release reads format {FORMAT}; was it written by a newer release?")]
    Format(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Json {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<JsonKey>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locked: Option<JsonLocked>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct JsonKey {
    id: u32,
    created_at: u64,
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct JsonLocked {
    generation: u64,
    keys: String,
}

fn damaged(what: impl std::fmt::Display) -> KeyFileError {
    KeyFileError::Damaged(what.to_string())
}

/// The file's bytes.
pub(crate) fn encode(keys: &[DataKey], lock: Option<(u64, &Key)>, rand: &dyn Rand) -> Zeroizing<Vec<u8>> {
    let list: Vec<JsonKey> = keys
        .iter()
        .map(|k| JsonKey { id: k.id.0, created_at: k.created_unix_s, key: STANDARD.encode(k.key.as_bytes()) })
        .collect();
    let json = match lock {
        None => Json { format: FORMAT, keys: Some(list), locked: None },
        Some((generation, key)) => {
            let clear = Zeroizing::new(to_vec(&list));
            let keys = STANDARD.encode(key.seal(rand, &context(generation), &clear));
            Json { format: FORMAT, keys: None, locked: Some(JsonLocked { generation, keys }) }
        }
    };
    Zeroizing::new(to_vec(&json))
}

/// Reads a file's bytes.
pub(crate) fn parse(bytes: &[u8]) -> Result<KeyFile, KeyFileError> {
    if bytes.len() > BYTES_MAX {
        return Err(damaged(format_args!("{} bytes are too many", bytes.len())));
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Head {
        format: u32,
    }
    // serde's texts may quote what they trip over, which here may be a key.
    let head: Head = serde_json::from_slice(bytes).map_err(place)?;
    if head.format != FORMAT {
        return Err(KeyFileError::Format(head.format));
    }
    let json: Json = serde_json::from_slice(bytes).map_err(place)?;
    match (json.keys, json.locked) {
        (Some(list), None) => Ok(KeyFile::Open(checked(list)?)),
        (None, Some(locked)) => {
            let sealed = STANDARD.decode(locked.keys).map_err(|_| damaged("the locked keys are not base64"))?;
            Ok(KeyFile::Locked(LockedKeys { generation: locked.generation, sealed: sealed.into() }))
        }
        _ => Err(damaged("it holds neither keys nor locked keys, or both")),
    }
}

fn place(e: serde_json::Error) -> KeyFileError {
    damaged(format_args!("line {}, column {} is not as it should be", e.line(), e.column()))
}

fn checked(list: Vec<JsonKey>) -> Result<Vec<DataKey>, KeyFileError> {
    let rising = list.windows(2).all(|w| w[0].id < w[1].id) && list.first().is_some_and(|k| k.id > 0);
    if !rising || list.len() > KEYS_MAX {
        return Err(damaged(format_args!("it must hold 1 to {KEYS_MAX} keys in the order of their ids")));
    }
    let key = |k: JsonKey| {
        let text = Zeroizing::new(k.key);
        let bytes = Zeroizing::new(STANDARD.decode(text.as_bytes()).unwrap_or_default());
        let bytes = <[u8; 32]>::try_from(bytes.as_slice());
        let bytes = bytes.map_err(|_| damaged(format_args!("key {} is not 32 bytes of base64", k.id)))?;
        Ok(DataKey { id: KeyId(k.id), created_unix_s: k.created_at, key: Key::from_bytes(bytes) })
    };
    list.into_iter().map(key).collect()
}

fn context(generation: u64) -> Vec<u8> {
    [CONTEXT, &generation.to_be_bytes()].concat()
}

fn to_vec(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data always encodes")
}

// === impl LockedKeys ===

impl LockedKeys {
    /// The keys; `None` when the unlock key is another one.
    pub(crate) fn unlock(&self, key: &Key) -> Option<Result<Vec<DataKey>, KeyFileError>> {
        let clear = key.open(&context(self.generation), self.sealed.clone()).ok()?;
        Some(serde_json::from_slice(&clear).map_err(place).and_then(checked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use seams::real::OsRand;

    fn keys(n: u32) -> Vec<DataKey> {
        let key = |id| DataKey { id: KeyId(id), created_unix_s: 7 + u64::from(id), key: Key::generate(&OsRand) };
        (1..=n).map(key).collect()
    }

    fn same(a: &[DataKey], b: &[DataKey]) -> bool {
        let all = |k: &DataKey| (k.id, k.created_unix_s, *k.key.as_bytes());
        a.iter().map(all).eq(b.iter().map(all))
    }

    #[test]
    fn what_is_written_is_read() {
        for n in 1..=3 {
            let keys = keys(n);
            let Ok(KeyFile::Open(read)) = parse(&encode(&keys, None, &OsRand)) else { panic!("it is open") };
            assert!(same(&keys, &read));
            let kek = Key::generate(&OsRand);
            let Ok(KeyFile::Locked(locked)) = parse(&encode(&keys, Some((4, &kek)), &OsRand)) else {
                panic!("it is locked")
            };
            assert_eq!(locked.generation, 4);
            assert!(locked.unlock(&Key::generate(&OsRand)).is_none(), "another key opens nothing");
            assert!(same(&keys, &locked.unlock(&kek).unwrap().unwrap()));
        }
    }

    #[test]
    fn attack_25_a_locked_file_shows_no_key() {
        let keys = keys(1);
        let file = encode(&keys, Some((1, &Key::generate(&OsRand))), &OsRand);
        let text = String::from_utf8(file.to_vec()).unwrap();
        assert!(!text.contains(&STANDARD.encode(keys[0].key.as_bytes())), "the key is in it");
        assert!(!text.contains("CreatedAt"), "part of the list is in it");
    }

    #[test]
    fn bad_files_are_told_apart() {
        let good = String::from_utf8(encode(&keys(2), None, &OsRand).to_vec()).unwrap();
        for (bad, expected) in [
            (String::new(), "damaged"),
            ("{}".into(), "damaged"),
            (r#"{"Format":2,"New":1}"#.into(), "format 2"),
            (r#"{"Format":1}"#.into(), "neither"),
            (r#"{"Format":1,"Keys":[]}"#.into(), "1 to 16 keys"),
            (good.replace("\"Id\":2", "\"Id\":1"), "order of their ids"),
            (good.replace("\"Key\":\"", "\"Key\":\"AAAA"), "32 bytes of base64"),
            (good.replace("\"Keys\"", "\"Kyes\""), "damaged"),
            (" ".repeat(100_000), "too many"),
        ] {
            let said = parse(bad.as_bytes()).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.contains(expected), "{bad}: {said}");
        }
    }

    proptest! {
        #[test]
        fn noise_is_refused_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(parse(&noise).is_err());
        }
    }
}
