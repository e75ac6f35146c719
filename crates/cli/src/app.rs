//! The command tree, and the way from a command line to a command.

use crate::client::{Client, DEFAULT_HOST, Host};
use crate::commands::{
    backup, completion, config, events, info, node, secret, service, simulate, swarm, system, version, why,
};
use crate::context::Context;
use crate::error::CliError;
use crate::tls::{Tls, TlsArgs};
use crate::{daemon, dev, opts, usage};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use seams::Tasks;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Docker Swarm, built again: keeps services running on a group of Docker hosts.
#[derive(Parser, Debug)]
#[command(
    name = "swarmlite",
    version,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct Global {
    /// Daemon socket to connect to
    #[arg(short = 'H', long = "host", env = "SWARMLITE_HOST", default_value = DEFAULT_HOST, value_name = "HOST")]
    host: String,
    /// Print debug messages
    #[arg(short = 'D', long = "debug")]
    debug: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the Swarmlite daemon: one on every node
    Daemon(Box<daemon::DaemonArgs>),
    /// Manage the swarm
    #[command(subcommand)]
    Swarm(swarm::SwarmCommand),
    /// Initialize a swarm (short for `swarm init`)
    Init(Box<swarm::InitArgs>),
    /// Join a swarm (short for `swarm join`)
    Join(swarm::JoinArgs),
    /// Leave the swarm (short for `swarm leave`)
    Leave(swarm::LeaveArgs),
    /// Manage the nodes of the swarm
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Manage secrets
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Manage configs
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Manage services
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Look at tasks
    #[command(subcommand)]
    Task(why::TaskCommand),
    /// Show where everything would land if nodes were lost or drained, or services scaled; changes nothing
    Simulate(simulate::SimulateArgs),
    /// Display system-wide information
    Info(info::InfoArgs),
    /// Show the version of the command line and of the daemon
    Version(version::VersionArgs),
    /// Get real time events from the daemon
    Events(events::EventsArgs),
    /// Save the swarm's state in a file
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Make a manager out of a backup, after the swarm was lost
    Restore(backup::RestoreArgs),
    /// Look at the system
    #[command(subcommand)]
    System(system::SystemCommand),
    /// Run a cluster on this machine, for trying things out
    Dev(dev::DevArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man(completion::ManArgs),
}

/// For what still runs when a command is done: the last words of a connection.
const LINGER: Duration = Duration::from_millis(100);

/// The command tree as everything uses it: parsing, completion scripts and man pages.
pub(crate) fn command() -> clap::Command {
    as_go_parses(Cli::command())
}

/// Makes flags behave as Docker's users know them: a switch may be given a value (`--detach=false`), and the last of several
/// wins.
fn as_go_parses(command: clap::Command) -> clap::Command {
    // One display order for all: the help lists flags by their names, as Docker's.
    let command =
        command.args_override_self(true).mut_args(|arg| arg.display_order(0)).mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => arg
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value("false")
                .hide_default_value(true)
                .hide_possible_values(true)
                .value_name("bool")
                .value_parser(opts::go_bool),
            _ => arg,
        });
    command.mut_subcommands(as_go_parses)
}

/// Parses the command line and runs the command.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let mut command = command();
    let parsed = command
        .try_get_matches_from_mut(&args)
        .and_then(|matches| Cli::from_arg_matches(&matches).map_err(|e| e.with_cmd(&command)));
    match parsed {
        Ok(cli) => run(cli, &mut command, &args),
        Err(error) => usage::report(&error, &mut command, &args),
    }
}

fn run(cli: Cli, command: &mut clap::Command, args: &[OsString]) -> ExitCode {
    let is_server = matches!(cli.command, Command::Daemon(_));
    let mut builder = if is_server {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("cannot start the asynchronous runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(dispatch(cli));
    runtime.shutdown_timeout(LINGER);
    match result {
        Ok(code) => code,
        Err(error @ CliError::Argument { .. }) => {
            eprintln!("{error}\n\n{}", usage::usage_of(command, args));
            ExitCode::from(error.code())
        }
        Err(CliError::Silent(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.code())
        }
    }
}

async fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    let Cli { global, command } = cli;
    // What needs no daemon comes first, so that a wrong SWARMLITE_HOST is not in its way.
    match command {
        Command::Daemon(args) => return Ok(daemon::run(*args, global.debug).await),
        Command::Dev(args) => return dev::command(args).await,
        Command::Completion(args) => return completion::complete(&args).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => return completion::man(&args).map(|()| ExitCode::SUCCESS),
        _ => {}
    }
    let files = global.tls.files(|name| std::env::var(name).ok());
    let host = Host::parse(&global.host, files.is_some()).map_err(|e| CliError::text(e.to_string()))?;
    let seams = seams::real::seams();
    let tasks = Tasks::new();
    // As with docker, the certificates do not matter to a socket.
    let tls = match (&host, &files) {
        (Host::Tls { .. }, Some(files)) => Some(Tls::load(files, &*seams.disk).await?),
        _ => None,
    };
    let client = Client::new(host, tls, seams.net, tasks.clone());
    let ctx = Context { client, clock: seams.clock, disk: seams.disk };
    let result = client_command(&ctx, command).await;
    tasks.stop();
    result.map(|()| ExitCode::SUCCESS)
}

async fn client_command(ctx: &Context, command: Command) -> Result<(), CliError> {
    match command {
        Command::Swarm(command) => swarm::run(ctx, command).await,
        Command::Init(args) => swarm::run(ctx, swarm::SwarmCommand::Init(args)).await,
        Command::Join(args) => swarm::run(ctx, swarm::SwarmCommand::Join(args)).await,
        Command::Leave(args) => swarm::run(ctx, swarm::SwarmCommand::Leave(args)).await,
        Command::Node(command) => node::run(ctx, command).await,
        Command::Secret(command) => secret::run(ctx, command).await,
        Command::Config(command) => config::run(ctx, command).await,
        Command::Service(command) => service::run(ctx, command).await,
        Command::Task(why::TaskCommand::Why(args)) => why::run(ctx, "tasks", args).await,
        Command::Simulate(args) => simulate::run(ctx, args).await,
        Command::Info(args) => info::run(ctx, args).await,
        Command::Version(args) => version::run(ctx, args).await,
        Command::Events(args) => events::run(ctx, args).await,
        Command::Backup(command) => backup::run(ctx, command).await,
        Command::Restore(args) => backup::restore(ctx, args).await,
        Command::System(system::SystemCommand::Info(args)) => info::run(ctx, args).await,
        Command::System(system::SystemCommand::Events(args)) => events::run(ctx, args).await,
        Command::Daemon(_) | Command::Dev(_) | Command::Completion(_) | Command::Man(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn switches_take_a_value_as_in_go_and_the_last_one_wins() {
        let detach = |args: &[&str]| {
            let matches =
                command().try_get_matches_from([&["swarmlite", "service", "rollback"], args, &["web"]].concat());
            let matches = matches.unwrap();
            let (_, service) = matches.subcommand().unwrap();
            let (_, rollback) = service.subcommand().unwrap();
            (*rollback.get_one::<bool>("detach").unwrap(), *rollback.get_one::<bool>("quiet").unwrap())
        };
        assert_eq!(detach(&[]), (false, false));
        assert_eq!(detach(&["-d"]), (true, false));
        assert_eq!(detach(&["-dq"]), (true, true));
        assert_eq!(detach(&["--detach=false", "--quiet=1"]), (false, true));
        assert_eq!(detach(&["-d", "-d=false"]), (false, false));
    }

    proptest::proptest! {
        #[test]
        fn noise_on_the_command_line_never_panics(words in proptest::collection::vec("[-a-z=:,./0-9]{0,12}", 0..6), verb in 0usize..4) {
            let heads = ["swarmlite", "swarmlite service create", "swarmlite service update", "swarmlite node ls"];
            let head = heads[verb].split(' ');
            let args = head.map(str::to_owned).chain(words);
            let _ = command().try_get_matches_from(args).map(|m| Cli::from_arg_matches(&m));
        }
    }
}
