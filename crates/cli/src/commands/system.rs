//! `swarmlite system`.

use super::{events, info};
use clap::Subcommand;

/// The verbs of `system`.
#[derive(Subcommand, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) enum SystemCommand {
    /// Get real time events from the daemon
    Events(events::EventsArgs),
    /// Display system-wide information
    Info(info::InfoArgs),
}
