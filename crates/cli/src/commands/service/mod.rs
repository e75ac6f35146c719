//! `swarmlite service`.

mod auth;
mod flags;
mod list;
mod logs;
mod pretty;
mod progress;
mod references;
mod resolve;
mod spec;
#[cfg(test)]
mod spec_tests;
mod update;

pub(crate) use logs::moment;

use crate::client::{decode, escape};
use crate::commands::inspect;
use crate::context::{Context, each};
use crate::error::CliError;
use clap::{Args, Subcommand};
use docker_api::{Service, ServiceCreateResponse, ServiceSpec, ServiceUpdateResponse};

/// The verbs of `service`.
#[derive(Subcommand, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) enum ServiceCommand {
    /// Create a new service
    Create(Box<flags::CreateArgs>),
    /// Display detailed information on one or more services
    Inspect(InspectArgs),
    /// Fetch the logs of a service or task
    Logs(logs::LogsArgs),
    /// List services
    #[command(visible_alias = "list")]
    Ls(super::LsArgs),
    /// List the tasks of one or more services
    Ps(list::PsArgs),
    /// Remove one or more services
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Revert changes to a service's configuration
    Rollback(RollbackArgs),
    /// Scale one or multiple replicated services
    Scale(ScaleArgs),
    /// Update a service
    Update(Box<flags::UpdateArgs>),
}

/// `service inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    flags: inspect::InspectFlags,
    /// Services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

/// `service rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

/// `service rollback`.
#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Service
    service: String,
}

/// `service scale`.
#[derive(Args, Debug)]
pub(crate) struct ScaleArgs {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    detach: bool,
    /// Service and how many tasks it shall have
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    services: Vec<String>,
}

/// Runs a verb.
pub(crate) async fn run(ctx: &Context, command: ServiceCommand) -> Result<(), CliError> {
    match command {
        ServiceCommand::Create(args) => create(ctx, &args.0).await,
        ServiceCommand::Inspect(args) => {
            let paths: Vec<_> = args
                .services
                .iter()
                .map(|s| (s.clone(), format!("/services/{}?insertDefaults=true", escape(s))))
                .collect();
            inspect::run(ctx, "service", &paths, &args.flags, pretty::service).await
        }
        ServiceCommand::Logs(args) => logs::run(ctx, args).await,
        ServiceCommand::Ls(args) => list::ls(ctx, args).await,
        ServiceCommand::Ps(args) => list::ps(ctx, args).await,
        ServiceCommand::Rm(args) => each!(ctx, &args.services, async |name: &String| {
            ctx.client.delete(&format!("/services/{}", escape(name)), &[]).await?;
            ctx.line(name)
        }),
        ServiceCommand::Rollback(args) => rollback(ctx, &args).await,
        ServiceCommand::Scale(args) => scale(ctx, &args).await,
        ServiceCommand::Update(args) => change(ctx, &args.0).await,
    }
}

async fn get(ctx: &Context, name: &str) -> Result<Service, CliError> {
    Ok(ctx.client.get(&format!("/services/{}", escape(name)), &[]).await?)
}

/// What `--with-registry-auth` adds to a request.
async fn registry_auth(
    ctx: &Context,
    flags: &flags::Flags,
    spec: &ServiceSpec,
) -> Result<Vec<(&'static str, String)>, CliError> {
    match &spec.task_template.container_spec {
        Some(container) if flags.switch("with-registry-auth") => {
            Ok(vec![("X-Registry-Auth", auth::header(ctx, &container.image).await?)])
        }
        _ => Ok(Vec::new()),
    }
}

async fn post_update(
    ctx: &Context,
    service: &Service,
    spec: &ServiceSpec,
    more: &[(&str, &str)],
    auth: &[(&str, String)],
) -> Result<(), CliError> {
    let mut query = vec![("version", service.version.index.to_string())];
    query.extend(more.iter().map(|(k, v)| (*k, (*v).to_owned())));
    let path = format!("/services/{}/update", service.id);
    let bytes = ctx.client.post_with(&path, &query, spec, auth).await?;
    if !bytes.is_empty() {
        let response: ServiceUpdateResponse = decode(&path, &bytes)?;
        response.warnings.unwrap_or_default().iter().for_each(|w| ctx.note(w));
    }
    Ok(())
}

async fn create(ctx: &Context, flags: &flags::Flags) -> Result<(), CliError> {
    let mut spec = spec::build(ctx, flags).await?;
    references::create(ctx, flags, spec.task_template.container_spec.get_or_insert_default()).await?;
    let auth = registry_auth(ctx, flags, &spec).await?;
    let warning = resolve::pin(ctx, flags, &auth, &mut spec).await;
    let bytes = ctx.client.post_with("/services/create", &[], &spec, &auth).await?;
    let response: ServiceCreateResponse = decode("POST /services/create", &bytes)?;
    response.warnings.unwrap_or_default().iter().chain(&warning).for_each(|w| ctx.note(w));
    ctx.line(&response.id)?;
    if flags.switch("detach") { Ok(()) } else { progress::wait(ctx, &response.id, flags.switch("quiet")).await }
}

async fn change(ctx: &Context, flags: &flags::Flags) -> Result<(), CliError> {
    let name = flags.text("service");
    let service = get(ctx, &name).await?;
    let mut spec = service.spec.clone();
    let mut query = vec![("registryAuthFrom", "spec")];
    if flags.switch("rollback") {
        if !flags.only(&["rollback", "detach", "quiet", "service"]) {
            return Err(CliError::text("other flags may not be combined with --rollback"));
        }
        query = vec![("rollback", "previous")];
    }
    update::apply(flags, &mut spec)?;
    references::update(ctx, flags, spec.task_template.container_spec.get_or_insert_default()).await?;
    let auth = registry_auth(ctx, flags, &spec).await?;
    if !auth.is_empty() {
        query.retain(|(name, _)| *name != "registryAuthFrom");
    }
    let warning = if flags.given("image") { resolve::pin(ctx, flags, &auth, &mut spec).await } else { None };
    post_update(ctx, &service, &spec, &query, &auth).await?;
    warning.iter().for_each(|w| ctx.note(w));
    ctx.line(&name)?;
    if flags.switch("detach") { Ok(()) } else { progress::wait(ctx, &service.id, flags.switch("quiet")).await }
}

async fn rollback(ctx: &Context, args: &RollbackArgs) -> Result<(), CliError> {
    let service = get(ctx, &args.service).await?;
    post_update(ctx, &service, &service.spec, &[("rollback", "previous")], &[]).await?;
    ctx.line(&args.service)?;
    if args.detach { Ok(()) } else { progress::wait(ctx, &service.id, args.quiet).await }
}

async fn scale(ctx: &Context, args: &ScaleArgs) -> Result<(), CliError> {
    let mut wanted = Vec::new();
    for text in &args.services {
        let Some((name, replicas)) = text.split_once('=') else {
            let help = "See 'swarmlite service scale --help'.\n\nUsage:  swarmlite service scale SERVICE=REPLICAS [SERVICE=REPLICAS...]";
            return Err(CliError::text(format!(
                "invalid scale specifier '{text}'.\n{help}\n\nScale one or multiple replicated services"
            )));
        };
        wanted.push((name, replicas));
    }
    let mut scaled = Vec::new();
    let result = each!(ctx, wanted, async |(name, replicas): (&str, &str)| {
        scaled.push(scale_one(ctx, name, replicas).await.map_err(|e| CliError::text(format!("{name}: {e}")))?);
        Ok::<(), CliError>(())
    });
    if !args.detach {
        for (name, id) in &scaled {
            // With several services, each one's lines need its name above them.
            if scaled.len() > 1 {
                ctx.line(format!("{name}:"))?;
            }
            progress::wait(ctx, id, false).await?;
        }
    }
    result
}

async fn scale_one(ctx: &Context, name: &str, replicas: &str) -> Result<(String, String), CliError> {
    let number =
        crate::opts::uint(replicas).map_err(|e| CliError::text(format!("invalid replicas value {replicas}: {e}")))?;
    let service = get(ctx, name).await?;
    let mut spec = service.spec.clone();
    update::set_replicas(&mut spec, number)?;
    post_update(ctx, &service, &spec, &[], &[]).await?;
    ctx.line(format!("{name} scaled to {number}"))?;
    Ok((name.to_owned(), service.id))
}
