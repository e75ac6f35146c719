//! `swarmlite swarm unlock` and `swarmlite swarm unlock-key`.

use crate::commands::swarm::Info;
use crate::context::Context;
use crate::error::CliError;
use clap::Args;
use docker_api::{Swarm, UnlockKey};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal as _, Stdin, Write as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};

/// Longer than any key with its line end; the rest of a file that was given by mistake is not read.
const KEY_BYTES_MAX: u64 = 256;
/// The shells' code for what Ctrl-C has ended.
const EXIT_INTERRUPTED: u8 = 130;

/// `swarm unlock`.
#[derive(Args, Debug)]
pub(crate) struct UnlockArgs {}

/// `swarm unlock-key`.
#[derive(Args, Debug)]
pub(crate) struct UnlockKeyArgs {
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
    /// Rotate unlock key
    #[arg(long)]
    rotate: bool,
}

/// While it lives, what is typed is not shown.
struct Hidden<'a> {
    terminal: &'a Stdin,
    before: Termios,
}

/// Asks for the key, or reads it from a pipe, and unlocks this manager.
pub(crate) async fn unlock(ctx: &Context, _args: &UnlockArgs) -> Result<(), CliError> {
    let info: Info = ctx.client.get("/info", &[]).await?;
    match info.swarm.local_node_state.as_str() {
        "locked" => {}
        "inactive" => return Err(CliError::text("Error: This node is not part of a swarm")),
        _ => return Err(CliError::text("Error: swarm is not locked")),
    }
    let key = read_key("Enter unlock key: ").await;
    let key = key.map_err(|e| CliError::text(format!("cannot read the unlock key: {e}")))?;
    let key = key.ok_or(CliError::Silent(EXIT_INTERRUPTED))?;
    let request = UnlockKey { unlock_key: key.trim().to_owned().into() };
    ctx.client.post("/swarm/unlock", &[], &request).await?;
    Ok(())
}

/// Shows the key that unlocks managers, or makes a new one first.
pub(crate) async fn unlock_key(ctx: &Context, args: &UnlockKeyArgs) -> Result<(), CliError> {
    if args.rotate {
        let swarm: Swarm = ctx.client.get("/swarm", &[]).await?;
        if !swarm.spec.encryption_config.auto_lock_managers {
            return Err(CliError::text("cannot rotate because autolock is not turned on"));
        }
        let query = [
            ("version", swarm.version.index.to_string()),
            ("rotateWorkerToken", "false".to_owned()),
            ("rotateManagerToken", "false".to_owned()),
            ("rotateManagerUnlockKey", "true".to_owned()),
        ];
        ctx.client.post("/swarm/update", &query, &swarm.spec).await?;
        if !args.quiet {
            ctx.line("Successfully rotated manager unlock key.\n")?;
        }
    }
    let key = current(ctx).await?;
    if key.is_empty() {
        return Err(CliError::text("no unlock key is set"));
    }
    if args.quiet { ctx.line(key) } else { instructions(ctx, &key) }
}

/// What `init --autolock` and `update --autolock` end with.
pub(crate) async fn show(ctx: &Context) -> Result<(), CliError> {
    let key = current(ctx).await?;
    instructions(ctx, &key)
}

async fn current(ctx: &Context) -> Result<String, CliError> {
    let answer: UnlockKey = ctx.client.get("/swarm/unlockkey", &[]).await?;
    Ok(answer.unlock_key.0)
}

fn instructions(ctx: &Context, key: &str) -> Result<(), CliError> {
    ctx.line(format!(
        "To unlock a swarm manager after it restarts, run the `swarmlite swarm unlock`\ncommand and provide the following key:\n\n    \
         {key}\n\nRemember to store this key in a password manager, since without it you\nwill not be able to restart the manager."
    ))
}

/// A line of standard input; `None` when the user gave up (Ctrl-C).
async fn read_key(prompt: &str) -> std::io::Result<Option<String>> {
    let terminal = std::io::stdin();
    let mut input = BufReader::new(tokio::io::stdin().take(KEY_BYTES_MAX));
    let mut line = String::new();
    if !terminal.is_terminal() {
        input.read_line(&mut line).await?;
        return Ok(Some(line));
    }
    let mut screen = std::io::stderr();
    write!(screen, "{prompt}")?;
    screen.flush()?;
    // From before the echo goes: who is killed by the signal leaves a terminal behind that shows nothing.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let hidden = Hidden::begin(&terminal)?;
    let read = tokio::select! {
        biased;
        _ = interrupted.recv() => None,
        read = input.read_line(&mut line) => Some(read),
    };
    drop(hidden);
    // The line end that was not shown.
    writeln!(screen)?;
    read.transpose().map(|read| read.map(|_| line))
}

// === impl Hidden ===

impl<'a> Hidden<'a> {
    fn begin(terminal: &'a Stdin) -> std::io::Result<Hidden<'a>> {
        let before = tcgetattr(terminal)?;
        let mut without = before.clone();
        without.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &without)?;
        Ok(Hidden { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _gone = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
