//! Power cuts: a child writes through the log on an ext4 image of its own and prints what is acknowledged; it is stopped,
//! the image is copied as the disk has it at that moment (what the kernel still holds back is lost, as in a power cut),
//! and the copy must have everything that was acknowledged.
//!
//! Needs root and loop devices. `POWER_CUTS` says how many cuts (default 3).
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // real files and processes are the point

use bytes::Bytes;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use swarmlite_raft::{LogStore as _, Meta, SledLog};
use tokio::sync::Semaphore;

const WRITER: &str = "POWER_CUT_WRITER";
const UNSYNCED: &str = "POWER_CUT_UNSYNCED";

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?} failed (this test needs root and loop devices): {text}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// A mounted image; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Mounted {
        std::fs::create_dir_all(at).unwrap();
        // The journal commits by itself only after a minute: nothing reaches the disk that was not asked for.
        run("mount", &["-o", "loop,commit=60", text(image), text(at)]);
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..50 {
            if Command::new("umount").arg(&self.0).output().is_ok_and(|o| o.status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// The writer; killed when dropped.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What was acknowledged.
#[derive(Debug, Default, Clone, Copy)]
struct Acked {
    entry: u64,
    vote: u64,
    purged: u64,
}

impl Acked {
    fn read(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (kind, number) = (words.next(), words.next().and_then(|n| n.parse().ok()).unwrap_or_default());
        match kind {
            Some("entry") => self.entry = self.entry.max(number),
            // Printed before the truncation: from then on these may be gone.
            Some("truncate") => self.entry = self.entry.min(number - 1),
            Some("vote") => self.vote = number,
            Some("purged") => self.purged = number,
            _ => {}
        }
    }
}

fn content(index: u64) -> Bytes {
    // Mostly small, as the real ones are; every so often up to 1 MB.
    let len = match index % 97 {
        0 => 1_000_000,
        13 => 200_000 + (index as usize * 7919) % 360_000,
        50 => 12_000,
        _ => 20 + (index as usize * 31) % 600,
    };
    let mut bytes = vec![(index % 251) as u8; len];
    bytes[..8].copy_from_slice(&index.to_be_bytes());
    bytes.into()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the parent reads");
}

/// Runs in the child, until it is killed.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(WRITER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var_os(UNSYNCED) {
        Some(_) => write_unsynced(&dir),
        None => runtime.block_on(write(&dir)),
    }
}

async fn write(dir: &Path) {
    let log = SledLog::open(&dir.join("raft")).await.unwrap();
    let in_flight = Arc::new(Semaphore::new(8));
    let (mut next, mut votes) = (1_u64, 0_u64);
    for round in 1_u64.. {
        let permit = in_flight.clone().acquire_owned().await.unwrap();
        let entries: Vec<Bytes> = (next..next + 1 + next % 4).map(content).collect();
        let last = next + entries.len() as u64 - 1;
        let synced = move |result: std::io::Result<()>| {
            result.unwrap();
            say(&format!("entry {last}"));
            drop(permit);
        };
        log.append(next, entries, Box::new(synced)).await.unwrap();
        log.write_meta_lazily(Meta::Committed, Bytes::from(last.to_string())).await.unwrap();
        next = last + 1;
        if round % 25 == 0 {
            votes += 1;
            log.write_meta(Meta::Vote, Bytes::from(votes.to_string())).await.unwrap();
            say(&format!("vote {votes}"));
        }
        if round % 80 == 0 {
            let _all = in_flight.acquire_many(8).await.unwrap();
            say(&format!("truncate {}", next - 2));
            log.truncate(next - 2).await.unwrap();
            next -= 2;
        }
        if round % 150 == 0 {
            let up_to = next - 300;
            log.purge(up_to, Bytes::from(up_to.to_string())).await.unwrap();
            say(&format!("purged {up_to}"));
        }
    }
}

/// sled as it comes: its `flush` only.
fn write_unsynced(dir: &Path) {
    let db = sled::Config::new().path(dir.join("sled")).flush_every_ms(None).open().unwrap();
    for index in 1_u64.. {
        db.insert(index.to_be_bytes(), vec![7; 300]).unwrap();
        db.flush().unwrap();
        say(&format!("entry {index}"));
    }
}

/// Lets a child write for a while and cuts the power; gives what was acknowledged and the mounted copy.
fn cut(dir: &Path, writes_for: Duration, unsynced: bool) -> (Acked, Mounted) {
    let image = dir.join("disk.ext4");
    std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
    run("mkfs.ext4", &["-q", "-F", text(&image)]);
    let disk = Mounted::new(&image, &dir.join("disk"));
    // The empty file system is on the disk: what follows is the writer's doing.
    run("sync", &["-f", text(&disk.0)]);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writer", "--nocapture"]).env(WRITER, &disk.0).stdout(Stdio::piped());
    if unsynced {
        command.env(UNSYNCED, "1");
    }
    let mut writer = Writer(command.spawn().unwrap());
    let lines = BufReader::new(writer.0.stdout.take().unwrap()).lines();
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    let reader = std::thread::spawn(move || {
        let mut acked = Acked::default();
        for line in lines.map_while(Result::ok) {
            acked.read(&line);
            counter.fetch_add(1, Ordering::Relaxed);
        }
        acked
    });
    let begun = std::time::Instant::now();
    while begun.elapsed() < writes_for || seen.load(Ordering::Relaxed) < 20 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the writer does not write");
        std::thread::sleep(Duration::from_millis(10));
    }
    run("kill", &["-STOP", &writer.0.id().to_string()]);
    let copy = dir.join("copy.ext4");
    run("cp", &["--sparse=always", text(&image), text(&copy)]);
    drop(writer);
    let acked = reader.join().unwrap();
    drop(disk);
    (acked, Mounted::new(&copy, &dir.join("copy")))
}

async fn check(copy: &Path, acked: Acked) {
    // Twice: what the first opening repairs must hold, too.
    for _ in 0..2 {
        let log = SledLog::open(&copy.join("raft")).await.expect("a log that was cut off opens");
        let (first, last) = log.bounds().await.unwrap().expect("it has entries");
        assert!(last >= acked.entry, "acknowledged up to {}, the log ends at {last}", acked.entry);
        // The last purge may be on the disk though nobody was told yet: the log's own record says how far it may begin.
        let purged = log.read_meta(Meta::Purged).await.unwrap();
        let purged: u64 = purged.map_or(0, |v| String::from_utf8_lossy(&v).parse().unwrap());
        assert!(purged >= acked.purged, "purged up to {} was acknowledged, {purged} is there", acked.purged);
        assert!(first <= purged + 1, "purged up to {purged}, begins at {first}");
        let entries = log.read(first..last + 1, usize::MAX).await.unwrap();
        assert_eq!(entries.len() as u64, last + 1 - first);
        for (index, entry) in (first..).zip(&entries) {
            assert!(*entry == content(index), "entry {index} has changed");
        }
        let vote = log.read_meta(Meta::Vote).await.unwrap();
        let vote: u64 = vote.map_or(0, |v| String::from_utf8_lossy(&v).parse().unwrap());
        assert!(vote >= acked.vote, "vote {} was acknowledged, {vote} is there", acked.vote);
        let blobs = std::fs::read_dir(copy.join("raft/log/blobs")).map_or(0, Iterator::count);
        assert_eq!(blobs, 0, "sled wrote blob files, which it never syncs");
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    let cuts: u64 = std::env::var("POWER_CUTS").ok().map_or(3, |v| v.parse().expect("POWER_CUTS is a number"));
    for n in 0..cuts {
        let dir = tempfile::tempdir().unwrap();
        let (acked, copy) = cut(dir.path(), Duration::from_millis(300 + (n * 677) % 2400), false);
        assert!(acked.entry > 0, "nothing was acknowledged before the cut");
        check(&copy.0, acked).await;
        println!("cut {n}: {acked:?} all there");
    }
}

/// The method must be able to see a loss: sled without our sync loses what it called flushed.
#[tokio::test]
async fn the_method_sees_what_sled_alone_loses() {
    let dir = tempfile::tempdir().unwrap();
    let (acked, copy) = cut(dir.path(), Duration::from_millis(1500), true);
    let path = copy.0.join("sled");
    let found = std::panic::catch_unwind(|| sled::open(path).map_or(0, |db| db.len())).unwrap_or(0);
    println!("sled alone: {} flushed, {found} found", acked.entry);
    assert!((found as u64) < acked.entry, "this cut lost nothing, so the other test proves nothing");
}
