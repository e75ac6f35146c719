//! `swarmlite dev`: a cluster on this machine, for trying things out.
//!
//! Real `swarmlite daemon` processes, each on a loopback address, a socket and a data directory of its own, all with one
//! Docker Engine: a node tells its containers from the others' by their label. Everything is under one directory.

// This supervises processes of the real machine; no part of a node, and nothing that the simulation could reach.
#![allow(clippy::disallowed_methods)]

mod api;
mod down;
mod error;
mod nodes;
mod process;
mod show;
mod state;
mod up;

use api::Api;
use error::DevError;

use crate::error::CliError;
use clap::{Args, Subcommand, ValueEnum};
use seams::Tasks;
use std::path::PathBuf;
use std::process::ExitCode;

/// `swarmlite dev …`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Directory of the cluster [default: $XDG_STATE_HOME/swarmlite/dev]
    #[arg(long, global = true, value_name = "DIR", env = "SWARMLITE_DEV_DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: DevCommand,
}

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
enum DevCommand {
    /// Bring up a cluster on this machine
    Up(UpArgs),
    /// List the nodes of the cluster
    Ls(LsArgs),
    /// Kill a node at once, as a power cut would
    Kill(KillArgs),
    /// Stop a node in good order; its containers keep running
    Stop(NodeArgs),
    /// Start a stopped or killed node again (all of them when none is named)
    Start(StartArgs),
    /// Kill all nodes, and remove their containers and data
    Down,
}

/// `swarmlite dev up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Number of managers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    managers: u8,
    /// Number of workers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=50))]
    workers: u8,
    /// Container engine of the nodes: Docker, or one in memory that runs nothing
    #[arg(long, default_value = "docker")]
    engine: EngineKind,
    /// The Docker Engine's socket
    #[arg(long, value_name = "URL", env = "DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
    docker_host: String,
}

/// `swarmlite dev ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only display names
    #[arg(short, long)]
    quiet: bool,
}

/// `swarmlite dev kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// A node's name, or `leader`
    #[arg(value_name = "NODE")]
    node: String,
    /// Kill its containers too, as when the machine is gone
    #[arg(long)]
    containers: bool,
}

/// A node.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// A node's name, or `leader`
    #[arg(value_name = "NODE")]
    node: String,
}

/// `swarmlite dev start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// A node's name
    #[arg(value_name = "NODE")]
    node: Option<String>,
}

/// Container engine of the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineKind {
    /// The Docker Engine.
    Docker,
    /// In memory.
    Embedded,
}

/// Runs `swarmlite dev …`; what it says goes to standard output, signs of progress to standard error.
pub(crate) async fn command(args: DevArgs) -> Result<ExitCode, CliError> {
    let tasks = Tasks::new();
    let api = Api::new(seams::real::seams().net, tasks.clone());
    let outcome = run(&api, args).await;
    tasks.stop();
    outcome.map(|()| ExitCode::SUCCESS).map_err(|error| CliError::text(error.to_string()))
}

async fn run(api: &Api, args: DevArgs) -> Result<(), DevError> {
    let dir = match args.dir {
        Some(dir) => dir,
        None => state::default_dir()?,
    };
    let place = state::Place::open(&dir)?;
    match args.command {
        DevCommand::Up(args) => up::up(api, &place, &args).await,
        DevCommand::Ls(args) => show::ls(api, &place, args.quiet).await,
        DevCommand::Kill(args) => nodes::kill(api, &place, &args.node, args.containers).await,
        DevCommand::Stop(args) => nodes::stop(api, &place, &args.node).await,
        DevCommand::Start(args) => nodes::start(api, &place, args.node.as_deref()).await,
        DevCommand::Down => down::down(&place).await,
    }
}

// === impl EngineKind ===

impl EngineKind {
    /// As the daemon's flag takes it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Embedded => "embedded",
        }
    }
}
