//! `swarmlite system events`.

use super::service::moment;
use crate::context::Context;
use crate::error::CliError;
use crate::format::template::Parsed;
use crate::opts;
use clap::Args;
use docker_api::{EventMessage, GoTime};

/// `events`.
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Filter output based on conditions provided
    #[arg(short, long, value_parser = opts::filter, value_name = "filter")]
    filter: Vec<(String, String)>,
    /// Format output: 'json' or a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    since: String,
    /// Stream events until this timestamp
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    until: String,
}

/// The longest event: what is longer is no event.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Prints events as they come, until the daemon ends the stream (`--until`) or the user has seen enough.
pub(crate) async fn run(ctx: &Context, args: EventsArgs) -> Result<(), CliError> {
    let format = args.format.as_deref().unwrap_or_default();
    let template = if format.is_empty() || format == "json" { None } else { Some(Parsed::new(format)?) };
    let mut query = opts::filters_query(&args.filter);
    for (name, text) in [("since", &args.since), ("until", &args.until)] {
        let time = moment(text, ctx.now())?;
        if !time.is_empty() {
            query.push((name, time));
        }
    }
    let mut stream = ctx.client.stream("/events", &query).await?;
    let mut buffer = Vec::new();
    while let Some(bytes) = stream.next().await? {
        buffer.extend_from_slice(&bytes);
        // Docker separates events by nothing that can be relied on: each is a JSON value, and the next one follows.
        let mut events = serde_json::Deserializer::from_slice(&buffer).into_iter::<serde_json::Value>();
        let mut used = 0;
        while let Some(event) = events.next() {
            match event {
                Ok(event) => {
                    used = events.byte_offset();
                    ctx.line(shown(event, format == "json", template.as_ref())?)?;
                }
                Err(e) if e.is_eof() => break,
                Err(e) => return Err(CliError::text(format!("the daemon sent an event that cannot be read: {e}"))),
            }
        }
        buffer.drain(..used);
        if buffer.len() > EVENT_BYTES_MAX {
            return Err(CliError::text(format!("the daemon sent an event of more than {EVENT_BYTES_MAX} bytes")));
        }
    }
    Ok(())
}

fn shown(event: serde_json::Value, json: bool, template: Option<&Parsed>) -> Result<String, CliError> {
    if json {
        return Ok(crate::format::json::compact(&event));
    }
    if let Some(template) = template {
        return Ok(template.render(&with_go_names(event))?);
    }
    let event: EventMessage = serde_json::from_value(event)
        .map_err(|e| CliError::text(format!("the daemon sent an event that cannot be read: {e}")))?;
    let nanos =
        if event.time_unix_ns > 0 { event.time_unix_ns } else { event.time_unix_s.saturating_mul(1_000_000_000) };
    let time = GoTime::from_unix_ns(u64::try_from(nanos).unwrap_or_default());
    let time = time.timestamp().strftime("%Y-%m-%dT%H:%M:%S%.9fZ");
    let mut line = format!("{time} {} {} {}", event.kind, event.action, event.actor.id);
    if !event.actor.attributes.is_empty() {
        let pairs: Vec<String> = event.actor.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        line.push_str(&format!(" ({})", pairs.join(", ")));
    }
    Ok(line)
}

/// A template knows the fields by Go's names, which differ from JSON's here.
fn with_go_names(mut event: serde_json::Value) -> serde_json::Value {
    if let Some(fields) = event.as_object_mut() {
        for (json, go) in [("scope", "Scope"), ("time", "Time"), ("timeNano", "TimeNano")] {
            if let Some(value) = fields.remove(json) {
                fields.insert(go.to_owned(), value);
            }
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_a_line() {
        let event = json!({"Type": "service", "Action": "create", "Actor": {"ID": "abc", "Attributes": {"name": "web", "image": "nginx"}},
            "scope": "swarm", "time": 1_700_000_000, "timeNano": 1_700_000_000_000_000_001_i64});
        assert_eq!(
            shown(event.clone(), false, None).unwrap(),
            "2023-11-14T22:13:20.000000001Z service create abc (image=nginx, name=web)"
        );
        let template = Parsed::new("{{.Scope}} {{.Actor.Attributes.name}}").unwrap();
        assert_eq!(shown(event, false, Some(&template)).unwrap(), "swarm web");
    }
}
