//! `swarmlite secret`.

use super::LsArgs;
use super::inspect::InspectFlags;
use super::plan::PlanFlag;
use super::secret_or_config::{self as both, Create, Noun, Update};
use crate::context::Context;
use crate::error::CliError;
use crate::format::view::View;
use crate::opts;
use clap::{Args, Subcommand};

/// The verbs of `secret`.
#[derive(Subcommand, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) enum SecretCommand {
    /// Create a secret from a file or STDIN as content
    Create(CreateArgs),
    /// Display detailed information on one or more secrets
    Inspect(InspectArgs),
    /// List secrets
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove one or more secrets
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Change a secret's labels or, from a file or STDIN, its content
    Update(UpdateArgs),
}

/// `secret create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    plan: PlanFlag,
    /// Secret driver (not supported)
    #[arg(short, long, value_name = "string", hide = true)]
    driver: Option<String>,
    /// Secret labels
    #[arg(short, long, value_parser = opts::label, value_name = "list")]
    label: Vec<(String, String)>,
    /// Template driver
    #[arg(long, value_name = "string")]
    template_driver: Option<String>,
    /// Its name
    #[arg(value_name = "SECRET")]
    secret: String,
    /// Its content; `-` for STDIN
    #[arg(value_name = "file|-")]
    file: Option<String>,
}

/// `secret inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    flags: InspectFlags,
    /// Secrets
    #[arg(required = true, value_name = "SECRET")]
    secrets: Vec<String>,
}

/// `secret rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    plan: PlanFlag,
    /// Secrets
    #[arg(required = true, value_name = "SECRET")]
    secrets: Vec<String>,
}

/// `secret update`.
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
    /// The secret
    #[arg(value_name = "SECRET")]
    secret: String,
    /// Its new content; `-` for STDIN
    #[arg(value_name = "file|-")]
    file: Option<String>,
}

const NOUN: Noun = Noun {
    name: "secret",
    path: "/secrets",
    view: View {
        table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
        quiet: "{{.ID}}",
        headers: &[
            ("ID", "ID"),
            ("Name", "NAME"),
            ("Driver", "DRIVER"),
            ("CreatedAt", "CREATED"),
            ("UpdatedAt", "UPDATED"),
            ("Labels", "LABELS"),
        ],
    },
    pretty: both::pretty_secret,
};

/// Runs a verb.
pub(crate) async fn run(ctx: &Context, command: SecretCommand) -> Result<(), CliError> {
    match command {
        SecretCommand::Create(CreateArgs { plan, driver, label, template_driver, secret, file }) => {
            both::create(ctx, &NOUN, Create { name: secret, labels: label, plan, file, template_driver, driver }).await
        }
        SecretCommand::Inspect(args) => both::inspect(ctx, &NOUN, &args.secrets, &args.flags).await,
        SecretCommand::Ls(args) => both::ls(ctx, &NOUN, &args).await,
        SecretCommand::Rm(args) => both::rm(ctx, &NOUN, &args.secrets, args.plan).await,
        SecretCommand::Update(UpdateArgs { label_add, label_rm, plan, secret, file }) => {
            both::update(ctx, &NOUN, Update { name: secret, label_add, label_rm, plan, file }).await
        }
    }
}
