//! The persisted form: what any release has written, every later one reads.
//!
//! A golden file is never changed. When a field is added, the old files must still decode (the field has a default), and
//! `SWARMLITE_RECORD_GOLDEN=<n> cargo test -p swarmlite-store --test golden` writes what is written now under a new number.
#![allow(clippy::disallowed_methods)] // the golden files are read and recorded here

mod sample;

use std::path::PathBuf;
use swarmlite_store::{Object, RestoreError, Store, Transaction};

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn files(prefix: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir())
        .expect("the golden files are there")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
        .map(|p| (p.display().to_string(), std::fs::read(&p).expect("a golden file")))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there is no golden {prefix}");
    files
}

/// What was recorded under a number.
struct Sample {
    number: u32,
    transaction: Transaction,
    objects: Vec<Object>,
}

fn samples() -> [Sample; 5] {
    [
        Sample { number: 1, transaction: sample::transaction(), objects: sample::objects() },
        Sample { number: 2, transaction: sample::transaction_2(), objects: sample::granted() },
        Sample { number: 3, transaction: sample::transaction_3(), objects: sample::beyond() },
        Sample { number: 4, transaction: sample::transaction_4(), objects: sample::plugins() },
        Sample { number: 5, transaction: sample::elsewhere::transaction(), objects: sample::elsewhere::objects() },
    ]
}

fn snapshot_of(objects: Vec<Object>) -> Vec<u8> {
    let mut transaction = Transaction::new(model::Timestamp(99));
    objects.into_iter().for_each(|o| _ = transaction.create(o));
    let store = Store::new();
    store.apply(5, &transaction).expect("the store is empty");
    Store::encode(&store.snapshot())
}

fn snapshot() -> Vec<u8> {
    snapshot_of(sample::objects())
}

#[test]
fn record() {
    let Ok(number) = std::env::var("SWARMLITE_RECORD_GOLDEN") else { return };
    let sample = samples().into_iter().find(|s| s.number.to_string() == number).expect("a sample has this number");
    let transaction = sample.transaction.encode().expect("it fits").to_vec();
    for (name, bytes) in [("transaction", transaction), ("snapshot", snapshot_of(sample.objects))] {
        let path = dir().join(format!("{name}-{number}.msgpack"));
        assert!(!path.exists(), "{} is never changed", path.display());
        std::fs::write(path, bytes).expect("the golden file is written");
    }
}

#[test]
fn old_transactions_still_decode() {
    for Sample { number, transaction: now, .. } in samples() {
        for (name, bytes) in files(&format!("transaction-{number}.")) {
            let decoded = Transaction::decode(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(decoded, now, "{name}");
        }
        assert_eq!(Transaction::decode(&now.encode().expect("it fits")).expect("ours"), now);
    }
}

#[test]
fn old_snapshots_still_restore() {
    for Sample { number, objects, .. } in samples() {
        for (name, bytes) in files(&format!("snapshot-{number}.")) {
            let store = Store::new();
            store.restore(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
            let snapshot = store.snapshot();
            assert_eq!(snapshot.index(), 5, "{name}");
            for expected in &objects {
                let found = snapshot.get(&expected.id()).unwrap_or_else(|| panic!("{name} has no {}", expected.id()));
                assert!(same_but_meta(found, expected.clone()), "{name}");
            }
            let of_web = |o: &&Object| matches!(o, Object::Task(t) if t.service_id == sample::id('s'));
            let tasks = objects.iter().filter(of_web).count();
            assert_eq!(snapshot.tasks_of_service(&sample::id('s')).count(), tasks, "{name}");
            let users = snapshot.services_naming(&(&sample::id::<model::SecretId>('k')).into()).count();
            assert_eq!(users, usize::from(snapshot.service(&sample::id('u')).is_some()), "{name}");
        }
    }
}

fn same_but_meta(a: Object, b: Object) -> bool {
    let plain = |o: Object| match o {
        Object::Cluster(o) => Object::from(model::Cluster { meta: Default::default(), ..o.as_ref().clone() }),
        Object::Node(o) => Object::from(model::Node { meta: Default::default(), ..o.as_ref().clone() }),
        Object::Service(o) => Object::from(model::Service { meta: Default::default(), ..o.as_ref().clone() }),
        Object::Task(o) => Object::from(model::Task { meta: Default::default(), ..o.as_ref().clone() }),
        Object::Secret(o) => Object::from(model::Secret { meta: Default::default(), ..o.as_ref().clone() }),
        Object::Config(o) => Object::from(model::Config { meta: Default::default(), ..o.as_ref().clone() }),
        Object::Payload(o) => Object::from(model::Payload { meta: Default::default(), ..o.as_ref().clone() }),
    };
    plain(a) == plain(b)
}

#[test]
fn a_snapshot_that_cannot_be_used_changes_nothing_and_says_why() {
    let store = Store::new();
    store.restore(&snapshot()).expect("ours");
    let before = Store::encode(&store.snapshot());
    let mut of_another_release = snapshot();
    // {"format": 1, ...}: a map of three, a string of six, a one.
    assert_eq!(&of_another_release[..9], b"\x83\xa6format\x01");
    of_another_release[8] = 2;
    let error = store.restore(&of_another_release).expect_err("another format");
    assert!(matches!(error, RestoreError::Format { found: 2 }), "{error}");
    assert!(error.to_string().contains("upgrade this manager"));
    for cut in [0, 1, 20, before.len() / 2, before.len() - 1] {
        assert!(matches!(store.restore(&before[..cut]), Err(RestoreError::Decode(_))), "cut at {cut}");
    }
    assert_eq!(Store::encode(&store.snapshot()), before);
}

#[test]
fn secrets_are_in_the_persisted_form_and_not_in_what_is_printed() {
    let shown = format!("{:?} {:?}", sample::objects(), sample::granted());
    let stored = [snapshot(), snapshot_of(sample::granted())].concat();
    for secret in ["KEY", "SWMTKN-1-w", "SWMTKN-1-m", "credentials", "DATA of secret", "DATA of config"] {
        assert!(!shown.contains(secret), "{secret}");
        assert!(stored.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret}");
    }
}
