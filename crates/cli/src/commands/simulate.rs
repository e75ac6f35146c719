//! `swarmlite simulate`: where everything would land if nodes were lost or drained, or services had other sizes.

use crate::client::decode;
use crate::commands::plan;
use crate::context::Context;
use crate::error::CliError;
use crate::opts;
use clap::Args;
use docker_api::SimulateRequest;

const PATH: &str = "/swarmlite/simulate";

/// `simulate`.
#[derive(Args, Debug)]
pub(crate) struct SimulateArgs {
    /// A node that is suddenly gone (may be given several times)
    #[arg(long, value_name = "NODE")]
    kill: Vec<String>,
    /// A node that is drained (may be given several times)
    #[arg(long, value_name = "NODE")]
    drain: Vec<String>,
    /// How many replicas a service has (may be given several times)
    #[arg(long, value_name = "SERVICE=N", value_parser = size)]
    scale: Vec<(String, u64)>,
    /// Format output: 'json'
    #[arg(long, value_name = "string", value_parser = ["json"], hide_possible_values = true)]
    format: Option<String>,
}

fn size(text: &str) -> Result<(String, u64), String> {
    let parts = text.rsplit_once('=').filter(|(service, _)| !service.is_empty());
    let (service, replicas) = parts.ok_or("it is a service and a number, such as web=5")?;
    Ok((service.to_owned(), opts::uint(replicas)?))
}

/// Asks what would come of it, and shows it. Nothing is changed. The exit code is that of a plan.
pub(crate) async fn run(ctx: &Context, args: SimulateArgs) -> Result<(), CliError> {
    if args.kill.is_empty() && args.drain.is_empty() && args.scale.is_empty() {
        return Err(CliError::text("nothing to simulate: give at least one of --kill, --drain and --scale"));
    }
    let request = SimulateRequest { kill: args.kill, drain: args.drain, scale: args.scale.into_iter().collect() };
    let answer = ctx.client.post(PATH, &[], &request).await?;
    let what = format!("POST {PATH}");
    if args.format.is_none() {
        return plan::show(ctx, &decode(&what, &answer)?);
    }
    let raw: serde_json::Value = decode(&what, &answer)?;
    ctx.line(crate::format::json::compact(&raw))?;
    if raw["Changes"] == true { Err(CliError::Silent(plan::EXIT_CHANGES)) } else { Ok(()) }
}
