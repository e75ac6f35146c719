//! `swarmlite backup`, `swarmlite restore`, and `swarm rotate-gossip-key`.

use crate::client::decode;
use crate::context::Context;
use crate::error::CliError;
use crate::format::count;
use bytes::{Bytes, BytesMut};
use clap::{Args, Subcommand};
use node::backup::{BACKUP_BYTES_MAX, Backup, BackupKey};
use node::{DATA_PATH_PORT, GOSSIP_PORT, NodeConfig};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How long `rotate-gossip-key` watches. A node that says nothing holds each of the two waits up for ten minutes.
const WATCH_MAX: Duration = Duration::from_secs(25 * 60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// The verbs of `backup`.
#[derive(Subcommand, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) enum BackupCommand {
    /// Write the swarm's whole state into a sealed file, while the swarm runs (on a manager)
    Create(CreateArgs),
    /// Open a backup and check that it can be restored; needs no daemon
    Verify(VerifyArgs),
}

/// `backup create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// File with the key (SWMBAK-1-…) to seal it under; without it a new key is made, and shown once
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The file to write; it must not be there yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Where the key to open a backup with may be, besides the flags.
const KEY_ENV: &str = "SWARMLITE_BACKUP_KEY";

/// Where the key to open a backup with is.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct KeyArgs {
    /// The backup's key (SWMBAK-1-…); other users of this machine can see it here, unlike in a file [env: SWARMLITE_BACKUP_KEY]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// File with the backup's key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// `backup verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// `restore`.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Directory for the new manager's state; it must be empty or not there
    #[arg(long, env = "SWARMLITE_DATA_DIR", value_name = "DIR", default_value = "/var/lib/swarmlite")]
    data_dir: PathBuf,
    /// Address that other nodes' connections are accepted on, as <ip|interface>[:port]
    #[arg(long, env = "SWARMLITE_LISTEN_ADDR", value_name = "ADDR", default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// Address that other nodes reach the new manager at, as <ip|interface>[:port]; with that of a former manager, workers come back by themselves
    #[arg(long, env = "SWARMLITE_ADVERTISE_ADDR", value_name = "ADDR", default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// UDP port of gossip, on the listen address
    #[arg(long, env = "SWARMLITE_GOSSIP_PORT", value_name = "PORT", default_value_t = GOSSIP_PORT)]
    gossip_port: u16,
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// `swarm rotate-gossip-key`.
#[derive(Args, Debug)]
pub(crate) struct RotateGossipKeyArgs {
    /// Exit immediately instead of waiting until every node uses the new key
    #[arg(short, long)]
    detach: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Gossip {
    keys: Vec<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Rotation {
    replaces: u32,
}

/// Runs a verb of `backup`.
pub(crate) async fn run(ctx: &Context, command: BackupCommand) -> Result<(), CliError> {
    match command {
        BackupCommand::Create(args) => create(ctx, &args).await,
        BackupCommand::Verify(args) => {
            let backup = open(ctx, &args.file, &args.key).await?;
            ctx.line(describe(&backup))
        }
    }
}

async fn create(ctx: &Context, args: &CreateArgs) -> Result<(), CliError> {
    let path = absolute(&args.file)?;
    let disk = |e: std::io::Error| CliError::text(format!("cannot write {}: {e}", path.display()));
    if ctx.disk.read(&path).await.map_err(disk)?.is_some() {
        return Err(CliError::text(format!("{} is there already: give the name of a new file", path.display())));
    }
    let (key, is_new) = match &args.key_file {
        Some(file) => (key_of(&ctx.read_text(file).await?)?, false),
        None => (BackupKey::generate(&*seams::real::seams().rand), true),
    };
    let request = serde_json::json!({ "Key": key.to_text() });
    let mut answer = ctx.client.post_stream("/swarmlite/backup", &request).await?;
    let mut file = BytesMut::new();
    while let Some(piece) = answer.next().await? {
        if file.len() + piece.len() > BACKUP_BYTES_MAX {
            return Err(CliError::text("the backup is larger than any can be: nothing was written"));
        }
        file.extend_from_slice(&piece);
    }
    ctx.disk.write_atomic(&path, file.freeze(), 0o600).await.map_err(disk)?;
    // What is on the disk counts, not what was sent.
    let written = ctx.disk.read(&path).await.map_err(disk)?.unwrap_or_default();
    let backup = Backup::open(&written, &key).map_err(|e| {
        CliError::text(format!("{} was written and cannot be used: {e}; remove it and try again", path.display()))
    })?;
    ctx.line(format_args!(
        "{}\nWritten to {} ({} bytes) and verified.",
        describe(&backup),
        path.display(),
        written.len()
    ))?;
    ctx.line("It holds everything of the swarm: the root key, the join tokens, the unlock key, all secrets.")?;
    if is_new {
        ctx.line(format_args!(
            "\nIt opens only with this key, which is not kept anywhere and not shown again:\n\n    {}\n\nKeep the key, and apart from the file.",
            key.to_text()
        ))?;
    }
    Ok(())
}

/// Prepares a data directory from a backup. Needs no daemon; none may run on the directory.
pub(crate) async fn restore(ctx: &Context, args: RestoreArgs) -> Result<(), CliError> {
    let key = args.key.read(ctx).await?;
    let file = read(ctx, &args.file).await?;
    let data_dir = absolute(&args.data_dir)?;
    let config = NodeConfig {
        listen_addr: args.listen_addr,
        advertise_addr: args.advertise_addr,
        gossip_port: args.gossip_port,
        data_path_port: DATA_PATH_PORT,
        ..NodeConfig::new(&data_dir)
    };
    let restored = node::backup::restore_here(&file, &key, &config).await;
    let restored = restored.map_err(|e| {
        let text = e.to_string();
        let hint = if text.contains("IP address to advertise") { " - specify one with --advertise-addr" } else { "" };
        CliError::text(format!("{text}{hint}"))
    })?;
    let backup = Backup { head: restored.head, state: restored.state };
    ctx.line(describe(&backup))?;
    ctx.line(format_args!(
        "Restored into {}: node {} is its only manager, at {}.\n\nStart the daemon on that directory:\n\n    swarmlite daemon --data-dir {}\n",
        data_dir.display(),
        restored.node_id,
        restored.advertise_addr,
        data_dir.display()
    ))?;
    if backup.state.cluster().is_some_and(|c| c.security.unlock_key.is_some()) {
        ctx.line("The swarm is locked: the manager needs its unlock key first (swarmlite swarm unlock).")?;
    }
    ctx.line(
        "Former managers are workers in it. Wipe the data directory of each before its daemon starts again (or never start it), and join it anew.",
    )
}

// === impl KeyArgs ===

impl KeyArgs {
    /// The key; the environment counts where there is no flag.
    async fn read(&self, ctx: &Context) -> Result<BackupKey, CliError> {
        match (&self.key, &self.key_file) {
            (Some(text), _) => key_of(text),
            (None, Some(file)) => key_of(&ctx.read_text(file).await?),
            (None, None) => match std::env::var(KEY_ENV).ok().filter(|text| !text.is_empty()) {
                Some(text) => key_of(&text),
                None => Err(CliError::text(format!("the backup's key is needed: --key, --key-file or {KEY_ENV}"))),
            },
        }
    }
}

fn key_of(text: &str) -> Result<BackupKey, CliError> {
    BackupKey::parse(text).map_err(|e| CliError::text(e.to_string()))
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|e| CliError::text(format!("{} is no path: {e}", path.display())))
}

async fn read(ctx: &Context, path: &Path) -> Result<Bytes, CliError> {
    let fail = |reason: String| CliError::text(format!("cannot read {}: {reason}", path.display()));
    let read = ctx.disk.read(path).await.map_err(|e| fail(e.to_string()))?;
    read.ok_or_else(|| fail("no such file or directory".into()))
}

async fn open(ctx: &Context, path: &Path, key: &KeyArgs) -> Result<Backup, CliError> {
    let (key, file) = (key.read(ctx).await?, read(ctx, path).await?);
    Backup::open(&file, &key).map_err(|e| CliError::text(format!("{}: {e}", path.display())))
}

fn describe(backup: &Backup) -> String {
    let (head, state) = (&backup.head, &backup.state);
    let at = i64::try_from(head.created_at).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    format!(
        "Backup of swarm {}, made {} by node {} (version {}) at log index {}: {}, {}, {}, {}, {}.",
        head.cluster_id,
        at.map_or_else(|| "at an unknown time".to_owned(), |at| at.to_string()),
        head.node_id,
        head.version,
        head.index,
        count(state.nodes().len(), "node"),
        count(state.services().len(), "service"),
        count(state.tasks().len(), "task"),
        count(state.secrets().len(), "secret"),
        count(state.configs().len(), "config")
    )
}

/// `swarm rotate-gossip-key`
pub(crate) async fn rotate_gossip_key(ctx: &Context, args: &RotateGossipKeyArgs) -> Result<(), CliError> {
    let answer = ctx.client.post("/swarmlite/gossip/rotate", &[], &serde_json::json!({})).await?;
    let rotation: Rotation = decode("POST /swarmlite/gossip/rotate", &answer)?;
    if args.detach {
        return ctx.line("A new gossip key is being made and handed out.");
    }
    let (begun, mut said) = (Instant::now(), None);
    loop {
        let gossip: Gossip = ctx.client.get("/swarmlite/gossip", &[]).await?;
        let step = match gossip.keys[..] {
            [only] if only > rotation.replaces => {
                return ctx.line(format!("Gossip key {only} has replaced key {}.", rotation.replaces));
            }
            [first, ..] if first > rotation.replaces => "every node is to seal with the new key",
            [_, _, ..] => "every node is to get the new key",
            _ => "a new key is to be made",
        };
        if said.replace(step) != Some(step) {
            ctx.note(format_args!("waiting: {step}"));
        }
        if begun.elapsed() > WATCH_MAX {
            return Err(CliError::text(format!(
                "still waiting after {WATCH_MAX:?}: {step}; it goes on without this command (see /swarmlite/gossip)"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}
