//! `node rebalance`: moves tasks to the nodes that have fewer, which the swarm never does by itself unless told so.

use crate::client::decode;
use crate::commands::plan::{self, PlanFlag};
use crate::context::Context;
use crate::error::CliError;
use clap::Args;
use docker_api::RebalanceRequest;

const PATH: &str = "/swarmlite/rebalance";

/// `node rebalance`.
#[derive(Args, Debug)]
pub(crate) struct RebalanceArgs {
    #[command(flatten)]
    plan: PlanFlag,
    /// Services whose tasks are moved; all, when none is given
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Starts to rebalance. It goes on in the background, one task of a service at a time.
pub(crate) async fn run(ctx: &Context, args: RebalanceArgs) -> Result<(), CliError> {
    let request = RebalanceRequest { services: args.services };
    if args.plan.plan {
        return plan::post(ctx, PATH, &[], &request, &[]).await;
    }
    let answer = ctx.client.post(PATH, &[], &request).await?;
    let started: RebalanceRequest = if answer.is_empty() { request } else { decode(&format!("POST {PATH}"), &answer)? };
    match started.services.as_slice() {
        [] => ctx.line("Rebalancing all services, one task of each at a time.")?,
        some => ctx.line(format!("Rebalancing {}, one task of each at a time.", some.join(", ")))?,
    }
    ctx.line("Use `swarmlite node rebalance --plan` to see what is left to do.")
}
