//! Command lines against a node's socket: the unmodified `docker`, and `swarmlite`.

use crate::node::{Node, binary};
use crate::{Outcome, wait};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// No command takes longer, progress displays included.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// A command line.
#[derive(Debug, Clone)]
pub struct Cli {
    program: PathBuf,
    /// Where `docker` looks for its configuration: nowhere near the user's.
    config: PathBuf,
    /// More of its environment.
    env: Vec<(String, String)>,
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Done {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

// === impl Cli ===

impl Cli {
    /// The unmodified `docker` on the path.
    pub fn docker() -> Self {
        Self::of(PathBuf::from("docker"))
    }

    /// The product's own.
    pub fn swarmlite() -> Self {
        Self::of(binary())
    }

    fn of(program: PathBuf) -> Self {
        Self { program, config: std::env::temp_dir().join("swarmlite-test-docker-config"), env: Vec::new() }
    }

    /// The same with one more variable in its environment.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// What it is called.
    pub fn name(&self) -> String {
        self.program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Runs a command on a node; its outcome is the caller's to judge.
    pub async fn run(&self, node: &Node, args: &[&str]) -> Outcome<Done> {
        self.run_with(node, args, "").await
    }

    /// The same with something on standard input.
    pub async fn run_with(&self, node: &Node, args: &[&str], stdin: &str) -> Outcome<Done> {
        self.run_at(&node.host(), args, stdin).await
    }

    /// The same at any address.
    pub async fn run_at(&self, host: &str, args: &[&str], stdin: &str) -> Outcome<Done> {
        use tokio::io::AsyncWriteExt;
        let mut all: Vec<OsString> = vec!["-H".into(), host.into()];
        all.extend(args.iter().map(OsString::from));
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&all).env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").env("DOCKER_CONFIG", &self.config);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let words = format!("{} {}", self.name(), args.join(" "));
        let mut child = command.spawn().map_err(|error| format!("cannot start {words}: {error}"))?;
        if let Some(mut pipe) = child.stdin.take() {
            // A command that does not read its input closes it.
            let _ = pipe.write_all(stdin.as_bytes()).await;
        }
        let output = tokio::time::timeout(COMMAND_LIMIT, child.wait_with_output()).await;
        let output = output
            .map_err(|_| format!("`{words}` took longer than {COMMAND_LIMIT:?}"))?
            .map_err(|error| error.to_string())?;
        Ok(Done {
            command: words,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that must succeed; returns its standard output.
    pub async fn ok(&self, node: &Node, args: &[&str]) -> Outcome<String> {
        let done = self.run(node, args).await?;
        if done.code == 0 { Ok(done.stdout) } else { Err(done.report("it should succeed")) }
    }

    /// Runs a command that must fail with this code, saying this.
    pub async fn fails(&self, node: &Node, args: &[&str], code: i32, says: &str) -> Outcome<()> {
        let done = self.run(node, args).await?;
        if done.code != code {
            return Err(done.report(&format!("its exit code should be {code}")));
        }
        if done.stderr.contains(says) { Ok(()) } else { Err(done.report(&format!("it should say {says:?}"))) }
    }

    /// Runs a command until its output satisfies a condition.
    pub async fn until(&self, node: &Node, args: &[&str], what: &str, good: impl Fn(&str) -> bool) -> Outcome<String> {
        wait::until(what, Duration::from_secs(60), || async {
            let output = self.ok(node, args).await?;
            if good(&output) {
                Ok(output)
            } else {
                Err(format!("`{} {}` prints:\n{output}", self.name(), args.join(" ")))
            }
        })
        .await
    }
}

// === impl Done ===

impl Done {
    /// A message about it.
    pub fn report(&self, what: &str) -> String {
        format!("`{}`: {what}; its code is {}, and it says:\n{}{}", self.command, self.code, self.stdout, self.stderr)
    }
}
