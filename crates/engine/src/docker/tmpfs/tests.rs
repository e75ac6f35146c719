use super::*;
use model::Data;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

/// A run directory on the tmpfs that every Linux has, removed with what was mounted in it.
struct Run {
    base: PathBuf,
    files: TmpfsFiles,
}

impl Run {
    fn new() -> Run {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = PathBuf::from(format!("/dev/shm/swarmlite-test-{}-{number}", std::process::id()));
        let files = TmpfsFiles::new(&base);
        Run { base, files }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _not_mounted = rustix::mount::unmount(self.base.join("n1"), UnmountFlags::DETACH);
        fs::remove_dir_all(&self.base).unwrap_or_else(|e| eprintln!("{} is left: {e}", self.base.display()));
    }
}

fn place(owner: &str) -> FilePlace {
    FilePlace::new("n1", owner).unwrap()
}

fn file(path: &str, mode: u32, text: &str) -> HostFile {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    HostFile { path: path.into(), uid, gid, mode, data: Data::of_secret(text.as_bytes()).ok() }
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[tokio::test]
async fn attack_24_files_are_in_memory_and_only_as_open_as_they_should_be() {
    let run = Run::new();
    let files = [
        file("/run/secrets/key", 0o400, "one"),
        file("/run/secrets/a/b/c", 0o444, "two"),
        file("/etc/conf", 0o640, "three"),
    ];
    let mounts = run.files.put(&place("t1"), &files).await.unwrap();
    let dir = run.base.join("n1/t1");
    let at = |p: &str| dir.join(p).display().to_string();
    let mount = |source: &str, target: &str| FileMount { source: at(source), target: target.into() };
    assert_eq!(mounts, [mount("secrets", "/run/secrets"), mount("files/2", "/etc/conf")]);
    assert!(is_in_memory(&dir).unwrap() && is_in_memory(Path::new(&at("secrets/key"))).unwrap());
    for (path, expected, text) in
        [("secrets/key", 0o400, "one"), ("secrets/a/b/c", 0o444, "two"), ("files/2", 0o640, "three")]
    {
        assert_eq!((mode(at(path)), fs::read_to_string(at(path)).unwrap().as_str()), (expected, text));
    }
    // Nobody but us comes this far on the machine; in the container the directory of secrets is open, the files are not.
    assert_eq!([mode(run.base.join("n1")), mode(&dir), mode(at("files"))], [0o700; 3]);
    assert_eq!([mode(at("secrets")), mode(at("secrets/a/b"))], [0o755; 2]);
    assert!(!dir.join("new").exists());
    if rustix::process::getuid().is_root() {
        let options = rustix::fs::statvfs(run.base.join("n1")).unwrap().f_flag;
        let wanted = rustix::fs::StatVfsMountFlags::NOSUID
            | rustix::fs::StatVfsMountFlags::NODEV
            | rustix::fs::StatVfsMountFlags::NOEXEC;
        assert!(options.contains(wanted), "{options:?}");
    }
}

/// The first tasks of a node begin together: what one of them was given must not be under the mount of another.
#[test]
fn attack_24_tasks_that_begin_together_share_one_mount() {
    for _ in 0..50 {
        let run = Run::new();
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (files, start) = (&run.files, &start);
                scope.spawn(move || {
                    start.wait();
                    files.put_now(&place(&format!("t{n}")), &[file("/run/secrets/key", 0o400, "one")]).unwrap();
                });
            }
        });
        let space = run.base.join("n1");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = mounts.lines().filter(|l| l.split(' ').nth(4).is_some_and(|at| Path::new(at) == space)).count();
        assert!(here <= 1, "{here} mounts at {}", space.display());
        let owners = fs::read_dir(&space).unwrap().count();
        assert_eq!(owners, 4, "what was put is there");
    }
}

#[tokio::test]
async fn what_is_equal_stays_and_what_changed_is_seen_through_a_mount() {
    let run = Run::new();
    let t1 = place("t1");
    let first = [file("/run/secrets/key", 0o400, "one"), file("/etc/conf", 0o444, "two, and long")];
    run.files.put(&t1, &first).await.unwrap();
    let (secret, single) = (run.base.join("n1/t1/secrets/key"), run.base.join("n1/t1/files/1"));
    let before = (inode(&secret), inode(&single));
    run.files.put(&t1, &first).await.unwrap();
    let kept = first.clone().map(|f| HostFile { data: None, ..f });
    run.files.put(&t1, &kept).await.unwrap();
    assert_eq!((inode(&secret), inode(&single)), before);
    // A file that is mounted itself must stay the same one; one in a mounted directory is replaced as a whole.
    run.files.put(&t1, &[file("/run/secrets/key", 0o440, "uno"), file("/etc/conf", 0o444, "due")]).await.unwrap();
    assert_eq!(
        (fs::read_to_string(&secret).unwrap(), fs::read_to_string(&single).unwrap()),
        ("uno".into(), "due".into())
    );
    assert_eq!((mode(&secret), inode(&single)), (0o440, before.1));
    // What is gone cannot be kept.
    fs::remove_file(&secret).unwrap();
    let error = run.files.put(&t1, &kept).await.unwrap_err().to_string();
    assert!(error.ends_with("is gone, and so is what it was made from"), "{error}");
}

#[tokio::test]
async fn places_are_noted_listed_removed_and_cleared() {
    let run = Run::new();
    assert_eq!(run.files.list("n1").await.unwrap(), Vec::<String>::new());
    assert_eq!(run.files.mark_of(&place("t1")).await.unwrap(), None);
    run.files.remove(&place("t1")).await.unwrap();
    for owner in ["t2", "t1"] {
        run.files.put(&place(owner), &[file("/run/secrets/key", 0o400, "one")]).await.unwrap();
    }
    run.files.mark(&place("t1"), "v1").await.unwrap();
    assert_eq!(run.files.mark_of(&place("t1")).await.unwrap().as_deref(), Some("v1"));
    // Another process of this node finds what is there.
    let again = TmpfsFiles::new(&run.base);
    assert_eq!(again.list("n1").await.unwrap(), ["t1", "t2"]);
    again.put(&place("t1"), &[file("/run/secrets/key", 0o400, "one")]).await.unwrap();
    assert_eq!(again.list("n1").await.unwrap(), ["t1", "t2"]);
    again.remove(&place("t1")).await.unwrap();
    assert_eq!(again.list("n1").await.unwrap(), ["t2"]);
    again.clear("n1").await.unwrap();
    assert!(!run.base.join("n1").exists());
    again.clear("n1").await.unwrap();
}

#[tokio::test]
async fn attack_23_links_and_strange_names_lead_nowhere() {
    let run = Run::new();
    let t1 = place("t1");
    run.files.put(&t1, &[file("/etc/conf", 0o444, "one")]).await.unwrap();
    let victim = run.base.join("victim");
    fs::write(&victim, "untouched").unwrap();
    let (single, scratch) = (run.base.join("n1/t1/files/0"), run.base.join("n1/t1/new"));
    fs::remove_file(&single).unwrap();
    symlink(&victim, &single).unwrap();
    assert!(run.files.put(&t1, &[file("/etc/conf", 0o444, "two")]).await.is_err());
    symlink(&victim, &scratch).unwrap();
    assert!(run.files.put(&t1, &[file("/run/secrets/key", 0o444, "two")]).await.is_err());
    symlink("/etc", run.base.join("n1/t1/secrets/dir")).unwrap();
    let error = run.files.put(&t1, &[file("/run/secrets/dir/passwd", 0o444, "two")]).await.unwrap_err();
    assert!(error.to_string().contains("it is no directory"), "{error}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    for bad in ["", "..", ".", "a/b", "A", "/", "a\0", "x".repeat(65).as_str()] {
        assert!(FilePlace::new(bad, "t1").is_err() && FilePlace::new("n1", bad).is_err(), "{bad:?}");
        assert!(run.files.list(bad).await.is_err() && run.files.clear(bad).await.is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn an_engine_elsewhere_is_refused_in_clear_words() {
    let none = NoFiles { endpoint: "tcp://10.0.0.9:2375".into() };
    let error = none.put(&place("t1"), &[file("/run/secrets/key", 0o400, "one")]).await.unwrap_err();
    assert!(matches!(&error, EngineError::Refused(why) if why.contains("tcp://10.0.0.9:2375 may be another machine")));
    assert_eq!((none.list("n1").await, none.clear("n1").await), (Ok(Vec::new()), Ok(())));
}
