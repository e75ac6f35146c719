//! One module for each noun.

pub(crate) mod backup;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod events;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod join_token;
pub(crate) mod node;
pub(crate) mod plan;
pub(crate) mod rebalance;
pub(crate) mod secret;
mod secret_or_config;
pub(crate) mod service;
pub(crate) mod simulate;
pub(crate) mod swarm;
pub(crate) mod swarm_ca;
mod swarm_policy;
pub(crate) mod system;
pub(crate) mod tasks;
pub(crate) mod unlock;
pub(crate) mod version;
pub(crate) mod why;

use crate::opts;

/// The flags of every `ls`.
#[derive(clap::Args, Debug)]
pub(crate) struct LsArgs {
    /// Filter output based on conditions provided
    #[arg(short, long, value_parser = opts::filter, value_name = "filter")]
    pub(crate) filter: Vec<(String, String)>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Only display IDs
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
