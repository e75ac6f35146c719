use super::*;
use std::path::PathBuf;

async fn append(log: &SledLog, first: u64, entries: &[&[u8]]) {
    let (done, synced) = oneshot::channel();
    let entries = entries.iter().map(|e| Bytes::copy_from_slice(e)).collect();
    log.append(first, entries, Box::new(move |r| drop(done.send(r)))).await.unwrap();
    synced.await.unwrap().unwrap();
}

async fn all(log: &SledLog) -> Vec<Bytes> {
    let Some((first, last)) = log.bounds().await.unwrap() else { return Vec::new() };
    log.read(first..last + 1, usize::MAX).await.unwrap()
}

fn reason(error: OpenLogError) -> String {
    match error {
        OpenLogError::Damaged { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

async fn damage(dir: &Path) -> String {
    reason(SledLog::open(dir).await.err().expect("a damaged log must not open"))
}

fn blobs(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir.join("log/blobs")).unwrap().map(|e| e.unwrap().path()).collect()
}

#[tokio::test]
async fn what_was_appended_is_there_after_reopening_and_no_blob_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let big = vec![9_u8; 1_500_000];
    {
        let log = SledLog::open(dir.path()).await.unwrap();
        assert_eq!(log.bounds().await.unwrap(), None);
        append(&log, 1, &[b"one", b"", &big]).await;
        log.write_meta(Meta::Vote, Bytes::from("vote")).await.unwrap();
        log.write_meta_lazily(Meta::Committed, Bytes::from("2")).await.unwrap();
    }
    let log = SledLog::open(dir.path()).await.unwrap();
    assert_eq!(log.bounds().await.unwrap(), Some((1, 3)));
    assert_eq!(all(&log).await, vec![Bytes::from("one"), Bytes::new(), Bytes::from(big)]);
    assert_eq!(log.read_meta(Meta::Vote).await.unwrap().unwrap(), "vote");
    assert_eq!(log.read_meta(Meta::Committed).await.unwrap().unwrap(), "2");
    assert_eq!(blobs(dir.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn reads_stop_at_the_byte_limit_but_give_at_least_one_entry() {
    let dir = tempfile::tempdir().unwrap();
    let log = SledLog::open(dir.path()).await.unwrap();
    append(&log, 1, &[&[1; 100], &[2; 100], &[3; 100]]).await;
    for (max, expected) in [(1, 1), (100, 1), (199, 1), (200, 2), (299, 2), (300, 3), (usize::MAX, 3)] {
        assert_eq!(log.read(1..9, max).await.unwrap().len(), expected, "{max}");
    }
    assert_eq!(log.read(4..9, 9).await.unwrap(), Vec::<Bytes>::new());
    assert_eq!(log.read(2..3, 999).await.unwrap(), vec![Bytes::from(vec![2; 100])]);
}

#[tokio::test]
async fn truncated_and_purged_entries_stay_away() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = SledLog::open(dir.path()).await.unwrap();
        append(&log, 1, &[b"1", b"2", &[3; 20_000], b"4", b"5"]).await;
        log.truncate(5).await.unwrap();
        log.truncate(9).await.unwrap();
        log.purge(2, Bytes::from("two")).await.unwrap();
        assert_eq!(log.bounds().await.unwrap(), Some((3, 4)));
        append(&log, 5, &[b"five"]).await;
    }
    let log = SledLog::open(dir.path()).await.unwrap();
    assert_eq!(all(&log).await, vec![Bytes::from(vec![3; 20_000]), Bytes::from("4"), Bytes::from("five")]);
    log.purge(40, Bytes::from("forty")).await.unwrap();
    assert_eq!(log.bounds().await.unwrap(), None);
    append(&log, 41, &[b"41"]).await;
    drop(log);
    let log = SledLog::open(dir.path()).await.unwrap();
    assert_eq!(log.bounds().await.unwrap(), Some((41, 41)));
    assert_eq!(log.read_meta(Meta::Purged).await.unwrap().unwrap(), "forty");
}

#[tokio::test]
async fn a_hole_and_an_overwrite_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = SledLog::open(dir.path()).await.unwrap();
    append(&log, 1, &[b"1"]).await;
    for first in [1, 3] {
        assert!(log.append(first, vec![Bytes::new()], Box::new(|_| ())).await.is_err(), "{first}");
    }
    assert_eq!(log.bounds().await.unwrap(), Some((1, 1)));
}

#[tokio::test]
async fn the_floor_rises_with_the_log_and_falls_with_a_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let log = SledLog::open(dir.path()).await.unwrap();
    let entries = vec![b"x".as_slice(); 1500];
    append(&log, 1, &entries).await;
    append(&log, 1501, &[b"y"]).await;
    assert_eq!(FenceFile::new(dir.path()).read().unwrap().unwrap().floor, 1500);
    log.truncate(700).await.unwrap();
    assert_eq!(FenceFile::new(dir.path()).read().unwrap().unwrap().floor, 699);
    drop(log);
    assert_eq!(SledLog::open(dir.path()).await.unwrap().bounds().await.unwrap(), Some((1, 699)));
}

#[tokio::test]
async fn an_emptied_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = SledLog::open(dir.path()).await.unwrap();
        append(&log, 1, &[b"1"]).await;
    }
    drop(SledLog::open(dir.path()).await.unwrap());
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    assert!(damage(dir.path()).await.contains("empty"));
    let text = SledLog::open(dir.path()).await.err().unwrap().to_string();
    assert!(text.contains("join again") && text.contains("node rm"), "{text}");
}

#[tokio::test]
async fn a_lost_vote_or_tail_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = SledLog::open(dir.path()).await.unwrap();
        append(&log, 1, &vec![b"x".as_slice(); 1100]).await;
        log.write_meta(Meta::Vote, Bytes::from("a")).await.unwrap();
        log.write_meta(Meta::Vote, Bytes::from("b")).await.unwrap();
    }
    let fence = FenceFile::new(dir.path()).read().unwrap().unwrap();
    assert_eq!(fence, fence::Fence { votes: 2, floor: 1100 });
    for (told, expected) in [
        (fence::Fence { votes: 3, floor: 0 }, "2 of the 3 votes"),
        (fence::Fence { votes: 2, floor: 1200 }, "ends at entry 1100, and had reached 1200"),
    ] {
        FenceFile::new(dir.path()).write(told).unwrap();
        let text = damage(dir.path()).await;
        assert!(text.contains(expected), "{text}");
    }
    std::fs::write(dir.path().join("FENCE"), "nonsense").unwrap();
    assert!(damage(dir.path()).await.contains("fence file is damaged"));
}

/// Changes a row behind the log's back.
async fn tamper(dir: &Path, change: impl FnOnce(&sled::Tree)) {
    let db = loop {
        match sled::open(dir.join("log")) {
            Ok(db) => break db,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    change(&db.open_tree("log").unwrap());
    db.flush().unwrap();
}

#[tokio::test]
async fn a_wrong_checksum_or_a_hole_is_refused_and_a_cut_off_tail_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = SledLog::open(dir.path()).await.unwrap();
        append(&log, 1, &[b"1", b"2", &[3; 30_000]]).await;
    }
    let last_piece = rows::rows(3, &[3; 30_000]).len() as u32 - 1;
    tamper(dir.path(), |log| drop(log.remove(rows::key(3, last_piece)).unwrap())).await;
    assert!(damage(dir.path()).await.contains("entry 3 is cut off"), "the fence knows that it was acknowledged");
    FenceFile::new(dir.path()).write(fence::Fence { votes: 0, floor: 2 }).unwrap();
    {
        let log = SledLog::open(dir.path()).await.unwrap();
        assert_eq!(all(&log).await, vec![Bytes::from("1"), Bytes::from("2")]);
        append(&log, 3, &[b"3", b"4"]).await;
    }
    let mut row = None;
    tamper(dir.path(), |log| row = log.remove(rows::key(2, 0)).unwrap()).await;
    assert!(damage(dir.path()).await.contains("entry 2 is missing"));
    let mut row = row.unwrap().to_vec();
    *row.last_mut().unwrap() ^= 1;
    tamper(dir.path(), |log| drop(log.insert(rows::key(2, 0), row).unwrap())).await;
    assert!(damage(dir.path()).await.contains("checksum of log entry 2"));
}

#[tokio::test]
async fn garbage_in_sleds_file_is_damage_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = SledLog::open(dir.path()).await.unwrap();
        append(&log, 1, &vec![[7_u8; 300].as_slice(); 50]).await;
    }
    drop(SledLog::open(dir.path()).await.unwrap());
    let db = dir.path().join("log/db");
    let len = std::fs::metadata(&db).unwrap().len() as usize;
    std::fs::write(&db, vec![0xA5; len]).unwrap();
    let error = SledLog::open(dir.path()).await.err().expect("must not open");
    assert!(matches!(error, OpenLogError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_log_in_use_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let _open = SledLog::open(dir.path()).await.unwrap();
    let error = SledLog::open(dir.path()).await.err().expect("must not open twice");
    assert!(matches!(error, OpenLogError::InUse { .. }), "{error}");
}
