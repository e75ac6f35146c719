//! `service logs`.

use super::list::find_task;
use crate::client::{ClientError, Query, escape};
use crate::commands::service::get;
use crate::context::Context;
use crate::error::CliError;
use crate::format::short_id;
use clap::Args;
use docker_api::stdcopy::{Decoder, Stream as From};
use docker_api::{GoDuration, GoTime, Node, Service, Task};
use std::collections::BTreeMap;
use std::time::Duration;

/// `service logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Do not map IDs to Names in output
    #[arg(long)]
    no_resolve: bool,
    /// Do not include task IDs in output
    #[arg(long)]
    no_task_ids: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Do not neatly format logs
    #[arg(long)]
    raw: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    since: String,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, value_name = "string", default_value = "all", value_parser = tail)]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Service or task
    #[arg(value_name = "SERVICE|TASK")]
    name: String,
}

fn tail(text: &str) -> Result<String, String> {
    if text == "all" { Ok(text.to_owned()) } else { crate::opts::uint(text).map(|n| n.to_string()) }
}

/// A moment as Docker's flags take it: a time, seconds since the epoch, or how long ago.
pub(crate) fn moment(text: &str, now: Duration) -> Result<String, CliError> {
    let seconds = |ns: i128| format!("{}.{:09}", ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    if text.is_empty() {
        return Ok(String::new());
    }
    if text.parse::<f64>().is_ok_and(|s| s >= 0.0) {
        return Ok(text.to_owned());
    }
    if let Ok(ago) = text.parse::<GoDuration>() {
        return Ok(seconds(i128::try_from(now.as_nanos()).unwrap_or(i128::MAX) - i128::from(ago.0)));
    }
    // Docker takes a date or a time without its zone too.
    let candidates = [text.to_owned(), format!("{text}Z"), format!("{text}T00:00:00Z"), format!("{text}:00Z")];
    let time = candidates.iter().find_map(|t| t.parse::<GoTime>().ok());
    time.map(|t| seconds(t.unix_ns())).ok_or_else(|| {
        CliError::text(format!("{text:?} is not a time: give one like 2013-01-02T13:23:37Z, or how long ago, like 42m"))
    })
}

/// What a line's details say of its origin.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line<'a> {
    time: Option<&'a str>,
    node: String,
    service: String,
    task: String,
    other: BTreeMap<String, String>,
    message: &'a [u8],
}

struct Printer<'a> {
    ctx: &'a Context,
    args: &'a LogsArgs,
    /// Prefix of each task's lines.
    prefixes: BTreeMap<String, String>,
    padding: usize,
}

/// Prints the output of a service's tasks, or of one task.
pub(crate) async fn run(ctx: &Context, args: LogsArgs) -> Result<(), CliError> {
    let since = moment(&args.since, ctx.now())?;
    let flag = |on: bool| if on { "1" } else { "0" }.to_owned();
    let mut query: Vec<(&str, String)> = vec![
        ("stdout", flag(true)),
        ("stderr", flag(true)),
        ("follow", flag(args.follow)),
        ("timestamps", flag(args.timestamps)),
        ("tail", args.tail.clone()),
        // The details say which task a line is from.
        ("details", flag(args.details || !args.raw)),
    ];
    if !since.is_empty() {
        query.push(("since", since));
    }
    let (path, tty, replicas) = source(ctx, &args.name).await?;
    let printer = Printer { ctx, args: &args, prefixes: BTreeMap::new(), padding: digits(replicas) };
    printer.print(&path, &query, tty).await
}

/// The API path, whether there is a terminal in the container, and how many replicas there are at most.
async fn source(ctx: &Context, name: &str) -> Result<(String, bool, u64), CliError> {
    let tty = |spec: &docker_api::TaskSpec| spec.container_spec.as_ref().is_some_and(|c| c.tty);
    match get(ctx, name).await {
        Ok(service) => {
            let replicas = service.spec.mode.replicated.as_ref().and_then(|r| r.replicas).unwrap_or(1);
            Ok((format!("/services/{}/logs", service.id), tty(&service.spec.task_template), replicas))
        }
        Err(CliError::Client(ClientError::Daemon { status: 404, .. })) => match find_task(ctx, name).await? {
            Some(task) => Ok((format!("/tasks/{}/logs", task.id), tty(&task.spec), task.slot)),
            None => Err(CliError::text(format!("no such task or service: {name}"))),
        },
        Err(e) => Err(e),
    }
}

fn digits(n: u64) -> usize {
    n.to_string().len()
}

// === impl Printer ===

impl Printer<'_> {
    async fn print(mut self, path: &str, query: Query<'_>, tty: bool) -> Result<(), CliError> {
        let mut stream = self.ctx.client.stream(path, query).await?;
        let multiplexed =
            !tty && !stream.content_type.contains("raw-stream") || stream.content_type.contains("multiplexed");
        let mut decoder = Decoder::new();
        while let Some(bytes) = stream.next().await? {
            if !multiplexed {
                self.ctx.out_bytes(&bytes)?;
                continue;
            }
            decoder.feed(&bytes);
            while let Some(frame) = decoder.next_frame().map_err(|e| CliError::text(e.to_string()))? {
                match frame.stream {
                    From::SystemErr => {
                        let text = String::from_utf8_lossy(&frame.data).into_owned();
                        return Err(CliError::text(format!("error from daemon in stream: {}", text.trim_end())));
                    }
                    from => self.line(from, &frame.data).await?,
                }
            }
        }
        Ok(())
    }

    async fn line(&mut self, from: From, data: &[u8]) -> Result<(), CliError> {
        let mut out: Vec<u8> = Vec::with_capacity(data.len() + 64);
        match (self.args.raw, parse(data, self.args.timestamps)) {
            (false, Some(line)) => {
                out.extend(line.time.map(|t| format!("{t} ")).unwrap_or_default().bytes());
                out.extend(format!("{}    | ", self.prefix(&line).await).bytes());
                if self.args.details && !line.other.is_empty() {
                    let pairs: Vec<String> = line.other.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    out.extend(format!("{} ", pairs.join(",")).bytes());
                }
                out.extend_from_slice(line.message);
            }
            _ => out.extend_from_slice(data),
        }
        if from == From::Stderr { self.ctx.err_bytes(&out) } else { self.ctx.out_bytes(&out) }
    }

    /// `web.1.abcdefghijkl@host1`, with room for the longest slot.
    async fn prefix(&mut self, line: &Line<'_>) -> String {
        if let Some(prefix) = self.prefixes.get(&line.task) {
            return prefix.clone();
        }
        let client = &self.ctx.client;
        let task: Option<Task> = client.get(&format!("/tasks/{}", escape(&line.task)), &[]).await.ok();
        let (mut service, mut node) = (line.service.clone(), line.node.clone());
        if !self.args.no_resolve {
            let found: Option<Service> = client.get(&format!("/services/{}", escape(&service)), &[]).await.ok();
            service = found.map(|s| s.spec.name).filter(|n| !n.is_empty()).unwrap_or(service);
            let found: Option<Node> = client.get(&format!("/nodes/{}", escape(&node)), &[]).await.ok();
            node = found.map(|n| n.description.hostname).filter(|n| !n.is_empty()).unwrap_or(node);
        }
        let slot = task.map_or(0, |t| t.slot);
        let slot_text = if slot == 0 { line.node.clone() } else { slot.to_string() };
        let id = match (self.args.no_task_ids, self.args.no_trunc) {
            (true, _) => String::new(),
            (_, true) => format!(".{}", line.task),
            _ => format!(".{}", short_id(&line.task)),
        };
        let padding = " ".repeat(self.padding.saturating_sub(digits(slot)));
        let prefix = format!("{service}.{slot_text}{id}@{node}{padding}");
        self.prefixes.insert(line.task.clone(), prefix.clone());
        prefix
    }
}

/// Takes a line apart: `[TIME ]KEY=VALUE,KEY=VALUE MESSAGE`. `None` when it has no details, as an old daemon's.
fn parse(data: &[u8], timestamps: bool) -> Option<Line<'_>> {
    let cut = |bytes: &'_ [u8]| bytes.iter().position(|b| *b == b' ');
    let mut rest = data;
    let mut line = Line::default();
    if timestamps {
        let at = cut(rest)?;
        line.time = Some(std::str::from_utf8(&rest[..at]).ok()?);
        rest = &rest[at + 1..];
    }
    let at = cut(rest)?;
    let details = std::str::from_utf8(&rest[..at]).ok()?;
    line.message = &rest[at + 1..];
    for pair in details.split(',') {
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (unescape(key), unescape(value));
        match key.as_str() {
            "com.docker.swarm.node.id" => line.node = value,
            "com.docker.swarm.service.id" => line.service = value,
            "com.docker.swarm.task.id" => line.task = value,
            _ => drop(line.other.insert(key, value)),
        }
    }
    (!line.task.is_empty()).then_some(line)
}

/// Undoes Go's `url.QueryEscape`.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => out.push(b' '),
            b'%' => {
                let hex: Vec<u8> = bytes.by_ref().take(2).collect();
                let byte = std::str::from_utf8(&hex).ok().and_then(|h| u8::from_str_radix(h, 16).ok());
                out.push(byte.unwrap_or(b'?'));
            }
            b => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DETAILS: &str =
        "com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1,a%2Cb=c+d";

    #[test]
    fn a_line_says_where_it_is_from() {
        let text = format!("2026-01-01T00:00:00Z {DETAILS} hello = , world\n");
        let line = parse(text.as_bytes(), true).unwrap();
        assert_eq!(
            (line.time, line.node.as_str(), line.service.as_str(), line.task.as_str()),
            (Some("2026-01-01T00:00:00Z"), "n1", "s1", "t1")
        );
        assert_eq!(line.other, [("a,b".to_owned(), "c d".to_owned())].into());
        assert_eq!(line.message, b"hello = , world\n");
    }

    #[test]
    fn a_line_without_details_is_left_as_it_is() {
        for text in ["", "hello", "hello world", "a=b,c message"] {
            assert_eq!(parse(text.as_bytes(), false), None, "{text}");
        }
    }

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let now = Duration::from_secs(1000);
        for (text, want) in [
            ("", ""),
            ("900", "900"),
            ("42s", "958.000000000"),
            ("1970-01-01T00:01:00Z", "60.000000000"),
            ("1970-01-01", "0.000000000"),
            ("1970-01-01T00:01", "60.000000000"),
        ] {
            assert_eq!(moment(text, now).unwrap(), want, "{text}");
        }
        assert!(moment("yesterday", now).is_err());
    }
}
