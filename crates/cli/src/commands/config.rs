//! `swarmlite config`.

use super::LsArgs;
use super::inspect::InspectFlags;
use super::plan::PlanFlag;
use super::secret_or_config::{self as both, Create, Noun, Update};
use crate::context::Context;
use crate::error::CliError;
use crate::format::view::View;
use crate::opts;
use clap::{Args, Subcommand};

/// The verbs of `config`.
#[derive(Subcommand, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) enum ConfigCommand {
    /// Create a config from a file or STDIN
    Create(CreateArgs),
    /// Display detailed information on one or more configs
    Inspect(InspectArgs),
    /// List configs
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove one or more configs
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Change a config's labels or, from a file or STDIN, its content
    Update(UpdateArgs),
}

/// `config create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    plan: PlanFlag,
    /// Config labels
    #[arg(short, long, value_parser = opts::label, value_name = "list")]
    label: Vec<(String, String)>,
    /// Template driver
    #[arg(long, value_name = "string")]
    template_driver: Option<String>,
    /// Its name
    #[arg(value_name = "CONFIG")]
    config: String,
    /// Its content; `-` for STDIN
    #[arg(value_name = "file|-")]
    file: String,
}

/// `config inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    flags: InspectFlags,
    /// Configs
    #[arg(required = true, value_name = "CONFIG")]
    configs: Vec<String>,
}

/// `config rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    plan: PlanFlag,
    /// Configs
    #[arg(required = true, value_name = "CONFIG")]
    configs: Vec<String>,
}

/// `config update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// Add or update a label ("key=value")
    #[arg(long, value_parser = opts::label, value_name = "list")]
    label_add: Vec<(String, String)>,
    /// Remove a label if exists
    #[arg(long, value_name = "list")]
    label_rm: Vec<String>,
    #[command(flatten)]
    plan: PlanFlag,
    /// The config
    #[arg(value_name = "CONFIG")]
    config: String,
    /// Its new content; `-` for STDIN
    #[arg(value_name = "file|-")]
    file: Option<String>,
}

const NOUN: Noun = Noun {
    name: "config",
    path: "/configs",
    view: View {
        table: "{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
        quiet: "{{.ID}}",
        headers: &[
            ("ID", "ID"),
            ("Name", "NAME"),
            ("CreatedAt", "CREATED"),
            ("UpdatedAt", "UPDATED"),
            ("Labels", "LABELS"),
        ],
    },
    pretty: both::pretty_config,
};

/// Runs a verb.
pub(crate) async fn run(ctx: &Context, command: ConfigCommand) -> Result<(), CliError> {
    match command {
        ConfigCommand::Create(CreateArgs { plan, label, template_driver, config, file }) => {
            let create = Create { name: config, labels: label, plan, file: Some(file), template_driver, driver: None };
            both::create(ctx, &NOUN, create).await
        }
        ConfigCommand::Inspect(args) => both::inspect(ctx, &NOUN, &args.configs, &args.flags).await,
        ConfigCommand::Ls(args) => both::ls(ctx, &NOUN, &args).await,
        ConfigCommand::Rm(args) => both::rm(ctx, &NOUN, &args.configs, args.plan).await,
        ConfigCommand::Update(UpdateArgs { label_add, label_rm, plan, config, file }) => {
            both::update(ctx, &NOUN, Update { name: config, label_add, label_rm, plan, file }).await
        }
    }
}
