//! `swarmlite service`.

mod auth;
mod exec;
mod extensions;
mod flag_table;
mod flags;
#[cfg(test)]
mod golden_tests;
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
use crate::commands::plan::{self, PlanFlag};
use crate::commands::{inspect, why};
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
    /// Run a command in a container of a service, on whatever node it is
    Exec(exec::ExecArgs),
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
    /// Explain why tasks of a service are not where they should be
    Why(why::WhyArgs),
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
    #[command(flatten)]
    plan: PlanFlag,
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
    #[command(flatten)]
    plan: PlanFlag,
    /// Service
    service: String,
}

/// `service scale`.
#[derive(Args, Debug)]
pub(crate) struct ScaleArgs {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    plan: PlanFlag,
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
            inspect::run(ctx, "service", &paths, &args.flags, |raw| pretty::service(raw, ctx.now())).await
        }
        ServiceCommand::Logs(args) => logs::run(ctx, args).await,
        ServiceCommand::Ls(args) => list::ls(ctx, args).await,
        ServiceCommand::Ps(args) => list::ps(ctx, args).await,
        ServiceCommand::Rm(args) => each!(ctx, &args.services, async |name: &String| {
            let path = format!("/services/{}", escape(name));
            if args.plan.plan {
                return plan::delete(ctx, &path, &[]).await;
            }
            ctx.client.delete(&path, &[]).await?;
            ctx.line(name)
        }),
        ServiceCommand::Rollback(args) => rollback(ctx, &args).await,
        ServiceCommand::Scale(args) => scale(ctx, &args).await,
        ServiceCommand::Update(args) => change(ctx, &args.0).await,
        ServiceCommand::Exec(args) => exec::run(ctx, args).await,
        ServiceCommand::Why(args) => why::run(ctx, "services", args).await,
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
    let task = &spec.task_template;
    let image = task.container_spec.as_ref().map(|c| &c.image).or(task.plugin_spec.as_ref().map(|p| &p.remote));
    match image {
        Some(image) if flags.switch("with-registry-auth") => {
            Ok(vec![("X-Registry-Auth", auth::header(ctx, image).await?)])
        }
        _ => Ok(Vec::new()),
    }
}

/// An update of a service, ready to be sent or planned.
struct Update<'a> {
    service: &'a Service,
    spec: &'a ServiceSpec,
    /// What the query says beside the version.
    more: &'a [(&'a str, &'a str)],
    auth: &'a [(&'a str, String)],
}

impl Update<'_> {
    fn path(&self) -> String {
        format!("/services/{}/update", self.service.id)
    }

    fn query(&self) -> Vec<(&str, String)> {
        let more = self.more.iter().map(|(k, v)| (*k, (*v).to_owned()));
        [("version", self.service.version.index.to_string())].into_iter().chain(more).collect()
    }

    /// Sends it, and passes on what the daemon warns of.
    async fn send(&self, ctx: &Context) -> Result<(), CliError> {
        let path = self.path();
        let bytes = ctx.client.post_with(&path, &self.query(), self.spec, self.auth).await?;
        if !bytes.is_empty() {
            let response: ServiceUpdateResponse = decode(&path, &bytes)?;
            response.warnings.unwrap_or_default().iter().for_each(|w| ctx.note(w));
        }
        Ok(())
    }

    /// Shows what it would do.
    async fn plan(&self, ctx: &Context) -> Result<(), CliError> {
        plan::post(ctx, &self.path(), &self.query(), self.spec, self.auth).await
    }
}

async fn create(ctx: &Context, flags: &flags::Flags) -> Result<(), CliError> {
    let mut spec = spec::build(ctx, flags).await?;
    references::create(ctx, flags, &mut spec.task_template).await?;
    let auth = registry_auth(ctx, flags, &spec).await?;
    let warning = resolve::pin(ctx, flags, &auth, &mut spec).await;
    if flags.switch("plan") {
        return plan::post(ctx, "/services/create", &[], &spec, &auth).await;
    }
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
        if !flags.only(&["rollback", "detach", "quiet", "plan", "service"]) {
            return Err(CliError::text("other flags may not be combined with --rollback"));
        }
        query.push(("rollback", "previous"));
    }
    update::apply(flags, &mut spec)?;
    references::update(ctx, flags, &mut spec.task_template).await?;
    let auth = registry_auth(ctx, flags, &spec).await?;
    if !auth.is_empty() {
        query.retain(|(name, _)| *name != "registryAuthFrom");
    }
    let warning = if flags.given("image") { resolve::pin(ctx, flags, &auth, &mut spec).await } else { None };
    let update = Update { service: &service, spec: &spec, more: &query, auth: &auth };
    if flags.switch("plan") {
        return update.plan(ctx).await;
    }
    update.send(ctx).await?;
    warning.iter().for_each(|w| ctx.note(w));
    ctx.line(&name)?;
    let quiet = flags.switch("quiet");
    match (flags.switch("detach"), flags.switch("force")) {
        (true, _) => Ok(()),
        (false, true) => progress::wait_for_run(ctx, &service.id, quiet).await,
        (false, false) => progress::wait(ctx, &service.id, quiet).await,
    }
}

async fn rollback(ctx: &Context, args: &RollbackArgs) -> Result<(), CliError> {
    let service = get(ctx, &args.service).await?;
    let update = Update { service: &service, spec: &service.spec, more: &[("rollback", "previous")], auth: &[] };
    if args.plan.plan {
        return update.plan(ctx).await;
    }
    update.send(ctx).await?;
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
        match scale_one(ctx, name, replicas, args.plan).await {
            Ok(one) => scaled.push(one),
            Err(planned @ CliError::Silent(_)) => return Err(planned),
            Err(e) => return Err(CliError::text(format!("{name}: {e}"))),
        }
        Ok::<(), CliError>(())
    });
    if !args.detach && !args.plan.plan {
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

async fn scale_one(ctx: &Context, name: &str, replicas: &str, plan: PlanFlag) -> Result<(String, String), CliError> {
    let number =
        crate::opts::uint(replicas).map_err(|e| CliError::text(format!("invalid replicas value {replicas}: {e}")))?;
    let service = get(ctx, name).await?;
    let mut spec = service.spec.clone();
    update::set_replicas(&mut spec, number)?;
    let update = Update { service: &service, spec: &spec, more: &[], auth: &[] };
    if plan.plan {
        update.plan(ctx).await?;
    } else {
        update.send(ctx).await?;
        ctx.line(format!("{name} scaled to {number}"))?;
    }
    Ok((name.to_owned(), service.id))
}
