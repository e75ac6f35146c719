//! `inspect`, for every noun: what the daemon says, as it says it.

use crate::client::{ClientError, decode};
use crate::context::Context;
use crate::error::CliError;
use crate::format::json::indent;
use crate::format::template::Parsed;
use bytes::Bytes;
use clap::Args;

/// The flags of `inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectFlags {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long)]
    pub(crate) pretty: bool,
}

/// Inspects the objects at `paths` (name and API path). What is found is printed even when something else is not.
pub(crate) async fn run(
    ctx: &Context,
    noun: &str,
    paths: &[(String, String)],
    flags: &InspectFlags,
    pretty: impl Fn(&[u8]) -> Result<String, CliError>,
) -> Result<(), CliError> {
    if flags.pretty && flags.format.is_some() {
        return Err(CliError::text("--format is incompatible with human friendly format"));
    }
    let format = flags.format.as_deref().unwrap_or_default();
    let template =
        if format.is_empty() || format == "json" || flags.pretty { None } else { Some(Parsed::new(format)?) };
    let mut found: Vec<Bytes> = Vec::new();
    let mut failure = None;
    for (name, path) in paths {
        match ctx.client.get_raw(path, &[]).await {
            Ok(bytes) => found.push(bytes),
            // Docker's own words for a service alone; for a node it passes on the daemon's.
            Err(ClientError::Daemon { status: 404, .. }) if noun == "service" => {
                failure = Some(format!("Error: no such service: {name}"));
                break;
            }
            Err(e) => {
                failure = Some(e.to_string());
                break;
            }
        }
    }
    let text = found.iter().map(|b| std::str::from_utf8(b).map(str::trim)).collect::<Result<Vec<_>, _>>();
    let text = text.map_err(|e| CliError::text(format!("the daemon's answer is not text: {e}")))?;
    // Whatever is printed below was JSON to begin with.
    for object in &found {
        decode::<serde::de::IgnoredAny>("inspect", object)?;
    }
    match template {
        _ if flags.pretty => found.iter().try_for_each(|object| ctx.out(&pretty(object)?))?,
        Some(template) => {
            for object in &found {
                ctx.line(template.render(&decode("inspect", object)?)?)?;
            }
            if found.is_empty() {
                ctx.line("")?;
            }
        }
        None if format == "json" => ctx.line(format!("[{}]", text.join(",")))?,
        None if text.is_empty() => ctx.line("[]")?,
        None => {
            let objects: Vec<String> = text.iter().map(|object| format!("    {}", indent(object, 1))).collect();
            ctx.line(format!("[\n{}\n]", objects.join(",\n")))?;
        }
    }
    match failure {
        None => Ok(()),
        Some(failure) => Err(CliError::text(failure)),
    }
}
