//! Child processes: with their output on the terminal, or in a log file with signs of life.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a step in the background says that it is still at it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// How often a child in the background is looked at.
const POLL: Duration = Duration::from_millis(50);

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The target directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// `cargo`, at the top of the repository, with no standard input. It calls itself as plain `cargo` does: the variables
/// that the outer cargo sets would make it build everything anew.
pub(crate) fn cargo<S: AsRef<str>>(args: &[S]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let inherited = name.to_string_lossy();
        if inherited.starts_with("CARGO_PKG_")
            || inherited == "CARGO_MANIFEST_DIR"
            || inherited == "CARGO_MANIFEST_PATH"
        {
            command.env_remove(name);
        }
    }
    command.args(args.iter().map(AsRef::as_ref)).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs a command with its output where ours goes.
pub(crate) fn show(command: &mut Command) -> Result<(), String> {
    let name = describe(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{name}` failed: {status}")),
        Err(error) => Err(format!("cannot start `{name}`: {error}")),
    }
}

/// Runs a command and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let name = describe(command);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot start `{name}`: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("`{name}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// What a command in the background left behind.
pub(crate) struct Logged {
    /// Whether it succeeded in time.
    pub(crate) ok: bool,
    /// Everything it said.
    pub(crate) log: String,
    /// Where that is kept.
    pub(crate) path: PathBuf,
}

/// Runs a command with its output in a log file; says every half minute what it is at; kills it, with its children,
/// when its time is up.
pub(crate) fn logged(command: &mut Command, name: &str, limit: Duration) -> Result<Logged, String> {
    let directory = target().join("xtask");
    fs::create_dir_all(&directory).map_err(|error| format!("cannot create {}: {error}", directory.display()))?;
    let path = directory.join(format!("{name}.log"));
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    let log = File::create(&path).map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("cannot start `{}`: {error}", describe(command)))?;
    let status = wait(&mut child, &path, limit)?;
    let mut log = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(failed)?;
    if status.is_none() {
        log.push_str(&format!("\nkilled: it had {} s\n", limit.as_secs()));
    }
    Ok(Logged { ok: status.is_some_and(|status| status.success()), log, path })
}

fn wait(child: &mut Child, log: &Path, limit: Duration) -> Result<Option<ExitStatus>, String> {
    let started = Instant::now();
    let mut said = started;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(Some(status));
        }
        if started.elapsed() > limit {
            kill_group(child.id());
            let _ = child.wait();
            return Ok(None);
        }
        if said.elapsed() >= SIGN_OF_LIFE {
            said = Instant::now();
            println!("          … {:4} s: {}", started.elapsed().as_secs(), last_line(log));
        }
        std::thread::sleep(POLL);
    }
}

fn kill_group(pid: u32) {
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{pid}")]).stderr(Stdio::null()).status();
}

fn last_line(path: &Path) -> String {
    let mut tail = String::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(2000)));
        let mut bytes = Vec::new();
        let _ = file.read_to_end(&mut bytes);
        tail = String::from_utf8_lossy(&bytes).into_owned();
    }
    let line = tail.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(nothing yet)").trim();
    line.chars().take(100).collect()
}

/// The last lines of a log, for a report.
pub(crate) fn tail(log: &str, lines: usize) -> String {
    let all: Vec<&str> = log.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Whether a program is on the path.
pub(crate) fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .any(|directory| directory.join(program).is_file())
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_takes_too_long_is_killed_with_its_children() {
        let outcome = logged(
            Command::new("sh").args(["-c", "sleep 600 & echo $!; wait"]),
            "run-test-timeout",
            Duration::from_millis(300),
        )
        .expect("starts");
        assert!(!outcome.ok);
        assert!(outcome.log.contains("killed: it had 0 s"), "{}", outcome.log);
        let child = outcome.log.lines().next().expect("the child's id").to_string();
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            !alive(&child)
        });
        assert!(gone, "process {child} is still there");
    }

    fn alive(pid: &str) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn a_log_keeps_both_outputs() {
        let outcome = logged(
            Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]),
            "run-test-log",
            Duration::from_secs(10),
        )
        .expect("starts");
        assert!(!outcome.ok);
        assert_eq!(tail(&outcome.log, 1), "two");
        assert!(outcome.log.starts_with("one\n"));
    }
}
