//! A container's output.

use crate::{EngineError, LogChunk, LogOptions};
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use std::time::Duration;

/// Without `follow` the engine only reads files: silence for so long means that it hangs.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub(super) fn stream(
    docker: &Docker,
    endpoint: String,
    id: &str,
    options: LogOptions,
) -> BoxStream<'static, Result<LogChunk, EngineError>> {
    let tail = options.tail.map_or_else(|| "all".to_owned(), |n| n.to_string());
    // The engine takes whole seconds here; the rest is cut off below.
    let since = i32::try_from(options.since_unix_ns / 1_000_000_000).unwrap_or(i32::MAX);
    let asked = LogsOptionsBuilder::new()
        .stdout(options.stdout)
        .stderr(options.stderr)
        .follow(options.follow)
        .timestamps(true)
        .since(since)
        .tail(&tail)
        .build();
    let output = docker.logs(id, Some(asked)).boxed();
    stream::unfold((output, false), move |(mut output, ended)| {
        let endpoint = endpoint.clone();
        async move {
            if ended {
                return None;
            }
            let next = if options.follow {
                Ok(output.next().await)
            } else {
                tokio::time::timeout(SILENCE_MAX, output.next()).await
            };
            match next {
                Ok(None) => None,
                Ok(Some(Ok(piece))) => Some((Ok(chunk(piece)), (output, false))),
                Ok(Some(Err(bollard::errors::Error::DockerResponseServerError { message, .. }))) => {
                    Some((Err(EngineError::Failed(message)), (output, true)))
                }
                Ok(Some(Err(e))) => {
                    let reason = super::root_cause(&e);
                    Some((Err(EngineError::Unreachable { endpoint, reason }), (output, true)))
                }
                Err(_) => {
                    Some((Err(EngineError::Timeout { call: "send more output", after: SILENCE_MAX }), (output, true)))
                }
            }
        }
    })
    .filter(move |c| {
        std::future::ready(!c.as_ref().is_ok_and(|c| c.at_unix_ns != 0 && c.at_unix_ns <= options.since_unix_ns))
    })
    .boxed()
}

fn chunk(piece: LogOutput) -> LogChunk {
    let (stderr, line) = match piece {
        LogOutput::StdErr { message } => (true, message),
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            (false, message)
        }
    };
    let (at_unix_ns, data) = timestamp(&line).unwrap_or((0, line.clone()));
    LogChunk { stderr, at_unix_ns, data }
}

/// Splits `2026-01-02T03:04:05.678901234Z rest`.
fn timestamp(line: &Bytes) -> Option<(u64, Bytes)> {
    let space = line.iter().take(64).position(|b| *b == b' ')?;
    let time: jiff::Timestamp = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    Some((u64::try_from(time.as_nanosecond()).ok()?, line.slice(space + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_into_its_time_and_the_rest() {
        let out = |s: &'static str| chunk(LogOutput::StdOut { message: Bytes::from_static(s.as_bytes()) });
        let good = out("1970-01-01T00:00:01.000000002Z hello world\n");
        assert_eq!((good.at_unix_ns, &good.data[..]), (1_000_000_002, &b"hello world\n"[..]));
        let empty = out("1970-01-01T00:00:01Z \n");
        assert_eq!((empty.at_unix_ns, &empty.data[..]), (1_000_000_000, &b"\n"[..]));
        let odd = out("no time here\n");
        assert_eq!((odd.at_unix_ns, &odd.data[..]), (0, &b"no time here\n"[..]));
    }
}
