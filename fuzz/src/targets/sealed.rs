//! What lies on the disk: sealed pieces, key files, the texts of keys.

use super::{Taker, Target, must};
use crate::dice::Dice;
use bytes::Bytes;
use parking_lot::Mutex;
use seal::{Key, KeyForm, KeyStore, Keyring, Loaded, Lock};
use seams::{MemoryDisk, Rand};
use std::path::PathBuf;
use std::sync::Arc;

const CONTEXT: &[u8] = b"row 7";
const PLAIN: &[u8] = b"what is sealed";
const TEXT: &str = "SWMKEY-1-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8";

pub(super) const TARGET: Target = Target {
    name: "sealed",
    about: "sealed pieces, key files and the texts of keys: seal::Keyring, seal::KeyStore, seal::Key",
    corpus,
    words: &[
        b"\0\0\0\x01",
        b"\xff\xff\xff\xff",
        b"SWMKEY-1-",
        b"SWMBAK-1-",
        b"=",
        b"/",
        b"+",
        b" ",
        b"{",
        b"}",
        b"[",
        b"null",
        b"\"keys\":",
        b"\"format\":",
        b"\"id\":4294967295",
        b"\"generation\":18446744073709551615",
    ],
    bytes_max: 128 * 1024,
    start,
};

/// Always the same keys and nonces, so that the corpus is, too.
struct Rolled(Mutex<Dice>);

impl Rolled {
    fn new(part: u64) -> Arc<Rolled> {
        Arc::new(Rolled(Mutex::new(Dice::new("sealed", part, 0))))
    }
}

impl Rand for Rolled {
    fn fill(&self, buf: &mut [u8]) {
        let mut dice = self.0.lock();
        buf.iter_mut().for_each(|b| *b = dice.word() as u8);
    }
}

fn keyring() -> Arc<Keyring> {
    Keyring::ephemeral(Rolled::new(1))
}

fn path() -> PathBuf {
    "/keys".into()
}

/// What a key store writes, in the clear or locked.
fn key_file(lock: Option<Lock>) -> Vec<u8> {
    let files = Arc::new(MemoryDisk::default());
    let made = futures::executor::block_on(KeyStore::create(
        files.clone(),
        Rolled::new(2),
        path(),
        lock,
        std::time::Duration::ZERO,
    ));
    made.map(drop).expect("files in memory take everything");
    let bytes = files.files().get(&path()).cloned();
    bytes.expect("a key store writes its file").to_vec()
}

fn unlock_key() -> Key {
    Key::parse(KeyForm::Unlock, TEXT).expect("it is a key")
}

/// The first byte says what the rest is: a sealed piece, a key file, a text.
fn corpus() -> Vec<Vec<u8>> {
    let named = |kind: u8, bytes: &[u8]| [&[kind][..], bytes].concat();
    let (_, piece) = keyring().seal(CONTEXT, PLAIN);
    let locked = key_file(Some(Lock { generation: 3, key: unlock_key() }));
    vec![named(0, &piece), named(1, &key_file(None)), named(1, &locked), named(2, TEXT.as_bytes())]
}

fn start() -> Taker {
    let ring = keyring();
    let honest = corpus();
    Box::new(move |input| {
        let Some((kind, bytes)) = input.split_first() else { return Ok(()) };
        match kind % 3 {
            0 => {
                let piece = Bytes::copy_from_slice(bytes);
                must(ring.open(b"row 8", piece.clone()).is_err(), || "it opens in another place".into())?;
                let opened = ring.open(CONTEXT, piece);
                let same = honest[0][1..] == *bytes;
                must(opened.is_ok() == same, || format!("a bent piece opens: {opened:?}"))
            }
            1 => {
                let files = Arc::new(MemoryDisk::default());
                files.files().insert(path(), Bytes::copy_from_slice(bytes));
                let loaded = futures::executor::block_on(KeyStore::load(files, Rolled::new(3), path()));
                if let Ok(Some(Loaded::Locked(store))) = loaded {
                    let _opened_or_not = store.unlock(&unlock_key()).map(|r| r.is_ok());
                    let other = Key::generate(&*Rolled::new(9));
                    must(!matches!(store.unlock(&other), Ok(Ok(_))), || "another key unlocks".into())?;
                }
                Ok(())
            }
            _ => {
                let text = String::from_utf8_lossy(bytes);
                for form in [KeyForm::Unlock, KeyForm::Backup] {
                    if let Ok(key) = Key::parse(form, &text) {
                        must(key.to_text(form) == text.trim(), || format!("`{text}` is read as another key"))?;
                    }
                }
                Ok(())
            }
        }
    })
}
