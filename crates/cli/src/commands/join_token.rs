//! `swarmlite swarm join-token`: Docker's two standing tokens, and tokens with an end.

use super::swarm::{self, Info};
use crate::client::{decode, escape};
use crate::context::{Context, each};
use crate::error::CliError;
use crate::format::duration;
use crate::format::view::{Row, View, row};
use crate::opts;
use clap::{Args, Subcommand};
use docker_api::{GoDuration, GoTime, Node, Swarm, TokenCreateRequest, TokenCreateResponse, TokenSummary};
use std::time::Duration;

/// `swarm join-token`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct JoinTokenArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
    /// Rotate join token
    #[arg(long)]
    rotate: bool,
    /// For which role: worker or manager
    #[arg(value_name = "worker|manager", required = true)]
    role: Option<String>,
}

/// What there is beyond Docker's.
#[derive(Subcommand, Debug)]
enum Verb {
    /// Create a token with an end: by time, by uses, or by being revoked
    Create(CreateArgs),
    /// List the tokens that were created and still admit nodes
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Revoke one or more tokens; nodes that have joined with them stay
    Revoke(RevokeArgs),
}

/// `swarm join-token create`.
#[derive(Args, Debug)]
struct CreateArgs {
    /// Label that nodes which join with it are born with
    #[arg(long, value_parser = opts::label, value_name = "list")]
    label: Vec<(String, String)>,
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
    /// How long it admits nodes (ns|us|ms|s|m|h) (default without end)
    #[arg(long, value_parser = ttl, value_name = "duration")]
    ttl: Option<GoDuration>,
    /// How many nodes it admits (default any number)
    #[arg(long, value_parser = uses, value_name = "uint")]
    uses: Option<u64>,
    /// For which role: worker or manager
    #[arg(value_name = "worker|manager")]
    role: String,
}

/// `swarm join-token ls`.
#[derive(Args, Debug)]
struct ListArgs {
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Only display ids
    #[arg(short, long)]
    quiet: bool,
}

/// `swarm join-token revoke`.
#[derive(Args, Debug)]
struct RevokeArgs {
    /// Their ids, or beginnings of them
    #[arg(value_name = "TOKEN", required = true)]
    ids: Vec<String>,
}

const VIEW: View = View {
    table: "{{.ID}}\t{{.Role}}\t{{.Created}}\t{{.Expires}}\t{{.UsesLeft}}\t{{.Labels}}\t{{.Note}}",
    quiet: "{{.ID}}",
    headers: &[
        ("ID", "ID"),
        ("Role", "ROLE"),
        ("Created", "CREATED"),
        ("Expires", "EXPIRES"),
        ("UsesLeft", "USES LEFT"),
        ("Labels", "LABELS"),
        ("Note", "NOTE"),
    ],
};

fn ttl(text: &str) -> Result<GoDuration, String> {
    match opts::duration(text)? {
        GoDuration(0) => Err("must be more than 0; leave it out for a token without an end".to_owned()),
        ttl => Ok(ttl),
    }
}

fn uses(text: &str) -> Result<u64, String> {
    match opts::uint(text)? {
        0 => Err("must be at least 1; leave it out for any number of nodes".to_owned()),
        uses if uses > u64::from(u32::MAX) => Err(format!("must be at most {}", u32::MAX)),
        uses => Ok(uses),
    }
}

/// Runs it.
pub(crate) async fn run(ctx: &Context, args: JoinTokenArgs) -> Result<(), CliError> {
    match args.verb {
        Some(Verb::Create(create)) => self::create(ctx, create).await,
        Some(Verb::Ls(list)) => self::list(ctx, &list).await,
        Some(Verb::Revoke(revoke)) => each!(ctx, &revoke.ids, async |id: &String| {
            ctx.client.delete(&format!("/swarmlite/tokens/{}", escape(id)), &[]).await?;
            ctx.line(id)
        }),
        None => standing(ctx, args.role.as_deref().unwrap_or_default(), args.rotate, args.quiet).await,
    }
}

fn check_role(role: &str) -> Result<(), CliError> {
    match role {
        "worker" | "manager" => Ok(()),
        _ => Err(CliError::text(format!("unknown role {role}: must be worker or manager"))),
    }
}

/// Docker's `join-token`.
async fn standing(ctx: &Context, role: &str, rotate: bool, quiet: bool) -> Result<(), CliError> {
    check_role(role)?;
    if rotate {
        let swarm: Swarm = ctx.client.get("/swarm", &[]).await?;
        let query = [
            ("version", swarm.version.index.to_string()),
            ("rotateWorkerToken", (role == "worker").to_string()),
            ("rotateManagerToken", (role == "manager").to_string()),
            ("rotateManagerUnlockKey", "false".to_owned()),
        ];
        ctx.client.post("/swarm/update", &query, &swarm.spec).await?;
        if !quiet {
            ctx.line(format!("Successfully rotated {role} join token.\n"))?;
        }
    }
    // Also where the token is not printed by itself: a node that is no manager, or locked, says so here.
    let swarm: Swarm = ctx.client.get("/swarm", &[]).await?;
    let token = swarm::token(&swarm, role)?;
    if quiet {
        return ctx.line(token);
    }
    let info: Info = ctx.client.get("/info", &[]).await?;
    swarm::join_command(ctx, &info.swarm.node_id, role).await
}

async fn create(ctx: &Context, args: CreateArgs) -> Result<(), CliError> {
    check_role(&args.role)?;
    let request = TokenCreateRequest {
        role: args.role.clone(),
        ttl: args.ttl.unwrap_or_default(),
        uses: args.uses.unwrap_or_default(),
        labels: args.label.into_iter().collect(),
    };
    let answer = ctx.client.post("/swarmlite/tokens", &[], &request).await?;
    let made: TokenCreateResponse = decode("POST /swarmlite/tokens", &answer)?;
    if args.quiet {
        return ctx.line(&made.token.0);
    }
    let info: Info = ctx.client.get("/info", &[]).await?;
    let node: Node = ctx.client.get(&format!("/nodes/{}", info.swarm.node_id), &[]).await?;
    let addr = node.manager_status.map_or_else(|| "MANAGER:2377".to_owned(), |m| m.addr);
    let end = match (args.uses, args.ttl.and_then(GoDuration::to_std)) {
        (None, None) => "until it is revoked".to_owned(),
        (None, Some(ttl)) => format!("for {}", lower(&duration::human(ttl))),
        (Some(uses), None) => format!("for {}", nodes(uses)),
        (Some(uses), Some(ttl)) => format!("for {} within {}", nodes(uses), lower(&duration::human(ttl))),
    };
    ctx.line(format!(
        "To add a {} to this swarm, run the following command:\n\n    swarmlite swarm join --token {} {addr}\n\n\
         The token is good {end}. It is not shown again; its id is {}.",
        args.role, made.token.0, made.id
    ))
}

fn nodes(count: u64) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

/// `About an hour`, within a sentence.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

async fn list(ctx: &Context, args: &ListArgs) -> Result<(), CliError> {
    let tokens: Vec<TokenSummary> = ctx.client.get("/swarmlite/tokens", &[]).await?;
    let rows: Vec<Row> = tokens.iter().map(|token| token_row(token, ctx.now())).collect();
    ctx.out(&VIEW.render(&rows, args.format.as_deref(), args.quiet)?)
}

fn token_row(token: &TokenSummary, now: Duration) -> Row {
    let unix = |t: GoTime| Duration::from_nanos(u64::try_from(t.unix_ns()).unwrap_or(0));
    let labels: Vec<String> = token.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let expires = token.expires_at.map_or("never".to_owned(), |end| match unix(end).checked_sub(now) {
        None => "now".to_owned(),
        Some(left) => format!("in {}", lower(&duration::human(left))),
    });
    row! {
        "ID": token.id.as_str(),
        "Role": token.role.as_str(),
        "Created": duration::ago(token.created_at, now),
        "Expires": expires,
        "UsesLeft": token.uses_left.map_or("any".to_owned(), |n| n.to_string()),
        "Labels": labels.join(","),
        "Note": if token.old_root { "of the old root: revoke it" } else { "" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed() {
        let hour = 3_600_000_000_000;
        let token = TokenSummary {
            id: "a".repeat(25),
            role: "worker".into(),
            created_at: GoTime::from_unix_ns(hour),
            expires_at: Some(GoTime::from_unix_ns(4 * hour)),
            uses_left: Some(1),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            old_root: false,
        };
        let standing = TokenSummary {
            expires_at: None,
            uses_left: None,
            labels: Default::default(),
            old_root: true,
            ..token.clone()
        };
        let rows = [&token, &standing].map(|t| token_row(t, Duration::from_secs(3 * 3600)));
        let want = "\
ID                          ROLE      CREATED       EXPIRES            USES LEFT   LABELS    NOTE
aaaaaaaaaaaaaaaaaaaaaaaaa   worker    2 hours ago   in about an hour   1           zone=a
aaaaaaaaaaaaaaaaaaaaaaaaa   worker    2 hours ago   never              any                   of the old root: revoke it
";
        let shown = VIEW.render(&rows, None, false).unwrap();
        let trimmed = |s: &str| s.lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(trimmed(&shown), trimmed(want));
    }

    #[test]
    fn a_viewer_is_told_that_it_sees_no_tokens() {
        let mut shown = Swarm::default();
        let refused = swarm::token(&shown, "worker").unwrap_err().to_string();
        assert!(refused.contains("a viewer's certificate"), "{refused}");
        shown.join_tokens.manager = "SWMTKN-1-a-b".to_owned().into();
        assert_eq!(swarm::token(&shown, "manager").unwrap(), "SWMTKN-1-a-b");
        assert!(swarm::token(&shown, "worker").is_err());
    }

    #[test]
    fn an_end_that_is_none_is_refused() {
        assert!(ttl("0s").is_err() && ttl("-1h").is_err() && ttl("1h").is_ok());
        assert!(uses("0").is_err() && uses("4294967296").is_err() && uses("1").is_ok());
    }
}
