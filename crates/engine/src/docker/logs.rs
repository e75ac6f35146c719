//! A container's output.

use super::exec::segment;
use super::raw::{Answer, refused};
use super::{DockerEngine, READ_TIMEOUT};
use crate::{EngineError, LogChunk, LogOptions};
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use http::Request;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes of one line of output with its details; the engine's longest have 16 KiB and the details.
const LINE_BYTES_MAX: usize = 1 << 20;

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

impl DockerEngine {
    /// The details in front of the newest line: `KEY=VALUE,…` with URL escapes, then a space. bollard does not ask for them.
    pub(super) async fn details_of_output(&self, id: &str) -> Result<BTreeMap<String, String>, EngineError> {
        let version = self.client().await?.client_version();
        let path = format!("/v{version}/containers/{}/logs?stdout=1&stderr=1&tail=1&details=1", segment(id)?);
        let call = "give a container's output";
        match self.raw(call, READ_TIMEOUT, Request::get(path), Vec::new(), LINE_BYTES_MAX).await? {
            Answer::Whole(status, body) if status.is_success() => Ok(details(&body)),
            Answer::Whole(status, body) => Err(refused(status, &body)),
            Answer::Tunnel(..) => Ok(BTreeMap::new()),
        }
    }
}

/// Takes the details out of a line, which may be in a frame.
fn details(line: &[u8]) -> BTreeMap<String, String> {
    let line = match line {
        [1 | 2, 0, 0, 0, _, _, _, _, content @ ..] => content,
        raw => raw,
    };
    let end = line.iter().position(|b| matches!(b, b' ' | b'\n')).unwrap_or(0);
    let pairs = line[..end].split(|b| *b == b',').filter(|pair| !pair.is_empty());
    pairs.flat_map(form_urlencoded::parse).map(|(k, v)| (k.into_owned(), v.into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_what_stands_before_the_first_space() {
        let of = |line: &[u8]| details(line).into_iter().map(|(k, v)| format!("{k} is {v}")).collect::<Vec<_>>();
        assert_eq!(of(b"\x01\0\0\0\0\0\0\x0fa=b+c,d%2Ce=%3D x y\n"), ["a is b c", "d,e is ="]);
        assert_eq!(of(b"\x02\0\0\0\0\0\0\x03 x\n"), [""; 0]);
        assert_eq!(of(b"a=b text of a terminal\r\n"), ["a is b"]);
        assert_eq!(of(b" a=b\r\n"), [""; 0]);
        assert_eq!(of(b""), [""; 0]);
    }

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
