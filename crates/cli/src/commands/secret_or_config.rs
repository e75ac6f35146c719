//! What `secret` and `config` have in common, which is nearly all. A secret's content goes in and never comes out again:
//! no message here quotes what was read.

use super::LsArgs;
use super::inspect::{self, InspectFlags};
use super::plan::{self, PlanFlag};
use crate::client::{decode, escape};
use crate::context::{Context, each};
use crate::error::CliError;
use crate::format::duration::{ago, pretty as pretty_time};
use crate::format::natural_cmp;
use crate::format::view::{Row, View, row};
use crate::opts;
use docker_api::{Data, Driver, IdResponse, SecretOrConfig, SecretOrConfigSpec};
use std::fmt::{self, Write as _};
use std::path::Path;
use tokio::io::AsyncReadExt as _;

/// More than the daemon takes of either: it is the one to say what is too much.
const CONTENT_BYTES_MAX: u64 = 2 << 20;

/// Which of the two.
pub(crate) struct Noun {
    /// `secret` or `config`.
    pub(crate) name: &'static str,
    /// Its endpoint.
    pub(crate) path: &'static str,
    /// How `ls` shows it.
    pub(crate) view: View,
    /// How `inspect --pretty` shows it.
    pub(crate) pretty: fn(&[u8]) -> Result<String, CliError>,
}

/// What `create` was told.
pub(crate) struct Create {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) plan: PlanFlag,
    pub(crate) file: Option<String>,
    pub(crate) template_driver: Option<String>,
    pub(crate) driver: Option<String>,
}

/// What `update` was told.
pub(crate) struct Update {
    pub(crate) name: String,
    pub(crate) label_add: Vec<(String, String)>,
    pub(crate) label_rm: Vec<String>,
    pub(crate) plan: PlanFlag,
    pub(crate) file: Option<String>,
}

/// `create`
pub(crate) async fn create(ctx: &Context, noun: &Noun, args: Create) -> Result<(), CliError> {
    let driver = |name: String| Driver { name, ..Driver::default() };
    let data = match (&args.driver, &args.file) {
        (Some(_), Some(_)) => return Err(CliError::text("When using secret driver secret data must be empty")),
        (Some(_), None) => Vec::new(),
        (None, Some(file)) => content(ctx, file).await?,
        (None, None) => return Err(CliError::text(format!("{} file is required", noun.name))),
    };
    let spec = SecretOrConfigSpec {
        name: args.name,
        labels: opts::to_map(&args.labels),
        data: Data(data),
        driver: args.driver.map(driver),
        templating: args.template_driver.map(driver),
    };
    let path = format!("{}/create", noun.path);
    if args.plan.plan {
        return plan::post(ctx, &path, &[], &spec, &[]).await;
    }
    let created: IdResponse = decode(&format!("POST {path}"), &ctx.client.post(&path, &[], &spec).await?)?;
    ctx.line(created.id)
}

/// What is in a file, or comes over standard input.
async fn content(ctx: &Context, file: &str) -> Result<Vec<u8>, CliError> {
    let (place, bytes) = if file == "-" {
        let mut bytes = Vec::new();
        let read = tokio::io::stdin().take(CONTENT_BYTES_MAX + 1).read_to_end(&mut bytes).await;
        read.map_err(|e| CliError::text(format!("error reading from STDIN: {e}")))?;
        ("STDIN", bytes)
    } else {
        let failed = |why: String| CliError::text(format!("error reading from {file}: {why}"));
        let read = ctx.disk.read(Path::new(file)).await.map_err(|e| failed(e.to_string()))?;
        let bytes = read.ok_or_else(|| failed(format!("open {file}: no such file or directory")))?;
        (file, bytes.to_vec())
    };
    match bytes.len() as u64 {
        0 => Err(CliError::text(format!("error reading from {place}: data is empty"))),
        n if n > CONTENT_BYTES_MAX => {
            let max = CONTENT_BYTES_MAX >> 20;
            Err(CliError::text(format!("error reading from {place}: it is longer than {max} MiB")))
        }
        _ => Ok(bytes),
    }
}

/// `update`: labels, and the content where a file is named.
pub(crate) async fn update(ctx: &Context, noun: &Noun, args: Update) -> Result<(), CliError> {
    let data = match &args.file {
        Some(file) => content(ctx, file).await?,
        None if args.label_add.is_empty() && args.label_rm.is_empty() => {
            return Err(CliError::text(format!(
                "nothing to change: name a file with the {}'s new content (or - for STDIN), or use --label-add or --label-rm",
                noun.name
            )));
        }
        None => Vec::new(),
    };
    let now: SecretOrConfig = ctx.client.get(&format!("{}/{}", noun.path, escape(&args.name)), &[]).await?;
    let mut spec = now.spec;
    // No data is no change of it.
    spec.data = Data(data);
    for key in &args.label_rm {
        spec.labels.remove(key);
    }
    spec.labels.extend(args.label_add);
    let version = [("version", now.version.index.to_string())];
    let path = format!("{}/{}/update", noun.path, now.id);
    if args.plan.plan {
        return plan::post(ctx, &path, &version, &spec, &[]).await;
    }
    ctx.client.post(&path, &version, &spec).await?;
    ctx.line(args.name)
}

/// `rm`
pub(crate) async fn rm(ctx: &Context, noun: &Noun, names: &[String], plan: PlanFlag) -> Result<(), CliError> {
    each!(ctx, names, async |name: &String| {
        let path = format!("{}/{}", noun.path, escape(name));
        if plan.plan {
            return plan::delete(ctx, &path, &[]).await;
        }
        ctx.client.delete(&path, &[]).await?;
        ctx.line(name)
    })
}

/// `inspect`
pub(crate) async fn inspect(
    ctx: &Context,
    noun: &Noun,
    names: &[String],
    flags: &InspectFlags,
) -> Result<(), CliError> {
    let paths: Vec<_> = names.iter().map(|n| (n.clone(), format!("{}/{}", noun.path, escape(n)))).collect();
    inspect::run(ctx, noun.name, &paths, flags, noun.pretty).await
}

/// `ls`
pub(crate) async fn ls(ctx: &Context, noun: &Noun, args: &LsArgs) -> Result<(), CliError> {
    let mut found: Vec<SecretOrConfig> = ctx.client.get(noun.path, &opts::filters_query(&args.filter)).await?;
    found.sort_by(|a, b| natural_cmp(&a.spec.name, &b.spec.name));
    let rows: Vec<Row> = found.iter().map(|s| to_row(s, ctx.now())).collect();
    ctx.out(&noun.view.render(&rows, args.format.as_deref(), args.quiet)?)
}

fn to_row(s: &SecretOrConfig, now: std::time::Duration) -> Row {
    let labels: Vec<String> = s.spec.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    row! {
        "ID": s.id.as_str(),
        "Name": s.spec.name.as_str(),
        "Driver": s.spec.driver.as_ref().map(|d| d.name.as_str()).unwrap_or_default(),
        "CreatedAt": ago(s.created_at, now),
        "UpdatedAt": ago(s.updated_at, now),
        "Labels": labels.join(","),
    }
}

/// `secret inspect --pretty`
pub(crate) fn pretty_secret(raw: &[u8]) -> Result<String, CliError> {
    let s: SecretOrConfig = decode("secret inspect", raw)?;
    let driver = s.spec.driver.as_ref().map(|d| d.name.as_str()).unwrap_or_default();
    shown(|out| {
        writeln!(out, "ID:              {}\nName:              {}", s.id, s.spec.name)?;
        labels(out, &s)?;
        writeln!(out, "Driver:            {driver}\nCreated at:        {}", pretty_time(s.created_at))?;
        writeln!(out, "Updated at:        {}", pretty_time(s.updated_at))
    })
}

/// `config inspect --pretty`
pub(crate) fn pretty_config(raw: &[u8]) -> Result<String, CliError> {
    let s: SecretOrConfig = decode("config inspect", raw)?;
    shown(|out| {
        writeln!(out, "ID:\t\t\t{}\nName:\t\t\t{}", s.id, s.spec.name)?;
        labels(out, &s)?;
        writeln!(out, "Created at:            \t{}", pretty_time(s.created_at))?;
        writeln!(out, "Updated at:            \t{}", pretty_time(s.updated_at))?;
        writeln!(out, "Data:\n{}", String::from_utf8_lossy(&s.spec.data.0))
    })
}

fn shown(write: impl FnOnce(&mut String) -> fmt::Result) -> Result<String, CliError> {
    let mut out = String::new();
    write(&mut out).map_err(|e| CliError::text(format!("cannot show it: {e}")))?;
    Ok(out)
}

fn labels(out: &mut String, s: &SecretOrConfig) -> fmt::Result {
    if s.spec.labels.is_empty() {
        return Ok(());
    }
    out.push_str("Labels:\n");
    let line = |k: &str, v: &str| if v.is_empty() { format!(" - {k}") } else { format!(" - {k}={v}") };
    s.spec.labels.iter().try_for_each(|(k, v)| writeln!(out, "{}", line(k, v)))
}
